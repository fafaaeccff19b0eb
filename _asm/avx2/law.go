package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/ai-kernel-factory/aikf/_asm/gen"
)

// load8 returns 8 elements as float32.
func load8(f gen.Format, at Mem) reg.VecVirtual {
	x := YMM()
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
//	for each block of 256: 32 vectors into 4 maxima; compare pairs to find NaN
//	fold the 4 maxima and their lanes; store
func blockMaxima(f gen.Format) {
	TEXT("BlockMaxima"+f.Name, NOSPLIT, "func(maxima []float32, row []"+f.Element+") (unordered uint32)")
	Doc("BlockMaxima" + f.Name + " is pure.BlockMaxima on whole blocks, as many as there are maxima. The result is not 0 if there is a NaN.")
	Pragma("noescape")
	maxima, blocks := gen.Slice("maxima")
	row := GP64()
	Load(Param("row").Base(), row)
	unordered := YMM()
	VXORPS(unordered, unordered, unordered)
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	Label("block")
	m := make([]reg.VecVirtual, 4)
	for i := 0; i < 32; i += 2 {
		x, y := load8(f, Mem{Base: row, Disp: 8 * i * f.Bytes}), load8(f, Mem{Base: row, Disp: 8 * (i + 1) * f.Bytes})
		nan := YMM()
		VCMPPS(Imm(3), x, y, nan)
		VORPS(nan, unordered, unordered)
		for j, v := range []reg.VecVirtual{x, y} {
			if i < 4 {
				m[i+j] = v
			} else {
				VMAXPS(v, m[(i+j)%4], m[(i+j)%4])
			}
		}
	}
	VMAXPS(m[1], m[0], m[0])
	VMAXPS(m[3], m[2], m[2])
	VMAXPS(m[2], m[0], m[0])
	r := GP32()
	horizontal(m[0], VMAXPS, r)
	MOVL(r, Mem{Base: maxima})
	ADDQ(Imm(4), maxima)
	ADDQ(U32(uint32(256*f.Bytes)), row)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	Label("done")
	VMOVMSKPS(unordered, r)
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// lanes8 returns a constant in each of 8 lanes in memory: there are more constants
// than registers.
func lanes8(bits uint32) Mem {
	return gen.Vector32(fmt.Sprintf("lanes%08x", bits), 8, func(int) uint32 { return bits })
}

// bits8 returns bits first to first + 7 in 8 lanes in memory.
func bits8(first int) Mem {
	return gen.Vector32(fmt.Sprintf("bits%d", first), 8, func(i int) uint32 { return 1 << (first + i) })
}

// weigher holds the constants of masses that are not known before, and what does
// not find room in registers: the fractions and exponents of 8 vectors.
type weigher struct {
	max                  reg.VecVirtual
	scale                Mem
	fractions, exponents Mem
}

func newWeigher() (w weigher) {
	w.max = broadcast(32, "max")
	scale := YMM()
	VMOVD(gen.NegatedScale(), scale.AsX())
	VPBROADCASTD(scale.AsX(), scale)
	w.scale = AllocLocal(32)
	VMOVDQU(scale, w.scale)
	w.fractions, w.exponents = AllocLocal(8*32), AllocLocal(8*32)
	return w
}

// weigh returns the masses of vectors of 8 logits, as float32 before they are
// rounded to integers:
//
//	q = integer(maximum((max - x) * -scale, least))
//	p = polynomial(fraction of q) * 2^(exponent of q)
//
// The vectors take turns, because a chain of some 60 cycles is much longer than
// what the machine looks ahead.
func (w weigher) weigh(x []Op) (p []reg.VecVirtual) {
	p = vectors(len(x))
	each := func(step func(i int)) {
		for i := range x {
			step(i)
		}
	}
	// A constant is loaded once for all: the loads are what a vector has most of.
	with := func(bits uint32, step func(c reg.VecVirtual, i int)) {
		c := YMM()
		VMOVDQU(lanes8(bits), c)
		each(func(i int) { step(c, i) })
	}
	each(func(i int) { VSUBPS(x[i], w.max, p[i]) })
	scale := YMM()
	VMOVDQU(w.scale, scale)
	each(func(i int) { VMULPS(scale, p[i], p[i]) })
	with(gen.LeastBits, func(c reg.VecVirtual, i int) { VMAXPS(c, p[i], p[i]) }) // least if it is NaN
	each(func(i int) { VCVTPS2DQ(p[i], p[i]) })
	each(func(i int) { VPADDD(p[i], p[i], p[i]) })
	with(gen.ExponentMask, func(c reg.VecVirtual, i int) {
		e := YMM()
		VPAND(c, p[i], e)
		VMOVDQU(e, w.exponents.Offset(32*i))
	})
	with(gen.FractionMask, func(c reg.VecVirtual, i int) { VPAND(c, p[i], p[i]) })
	with(gen.OneBits, func(c reg.VecVirtual, i int) {
		VPOR(c, p[i], p[i])
		VSUBPS(c, p[i], p[i])
	})
	each(func(i int) { VMOVDQU(p[i], w.fractions.Offset(32*i)) })
	last := len(gen.Coefficients) - 1
	with(gen.Coefficients[0], func(c reg.VecVirtual, i int) { VMULPS(c, p[i], p[i]) })
	for _, coefficient := range gen.Coefficients[1:last] {
		with(coefficient, func(c reg.VecVirtual, i int) {
			VADDPS(c, p[i], p[i])
			VMULPS(w.fractions.Offset(32*i), p[i], p[i])
		})
	}
	with(gen.Coefficients[last], func(c reg.VecVirtual, i int) {
		VADDPS(c, p[i], p[i])
		VPADDD(w.exponents.Offset(32*i), p[i], p[i])
	})
	return p
}

// blockMasses:
//
//	for each block of 256 of which an element is kept:
//	  for each word of 4: 8 vectors; p = masses of those kept, others 0
//	    high += bits of p + 1.5 * 2^44      the mass in units of 2^21, to the nearest
//	    low += bits of the rest of p + 1.5 * 2^23      in units of 1, to the nearest, even ones if two are
//	  fold the lanes; store high * 2^21 + low
//
// Both sums are integers that begin with what takes the constants out again. A
// block's have 30 bits.
func blockMasses(f gen.Format) {
	TEXT("BlockMasses"+f.Name, NOSPLIT, "func(sums []uint64, bitmap []uint64, row []"+f.Element+", max uint32, scale uint32)")
	Doc("BlockMasses" + f.Name + " is pure.BlockMasses on whole blocks, as many as there are sums, and for a finite max.")
	Pragma("noescape")
	coarse, fine := math.Float32bits(0x1.8p44), math.Float32bits(0x1.8p23)
	sums, blocks := gen.Slice("sums")
	bitmap, row := GP64(), GP64()
	Load(Param("bitmap").Base(), bitmap)
	Load(Param("row").Base(), row)
	w := newWeigher()
	high, low := YMM(), YMM()
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
	VMOVDQU(lanes8(0-32*coarse), high)
	VMOVDQU(lanes8(0-32*fine), low)
	MOVQ(U32(4), words)
	Label("word")
	var x []Op
	for i := range 8 {
		var v Op = Mem{Base: row, Disp: 8 * i * f.Bytes}
		if f != gen.Float32 {
			v = load8(f, v.(Mem))
		}
		x = append(x, v)
	}
	p := w.weigh(x)
	CMPQ(Mem{Base: bitmap}, I8(-1))
	JE(LabelRef("all"))
	for i := range 4 {
		bits := YMM()
		VMOVDQU(bits8(8*i), bits)
		for j := i; j < 8; j += 4 {
			kept := YMM()
			VPBROADCASTD(Mem{Base: bitmap, Disp: j / 4 * 4}, kept)
			VPAND(bits, kept, kept)
			VPCMPEQD(bits, kept, kept)
			VPAND(kept, p[j], p[j])
		}
	}
	Label("all")
	units := YMM()
	VMOVDQU(lanes8(coarse), units)
	for _, p := range p {
		part := YMM()
		VADDPS(units, p, part)
		VPADDD(part, high, high)
		VSUBPS(units, part, part)
		VSUBPS(part, p, p)
	}
	VMOVDQU(lanes8(fine), units)
	for _, p := range p {
		VADDPS(units, p, p)
		VPADDD(p, low, low)
	}
	ADDQ(Imm(8), bitmap)
	ADDQ(U32(uint32(64*f.Bytes)), row)
	DECQ(words)
	JNZ(LabelRef("word"))
	r := GP32()
	horizontal(high, VPADDD, r)
	MOVLQSX(r, sum)
	SHLQ(Imm(21), sum)
	horizontal(low, VPADDD, r)
	MOVLQSX(r, some)
	ADDQ(some, sum)
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

// masses weighs 16 logits at a time. A float64 of 2^52 and more has no fraction,
// so adding that rounds.
func masses() {
	TEXT("Masses", NOSPLIT, "func(masses []uint64, logits []float32, max uint32, scale uint32)")
	Doc("Masses is pure.Masses for a multiple of 16 logits and a finite max.")
	Pragma("noescape")
	masses := GP64()
	Load(Param("masses").Base(), masses)
	logits, n := gen.Slice("logits")
	w := newWeigher()
	units, r := YMM(), GP64()
	MOVQ(U64(math.Float64bits(0x1p52)), r)
	VMOVQ(r, units.AsX())
	VPBROADCASTQ(units.AsX(), units)
	Label("loop")
	SUBQ(Imm(16), n)
	JL(LabelRef("done"))
	for i, p := range w.weigh([]Op{Mem{Base: logits}, Mem{Base: logits, Disp: 32}}) {
		half := XMM()
		VEXTRACTI128(Imm(1), p, half)
		for j, four := range []reg.Register{p.AsX(), half} {
			wide := YMM()
			VCVTPS2PD(four, wide)
			VADDPD(units, wide, wide)
			VPXOR(units, wide, wide)
			VMOVDQU(wide, Mem{Base: masses, Disp: 64*i + 32*j})
		}
	}
	ADDQ(Imm(64), logits)
	SUBQ(I8(-128), masses)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}
