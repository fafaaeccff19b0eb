package pure

import (
	"math"
	"math/bits"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// Block is how many elements of a row have one maximum and one sum of masses.
const Block = 256

// BlockMaxima writes the largest value of each block of the row, the last of
// which may be shorter, and reports whether the row has a NaN. What is written
// for the block of a NaN is not defined, nor is the sign of zero.
func BlockMaxima[E Bits](maxima []float32, row []E, order key.Order) (nan bool) {
	for b := range maxima {
		largest := float32(math.Inf(-1))
		for _, x := range row[b*Block : min(b*Block+Block, len(row))] {
			v := order.Value(key.Widen(x))
			if v > largest {
				largest = v
			}
			nan = nan || v != v
		}
		maxima[b] = largest
	}
	return nan
}

// BlockMasses writes, for each block of the row, the sum of the masses of the
// elements whose bit in the bitmap is set: [law.Surprise] and [law.Mass], or
// [law.LogitMass] if max is +Inf. The bitmap has a word for each 64 elements,
// padded with zeros. No element whose bit is set is NaN or above max.
func BlockMasses[E Bits](sums []uint64, bitmap []uint64, row []E, max, scale float32, order key.Order) {
	for b := range sums {
		sum := uint64(0)
		words := bitmap[b*(Block/64):]
		for w, word := range words[:min(Block/64, len(words))] {
			for ; word != 0; word &= word - 1 {
				i := b*Block + w*64 + bits.TrailingZeros64(word)
				sum += mass(order.Value(key.Widen(row[i])), max, scale)
			}
		}
		sums[b] = sum
	}
}

// Masses writes the mass of each logit, as BlockMasses computes it.
func Masses(masses []uint64, logits []float32, max, scale float32) {
	for i, l := range logits {
		masses[i] = mass(l, max, scale)
	}
}

func mass(logit, max, scale float32) uint64 {
	if max > math.MaxFloat32 {
		return law.LogitMass(logit, max, 1)
	}
	return law.Mass(law.Surprise(logit, max, scale))
}

// CompactRoom is the room in values, past the last result, that Compact may
// write to.
const CompactRoom = 16

// Compact writes the values of the elements whose bit in the bitmap is set, in
// order, and returns how many: at most len(values) - CompactRoom. What lies past
// them in values is not defined.
func Compact[E Bits](values []float32, bitmap []uint64, row []E, order key.Order) (n int) {
	for w, word := range bitmap {
		for ; word != 0; word &= word - 1 {
			values[n] = order.Value(key.Widen(row[w<<6+bits.TrailingZeros64(word)]))
			n++
		}
	}
	return n
}

// CompactAbove writes the values that are at least least or, if below, those that
// are less, in order, sets their bits in the bitmap and returns how many they are:
// at most len(values) - CompactRoom. No element and least itself is NaN.
func CompactAbove[E Bits](values []float32, bitmap []uint64, row []E, least float32, below bool, order key.Order) (n int) {
	for w := range bitmap {
		var word uint64
		for i, x := range row[w*64 : min(w*64+64, len(row))] {
			if v := order.Value(key.Widen(x)); v >= least != below {
				values[n] = v
				n++
				word |= 1 << i
			}
		}
		bitmap[w] = word
	}
	return n
}
