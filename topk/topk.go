// Package topk selects the k largest logits of a row, exactly.
//
// The answer is the first k entries of a stable descending sort of the row:
// equal logits keep the smaller index first, NaN of any sign and payload comes
// before +Inf, and -0 equals +0. It is the same to the bit for every
// instruction set, batch size, thread count and split into chunks.
// docs/semantics.md states the whole contract.
//
// [Select] answers one call and is safe for many goroutines at once. A
// [Selector] is reused by one goroutine for many calls. A [Stream] takes a row
// in chunks as they are produced, and [Merge] joins the results of shards of a
// vocabulary. Logits are float32, [Float16] or [BFloat16], read as they are.
package topk

import "sync"

// Select writes the K largest logits of each row to dst, largest first; equal
// logits keep the smaller index first. logits is [Rows, Vocab], row-major with
// shape's stride, and not modified. An error wraps [ErrShape] and leaves dst
// untouched.
//
// Select may be called from many goroutines. It reads each row about once and
// does not allocate after the first calls of a shape.
func Select[T Float](dst Result[T], logits []T, shape Shape) error {
	pool := poolOf[T]()
	s := pool.Get().(*Selector[T])
	defer pool.Put(s)
	return s.Select(dst, logits, shape)
}

var (
	float32Selectors  = sync.Pool{New: func() any { return new(Selector[float32]) }}
	float16Selectors  = sync.Pool{New: func() any { return new(Selector[Float16]) }}
	bfloat16Selectors = sync.Pool{New: func() any { return new(Selector[BFloat16]) }}
)

func poolOf[T Float]() *sync.Pool {
	var zero T
	switch any(zero).(type) {
	case Float16:
		return &float16Selectors
	case BFloat16:
		return &bfloat16Selectors
	}
	return &float32Selectors
}
