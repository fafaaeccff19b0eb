package simd_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
	"github.com/ai-kernel-factory/aikf/internal/fence"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// eachFormat runs a test for every tier on rows of every format.
func eachFormat(t *testing.T, test32 func(*testing.T, simd.Tier, key.Order), test16 func(*testing.T, simd.Tier, key.Order)) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		t.Run("float32", func(t *testing.T) { test32(t, tier, key.Float32) })
		t.Run("bfloat16", func(t *testing.T) { test16(t, tier, key.BFloat16) })
		t.Run("float16", func(t *testing.T) { test16(t, tier, key.Float16) })
	})
}

// lengths are about words, blocks and vectors.
var lengths = []int{0, 1, 2, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 200, 255, 256, 257, 300, 511, 512, 513, 769, 1000, 2048, 2500}

func blocks(n int) int { return (n + simd.Block - 1) / simd.Block }

func valueOf[E simd.Bits](x E, order key.Order) float32 { return order.Value(key.Widen(x)) }

func TestBlockMaxima(t *testing.T) {
	eachFormat(t, testBlockMaxima[uint32], testBlockMaxima[uint16])
}

func testBlockMaxima[E simd.Bits](t *testing.T, tier simd.Tier, order key.Order) {
	rng := rand.New(rand.NewPCG(11, 11))
	memory := fence.Memory(t, 4*3000)
	for _, n := range lengths {
		for trial := range 12 {
			row := fence.AtEnd[E](memory, n)
			fillRow(rng, row, order, trial%4 == 3)
			got, want := make([]float32, blocks(n)), make([]float32, blocks(n))
			nan := simd.BlockMaxima(tier, got, row, order)
			if wanted := pure.BlockMaxima(want, row, order); nan != wanted {
				t.Fatalf("%d elements: NaN %v, want %v", n, nan, wanted)
			} else if !nan && !slices.Equal(got, want) {
				t.Fatalf("%d elements: maxima %v, want %v", n, got, want)
			}
		}
		for at := range n { // one NaN, anywhere
			row := fence.AtEnd[E](memory, n)
			clear(row)
			row[at] = E((order.Infinity | 1<<16) >> (32 - 8*width[E]()))
			if at%2 == 1 {
				row[at] |= ^E(0)>>1 + 1
			}
			if !simd.BlockMaxima(tier, make([]float32, blocks(n)), row, order) {
				t.Fatalf("%d elements: the NaN at %d is overlooked", n, at)
			}
		}
	}
}

// fillWeighed draws finite values and -Inf, and returns the largest.
func fillWeighed[E simd.Bits](rng *rand.Rand, row []E, order key.Order, kind int) (largest float32) {
	largest = float32(math.Inf(-1))
	sign := ^E(0)>>1 + 1
	infinity := E(order.Infinity >> (32 - 8*width[E]()))
	one := E(math.Float32bits(1) >> (32 - 8*width[E]()))
	if order.Infinity == key.Float16.Infinity {
		one = 0x3C00
	}
	for i := range row {
		var x E
		switch kind % 3 {
		case 0:
			x = one + E(rng.IntN(int(min(infinity-one, 1<<10))))
		case 1:
			if x = E(rng.Uint32()); x&^sign >= infinity {
				x = infinity | sign
			}
		case 2:
			x = one + E(rng.Uint32())&(one>>3) | E(rng.Uint32())&sign
		}
		row[i] = x
		largest = max(largest, valueOf(x, order))
	}
	return largest
}

var scales = []float32{law.Scale(1), law.Scale(0.1), law.Scale(8), 1, law.Scale(law.ColdestTemperature), law.Scale(math.MaxFloat32)}

func TestBlockMasses(t *testing.T) {
	eachFormat(t, testBlockMasses[uint32], testBlockMasses[uint16])
}

func testBlockMasses[E simd.Bits](t *testing.T, tier simd.Tier, order key.Order) {
	rng := rand.New(rand.NewPCG(12, 12))
	memory := fence.Memory(t, 4*3000)
	for _, n := range lengths {
		for trial := range 24 {
			row := fence.AtEnd[E](memory, n)
			if trial%2 == 1 {
				row = fence.AtStart[E](memory, n)
			}
			largest := fillWeighed(rng, row, order, trial)
			if largest < -math.MaxFloat32 {
				continue
			}
			bitmap := randomBitmap(rng, n, trial)
			scale := scales[rng.IntN(len(scales))]
			got, want := make([]uint64, blocks(n)), make([]uint64, blocks(n))
			simd.BlockMasses(tier, got, bitmap, row, largest, scale, order)
			for i, x := range row {
				if bitmap[i/64]>>(i%64)&1 != 0 {
					want[i/simd.Block] += law.Mass(law.Surprise(valueOf(x, order), largest, scale))
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d elements, largest %g, scale %g: sums %v, want %v", n, largest, scale, got, want)
			}
		}
	}
	// Beside +Inf nothing but +Inf weighs.
	row := make([]E, 300)
	row[3], row[299] = E(order.Infinity>>(32-8*width[E]())), E(order.Infinity>>(32-8*width[E]()))
	sums := make([]uint64, 2)
	simd.BlockMasses(tier, sums, randomBitmap(rng, 300, 0), row, float32(math.Inf(1)), law.Scale(1), order)
	if !slices.Equal(sums, []uint64{law.One, law.One}) {
		t.Errorf("two of +Inf: sums %v", sums)
	}
}

// randomBitmap has all bits, some, few or none, and no bit past n.
func randomBitmap(rng *rand.Rand, n, kind int) []uint64 {
	bitmap := make([]uint64, (n+63)/64)
	for i := range n {
		if kind%4 == 0 || kind%4 == 1 && rng.IntN(2) == 0 || kind%4 == 2 && rng.IntN(100) == 0 {
			bitmap[i/64] |= 1 << (i % 64)
		}
	}
	return bitmap
}

// Every surprise that a float32 difference can have, at a scale of 1: all or, in
// short mode, some. What is between them is rounded.
func TestMasses(t *testing.T) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		step := 1
		if testing.Short() {
			step = 239
		}
		const batch = 4096
		logits, masses := make([]float32, 0, batch), make([]uint64, batch)
		flush := func() {
			simd.Masses(tier, masses[:len(logits)], logits, 0, 1)
			for i, l := range logits {
				if want := law.Mass(law.Surprise(l, 0, 1)); masses[i] != want {
					t.Fatalf("mass of the surprise %g: %d, want %d", l, masses[i], want)
				}
			}
			logits = logits[:0]
		}
		compare := func(l float32) {
			if logits = append(logits, l); len(logits) == batch {
				flush()
			}
		}
		for q := 0; q < 1<<24; q += step {
			compare(-float32(q))
		}
		// From 2^24 on every float32 is an integer; the last ones are past the least surprise.
		for word := math.Float32bits(-1 << 24); word < math.Float32bits(law.LeastSurprise)+500; word += uint32(step) {
			compare(math.Float32frombits(word))
		}
		rng := rand.New(rand.NewPCG(14, 14))
		for range 1_000_000 {
			compare(-float32(math.Ldexp(rng.Float64(), rng.IntN(26))))
			compare(-float32(rng.IntN(1<<23)) - 0.5) // ties to even
		}
		compare(float32(math.Inf(-1)))
		compare(-math.MaxFloat32)
		compare(-math.SmallestNonzeroFloat32)
		flush()
		for n := range 40 {
			logits = logits[:0]
			for i := range n {
				logits = append(logits, -float32(i)/4)
			}
			masses[n] = 77
			simd.Masses(tier, masses[:n], logits, 0, law.Scale(1))
			for i, l := range logits {
				if want := law.LogitMass(l, 0, 1); masses[i] != want {
					t.Fatalf("%d logits: mass of %g %d, want %d", n, l, masses[i], want)
				}
			}
			if masses[n] != 77 {
				t.Fatalf("%d logits: a mass was written past them", n)
			}
		}
		inf := float32(math.Inf(1))
		simd.Masses(tier, masses, []float32{inf, 3, -inf}, inf, law.Scale(1))
		if !slices.Equal(masses[:3], []uint64{law.One, 0, 0}) {
			t.Errorf("beside +Inf: masses %v", masses[:3])
		}
	})
}

func TestCompact(t *testing.T) {
	eachFormat(t, testCompact[uint32], testCompact[uint16])
}

func testCompact[E simd.Bits](t *testing.T, tier simd.Tier, order key.Order) {
	rng := rand.New(rand.NewPCG(13, 13))
	memory := fence.Memory(t, 4*3000)
	room := fence.Memory(t, 4*3000)
	for _, n := range lengths {
		for trial := range 24 {
			row := fence.AtEnd[E](memory, n)
			fillRow(rng, row, order, true)
			bitmap := randomBitmap(rng, n, trial)
			var want []float32
			for i, x := range row {
				if bitmap[i/64]>>(i%64)&1 != 0 {
					want = append(want, valueOf(x, order))
				}
			}
			values := fence.AtEnd[float32](room, len(want)+simd.CompactRoom)
			got := simd.Compact(tier, values, bitmap, row, order)
			if got != len(want) {
				t.Fatalf("%d elements: %d values, want %d", n, got, len(want))
			}
			for i, v := range want {
				if values[i] != v && (v == v || values[i] == values[i]) {
					t.Fatalf("%d elements: value %d is %g, want %g", n, i, values[i], v)
				}
			}
		}
	}
}

func TestCompactAbove(t *testing.T) {
	eachFormat(t, testCompactAbove[uint32], testCompactAbove[uint16])
}

func testCompactAbove[E simd.Bits](t *testing.T, tier simd.Tier, order key.Order) {
	rng := rand.New(rand.NewPCG(15, 15))
	memory, room := fence.Memory(t, 4*3000), fence.Memory(t, 4*3000)
	for _, n := range lengths {
		for trial := range 24 {
			row := fence.AtEnd[E](memory, n)
			fillRow(rng, row, order, false)
			least := float32(rng.NormFloat64())
			if n > 0 && trial%3 > 0 {
				least = valueOf(row[rng.IntN(n)], order)
			}
			below := trial%2 == 1
			wanted, values := make([]uint64, (n+63)/64), make([]float32, n+simd.CompactRoom)
			want := values[:pure.CompactAbove(values, wanted, row, least, below, order)]
			bitmap, got := make([]uint64, len(wanted)), fence.AtEnd[float32](room, len(want)+simd.CompactRoom)
			if count := simd.CompactAbove(tier, got, bitmap, row, least, below, order); count != len(want) {
				t.Fatalf("%d elements: %d values, want %d", n, count, len(want))
			}
			if !slices.Equal(got[:len(want)], want) || !slices.Equal(bitmap, wanted) {
				t.Fatalf("%d elements, least %g, below %v: other values or bits", n, least, below)
			}
			for i, x := range row {
				if v := valueOf(x, order); (v >= least != below) != (bitmap[i/64]>>(i%64)&1 != 0) {
					t.Fatalf("%d elements, least %g, below %v: the bit of %g is wrong", n, least, below, v)
				}
			}
		}
	}
}

func TestPick(t *testing.T) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		rng := rand.New(rand.NewPCG(16, 16))
		memory, room := fence.Memory(t, 4*140000), fence.Memory(t, 4*140000)
		for _, n := range append(lengths, 65536, 65537, 70000, 131072+77) {
			for _, least := range []float32{-9, 0, 2, 9} {
				row := fence.AtEnd[float32](memory, n)
				bits := make([]uint32, n)
				for i := range row {
					row[i] = float32(rng.NormFloat64())
					bits[i] = math.Float32bits(row[i])
				}
				wanted, values := make([]uint64, (n+63)/64), make([]float32, n+simd.CompactRoom)
				want := values[:pure.CompactAbove(values, wanted, bits, least, false, key.Float32)]
				bitmap, got := make([]uint64, len(wanted)), fence.AtEnd[float32](room, len(want)+simd.CompactRoom)
				if count := simd.Pick(tier, got, bitmap, row, least); count != len(want) || !slices.Equal(got[:count], want) || !slices.Equal(bitmap, wanted) {
					t.Fatalf("%d elements from %g: %d values, want %d, or other ones", n, least, count, len(want))
				}
			}
		}
	})
}

func TestRoughMass(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 21))
	memory := fence.Memory(t, 4*3000)
	check := func(t *testing.T, tier simd.Tier, row []uint32, largest, scale float32) {
		t.Helper()
		low, high, ok := simd.RoughMass(tier, row, largest, scale)
		if ok != (tier == simd.AVX512) {
			t.Fatalf("there are bounds: %v", ok)
		} else if !ok {
			return
		}
		want := uint64(0)
		for _, bits := range row {
			want += law.Mass(law.Surprise(math.Float32frombits(bits), largest, scale))
		}
		if want < low || want > high || float64(high-low) > 0x1p-18*float64(want)+4*float64(len(row))+4 {
			t.Fatalf("%d elements, largest %v, scale %v: the mass %d is not in [%d, %d], or these are far apart", len(row), largest, scale, want, low, high)
		}
	}
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		for _, n := range lengths {
			for trial := range 12 {
				row := fence.AtEnd[uint32](memory, n)
				largest := fillWeighed(rng, row, key.Float32, trial)
				if !(largest >= -math.MaxFloat32) {
					continue // no element is finite
				}
				for _, temperature := range []float32{0.3, 1, 1.7, 1e20, 1e-20} {
					check(t, tier, row, largest, law.Scale(temperature))
				}
			}
		}
		// Elements that are alike do not make up for each other's errors.
		row := make([]uint32, 128)
		for trial := range 20000 {
			l := -rng.Float32() * 30
			if trial%4 == 0 {
				l = -rng.Float32() * 0x1p-20
			}
			for i := range row {
				row[i] = math.Float32bits(l)
			}
			check(t, tier, row, 0, law.Scale(1))
		}
		for _, special := range []float32{0, float32(math.Copysign(0, -1)), -math.MaxFloat32, float32(math.Inf(-1)), -1e-40, -29.8, -30.5, -87, -103} {
			check(t, tier, []uint32{math.Float32bits(special), 0}, 0, law.Scale(1))
		}
	})
}
