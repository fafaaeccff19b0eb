package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const program = "package main\n\nfunc main() {}\n"

var project = fstest.MapFS{
	"README.md":             {Data: []byte("# Readme\n")},
	"docs/design.md":        {Data: []byte("# Design\n")},
	"pkg/testdata/table.md": {Data: []byte("| x |\n")},
	".git/notes.md":         {Data: []byte("notes\n")},
	"main.go":               {Data: []byte(program)},
	"results/a-bench.json": {Data: []byte(`{"schema": 1, "machine": {"cpu": "Example 9000", "cores": 4, "os": "linux", "arch": "amd64", "go": "go1.26.0", "tiers": ["pure"]},
		"command": "aikf bench --acceptance", "commit": "0123456789ab", "date": "2026-01-02T03:04:05Z", "seed": 1, "results": [],
		"acceptance": [{"work": "float32, k = 50", "figure": "x floor", "must": 2, "aim": 1.6, "measured": 1.5, "verdict": "met"}]}`)},
	"results/broken.json":     {Data: []byte(`{"schema": 99}`)},
	"results/b-verify.json":   {Data: []byte(`{"schema": 1, "outcome": "equal", "seed": 5}`)},
	"results/bad-verify.json": {Data: []byte(`{"schema": 1, "outcome": "different"}`)},
	"results/b-profile.json":  {Data: []byte(`{"schema": 1, "profiles": [{"batch": 1, "vocab": 50304, "top_k": 50, "call_us": 4, "parts": [{"name": "load", "us": 1}]}]}`)},
	"results/no-profile.json": {Data: []byte(`{"schema": 1, "profiles": []}`)},
	"results/b-python.json":   {Data: []byte(pythonText(true))},
	"results/bad-python.json": {Data: []byte(pythonText(false))},
}

// pythonText is a record of one result, right or not.
func pythonText(right bool) string {
	return fmt.Sprintf(`{"schema": 1, "kind": "python", "machine": {"gpu": "Example 9000", "torch": "2.4.0"}, "command": "bars.py",
		"results": [{"batch": 1, "vocab": 50304, "top_k": 50, "dtype": "bfloat16", "right": %t, "times": {
			"host copy_": {"us": 6}, "host aikf": {"us": 8}, "eager torch": {"us": 60}, "eager aikf": {"us": 8},
			"graph torch": {"us": 33}, "graph aikf": {"us": 4}}}],
		"acceptance": [{"figure": "eager", "must": 5, "aim": 7, "measured": 7.5, "row": "1 x 50", "verdict": "aim"}, {"figure": "graph", "must": 1, "aim": 2, "verdict": "not measured"}]}`, right)
}

func TestFill(t *testing.T) {
	const before = "# Title\n\n<!-- generated: main.go -->\nold\n<!-- end -->\n\n<!-- generated: results/a-bench.json -->\n<!-- end -->\n\n<!-- generated: results/b-python.json -->\n<!-- end -->\nlast\n"
	text, err := fill(project, before)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Title\n\n<!-- generated: main.go -->\n```go\n" + program + "```\n<!-- end -->\n\n",
		"<!-- generated: results/a-bench.json -->\nExample 9000, 4 cores",
		"| float32, k = 50 | 2 | 1.60 | 1.50 | x floor | met |\n",
		"Example 9000, torch 2.4.0\n\nbars.py\n",
		"| 1 | 50304 | 50 | bfloat16 | 6.00 | 8.00 | 60.0 | 8.00 | 7.5x | 33.0 | 4.00 | 8.2x |\n",
		"| eager | 5 | 7 | 7.50 | aim, at 1 x 50 |\n| graph | 1 | 2 | - | not measured |\n",
		"<!-- end -->\nlast\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if again, err := fill(project, text); err != nil || again != text {
		t.Errorf("filled again: %v\n%s", err, again)
	}
}

func TestFillErrors(t *testing.T) {
	for text, want := range map[string]string{
		"\n<!-- generated: main.go -->\n":                           "1 generated parts begin, 0 of them end",
		"\n<!-- generated: absent.go -->\n<!-- end -->\n":           "absent.go",
		"\n<!-- generated: README.md -->\n<!-- end -->\n":           "README.md is neither",
		"\n<!-- generated: results/broken.json -->\n<!-- end -->\n": "results/broken.json: bench: schema = 99",
	} {
		if _, err := fill(project, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error = %v, want %q", text, err, want)
		}
	}
}

func TestCheckRecords(t *testing.T) {
	err := checkRecords(project)
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for name, wrong := range map[string]bool{
		"broken.json": true, "bad-verify.json": true, "no-profile.json": true, "bad-python.json": true, "b-python": false, "a-bench": false, "b-verify": false, "b-profile": false,
	} {
		if strings.Contains(err.Error(), name) != wrong {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}

func TestMarkdown(t *testing.T) {
	files, err := markdown(project)
	if want := []string{"README.md", "docs/design.md"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v, %v, want %v", files, err, want)
	}
}

func TestDeadLinks(t *testing.T) {
	text := "[design](design.md#stages), [top](../README.md), [gone](gone.md), [paper](https://doi.org/10.1), [part](#part), `x[int](y)`\n```\na[b](c)\n```\n"
	if dead := deadLinks(project, "docs/log.md", text); !slices.Equal(dead, []string{"gone.md"}) {
		t.Errorf("dead links: %q", dead)
	}
}
