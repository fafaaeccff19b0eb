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

// VerifierOptions steer a [Verifier].
type VerifierOptions struct {
	// Preset is sampling.VLLM, which the zero value stands for, or
	// sampling.Nanochat. DraftPreset is that of the draft; the zero value stands for
	// sampling.VLLM too.
	Preset, DraftPreset sampling.Preset
	// MostTopK and MostDraftTopK are the largest top_k of a sequence, where sequences have
	// their own. They change the time, never a token. 0 stands for TopK of the
	// parameters.
	MostTopK, MostDraftTopK int
	// FirstDraw is the number of the draw of the first sequence.
	FirstDraw uint32
	// InvalidToken is what stands behind the last token of a sequence. A 0 stands for -1.
	InvalidToken int32
	// Dependent is that of [Options].
	Dependent bool
}

// VerifyShape describes a batch of sequences whose drafts are verified.
type VerifyShape struct {
	Sequences int // 0 is allowed
	Drafts    int // the most drafted tokens of a sequence, 0 to MostDrafts
	Vocab     int // logits in a row, at most sampling.MaxVocab
	// Stride is the number of elements from the start of one row of the target's logits
	// to the start of the next; 0 stands for Vocab.
	Stride int
}

// MostDrafts is the most drafted tokens that a sequence may have.
const MostDrafts = 1 << 16

// Drafts are what was proposed: the addresses of tokens, and of the law that each was
// drawn from.
type Drafts struct {
	// Tokens are [Sequences, Drafts] int32, or int64 with Index64, sequences Stride
	// elements apart, or Drafts with a Stride of 0.
	Tokens  Pointer
	Index64 bool
	Stride  int
	// Counts, if not 0, are [Sequences] int32: how many tokens of each sequence are
	// there. What lies behind them, here and in the laws, is not read.
	Counts Pointer
	// Logits are [Sequences, Drafts, Vocab] of the dtype of the target's, to which the draft's
	// parameters apply. Or Probabilities are [Sequences, Drafts, Vocab] float32, each from 0
	// to 1, taken at 2^-42. Rows are LawStride elements apart, or Vocab with a LawStride of 0.
	Logits, Probabilities Pointer
	LawStride             int
}

// Verified is where the answer goes.
type Verified struct {
	// Tokens become [Sequences, Drafts+1] int32, or int64 with Index64, sequences Stride elements
	// apart, or Drafts+1 with a Stride of 0: those that stand, one more, and InvalidToken.
	Tokens   Pointer
	Index64  bool
	Stride   int
	Accepted Pointer // [Sequences] int32: how many drafted tokens stand; or 0
	Status   Pointer // [Sequences] uint8, each a sampling.Status; or 0
}

// VerifyBytes returns the workspace that so many sequences need.
func VerifyBytes(sequences int) int { return 8 * sequences }

// Verifier accepts as many of the tokens that a cheaper law has drafted as the target's
// law lets it, and draws one more, for many sequences in one launch. It is safe for use
// by many goroutines, on many streams at once. Its tokens are those of sampling.Sampler.Verify, to
// the bit.
//
// Target and draft have the presets vllm and nanochat, of their steps temperature,
// min_p, top_k and top_p, and softcap.
type Verifier struct {
	owned
	options   VerifierOptions
	arguments verifyArguments
	calls     sync.Pool // of *verifyCall
	team      int       // blocks of a row, for tests; 0: as many as fit
}

// verifyCall is what the driver reads of a call.
type verifyCall struct {
	arguments verifyArguments
	launch    driver.Launch
}

// NewVerifier returns a Verifier. Seed and Position are those of the target's parameters.
// Errors are those of [Device.NewSampler].
func (d *Device) NewVerifier(target, draft sampling.Params, options VerifierOptions) (*Verifier, error) {
	if err := d.usable(); err != nil {
		return nil, err
	}
	v := &Verifier{options: options}
	for _, side := range []struct {
		name     string
		params   sampling.Params
		preset   sampling.Preset
		mostTopK int
		law      *lawArguments
	}{
		{"target", target, options.Preset, options.MostTopK, &v.arguments.target},
		{"draft", draft, options.DraftPreset, options.MostDraftTopK, &v.arguments.draft},
	} {
		_, err := sampling.New[float32](side.params, sampling.Options{Preset: side.preset})
		if err == nil {
			err = verifiable(side.params, side.preset)
		}
		if err != nil {
			return nil, fmt.Errorf("cuda: %s: %w", side.name, err)
		}
		if side.mostTopK < 0 {
			return nil, fmt.Errorf("cuda: %s: most top_k = %d is negative: %w", side.name, side.mostTopK, ErrUnsupported)
		}
		*side.law = lawOf(side.params, side.preset, side.mostTopK)
	}
	if options.Dependent && d.architecture.Major < clusterMajor {
		return nil, fmt.Errorf("cuda: device %d: programmatic dependent launch on compute capability %d.%d, want %d.0 or later: %w",
			d.properties.Ordinal, d.architecture.Major, d.architecture.Minor, clusterMajor, ErrUnsupported)
	}
	a := &v.arguments
	a.seed, a.position, a.firstDraw, a.invalidToken = target.Seed, target.Position, options.FirstDraw, options.InvalidToken
	if a.invalidToken == 0 {
		a.invalidToken = sampling.NoToken
	}
	v.calls.New = func() any {
		c := &verifyCall{}
		d.library.Prepare(&c.launch, unsafe.Pointer(&c.arguments))
		return c
	}
	if err := d.own(&v.owned, "a verifier", func() error { return d.load(verifierSymbols()...) }, func() error { return nil }); err != nil {
		return nil, err
	}
	return v, nil
}

// lawOf returns how parameters make laws of logits.
func lawOf(p sampling.Params, preset sampling.Preset, mostTopK int) lawArguments {
	law := lawArguments{
		temperature: p.Temperature, topK: int32(min(max(p.TopK, 0), math.MaxInt32)), topP: p.TopP, minP: p.MinP, softcap: p.Softcap,
		greedyBelow: presetGreedyBelow(preset),
	}
	if law.topP == 0 {
		law.topP = 1
	}
	if preset == sampling.Nanochat {
		law.minPLast = 1
	}
	const room = 1024 // candidates of 64 bits that are ranked in shared memory
	k := mostTopK
	if k == 0 {
		k = int(law.topK)
	}
	if k == 0 || k > room {
		k = room
	}
	law.k = int32(k)
	return law
}

// presetGreedyBelow returns where a preset starts to be greedy.
func presetGreedyBelow(preset sampling.Preset) float32 {
	if preset == sampling.Nanochat {
		return law.ColdestTemperature
	}
	return greedyBelow
}

// verifiable reports the preset or the first step that the device does not have where it
// verifies.
func verifiable(p sampling.Params, preset sampling.Preset) error {
	if err := supported(p, preset); err != nil {
		return err
	}
	for _, step := range []struct {
		name sampling.Step
		on   bool
	}{
		{sampling.LogitBias, len(p.LogitBias) > 0},
		{sampling.Bitmask, len(p.GrammarBitmask) > 0},
		{sampling.Penalties, p.RepetitionPenalty != 0 && p.RepetitionPenalty != 1 || p.FrequencyPenalty != 0 || p.PresencePenalty != 0},
		{sampling.TypicalP, p.TypicalP != 0 && p.TypicalP < 1},
		{sampling.TopNSigma, p.TopNSigma > 0},
		{sampling.XTC, p.XTCProbability > 0},
	} {
		if step.on {
			return fmt.Errorf("step %s where drafts are verified: %w", step.name, ErrUnsupported)
		}
	}
	return nil
}

// VerifyDevice puts the verification of the drafts of all sequences into the stream and returns;
// [Stream.Synchronize] reports what fails later. The call neither allocates nor
// synchronises, and can be captured in a graph. logits are those of the target:
// [Sequences, Drafts+1, Vocab], the row for each drafted token, and the one behind
// them all.
//
// Parameters, seeds and positions are of sequences: [Sequences] each. Row i of a sequence is
// sampled at its position and i more. Seed and Position of the draft are not read. If one
// seed serves all sequences, each has a draw of its own, in their order. Parameters of a step
// that a Verifier does not have, and edits, are an error that wraps [ErrUnsupported] and names it.
//
// What is wrong with a row at which the chain arrives is told by the status of
// the sequence, and leaves the others as they are: the tokens before that row stand. A
// parameter, count, drafted token or probability that is out of range is a bad parameter of the whole
// sequence, of which no token then stands.
//
// The workspace has VerifyBytes. They must be 0 before its first call, and are 0 behind each,
// so that it serves one call after the other. Too little is an error that wraps
// [ErrWorkspace]. Calls that may run at the same time need one each.
func (v *Verifier) VerifyDevice(stream *Stream, logits Logits, shape VerifyShape, target, draft RowParams, drafts Drafts, to Verified, workspace Workspace) error {
	if err := v.usable(); err != nil {
		return err
	}
	if err := v.check(stream, logits, shape, target, draft, drafts, to, workspace); err != nil || shape.Sequences == 0 {
		return err
	}
	kernel, err := v.device.kernel(verifySymbols[logits.DType])
	if err != nil {
		return err
	}
	c := v.calls.Get().(*verifyCall)
	defer v.calls.Put(c)
	c.arguments = v.arguments
	a := &c.arguments
	a.target.take(logits.Pointer, shape.stride(), shape.Vocab, target)
	a.draft.take(drafts.Logits, drafts.lawStride(shape), shape.Vocab, draft)
	a.probabilities, a.drafted, a.draftedCount = drafts.Probabilities, drafts.Tokens, drafts.Counts
	a.rowSeed, a.rowPosition = target.Seed, target.Position
	a.tokens, a.accepted, a.status, a.workspace = to.Tokens, to.Accepted, to.Status, workspace.Pointer
	a.draftedStride, a.resultStride = int64(drafts.stride(shape)), int64(to.stride(shape))
	a.sequences, a.drafts, a.vocab = int32(shape.Sequences), int32(shape.Drafts), int32(shape.Vocab)
	a.indexBytes, a.draftedBytes = int32(Result{Index64: to.Index64}.indexBytes()), int32(Result{Index64: drafts.Index64}.indexBytes())
	if target.Seed == 0 {
		a.rowDraws = 1
	}
	rows := shape.Sequences * (shape.Drafts + 1)
	blocks := v.teamBlocks(rows, shape.Vocab)
	c.launch.Configure(rows*blocks, blockThreads, blocks, v.options.Dependent)
	return v.device.launch(&c.launch, kernel, stream)
}

// teamBlocks returns how many blocks a row gets: as long as all run at once, and have
// some thousand ids each.
func (v *Verifier) teamBlocks(rows, vocab int) int {
	const (
		most        = 8
		together    = 2 // blocks of a multiprocessor
		leastOfPart = 1 << 12
	)
	if v.team > 0 {
		return v.team
	}
	d := v.device
	blocks := 1
	for 2*blocks <= min(most, d.architecture.ClusterBlocks) && rows*2*blocks <= together*d.properties.Multiprocessors && vocab >= 2*blocks*leastOfPart {
		blocks *= 2
	}
	return blocks
}

// take has the law be that of these rows.
func (l *lawArguments) take(logits Pointer, stride, vocab int, rows RowParams) {
	l.logits, l.stride = logits, int64(stride)
	l.rowTemperature, l.rowTopK, l.rowTopP, l.rowMinP = rows.Temperature, rows.TopK, rows.TopP, rows.MinP
	l.k = min(l.k, int32(vocab))
	l.groups = int32(groups(int(l.k), PlanOptions{}))
}

// stride returns the elements from one row of the target to the next.
func (s VerifyShape) stride() int { return orElse(s.Stride, s.Vocab) }

// stride returns the elements from the drafted tokens of one sequence to those of the next.
func (d Drafts) stride(shape VerifyShape) int { return orElse(d.Stride, shape.Drafts) }

// lawStride returns the elements from one row of the draft's laws to the next.
func (d Drafts) lawStride(shape VerifyShape) int { return orElse(d.LawStride, shape.Vocab) }

// stride returns the elements from the tokens of one sequence to those of the next.
func (v Verified) stride(shape VerifyShape) int { return orElse(v.Stride, shape.Drafts+1) }

// orElse returns a stride, or another if that is 0.
func orElse(stride, other int) int {
	if stride == 0 {
		return other
	}
	return stride
}

// check reports what is wrong with a call.
func (v *Verifier) check(stream *Stream, logits Logits, shape VerifyShape, target, draft RowParams, drafts Drafts, to Verified, workspace Workspace) error {
	d := v.device
	if err := d.checkStream(stream); err != nil {
		return err
	}
	if err := logits.DType.validate(); err != nil {
		return err
	}
	switch {
	case shape.Sequences < 0:
		return fmt.Errorf("cuda: sequences = %d is negative: %w", shape.Sequences, topk.ErrShape)
	case shape.Drafts < 0 || shape.Drafts > MostDrafts:
		return fmt.Errorf("cuda: drafts = %d is outside 0 to %d: %w", shape.Drafts, MostDrafts, topk.ErrShape)
	case shape.Vocab < 1 || shape.Vocab > sampling.MaxVocab:
		return fmt.Errorf("cuda: vocab = %d is outside 1 to %d: %w", shape.Vocab, sampling.MaxVocab, topk.ErrShape)
	case shape.Sequences > math.MaxInt32/(shape.Drafts+1):
		return fmt.Errorf("cuda: sequences = %d with drafts = %d exceed %d rows: %w", shape.Sequences, shape.Drafts, math.MaxInt32, topk.ErrShape)
	}
	rows := shape.Sequences * (shape.Drafts + 1)
	for _, stride := range [...]struct {
		name         string
		given, least int
	}{
		{"stride", shape.stride(), shape.Vocab},
		{"stride of the draft's laws", drafts.lawStride(shape), shape.Vocab},
		{"stride of drafted tokens", drafts.stride(shape), shape.Drafts},
		{"token stride", to.stride(shape), shape.Drafts + 1},
	} {
		if stride.given < stride.least || stride.given > math.MaxInt/8/max(1, rows) {
			return fmt.Errorf("cuda: %s = %d, want at least %d, and rows = %d times it without overflow: %w", stride.name, stride.given, stride.least, rows, topk.ErrShape)
		}
	}
	if shape.Sequences == 0 {
		return nil
	}
	for _, rows := range [...]*RowParams{&target, &draft} {
		if step := rows.notOfVerifier(); step != "" {
			return fmt.Errorf("cuda: step %s where drafts are verified: %w", step, ErrUnsupported)
		}
	}
	if shape.Drafts > 0 && (drafts.Logits == 0) == (drafts.Probabilities == 0) {
		return fmt.Errorf("cuda: a draft has logits or probabilities, and not both: %w", topk.ErrShape)
	}
	if need := VerifyBytes(shape.Sequences); workspace.Pointer == 0 || workspace.Bytes < need {
		return fmt.Errorf("cuda: verification needs a workspace of %d bytes for %d sequences, got %d: %w", need, shape.Sequences, workspace.Bytes, ErrWorkspace)
	}
	for _, memory := range [...]struct {
		name    string
		pointer Pointer
		bytes   int
		needed  bool
	}{
		{"logits", logits.Pointer, logits.DType.Bytes(), true},
		{"drafted tokens", drafts.Tokens, Result{Index64: drafts.Index64}.indexBytes(), shape.Drafts > 0},
		{"drafted counts", drafts.Counts, 4, false},
		{"draft logits", drafts.Logits, logits.DType.Bytes(), false},
		{"draft probabilities", drafts.Probabilities, 4, false},
		{"tokens", to.Tokens, Result{Index64: to.Index64}.indexBytes(), true},
		{"accepted", to.Accepted, 4, false},
		{"statuses", to.Status, 1, false},
		{"workspace", workspace.Pointer, 8, true},
		{"temperatures", target.Temperature, 4, false},
		{"top_k", target.TopK, 4, false},
		{"top_p", target.TopP, 4, false},
		{"min_p", target.MinP, 4, false},
		{"seeds", target.Seed, 8, false},
		{"positions", target.Position, 8, false},
		{"draft temperatures", draft.Temperature, 4, false},
		{"draft top_k", draft.TopK, 4, false},
		{"draft top_p", draft.TopP, 4, false},
		{"draft min_p", draft.MinP, 4, false},
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

// notOfVerifier returns the first step that rows have parameters for and a [Verifier] does not have, or
// none.
func (rows *RowParams) notOfVerifier() sampling.Step {
	e := &rows.Edits
	switch {
	case e.Bitmask != 0:
		return sampling.Bitmask
	case e.BiasCount != 0:
		return sampling.LogitBias
	case e.PenaltyCount != 0 || rows.Repetition|rows.Frequency|rows.Presence != 0:
		return sampling.Penalties
	case rows.TypicalP != 0:
		return sampling.TypicalP
	case rows.TopNSigma != 0:
		return sampling.TopNSigma
	case rows.XTCProbability|rows.XTCThreshold != 0:
		return sampling.XTC
	}
	return ""
}

// verifySymbols are the kernels for each type.
var verifySymbols = func() (symbols [len(dtypes)]string) {
	for t, names := range dtypes {
		symbols[t] = "verify_" + names.symbol
	}
	return symbols
}()
