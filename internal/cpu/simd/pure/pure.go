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
	row = row[:len(row)/lanes*lanes]
	flip, next := order.Flip, uint(step*len(groups)) // the same group's next element
	for g := range groups {
		first := uint(g/lanes*(step*lanes) + g%lanes)
		// Positive floats are ordered as integers are.
		best := int32(-1)
		for i := first; i < uint(len(row)); i += next {
			best = max(best, int32(key.Widen(row[i])^flip))
		}
		if best < 0 { // the smallest of the negative ones is the best
			for i := first; i < uint(len(row)); i += next {
				best = min(best, int32(key.Widen(row[i])^flip))
			}
			best ^= math.MaxInt32
		}
		groups[g] = best
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
		reach := reached(groups, int32(middle))
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

// reached returns how many groups reach the value.
func reached(groups []int32, value int32) (n int) {
	for _, g := range groups {
		if g >= value {
			n++
		}
	}
	return n
}

// Filter sets bit i of the bitmap just when row[i] has at least the key least.
// The bitmap has a word for every 64 elements, the last one padded with zeros.
//
// Mostly the threshold is positive, and few magnitudes are as large: a search in
// machine words finds them, signs aside, and only they are compared. From where
// there are many, as in a row masked with -1e9, every element is. Neither takes
// a branch on an element: one that is mispredicted costs as much as 32 elements.
func Filter[E Bits](bitmap []uint64, row []E, least uint32, order key.Order) {
	var zero E
	size := int(unsafe.Sizeof(zero))
	var s search
	if few := least > key.SignBit; few {
		clear(bitmap)
		s.reset(min(least-key.SignBit, order.Infinity), 8*size)
		for few && len(row) > 0 {
			block := row[:min(len(row), blockBytes/size)]
			whole := len(block) * size / StopBytes
			var large []uint16
			large, few = s.find(bytesOf(block[:whole*StopBytes/size]))
			if !few {
				break
			}
			for i := whole * StopBytes / size; i < len(block); i++ {
				large = append(large, uint16(i))
			}
			for _, i := range large {
				pass := uint64(0)
				if order.Key(key.Widen(block[i])) >= least {
					pass = 1
				}
				bitmap[i>>6] |= pass << (i & 63)
			}
			row, bitmap = row[len(block):], bitmap[(len(block)+63)/64:]
		}
	}
	compare(bitmap, row, least, order)
}

// compare is Filter without the search.
func compare[E Bits](bitmap []uint64, row []E, least uint32, order key.Order) {
	// One exclusive or makes keys of the elements on the threshold's side of zero,
	// and keeps the others on theirs. NaN has no place in that.
	xor, from := key.SignBit^order.Flip, uint64(least)
	if least <= key.SignBit {
		xor, from = ^order.Flip, uint64(min(least, key.SignBit-1)) // -0 passes with +0
	}
	for w := range bitmap {
		block := row[w*64 : min(w*64+64, len(row))]
		word, largest := reaching(block, from, xor)
		if largest > order.Infinity {
			word = 0
			for i, x := range block {
				if order.Key(key.Widen(x)) >= least {
					word |= 1 << i
				}
			}
		}
		bitmap[w] = word
	}
}

// reaching returns the bits of the at most 64 elements that are at least from
// after the exclusive or, and the largest magnitude.
//
//go:noinline // in a larger function its variables would not stay in registers
func reaching[E Bits](block []E, from uint64, xor uint32) (word uint64, largest uint32) {
	for i := len(block) - 1; i >= 0; i-- {
		x := key.Widen(block[i])
		largest = max(largest, x&^key.SignBit)
		_, less := bits.Sub64(uint64(x^xor), from, 0)
		word, _ = bits.Add64(word, word, less)
	}
	return ^word & (^uint64(0) >> (64 - len(block))), largest
}

const (
	blockBytes = 1 << 16                // of the row that are searched at a time
	blockLines = blockBytes / StopBytes // of 64 bytes
	room       = 1024                   // for the elements of a block that are compared singly
)

// search finds elements whose magnitude, without the sign, is large. It looks at
// a line as a whole, and only then for its elements.
type search struct {
	signs     uint64             // the sign bits of a word's elements
	carry     uint64             // carries out of a large magnitude into the sign's place, and never further
	logWidth  int                // of the bits of an element
	firstLane int                // where a word has its first element
	lines     [blockLines]uint16 // that have large elements: their first bytes
	elements  [room]uint16       // that are large
}

// reset makes magnitudes large from this one on, given as the upper bits of 32.
func (s *search) reset(magnitude uint32, width int) {
	spread := func(x uint32) (word uint64) {
		for at := 0; at < 64; at += width {
			word |= uint64(x>>(32-width)) << at
		}
		return word
	}
	s.signs = spread(key.SignBit)
	s.carry = s.signs - spread(magnitude)
	s.logWidth = bits.TrailingZeros(uint(width))
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		s.firstLane = 64/width - 1
	}
}

// find returns the large elements of a block of whole lines, and whether they
// are few; else not all. NaN is larger than all numbers.
func (s *search) find(block []byte) (large []uint16, few bool) {
	signs, others, carry := s.signs, ^s.signs, s.carry
	n := 0
	for _, at := range s.lines[:s.look(block)] {
		if n > room-2*32 { // for this line's, and for those past the last line
			return nil, false
		}
		l := (*line)(block[at:])
		// A bit for each: as far below its lane's sign as there are words after it.
		places := (l.word(0)&others+carry)&signs>>7 | (l.word(8)&others+carry)&signs>>6 |
			(l.word(16)&others+carry)&signs>>5 | (l.word(24)&others+carry)&signs>>4 |
			(l.word(32)&others+carry)&signs>>3 | (l.word(40)&others+carry)&signs>>2 |
			(l.word(48)&others+carry)&signs>>1 | (l.word(56)&others+carry)&signs
		first := int(at) << 3 >> (s.logWidth & 63)
		for ; places != 0; places &= places - 1 {
			place := bits.TrailingZeros64(places)
			word, lane := place&7, place>>(s.logWidth&63)^s.firstLane
			s.elements[n] = uint16(first + word<<((6-s.logWidth)&63) + lane)
			n++
		}
	}
	return s.elements[:n], true
}

// line is what is looked at as a whole. Its words may begin anywhere, and hold
// their elements in the order of the machine.
type line [StopBytes]byte

// word returns the word that begins at byte i.
func (l *line) word(i uint) uint64 { return binary.NativeEndian.Uint64(l[i : i+8]) }

// look lists the lines that have a large element, and returns how many.
func (s *search) look(block []byte) (n uint64) {
	signs, others, carry := s.signs, ^s.signs, s.carry
	lines := s.lines[:]
	first := unsafe.Pointer(unsafe.SliceData(block))
	for at := 0; at < len(block); at += StopBytes {
		l := (*line)(unsafe.Add(first, at)) // a slice would cost five instructions of 40
		carries := (l.word(0)&others + carry) | (l.word(8)&others + carry) |
			(l.word(16)&others + carry) | (l.word(24)&others + carry) |
			(l.word(32)&others + carry) | (l.word(40)&others + carry) |
			(l.word(48)&others + carry) | (l.word(56)&others + carry)
		lines[n] = uint16(at)
		_, one := bits.Add64(carries&signs, math.MaxUint64, 0) // carries out unless none did
		n, _ = bits.Add64(n, 0, one)
	}
	return n
}

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
	if len(packed) < ExpandRoom {
		return 0, 0
	}
	for w, word := range bitmap {
		if word == 0 {
			continue
		}
		for ; word != 0; word &= word - 1 {
			i := w<<6 + bits.TrailingZeros64(word)
			packed[written] = key.Pack(order.Key(key.Widen(row[i])), base+uint32(i))
			written++
		}
		if len(packed)-written < ExpandRoom {
			return written, w + 1
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
