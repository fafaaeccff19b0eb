// Package bench measures top-k against the cost of reading the row and against
// other software, on the very same logits, and checks every answer.
//
// A [Case] says what is measured, [Runner.Measure] measures it, and a [Record]
// holds results with the machine that they came from. The figures that have a
// bar stand in [Bars].
package bench

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Kinds of work.
const (
	TopK   = "topk"   // one Select
	Stream = "stream" // Push of tiles of 4,096 logits, and Finish
	Merge  = "merge"  // Merge of the selected logits of 8 shards of the vocabulary
	Sample = "sample" // a token for each row, as one of the Samplings
)

// Works lists the kinds of work.
func Works() []string { return []string{TopK, Stream, Merge, Sample} }

const (
	tile   = 4096 // logits in a Push
	shards = 8    // in a Merge
)

// References: what a case is compared with.
const (
	TypedHeap = "typed heap" // a min-heap of k over the row, as Go programs do
	Select    = "select"     // one topk.Select of the same tier
	FullSort  = "sort"       // a typed sort of all entries
	OnTier    = "select on " // one topk.Select of the tier whose name follows
)

// Case is one measurement.
type Case struct {
	Work               string
	Source             string // one of Sources
	Batch, Vocab, TopK int
	DType              DType
	Tier               string // empty: the best of the machine
	Threads            int    // 0: 1
	BaseOffset         int    // elements from the start of a cache line to the first logit
	Sampling           string // of work Sample; empty: ChainSampling
	Reference          string // empty: TypedHeap, or Select for a stream or a sample, or FullSort for a merge
}

// String names the case in a line of progress.
func (c Case) String() string {
	s := fmt.Sprintf("%s %d x %d, k = %d, %s, %s", c.Work, c.Batch, c.Vocab, c.TopK, c.DType, c.Source)
	if c.Sampling != "" {
		s += ", " + c.Sampling
	}
	if c.Tier != "" {
		s += ", " + c.Tier
	}
	return s
}

// maxElements bounds a batch, so that a slip does not fill the memory.
const maxElements = 1 << 27

// Validate reports what cannot be measured, with the numbers.
func (c Case) Validate() error {
	switch {
	case !slices.Contains(Works(), c.Work):
		return fmt.Errorf("work %q is not one of %s", c.Work, strings.Join(Works(), ", "))
	case !slices.Contains(Sources(), c.Source):
		return fmt.Errorf("rows %q are none of %s", c.Source, strings.Join(Sources(), ", "))
	case c.Batch < 1:
		return fmt.Errorf("batch = %d is less than 1", c.Batch)
	case c.Vocab < 1:
		return fmt.Errorf("vocab = %d is less than 1", c.Vocab)
	case c.TopK < 1 || c.TopK > c.Vocab:
		return fmt.Errorf("top-k = %d is outside 1 to vocab = %d", c.TopK, c.Vocab)
	case c.Batch > maxElements/c.Vocab:
		return fmt.Errorf("batch = %d times vocab = %d exceeds %d logits", c.Batch, c.Vocab, maxElements)
	case c.Threads < 0:
		return fmt.Errorf("threads = %d is negative", c.Threads)
	case c.Sampling != "" && (c.Work != Sample || !slices.Contains(slices.Concat(Samplings(), DeviceSamplings()), c.Sampling)):
		return fmt.Errorf("sampling %q of work %q is not one of %s", c.Sampling, c.Work, strings.Join(Samplings(), ", "))
	case c.Threads > 1 && c.Work != TopK:
		return fmt.Errorf("threads = %d, but work %q runs on one", c.Threads, c.Work)
	}
	return checkDType(c.DType)
}

// withDefaults fills in what was left empty.
func (c Case) withDefaults() Case {
	if c.Tier == "" {
		c.Tier = topk.Tiers()[0]
	}
	c.Threads = max(c.Threads, 1)
	if c.Reference == "" {
		c.Reference = map[string]string{TopK: TypedHeap, Stream: Select, Merge: FullSort, Sample: Select}[c.Work]
	}
	if c.Work == Sample && c.Sampling == "" {
		c.Sampling = ChainSampling
	}
	return c.WithoutTopK()
}

// WithoutTopK returns the case with a top-k of all logits if its sampling has none.
func (c Case) WithoutTopK() Case {
	if slices.Contains([]string{Greedy, MinP, TopP, NoFilter}, c.Sampling) {
		c.TopK = c.Vocab
	}
	return c
}

// plan returns the launch plan of the case, with a tuning or nil.
func (c Case) plan(targetCandidates int, tuning *cpu.Tuning) cpu.Plan {
	shape := cpu.Shape{
		Rows: c.Batch, Vocab: c.Vocab, K: c.TopK, ElementBytes: c.DType.Bytes(),
		Threads: c.Threads, TargetCandidates: targetCandidates, Tuning: tuning,
	}
	tier := simd.Best()
	for _, available := range simd.Available() {
		if available.String() == c.Tier {
			tier = available
		}
	}
	return cpu.NewPlan(shape, tier, cpu.Cores())
}

// plan returns the launch plan of the case.
func (r *Runner) plan(c Case) cpu.Plan {
	return c.plan(r.TargetCandidates, r.Plans.Tuning(c.planShape()))
}

// inputs returns over how many inputs a case rotates, so that no branch is
// learnt: as many as fit a second-level cache together as float32 values, but
// at least two and at most four.
func (c Case) inputs() int {
	const cacheBytes = 1 << 20
	return max(2, min(4, cacheBytes/(4*c.Batch*c.Vocab)))
}

// inputBytes is enough memory for n inputs and their values as float32.
func (c Case) inputBytes(n int) int {
	return n * (c.Batch*c.Vocab*(c.DType.Bytes()+4) + 2*(4*c.BaseOffset+cacheLine))
}

// Runner measures cases.
type Runner struct {
	Iters  int           // timed samples of each contestant, at most; see race
	Budget time.Duration // for the samples of one case
	Seed   uint64        // of the random rows
	Real   Logits        // rows of source Real
	Peers  []*Peer       // other software to measure, for work TopK

	TargetCandidates int    // overrides the launch plan's target; 0: the plan decides
	Plans            *Plans // for the selections of a case's own tier; nil: the built-in ones

	now func() time.Time // of a search for plans, in tests; nil: time.Now
}

// clock returns what a search for plans reads the time from.
func (r *Runner) clock() func() time.Time {
	if r.now != nil {
		return r.now
	}
	return time.Now
}

func (r *Runner) options(c Case, tier string) topk.Options {
	options := topk.Options{Tier: tier, Threads: c.Threads, TargetCandidates: r.TargetCandidates}
	if tier == c.Tier {
		options.Plans = r.Plans.selection()
	}
	return options
}

// Validate reports what of the case cannot be measured, with the numbers.
func (r *Runner) Validate(c Case) error {
	switch {
	case c.Source == Real && r.Real.Rows == 0:
		return fmt.Errorf("the real logits have no rows")
	case c.Source == Real && r.Real.Vocab != c.Vocab:
		return fmt.Errorf("vocab = %d, but the real logits have vocab = %d", c.Vocab, r.Real.Vocab)
	}
	return c.Validate()
}

// Measure checks the answer to every input of the case and times it, its
// reference and the read floors. An error wraps ErrWrong if an answer is wrong.
func (r *Runner) Measure(ctx context.Context, c Case) (Result, error) {
	c = c.withDefaults()
	if err := r.Validate(c); err != nil {
		return Result{}, err
	}
	if c.Work == Sample && !slices.Contains(Samplings(), c.Sampling) {
		return Result{}, fmt.Errorf("sampling %q runs on a GPU only", c.Sampling)
	}
	switch c.DType {
	case Float16:
		return measure[topk.Float16](ctx, r, c)
	case BFloat16:
		return measure[topk.BFloat16](ctx, r, c)
	}
	return measure[float32](ctx, r, c)
}

// result returns a result that says what was measured, and nothing else.
func (c Case) result(inputs int) Result {
	return Result{
		Device: "cpu", Tier: c.Tier, Work: c.Work, Sampling: c.Sampling, Source: c.Source, Batch: c.Batch, Vocab: c.Vocab, TopK: c.TopK,
		DType: c.DType, Threads: c.Threads, BaseOffset: c.BaseOffset, Reference: c.Reference,
		Inputs: inputs, IndicesEqual: true,
	}
}

func measure[T topk.Float](ctx context.Context, r *Runner, c Case) (Result, error) {
	if c.Work == Sample {
		return measureSample[T](ctx, r, c)
	}
	memory, err := newMemory(c.inputBytes(c.inputs()))
	if err != nil {
		return Result{}, err
	}
	defer memory.release()
	batches, wide := makeInputs[T](r, c, c.inputs(), memory)
	ours, reference, err := makeWork(r, c, batches)
	if err != nil {
		return Result{}, err
	}
	gates := make([]gate[T], len(batches))
	result := c.result(len(batches))
	for i, logits := range batches {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		gates[i] = newGate(logits, c.Batch, c.TopK)
	}
	check := func() error {
		for i, gate := range gates {
			for _, w := range []work[T]{ours, reference} {
				if err := w.call(i); err != nil {
					return fmt.Errorf("%v: %s: %w", c, w.name, err)
				}
				agreement, err := gate.check(w.answer)
				if err != nil {
					return fmt.Errorf("%v: %s: %w", c, w.name, err)
				}
				result.MaxAbsDiff = max(result.MaxAbsDiff, agreement.maxAbsDiff)
				result.IndicesEqual = result.IndicesEqual && agreement.indicesEqual
			}
		}
		return nil
	}
	if err := check(); err != nil {
		return Result{}, err
	}
	if c.Work == TopK {
		result.AllocsPerCall, result.WorkspaceBytes, err = allocations(c, r.options(c, c.Tier), batches[0])
		if err != nil {
			return Result{}, err
		}
		result.Capacity = r.plan(c).Capacity
	}
	contestants := []contestant{
		ours.contestant, reference.contestant, floor[uint32]("floor", c, wide), // float32 values, whatever T
	}
	if c.DType != Float32 {
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
	if c.Work == TopK {
		for _, peer := range r.Peers {
			answer, err := measurePeer(ctx, peer, r, c, batches, gates, ours.contestant, min(result.FloorUS, result.DTypeFloorUS))
			if err != nil {
				return Result{}, err
			}
			if result.Peers == nil {
				result.Peers = map[string]PeerResult{}
			}
			result.Peers[peer.Name] = answer
		}
	}
	if c.Work == Merge { // its parts are selected before
		return result, nil
	}
	// Other logits in the same place have other answers: nothing is remembered.
	copy(batches[0], altered(c, batches[:1], 1)[0])
	fresh := newGate(batches[0], c.Batch, c.TopK)
	for _, w := range []work[T]{ours, reference} {
		if err := w.call(0); err != nil {
			return Result{}, fmt.Errorf("%v: %s: %w", c, w.name, err)
		}
		if _, err := fresh.check(w.answer); err != nil {
			return Result{}, fmt.Errorf("%v: %s, of logits that changed in place: %w", c, w.name, err)
		}
	}
	return result, nil
}

// makeInputs returns the n batches that a case rotates over, and their values as
// float32 for the read floor.
func makeInputs[T topk.Float](r *Runner, c Case, n int, m *memory) (batches [][]T, wide [][]float32) {
	seed := fnv.New64a()
	fmt.Fprint(seed, c.Source, c.Batch, c.Vocab, c.TopK, c.DType)
	for input := range n {
		rng := rand.New(rand.NewPCG(r.Seed, seed.Sum64()+uint64(input)))
		logits := aligned[T](m, c.Batch*c.Vocab, c.BaseOffset)
		values, same := any(logits).([]float32) // then the floor is that of reading these very bytes
		if !same {
			values = aligned[float32](m, c.Batch*c.Vocab, c.BaseOffset)
		}
		for row := range c.Batch {
			v := values[row*c.Vocab : (row+1)*c.Vocab]
			if c.Source == Real {
				// Spread over the file; a small file repeats its rows.
				r.Real.row(v, (input*max(1, r.Real.Rows/n)+row)%r.Real.Rows)
			} else {
				c.fillRow(v, rng)
			}
			for i, value := range v {
				logits[row*c.Vocab+i] = narrow[T](value)
				v[i] = widen(logits[row*c.Vocab+i])
			}
		}
		batches, wide = append(batches, logits), append(wide, values)
	}
	return batches, wide
}

// floorSink keeps the maximum passes from being optimized away.
var floorSink uint32

// floor is one maximum pass of the best tier over each row, shared by as many
// threads as the case has.
func floor[E simd.Bits, T topk.Float](name string, c Case, batches [][]T) contestant {
	pass := func(input, first, last int) (sink uint32) {
		rows := bitsOf[E](batches[input])
		for row := first; row < last; row++ {
			sink ^= simd.Max(simd.Best(), rows[row*c.Vocab:(row+1)*c.Vocab])
		}
		return sink
	}
	return contestant{name, func(input int) error {
		if c.Threads > 1 {
			shareRows(c.Threads, c.Batch, func(first, last int) { pass(input, first, last) })
		} else {
			floorSink = pass(input, 0, c.Batch)
		}
		return nil
	}}
}

// measuredCalls are those whose allocations are counted.
const measuredCalls = 100

// allocations returns the heap allocations of a call after the first, and the
// bytes that the first call of a Selector allocates: its workspace.
func allocations[T topk.Float](c Case, options topk.Options, logits []T) (perCall float64, workspaceBytes int, err error) {
	dst := topk.NewResult[T](c.Batch, c.TopK)
	shape := topk.Shape{Rows: c.Batch, Vocab: c.Vocab, K: c.TopK}
	var before, first runtime.MemStats
	runtime.ReadMemStats(&before)
	selector := topk.Selector[T]{Options: options}
	if err := selector.Select(dst, logits, shape); err != nil {
		return 0, 0, err
	}
	runtime.ReadMemStats(&first)
	perCall, err = allocationsOf(func() error { return selector.Select(dst, logits, shape) })
	return perCall, int(first.TotalAlloc-before.TotalAlloc) + int(unsafe.Sizeof(selector)), err
}

// allocationsOf returns the heap allocations of a call that is not the first.
func allocationsOf(call func() error) (float64, error) {
	var first, after runtime.MemStats
	runtime.ReadMemStats(&first)
	for range measuredCalls {
		if err := call(); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	// Whatever else runs in the process may allocate now and then: whole allocations only.
	return float64((after.Mallocs - first.Mallocs) / measuredCalls), nil
}
