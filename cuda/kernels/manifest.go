package kernels

import (
	_ "embed"
	"encoding/json"
	"fmt"
)

// A Manifest tells what the artefacts were made of and what they hold.
type Manifest struct {
	Compiler  string            `json:"compiler"` // name and full version
	Flags     []string          `json:"flags"`    // of every target
	Sources   map[string]string `json:"sources"`  // file name to SHA-256, in hexadecimal
	Artefacts []Artefact        `json:"artefacts"`
}

// An Artefact is one compressed image.
type Artefact struct {
	File    string   `json:"file"`
	Target  string   `json:"target"` // sm_80 for SASS, compute_90 for PTX
	Bytes   int      `json:"bytes"`  // of the image, not compressed, or of those of PTX, which end with a NUL each
	SHA256  string   `json:"sha256"` // of the image, in hexadecimal
	Kernels []Kernel `json:"kernels"`
}

// A Kernel is one entry point of an image, with what a thread or a block of it
// takes. All numbers are 0 in PTX: the driver's compiler decides.
type Kernel struct {
	Symbol      string `json:"symbol"`
	Registers   int    `json:"registers,omitempty"`    // 32-bit registers a thread
	SharedBytes int    `json:"shared_bytes,omitempty"` // static shared memory a block
	StackBytes  int    `json:"stack_bytes,omitempty"`  // local memory a thread, spills included
	SpillBytes  int    `json:"spill_bytes,omitempty"`  // written to and read from local memory by spills
	CodeBytes   int    `json:"code_bytes,omitempty"`   // machine code
}

//go:embed manifest.json
var manifest []byte

// ReadManifest returns the manifest of the embedded artefacts.
func ReadManifest() (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return Manifest{}, fmt.Errorf("kernels: manifest.json: %w", err)
	}
	return m, nil
}
