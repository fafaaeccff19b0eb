package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// AVX2 has no maximum of 64-bit integers, which takes a comparison and a blend,
// but one of float64. So words are sorted as the float64 whose order is theirs:
// a word with the top bit set is what is left without that bit; any other one
// its complement, a negative number. The words that would be NaN have a key
// below 2^20, or of at least 2^32 - 2^20, as no float but NaN has: where one
// turns up, sorting stops.
//
// Runs are merged by Batcher's bitonic network ("Sorting networks and their
// applications", 1968, https://doi.org/10.1145/1468075.1468121): 32 words in
// registers, and blocks of 64 with half of them in memory. Registers are sorted
// column by column, in which few steps cross lanes: word 8*lane + i is that lane
// of vector i. Blocks in memory are row by row: word 4*i + lane.

type registers []reg.VecVirtual

const runBytes = 8 * vectorBytes // of the registers

func load(at Mem) registers {
	r := registers(vectors(8))
	for i := range r {
		VMOVUPD(at.Offset(vectorBytes*i), r[i])
	}
	return r
}

func (r registers) store(at Mem) {
	for i := range r {
		VMOVUPD(r[i], at.Offset(vectorBytes*i))
	}
}

// network emits comparisons. Words go largest first, or smallest first if
// ascending.
type network struct{ ascending bool }

// compare orders two vectors; the words that come first go to the first.
func (n network) compare(first, second *reg.VecVirtual) {
	smaller, larger := YMM(), YMM()
	VMINPD(*second, *first, smaller)
	VMAXPD(*second, *first, larger)
	*first, *second = larger, smaller
	if n.ascending {
		*first, *second = smaller, larger
	}
}

// The lanes of two vectors a and b, joined.

// evens returns a0 b0 a2 b2.
func evens(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VUNPCKLPD(b, a, v); return v }

// odds returns a1 b1 a3 b3.
func odds(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VUNPCKHPD(b, a, v); return v }

// evenOdd returns a0 b1 a2 b3.
func evenOdd(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VSHUFPD(Imm(0xA), b, a, v); return v }

// oddEven returns a1 b0 a3 b2.
func oddEven(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VSHUFPD(Imm(0x5), b, a, v); return v }

// lows returns a0 a1 b0 b1.
func lows(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VPERM2F128(Imm(0x20), b, a, v); return v }

// highs returns a2 a3 b2 b3.
func highs(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VPERM2F128(Imm(0x31), b, a, v); return v }

// lowHigh returns a0 a1 b2 b3.
func lowHigh(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VBLENDPD(Imm(0xC), b, a, v); return v }

// highLow returns a2 a3 b0 b1.
func highLow(a, b reg.VecVirtual) reg.VecVirtual {
	v := YMM()
	VPERM2F128(Imm(0x21), b, a, v)
	return v
}

// halveVectors compares vectors at the distances 4, 2 and 1.
func (n network) halveVectors(r registers) {
	for distance := 4; distance > 0; distance /= 2 {
		for i := range r {
			if i&distance == 0 {
				n.compare(&r[i], &r[i+distance])
			}
		}
	}
}

// halveLanes compares lanes at the distances 2 and 1, of two vectors at a time,
// so that each comparison is of 8 different words.
func (n network) halveLanes(r registers) {
	for i := 0; i < len(r); i += 2 {
		a, b := lows(r[i], r[i+1]), highs(r[i], r[i+1])
		n.compare(&a, &b)
		a, b = evens(a, b), odds(a, b)
		n.compare(&a, &b)
		a, b = evens(a, b), odds(a, b)
		r[i], r[i+1] = lows(a, b), highs(a, b)
	}
}

// sortColumns sorts 32 words, column by column: first each column, by 19
// comparisons ("The Art of Computer Programming", volume 3, 5.3.4), then pairs
// of columns, then all.
func (n network) sortColumns(r registers) {
	for _, c := range [][2]int{
		{0, 2}, {1, 3}, {4, 6}, {5, 7}, {0, 4}, {1, 5}, {2, 6}, {3, 7}, {0, 1}, {2, 3},
		{4, 5}, {6, 7}, {2, 4}, {3, 5}, {1, 4}, {3, 6}, {1, 2}, {3, 4}, {5, 6},
	} {
		n.compare(&r[c[0]], &r[c[1]])
	}
	for i := range 4 { // columns 0 and 1, 2 and 3: each word with its mirror image
		mirror := 7 - i
		a, b := evens(r[i], r[mirror]), odds(r[mirror], r[i])
		n.compare(&a, &b)
		r[i], r[mirror] = evenOdd(a, b), oddEven(a, b)
	}
	n.halveVectors(r)
	for i := range 4 { // columns 0, 1 and 3, 2; then columns at the distance 1
		mirror := 7 - i
		a, b := lows(r[i], r[mirror]), highs(r[mirror], r[i])
		VPERMILPD(Imm(0x5), b, b)
		n.compare(&a, &b)
		a, b = evenOdd(a, b), oddEven(a, b)
		n.compare(&a, &b)
		a, b = evens(a, b), odds(a, b)
		r[i], r[mirror] = lowHigh(a, b), highLow(a, b)
	}
	n.halveVectors(r)
}

// mergeColumns sorts 32 bitonic words, column by column.
func (n network) mergeColumns(r registers) {
	n.halveLanes(r)
	n.halveVectors(r)
}

// mergeRows sorts 32 bitonic words, row by row.
func (n network) mergeRows(r registers) {
	n.halveVectors(r)
	n.halveLanes(r)
}

// rows turns columns into rows.
func (r registers) rows() registers {
	result := make(registers, len(r))
	for g := range 2 {
		v := r[4*g : 4*g+4]
		a, b, c, d := evens(v[0], v[1]), odds(v[0], v[1]), evens(v[2], v[3]), odds(v[2], v[3])
		result[g], result[2+g], result[4+g], result[6+g] = lows(a, c), lows(b, d), highs(a, c), highs(b, d)
	}
	return result
}

// halve compares the words in r with as many in memory, keeps the larger ones
// and leaves the smaller ones in memory.
func (r registers) halve(others, smaller Mem) {
	for i := range r {
		x := YMM()
		VMOVUPD(others.Offset(vectorBytes*i), x)
		network{}.compare(&r[i], &x)
		VMOVUPD(x, smaller.Offset(vectorBytes*i))
	}
}

// toFloats also tells whether one is NaN, by the flags: not zero if so.
func (r registers) toFloats() {
	sign, minusOne := YMM(), YMM()
	VPCMPEQD(minusOne, minusOne, minusOne)
	VPSLLQ(Imm(63), minusOne, sign)
	var isNaN reg.VecVirtual
	const unordered = 3
	for i, x := range r {
		flip := YMM()
		VPCMPGTQ(minusOne, x, flip)
		VPOR(sign, flip, flip)
		VPXOR(flip, x, x)
		switch either := YMM(); {
		case i == 1:
			isNaN = either
			VCMPPD(Imm(unordered), x, r[i-1], isNaN)
		case i%2 == 1:
			VCMPPD(Imm(unordered), x, r[i-1], either)
			VPOR(either, isNaN, isNaN)
		}
	}
	VPTEST(isNaN, isNaN)
}

// eachBlock emits a loop over blocks of 64 words.
func eachBlock(body func(packed reg.GPVirtual)) {
	packed, left := GP64(), GP64()
	Load(Param("packed"), packed)
	Load(Param("blocks"), left)
	Label("blocks")
	body(packed)
	ADDQ(U32(2*runBytes), packed)
	DECQ(left)
	JNZ(LabelRef("blocks"))
}

func sort64() {
	TEXT("sort64", NOSPLIT, "func(packed *uint64, blocks int) (floats int)")
	Doc("sort64 makes float64 of words and sorts each block of 64 of them, largest first. It stops where one is NaN, and returns how many words it has made float64.")
	Pragma("noescape")
	var end reg.GPVirtual
	eachBlock(func(packed reg.GPVirtual) {
		end = packed
		first, second := Mem{Base: packed}, Mem{Base: packed, Disp: runBytes}
		r := load(first)
		r.toFloats()
		JNZ(LabelRef("stop"))
		network{}.sortColumns(r)
		r.store(first)
		r = load(second)
		r.toFloats()
		JNZ(LabelRef("stopHalfway"))
		network{ascending: true}.sortColumns(r) // which makes the block bitonic
		r.halve(first, second)
		network{}.mergeColumns(r)
		r.rows().store(first)
		r = load(second)
		network{}.mergeColumns(r)
		r.rows().store(second)
	})
	JMP(LabelRef("stop"))
	Label("stopHalfway")
	ADDQ(U32(runBytes), end)
	Label("stop")
	start := GP64()
	Load(Param("packed"), start)
	SUBQ(start, end)
	SHRQ(Imm(3), end)
	Store(end, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func merge64() {
	TEXT("merge64", NOSPLIT, "func(packed *uint64, blocks int)")
	Doc("merge64 sorts each of the blocks of 64 float64, largest first, if they are bitonic.")
	Pragma("noescape")
	eachBlock(func(packed reg.GPVirtual) {
		first, second := Mem{Base: packed}, Mem{Base: packed, Disp: runBytes}
		r := load(first)
		r.halve(second, second)
		network{}.mergeRows(r)
		r.store(first)
		r = load(second)
		network{}.mergeRows(r)
		r.store(second)
	})
	VZEROUPPER()
	RET()
}

// mirror walks b forwards and a backwards.
func mirror(name, doc string, keepSmaller bool) {
	TEXT(name, NOSPLIT, "func(a *uint64, b *uint64, n int)")
	Doc(name + " " + doc)
	Pragma("noescape")
	a, b, n := GP64(), GP64(), GP64()
	Load(Param("a"), a)
	Load(Param("b"), b)
	Load(Param("n"), n)
	LEAQ(Mem{Base: a, Index: n, Scale: 8}, a)
	Label("loop")
	for i := range 4 {
		x, y := YMM(), YMM()
		fromEnd, ahead := Mem{Base: a, Disp: -vectorBytes * (i + 1)}, Mem{Base: b, Disp: vectorBytes * i}
		VMOVUPD(fromEnd, x)
		VPERMPD(Imm(0x1B), ahead, y)
		if keepSmaller {
			network{}.compare(&x, &y)
			VPERMPD(Imm(0x1B), y, y)
			VMOVUPD(y, ahead)
		} else {
			VMAXPD(y, x, x)
		}
		VMOVUPD(x, fromEnd)
	}
	SUBQ(I8(-128), b)
	ADDQ(I8(-128), a)
	SUBQ(Imm(16), n)
	JG(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func exchange() {
	TEXT("exchange", NOSPLIT, "func(a *uint64, b *uint64, n int)")
	Doc("exchange puts the larger of float64 a[i] and b[i] into a and the smaller one into b, for n of them (a multiple of 64).")
	Pragma("noescape")
	a, b, n := GP64(), GP64(), GP64()
	Load(Param("a"), a)
	Load(Param("b"), b)
	Load(Param("n"), n)
	Label("loop")
	for i := range 4 {
		x, y := YMM(), YMM()
		VMOVUPD(Mem{Base: a, Disp: vectorBytes * i}, x)
		VMOVUPD(Mem{Base: b, Disp: vectorBytes * i}, y)
		network{}.compare(&x, &y)
		VMOVUPD(x, Mem{Base: a, Disp: vectorBytes * i})
		VMOVUPD(y, Mem{Base: b, Disp: vectorBytes * i})
	}
	SUBQ(I8(-128), a)
	SUBQ(I8(-128), b)
	SUBQ(Imm(16), n)
	JG(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func integers() {
	TEXT("integers", NOSPLIT, "func(packed *uint64, n int)")
	Doc("integers turns n float64 back into words, and up to 3 more.")
	Pragma("noescape")
	packed, n := GP64(), GP64()
	Load(Param("packed"), packed)
	Load(Param("n"), n)
	sign, zero := YMM(), YMM()
	VPXOR(zero, zero, zero)
	VPCMPEQD(sign, sign, sign)
	VPSLLQ(Imm(63), sign, sign)
	JMP(LabelRef("more"))
	Label("loop")
	x, flip := YMM(), YMM()
	VMOVUPD(Mem{Base: packed}, x)
	VPCMPGTQ(x, zero, flip)
	VPOR(sign, flip, flip)
	VPXOR(flip, x, x)
	VMOVUPD(x, Mem{Base: packed})
	ADDQ(Imm(vectorBytes), packed)
	SUBQ(Imm(4), n)
	Label("more")
	TESTQ(n, n)
	JG(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
