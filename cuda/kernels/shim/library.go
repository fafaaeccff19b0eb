//go:build (linux || darwin) && (amd64 || arm64)

package shim

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
)

// ErrFault is a kernel that broke a rule of the machine, or a launch that the
// machine cannot make.
var ErrFault = errors.New("kernel fault")

// Library is compiled kernels. Any number of goroutines may launch them.
type Library struct {
	launch  func(symbol string, grid, block, cluster uint32, arguments unsafe.Pointer) int32
	seed    func(seed uint64)
	failure func() string
	symbol  func(i uint32) string
}

// Open builds a library of the sources, as [Build] does, and loads it.
func Open(t testing.TB, sources ...string) *Library {
	t.Helper()
	path := Build(t, sources...)
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		t.Fatalf("shim: %v", err)
	}
	l := &Library{}
	purego.RegisterLibFunc(&l.launch, handle, "aikf_shim_launch")
	purego.RegisterLibFunc(&l.seed, handle, "aikf_shim_seed")
	purego.RegisterLibFunc(&l.failure, handle, "aikf_shim_error")
	purego.RegisterLibFunc(&l.symbol, handle, "aikf_shim_symbol")
	return l
}

// Launch runs a kernel to its end: grid blocks of so many threads, in clusters of
// so many blocks. Between two barriers the threads run in an order that the seed
// decides. The arguments are a pointer to what the kernel takes by value. A
// failure is an ErrFault.
func (l *Library) Launch(symbol string, grid, block, cluster int, seed uint64, arguments unsafe.Pointer) error {
	runtime.LockOSThread() // the seed and the error belong to the thread
	defer runtime.UnlockOSThread()
	l.seed(seed)
	if status := l.launch(symbol, uint32(grid), uint32(block), uint32(cluster), arguments); status != 0 {
		return fmt.Errorf("shim: %s: %w (%d)", l.failure(), ErrFault, status)
	}
	return nil
}

// Symbols lists the kernels.
func (l *Library) Symbols() (symbols []string) {
	for i := uint32(0); ; i++ {
		symbol := l.symbol(i)
		if symbol == "" {
			return symbols
		}
		symbols = append(symbols, symbol)
	}
}
