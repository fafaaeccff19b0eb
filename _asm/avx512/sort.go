package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Sorting works on blocks of words in registers, by Batcher's bitonic network
// ("Sorting networks and their applications", 1968,
// https://doi.org/10.1145/1468075.1468121): runs are merged by comparing the
// first run with the mirror image of the second one, then words at halving
// distances. A comparison of two vectors is 2 instructions for 16 words; one of
// the lanes of a vector takes 3 for 8 words.
//
// So a block is sorted column by column, in which few steps cross lanes: word
// lane*vectors + i is that lane of vector i. A block in memory, and the merging
// of such blocks, is row by row: word 8*i + lane.

type block []reg.VecVirtual

const lanes = 8

func newBlock(vectors int) block {
	b := make(block, vectors)
	for i := range b {
		b[i] = ZMM()
	}
	return b
}

func (b block) load(at Mem) {
	for i := range b {
		VMOVDQU64(at.Offset(64*i), b[i])
	}
}

func (b block) store(at Mem) {
	for i := range b {
		VMOVDQU64(b[i], at.Offset(64*i))
	}
}

// network emits comparisons. Words go largest first, or smallest first if
// ascending.
type network struct {
	ascending bool
	// lower[j] has the lanes of the lower half of each run of 2<<j lanes.
	lower [3]reg.Physical
	// reverse holds the lanes 7 to 0.
	reverse reg.VecVirtual
}

func newNetwork() network {
	n := network{lower: [3]reg.Physical{reg.K1, reg.K2, reg.K3}, reverse: ZMM()}
	r := GP32()
	for j, bits := range []uint32{0x55, 0x33, 0x0F} {
		MOVL(U32(bits), r)
		KMOVB(r, n.lower[j])
	}
	VMOVDQU64(reverseLanes(), n.reverse)
	return n
}

// vectors compares two vectors; the words that come first go to the first.
func (n network) vectors(first, second *reg.VecVirtual) {
	if n.ascending {
		first, second = second, first
	}
	smaller, larger := ZMM(), ZMM()
	VPMINUQ(*second, *first, smaller)
	VPMAXUQ(*second, *first, larger)
	*first, *second = larger, smaller
}

// lanes compares each lane of v with the same lane of partner; the lower lanes
// of runs of 2<<j keep the word that comes first, the others the other one.
func (n network) lanes(v, partner reg.VecVirtual, j int) reg.VecVirtual {
	result := ZMM()
	if n.ascending {
		VPMAXUQ(partner, v, result)
		VPMINUQ(partner, v, n.lower[j], result)
	} else {
		VPMINUQ(partner, v, result)
		VPMAXUQ(partner, v, n.lower[j], result)
	}
	return result
}

// apart returns v with lanes at the distance 1<<j exchanged.
func apart(v reg.VecVirtual, j int) reg.VecVirtual {
	partner := ZMM()
	switch j {
	case 0:
		VPSHUFD(Imm(0x4E), v, partner)
	case 1:
		VPERMQ(Imm(0x4E), v, partner)
	case 2:
		VSHUFI64X2(Imm(0x4E), v, v, partner)
	}
	return partner
}

// mirrored returns v with each run of 2<<j lanes reversed.
func (n network) mirrored(v reg.VecVirtual, j int) reg.VecVirtual {
	partner := ZMM()
	switch j {
	case 0:
		return apart(v, 0)
	case 1:
		VPERMQ(Imm(0x1B), v, partner)
	case 2:
		VPERMQ(v, n.reverse, partner)
	}
	return partner
}

// halveVectors compares vectors at halving distances, the first of them from.
func (n network) halveVectors(b block, from int) {
	for distance := from; distance > 0; distance /= 2 {
		for i := range b {
			if i&distance == 0 {
				n.vectors(&b[i], &b[i+distance])
			}
		}
	}
}

// halveLanes compares lanes at the halving distances 1<<j, ..., 1.
func (n network) halveLanes(b block, j int) {
	for ; j >= 0; j-- {
		for i := range b {
			b[i] = n.lanes(b[i], apart(b[i], j), j)
		}
	}
}

// sortColumns sorts a block, column by column.
func (n network) sortColumns(b block) {
	for size := 2; size <= len(b); size *= 2 {
		for i := range b {
			if i&(size/2) == 0 {
				n.vectors(&b[i], &b[i^(size-1)])
			}
		}
		n.halveVectors(b, size/4)
	}
	for j := range 3 {
		for i := range len(b) / 2 {
			mirror := len(b) - 1 - i
			a, c := n.mirrored(b[mirror], j), n.mirrored(b[i], j)
			b[i], b[mirror] = n.lanes(b[i], a, j), n.lanes(b[mirror], c, j)
		}
		n.halveLanes(b, j-1)
		n.halveVectors(b, len(b)/2)
	}
}

// mergeColumns sorts a bitonic block, column by column.
func (n network) mergeColumns(b block) {
	n.halveLanes(b, 2)
	n.halveVectors(b, len(b)/2)
}

// mergeRows sorts a bitonic block, row by row.
func (n network) mergeRows(b block) {
	n.halveVectors(b, len(b)/2)
	n.halveLanes(b, 2)
}

// rows turns a block from column by column to row by row: each 8 vectors are
// transposed, and become every (len/8)-th vector.
func (b block) rows() block {
	result := make(block, len(b))
	groups := len(b) / lanes
	for g := range groups {
		for i, v := range transpose(b[g*lanes : (g+1)*lanes]) {
			result[i*groups+g] = v
		}
	}
	return result
}

func transpose(b block) block {
	pairs, quads, result := newBlock(8), newBlock(8), newBlock(8)
	for i := 0; i < 8; i += 2 {
		VPUNPCKLQDQ(b[i+1], b[i], pairs[i])   // lanes 0 2 4 6 of both
		VPUNPCKHQDQ(b[i+1], b[i], pairs[i+1]) // lanes 1 3 5 7
	}
	const even, odd = 0x88, 0xDD // of the 128-bit quarters
	for i := range 4 {           // i%2: odd lanes; i/2: the upper vectors
		first := i/2*4 + i%2
		VSHUFI64X2(Imm(even), pairs[first+2], pairs[first], quads[first])
		VSHUFI64X2(Imm(odd), pairs[first+2], pairs[first], quads[first+2])
	}
	for i := range 4 {
		VSHUFI64X2(Imm(even), quads[i+4], quads[i], result[i])
		VSHUFI64X2(Imm(odd), quads[i+4], quads[i], result[i+4])
	}
	return result
}

// top64:
//
//	best = first block of 64 words, sorted
//	for each other block: sort it the other way round; best = the larger of best
//	  and block, word by word: the 64 largest of both, bitonic; sort best
//	packed[:64] = best
func top64() {
	TEXT("top64", NOSPLIT, "func(packed *uint64, blocks int)")
	Doc("top64 moves the 64 largest words of the blocks of 64 to the front, largest first.")
	Pragma("noescape")
	packed, left, at := GP64(), GP64(), GP64()
	Load(Param("packed"), packed)
	Load(Param("blocks"), left)
	descending := newNetwork()
	ascending := descending
	ascending.ascending = true

	loaded := newBlock(8)
	loaded.load(Mem{Base: packed})
	descending.sortColumns(loaded)
	best := newBlock(8)
	for i := range best {
		VMOVDQA64(loaded[i], best[i])
	}
	MOVQ(packed, at)
	Label("blocks")
	DECQ(left)
	JZ(LabelRef("done"))
	ADDQ(U32(512), at)
	other := newBlock(8)
	other.load(Mem{Base: at})
	ascending.sortColumns(other)
	for i := range other {
		VPMAXUQ(best[i], other[i], other[i])
	}
	descending.mergeColumns(other)
	for i := range best {
		VMOVDQA64(other[i], best[i])
	}
	JMP(LabelRef("blocks"))
	Label("done")
	best.rows().store(Mem{Base: packed})
	VZEROUPPER()
	RET()
}

func sort128() {
	TEXT("sort128", NOSPLIT, "func(packed *uint64, blocks int)")
	Doc("sort128 sorts each of the blocks of 128 words, largest first.")
	Pragma("noescape")
	n := newNetwork()
	eachBlock(func(b block) block {
		n.sortColumns(b)
		return b.rows()
	})
}

func merge128() {
	TEXT("merge128", NOSPLIT, "func(packed *uint64, blocks int)")
	Doc("merge128 sorts each of the blocks of 128 words, largest first, if they are bitonic.")
	Pragma("noescape")
	n := newNetwork()
	eachBlock(func(b block) block {
		n.mergeRows(b)
		return b
	})
}

func eachBlock(sorted func(block) block) {
	packed, left := GP64(), GP64()
	Load(Param("packed"), packed)
	Load(Param("blocks"), left)
	Label("blocks")
	b := newBlock(16)
	b.load(Mem{Base: packed})
	sorted(b).store(Mem{Base: packed})
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

// reverseLanes holds the lanes 7 to 0.
func reverseLanes() Mem {
	return vector32("reverseLanes", func(i int) uint32 { return uint32((7 - i/2) * (1 - i%2)) })
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
