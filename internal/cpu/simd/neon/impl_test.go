//go:build arm64 && unix

package neon

import (
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"
)

// fenced returns n elements that end where a page begins which must not be
// touched, so that a read or a write past the end crashes.
func fenced[E any](t *testing.T, n int) []E {
	t.Helper()
	var zero E
	size, page := n*int(unsafe.Sizeof(zero)), syscall.Getpagesize()
	pages := (size + page - 1) / page * page
	memory, err := syscall.Mmap(-1, 0, pages+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(memory) })
	if err := syscall.Mprotect(memory[pages:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(memory[pages-size:]))), n)
}

// lengths are those of the rows under test. A row ends at a fence, so that they
// stand for all alignments too.
func lengths() []int {
	var all []int
	for n := range 301 {
		all = append(all, n)
	}
	return append(all, 511, 1000, 4113, 16384)
}

// edges32 and edges16 are the bits between which a comparison may go wrong, of
// all three formats.
var (
	edges32 = withSign[uint32](0, 1, 2, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF)
	edges16 = withSign[uint16](0, 1, 2, 0x3F80, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7F7F, 0x7F80, 0x7F81, 0x7FC0, 0x7FFF)
)

func withSign[E pure.Bits](magnitudes ...E) []E {
	all := slices.Clone(magnitudes)
	for _, m := range magnitudes {
		all = append(all, m|1<<(unsafe.Sizeof(m)*8-1))
	}
	return all
}

// fill writes random bits, or edges, or both.
func fill[E pure.Bits](random *rand.Rand, row []E, edges []E) {
	share := random.IntN(3)
	for i := range row {
		row[i] = E(random.Uint32())
		if random.IntN(2) < share {
			row[i] = edges[random.IntN(len(edges))]
		}
	}
}

func TestFilter32(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 32))
	for _, n := range lengths() {
		row, got, want := fenced[uint32](t, n), fenced[uint64](t, (n+63)/64), make([]uint64, (n+63)/64)
		limits := append(slices.Clone(edges32), random.Uint32(), random.Uint32())
		for i, above := range limits {
			fill(random, row, limits)
			for w := range got {
				got[w] = random.Uint64()
			}
			invert := -uint64(i & 1)
			Filter32(got, row, above, invert)
			pure.Filter32(want, row, above, invert)
			if !slices.Equal(got, want) {
				t.Fatalf("n = %d, above = %#x, invert = %#x: bitmap %#x, want %#x of %#x", n, above, invert, got, want, row)
			}
		}
	}
}

func TestFilter16(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 16))
	for _, n := range lengths() {
		row, got, want := fenced[uint16](t, n), fenced[uint64](t, (n+63)/64), make([]uint64, (n+63)/64)
		limits := append(slices.Clone(edges16), uint16(random.Uint32()), uint16(random.Uint32()))
		for i, above := range limits {
			fill(random, row, limits)
			for w := range got {
				got[w] = random.Uint64()
			}
			invert := -uint64(i & 1)
			for _, xor := range []uint16{0, 0x7FFF} {
				largest := Filter16(got, row, xor, above, invert)
				wantLargest := pure.Filter16(want, row, xor, above, invert)
				if !slices.Equal(got, want) || largest != wantLargest {
					t.Fatalf("n = %d, xor = %#x, above = %#x, invert = %#x: largest %#x, want %#x; bitmap %#x, want %#x of %#x",
						n, xor, above, invert, largest, wantLargest, got, want, row)
				}
			}
		}
	}
}

// TestFilter16Xor walks all thresholds to show that Filter16 knows each xor.
func TestFilter16Xor(t *testing.T) {
	for _, order := range []key.Order{key.BFloat16, key.Float16, key.BFloat16.Smallest(), key.Float16.Smallest()} {
		for least := range uint32(1 << 16) {
			for _, low := range []uint32{0, 1, 0xFFFF} {
				if xor, _, _ := order.Above16(least<<16 | low); xor != 0 && xor != 0x7FFF {
					t.Fatalf("order %+v, least = %#x: xor = %#x", order, least<<16|low, xor)
				}
			}
		}
	}
}

func TestSample32(t *testing.T) {
	testSample(t, Sample32, edges32, key.SignBit)
}

func TestSample16(t *testing.T) {
	testSample(t, Sample16, edges16, key.SignBit>>16)
}

func testSample[E pure.Bits](t *testing.T, sample func(groups []int32, row []E, step int, flip E), edges []E, signBit E) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, flip := range []E{0, signBit} {
		for _, groups := range []int{128, 256, 640} {
			got, want := fenced[int32](t, groups), make([]int32, groups)
			for _, step := range []int{1, 2, 3, 17} {
				for _, extra := range []int{0, 1, 31, 32, 100, 5000} {
					row := fenced[E](t, groups*step+extra)
					fill(random, row, edges)
					sample(got, row, step, flip)
					pure.Sample(want, row, step, key.Order{Flip: key.Widen(flip)})
					if !slices.Equal(got, want) {
						t.Fatalf("flip = %#x, %d groups, step = %d, %d elements: %#x, want %#x", flip, groups, step, len(row), got, want)
					}
				}
			}
		}
	}
}

func TestRank(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{16, 128, 256, 1024} {
		groups := fenced[int32](t, n)
		for _, spread := range []uint32{1, 2, 200, 1 << 31, 0xFFFFFFFF} {
			for i := range groups {
				groups[i] = int32(random.Uint32N(spread) - spread/2)
			}
			for rank := 1; rank <= n; rank += 1 + n/100 {
				if got, want := Rank(groups, rank), pure.Rank(groups, rank); got != want {
					t.Fatalf("rank %d of %d: %d, want %d of %d", rank, n, got, want, groups)
				}
			}
		}
		groups[0], groups[n-1] = -1<<31, 1<<31-1
		for rank := 1; rank <= n; rank += 1 + n/100 {
			if got, want := Rank(groups, rank), pure.Rank(groups, rank); got != want {
				t.Fatalf("extremes, rank %d of %d: %d, want %d of %d", rank, n, got, want, groups)
			}
		}
	}
}

func TestMax(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 3))
	nan := []uint32{0x7F800001, 0xFF800001, 0x7FC00000, 0xFFFFFFFF}
	for _, n := range lengths() {
		row32, row16 := fenced[uint32](t, n), fenced[uint16](t, n)
		for _, edges := range [][]uint32{edges32, {0xFF800000}, nan, {0, 1 << 31}, {0x7FC00000, 0xBF800000}} {
			fill(random, row32, edges)
			if got, want := Max32(row32), pure.Max32(row32); got != want {
				t.Fatalf("%v, want %v of %#x", got, want, row32)
			}
			for i := range row32 {
				row32[i] = edges[i%len(edges)] // not one else
			}
			if got, want := Max32(row32), pure.Max32(row32); got != want {
				t.Fatalf("%v, want %v of %#x", got, want, row32)
			}
		}
		// The largest at each place in turn.
		clear(row32)
		clear(row16)
		for i := range min(n, 600) {
			row32[i], row16[i] = 0x3F800000, 1
			if got := Max32(row32); got != 1 {
				t.Fatalf("%v, want 1 of %#x", got, row32)
			}
			if got := Max16(row16); got != 1 {
				t.Fatalf("%v, want 1 of %#x", got, row16)
			}
			row32[i], row16[i] = 0xBF800000, 0xFFFF
		}
		fill(random, row16, edges16)
		if got, want := Max16(row16), pure.Max16(row16); got != want {
			t.Fatalf("%v, want %v of %#x", got, want, row16)
		}
	}
}

func TestSort(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 4))
	for _, n := range append(lengths()[:301], 512, 700, 1024, 3333) {
		memory := fenced[uint64](t, (n+31)/32*32)
		for _, k := range []int{0, 1, 2, 31, 32, 33, 50, 64, 65, 100, 128, 129, 200, 256, 257, 1000, n - 1, n} {
			if k < 0 || k > n {
				continue
			}
			for _, distinct := range []uint64{2, 10, 1 << 20, 1<<64 - 1} {
				packed := memory[:n]
				for i := range packed {
					packed[i] = -random.Uint64N(distinct)
				}
				want := slices.Clone(packed)
				Sort(packed, k)
				pure.Sort(want, k)
				if !slices.Equal(packed[:k], want[:k]) {
					t.Fatalf("n = %d, k = %d: %#x, want %#x", n, k, packed[:k], want[:k])
				}
			}
		}
	}
}

// TestSort32 sorts zeros and ones: a network that sorts all of them sorts
// everything. Each lane has all its rows of 16, and so has a bitonic block.
func TestSort32(t *testing.T) {
	words := make([]uint64, 32)
	for ones := range 1 << 16 {
		for _, other := range []int{ones, ^ones, 0, 0x00FF, ones * 40503} {
			count := 0
			for i := range 16 {
				words[2*i], words[2*i+1] = uint64(ones>>i&1), uint64(other>>i&1)
				count += int(words[2*i] + words[2*i+1])
			}
			sort32(&words[0], 1)
			for i, word := range words {
				if want := i < count; (word == 1) != want {
					t.Fatalf("lanes %016b and %016b: %d", ones, other&0xFFFF, words)
				}
			}
		}
	}
}

func TestAllocations(t *testing.T) {
	row32, row16, bitmap, groups := make([]uint32, 5000), make([]uint16, 5000), make([]uint64, 79), make([]int32, 128)
	packed := make([]uint64, 320)
	if n := testing.AllocsPerRun(10, func() {
		Sample32(groups, row32, 1, 0)
		Sample16(groups, row16, 1, 0)
		Rank(groups, 5)
		Filter32(bitmap, row32, 5, 0)
		Filter16(bitmap, row16, 0, 5, 0)
		Filter16(bitmap, row16, 0x7FFF, 5, 0)
		Max32(row32)
		Max16(row16)
		Sort(packed, 100)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
