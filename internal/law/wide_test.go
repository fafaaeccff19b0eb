package law

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

func (x Uint128) big() *big.Int {
	hi := new(big.Int).SetUint64(x.Hi)
	return hi.Lsh(hi, 64).Or(hi, new(big.Int).SetUint64(x.Lo))
}

// randomWord has any number of bits.
func randomWord(rng *rand.Rand) uint64 { return rng.Uint64() >> rng.IntN(65) }

func TestUint128(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	modulus := new(big.Int).Lsh(big.NewInt(1), 128)
	equal := func(name string, got Uint128, want *big.Int) {
		t.Helper()
		if want = new(big.Int).Mod(want, modulus); got.big().Cmp(want) != 0 {
			t.Fatalf("%s: %v, want %v", name, got.big(), want)
		}
	}
	for range 20_000 {
		x, y := Uint128{randomWord(rng), randomWord(rng)}, Uint128{randomWord(rng), randomWord(rng)}
		if rng.IntN(4) == 0 {
			y.Hi = x.Hi
		}
		if rng.IntN(8) == 0 {
			y = x
		}
		u, n := randomWord(rng), rng.UintN(130)
		equal("Mul", Mul(x.Lo, y.Lo), new(big.Int).Mul(Uint128{Lo: x.Lo}.big(), Uint128{Lo: y.Lo}.big()))
		equal("Add", x.Add(y), new(big.Int).Add(x.big(), y.big()))
		equal("Sub", x.Sub(y), new(big.Int).Sub(x.big(), y.big()))
		equal("Rsh", x.Rsh(n), new(big.Int).Rsh(x.big(), n))
		product := new(big.Int).Mul(new(big.Int).SetUint64(u), x.big())
		equal("MulHigh", MulHigh(u, x), product.Rsh(product, 64))
		if got, want := x.Cmp(y), x.big().Cmp(y.big()); got != want || x.Less(y) != (want < 0) {
			t.Fatalf("%v to %v: %d, want %d", x.big(), y.big(), got, want)
		}
		if got, want := x.BitLen(), x.big().BitLen(); got != want {
			t.Fatalf("BitLen of %v: %d, want %d", x.big(), got, want)
		}
		exact, _ := new(big.Float).SetInt(x.big()).Float64()
		if got := x.Float64(); math.Abs(got-exact) > exact*0x1p-52 {
			t.Fatalf("Float64 of %v: %g, want %g", x.big(), got, exact)
		}
	}
}

func TestProducts(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	most := new(big.Int).SetUint64(math.MaxUint64)
	check := func(p float32, w uint64) {
		t.Helper()
		exact := new(big.Float).SetPrec(500).SetFloat64(float64(p))
		exact.Mul(exact, new(big.Float).SetUint64(w))
		floor, accuracy := exact.Int(nil)
		ceil := new(big.Int).Set(floor)
		if accuracy != big.Exact {
			ceil.Add(ceil, big.NewInt(1))
		}
		for _, want := range []*big.Int{floor, ceil} {
			if want.Cmp(most) > 0 {
				want.Set(most)
			}
		}
		if got := CeilProduct(p, w); got != ceil.Uint64() {
			t.Fatalf("CeilProduct(%g, %d) = %d, want %v", p, w, got, ceil)
		}
		if got := FloorProduct(p, w); got != floor.Uint64() {
			t.Fatalf("FloorProduct(%g, %d) = %d, want %v", p, w, got, floor)
		}
	}
	for _, p := range []float32{0, 0x1p-149, 0x1p-126, 0.05, 0.5, 0.95, 0x1.fffffep-1, 1, 1.5, 3, 0x1p20, 0x1p60, 0x1p64, math.MaxFloat32} {
		for _, w := range []uint64{0, 1, 2, 3, One - 1, One, 50304 * One, 1 << 62, math.MaxUint64} {
			check(p, w)
		}
	}
	for range 50_000 {
		check(math.Float32frombits(rng.Uint32N(0x7F800000)), randomWord(rng))
		check(rng.Float32(), randomWord(rng))
	}
	if got := CeilProduct(float32(math.Inf(1)), 1); got != math.MaxUint64 {
		t.Errorf("CeilProduct(+Inf, 1) = %d", got)
	}
}
