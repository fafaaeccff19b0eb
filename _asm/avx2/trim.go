package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/ai-kernel-factory/aikf/_asm/gen"
)

// trim:
//
//	low, high = the smallest and the largest halves of words, joined
//	flip the top bits, because AVX2 compares signed integers
//	while low < high:            at least k words reach low, fewer than k pass high
//	  middle = low + (high - low + 1) / 2
//	  reach = number of words >= middle
//	  if reach < k: high = middle - 1
//	  else: low = middle; stop if reach <= enough
//	move the words >= low to the front, and flip back
func trim() {
	TEXT("trim", NOSPLIT, "func(packed []uint64, k int, enough int) (kept int, least uint64)")
	Doc("trim moves at least k of the largest words to the front, more than enough only if the words are equal, and returns how many and a bound that just these reach. 1 <= k <= enough, k <= len(packed). It writes up to 8 words past the end of the slice, within its capacity.")
	Pragma("noescape")
	packed, n := gen.Slice("packed")
	wanted, enough := GP64(), GP64()
	Load(Param("k"), wanted)
	Load(Param("enough"), enough)
	end := GP64()
	LEAQ(Mem{Base: packed, Index: n, Scale: 8}, end)
	sign := YMM()
	VPCMPEQD(sign, sign, sign)
	VPSLLQ(Imm(63), sign, sign)

	// Past the end stands the first word while the bounds are found, then the
	// smallest one.
	first := YMM()
	VPBROADCASTQ(Mem{Base: packed}, first)
	VMOVDQU(first, Mem{Base: end})
	VMOVDQU(first, Mem{Base: end, Disp: vectorBytes})
	lows, highs := vectors(2), vectors(2)
	for i := range lows {
		VMOVDQA(first, lows[i])
		VMOVDQA(first, highs[i])
	}
	at := GP64()
	MOVQ(packed, at)
	Label("bounds")
	for i := range lows {
		x := YMM()
		VMOVDQU(Mem{Base: at, Disp: vectorBytes * i}, x)
		VPMINUD(x, lows[i], lows[i])
		VPMAXUD(x, highs[i], highs[i])
		VPXOR(sign, x, x)
		VMOVDQU(x, Mem{Base: at, Disp: vectorBytes * i})
	}
	ADDQ(Imm(2*vectorBytes), at)
	CMPQ(at, end)
	JB(LabelRef("bounds"))
	VMOVDQU(sign, Mem{Base: end})
	VMOVDQU(sign, Mem{Base: end, Disp: vectorBytes})
	low, high := bound(lows, VPMINUD), bound(highs, VPMAXUD)

	Label("halve")
	middle, reach := GP64(), GP64()
	MOVQ(high, middle)
	SUBQ(low, middle)
	JZ(LabelRef("found"))
	SHRQ(Imm(1), middle)
	ADCQ(low, middle) // rounded up
	least := YMM()
	broadcast64(middle, least)
	below := vectors(2)
	for _, v := range below {
		VPXOR(v, v, v)
	}
	MOVQ(packed, at)
	Label("count")
	for i, v := range below {
		x := YMM()
		VPCMPGTQ(Mem{Base: at, Disp: vectorBytes * i}, least, x)
		VPADDQ(x, v, v)
	}
	ADDQ(Imm(2*vectorBytes), at)
	CMPQ(at, end)
	JB(LabelRef("count"))
	VPADDQ(below[1], below[0], below[0])
	half := XMM()
	VEXTRACTI128(Imm(1), below[0], half)
	VPADDQ(half, below[0].AsX(), half)
	other := XMM()
	VPSHUFD(Imm(0x4E), half, other)
	VPADDQ(other, half, half)
	VMOVQ(half, reach)
	SUBQ(packed, at)
	SHRQ(Imm(3), at)
	ADDQ(at, reach) // all, less those below
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
	broadcast64(low, least)
	kept, lookup := GP64(), GP64()
	XORQ(kept, kept)
	LEAQ(keptLanes(), lookup)
	MOVQ(packed, at)
	Label("move")
	x, dropped, lanes, mask := YMM(), YMM(), YMM(), GP64()
	VMOVDQU(Mem{Base: at}, x)
	VPCMPGTQ(x, least, dropped)
	VMOVMSKPD(dropped, mask.As32())
	XORL(Imm(15), mask.As32())
	VPMOVZXBD(Mem{Base: lookup, Index: mask, Scale: 8}, lanes)
	VPXOR(sign, x, x)
	VPERMD(x, lanes, x)
	VMOVDQU(x, Mem{Base: packed, Index: kept, Scale: 8})
	POPCNTL(mask.As32(), mask.As32())
	ADDQ(mask, kept)
	ADDQ(Imm(vectorBytes), at)
	CMPQ(at, end)
	JB(LabelRef("move"))
	Store(kept, Return("kept"))
	BTCQ(Imm(63), low)
	Store(low, Return("least"))
	VZEROUPPER()
	RET()
}

func broadcast64(r reg.GPVirtual, v reg.VecVirtual) {
	VMOVQ(r, v.AsX())
	VPBROADCASTQ(v.AsX(), v)
}

// bound folds the halves of words and joins the results to a word, flipped.
func bound(v []reg.VecVirtual, op func(...Op)) reg.GPVirtual {
	fold(v, op)
	a, b, r := XMM(), XMM(), GP64()
	VEXTRACTI128(Imm(1), v[0], a)
	op(a, v[0].AsX(), a)
	VPSHUFD(Imm(0x4E), a, b)
	op(b, a, a)
	VMOVQ(a, r)
	BTCQ(Imm(63), r)
	return r
}

// keptLanes holds, for each mask of 4 words, the 32-bit lanes of its words as
// bytes.
func keptLanes() Mem {
	return gen.Vector32("keptLanes", 32, func(i int) uint32 {
		mask := i / 2
		var lanes uint64
		n := 0
		for word := range 4 {
			if mask>>word&1 != 0 {
				lanes |= uint64(2*word|(2*word+1)<<8) << (16 * n)
				n++
			}
		}
		return uint32(lanes >> (32 * (i % 2)))
	})
}
