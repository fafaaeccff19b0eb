//go:build amd64

package avx2

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/cpu"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
)

// magnitudes are bits of floats, a 16-bit one in the upper half, next to which
// the order of words as float64 might go wrong.
var magnitudes = []uint32{
	0, 1, 2, 0x00010000, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7BFF0000, 0x7C000000, 0x7F7F0000, 0x7F7FFFFF, 0x7F800000,
}

// words returns those of the magnitudes of numbers, with either sign, at the
// smallest and the largest indices.
func words(order key.Order) []uint64 {
	var all []uint64
	for _, m := range magnitudes {
		for _, bits := range []uint32{m, m | key.SignBit} {
			for _, index := range []uint32{0, 1, math.MaxInt32 - 1, math.MaxInt32} {
				if m <= order.Infinity {
					all = append(all, key.Pack(order.Key(bits), index))
				}
			}
		}
	}
	return all
}

// TestSortFloats checks that the words of all numbers are sorted as float64,
// just those of NaN are not, and that neither is noticed from outside.
func TestSortFloats(t *testing.T) {
	if !cpu.X86.HasAVX2 {
		t.Skip("this machine lacks AVX2")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, order := range []key.Order{key.Float32, key.Float16, key.Float32.Smallest(), key.Float16.Smallest()} {
		numbers := words(order)
		for trial := range 200 {
			packed := slices.Grow(slices.Clone(numbers), 2*block)
			hasNaN := trial%2 == 1
			if hasNaN {
				packed = append(packed, key.Pack(order.NaN, rng.Uint32()>>1))
			}
			rng.Shuffle(len(packed), func(i, j int) { packed[i], packed[j] = packed[j], packed[i] })
			want := slices.Clone(packed)
			slices.Sort(want)
			slices.Reverse(want)

			n := len(packed)
			blocks := slices.Concat(packed, padding)[:(n+block-1)/block*block]
			floats := sort64(&blocks[0], len(blocks)/block)
			if complete := floats == len(blocks); complete == hasNaN {
				t.Fatalf("order %+v, NaN %v: %d of %d words became float64", order, hasNaN, floats, len(blocks))
			}
			k := 1 + rng.IntN(n)
			Sort(packed, k)
			if !slices.Equal(packed[:k], want[:k]) {
				t.Fatalf("order %+v, NaN %v, k %d: %#x, want %#x", order, hasNaN, k, packed[:k], want[:k])
			}
		}
	}
}

// TestIntegers checks that words come back from being float64, also those that
// are NaN, and no more of them.
func TestIntegers(t *testing.T) {
	if !cpu.X86.HasAVX2 {
		t.Skip("this machine lacks AVX2")
	}
	for n := range 20 {
		packed := make([]uint64, n+4)
		for i := range packed {
			packed[i] = rand.Uint64()
		}
		want := slices.Clone(packed)
		for i := range want[:(n+3)/4*4] {
			if want[i] >= 1<<63 {
				want[i] = ^want[i]
			} else {
				want[i] |= 1 << 63
			}
		}
		integers(&packed[0], n)
		if !slices.Equal(packed, want) {
			t.Fatalf("%d words: %#x, want %#x", n, packed, want)
		}
	}
}

// TestTrimKeepsEnough checks the number of words that are kept, and that the
// words past the end do not count, whatever they are.
func TestTrimKeepsEnough(t *testing.T) {
	if !cpu.X86.HasAVX2 {
		t.Skip("this machine lacks AVX2")
	}
	rng := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		n := 1 + rng.IntN(200)
		k := 1 + rng.IntN(n)
		enough := k + rng.IntN(n)
		packed := make([]uint64, n, n+block)
		for i := range packed {
			packed[i] = key.Pack(rng.Uint32()>>rng.IntN(32), uint32(i))
		}
		for i := n; i < cap(packed); i++ {
			packed[:cap(packed)][i] = math.MaxUint64
		}
		want := slices.Clone(packed)
		pure.Sort(want, n)
		kept, least := trim(packed, k, enough)
		if kept < k || kept > enough {
			t.Fatalf("%d of %d words are kept, want %d to %d", kept, n, k, enough)
		}
		pure.Sort(packed[:kept], kept)
		if !slices.Equal(packed[:kept], want[:kept]) || want[kept-1] < least || kept < n && want[kept] >= least {
			t.Fatalf("%d words: %#x and the bound %#x, want the first of %#x", n, packed[:kept], least, want)
		}
	}
}
