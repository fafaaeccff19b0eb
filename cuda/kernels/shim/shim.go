// Package shim runs the kernels on a CPU, for tests where there is no GPU: it
// compiles their sources with a C++ compiler, and a machine of fibers takes the
// place of the instructions that ptx.cuh wraps. Answers are exact; time means
// nothing.
package shim

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// flags follow those of the device's compiler: no fused multiply-add.
var flags = []string{
	"-std=c++17", "-O2", "-fPIC", "-shared", "-pthread", "-DAIKF_SHIM", "-ffp-contract=off", "-fno-strict-aliasing",
	"-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-variable",
}

// Kernels are the sources of the kernels, as paths in the module.
func Kernels(t testing.TB) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root(t), "cuda", "kernels", "*.cu"))
	if err != nil || len(found) == 0 {
		t.Fatalf("shim: no kernels in cuda/kernels: %v", err)
	}
	for i, path := range found {
		found[i] = filepath.Join("cuda", "kernels", filepath.Base(path))
	}
	return found
}

// Build compiles sources, as paths in the module, and the machine to a shared
// library, and returns its path. A library is compiled once and kept in the
// user's cache directory, by the content of all sources and headers and the
// compiler's version. Without a C++ compiler the test is skipped, or fails if
// AIKF_TEST_REQUIRE names shim. The compiler is $CXX, or c++, g++ or clang++.
func Build(t testing.TB, sources ...string) string {
	t.Helper()
	compiler := findCompiler(t)
	sources = append(slices.Clone(sources), filepath.Join("cuda", "kernels", "shim", "fibers", "fibers.cc"))
	key := fingerprint(t, compiler, sources)
	built, _ := builds.LoadOrStore(key, &build{})
	return built.(*build).path(t, compiler, sources, key)
}

// builds are the libraries of this process, by fingerprint.
var builds sync.Map

// build is a library that one test compiles while others wait.
type build struct {
	mutex sync.Mutex
	err   error
	at    string
}

func (b *build) path(t testing.TB, compiler string, sources []string, key string) string {
	t.Helper()
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.at == "" && b.err == nil {
		b.at, b.err = compile(compiler, root(t), sources, key)
	}
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.at
}

// compile makes the library, one process for each source.
func compile(compiler, root string, sources []string, key string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "aikf-shim")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("shim: %w", err)
	}
	library := filepath.Join(cache, key+".so")
	if _, err := os.Stat(library); err == nil {
		return library, nil
	}
	work, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", fmt.Errorf("shim: %w", err)
	}
	defer os.RemoveAll(work)
	run := func(args ...string) error {
		command := exec.Command(compiler, args...)
		command.Dir = root
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("shim: %v: %w\n%s", command, err, out)
		}
		return nil
	}
	objects, errs := make([]string, len(sources)), make([]error, len(sources))
	var running sync.WaitGroup
	for i, source := range sources {
		objects[i] = filepath.Join(work, fmt.Sprint(i, ".o"))
		running.Go(func() {
			errs[i] = run(append(slices.Clone(flags), "-c", "-I"+filepath.Join("cuda", "kernels"), "-x", "c++", source, "-o", objects[i])...)
		})
	}
	running.Wait()
	if err := cmp.Or(errs...); err != nil {
		return "", err
	}
	linked := filepath.Join(work, "linked.so")
	if err := run(append(append(slices.Clone(flags), "-o", linked), objects...)...); err != nil {
		return "", err
	}
	return library, os.Rename(linked, library)
}

// fingerprint names a library by all that goes into it: the compiler, and every
// C++ file in the folders of the sources and of the machine.
func fingerprint(t testing.TB, compiler string, sources []string) string {
	t.Helper()
	hash := sha256.New()
	version, err := exec.Command(compiler, "--version").Output()
	if err != nil {
		t.Fatalf("shim: %s --version: %v", compiler, err)
	}
	fmt.Fprintln(hash, compiler, string(version), flags, sources)
	folders := []string{filepath.Join("cuda", "kernels"), filepath.Join("cuda", "kernels", "shim")}
	for _, source := range sources {
		folders = append(folders, filepath.Dir(source))
	}
	slices.Sort(folders)
	for _, folder := range slices.Compact(folders) {
		folder = filepath.Join(root(t), folder)
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatalf("shim: %v", err)
		}
		for _, entry := range entries {
			if !slices.Contains([]string{".cu", ".cuh", ".cc", ".h"}, filepath.Ext(entry.Name())) {
				continue
			}
			file, err := os.Open(filepath.Join(folder, entry.Name()))
			if err != nil {
				t.Fatalf("shim: %v", err)
			}
			fmt.Fprintln(hash, entry.Name())
			_, err = io.Copy(hash, file)
			file.Close()
			if err != nil {
				t.Fatalf("shim: %v", err)
			}
		}
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:16])
}

func findCompiler(t testing.TB) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CXX"), "c++", "g++", "clang++"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	unavailable(t, "no C++ compiler: $CXX, c++, g++ and clang++ are not there")
	return ""
}

// unavailable skips the test with the reason, or fails it if AIKF_TEST_REQUIRE
// names shim.
func unavailable(t testing.TB, reason string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("AIKF_TEST_REQUIRE"), ","), "shim") {
		t.Fatalf("shim: %s, but AIKF_TEST_REQUIRE asks for it", reason)
	}
	t.Skipf("shim: %s", reason)
}

// root is the folder of go.mod; tests run in the folder of their package.
func root(t testing.TB) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatalf("shim: %v", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			t.Fatalf("shim: no go.mod above %s", folder)
		}
		folder = parent
	}
}
