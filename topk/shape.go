package topk

import (
	"fmt"
	"math"
)

// Shape describes a batch of rows of logits.
type Shape struct {
	Rows  int // rows in the batch; 0 is allowed
	Vocab int // logits in a row, at most 2^31-1
	K     int // results for each row, 0 <= K <= Vocab

	// Stride is the number of elements from the start of one row to the start
	// of the next; 0 stands for Vocab. A padded vocabulary has Stride > Vocab.
	Stride int
	// Expand makes every row the first one, as an expanded PyTorch tensor of
	// stride 0 does. Stride is then not used.
	Expand bool

	// RowK gives each row a k of its own, 0 <= RowK[i] <= K. Nil: K for all.
	RowK []int32
	// RowLengths gives each row a length of its own, 0 <= RowLengths[i] <= Vocab:
	// only the first RowLengths[i] logits of row i count. Nil: Vocab for all.
	// A row shorter than its k has as many results as logits.
	RowLengths []int32
}

// Row is the shape of a single row.
func Row(vocab, k int) Shape {
	return Shape{Rows: 1, Vocab: vocab, K: k}
}

// RowResults returns how many results row i has: its k, or its length if that
// is smaller.
func (s Shape) RowResults(i int) int {
	k, length := s.K, s.Vocab
	if s.RowK != nil {
		k = int(s.RowK[i])
	}
	if s.RowLengths != nil {
		length = int(s.RowLengths[i])
	}
	return min(k, length)
}

// length returns how many logits of row i count.
func (s Shape) length(i int) int {
	if s.RowLengths != nil {
		return int(s.RowLengths[i])
	}
	return s.Vocab
}

// stride returns the elements from one row to the next.
func (s Shape) stride() int {
	switch {
	case s.Expand:
		return 0
	case s.Stride == 0:
		return s.Vocab
	}
	return s.Stride
}

// Validate reports what is wrong with the shape itself, as an ErrShape with
// the numbers.
func (s Shape) Validate() error {
	switch {
	case s.Rows < 0:
		return fmt.Errorf("topk: rows = %d is negative: %w", s.Rows, ErrShape)
	case s.Vocab < 0:
		return fmt.Errorf("topk: vocab = %d is negative: %w", s.Vocab, ErrShape)
	case s.Vocab > math.MaxInt32:
		return fmt.Errorf("topk: vocab = %d exceeds %d: %w", s.Vocab, math.MaxInt32, ErrShape)
	case s.K < 0:
		return fmt.Errorf("topk: k = %d is negative (vocab = %d): %w", s.K, s.Vocab, ErrShape)
	case s.K > s.Vocab:
		return fmt.Errorf("topk: k = %d exceeds vocab = %d: %w", s.K, s.Vocab, ErrShape)
	case !s.Expand && s.Stride != 0 && s.Stride < s.Vocab:
		return fmt.Errorf("topk: stride = %d is less than vocab = %d: %w", s.Stride, s.Vocab, ErrShape)
	case s.RowK != nil && len(s.RowK) != s.Rows:
		return fmt.Errorf("topk: %d values of k for %d rows: %w", len(s.RowK), s.Rows, ErrShape)
	case s.RowLengths != nil && len(s.RowLengths) != s.Rows:
		return fmt.Errorf("topk: %d lengths for %d rows: %w", len(s.RowLengths), s.Rows, ErrShape)
	}
	if _, ok := product(s.Rows, s.K); !ok {
		return fmt.Errorf("topk: rows = %d times k = %d overflows: %w", s.Rows, s.K, ErrShape)
	}
	if _, ok := s.elements(); !ok {
		return fmt.Errorf("topk: rows = %d times stride = %d overflows: %w", s.Rows, s.stride(), ErrShape)
	}
	for i, k := range s.RowK {
		if k < 0 || int(k) > s.K {
			return fmt.Errorf("topk: row %d: k = %d is outside 0 to %d: %w", i, k, s.K, ErrShape)
		}
	}
	for i, length := range s.RowLengths {
		if length < 0 || int(length) > s.Vocab {
			return fmt.Errorf("topk: row %d: length = %d is outside 0 to vocab = %d: %w", i, length, s.Vocab, ErrShape)
		}
	}
	return nil
}

// elements returns how many logits the batch spans, and whether an int holds
// the number. The last row need not be padded.
func (s Shape) elements() (int, bool) {
	if s.Rows == 0 {
		return 0, true
	}
	span, ok := product(s.Rows-1, s.stride())
	if !ok || span > math.MaxInt-s.Vocab {
		return 0, false
	}
	return span + s.Vocab, true
}

func product(a, b int) (int, bool) {
	if a != 0 && b > math.MaxInt/a {
		return 0, false
	}
	return a * b, true
}
