package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// plansOf runs "aikf plan --format json" with more arguments.
func plansOf(t *testing.T, args ...string) []launchPlan {
	t.Helper()
	out, errs, code := runLine(t, nil, append([]string{"plan", "--format", "json"}, args...)...)
	var got struct {
		Schema int
		Plans  []launchPlan
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Schema != 1 || code != exitDone || errs != "" {
		t.Fatalf("exit %d, errors %q, %v, output %s", code, errs, err, out)
	}
	return got.Plans
}

func TestPlanIsTheEngines(t *testing.T) {
	got := plansOf(t, "--batch", "1,400", "--vocab", "1000,50304", "--top-k", "5,200", "--dtype", "float16,float32",
		"--tier", "avx2", "--cores", "16", "--threads", "0", "--device", "cpu")
	if len(got) != 16 {
		t.Fatalf("%d plans, want 16", len(got))
	}
	sizes := map[string]int{"float32": 4, "float16": 2}
	seen := make(map[string]bool)
	for _, g := range got {
		seen[fmt.Sprint(g.Batch, g.Vocab, g.TopK, g.DType)] = true
		p := cpu.NewPlan(cpu.Shape{Rows: g.Batch, Vocab: g.Vocab, K: g.TopK, ElementBytes: sizes[string(g.DType)]}, simd.AVX2, 16)
		want := launchPlan{
			g.Batch, g.Vocab, g.TopK, g.DType, "avx2", 16, p.Chunk, p.Sample.Step, p.Sample.Groups, p.Sample.Rank,
			p.Sample.Candidates, p.Capacity, p.WorkspaceBytes(), p.Threads,
		}
		if !reflect.DeepEqual(g, want) {
			t.Errorf("plan %+v, want %+v", g, want)
		}
	}
	if len(seen) != 16 {
		t.Errorf("plans of %d shapes, want 16: %v", len(seen), seen)
	}
}

func TestPlanOfTheDefaultShape(t *testing.T) {
	out, errs, code := runLine(t, nil, "plan", "--tier", "pure", "--cores", "4")
	if code != exitDone || errs != "" || strings.Count(out, "\n\n") != 0 {
		t.Errorf("exit %d, errors %q", code, errs)
	}
	p := plansOf(t, "--tier", "pure", "--cores", "4")[0]
	for _, part := range []string{
		"batch 1, vocab 50304, top-k 50, bfloat16 on tier pure with 4 cores\n",
		fmt.Sprintf("every %s cache line of 64 bytes, in %d groups; the threshold is the %s largest", ordinal(p.SampleStep), p.SampleGroups, ordinal(p.SampleRank)),
		fmt.Sprintf("about %d reach the threshold", p.Candidates),
		fmt.Sprintf("workspace   %d bytes a thread\n", p.WorkspaceBytes),
		"threads     1\n",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	out, _, _ = runLine(t, nil, "plan", "--vocab", "100", "--top-k", "100,0", "--tier", "pure")
	for _, part := range []string{"sample      none", "nothing to do", "\n\n"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for message, args := range map[string][]string{
		"k = 11 exceeds vocab = 10":           {"--vocab", "10", "--top-k", "5,11"},
		`"x" is not an integer from 0`:        {"--batch", "1,x"},
		`"" is not an integer from 0`:         {"--batch", "1,"},
		`"-1" is not an integer from 0`:       {"--batch", "-1"},
		`"2147483648" is not an integer`:      {"--vocab", "2147483648"},
		`" 4" is not an integer`:              {"--top-k", "1, 4"},
		`dtype "fp16", want float32, float16`: {"--dtype", "float32,fp16"},
		`dtype "", want float32`:              {"--dtype", ""},
		`--tier "sse2", want one of pure`:     {"--tier", "sse2"},
		"--threads -1 is negative":            {"--threads", "-1"},
		"--cores 0, want at least 1":          {"--cores", "0"},
		`--format "md", want text or json`:    {"--format", "md"},
		"--tier is for the CPU":               {"--device", "cuda", "--tier", "avx2"},
		"--arch is for --device cuda":         {"--arch", "sm_80"},
		`architecture "sm_20", want one of`:   {"--device", "cuda", "--arch", "sm_20"},
		`"one" is not the number of a device`: {"--device", "cuda:one"},
		`--device "gpu", want auto, cpu`:      {"--device", "gpu"},
		`unexpected word "50304"`:             {"50304"},
	} {
		wantRefused(t, message, append([]string{"plan"}, args...)...)
	}
	wantRefused(t, `unexpected word "x"`, "info", "x")
	wantRefused(t, `--format "csv", want text or json`, "info", "--format", "csv")
}

func TestTargetCandidates(t *testing.T) {
	t.Setenv(targetCandidatesVariable, "")
	usual := plansOf(t)[0]
	t.Setenv(targetCandidatesVariable, "2000")
	if p := plansOf(t)[0]; p.Candidates < 1500 || p.Candidates > 2500 || usual.Candidates > 1500 {
		t.Errorf("%d candidates with a target of 2000, %d without", p.Candidates, usual.Candidates)
	}
	file := writeNpy(t, "(3,)", []float32{1, 3, 2})
	if out, errs, code := runLine(t, nil, "topk", file, "--top-k", "1"); code != exitDone || !strings.Contains(out, "1              3\n") {
		t.Errorf("exit %d, errors %q, output %s", code, errs, out)
	}
	for _, value := range []string{"0", "-500", "500.0", "many", " 500", "1048577", "99999999999999999999"} {
		t.Setenv(targetCandidatesVariable, value)
		message := fmt.Sprintf("AIKF_TARGET_STAGE2_CANDIDATES = %q, want an integer from 1 to 1048576", value)
		wantRefused(t, message, "plan")
		wantRefused(t, message, "topk", file, "--top-k", "1")
		wantRefused(t, message, "topk", "--jsonl")
	}
}

func TestOrdinal(t *testing.T) {
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 17: "17th", 21: "21st", 111: "111th", 122: "122nd"} {
		if got := ordinal(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
