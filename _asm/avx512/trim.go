package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/ai-kernel-factory/aikf/_asm/gen"
)

// trim:
//
//	low, high = smallest and largest word
//	while low < high:            at least k words reach low, fewer than k pass high
//	  middle = low + (high - low + 1) / 2
//	  reach = number of words >= middle
//	  if reach < k: high = middle - 1
//	  else: low = middle; stop if reach <= k + k/8
//	move the words >= low to the front
func trim() {
	TEXT("Trim", NOSPLIT, "func(packed []uint64, k int) (kept int, least uint64)")
	Doc("Trim moves at least k of the largest words to the front, seldom many more, and returns how many and a bound that just these reach. 1 <= k <= len(packed). It may write up to 7 zeros past the end of the slice, within its capacity.")
	Pragma("noescape")
	packed, n := gen.Slice("packed")
	wanted, enough := GP64(), GP64()
	Load(Param("k"), wanted)
	MOVQ(wanted, enough)
	SHRQ(Imm(3), enough)
	ADDQ(wanted, enough)
	lows, highs, one := ZMM(), ZMM(), ZMM()
	end := GP64()
	LEAQ(Mem{Base: packed, Index: n, Scale: 8}, end)

	// Past the end stands the first word while the bounds are found, then zero.
	VPBROADCASTQ(Mem{Base: packed}, lows)
	VMOVDQU64(lows, Mem{Base: end})
	at := GP64()
	MOVQ(packed, at)
	VMOVDQU64(Mem{Base: packed}, lows)
	VMOVDQA64(lows, highs)
	Label("bounds")
	x := ZMM()
	VMOVDQU64(Mem{Base: at}, x)
	VPMINUQ(x, lows, lows)
	VPMAXUQ(x, highs, highs)
	ADDQ(Imm(64), at)
	CMPQ(at, end)
	JB(LabelRef("bounds"))
	low, high := GP64(), GP64()
	horizontalQ(lows, VPMINUQ, low)
	horizontalQ(highs, VPMAXUQ, high)
	VPXORD(lows, lows, lows)
	VMOVDQU64(lows, Mem{Base: end})
	r := GP64()
	MOVQ(U32(1), r)
	VPBROADCASTQ(r, one)

	Label("halve")
	middle, reach := GP64(), GP64()
	MOVQ(high, middle)
	SUBQ(low, middle)
	JZ(LabelRef("found"))
	INCQ(middle)
	SHRQ(Imm(1), middle)
	ADDQ(low, middle)
	least, count := ZMM(), ZMM()
	VPBROADCASTQ(middle, least)
	VPXORD(count, count, count)
	MOVQ(packed, at)
	Label("count")
	reached := K()
	VPCMPUQ(Imm(2), Mem{Base: at}, least, reached) // least <= word
	VPADDQ(one, count, reached, count)
	ADDQ(Imm(64), at)
	CMPQ(at, end)
	JB(LabelRef("count"))
	horizontalQ(count, VPADDQ, reach)
	CMPQ(reach, wanted)
	JL(LabelRef("tooHigh"))
	MOVQ(middle, low)
	CMPQ(reach, enough)
	JLE(LabelRef("found"))
	JMP(LabelRef("halve"))
	Label("tooHigh")
	LEAQ(Mem{Base: middle, Disp: -1}, high)
	JMP(LabelRef("halve"))

	Label("found")
	VPBROADCASTQ(low, least)
	kept, some := GP64(), GP64()
	XORQ(kept, kept)
	MOVQ(packed, at)
	Label("move")
	VMOVDQU64(Mem{Base: at}, x)
	VPCMPUQ(Imm(2), x, least, reached)
	VPCOMPRESSQ_Z(x, reached, x)
	VMOVDQU64(x, Mem{Base: packed, Index: kept, Scale: 8})
	KMOVW(reached, some.As32())
	POPCNTL(some.As32(), some.As32())
	ADDQ(some, kept)
	ADDQ(Imm(64), at)
	CMPQ(at, end)
	JB(LabelRef("move"))
	Store(kept, Return("kept"))
	Store(low, Return("least"))
	VZEROUPPER()
	RET()
}

// horizontalQ folds the 8 lanes of v by op.
func horizontalQ(v reg.VecVirtual, op func(...Op), result reg.GPVirtual) {
	a, b, c := ZMM(), ZMM(), ZMM()
	VSHUFI64X2(Imm(0x4E), v, v, a)
	op(v, a, a)
	VPERMQ(Imm(0x4E), a, b)
	op(a, b, b)
	VPSHUFD(Imm(0x4E), b, c)
	op(b, c, c)
	VMOVQ(c.AsX(), result)
}
