package topk_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ai-kernel-factory/aikf/"

// layers may import what stands after them, never what stands before.
var layers = []string{"cmd", "internal/bench", "cuda", "sampling", "topk", "internal/cpu", "internal/cpu/simd", "internal/cpu/key", "internal/law", "internal/planfile"}

// layerOf returns the place of a package among the layers, or -1.
func layerOf(path string) int {
	name, ours := strings.CutPrefix(path, module)
	found := -1
	for i, layer := range layers {
		if ours && (name == layer || strings.HasPrefix(name, layer+"/")) {
			found = i // a later one is more exact: internal/cpu/simd is in internal/cpu too
		}
	}
	return found
}

// goList returns the words that go list prints, line by line.
func goList(t *testing.T, args ...string) (lines [][]string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("the go command tells the imports: %v", err)
	}
	command := exec.Command("go", append([]string{"list"}, args...)...)
	command.Dir = ".."
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.Fields(line))
	}
	return lines
}

func TestImportsPointOneWay(t *testing.T) {
	seen := map[int]bool{}
	for _, words := range goList(t, "-e", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
		from := layerOf(words[0])
		seen[from] = true
		for _, path := range words[1:] {
			if to := layerOf(path); from >= 0 && 0 <= to && to < from {
				t.Errorf("%s imports %s: %s may not know %s", words[0], path, layers[from], layers[to])
			}
		}
	}
	for _, layer := range []string{"cmd", "cuda", "topk", "internal/cpu", "internal/cpu/simd"} {
		if !seen[slices.Index(layers, layer)] {
			t.Errorf("no package in %s: not the module that was meant", layer)
		}
	}
}

// A user of topk gets the standard library, golang.org/x/sys and nothing else:
// what calls the driver, which would make the program a dynamic one, least of all.
func TestDependencies(t *testing.T) {
	ours := 0
	if layerOf(module+"cuda/internal/driver") >= layerOf(module+"topk") {
		t.Error("the driver is below topk")
	}
	for _, words := range goList(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./topk") {
		switch path := words[0]; {
		case strings.HasPrefix(path, module):
			ours++
			if layer := layerOf(path); layer < slices.Index(layers, "topk") {
				t.Errorf("topk depends on %s", path)
			}
		case !strings.HasPrefix(path, "golang.org/x/sys/"):
			t.Errorf("topk depends on %s", path)
		}
	}
	if ours < 4 {
		t.Errorf("%d packages of the module: not the dependencies that were meant", ours)
	}
}
