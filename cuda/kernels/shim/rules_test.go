package shim_test

import (
	"errors"
	"math"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
)

// rules loads the small kernels of testdata/rules.cu.
func rules(t *testing.T) *shim.Library {
	t.Helper()
	return shim.Open(t, filepath.Join("cuda", "kernels", "shim", "testdata", "rules.cu"))
}

const threads = 1024

// words runs a kernel of rules.cu on words and returns what it writes.
func words(t *testing.T, l *shim.Library, symbol string, blocks, cluster int, seed uint64, in []uint32, n int) []uint32 {
	t.Helper()
	out := make([]uint32, n)
	a := arguments{logits: first(in), indices: first(out)}
	if _, err := l.Launch(symbol, blocks, threads, cluster, seed, unsafe.Pointer(&a)); err != nil {
		t.Fatal(err)
	}
	return out
}

// randomWords returns n words in memory that is aligned to 16 bytes.
func randomWords(rng *rand.Rand, n int) []uint32 {
	memory := make([]uint32, n+4)
	for uintptr(first(memory))%16 != 0 {
		memory = memory[1:]
	}
	for i := range memory {
		memory[i] = rng.Uint32()
	}
	return memory[:n:n]
}

func TestStructSize(t *testing.T) {
	if size := unsafe.Sizeof(arguments{}); size != 96 {
		t.Errorf("arguments have %d bytes, arguments.h says 96", size)
	}
}

func TestOperations(t *testing.T) {
	l := rules(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for seed := range uint64(20) {
		in := randomWords(rng, threads)
		const blocks = 6
		out := make([]uint32, 16*threads*blocks)
		a := arguments{logits: first(in), indices: first(out)}
		if _, err := l.Launch("operations", blocks, threads, 3, seed, unsafe.Pointer(&a)); err != nil {
			t.Fatal(err)
		}
		for block := range blocks {
			checkOperations(t, in, out[16*threads*block:][:16*threads], uint32(block%3*100+3))
			if t.Failed() {
				t.Fatalf("block %d, seed %d", block, seed)
			}
		}
	}
}

// checkOperations compares 16 results of each thread of a block.
func checkOperations(t *testing.T, in, out []uint32, cluster uint32) {
	t.Helper()
	arrivals := make([]bool, threads)
	for thread := range threads {
		warp, lane := in[thread&^31:thread&^31+32], uint32(thread%32)
		var ballot, sum, most uint32
		for i, v := range warp {
			ballot |= v & 1 << i
			sum += v
			most = max(most, v)
		}
		up := lane
		if lane >= 3 {
			up -= 3
		}
		v, got := in[thread], out[16*thread:][:16]
		arrivals[got[12]] = true
		want := []uint32{
			ballot, warp[v>>8%32], warp[lane^5], warp[lane^17], uint32(thread) ^ 17, warp[up], sum, most,
			uint32(bits.OnesCount32(v)), uint32(bits.TrailingZeros32(v)), math.MaxUint32, v,
			got[12], threads, 1, cluster,
		}
		if !slices.Equal(got, want) {
			t.Errorf("thread %d: %#x, want %#x", thread, got, want)
			return
		}
	}
	if slices.Contains(arrivals, false) {
		t.Error("two atomic_add of 1 returned the same number")
	}
}

// floatMaximum is the maximum that max.NaN makes, of floats with so many bits.
func floatMaximum(a, b uint32, width int, infinity uint32) uint32 {
	sign := uint32(1) << (width - 1)
	if a&^sign > infinity || b&^sign > infinity {
		return sign - 1
	}
	signed := func(x uint32) int64 { // twice the magnitude, +0 above -0
		if x&sign != 0 {
			return -2*int64(x&^sign) - 1
		}
		return 2 * int64(x)
	}
	if signed(a) > signed(b) {
		return a
	}
	return b
}

func TestMaxima(t *testing.T) {
	l := rules(t)
	half := []uint32{0, 0x8000, 1, 0x8001, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7c01, 0xfe00, 0x7f7f, 0x7f80, 0xff80, 0x7f81, 0xffc0, 0x7fff, 0xffff}
	var letters []uint32
	for _, high := range half {
		for _, low := range half {
			letters = append(letters, high<<16|low)
		}
	}
	var in []uint32
	for _, a := range letters {
		for _, b := range letters {
			in = append(in, a, b)
		}
	}
	pairs := len(in) / 2
	out := make([]uint32, 3*pairs)
	a := arguments{logits: first(in), indices: first(out), rows: int32(pairs)}
	if _, err := l.Launch("maxima", 1, 256, 1, 1, unsafe.Pointer(&a)); err != nil {
		t.Fatal(err)
	}
	for i := range pairs {
		a, b := in[2*i], in[2*i+1]
		want := []uint32{
			floatMaximum(a>>16, b>>16, 16, 0x7f80)<<16 | floatMaximum(a&0xffff, b&0xffff, 16, 0x7f80),
			floatMaximum(a>>16, b>>16, 16, 0x7c00)<<16 | floatMaximum(a&0xffff, b&0xffff, 16, 0x7c00),
			floatMaximum(a, b, 32, 0x7f800000),
		}
		if got := out[3*i:][:3]; !slices.Equal(got, want) {
			t.Fatalf("maxima of %#x and %#x as bfloat16, float16, float32: %#x, want %#x", a, b, got, want)
		}
	}
}

func TestApproximations(t *testing.T) {
	l := rules(t)
	in := make([]float32, 32)
	for i := range in {
		in[i] = float32(math.Ldexp(1+float64(i)/32, i-16))
	}
	out := make([]float32, 64)
	a := arguments{logits: first(in), indices: first(out)}
	if _, err := l.Launch("approximations", 1, 32, 1, 1, unsafe.Pointer(&a)); err != nil {
		t.Fatal(err)
	}
	for i, x := range in {
		log2, exp2 := math.Log2(float64(x)), math.Exp2(float64(x))
		if d := math.Abs(float64(out[2*i]) - log2); d > 1e-5 {
			t.Errorf("approximate_log2(%v) = %v, want %v", x, out[2*i], log2)
		}
		if d := math.Abs(float64(out[2*i+1]) - exp2); d > 1e-5*exp2 && exp2 < math.MaxFloat32 {
			t.Errorf("approximate_exp2(%v) = %v, want %v", x, out[2*i+1], exp2)
		}
	}
}

// A wrong answer or a fault, for every order of threads: so a barrier that is
// missing in a kernel is noticed. With its barriers the kernel is right for every
// order.
func TestMissingBarriersShow(t *testing.T) {
	l := rules(t)
	in := randomWords(rand.New(rand.NewPCG(2, 2)), threads)
	reversed := func(distance int) []uint32 {
		want := make([]uint32, threads)
		for i := range want {
			want[i] = in[i^distance]
		}
		return want
	}
	rotated := func() (want []uint32) {
		for block := range 4 {
			for i := range uint32(threads) {
				want = append(want, uint32((block+3)%4)*threads+i)
			}
		}
		return want
	}
	thrice := reversed(threads - 1)
	for i := range thrice {
		thrice[i] += 3
	}
	for _, test := range []struct {
		whole, broken string
		cluster       int
		want          []uint32
	}{
		{"reversed", "reversed_no_first_barrier", 1, thrice},
		{"reversed", "reversed_no_second_barrier", 1, thrice},
		{"reversed_warps", "reversed_warps_no_barrier", 1, reversed(31)},
		{"rotated", "rotated_no_start", 4, rotated()},
		{"rotated", "rotated_no_end", 4, rotated()},
	} {
		for seed := range uint64(200) {
			out := make([]uint32, len(test.want))
			a := arguments{logits: first(in), indices: first(out)}
			if _, err := l.Launch(test.whole, test.cluster, threads, test.cluster, seed, unsafe.Pointer(&a)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(out, test.want) {
				t.Fatalf("%s, seed %d: a wrong answer", test.whole, seed)
			}
			clear(out)
			_, err := l.Launch(test.broken, test.cluster, threads, test.cluster, seed, unsafe.Pointer(&a))
			if err == nil && slices.Equal(out, test.want) {
				t.Errorf("%s, seed %d: nothing shows that a barrier is missing", test.broken, seed)
			}
		}
	}
}

// Every broken rule is a fault that says what was broken, under any seed.
func TestFaults(t *testing.T) {
	l := rules(t)
	in, out := randomWords(rand.New(rand.NewPCG(3, 3)), 8*threads), make([]uint32, 8*threads)
	a := arguments{logits: first(in), indices: first(out), k: 1000}
	for _, test := range []struct {
		symbol               string
		grid, block, cluster int
		says                 []string
	}{
		{"diverged_ballot", 1, threads, 1, []string{"different places", "ballot (rules.cu:"}},
		{"diverged_operation", 1, threads, 1, []string{"different places", "warp_sum (rules.cu:", "warp_barrier (rules.cu:", "thread 40 "}},
		{"half_a_warp_at_a_barrier", 1, threads, 1, []string{"different places", "block_barrier (rules.cu:", "ballot (rules.cu:"}},
		{"two_barriers", 1, threads, 1, []string{"different barriers", "block_barrier (rules.cu:"}},
		{"ended_lanes_in_sum", 1, threads, 1, []string{"have ended", "warp_sum (rules.cu:"}},
		{"deadlock", 4, threads, 4, []string{"deadlock", "block 2: 960 threads from thread 64 on at block_barrier", "block 0: 64 threads from thread 0 on at cluster_wait"}},
		{"arrives_twice", 2, threads, 2, []string{"arrives twice", "cluster_arrive (rules.cu:"}},
		{"waits_without_arriving", 2, threads, 2, []string{"has not arrived", "cluster_wait (rules.cu:"}},
		{"misaligned_load", 1, threads, 1, []string{"16 bytes", "block 0, thread "}},
		{"writes_past_a_variable", 1, threads, 1, []string{"past the end of a shared variable", "block 0, byte 0"}},
		{"writes_below_a_variable", 1, threads, 1, []string{"below a shared variable"}},
		{"too_much_shared_memory", 1, threads, 1, []string{"49152", "49156"}},
		{"no_such_block", 2, threads, 2, []string{"block 2 of a cluster of 2"}},
		{"not_shared", 2, threads, 2, []string{"not in the shared memory"}},
		{"writes_to_an_ended_block", 4, threads, 4, []string{"had ended", "block 0"}},
		{"deep", 1, threads, 1, []string{"stack", "16384"}},
		{"no_such_kernel", 1, threads, 1, []string{"no such kernel"}},
		{"empty", 1, 33, 1, []string{"1 to 32 threads"}},
		{"empty", 1, 0, 1, []string{"1 to 32 threads"}},
		{"empty", 0, 32, 1, []string{"blocks"}},
		{"empty", 3, 32, 2, []string{"whole clusters"}},
		{"empty", 17, 32, 17, []string{"whole clusters of at most 16"}},
	} {
		for seed := range uint64(20) {
			_, err := l.Launch(test.symbol, test.grid, test.block, test.cluster, seed, unsafe.Pointer(&a))
			if !errors.Is(err, shim.ErrFault) {
				t.Fatalf("%s, seed %d: error %v, want a fault", test.symbol, seed, err)
			}
			for _, part := range append(test.says, test.symbol) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s, seed %d: error %q does not say %q", test.symbol, seed, err, part)
				}
			}
		}
		// The machine is whole after a fault.
		words(t, l, "reversed", 1, 1, 1, in, threads)
	}
	a.k = 10
	if _, err := l.Launch("deep", 1, threads, 1, 1, unsafe.Pointer(&a)); err != nil {
		t.Errorf("ten calls deep: %v", err)
	}
}

func TestEndedThreadsDoNotCount(t *testing.T) {
	l := rules(t)
	for seed := range uint64(50) {
		out := words(t, l, "some_end", 1, 1, seed, nil, threads)
		for thread, got := range out {
			warp, want := thread&^31, uint32(0)
			if thread%3 != 0 {
				want = uint32(1023 - thread)
				for i := warp; i < warp+32; i++ {
					if i%3 != 0 {
						want++
					}
				}
			}
			if got != want {
				t.Fatalf("seed %d, thread %d: %d, want %d", seed, thread, got, want)
			}
		}
	}
}

// A seed decides the order of threads, and seeds differ; so does what is in
// shared memory before it is written.
func TestSeeds(t *testing.T) {
	l := rules(t)
	const blocks = 4
	for _, symbol := range []string{"order", "unwritten"} {
		grid := 1
		if symbol == "order" {
			grid = blocks
		}
		seen := map[uint32]bool{}
		for seed := range uint64(20) {
			out := words(t, l, symbol, grid, 1, seed, nil, grid*threads)
			again := words(t, l, symbol, grid, 1, seed, nil, grid*threads)
			if !slices.Equal(out, again) {
				t.Errorf("%s, seed %d: two launches differ", symbol, seed)
			}
			seen[out[100]] = true
			if symbol == "unwritten" && out[100] == 0 {
				t.Errorf("seed %d: unwritten shared memory is 0", seed)
			}
			if symbol == "order" && slices.Equal(out[:threads], out[threads:2*threads]) {
				t.Errorf("seed %d: two blocks came in the same order", seed)
			}
		}
		if len(seen) < 10 {
			t.Errorf("%s: %d different answers for 20 seeds", symbol, len(seen))
		}
	}
}

// The machine has every operation of the GPU's header, and no more.
func TestSameNames(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, device, _ := strings.Cut(read("../ptx.cuh"), "\n#else\n")
	stand := regexp.MustCompile(`(?s)\nnamespace shim \{.*?\n\}  // namespace shim\n`).ReplaceAllString(read("machine.h"), "")
	declaration := regexp.MustCompile(`(?m)^(?:DEVICE (?:constexpr )?[\w*]+ (\w+)\(|#define ([A-Z]\w*)|constexpr \w+ (\w+)|using (\w+)|struct (\w+) \{)`)
	namesOf := func(text string) (names []string) {
		for _, match := range declaration.FindAllStringSubmatch(text, -1) {
			name := strings.Join(match[1:], "")
			if !strings.HasPrefix(name, "SHIM_") {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	want, got := namesOf(device), namesOf(stand)
	if len(want) < 30 {
		t.Fatalf("%d names in ptx.cuh: not the header that was meant", len(want))
	}
	if !slices.Equal(got, want) {
		t.Errorf("machine.h has\n%v\nptx.cuh has\n%v", got, want)
	}
}

// What a launch costs, and a block of 1,024 threads that meet at six barriers.
func BenchmarkLaunch(b *testing.B) {
	l := shim.Open(b, filepath.Join("cuda", "kernels", "shim", "testdata", "rules.cu"))
	memory := make([]uint32, 4*threads)
	a := arguments{logits: first(memory), indices: first(memory)}
	for _, symbol := range []string{"empty", "reversed"} {
		b.Run(symbol, func(b *testing.B) {
			block := threads
			if symbol == "empty" {
				block = 32
			}
			for i := range b.N {
				if _, err := l.Launch(symbol, 1, block, 1, uint64(i), unsafe.Pointer(&a)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
