//go:build amd64

package avx2

import (
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
)

// block is how many words sort64 sorts.
const block = 64

// padding stands for words past the end: the smallest that as float64 is a
// number, -Inf.
var padding = slices.Repeat([]uint64{1<<52 - 1}, block)

// Sort is pure.Sort, but the words after the k largest are no longer those of
// the slice. No word may be 1<<63, which key.Pack makes of no index below
// 1<<32 - 1. It may write up to 64 words past the end of the slice, within its
// capacity.
//
// Blocks are sorted and merged, by Batcher's bitonic network, into runs that
// grow until one holds k words; the others are folded into the first, which
// keeps its length. All this is on float64 in the order of the words. Where
// the words of a NaN would be NaN themselves, pure.Sort does it.
func Sort(packed []uint64, k int) {
	n := len(packed)
	if n < 2 || k < 1 {
		return
	}
	if fit := (k + k/8 + block - 1) / block * block; k <= 512 && n > fit {
		n, _ = trim(packed, k, fit) // fewer blocks are worth more than what it costs
	}
	blocks := (n + block - 1) / block
	words := packed[:blocks*block]
	copy(words[n:], padding)
	if floats := sort64(&words[0], blocks); floats < len(words) {
		integers(&words[0], floats)
		pure.Sort(words[:n], k)
		return
	}
	run := block
	for ; run < k && run < len(words); run *= 2 {
		for start := 0; start+run < len(words); start += 2 * run {
			other := start + run
			end := min(other+run, len(words))
			paired := end - other // from the end of the one run, from the start of the other
			flip(&words[other-paired], &words[other], paired)
			merge(words[start:end], run/2)
		}
	}
	for start := run; start < len(words); start += run {
		paired := min(run, len(words)-start)
		fold(&words[run-paired], &words[start], paired)
		merge(words[:run], run/2)
	}
	integers(&words[0], k)
}

// merge sorts runs of 2*distance words that are bitonic each; words past the
// end of the slice count as the smallest.
func merge(words []uint64, distance int) {
	for ; distance >= block; distance /= 2 {
		for start := 0; start+distance < len(words); start += 2 * distance {
			exchange(&words[start], &words[start+distance], min(distance, len(words)-start-distance))
		}
	}
	merge64(&words[0], len(words)/block)
}

// Trim moves at least k of the largest words to the front, and at most k/8 more,
// unless words are equal. It returns how many, and a bound that just these
// reach. 1 <= k <= len(packed). It may write up to 8 words past the end of the
// slice, within its capacity.
func Trim(packed []uint64, k int) (kept int, least uint64) {
	return trim(packed, k, k+k/8)
}
