//go:build linux && (amd64 || arm64)

package cuda

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
	"github.com/ai-kernel-factory/aikf/cuda/internal/fakedriver"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// wantError checks that err wraps the sentinel and says all of the words.
func wantError(t *testing.T, err, sentinel error, words ...string) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("error %v, want one that wraps %q", err, sentinel)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

// wantCall checks that err is the driver's, of that call.
func wantCall(t *testing.T, err error, call string, code int) {
	t.Helper()
	e, ok := errors.AsType[*DriverError](err)
	if !ok {
		t.Errorf("error %v, want one of the driver", err)
		return
	}
	if e.Call != call || int(e.Code) != code {
		t.Errorf("error of %s with code %d, want %s with %d", e.Call, e.Code, call, code)
	}
	if !strings.Contains(err.Error(), call) {
		t.Errorf("error %q does not name %s", err, call)
	}
}

// hostAnswer checks that Select on the device gives the right answer.
func hostAnswer(d *Device) error {
	s, err := d.NewSelector(Options{})
	if err != nil {
		return err
	}
	logits := []float32{1, 3, 2, 3, 0}
	err = topktest.NewAnswers(logits).CheckSelect(&suiteSelector[float32]{ask: Select[float32], forced: s, chosen: s}, topk.Row(5, 3), false)
	return errors.Join(err, s.Close())
}

func TestNoDriver(t *testing.T) {
	real := driverPath
	t.Cleanup(func() { driverPath = real })
	notLibrary := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(notLibrary, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/nowhere/libcuda.so.1", notLibrary} {
		driverPath = path
		_, err := Open(0)
		wantError(t, err, ErrUnavailable, path)
		n, err := DeviceCount()
		wantError(t, err, ErrUnavailable, path)
		if n != 0 {
			t.Errorf("%d devices without a driver", n)
		}
	}
}

func TestDriverLacksFunction(t *testing.T) {
	useFake(t, fakedriver.BuildWithout(t))
	_, err := Open(0)
	wantError(t, err, ErrUnavailable, "cuLaunchKernelEx")
}

// What cannot be opened says why; with the reason gone, it can be.
func TestUnavailable(t *testing.T) {
	path := fakedriver.Build(t)
	for _, c := range []struct {
		name    string
		setting string
		value   int
		call    string
		code    int
		words   []string
	}{
		{name: "old driver", setting: "version", value: 11040, words: []string{"11.4", "12.0", "525"}},
		{name: "no device found", call: "cuInit", code: fakedriver.NoDevice, words: []string{"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device"}},
		{name: "unknown code", call: "cuInit", code: 7777, words: []string{"7777"}},
		{name: "driver does not say its version", call: "cuDriverGetVersion", code: fakedriver.NotInitialized},
		{name: "no device shown", setting: "devices", value: 0, words: []string{"no device"}},
		{name: "low capability", setting: "major", value: 7, words: []string{"device 0", "Fake GPU 0", "7.0", "8.0"}},
		{name: "no context", call: "cuDevicePrimaryCtxRetain", code: fakedriver.OutOfMemory, words: []string{"device 0"}},
		{name: "kernels do not load", call: "cuLibraryLoadData", code: fakedriver.OutOfMemory},
		{name: "a kernel does not load", call: "cuKernelGetFunction", code: fakedriver.OutOfMemory, words: []string{"kernel floor_empty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			library := fakedriver.LoadCopy(t, path)
			useFake(t, library.Path)
			library.Set("standin", 1)
			if c.setting != "" {
				library.Set(c.setting, c.value)
			}
			if c.call != "" {
				library.Fail(c.call, 1, c.code)
			}
			_, err := Open(0)
			wantError(t, err, ErrUnavailable, c.words...)
			if c.call != "" {
				wantCall(t, err, c.call, c.code)
			}
			if n := library.Live(); n != 0 {
				t.Errorf("%d things are left of a device that was not opened", n)
			}
			for setting, value := range map[string]int{"version": 12000, "devices": 1, "major": 9} {
				library.Set(setting, value)
			}
			if err := hostAnswer(open(t, 0)); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestOrdinals(t *testing.T) {
	library := standIn(t)
	library.Set("devices", 2)
	if n, err := DeviceCount(); n != 2 || err != nil {
		t.Errorf("%d devices, %v", n, err)
	}
	for _, ordinal := range []int{-1, 2} {
		_, err := Open(ordinal)
		wantError(t, err, ErrUnavailable, "of 2")
	}
	if p := open(t, 1).Properties(); p.Ordinal != 1 || p.Name != "Fake GPU 1" || p.DriverVersion != 12080 || p.Multiprocessors != 132 {
		t.Errorf("properties %+v", p)
	}
}

// A newer device gets PTX; what its compiler complains about is in the error.
func TestPTX(t *testing.T) {
	library := standIn(t)
	library.Set("ptx_error", 1)
	_, err := OpenWith(0, OpenOptions{ForcePTX: true})
	wantError(t, err, ErrUnavailable, "Unsupported .version")
	wantCall(t, err, "cuLibraryLoadData", int(driver.InvalidPTX))
	library.Set("major", 12)
	_, err = Open(0)
	wantError(t, err, ErrUnavailable, "Unsupported .version")
	library.Set("ptx_error", 0)
	if err := hostAnswer(open(t, 0)); err != nil {
		t.Error(err)
	}
}

// Who selects waits for the compilation of that alone; samplers and verifiers are compiled when
// they are made.
func TestPTXIsLoadedWhenItIsNeeded(t *testing.T) {
	library := fake(t)
	library.Set("major", 12)
	d := open(t, 0)
	wantLoaded := func(images int, what string) {
		t.Helper()
		if n := library.Calls("cuLibraryLoadData"); n != images {
			t.Errorf("%d images are loaded for %s, want %d", n, what, images)
		}
	}
	if err := hostAnswer(d); err != nil {
		t.Error(err)
	}
	wantLoaded(1, "a selection")
	for range 2 {
		if _, err := d.NewSampler(sampling.Params{Temperature: 1}, SamplerOptions{}); err != nil {
			t.Error(err)
		}
		wantLoaded(4, "samplers")
	}
	library.Fail("cuLibraryLoadData", 1, int(driver.InvalidPTX))
	_, err := d.NewVerifier(sampling.Params{}, sampling.Params{}, VerifierOptions{})
	wantCall(t, err, "cuLibraryLoadData", int(driver.InvalidPTX))
	if _, err := d.NewVerifier(sampling.Params{}, sampling.Params{}, VerifierOptions{}); err != nil {
		t.Error(err)
	}
	wantLoaded(6, "verifiers, one of which failed")
	for range 2 {
		if err := d.loadPhases(); err != nil {
			t.Error(err)
		}
		wantLoaded(7, "profiles")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if n := library.Live(); n != 0 {
		t.Errorf("%d things are left after Close", n)
	}
}

// Clusters are as large as the device can have them.
func TestClusterBlocks(t *testing.T) {
	library := standIn(t)
	for _, c := range []struct{ major, most, multiprocessors, want int }{
		{9, 16, 132, 16}, {9, 8, 132, 8}, {9, 16, 14, 8}, {9, 16, 2, 2}, {9, 1, 132, 1}, {8, 16, 108, 0},
	} {
		library.Set("major", c.major)
		library.Set("max_cluster", c.most)
		library.Set("multiprocessors", c.multiprocessors)
		if got := open(t, 0).Architecture().ClusterBlocks; got != c.want {
			t.Errorf("%+v: %d blocks", c, got)
		}
	}
}

// scenario uses every function of the driver, and returns the first error.
func scenario() (err error) {
	d, err := Open(0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	stream, err := d.NewStream()
	if err != nil {
		return err
	}
	start, err := d.NewEvent()
	if err != nil {
		return err
	}
	end, err := d.NewEvent()
	if err != nil {
		return err
	}
	logits := []float32{1, 3, 2, 3, 0}
	b, err := d.Allocate(4096)
	if err != nil {
		return err
	}
	if err := Fill(stream, b, 0); err != nil {
		return err
	}
	if err := CopyToDevice(stream, b, 0, logits); err != nil {
		return err
	}
	s, err := d.NewSelector(Options{})
	if err != nil {
		return err
	}
	p := b.Pointer()
	graph, err := stream.Capture(func() error {
		return s.SelectDevice(stream, Logits{p, Float32}, Shape{Rows: 1, Vocab: 5, K: 2}, Result{Values: p + 1024, Indices: p + 2048}, Workspace{})
	})
	if err != nil {
		return err
	}
	if err := errors.Join(stream.Record(start), graph.Launch(stream), stream.Record(end), stream.Synchronize()); err != nil {
		return err
	}
	if _, err := Elapsed(start, end); err != nil {
		return err
	}
	if _, err := d.ForeignStream(stream.Handle()); err != nil {
		return err
	}
	indices := make([]int32, 2)
	if err := CopyToHost(stream, indices, b, 2048); err != nil {
		return err
	}
	if !slices.Equal(indices, []int32{1, 3}) {
		return errors.New("a wrong answer")
	}
	return errors.Join(graph.Close(), start.Close(), end.Close(), s.Close(), b.Close(), stream.Close(), hostAnswer(d))
}

// Whatever function of the driver fails, the error names it; the next time, all
// is well again.
func TestEveryCallFails(t *testing.T) {
	library := standIn(t)
	if err := scenario(); err != nil {
		t.Fatal(err)
	}
	// Failures that nobody needs to know of: a description of another error, a
	// capability that is then not used, and a context or graph that is left over.
	harmless := []string{
		"cuGetErrorName", "cuGetErrorString", "cuKernelSetAttribute", "cuOccupancyMaxActiveClusters", "cuCtxPopCurrent_v2", "cuGraphDestroy",
	}
	// Called before a device is opened, or only for an error.
	elsewhere := []string{"cuInit", "cuDriverGetVersion", "cuCtxGetDevice", "cuModuleLoadDataEx", "cuModuleUnload"}
	most := 3
	if raceEnabled {
		most = 1 // each takes many times as long
	}
	for _, call := range driver.Symbols() {
		if slices.Contains(elsewhere, call) {
			continue
		}
		for nth := 1; nth <= most; nth++ {
			before := library.Calls(call)
			library.Fail(call, nth, fakedriver.OutOfMemory)
			err := scenario()
			switch {
			case slices.Contains(harmless, call):
				if err != nil {
					t.Errorf("%s failed, call %d: %v", call, nth, err)
				}
			case library.Calls(call)-before < nth:
				if nth == 1 {
					t.Errorf("%s is not called", call)
				}
			default:
				wantCall(t, err, call, fakedriver.OutOfMemory)
			}
			library.Fail(call, 0, 0)
			if err := scenario(); err != nil {
				t.Fatalf("after a failure of %s, call %d: %v", call, nth, err)
			}
		}
	}
}

// A kernel that fails is reported when its stream is waited for, and from then on
// by every call.
func TestAsynchronousFault(t *testing.T) {
	for _, code := range []int{fakedriver.IllegalAddress, fakedriver.LaunchFailed} {
		library := standIn(t)
		d := open(t, 0)
		s, stream, call := smallCall(t, d)
		library.Fail("kernel", 1, code)
		if err := call(); err != nil {
			t.Fatalf("the launch itself: %v", err)
		}
		err := stream.Synchronize()
		wantError(t, err, ErrFault, "device 0", "earlier", "cannot be used again")
		wantCall(t, err, "cuStreamSynchronize", code)
		first := err.Error()
		_, allocate := d.Allocate(1)
		_, newStream := d.NewStream()
		for _, err := range []error{call(), stream.Synchronize(), allocate, newStream, hostAnswer(d), d.EmptyKernel(stream)} {
			wantError(t, err, ErrFault, first)
		}
		if _, err := s.Plan(Shape{Rows: 1, Vocab: 10, K: 1}, Float32); !errors.Is(err, ErrFault) {
			t.Errorf("a plan for a device that cannot be used: %v", err)
		}
		d.Close()
		wantError(t, call(), ErrClosed)
	}
}

// A launch that is refused leaves the device as it was.
func TestLaunchRefused(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	_, stream, call := smallCall(t, d)
	library.Fail("cuLaunchKernelEx", 1, fakedriver.LaunchOutOfLimit)
	wantCall(t, call(), "cuLaunchKernelEx", fakedriver.LaunchOutOfLimit)
	if err := errors.Join(call(), stream.Synchronize(), hostAnswer(d)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A driver that takes the context of a launch from the thread is given it.
func TestContextOfThread(t *testing.T) {
	library := standIn(t)
	library.Set("bind_context", 1)
	d := open(t, 0)
	_, stream, call := smallCall(t, d)
	if err := errors.Join(call(), call(), stream.Synchronize(), hostAnswer(d)); err != nil {
		t.Error(err)
	}
	if push, pop := library.Calls("cuCtxPushCurrent_v2"), library.Calls("cuCtxPopCurrent_v2"); push != pop {
		t.Errorf("%d contexts pushed, %d popped", push, pop)
	}
}

// What belongs to one device cannot be used on another.
func TestOtherDevice(t *testing.T) {
	library := standIn(t)
	library.Set("devices", 2)
	d0, d1 := open(t, 0), open(t, 1)
	s, stream0, call := smallCall(t, d0)
	_, stream1, _ := smallCall(t, d1)
	b0, err0 := d0.Allocate(1 << 16)
	b1, err1 := d1.Allocate(1 << 16)
	event1, err2 := d1.NewEvent()
	again, err3 := Open(0) // the same device, opened twice
	if err := errors.Join(err0, err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	shape := Shape{Rows: 2, Vocab: 1000, K: 50}
	logits := Logits{b0.Pointer(), BFloat16}
	result := Result{Values: b0.Pointer() + 8192, Indices: b0.Pointer() + 16384}
	at1 := b1.Pointer()
	for name, err := range map[string]error{
		"stream":  s.SelectDevice(stream1, logits, shape, result, Workspace{}),
		"logits":  s.SelectDevice(stream0, Logits{at1, BFloat16}, shape, result, Workspace{}),
		"values":  s.SelectDevice(stream0, logits, shape, Result{Values: at1, Indices: result.Indices}, Workspace{}),
		"indices": s.SelectDevice(stream0, logits, shape, Result{Values: result.Values, Indices: at1}, Workspace{}),
		"row k":   s.SelectDevice(stream0, logits, Shape{Rows: 2, Vocab: 1000, K: 50, RowK: at1}, result, Workspace{}),
		"lengths": s.SelectDevice(stream0, logits, Shape{Rows: 2, Vocab: 1000, K: 50, RowLengths: at1}, result, Workspace{}),
		"copy":    CopyToDevice(stream0, b1, 0, []int{1}),
		"back":    CopyToHost(stream0, []int{1}, b1, 0),
		"fill":    Fill(stream0, b1, 0),
		"record":  stream0.Record(event1),
		"floor":   d0.ReadFloor(stream1, logits, shape, b0.Pointer()),
		"maxima":  d0.ReadFloor(stream0, logits, shape, at1),
		"empty":   d0.EmptyKernel(stream1),
	} {
		t.Run(name, func(t *testing.T) { wantError(t, err, ErrDevice, "device 1", "device 0") })
	}
	_, err := d0.ForeignStream(library.ForeignStream(t, 1))
	wantError(t, err, ErrDevice, "device 1", "device 0")
	_, err = d0.ForeignStream(2)
	wantError(t, err, ErrUnsupported)
	for _, handle := range []uintptr{library.ForeignStream(t, 0), 0, 1} {
		foreign, err := d0.ForeignStream(handle)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.SelectDevice(foreign, logits, shape, result, Workspace{}), foreign.Synchronize(), foreign.Close()); err != nil {
			t.Errorf("foreign stream %#x: %v", handle, err)
		}
	}
	if err := s.SelectDevice(stream0, Logits{0x1234560, BFloat16}, shape, result, Workspace{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an address that is no memory: %v", err)
	}
	// A page that is given back may be another device's next.
	if err := errors.Join(call(), b0.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.SelectDevice(stream0, logits, shape, result, Workspace{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("logits in memory that was given back: %v", err)
	}
	same, err := again.NewSelector(Options{})
	if err != nil {
		t.Fatal(err)
	}
	b0, err = d0.Allocate(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	p := b0.Pointer()
	if err := same.SelectDevice(stream0, Logits{p, BFloat16}, shape, Result{Values: p + 8192, Indices: p + 16384}, Workspace{}); err != nil {
		t.Errorf("a device that is opened twice: %v", err)
	}
}

// Everything can be closed twice, and not be used afterwards.
func TestClose(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	s, stream, call := smallCall(t, d)
	b, err0 := d.Allocate(64)
	event, err1 := d.NewEvent()
	graph, err2 := stream.Capture(call)
	other, err3 := d.NewStream()
	if err := errors.Join(err0, err1, err2, err3, stream.Record(event)); err != nil {
		t.Fatal(err)
	}
	uses := map[string]func() error{
		"buffer":   func() error { return CopyToDevice(stream, b, 0, []int{1}) },
		"event":    func() error { return stream.Record(event) },
		"elapsed":  func() error { _, err := Elapsed(event, event); return err },
		"graph":    func() error { return graph.Launch(stream) },
		"stream":   func() error { return other.Synchronize() },
		"selector": call,
		"host":     func() error { return Select(s, topk.NewResult[float32](1, 1), []float32{1}, topk.Row(1, 1)) },
	}
	for name, use := range uses {
		if err := use(); err != nil {
			t.Errorf("%s before Close: %v", name, err)
		}
	}
	for _, c := range []interface{ Close() error }{b, event, graph, other, s} {
		for range 2 {
			if err := c.Close(); err != nil {
				t.Errorf("%T: %v", c, err)
			}
		}
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) { wantError(t, use(), ErrClosed, "device 0") })
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	_, allocate := d.Allocate(1)
	wantError(t, allocate, ErrClosed)
	wantError(t, stream.Synchronize(), ErrClosed)
	if err := stream.Close(); err != nil {
		t.Errorf("a stream after its device: %v", err)
	}
	var none Stream
	wantError(t, none.Synchronize(), ErrClosed)
	if n := library.Live(); n != 0 {
		t.Errorf("%d things are left", n)
	}
}

// What is nil is an error, not a panic.
func TestNilArguments(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	stream, err0 := d.NewStream()
	b, err1 := d.Allocate(64)
	event, err2 := d.NewEvent()
	s, err3 := d.NewSelector(Options{})
	graph, err4 := stream.Capture(func() error { return d.EmptyKernel(stream) })
	if err := errors.Join(err0, err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for name, use := range map[string]func() error{
		"fill without a stream":      func() error { return Fill(nil, b, 0) },
		"fill without a buffer":      func() error { return Fill(stream, nil, 0) },
		"to the device, no stream":   func() error { return CopyToDevice(nil, b, 0, []int{1}) },
		"to the device, no buffer":   func() error { return CopyToDevice(stream, nil, 0, []int{1}) },
		"to the host, no stream":     func() error { return CopyToHost(nil, []int{1}, b, 0) },
		"to the host, no buffer":     func() error { return CopyToHost(stream, []int{1}, nil, 0) },
		"record of no event":         func() error { return stream.Record(nil) },
		"elapsed since no event":     func() error { _, err := Elapsed(nil, event); return err },
		"elapsed until no event":     func() error { _, err := Elapsed(event, nil); return err },
		"graph into no stream":       func() error { return graph.Launch(nil) },
		"kernel into no stream":      func() error { return d.EmptyKernel(nil) },
		"selection into no stream":   func() error { return s.SelectDevice(nil, Logits{}, Shape{}, Result{}, Workspace{}) },
		"host rows without selector": func() error { return Select(nil, topk.NewResult[float32](1, 1), []float32{1}, topk.Row(1, 1)) },
	} {
		t.Run(name, func(t *testing.T) { wantError(t, use(), ErrClosed, "nil") })
	}
}

// A function that panics while it is captured, or ends its goroutine, leaves no capture behind.
func TestCaptureEndsWithAPanic(t *testing.T) {
	library := standIn(t)
	d := open(t, 0)
	_, stream, call := smallCall(t, d)
	before := library.Live()
	for name, end := range map[string]func(){"panic": func() { panic("of the test") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			done := make(chan any)
			go func() {
				defer func() { done <- recover() }()
				stream.Capture(func() error {
					if err := call(); err != nil {
						t.Error(err)
					}
					end()
					return nil
				})
			}()
			if got := <-done; (got != nil) != (name == "panic") {
				t.Errorf("recovered %v", got)
			}
			if err := errors.Join(call(), stream.Synchronize()); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if n := library.Live(); n != before {
				t.Errorf("%d things are left, %d before", n, before)
			}
		})
	}
}

// What is being made while its device is closed is closed with it, also where the context
// lives on because another has it too.
func TestCloseWaitsForWhatIsMade(t *testing.T) {
	library := standIn(t)
	other := open(t, 0)
	before := library.Live()
	d := open(t, 0)
	var event driver.Event
	began, goOn, made, closed := make(chan bool), make(chan bool), make(chan error), make(chan error)
	o := &owned{}
	go func() {
		made <- d.own(o, "an event", func() (err error) {
			event, err = d.library.NewEvent()
			close(began)
			<-goOn
			return err
		}, func() error { return d.library.DestroyEvent(event) })
	}()
	<-began
	go func() { closed <- d.Close() }()
	for !d.closed.Load() {
		runtime.Gosched()
	}
	var err error
	select {
	case err = <-closed:
		t.Error("Close does not wait")
		close(goOn)
	case <-time.After(20 * time.Millisecond):
		close(goOn)
		err = <-closed
	}
	<-made
	if err := errors.Join(err, other.usable()); err != nil {
		t.Error(err)
	}
	wantError(t, o.usable(), ErrClosed)
	if n := library.Live(); n != before {
		t.Errorf("%d things are left, %d before", n, before)
	}
}
