//go:build !amd64

// Package avx512 holds the inner loops for amd64 with AVX-512. On other
// machines, where no plan chooses it, it is package pure by another name.
package avx512

import (
	"math"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
)

// Filter32 is [pure.Filter32].
func Filter32(bitmap []uint64, row []uint32, above uint32, invert uint64) {
	pure.Filter32(bitmap, row, above, invert)
}

// Filter16 is [pure.Filter16].
func Filter16(bitmap []uint64, row []uint16, xor, above uint16, invert uint64) (largest uint16) {
	return pure.Filter16(bitmap, row, xor, above, invert)
}

// Expand32 is [pure.Expand] for float32.
func Expand32(packed []uint64, bitmap []uint64, row []uint32, base, flip, infinity, nan uint32) (written, words int) {
	return pure.Expand(packed, bitmap, row, base, key.Order{Flip: flip, Infinity: infinity, NaN: nan})
}

// Expand16 is [pure.Expand] for 16-bit floats.
func Expand16(packed []uint64, bitmap []uint64, row []uint16, base, flip, infinity, nan uint32) (written, words int) {
	return pure.Expand(packed, bitmap, row, base, key.Order{Flip: flip, Infinity: infinity, NaN: nan})
}

// Sample32 is [pure.Sample] for float32.
func Sample32(groups []int32, row []uint32, step int, flip uint32) {
	pure.Sample(groups, row, step, key.Order{Flip: flip})
}

// Sample16 is [pure.Sample] for 16-bit floats.
func Sample16(groups []int32, row []uint16, step int, flip uint16) {
	pure.Sample(groups, row, step, key.Order{Flip: uint32(flip) << 16})
}

// Rank is [pure.Rank].
func Rank(groups []int32, rank int) int32 { return pure.Rank(groups, rank) }

// Sort is [pure.Sort].
func Sort(packed []uint64, k int) { pure.Sort(packed, k) }

// Trim keeps exactly k words.
func Trim(packed []uint64, k int) (kept int, least uint64) {
	pure.Sort(packed, k)
	return k, packed[k-1]
}

// Max32 is [pure.Max32], as bits.
func Max32(row []uint32) uint32 { return math.Float32bits(pure.Max32(row)) }

// Max16 is [pure.Max16], as bits.
func Max16(row []uint16) uint16 { return uint16(pure.Max16(row)) }

// BlockMaxima32 is [pure.BlockMaxima] for float32.
func BlockMaxima32(maxima []float32, row []uint32) (unordered uint32) {
	return blockMaxima(maxima, row, key.Float32)
}

// BlockMaximaBFloat16 is [pure.BlockMaxima] for bfloat16.
func BlockMaximaBFloat16(maxima []float32, row []uint16) (unordered uint32) {
	return blockMaxima(maxima, row, key.BFloat16)
}

// BlockMaximaFloat16 is [pure.BlockMaxima] for float16.
func BlockMaximaFloat16(maxima []float32, row []uint16) (unordered uint32) {
	return blockMaxima(maxima, row, key.Float16)
}

func blockMaxima[E pure.Bits](maxima []float32, row []E, order key.Order) (unordered uint32) {
	if pure.BlockMaxima(maxima, row, order) {
		return 1
	}
	return 0
}

// BlockMasses32 is [pure.BlockMasses] for float32.
func BlockMasses32(sums, bitmap []uint64, row []uint32, max, scale uint32) {
	pure.BlockMasses(sums, bitmap, row, math.Float32frombits(max), math.Float32frombits(scale), key.Float32)
}

// BlockMassesBFloat16 is [pure.BlockMasses] for bfloat16.
func BlockMassesBFloat16(sums, bitmap []uint64, row []uint16, max, scale uint32) {
	pure.BlockMasses(sums, bitmap, row, math.Float32frombits(max), math.Float32frombits(scale), key.BFloat16)
}

// BlockMassesFloat16 is [pure.BlockMasses] for float16.
func BlockMassesFloat16(sums, bitmap []uint64, row []uint16, max, scale uint32) {
	pure.BlockMasses(sums, bitmap, row, math.Float32frombits(max), math.Float32frombits(scale), key.Float16)
}

// Masses is [pure.Masses].
func Masses(masses []uint64, logits []float32, max, scale uint32) {
	pure.Masses(masses, logits, math.Float32frombits(max), math.Float32frombits(scale))
}

// RoughMass is about the sum of 2^((element - max) * scale).
func RoughMass(row []uint32, max, scale uint32) (total float64) {
	m, s := math.Float32frombits(max), math.Float32frombits(scale)
	for _, bits := range row {
		total += math.Exp2(float64((math.Float32frombits(bits) - m) * s))
	}
	return total
}

// Compact32 is [pure.Compact] for float32.
func Compact32(values []float32, bitmap []uint64, row []uint32) (n int) {
	return pure.Compact(values, bitmap, row, key.Float32)
}

// CompactBFloat16 is [pure.Compact] for bfloat16.
func CompactBFloat16(values []float32, bitmap []uint64, row []uint16) (n int) {
	return pure.Compact(values, bitmap, row, key.BFloat16)
}

// CompactFloat16 is [pure.Compact] for float16.
func CompactFloat16(values []float32, bitmap []uint64, row []uint16) (n int) {
	return pure.Compact(values, bitmap, row, key.Float16)
}

// CompactAbove32 is [pure.CompactAbove] for float32.
func CompactAbove32(values []float32, bitmap []uint64, row []uint32, least, invert uint32) (n int) {
	return pure.CompactAbove(values, bitmap, row, math.Float32frombits(least), invert != 0, key.Float32)
}

// CompactAboveBFloat16 is [pure.CompactAbove] for bfloat16.
func CompactAboveBFloat16(values []float32, bitmap []uint64, row []uint16, least, invert uint32) (n int) {
	return pure.CompactAbove(values, bitmap, row, math.Float32frombits(least), invert != 0, key.BFloat16)
}

// CompactAboveFloat16 is [pure.CompactAbove] for float16.
func CompactAboveFloat16(values []float32, bitmap []uint64, row []uint16, least, invert uint32) (n int) {
	return pure.CompactAbove(values, bitmap, row, math.Float32frombits(least), invert != 0, key.Float16)
}

// Pick32 is [pure.Compact] for float32.
func Pick32(values []float32, bitmap []uint64, row []uint32) (n int) {
	return pure.Compact(values, bitmap, row, key.Float32)
}
