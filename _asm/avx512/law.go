package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/ai-kernel-factory/aikf/_asm/gen"
)

// load16 returns 16 elements as float32.
func load16(f gen.Format, at Mem) reg.VecVirtual {
	x := ZMM()
	switch f {
	case gen.Float32:
		VMOVUPS(at, x)
	case gen.BFloat16:
		VPMOVZXWD(at, x)
		VPSLLD(Imm(16), x, x)
	case gen.Float16:
		VCVTPH2PS(at, x)
	}
	return x
}

// blockMaxima:
//
//	for each block of 256: 16 vectors into 4 maxima; compare pairs to find NaN
//	fold the 4 maxima and their lanes; store
func blockMaxima(f gen.Format) {
	TEXT("BlockMaxima"+f.Name, NOSPLIT, "func(maxima []float32, row []"+f.Element+") (unordered uint32)")
	Doc("BlockMaxima" + f.Name + " is pure.BlockMaxima on whole blocks, as many as there are maxima. The result is not 0 if there is a NaN.")
	Pragma("noescape")
	maxima, blocks := gen.Slice("maxima")
	row := GP64()
	Load(Param("row").Base(), row)
	// Four masks of lanes without a NaN so far, so that none waits for the other.
	ordered := []reg.Register{K(), K(), K(), K()}
	for _, k := range ordered {
		KXNORW(k, k, k)
	}
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	Label("block")
	m := make([]reg.VecVirtual, 4)
	for i := 0; i < 16; i += 2 {
		x, y := load16(f, Mem{Base: row, Disp: 16 * i * f.Bytes}), load16(f, Mem{Base: row, Disp: 16 * (i + 1) * f.Bytes})
		VCMPPS(Imm(7), x, y, ordered[i/2%4], ordered[i/2%4])
		for j, v := range []reg.VecVirtual{x, y} {
			if i < 4 {
				m[i+j] = v
			} else {
				VMAXPS(v, m[(i+j)%4], m[(i+j)%4])
			}
		}
	}
	foldVectors(m, VMAXPS)
	y := YMM()
	VEXTRACTF64X4(Imm(1), m[0], y)
	VMAXPS(y, m[0].AsY(), y)
	a, b := XMM(), XMM()
	VEXTRACTF128(Imm(1), y, a)
	VMAXPS(a, y.AsX(), a)
	VPSHUFD(Imm(0x4E), a, b)
	VMAXPS(b, a, a)
	VPSHUFD(Imm(0xB1), a, b)
	VMAXPS(b, a, a)
	VMOVSS(a, Mem{Base: maxima})
	ADDQ(Imm(4), maxima)
	ADDQ(U32(uint32(256*f.Bytes)), row)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	Label("done")
	r := GP32()
	for _, k := range ordered[1:] {
		KANDW(k, ordered[0], ordered[0])
	}
	KNOTW(ordered[0], ordered[0])
	KMOVW(ordered[0], r)
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// weigher holds the constants of masses that are not known before.
type weigher struct{ max, scale reg.VecVirtual }

func newWeigher() weigher {
	w := weigher{broadcast32("max"), ZMM()}
	VPBROADCASTD(gen.NegatedScale(), w.scale)
	return w
}

// weigh computes the masses of vectors of 16 logits, each in two vectors:
//
//	q = integer(maximum((max - x) * -scale, least))
//	t = fraction of q; p = polynomial(t) * 2^(exponent of q)
//	masses = integer(p)
//
// Elements that are not kept, if there are masks, weigh nothing. The vectors
// take turns, because a chain of some 60 cycles is much longer than what the
// machine looks ahead.
func (w weigher) weigh(x []Op, kept []Mem, use func(low, high reg.VecVirtual)) {
	q, e, p := vectors(len(x)), vectors(len(x)), vectors(len(x))
	each := func(step func(i int)) {
		for i := range x {
			step(i)
		}
	}
	// A constant is loaded once for all: with those of the polynomial in registers
	// there would be fewer vectors, and with constants in memory more loads.
	with := func(bits uint32, step func(c reg.VecVirtual, i int)) {
		c := ZMM()
		VPBROADCASTD(gen.Constant32(bits), c)
		each(func(i int) { step(c, i) })
	}
	each(func(i int) { VSUBPS(x[i], w.max, q[i]) })
	each(func(i int) { VMULPS(w.scale, q[i], q[i]) })
	with(gen.LeastBits, func(c reg.VecVirtual, i int) { VMAXPS(c, q[i], q[i]) }) // least if q is NaN
	each(func(i int) { VCVTPS2DQ(q[i], q[i]) })
	each(func(i int) { VPADDD(q[i], q[i], q[i]) })
	with(gen.ExponentMask, func(c reg.VecVirtual, i int) { VPANDD(c, q[i], e[i]) })
	fraction := ZMM()
	VPBROADCASTD(gen.Constant32(gen.FractionMask), fraction)
	with(gen.OneBits, func(c reg.VecVirtual, i int) {
		VPTERNLOGD(Imm(0xEA), c, fraction, q[i]) // q & fraction | one
		VSUBPS(c, q[i], q[i])
	})
	last := len(gen.Coefficients) - 1
	with(gen.Coefficients[0], func(c reg.VecVirtual, i int) { VMULPS(c, q[i], p[i]) })
	for _, coefficient := range gen.Coefficients[1:last] {
		with(coefficient, func(c reg.VecVirtual, i int) {
			VADDPS(c, p[i], p[i])
			VMULPS(q[i], p[i], p[i])
		})
	}
	with(gen.Coefficients[last], func(c reg.VecVirtual, i int) { VADDPS(c, p[i], p[i]) })
	each(func(i int) {
		if kept != nil {
			mask := K()
			KMOVW(kept[i], mask)
			VPADDD_Z(e[i], p[i], mask, p[i])
		} else {
			VPADDD(e[i], p[i], p[i])
		}
	})
	each(func(i int) {
		half, low, high := YMM(), ZMM(), ZMM()
		VEXTRACTF64X4(Imm(1), p[i], half)
		VCVTPS2QQ(p[i].AsY(), low)
		VCVTPS2QQ(half, high)
		use(low, high)
	})
}

func vectors(n int) []reg.VecVirtual {
	all := make([]reg.VecVirtual, n)
	for i := range all {
		all[i] = ZMM()
	}
	return all
}

// blockMasses:
//
//	for each block of 256 of which an element is kept:
//	  for each word of 4: 4 vectors; masses of those kept, added in 64-bit lanes
//	  fold the lanes; store
func blockMasses(f gen.Format) {
	TEXT("BlockMasses"+f.Name, NOSPLIT, "func(sums []uint64, bitmap []uint64, row []"+f.Element+", max uint32, scale uint32)")
	Doc("BlockMasses" + f.Name + " is pure.BlockMasses on whole blocks, as many as there are sums, and for a finite max.")
	Pragma("noescape")
	sums, blocks := gen.Slice("sums")
	bitmap, row := GP64(), GP64()
	Load(Param("bitmap").Base(), bitmap)
	Load(Param("row").Base(), row)
	w := newWeigher()
	low, high := ZMM(), ZMM()
	some, words, sum := GP64(), GP64(), GP64()

	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	Label("block")
	XORQ(sum, sum)
	MOVQ(Mem{Base: bitmap}, some)
	for i := 1; i < 4; i++ {
		ORQ(Mem{Base: bitmap, Disp: 8 * i}, some)
	}
	JZ(LabelRef("skip"))
	VPXORD(low, low, low)
	VPXORD(high, high, high)
	MOVQ(U32(2), words)
	Label("word")
	var x []Op
	var kept []Mem
	for i := range 8 {
		kept = append(kept, Mem{Base: bitmap, Disp: 2 * i})
		var v Op = Mem{Base: row, Disp: 16 * i * f.Bytes}
		if f != gen.Float32 {
			v = load16(f, v.(Mem))
		}
		x = append(x, v)
	}
	w.weigh(x, kept, func(a, b reg.VecVirtual) {
		VPADDQ(a, low, low)
		VPADDQ(b, high, high)
	})
	ADDQ(Imm(16), bitmap)
	ADDQ(U32(uint32(128*f.Bytes)), row)
	DECQ(words)
	JNZ(LabelRef("word"))
	VPADDQ(high, low, low)
	horizontalQ(low, VPADDQ, sum)
	JMP(LabelRef("store"))
	Label("skip")
	ADDQ(Imm(32), bitmap)
	ADDQ(U32(uint32(256*f.Bytes)), row)
	Label("store")
	MOVQ(sum, Mem{Base: sums})
	ADDQ(Imm(8), sums)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

// masses weighs 16 logits at a time.
func masses() {
	TEXT("Masses", NOSPLIT, "func(masses []uint64, logits []float32, max uint32, scale uint32)")
	Doc("Masses is pure.Masses for a multiple of 16 logits and a finite max.")
	Pragma("noescape")
	masses := GP64()
	Load(Param("masses").Base(), masses)
	logits, n := gen.Slice("logits")
	w := newWeigher()
	Label("loop")
	SUBQ(Imm(16), n)
	JL(LabelRef("done"))
	w.weigh([]Op{Mem{Base: logits}}, nil, func(low, high reg.VecVirtual) {
		VMOVDQU64(low, Mem{Base: masses})
		VMOVDQU64(high, Mem{Base: masses, Disp: 64})
	})
	ADDQ(Imm(64), logits)
	SUBQ(I8(-128), masses)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// compact:
//
//	for each word: 4 vectors, of which those kept are moved together and stored
//
// Loads leave out what is not kept, so that nothing past the row is read.
func compact(f gen.Format) {
	TEXT("Compact"+f.Name, NOSPLIT, "func(values []float32, bitmap []uint64, row []"+f.Element+") (n int)")
	Doc("Compact" + f.Name + " is pure.Compact.")
	Pragma("noescape")
	values := GP64()
	Load(Param("values").Base(), values)
	bitmap, words := gen.Slice("bitmap")
	row := GP64()
	Load(Param("row").Base(), row)
	start := GP64()
	MOVQ(values, start)
	TESTQ(words, words)
	JZ(LabelRef("done"))
	Label("word")
	for i := range 4 {
		kept, x, r := K(), ZMM(), GP32()
		KMOVW(Mem{Base: bitmap, Disp: 2 * i}, kept)
		MOVWLZX(Mem{Base: bitmap, Disp: 2 * i}, r)
		at := Mem{Base: row, Disp: 16 * i * f.Bytes}
		switch f {
		case gen.Float32:
			VMOVUPS_Z(at, kept, x)
		case gen.BFloat16:
			VPMOVZXWD_Z(at, kept, x)
			VPSLLD(Imm(16), x, x)
		case gen.Float16:
			VCVTPH2PS_Z(at, kept, x)
		}
		VPCOMPRESSD_Z(x, kept, x)
		VMOVUPS(x, Mem{Base: values})
		POPCNTL(r, r)
		LEAQ(Mem{Base: values, Index: r.As64(), Scale: 4}, values)
	}
	ADDQ(Imm(8), bitmap)
	ADDQ(U32(uint32(64*f.Bytes)), row)
	DECQ(words)
	JNZ(LabelRef("word"))
	Label("done")
	SUBQ(start, values)
	SHRQ(Imm(2), values)
	Store(values, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// compactAbove:
//
//	compare the first words
//	for each word: compare the one that is so far ahead; compact this one
//
// The comparisons go ahead because stores would be at addresses that follow from
// what was loaded right before. A processor that once takes such a store for one
// that a load depends on makes all loads wait for the addresses: three times
// slower, for a while.
func compactAbove(f gen.Format) {
	TEXT("CompactAbove"+f.Name, NOSPLIT, "func(values []float32, bitmap []uint64, row []"+f.Element+", least uint32, invert uint32) (n int)")
	Doc("CompactAbove" + f.Name + " is pure.CompactAbove for whole words, as many as the bitmap has; invert has 16 bits, set for the values that are less.")
	Pragma("noescape")
	const most = 16 // words ahead
	values := GP64()
	Load(Param("values").Base(), values)
	bitmap, words := gen.Slice("bitmap")
	row := GP64()
	Load(Param("row").Base(), row)
	least := broadcast32("least")
	r, invert := GP32(), K()
	Load(Param("invert"), r)
	KMOVW(r, invert)
	start, ahead, nextRow, nextBitmap, left := GP64(), GP64(), GP64(), GP64(), GP64()
	MOVQ(values, start)
	MOVQ(row, nextRow)
	MOVQ(bitmap, nextBitmap)
	MOVQ(U32(most), ahead)
	CMPQ(words, ahead)
	CMOVQLT(words, ahead)
	SUBQ(ahead, words)

	compare := func() {
		for i := range 4 {
			x, picked := load16(f, Mem{Base: nextRow, Disp: 16 * i * f.Bytes}), K()
			VCMPPS(Imm(0x1D), least, x, picked) // x at least least
			KXORW(invert, picked, picked)
			KMOVW(picked, Mem{Base: nextBitmap, Disp: 2 * i})
		}
		ADDQ(Imm(8), nextBitmap)
		ADDQ(U32(uint32(64*f.Bytes)), nextRow)
	}
	compactWord := func() {
		for i := range 4 {
			x, picked, n := load16(f, Mem{Base: row, Disp: 16 * i * f.Bytes}), K(), GP32()
			MOVWLZX(Mem{Base: bitmap, Disp: 2 * i}, n)
			KMOVW(n, picked)
			VPCOMPRESSD_Z(x, picked, x)
			VMOVUPS(x, Mem{Base: values})
			POPCNTL(n, n)
			LEAQ(Mem{Base: values, Index: n.As64(), Scale: 4}, values)
		}
		ADDQ(Imm(8), bitmap)
		ADDQ(U32(uint32(64*f.Bytes)), row)
	}
	loop := func(name string, times reg.GPVirtual, body func()) {
		TESTQ(times, times)
		JZ(LabelRef(name + "Done"))
		Label(name)
		body()
		DECQ(times)
		JNZ(LabelRef(name))
		Label(name + "Done")
	}
	MOVQ(ahead, left)
	loop("first", left, compare)
	loop("both", words, func() { compare(); compactWord() })
	loop("last", ahead, compactWord)
	SUBQ(start, values)
	SHRQ(Imm(2), values)
	Store(values, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// pick:
//
//	list the words of the bitmap that are not 0
//	for each of them: for each bit: copy the element
//
// Where few elements are kept this beats compact, whose stores overlap then.
func pick() {
	TEXT("Pick32", 0, "func(values []float32, bitmap []uint64, row []uint32) (n int)")
	Doc("Pick32 is pure.Compact for float32 and a bitmap of at most 1024 words of which few bits are set.")
	Pragma("noescape")
	places := AllocLocal(1024*4 + 64)
	bitmap, words := gen.Slice("bitmap")
	listed := list(bitmap, words, places)
	values, row := GP64(), GP64()
	Load(Param("values").Base(), values)
	Load(Param("row").Base(), row)
	n, entry, start, word, i := GP64(), GP64(), GP64(), GP64(), GP64()
	XORQ(n, n)
	XORQ(entry, entry)
	Label("words")
	CMPQ(entry, listed)
	JGE(LabelRef("done"))
	MOVL(places.Idx(entry, 4), start.As32())
	INCQ(entry)
	MOVQ(start, word)
	SHRQ(Imm(3), word)
	MOVQ(Mem{Base: bitmap, Index: word, Scale: 1}, word)
	Label("bits")
	TZCNTQ(word, i)
	ADDQ(start, i)
	MOVL(Mem{Base: row, Index: i, Scale: 4}, i.As32())
	MOVL(i.As32(), Mem{Base: values, Index: n, Scale: 4})
	INCQ(n)
	BLSRQ(word, word)
	JNZ(LabelRef("bits"))
	JMP(LabelRef("words"))
	Label("done")
	Store(n, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// roughMass:
//
//	for each 128 elements: x = (max - element) * -scale in each of 8 vectors
//	  t = fraction of x; p = polynomial(t) * 2^(integer of x)
//	  add the vectors in pairs, then in 64-bit lanes
//	fold the lanes
//
// 40 % of the time of blockMasses, since nothing is an integer and
// products are fused with additions.
func roughMass() {
	TEXT("RoughMass", NOSPLIT, "func(row []uint32, max uint32, scale uint32) (total float64)")
	Doc("RoughMass is about the sum of 2^((element - max) * scale), for a multiple of 128 elements and a finite max.")
	Pragma("noescape")
	row, n := gen.Slice("row")
	w := newWeigher()
	// Two coefficients stay in memory, or there would be too few registers.
	inRegister := func(bits uint32) reg.VecVirtual {
		c := ZMM()
		VPBROADCASTD(gen.Constant32(bits), c)
		return c
	}
	last := len(gen.RoughCoefficients) - 1
	first := inRegister(gen.RoughCoefficients[0])
	var coefficients []reg.VecVirtual
	for _, bits := range gen.RoughCoefficients[2:last] {
		coefficients = append(coefficients, inRegister(bits))
	}
	low, high := ZMM(), ZMM()
	VPXORD(low, low, low)
	VPXORD(high, high, high)
	Label("loop")
	SUBQ(U32(128), n)
	JL(LabelRef("done"))
	x, t, p := vectors(8), vectors(8), vectors(8)
	each := func(step func(i int)) {
		for i := range x {
			step(i)
		}
	}
	each(func(i int) { VSUBPS(Mem{Base: row, Disp: 64 * i}, w.max, x[i]) })
	each(func(i int) { VMULPS(w.scale, x[i], x[i]) })
	const floor = 9 // without an exception
	each(func(i int) { VREDUCEPS(Imm(floor), x[i], t[i]) })
	each(func(i int) {
		VPBROADCASTD(gen.Constant32(gen.RoughCoefficients[1]), p[i])
		VFMADD231PS(first, t[i], p[i])
	})
	for _, c := range coefficients {
		each(func(i int) { VFMADD213PS(c, t[i], p[i]) })
	}
	each(func(i int) { VFMADD213PS_BCST(gen.Constant32(gen.RoughCoefficients[last]), t[i], p[i]) })
	each(func(i int) { VSCALEFPS(x[i], p[i], p[i]) })
	foldVectors(p, VADDPS)
	half, a, b := YMM(), ZMM(), ZMM()
	VEXTRACTF64X4(Imm(1), p[0], half)
	VCVTPS2PD(p[0].AsY(), a)
	VCVTPS2PD(half, b)
	VADDPD(a, low, low)
	VADDPD(b, high, high)
	ADDQ(U32(512), row)
	JMP(LabelRef("loop"))
	Label("done")
	VADDPD(high, low, low)
	y, u, v := YMM(), XMM(), XMM()
	VEXTRACTF64X4(Imm(1), low, y)
	VADDPD(y, low.AsY(), y)
	VEXTRACTF128(Imm(1), y, u)
	VADDPD(u, y.AsX(), u)
	VPSHUFD(Imm(0x4E), u, v)
	VADDPD(v, u, u)
	Store(u, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
