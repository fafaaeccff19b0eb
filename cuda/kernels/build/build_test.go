//go:build linux && amd64

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda/kernels"
)

func TestResources(t *testing.T) {
	const log = `kernels.cu(7): warning #177-D: variable "unused" was declared but never referenced

ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Function properties for two
ptxas         .     104 bytes stack frame, 124 bytes spill stores, 160 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 104 bytes cumulative stack size, 11016 bytes smem
ptxas info    : Compile time = 1.234 ms
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 4 registers, used 0 barriers
ptxas warning : something that must be seen
`
	entries, messages := resources(log)
	want := []kernels.Kernel{
		{Symbol: "two", Registers: 32, SharedBytes: 11016, StackBytes: 104, SpillBytes: 284},
		{Symbol: "one", Registers: 4},
	}
	if !slices.Equal(entries, want) {
		t.Errorf("got  %+v\nwant %+v", entries, want)
	}
	if strings.Count(messages, "warning") != 2 || strings.Contains(messages, "info") {
		t.Errorf("messages are not the two warnings alone:\n%s", messages)
	}
}

func TestMissingCompilerNamesTheLane(t *testing.T) {
	if _, err := loadCompiler("nowhere/libnvrtc.so.12"); err == nil || !strings.Contains(err.Error(), "make nvrtc") {
		t.Errorf("error %v, want one that tells of make nvrtc", err)
	}
}

// installedCompiler is what make nvrtc installs; without it the test is
// skipped, and make kernels-check stays.
func installedCompiler(t *testing.T) *compiler {
	t.Helper()
	path, err := filepath.Abs("../../../.build/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("NVRTC is not installed; make nvrtc does it")
	}
	nvrtc, err := loadCompiler(path)
	if err != nil {
		t.Fatal(err)
	}
	return nvrtc
}

func write(t *testing.T, folder, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every artefact is the same after a second build in another folder, and a
// source that changed is noticed.
func TestBuildAll(t *testing.T) {
	nvrtc := installedCompiler(t)
	folders := []string{t.TempDir(), t.TempDir()}
	for _, folder := range folders {
		write(t, folder, "half.cuh", "__device__ float half(float x) { return x * 0.5f + 1; }\n")
		write(t, folder, "one.cu", "#include \"half.cuh\"\nextern \"C\" __global__ void one(float* x) { *x = half(*x); }\n")
		write(t, folder, "two.cu", "extern \"C\" __global__ void two(float* x) { *x = 2; }\n")
		if err := buildAll(nvrtc, folder, false); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(folders[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := 3 + len(targets) + 1; len(files) != want {
		t.Errorf("%d files, want %d sources, %d artefacts and a manifest", len(files), 3, len(targets))
	}
	for _, file := range files {
		a, errA := os.ReadFile(filepath.Join(folders[0], file.Name()))
		b, errB := os.ReadFile(filepath.Join(folders[1], file.Name()))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs between two builds (%v, %v)", file.Name(), errA, errB)
		}
	}
	if err := buildAll(nvrtc, folders[0], true); err != nil {
		t.Errorf("a check of what was just built: %v", err)
	}

	write(t, folders[0], "two.cu", "extern \"C\" __global__ void two(float* x) { *x = 3; }\n")
	err = buildAll(nvrtc, folders[0], true)
	for _, name := range []string{"kernels_sm_80.cubin.gz", "kernels_sm_90.cubin.gz", "kernels_compute_90.ptx.gz", "manifest.json"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v does not name %s, which is out of date", err, name)
		}
	}
}

// A product and a sum stay two roundings. With .rn the driver's compiler, which
// makes machine code of PTX, may not fuse them either.
func TestFlagsForbidFusing(t *testing.T) {
	nvrtc := installedCompiler(t)
	const program = "extern \"C\" __global__ void k(float* x) { x[0] = x[1] * x[2] + x[3]; }\n"
	made := compile(nvrtc, program, "compute_90", nil, flags)
	if made.err != nil {
		t.Fatal(made.err)
	}
	for _, instruction := range []string{"mul.rn.f32", "add.rn.f32"} {
		if !bytes.Contains(made.image, []byte(instruction)) {
			t.Errorf("no %s in\n%s", instruction, made.image)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	nvrtc := installedCompiler(t)
	for program, message := range map[string]string{
		"#include <stdio.h>\n":                      "stdio.h",
		"extern \"C\" __global__ void k() { x; }\n": "\"x\" is undefined",
	} {
		made := compile(nvrtc, program, "sm_90", nil, flags)
		if made.err == nil || !strings.Contains(made.messages, message) {
			t.Errorf("%q: error %v with messages %q, want one about %s", program, made.err, made.messages, message)
		}
	}
	if made := compile(nvrtc, "", "sm_1", nil, flags); made.err == nil || !strings.Contains(made.err.Error(), "sm_1") {
		t.Errorf("target sm_1: error %v", made.err)
	}
}
