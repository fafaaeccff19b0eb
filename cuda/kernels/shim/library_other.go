//go:build !((linux || darwin) && (amd64 || arm64))

package shim

import (
	"errors"
	"testing"
	"unsafe"
)

// ErrFault is what a launch fails with.
var ErrFault = errors.New("kernel fault")

// Library is compiled kernels; this system cannot load them.
type Library struct{}

// Open skips the test.
func Open(t testing.TB, sources ...string) *Library {
	unavailable(t, "libraries are loaded on linux and darwin with amd64 and arm64 only")
	return nil
}

// Launch is not reached.
func (l *Library) Launch(symbol string, grid, block, cluster int, seed uint64, arguments unsafe.Pointer) error {
	return ErrFault
}

// Symbols is not reached.
func (l *Library) Symbols() []string { return nil }
