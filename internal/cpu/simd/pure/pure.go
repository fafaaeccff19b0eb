// Package pure holds the inner loops in plain Go: the reference for the
// assembly of the other tiers, and the tier of machines without one.
//
// A row enters as the bits of its floats, uint32 or uint16; package key says
// how they are ordered.
package pure

import (
	"cmp"
	"encoding/binary"
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
		line := row[start : start+lanes]
		maxima := groups[first:]
		maxima = maxima[:len(line)] // tells the compiler that no index is out of range
		for i, x := range line {
			y := int32(key.Widen(x) ^ order.Flip)
			y ^= int32(uint32(y>>31) >> 1)
			if y > maxima[i] { // seldom after the first few lines
				maxima[i] = y
			}
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
//
// Lines of 64 bytes are first looked at as a whole, in machine words; those in
// which an element may pass are listed, and then compared element by element.
// Neither takes a branch that could be mispredicted.
func Filter[E Bits](bitmap []uint64, row []E, least uint32, order key.Order) {
	clear(bitmap)
	t := newThreshold[E](least, order)
	for block := range slices.Chunk(row, listed*t.elements) {
		var list [listed]uint16
		whole := len(block) / t.elements
		bytes := bytesOf(block[:whole*t.elements])
		n := t.listLarge(&list, bytes)
		if n > uint(whole)/4 {
			n = t.listPassing(&list, bytes)
		}
		for _, line := range list[:n] {
			i := int(line) * t.elements
			if t.hasNaN(bytes[StopBytes*int(line):]) {
				setEach(bitmap, block, i, i+t.elements, least, order)
			} else {
				bitmap[i>>6] |= passing(block[i:i+t.elements], least, order.Flip) << (i & 63)
			}
		}
		setEach(bitmap, block, whole*t.elements, len(block), least, order)
		bitmap = bitmap[(len(block)+63)/64:]
	}
}

// listed is how many lines are listed at a time: 4,096 of 64 bytes.
const listed = 4096

// setEach sets the bits of the elements from first to end that have at least the
// key least.
func setEach[E Bits](bitmap []uint64, block []E, first, end int, least uint32, order key.Order) {
	for i := first; i < end; i++ {
		if order.Key(key.Widen(block[i])) >= least {
			bitmap[i>>6] |= 1 << (i & 63)
		}
	}
}

// passing returns the bits of the elements of a line without NaN that have at
// least the key least.
func passing[E Bits](line []E, least uint32, flip uint32) (word uint64) {
	if least == key.SignBit {
		least-- // the key of -0, before it is made equal to +0
	}
	for _, x := range line { // the last one ends up in the top bit
		y := key.Widen(x) ^ flip
		over := int64(y^(uint32(int32(y)>>31)|key.SignBit)) - int64(least)
		word = word>>1 | uint64(^over)&(1<<63)
	}
	return word >> (64 - len(line))
}

// threshold holds numbers for the elements of a machine word, side by side.
// Adding to a magnitude carries into the sign's place just when the magnitude is
// large enough, and never further.
type threshold struct {
	elements int    // in a line
	signs    uint64 // the sign bits
	flip     uint64 // the signs if the smallest value is the best
	nan      uint64 // carries out of a NaN's magnitude
	carry    uint64 // carries out of a magnitude at the threshold or, if negative, past it
	negative bool   // the threshold is zero or negative
}

func newThreshold[E Bits](least uint32, order key.Order) threshold {
	var zero E
	width := 8 * int(unsafe.Sizeof(zero))
	shift := 32 - width
	sign := uint64(key.SignBit) >> shift
	spread := func(x uint64) uint64 {
		for bits := width; bits < 64; bits *= 2 {
			x |= x << bits
		}
		return x
	}
	t := threshold{
		elements: 8 * StopBytes / width,
		signs:    spread(sign),
		flip:     spread(uint64(order.Flip) >> shift),
		nan:      spread(sign - 1 - uint64(order.Infinity)>>shift),
		negative: least <= key.SignBit,
	}
	switch {
	case least > key.SignBit: // a magnitude passes from this one on
		t.carry = spread(sign - min((uint64(least)-key.SignBit+1<<shift-1)>>shift, uint64(order.Infinity)>>shift+1))
	case least == key.SignBit: // zero: -0 passes, too
		t.carry = spread(sign - 1)
	default: // a negative magnitude past this one does not pass
		t.carry = spread(sign - 1 - uint64(^least&^key.SignBit)>>shift)
	}
	return t
}

// listLarge lists the lines in which a magnitude reaches the threshold's, or all
// if it is negative. It leaves the signs aside; NaN has the largest magnitudes.
func (t *threshold) listLarge(list *[listed]uint16, bytes []byte) (n uint) {
	magnitudes, carry := ^t.signs, t.carry
	if t.negative {
		carry = t.signs
	}
	for at := 0; at+64 <= len(bytes); at += 64 {
		b := bytes[at : at+64 : at+64]
		large := (binary.NativeEndian.Uint64(b[0:8])&magnitudes + carry) |
			(binary.NativeEndian.Uint64(b[8:16])&magnitudes + carry) |
			(binary.NativeEndian.Uint64(b[16:24])&magnitudes + carry) |
			(binary.NativeEndian.Uint64(b[24:32])&magnitudes + carry) |
			(binary.NativeEndian.Uint64(b[32:40])&magnitudes + carry) |
			(binary.NativeEndian.Uint64(b[40:48])&magnitudes + carry) |
			(binary.NativeEndian.Uint64(b[48:56])&magnitudes + carry) |
			(binary.NativeEndian.Uint64(b[56:64])&magnitudes + carry)
		list[n%listed] = uint16(at / 64)
		n += notZero(large &^ magnitudes)
	}
	return n
}

// listPassing lists the lines in which an element may pass. NaN may.
func (t *threshold) listPassing(list *[listed]uint16, bytes []byte) (n uint) {
	for at := 0; at+64 <= len(bytes); at += 64 {
		var pass uint64
		for b := bytes[at : at+64]; len(b) >= 8; b = b[8:] {
			word := binary.NativeEndian.Uint64(b) ^ t.flip
			magnitudes := word &^ t.signs
			if t.negative {
				pass |= ^(word & (magnitudes + t.carry))
			} else {
				pass |= (magnitudes + t.carry) &^ word
			}
			pass |= magnitudes + t.nan
		}
		list[n%listed] = uint16(at / 64)
		n += notZero(pass & t.signs)
	}
	return n
}

// hasNaN reports whether the first line has a NaN.
func (t *threshold) hasNaN(bytes []byte) bool {
	var nan uint64
	for b := bytes[:StopBytes]; len(b) >= 8; b = b[8:] {
		nan |= binary.NativeEndian.Uint64(b)&^t.signs + t.nan
	}
	return nan&t.signs != 0
}

// notZero is 1 if x is not 0.
func notZero(x uint64) uint { return uint((x | -x) >> 63) }

// bytesOf views elements as bytes.
func bytesOf[E Bits](elements []E) []byte {
	var zero E
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(elements))), len(elements)*int(unsafe.Sizeof(zero)))
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
// others is not defined. Words are distinct.
func Sort(packed []uint64, k int) {
	if k < len(packed) {
		selectLargest(packed, k)
		packed = packed[:k]
	}
	slices.Sort(packed)
	slices.Reverse(packed)
}

// selectLargest moves the k largest words to the front, in any order:
// C. A. R. Hoare's "Find", https://doi.org/10.1145/366622.366647. Rows that
// defeat the choice of the pivot are sorted after a few rounds.
func selectLargest(packed []uint64, k int) {
	rounds := 2 * bits.Len(uint(len(packed)))
	for ; len(packed) > 16 && rounds > 0; rounds-- {
		last := len(packed) - 1
		pivot := medianOfThree(packed, 0, last/2, last)
		packed[pivot], packed[last] = packed[last], packed[pivot]
		bound := packed[last]
		larger := 0 // words before this one are larger than the bound
		for i, word := range packed[:last] {
			packed[i] = packed[larger]
			packed[larger] = word
			if word > bound {
				larger++
			}
		}
		packed[larger], packed[last] = packed[last], packed[larger]
		switch {
		case k <= larger:
			packed = packed[:larger]
		case k == larger+1:
			return
		default:
			packed, k = packed[larger+1:], k-larger-1
		}
	}
	slices.SortFunc(packed, func(a, b uint64) int { return cmp.Compare(b, a) })
}

// medianOfThree returns which of the three indices has the middle word.
func medianOfThree(packed []uint64, a, b, c int) int {
	if packed[a] > packed[b] {
		a, b = b, a
	}
	switch {
	case packed[c] > packed[b]:
		return b
	case packed[c] > packed[a]:
		return c
	}
	return a
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
