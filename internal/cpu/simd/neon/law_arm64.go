package neon

import (
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
)

// BlockMaxima32 is [pure.BlockMaxima] for float32, on whole blocks. The result is
// not 0 if there is a NaN.
func BlockMaxima32(maxima []float32, row []uint32) (unordered uint32) {
	if blockMaxima32(maxima, unsafe.SliceData(row)) {
		return 1
	}
	return 0
}

// BlockMaximaBFloat16 is BlockMaxima32 for bfloat16.
func BlockMaximaBFloat16(maxima []float32, row []uint16) (unordered uint32) {
	var values [pure.Block]uint32
	for b := range maxima {
		widenBFloat16(&values, &row[b*pure.Block])
		unordered |= BlockMaxima32(maxima[b:b+1], values[:])
	}
	return unordered
}

// BlockMaximaFloat16 is BlockMaxima32 for float16.
func BlockMaximaFloat16(maxima []float32, row []uint16) (unordered uint32) {
	var values [pure.Block]uint32
	for b := range maxima {
		widenFloat16(&values, &row[b*pure.Block])
		unordered |= BlockMaxima32(maxima[b:b+1], values[:])
	}
	return unordered
}

// BlockMasses32 is [pure.BlockMasses] for float32, on whole blocks and for a finite
// max.
func BlockMasses32(sums, bitmap []uint64, row []uint32, max, scale uint32) {
	blockMasses32(sums, bitmap, unsafe.SliceData(row), max, scale)
}

// BlockMassesBFloat16 is BlockMasses32 for bfloat16.
func BlockMassesBFloat16(sums, bitmap []uint64, row []uint16, max, scale uint32) {
	var values [pure.Block]uint32
	for b := range sums {
		widenBFloat16(&values, &row[b*pure.Block])
		blockMasses32(sums[b:b+1], bitmap[b*pure.Block/word:], &values[0], max, scale)
	}
}

// BlockMassesFloat16 is BlockMasses32 for float16.
func BlockMassesFloat16(sums, bitmap []uint64, row []uint16, max, scale uint32) {
	var values [pure.Block]uint32
	for b := range sums {
		widenFloat16(&values, &row[b*pure.Block])
		blockMasses32(sums[b:b+1], bitmap[b*pure.Block/word:], &values[0], max, scale)
	}
}

// Masses is [pure.Masses] for a multiple of 16 logits and a finite max.
func Masses(masses []uint64, logits []float32, max, scale uint32) {
	masses16(unsafe.SliceData(masses), logits, max, scale)
}

// blockMaxima32 reads a block of 256 elements for each of the maxima.
//
//go:noescape
func blockMaxima32(maxima []float32, row *uint32) (unordered bool)

// blockMasses32 reads a block of 256 elements for each of the sums.
//
//go:noescape
func blockMasses32(sums, bitmap []uint64, row *uint32, max, scale uint32)

// masses16 weighs a multiple of 16 logits.
//
//go:noescape
func masses16(masses *uint64, logits []float32, max, scale uint32)

// widenBFloat16 and widenFloat16 read a block of 256 elements.
//
//go:noescape
func widenBFloat16(values *[pure.Block]uint32, row *uint16)

//go:noescape
func widenFloat16(values *[pure.Block]uint32, row *uint16)
