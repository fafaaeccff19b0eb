//go:build amd64

package avx512

// Sort moves the k largest words to the front, largest first; the order of the
// others is not defined. It may write up to 127 zeros past the end of the
// slice, within its capacity.
//
// Up to k = 64 the best stay in registers. Else blocks of 128 are sorted in
// registers and merged, by Batcher's bitonic network, into a run that grows
// until it holds k words; what is left is folded into that run, which keeps its
// length.
func Sort(packed []uint64, k int) {
	n := len(packed)
	if n < 2 || k < 1 {
		return
	}
	unit := 128
	if k <= 64 {
		unit = 64
	}
	if k > 64 && k <= 512 && n > (k+k/8+127)/128*128 {
		// Fewer blocks are worth more than what Trim costs.
		n, _ = Trim(packed, k)
	}
	blocks := (n + unit - 1) / unit
	words := packed[:blocks*unit]
	clear(words[n:])
	if k <= 64 {
		top64(&words[0], blocks)
		return
	}
	sort128(&words[0], blocks)
	run := 128
	for ; run < k && run < len(words); run *= 2 {
		for start := 0; start+run < len(words); start += 2 * run {
			other := start + run
			end := min(other+run, len(words))
			flip(&words[other-1], &words[other], end-other)
			merge(words[start:end], run/2)
		}
	}
	for start := run; start < len(words); start += run {
		end := min(start+run, len(words))
		fold(&words[run-1], &words[start], end-start)
		merge(words[:run], run/2)
	}
}

// merge sorts runs of 2*distance words that are bitonic each; words past the
// end of the slice count as zeros.
func merge(words []uint64, distance int) {
	for ; distance >= 128; distance /= 2 {
		for start := 0; start+distance < len(words); start += 2 * distance {
			exchange(&words[start], &words[start+distance], min(distance, len(words)-start-distance))
		}
	}
	merge128(&words[0], len(words)/128)
}
