//go:build arm64

package neon

// block is how many words are sorted in registers.
const block = 32

// Sort is pure.Sort, but the words after the k largest are no longer those of
// the slice. It may write up to 31 zeros past the end of the slice, within its
// capacity.
//
// Blocks are sorted in registers and merged, by Batcher's bitonic network, into
// runs that grow until one holds k words; the others are folded into the first,
// which keeps its length.
func Sort(packed []uint64, k int) {
	n := len(packed)
	if n < 2 || k < 1 {
		return
	}
	blocks := (n + block - 1) / block
	words := packed[:blocks*block]
	clear(words[n:])
	sort32(&words[0], blocks)
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
}

// merge sorts runs of 2*distance words that are bitonic each; words past the
// end of the slice count as zeros.
func merge(words []uint64, distance int) {
	for ; distance >= block; distance /= 2 {
		for start := 0; start+distance < len(words); start += 2 * distance {
			exchange(&words[start], &words[start+distance], min(distance, len(words)-start-distance))
		}
	}
	merge32(&words[0], len(words)/block)
}
