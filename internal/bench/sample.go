package bench

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Samplings: what work Sample does with a row.
const (
	ChainSampling = "chain"     // top_k 50, top_p .95, min_p .05, temperature .8
	Penalties     = "penalties" // that, with penalties over 64 tokens and 20 biases
	HalfMask      = "bitmask"   // that, with a bitmask that allows half of the ids
	AllowedIDs    = "allowed"   // that, with 20 ids allowed
	Mixed         = "mixed"     // that, with other parameters for each row
	Greedy        = "greedy"
	MinP          = "min_p"     // .05 alone, temperature 1
	TopP          = "top_p"     // .95 alone, temperature 1
	NoFilter      = "no_filter" // temperature 1 and nothing else
)

// Samplings lists them.
func Samplings() []string {
	return []string{ChainSampling, Penalties, HalfMask, AllowedIDs, Mixed, Greedy, MinP, TopP, NoFilter}
}

// SamplingsOf lists what cases of a work there are beside their shapes: the
// Samplings of work Sample, and one empty name of the others.
func SamplingsOf(work string) []string {
	if work == Sample {
		return Samplings()
	}
	return []string{""}
}

// References of work Sample, beside Select, the top 50 alone, and OnTier.
const (
	PlainChain = "chain alone" // ChainSampling
	RowByRow   = "row by row"  // a call for each row
)

// sampleK is the k of chains, and of the top-k that they are compared with.
const sampleK = 50

// chainParams returns the parameters of a row.
func (c Case) chainParams(rng *rand.Rand, row int) (sampling.Params, sampling.Options) {
	options := sampling.Options{Tier: c.Tier}
	p := sampling.Params{Temperature: 0.8, TopK: sampleK, TopP: 0.95, MinP: 0.05, Seed: rng.Uint64()}
	anyID := func() int32 { return int32(rng.IntN(c.Vocab)) }
	switch c.Sampling {
	case Penalties:
		p.RepetitionPenalty, p.FrequencyPenalty, p.PresencePenalty = 1.1, 0.1, 0.1
		for range 64 {
			options.History = append(options.History, anyID())
		}
		p.LogitBias = map[int32]float32{}
		for range 20 {
			p.LogitBias[anyID()] = float32(rng.NormFloat64())
		}
	case HalfMask:
		p.GrammarBitmask = make([]int32, (c.Vocab+31)/32)
		for i := range p.GrammarBitmask {
			p.GrammarBitmask[i] = int32(rng.Uint32())
		}
	case AllowedIDs:
		for range 20 {
			p.AllowedIDs = append(p.AllowedIDs, anyID())
		}
	case Mixed:
		p.Temperature, p.TopK = 0.5+float32(row%8)/8, 20+row%5*20
		p.TopP, p.MinP = 0.8+float32(row%4)/20, float32(row%3)/30
	case Greedy:
		p = sampling.Params{}
	case MinP:
		p = sampling.Params{Temperature: 1, MinP: 0.05, Seed: p.Seed}
	case TopP:
		p = sampling.Params{Temperature: 1, TopP: 0.95, Seed: p.Seed}
	case NoFilter:
		p = sampling.Params{Temperature: 1, Seed: p.Seed}
	}
	return p, options
}

// drawn is a contestant with the tokens of its last call.
type drawn struct {
	contestant
	tokens []sampling.Token // of a batch; nil if they are not to be checked
}

// samplers returns a sampler for each row of a batch.
func samplers[T topk.Float](r *Runner, c Case) (all []*sampling.Sampler[T], err error) {
	rng := c.parameterSource(r)
	for row := range c.Batch {
		params, options := c.chainParams(rng, row)
		s, err := sampling.New[T](params, options)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// sampleWork samples the rows of a batch with one call.
func sampleWork[T topk.Float](r *Runner, c Case, batches [][]T) (drawn, error) {
	all, err := samplers[T](r, c)
	shape := topk.Shape{Rows: c.Batch, Vocab: c.Vocab}
	tokens, statuses := make([]sampling.Token, c.Batch), make([]sampling.Status, c.Batch)
	call := func(input int) error {
		return sampling.SampleRows(tokens, statuses, all, batches[input], shape)
	}
	if c.Batch == 1 {
		call = func(input int) (err error) {
			tokens[0], err = all[0].Sample(batches[input])
			return err
		}
	}
	return drawn{contestant{c.Sampling, call}, tokens}, err
}

// rowByRowWork samples the same rows, each with a call.
func rowByRowWork[T topk.Float](r *Runner, c Case, batches [][]T) (drawn, error) {
	all, err := samplers[T](r, c)
	tokens := make([]sampling.Token, c.Batch)
	return drawn{contestant{RowByRow, func(input int) (err error) {
		for row, s := range all {
			if tokens[row], err = s.Sample(batches[input][row*c.Vocab : (row+1)*c.Vocab]); err != nil {
				return err
			}
		}
		return nil
	}}, tokens}, err
}

// parameterSource gives the same parameters for every tier.
func (c Case) parameterSource(r *Runner) *rand.Rand {
	seed := fnv.New64a()
	fmt.Fprint(seed, c.Sampling, c.Batch, c.Vocab)
	return rand.New(rand.NewPCG(r.Seed, seed.Sum64()))
}

// sampleReference returns what a case is compared with.
func sampleReference[T topk.Float](r *Runner, c Case, batches [][]T) (drawn, error) {
	tier, onTier := strings.CutPrefix(c.Reference, OnTier)
	other := c
	switch {
	case onTier:
		other.Tier = tier
		return sampleWork(r, other, batches)
	case c.Reference == PlainChain:
		other.Sampling = ChainSampling
		plain, err := sampleWork(r, other, batches)
		plain.tokens = nil // of no account
		return plain, err
	case c.Reference == RowByRow:
		return rowByRowWork(r, c, batches)
	case c.Reference == Select:
		other.TopK = min(sampleK, c.Vocab)
		return drawn{contestant: selectWork(other, r.options(other, c.Tier), batches).contestant}, nil
	}
	return drawn{}, fmt.Errorf("work %q has no reference %q", c.Work, c.Reference)
}

// measureSample is measure for work Sample.
func measureSample[T topk.Float](ctx context.Context, r *Runner, c Case) (Result, error) {
	memory, err := newMemory(c.inputBytes(c.inputs()))
	if err != nil {
		return Result{}, err
	}
	defer memory.release()
	batches, wide := makeInputs[T](r, c, c.inputs(), memory)
	ours, err := sampleWork(r, c, batches)
	if err != nil {
		return Result{}, err
	}
	reference, err := sampleReference(r, c, batches)
	if err != nil {
		return Result{}, err
	}
	result := c.result(len(batches))
	want := make([][]sampling.Token, len(batches))
	for input := range wide {
		if want[input], err = tokensByDefinition(ctx, r, c, wide[input]); err != nil {
			return Result{}, err
		}
	}
	check := func() error {
		for input := range batches {
			for _, w := range []drawn{ours, reference} {
				if err := w.call(input); err != nil {
					return fmt.Errorf("%v: %s: %w", c, w.name, err)
				}
				if w.tokens != nil && !slices.Equal(w.tokens, want[input]) {
					return fmt.Errorf("%v: %s: tokens %v, want %v: %w", c, w.name, w.tokens, want[input], ErrWrong)
				}
			}
		}
		return nil
	}
	if err := check(); err != nil {
		return Result{}, err
	}
	if result.AllocsPerCall, err = allocationsOf(func() error { return ours.call(0) }); err != nil {
		return Result{}, err
	}
	contestants := []contestant{ours.contestant, reference.contestant, floor[uint32]("floor", c, wide)}
	if unsafe.Sizeof(*new(T)) == 2 {
		contestants = append(contestants, floor[uint16]("dtype floor", c, batches))
	}
	times, err := race(ctx, contestants, len(batches), r.Iters, r.Budget)
	if err != nil {
		return Result{}, err
	}
	if err := check(); err != nil { // timing must not have changed the answers
		return Result{}, err
	}
	result.setTimes(times[0], times[1], times[2], times[len(times)-1])
	return result, nil
}

// tokensByDefinition draws the token of each row of a batch by sorting the row.
func tokensByDefinition(ctx context.Context, r *Runner, c Case, values []float32) ([]sampling.Token, error) {
	rng := c.parameterSource(r)
	tokens := make([]sampling.Token, c.Batch)
	for row := range tokens {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		params, options := c.chainParams(rng, row)
		tokens[row] = tokenByDefinition(values[row*c.Vocab:(row+1)*c.Vocab], params, options.History)
	}
	return tokens, nil
}

// weighed is a token with its mass.
type weighed struct {
	ranked
	mass uint64
}

// tokenByDefinition does what a case's parameters say, step by step, over the
// whole row in contract order.
func tokenByDefinition(values []float32, p sampling.Params, history []int32) sampling.Token {
	row := make([]weighed, 0, len(values))
	counts := map[int32]int{}
	for _, id := range history {
		counts[id]++
	}
	for i, l := range values {
		id := int32(i)
		if p.GrammarBitmask != nil && p.GrammarBitmask[id/32]>>(id%32)&1 == 0 || p.AllowedIDs != nil && !slices.Contains(p.AllowedIDs, id) {
			continue
		}
		l += p.LogitBias[id]
		if n := counts[id]; n > 0 {
			if l > 0 {
				l /= cmp.Or(p.RepetitionPenalty, 1)
			} else {
				l *= cmp.Or(p.RepetitionPenalty, 1)
			}
			l -= float32(p.FrequencyPenalty * float32(n))
			l -= p.PresencePenalty
		}
		row = append(row, weighed{ranked: ranked{l, id}})
	}
	slices.SortFunc(row, func(a, b weighed) int { return a.compare(b.ranked) })
	if p.Temperature == 0 {
		return sampling.Token(row[0].index)
	}
	least := law.CeilProduct(p.MinP, law.One)
	kept, total := 0, uint64(0)
	for i := range row {
		row[i].mass = law.LogitMass(row[i].value, row[0].value, p.Temperature)
		if row[i].mass < least || p.TopK > 0 && i >= p.TopK {
			break
		}
		total += row[i].mass
		kept++
	}
	if p.TopP > 0 {
		target, reached := law.CeilProduct(p.TopP, total), uint64(0)
		for i := range row[:kept] {
			if reached += row[i].mass; reached >= target {
				kept, total = i+1, reached
				break
			}
		}
	}
	row = row[:kept]
	slices.SortFunc(row, func(a, b weighed) int { return cmp.Compare(a.index, b.index) })
	place := law.Target(law.Uniform(p.Seed, p.Position, 0, law.Draw), total)
	for _, t := range row {
		if place < t.mass {
			return sampling.Token(t.index)
		}
		place -= t.mass
	}
	return math.MinInt32 // no token, which is no sampler's answer
}
