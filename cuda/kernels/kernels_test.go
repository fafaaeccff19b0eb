package kernels

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// readManifest returns the manifest, which must name something.
func readManifest(t *testing.T) Manifest {
	t.Helper()
	m, err := ReadManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Sources) == 0 || len(m.Artefacts) == 0 {
		t.Fatalf("the manifest lists %d sources and %d artefacts", len(m.Sources), len(m.Artefacts))
	}
	return m
}

// artefacts returns those of the manifest that this package embeds.
func artefacts(t *testing.T) []Artefact {
	return slices.DeleteFunc(readManifest(t).Artefacts, func(a Artefact) bool { return strings.Contains(a.File, "/") })
}

func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// The artefacts were made of the sources that are here.
func TestSourcesAreThoseOfTheManifest(t *testing.T) {
	sources := map[string]string{}
	for _, pattern := range SourcePatterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources[file] = hash(content)
		}
	}
	if m := readManifest(t); !maps.Equal(sources, m.Sources) {
		t.Errorf("the sources changed: run make kernels\nhere:     %v\nmanifest: %v", sources, m.Sources)
	}
}

// The contract fixes how floating-point operations are rounded.
func TestFlags(t *testing.T) {
	m := readManifest(t)
	for _, flag := range []string{"-fmad=false", "-ftz=false", "-prec-div=true"} {
		if !slices.Contains(m.Flags, flag) {
			t.Errorf("%s is not among the flags %v", flag, m.Flags)
		}
	}
	if !regexp.MustCompile(`^NVRTC 12\.\d+\.\d+$`).MatchString(m.Compiler) {
		t.Errorf("compiler %q, want NVRTC 12 with its full version, which drivers from 525 on can load", m.Compiler)
	}
}

var ptxEntry = regexp.MustCompile(`\.entry\s+(\w+)`)

// symbols lists the kernels of an image.
func symbols(t *testing.T, target string, image []byte) []string {
	t.Helper()
	var names []string
	if strings.HasPrefix(target, "compute_") {
		for _, match := range ptxEntry.FindAllSubmatch(image, -1) {
			names = append(names, string(match[1]))
		}
	} else {
		// NVIDIA keeps a version of its own in the header, where debug/elf
		// wants that of ELF.
		image = bytes.Clone(image)
		binary.LittleEndian.PutUint32(image[20:], uint32(elf.EV_CURRENT))
		file, err := elf.NewFile(bytes.NewReader(image))
		if err != nil {
			t.Fatal(err)
		}
		table, err := file.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, symbol := range table {
			if elf.ST_TYPE(symbol.Info) == elf.STT_FUNC && elf.ST_BIND(symbol.Info) == elf.STB_GLOBAL {
				names = append(names, symbol.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestArtefactsAreThoseOfTheManifest(t *testing.T) {
	m := readManifest(t)
	var listed []string
	for _, artefact := range m.Artefacts {
		listed = append(listed, artefact.File)
		compressed, err := os.ReadFile(artefact.File)
		if err != nil {
			t.Fatal(err)
		}
		image, err := Decompress(compressed)
		if err != nil {
			t.Fatalf("%s: %v", artefact.File, err)
		}
		if got := hash(image); got != artefact.SHA256 || len(image) != artefact.Bytes {
			t.Errorf("%s: %d bytes with hash %s, the manifest has %d and %s: run make kernels", artefact.File, len(image), got, artefact.Bytes, artefact.SHA256)
		}
		var want []string
		for _, kernel := range artefact.Kernels {
			want = append(want, kernel.Symbol)
		}
		if got := symbols(t, artefact.Target, image); !slices.Equal(got, want) {
			t.Errorf("%s holds the kernels %v, the manifest lists %v", artefact.File, got, want)
		}
	}
	files, err := filepath.Glob("*.gz")
	if err != nil {
		t.Fatal(err)
	}
	instrumented, err := filepath.Glob("phases/*.gz")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, instrumented...)
	slices.Sort(listed)
	if !slices.Equal(files, listed) {
		t.Errorf("artefacts %v, the manifest lists %v", files, listed)
	}
}

// The same kernels are there for every card, except that clusters of blocks
// begin with 9.0.
func TestTargetsHoldTheSameKernels(t *testing.T) {
	held := map[string][]string{}
	for _, artefact := range readManifest(t).Artefacts {
		for _, kernel := range artefact.Kernels {
			if artefact.Target != "sm_80" && strings.Contains(kernel.Symbol, "_cluster") {
				continue
			}
			held[artefact.Target] = append(held[artefact.Target], filepath.Dir(artefact.File)+"/"+kernel.Symbol)
		}
	}
	for _, target := range []string{"sm_80", "sm_90", "compute_90"} {
		if len(held[target]) == 0 || !slices.Equal(held[target], held["sm_80"]) {
			t.Errorf("%s: kernels %v, sm_80 has %v", target, held[target], held["sm_80"])
		}
	}
}

func TestImages(t *testing.T) {
	byTarget := map[string]string{}
	for _, artefact := range artefacts(t) {
		byTarget[artefact.Target] = artefact.SHA256
	}
	for _, c := range []struct {
		major, minor int
		forcePTX     bool
		target       string // empty: none
	}{
		{0, 0, false, ""},
		{7, 5, false, ""},
		{7, 5, true, ""},
		{8, 0, false, "sm_80"},
		{8, 6, false, "sm_80"},
		{8, 7, false, "sm_80"},
		{8, 9, false, "sm_80"},
		{8, 9, true, ""},
		{9, 0, false, "sm_90"},
		{9, 0, true, "compute_90"},
		{10, 0, false, "compute_90"},
		{10, 3, true, "compute_90"},
		{12, 1, false, "compute_90"},
	} {
		images, err := Images(c.major, c.minor, c.forcePTX)
		if c.target == "" {
			if !errors.Is(err, ErrCapability) {
				t.Errorf("Images(%d, %d, %v): error %v, want ErrCapability", c.major, c.minor, c.forcePTX, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Images(%d, %d, %v): %v", c.major, c.minor, c.forcePTX, err)
			continue
		}
		for _, image := range images {
			if c.target == "compute_90" && bytes.IndexByte(image, 0) != len(image)-1 {
				t.Errorf("Images(%d, %d, %v): PTX must end with its only NUL", c.major, c.minor, c.forcePTX)
			}
		}
		if hash(bytes.Join(images, nil)) != byTarget[c.target] {
			t.Errorf("Images(%d, %d, %v) are not the images for %s", c.major, c.minor, c.forcePTX, c.target)
		}
	}
}

// Features of sm_90a would keep later cards from taking the PTX.
func TestPTXNamesNoArchitectureFeature(t *testing.T) {
	images, err := Images(10, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, ptx := range images {
		if target := regexp.MustCompile(`(?m)^\.target (.*)$`).FindSubmatch(ptx); target == nil || string(target[1]) != "sm_90" {
			t.Errorf("the PTX is for %q, want sm_90", target)
		}
	}
}

// Package phases is not linked here.
func TestInstrumentedKernelsAreNotLinked(t *testing.T) {
	if _, err := Instrumented.Images(9, 0, false); !errors.Is(err, ErrNotLinked) {
		t.Errorf("%v, want ErrNotLinked", err)
	}
}

func TestDecompressRefusesDamage(t *testing.T) {
	damaged := bytes.Clone(sm90)
	damaged[len(damaged)/2] ^= 1
	for name, artefact := range map[string][]byte{"nothing": nil, "half": sm90[:len(sm90)/2], "a flipped bit": damaged} {
		if _, err := Decompress(artefact); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Each kernel is in one image of PTX, and who selects loads one.
func TestPTXIsDivided(t *testing.T) {
	images, err := Images(10, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	holders := map[string]int{}
	for _, artefact := range artefacts(t) {
		for _, kernel := range artefact.Kernels {
			holder := slices.IndexFunc(images, func(image []byte) bool { return MayHold(image, kernel.Symbol) })
			if holder < 0 || slices.ContainsFunc(images[holder+1:], func(image []byte) bool { return MayHold(image, kernel.Symbol) }) {
				t.Fatalf("%s is in no image, or in two", kernel.Symbol)
			}
			holders[kernel.Symbol] = holder
		}
	}
	if a, b := holders["select_bf16_block"], holders["select_f32_cluster"]; a != b {
		t.Errorf("kernels that select are in images %d and %d", a, b)
	}
	if a, b := holders["select_bf16_block"], holders["sample_bf16_block"]; a == b {
		t.Errorf("who selects loads samplers, too")
	}
}
