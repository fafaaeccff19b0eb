//go:build linux && (amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/internal/launchloop"
	"github.com/ai-kernel-factory/aikf/topk"
)

// BenchmarkGPULaunchCost measures a launch from Go beside one from C, in nanoseconds; ns/op
// says nothing. The bar is aikf bench's.
func BenchmarkGPULaunchCost(b *testing.B) { timeLaunches(b, gpu(b, OpenOptions{}), nil).report(b) }

// BenchmarkLaunchCost measures the same with a driver whose launches do nothing:
// at once, or busy with so many KiB of code and memory, as a real one is, which
// leaves its caller with cold caches. What it reports are the nanoseconds
// between two launches; ns/op says nothing.
func BenchmarkLaunchCost(b *testing.B) {
	for _, kib := range []int{1, 16, 32} {
		b.Run(fmt.Sprintf("%dKiB", kib), func(b *testing.B) {
			library := standIn(b)
			library.Set("discard", kib)
			between := library.Between
			if kib == 1 {
				between = nil
			}
			timeLaunches(b, open(b, 0), between).report(b)
		})
	}
}

// launchCosts are medians, in nanoseconds a launch.
type launchCosts struct{ fromC, bare, fromGo float64 }

func (c launchCosts) report(b *testing.B) {
	b.ReportMetric(c.fromC, "C-ns")
	b.ReportMetric(c.bare-c.fromC, "C-to-bare-ns")
	b.ReportMetric(c.fromGo-c.bare, "bare-to-Go-ns")
	b.ReportMetric(c.fromGo-c.fromC, "C-to-Go-ns")
}

// timeLaunches launches one kernel by a loop in C, by package driver alone and by
// SelectDevice, in turns. The queue of the stream never fills: bursts are short,
// and waited for in between. between, if not nil, returns what a burst took, less
// the driver's part. Without a C compiler the test is skipped.
func timeLaunches(t testing.TB, d *Device, between func() float64) launchCosts {
	t.Helper()
	const bursts, burst = 201, 100
	loop := launchLoop(t)
	s, stream, call := smallCall(t, d)
	if err := call(); err != nil {
		t.Fatal(err)
	}
	c := &s.first // ready to be launched again
	function, config, kernel, parameters := c.launch.Raw()
	each := func(launch func() error) float64 {
		start := time.Now()
		for range burst {
			if err := launch(); err != nil {
				t.Fatal(err)
			}
		}
		return float64(time.Since(start).Nanoseconds()) / burst
	}
	var samples [3][]float64
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range bursts {
		for i, sample := range []func() float64{
			func() float64 { return loop(function, burst, config, kernel, parameters) },
			func() float64 { return each(func() error { return d.library.Launch(&c.launch) }) },
			func() float64 { return each(call) },
		} {
			if err := stream.Synchronize(); err != nil {
				t.Fatal(err)
			}
			if between != nil {
				between()
			}
			ns := sample()
			if between != nil {
				ns = between()
			}
			if ns < 0 {
				t.Fatal("a launch from C failed")
			}
			samples[i] = append(samples[i], ns)
		}
	}
	if err := stream.Synchronize(); err != nil {
		t.Fatal(err)
	}
	return launchCosts{median(samples[0]), median(samples[1]), median(samples[2])}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// launchLoop loads the loop in C. Without a C compiler the test is skipped.
func launchLoop(t testing.TB) launchloop.Loop {
	t.Helper()
	loop, err := launchloop.Load(t.Context())
	if errors.Is(err, launchloop.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return loop
}

func TestGPURawLaunch(t *testing.T) { testRawLaunch(t, gpu(t, OpenOptions{})) }

// testRawLaunch makes one launch from C and looks at the answer.
func testRawLaunch(t *testing.T, d *Device) {
	t.Helper()
	loop := launchLoop(t)
	m := newMemory(t, d)
	logits := []float32{1, 3, 2, 3, 0}
	from := Logits{upload(m, "logits", 0, logits), Float32}
	values, indices := m.buffer("values", 4*3), m.buffer("indices", 4*3)
	s, err := d.NewSelector(Options{})
	if err := errors.Join(err, m.err); err != nil {
		t.Fatal(err)
	}
	shape, to := Shape{Rows: 1, Vocab: 5, K: 3}, Result{Values: values.Pointer(), Indices: indices.Pointer()}
	raw, err := s.RawLaunch(m.stream, from, shape, to, Workspace{})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC() // the launch owns what it refers to
	if ns := loop(raw.Function, 1, raw.Config, raw.Kernel, raw.Parameters); ns < 0 {
		t.Error("the launch failed")
	}
	got := topk.Result[float32]{Values: download[float32](m, "values", 3), Indices: download[int32](m, "indices", 3)}
	want := topk.Result[float32]{Values: []float32{3, 3, 2}, Indices: []int32{1, 3, 2}}
	if err := errors.Join(m.err, sameResult(got, want)); err != nil {
		t.Error(err)
	}
	_, err = s.RawLaunch(m.stream, from, Shape{Rows: 1}, to, Workspace{})
	wantError(t, err, ErrUnsupported)
	_, err = s.RawLaunch(m.stream, Logits{}, shape, to, Workspace{})
	wantError(t, err, topk.ErrShape)
	defaultStream, err := d.ForeignStream(0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.RawLaunch(defaultStream, from, shape, to, Workspace{})
	wantError(t, err, ErrUnsupported)
}
