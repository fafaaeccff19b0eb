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

// Images returns what the driver loads on a card of compute capability
// major.minor: SASS of all kernels for 8.0 to 8.9 and for 9.0, and PTX for
// later ones. With forcePTX it returns the PTX for 9.0 too, and an error
// below. PTX is one image for each source, which ends with a NUL: the driver
// compiles it when it is loaded, and who selects need not wait for samplers.
// Images decompresses at each call, in a few milliseconds; the caller may keep
// the images and change them.
func Images(major, minor int, forcePTX bool) ([][]byte, error) {
	switch capability := 10*major + minor; {
	case capability < 80:
		return nil, fmt.Errorf("kernels: compute capability %d.%d is below 8.0: %w", major, minor, ErrCapability)
	case forcePTX && capability < 90:
		return nil, fmt.Errorf("kernels: PTX needs compute capability 9.0, not %d.%d: %w", major, minor, ErrCapability)
	case capability < 90:
		return one(Decompress(sm80))
	case capability == 90 && !forcePTX:
		return one(Decompress(sm90))
	}
	ptx, err := Decompress(compute90)
	if err != nil {
		return nil, err
	}
	return bytes.SplitAfter(ptx, []byte{0})[:bytes.Count(ptx, []byte{0})], nil
}

func one(image []byte, err error) ([][]byte, error) {
	if err != nil {
		return nil, err
	}
	return [][]byte{image}, nil
}

// MayHold tells whether an image may have a kernel of that name: of PTX whether
// it has.
func MayHold(image []byte, symbol string) bool {
	return bytes.HasPrefix(image, []byte("\x7fELF")) || bytes.Contains(image, []byte(".entry "+symbol+"("))
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
