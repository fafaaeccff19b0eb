// Command avx2 generates the AVX2 tier.
//
//	go run ./avx2 -out ../internal/cpu/simd/avx2/impl_amd64.s -stubs ../internal/cpu/simd/avx2/stubs.go -pkg avx2
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/ai-kernel-factory/aikf/_asm/gen"
)

func main() {
	ConstraintExpr("amd64")
	filter32()
	filter16()
	gen.Expand(32, 4, list, keys)
	gen.Expand(16, 4, list, keys)
	sample32()
	sample16()
	rank()
	sort64()
	merge64()
	mirror("flip", "compares float64 i before the end of a with float64 i of b, both of n (a multiple of 64), and puts the larger one into a and the smaller one into b.", true)
	mirror("fold", "puts the larger of float64 i before the end of a and float64 i of b, both of n (a multiple of 64), into a.", false)
	exchange()
	integers()
	trim()
	max32()
	max16()
	for _, f := range gen.Formats {
		blockMaxima(f)
		blockMasses(f)
	}
	masses()
	Generate()
}

const vectorBytes = 32

// broadcast fills a vector with a parameter of 32 or 16 bits.
func broadcast(width int, name string) reg.VecVirtual {
	r, v := GP32(), YMM()
	if width == 16 {
		Load(Param(name), r.As16())
	} else {
		Load(Param(name), r)
	}
	VMOVD(r, v.AsX())
	if width == 16 {
		VPBROADCASTW(v.AsX(), v)
	} else {
		VPBROADCASTD(v.AsX(), v)
	}
	return v
}

// constant fills a vector with a constant of 32 bits.
func constant(bits uint32) reg.VecVirtual {
	v := YMM()
	setConstant(bits, v)
	return v
}

func setConstant(bits uint32, vectors ...reg.VecVirtual) {
	r := GP32()
	MOVL(U32(bits), r)
	VMOVD(r, vectors[0].AsX())
	VPBROADCASTD(vectors[0].AsX(), vectors[0])
	for _, v := range vectors[1:] {
		VMOVDQA(vectors[0], v)
	}
}

func vectors(n int) []reg.VecVirtual {
	all := make([]reg.VecVirtual, n)
	for i := range all {
		all[i] = YMM()
	}
	return all
}

// tail returns 64 elements in memory of which the first n, 0 < n < 64, are those
// at row and the others are fill, because a vector must not be read past the
// row's end. It moves row.
func tail(width int, row, n reg.GPVirtual, fill reg.VecVirtual) Mem {
	bytes := 8 * width
	block := AllocLocal(bytes)
	for i := 0; i < bytes; i += vectorBytes {
		VMOVDQU(fill, block.Offset(i))
	}
	to := GP64()
	LEAQ(block, to)
	for elements := 32; elements > 0; elements /= 2 {
		next := fmt.Sprint("below", elements)
		TESTQ(U32(uint32(elements)), n)
		JZ(LabelRef(next))
		size := elements * width / 8
		for at := 0; at < size; {
			from, into := Mem{Base: row, Disp: at}, Mem{Base: to, Disp: at}
			switch left := size - at; {
			case left >= 32:
				x := YMM()
				VMOVDQU(from, x)
				VMOVDQU(x, into)
				at += 32
			case left == 16:
				x := XMM()
				VMOVDQU(from, x)
				VMOVDQU(x, into)
				at += 16
			case left == 8:
				x := GP64()
				MOVQ(from, x)
				MOVQ(x, into)
				at += 8
			case left == 4:
				x := GP32()
				MOVL(from, x)
				MOVL(x, into)
				at += 4
			default:
				x := GP32()
				MOVWLZX(from, x)
				MOVW(x.As16(), into)
				at += 2
			}
		}
		ADDQ(U32(uint32(size)), row)
		ADDQ(U32(uint32(size)), to)
		Label(next)
	}
	return block
}

// filterLoop emits the loop of a filter over words of 64 elements, once for each
// of its variants, which choose jumps to. compare leaves the truth of each
// element in a bit of two masks of 32. What takes fewest instructions is best:
// that is what the loop is bound by.
func filterLoop(width int, fill reg.VecVirtual, variants []string, choose func(invert reg.GPVirtual), compare func(variant int, at Mem) [2]reg.GPVirtual) {
	bitmap := GP64()
	Load(Param("bitmap").Base(), bitmap)
	row, n := gen.Slice("row")
	invert := GP64()
	Load(Param("invert"), invert)
	wordBytes := 8 * width
	word := func(variant int, row Mem, at Mem) {
		for i, bits := range compare(variant, row) {
			if variant > 0 {
				XORL(invert.As32(), bits.As32())
			}
			MOVL(bits.As32(), at.Offset(4*i))
		}
	}
	choose(invert)
	for v, name := range variants {
		Label(name)
		SUBQ(U32(128), n)
		JL(LabelRef(name + "Rest"))
		Label(name + "Pair")
		word(v, Mem{Base: row}, Mem{Base: bitmap})
		word(v, Mem{Base: row, Disp: wordBytes}, Mem{Base: bitmap, Disp: 8})
		ADDQ(U32(uint32(2*wordBytes)), row)
		ADDQ(Imm(16), bitmap)
		SUBQ(U32(128), n)
		JGE(LabelRef(name + "Pair"))
		Label(name + "Rest")
		ADDQ(U32(128), n)
		CMPQ(n, Imm(64))
		JL(LabelRef("tail"))
		word(v, Mem{Base: row}, Mem{Base: bitmap})
		ADDQ(U32(uint32(wordBytes)), row)
		ADDQ(Imm(8), bitmap)
		SUBQ(Imm(64), n)
		if v < len(variants)-1 {
			JMP(LabelRef("tail"))
		}
	}
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	word(len(variants)-1, tail(width, row, n, fill), Mem{Base: bitmap})
	present := gen.TailMask(n)
	ANDQ(present, Mem{Base: bitmap})
	Label("done")
}

func filter32() {
	TEXT("Filter32", NOSPLIT, "func(bitmap []uint64, row []uint32, above uint32, invert uint64)")
	Doc("Filter32 is pure.Filter32.")
	Pragma("noescape")
	above := broadcast(32, "above")
	order := YMM()
	VMOVDQU(gen.Vector32("halves", 8, func(i int) uint32 { return uint32(i/2 + i%2*4) }), order)
	const notGreaterEqual = 0x19 // above is not >= x; NaN is not
	choose := func(invert reg.GPVirtual) {
		TESTQ(invert, invert)
		JNZ(LabelRef("inverted"))
	}
	filterLoop(32, above, []string{"plain", "inverted"}, choose, func(_ int, at Mem) (bits [2]reg.GPVirtual) {
		for half := range bits {
			bytes := packed(func(i int, truth reg.VecVirtual) {
				VCMPPS(Imm(notGreaterEqual), at.Offset(vectorBytes*(4*half+i)), above, truth)
			})
			VPERMD(bytes, order, bytes)
			bits[half] = GP64()
			VPMOVMSKB(bytes, bits[half].As32())
		}
		return bits
	})
	VZEROUPPER()
	RET()
}

// packed turns the 32-bit lanes of 4 comparisons into bytes: 4 each of the lower
// halves of the vectors, then of the upper halves.
func packed(compare func(i int, truth reg.VecVirtual)) reg.VecVirtual {
	t := vectors(4)
	for i := range t {
		compare(i, t[i])
	}
	VPACKSSDW(t[1], t[0], t[0])
	VPACKSSDW(t[3], t[2], t[2])
	VPACKSSWB(t[2], t[0], t[0])
	return t[0]
}

// filter16 is filter32 on int16(x ^ xor) > above, and takes the maximum of x.
func filter16() {
	TEXT("Filter16", NOSPLIT, "func(bitmap []uint64, row []uint16, xor uint16, above uint16, invert uint64) (largest uint16)")
	Doc("Filter16 is pure.Filter16.")
	Pragma("noescape")
	xor, above := broadcast(16, "xor"), broadcast(16, "above")
	largest := vectors(4)
	zero := YMM()
	for _, v := range append(largest, zero) {
		VPXOR(v, v, v)
	}
	choose := func(invert reg.GPVirtual) { // plain: neither is there to flip nor to invert
		r := GP64()
		VMOVQ(xor.AsX(), r)
		ORQ(invert, r)
		JNZ(LabelRef("general"))
	}
	filterLoop(16, zero, []string{"plain", "general"}, choose, func(variant int, at Mem) (bits [2]reg.GPVirtual) {
		for half := range bits {
			t := vectors(2)
			for i := range t {
				x := YMM()
				VMOVDQU(at.Offset(vectorBytes*(2*half+i)), x)
				VPMAXUW(x, largest[2*half+i], largest[2*half+i])
				if variant > 0 {
					VPXOR(x, xor, x)
				}
				VPCMPGTW(above, x, t[i])
			}
			VPACKSSWB(t[1], t[0], t[0])
			VPERMQ(Imm(0xD8), t[0], t[0]) // packing works on halves of vectors
			bits[half] = GP64()
			VPMOVMSKB(t[0], bits[half].As32())
		}
		return bits
	})
	fold(largest, VPMAXUW)
	ones := XMM()
	VPCMPEQW(ones, ones, ones)
	Store(extreme16(largest[0], VPMAXUW, ones).As16(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// extreme16 returns the largest of 16 lanes, whose order is that of unsigned
// numbers, descending, after an exclusive or with reverse.
func extreme16(v reg.VecVirtual, op func(...Op), reverse reg.Register) reg.GPVirtual {
	half := XMM()
	VEXTRACTI128(Imm(1), v, half)
	op(half, v.AsX(), half)
	VPXOR(reverse, half, half)
	VPHMINPOSUW(half, half)
	VPXOR(reverse, half, half)
	r := GP32()
	VMOVD(half, r)
	return r
}

// list looks up where the words that are not 0 lie among 8 words.
func list(bitmap, words reg.GPVirtual, places Mem) reg.GPVirtual {
	at, left, listed := GP64(), GP64(), GP64()
	MOVQ(bitmap, at)
	MOVQ(words, left)
	XORQ(listed, listed)
	place, zero := YMM(), YMM()
	VPXOR(place, place, place)
	VPXOR(zero, zero, zero)
	next := constant(8 * 64)
	lookup := GP64()
	LEAQ(placesOfBits(), lookup)
	step := func(load func(half int) Op) {
		low, high, found, mask := YMM(), YMM(), YMM(), GP64()
		VPCMPEQQ(load(0), zero, low)
		VPCMPEQQ(load(1), zero, high)
		VPACKSSDW(high, low, low) // words 0 1 4 5 2 3 6 7
		VMOVMSKPS(low, mask.As32())
		XORL(Imm(0xFF), mask.As32())
		VPMOVZXBD(Mem{Base: lookup, Index: mask, Scale: 8}, found)
		VPSLLD(Imm(6), found, found)
		VPADDD(place, found, found)
		VMOVDQU(found, places.Idx(listed, 4))
		POPCNTL(mask.As32(), mask.As32())
		ADDQ(mask, listed)
	}
	SUBQ(Imm(8), left)
	JL(LabelRef("listRest"))
	Label("list")
	step(func(half int) Op { return Mem{Base: at, Disp: vectorBytes * half} })
	VPADDD(next, place, place)
	ADDQ(Imm(64), at)
	SUBQ(Imm(8), left)
	JGE(LabelRef("list"))
	Label("listRest")
	ADDQ(Imm(8), left)
	JZ(LabelRef("listed"))
	present := YMM()
	VMOVQ(left, present.AsX())
	VPBROADCASTQ(present.AsX(), present)
	step(func(half int) Op {
		load, x := YMM(), YMM()
		ramp := gen.Vector32("ramp", 16, func(i int) uint32 { return uint32(i / 2 * (1 - i%2)) })
		VPCMPGTQ(ramp.Offset(vectorBytes*half), present, load)
		VPMASKMOVQ(Mem{Base: at, Disp: vectorBytes * half}, load, x)
		return x
	})
	Label("listed")
	return listed
}

// placesOfBits holds, for each mask of 8 bits, the places of its bits as bytes,
// smallest first. The bits stand for the words 0 1 4 5 2 3 6 7.
func placesOfBits() Mem {
	order := [8]int{0, 1, 4, 5, 2, 3, 6, 7} // which is its own inverse
	return gen.Vector32("placesOfBits", 512, func(i int) uint32 {
		mask := i / 2
		var places uint64
		n := 0
		for place, bit := range order {
			if mask>>bit&1 != 0 {
				places |= uint64(place) << (8 * n)
				n++
			}
		}
		return uint32(places >> (32 * (i % 2)))
	})
}

// keys writes up to 3 words past the last.
func keys(packed, written reg.GPVirtual) {
	flip, infinity, nan := broadcast(32, "flip"), broadcast(32, "infinity"), broadcast(32, "nan")
	sign, magnitudeBits := constant(1<<31), constant(1<<31-1)
	SUBQ(Imm(1), written)
	JL(LabelRef("done"))
	Label("keys")
	x, y, key, magnitude, isZero := YMM(), YMM(), YMM(), YMM(), YMM()
	VMOVDQU(Mem{Base: packed}, x)
	VPXOR(flip, x, y)
	VPAND(magnitudeBits, y, magnitude)
	VPCMPGTD(infinity, magnitude, magnitude)
	VPCMPEQD(sign, y, isZero) // -0, whose key is to be one more, that of 0
	VPSRAD(Imm(31), y, key)
	VPOR(sign, key, key)
	VPXOR(y, key, key)
	VPSUBD(isZero, key, key)
	VPBLENDVB(magnitude, nan, key, key)
	VPBLENDD(Imm(0xAA), key, x, x) // the lower halves stay
	VMOVDQU(x, Mem{Base: packed})
	ADDQ(Imm(vectorBytes), packed)
	SUBQ(Imm(4), written)
	JGE(LabelRef("keys"))
	Label("done")
}

func sample32() {
	TEXT("Sample32", NOSPLIT, "func(groups []int32, row []uint32, step int, flip uint32)")
	Doc("Sample32 is pure.Sample, but for NaN, which it leaves out.")
	Pragma("noescape")
	flip, lowest := broadcast(32, "flip"), constant(0xFF800000) // -Inf
	maxima := vectors(8)
	gen.SampleLoop(32, len(maxima)/2,
		func() {
			for _, m := range maxima {
				VMOVDQA(lowest, m)
			}
		},
		func(at Mem, i int) {
			for j, m := range maxima[2*i : 2*i+2] {
				x := YMM()
				VPXOR(at.Offset(vectorBytes*j), flip, x)
				VMAXPS(m, x, m) // the accumulator if x is NaN
			}
		},
		func(groups reg.GPVirtual) {
			for i, m := range maxima {
				s := YMM()
				VPSRAD(Imm(31), m, s)
				VPSRLD(Imm(1), s, s)
				VPXOR(s, m, s)
				VMOVDQU(s, Mem{Base: groups, Disp: vectorBytes * i})
			}
		})
}

func sample16() {
	TEXT("Sample16", NOSPLIT, "func(groups []int32, row []uint16, step int, flip uint16)")
	Doc("Sample16 is pure.Sample.")
	Pragma("noescape")
	flip, lowest := broadcast(16, "flip"), constant(0x80008000)
	maxima := vectors(8)
	gen.SampleLoop(16, len(maxima)/2,
		func() {
			for _, m := range maxima {
				VMOVDQA(lowest, m)
			}
		},
		func(at Mem, i int) {
			for j, m := range maxima[2*i : 2*i+2] {
				y, s := YMM(), YMM()
				VPXOR(at.Offset(vectorBytes*j), flip, y)
				VPSRAW(Imm(15), y, s)
				VPSRLW(Imm(1), s, s)
				VPXOR(s, y, y)
				VPMAXSW(y, m, m)
			}
		},
		func(groups reg.GPVirtual) {
			for i, m := range maxima {
				for half := range 2 {
					y, wide, s := XMM(), YMM(), YMM()
					VEXTRACTI128(Imm(uint64(half)), m, y)
					VPMOVSXWD(y, wide)
					VPSLLD(Imm(16), wide, wide)
					VPSRAD(Imm(31), wide, s)
					VPSRLD(Imm(16), s, s)
					VPXOR(s, wide, wide)
					VMOVDQU(wide, Mem{Base: groups, Disp: 2*vectorBytes*i + vectorBytes*half})
				}
			}
		})
}

func rank() {
	below := YMM()
	gen.Rank(
		func(groups, end, at, low, high reg.GPVirtual) {
			lows, highs := vectors(2), vectors(2)
			for i := range lows {
				VMOVDQU(Mem{Base: groups, Disp: vectorBytes * i}, lows[i])
				VMOVDQA(lows[i], highs[i])
			}
			LEAQ(Mem{Base: groups, Disp: 2 * vectorBytes}, at)
			Label("bounds")
			for i := range lows {
				x := YMM()
				VMOVDQU(Mem{Base: at, Disp: vectorBytes * i}, x)
				VPMINSD(x, lows[i], lows[i])
				VPMAXSD(x, highs[i], highs[i])
			}
			ADDQ(Imm(2*vectorBytes), at)
			CMPQ(at, end)
			JB(LabelRef("bounds"))
			for _, r := range []struct {
				v      []reg.VecVirtual
				op     func(...Op)
				result reg.GPVirtual
			}{{lows, VPMINSD, low}, {highs, VPMAXSD, high}} {
				fold(r.v, r.op)
				horizontal(r.v[0], r.op, r.result)
				MOVLQSX(r.result.As32(), r.result)
			}
		},
		func(middle reg.GPVirtual) {
			r := GP32() // a group is at least middle if it is greater than this
			LEAL(Mem{Base: middle, Disp: -1}, r)
			VMOVD(r, below.AsX())
			VPBROADCASTD(below.AsX(), below)
		},
		func(at, reach reg.GPVirtual) {
			for i := 0; i < 16; i += 4 {
				bytes := packed(func(j int, truth reg.VecVirtual) {
					VMOVDQU(Mem{Base: at, Disp: vectorBytes * (i + j)}, truth)
					VPCMPGTD(below, truth, truth)
				})
				count := GP64()
				VPMOVMSKB(bytes, count.As32())
				POPCNTL(count.As32(), count.As32())
				ADDQ(count, reach)
			}
		})
}

// fold leaves the vectors' extremes in the first.
func fold(v []reg.VecVirtual, op func(...Op)) {
	for half := len(v) / 2; half > 0; half /= 2 {
		for i := range half {
			op(v[i+half], v[i], v[i])
		}
	}
}

// horizontal folds the 8 lanes of v.
func horizontal(v reg.VecVirtual, op func(...Op), result reg.GPVirtual) {
	a, b := XMM(), XMM()
	VEXTRACTI128(Imm(1), v, a)
	op(a, v.AsX(), a)
	VPSHUFD(Imm(0x4E), a, b)
	op(b, a, a)
	VPSHUFD(Imm(0xB1), a, b)
	op(b, a, a)
	VMOVD(a, result.As32())
}

// maximum emits the loop of Max32 or Max16 and leaves the maxima in one vector.
func maximum(width int, lowest reg.VecVirtual, op func(...Op)) reg.VecVirtual {
	row, n := gen.Slice("row")
	maxima := vectors(8)
	for _, m := range maxima {
		VMOVDQA(lowest, m)
	}
	wordBytes := 8 * width
	word := func(at Mem) {
		for i := range wordBytes / vectorBytes {
			op(at.Offset(vectorBytes*i), maxima[i%8], maxima[i%8])
		}
	}
	SUBQ(U32(64), n)
	JL(LabelRef("rest"))
	Label("words")
	word(Mem{Base: row})
	ADDQ(U32(uint32(wordBytes)), row)
	SUBQ(U32(64), n)
	JGE(LabelRef("words"))
	Label("rest")
	ADDQ(U32(64), n)
	JZ(LabelRef("done"))
	word(tail(width, row, n, lowest))
	Label("done")
	fold(maxima, op)
	return maxima[0]
}

func max32() {
	TEXT("Max32", NOSPLIT, "func(row []uint32) uint32")
	Doc("Max32 is pure.Max32: the work that reading a row costs at least.")
	Pragma("noescape")
	best := maximum(32, constant(0xFF800000), VMAXPS) // the accumulator if x is NaN
	r := GP32()
	horizontal(best, VMAXPS, r)
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func max16() {
	TEXT("Max16", NOSPLIT, "func(row []uint16) uint16")
	Doc("Max16 is pure.Max16: the work that reading a row costs at least.")
	Pragma("noescape")
	best := maximum(16, constant(0x80008000), VPMAXSW)
	reverse := constant(0x7FFF7FFF) // the largest becomes the smallest unsigned number
	Store(extreme16(best, VPMAXSW, reverse.AsX()).As16(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}
