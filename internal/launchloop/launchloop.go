// Package launchloop launches a kernel from C: what a launch from Go is compared
// with, in the same process, on the same stream, with the same arguments. It
// needs a C compiler, cc.
package launchloop

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"unsafe"
)

//go:embed programs/loop.c
var source []byte

// ErrUnavailable: there is no C compiler, or no way to load what it makes.
var ErrUnavailable = errors.New("launches from C are not available")

// Loop is the loaded function of programs/loop.c. It returns the nanoseconds of
// one of n launches, or less than 0 if one failed. function is the driver's
// cuLaunchKernelEx, the others are its arguments.
type Loop func(function uintptr, n int64, config unsafe.Pointer, kernel uintptr, parameters unsafe.Pointer) float64

// Load compiles and loads the function. What is missing is an error that wraps
// ErrUnavailable and says so.
func Load(ctx context.Context) (Loop, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		return nil, fmt.Errorf("%w: needs a C compiler, cc: %w", ErrUnavailable, err)
	}
	directory, err := os.MkdirTemp("", "aikf-launch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory) // a loaded library needs no file
	file, library := filepath.Join(directory, "loop.c"), filepath.Join(directory, "loop.so")
	if err := os.WriteFile(file, source, 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, compiler, "-O2", "-shared", "-fPIC", "-o", library, file).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", compiler, err, out)
	}
	return load(library)
}
