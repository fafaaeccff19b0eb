package topk

import "fmt"

// Result receives the answer: row i's results start at i*K, best first.
// Values holds the logits with their original bits, Indices their places in
// the row. The caller owns both slices; they may be longer than needed, and
// what lies past a row's results is not touched.
type Result[T Float] struct {
	Values  []T
	Indices []int32
}

// NewResult allocates a Result for rows times k entries. It panics if either
// is negative, as make does.
func NewResult[T Float](rows, k int) Result[T] {
	return Result[T]{Values: make([]T, rows*k), Indices: make([]int32, rows*k)}
}

// check reports a slice too short for rows times k results.
func (r Result[T]) check(rows, k int) error {
	if need := rows * k; len(r.Values) < need || len(r.Indices) < need {
		return fmt.Errorf("topk: room for %d values and %d indices, want rows = %d times k = %d: %w",
			len(r.Values), len(r.Indices), rows, k, ErrShape)
	}
	return nil
}
