// Package kernels holds the kernels: their sources, and what a pinned compiler
// made of them. It needs no GPU and no compiler.
package kernels

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"fmt"
	"io"
)

// ErrCapability reports a compute capability that no image serves.
var ErrCapability = errors.New("no kernels for this compute capability")

// SourcePatterns match the files of this folder that the kernels are made of.
var SourcePatterns = []string{"*.cu", "*.cuh", "*.h"}

// The images, compressed. See docs/design.md for why these.
var (
	//go:embed kernels_sm_80.cubin.gz
	sm80 []byte
	//go:embed kernels_sm_90.cubin.gz
	sm90 []byte
	//go:embed kernels_compute_90.ptx.gz
	compute90 []byte
)

// Image returns what the driver loads on a card of compute capability
// major.minor: SASS for 8.0 to 8.9 and for 9.0, and PTX, which ends with a
// NUL, for later ones. With forcePTX it returns the PTX for 9.0 too, and an
// error below. It decompresses at each call, in a few milliseconds; the
// caller may keep the image and change it.
func Image(major, minor int, forcePTX bool) ([]byte, error) {
	switch capability := 10*major + minor; {
	case capability < 80:
		return nil, fmt.Errorf("kernels: compute capability %d.%d is below 8.0: %w", major, minor, ErrCapability)
	case forcePTX && capability < 90:
		return nil, fmt.Errorf("kernels: PTX needs compute capability 9.0, not %d.%d: %w", major, minor, ErrCapability)
	case capability < 90:
		return Decompress(sm80)
	case capability == 90 && !forcePTX:
		return Decompress(sm90)
	}
	ptx, err := Decompress(compute90)
	return append(ptx, 0), err
}

// Decompress returns the content of an artefact. A damaged one is an error.
func Decompress(artefact []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(artefact))
	if err != nil {
		return nil, fmt.Errorf("kernels: a damaged artefact: %w", err)
	}
	image, err := io.ReadAll(reader)
	if err != nil {
		return nil, fmt.Errorf("kernels: a damaged artefact: %w", err)
	}
	return image, nil
}
