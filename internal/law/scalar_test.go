package law

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// precision of the reference functions, in bits.
const precision = 200

func real(x float64) *big.Float { return new(big.Float).SetPrec(precision).SetFloat64(x) }

// ln2 is 2 atanh(1/3).
var ln2 = new(big.Float).Mul(real(2), atanh(new(big.Float).Quo(real(1), real(3))))

// atanh returns the inverse hyperbolic tangent by its series.
func atanh(s *big.Float) *big.Float {
	square, power, sum := new(big.Float).Mul(s, s), new(big.Float).Set(s), real(0)
	for i := 1; i < 400; i += 2 {
		sum.Add(sum, new(big.Float).Quo(power, real(float64(i))))
		power.Mul(power, square)
	}
	return sum
}

// exp returns e^x by its series, for x at most about 1.
func exp(x *big.Float) *big.Float {
	term, sum := real(1), real(1)
	for i := 1; i < 80; i++ {
		term.Quo(term.Mul(term, x), real(float64(i)))
		sum.Add(sum, term)
	}
	return sum
}

func exp2Reference(x float64) *big.Float {
	n := math.Floor(x)
	e := exp(new(big.Float).Mul(real(x-n), ln2)) // x - n is exact
	return e.SetMantExp(e, int(n))
}

func log2Reference(x float64) *big.Float {
	m, n := math.Frexp(x)
	s := new(big.Float).Quo(new(big.Float).Sub(real(m), real(1)), new(big.Float).Add(real(m), real(1)))
	l := new(big.Float).Mul(real(2), atanh(s))
	return l.Add(l.Quo(l, ln2), real(float64(n)))
}

func tanhReference(x float64) *big.Float {
	e := exp(real(x / 64)) // e^(2x), from a 32nd of it
	for range 7 {
		e.Mul(e, e)
	}
	return new(big.Float).Quo(new(big.Float).Sub(e, real(1)), new(big.Float).Add(e, real(1)))
}

// off returns by how much got differs from want, divided by the larger of least
// and the magnitude of want.
func off(got float64, want *big.Float, least float64) float64 {
	d, _ := new(big.Float).Sub(real(got), want).Float64()
	magnitude, _ := want.Float64()
	return math.Abs(d) / max(least, math.Abs(magnitude))
}

func TestScalars(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	var exp2Off, log2Off, tanhOff float64
	for range 3000 {
		x := (rng.Float64() - 0.5) * math.Exp2(float64(rng.IntN(12)))
		if x > -1022 && x < 1024 {
			exp2Off = max(exp2Off, off(Exp2(x), exp2Reference(x), 0))
		}
		for _, y := range []float64{math.Abs(x), 1 + x/4096, math.Float64frombits(1 + rng.Uint64N(0x7FF<<52-1))} {
			if y > 0 {
				log2Off = max(log2Off, off(Log2(y), log2Reference(y), 0.125))
			}
		}
		z := x * math.Exp2(-float64(rng.IntN(14)))
		if math.Abs(z) < 40 {
			tanhOff = max(tanhOff, off(Tanh(z), tanhReference(z), 0))
		}
	}
	t.Logf("Exp2 within 2^%.1f, Log2 within 2^%.1f, Tanh within 2^%.1f", math.Log2(exp2Off), math.Log2(log2Off), math.Log2(tanhOff))
	if exp2Off > 0x1p-51 || log2Off > 0x1p-51 || tanhOff > 0x1p-48 {
		t.Errorf("want 2^-51, 2^-51 and 2^-48")
	}
}

func TestScalarsAtTheEdges(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"Exp2(0)", Exp2(0), 1},
		{"Exp2(10)", Exp2(10), 1024},
		{"Exp2(-1074)", Exp2(-1074), 0x1p-1074},
		{"Exp2(-1022.5)", Exp2(-1022.5), 0x1.6a09e667f3bcdp-1023},
		{"Exp2(-1076)", Exp2(-1076), 0},
		{"Exp2(1023)", Exp2(1023), 0x1p1023},
		{"Exp2(1024)", Exp2(1024), inf},
		{"Exp2(-Inf)", Exp2(-inf), 0},
		{"Exp2(+Inf)", Exp2(inf), inf},
		{"Log2(0)", Log2(0), -inf},
		{"Log2(1)", Log2(1), 0},
		{"Log2(2^-1074)", Log2(0x1p-1074), -1074},
		{"Log2(+Inf)", Log2(inf), inf},
		{"Tanh(0)", Tanh(0), 0},
		{"Tanh(+Inf)", Tanh(inf), 1},
		{"Tanh(-Inf)", Tanh(-inf), -1},
		{"Tanh(-40)", Tanh(-40), -1},
		{"Tanh(1e-300)", Tanh(1e-300), 1e-300},
		{"LogTotal(One)", LogTotal(One), 0},
		{"Entropy of one token", Entropy(One, Uint128{}), 0},
		{"Entropy of 1,024 equal tokens", Entropy(1024*One, Uint128{}), 10},
		{"Entropy of two tokens, one a quarter of the other", Entropy(One+One/4, Mul(One/4, 2<<SurpriseBits)), 0.7219280948873623},
	} {
		if math.Abs(c.got-c.want) > 0x1p-51*math.Abs(c.want) || c.got != c.want && math.IsInf(c.want, 0) {
			t.Errorf("%s = %v, want %v", c.name, c.got, c.want)
		}
	}
	for n := -1074; n < 1024; n++ {
		if got := Log2(math.Ldexp(1, n)); got != float64(n) {
			t.Errorf("Log2(2^%d) = %v", n, got)
		}
	}
	for name, got := range map[string]float64{"Exp2(NaN)": Exp2(nan), "Log2(NaN)": Log2(nan), "Log2(-1)": Log2(-1), "Tanh(NaN)": Tanh(nan)} {
		if !math.IsNaN(got) {
			t.Errorf("%s = %v", name, got)
		}
	}
	if got := OnGrid(-0.5 / (1 << SurpriseBits)); got != 0 {
		t.Errorf("OnGrid rounds half a unit to %d", got)
	}
}

// The bits are the same on every machine.
func TestScalarBits(t *testing.T) {
	const want = 0x5ed8ad75a34bb40e
	hash := uint64(0)
	for i := range uint64(100_000) {
		x := float64(int64(mix(i))) * 0x1p-56 // within 128
		for j, y := range []float64{Exp2(x), Log2(math.Abs(x)), Tanh(x / 16)} {
			hash += mix(math.Float64bits(y) + (3*i+uint64(j))*golden)
		}
	}
	if hash != want {
		t.Errorf("hash %#x, want %#x", hash, uint64(want))
	}
}
