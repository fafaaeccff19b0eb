package simd

import (
	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
)

// Block is how many elements of a row have one maximum and one sum of masses.
const Block = pure.Block

// CompactRoom is the room in values that Compact may write to past the last.
const CompactRoom = pure.CompactRoom

// BlockMaxima writes the largest value of each block of the row and reports
// whether the row has a NaN; see [pure.BlockMaxima].
func BlockMaxima[E Bits](tier Tier, maxima []float32, row []E, order key.Order) (nan bool) {
	return pure.BlockMaxima(maxima, row, order)
}

// BlockMasses writes the sum of masses of each block, over the elements whose bit
// is set; see [pure.BlockMasses].
func BlockMasses[E Bits](tier Tier, sums []uint64, bitmap []uint64, row []E, max, scale float32, order key.Order) {
	pure.BlockMasses(sums, bitmap, row, max, scale, order)
}

// Masses writes the mass of each logit; see [pure.Masses].
func Masses(tier Tier, masses []uint64, logits []float32, max, scale float32) {
	pure.Masses(masses, logits, max, scale)
}

// Compact writes the values of the elements whose bit is set; see [pure.Compact].
func Compact[E Bits](tier Tier, values []float32, bitmap []uint64, row []E, order key.Order) int {
	return pure.Compact(values, bitmap, row, order)
}
