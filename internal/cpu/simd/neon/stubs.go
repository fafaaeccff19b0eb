//go:build arm64

// Package neon holds the inner loops for 64-bit ARM, by hand: Go's assembler
// knows only part of the instruction set. Its answers are those of package
// pure. Its speed is unmeasured: it is tested under an emulator, and written
// for cores that keep several vectors in flight.
package neon

import (
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
)

// word is how many elements a word of a bitmap stands for.
const word = 64

// Sample32 is [pure.Sample] for float32. The groups must be a multiple of 16.
func Sample32(groups []int32, row []uint32, step int, flip uint32) {
	sample32(groups, unsafe.SliceData(row), stops(len(row)/(pure.StopBytes/4), step), step, flip)
}

// Sample16 is [pure.Sample] for 16-bit floats. The groups must be a multiple of
// 32.
func Sample16(groups []int32, row []uint16, step int, flip uint16) {
	sample16(groups, unsafe.SliceData(row), stops(len(row)/(pure.StopBytes/2), step), step, flip)
}

// stops counts every step-th of the lines.
func stops(lines, step int) int { return (lines + step - 1) / step }

// Rank is [pure.Rank]. The groups must be a multiple of 16.
//
//go:noescape
func Rank(groups []int32, rank int) int32

// Filter32 is [pure.Filter32].
func Filter32(bitmap []uint64, row []uint32, above uint32, invert uint64) {
	whole := len(row) / word
	filter32(bitmap[:whole], unsafe.SliceData(row), above, invert)
	if rest := row[whole*word:]; len(rest) > 0 {
		var padded [word]uint32
		copy(padded[:], rest)
		filter32(bitmap[whole:whole+1], &padded[0], above, invert)
		bitmap[whole] &= 1<<len(rest) - 1
	}
}

// Filter16 is [pure.Filter16] for the two values of xor that
// key.Order.Above16 returns: 0 and 0x7FFF.
func Filter16(bitmap []uint64, row []uint16, xor, above uint16, invert uint64) (largest uint16) {
	whole := len(row) / word
	largest = filter16(bitmap[:whole], unsafe.SliceData(row), xor, above, invert)
	if rest := row[whole*word:]; len(rest) > 0 {
		var padded [word]uint16 // zeros, which are never larger
		copy(padded[:], rest)
		largest = max(largest, filter16(bitmap[whole:whole+1], &padded[0], xor, above, invert))
		bitmap[whole] &= 1<<len(rest) - 1
	}
	return largest
}

// filter16 spares the loops the xor: int16(x^0x7FFF) > int16(above) just when
// x < ^above^0x8000 as unsigned integers.
func filter16(bitmap []uint64, row *uint16, xor, above uint16, invert uint64) (largest uint16) {
	if xor == 0 {
		return greater16(bitmap, row, above, invert)
	}
	return less16(bitmap, row, ^above^0x8000, invert)
}

// Max32 is [pure.Max32], but for the sign of a zero.
func Max32(row []uint32) float32 {
	if len(row) >= 32 {
		if best, signaling := max32(row); !signaling {
			return best
		}
	}
	return pure.Max32(row)
}

// Max16 is [pure.Max16].
func Max16(row []uint16) int16 {
	if len(row) >= 64 {
		return max16(row)
	}
	return pure.Max16(row)
}

// sample32 and sample16 read the given number of stops, step lines of
// StopBytes apart.
//
//go:noescape
func sample32(groups []int32, row *uint32, stops, step int, flip uint32)

//go:noescape
func sample16(groups []int32, row *uint16, stops, step int, flip uint16)

// filter32, greater16 and less16 fill the whole bitmap: they read 64 elements
// for each of its words. The 16-bit ones return the largest of them as unsigned
// integers.
//
//go:noescape
func filter32(bitmap []uint64, row *uint32, above uint32, invert uint64)

//go:noescape
func greater16(bitmap []uint64, row *uint16, above uint16, invert uint64) (largest uint16)

//go:noescape
func less16(bitmap []uint64, row *uint16, below uint16, invert uint64) (largest uint16)

// max32 wants at least 32 elements. If one of them is a signaling NaN, which
// spoils the maximum, it says so.
//
//go:noescape
func max32(row []uint32) (best float32, signaling bool)

// max16 wants at least 64 elements.
//
//go:noescape
func max16(row []uint16) (best int16)

// sort32 sorts each of the blocks of 32 words, largest first.
//
//go:noescape
func sort32(packed *uint64, blocks int)

// merge32 sorts each of the blocks of 32 words, largest first, if they are
// bitonic.
//
//go:noescape
func merge32(packed *uint64, blocks int)

// flip compares each of the n words of a, from the last, with one of b, from
// the first, and puts the larger one into a and the smaller one into b. n is a
// multiple of 8 and not 0.
//
//go:noescape
func flip(a, b *uint64, n int)

// fold is flip, but leaves b as it is.
//
//go:noescape
func fold(a, b *uint64, n int)

// exchange puts the larger of the words a[i] and b[i] into a and the smaller
// one into b. n is a multiple of 8 and not 0.
//
//go:noescape
func exchange(a, b *uint64, n int)
