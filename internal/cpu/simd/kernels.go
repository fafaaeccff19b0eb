package simd

import (
	"math"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/avx2"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/avx512"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/neon"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
)

// Bits is the type of a logit's bits: uint32 for float32, uint16 for the two
// 16-bit formats.
type Bits = pure.Bits

// StopBytes is how much of a row Sample reads at each stop.
const StopBytes = pure.StopBytes

// ExpandRoom is the room in packed without which Expand reads no further word.
const ExpandRoom = pure.ExpandRoom

// GroupUnit is what the number of groups given to Sample must be a multiple of.
const GroupUnit = 128

// SortSlack is the room, in words, that Sort may fill past the end of its
// slice, within its capacity.
const SortSlack = 128

func bits32[E Bits](row []E) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(row))), len(row))
}

func bits16[E Bits](row []E) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(row))), len(row))
}

func is16[E Bits]() bool {
	var zero E
	return unsafe.Sizeof(zero) == 2
}

// Sample reads every step-th stop of the row and writes the maxima of
// len(groups) disjoint sets of what it read; see [pure.Sample].
func Sample[E Bits](tier Tier, groups []int32, row []E, step int, order key.Order) {
	switch {
	case tier == AVX512 && is16[E]():
		avx512.Sample16(groups, bits16(row), step, uint16(order.Flip>>16))
	case tier == AVX512:
		avx512.Sample32(groups, bits32(row), step, order.Flip)
	case tier == AVX2 && is16[E]():
		avx2.Sample16(groups, bits16(row), step, uint16(order.Flip>>16))
	case tier == AVX2:
		avx2.Sample32(groups, bits32(row), step, order.Flip)
	case tier == NEON && is16[E]():
		neon.Sample16(groups, bits16(row), step, uint16(order.Flip>>16))
	case tier == NEON:
		neon.Sample32(groups, bits32(row), step, order.Flip)
	default:
		pure.Sample(groups, row, step, order)
	}
}

// Rank returns a value that at least rank of the groups reach; see [pure.Rank].
func Rank(tier Tier, groups []int32, rank int) int32 {
	if tier == AVX512 {
		return avx512.Rank(groups, rank)
	} else if tier == AVX2 {
		return avx2.Rank(groups, rank)
	} else if tier == NEON {
		return neon.Rank(groups, rank)
	}
	return pure.Rank(groups, rank)
}

// Filter sets the bit of every element whose key is at least least, in a bitmap
// with a word for each 64 elements; bits past the row are zero.
func Filter[E Bits](tier Tier, bitmap []uint64, row []E, least uint32, order key.Order) {
	if tier == Pure {
		pure.Filter(bitmap, row, least, order)
		return
	}
	if is16[E]() {
		xor, above, invert := order.Above16(least)
		if largest := filter16(tier, bitmap, bits16(row), xor, above, invert); largest > uint16((order.Infinity|key.SignBit)>>16) {
			pure.Filter(bitmap, row, least, order) // a negative NaN, which the comparison misjudges
		}
		return
	}
	above, invert := order.Above32(least)
	filter32(tier, bitmap, bits32(row), above, invert)
}

func filter32(tier Tier, bitmap []uint64, row []uint32, above uint32, invert uint64) {
	if tier == AVX512 {
		avx512.Filter32(bitmap, row, above, invert)
	} else if tier == AVX2 {
		avx2.Filter32(bitmap, row, above, invert)
	} else if tier == NEON {
		neon.Filter32(bitmap, row, above, invert)
	} else {
		pure.Filter32(bitmap, row, above, invert)
	}
}

func filter16(tier Tier, bitmap []uint64, row []uint16, xor, above uint16, invert uint64) (largest uint16) {
	if tier == AVX512 {
		return avx512.Filter16(bitmap, row, xor, above, invert)
	} else if tier == AVX2 {
		return avx2.Filter16(bitmap, row, xor, above, invert)
	} else if tier == NEON {
		return neon.Filter16(bitmap, row, xor, above, invert)
	}
	return pure.Filter16(bitmap, row, xor, above, invert)
}

// Expand packs key and index of every element whose bit is set; see
// [pure.Expand]. The bitmap has at most 1024 words.
func Expand[E Bits](tier Tier, packed []uint64, bitmap []uint64, row []E, base uint32, order key.Order) (written, words int) {
	switch {
	case tier == AVX512 && is16[E]():
		return avx512.Expand16(packed, bitmap, bits16(row), base, order.Flip, order.Infinity, order.NaN)
	case tier == AVX512:
		return avx512.Expand32(packed, bitmap, bits32(row), base, order.Flip, order.Infinity, order.NaN)
	case tier == AVX2 && is16[E]():
		return avx2.Expand16(packed, bitmap, bits16(row), base, order.Flip, order.Infinity, order.NaN)
	case tier == AVX2:
		return avx2.Expand32(packed, bitmap, bits32(row), base, order.Flip, order.Infinity, order.NaN)
	}
	return pure.Expand(packed, bitmap, row, base, order)
}

// Sort moves the k largest words to the front, largest first; the order of the
// others is not defined. The slice must have a capacity of SortSlack past its
// length.
func Sort(tier Tier, packed []uint64, k int) {
	if tier == AVX512 {
		avx512.Sort(packed, k)
	} else if tier == AVX2 {
		avx2.Sort(packed, k)
	} else if tier == NEON {
		neon.Sort(packed, k)
	} else {
		pure.Sort(packed, k)
	}
}

// Max returns the bits of the row's largest element, the 16-bit ones compared as
// signed integers: the least that reading a row can cost. NaN is passed over or
// compared by its bits.
func Max[E Bits](tier Tier, row []E) uint32 {
	if is16[E]() {
		if tier == AVX512 {
			return uint32(avx512.Max16(bits16(row)))
		} else if tier == AVX2 {
			return uint32(avx2.Max16(bits16(row)))
		} else if tier == NEON {
			return uint32(uint16(neon.Max16(bits16(row))))
		}
		return uint32(uint16(pure.Max16(bits16(row))))
	}
	if tier == AVX512 {
		return avx512.Max32(bits32(row))
	} else if tier == AVX2 {
		return avx2.Max32(bits32(row))
	} else if tier == NEON {
		return math.Float32bits(neon.Max32(bits32(row)))
	}
	return math.Float32bits(pure.Max32(bits32(row)))
}

// Trim moves at least k of the largest words to the front, k <= len(packed), and
// returns how many, and a bound that just these reach. The slice must have a
// capacity of SortSlack past its length.
func Trim(tier Tier, packed []uint64, k int) (kept int, least uint64) {
	if tier == AVX512 {
		return avx512.Trim(packed, k)
	} else if tier == AVX2 {
		return avx2.Trim(packed, k)
	}
	Sort(tier, packed, k)
	return k, packed[k-1]
}
