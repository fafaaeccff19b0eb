package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Sorting works on words in registers: word 8*v + l of a block is lane l of
// vector v. A compare-exchange at a distance of 8 or more pairs two vectors; at
// a shorter one it pairs lanes of one vector, and a mask says which of them
// keep the larger word. Bitonic networks: K. E. Batcher, "Sorting networks and
// their applications", 1968, https://doi.org/10.1145/1468075.1468121.

const lanes = 8

// laneMasks are the lanes that keep the larger word, by distance, if all go
// the same way, and in the two steps in which the lanes of one vector go
// different ways.
type laneMasks struct {
	same    map[int]reg.Physical // distance 1, 2, 4
	size2   reg.Physical         // runs of 2, the first descending: distance 1
	size4at map[int]reg.Physical // runs of 4, the first descending: distance 1, 2
}

func loadMasks() laneMasks {
	r := GP32()
	mask := func(k reg.Physical, bits uint32) reg.Physical {
		MOVL(U32(bits), r)
		KMOVB(r, k)
		return k
	}
	return laneMasks{
		same:    map[int]reg.Physical{1: mask(reg.K1, 0x55), 2: mask(reg.K2, 0x33), 4: mask(reg.K3, 0x0F)},
		size2:   mask(reg.K4, 0x99),
		size4at: map[int]reg.Physical{1: mask(reg.K5, 0xA5), 2: mask(reg.K6, 0xC3)},
	}
}

// exchangeLanes pairs the lanes of v at the distance; the lanes in the mask keep
// the larger word, or the smaller one if ascending.
func exchangeLanes(v reg.VecVirtual, distance int, mask reg.Physical, ascending bool) {
	partner, result := ZMM(), ZMM()
	switch distance {
	case 1:
		VPSHUFD(Imm(0x4E), v, partner)
	case 2:
		VPERMQ(Imm(0x4E), v, partner)
	case 4:
		VSHUFI64X2(Imm(0x4E), v, v, partner)
	}
	if ascending {
		VPMAXUQ(v, partner, result)
		VPMINUQ(v, partner, mask, result)
	} else {
		VPMINUQ(v, partner, result)
		VPMAXUQ(v, partner, mask, result)
	}
	VMOVDQA64(result, v)
}

// exchangeVectors leaves the larger words in a and the smaller ones in b.
func exchangeVectors(a, b reg.VecVirtual) {
	smaller := ZMM()
	VPMINUQ(b, a, smaller)
	VPMAXUQ(b, a, a)
	VMOVDQA64(smaller, b)
}

// networkStep compares at one distance, within runs of size words of which the
// odd ones ascend; all of them if ascending.
func networkStep(v []reg.VecVirtual, size, distance int, masks laneMasks, ascending bool) {
	for i := range v {
		up := ascending != (i*lanes&size != 0)
		if distance >= lanes {
			j := i + distance/lanes
			switch {
			case i&(distance/lanes) != 0:
			case up:
				exchangeVectors(v[j], v[i])
			default:
				exchangeVectors(v[i], v[j])
			}
			continue
		}
		mask := masks.same[distance]
		switch size {
		case 2:
			mask, up = masks.size2, false
		case 4:
			mask, up = masks.size4at[distance], false
		}
		exchangeLanes(v[i], distance, mask, up)
	}
}

// sortNetwork sorts the words of v.
func sortNetwork(v []reg.VecVirtual, masks laneMasks, ascending bool) {
	for size := 2; size < len(v)*lanes; size *= 2 {
		for distance := size / 2; distance > 0; distance /= 2 {
			networkStep(v, size, distance, masks, false)
		}
	}
	mergeNetwork(v, masks, ascending)
}

// mergeNetwork sorts the words of v if they are bitonic.
func mergeNetwork(v []reg.VecVirtual, masks laneMasks, ascending bool) {
	size := len(v) * lanes
	for distance := size / 2; distance > 0; distance /= 2 {
		networkStep(v, size, distance, masks, ascending)
	}
}

func vectors(n int) []reg.VecVirtual {
	v := make([]reg.VecVirtual, n)
	for i := range v {
		v[i] = ZMM()
	}
	return v
}

// top64:
//
//	best = 64 zeros
//	for each block of 64 words: sort it ascending; best = larger of best and
//	block, lane by lane: the 64 largest of both, bitonic; sort best descending
//	packed[:64] = best
func top64() {
	TEXT("top64", NOSPLIT, "func(packed *uint64, blocks int)")
	Doc("top64 moves the 64 largest words of the blocks of 64 to the front, largest first.")
	Pragma("noescape")
	packed, left := GP64(), GP64()
	Load(Param("packed"), packed)
	Load(Param("blocks"), left)
	masks := loadMasks()
	best := vectors(8)
	for i := range best {
		VMOVDQU64(Mem{Base: packed, Disp: 64 * i}, best[i])
	}
	sortNetwork(best, masks, false)
	at := GP64()
	MOVQ(packed, at)
	Label("blocks")
	DECQ(left)
	JZ(LabelRef("done"))
	ADDQ(U32(512), at)
	block := vectors(8)
	for i := range block {
		VMOVDQU64(Mem{Base: at, Disp: 64 * i}, block[i])
	}
	sortNetwork(block, masks, true)
	for i := range best {
		VPMAXUQ(block[i], best[i], best[i])
	}
	mergeNetwork(best, masks, false)
	JMP(LabelRef("blocks"))
	Label("done")
	for i := range best {
		VMOVDQU64(best[i], Mem{Base: packed, Disp: 64 * i})
	}
	VZEROUPPER()
	RET()
}

// blocks128 applies a network to each block of 128 words.
func blocks128(name, doc string, network func([]reg.VecVirtual, laneMasks, bool)) {
	TEXT(name, NOSPLIT, "func(packed *uint64, blocks int)")
	Doc(name + " " + doc)
	Pragma("noescape")
	packed, left := GP64(), GP64()
	Load(Param("packed"), packed)
	Load(Param("blocks"), left)
	masks := loadMasks()
	Label("blocks")
	v := vectors(16)
	for i := range v {
		VMOVDQU64(Mem{Base: packed, Disp: 64 * i}, v[i])
	}
	network(v, masks, false)
	for i := range v {
		VMOVDQU64(v[i], Mem{Base: packed, Disp: 64 * i})
	}
	ADDQ(U32(1024), packed)
	DECQ(left)
	JNZ(LabelRef("blocks"))
	VZEROUPPER()
	RET()
}

// mirror walks b forwards and a backwards from its end.
func mirror(name, doc string, keepSmaller bool) {
	TEXT(name, NOSPLIT, "func(aLast *uint64, b *uint64, n int)")
	Doc(name + " " + doc)
	Pragma("noescape")
	aEnd, b, n := GP64(), GP64(), GP64()
	Load(Param("aLast"), aEnd)
	ADDQ(Imm(8), aEnd)
	Load(Param("b"), b)
	Load(Param("n"), n)
	reverse := ZMM()
	VMOVDQU64(reverseLanes(), reverse)
	Label("loop")
	for i := range 4 {
		x, y, larger, smaller := ZMM(), ZMM(), ZMM(), ZMM()
		VMOVDQU64(Mem{Base: aEnd, Disp: -64 * (i + 1)}, x)
		VPERMQ(Mem{Base: b, Disp: 64 * i}, reverse, y)
		VPMAXUQ(y, x, larger)
		VMOVDQU64(larger, Mem{Base: aEnd, Disp: -64 * (i + 1)})
		if keepSmaller {
			VPMINUQ(y, x, smaller)
			VPERMQ(smaller, reverse, smaller)
			VMOVDQU64(smaller, Mem{Base: b, Disp: 64 * i})
		}
	}
	SUBQ(U32(256), aEnd)
	ADDQ(U32(256), b)
	SUBQ(Imm(32), n)
	JG(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func reverseLanes() Mem {
	m := GLOBL("reverseLanes"+suffix(), RODATA|NOPTR)
	for i := range 8 {
		DATA(i*8, U64(uint64(7-i)))
	}
	return m
}

var suffixes int

// suffix keeps the names of constants apart.
func suffix() string {
	suffixes++
	return string(rune('A' + suffixes - 1))
}

// exchange compares two runs of words at a distance.
func exchange() {
	TEXT("exchange", NOSPLIT, "func(a *uint64, b *uint64, n int)")
	Doc("exchange puts the larger of words a[i] and b[i] into a and the smaller one into b, for n words (a multiple of 128).")
	Pragma("noescape")
	a, b, n := GP64(), GP64(), GP64()
	Load(Param("a"), a)
	Load(Param("b"), b)
	Load(Param("n"), n)
	Label("loop")
	for i := range 4 {
		x, y, larger := ZMM(), ZMM(), ZMM()
		VMOVDQU64(Mem{Base: a, Disp: 64 * i}, x)
		VMOVDQU64(Mem{Base: b, Disp: 64 * i}, y)
		VPMAXUQ(y, x, larger)
		VPMINUQ(y, x, y)
		VMOVDQU64(larger, Mem{Base: a, Disp: 64 * i})
		VMOVDQU64(y, Mem{Base: b, Disp: 64 * i})
	}
	ADDQ(U32(256), a)
	ADDQ(U32(256), b)
	SUBQ(Imm(32), n)
	JG(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
