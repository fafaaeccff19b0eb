//go:build linux && (amd64 || arm64)

package cuda

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

// launchBar is how much longer a launch may take than the same call from C.
const launchBar = 200 // ns

// A launch from Go costs what one from C does, and at most launchBar more. The
// queue of the stream never fills: bursts are short, and waited for in between.
func TestGPULaunchCost(t *testing.T) {
	const bursts, burst = 201, 100
	d := gpu(t, OpenOptions{})
	loop := launchLoop(t)
	s, stream, call := smallCall(t, d)
	c := &deviceCall{}
	for c.arguments.rows == 0 { // until it is the one of this call, ready to be launched again
		if err := call(); err != nil {
			t.Fatal(err)
		}
		c = s.calls.Get().(*deviceCall)
	}
	plan := s.last.Load()
	launch, err := d.library.Symbol("cuLaunchKernelEx")
	if err != nil {
		t.Fatal(err)
	}
	config, parameters := c.launch.Addresses()
	var fromC, fromGo []float64
	wait := func() {
		if err := stream.Synchronize(); err != nil {
			t.Fatal(err)
		}
	}
	wait()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range bursts {
		fromC = append(fromC, loop(launch, burst, config, uintptr(plan.kernels[0]), parameters))
		wait()
		start := time.Now()
		for range burst {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		}
		fromGo = append(fromGo, float64(time.Since(start).Nanoseconds())/burst)
		wait()
	}
	inC, inGo := median(fromC), median(fromGo)
	t.Logf("a launch takes %.0f ns from C, %.0f ns from Go", inC, inGo)
	if inC < 0 {
		t.Fatal("a launch from C failed")
	}
	if inGo > inC+launchBar {
		t.Errorf("%.0f ns more than from C, want at most %d", inGo-inC, launchBar)
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// launchLoop compiles testdata/launch_loop.c. Without a compiler the test is
// skipped.
func launchLoop(t *testing.T) func(launch uintptr, n int64, config unsafe.Pointer, kernel uintptr, parameters unsafe.Pointer) float64 {
	t.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skipf("no C compiler to compare with: %v", err)
	}
	path := filepath.Join(t.TempDir(), "launch_loop.so")
	if out, err := exec.Command(compiler, "-O2", "-shared", "-fPIC", "-o", path, "testdata/launch_loop.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	library, err := purego.Dlopen(path, purego.RTLD_NOW)
	if err != nil {
		t.Fatal(err)
	}
	var loop func(launch uintptr, n int64, config unsafe.Pointer, kernel uintptr, parameters unsafe.Pointer) float64
	purego.RegisterLibFunc(&loop, library, "launch_loop")
	return loop
}
