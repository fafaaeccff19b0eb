package key

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// format is a float format, with a decoding of its own that does not lean on
// the code under test.
type format struct {
	name  string
	order Order
	is16  bool
	value func(bits uint32) float64 // of bits widened to 32
}

var formats = []format{
	{"float32", Float32, false, decode32},
	{"bfloat16", BFloat16, true, decode32},
	{"float16", Float16, true, decode16},
}

func decode32(bits uint32) float64 { return float64(math.Float32frombits(bits)) }

// decode16 reads a binary16 in the upper half of bits, by IEEE 754-2019, 3.4.
func decode16(bits uint32) float64 {
	sign := 1.0
	if bits&SignBit != 0 {
		sign = -1
	}
	exponent, fraction := int(bits>>26&0x1F), float64(bits>>16&0x3FF)
	switch {
	case exponent == 0x1F && fraction != 0:
		return math.NaN()
	case exponent == 0x1F:
		return math.Inf(int(sign))
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

// better compares two values as the contract says: +1 if a comes before b.
func better(a, b float64, smallest bool) int {
	c := cmp.Compare(a, b) // puts NaN below all numbers; -0 equals +0
	if math.IsNaN(a) != math.IsNaN(b) {
		c = -c
	}
	if smallest {
		return -c
	}
	return c
}

// each runs test for every format in both directions.
func each(t *testing.T, test func(t *testing.T, f format, order Order, smallest bool)) {
	for _, f := range formats {
		t.Run(f.name+"/largest", func(t *testing.T) { test(t, f, f.order, false) })
		t.Run(f.name+"/smallest", func(t *testing.T) { test(t, f, f.order.Smallest(), true) })
	}
}

// patterns returns bits of the format, widened: all of a 16-bit format; of
// float32 the edges of every exponent and random ones.
func (f format) patterns() []uint32 {
	var all []uint32
	if f.is16 {
		for x := range 1 << 16 {
			all = append(all, Widen(uint16(x)))
		}
		return all
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for exponent := range uint32(256) {
		for _, fraction := range []uint32{0, 1, 0x3FFFFF, 0x400000, 0x7FFFFE, 0x7FFFFF, rng.Uint32() >> 9} {
			all = append(all, exponent<<23|fraction, SignBit|exponent<<23|fraction)
		}
	}
	for range 20000 {
		all = append(all, rng.Uint32())
	}
	return all
}

func TestKeyOrdersAsTheContract(t *testing.T) {
	each(t, func(t *testing.T, f format, order Order, smallest bool) {
		all := f.patterns()
		slices.SortFunc(all, func(a, b uint32) int { return better(f.value(b), f.value(a), smallest) })
		nan := 0
		for i, bits := range all {
			if math.IsNaN(f.value(bits)) {
				nan++
				if order.Key(bits) != order.NaN {
					t.Fatalf("Key(%#x) = %#x, want the key of NaN %#x", bits, order.Key(bits), order.NaN)
				}
			}
			if i == 0 {
				continue
			}
			before := all[i-1]
			want := better(f.value(before), f.value(bits), smallest)
			if got := cmp.Compare(order.Key(before), order.Key(bits)); got != want {
				t.Fatalf("Key(%#x) = %#x against Key(%#x) = %#x: %d, want %d",
					before, order.Key(before), bits, order.Key(bits), got, want)
			}
		}
		if nan < 50 || nan == len(all) {
			t.Fatalf("%d of %d patterns are NaN: not the fixture that was meant", nan, len(all))
		}
	})
}

func TestBitsUndoesKey(t *testing.T) {
	each(t, func(t *testing.T, f format, order Order, _ bool) {
		for _, bits := range f.patterns() {
			got := order.Bits(order.Key(bits))
			switch v := f.value(bits); {
			case math.IsNaN(v):
				if !math.IsNaN(f.value(got)) {
					t.Fatalf("Bits(Key(%#x)) = %#x, want a NaN", bits, got)
				}
			case v == 0:
				if f.value(got) != 0 {
					t.Fatalf("Bits(Key(%#x)) = %#x, want a zero", bits, got)
				}
			case got != bits:
				t.Fatalf("Bits(Key(%#x)) = %#x", bits, got)
			}
		}
	})
}

func TestPackOrdersByKeyThenIndex(t *testing.T) {
	values := []uint32{0, 1, 2, SignBit - 1, SignBit, SignBit + 1, math.MaxInt32, math.MaxUint32 - 1, math.MaxUint32}
	for _, k := range values {
		for _, i := range values {
			packed := Pack(k, i)
			if Of(packed) != k || Index(packed) != i {
				t.Fatalf("Pack(%#x, %d) holds %#x, %d", k, i, Of(packed), Index(packed))
			}
			for _, l := range values {
				for _, j := range values {
					want := cmp.Or(cmp.Compare(k, l), cmp.Compare(j, i))
					if got := cmp.Compare(packed, Pack(l, j)); got != want {
						t.Fatalf("Pack(%#x, %d) against Pack(%#x, %d): %d, want %d", k, i, l, j, got, want)
					}
				}
			}
		}
	}
}

// thresholds returns keys to compare with: each pattern's, its neighbours, and
// any 32 bits.
func thresholds(order Order, patterns []uint32, rng *rand.Rand) []uint32 {
	all := []uint32{0, 1, math.MaxUint32, math.MaxUint32 - 1, SignBit - 1, SignBit, SignBit + 1}
	for _, bits := range patterns {
		k := order.Key(bits)
		all = append(all, k-1, k, k+1)
	}
	for range 1000 {
		all = append(all, rng.Uint32())
	}
	return all
}

// probes returns bits on which a comparison with the key least is likely to go
// wrong: those next to the threshold, the edges of the format and a few others.
func (f format) probes(order Order, least uint32, rng *rand.Rand) []uint32 {
	step := uint32(1)
	if f.is16 {
		step = 1 << 16
	}
	infinity := order.Infinity
	probes := []uint32{0, step, infinity - step, infinity, infinity + step, 0x7FFFFFFF &^ (step - 1)}
	at := order.Bits(least) &^ (step - 1)
	for d := range uint32(3) {
		probes = append(probes, at-d*step, at+d*step)
	}
	for range 4 {
		probes = append(probes, rng.Uint32()&^(step-1))
	}
	for _, x := range slices.Clone(probes) {
		probes = append(probes, x^SignBit)
	}
	return probes
}

func TestAbove32IsExact(t *testing.T) {
	for _, order := range []Order{Float32, Float32.Smallest()} {
		rng := rand.New(rand.NewPCG(3, 4))
		for _, least := range thresholds(order, formats[0].patterns(), rng) {
			above, invert := order.Above32(least)
			if invert != 0 && invert != math.MaxUint64 {
				t.Fatalf("Above32(%#x): invert = %#x", least, invert)
			}
			v := math.Float32frombits(above)
			for _, x := range formats[0].probes(order, least, rng) {
				got := !(math.Float32frombits(x) <= v) != (invert != 0)
				if want := order.Key(x) >= least; got != want {
					t.Fatalf("flip %#x: key(%#x) = %#x >= %#x is %v, but Above32 = %#x, %#x says %v",
						order.Flip, x, order.Key(x), least, want, above, invert, got)
				}
			}
		}
	}
}

func TestAbove16IsExactSaveForNegativeNaN(t *testing.T) {
	for _, f := range formats[1:] {
		for _, order := range []Order{f.order, f.order.Smallest()} {
			rng := rand.New(rand.NewPCG(5, 6))
			all := f.patterns()
			leasts := thresholds(order, all, rng)
			check := func(least, bits uint32) {
				if bits > order.Infinity|SignBit {
					return // negative NaN: the caller looks for it
				}
				xor, above, invert := order.Above16(least)
				got := int16(uint16(bits>>16)^xor) > int16(above) != (invert != 0)
				if want := order.Key(bits) >= least; got != want {
					t.Fatalf("%s, flip %#x: key(%#x) = %#x >= %#x is %v, but Above16 = %#x, %#x, %#x says %v",
						f.name, order.Flip, bits, order.Key(bits), least, want, xor, above, invert, got)
				}
			}
			for i, least := range leasts {
				for _, bits := range f.probes(order, least, rng) {
					check(least, bits)
				}
				if i < 7 || i%997 == 0 && !testing.Short() { // a step that no power of two divides
					for _, bits := range all {
						check(least, bits)
					}
				}
			}
		}
	}
}

func TestValue(t *testing.T) {
	for x := range uint32(1 << 16) {
		sign, exponent, fraction := 1-2*float64(x>>15), int(x>>10&31), float64(x&1023)
		want := sign * math.Ldexp(1024+fraction, exponent-25)
		switch {
		case exponent == 0:
			want = sign * math.Ldexp(fraction, -24)
		case exponent == 31 && fraction > 0:
			want = math.NaN()
		case exponent == 31:
			want = sign * math.Inf(1)
		}
		got := float64(Float16.Value(x << 16))
		if got != want && (got == got || want == want) || math.Signbit(got) != (x>>15 == 1) {
			t.Fatalf("float16 %#x: %g, want %g", x, got, want)
		}
		if got := BFloat16.Value(x << 16); math.Float32bits(got) != x<<16 {
			t.Fatalf("bfloat16 %#x: %g", x, got)
		}
	}
}
