package law

import (
	"math"
	"math/bits"
)

// Uint128 is an unsigned integer of 128 bits: sums and products of masses.
type Uint128 struct{ Hi, Lo uint64 }

// Mul returns a * b.
func Mul(a, b uint64) Uint128 {
	hi, lo := bits.Mul64(a, b)
	return Uint128{hi, lo}
}

// Add returns x + y modulo 2^128.
func (x Uint128) Add(y Uint128) Uint128 {
	lo, carry := bits.Add64(x.Lo, y.Lo, 0)
	hi, _ := bits.Add64(x.Hi, y.Hi, carry)
	return Uint128{hi, lo}
}

// Sub returns x - y modulo 2^128.
func (x Uint128) Sub(y Uint128) Uint128 {
	lo, borrow := bits.Sub64(x.Lo, y.Lo, 0)
	hi, _ := bits.Sub64(x.Hi, y.Hi, borrow)
	return Uint128{hi, lo}
}

// Cmp returns -1, 0 or 1 as x is less than, equal to or greater than y.
func (x Uint128) Cmp(y Uint128) int {
	switch {
	case x == y:
		return 0
	case x.Hi < y.Hi || x.Hi == y.Hi && x.Lo < y.Lo:
		return -1
	}
	return 1
}

// Less reports whether x < y.
func (x Uint128) Less(y Uint128) bool { return x.Cmp(y) < 0 }

// Rsh returns x / 2^n, rounded down.
func (x Uint128) Rsh(n uint) Uint128 {
	if n >= 64 {
		return Uint128{0, x.Hi >> (n - 64)}
	}
	return Uint128{x.Hi >> n, x.Hi<<(64-n) | x.Lo>>n}
}

// BitLen returns the number of bits without leading zeros; it is 0 for 0.
func (x Uint128) BitLen() int {
	if x.Hi > 0 {
		return 64 + bits.Len64(x.Hi)
	}
	return bits.Len64(x.Lo)
}

// Float64 returns x with each half rounded, and their sum once more.
func (x Uint128) Float64() float64 {
	return float64(float64(x.Hi)*0x1p64) + float64(x.Lo)
}

// MulHigh returns u * x / 2^64, rounded down: the place that a random number
// picks below x.
func MulHigh(u uint64, x Uint128) Uint128 {
	low, _ := bits.Mul64(u, x.Lo)
	return Mul(u, x.Hi).Add(Uint128{Lo: low})
}

// CeilProduct returns p * w rounded up, for p from 0 to +Inf: the least mass
// that is a share p of w. It is at most 2^64 - 1.
func CeilProduct(p float32, w uint64) uint64 {
	product := ceilProduct(p, Uint128{Lo: w})
	if product.Hi > 0 {
		return math.MaxUint64
	}
	return product.Lo
}

// FloorProduct returns p * w rounded down, for p from 0 to +Inf. It is at most
// 2^64 - 1.
func FloorProduct(p float32, w uint64) uint64 {
	fraction, exponent := split(p)
	if exponent >= 0 {
		return CeilProduct(p, w) // an integer
	}
	product := Mul(fraction, w).Rsh(uint(-exponent))
	if product.Hi > 0 {
		return math.MaxUint64
	}
	return product.Lo
}

// split returns the fraction, of at most 24 bits, and the exponent of p, which
// is not negative: p = fraction * 2^exponent. The exponent of +Inf is 105.
func split(p float32) (fraction uint64, exponent int) {
	word := math.Float32bits(p)
	fraction, exponent = uint64(word&0x7FFFFF), int(word>>23)
	if exponent == 0 {
		return fraction, -149
	}
	return fraction | 1<<23, exponent - 150
}

// ceilProduct returns p * x rounded up, for x of at most 65 bits, or the largest
// Uint128 if that is less.
func ceilProduct(p float32, x Uint128) Uint128 {
	fraction, exponent := split(p)
	product := Mul(fraction, x.Lo).Add(Uint128{Hi: fraction * x.Hi})
	if exponent >= 0 {
		if product.BitLen()+exponent > 128 {
			return Uint128{math.MaxUint64, math.MaxUint64}
		}
		if exponent >= 64 {
			return Uint128{product.Lo << (exponent - 64), 0}
		}
		return Uint128{product.Hi<<exponent | product.Lo>>(64-exponent), product.Lo << exponent}
	}
	n := uint(-exponent)
	down := product.Rsh(n)
	if product.trailingZeros() < n && product != (Uint128{}) {
		down = down.Add(Uint128{Lo: 1})
	}
	return down
}

// trailingZeros returns the number of low bits that are 0, which is 128 for 0.
func (x Uint128) trailingZeros() uint {
	if x.Lo == 0 {
		return 64 + uint(bits.TrailingZeros64(x.Hi))
	}
	return uint(bits.TrailingZeros64(x.Lo))
}
