package topk

import (
	"math"
	"unsafe"
)

// Float is the set of logit types. The two 16-bit formats are types of their
// own, because their bits alone do not tell one from the other.
type Float interface {
	float32 | Float16 | BFloat16
}

// BFloat16 holds the bits of a bfloat16: the upper half of a float32.
type BFloat16 uint16

// BFloat16FromFloat32 rounds v to the nearest BFloat16, ties to even.
// A NaN keeps its sign and stays a NaN.
func BFloat16FromFloat32(v float32) BFloat16 {
	bits := math.Float32bits(v)
	if v != v {
		return BFloat16(bits>>16 | 0x40) // quiet: the payload may lie in the lower half
	}
	return BFloat16((bits + 0x7FFF + bits>>16&1) >> 16)
}

// Float32 returns the value of b, exactly.
func (b BFloat16) Float32() float32 {
	return math.Float32frombits(uint32(b) << 16)
}

// Float16 holds the bits of an IEEE 754 binary16.
type Float16 uint16

// Float16FromFloat32 rounds v to the nearest Float16, ties to even; values
// past 65,519 become infinite. A NaN keeps its sign and stays a NaN.
func Float16FromFloat32(v float32) Float16 {
	bits := math.Float32bits(v)
	sign := Float16(bits >> 16 & 0x8000)
	magnitude := bits & 0x7FFFFFFF
	switch {
	case magnitude > 0x7F800000:
		return sign | 0x7E00 | Float16(magnitude>>13&0x1FF)
	case magnitude >= 0x477FF000: // 65,520: rounds past the largest finite value
		return sign | 0x7C00
	case magnitude < 0x38800000: // 2^-14: the result is subnormal
		// Adding 0.5 leaves the value in units of 2^-24 in the low bits, rounded to even.
		units := math.Float32bits(math.Float32frombits(magnitude)+0.5) - 0x3F000000
		return sign | Float16(units)
	}
	rebiased := magnitude - 0x38000000
	return sign | Float16((rebiased+0xFFF+rebiased>>13&1)>>13)
}

// Float32 returns the value of h, exactly.
func (h Float16) Float32() float32 {
	sign := uint32(h&0x8000) << 16
	exponent := uint32(h >> 10 & 0x1F)
	fraction := uint32(h & 0x3FF)
	switch exponent {
	case 0:
		value := float32(fraction) * 0x1p-24
		return math.Float32frombits(math.Float32bits(value) | sign)
	case 0x1F:
		return math.Float32frombits(sign | 0x7F800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

// BFloat16s views bits as BFloat16 values, without a copy.
func BFloat16s(bits []uint16) []BFloat16 {
	return unsafe.Slice((*BFloat16)(unsafe.SliceData(bits)), len(bits))
}

// Float16s views bits as Float16 values, without a copy.
func Float16s(bits []uint16) []Float16 {
	return unsafe.Slice((*Float16)(unsafe.SliceData(bits)), len(bits))
}
