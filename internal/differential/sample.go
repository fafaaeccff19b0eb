package differential

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// SampleEngine samples batches, one at a time.
type SampleEngine interface {
	// Sample writes the answer to the batch.
	Sample(b *SampleBatch) error
	Close() error
}

// SampleConfig says what RunSample compares.
type SampleConfig struct {
	Extent
	NewEngine func() (SampleEngine, error) // one for each worker
	// Progress, if not nil, is called about twice a second.
	Progress func(SampleCounts)
}

// SampleCounts says how much was compared. A row is one of logits with its
// parameters, its seed and its position.
type SampleCounts struct {
	Batches  int64            `json:"batches"`
	Rows     int64            `json:"rows"`
	Answers  int64            `json:"answers"` // of the rows, and again of many among others, in another order
	Tokens   int64            `json:"tokens"`
	KeptSets int64            `json:"kept_sets"` // that were compared, too
	DTypes   map[string]int64 `json:"rows_by_dtype"`
	Presets  map[string]int64 `json:"rows_by_preset"`
	Batch    map[string]int64 `json:"answers_by_batch"`
	Steps    map[string]int64 `json:"rows_by_step"`
	Paths    map[string]int64 `json:"rows_by_path"`
	Kinds    map[string]int64 `json:"rows_by_kind"`
	Statuses map[string]int64 `json:"rows_by_status"`
	Vocabs   map[string]int64 `json:"rows_by_vocab"`
}

func newSampleCounts() SampleCounts {
	c := SampleCounts{}
	for _, of := range []*map[string]int64{&c.DTypes, &c.Presets, &c.Batch, &c.Steps, &c.Paths, &c.Kinds, &c.Statuses, &c.Vocabs} {
		*of = map[string]int64{}
	}
	return c
}

// RunSample compares batches as [Run] does: with the tokens, the statuses and the
// kept sets of package sampling.
func RunSample(ctx context.Context, config SampleConfig) (SampleCounts, error) {
	counts := newSampleCounts()
	err := config.run(ctx, func() (comparer, error) {
		engine, err := config.NewEngine()
		return &sampleWorker{engine: engine, counts: &counts}, err
	}, func() {
		if config.Progress != nil {
			config.Progress(counts)
		}
	})
	return counts, err
}

// Outcome is what becomes of a row.
type Outcome struct {
	Tokens []int64
	Status sampling.Status
	// Kept is in contract order, with what its tokens are likely; nil if it is not told.
	Kept          []int32
	Probabilities []float32
	Logprobs, Top []sampling.Logprob // of the tokens, and of the most likely ones; nil if not asked for
}

// sampleWorker compares samplings.
type sampleWorker struct {
	engine SampleEngine
	counts *SampleCounts
	batch  SampleBatch
	other  SampleBatch // some of its rows, in another order
	want   []Outcome
	kept   int // kept sets of both that were compared
}

func (w *sampleWorker) Close() error { return w.engine.Close() }

func (w *sampleWorker) compare(seed uint64, number int, dtype cuda.DType) error {
	rng := rand.New(rand.NewPCG(seed, uint64(number)))
	w.batch.generate(rng, number, dtype)
	w.kept = 0
	var err error
	if w.want, err = w.batch.Answer(); err != nil {
		return err
	}
	if err := w.ask(&w.batch, w.want); err != nil {
		return err
	}
	w.other.Each = nil
	if w.batch.OneSeed {
		return nil // then the place in the batch is part of the draw
	}
	sizes := slices.DeleteFunc(append(batchSizes(), w.batch.Rows()), func(n int) bool { return n > w.batch.Rows() })
	order := rng.Perm(w.batch.Rows())[:sizes[rng.IntN(len(sizes))]]
	w.batch.pick(order, &w.other)
	want := make([]Outcome, len(order))
	for i, row := range order {
		want[i] = w.want[row]
	}
	return w.ask(&w.other, want)
}

// ask holds the engine's answer to a batch against what is wanted.
func (w *sampleWorker) ask(b *SampleBatch, want []Outcome) error {
	if err := w.engine.Sample(b); err != nil {
		return fmt.Errorf("%s: %w", b.call(), err)
	}
	if len(b.Outcomes) != len(want) {
		return fmt.Errorf("%s: %d answers: %w", b.call(), len(b.Outcomes), errDifferent)
	}
	for i, got := range b.Outcomes {
		if !slices.Equal(got.Tokens, want[i].Tokens) || got.Status != want[i].Status {
			return fmt.Errorf("%s: row %d, %s: tokens %v, %v, want %v, %v: %w", b.call(), i, b.row(i),
				got.Tokens, got.Status, want[i].Tokens, want[i].Status, errDifferent)
		}
		if err := b.compareLogprobs(i, got, want[i]); err != nil {
			return fmt.Errorf("%s: row %d, %s: %w", b.call(), i, b.row(i), err)
		}
		if got.Kept == nil {
			continue
		}
		if place := firstFar(got.Probabilities, want[i].Probabilities); slices.Equal(got.Kept, want[i].Kept) && place >= 0 {
			return fmt.Errorf("%s: row %d, %s: the kept token at place %d is likely to %v, want %v: %w", b.call(), i, b.row(i),
				place, got.Probabilities[place], want[i].Probabilities[place], errDifferent)
		}
		w.kept++
		if !slices.Equal(got.Kept, want[i].Kept) {
			place := 0
			for place < min(len(got.Kept), len(want[i].Kept)) && got.Kept[place] == want[i].Kept[place] {
				place++
			}
			return fmt.Errorf("%s: row %d, %s: %d tokens are kept, want %d, and differ from place %d on (%v, want %v): %w", b.call(), i, b.row(i),
				len(got.Kept), len(want[i].Kept), place, got.Kept[place:min(place+3, len(got.Kept))], want[i].Kept[place:min(place+3, len(want[i].Kept))], errDifferent)
		}
	}
	return nil
}

// firstFar returns the first place at which probabilities differ by more than rounding,
// or -1.
func firstFar(got, want []float32) int {
	for i := range min(len(got), len(want)) {
		if !near(got[i], want[i], want[i]) {
			return i
		}
	}
	return -1
}

// near allows each of two numbers an error of 1e-6 of a scale. NaN is near NaN alone.
func near(got, want, scale float32) bool {
	if want != want {
		return got != got
	}
	return got == want || math.Abs(float64(got)-float64(want)) <= 2e-6*math.Abs(float64(scale))
}

// asTold returns the outcome of a row as a device tells it: a whole row has no logprobs
// among its kept set.
func (b *SampleBatch) asTold(i int, o Outcome) Outcome {
	if b.Processed && b.path(i, o.Status) == "whole row" {
		o.Top, o.Logprobs = nil, slices.Repeat([]sampling.Logprob{noLogprob}, b.Draws)
		for draw, token := range o.Tokens {
			o.Logprobs[draw].Token = int32(token)
		}
	}
	return o
}

// compareLogprobs compares what a row tells of its tokens and of the most likely ones.
func (b *SampleBatch) compareLogprobs(i int, got, want Outcome) error {
	want = b.asTold(i, want)
	for _, of := range []struct {
		name      string
		got, want []sampling.Logprob
	}{{"draw", got.Logprobs, want.Logprobs}, {"most likely token", got.Top, want.Top}} {
		if len(of.got) != len(of.want) {
			return fmt.Errorf("%d logprobs of each %s, want %d: %w", len(of.got), of.name, len(of.want), errDifferent)
		}
		for j, w := range of.want {
			if g := of.got[j]; g.Token != w.Token || g.Rank != w.Rank || !near(g.Logprob, w.Logprob, max(1, -w.Logprob)) {
				return fmt.Errorf("%s %d is %+v, want %+v: %w", of.name, j, g, w, errDifferent)
			}
		}
	}
	return nil
}

// noLogprob is that of no token.
var noLogprob = sampling.Logprob{Token: sampling.NoToken, Logprob: float32(math.Inf(-1))}

func (w *sampleWorker) count() int64 {
	c, b := w.counts, &w.batch
	rows := int64(b.Rows())
	c.Batches++
	c.Rows += rows
	c.Answers += rows + int64(len(w.other.Each))
	c.Tokens += (rows + int64(len(w.other.Each))) * int64(b.Draws)
	c.KeptSets += int64(w.kept)
	c.DTypes[b.DType.String()] += rows
	c.Presets[string(b.Preset)] += rows
	for _, n := range []int{b.Rows(), w.other.Rows()} {
		size := "others"
		if slices.Contains(batchSizes(), n) {
			size = fmt.Sprint(n)
		}
		c.Batch[size] += int64(n)
	}
	for i, r := range b.Each {
		c.Kinds[r.Kind]++
		c.Statuses[w.want[i].Status.String()]++
		c.Paths[b.path(i, w.want[i].Status)]++
		for _, step := range b.steps(i) {
			c.Steps[step]++
		}
	}
	switch {
	case b.Vocab <= 4096:
		c.Vocabs["up to 4096"] += rows
	case b.Vocab == 50304 || b.Vocab == 151936:
		c.Vocabs[fmt.Sprint(b.Vocab)] += rows
	default:
		c.Vocabs["others"] += rows
	}
	return c.Rows
}

// path names the way of a row through the kernel, as far as a call can tell it.
func (b *SampleBatch) path(i int, status sampling.Status) string {
	r := b.Each[i]
	k := int(r.TopK)
	if k < 1 || k > r.Length {
		k = r.Length
	}
	switch {
	case status == sampling.StatusBadParams:
		return "refused"
	case b.greedy(i):
		return "greedy"
	case k <= b.MostKept:
		return "among the largest"
	}
	if b.Whole {
		return "whole row, as all of the batch"
	}
	return "whole row"
}

// greedy reports whether the row takes its largest logit.
func (b *SampleBatch) greedy(i int) bool {
	t := b.Each[i].Temperature
	return t < 0x1p-100 || b.Preset != sampling.Nanochat && t < 1e-5
}

// steps lists what is done to a row.
func (b *SampleBatch) steps(i int) (names []string) {
	r := b.Each[i]
	for _, step := range []struct {
		name string
		on   bool
	}{
		{string(sampling.Bitmask), b.Edited && b.MaskWords > 0},
		{string(sampling.LogitBias), b.Edited && b.BiasCount > 0},
		{string(sampling.Penalties), b.Edited && b.PenaltyCount > 0},
		{"softcap", b.Softcap > 0},
		{"greedy", b.greedy(i)},
		{string(sampling.Temperature), !b.greedy(i)},
		{string(sampling.TopK), r.TopK > 0 && int(r.TopK) < r.Length},
		{string(sampling.TopP), r.TopP < 1},
		{string(sampling.MinP), r.MinP > 0},
		{string(sampling.TypicalP), r.TypicalP < 1},
		{string(sampling.TopNSigma), r.TopNSigma > 0},
		{string(sampling.XTC), r.XTCProbability > 0 && r.XTCThreshold <= 0.5},
		{"raw logprobs", b.Logprobs && !b.Processed},
		{"processed logprobs", b.Logprobs && b.Processed},
		{"draws", b.Draws > 1 && !b.Replacement},
		{"replacement", b.Draws > 1 && b.Replacement},
		{"one seed", b.OneSeed},
		{"shorter row", r.Length < b.Vocab},
	} {
		if step.on {
			names = append(names, step.name)
		}
	}
	return names
}

// Answer returns what package sampling makes of the batch.
func (b *SampleBatch) Answer() ([]Outcome, error) {
	switch b.DType {
	case cuda.Float16:
		return answerAs[topk.Float16](b)
	case cuda.BFloat16:
		return answerAs[topk.BFloat16](b)
	}
	return answerAs[float32](b)
}

func answerAs[T topk.Float](b *SampleBatch) ([]Outcome, error) {
	outcomes := make([]Outcome, b.Rows())
	logits, tokens, status := view[T](b.Logits)[b.Offset:], make([]sampling.Token, b.Draws), make([]sampling.Status, 1)
	for i, r := range b.Each {
		for j := range tokens {
			tokens[j] = sampling.NoToken
		}
		status[0] = sampling.StatusBadParams
		params, options := b.Params(i)
		s, err := sampling.New[T](params, options)
		if err == nil {
			shape := topk.Shape{Rows: 1, Vocab: b.Vocab, RowLengths: []int32{int32(r.Length)}}
			if err := sampling.SampleRows(tokens, status, []*sampling.Sampler[T]{s}, logits[i*b.Stride:], shape); err != nil {
				return nil, err
			}
		}
		if b.Kept {
			outcomes[i].Kept = []int32{}
			for _, kept := range keptOf(s, status[0]) {
				outcomes[i].Kept = append(outcomes[i].Kept, kept.Token)
				outcomes[i].Probabilities = append(outcomes[i].Probabilities, float32(kept.Probability))
			}
		}
		outcomes[i].Status = status[0]
		for _, token := range tokens {
			outcomes[i].Tokens = append(outcomes[i].Tokens, int64(token))
		}
		if b.Logprobs {
			if err := addLogprobs(b, &outcomes[i], s, tokens, logits[i*b.Stride:][:r.Length]); err != nil {
				return nil, err
			}
		}
	}
	return outcomes, nil
}

// addLogprobs tells those of the row that was sampled last.
func addLogprobs[T topk.Float](b *SampleBatch, o *Outcome, s *sampling.Sampler[T], tokens []sampling.Token, row []T) error {
	o.Logprobs, o.Top = []sampling.Logprob{}, []sampling.Logprob{}
	for draw, token := range tokens {
		if token == sampling.NoToken {
			o.Logprobs = append(o.Logprobs, noLogprob)
			continue
		}
		var all []sampling.Logprob
		if b.Processed {
			all = s.AppendProcessedLogprobs(nil, token, b.TopCount)
		} else {
			var err error
			if all, err = s.AppendLogprobs(nil, row, token, b.TopCount); err != nil {
				return err
			}
		}
		o.Logprobs = append(o.Logprobs, all[0])
		if draw == 0 {
			o.Top = append(o.Top, all[1:]...)
		}
	}
	return nil
}

// keptOf returns the kept set of the row that was sampled last, if it was.
func keptOf[T topk.Float](s *sampling.Sampler[T], status sampling.Status) []sampling.Candidate {
	if status != sampling.StatusOK && status != sampling.StatusExhausted {
		return nil
	}
	return s.AppendKept(nil)
}

// Params returns what package sampling is told of a row.
func (b *SampleBatch) Params(i int) (sampling.Params, sampling.Options) {
	r := b.Each[i]
	p := sampling.Params{
		Temperature: r.Temperature, TopK: int(r.TopK), TopP: r.TopP, MinP: r.MinP, Softcap: b.Softcap,
		TypicalP: r.TypicalP, TopNSigma: r.TopNSigma, XTCProbability: r.XTCProbability, XTCThreshold: r.XTCThreshold,
		Seed: r.Seed, Position: r.Position, Replacement: b.Replacement,
	}
	o := sampling.Options{Preset: b.Preset, FirstDraw: b.FirstDraw}
	if b.OneSeed {
		o.FirstDraw += uint32(i * b.Draws)
	}
	if !b.Edited {
		return p, o
	}
	if b.MaskWords > 0 {
		p.GrammarBitmask = r.Mask
	}
	if len(r.BiasIDs) > 0 {
		p.LogitBias = map[int32]float32{}
	}
	for j, id := range r.BiasIDs {
		if 0 <= id && int(id) < r.Length {
			p.LogitBias[id] = r.Biases[j]
		}
	}
	p.RepetitionPenalty, p.FrequencyPenalty, p.PresencePenalty = b.Repetition, b.Frequency, b.Presence
	for j, id := range r.PenaltyIDs {
		if id < 0 || int(id) >= r.Length {
			continue
		}
		if r.PenaltyCounts[j] == 0 {
			o.Prompt = append(o.Prompt, id)
		}
		for range r.PenaltyCounts[j] {
			o.History = append(o.History, id)
		}
	}
	return p, o
}

// call describes the call of a batch.
func (b *SampleBatch) call() string {
	text := fmt.Sprintf("rows = %d, vocab = %d, stride = %d, offset %d, preset %s, softcap %v, draws %d, replacement %v, first draw %d, most top_k %d, one seed %v",
		b.Rows(), b.Vocab, b.Stride, b.Offset, b.Preset, b.Softcap, b.Draws, b.Replacement, b.FirstDraw, b.MostTopK, b.OneSeed)
	if b.Logprobs {
		text += fmt.Sprintf(", logprobs (processed %v) and the %d best", b.Processed, b.TopCount)
	}
	if b.Edited {
		text += fmt.Sprintf(", %d words of a bitmask (shared %v), %d biases, %d penalties (repetition %v, frequency %v, presence %v)",
			b.MaskWords, b.SharedMask, b.BiasCount, b.PenaltyCount, b.Repetition, b.Frequency, b.Presence)
	}
	return text
}

// row describes a row.
func (b *SampleBatch) row(i int) string {
	r := b.Each[i]
	return fmt.Sprintf("logits of kind %s, length %d, temperature %v, top_k %d, top_p %v, min_p %v, typical_p %v, top_n_sigma %v, xtc %v of %v, seed %#x, position %#x",
		r.Kind, r.Length, r.Temperature, r.TopK, r.TopP, r.MinP, r.TypicalP, r.TopNSigma, r.XTCProbability, r.XTCThreshold, r.Seed, r.Position)
}

// invalid is not a parameter.
var invalid = float32(math.NaN())
