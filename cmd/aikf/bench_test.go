package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// benchRun runs aikf bench on the CPU, unless the arguments say otherwise, and
// returns what it writes and its exit code.
func benchRun(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := console{in: strings.NewReader(""), out: &stdout, err: &stderr}
	code = run(t.Context(), append([]string{"bench", "--iters", "2", "--device", "cpu"}, args...), c)
	return stdout.String(), stderr.String(), code
}

func TestBenchIsTheProductOfItsLists(t *testing.T) {
	out, errs, code := benchRun(t, "--batch", "1,2", "--vocab", "300,1000", "--top-k", "5,300", "--dtype", "float32,float16", "--format", "json")
	if code != exitDone || errs != "" {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	record, err := bench.DecodeRecord(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if len(record.Results) != 16 {
		t.Errorf("%d results", len(record.Results))
	}
	if want := "aikf bench --iters 2 --device cpu --batch 1,2 --vocab 300,1000 --top-k 5,300 --dtype float32,float16 --format json"; record.Command != want {
		t.Errorf("command %q", record.Command)
	}
	for _, r := range record.Results {
		if r.Source != bench.Random || r.Work != bench.TopK || r.Threads != 1 || r.Device != "cpu" {
			t.Errorf("%+v", r)
		}
	}
}

func TestBenchDefaultCases(t *testing.T) {
	runner := &bench.Runner{Real: bench.RealLogits()}
	cases, err := benchFlags{work: bench.TopK}.cases(runner.Real, bench.SamplingsOf, runner.Validate)
	if err != nil {
		t.Fatal(err)
	}
	var shapes [][3]int
	for _, c := range cases {
		shapes = append(shapes, [3]int{c.Batch, c.Vocab, c.TopK})
		if c.DType != bench.BFloat16 {
			t.Errorf("%v", c)
		}
	}
	want := [][3]int{
		{1, 50304, 50}, {1, 50304, 100}, {1, 50304, 200}, {4, 50304, 50}, {16, 50304, 50}, {32, 50304, 50}, {32, 50304, 200},
		{1, 50304, 50},
	}
	if !slices.Equal(shapes, want) {
		t.Errorf("%v, want %v", shapes, want)
	}
	if last := cases[len(cases)-1]; last.Source != bench.Real || cases[0].Source != bench.Random {
		t.Errorf("the last row is of %s logits", last.Source)
	}
}

func TestBenchWorkTierThreads(t *testing.T) {
	out, errs, code := benchRun(t, "--vocab", "500", "--work", "topk,stream,merge", "--tier", "pure", "--rows", "adversarial,random", "--format", "csv")
	if code != exitDone {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if want := 1 + 3*(len(bench.AdversarialSources())+1); err != nil || len(lines) != want {
		t.Errorf("%d lines, want %d (%v)", len(lines), want, err)
	}
	out, errs, code = benchRun(t, "--vocab", "500", "--batch", "3", "--threads", "1,2")
	if code != exitDone || !strings.Contains(out, "threads  batch") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

// TestBenchLogits reads a file; the tensor may be named.
func TestBenchLogits(t *testing.T) {
	file := filepath.Join("..", "..", "internal", "bench", "testdata", "real_logits_8x50304_bf16.safetensors")
	for _, spec := range []string{file, file + ":logits"} {
		out, errs, code := benchRun(t, "--logits", spec, "--top-k", "7", "--dtype", "bfloat16,float32", "--format", "json")
		if code != exitDone {
			t.Fatalf("exit code %d, %s", code, errs)
		}
		record, err := bench.DecodeRecord(strings.NewReader(out))
		if err != nil || len(record.Results) != 2 {
			t.Fatalf("%v: %s", err, out)
		}
		if r := record.Results[0]; r.Source != bench.Real || r.Vocab != 50304 || r.TopK != 7 || r.DType != bench.BFloat16 {
			t.Errorf("%+v", r)
		}
	}
}

func TestBenchBadUsage(t *testing.T) {
	t.Setenv("AIKF_PYTHON", "")
	for want, args := range map[string][]string{
		"unexpected word":               {"quickly"},
		`--mode "slow", want graph`:     {"--device", "cuda", "--mode", "slow"},
		`--cache "hot", want warm`:      {"--device", "cuda", "--cache", "hot"},
		`--plan "clever", want one`:     {"--device", "cuda", "--plan", "clever"},
		"--plan is for a GPU":           {"--plan", "any"},
		"--cache is for a GPU":          {"--cache", "warm"},
		"--tier is for the CPU":         {"--device", "cuda", "--tier", "pure"},
		"--threads is for the CPU":      {"--device", "cuda", "--threads", "1"},
		`against "python:only"`:         {"--against", "python:only"},
		"leave out --mode":              {"--device", "cuda", "--acceptance", "--mode", "graph"},
		"\"tpu\"":                       {"--device", "tpu"},
		"--format":                      {"--format", "pdf"},
		"iters = 0":                     {"--iters", "0"},
		"batch = 0":                     {"--batch", "0"},
		"-batch":                        {"--batch", "one"},
		"top-k = 101 is outside":        {"--vocab", "100", "--top-k", "101"},
		"int8":                          {"--dtype", "int8"},
		"work \"luck\"":                 {"--work", "luck"},
		"work is empty":                 {"--work", ","},
		"rows \"even\"":                 {"--rows", "even"},
		"rows is empty":                 {"--rows", ","},
		"no tier \"abacus\"":            {"--tier", "abacus"},
		"against \"excel\"":             {"--against", "excel"},
		"real logits have vocab":        {"--rows", "real", "--vocab", "100"},
		"exceeds":                       {"--batch", "2000000"},
		"work \"merge\" runs on one":    {"--work", "merge", "--threads", "2"},
		"nowhere.npy":                   {"--logits", "nowhere.npy"},
		"--out: open":                   {"--out", filepath.Join(t.TempDir(), "nowhere", "record.json")},
		"leave out --top-k":             {"--acceptance", "--top-k", "5"},
		"leave out --tier":              {"--acceptance", "--tier", "pure"},
		"flag provided but not defined": {"--speed", "11"},
	} {
		out, errs, code := benchRun(t, args...)
		if code != exitUsage || !strings.Contains(errs, want) || out != "" {
			t.Errorf("%v: exit code %d, wrote %q and %q, want %q", args, code, out, errs, want)
		}
	}
	t.Setenv("AIKF_PYTHON", "no-such-python")
	if _, errs, code := benchRun(t, "--against", "numpy"); code != exitUsage || !strings.Contains(errs, "AIKF_PYTHON=no-such-python") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	t.Setenv("AIKF_TARGET_STAGE2_CANDIDATES", "many")
	if _, errs, code := benchRun(t); code != exitUsage || !strings.Contains(errs, "AIKF_TARGET_STAGE2_CANDIDATES") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

// A run that is refused leaves the file of --out as it is.
func TestBenchKeepsTheFileOfOut(t *testing.T) {
	t.Setenv("AIKF_PYTHON", "")
	name := filepath.Join(t.TempDir(), "record.json")
	if _, _, code := benchRun(t, "--rows", "even", "--out", name); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a record of nothing: %v", err)
	}
	if err := os.WriteFile(name, []byte("older"), 0o644); err != nil {
		t.Fatal(err)
	}
	benchRun(t, "--rows", "even", "--out", name)
	if text, err := os.ReadFile(name); string(text) != "older" || err != nil {
		t.Errorf("the file is %q, %v", text, err)
	}
}

// TestBenchGoesOnWithoutAPeer: a Python that has nothing is said, and no error.
func TestBenchGoesOnWithoutAPeer(t *testing.T) {
	t.Setenv("AIKF_PYTHON", "go") // a program that is there, and no Python
	out, errs, code := benchRun(t, "--vocab", "300", "--against", "torch,numpy")
	if code != exitDone || !strings.Contains(errs, "torch not found") || !strings.Contains(errs, "numpy not found") || !strings.Contains(out, "note: numpy not found") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestBenchTargetCandidates(t *testing.T) {
	t.Setenv("AIKF_TARGET_STAGE2_CANDIDATES", "900")
	out, errs, code := benchRun(t, "--vocab", "3000", "--format", "json")
	record, err := bench.DecodeRecord(strings.NewReader(out))
	if code != exitDone || err != nil || record.TargetCandidates != 900 {
		t.Errorf("exit code %d, %v, target %d, %s", code, err, record.TargetCandidates, errs)
	}
}

func TestBenchProgressIsForTerminals(t *testing.T) {
	var stdout, stderr bytes.Buffer
	c := console{in: strings.NewReader(""), out: &stdout, err: &stderr, progress: true}
	if code := run(t.Context(), []string{"bench", "--iters", "2", "--vocab", "300", "--device", "cpu"}, c); code != exitDone {
		t.Fatalf("exit code %d", code)
	}
	if !strings.Contains(stderr.String(), "1 of 1: topk 1 x 300") || !strings.HasSuffix(stderr.String(), "\r\x1b[K") {
		t.Errorf("progress %q", &stderr)
	}
}

func TestBenchInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"bench", "--device", "cpu"}, console{out: &stdout, err: &stderr}); code != exitInterrupted || stdout.Len() > 0 {
		t.Errorf("exit code %d, wrote %q", code, &stdout)
	}
	if !strings.Contains(stderr.String(), "nothing was measured yet") {
		t.Errorf("said %q", &stderr)
	}
}

// interrupter cancels when a text is written.
type interrupter struct {
	bytes.Buffer
	at     string
	cancel func()
}

func (i *interrupter) Write(text []byte) (int, error) {
	if strings.Contains(string(text), i.at) {
		i.cancel()
	}
	return i.Buffer.Write(text)
}

// TestBenchInterruptedKeeps interrupts a run before its third case.
func TestBenchInterruptedKeeps(t *testing.T) {
	out := filepath.Join(t.TempDir(), "record.json")
	t.Setenv("TMPDIR", t.TempDir())
	for _, test := range []struct {
		args  []string
		where string // a pattern
	}{
		{[]string{"--out", out}, out},
		{[]string{"--format", "json"}, "standard output"},
		{nil, filepath.Join(os.TempDir(), "aikf-bench-*.json")},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var stdout bytes.Buffer
		stderr := &interrupter{at: "3 of 4", cancel: cancel}
		args := append([]string{"bench", "--device", "cpu", "--iters", "2", "--vocab", "300", "--batch", "1,2,3,4"}, test.args...)
		code := run(ctx, args, console{out: &stdout, err: stderr, progress: true})
		_, said, found := strings.Cut(stderr.String(), "2 results were measured; the record is in ")
		where, _, _ := strings.Cut(said, "\n")
		if matched, _ := filepath.Match(test.where, where); code != exitInterrupted || !found || !matched {
			t.Fatalf("%v: exit code %d, said %q", test.args, code, stderr)
		}
		text := stdout.Bytes()
		if test.args == nil || test.args[0] == "--out" {
			if !strings.Contains(stdout.String(), "interrupted") {
				t.Errorf("%v: the table does not say that the run was interrupted:\n%s", test.args, &stdout)
			}
			var err error
			if text, err = os.ReadFile(where); err != nil {
				t.Fatal(err)
			}
		}
		record, err := bench.DecodeRecord(bytes.NewReader(text))
		if err != nil || !record.Interrupted || len(record.Results) != 2 {
			t.Errorf("%v: %v, interrupted %v, %d results", test.args, err, record.Interrupted, len(record.Results))
		}
	}
}

func TestBenchQuiet(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"bench", "--device", "cpu", "--iters", "2", "--vocab", "300", "--quiet"}, console{out: &stdout, err: &stderr, progress: true})
	if code != exitDone || stderr.Len() > 0 {
		t.Errorf("exit code %d, said %q", code, &stderr)
	}
}

func TestBenchHelp(t *testing.T) {
	out, errs, code := benchRun(t, "--help")
	if code != exitDone || errs != "" || !strings.Contains(out, "AIKF_PYTHON") || !strings.Contains(out, "-acceptance") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestMissed(t *testing.T) {
	err := missed([]bench.Verdict{{Work: "fast", Verdict: bench.Met}, {Work: "slow", Verdict: bench.Missed}, {Work: "gone", Verdict: bench.NotMeasured}})
	if code := exitCode(err, console{err: new(bytes.Buffer)}); code != exitWrong || !strings.Contains(err.Error(), "1 of 3 bars missed: slow") {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := missed([]bench.Verdict{{Work: "new", Verdict: bench.NotMeasured, Reason: bench.Unsupported + "no kernel"}}); exitCode(err, console{err: new(strings.Builder)}) != exitWrong {
		t.Errorf("a work that the device does not have: %v", err)
	}
	if err := missed([]bench.Verdict{{Verdict: bench.MustOnly}, {Verdict: bench.NotMeasured}}); err != nil {
		t.Error(err)
	}
}

func TestBenchErrorCodes(t *testing.T) {
	c := console{err: new(bytes.Buffer)}
	if code := exitCode(benchError(t.Context(), "bench", bench.ErrWrong), c); code != exitWrong {
		t.Errorf("a wrong result: exit code %d", code)
	}
	if code := exitCode(benchError(t.Context(), "bench", context.DeadlineExceeded), c); code != exitInternal {
		t.Errorf("another error: exit code %d", code)
	}
}

func TestCommandLine(t *testing.T) {
	if got, want := commandLine("bench", []string{"--logits", "my file", "it's", ""}), `aikf bench --logits 'my file' 'it'\''s' ''`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestBenchSweep(t *testing.T) {
	f := benchFlags{sweep: "k,vocab", batch: intList{2}, topK: intList{50}, dtype: dtypeList{bench.Float32, bench.BFloat16}}
	cases, err := f.cases(bench.Logits{}, bench.SamplingsOf, bench.Case.Validate)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[bench.Case]bool{}
	for _, c := range cases {
		if seen[c] {
			t.Errorf("%v comes twice", c)
		}
		seen[c] = true
		if c.Batch != 2 || c.TopK != 50 && c.Vocab != 50304 {
			t.Errorf("%v varies in more than one dimension", c)
		}
	}
	k, _ := bench.Sweep(bench.SweepK, bench.Case{Batch: 2, Vocab: 50304, TopK: 50})
	vocab, _ := bench.Sweep(bench.SweepVocab, bench.Case{Batch: 2, Vocab: 50304, TopK: 50})
	if want := 2 * (len(k) + len(vocab) - 1); len(cases) != want {
		t.Errorf("%d cases, want %d", len(cases), want)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--sweep", "columns"}, `sweep "columns" is not one of rows, vocab, k, grid`},
		{[]string{"--sweep", "k", "--batch", "1,2"}, "--batch has 2 values"},
		{[]string{"--sweep", ","}, "sweep is empty"},
		{[]string{"--sweep", "k", "--acceptance"}, "leave out --sweep"},
	} {
		_, stderr, code := runLine(t, nil, append([]string{"bench", "--device", "cpu"}, test.args...)...)
		if code != exitUsage || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit code %d, %q; want %q", test.args, code, stderr, test.want)
		}
	}
}

// On a GPU a work is one of its own, and other samplings are measured than on a CPU.
func TestBenchSamplingsOfDevices(t *testing.T) {
	f := benchFlags{work: bench.Sample, batch: intList{1, 2}, vocab: intList{300}, topK: intList{5, 60}}
	onCPU, err := f.cases(bench.Logits{}, bench.SamplingsOf, bench.Case.Validate)
	if err != nil {
		t.Fatal(err)
	}
	onGPU, err := f.cases(bench.Logits{}, bench.DeviceSamplingsOf, bench.Case.Validate)
	if err != nil {
		t.Fatal(err)
	}
	// Four samplings of each side have no top-k: their rows are the same for every k.
	if cpu, gpu := 2*2*len(bench.Samplings())-2*4, 2*2*len(bench.DeviceSamplings())-2*4; len(onCPU) != cpu || len(onGPU) != gpu {
		t.Errorf("%d and %d cases, want %d and %d", len(onCPU), len(onGPU), cpu, gpu)
	}
	for _, test := range []struct {
		work, device string
		fails        bool
	}{{"topk,sample", "cuda", false}, {"sample", "auto", false}, {"stream", "cuda", true}, {"sample,merge", "cuda:1", true}, {"stream", "cpu", false}} {
		choice, err := parseDevice(test.device)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (benchFlags{work: test.work}).narrow(choice); (err != nil) != test.fails {
			t.Errorf("--work %s --device %s: %v", test.work, test.device, err)
		}
	}
}
