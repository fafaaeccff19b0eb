package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// aikf runs a command line and returns what it writes and its exit code.
func aikf(ctx context.Context, args ...string) (out, errs string, code int) {
	var stdout, stderr bytes.Buffer
	code = run(ctx, args, console{in: strings.NewReader(""), out: &stdout, err: &stderr})
	return stdout.String(), stderr.String(), code
}

// tunedFile writes a plan file of this CPU, or what change makes of it.
func tunedFile(t *testing.T, change func(*bench.CPUPlans)) string {
	t.Helper()
	file := bench.NewCPUPlans("")
	file.Entries = []planfile.Entry[cpu.Tuning]{{
		Shape: planfile.Shape{Rows: 1, Vocab: 3000, TopK: 20, DType: "float32"}, Plan: cpu.Tuning{Step: 5}, Explained: "every 5 lines", Tried: 99,
		BuiltInUS: 1.06, TunedUS: 0.964, Gain: 1.094, GainLow: 1.071, GainHigh: 1.116, Confidence: 0.95, Pairs: 800, Starts: 16, LeastStart: 1.036,
	}}
	file.NotKept = []planfile.Entry[cpu.Tuning]{{
		Shape: planfile.Shape{Rows: 4, Vocab: 3000, TopK: 20, DType: "float32"}, Plan: cpu.Tuning{Step: 3}, Explained: "every 3 lines", Tried: 99,
		BuiltInUS: 4, TunedUS: 3.9, Gain: 1.02, GainLow: 0.99, GainHigh: 1.05, Confidence: 0.95, Pairs: 700, Starts: 14, LeastStart: 0.97, Reason: "the gain may be below 1 %",
	}}
	if change != nil {
		change(&file)
	}
	name := filepath.Join(t.TempDir(), "plans.json")
	text, err := json.Marshal(file)
	if err == nil {
		err = os.WriteFile(name, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTune(t *testing.T) {
	name := filepath.Join(t.TempDir(), "plans.json")
	line := []string{"tune", "--device", "cpu", "--batch", "1,2", "--vocab", "3000", "--top-k", "20", "--dtype", "float32", "--budget", "300ms", "--out", name}
	out, errs, code := aikf(t.Context(), line...)
	if code != exitDone || errs != "" || !strings.Contains(out, "1 x 3000, k = 20, float32") || !strings.Contains(out, "2 x 3000, k = 20, float32") {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := planfile.Decode[cpu.Tuning](bytes.NewReader(text), planfile.CPU)
	if err != nil {
		t.Fatal(err)
	}
	if len(file.Entries)+len(file.NotKept) != 2 || file.Unfinished != nil || file.Command != strings.Join(append([]string{"aikf"}, line...), " ") ||
		file.Device.Tier != topk.Tiers()[0] || file.Commit == "" || time.Since(file.Date) > time.Hour {
		t.Errorf("%+v", file)
	}
	// What is there is not written over, but gone on with.
	if out, errs, code = aikf(t.Context(), line...); code != exitUsage || !strings.Contains(errs, "plans.json is there; --resume goes on with it") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	started := time.Now()
	if out, errs, code = aikf(t.Context(), append(line, "--resume", "--budget", "1h")...); code != exitDone || errs != "" || time.Since(started) > 10*time.Minute {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	folder, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(folder) != 1 {
		t.Errorf("%v beside the file, %v", folder, err)
	}
}

// An interrupt keeps what is known and says where.
func TestTuneInterrupted(t *testing.T) {
	name := filepath.Join(t.TempDir(), "plans.json")
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		time.Sleep(200 * time.Millisecond)
		cancel(context.Canceled)
	}()
	out, errs, code := aikf(ctx, "tune", "--device", "cpu", "--vocab", "3000", "--top-k", "20", "--budget", "1h", "--out", name)
	if code != exitInterrupted || !strings.Contains(errs, name+" keeps what is known of 0 of 1 shapes; the same command with --resume goes on") {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := planfile.Decode[cpu.Tuning](bytes.NewReader(text), planfile.CPU)
	if err != nil || file.Unfinished == nil || file.Unfinished.Vocab != 3000 || len(file.Unfinished.Plans) == 0 {
		t.Fatalf("%+v, %v", file, err)
	}
	out, errs, code = aikf(t.Context(), "tune", "--device", "cpu", "--vocab", "3000", "--top-k", "20", "--budget", "200ms", "--out", name, "--resume")
	if code != exitDone || errs != "" || !strings.Contains(out, "1 x 3000") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestTuneUsage(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "no", "plans.json")
	other := tunedFile(t, func(f *bench.CPUPlans) { f.Device.Name = "Some Other CPU" })
	for line, words := range map[string]string{
		"tune word":                      `unexpected word "word"`,
		"tune --budget 0s":               "--budget 0s",
		"tune --threads -1":              "--threads -1 is negative",
		"tune --device cuda --tier pure": "--tier and --threads are for the CPU",
		"tune --tier vax":                `no tier "vax"`,
		"tune --device cpu --vocab 10 --top-k 11 --out " + nowhere: "top-k = 11",
		"tune --device cpu --out " + nowhere:                       "no such file",
		"tune --device cpu --resume --out " + nowhere:              "--resume",
		"tune --device cpu --resume --out " + other:                "plans of CPU Some Other CPU",
		"tune --device gpu":                                        `--device "gpu"`,
		"bench --device cpu --vocab 3000 --plan-file " + other:     "plans of CPU Some Other CPU",
		"profile --device cpu --plan-file " + other:                "plans of CPU Some Other CPU",
		"topk --jsonl --plan-file " + other:                        other,
		"topk --jsonl --plan-file " + nowhere:                      "no such file",
		"profile --device cpu --plan block":                        "--plan is for a GPU",
		"profile --device cuda --tier pure":                        "--tier is for the CPU",
		"profile --device cpu --work sample":                       "--work sample is for a GPU",
		"profile --work sample --plan block":                       "--plan is for --work topk",
		"profile --work stream":                                    "--work \"stream\", want topk or sample",
		"profile --tier vax":                                       `no tier "vax"`,
	} {
		out, errs, code := aikf(t.Context(), strings.Fields(line)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, words) {
			t.Errorf("%s: exit code %d, %s%s, want %s", line, code, out, errs, words)
		}
	}
}

// The golden output of a file of plans.
func TestExplainPlans(t *testing.T) {
	text, err := os.ReadFile(tunedFile(t, func(f *bench.CPUPlans) {
		f.Device = planfile.Device{Kind: planfile.CPU, Name: "Example 9000", Tier: "avx512"}
	}))
	if err != nil {
		t.Fatal(err)
	}
	file, err := planfile.Decode[cpu.Tuning](bytes.NewReader(text), planfile.CPU)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	explainPlans(&out, file)
	const want = `CPU Example 9000 (tier avx512)

shape                     built-in (us)  tuned (us)  gain    95 % interval     least   starts  plans  kept
1 x 3000, k = 20, float32  1.06           0.964       +9.4 %  +7.1 to +11.6 %   +3.6 %  16      99     yes
4 x 3000, k = 20, float32  4              3.9         +2.0 %  -1.0 to +5.0 %    -3.0 %  14      99     no: the gain may be below 1 %

1 x 3000, k = 20, float32: every 5 lines
`
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("%s, want\n%s", out.String(), want)
	}
}

// squeeze makes one space of several.
func squeeze(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n")
}

// Plans of a file change the plan of a call, and no answer.
func TestPlanFile(t *testing.T) {
	name := tunedFile(t, nil)
	out, errs, code := aikf(t.Context(), "profile", "--device", "cpu", "--vocab", "3000", "--top-k", "20", "--dtype", "float32", "--plan-file", name)
	if code != exitDone || errs != "" || !strings.Contains(out, "sample every 5 lines") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	out, errs, code = aikf(t.Context(), "plan", "--vocab", "3000", "--top-k", "20", "--dtype", "float32,bfloat16", "--plan-file", name)
	if code != exitDone || errs != "" || strings.Count(out, "every 5th cache line") != 1 {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	out, errs, code = aikf(t.Context(), "plan", "--tier", "neon", "--plan-file", name)
	if code != exitUsage || !strings.Contains(errs, "not of tier neon") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	out, errs, code = aikf(t.Context(), "plan", "--device", "cuda", "--plan-file", name)
	if code != exitUsage || !strings.Contains(errs, `device.kind = "cpu", want "cuda"`) {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	out, errs, code = aikf(t.Context(), "bench", "--device", "cpu", "--vocab", "3000", "--top-k", "20", "--dtype", "float32", "--iters", "2", "--plan-file", name)
	if code != exitDone || errs != "" {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	if tiers := topk.Tiers(); len(tiers) > 1 {
		out, errs, code = aikf(t.Context(), "bench", "--device", "cpu", "--vocab", "3000", "--tier", tiers[1], "--iters", "2", "--plan-file", name)
		if code != exitUsage || !strings.Contains(errs, tiers[0]) || !strings.Contains(errs, tiers[1]) {
			t.Errorf("exit code %d, %s%s", code, out, errs)
		}
	}
}

func TestProfileCPU(t *testing.T) {
	line := []string{"profile", "--device", "cpu", "--batch", "1,2", "--vocab", "5000", "--top-k", "20", "--dtype", "float32,float16"}
	out, errs, code := aikf(t.Context(), append(line, "--format", "json")...)
	var all bench.Profiles
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != exitDone || errs != "" {
		t.Fatalf("exit code %d, %v, %s%s", code, err, out, errs)
	}
	if len(all.Profiles) != 4 || all.Machine == nil || all.Schema != bench.ProfileSchema {
		t.Errorf("%+v", all)
	}
	out, errs, code = aikf(t.Context(), line...)
	for _, word := range []string{"batch 2, vocab 5000, top-k 20, float16: tier", "sample", "threshold", "filter", "candidates", "order", "write", "times the floor"} {
		if code != exitDone || errs != "" || !strings.Contains(out, word) {
			t.Fatalf("exit code %d, no %q in %s%s", code, word, out, errs)
		}
	}
}

func TestExplainCPUProfile(t *testing.T) {
	p := bench.Profile{
		Batch: 1, Vocab: 50304, TopK: 50, DType: bench.BFloat16, Tier: "avx512", CPUPlan: "tier avx512, chunk 65536", CallUS: 0.942, FloorUS: 0.745, Candidates: 128.5,
		Bytes: 124254, FloorBytes: 100608, Parts: []bench.Part{{Name: "sample", US: 0.05, Share: 0.053, Bytes: 6430, Cycles: 200, Instructions: 300}, {Name: "filter", US: 0.892, Share: 0.947, Bytes: 117824, Cycles: 3500, Instructions: 4200}},
	}
	const table = `batch 1, vocab 50304, top-k 50, bfloat16: tier avx512, chunk 65536
us share cycles instructions bytes GB/s
sample 0.050 5.3% 200 300 6430 128.6
filter 0.892 94.7% 3500 4200 117824 132.1
call 0.942 100.0% 3700 4500 124254 131.9
floor 0.745 100608 135.0
the call takes 1.26 times the floor, one maximum pass over the same rows, and moves 1.24 times its bytes; 128.5 candidates a row
`
	var out strings.Builder
	explainCPUProfile(&out, p)
	if squeeze(out.String()) != table {
		t.Errorf("%s, want\n%s", squeeze(out.String()), table)
	}
	p.Uncounted = "perf_event_open: permission denied"
	out.Reset()
	explainCPUProfile(&out, p)
	if !strings.Contains(out.String(), "no cycles and instructions: perf_event_open: permission denied\n") || strings.Contains(out.String(), " 3700 ") {
		t.Error(out.String())
	}
}
