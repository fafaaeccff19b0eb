//go:build linux && (amd64 || arm64)

package cuda

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda/internal/fakedriver"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// What is wrong with a call is an error with its numbers, and nothing is
// launched.
func TestBadCalls(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	s, stream, _ := smallCall(t, d)
	b, err := d.Allocate(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	p := b.Pointer()
	good := Shape{Rows: 2, Vocab: 1000, K: 50}
	to := Result{Values: p + 8192, Indices: p + 16384}
	with := func(change func(s *Shape)) Shape {
		shape := good
		change(&shape)
		return shape
	}
	launches := library.Calls("cuLaunchKernelEx")
	for _, bad := range []struct {
		name     string
		logits   Logits
		shape    Shape
		to       Result
		sentinel error
		words    []string
	}{
		{"rows negative", Logits{p, BFloat16}, with(func(s *Shape) { s.Rows = -3 }), to, topk.ErrShape, []string{"rows = -3"}},
		{"vocab negative", Logits{p, BFloat16}, with(func(s *Shape) { s.Vocab = -7 }), to, topk.ErrShape, []string{"-7"}},
		{"k negative", Logits{p, BFloat16}, with(func(s *Shape) { s.K = -1 }), to, topk.ErrShape, []string{"-1"}},
		{"k past vocab", Logits{p, BFloat16}, with(func(s *Shape) { s.K = 1001 }), to, topk.ErrShape, []string{"1001", "1000"}},
		{"stride", Logits{p, BFloat16}, with(func(s *Shape) { s.Stride = 999 }), to, topk.ErrShape, []string{"999", "1000"}},
		{"overflow", Logits{p, BFloat16}, with(func(s *Shape) { s.Stride = math.MaxInt / 2; s.Rows = 5 }), to, topk.ErrShape, []string{"overflows"}},
		{"too many rows", Logits{p, BFloat16}, with(func(s *Shape) { s.Rows = math.MaxInt32 + 1; s.Expand = true }), to, ErrUnsupported, []string{"2147483648"}},
		{"dtype", Logits{p, 3}, good, to, topk.ErrDType, []string{"dtype 3"}},
		{"no logits", Logits{0, BFloat16}, good, to, topk.ErrShape, []string{"logits"}},
		{"no values", Logits{p, BFloat16}, good, Result{Indices: p}, topk.ErrShape, []string{"values"}},
		{"no indices", Logits{p, BFloat16}, good, Result{Values: p}, topk.ErrShape, []string{"indices"}},
		{"odd logits", Logits{p + 1, BFloat16}, good, to, topk.ErrShape, []string{"aligned to 2"}},
		{"odd float32", Logits{p + 2, Float32}, good, to, topk.ErrShape, []string{"aligned to 4"}},
		{"odd indices", Logits{p, BFloat16}, good, Result{Values: p, Indices: p + 4, Index64: true}, topk.ErrShape, []string{"aligned to 8"}},
		{"odd row k", Logits{p, BFloat16}, with(func(s *Shape) { s.RowK = p + 2 }), to, topk.ErrShape, []string{"row k", "aligned to 4"}},
		{"odd lengths", Logits{p, BFloat16}, with(func(s *Shape) { s.RowLengths = p + 2 }), to, topk.ErrShape, []string{"row lengths"}},
		{"result stride", Logits{p, BFloat16}, good, Result{Values: p, Indices: p, Stride: 49}, topk.ErrShape, []string{"49", "50"}},
		{"result overflow", Logits{p, BFloat16}, good, Result{Values: p, Indices: p, Stride: math.MaxInt}, topk.ErrShape, []string{"overflows"}},
		{"no workspace", Logits{p, BFloat16}, with(func(s *Shape) { s.Vocab = 3000; s.K = 2049 }), to, ErrWorkspace, []string{"65536 bytes", "got 0"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			wantError(t, s.SelectDevice(stream, bad.logits, bad.shape, bad.to, Workspace{}), bad.sentinel, bad.words...)
		})
	}
	wide := Shape{Rows: 2, Vocab: 3000, K: 2049}
	bytes, err := s.WorkspaceBytes(wide, Float32)
	if err != nil || bytes != 2*4096*8 {
		t.Errorf("workspace of %d bytes, %v", bytes, err)
	}
	wantError(t, s.SelectDevice(stream, Logits{p, Float32}, wide, to, Workspace{p, bytes - 1}), ErrWorkspace, "65536", "65535")
	wantError(t, s.SelectDevice(stream, Logits{p, Float32}, wide, to, Workspace{p + 4, bytes}), topk.ErrShape, "workspace", "aligned")
	wantError(t, s.SelectDevice(nil, Logits{p, Float32}, good, to, Workspace{}), ErrClosed, "stream")
	wantError(t, CopyToDevice(stream, b, 1<<20-3, []int32{1}), topk.ErrShape, "4 bytes", "1048573")
	wantError(t, CopyToHost(stream, []int32{1}, b, -1), topk.ErrShape, "-1")
	_, err = d.Allocate(-1)
	wantError(t, err, topk.ErrShape, "-1")
	for _, o := range []Options{
		{Plan: &Plan{Name: "fastest"}}, {Plan: &Plan{Groups: 100}}, {Plan: &Plan{Chunks: -1}}, {TargetCandidates: -1},
	} {
		_, err := d.NewSelector(o)
		wantError(t, err, ErrUnsupported)
	}
	if n := library.Calls("cuLaunchKernelEx") - launches; n != 0 {
		t.Errorf("%d launches by calls that were refused", n)
	}
}

// Without rows or results nothing is launched, and no memory is asked for.
func TestNoWork(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	s, stream, _ := smallCall(t, d)
	for _, shape := range []Shape{{}, {Rows: 5, Vocab: 100}, {Vocab: 100, K: 10}, {Rows: 5}} {
		if err := s.SelectDevice(stream, Logits{}, shape, Result{}, Workspace{}); err != nil {
			t.Errorf("%+v: %v", shape, err)
		}
		if err := d.ReadFloor(stream, Logits{}, Shape{Rows: shape.Rows}, 0); err != nil {
			t.Errorf("%+v: %v", shape, err)
		}
	}
	if n := library.Calls("cuLaunchKernelEx"); n != 0 {
		t.Errorf("%d launches", n)
	}
}

// Programmatic dependent launch needs compute capability 9.0.
func TestDependent(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	s, err := d.NewSelector(Options{Dependent: true})
	if err != nil {
		t.Fatal(err)
	}
	b, stream := bufferAndStream(t, d, 4096)
	p := b.Pointer()
	if err := s.SelectDevice(stream, Logits{p, Float32}, Shape{Rows: 1, Vocab: 10, K: 2}, Result{Values: p + 256, Indices: p + 512}, Workspace{}); err != nil {
		t.Error(err)
	}
	library.Set("major", 8)
	_, err = open(t, 0).NewSelector(Options{Dependent: true})
	wantError(t, err, ErrUnsupported, "8.0", "9.0")
}

func bufferAndStream(t testing.TB, d *Device, bytes int) (*Buffer, *Stream) {
	t.Helper()
	b, err := d.Allocate(bytes)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	return b, stream
}

// A call allocates nothing, whatever the stream, also for the host's slices.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and lets a sync.Pool forget")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would empty the pools
	library := standIn(t)
	library.Set("discard", 1)
	d := open(t, 0)
	_, _, call := smallCall(t, d)
	shapes, stream, _ := smallCall(t, d)
	b, err := d.Allocate(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	p, vocab := b.Pointer(), 1000
	defaultStream, err := d.ForeignStream(0)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"one shape": call,
		"default stream": func() error {
			return shapes.SelectDevice(defaultStream, Logits{p, Float32}, Shape{Rows: 2, Vocab: 500, K: 5}, Result{Values: p, Indices: p}, Workspace{})
		},
		"shapes in turns": func() error {
			vocab ^= 1
			return shapes.SelectDevice(stream, Logits{p, Float32}, Shape{Rows: 2, Vocab: vocab, K: 5}, Result{Values: p, Indices: p}, Workspace{})
		},
	} {
		for range 3 {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(100, func() { err = errors.Join(err, call()) }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations a call, %v", name, n, err)
		}
	}
}

// A call is repeated without a second look only if it is like the last one, and
// nothing that it was right by has changed since.
func TestRepeatedCalls(t *testing.T) {
	type operands struct {
		stream    *Stream
		logits    Logits
		shape     Shape
		result    Result
		workspace Workspace
	}
	var library *fakedriver.Library
	var d, twin *Device
	var s *Selector
	var b, far *Buffer
	for _, next := range []struct {
		name     string
		change   func(o *operands)
		sentinel error // nil: the call is right
	}{
		{"the same", func(o *operands) {}, nil},
		{"addresses nearby", func(o *operands) { o.logits.Pointer += 2; o.result.Values += 6; o.result.Indices += 12 }, nil},
		{"addresses far away", func(o *operands) { o.result.Values = far.Pointer() }, nil},
		{"row k", func(o *operands) { o.shape.RowK = b.Pointer() }, nil},
		{"workspace", func(o *operands) { o.workspace = Workspace{b.Pointer(), 8} }, nil},
		{"odd logits", func(o *operands) { o.logits.Pointer++ }, topk.ErrShape},
		{"odd values", func(o *operands) { o.result.Values++ }, topk.ErrShape},
		{"odd indices", func(o *operands) { o.result.Indices += 2 }, topk.ErrShape},
		{"odd row k", func(o *operands) { o.shape.RowK = b.Pointer() + 1 }, topk.ErrShape},
		{"odd lengths", func(o *operands) { o.shape.RowLengths = b.Pointer() + 1 }, topk.ErrShape},
		{"no logits", func(o *operands) { o.logits.Pointer = 0 }, topk.ErrShape},
		{"host memory", func(o *operands) { o.logits.Pointer = 1 << 40 }, ErrUnsupported},
		{"stride", func(o *operands) { o.shape.Stride = 999 }, topk.ErrShape},
		{"k", func(o *operands) { o.shape.K = 1001 }, topk.ErrShape},
		{"rows", func(o *operands) { o.shape.Rows = -1 }, topk.ErrShape},
		{"dtype", func(o *operands) { o.logits.DType = 9 }, topk.ErrDType},
		{"wide elements", func(o *operands) { o.logits.DType = Float32; o.logits.Pointer += 2 }, topk.ErrShape},
		{"wide indices", func(o *operands) { o.result.Index64 = true; o.result.Indices += 4 }, topk.ErrShape},
		{"result stride", func(o *operands) { o.result.Stride = 49 }, topk.ErrShape},
		{"no stream", func(o *operands) { o.stream = nil }, ErrClosed},
		{"stream closed", func(o *operands) { o.stream.Close() }, ErrClosed},
		{"selector closed", func(o *operands) { s.Close() }, ErrClosed},
		{"device closed", func(o *operands) { d.Close() }, ErrClosed},
		{"memory freed", func(o *operands) { b.Close() }, ErrUnsupported},
		{"fault", func(o *operands) {
			library.Fail("kernel", 1, fakedriver.IllegalAddress)
			o.stream.Synchronize()
		}, ErrFault},
		{"context of the thread", func(o *operands) { library.Set("bind_context", 1) }, nil},
	} {
		t.Run(next.name, func(t *testing.T) {
			library = standIn(t)
			d = open(t, 0)
			var stream *Stream
			b, stream = bufferAndStream(t, d, 1<<16)
			far, _ = bufferAndStream(t, d, 1<<16)
			var err error
			if s, err = d.NewSelector(Options{}); err != nil {
				t.Fatal(err)
			}
			p := b.Pointer()
			good := operands{stream, Logits{p, BFloat16}, Shape{Rows: 2, Vocab: 1000, K: 50}, Result{Values: p + 8192, Indices: p + 16384}, Workspace{}}
			call := func(o operands) error { return s.SelectDevice(o.stream, o.logits, o.shape, o.result, o.workspace) }
			for range 2 {
				if err := call(good); err != nil {
					t.Fatal(err)
				}
			}
			if s.first.epoch == 0 {
				t.Fatal("the call is not remembered")
			}
			launches := library.Calls("cuLaunchKernelEx")
			other := good
			next.change(&other)
			err = call(other)
			if n := library.Calls("cuLaunchKernelEx") - launches; (next.sentinel == nil) != (n > 0) {
				t.Errorf("%d launches", n)
			}
			if next.sentinel != nil {
				wantError(t, err, next.sentinel)
			} else if err := errors.Join(err, call(good), stream.Synchronize()); err != nil {
				t.Error(err)
			}
		})
	}

	t.Run("stream of the same device, opened twice", func(t *testing.T) {
		standIn(t)
		d, twin = open(t, 0), open(t, 0)
		s, _, _ := smallCall(t, d)
		b, _ := bufferAndStream(t, d, 1<<16)
		_, stream := bufferAndStream(t, twin, 1<<16)
		p := b.Pointer()
		call := func() error {
			return s.SelectDevice(stream, Logits{p, Float32}, Shape{Rows: 1, Vocab: 100, K: 5}, Result{Values: p, Indices: p}, Workspace{})
		}
		if err := errors.Join(call(), call(), stream.Close()); err != nil {
			t.Fatal(err)
		}
		wantError(t, call(), ErrClosed)
	})

	t.Run("made by no device", func(t *testing.T) {
		var s Selector
		wantError(t, s.SelectDevice(nil, Logits{}, Shape{}, Result{}, Workspace{}), ErrClosed)
	})

	t.Run("the driver refuses", func(t *testing.T) {
		library := standIn(t)
		s, _, call := smallCall(t, open(t, 0))
		if err := errors.Join(call(), call()); err != nil || s.first.epoch == 0 {
			t.Fatal(err)
		}
		library.Fail("cuLaunchKernelEx", 1, fakedriver.LaunchOutOfLimit)
		wantCall(t, call(), "cuLaunchKernelEx", fakedriver.LaunchOutOfLimit)
		if err := call(); err != nil {
			t.Error(err)
		}
	})
}

// The raw launch, from C, is the one that SelectDevice makes.
func TestRawLaunch(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	testRawLaunch(t, d)
	if n := library.Calls("cuLaunchKernelEx"); n != 1 {
		t.Errorf("%d launches", n)
	}
}

// Many goroutines, streams and shapes share one Selector.
func TestConcurrentStreams(t *testing.T) {
	standIn(t)
	testConcurrentStreams(t, open(t, 0), 8, 40)
}

// A graph selects from what is in memory when it is launched.
func TestGraph(t *testing.T) {
	standIn(t)
	testGraph(t, open(t, 0), 200)
}

// A capture that fails leaves the stream as it was.
func TestCaptureFails(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	_, stream, call := smallCall(t, d)
	refused := errors.New("refused")
	if _, err := stream.Capture(func() error { return errors.Join(call(), refused) }); !errors.Is(err, refused) {
		t.Errorf("error %v, want that of record", err)
	}
	_, err := stream.Capture(func() error { return errors.Join(call(), stream.Synchronize()) })
	wantCall(t, err, "cuStreamSynchronize", 900)
	if err := errors.Join(call(), stream.Synchronize()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	graph, err := stream.Capture(call)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(graph.Launch(stream), stream.Synchronize()); err != nil {
		t.Error(err)
	}
}

// The probes read and stamp what they say.
func TestProbes(t *testing.T) {
	standIn(t)
	testProbes(t, open(t, 0))
}

// Probes refuse more blocks, or times, than a launch can say.
func TestLargeProbes(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	_, stream, _ := smallCall(t, d)
	b, err := d.Allocate(4096)
	if err != nil {
		t.Fatal(err)
	}
	p, launches := b.Pointer(), library.Calls("cuLaunchKernelEx")
	const many = 1<<32 + 1
	for name, err := range map[string]error{
		"rows":   d.ReadFloor(stream, Logits{p, Float32}, Shape{Rows: many, Vocab: 4, Expand: true}, p),
		"masses": d.HashMasses(stream, 1, many, p),
		"draws":  d.HashDraws(stream, 1, many, p),
		"blocks": d.WeighLogits(stream, p, 512, many, p),
		"times":  d.WeighLogits(stream, p, 1<<32, 1, p),
	} {
		t.Run(name, func(t *testing.T) { wantError(t, err, ErrUnsupported, "429496729") })
	}
	if n := library.Calls("cuLaunchKernelEx") - launches; n != 0 {
		t.Errorf("%d launches by calls that were refused", n)
	}
}

// What is out of range in device memory is clamped, whatever the plan.
func TestClamps(t *testing.T) {
	standIn(t)
	testClamps(t, open(t, 0))
}

// Parts of a batch that is larger than what goes to the device at a time.
func TestBatchInParts(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	s, err := d.NewSelector(Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.partBytes = 500
	rng := rand.New(rand.NewPCG(1, 2))
	for _, shape := range []topk.Shape{
		{Rows: 7, Vocab: 10, K: 3, Stride: 50, RowK: []int32{1, 2, 3, 0, 3, 2, 1}},
		{Rows: 21, Vocab: 10, K: 10, RowLengths: []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		{Rows: 3, Vocab: 1000, K: 7},
		{Rows: 300, Vocab: 40, K: 7, Expand: true},
	} {
		answers := topktest.NewAnswers(topktest.Random(rng, 3000))
		if err := answers.CheckSelect(&suiteSelector[float32]{ask: Select[float32], forced: s}, shape, false); err != nil {
			t.Errorf("%+v: %v", shape, err)
		}
	}
}

// Memory that could not be given back, when a larger call came, is not used by the next.
func TestHostMemoryThatIsNotGivenBack(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	s, err := d.NewSelector(Options{})
	if err != nil {
		t.Fatal(err)
	}
	answers := topktest.NewAnswers(topktest.Random(rand.New(rand.NewPCG(1, 3)), 3000))
	ask := func(vocab int) error {
		return answers.CheckSelect(&suiteSelector[float32]{ask: Select[float32], forced: s}, topk.Row(vocab, 5), false)
	}
	if err := ask(100); err != nil {
		t.Fatal(err)
	}
	library.Fail("cuMemFree_v2", 1, fakedriver.OutOfMemory)
	wantCall(t, ask(3000), "cuMemFree_v2", fakedriver.OutOfMemory)
	allocations := library.Calls("cuMemAlloc_v2")
	if err := ask(100); err != nil {
		t.Error(err)
	}
	if n := library.Calls("cuMemAlloc_v2") - allocations; n != 1 {
		t.Errorf("%d allocations behind a buffer that was closed, want 1", n)
	}
}

// A device that has seen many shapes still answers, and keeps few plans.
func TestManyShapes(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	s, _, _ := smallCall(t, d)
	for vocab := 1; vocab < 3*mostPlans; vocab++ {
		if _, err := s.Plan(Shape{Rows: 1, Vocab: vocab, K: 1}, Float32); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(*s.plans.Load()); n == 0 || n > mostPlans+1 {
		t.Errorf("%d plans are kept", n)
	}
}

// What becomes of a plan that a caller was given changes no call.
func TestPlanIsTheCallers(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	s, stream, call := smallCall(t, d)
	plan, err := s.Plan(Shape{Rows: 2, Vocab: 1000, K: 50}, BFloat16)
	if err != nil {
		t.Fatal(err)
	}
	want := plan.Kernels[0]
	plan.Kernels[0] = Launch{Symbol: "none", Grid: 1, Block: 1, Cluster: 1}
	if err := errors.Join(call(), stream.Synchronize()); err != nil {
		t.Error(err)
	}
	if again, err := s.Plan(Shape{Rows: 2, Vocab: 1000, K: 50}, BFloat16); err != nil || again.Kernels[0] != want {
		t.Errorf("the kernel is %+v, %v, want %+v", again.Kernels, err, want)
	}
}

// BenchmarkLaunch compares SelectDevice with the same launch from C, by a driver
// whose launches do nothing: the difference is what the host path costs.
func BenchmarkLaunch(b *testing.B) {
	library := standIn(b)
	library.Set("discard", 1)
	d := open(b, 0)
	s, _, call := smallCall(b, d)
	if err := call(); err != nil {
		b.Fatal(err)
	}
	b.Run("C", func(b *testing.B) {
		_, config, kernel, parameters := s.first.launch.Raw()
		ns := library.TimeLaunches(max(b.N, 1000), config, kernel, parameters)
		b.ReportMetric(ns, "ns/op")
	})
	b.Run("SelectDevice", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("SelectDevice/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("driver", func(b *testing.B) {
		for b.Loop() {
			if err := d.library.Launch(&s.first.launch); err != nil {
				b.Fatal(err)
			}
		}
	})
	foreign, err := d.ForeignStream(0)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("default stream", func(b *testing.B) {
		buffer, err := d.Allocate(1 << 16)
		if err != nil {
			b.Fatal(err)
		}
		p := buffer.Pointer()
		b.ReportAllocs()
		for b.Loop() {
			if err := s.SelectDevice(foreign, Logits{p, BFloat16}, Shape{Rows: 2, Vocab: 1000, K: 50}, Result{Values: p, Indices: p}, Workspace{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
