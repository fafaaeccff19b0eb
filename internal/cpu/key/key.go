// Package key turns the bits of a float into an unsigned integer that sorts as
// the contract says: NaN above +Inf, -0 equal to +0, everything else by value.
//
// A 16-bit float enters as the upper half of 32 bits, so that one order serves
// all formats; bfloat16 then is float32 with a short fraction.
package key

import "math"

// SignBit is the sign of a float32, or of a 16-bit float in the upper half.
const SignBit = 1 << 31

// Order is a total order of float bits in which the larger key is better.
type Order struct {
	Flip     uint32 // SignBit if the smallest value is the best, else 0
	Infinity uint32 // the bits of +Inf; a magnitude above it is NaN
	NaN      uint32 // the key of every NaN: the best or, with Flip, the worst of all
}

// Float32, BFloat16 and Float16 are the orders that prefer the largest value.
var (
	Float32  = Order{Infinity: 0x7F800000, NaN: 0xFFFFFFFF}
	BFloat16 = Float32
	Float16  = Order{Infinity: 0x7C000000, NaN: 0xFFFFFFFF}
)

// Smallest is the order that prefers the smallest value and NaN last.
func (o Order) Smallest() Order {
	return Order{Flip: SignBit, Infinity: o.Infinity}
}

// Key returns the place of bits in the order.
func (o Order) Key(bits uint32) uint32 {
	y := bits ^ o.Flip
	switch magnitude := y &^ SignBit; {
	case magnitude > o.Infinity:
		return o.NaN
	case magnitude == 0:
		return SignBit // -0 equals +0
	}
	return y ^ (uint32(int32(y)>>31) | SignBit)
}

// Bits returns the bits of the number with that key; it cannot tell one NaN
// from another nor -0 from +0.
func (o Order) Bits(key uint32) uint32 {
	return key ^ (uint32(int32(^key)>>31) | SignBit) ^ o.Flip
}

// Widen puts the bits of a 16-bit float into the upper half of 32.
func Widen[E uint16 | uint32](x E) uint32 {
	if uint64(^E(0)) == math.MaxUint16 {
		return uint32(x) << 16
	}
	return uint32(x)
}

// Pack joins a key and an index into one word: the larger word is the better
// element, and of equal keys the smaller index is better.
func Pack(key, index uint32) uint64 {
	return uint64(key)<<32 | uint64(^index)
}

// Index returns the index in a packed word.
func Index(packed uint64) uint32 { return ^uint32(packed) }

// Of returns the key in a packed word.
func Of(packed uint64) uint32 { return uint32(packed >> 32) }

// notANumber makes every "x is not <= v" true.
const notANumber = 0x7FC00000

// Above32 returns the bits of v and what to invert: a float32 x has at least the
// key least just when the truth of "x is not <= v", which holds for NaN x or v,
// differs from invert (all zeros or all ones).
//
// In an order that prefers the smallest value the comparison picks what is to
// be left out, so that one loop serves both orders.
func (o Order) Above32(least uint32) (v uint32, invert uint64) {
	if least == 0 { // everything passes, and so does the NaN of an order that puts it last
		return notANumber, 0
	}
	const negativeInfinity = ^uint32(0xFF800000) // its key
	positiveInfinity := o.Infinity | SignBit     // its key
	if o.Flip != 0 {
		switch {
		case least > positiveInfinity: // past every key: nothing passes
			return notANumber, ^uint64(0)
		case least <= negativeInfinity: // everything but NaN passes
			return o.Infinity, ^uint64(0)
		case least&SignBit != 0:
			return least, ^uint64(0) // x <= v = -(least - SignBit)
		}
		return ^least &^ SignBit, ^uint64(0)
	}
	switch {
	case least <= negativeInfinity:
		return notANumber, 0
	case least > positiveInfinity: // only NaN is better than +Inf
		return o.Infinity, 0
	case least == SignBit || least == SignBit-1: // -0 passes with +0
		return SignBit | 1, 0
	case least&SignBit != 0:
		return least - 1 - SignBit, 0
	}
	return ^(least - 1), 0
}

// Above16 returns the numbers for a 16-bit float x as Above32 does: x has at
// least the key least just when the truth of int16(x^xor) > int16(above)
// differs from invert. Negative NaN is judged wrongly; the caller looks for it.
func (o Order) Above16(least uint32) (xor, above uint16, invert uint64) {
	if least == 0 {
		return 0, math.MaxInt16, ^uint64(0) // not x > the largest: everything
	}
	// Flipping all bits but the sign turns an unsigned "x < v" into a signed
	// comparison; it picks all that is greater than a negative v.
	const descend = 0x7FFF
	infinity := uint16(o.Infinity >> 16)
	if least > SignBit {
		// Positive: at least v, rounded up.
		v := min(uint16((uint64(least)-SignBit+0xFFFF)>>16), infinity+1)
		if o.Flip != 0 {
			return descend, (v | 0x8000) ^ descend, ^uint64(0) // not x > -v
		}
		return 0, v - 1, 0
	}
	// Zero or negative: at least -v, rounded away from 0.
	v := min(uint16(^least>>16)&^0x8000, infinity)
	if least == SignBit {
		v = 0
	}
	if o.Flip != 0 {
		return 0, v, ^uint64(0) // not x > v
	}
	return descend, (v | 0x8000) ^ descend - 1, 0 // x <= v|0x8000, as unsigned numbers
}

// Value returns the float32 that equals the float with those bits, whatever the
// order prefers. A NaN stays one.
func (o Order) Value(bits uint32) float32 {
	if o.Infinity == Float32.Infinity {
		return math.Float32frombits(bits)
	}
	magnitude := bits &^ SignBit
	if magnitude >= o.Infinity {
		return math.Float32frombits(bits&SignBit | magnitude>>3 | Float32.Infinity) // the fraction tells NaN
	}
	// A binary16's fraction and exponent, at their places in a float32, stand for a
	// number that is too small by the difference of the biases: exact, also where
	// it is subnormal.
	value := math.Float32frombits(magnitude>>3) * 0x1p112
	return math.Float32frombits(math.Float32bits(value) | bits&SignBit)
}

// Least returns the key that just the elements of at least that value reach, in
// an order that prefers the largest. The value is not NaN.
func (o Order) Least(value float32) uint32 {
	if o.Infinity == Float32.Infinity {
		return Float32.Key(math.Float32bits(value))
	}
	low, high := ^(o.Infinity|SignBit)>>16, (o.Infinity|SignBit)>>16 // of -Inf and +Inf
	for low < high {
		middle := (low + high) / 2
		if o.Value(o.Bits(middle<<16)&^0xFFFF) >= value {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low << 16
}
