package simd_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
	"github.com/ai-kernel-factory/aikf/internal/fence"
)

var allTiers = []simd.Tier{simd.AVX512, simd.AVX2, simd.NEON, simd.Pure}

// eachTier runs test for every tier. One that the machine lacks is skipped, or
// fails if AIKF_TEST_REQUIRE, a list with commas, names it.
func eachTier(t *testing.T, test func(t *testing.T, tier simd.Tier)) {
	var required []string
	if list := os.Getenv("AIKF_TEST_REQUIRE"); list != "" {
		required = strings.Split(list, ",")
	}
	for _, tier := range allTiers {
		t.Run(tier.String(), func(t *testing.T) {
			if slices.Contains(simd.Available(), tier) {
				test(t, tier)
				return
			}
			var missing []string
			for _, feature := range simd.Features() {
				if feature.Tier == tier && !feature.Present {
					missing = append(missing, feature.Name)
				}
			}
			reason := fmt.Sprintf("tier %v: this machine lacks %s", tier, strings.Join(missing, ", "))
			if slices.Contains(required, tier.String()) {
				t.Fatalf("%s, but AIKF_TEST_REQUIRE = %q", reason, strings.Join(required, ","))
			}
			t.Skip(reason)
		})
	}
}

// A misspelt name must not make a requirement vanish. Four are not of tiers: a
// GPU, its driver over host memory, its kernels on the CPU, and a browser.
func TestRequiredTiersExist(t *testing.T) {
	known := []string{"cuda", "fakecuda", "chromium", "shim"}
	for _, tier := range allTiers {
		known = append(known, tier.String())
	}
	for name := range strings.SplitSeq(os.Getenv("AIKF_TEST_REQUIRE"), ",") {
		if name != "" && !slices.Contains(known, name) {
			t.Errorf("AIKF_TEST_REQUIRE names %q, want some of %v", name, known)
		}
	}
}

// orders are those that a row of E may have.
func orders[E simd.Bits]() []key.Order {
	if width[E]() == 4 {
		return []key.Order{key.Float32, key.Float32.Smallest()}
	}
	return []key.Order{key.BFloat16, key.BFloat16.Smallest(), key.Float16, key.Float16.Smallest()}
}

func width[E simd.Bits]() int {
	if uint64(^E(0)) == math.MaxUint16 {
		return 2
	}
	return 4
}

// fillRow draws bits: few distinct numbers, special values, or any bits.
func fillRow[E simd.Bits](rng *rand.Rand, row []E, order key.Order, nan bool) {
	infinity := E(order.Infinity >> (32 - 8*width[E]()))
	sign := ^E(0)>>1 + 1
	special := []E{0, sign, 1, sign | 1, infinity, infinity | sign, infinity - 1, infinity + 1, infinity + 1 | sign, ^E(0)}
	kind := rng.IntN(3)
	for i := range row {
		var x E
		switch {
		case kind == 0:
			x = infinity/2 + E(rng.IntN(20))
		case kind == 1 && rng.IntN(2) == 0:
			x = special[rng.IntN(len(special))]
		default:
			x = E(rng.Uint32())
		}
		if !nan && x&^sign > infinity {
			x &= sign | infinity
		}
		row[i] = x
	}
}

// places calls test with the memory for n elements at both ends of fenced
// memory, and at every alignment.
func places[E simd.Bits](memory []byte, n int, test func(row []E)) {
	test(fence.AtEnd[E](memory, n))
	test(fence.AtStart[E](memory, n))
	if n%16 < 3 || n > 290 { // ends beyond a vector and within one
		for offset := range 64 / width[E]() {
			test(fence.AtStart[E](memory, n+offset)[offset:])
		}
	}
}

func TestFilter(t *testing.T) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		t.Run("32", func(t *testing.T) { testFilter[uint32](t, tier) })
		t.Run("16", func(t *testing.T) { testFilter[uint16](t, tier) })
	})
}

func testFilter[E simd.Bits](t *testing.T, tier simd.Tier) {
	rng := rand.New(rand.NewPCG(1, 1))
	memory, bitmaps := fence.Memory(t, 4*(300+64)), fence.Memory(t, 8*5)
	for _, order := range orders[E]() {
		for n := range 301 {
			got, want := fence.AtEnd[uint64](bitmaps, (n+63)/64), make([]uint64, (n+63)/64)
			places(memory, n, func(row []E) {
				fillRow(rng, row, order, rng.IntN(4) > 0)
				leasts := []uint32{0, rng.Uint32(), key.SignBit, []uint32{1, math.MaxUint32, key.SignBit - 1, key.SignBit + 1}[rng.IntN(4)]}
				if n > 0 {
					at := order.Key(key.Widen(row[rng.IntN(n)]))
					leasts = append(leasts, at, at+1)
				}
				for _, least := range leasts {
					for i := range got {
						got[i] = rng.Uint64() // what was there does not matter
					}
					simd.Filter(tier, got, row, least, order)
					pure.Filter(want, row, least, order)
					if !slices.Equal(got, want) {
						t.Fatalf("%d elements, least %#x, order %+v: bitmap %#x, want %#x, of row %#x", n, least, order, got, want, row)
					}
				}
			})
		}
	}
}

func TestExpand(t *testing.T) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		t.Run("32", func(t *testing.T) { testExpand[uint32](t, tier) })
		t.Run("16", func(t *testing.T) { testExpand[uint16](t, tier) })
	})
}

func testExpand[E simd.Bits](t *testing.T, tier simd.Tier) {
	rng := rand.New(rand.NewPCG(2, 2))
	const longest = 16384
	memory, bitmaps, room := fence.Memory(t, 4*(longest+64)), fence.Memory(t, longest/8), fence.Memory(t, 8*(longest+128))
	expected := make([]uint64, longest+128)
	for _, order := range orders[E]() {
		check := func(row []E) {
			fillRow(rng, row, order, true)
			bitmap := fence.AtEnd[uint64](bitmaps, (len(row)+63)/64)
			share := []float64{0, 0.001, 0.02, 0.3, 0.9, 1}[rng.IntN(6)]
			clear(bitmap)
			for i := range row {
				if rng.Float64() < share {
					bitmap[i/64] |= 1 << (i % 64)
				}
			}
			base := rng.Uint32() >> (1 + rng.IntN(31))
			for _, places := range []int{len(row) + 128, rng.IntN(len(row) + 129), 0} {
				packed := fence.AtEnd[uint64](room, places)
				written, words := simd.Expand(tier, packed, bitmap, row, base, order)
				wantWritten, wantWords := pure.Expand(expected[:places], bitmap, row, base, order)
				for wantWords < words && bitmap[wantWords] == 0 {
					wantWords++ // an empty word needs no room
				}
				if written != wantWritten || words != wantWords {
					t.Fatalf("%d elements, room %d, share %v: wrote %d of %d words, want %d of %d",
						len(row), places, share, written, words, wantWritten, wantWords)
				}
				if !slices.Equal(packed[:written], expected[:written]) {
					t.Fatalf("%d elements, room %d, share %v, order %+v: %#x, want %#x",
						len(row), places, share, order, packed[:written], expected[:written])
				}
			}
		}
		for n := range 301 {
			places(memory, n, check)
		}
		for range 60 {
			check(fence.AtEnd[E](memory, rng.IntN(longest+1)))
		}
		check(fence.AtEnd[E](memory, longest))
	}
}

func TestSample(t *testing.T) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		t.Run("32", func(t *testing.T) { testSample[uint32](t, tier) })
		t.Run("16", func(t *testing.T) { testSample[uint16](t, tier) })
	})
}

// sampleByDefinition is Sample without its loops' order: element i is read if
// its line is a step's multiple, and the n-th line that is read starts at group
// n*lanes. Without NaN, these are left out; a tier may then give -Inf for a
// group that holds nothing else.
func sampleByDefinition[E simd.Bits](groups []int32, row []E, step int, order key.Order, nan bool) {
	lanes := simd.StopBytes / width[E]()
	for i := range groups {
		groups[i] = math.MinInt32
	}
	for i, x := range row[:len(row)/lanes*lanes] {
		bits, line := key.Widen(x), i/lanes
		if line%step != 0 || !nan && bits&^key.SignBit > order.Infinity {
			continue
		}
		bits ^= order.Flip
		ordered := int32(bits &^ key.SignBit) // the magnitude; a negative one's descends from -1
		if bits&key.SignBit != 0 {
			ordered = -1 - ordered
		}
		if ordered == -1 {
			ordered = 0 // the sign of zero is of no account
		}
		group := (line/step*lanes + i%lanes) % len(groups)
		groups[group] = max(groups[group], ordered)
	}
}

func testSample[E simd.Bits](t *testing.T, tier simd.Tier) {
	rng := rand.New(rand.NewPCG(3, 3))
	lanes := simd.StopBytes / width[E]()
	const longest = 20000
	memory, maxima := fence.Memory(t, 4*(longest+64)), fence.Memory(t, 4*1024)
	for _, order := range orders[E]() {
		for _, count := range []int{simd.GroupUnit, 2 * simd.GroupUnit, 4 * simd.GroupUnit, 8 * simd.GroupUnit} {
			got, with, without := fence.AtEnd[int32](maxima, count), make([]int32, count), make([]int32, count)
			for _, step := range []int{1, 2, 3, 5, 17} {
				least := (count/lanes-1)*step*lanes + lanes // a stop for each group
				for trial := range 80 {
					n := least + trial // every alignment of what is left over
					if trial >= 70 {
						n = least + rng.IntN(longest)
					}
					if n > longest {
						continue
					}
					row := fence.AtEnd[E](memory, n)
					if trial%2 == 1 {
						row = fence.AtStart[E](memory, n)
					}
					nan := trial%4 == 3
					fillRow(rng, row, order, nan)
					simd.Sample(tier, got, row, step, order)
					sampleByDefinition(with, row, step, order, true)
					sampleByDefinition(without, row, step, order, false)
					for i := range got {
						if got[i] == -1 {
							got[i] = 0 // the sign of zero is of no account
						}
						wanted := []int32{with[i]}
						if nan {
							wanted = append(wanted, without[i], max(without[i], -1-int32(order.Infinity)))
						}
						if !slices.Contains(wanted, got[i]) {
							t.Fatalf("%d elements, step %d, group %d of %d, order %+v: %#x, want one of %#x", n, step, i, count, order, got[i], wanted)
						}
					}
				}
			}
		}
	}
}

func TestRank(t *testing.T) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		rng := rand.New(rand.NewPCG(4, 4))
		memory := fence.Memory(t, 4*1024)
		for _, count := range []int{simd.GroupUnit, 2 * simd.GroupUnit, 3 * simd.GroupUnit, 8 * simd.GroupUnit} {
			groups := fence.AtEnd[int32](memory, count)
			for trial := range 60 {
				for i := range groups {
					switch trial % 6 {
					case 0:
						groups[i] = int32(rng.Uint32())
					case 1:
						groups[i] = int32(rng.IntN(9)) - 4
					case 2:
						groups[i] = []int32{math.MinInt32, math.MaxInt32, 0, -1}[rng.IntN(4)]
					case 3:
						groups[i] = 77
					case 4:
						groups[i] = int32(rng.NormFloat64() * 1e6)
					case 5:
						groups[i] = math.MinInt32 + int32(i/100)
					}
				}
				before, sorted := slices.Clone(groups), slices.Clone(groups)
				slices.Sort(sorted)
				slices.Reverse(sorted)
				for _, rank := range []int{1, 2, 3, 1 + rng.IntN(count), count / 2, count - 1, count} {
					got := simd.Rank(tier, groups, rank)
					reach := func(v int32) (n int) {
						for _, g := range groups {
							if g >= v {
								n++
							}
						}
						return n
					}
					if n := reach(got); n < rank {
						t.Fatalf("rank %d of %d groups: %d is reached by %d only", rank, count, got, n)
					} else if most := max(rank+rank/4+8, reach(sorted[rank-1])); n > most {
						t.Fatalf("rank %d of %d groups: %d is reached by %d, want at most %d", rank, count, got, n, most)
					}
				}
				if !slices.Equal(groups, before) {
					t.Fatalf("the groups were changed")
				}
			}
		}
	})
}

func TestSort(t *testing.T) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		rng := rand.New(rand.NewPCG(5, 5))
		const longest = 5000
		memory := fence.Memory(t, 8*(longest+simd.SortSlack))
		check := func(n int, ks ...int) {
			original, want := make([]uint64, n), make([]uint64, n)
			for i := range original {
				original[i] = rng.Uint64() | 1 // no packed word is 0: an index has 31 bits
				if n%3 == 0 {
					original[i] = key.Pack(uint32(rng.IntN(5)), uint32(i)) // ties
				}
			}
			copy(want, original)
			slices.Sort(want)
			slices.Reverse(want)
			for _, k := range ks {
				if k > n {
					continue
				}
				packed := fence.AtEnd[uint64](memory, n+simd.SortSlack)[:n]
				copy(packed, original)
				for i := n; i < n+simd.SortSlack; i++ {
					packed[:n+simd.SortSlack][i] = rng.Uint64() // what lies there does not matter
				}
				simd.Sort(tier, packed, k)
				if !slices.Equal(packed[:k], want[:k]) {
					t.Fatalf("%d words, k %d: not the largest, in order", n, k)
				}
			}
		}
		for n := range 301 {
			check(n, 0, 1, 2, 31, 32, 33, 50, 63, 64, 65, 127, 128, 129, 200, n-n/3, max(0, n-1), n)
		}
		for _, n := range []int{100, 257, 700} {
			all := make([]int, n+1)
			for k := range all {
				all[k] = k
			}
			check(n, all...)
		}
		trials := 300
		if testing.Short() {
			trials = 50
		}
		for range trials {
			n := rng.IntN(longest + 1)
			check(n, n, n/2, rng.IntN(n+1), min(n, rng.IntN(300)))
		}
	})
}

func TestTrim(t *testing.T) {
	eachTier(t, func(t *testing.T, tier simd.Tier) {
		rng := rand.New(rand.NewPCG(6, 6))
		memory := fence.Memory(t, 8*(1200+simd.SortSlack))
		for trial := range 3000 {
			n := 1 + rng.IntN(1200)
			if trial < 300 {
				n = 1 + trial/4
			}
			k := 1 + rng.IntN(n)
			packed := fence.AtEnd[uint64](memory, n+simd.SortSlack)[:n]
			for i := range packed {
				switch trial % 3 {
				case 0:
					packed[i] = rng.Uint64() | 1
				case 1: // ties
					packed[i] = key.Pack(uint32(rng.IntN(3)), uint32(i))
				case 2: // close together
					packed[i] = key.Pack(key.SignBit+uint32(rng.IntN(1000)), uint32(i))
				}
			}
			want := slices.Clone(packed)
			slices.Sort(want)
			slices.Reverse(want)
			kept, least := simd.Trim(tier, packed, k)
			if kept < k || kept > k+k/8 {
				t.Fatalf("%d of %d words are kept for k = %d", kept, n, k)
			}
			got := slices.Clone(packed[:kept])
			slices.Sort(got)
			slices.Reverse(got)
			if !slices.Equal(got, want[:kept]) {
				t.Fatalf("%d words, k = %d: the %d kept are not the largest", n, k, kept)
			}
			if got[kept-1] < least || kept < n && want[kept] >= least {
				t.Fatalf("%d words, k = %d: the bound %#x is not what just the %d kept reach", n, k, least, kept)
			}
		}
	})
}
