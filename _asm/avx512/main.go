// Command avx512 generates the AVX-512 tier.
//
//	go run ./avx512 -out ../internal/cpu/simd/avx512/impl_amd64.s -stubs ../internal/cpu/simd/avx512/stubs.go -pkg avx512
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/ai-kernel-factory/aikf/_asm/gen"
)

func main() {
	ConstraintExpr("amd64")
	filter32()
	filter16()
	gen.Expand(32, 8, list, keys)
	gen.Expand(16, 8, list, keys)
	sample32()
	sample16()
	rank()
	top64()
	sort128()
	merge128()
	mirror("flip", "compares word i before the end of a (aLast is its last word) with word i of b, for n words (a multiple of 128), and puts the larger one into a and the smaller one into b.", true)
	mirror("fold", "puts the larger of word i before the end of a (aLast is its last word) and word i of b into a, for n words (a multiple of 128).", false)
	exchange()
	trim()
	max32()
	max16()
	for _, f := range gen.Formats {
		blockMaxima(f)
		blockMasses(f)
		compact(f)
		compactAbove(f)
	}
	masses()
	roughMass()
	pick()
	Generate()
}

// broadcast32 fills a vector with a 32-bit parameter.
func broadcast32(name string) reg.VecVirtual {
	r, v := GP32(), ZMM()
	Load(Param(name), r)
	VPBROADCASTD(r, v)
	return v
}

func broadcast16(name string) reg.VecVirtual {
	r, v := GP32(), ZMM()
	Load(Param(name), r.As16())
	VPBROADCASTW(r, v)
	return v
}

// filter32:
//
//	for each 64 elements: 4 comparisons, whose masks are stored side by side
//	the last, partial word: masked loads, bits past the row cleared
//
// Masks go straight to memory: joining four of them in mask registers first
// takes 3 more of the mask operations that the loop is bound by.
func filter32() {
	TEXT("Filter32", NOSPLIT, "func(bitmap []uint64, row []uint32, above uint32, invert uint64)")
	Doc("Filter32 is pure.Filter32.")
	Pragma("noescape")
	above := broadcast32("above")
	const notGreaterEqual, greaterEqual = 0x19, 0x1D // above is (not) >= x; NaN is not
	filterLoop(32, func(x Op, i int, inverted bool, bits reg.Register) {
		if inverted {
			VCMPPS(Imm(greaterEqual), x, above, bits)
		} else {
			VCMPPS(Imm(notGreaterEqual), x, above, bits)
		}
	})
	VZEROUPPER()
	RET()
}

// filterLoop emits the loop of a filter twice, for a result as compared and for
// the inverted one. compare sets a mask from the vector x, in memory or in a
// register, which is vector i of a word.
func filterLoop(width int, compare func(x Op, i int, inverted bool, bits reg.Register)) {
	bitmap := GP64()
	Load(Param("bitmap").Base(), bitmap)
	row, n := gen.Slice("row")
	invert := GP64()
	Load(Param("invert"), invert)
	vectors := width / 8 // 64 elements
	wordBytes := 64 * vectors

	word := func(offset int, inverted bool) {
		for i := range vectors {
			bits := K()
			compare(Mem{Base: row, Disp: offset*wordBytes + 64*i}, i, inverted, bits)
			if at := (Mem{Base: bitmap, Disp: 8*offset + 8/vectors*i}); width == 32 {
				KMOVW(bits, at)
			} else {
				KMOVD(bits, at)
			}
		}
	}
	loop := func(name string, inverted bool) {
		Label(name)
		SUBQ(U32(128), n)
		JL(LabelRef(name + "Rest"))
		Label(name + "Pair")
		word(0, inverted)
		word(1, inverted)
		ADDQ(U32(uint32(2*wordBytes)), row)
		ADDQ(Imm(16), bitmap)
		SUBQ(U32(128), n)
		JGE(LabelRef(name + "Pair"))
		Label(name + "Rest")
		ADDQ(U32(128), n)
		CMPQ(n, Imm(64))
		JL(LabelRef("tail"))
		word(0, inverted)
		ADDQ(U32(uint32(wordBytes)), row)
		ADDQ(Imm(8), bitmap)
		SUBQ(Imm(64), n)
	}
	TESTQ(invert, invert)
	JNZ(LabelRef("inverted"))
	loop("plain", false)
	JMP(LabelRef("tail"))
	loop("inverted", true)

	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	present := gen.TailMask(n)
	part, all := GP64(), GP64()
	MOVQ(present, part)
	XORQ(all, all)
	for i := range vectors {
		load, bits, x, r := K(), K(), ZMM(), GP64()
		if width == 32 {
			KMOVW(part.As32(), load)
			VMOVDQU32_Z(Mem{Base: row, Disp: 64 * i}, load, x)
		} else {
			KMOVD(part.As32(), load)
			VMOVDQU16_Z(Mem{Base: row, Disp: 64 * i}, load, x)
		}
		compare(x, i, false, bits)
		KMOVQ(bits, r)
		SHLQ(Imm(uint64(64/vectors*i)), r)
		ORQ(r, all)
		SHRQ(Imm(uint64(64/vectors)), part)
	}
	XORQ(invert, all)
	ANDQ(present, all)
	MOVQ(all, Mem{Base: bitmap})
	Label("done")
}

// joinMasks packs two masks of 32 or four of 16 bits into one of 64.
func joinMasks(k []reg.Virtual) reg.Virtual {
	if len(k) == 4 {
		low, high := K(), K()
		KUNPCKWD(k[0], k[1], low)
		KUNPCKWD(k[2], k[3], high)
		k = []reg.Virtual{low, high}
	}
	all := K()
	KUNPCKDQ(k[0], k[1], all)
	return all
}

// filter16 is filter32 on int16(x ^ xor) > above, and takes the maximum of x.
func filter16() {
	TEXT("Filter16", NOSPLIT, "func(bitmap []uint64, row []uint16, xor uint16, above uint16, invert uint64) (largest uint16)")
	Doc("Filter16 is pure.Filter16.")
	Pragma("noescape")
	xor, above := broadcast16("xor"), broadcast16("above")
	largest := []reg.VecVirtual{ZMM(), ZMM()}
	VPXORD(largest[0], largest[0], largest[0])
	VPXORD(largest[1], largest[1], largest[1])
	const greater, notGreater = 6, 2
	filterLoop(16, func(x Op, i int, inverted bool, bits reg.Register) {
		y := ZMM()
		if _, inMemory := x.(Mem); inMemory {
			v := ZMM()
			VMOVDQU64(x, v)
			x = v
		}
		VPMAXUW(x, largest[i], largest[i])
		VPXORD(x, xor, y)
		if inverted {
			VPCMPW(Imm(notGreater), above, y, bits)
		} else {
			VPCMPW(Imm(greater), above, y, bits)
		}
	})
	VPMAXUW(largest[1], largest[0], largest[0])
	// 32 lanes to one: the halves, then the smallest of the complements.
	half := YMM()
	VEXTRACTI64X4(Imm(1), largest[0], half)
	VPMAXUW(half, largest[0].AsY(), half)
	quarter := XMM()
	VEXTRACTI128(Imm(1), half, quarter)
	VPMAXUW(quarter, half.AsX(), quarter)
	ones := XMM()
	VPCMPEQW(ones, ones, ones)
	VPXOR(ones, quarter, quarter)
	VPHMINPOSUW(quarter, quarter)
	r := GP32()
	VMOVD(quarter, r)
	NOTL(r)
	Store(r.As16(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// list compresses the places of the words that are not 0.
func list(bitmap, words reg.GPVirtual, places Mem) reg.GPVirtual {
	at, left, listed := GP64(), GP64(), GP64()
	MOVQ(bitmap, at)
	MOVQ(words, left)
	XORQ(listed, listed)
	place, next := ZMM(), ZMM()
	VMOVDQU64(vector32("ramp64", func(i int) uint32 { return uint32(64 * i) }), place)
	r := GP32()
	MOVL(U32(16*64), r)
	VPBROADCASTD(r, next)
	some, inMask := K(), K()
	step := func(load func(at Mem, half int, some reg.Register)) {
		low, high, count, compressed := K(), K(), GP64(), ZMM()
		load(Mem{Base: at}, 0, low)
		load(Mem{Base: at, Disp: 64}, 1, high)
		KUNPCKBW(low, high, some)
		VPCOMPRESSD_Z(place, some, compressed)
		VMOVDQU64(compressed, places.Idx(listed, 4))
		KMOVW(some, count.As32())
		POPCNTL(count.As32(), count.As32())
		ADDQ(count, listed)
	}
	SUBQ(Imm(16), left)
	JL(LabelRef("listRest"))
	Label("list")
	step(func(at Mem, half int, some reg.Register) {
		x := ZMM()
		VMOVDQU64(at, x)
		VPTESTMQ(x, x, some)
	})
	VPADDD(next, place, place)
	SUBQ(I8(-128), at)
	SUBQ(Imm(16), left)
	JGE(LabelRef("list"))
	Label("listRest")
	ADDQ(Imm(16), left)
	JZ(LabelRef("listed"))
	present := gen.TailMask(left)
	step(func(at Mem, half int, some reg.Register) {
		x := ZMM()
		KMOVB(present.As32(), inMask)
		VMOVDQU64_Z(at, inMask, x)
		VPTESTMQ(x, x, some)
		SHRQ(Imm(8), present)
	})
	Label("listed")
	return listed
}

func keys(packed, written reg.GPVirtual) {
	flip, infinity, nan := broadcast32("flip"), broadcast32("infinity"), broadcast32("nan")
	sign, magnitudeBits := ZMM(), ZMM()
	r := GP32()
	MOVL(U32(1<<31), r)
	VPBROADCASTD(r, sign)
	MOVL(U32(1<<31-1), r)
	VPBROADCASTD(r, magnitudeBits)
	upper := K()
	MOVL(U32(0xAAAA), r)
	KMOVW(r, upper)
	order := func(keep reg.Register) {
		x, y, magnitude, isNaN, isZero := ZMM(), ZMM(), ZMM(), K(), K()
		VMOVDQU64_Z(Mem{Base: packed}, keep, x)
		VPXORD(flip, x, y)
		VPANDD(magnitudeBits, y, magnitude)
		VPCMPUD(Imm(6), infinity, magnitude, upper, isNaN) // magnitude > infinity
		VPTESTNMD(magnitude, magnitude, upper, isZero)
		VPSRAD(Imm(31), y, magnitude)
		VPORD(sign, magnitude, magnitude)
		VPXORD(y, magnitude, upper, x) // merges: the lower halves stay
		VMOVDQA32(sign, isZero, x)
		VMOVDQA32(nan, isNaN, x)
		VMOVDQU64(x, keep, Mem{Base: packed})
	}
	all := K()
	KXNORQ(all, all, all)
	Label("keys")
	CMPQ(written, Imm(8))
	JL(LabelRef("lastKeys"))
	order(all)
	ADDQ(Imm(64), packed)
	SUBQ(Imm(8), written)
	JMP(LabelRef("keys"))
	Label("lastKeys")
	TESTQ(written, written)
	JZ(LabelRef("done"))
	present := gen.TailMask(written)
	inMask := K()
	KMOVB(present.As32(), inMask)
	order(inMask)
	Label("done")
}

// vector32 returns 16 constants in memory.
func vector32(name string, value func(i int) uint32) Mem { return gen.Vector32(name, 16, value) }

func sample32() {
	TEXT("Sample32", NOSPLIT, "func(groups []int32, row []uint32, step int, flip uint32)")
	Doc("Sample32 is pure.Sample, but for NaN, which it leaves out.")
	Pragma("noescape")
	flip := broadcast32("flip")
	lowest := ZMM()
	r := GP32()
	MOVL(U32(0xFF800000), r) // -Inf
	VPBROADCASTD(r, lowest)
	maxima := make([]reg.VecVirtual, 8)
	for i := range maxima {
		maxima[i] = ZMM()
	}
	gen.SampleLoop(32, len(maxima),
		func() {
			for _, m := range maxima {
				VMOVDQA64(lowest, m)
			}
		},
		func(at Mem, i int) {
			x := ZMM()
			VPXORD(at, flip, x)
			VMAXPS(maxima[i], x, maxima[i]) // the accumulator if x is NaN
		},
		func(groups reg.GPVirtual) {
			for i, m := range maxima {
				s := ZMM()
				VPSRAD(Imm(31), m, s)
				VPSRLD(Imm(1), s, s)
				VPXORD(s, m, s)
				VMOVDQU64(s, Mem{Base: groups, Disp: 64 * i})
			}
		})
}

func sample16() {
	TEXT("Sample16", NOSPLIT, "func(groups []int32, row []uint16, step int, flip uint16)")
	Doc("Sample16 is pure.Sample.")
	Pragma("noescape")
	flip := broadcast16("flip")
	lowest := ZMM()
	r := GP32()
	MOVL(U32(0x80008000), r)
	VPBROADCASTD(r, lowest)
	maxima := make([]reg.VecVirtual, 4)
	for i := range maxima {
		maxima[i] = ZMM()
	}
	gen.SampleLoop(16, len(maxima),
		func() {
			for _, m := range maxima {
				VMOVDQA64(lowest, m)
			}
		},
		func(at Mem, i int) {
			y, s := ZMM(), ZMM()
			VPXORD(at, flip, y)
			VPSRAW(Imm(15), y, s)
			VPSRLW(Imm(1), s, s)
			VPXORD(s, y, y)
			VPMAXSW(y, maxima[i], maxima[i])
		},
		func(groups reg.GPVirtual) {
			for i, m := range maxima {
				for half := range 2 {
					y, wide, s := YMM(), ZMM(), ZMM()
					VEXTRACTI64X4(Imm(uint64(half)), m, y)
					VPMOVSXWD(y, wide)
					VPSLLD(Imm(16), wide, wide)
					VPSRAD(Imm(31), wide, s)
					VPSRLD(Imm(16), s, s)
					VPXORD(s, wide, wide)
					VMOVDQU64(wide, Mem{Base: groups, Disp: 128*i + 64*half})
				}
			}
		})
}

func rank() {
	least := ZMM()
	gen.Rank(
		func(groups, end, at, low, high reg.GPVirtual) {
			lows, highs := ZMM(), ZMM()
			VMOVDQU64(Mem{Base: groups}, lows)
			VMOVDQA64(lows, highs)
			LEAQ(Mem{Base: groups, Disp: 64}, at)
			Label("bounds")
			x := ZMM()
			VMOVDQU64(Mem{Base: at}, x)
			VPMINSD(x, lows, lows)
			VPMAXSD(x, highs, highs)
			ADDQ(Imm(64), at)
			CMPQ(at, end)
			JB(LabelRef("bounds"))
			horizontal(lows, VPMINSD, low)
			horizontal(highs, VPMAXSD, high)
		},
		func(middle reg.GPVirtual) { VPBROADCASTD(middle.As32(), least) },
		func(at, reach reg.GPVirtual) {
			for i := 0; i < 8; i += 4 {
				k := []reg.Virtual{K(), K(), K(), K()}
				for j := range k {
					VPCMPD(Imm(2), Mem{Base: at, Disp: 64 * (i + j)}, least, k[j]) // least <= group
				}
				count := GP64()
				KMOVQ(joinMasks(k), count)
				POPCNTQ(count, count)
				ADDQ(count, reach)
			}
		})
}

// horizontal folds the 16 lanes of v by op and sign-extends the result.
func horizontal(v reg.VecVirtual, op func(...Op), result reg.GPVirtual) {
	y := YMM()
	VEXTRACTI64X4(Imm(1), v, y)
	op(y, v.AsY(), y)
	a, b := XMM(), XMM()
	VEXTRACTI128(Imm(1), y, a)
	op(a, y.AsX(), a)
	VPSHUFD(Imm(0x4E), a, b)
	op(b, a, a)
	VPSHUFD(Imm(0xB1), a, b)
	op(b, a, a)
	VMOVD(a, result.As32())
	MOVLQSX(result.As32(), result)
}

func max32() {
	TEXT("Max32", NOSPLIT, "func(row []uint32) uint32")
	Doc("Max32 is pure.Max32: the work that reading a row costs at least.")
	Pragma("noescape")
	row, n := gen.Slice("row")
	maxima := make([]reg.VecVirtual, 8)
	r := GP32()
	MOVL(U32(0xFF800000), r)
	for i := range maxima {
		maxima[i] = ZMM()
		VPBROADCASTD(r, maxima[i])
	}
	Label("loop")
	CMPQ(n, U32(128))
	JL(LabelRef("ones"))
	for i, m := range maxima {
		VMAXPS(Mem{Base: row, Disp: 64 * i}, m, m)
	}
	ADDQ(U32(512), row)
	SUBQ(U32(128), n)
	JMP(LabelRef("loop"))
	Label("ones")
	SUBQ(Imm(16), n)
	JL(LabelRef("tail"))
	VMAXPS(Mem{Base: row}, maxima[0], maxima[0])
	ADDQ(Imm(64), row)
	JMP(LabelRef("ones"))
	Label("tail")
	ADDQ(Imm(16), n)
	JZ(LabelRef("done"))
	present := gen.TailMask(n)
	load := K()
	KMOVW(present.As32(), load)
	VMAXPS(Mem{Base: row}, maxima[1], load, maxima[1])
	Label("done")
	foldVectors(maxima, VMAXPS)
	y := YMM()
	VEXTRACTF64X4(Imm(1), maxima[0], y)
	VMAXPS(y, maxima[0].AsY(), y)
	a, b := XMM(), XMM()
	VEXTRACTF128(Imm(1), y, a)
	VMAXPS(a, y.AsX(), a)
	VPSHUFD(Imm(0x4E), a, b)
	VMAXPS(b, a, a)
	VPSHUFD(Imm(0xB1), a, b)
	VMAXPS(b, a, a)
	VMOVD(a, r)
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func foldVectors(v []reg.VecVirtual, op func(...Op)) {
	for half := len(v) / 2; half > 0; half /= 2 {
		for i := range half {
			op(v[i+half], v[i], v[i])
		}
	}
}

func max16() {
	TEXT("Max16", NOSPLIT, "func(row []uint16) uint16")
	Doc("Max16 is pure.Max16: the work that reading a row costs at least.")
	Pragma("noescape")
	row, n := gen.Slice("row")
	maxima := make([]reg.VecVirtual, 8)
	r := GP32()
	MOVL(U32(0x8000), r)
	for i := range maxima {
		maxima[i] = ZMM()
		VPBROADCASTW(r, maxima[i])
	}
	Label("loop")
	CMPQ(n, U32(256))
	JL(LabelRef("ones"))
	for i, m := range maxima {
		VPMAXSW(Mem{Base: row, Disp: 64 * i}, m, m)
	}
	ADDQ(U32(512), row)
	SUBQ(U32(256), n)
	JMP(LabelRef("loop"))
	Label("ones")
	SUBQ(Imm(32), n)
	JL(LabelRef("tail"))
	VPMAXSW(Mem{Base: row}, maxima[0], maxima[0])
	ADDQ(Imm(64), row)
	JMP(LabelRef("ones"))
	Label("tail")
	ADDQ(Imm(32), n)
	JZ(LabelRef("done"))
	present := gen.TailMask(n)
	load := K()
	KMOVD(present.As32(), load)
	VPMAXSW(Mem{Base: row}, maxima[1], load, maxima[1])
	Label("done")
	foldVectors(maxima, VPMAXSW)
	y := YMM()
	VEXTRACTI64X4(Imm(1), maxima[0], y)
	VPMAXSW(y, maxima[0].AsY(), y)
	a := XMM()
	VEXTRACTI128(Imm(1), y, a)
	VPMAXSW(a, y.AsX(), a)
	flip := XMM()
	MOVL(U32(0x7FFF7FFF), r) // the largest becomes the smallest unsigned number
	VMOVD(r, flip)
	VPBROADCASTD(flip, flip)
	VPXOR(flip, a, a)
	VPHMINPOSUW(a, a)
	VMOVD(a, r)
	XORL(U32(0x7FFF), r)
	Store(r.As16(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}
