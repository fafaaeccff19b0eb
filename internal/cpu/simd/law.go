package simd

import (
	"math"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/avx2"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/avx512"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/neon"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// Block is how many elements of a row have one maximum and one sum of masses.
const Block = pure.Block

// CompactRoom is the room in values that Compact may write to past the last.
const CompactRoom = pure.CompactRoom

// blockWords is how many words of a bitmap a block has.
const blockWords = Block / 64

// format is how the bits of an element are read.
type format int

const (
	float32Bits format = iota
	bfloat16Bits
	float16Bits
)

func formatOf[E Bits](order key.Order) format {
	switch {
	case !is16[E]():
		return float32Bits
	case order.Infinity == key.Float16.Infinity:
		return float16Bits
	}
	return bfloat16Bits
}

// BlockMaxima writes the largest value of each block of the row and reports
// whether the row has a NaN; see [pure.BlockMaxima].
func BlockMaxima[E Bits](tier Tier, maxima []float32, row []E, order key.Order) (nan bool) {
	if tier == Pure {
		return pure.BlockMaxima(maxima, row, order)
	}
	whole := len(row) / Block
	unordered := blockMaxima(tier, maxima[:whole], row, order)
	if rest := row[whole*Block:]; len(rest) > 0 {
		var padded [Block]E
		for n := copy(padded[:], rest); n < Block; {
			n += copy(padded[n:], padded[:n])
		}
		unordered |= blockMaxima(tier, maxima[whole:whole+1], padded[:], order)
	}
	return unordered != 0
}

func blockMaxima[E Bits](tier Tier, maxima []float32, row []E, order key.Order) (unordered uint32) {
	switch f := formatOf[E](order); {
	case tier == AVX512 && f == float32Bits:
		return avx512.BlockMaxima32(maxima, bits32(row))
	case tier == AVX512 && f == bfloat16Bits:
		return avx512.BlockMaximaBFloat16(maxima, bits16(row))
	case tier == AVX512:
		return avx512.BlockMaximaFloat16(maxima, bits16(row))
	case tier == AVX2 && f == float32Bits:
		return avx2.BlockMaxima32(maxima, bits32(row))
	case tier == AVX2 && f == bfloat16Bits:
		return avx2.BlockMaximaBFloat16(maxima, bits16(row))
	case tier == AVX2:
		return avx2.BlockMaximaFloat16(maxima, bits16(row))
	case tier == NEON && f == float32Bits:
		return neon.BlockMaxima32(maxima, bits32(row))
	case tier == NEON && f == bfloat16Bits:
		return neon.BlockMaximaBFloat16(maxima, bits16(row))
	case tier == NEON:
		return neon.BlockMaximaFloat16(maxima, bits16(row))
	}
	if pure.BlockMaxima(maxima, row, order) {
		return 1
	}
	return 0
}

// BlockMasses writes the sum of masses of each block, over the elements whose bit
// is set; see [pure.BlockMasses].
func BlockMasses[E Bits](tier Tier, sums []uint64, bitmap []uint64, row []E, max, scale float32, order key.Order) {
	if tier == Pure || max > math.MaxFloat32 {
		pure.BlockMasses(sums, bitmap, row, max, scale, order)
		return
	}
	whole := len(row) / Block
	blockMasses(tier, sums[:whole], bitmap, row, max, scale, order)
	if whole < len(sums) {
		var padded [Block]E
		var present [blockWords]uint64
		copy(padded[:], row[whole*Block:])
		copy(present[:], bitmap[whole*blockWords:])
		blockMasses(tier, sums[whole:whole+1], present[:], padded[:], max, scale, order)
	}
}

func blockMasses[E Bits](tier Tier, sums []uint64, bitmap []uint64, row []E, max, scale float32, order key.Order) {
	m, s := math.Float32bits(max), math.Float32bits(scale)
	switch f := formatOf[E](order); {
	case tier == AVX512 && f == float32Bits:
		avx512.BlockMasses32(sums, bitmap, bits32(row), m, s)
	case tier == AVX512 && f == bfloat16Bits:
		avx512.BlockMassesBFloat16(sums, bitmap, bits16(row), m, s)
	case tier == AVX512:
		avx512.BlockMassesFloat16(sums, bitmap, bits16(row), m, s)
	case tier == AVX2 && f == float32Bits:
		avx2.BlockMasses32(sums, bitmap, bits32(row), m, s)
	case tier == AVX2 && f == bfloat16Bits:
		avx2.BlockMassesBFloat16(sums, bitmap, bits16(row), m, s)
	case tier == AVX2:
		avx2.BlockMassesFloat16(sums, bitmap, bits16(row), m, s)
	case tier == NEON && f == float32Bits:
		neon.BlockMasses32(sums, bitmap, bits32(row), m, s)
	case tier == NEON && f == bfloat16Bits:
		neon.BlockMassesBFloat16(sums, bitmap, bits16(row), m, s)
	case tier == NEON:
		neon.BlockMassesFloat16(sums, bitmap, bits16(row), m, s)
	default:
		pure.BlockMasses(sums, bitmap, row, max, scale, order)
	}
}

// Masses writes the mass of each logit; see [pure.Masses].
func Masses(tier Tier, masses []uint64, logits []float32, max, scale float32) {
	if tier == Pure || max > math.MaxFloat32 {
		pure.Masses(masses, logits, max, scale)
		return
	}
	const lanes = 16
	whole := len(logits) / lanes * lanes
	massesOf(tier, masses, logits[:whole], max, scale)
	if whole < len(logits) {
		var padded [lanes]float32
		var last [lanes]uint64
		copy(padded[:], logits[whole:])
		massesOf(tier, last[:], padded[:], max, scale)
		copy(masses[whole:len(logits)], last[:])
	}
}

func massesOf(tier Tier, masses []uint64, logits []float32, max, scale float32) {
	if tier == AVX512 {
		avx512.Masses(masses, logits, math.Float32bits(max), math.Float32bits(scale))
	} else if tier == AVX2 {
		avx2.Masses(masses, logits, math.Float32bits(max), math.Float32bits(scale))
	} else if tier == NEON {
		neon.Masses(masses, logits, math.Float32bits(max), math.Float32bits(scale))
	} else {
		pure.Masses(masses, logits, max, scale)
	}
}

// RoughMass returns bounds of the sum of masses of all elements of a float32
// row, each within a millionth, for 40 % of the time of BlockMasses. It
// reports false where a tier has no such pass. max is finite and none of the row
// exceeds it or is NaN.
//
// The relative error is bounded by 0x1p-20: 0.8e-7 for a surprise that is
// not on the grid, 0.8e-7 for the law's own polynomial and as much for this one,
// 1.6e-7 for its evaluation and 1.8e-7 for the three float32 additions of each
// element. To that comes half a unit of an element for the rounding to integers.
func RoughMass(tier Tier, row []uint32, max, scale float32) (low, high uint64, ok bool) {
	const least = 0x1p-100 // of scales that stay normal numbers in other units
	if tier != AVX512 || max > math.MaxFloat32 || scale < least {
		return 0, 0, false
	}
	const step = 128
	m, s := math.Float32bits(max), math.Float32bits(scale/(1<<law.SurpriseBits))
	whole := len(row) / step * step
	total := avx512.RoughMass(row[:whole], m, s)
	if rest := row[whole:]; len(rest) > 0 {
		var padded [step]uint32
		for i := copy(padded[:], rest); i < step; i++ {
			padded[i] = math.Float32bits(float32(math.Inf(-1)))
		}
		total += avx512.RoughMass(padded[:], m, s)
	}
	total *= law.One
	slack := float64(total*0x1p-20) + float64(len(row))
	return uint64(math.Max(total-slack, 0)), uint64(total + slack), true
}

// Compact writes the values of the elements whose bit is set; see [pure.Compact].
func Compact[E Bits](tier Tier, values []float32, bitmap []uint64, row []E, order key.Order) int {
	switch f := formatOf[E](order); {
	case tier == AVX512 && f == float32Bits:
		return avx512.Compact32(values, bitmap, bits32(row))
	case tier == AVX512 && f == bfloat16Bits:
		return avx512.CompactBFloat16(values, bitmap, bits16(row))
	case tier == AVX512:
		return avx512.CompactFloat16(values, bitmap, bits16(row))
	}
	return pure.Compact(values, bitmap, row, order)
}

// CompactAbove writes the values that are at least least, or less than that, and
// sets their bits; see [pure.CompactAbove].
func CompactAbove[E Bits](tier Tier, values []float32, bitmap []uint64, row []E, least float32, below bool, order key.Order) int {
	if tier != AVX512 {
		Filter(tier, bitmap, row, order.Least(least), order)
		if below {
			for w := range bitmap {
				bitmap[w] = ^bitmap[w]
			}
			if past := len(row) % 64; past > 0 {
				bitmap[len(bitmap)-1] &= 1<<past - 1
			}
		}
		return Compact(tier, values, bitmap, row, order)
	}
	whole, n, invert := len(row)/64, 0, uint32(0)
	if below {
		invert = math.MaxUint16
	}
	switch formatOf[E](order) {
	case float32Bits:
		n = avx512.CompactAbove32(values, bitmap[:whole], bits32(row), math.Float32bits(least), invert)
	case bfloat16Bits:
		n = avx512.CompactAboveBFloat16(values, bitmap[:whole], bits16(row), math.Float32bits(least), invert)
	default:
		n = avx512.CompactAboveFloat16(values, bitmap[:whole], bits16(row), math.Float32bits(least), invert)
	}
	return n + pure.CompactAbove(values[n:], bitmap[whole:], row[whole*64:], least, below, order)
}

// Pick writes the values that are at least least, as CompactAbove does, and is
// quicker where they are few.
func Pick(tier Tier, values []float32, bitmap []uint64, row []float32, least float32) (n int) {
	bits := unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(row))), len(row))
	Filter(tier, bitmap, bits, key.Float32.Least(least), key.Float32)
	if tier != AVX512 {
		return Compact(tier, values, bitmap, bits, key.Float32)
	}
	const words = 1024 // that are listed at a time
	for len(bitmap) > 0 {
		part := min(words, len(bitmap))
		n += avx512.Pick32(values[n:], bitmap[:part], bits)
		bitmap, bits = bitmap[part:], bits[min(64*part, len(bits)):]
	}
	return n
}
