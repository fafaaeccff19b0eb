package law

import "math"

// The functions of one real variable that a token may depend on. They are made of
// single roundings, and give the same bits on every machine.

// Ln2 is the natural logarithm of 2.
const Ln2 = 0x1.62e42fefa39efp-1

// log2e is 1 / Ln2.
const log2e = 0x1.71547652b82fep+0

// exp2Series holds Ln2^n / n!, the series of 2^f without its first term.
var exp2Series = [...]float64{
	0x1.62e42fefa39efp-1, 0x1.ebfbdff82c58fp-3, 0x1.c6b08d704a0cp-5, 0x1.3b2ab6fba4e77p-7,
	0x1.5d87fe78a6731p-10, 0x1.430912f86c787p-13, 0x1.ffcbfc588b0c7p-17, 0x1.62c0223a5c824p-20,
	0x1.b5253d395e7c4p-24, 0x1.e4cf5158b8ecap-28, 0x1.e8cac7351bb25p-32, 0x1.c3bd650fc2986p-36,
	0x1.816193166d0f9p-40,
}

// Exp2 returns 2^x with a relative error of at most 2^-51, or of 2^-1075 if
// that is more: 0 below -1075, +Inf from 1024 on, NaN for NaN.
func Exp2(x float64) float64 {
	switch {
	case x != x:
		return x
	case x >= 1024:
		return math.Inf(1)
	case x < -1075:
		return 0
	}
	n := math.RoundToEven(x)
	p := exp2Tail(x - n)
	return scaleByPower(1+p, int(n))
}

// exp2Tail returns 2^f - 1 for f from -0.5 to 0.5.
func exp2Tail(f float64) float64 {
	p := 0.0
	for i := len(exp2Series) - 1; i >= 0; i-- {
		p = float64(p*f) + exp2Series[i]
	}
	return float64(p * f) // the caller adds to it
}

// scaleByPower returns x * 2^n, rounded once; x is from 0.5 to 2.
func scaleByPower(x float64, n int) float64 {
	if n < -1000 {
		return x * 0x1p-1000 * math.Float64frombits(uint64(n+1000+1023)<<52)
	}
	if n > 1000 {
		return x * 0x1p1000 * math.Float64frombits(uint64(n-1000+1023)<<52)
	}
	return x * math.Float64frombits(uint64(n+1023)<<52)
}

// Log2 returns the logarithm of x to the base 2, with an error of at most 2^-51
// times the larger of 1/8 and the result's magnitude: -Inf for 0, +Inf for +Inf,
// NaN below 0 and for NaN. It is exact for powers of 2.
func Log2(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case x > math.MaxFloat64:
		return x
	}
	word, n := math.Float64bits(x), -1023
	if word>>52 == 0 {
		word, n = math.Float64bits(x*0x1p52), n-52
	}
	n += int(word >> 52)
	m := math.Float64frombits(word&(1<<52-1) | 0x3FF<<52)
	if m > 0x1.6a09e667f3bcdp+0 { // the square root of 2
		m, n = m/2, n+1
	}
	// log2(m) = 2 log2(e) (s + s^3/3 + s^5/5 + ...), s at most 0.172
	s := (m - 1) / (m + 1)
	z := s * s
	p := 0.0
	for i := 21; i >= 3; i -= 2 {
		p = float64(p*z) + 1/float64(i)
	}
	series := s + float64(float64(p*z)*s)
	return float64(n) + float64(2*log2e*series)
}

// tanhSeries holds the coefficients of x^3, x^5, ... in the series of tanh.
var tanhSeries = [...]float64{
	-1.0 / 3, 2.0 / 15, -17.0 / 315, 62.0 / 2835, -1382.0 / 155925, 21844.0 / 6081075, -929569.0 / 638512875,
}

// Tanh returns the hyperbolic tangent of x with a relative error of at most
// 2^-48. It is NaN for NaN.
func Tanh(x float64) float64 {
	magnitude := math.Abs(x)
	switch {
	case x != x:
		return x
	case magnitude < 0x1p-4:
		z, p := x*x, 0.0
		for i := len(tanhSeries) - 1; i >= 0; i-- {
			p = float64(p*z) + tanhSeries[i]
		}
		return x + float64(float64(p*z)*x)
	}
	e := Exp2(-2 * log2e * math.Min(magnitude, 32))
	return math.Copysign((1-e)/(1+e), x)
}

// Entropy returns the entropy, in bits, of a law of masses: their total, and
// the sum of each mass times the magnitude of its surprise.
//
// It is log2(total / 2^42) + weighted / (total * 2^22), each operation in float64.
// The total is not 0.
func Entropy(total uint64, weighted Uint128) float64 {
	return LogTotal(total) + weighted.Float64()/(float64(total)*(1<<SurpriseBits))
}

// LogTotal returns log2(total / 2^42): how many bits less likely the heaviest
// token is than certain. The total is not 0.
func LogTotal(total uint64) float64 { return Log2(float64(total) * (1.0 / One)) }

// OnGrid returns bits, in units of a surprise: 2^22 times it, to the nearest
// integer, ties to even. It is within the int64.
func OnGrid(bits float64) int64 { return int64(math.RoundToEven(bits * (1 << SurpriseBits))) }
