// Package law is the arithmetic that a sampled token depends on: what a logit
// weighs, where random numbers come from, and how one of them picks a token. It
// is written for one value at a time; the loops over rows, for the CPU and for
// GPUs, repeat it bit for bit.
//
// Every operation is an integer one or a single rounding of IEEE 754: a product
// that is added to something is converted first, because Go may fuse the two
// otherwise, and nothing comes from a mathematical library.
package law

import "math"

// Version of the law. The same version gives the same tokens.
const Version = 1

// A surprise is the negative logarithm, to the base 2, of how much less a token
// weighs than the heaviest: an integer in units of 2^-22.
const (
	SurpriseBits = 22 // of the fraction

	// LeastSurprise is the surprise, less than 0, at and below which nothing is
	// told apart: its mass is 0.
	LeastSurprise = -44 << SurpriseBits
)

// One is the mass of the heaviest token: 2^42. The masses of a row of at most
// MaxVocab tokens have a sum of at most 2^62.
const (
	One      = 1 << massBits
	massBits = 42
	MaxVocab = 1 << 20
)

// ColdestTemperature is 2^-100: a temperature below it stands for 0, the largest
// logit. [Scale] is finite from there on.
const ColdestTemperature = 0x1p-100

// scaleAtOne is 2^22 log2(e): the surprises in a difference of 1 at temperature 1.
const scaleAtOne = 0x1.71547652b82fep+22

// Scale returns what makes surprises of differences between logits at a
// temperature, which is at least ColdestTemperature and finite: 2^22 log2(e) / t,
// a quotient in float64, rounded once more to float32.
func Scale(t float32) float32 { return float32(scaleAtOne / float64(t)) }

// Surprise returns the surprise of a logit beside the largest one, max, which is
// finite: the float32 difference, times scale in float32, at least LeastSurprise,
// to the nearest integer, ties to even. The logit is not NaN and not above max.
//
// That is a monotone function of the logit, and 0 for max itself. Three
// roundings of a relative 2^-24, those of scale among them, and one to the grid
// keep the law of a row within 1e-6 (total variation) of softmax.
func Surprise(logit, max, scale float32) int32 {
	v := float32(float32(logit-max) * scale)
	if !(v > LeastSurprise) {
		v = LeastSurprise
	}
	// 1.5 * 2^52 leaves the integer in the low bits of the sum.
	return int32(uint32(math.Float64bits(float64(v) + 0x1.8p52)))
}

// The polynomial of 2^t for 0 <= t < 1, of degree 6 and with 1 as its constant,
// is a minimax fit of the relative error under the rounding of its coefficients.
// Evaluated in float32 it strictly grows over the 2^22 values that t takes.
const (
	c1 = 0x1.62e42cp-1
	c2 = 0x1.ebfd3ap-3
	c3 = 0x1.c68af6p-5
	c4 = 0x1.3cfd82p-7
	c5 = 0x1.473738p-10
	c6 = 0x1.c4458p-13
)

// Mass returns the mass of a surprise from LeastSurprise to 0: 2^(42 + q/2^22),
// with a relative error of at most 7.9e-8, rounded to the nearest integer, ties
// to even. It never falls as q grows, Mass(0) is One, and from -43 * 2^22
// down it is 0.
func Mass(q int32) uint64 {
	// One more bit and the fraction of q is that of a float32, its integer the
	// exponent.
	s := uint32(q) << 1
	t := math.Float32frombits(s&0x7FFFFF|0x3F800000) - 1
	p := float32(c6*t) + c5
	p = float32(p*t) + c4
	p = float32(p*t) + c3
	p = float32(p*t) + c2
	p = float32(p*t) + c1
	p = float32(p*t) + 1
	p = math.Float32frombits(math.Float32bits(p) + s&0xFF800000 + massBits<<23)
	const units = 0x1p52 // a float64 from here on has no fraction
	return math.Float64bits(float64(p)+units) - 0x433<<52
}

// LogitMass returns the mass of a logit beside the largest kept one, max, at a
// temperature of at least ColdestTemperature. It is 0 for -Inf. If max is +Inf,
// all entries that are +Inf weigh One and all others nothing. Neither is NaN.
func LogitMass(logit, max, t float32) uint64 {
	if max > math.MaxFloat32 {
		if logit == max {
			return One
		}
		return 0
	}
	return Mass(Surprise(logit, max, Scale(t)))
}
