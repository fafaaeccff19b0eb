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

// Set is the images of some kernels, compressed.
type Set struct {
	SM80, SM90, Compute90 []byte
}

// Instrumented is set by package phases to what it holds. It is for that package alone.
var Instrumented Set

// ErrNotLinked reports instrumented kernels that the program does not hold.
var ErrNotLinked = errors.New(`the program does not import "github.com/ai-kernel-factory/aikf/cuda/kernels/phases", which holds them`)

// Images returns those of all kernels but the instrumented ones, see [Set.Images].
func Images(major, minor int, forcePTX bool) ([][]byte, error) {
	return Set{sm80, sm90, compute90}.Images(major, minor, forcePTX)
}

// Images returns what the driver loads on a card of compute capability
// major.minor: SASS of all kernels for 8.0 to 8.9 and for 9.0, and PTX for
// later ones. With forcePTX it returns the PTX for 9.0 too, and an error
// below. PTX is one image for each source, which ends with a NUL: the driver
// compiles it when it is loaded, and who selects need not wait for samplers.
// Images decompresses at each call, in a few milliseconds; the caller may keep
// the images and change them.
func (s Set) Images(major, minor int, forcePTX bool) ([][]byte, error) {
	switch capability := 10*major + minor; {
	case len(s.SM80) == 0:
		return nil, ErrNotLinked
	case capability < 80:
		return nil, fmt.Errorf("kernels: compute capability %d.%d is below 8.0: %w", major, minor, ErrCapability)
	case forcePTX && capability < 90:
		return nil, fmt.Errorf("kernels: PTX needs compute capability 9.0, not %d.%d: %w", major, minor, ErrCapability)
	case capability < 90:
		return one(Decompress(s.SM80))
	case capability == 90 && !forcePTX:
		return one(Decompress(s.SM90))
	}
	ptx, err := Decompress(s.Compute90)
	if err != nil {
		return nil, err
	}
	images := bytes.SplitAfter(ptx, []byte{0})[:bytes.Count(ptx, []byte{0})]
	for i := range images {
		images[i] = bytes.Clone(images[i]) // who keeps one keeps not all
	}
	return images, nil
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
