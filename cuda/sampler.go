package cuda

import (
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// SamplerOptions steer a [Sampler].
type SamplerOptions struct {
	// Preset is sampling.VLLM, which the zero value stands for, or
	// sampling.Nanochat.
	Preset sampling.Preset
	// MostTopK is the largest top_k of a row, where rows have their own: see
	// [Sampler.MostKept]. It changes the time, never a token. 0 stands for TopK of the
	// parameters.
	MostTopK int
	// FirstDraw is the number of a row's first draw.
	FirstDraw uint32
	// InvalidToken is what a row gets in place of a token that it has not. A 0
	// stands for -1.
	InvalidToken int32
	// Dependent is that of [Options].
	Dependent bool
}

// RowParams are the addresses of parameters of each row, [Rows] of the type that is
// named. 0 stands for the parameter that the Sampler was made with. They are read
// when the kernel runs, so that a captured graph serves every step. There, top_p = 1,
// min_p = 0, typical_p = 1, top_n_sigma = 0, xtc_probability = 0 and a top_k below 1 are off.
type RowParams struct {
	Temperature, TopP, MinP, TypicalP       Pointer // float32
	TopNSigma, XTCProbability, XTCThreshold Pointer // float32
	TopK                                    Pointer // int32
	Seed, Position                          Pointer // uint64
	Repetition, Frequency, Presence         Pointer // float32: of the step penalties
	Edits                                   Edits
}

// Tokens is where the answer goes.
type Tokens struct {
	Tokens  Pointer // [Rows, Draws] int32, or int64 with Index64
	Index64 bool
	Draws   int     // of a row; 0 stands for 1
	Stride  int     // elements from one row to the next; 0 stands for Draws
	Status  Pointer // [Rows] uint8, each a sampling.Status; or 0
	// Kept becomes [Rows, MostKept] int32: the kept set of each row in contract order; and
	// KeptCount [Rows] int32, their numbers, -1 for a row of which [Sampler.MostKept] says
	// that it is drawn from by passes: its kept set is not told. Both or neither are 0.
	// KeptProbabilities, [Rows, MostKept] float32, are what the kept are likely; or 0.
	Kept, KeptCount, KeptProbabilities Pointer
	// Logprobs becomes [Rows, Draws] float32: the natural logprobs of the tokens, within 1e-6
	// times the larger of 1 and their magnitude; and Ranks [Rows, Draws] int32, from 1 for
	// the most likely; or 0. No token has -Inf and the rank 0.
	Logprobs, Ranks Pointer
	// TopIDs and TopLogprobs become [Rows, TopCount] int32 and float32: the TopCount most likely
	// tokens, at most 1,024, and their logprobs. Where there are fewer, InvalidToken
	// and -Inf stand for the others, as in a row without tokens. Both or neither are 0.
	TopIDs, TopLogprobs Pointer
	TopCount            int
	// Processed makes logprobs and ranks those among the kept set of a row, in place of those of the
	// logits as they came, at a temperature of 1. A row that is drawn from by passes has
	// none then: they are those of no token.
	Processed bool
}

// draws returns the tokens of a row.
func (t Tokens) draws() int { return max(1, t.Draws) }

// stride returns the elements from one row of tokens to the next.
func (t Tokens) stride() int {
	if t.Stride == 0 {
		return t.draws()
	}
	return t.Stride
}

// Sampler draws the tokens of batches in device memory, in one launch, and is safe for
// use by many goroutines, on many streams at once. Its tokens are those of package
// sampling, to the bit. Edits of rows without a top-k are a launch before that, and logprobs of edited rows as they came
// one behind it.
//
// It has the presets vllm and nanochat, of their steps temperature, min_p, top_k, top_p,
// typical_p, top_n_sigma and xtc, the last three behind a top_k of at most [Sampler.MostKept];
// and softcap, and [Edits].
type Sampler struct {
	owned
	penalties [3]float32 // repetition, frequency, presence
	options   SamplerOptions
	arguments sampleArguments
	calls     sync.Pool // of *sampleCall
}

// sampleCall is what the driver reads of a call.
type sampleCall struct {
	arguments sampleArguments
	launch    driver.Launch
	edited    sampleArguments
	before    driver.Launch // of the edits
	told      sampleArguments
	behind    driver.Launch // of the logprobs of logits that were edited

	stamps Pointer // of an instrumented call, see Sampler.SamplePhases
	plan   Launch  // of the launch that samples
	whole  bool    // whether that is for rows without a top-k
}

// NewSampler returns a Sampler. Parameters out of range are an error that wraps
// sampling.ErrParams; a preset or step that the device does not have is one that
// wraps [ErrUnsupported] and names it. Params.Draws and Logprobs are not read: a call
// says them. Nor is PenaltyLastN: whoever lists the tokens of [Edits] chooses how many
// of the last there are.
func (d *Device) NewSampler(params sampling.Params, options SamplerOptions) (*Sampler, error) {
	if err := d.usable(); err != nil {
		return nil, err
	}
	if _, err := sampling.New[float32](params, sampling.Options{Preset: options.Preset}); err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	if err := supported(params, options.Preset); err != nil {
		return nil, err
	}
	if options.Dependent && d.architecture.Major < clusterMajor {
		return nil, fmt.Errorf("cuda: device %d: programmatic dependent launch on compute capability %d.%d, want %d.0 or later: %w",
			d.properties.Ordinal, d.architecture.Major, d.architecture.Minor, clusterMajor, ErrUnsupported)
	}
	if options.MostTopK < 0 {
		return nil, fmt.Errorf("cuda: most top_k = %d is negative: %w", options.MostTopK, ErrUnsupported)
	}
	if options.InvalidToken == 0 {
		options.InvalidToken = sampling.NoToken
	}
	repetition := params.RepetitionPenalty
	if repetition == 0 {
		repetition = 1
	}
	s := &Sampler{options: options, penalties: [3]float32{repetition, params.FrequencyPenalty, params.PresencePenalty}, arguments: sampleArguments{
		seed: params.Seed, position: params.Position,
		temperature: params.Temperature, topK: int32(min(max(params.TopK, 0), math.MaxInt32)), topP: params.TopP, minP: params.MinP, softcap: params.Softcap,
		typicalP: params.TypicalP, topNSigma: max(0, params.TopNSigma), xtcProbability: params.XTCProbability, xtcThreshold: params.XTCThreshold,
		repetition: repetition, frequency: params.FrequencyPenalty, presence: params.PresencePenalty,
		greedyBelow: greedyBelow, firstDraw: options.FirstDraw,
	}}
	a := &s.arguments
	for _, p := range [...]*float32{&a.topP, &a.typicalP} {
		if *p == 0 {
			*p = 1
		}
	}
	if a.xtcThreshold == 0 && !params.Has("xtc_threshold") { // by name 0 is a threshold
		a.xtcThreshold = 1
	}
	if options.Preset == sampling.Nanochat {
		a.greedyBelow, a.minPLast = law.ColdestTemperature, 1
	}
	if params.Replacement {
		a.replacement = 1
	}
	s.calls.New = func() any {
		c := &sampleCall{}
		d.library.Prepare(&c.launch, unsafe.Pointer(&c.arguments))
		d.library.Prepare(&c.before, unsafe.Pointer(&c.edited))
		d.library.Prepare(&c.behind, unsafe.Pointer(&c.told))
		return c
	}
	if err := d.own(&s.owned, "a sampler", func() error { return d.load(samplerSymbols()...) }, func() error { return nil }); err != nil {
		return nil, err
	}
	return s, nil
}

// greedyBelow is where the preset vllm starts to be greedy.
const greedyBelow = 1e-5

// supported reports the preset or the first step that the device does not have.
func supported(p sampling.Params, preset sampling.Preset) error {
	if preset != "" && preset != sampling.VLLM && preset != sampling.Nanochat {
		return fmt.Errorf("cuda: preset %q: %w", preset, ErrUnsupported)
	}
	for _, step := range []struct {
		name sampling.Step
		on   bool
	}{
		{sampling.AllowedIDs, len(p.AllowedIDs) > 0},
		{sampling.BannedIDs, len(p.BannedIDs) > 0},
		{sampling.Bitmask, len(p.GrammarBitmask) > 0},
		{sampling.LogitBias, len(p.LogitBias) > 0},
		{sampling.EncoderPenalty, p.EncoderRepetitionPenalty != 0 && p.EncoderRepetitionPenalty != 1},
		{sampling.DRY, p.DRYMultiplier != 0},
		{sampling.NoRepeatNgram, p.NoRepeatNgramSize > 0},
		{sampling.EncoderNoRepeatNgram, p.EncoderNoRepeatNgramSize > 0},
		{sampling.BadWords, len(p.BadWords) > 0},
		{sampling.SequenceBias, len(p.SequenceBias) > 0},
		{sampling.MinTokens, p.MinTokens > 0},
		{sampling.ForcedIDs, len(p.ForcedIDs) > 0},
		{sampling.DynamicTemperature, p.DynatempRange > 0},
		{sampling.EpsilonCutoff, p.EpsilonCutoff > 0},
		{sampling.EtaCutoff, p.EtaCutoff > 0},
		{sampling.TopH, p.TopH != 0 && p.TopH < 1},
		{"xtc_special_ids", len(p.XTCSpecialIDs) > 0 && p.XTCProbability > 0},
		{sampling.AdaptiveP, p.AdaptiveTarget > 0 || p.AdaptiveTarget == 0 && p.Has("adaptive_target")},
		{"min_keep", p.MinKeep > 1},
	} {
		if step.on {
			return fmt.Errorf("cuda: step %s on a device: %w", step.name, ErrUnsupported)
		}
	}
	return nil
}

// SampleDevice puts the sampling of Draws tokens of each row into the stream and
// returns; [Stream.Synchronize] reports what fails later. The call neither allocates nor
// synchronises, and can be captured in a graph. Of the shape, K and RowK are not used.
//
// What is wrong with a row is told by its status, and leaves the others as they are: also
// a parameter of the row that is out of its range. If one seed serves all rows, row i uses
// the draws i*Draws to i*Draws+Draws-1, so that equal rows get different tokens.
func (s *Sampler) SampleDevice(stream *Stream, logits Logits, shape Shape, rows RowParams, tokens Tokens) error {
	if err := s.usable(); err != nil {
		return err
	}
	c := s.calls.Get().(*sampleCall)
	defer s.calls.Put(c)
	return s.sampleBy(c, stream, logits, shape, &rows, &tokens)
}

// sampleBy checks and launches a call.
func (s *Sampler) sampleBy(c *sampleCall, stream *Stream, logits Logits, shape Shape, rows *RowParams, tokens *Tokens) error {
	if (s.penalises() || rows.Repetition|rows.Frequency|rows.Presence != 0) && rows.Edits.PenaltyIDs == 0 {
		return fmt.Errorf("cuda: step %s without the tokens that it counts, see Edits: %w", sampling.Penalties, ErrUnsupported)
	}
	shape.K, shape.RowK = 0, 0
	if err := s.check(stream, logits, shape, *rows, *tokens); err != nil || shape.Rows == 0 {
		return err
	}
	way := s.wayOfEdits(shape.Vocab, rows)
	if way != noEdits {
		if err := s.checkEdits(shape, rows, way); err != nil {
			return err
		}
		if tokens.Logprobs|tokens.TopIDs != 0 && !tokens.Processed {
			without := *tokens
			without.Logprobs, without.Ranks, without.TopIDs, without.TopLogprobs, without.TopCount = 0, 0, 0, 0, 0
			if err := s.launchSample(c, stream, logits, shape, rows, &without, way, sampling.NoToken); err != nil {
				return err
			}
			return s.launchLogprobs(c, stream, logits, shape, tokens)
		}
	}
	return s.launchSample(c, stream, logits, shape, rows, tokens, way, s.options.InvalidToken)
}

// launchSample launches a call that is checked. invalid is what stands for no token.
func (s *Sampler) launchSample(c *sampleCall, stream *Stream, logits Logits, shape Shape, rows *RowParams, tokens *Tokens, way wayOfEdits, invalid int32) error {
	softcap := s.arguments.softcap
	if way == editsBefore {
		if err := s.launchEdits(c, stream, logits, shape, rows); err != nil {
			return err
		}
		softcap = s.softcapBehindEdits()
		logits, shape.Stride, shape.Expand = Logits{rows.Edits.Workspace.Pointer, Float32}, shape.Vocab, false
	}
	k := s.MostKept(logits.DType, shape.Vocab)
	if way == editsInLaunch {
		k = s.MostKept(Float32, shape.Vocab)
	}
	if step := s.stepBehind(); step != "" && rows.TopK == 0 && !s.fits(*rows, k, shape.Vocab) {
		return fmt.Errorf("cuda: step %s behind a top_k of %d, of which there is room for %d: %w", step, s.arguments.topK, k, ErrUnsupported)
	}
	c.whole = way != editsInLaunch && s.whole(shape, rows, tokens, k)
	c.plan = chooseSample(sampleShape{
		rows: shape.Rows, vocab: shape.Vocab, dtype: logits.DType, edited: way == editsInLaunch, whole: c.whole,
	}, s.device.architecture)
	if c.stamps != 0 {
		c.plan.Symbol = phasesPrefix + c.plan.Symbol
	}
	kernel, err := s.device.kernel(c.plan.Symbol)
	if err != nil {
		return err
	}
	c.arguments = s.arguments
	a := &c.arguments
	a.selectArguments = selectArguments{
		logits: logits.Pointer, rowLengths: shape.RowLengths, workspace: c.stamps,
		stride: int64(shape.stride()), rows: int32(shape.Rows), vocab: int32(shape.Vocab),
		k: int32(k), groups: int32(groups(k, PlanOptions{})), chunks: int32(c.plan.Cluster),
	}
	if a.softcap = softcap; way == editsInLaunch {
		a.setEdits(rows)
	}
	a.rowTemperature, a.rowTopK, a.rowTopP, a.rowMinP = rows.Temperature, rows.TopK, rows.TopP, rows.MinP
	a.rowTypicalP, a.rowTopNSigma, a.rowXtcProbability, a.rowXtcThreshold = rows.TypicalP, rows.TopNSigma, rows.XTCProbability, rows.XTCThreshold
	a.rowSeed, a.rowPosition = rows.Seed, rows.Position
	a.setTokens(tokens, invalid)
	if rows.Seed == 0 {
		a.rowDraws = a.draws
	}
	c.launch.Configure(c.plan.Grid, c.plan.Block, c.plan.Cluster, s.options.Dependent)
	return s.device.launch(&c.launch, kernel, stream)
}

// setTokens tells a kernel where the answer goes, and what stands for no token.
func (a *sampleArguments) setTokens(tokens *Tokens, invalid int32) {
	a.invalidToken = invalid
	a.resultStride, a.indexBytes = int64(tokens.stride()), int32(Result{Index64: tokens.Index64}.indexBytes())
	a.tokens, a.status, a.draws = tokens.Tokens, tokens.Status, int32(tokens.draws())
	a.kept, a.keptCount, a.keptProbabilities = tokens.Kept, tokens.KeptCount, tokens.KeptProbabilities
	a.logprobs, a.ranks, a.topIds, a.topLogprobs, a.topCount = tokens.Logprobs, tokens.Ranks, tokens.TopIDs, tokens.TopLogprobs, int32(tokens.TopCount)
	if tokens.Processed {
		a.processed = 1
	}
}

// launchLogprobs launches what tells the logprobs of the logits as they came, of tokens that the launch before it drew from
// edited rows, with sampling.NoToken for none: InvalidToken, which takes its place, may be an id.
func (s *Sampler) launchLogprobs(c *sampleCall, stream *Stream, logits Logits, shape Shape, tokens *Tokens) error {
	plan := chooseSample(sampleShape{rows: shape.Rows, vocab: shape.Vocab, dtype: logits.DType}, s.device.architecture)
	kernel, err := s.device.kernel(plan.Symbol)
	if err != nil {
		return err
	}
	k := min(max(1, tokens.TopCount), shape.Vocab)
	c.told = sampleArguments{selectArguments: selectArguments{
		logits: logits.Pointer, rowLengths: shape.RowLengths, stride: int64(shape.stride()), rows: int32(shape.Rows), vocab: int32(shape.Vocab),
		k: int32(k), groups: int32(groups(k, PlanOptions{})), chunks: 1,
	}, temperature: 1, topP: 1, typicalP: 1, xtcThreshold: 1, told: 1}
	c.told.setTokens(tokens, s.options.InvalidToken)
	c.told.kept, c.told.keptCount, c.told.keptProbabilities = 0, 0, 0
	c.behind.Configure(plan.Grid, plan.Block, plan.Cluster, s.options.Dependent)
	return s.device.launch(&c.behind, kernel, stream)
}

// whole reports whether the rows of a call have no top-k and are told nothing but tokens.
func (s *Sampler) whole(shape Shape, rows *RowParams, tokens *Tokens, k int) bool {
	a := &s.arguments
	answers := tokens.Kept | tokens.Logprobs | tokens.TopIDs
	steps := rows.TopK | rows.TypicalP | rows.TopNSigma | rows.XTCProbability | rows.XTCThreshold
	greedy := rows.Temperature == 0 && a.temperature < a.greedyBelow
	return answers == 0 && steps == 0 && (a.topK == 0 || int(a.topK) >= shape.Vocab) && k < shape.Vocab && !greedy
}

// stepBehind returns the first step behind top_p that the parameters turn on, or none.
func (s *Sampler) stepBehind() sampling.Step {
	a := &s.arguments
	switch {
	case a.typicalP < 1:
		return sampling.TypicalP
	case a.topNSigma > 0:
		return sampling.TopNSigma
	case a.xtcProbability > 0 && a.xtcThreshold <= 0.5:
		return sampling.XTC
	}
	return ""
}

// fits reports whether there is room for the k tokens that the parameters leave of a row.
func (s *Sampler) fits(rows RowParams, k, vocab int) bool {
	a := &s.arguments
	return vocab <= k || a.topK > 0 && int(a.topK) <= k || rows.Temperature == 0 && a.temperature < a.greedyBelow
}

// check reports what is wrong with a call.
func (s *Sampler) check(stream *Stream, logits Logits, shape Shape, rows RowParams, tokens Tokens) error {
	d := s.device
	if err := d.checkStream(stream); err != nil {
		return err
	}
	if err := logits.DType.validate(); err != nil {
		return err
	}
	if err := shape.validate(); err != nil {
		return err
	}
	draws, stride := tokens.draws(), tokens.stride()
	switch {
	case shape.Vocab < 1 || shape.Vocab > sampling.MaxVocab:
		return fmt.Errorf("cuda: vocab = %d is outside 1 to %d: %w", shape.Vocab, sampling.MaxVocab, topk.ErrShape)
	case tokens.Draws < 0 || draws > math.MaxInt32/max(1, shape.Rows):
		return fmt.Errorf("cuda: draws = %d of rows = %d: %w", tokens.Draws, shape.Rows, topk.ErrShape)
	case stride < draws:
		return fmt.Errorf("cuda: token stride = %d is less than draws = %d: %w", stride, draws, topk.ErrShape)
	case stride > math.MaxInt/max(1, shape.Rows):
		return fmt.Errorf("cuda: rows = %d times token stride = %d overflows: %w", shape.Rows, stride, topk.ErrShape)
	case (tokens.Kept == 0) != (tokens.KeptCount == 0):
		return fmt.Errorf("cuda: the kept set without its count: %w", topk.ErrShape)
	case tokens.KeptProbabilities != 0 && tokens.Kept == 0:
		return fmt.Errorf("cuda: probabilities of the kept set without its tokens: %w", topk.ErrShape)
	case tokens.Ranks != 0 && tokens.Logprobs == 0:
		return fmt.Errorf("cuda: ranks without logprobs: %w", topk.ErrShape)
	case (tokens.TopIDs == 0) != (tokens.TopLogprobs == 0) || (tokens.TopIDs == 0) != (tokens.TopCount == 0):
		return fmt.Errorf("cuda: the most likely tokens need ids, logprobs and a count, got %d: %w", tokens.TopCount, topk.ErrShape)
	case tokens.TopCount < 0 || tokens.TopCount > mostTop:
		return fmt.Errorf("cuda: top count = %d is outside 0 to %d: %w", tokens.TopCount, mostTop, topk.ErrShape)
	}
	if shape.Rows == 0 {
		return nil
	}
	tokenBytes := Result{Index64: tokens.Index64}.indexBytes()
	for _, memory := range [...]struct {
		name    string
		pointer Pointer
		bytes   int
		needed  bool
	}{
		{"logits", logits.Pointer, logits.DType.Bytes(), true},
		{"tokens", tokens.Tokens, tokenBytes, true},
		{"row lengths", shape.RowLengths, 4, false},
		{"temperatures", rows.Temperature, 4, false},
		{"top_k", rows.TopK, 4, false},
		{"top_p", rows.TopP, 4, false},
		{"min_p", rows.MinP, 4, false},
		{"typical_p", rows.TypicalP, 4, false},
		{"top_n_sigma", rows.TopNSigma, 4, false},
		{"xtc_probability", rows.XTCProbability, 4, false},
		{"xtc_threshold", rows.XTCThreshold, 4, false},
		{"seeds", rows.Seed, 8, false},
		{"positions", rows.Position, 8, false},
		{"repetition penalties", rows.Repetition, 4, false},
		{"frequency penalties", rows.Frequency, 4, false},
		{"presence penalties", rows.Presence, 4, false},
		{"statuses", tokens.Status, 1, false},
		{"kept", tokens.Kept, 4, false},
		{"kept counts", tokens.KeptCount, 4, false},
		{"kept probabilities", tokens.KeptProbabilities, 4, false},
		{"logprobs", tokens.Logprobs, 4, false},
		{"ranks", tokens.Ranks, 4, false},
		{"top ids", tokens.TopIDs, 4, false},
		{"top logprobs", tokens.TopLogprobs, 4, false},
	} {
		if memory.pointer == 0 && !memory.needed {
			continue
		}
		if err := d.checkPointer(memory.name, memory.pointer, memory.bytes); err != nil {
			return err
		}
	}
	return nil
}

// mostTop is the most that TopCount may be: what every kernel has room for.
const mostTop = 1024

// MostKept returns how many tokens a row may have among which a call draws fast: as many
// as the option MostTopK or the parameter TopK says, or as there is room for. A row with a
// larger top_k, or without one, is drawn from by passes over all of it, unless its
// vocabulary is no larger.
func (s *Sampler) MostKept(dtype DType, vocab int) int {
	room := mostTop
	if width(PlanShape{DType: dtype, Vocab: vocab}) == narrow {
		room = 2048
	}
	k := s.options.MostTopK
	if k == 0 {
		k = int(s.arguments.topK)
	}
	if k == 0 || k > room {
		k = room
	}
	return min(k, vocab)
}
