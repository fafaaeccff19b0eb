// Package pure holds the inner loops in plain Go: the reference for the
// assembly of the other tiers, and the tier of machines without one.
//
// A row enters as the bits of its floats, uint32 or uint16; package key says
// how they are ordered.
package pure

import (
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
)

// Bits is the type of a logit's bits.
type Bits interface{ uint16 | uint32 }

// StopBytes is how much of the row Sample reads at each stop: a cache line.
const StopBytes = 64

// Sample reads every step-th stop of the row, from the start, and writes the
// maxima of len(groups) disjoint sets of what it read, as keys with the top bit
// flipped (so that they are ordered as int32). Lane l of stop j belongs to group
// j*lanes + l, modulo len(groups). The row must have a stop for each group. NaN
// may be left out or be ordered by its bits: the maxima are hints.
func Sample[E Bits](groups []int32, row []E, step int, order key.Order) {
	var zero E
	lanes := StopBytes / int(unsafe.Sizeof(zero))
	for i := range groups {
		groups[i] = math.MinInt32
	}
	first := 0
	for start := 0; start+lanes <= len(row); start += step * lanes {
		maxima := groups[first : first+lanes]
		for i, x := range row[start : start+lanes] {
			y := int32(key.Widen(x) ^ order.Flip)
			maxima[i] = max(maxima[i], y^int32(uint32(y>>31)>>1))
		}
		if first += lanes; first == len(groups) {
			first = 0
		}
	}
}

// Rank returns a value that at least rank of the groups reach, and seldom many
// more. 1 <= rank <= len(groups).
func Rank(groups []int32, rank int) int32 {
	low, high := int64(groups[0]), int64(groups[0])
	for _, g := range groups {
		low, high = min(low, int64(g)), max(high, int64(g))
	}
	enough := rank + rank/32
	for low < high { // at least rank groups reach low, fewer reach high+1
		middle := (low + high + 1) >> 1
		reach := 0
		for _, g := range groups {
			if int64(g) >= middle {
				reach++
			}
		}
		switch {
		case reach < rank:
			high = middle - 1
		case reach <= enough:
			return int32(middle)
		default:
			low = middle
		}
	}
	return int32(low)
}

// Filter sets bit i of the bitmap just when row[i] has at least the key least.
// The bitmap has a word for every 64 elements, the last one padded with zeros.
func Filter[E Bits](bitmap []uint64, row []E, least uint32, order key.Order) {
	clear(bitmap)
	for i, x := range row {
		if order.Key(key.Widen(x)) >= least {
			bitmap[i>>6] |= 1 << (i & 63)
		}
	}
}

// Filter32 is Filter for float32, with the numbers of [key.Order.Above32].
func Filter32(bitmap []uint64, row []uint32, above uint32, invert uint64) {
	v := math.Float32frombits(above)
	for w := range bitmap {
		block := row[w*64 : min(w*64+64, len(row))]
		var word uint64
		for i, x := range block {
			if !(math.Float32frombits(x) <= v) {
				word |= 1 << i
			}
		}
		bitmap[w] = (word ^ invert) & (^uint64(0) >> (64 - len(block)))
	}
}

// Filter16 is Filter for 16-bit floats, with the numbers of
// [key.Order.Above16]. It returns the largest bits of the row, as unsigned
// integers.
func Filter16(bitmap []uint64, row []uint16, xor, above uint16, invert uint64) (largest uint16) {
	for w := range bitmap {
		block := row[w*64 : min(w*64+64, len(row))]
		var word uint64
		for i, x := range block {
			largest = max(largest, x)
			if int16(x^xor) > int16(above) {
				word |= 1 << i
			}
		}
		bitmap[w] = (word ^ invert) & (^uint64(0) >> (64 - len(block)))
	}
	return largest
}

// ExpandRoom is the room in packed without which Expand reads no further word: a
// whole word, and what the other tiers write past the last result.
const ExpandRoom = 64 + 16

// Expand packs the key and the index, base + i, of every row[i] whose bit in
// the bitmap is set, in order. It stops before a word for which fewer than
// ExpandRoom places are left in packed, and returns how many it wrote and how
// many words of the bitmap it has read.
func Expand[E Bits](packed []uint64, bitmap []uint64, row []E, base uint32, order key.Order) (written, words int) {
	for w, word := range bitmap {
		if len(packed)-written < ExpandRoom {
			return written, w
		}
		for ; word != 0; word &= word - 1 {
			i := w<<6 + bits.TrailingZeros64(word)
			packed[written] = key.Pack(order.Key(key.Widen(row[i])), base+uint32(i))
			written++
		}
	}
	return written, len(bitmap)
}

// Sort moves the k largest words to the front, largest first; the order of the
// others is not defined.
func Sort(packed []uint64, k int) {
	slices.Sort(packed)
	slices.Reverse(packed)
}

// Max32 returns the largest float32 of the row: the work that reading costs at
// least. NaN is passed over.
func Max32(row []uint32) float32 {
	best := float32(math.Inf(-1))
	for _, x := range row {
		if v := math.Float32frombits(x); v > best {
			best = v
		}
	}
	return best
}

// Max16 returns the largest of the row's bits, as signed integers.
func Max16(row []uint16) int16 {
	best := int16(math.MinInt16)
	for _, x := range row {
		best = max(best, int16(x))
	}
	return best
}
