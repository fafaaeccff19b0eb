package topk

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// Selector selects the top k of batch after batch, without allocating after the
// first call of a shape. The zero value is ready. One goroutine at a time may
// use a Selector; its options may change between calls.
type Selector[T Float] struct {
	Options Options

	planned planKey
	plan    cpu.Plan
	workers []*worker[T]

	shared  batch[T] // of a call on several goroutines
	nextRow atomic.Int64
	running sync.WaitGroup
}

// planKey is what a plan was made for.
type planKey struct {
	shape cpu.Shape // without a tuning, which comes from the plans
	plans *TunedPlans
	tier  simd.Tier
	cores int
}

// batch is the work of one call.
type batch[T Float] struct {
	dst    Result[T]
	logits []T
	shape  Shape
	order  key.Order
}

// worker is one goroutine's share of a Selector.
type worker[T Float] struct {
	run func() // selects rows until none is left; made once, so that a call allocates nothing
	rows
}

// rows holds the row of the width of T; the other is nil.
type rows struct {
	row16 *cpu.Row[uint16]
	row32 *cpu.Row[uint32]
}

func newRows[T Float](keepBits bool) rows {
	var zero T
	if unsafe.Sizeof(zero) == 2 {
		return rows{row16: &cpu.Row[uint16]{KeepBits: keepBits}}
	}
	return rows{row32: &cpu.Row[uint32]{KeepBits: keepBits}}
}

// Select writes the K largest logits of each row to dst, as the function
// [Select] does, under the Selector's options.
func (s *Selector[T]) Select(dst Result[T], logits []T, shape Shape) error {
	tier, err := s.Options.validate()
	if err != nil {
		return err
	}
	if err := shape.Validate(); err != nil {
		return err
	}
	if err := dst.check(shape.Rows, shape.K); err != nil {
		return err
	}
	if need, _ := shape.elements(); len(logits) < need {
		return fmt.Errorf("topk: %d logits, want %d for rows = %d, vocab = %d, stride = %d: %w",
			len(logits), need, shape.Rows, shape.Vocab, shape.stride(), ErrShape)
	}
	if shape.Rows == 0 || shape.K == 0 {
		return nil
	}
	s.replan(shape, tier)
	work := batch[T]{dst, logits, shape, orderOf[T](s.Options)}
	for len(s.workers) < s.plan.Threads {
		w := &worker[T]{rows: newRows[T](false)}
		w.run = func() {
			defer s.running.Done()
			s.shareRows(w)
		}
		s.workers = append(s.workers, w)
	}
	if s.plan.Threads == 1 {
		for i := range shape.Rows {
			work.selectRow(i, s.workers[0].rows, &s.plan)
		}
		return nil
	}
	s.shared = work
	s.nextRow.Store(0)
	for _, w := range s.workers[1:s.plan.Threads] {
		s.running.Add(1)
		go w.run()
	}
	s.shareRows(s.workers[0])
	s.running.Wait()
	s.shared = batch[T]{} // keep none of the caller's memory alive
	return nil
}

// replan makes a plan unless the last one still fits.
func (s *Selector[T]) replan(shape Shape, tier simd.Tier) {
	var zero T
	wanted := planKey{
		shape: cpu.Shape{
			Rows: shape.Rows, Vocab: shape.Vocab, K: shape.K,
			ElementBytes:     int(unsafe.Sizeof(zero)),
			TargetCandidates: s.Options.TargetCandidates,
			Threads:          s.Options.Threads,
		},
		plans: s.Options.Plans,
		tier:  tier,
		cores: 1,
	}
	if shape.Rows > 1 && s.Options.Threads == 0 {
		wanted.cores = cpu.Cores() // takes a lock
	}
	if wanted != s.planned {
		s.planned = wanted
		wanted.shape.Tuning = tuningOf[T](wanted.plans, shape.Rows, shape.Vocab, shape.K)
		s.plan = cpu.NewPlan(wanted.shape, tier, wanted.cores)
	}
}

// shareRows takes row after row until none is left. Rows are handed out one by
// one, so a goroutine that starts late costs nothing.
func (s *Selector[T]) shareRows(w *worker[T]) {
	for {
		i := int(s.nextRow.Add(1)) - 1
		if i >= s.shared.shape.Rows {
			return
		}
		s.shared.selectRow(i, w.rows, &s.plan)
	}
}

// selectRow selects row i of the batch.
func (b *batch[T]) selectRow(i int, r rows, plan *cpu.Plan) {
	k := b.shape.RowResults(i)
	if k == 0 {
		return
	}
	start := i * b.shape.stride()
	logits := b.logits[start : start+b.shape.length(i)]
	out := i * b.shape.K
	values, indices := b.dst.Values[out:out+k], b.dst.Indices[out:out+k]
	if r.row16 != nil {
		selectInto(r.row16, plan, b.order, values, indices, logits)
	} else {
		selectInto(r.row32, plan, b.order, values, indices, logits)
	}
}

// selectInto selects the best of a row.
func selectInto[E simd.Bits, T Float](row *cpu.Row[E], plan *cpu.Plan, order key.Order, values []T, indices []int32, logits []T) {
	row.Reset(plan, order, len(values))
	row.Push(bitsOf[E](logits), 0)
	best := row.Best()
	values, indices = values[:len(best)], indices[:len(best)]
	for i, packed := range best {
		index := key.Index(packed)
		values[i], indices[i] = logits[index], int32(index)
	}
}

// bitsOf views floats as their bits.
func bitsOf[E simd.Bits, T Float](logits []T) []E {
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(logits))), len(logits))
}
