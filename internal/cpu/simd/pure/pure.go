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
// A search in machine words leaves few elements to be compared. At first it sees
// magnitudes only, which is quick, and enough unless the threshold is negative or
// large negative numbers abound: then it looks more closely. Neither takes a
// branch on an element: one that is mispredicted costs as much as 32 elements.
func Filter[E Bits](bitmap []uint64, row []E, least uint32, order key.Order) {
	clear(bitmap)
	var zero E
	size := int(unsafe.Sizeof(zero))
	var s search
	s.reset(least, order, 8*size)
	few := least > key.SignBit // have a magnitude that may pass, so far
	for block := range slices.Chunk(row, blockBytes/size) {
		past := len(block) * size / StopBytes * StopBytes / size // the last line
		lines := bytesOf(block[:past])
		var large []uint16
		if few {
			large, few = s.find(lines)
		}
		if few {
			for _, i := range large {
				pass := uint64(0)
				if order.Key(key.Widen(block[i])) >= least {
					pass = 1
				}
				bitmap[i>>6] |= pass << (i & 63)
			}
		} else {
			for _, at := range s.lookClosely(lines) {
				i := int(at) / size
				bitmap[i>>6] |= reaching(block[i:i+StopBytes/size], least, order) << (i & 63)
			}
		}
		if past < len(block) {
			bitmap[past>>6] |= reaching(block[past:], least, order) << (past & 63)
		}
		bitmap = bitmap[(len(block)+63)/64:]
	}
}

// reaching returns a bit for each of at most 64 elements that has at least the
// key least.
//
//go:noinline // in a larger function its variables would not stay in registers
func reaching[E Bits](elements []E, least uint32, order key.Order) (word uint64) {
	// One exclusive or makes keys of the elements on the threshold's side of zero,
	// and keeps the others on theirs. NaN has no place in that.
	xor, from := key.SignBit^order.Flip, uint64(least)
	if least <= key.SignBit {
		xor, from = ^order.Flip, uint64(min(least, key.SignBit-1)) // -0 passes with +0
	}
	var largest uint32
	for i := len(elements) - 1; i >= 0; i-- {
		x := key.Widen(elements[i])
		largest = max(largest, x&^key.SignBit)
		_, less := bits.Sub64(uint64(x^xor), from, 0)
		word, _ = bits.Add64(word, word, less)
	}
	if largest <= order.Infinity {
		return ^word & (^uint64(0) >> (64 - len(elements)))
	}
	word = 0
	for i, x := range elements {
		if order.Key(key.Widen(x)) >= least {
			word |= 1 << i
		}
	}
	return word
}

const (
	blockBytes = 1 << 16                // of the row that are searched at a time
	blockLines = blockBytes / StopBytes // of 64 bytes
	room       = 1024                   // for the elements of a block that are compared singly
)

// search finds elements that may reach a threshold. It holds numbers for all
// elements of a machine word, side by side: adding to a magnitude carries into
// the sign's place just when it is large enough, and never further.
type search struct {
	signs  uint64 // the sign bits
	carry  uint64 // carries out of a magnitude at the threshold or, if that is not positive, past it
	nan    uint64 // carries out of a NaN's
	toggle uint64 // makes the sign 1 where a carry counts
	invert uint64 // the signs if it then counts against the element

	logWidth  int                // of the bits of an element
	firstLane int                // where a word has its first element
	lines     [blockLines]uint16 // that may have such elements: their first bytes
	elements  [room]uint16       // that have large magnitudes
}

// reset makes the search one for elements of that width that have at least the
// key least.
func (s *search) reset(least uint32, order key.Order, width int) {
	spread := func(x uint32) (word uint64) {
		for at := 0; at < 64; at += width {
			word |= uint64(x>>(32-width)) << at
		}
		return word
	}
	s.signs = spread(key.SignBit)
	s.nan = s.signs - spread(1<<(32-width)) - spread(order.Infinity)
	s.toggle = s.signs ^ spread(order.Flip)
	if least > key.SignBit { // a magnitude passes from this one on
		s.carry = s.signs - spread(min(least-key.SignBit, order.Infinity))
	} else { // a negative magnitude past this one does not pass; that of zero is -0's
		s.carry = s.signs - spread(1<<(32-width)) - spread(^min(least, key.SignBit-1)&^key.SignBit)
		s.toggle, s.invert = s.toggle^s.signs, s.signs
	}
	s.logWidth = bits.TrailingZeros(uint(width))
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		s.firstLane = 64/width - 1
	}
}

// find returns the elements of a block of whole lines that have a large
// magnitude, and whether they are few; else not all. That of NaN is the largest.
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

// look lists the lines that have a large magnitude, and returns how many.
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

// lookClosely returns the lines in which an element may pass, NaN included.
func (s *search) lookClosely(block []byte) []uint16 {
	signs, carry, nan, toggle, invert := s.signs, s.carry, s.nan, s.toggle, s.invert
	lines := s.lines[:]
	first := unsafe.Pointer(unsafe.SliceData(block))
	n := uint64(0)
	for at := 0; at < len(block); at += StopBytes {
		l := (*line)(unsafe.Add(first, at))
		pass := mayPass(l.word(0), signs, carry, nan, toggle, invert) |
			mayPass(l.word(8), signs, carry, nan, toggle, invert) |
			mayPass(l.word(16), signs, carry, nan, toggle, invert) |
			mayPass(l.word(24), signs, carry, nan, toggle, invert) |
			mayPass(l.word(32), signs, carry, nan, toggle, invert) |
			mayPass(l.word(40), signs, carry, nan, toggle, invert) |
			mayPass(l.word(48), signs, carry, nan, toggle, invert) |
			mayPass(l.word(56), signs, carry, nan, toggle, invert)
		lines[n] = uint16(at)
		_, one := bits.Add64(pass&signs, math.MaxUint64, 0)
		n, _ = bits.Add64(n, 0, one)
	}
	return lines[:n]
}

// mayPass sets the sign bits of elements that pass or are NaN.
func mayPass(word, signs, carry, nan, toggle, invert uint64) uint64 {
	magnitude := word &^ signs
	return (magnitude+carry)&(word^toggle) ^ invert | (magnitude + nan)
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
