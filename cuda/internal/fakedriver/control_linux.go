//go:build linux && (amd64 || arm64)

package fakedriver

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
	"github.com/ebitengine/purego"
)

// Library is a loaded library. Its settings hold for the whole process.
type Library struct {
	Path         string
	reset        func()
	set          func(name string, value int64)
	fail         func(function string, nth int64, code int32)
	calls        func(function string) int64
	live         func() int64
	foreign      func(device int32) uintptr
	destroy      func(stream uintptr)
	between      func() float64
	timeLaunches func(n int64, config unsafe.Pointer, kernel uintptr, parameters unsafe.Pointer) float64
}

// Load loads the library at the path. Its settings are those of a sound driver
// again when the test ends.
func Load(t testing.TB, path string) *Library {
	t.Helper()
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		t.Fatalf("fakedriver: %v", err)
	}
	l := &Library{Path: path}
	for name, function := range map[string]any{
		"fakecuda_reset": &l.reset, "fakecuda_set": &l.set, "fakecuda_fail": &l.fail,
		"fakecuda_calls": &l.calls, "fakecuda_live": &l.live, "fakecuda_foreign_stream": &l.foreign,
		"fakecuda_destroy_foreign": &l.destroy, "fakecuda_time_launches": &l.timeLaunches,
		"fakecuda_between": &l.between,
	} {
		purego.RegisterLibFunc(function, handle, name)
	}
	l.reset()
	t.Cleanup(l.reset)
	return l
}

// LoadCopy loads a library of its own, which package driver has not seen yet.
func LoadCopy(t testing.TB, path string) *Library {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("fakedriver: %v", err)
	}
	path = filepath.Join(t.TempDir(), driver.Path)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatalf("fakedriver: %v", err)
	}
	return Load(t, path)
}

// Set changes a setting; driver.cc lists them.
func (l *Library) Set(name string, value int) { l.set(name, int64(value)) }

// Fail has the nth call of a function from now return the code. The function
// "kernel" is a kernel that runs: it and all that follows ends with the code.
func (l *Library) Fail(function string, nth, code int) { l.fail(function, int64(nth), int32(code)) }

// Calls returns how often a function was called.
func (l *Library) Calls(function string) int { return int(l.calls(function)) }

// Live returns how many things were made and not yet destroyed.
func (l *Library) Live() int { return int(l.live()) }

// ForeignStream returns the handle of a stream that the test destroys at its
// end.
func (l *Library) ForeignStream(t testing.TB, device int) uintptr {
	stream := l.foreign(int32(device))
	t.Cleanup(func() { l.destroy(stream) })
	return stream
}

// TimeLaunches returns the nanoseconds of a launch from C.
func (l *Library) TimeLaunches(n int, config unsafe.Pointer, kernel uintptr, parameters unsafe.Pointer) float64 {
	return l.timeLaunches(int64(n), config, kernel, parameters)
}

// Between returns the nanoseconds from the end of one busy launch
// to the start of the next, on average since Between was called last.
func (l *Library) Between() float64 { return l.between() }
