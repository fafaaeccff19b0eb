package cuda

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// The tests of this file need a GPU. They are skipped without one, with the
// reason, and fail if AIKF_TEST_REQUIRE names cuda.

// gpu opens the first device.
func gpu(t testing.TB, options OpenOptions) *Device {
	t.Helper()
	d, err := OpenWith(0, options)
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("AIKF_TEST_REQUIRE"), ","), "cuda") {
			t.Fatalf("AIKF_TEST_REQUIRE asks for cuda: %v", err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// The contract, on the device, for every plan and dtype. "chosen" is the whole
// suite; go test -short shortens it.
func TestGPUConformance(t *testing.T) { gpuConformance(t, OpenOptions{}) }

// The same of the kernels that the driver compiles.
func TestGPUConformanceOfPTX(t *testing.T) { gpuConformance(t, OpenOptions{ForcePTX: true}) }

func gpuConformance(t *testing.T, options OpenOptions) {
	d := gpu(t, options)
	p := d.Properties()
	t.Logf("%s, compute capability %d.%d, CUDA %d, %+v", p.Name, p.Major, p.Minor, p.DriverVersion, d.Architecture())
	symbols := selectorSymbols()
	if !options.ForcePTX { // the driver would compile the others now
		symbols = kernelSymbols()
		if err := errors.Join(d.load(symbols...), d.loadPhases()); err != nil {
			t.Fatal(err)
		}
	}
	for _, symbol := range symbols {
		if _, err := d.kernel(symbol); err != nil && (d.Architecture().Cluster() || !strings.HasSuffix(symbol, "_cluster")) {
			t.Errorf("no kernel %s", symbol)
		}
	}
	t.Run("host", func(t *testing.T) { topktest.Run(t, hostBackend(t, d, Options{}, false)) })
	t.Run("chosen", func(t *testing.T) { topktest.Run(t, deviceBackend(t, d, Options{}, false)) })
	for _, name := range plansOf(d)[1:] {
		t.Run(name, func(t *testing.T) {
			topktest.Run(t, deviceBackend(t, d, forced(name), false))
		})
		for _, chunks := range []int{2, 4, 8, 16} {
			if name == PlanCluster && chunks <= d.Architecture().ClusterBlocks || name == PlanTwoStage && chunks < 16 {
				t.Run(fmt.Sprintf("%s of %d", name, chunks), func(t *testing.T) {
					topktest.Run(t, deviceBackend(t, d, Options{Plan: &Plan{Name: name, Chunks: chunks}}, true))
				})
			}
		}
		for _, groups := range groupCounts {
			t.Run(fmt.Sprintf("%s with %d groups", name, groups), func(t *testing.T) {
				topktest.Run(t, deviceBackend(t, d, Options{Plan: &Plan{Name: name, Groups: groups}}, true))
			})
		}
	}
}

func TestGPUConcurrentStreams(t *testing.T) {
	testConcurrentStreams(t, gpu(t, OpenOptions{}), 16, 500)
}

func TestGPUGraph(t *testing.T) { testGraph(t, gpu(t, OpenOptions{}), 10000) }

func TestGPUProbes(t *testing.T) { testProbes(t, gpu(t, OpenOptions{})) }

func TestGPUClamps(t *testing.T) { testClamps(t, gpu(t, OpenOptions{})) }

// Every one of 1,000 runs gives the same bits, whatever order atomics come in.
func TestGPUDeterminism(t *testing.T) {
	d := gpu(t, OpenOptions{})
	for _, name := range plansOf(d) {
		t.Run("plan "+name, func(t *testing.T) {
			for _, kind := range topktest.Rows() {
				testDeterminism(t, d, kind, name, 1000)
			}
		})
	}
}

// testDeterminism runs one call many times, into results of its own each.
func testDeterminism(t *testing.T, d *Device, kind topktest.RowKind, plan string, runs int) {
	const rows, vocab, k = 2, 50257, 100
	logits := topktest.Convert[topk.BFloat16](kind.Make(rand.New(rand.NewPCG(3, 4)), rows*vocab))
	s, err := d.NewSelector(forced(plan))
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory(t, d)
	shape := Shape{Rows: rows, Vocab: vocab, K: k}
	from := Logits{upload(m, "logits", 0, logits), BFloat16}
	bytes, err := s.WorkspaceBytes(shape, BFloat16)
	if err != nil {
		t.Fatal(err)
	}
	values, indices := m.buffer("values", runs*rows*k*2), m.buffer("indices", runs*rows*k*4)
	workspace := m.buffer("workspace", bytes)
	if m.err != nil {
		t.Fatal(m.err)
	}
	for i := range runs {
		to := Result{Values: values.Pointer() + Pointer(i*rows*k*2), Indices: indices.Pointer() + Pointer(i*rows*k*4)}
		if err := s.SelectDevice(m.stream, from, shape, to, Workspace{workspace.Pointer(), bytes}); err != nil {
			t.Fatal(err)
		}
	}
	got := topk.Result[topk.BFloat16]{Values: download[topk.BFloat16](m, "values", runs*rows*k), Indices: download[int32](m, "indices", runs*rows*k)}
	if m.err != nil {
		t.Fatal(m.err)
	}
	want := topk.NewResult[topk.BFloat16](rows, k)
	if err := topk.Select(want, logits, topk.Shape{Rows: rows, Vocab: vocab, K: k}); err != nil {
		t.Fatal(err)
	}
	for i := range runs {
		run := topk.Result[topk.BFloat16]{Values: got.Values[i*rows*k : (i+1)*rows*k], Indices: got.Indices[i*rows*k : (i+1)*rows*k]}
		if err := sameResult(run, want); err != nil {
			t.Fatalf("rows of kind %s, run %d: %v", kind.Name, i, err)
		}
	}
	for _, b := range m.buffers {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// More rows than a grid's second dimension can have.
func TestGPUManyRows(t *testing.T) {
	d := gpu(t, OpenOptions{})
	rng := rand.New(rand.NewPCG(11, 1))
	logits := topktest.Convert[topk.BFloat16](topktest.Random(rng, 70001*300))
	for _, k := range []int{1, 50, 200, 300} {
		for _, name := range plansOf(d) {
			compareWithCPU(t, d, name, logits, topk.Shape{Rows: 70001, Vocab: 300, K: k})
		}
	}
}

// The largest vocabularies, of every dtype.
func TestGPULargeVocab(t *testing.T) {
	d := gpu(t, OpenOptions{})
	rng := rand.New(rand.NewPCG(12, 1))
	for _, kind := range []topktest.RowKind{{Name: "random", Make: topktest.Random}, {Name: "ascending", Make: topktest.Ascending}, {Name: "two_values", Make: topktest.TwoValues}} {
		row := kind.Make(rng, 2<<20)
		bfloat16, float16 := topktest.Convert[topk.BFloat16](row), topktest.Convert[topk.Float16](row)
		for _, vocab := range []int{151936, 262144, 1<<20 - 1, 1 << 20} {
			for _, k := range []int{1, 50, 2048, 2049, 100000} {
				for _, name := range plansOf(d) {
					shape := topk.Shape{Rows: 2, Vocab: vocab, K: k}
					compareWithCPU(t, d, name, row, shape)
					compareWithCPU(t, d, name, bfloat16, shape)
					compareWithCPU(t, d, name, float16, shape)
				}
			}
		}
	}
}

// compareWithCPU compares Select on the device, by the plan with that name, with
// package topk. A shape that the plan does not fit is left out.
func compareWithCPU[T topk.Float](t *testing.T, d *Device, plan string, logits []T, shape topk.Shape) {
	t.Helper()
	s, err := d.NewSelector(forced(plan))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, want := topk.NewResult[T](shape.Rows, shape.K), topk.NewResult[T](shape.Rows, shape.K)
	err = Select(s, got, logits, shape)
	if plan != "" && errors.Is(err, ErrUnsupported) {
		return
	}
	if err := errors.Join(err, topk.Select(want, logits, shape)); err != nil {
		t.Fatalf("plan %q, %+v: %v", plan, shape, err)
	}
	if err := sameResult(got, want); err != nil {
		t.Errorf("plan %q, %+v: %v", plan, shape, err)
	}
}

// Rows that start past 2^32 elements: 8.6 GB of bfloat16.
func TestGPULargeOffsets(t *testing.T) {
	d := gpu(t, OpenOptions{})
	const rows, vocab, k, stride = 3, 50257, 50, 1<<31 + 8
	rng := rand.New(rand.NewPCG(13, 1))
	bytes := 2 * ((rows-1)*stride + vocab)
	if d.Properties().MemoryBytes < int64(bytes)+1<<30 {
		t.Skipf("%s has %d bytes of memory, want %d", d.Properties().Name, d.Properties().MemoryBytes, bytes)
	}
	m := newMemory(t, d)
	b, err := d.Allocate(bytes)
	if err != nil {
		t.Fatal(err)
	}
	want, shape := topk.NewResult[topk.BFloat16](rows, k), topk.Row(vocab, k)
	for i := range rows {
		row := topktest.Convert[topk.BFloat16](topktest.Random(rng, vocab))
		part := topk.Result[topk.BFloat16]{Values: want.Values[i*k:], Indices: want.Indices[i*k:]}
		if err := errors.Join(CopyToDevice(m.stream, b, 2*i*stride, row), topk.Select(part, row, shape)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range plansOf(d) {
		s, err := d.NewSelector(forced(name))
		if err != nil {
			t.Fatal(err)
		}
		on := Shape{Rows: rows, Vocab: vocab, K: k, Stride: stride}
		need, err := s.WorkspaceBytes(on, BFloat16)
		if err != nil {
			t.Fatal(err)
		}
		to := Result{Values: m.buffer("values", 2*rows*k).Pointer(), Indices: m.buffer("indices", 4*rows*k).Pointer()}
		err = s.SelectDevice(m.stream, Logits{b.Pointer(), BFloat16}, on, to, Workspace{m.buffer("workspace", need).Pointer(), need})
		got := topk.Result[topk.BFloat16]{Values: download[topk.BFloat16](m, "values", rows*k), Indices: download[int32](m, "indices", rows*k)}
		if err := errors.Join(err, m.err); err != nil {
			t.Fatalf("plan %q: %v", name, err)
		}
		if err := sameResult(got, want); err != nil {
			t.Errorf("plan %q: %v", name, err)
		}
	}
}

// The driver takes the context of a launch from the stream, so that a launch is
// one call.
func TestGPULaunchNeedsNoContext(t *testing.T) {
	d := gpu(t, OpenOptions{})
	_, stream, call := smallCall(t, d)
	if err := errors.Join(call(), stream.Synchronize()); err != nil {
		t.Fatal(err)
	}
	if d.bindsContext.Load() {
		t.Error("this driver takes the context from the thread: a launch is three calls")
	}
}

func TestGPUNoAllocations(t *testing.T) {
	d := gpu(t, OpenOptions{})
	_, stream, call := smallCall(t, d)
	var err error
	for range 3 {
		err = errors.Join(err, call())
	}
	if n := testing.AllocsPerRun(100, func() { err = errors.Join(err, call()) }); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
	if err := errors.Join(err, stream.Synchronize()); err != nil {
		t.Error(err)
	}
}

// A stream or buffer of another GPU is refused.
func TestGPUOtherDevice(t *testing.T) {
	d0 := gpu(t, OpenOptions{})
	if n, err := DeviceCount(); n < 2 {
		t.Skipf("%d devices, want 2, %v", n, err)
	}
	d1, err := Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer d1.Close()
	s, stream0, call := smallCall(t, d0)
	_, stream1, _ := smallCall(t, d1)
	b1, err := d1.Allocate(1 << 16)
	if err := errors.Join(err, call()); err != nil {
		t.Fatal(err)
	}
	shape, p := Shape{Rows: 1, Vocab: 100, K: 5}, b1.Pointer()
	if err := s.SelectDevice(stream0, Logits{p, Float32}, shape, Result{Values: p, Indices: p}, Workspace{}); !errors.Is(err, ErrDevice) {
		t.Errorf("a buffer of device 1: %v", err)
	}
	if err := s.SelectDevice(stream1, Logits{p, Float32}, shape, Result{Values: p, Indices: p}, Workspace{}); !errors.Is(err, ErrDevice) {
		t.Errorf("a stream of device 1: %v", err)
	}
	if _, err := d0.ForeignStream(stream1.Handle()); !errors.Is(err, ErrDevice) {
		t.Errorf("a foreign stream of device 1: %v", err)
	}
}
