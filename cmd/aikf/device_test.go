package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// withoutGPU skips a test that says what happens where none is.
func withoutGPU(t *testing.T) {
	t.Helper()
	if n, err := cuda.DeviceCount(); err == nil && n > 0 {
		t.Skipf("this machine has %d CUDA devices", n)
	}
}

func TestParseDevice(t *testing.T) {
	for text, want := range map[string]deviceChoice{
		"auto":   {text: "auto", cuda: true, auto: true},
		"cpu":    {text: "cpu"},
		"cuda":   {text: "cuda", cuda: true},
		"cuda:3": {text: "cuda:3", cuda: true, ordinal: 3},
	} {
		if got, err := parseDevice(text); got != want || err != nil {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "gpu", "cuda:", "cuda:-1", "cuda:one", "cpu:1", "CUDA", "cuda:99999999999"} {
		if _, err := parseDevice(text); exitCode(err, console{err: new(strings.Builder)}) != exitUsage {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestOpenDevice: no GPU is bad usage, or the CPU if that will do; any other
// failure is neither.
func TestOpenDevice(t *testing.T) {
	fault := errors.New("the card burns")
	for _, test := range []struct {
		device string
		fails  error
		opened bool
		code   int
		said   string
	}{
		{"cpu", fault, false, exitDone, ""},
		{"cuda", nil, true, exitDone, ""},
		{"auto", nil, true, exitDone, ""},
		{"auto", cuda.ErrUnavailable, false, exitDone, "aikf: work: on the CPU: "},
		{"cuda:1", cuda.ErrUnavailable, false, exitUsage, `--device "cuda:1": `},
		{"auto", fault, false, exitInternal, "the card burns"},
	} {
		choice, err := parseDevice(test.device)
		if err != nil {
			t.Fatal(err)
		}
		var errs strings.Builder
		c := console{err: &errs}
		_, opened, err := openDevice(choice, "work", c, func(int) (int, error) { return 0, test.fails })
		if code := exitCode(err, c); opened != test.opened || code != test.code || !strings.Contains(errs.String(), test.said) || (test.said == "") != (errs.Len() == 0) {
			t.Errorf("%s, %v: opened %v, exit code %d, said %q", test.device, test.fails, opened, code, errs.String())
		}
	}
}

func TestWithoutGPU(t *testing.T) {
	withoutGPU(t)
	file := writeNpy(t, "(3,)", []float32{1, 3, 2})
	for _, line := range []string{
		"bench --device cuda", "bench --device cuda:0 --acceptance", "bench --plan any --device auto", "profile --device cuda", "profile --plan block", "verify --device cuda",
		"topk " + file + " --top-k 1 --device cuda", "topk --jsonl --device cuda:2", "info --device cuda",
	} {
		out, errs, code := runLine(t, nil, strings.Fields(line)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, "--device") {
			t.Errorf("%s: exit code %d, wrote %q and %q", line, code, out, errs)
		}
	}
	for _, line := range []string{
		"bench --device auto --iters 2 --vocab 300", "bench --iters 2 --vocab 300", "verify --device auto --duration 1ms",
		"topk " + file + " --top-k 1 --device auto",
	} {
		out, errs, code := runLine(t, nil, strings.Fields(line)...)
		if code != exitDone || out == "" || !strings.Contains(errs, "on the CPU: ") {
			t.Errorf("%s: exit code %d, wrote %q and %q", line, code, out, errs)
		}
	}
	// What only the CPU has leaves no choice.
	if _, errs, code := runLine(t, nil, "bench", "--iters", "2", "--vocab", "300", "--tier", "pure"); code != exitDone || errs != "" {
		t.Errorf("exit code %d, %q", code, errs)
	}
	out, errs, code := runLine(t, nil, "info")
	if code != exitDone || errs != "" || !strings.Contains(out, "\ngpu        none: ") {
		t.Errorf("exit code %d, wrote %q and %q", code, out, errs)
	}
}

func TestDeviceBadUsage(t *testing.T) {
	for message, line := range map[string]string{
		`unexpected word "x"`:             "profile x",
		`--plan "best", want one`:         "profile --plan best",
		`--format "md", want text or js`:  "profile --format md",
		"--tier is for the CPU":           "topk --jsonl --device cuda --tier pure",
		"verify: --tier is for the CPU":   "verify --device cuda --tier pure",
		"verify: --rows is for a GPU":     "verify --rows 5",
		"verify: --law is for a GPU":      "verify --law 5",
		"verify: --law = -5":              "verify --law -5",
		"are two comparisons":             "verify --law 5 --rows 5",
		"verify: --rows = -5":             "verify --rows -5",
		`"tpu", want auto, cpu, cuda`:     "info --device tpu",
		`"tpu", want auto, cpu, cuda or `: "verify --device tpu",
	} {
		wantRefused(t, message, strings.Fields(line)...)
	}
	t.Setenv(targetCandidatesVariable, "few")
	for _, line := range []string{"profile --device cuda", "plan --device cuda", "bench --device cuda", "verify --device cuda"} {
		wantRefused(t, targetCandidatesVariable, strings.Fields(line)...)
	}
}

func TestConditions(t *testing.T) {
	for _, test := range []struct{ mode, cache, want string }{
		{"", "", "graph warm, graph cold, eager warm"},
		{"graph,eager", "warm,cold", "graph warm, graph cold, eager warm, eager cold"},
		{"eager", "", "eager warm"},
		{"", "cold", "graph cold"},
	} {
		conditions, err := benchFlags{mode: test.mode, cache: test.cache}.conditions()
		var names []string
		for _, c := range conditions {
			names = append(names, c.String())
		}
		if got := strings.Join(names, ", "); got != test.want || err != nil {
			t.Errorf("--mode %q --cache %q: %s, %v", test.mode, test.cache, got, err)
		}
	}
}

// devicePlansOf runs "aikf plan --device cuda --format json".
func devicePlansOf(t *testing.T, args ...string) []devicePlan {
	t.Helper()
	out, errs, code := runLine(t, nil, append([]string{"plan", "--device", "cuda", "--format", "json"}, args...)...)
	var got struct {
		Schema int
		Plans  []devicePlan
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Schema != 1 || code != exitDone || errs != "" {
		t.Fatalf("exit %d, errors %q, %v, output %s", code, errs, err, out)
	}
	return got.Plans
}

func TestDevicePlans(t *testing.T) {
	plans := devicePlansOf(t, "--batch", "1,512", "--vocab", "300,151936", "--top-k", "0,50,200", "--dtype", "bfloat16,float32", "--arch", "sm_80")
	if len(plans) != 24 {
		t.Fatalf("%d plans, want 24", len(plans))
	}
	arch, err := cuda.ParseArchitecture("sm_80")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plans {
		want, err := cuda.ChoosePlan(cuda.PlanShape{Rows: p.Batch, Vocab: p.Vocab, K: p.TopK, DType: cudaDTypes[p.DType]}, arch, cuda.PlanOptions{})
		if err != nil || p.Chosen.String() != want.String() || p.Arch != "sm_80" {
			t.Errorf("%+v, want %v", p, want)
		}
		if p.TopK > 0 && (p.TwoStage == nil || p.TwoStage.Name != cuda.PlanTwoStage || len(p.TwoStage.Kernels) != 2) {
			t.Errorf("%d x %d of %d: two-stage plan %v, %s", p.Batch, p.TopK, p.Vocab, p.TwoStage, p.Unfit)
		}
	}
	huge := devicePlansOf(t, "--top-k", "5000")[0]
	if huge.Chosen.Name != cuda.PlanAny || huge.TwoStage != nil || huge.Unfit == "" {
		t.Errorf("k = 5,000: %+v", huge)
	}
	out, _, code := runLine(t, nil, "plan", "--device", "cuda", "--top-k", "50,0,5000")
	for _, part := range []string{"top-k 50, bfloat16 on a GPU of architecture sm_90", "  chosen ", "  two-stage ", "    launch      select_bf16_stage2, 1 blocks of 512 threads", "nothing to do", "none: "} {
		if !strings.Contains(out, part) || code != exitDone {
			t.Errorf("exit code %d, no %q in\n%s", code, part, out)
		}
	}
}

// TestDevicePlanTarget: the variable moves the groups of the chosen plan and the
// chunks of the two-stage plan.
func TestDevicePlanTarget(t *testing.T) {
	t.Setenv(targetCandidatesVariable, "")
	usual := devicePlansOf(t)[0]
	t.Setenv(targetCandidatesVariable, "2000")
	moved := devicePlansOf(t)[0]
	if usual.TwoStage.Chunks != 10 || moved.TwoStage.Chunks != 40 {
		t.Errorf("%d chunks with a target of 2,000, %d without", moved.TwoStage.Chunks, usual.TwoStage.Chunks)
	}
	if moved.Chosen.Groups <= usual.Chosen.Groups {
		t.Errorf("%d groups with a target of 2,000, %d without", moved.Chosen.Groups, usual.Chosen.Groups)
	}
}

func TestExplainProfile(t *testing.T) {
	plan := cuda.Plan{Name: cuda.PlanBlock, Kernels: []cuda.Launch{{Symbol: "select_bf16_block", Grid: 1, Block: 1024, Cluster: 1}}}
	p := bench.Profile{
		Batch: 1, Vocab: 50304, TopK: 50, DType: bench.BFloat16, Plan: plan, CallUS: 4, EmptyUS: 0.9, FloorUS: 1.75, PartsOf: cuda.PlanBlock,
		Parts: []bench.Part{{Name: "load", US: 1, Cycles: 1980, Share: 0.4}, {Name: "filter", US: 1.5, Cycles: 2970, Share: 0.6}},
	}
	var text strings.Builder
	explainProfile(&text, p)
	for _, part := range []string{
		"plan block\n", "launches 1 kernel and nothing else, no conversion", "select_bf16_block (1 x 1024)",
		"load              1.00      1980   40.0%", "call              4.00\n", "2.50 us together",
	} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("no %q in\n%s", part, &text)
		}
	}
	plan.Name, plan.Kernels = cuda.PlanTwoStage, append(plan.Kernels, plan.Kernels...)
	p.Plan, p.PartsOf, p.Parts = plan, cuda.PlanTwoStage, []bench.Part{{Name: "stage 1", US: 2, Share: 0.5}, {Name: "stage 2", US: 2, Share: 0.5}}
	text.Reset()
	explainProfile(&text, p)
	for _, part := range []string{"launches 2 kernels and nothing else", "stage 2           2.00             50.0%", "the stages together take 4.00 us"} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("no %q in\n%s", part, &text)
		}
	}
}
