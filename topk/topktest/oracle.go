// Package topktest checks implementations of top-k against an oracle: the rows
// to try, the comparison, and a conformance suite that every backend passes.
//
// [Run] is the suite, for a test of a [Backend]. [Verify] compares backends with
// the oracle over random shapes and rows for as long as it is given.
package topktest

import (
	"sort"

	"github.com/ai-kernel-factory/aikf/topk"
)

// Oracle returns the k largest logits, or smallest, and their indices: the
// first k entries of a stable sort. It is slow, and simple enough to be checked
// by reading it. k must not exceed the number of logits.
func Oracle[T topk.Float](logits []T, k int, smallest bool) (values []T, indices []int32) {
	indices = Ranking(logits, smallest)[:k]
	for _, i := range indices {
		values = append(values, logits[i])
	}
	return values, indices
}

// Ranking returns the indices of all logits in the contract's order; the first
// k of them are the answer for any k.
func Ranking[T topk.Float](logits []T, smallest bool) []int32 {
	indices := make([]int32, len(logits))
	for i := range indices {
		indices[i] = int32(i)
	}
	sort.SliceStable(indices, func(a, b int) bool {
		return before(value(logits[indices[a]]), value(logits[indices[b]]), smallest)
	})
	return indices
}

// before reports whether a comes before b by its value. NaN is the largest
// value, whatever its sign; every NaN equals every other, and -0 equals +0.
func before(a, b float32, smallest bool) bool {
	if smallest {
		a, b = b, a
	}
	aIsNaN, bIsNaN := a != a, b != b
	if aIsNaN || bIsNaN {
		return aIsNaN && !bIsNaN
	}
	return a > b
}

// value returns the number that x stands for.
func value[T topk.Float](x T) float32 {
	switch x := any(x).(type) {
	case topk.Float16:
		return x.Float32()
	case topk.BFloat16:
		return x.Float32()
	}
	return any(x).(float32)
}
