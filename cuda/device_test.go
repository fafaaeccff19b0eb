package cuda

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	_ "github.com/ai-kernel-factory/aikf/cuda/kernels/phases" // for SelectPhases and SamplePhases
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// The tests of this file run on any device, that of the test driver or a GPU.

// testConcurrentStreams has goroutines with a stream each share one Selector.
func testConcurrentStreams(t *testing.T, d *Device, goroutines, rounds int) {
	s, err := d.NewSelector(Options{})
	if err != nil {
		t.Fatal(err)
	}
	errs := make([]error, goroutines)
	var running sync.WaitGroup
	for i := range goroutines {
		running.Go(func() { errs[i] = selectInTurns(d, s, uint64(i), rounds) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// selectInTurns puts many calls into one stream before it looks at the answers.
func selectInTurns(d *Device, s *Selector, seed uint64, rounds int) error {
	const rows, vocab, most = 3, 5000, 60
	rng := rand.New(rand.NewPCG(seed, 9))
	stream, err := d.NewStream()
	if err != nil {
		return err
	}
	defer stream.Close()
	m := &memory{device: d, stream: stream, buffers: map[string]*Buffer{}}
	logits := topktest.Convert[topk.BFloat16](topktest.Random(rng, rows*vocab))
	from := Logits{upload(m, "logits", 0, logits), BFloat16}
	values, indices := m.buffer("values", 2*rows*most*rounds), m.buffer("indices", 4*rows*most*rounds)
	if m.err != nil {
		return m.err
	}
	answers := topktest.NewAnswers(logits)
	shapes := make([]topk.Shape, rounds)
	for i := range shapes {
		shapes[i] = topk.Shape{Rows: rows, Vocab: vocab - i%3, K: 1 + (int(seed)+7*i)%most, Stride: vocab}
		on := Shape{Rows: rows, Vocab: shapes[i].Vocab, K: shapes[i].K, Stride: vocab}
		at := Pointer(rows * most * i)
		if err := s.SelectDevice(stream, from, on, Result{Values: values.Pointer() + 2*at, Indices: indices.Pointer() + 4*at}, Workspace{}); err != nil {
			return err
		}
	}
	gotValues := download[topk.BFloat16](m, "values", rows*most*rounds)
	gotIndices := download[int32](m, "indices", rows*most*rounds)
	if m.err != nil {
		return m.err
	}
	for i, shape := range shapes {
		got := topk.Result[topk.BFloat16]{Values: gotValues[rows*most*i:], Indices: gotIndices[rows*most*i:]}
		if err := answers.Compare(got, shape, false); err != nil {
			return fmt.Errorf("stream %d, call %d, %+v: %w", seed, i, shape, err)
		}
	}
	return nil
}

// testGraph captures a call, and launches it again and again on other logits.
func testGraph(t *testing.T, d *Device, launches int) {
	const rows, vocab, k, batches = 2, 20000, 50, 16
	rng := rand.New(rand.NewPCG(5, 6))
	m := newMemory(t, d)
	stream := m.stream
	makers := topktest.Rows()
	var logits [batches][]topk.BFloat16
	var want [batches]topk.Result[topk.BFloat16]
	shape := topk.Shape{Rows: rows, Vocab: vocab, K: k}
	for i := range batches {
		logits[i] = topktest.Convert[topk.BFloat16](makers[i%len(makers)].Make(rng, rows*vocab))
		want[i] = topk.NewResult[topk.BFloat16](rows, k)
		if err := topk.Select(want[i], logits[i], shape); err != nil {
			t.Fatal(err)
		}
	}
	from := Logits{upload(m, "logits", 0, logits[0]), BFloat16}
	to := Result{Values: m.buffer("values", 2*rows*k).Pointer(), Indices: m.buffer("indices", 4*rows*k).Pointer()}
	s, err := d.NewSelector(Options{})
	if err = errors.Join(m.err, err); err != nil {
		t.Fatal(err)
	}
	on := Shape{Rows: rows, Vocab: vocab, K: k}
	if err := s.SelectDevice(stream, from, on, to, Workspace{}); err != nil {
		t.Fatal(err)
	}
	graph, err := stream.Capture(func() error { return s.SelectDevice(stream, from, on, to, Workspace{}) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range launches {
		b := i % batches
		upload(m, "logits", 0, logits[b])
		if err := graph.Launch(stream); err != nil {
			t.Fatalf("launch %d: %v", i, err)
		}
		got := topk.Result[topk.BFloat16]{Values: download[topk.BFloat16](m, "values", rows*k), Indices: download[int32](m, "indices", rows*k)}
		if m.err != nil {
			t.Fatalf("launch %d: %v", i, m.err)
		}
		if err := sameResult(got, want[b]); err != nil {
			t.Fatalf("launch %d: %v", i, err)
		}
	}
	if err := graph.Close(); err != nil {
		t.Error(err)
	}
}

// sameResult compares bits.
func sameResult[T topk.Float](got, want topk.Result[T]) error {
	gotBits, wantBits := bytesOf(got.Values), bytesOf(want.Values)
	if len(gotBits) != len(wantBits) || len(got.Indices) != len(want.Indices) {
		return fmt.Errorf("%d values and %d indices, want %d and %d", len(got.Values), len(got.Indices), len(want.Values), len(want.Indices))
	}
	for i, index := range want.Indices {
		if got.Indices[i] != index {
			return fmt.Errorf("entry %d: index %d, want %d", i, got.Indices[i], index)
		}
	}
	for i := range wantBits {
		if gotBits[i] != wantBits[i] {
			return fmt.Errorf("byte %d of the values: %#x, want %#x", i, gotBits[i], wantBits[i])
		}
	}
	return nil
}

func bytesOf[T topk.Float](values []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*int(unsafe.Sizeof(*new(T))))
}

// testProbes checks what the kernels for benchmarks write.
func testProbes(t *testing.T, d *Device) {
	const rows, vocab, k = 3, 10001, 20
	rng := rand.New(rand.NewPCG(7, 8))
	m := newMemory(t, d)
	stream := m.stream
	logits := topktest.Random(rng, rows*vocab)
	from := Logits{upload(m, "logits", 0, logits), Float32}
	values, indices := m.buffer("values", 4*rows*k), m.buffer("indices", 4*rows*k)
	stamps := m.buffer("stamps", rows*int(unsafe.Sizeof(Phases{})))
	start, err1 := d.NewEvent()
	end, err2 := d.NewEvent()
	s, err3 := d.NewSelector(Options{})
	if err := errors.Join(m.err, err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	shape := topk.Shape{Rows: rows, Vocab: vocab, K: 1}
	on := Shape{Rows: rows, Vocab: vocab, K: k}
	err := errors.Join(stream.Record(start), d.EmptyKernel(stream), d.ReadFloor(stream, from, on, values.Pointer()), stream.Record(end), stream.Synchronize())
	if err != nil {
		t.Fatal(err)
	}
	if elapsed, err := Elapsed(start, end); err != nil || elapsed <= 0 {
		t.Errorf("%v between two events, %v", elapsed, err)
	}
	maxima, want := download[float32](m, "values", rows), topk.NewResult[float32](rows, 1)
	if err := errors.Join(m.err, topk.Select(want, logits, shape)); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if maxima[i] != want.Values[i] {
			t.Errorf("row %d: maximum %v, want %v", i, maxima[i], want.Values[i])
		}
	}
	shape.K = k
	want = topk.NewResult[float32](rows, k)
	err = errors.Join(topk.Select(want, logits, shape),
		Fill(stream, stamps, 0),
		s.SelectPhases(stream, from, on, Result{Values: values.Pointer(), Indices: indices.Pointer()}, stamps.Pointer()))
	got := topk.Result[float32]{Values: download[float32](m, "values", rows*k), Indices: download[int32](m, "indices", rows*k)}
	phases := download[Phases](m, "stamps", rows)
	if err = errors.Join(err, m.err); err != nil {
		t.Fatal(err)
	}
	if err := sameResult(got, want); err != nil {
		t.Errorf("the instrumented kernel: %v", err)
	}
	for i, p := range phases {
		if p[0] == 0 || p[5] < p[0] {
			t.Errorf("row %d: %+v", i, p)
		}
	}
}

// plansOf lists the plans that the device can run, "" for the chosen one.
func plansOf(d *Device) []string {
	plans := []string{""}
	for _, name := range planNames {
		if name != PlanCluster || d.Architecture().Cluster() {
			plans = append(plans, name)
		}
	}
	return plans
}

// forced returns options that force the plan with that name, if it has one.
func forced(name string) Options {
	if name == "" {
		return Options{}
	}
	return Options{Plan: &Plan{Name: name}}
}

// smallCall returns a call of SelectDevice.
func smallCall(t testing.TB, d *Device) (*Selector, *Stream, func() error) {
	t.Helper()
	stream, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Allocate(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.NewSelector(Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := b.Pointer()
	return s, stream, func() error {
		return s.SelectDevice(stream, Logits{p, BFloat16}, Shape{Rows: 2, Vocab: 1000, K: 50},
			Result{Values: p + 8192, Indices: p + 16384}, Workspace{})
	}
}

// newMemory is memory with a stream.
func newMemory(t testing.TB, d *Device) *memory {
	t.Helper()
	stream, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	return &memory{device: d, stream: stream, buffers: map[string]*Buffer{}}
}

// testClamps gives the device a k and a length for each row that are out of
// range: they are clamped, and what lies past a row's results is not touched.
func testClamps(t *testing.T, d *Device) {
	const rows, vocab, k = 8, 3000, 40
	rowK := []int32{-5, 0, 1, 39, 40, 41, 1 << 30, -1 << 31}
	lengths := []int32{100, 3000, 3001, 1 << 30, -1, 0, 20, 5}
	clamped := topk.Shape{Rows: rows, Vocab: vocab, K: k}
	for i := range rows {
		clamped.RowK = append(clamped.RowK, max(0, min(rowK[i], k)))
		clamped.RowLengths = append(clamped.RowLengths, max(0, min(lengths[i], vocab)))
	}
	logits := topktest.Convert[topk.Float16](topktest.Random(rand.New(rand.NewPCG(14, 1)), rows*vocab))
	for _, name := range plansOf(d) {
		s, err := d.NewSelector(forced(name))
		if err != nil {
			t.Fatal(err)
		}
		m := newMemory(t, d)
		on := Shape{Rows: rows, Vocab: vocab, K: k, RowK: upload(m, "row k", 0, rowK), RowLengths: upload(m, "lengths", 0, lengths)}
		want := topk.NewResult[topk.Float16](rows, k)
		for i := range want.Values {
			want.Values[i], want.Indices[i] = 0x1234, -7
		}
		from := Logits{upload(m, "logits", 0, logits), Float16}
		to := Result{Values: upload(m, "values", 0, want.Values), Indices: upload(m, "indices", 0, want.Indices)}
		need, err := s.WorkspaceBytes(on, Float16)
		if err := errors.Join(err, topk.Select(want, logits, clamped)); err != nil {
			t.Fatal(err)
		}
		if err := s.SelectDevice(m.stream, from, on, to, Workspace{m.buffer("workspace", need).Pointer(), need}); err != nil {
			t.Fatalf("plan %q: %v", name, err)
		}
		got := topk.Result[topk.Float16]{Values: download[topk.Float16](m, "values", rows*k), Indices: download[int32](m, "indices", rows*k)}
		if m.err != nil {
			t.Fatalf("plan %q: %v", name, m.err)
		}
		if err := sameResult(got, want); err != nil {
			t.Errorf("plan %q: %v", name, err)
		}
	}
}

// A device that Open has not made is an error of every call that can return one.
func TestDeviceOfNobody(t *testing.T) {
	for name, d := range map[string]*Device{"nil": nil, "zero": {}} {
		_, allocate := d.Allocate(1)
		_, stream := d.NewStream()
		_, foreign := d.ForeignStream(0)
		_, event := d.NewEvent()
		_, selector := d.NewSelector(Options{})
		_, sampler := d.NewSampler(sampling.Params{}, SamplerOptions{})
		_, verifier := d.NewVerifier(sampling.Params{}, sampling.Params{}, VerifierOptions{})
		for call, err := range map[string]error{
			"Allocate": allocate, "NewStream": stream, "ForeignStream": foreign, "NewEvent": event,
			"NewSelector": selector, "NewSampler": sampler, "NewVerifier": verifier,
			"ReadFloor":   d.ReadFloor(nil, Logits{}, Shape{Rows: 1, Vocab: 1}, 0),
			"EmptyKernel": d.EmptyKernel(nil), "HashMasses": d.HashMasses(nil, 1, 1, 0), "WeighLogits": d.WeighLogits(nil, 0, 512, 1, 0),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s of a %s device: %v, want ErrClosed", call, name, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Errorf("Close of a %s device: %v", name, err)
		}
	}
}
