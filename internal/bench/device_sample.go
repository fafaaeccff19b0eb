package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Samplings of a GPU, beside [Greedy], [MinP], [TopP] and [NoFilter].
const (
	Pipeline         = "pipeline" // top_k of the case, top_p .9, min_p .05, temperature .8
	EditedPipeline   = "edits"    // that, with a bitmask of half, penalties over 64 tokens and 20 biases
	LogprobPipeline  = "logprobs" // that, with the raw logprobs of the chosen token and of the 20 best
	NanochatPipeline = "nanochat" // softcap 15, top_k of the case, temperature .8
)

// DeviceSamplings lists what a GPU does with the rows of work Sample.
func DeviceSamplings() []string {
	return []string{Pipeline, EditedPipeline, LogprobPipeline, NanochatPipeline, Greedy, MinP, TopP, NoFilter}
}

// DeviceSamplingsOf is SamplingsOf for a GPU.
func DeviceSamplingsOf(work string) []string {
	if work == Sample {
		return DeviceSamplings()
	}
	return []string{""}
}

// References of work Sample on a GPU, beside Select, the top-k alone of the same rows.
const PlainPipeline = "pipeline alone"

// Unsupported begins the reason of a bar whose sampling the device does not have.
const Unsupported = "unsupported: "

const (
	biasCount, penaltyCount = 20, 64
	logprobCount            = 20
)

// deviceParams returns the parameters that all rows of a case share; each row has a
// seed and a position of its own, in device memory.
func (c Case) deviceParams() (sampling.Params, sampling.Preset) {
	p := sampling.Params{Temperature: 0.8, TopK: c.TopK, TopP: 0.9, MinP: 0.05}
	switch c.Sampling {
	case EditedPipeline:
		p.RepetitionPenalty, p.FrequencyPenalty, p.PresencePenalty = 1.1, 0.1, 0.1
	case LogprobPipeline:
		p.Logprobs = logprobCount // which a call is asked for, not the sampler
	case NanochatPipeline:
		return sampling.Params{Temperature: 0.8, TopK: c.TopK, Softcap: 15}, sampling.Nanochat
	case Greedy:
		p = sampling.Params{}
	case MinP:
		p = sampling.Params{Temperature: 1, MinP: 0.05}
	case TopP:
		p = sampling.Params{Temperature: 1, TopP: 0.95}
	case NoFilter:
		p = sampling.Params{Temperature: 1}
	}
	return p, sampling.VLLM
}

// reference names what a sampling is compared with, "" if that is other software.
func (c Case) deviceReference() string {
	switch c.Sampling {
	case Pipeline, NanochatPipeline:
		return Select
	case EditedPipeline, LogprobPipeline:
		return PlainPipeline
	}
	return ""
}

// rowEdits are the edits of each row of a case, one row after the other.
type rowEdits struct {
	Mask          []int32   `json:"mask"`
	BiasIDs       []int32   `json:"bias_ids"`
	Biases        []float32 `json:"biases"`
	PenaltyIDs    []int32   `json:"penalty_ids"`
	PenaltyCounts []int32   `json:"penalty_counts"`
}

// makeEdits draws edits for so many rows.
func (c Case) makeEdits(rng *rand.Rand) *rowEdits {
	e := &rowEdits{}
	for range c.Batch {
		for range (c.Vocab + 31) / 32 {
			e.Mask = append(e.Mask, int32(rng.Uint32()))
		}
		for i, id := range rng.Perm(c.Vocab)[:min(biasCount+penaltyCount, c.Vocab)] {
			if i < biasCount {
				e.BiasIDs, e.Biases = append(e.BiasIDs, int32(id)), append(e.Biases, float32(rng.NormFloat64()))
			} else {
				e.PenaltyIDs, e.PenaltyCounts = append(e.PenaltyIDs, int32(id)), append(e.PenaltyCounts, 1+rng.Int32N(3))
			}
		}
	}
	return e
}

// of adds the edits of a row to its parameters.
func (e *rowEdits) of(row, rows int, p *sampling.Params, o *sampling.Options) {
	part := func(all []int32) []int32 { return all[row*len(all)/rows : (row+1)*len(all)/rows] }
	p.GrammarBitmask, p.LogitBias = part(e.Mask), map[int32]float32{}
	first := row * len(e.BiasIDs) / rows
	for i, id := range part(e.BiasIDs) {
		p.LogitBias[id] = e.Biases[first+i]
	}
	counts := part(e.PenaltyCounts)
	for i, id := range part(e.PenaltyIDs) {
		for range counts[i] {
			o.History = append(o.History, id)
		}
	}
}

// sampleBatch is a case of work Sample with its inputs. The top-k alone of the same
// rows is a deviceBatch.
type sampleBatch[T topk.Float] struct {
	*deviceBatch[T]
	sampled Case
	sampler tokenSampler
	plain   tokenSampler // of PlainPipeline, or nil
	edits   *rowEdits    // nil: none
	seeds   []uint64     // of each row
	want    [][]sampling.Token
	kept    [][]idSet // of each row, if there are peers
	// Of LogprobPipeline: of each row the chosen token's, and the best ones.
	logprobs [][][]sampling.Logprob
}

// newSampleBatch makes the inputs of a case, and the tokens that package sampling draws.
func newSampleBatch[T topk.Float](ctx context.Context, r *DeviceRunner, c Case) (*sampleBatch[T], error) {
	c = c.WithoutTopK()
	alone := c
	alone.Work, alone.Sampling = TopK, ""
	if alone.TopK == c.Vocab {
		alone.TopK = min(sampleK, c.Vocab)
	}
	base, err := newUnrankedBatch[T](r, alone, cuda.Options{})
	if err != nil {
		return nil, err
	}
	b := &sampleBatch[T]{deviceBatch: base, sampled: c}
	if err := b.prepare(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// prepare makes the samplers, the parameters of the rows and their tokens.
func (b *sampleBatch[T]) prepare(ctx context.Context) (err error) {
	if b.sampled.deviceReference() == Select {
		if err := b.rank(ctx); err != nil {
			return err
		}
	}
	params, preset := b.sampled.deviceParams()
	if b.sampler, err = b.r.device.sampler(params, cuda.SamplerOptions{Preset: preset}); err != nil {
		return err
	}
	if b.sampled.deviceReference() == PlainPipeline {
		plain := b.sampled
		plain.Sampling = Pipeline
		params, preset := plain.deviceParams()
		if b.plain, err = b.r.device.sampler(params, cuda.SamplerOptions{Preset: preset}); err != nil {
			return err
		}
	}
	rng := b.sampled.parameterSource(&b.r.Runner)
	if b.sampled.Sampling == EditedPipeline {
		b.edits = b.sampled.makeEdits(rng)
	}
	for range b.sampled.Batch {
		b.seeds = append(b.seeds, rng.Uint64())
	}
	b.want = make([][]sampling.Token, len(b.inputs))
	b.kept = make([][]idSet, len(b.inputs))
	if b.sampled.Sampling == LogprobPipeline {
		b.logprobs = make([][][]sampling.Logprob, len(b.inputs))
	}
	for input, logits := range b.inputs {
		b.want[input] = make([]sampling.Token, b.sampled.Batch)
		b.kept[input] = make([]idSet, b.sampled.Batch)
		if b.logprobs != nil {
			b.logprobs[input] = make([][]sampling.Logprob, b.sampled.Batch)
		}
		errs := make([]error, b.sampled.Batch)
		shareRows(16, b.sampled.Batch, func(first, last int) {
			for row := first; row < last && ctx.Err() == nil; row++ {
				errs[row] = b.sampleRow(input, row, logits[row*b.sampled.Vocab:(row+1)*b.sampled.Vocab], params, preset)
			}
		})
		if err := errors.Join(append(errs, ctx.Err())...); err != nil {
			return err
		}
	}
	return nil
}

// sampleRow has package sampling draw the token of a row, whose position is the
// number of the input.
func (b *sampleBatch[T]) sampleRow(input, row int, logits []T, params sampling.Params, preset sampling.Preset) error {
	params.Seed, params.Position = b.seeds[row], uint64(input)
	options := sampling.Options{Preset: preset}
	if b.edits != nil {
		b.edits.of(row, b.sampled.Batch, &params, &options)
	}
	s, err := sampling.New[T](params, options)
	if err != nil {
		return err
	}
	if b.want[input][row], err = s.Sample(logits); err != nil {
		return err
	}
	if b.logprobs != nil {
		if b.logprobs[input][row], err = s.AppendLogprobs(nil, logits, b.want[input][row], logprobCount); err != nil {
			return err
		}
	}
	if len(b.r.Peers) == 0 {
		return nil
	}
	kept := make(idSet, b.sampled.Vocab/64+1)
	for _, candidate := range s.AppendKept(nil) {
		kept[candidate.Token/64] |= 1 << (candidate.Token % 64)
	}
	b.kept[input][row] = kept
	return nil
}

// idSet has a bit for each id.
type idSet []uint64

func (s idSet) has(id int32) bool {
	return 0 <= id && int(id)/64 < len(s) && s[id/64]>>(id%64)&1 == 1
}

func (b *sampleBatch[T]) close() {
	for _, s := range []tokenSampler{b.sampler, b.plain} {
		if s != nil {
			s.close()
		}
	}
	b.deviceBatch.close()
}

// tokenMemory is what samplings read and write beside the rotation of the logits.
type tokenMemory struct {
	*rotation
	tokens, others deviceMemory // [buffers, batch] int32, ours and those of the reference
	seeds          deviceMemory // [batch]
	positions      deviceMemory // [inputs, batch]
	edits          map[string]deviceMemory
	// Of LogprobPipeline: [buffers, batch] of the tokens, and [buffers, batch, logprobCount].
	logprobs, topIDs, topLogprobs deviceMemory
}

func (m *tokenMemory) close() {
	for _, block := range m.edits {
		block.close()
	}
	for _, block := range []deviceMemory{m.tokens, m.others, m.seeds, m.positions, m.logprobs, m.topIDs, m.topLogprobs} {
		if block != nil {
			block.close()
		}
	}
	m.rotation.close()
}

// upload returns memory that holds a copy.
func upload[E any](d device, from []E) (deviceMemory, error) {
	var zero E
	m, err := d.allocate(len(from) * int(unsafe.Sizeof(zero)))
	if err != nil {
		return nil, err
	}
	if err := m.upload(0, bytesOf(from)); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// newTokenMemory returns memory for calls that rotate over so many buffers.
func (b *sampleBatch[T]) newTokenMemory(buffers int) (*tokenMemory, error) {
	base, err := b.newRotation(buffers)
	if err != nil {
		return nil, err
	}
	m := &tokenMemory{rotation: base, edits: map[string]deviceMemory{}}
	var positions []uint64
	for input := range b.inputs {
		positions = append(positions, slices.Repeat([]uint64{uint64(input)}, b.sampled.Batch)...)
	}
	none := make([]int32, buffers*b.sampled.Batch)
	top := func() (deviceMemory, error) {
		if b.logprobs == nil {
			return nil, nil
		}
		return b.r.device.allocate(4 * buffers * b.sampled.Batch * logprobCount)
	}
	for _, block := range []struct {
		memory *deviceMemory
		make   func() (deviceMemory, error)
	}{
		{&m.tokens, func() (deviceMemory, error) { return upload(b.r.device, none) }},
		{&m.others, func() (deviceMemory, error) { return upload(b.r.device, none) }},
		{&m.logprobs, top}, {&m.topIDs, top}, {&m.topLogprobs, top},
		{&m.seeds, func() (deviceMemory, error) { return upload(b.r.device, b.seeds) }},
		{&m.positions, func() (deviceMemory, error) { return upload(b.r.device, positions) }},
	} {
		if *block.memory, err = block.make(); err != nil {
			m.close()
			return nil, err
		}
	}
	if b.edits != nil {
		if err := b.uploadEdits(m); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// uploadEdits copies the edits, and allocates the workspace that they take.
func (b *sampleBatch[T]) uploadEdits(m *tokenMemory) error {
	d, e := b.r.device, b.edits
	for name, make := range map[string]func() (deviceMemory, error){
		"mask":           func() (deviceMemory, error) { return upload(d, e.Mask) },
		"bias ids":       func() (deviceMemory, error) { return upload(d, e.BiasIDs) },
		"biases":         func() (deviceMemory, error) { return upload(d, e.Biases) },
		"penalty ids":    func() (deviceMemory, error) { return upload(d, e.PenaltyIDs) },
		"penalty counts": func() (deviceMemory, error) { return upload(d, e.PenaltyCounts) },
		"workspace":      func() (deviceMemory, error) { return d.allocate(cuda.EditBytes(b.sampled.Batch, b.sampled.Vocab)) },
	} {
		memory, err := make()
		if err != nil {
			return err
		}
		m.edits[name] = memory
	}
	return nil
}

// call puts the sampling of one buffer into the stream.
func (b *sampleBatch[T]) call(m *tokenMemory, s tokenSampler, edits *rowEdits, to deviceMemory, buffer int) error {
	rows, tokens, given := b.parameters(m, s, edits, to, buffer)
	return s.sample(b.logitsOf(m.rotation, buffer), cuda.Shape{Rows: b.sampled.Batch, Vocab: b.sampled.Vocab}, rows, given, tokens)
}

// parameters returns what the sampling of one buffer is told beside the logits.
func (b *sampleBatch[T]) parameters(m *tokenMemory, s tokenSampler, edits *rowEdits, to deviceMemory, buffer int) (cuda.RowParams, cuda.Tokens, *cuda.Edits) {
	rows := cuda.RowParams{
		Seed:     m.seeds.pointer(),
		Position: m.positions.pointer() + cuda.Pointer(8*b.sampled.Batch*(buffer%len(b.inputs))),
	}
	first := cuda.Pointer(4 * b.sampled.Batch * buffer)
	tokens := cuda.Tokens{Tokens: to.pointer() + first}
	if m.logprobs != nil && s == b.sampler {
		tokens.Logprobs, tokens.TopCount = m.logprobs.pointer()+first, logprobCount
		tokens.TopIDs, tokens.TopLogprobs = m.topIDs.pointer()+logprobCount*first, m.topLogprobs.pointer()+logprobCount*first
	}
	if edits == nil {
		return rows, tokens, nil
	}
	words := (b.sampled.Vocab + 31) / 32
	return rows, tokens, &cuda.Edits{
		Bitmask: m.edits["mask"].pointer(), BitmaskWords: words, BitmaskStride: words,
		BiasIDs: m.edits["bias ids"].pointer(), Biases: m.edits["biases"].pointer(), BiasCount: len(edits.BiasIDs) / b.sampled.Batch,
		PenaltyIDs: m.edits["penalty ids"].pointer(), PenaltyCounts: m.edits["penalty counts"].pointer(),
		PenaltyCount: len(edits.PenaltyIDs) / b.sampled.Batch,
		Workspace:    cuda.Workspace{Pointer: m.edits["workspace"].pointer(), Bytes: cuda.EditBytes(b.sampled.Batch, b.sampled.Vocab)},
	}
}

// measure times all conditions of one kind of cache.
func (b *sampleBatch[T]) measure(ctx context.Context, cache string, conditions []Condition) ([]Result, error) {
	m, err := b.newTokenMemory(b.buffers(cache))
	if err != nil {
		return nil, err
	}
	defer m.close()
	result := b.result(m.rotation)
	result.Work, result.Sampling, result.TopK = Sample, b.sampled.Sampling, b.sampled.TopK
	result.Reference, result.Plan = b.sampled.deviceReference(), b.path()
	contest := deviceContest{
		result: result,
		ours:   deviceContestant{m.buffers, func(i int) error { return b.call(m, b.sampler, b.edits, m.tokens, i) }},
		floor:  deviceContestant{m.buffers, func(i int) error { return b.floor(m.rotation, i) }},
		spoil:  func() error { return b.spoil(m) },
		check:  func() (agreement, error) { return b.checkTokens(m) },
	}
	switch result.Reference {
	case Select:
		contest.reference = deviceContestant{m.buffers, func(i int) error { return b.sel(m.rotation, i) }}
	case PlainPipeline:
		contest.reference = deviceContestant{m.buffers, func(i int) error { return b.call(m, b.plain, nil, m.others, i) }}
	}
	return b.r.hold(ctx, contest, conditions)
}

// spoil overwrites all answers.
func (b *sampleBatch[T]) spoil(m *tokenMemory) error {
	poison := bytesOf(slices.Repeat([]int32{poisonToken}, m.buffers*b.sampled.Batch*logprobCount))
	err := errors.Join(m.rotation.spoil(), m.tokens.upload(0, poison[:4*m.buffers*b.sampled.Batch]))
	if m.logprobs != nil {
		err = errors.Join(err, m.logprobs.upload(0, poison), m.topIDs.upload(0, poison), m.topLogprobs.upload(0, poison))
	}
	return err
}

// poisonToken is no token, and no sign of one that could not be drawn.
const poisonToken = -0x5A5A5A5B

// path names how the rows go through the kernel.
func (b *sampleBatch[T]) path() string {
	path := "block"
	if k := b.sampled.TopK; k > b.sampler.mostKept(b.dtype, b.sampled.Vocab) && b.sampled.Sampling != Greedy {
		path = "whole"
	}
	if b.edits != nil {
		path = "edit, " + path
	}
	return path
}

// compareTokens compares the tokens of all buffers with those of package sampling.
func (b *sampleBatch[T]) compareTokens(m *tokenMemory) error {
	got := make([]int32, m.buffers*b.sampled.Batch)
	if err := m.tokens.download(bytesOf(got), 0); err != nil {
		return err
	}
	for buffer := range m.buffers {
		for row, want := range b.want[buffer%len(b.inputs)] {
			if token := got[buffer*b.sampled.Batch+row]; token != want {
				return fmt.Errorf("buffer %d, row %d: token %d, want %d: %w", buffer, row, token, want, ErrWrong)
			}
		}
	}
	return nil
}

// checkSampled compares all that was sampled.
func (b *sampleBatch[T]) checkSampled(m *tokenMemory) error {
	if err := b.compareTokens(m); err != nil || b.logprobs == nil {
		return err
	}
	return b.compareLogprobs(m)
}

// checkTokens does that, and compares the top-k alone with the right answers.
func (b *sampleBatch[T]) checkTokens(m *tokenMemory) (agreement, error) {
	if err := b.checkSampled(m); err != nil {
		return agreement{}, err
	}
	if b.sampled.deviceReference() == Select {
		return b.check(m.rotation)
	}
	return agreement{valuesEqual: true, indicesEqual: true}, nil
}

// compareLogprobs compares those of all buffers with package sampling's: each may have an
// error of 1e-6 times the larger of 1 and its magnitude, which is no difference.
func (b *sampleBatch[T]) compareLogprobs(m *tokenMemory) error {
	rows := m.buffers * b.sampled.Batch
	chosen, ids, best := make([]float32, rows), make([]int32, rows*logprobCount), make([]float32, rows*logprobCount)
	err := errors.Join(m.logprobs.download(bytesOf(chosen), 0), m.topIDs.download(bytesOf(ids), 0), m.topLogprobs.download(bytesOf(best), 0))
	if err != nil {
		return err
	}
	for i := range rows {
		want := b.logprobs[i/b.sampled.Batch%len(b.inputs)][i%b.sampled.Batch]
		for place, w := range want {
			got, id := chosen[i], w.Token
			if place > 0 {
				got, id = best[i*logprobCount+place-1], ids[i*logprobCount+place-1]
			}
			if within := 2e-6 * max(1, math.Abs(float64(w.Logprob))); id != w.Token || !(math.Abs(float64(got)-float64(w.Logprob)) <= within) {
				return fmt.Errorf("buffer %d, row %d, logprob %d: %v of token %d, want %v of token %d: %w",
					i/b.sampled.Batch, i%b.sampled.Batch, place, got, id, w.Logprob, w.Token, ErrWrong)
			}
		}
	}
	return nil
}

// measurePeer times the peer's sampling of the same rows. It has random numbers of
// its own: its tokens are held against the kept sets. Values are equal if all are
// among those, and indices if they are our tokens.
func (b *sampleBatch[T]) measurePeer(ctx context.Context, p *Peer, results []Result) error {
	if p.Name != torch && p.Name != flashInfer {
		b.r.note(p.Name + " was not asked for tokens, only for a top k")
		return nil
	}
	params, _ := b.sampled.deviceParams()
	request := map[string]any{
		"sampling": b.sampled.Sampling, "tokens": p.file("tokens"), "edits": b.edits,
		"temperature": params.Temperature, "top_p": params.TopP, "min_p": params.MinP, "softcap": params.Softcap,
		"repetition": params.RepetitionPenalty, "frequency": params.FrequencyPenalty, "presence": params.PresencePenalty, "logprobs": params.Logprobs,
	}
	answer, err := askDevicePeer(ctx, p, b.deviceBatch, request, results)
	if err != nil {
		return err
	}
	if len(answer.Times) == 0 {
		answer.addTo(results, b.r, p, PeerResult{}, false, false, false)
		return nil
	}
	kept, equal, err := b.comparePeerTokens(p.file("tokens"))
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	answer.addTo(results, b.r, p, PeerResult{}, kept, equal, false)
	return nil
}

// comparePeerTokens reads the peer's token of every row.
func (b *sampleBatch[T]) comparePeerTokens(file string) (kept, equal bool, err error) {
	tokens := make([]int32, len(b.inputs)*b.sampled.Batch)
	raw, err := os.ReadFile(file)
	if err != nil {
		return false, false, err
	}
	if err := decodeAnswers(raw, tokens); err != nil {
		return false, false, err
	}
	kept, equal = true, true
	for input := range b.inputs {
		for row, want := range b.want[input] {
			token := tokens[input*b.sampled.Batch+row]
			kept = kept && b.kept[input][row].has(token)
			equal = equal && token == want
		}
	}
	return kept, equal, nil
}
