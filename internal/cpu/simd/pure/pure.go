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
// which an element may pass are listed, and then compared with care. Neither
// takes a branch that could be mispredicted: that costs as much as two lines.
func Filter[E Bits](bitmap []uint64, row []E, least uint32, order key.Order) {
	clear(bitmap)
	t := newThreshold[E](least, order)
	for block := range slices.Chunk(row, listed*t.elements()) {
		lines := linesOf(block)
		var list [listed]uint16
		large := list[:t.look(&list, lines)]
		for _, line := range large[:t.mark(bitmap, large, lines)] {
			first := int(line) * t.elements()
			setEach(bitmap, block, first, first+t.elements(), least, order)
		}
		setEach(bitmap, block, len(lines)*t.elements(), len(block), least, order)
		bitmap = bitmap[(len(block)+63)/64:]
	}
}

// setEach sets or clears the bits of the elements from first to end.
func setEach[E Bits](bitmap []uint64, block []E, first, end int, least uint32, order key.Order) {
	for i := first; i < end; i++ {
		bitmap[i>>6] &^= 1 << (i & 63)
		if order.Key(key.Widen(block[i])) >= least {
			bitmap[i>>6] |= 1 << (i & 63)
		}
	}
}

// line is what Filter looks at as a whole. Its words may begin anywhere, and
// hold their elements in the order of the machine.
type line [StopBytes]byte

// linesOf views elements as lines, but for what is left over at the end.
func linesOf[E Bits](elements []E) []line {
	var zero E
	return unsafe.Slice((*line)(unsafe.Pointer(unsafe.SliceData(elements))), len(elements)*int(unsafe.Sizeof(zero))/StopBytes)
}

// word returns the word that begins at byte i.
func (l *line) word(i uint) uint64 { return binary.NativeEndian.Uint64(l[i : i+8]) }

// littleEndian says that the first element of a word is in its lowest bits.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// listed is how many lines are listed at a time.
const listed = 4096

// threshold holds numbers for the elements of a machine word, side by side.
// Adding to a magnitude carries into the sign's place just when the magnitude is
// large enough, and never further.
type threshold struct {
	width  int    // bits of an element
	signs  uint64 // the sign bits
	nan    uint64 // carries out of a NaN's magnitude
	large  uint64 // carries out of every magnitude that may pass, whatever the sign
	carry  uint64 // carries out of a magnitude at the threshold or, if negative, past it
	toggle uint64 // makes the sign 1 where a carry counts
	invert uint64 // all ones if it then counts against the element
	gather uint64 // a factor that moves the sign bits to the top, side by side
}

func newThreshold[E Bits](least uint32, order key.Order) threshold {
	var zero E
	width := 8 * int(unsafe.Sizeof(zero))
	narrow := 32 - width
	spread := func(x uint64, distance int) uint64 {
		for ; distance < 64; distance *= 2 {
			x |= x << distance
		}
		return x
	}
	sign, infinity := uint64(key.SignBit)>>narrow, uint64(order.Infinity)>>narrow
	t := threshold{
		width:  width,
		signs:  spread(sign, width),
		nan:    spread(sign-1-infinity, width),
		toggle: spread(uint64(^order.Flip&key.SignBit)>>narrow, width),
		gather: spread(1, width-1),
	}
	if least > key.SignBit { // a magnitude passes from this one on, rounded up
		magnitude := (uint64(least) - key.SignBit + 1<<narrow - 1) >> narrow
		t.carry = spread(sign-min(magnitude, infinity+1), width)
		t.large = t.carry
		return t
	}
	// A negative magnitude past this one does not pass; that of zero is -0's.
	magnitude := uint64(^min(least, key.SignBit-1)&^key.SignBit) >> narrow
	t.carry, t.large = spread(sign-1-magnitude, width), t.signs
	t.toggle, t.invert = t.toggle^t.signs, ^uint64(0)
	return t
}

// elements returns how many there are in a line.
func (t *threshold) elements() int { return 8 * StopBytes / t.width }

// look lists the lines in which a magnitude is large, NaN being the largest, and
// returns how many. It leaves the signs aside.
func (t *threshold) look(list *[listed]uint16, lines []line) (n uint) {
	signs, magnitudes, large := t.signs, ^t.signs, t.large
	for i := range lines {
		l := &lines[i]
		carries := (l.word(0)&magnitudes + large) | (l.word(8)&magnitudes + large) |
			(l.word(16)&magnitudes + large) | (l.word(24)&magnitudes + large) |
			(l.word(32)&magnitudes + large) | (l.word(40)&magnitudes + large) |
			(l.word(48)&magnitudes + large) | (l.word(56)&magnitudes + large)
		list[n%listed] = uint16(i)
		if carries&signs != 0 {
			n++
		}
	}
	return n
}

// mark sets the bits of the listed lines, moves those with a NaN, whose bits are
// wrong, to the front of the list, and returns how many these are.
func (t *threshold) mark(bitmap []uint64, list []uint16, lines []line) (n uint) {
	if !littleEndian {
		return uint(len(list)) // the bits would be in the wrong order
	}
	signs, magnitudes, nan, carry, toggle, gather := t.signs, ^t.signs, t.nan, t.carry, t.toggle, t.gather
	lanes := 64 / t.width
	for _, at := range list {
		l := &lines[at]
		var passing, nans uint64
		for i := uint(0); i < StopBytes; i += 8 {
			word := l.word(i)
			magnitude := word & magnitudes
			nans |= magnitude + nan
			// The bits of this word above those of the words before.
			passing = passing>>lanes | (magnitude+carry)&(word^toggle)&signs*gather&^(1<<63>>(lanes-1)-1)
		}
		passing ^= t.invert
		passing >>= 64 - 8*lanes
		bit := int(at) * 8 * lanes
		bitmap[bit>>6] |= passing << (bit & 63)
		list[n] = at
		if nans&signs != 0 {
			n++
		}
	}
	return n
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
