// Package fakedriver builds a driver library over host memory, with devices
// that do not exist, and asks it for faults: library/driver.cc says how it behaves.
package fakedriver

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
)

// The codes that tests ask for.
const (
	OutOfMemory      = 2
	NotInitialized   = 3
	NoDevice         = 100
	InvalidContext   = 201
	IllegalAddress   = 700
	LaunchOutOfLimit = 701
	LaunchFailed     = 719
)

// Build returns the path of the library, with the kernels in it. Without a C++
// compiler the test is skipped with the reason, or fails if AIKF_TEST_REQUIRE
// names fakecuda.
func Build(t testing.TB) string {
	t.Helper()
	return build(t, append(shim.Kernels(t), source("driver.cc"), source("standin.cc"), source("busy.cc"))...)
}

// BuildWithout returns the path of a library that lacks cuLaunchKernelEx.
func BuildWithout(t testing.TB) string {
	t.Helper()
	return build(t, source("without_launch.cc"), source("standin.cc"), source("busy.cc"))
}

func source(name string) string {
	return filepath.Join("cuda", "internal", "fakedriver", "library", name)
}

func build(t testing.TB, sources ...string) string {
	t.Helper()
	defer func() {
		if t.Skipped() && slices.Contains(strings.Split(os.Getenv("AIKF_TEST_REQUIRE"), ","), "fakecuda") {
			t.Errorf("skipped, but AIKF_TEST_REQUIRE asks for fakecuda")
		}
	}()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skipf("the driver is called on linux/amd64 and linux/arm64 only, not on %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	return shim.Build(t, sources...)
}
