package topk

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
)

// Stream selects the k largest logits of one row that arrives in chunks, such
// as the tiles of an output projection. The answer is that of one [Select] over
// the whole row, whatever the chunks. A chunk is read during Push and not kept.
//
// One goroutine at a time may use a Stream. Make one with [NewStream].
type Stream[T Float] struct {
	k      int
	pushed int
	plan   cpu.Plan
	order  key.Order
	rows
}

// NewStream returns a Stream that selects k logits. Of the options, Threads has
// no meaning here.
func NewStream[T Float](k int, options Options) (*Stream[T], error) {
	tier, err := options.validate()
	if err != nil {
		return nil, err
	}
	if k < 0 || k > math.MaxInt32 {
		return nil, fmt.Errorf("topk: k = %d is outside 0 to %d: %w", k, math.MaxInt32, ErrShape)
	}
	var zero T
	s := &Stream[T]{k: k, order: orderOf[T](options), rows: newRows[T](true)}
	s.plan = cpu.NewStreamPlan(k, int(unsafe.Sizeof(zero)), options.TargetCandidates, tier)
	s.Reset()
	return s, nil
}

// Reset drops what was pushed and starts a new row.
func (s *Stream[T]) Reset() {
	s.pushed = 0
	switch {
	case s.k == 0:
	case s.row16 != nil:
		s.row16.Reset(&s.plan, s.order, s.k)
	default:
		s.row32.Reset(&s.plan, s.order, s.k)
	}
}

// Push adds the next logits of the row. A row that would grow past 2^31-1
// logits is an error that wraps [ErrShape], and the chunk is not taken.
func (s *Stream[T]) Push(logits []T) error {
	if len(logits) > math.MaxInt32-s.pushed {
		return fmt.Errorf("topk: %d logits after %d exceed vocab = %d: %w", len(logits), s.pushed, math.MaxInt32, ErrShape)
	}
	base := uint32(s.pushed)
	s.pushed += len(logits)
	switch {
	case s.k == 0:
	case s.row16 != nil:
		s.row16.Push(bitsOf[uint16](logits), base)
	default:
		s.row32.Push(bitsOf[uint32](logits), base)
	}
	return nil
}

// Pushed returns how many logits the row has so far.
func (s *Stream[T]) Pushed() int { return s.pushed }

// Finish writes the k largest of the logits pushed since the last Finish or
// Reset to dst, and starts a new row. If fewer than k were pushed or dst is too
// short, it returns an error that wraps [ErrShape] and nothing is lost: the row
// can be pushed on and finished again.
func (s *Stream[T]) Finish(dst Result[T]) error {
	if s.k > s.pushed {
		return fmt.Errorf("topk: k = %d exceeds vocab = %d pushed: %w", s.k, s.pushed, ErrShape)
	}
	if err := dst.check(1, s.k); err != nil {
		return err
	}
	switch {
	case s.k == 0:
	case s.row16 != nil:
		s.row16.Write(bitsOf[uint16](dst.Values), dst.Indices)
	default:
		s.row32.Write(bitsOf[uint32](dst.Values), dst.Indices)
	}
	s.Reset()
	return nil
}
