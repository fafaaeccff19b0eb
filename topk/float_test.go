package topk_test

import (
	"math"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

// format16 is a 16-bit format by its parameters alone.
type format16 struct {
	name            string
	fractionBits    int
	bias            int
	fromFloat32     func(float32) uint16
	toFloat32       func(uint16) float32
	infinity, quiet uint16 // +Inf, and the bit that makes a NaN quiet
}

var formats16 = []format16{
	{"float16", 10, 15,
		func(v float32) uint16 { return uint16(topk.Float16FromFloat32(v)) },
		func(x uint16) float32 { return topk.Float16(x).Float32() }, 0x7C00, 0x0200},
	{"bfloat16", 7, 127,
		func(v float32) uint16 { return uint16(topk.BFloat16FromFloat32(v)) },
		func(x uint16) float32 { return topk.BFloat16(x).Float32() }, 0x7F80, 0x0040},
}

// magnitude returns the value of a positive pattern, by IEEE 754-2019, 3.4. The
// pattern of infinity has the value that the next finite one would have.
func (f format16) magnitude(x uint16) float64 {
	exponent, fraction := int(x>>f.fractionBits), float64(x&(1<<f.fractionBits-1))
	if exponent == 0 {
		return math.Ldexp(fraction, 1-f.bias-f.fractionBits)
	}
	return math.Ldexp(fraction+float64(int(1)<<f.fractionBits), exponent-f.bias-f.fractionBits)
}

// nearest rounds v >= 0 to the nearest pattern, ties to even.
func (f format16) nearest(v float64) uint16 {
	above := uint16(sort.Search(int(f.infinity), func(x int) bool { return f.magnitude(uint16(x)) >= v }))
	if above == 0 {
		return 0
	}
	up, down := f.magnitude(above)-v, v-f.magnitude(above-1)
	if up < down || up == down && above%2 == 0 {
		return above
	}
	return above - 1
}

func TestFloat32IsExact(t *testing.T) {
	for _, f := range formats16 {
		for x := range 1 << 16 {
			x := uint16(x)
			got, positive := f.toFloat32(x), x&0x7FFF
			switch {
			case positive > f.infinity:
				if got == got {
					t.Fatalf("%s %#04x is %v, want NaN", f.name, x, got)
				}
			case positive == f.infinity:
				if !math.IsInf(float64(got), 0) {
					t.Fatalf("%s %#04x is %v, want an infinity", f.name, x, got)
				}
			case math.Abs(float64(got)) != f.magnitude(positive):
				t.Fatalf("%s %#04x is %v, want the magnitude %v", f.name, x, got, f.magnitude(positive))
			}
			if math.Signbit(float64(got)) != (x > 0x7FFF) {
				t.Fatalf("%s %#04x is %v: the sign is lost", f.name, x, got)
			}
		}
	}
}

func TestFromFloat32RoundTrips(t *testing.T) {
	for _, f := range formats16 {
		for x := range 1 << 16 {
			x := uint16(x)
			want := x
			if x&0x7FFF > f.infinity {
				want |= f.quiet
			}
			if got := f.fromFloat32(f.toFloat32(x)); got != want {
				t.Fatalf("%s %#04x came back as %#04x, want %#04x", f.name, x, got, want)
			}
		}
	}
}

func TestFromFloat32RoundsToNearestEven(t *testing.T) {
	for _, f := range formats16 {
		check := func(v float32) {
			t.Helper()
			want := f.nearest(math.Abs(float64(v)))
			if math.Signbit(float64(v)) {
				want |= 0x8000
			}
			if got := f.fromFloat32(v); got != want {
				t.Fatalf("%s of %v (bits %#x) is %#04x, want %#04x", f.name, v, math.Float32bits(v), got, want)
			}
		}
		inf := float32(math.Inf(1))
		for x := range f.infinity { // half-way to the next pattern, and to both sides of it
			middle := float32((f.magnitude(x) + f.magnitude(x+1)) / 2)
			for _, v := range []float32{middle, math.Nextafter32(middle, 0), math.Nextafter32(middle, inf)} {
				check(v)
				check(-v)
			}
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 100000 {
			if v := math.Float32frombits(rng.Uint32()); v == v && v-v == 0 {
				check(v)
			}
		}
		if got := f.fromFloat32(inf); got != f.infinity {
			t.Errorf("%s of +Inf is %#04x", f.name, got)
		}
	}
}

func TestFromFloat32KeepsNaN(t *testing.T) {
	for _, f := range formats16 {
		for _, bits := range []uint32{0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7F800000 | 1<<15} {
			for _, sign := range []uint32{0, 1 << 31} {
				got := f.fromFloat32(math.Float32frombits(bits | sign))
				if got&0x7FFF <= f.infinity || got>>15 != uint16(sign>>31) {
					t.Errorf("%s of NaN %#x is %#04x", f.name, bits|sign, got)
				}
			}
		}
	}
}

func TestViewsShareMemory(t *testing.T) {
	bits := []uint16{0x3F80, 0x3C00}
	brains, halves := topk.BFloat16s(bits), topk.Float16s(bits)
	bits[0], bits[1] = 0x4000, 0x4000
	if brains[0].Float32() != 2 || halves[1].Float32() != 2 || len(brains) != 2 || len(halves) != 2 {
		t.Errorf("views %v and %v of %v", brains, halves, bits)
	}
	if len(topk.BFloat16s(nil)) != 0 || len(topk.Float16s(nil)) != 0 {
		t.Error("a view of nothing has elements")
	}
}
