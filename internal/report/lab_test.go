package report

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/bench"
)

const pythonText = `{"schema": 1, "kind": "python", "machine": {"gpu": "Example H1", "torch": "2.4.0"}, "command": "bars.py",
	"results": [{"batch": 1, "vocab": 50304, "top_k": 50, "dtype": "bfloat16", "right": true, "times": {
		"host copy_": {"us": 6}, "host aikf": {"us": 8}, "eager torch": {"us": 60}, "eager aikf": {"us": 8},
		"graph torch": {"us": 33}, "graph aikf": {"us": 4}}}],
	"sampling": [{"batch": 8, "vocab": 32768, "top_k": 50, "dtype": "float32", "right": true, "times": {
		"host copy_": {"us": 6}, "host aikf": {"us": 9}, "eager torch": {"us": 240}, "eager aikf": {"us": 12},
		"graph torch": {"us": 66}, "graph aikf": {"us": 5.5}}}],
	"decode": [{"vocab": 32768, "batch": 8, "right": true, "tokens_per_second": {"eager none": 6000, "eager torch": 4000, "eager aikf": 5500,
		"graph none": 30000, "graph torch": 20000, "graph aikf": 29000}}],
	"acceptance": [{"figure": "eager", "must": 5, "aim": 7, "measured": 4.5, "row": "1 x 50", "verdict": "missed"}]}`

const verifiedText = `{"schema": 1, "device": "cuda:0", "gpu": "Example H1", "command": "aikf verify", "commit": "abc", "counts": {"rows": 1000, "logits": 1000000}, "outcome": "equal"}`

// folder is one of every kind of record.
func folder(t *testing.T) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{"py.json": {Data: []byte(pythonText)}, "verify.json": {Data: []byte(verifiedText)},
		"cpu-verify.json": {Data: []byte(`{"schema": 1, "cases": 84, "rows": 13509, "outcome": "equal"}`)}, "README.md": {Data: []byte("no record")}}
	for name, record := range records() {
		var b bytes.Buffer
		if err := record.Encode(&b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files[name+".json"] = &fstest.MapFile{Data: b.Bytes()}
	}
	return files
}

func profiles() *bench.Profiles {
	return &bench.Profiles{
		Schema: 1, GPU: bench.GPU{Name: "Example H1", Driver: "12.8", ComputeCapability: "9.0", Multiprocessors: 132, MemoryBytes: 80e9},
		Command: "aikf profile", Commit: "abc", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Profiles: []bench.Profile{{
			Source: bench.Random, Batch: 1, Vocab: 50304, TopK: 50, DType: bench.BFloat16, Plan: cuda.Plan{Name: "block"}, CallUS: 4, EmptyUS: 0.8, FloorUS: 1.8,
			Samples: 9, Parts: []bench.Part{{Name: "load", US: 1, Cycles: 2000, Share: 0.5}, {Name: "filter", US: 1, Cycles: 2000, Share: 0.5}}, PartsOf: "block",
		}},
	}
}

// cpuProfiles are those of a CPU.
func cpuProfiles() *bench.Profiles {
	p := profiles()
	p.Schema, p.GPU, p.Machine = bench.ProfileSchema, bench.GPU{}, &bench.Machine{CPU: "Example 9000", Cores: 4, OS: "linux", Arch: "amd64", Tiers: []string{"avx512"}}
	p.Profiles[0].Plan, p.Profiles[0].EmptyUS, p.Profiles[0].Tier = cuda.Plan{}, 0, "avx512"
	p.Profiles[0].Parts = []bench.Part{{Name: "sample", US: 0.05, Share: 0.05, Bytes: 6430}, {Name: "filter", US: 0.95, Share: 0.95, Bytes: 106896}}
	return p
}

const tunedPlans = `{
  "schema": 1, "plan_version": 1, "device": {"kind": "cpu", "name": "Example 9000", "tier": "avx512", "cores": 4},
  "command": "aikf tune", "commit": "abc", "date": "2026-01-02T03:04:05Z", "seed": 1,
  "entries": [{"rows": 1, "vocab": 50304, "top_k": 50, "dtype": "bfloat16", "plan": {"sample_step": 13}, "explained": "every 13 lines", "plans_tried": 147,
    "built_in_us": 1.06, "tuned_us": 0.964, "gain": 1.094, "gain_low": 1.071, "gain_high": 1.116, "confidence": 0.95, "pairs": 800, "starts": 16, "least_start": 1.036}],
  "not_kept": [{"rows": 1, "vocab": 50304, "top_k": 100, "dtype": "bfloat16", "plan": {"sample_step": 21}, "explained": "every 21 lines", "plans_tried": 147,
    "built_in_us": 1.2, "tuned_us": 1.16, "gain": 1.058, "gain_low": 1.002, "gain_high": 1.115, "confidence": 0.95, "pairs": 800, "starts": 16, "least_start": 0.948,
    "reason": "the gain may be below 1 %"}]
}`

func TestLabMarkdown(t *testing.T) {
	sources, problems := ReadSources(folder(t))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	sources = append(sources, Source{File: "profile.json", Profiles: profiles()}, Source{File: "cpu-profile.json", Profiles: cpuProfiles()})
	plans, err := ReadSource(fstest.MapFS{"plans.json": {Data: []byte(tunedPlans)}}, "plans.json")
	if err != nil {
		t.Fatal(err)
	}
	sources = append(sources, plans)
	var b bytes.Buffer
	if err := (Lab{Sources: sources}).Markdown(&b); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "lab.md")
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("Markdown differs from %s; -update writes it:\n%s", golden, b.String())
	}
}

// TestDamaged holds every broken file to an error with its name and its field,
// and the rest to being shown.
func TestDamaged(t *testing.T) {
	files := folder(t)
	matrix := string(files["matrix.json"].Data)
	for name, broken := range map[string]struct{ text, field string }{
		"array.json":    {"[]", "array"},
		"cut.json":      {matrix[:len(matrix)/2], "unexpected end"},
		"empty.json":    {"", "unexpected end"},
		"foreign.json":  {`{"name": "something", "version": 3}`, "schema"},
		"kind.json":     {`{"schema": 1, "kind": "rust"}`, "kind"},
		"new.json":      {strings.Replace(matrix, `"schema": 3`, `"schema": 99`, 1), "schema = 99"},
		"unknown.json":  {strings.Replace(matrix, `"seed"`, `"sed"`, 1), `"sed"`},
		"type.json":     {strings.Replace(matrix, `"batch": 32`, `"batch": "32"`, 1), "batch"},
		"negative.json": {strings.Replace(matrix, `"ours_us": 1.59`, `"ours_us": -1`, 1), "results[0].ours_us"},
		"speedup.json":  {strings.Replace(matrix, `"speedup": `, `"speedup": 7`, 1), "results[0].speedup"},
		"slow.json":     {strings.Replace(pythonText, `"graph aikf": {"us": 4}`, `"graph aikf": {"us": 0}`, 1), `results[0].times["graph aikf"].us`},
		"wrong.json":    {strings.Replace(pythonText, `"right": true`, `"right": false`, 1), "results[0].right"},
		"outcome.json":  {`{"schema": 1, "outcome": ""}`, "outcome"},
		"profile.json":  {`{"schema": 1, "profiles": [{"batch": 1, "vocab": 9, "top_k": 1, "call_us": -4}]}`, "profiles[0].call_us"},
		"plans.json":    {strings.Replace(tunedPlans, `"gain": 1.094`, `"gain": -1`, 1), "entries[0].gain"},
		"tuned.json":    {strings.Replace(tunedPlans, `"name": "Example 9000"`, `"name": ""`, 1), "device.name"},
		"part.json":     {`{"schema": 1, "profiles": [{"batch": 1, "vocab": 9, "top_k": 1, "call_us": 4, "parts": [{"name": "load", "us": -1}]}]}`, "profiles[0].parts[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			all := fstest.MapFS{name: {Data: []byte(broken.text)}}
			for good, file := range files {
				all[good] = file
			}
			sources, problems := ReadSources(all)
			if len(problems) != 1 || len(sources) != len(files)-1 { // README.md is none
				t.Fatalf("%d records, want %d; problems: %v", len(sources), len(files)-1, problems)
			}
			text := problems[0].Error()
			if !strings.Contains(text, name) || !strings.Contains(text, broken.field) {
				t.Errorf("error %q, want %s and %s", text, name, broken.field)
			}
			if !errors.Is(problems[0], ErrSource) && !errors.Is(problems[0], bench.ErrRecord) {
				t.Errorf("error %q wraps neither ErrSource nor ErrRecord", text)
			}
			var md, html bytes.Buffer
			l := Lab{Sources: sources, Problems: problems}
			if err := errors.Join(l.Markdown(&md), l.HTML(&html)); err != nil {
				t.Fatal(err)
			}
			for _, document := range []string{md.String(), html.String()} {
				if !strings.Contains(document, name) || !strings.Contains(document, "matrix.json") {
					t.Errorf("the document has not both %s and matrix.json", name)
				}
			}
		})
	}
}

func TestReadSourceAbsent(t *testing.T) {
	if _, err := ReadSource(fstest.MapFS{}, "absent.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v, want that there is no such file", err)
	}
}

// TestPageStandsAlone holds the page to one file: what it loads is in it, and a
// name from a record cannot become a part of it.
func TestPageStandsAlone(t *testing.T) {
	sources, problems := ReadSources(folder(t))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for i := range sources {
		if r := sources[i].Bench; r != nil {
			r.Command = `aikf </script><script>alert(1)</script>`
		}
	}
	var b bytes.Buffer
	if err := (Lab{Sources: sources}).HTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, foreign := range []string{"<script>alert", " src=", "<link rel=\"stylesheet\"", "@import", "url("} {
		text := page
		for _, library := range []string{d3Library, plotLibrary} {
			text = strings.Replace(text, library, "", 1)
		}
		if strings.Contains(text, foreign) {
			t.Errorf("the page has %q", foreign)
		}
	}
	if !strings.Contains(page, "default-src 'none'") {
		t.Error("the page does not forbid requests")
	}
}
