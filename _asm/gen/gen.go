// Package gen holds what the generators of all amd64 tiers have in common: the
// loops over addresses and bits. What is done with vectors is each tier's own.
package gen

import (
	"fmt"
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Slice loads the base and the length of a slice parameter.
func Slice(name string) (base, length reg.GPVirtual) {
	base, length = GP64(), GP64()
	Load(Param(name).Base(), base)
	Load(Param(name).Len(), length)
	return base, length
}

// TailMask returns a word with the n lowest bits set, 0 < n < 64.
func TailMask(n reg.GPVirtual) reg.GPVirtual {
	present := GP64()
	MOVQ(n, reg.RCX)
	MOVQ(I64(-1), present)
	SHLQ(reg.CL, present)
	NOTQ(present)
	return present
}

// Vector32 returns lanes constants in memory, made once for all functions.
func Vector32(name string, lanes int, value func(i int) uint32) Mem {
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range lanes {
		DATA(i*4, U32(value(i)))
	}
	constants[name] = m
	return m
}

// Constant32 returns a constant of 32 bits in memory, made once for all functions.
func Constant32(bits uint32) Mem {
	return Vector32(fmt.Sprintf("constant%08x", bits), 1, func(int) uint32 { return bits })
}

var constants = map[string]Mem{}

// Expand emits Expand32 or Expand16:
//
//	list the words of the bitmap that are not 0 (no branch)
//	for each of them: for each bit: packed[written++] = bits of the element, ~index
//	  or, if all bits are set: 64 elements in vectors
//	turn the bits into keys, many at a time
//
// lanes is how many words of packed a vector holds.
// list writes the places of the words, times 64, as 32-bit numbers to memory,
// up to 64 bytes past the last, and returns their number. keys orders the
// upper halves of the words in packed.
//
// Most words have one bit, so the loop over the bits is predicted well. Spreading
// all bits of a word at once (VPCOMPRESSB) costs more until there are about
// three a word.
func Expand(width, lanes int, list func(bitmap, words reg.GPVirtual, places Mem) reg.GPVirtual, keys func(packed, written reg.GPVirtual)) {
	name, params := "Expand32", "row []uint32"
	if width == 16 {
		name, params = "Expand16", "row []uint16"
	}
	TEXT(name, 0, "func(packed []uint64, bitmap []uint64, "+params+", base uint32, flip uint32, infinity uint32, nan uint32) (written int, words int)")
	Doc(name + " is pure.Expand. The bitmap has at most 1024 words.")
	Pragma("noescape")
	places := AllocLocal(1024*4 + 64)
	bitmap, words := Slice("bitmap")
	listed := list(bitmap, words, places)

	packed, room := Slice("packed")
	SUBQ(Imm(80), room) // pure.ExpandRoom
	row := GP64()
	Load(Param("row").Base(), row)
	base := GP32()
	Load(Param("base"), base)
	NOTL(base) // ~(base + i) = ~base - i
	written, entry := GP64(), GP64()
	XORQ(written, written)
	XORQ(entry, entry)
	start, word := GP64(), GP64()

	Label("words")
	CMPQ(entry, listed)
	JGE(LabelRef("all"))
	MOVL(places.Idx(entry, 4), start.As32())
	CMPQ(written, room)
	JG(LabelRef("full"))
	MOVQ(start, word)
	SHRQ(Imm(3), word)
	MOVQ(Mem{Base: bitmap, Index: word, Scale: 1}, word)
	INCQ(entry)
	CMPQ(word, I8(-1))
	JE(LabelRef("whole"))

	Label("bits")
	i, inverted := GP64(), GP64()
	TZCNTQ(word, i)
	ADDQ(start, i)
	MOVL(base, inverted.As32())
	SUBL(i.As32(), inverted.As32())
	if width == 16 {
		MOVWLZX(Mem{Base: row, Index: i, Scale: 2}, i.As32())
		SHLL(Imm(16), i.As32())
	} else {
		MOVL(Mem{Base: row, Index: i, Scale: 4}, i.As32())
	}
	MOVL(inverted.As32(), Mem{Base: packed, Index: written, Scale: 8})
	MOVL(i.As32(), Mem{Base: packed, Index: written, Scale: 8, Disp: 4})
	INCQ(written)
	BLSRQ(word, word)
	JNZ(LabelRef("bits"))
	JMP(LabelRef("words"))

	Label("whole")
	from, to := GP64(), GP64()
	LEAQ(Mem{Base: row, Index: start, Scale: uint8(width / 8)}, from)
	LEAQ(Mem{Base: packed, Index: written, Scale: 8}, to)
	MOVL(base, inverted.As32())
	SUBL(start.As32(), inverted.As32())
	expandWhole(width, lanes, from, to, inverted)
	ADDQ(Imm(64), written)
	JMP(LabelRef("words"))

	Label("full")
	SHRQ(Imm(6), start)
	MOVQ(start, words)
	Label("all")
	Store(words, Return("words"))
	Store(written, Return("written"))
	keys(packed, written)
	VZEROUPPER()
	RET()
}

// expandWhole writes 64 elements and the inverted index of the first and of those
// that follow.
func expandWhole(width, lanes int, from, to, inverted reg.GPVirtual) {
	places := Vector32("places", 16, func(i int) uint32 { return uint32((i + 1) % 2 * (i / 2)) })
	step := Vector32("step", 16, func(i int) uint32 { return uint32((i + 1) % 2 * lanes) })
	vector, move, or := YMM, VMOVDQU, func(x, y, z Op) { VPOR(x, y, z) }
	if lanes == 8 {
		vector, move, or = ZMM, func(from, to Op) { VMOVDQU64(from, to) }, func(x, y, z Op) { VPORQ(x, y, z) }
	}
	index := vector()
	VMOVQ(inverted, index.AsX())
	VPBROADCASTQ(index.AsX(), index)
	VPSUBQ(places, index, index)
	for i := 0; i < 64; i += lanes {
		x := vector()
		at := Mem{Base: from, Disp: i * width / 8}
		if width == 16 {
			VPMOVZXWQ(at, x)
			VPSLLQ(Imm(48), x, x)
		} else {
			VPMOVZXDQ(at, x)
			VPSLLQ(Imm(32), x, x)
		}
		or(index, x, x)
		move(x, Mem{Base: to, Disp: 8 * i})
		VPSUBQ(step, index, index)
	}
}

// SampleLoop walks the stops of a row with one accumulator of 64 bytes for each
// of some stops:
//
//	for each set of accumulators: clear; for each of its stops: accumulate; store
//
// stop j belongs to accumulator j modulo the number of all accumulators, so a
// set takes that many stops in a row and skips those of the other sets.
func SampleLoop(width, stops int, clear func(), accumulate func(at Mem, i int), store func(groups reg.GPVirtual)) {
	groups, sets := Slice("groups")
	inSet := stops * 512 / width // groups
	SHRQ(Imm(uint64(bits.TrailingZeros(uint(inSet)))), sets)
	row, end := Slice("row")
	LEAQ(Mem{Base: row, Index: end, Scale: uint8(width / 8)}, end)
	SUBQ(Imm(64), end) // the last address at which a stop may start
	step := GP64()
	Load(Param("step"), step)
	SHLQ(Imm(6), step)
	skip := GP64() // from the last stop of a set in one round to its first in the next
	MOVQ(sets, skip)
	DECQ(skip)
	IMULQ(step, skip)
	IMUL3Q(U32(uint32(stops)), skip, skip)
	at := GP64()

	Label("set")
	MOVQ(row, at)
	clear()
	Label("round")
	for i := range stops {
		CMPQ(at, end)
		JA(LabelRef("store"))
		accumulate(Mem{Base: at}, i)
		ADDQ(step, at)
	}
	ADDQ(skip, at)
	JMP(LabelRef("round"))
	Label("store")
	store(groups)
	ADDQ(U32(uint32(4*inSet)), groups)
	past := GP64()
	MOVQ(step, past)
	IMUL3Q(U32(uint32(stops)), past, past)
	ADDQ(past, row)
	DECQ(sets)
	JNZ(LabelRef("set"))
	VZEROUPPER()
	RET()
}

// Rank emits Rank, which halves the interval between the smallest and the
// largest group until the number of groups that reach its middle is close
// enough to the rank.
//
// bounds sets low and high to the smallest and the largest of the groups. count
// adds to reach how many of the next 128 groups are at least middle; least
// prepares it.
func Rank(bounds func(groups, end, at, low, high reg.GPVirtual), least func(middle reg.GPVirtual), count func(at, reach reg.GPVirtual)) {
	TEXT("Rank", NOSPLIT, "func(groups []int32, rank int) int32")
	Doc("Rank is pure.Rank. The number of groups is a multiple of 128.")
	Pragma("noescape")
	groups, n := Slice("groups")
	wanted, enough := GP64(), GP64()
	Load(Param("rank"), wanted)
	MOVQ(wanted, enough)
	SHRQ(Imm(5), enough)
	ADDQ(wanted, enough)
	end := GP64()
	LEAQ(Mem{Base: groups, Index: n, Scale: 4}, end)
	at, low, high := GP64(), GP64(), GP64()
	bounds(groups, end, at, low, high)

	Label("halve")
	CMPQ(low, high)
	JGE(LabelRef("done"))
	middle, reach := GP64(), GP64()
	LEAQ(Mem{Base: low, Index: high, Scale: 1, Disp: 1}, middle)
	SARQ(Imm(1), middle)
	least(middle)
	XORQ(reach, reach)
	MOVQ(groups, at)
	Label("count")
	count(at, reach)
	ADDQ(U32(512), at)
	CMPQ(at, end)
	JB(LabelRef("count"))
	CMPQ(reach, wanted)
	JL(LabelRef("tooHigh"))
	MOVQ(middle, low)
	CMPQ(reach, enough)
	JLE(LabelRef("done"))
	JMP(LabelRef("halve"))
	Label("tooHigh")
	LEAQ(Mem{Base: middle, Disp: -1}, high)
	JMP(LabelRef("halve"))

	Label("done")
	Store(low.As32(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}
