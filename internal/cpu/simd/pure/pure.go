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
// Lines of 64 bytes are first looked at as a whole, in machine words, for large
// magnitudes. Where there are few, only these are compared; where there are
// many, or the threshold is not positive, every element is. The look takes no
// branch that could be mispredicted: that would cost as much as two lines.
func Filter[E Bits](bitmap []uint64, row []E, least uint32, order key.Order) {
	clear(bitmap)
	m := newMagnitudes[E](least, order)
	var list [listed]uint16
	for block := range slices.Chunk(row, listed*m.elements()) {
		lines := linesOf(block)
		large := list[:m.look(&list, lines)]
		first := 0 // of those to be compared one by one
		if len(large) <= len(lines)/2 {
			for _, line := range large {
				at := int(line) * m.elements()
				for places := m.places(&lines[line]); places != 0; places &= places - 1 {
					i := at + m.element(bits.TrailingZeros64(places))
					var pass uint64
					if order.Key(key.Widen(block[i])) >= least {
						pass = 1
					}
					bitmap[i>>6] |= pass << (i & 63)
				}
			}
			first = len(lines) * m.elements()
		}
		for i := first; i < len(block); i++ {
			if order.Key(key.Widen(block[i])) >= least {
				bitmap[i>>6] |= 1 << (i & 63)
			}
		}
		bitmap = bitmap[(len(block)+63)/64:]
	}
}

// listed is how many lines are listed at a time.
const listed = 1024

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

// magnitudes tells the elements of a word whose magnitude, without the sign, is
// large enough for a threshold.
type magnitudes struct {
	signs     uint64 // the sign bits
	carry     uint64 // carries out of a large magnitude into the sign's place, and never further
	logWidth  int    // of the bits of an element
	firstLane int    // where a word has its first element
}

// newMagnitudes returns the magnitudes that may have at least the key least:
// those of NaN are the largest, and all are large unless it is a positive one.
func newMagnitudes[E Bits](least uint32, order key.Order) magnitudes {
	var zero E
	width := 8 * int(unsafe.Sizeof(zero))
	m := magnitudes{logWidth: bits.TrailingZeros(uint(width))}
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		m.firstLane = 64/width - 1
	}
	spread := func(x uint32) (word uint64) {
		for at := 0; at < 64; at += width {
			word |= uint64(x>>(32-width)) << at
		}
		return word
	}
	m.signs, m.carry = spread(key.SignBit), spread(key.SignBit)
	if least > key.SignBit {
		m.carry = spread(key.SignBit - min(least-key.SignBit, order.Infinity))
	}
	return m
}

// elements returns how many there are in a line.
func (m *magnitudes) elements() int { return 8 * StopBytes >> m.logWidth }

// look lists the lines that have a large magnitude, and returns how many.
func (m *magnitudes) look(list *[listed]uint16, lines []line) (n uint) {
	signs, others, carry := m.signs, ^m.signs, m.carry
	entries := list[:]
	first := unsafe.Pointer(unsafe.SliceData(lines))
	for at := 0; at < len(lines)*StopBytes; at += StopBytes {
		l := (*line)(unsafe.Add(first, at)) // an index would cost two instructions of 40
		carries := (l.word(0)&others + carry) | (l.word(8)&others + carry) |
			(l.word(16)&others + carry) | (l.word(24)&others + carry) |
			(l.word(32)&others + carry) | (l.word(40)&others + carry) |
			(l.word(48)&others + carry) | (l.word(56)&others + carry)
		entries[n] = uint16(at / StopBytes)
		if carries&signs != 0 {
			n++
		}
	}
	return n
}

// places returns a bit for each large magnitude of the line, for element to
// tell which.
func (m *magnitudes) places(l *line) uint64 {
	signs, others, carry := m.signs, ^m.signs, m.carry
	return (l.word(0)&others+carry)&signs | (l.word(8)&others+carry)&signs>>1 |
		(l.word(16)&others+carry)&signs>>2 | (l.word(24)&others+carry)&signs>>3 |
		(l.word(32)&others+carry)&signs>>4 | (l.word(40)&others+carry)&signs>>5 |
		(l.word(48)&others+carry)&signs>>6 | (l.word(56)&others+carry)&signs>>7
}

// element returns which of the line's elements has that place: counted down from
// the sign's, it is the word.
func (m *magnitudes) element(place int) int {
	lane, word := place>>(m.logWidth&63), ^place&(1<<(m.logWidth&63)-1)
	return word<<((6-m.logWidth)&63) + lane ^ m.firstLane
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
