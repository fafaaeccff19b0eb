//go:build linux && (amd64 || arm64)

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// onTestDriver runs aikf in a process of its own, whose CUDA driver is that of
// tests: it has devices that do not exist, and selects by a sort. Times mean
// nothing there.
func onTestDriver(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	if testing.Short() {
		t.Skip("the test driver takes long to compile")
	}
	var sources []string
	for _, name := range []string{"driver.cc", "standin.cc", "busy.cc"} {
		sources = append(sources, filepath.Join("cuda", "internal", "fakedriver", "library", name))
	}
	sources = append(sources, filepath.Join("cmd", "aikf", "testdata", "standin.cc")) // registers with the one before
	for _, name := range []string{"law.cu", "sample.cu", "whole.cu", "edit.cu", "phases.cu"} {
		sources = append(sources, filepath.Join("cuda", "kernels", name))
	}
	library := shim.Build(t, sources...)
	folder := t.TempDir()
	if err := os.Symlink(library, filepath.Join(folder, "libcuda.so.1")); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), os.Args[0], args...)
	command.Env = append(os.Environ(), "AIKF_TEST_COMMAND=1", "LD_LIBRARY_PATH="+folder)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); command.ProcessState == nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), command.ProcessState.ExitCode()
}

func TestDriverBench(t *testing.T) {
	file := filepath.Join(t.TempDir(), "record.json")
	out, errs, code := onTestDriver(t, "bench", "--device", "cuda", "--iters", "1", "--batch", "1,2", "--vocab", "999", "--top-k", "5,60",
		"--dtype", "bfloat16,float32", "--mode", "graph,eager", "--out", file)
	if code != exitDone || errs != "" {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	for _, part := range []string{"compute capability 9.0", "reference: none; --against torch fills", "graph, warm", "indices equal: yes"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	text, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	record, err := bench.DecodeRecord(text)
	if err != nil || len(record.Results) != 8*2 || record.GPU == nil {
		t.Errorf("%v, %d results", err, len(record.Results))
	}
	out, errs, code = onTestDriver(t, "bench", "--iters", "1", "--vocab", "999", "--plan", cuda.PlanCluster, "--mode", "graph", "--format", "csv")
	if code != exitDone || !strings.Contains(out, "cuda:0,sm_90,graph,warm,cluster,") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	out, errs, code = onTestDriver(t, "bench", "--vocab", "9999", "--top-k", "3000", "--plan", cuda.PlanCluster)
	if code != exitUsage || !strings.Contains(errs, `plan "cluster" takes k up to`) {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestDriverProfile(t *testing.T) {
	for plan, parts := range map[string]int{cuda.PlanBlock: 5, cuda.PlanTwoStage: 2} {
		out, errs, code := onTestDriver(t, "profile", "--plan", plan, "--vocab", "2000", "--top-k", "5", "--format", "json")
		var got bench.Profiles
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || errs != "" {
			t.Fatalf("exit code %d, %v, %s%s", code, err, out, errs)
		}
		if p := got.Profiles[0]; len(p.Parts) != parts || p.Plan.Name != plan || p.PartsOf != plan || p.CallUS <= 0 {
			t.Errorf("%+v", p)
		}
	}
	out, errs, code := onTestDriver(t, "profile", "--work", "sample", "--vocab", "5000", "--top-k", "50", "--format", "json")
	var got bench.Profiles
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || errs != "" {
		t.Fatalf("exit code %d, %v, %s%s", code, err, out, errs)
	}
	if len(got.Profiles) != len(bench.DeviceSamplings()) {
		t.Errorf("%d profiles", len(got.Profiles))
	}
	for _, p := range got.Profiles {
		if p.Work != bench.Sample || len(p.Parts) == 0 || p.Reason != "" || p.CallUS <= 0 {
			t.Errorf("%+v", p)
		}
		if last := p.Parts[len(p.Parts)-1].Name; !strings.HasSuffix(last, "draw") {
			t.Errorf("sampling %s ends with %s", p.Sample, last)
		}
	}
	if out, errs, code = onTestDriver(t, "profile", "--work", "sample", "--vocab", "500", "--dtype", "float16"); code != exitDone ||
		!strings.Contains(out, "sampling pipeline\n") || !strings.Contains(out, "no phases: cuda: device 0: no kernel phases_sample_f16_block_narrow") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestDriverVerify(t *testing.T) {
	out, errs, code := onTestDriver(t, "verify", "--device", "cuda:0", "--rows", "2000", "--seed", "5", "--format", "json")
	var v deviceVerification
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitDone || v.Counts == nil || v.Counts.Rows < 2000 || v.Outcome != "equal" || v.Device != "cuda:0" {
		t.Errorf("exit code %d, %v, %s%s", code, err, out, errs)
	}
	if out, errs, code = onTestDriver(t, "verify", "--device", "auto", "--case", "3", "--seed", "5", "--dtype", "float16"); code != exitDone ||
		!strings.Contains(out, "batches 1,") || !strings.Contains(out, "all equal, to the bit") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestDriverVerifySampling(t *testing.T) {
	out, errs, code := onTestDriver(t, "verify", "--device", "cuda:0", "--work", "sample", "--rows", "300", "--seed", "5", "--format", "json")
	var v deviceVerification
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitDone || v.Outcome != "equal" || v.Work != bench.Sample || v.Counts != nil ||
		v.Sampling == nil || v.Sampling.Rows < 300 || v.Sampling.Answers < v.Sampling.Rows {
		t.Errorf("exit code %d, %v, %s%s", code, err, out, errs)
	}
	if out, errs, code = onTestDriver(t, "verify", "--device", "cuda", "--work", "sample", "--case", "3", "--seed", "5", "--dtype", "float16"); code != exitDone ||
		!strings.Contains(out, "batches 1,") || !strings.Contains(out, "all equal, to the bit") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestDriverBenchSampling(t *testing.T) {
	out, errs, code := onTestDriver(t, "bench", "--device", "cuda", "--work", "sample", "--iters", "1", "--batch", "2", "--vocab", "300", "--top-k", "5",
		"--mode", "graph", "--format", "json")
	record, err := bench.DecodeRecord(strings.NewReader(out))
	if err != nil || code != exitDone || errs != "" {
		t.Fatalf("exit code %d, %v, %s%s", code, err, out, errs)
	}
	missing := 0
	for _, note := range record.Notes {
		if strings.HasPrefix(note, "not measured: "+bench.Unsupported) {
			missing++
		}
	}
	if len(record.Results)+missing != len(bench.DeviceSamplings()) || record.Results[0].Sampling != bench.Pipeline || record.Results[0].Reference != bench.Select {
		t.Errorf("%d results, notes %q", len(record.Results), record.Notes)
	}
}

func TestDriverVerifyLaw(t *testing.T) {
	out, errs, code := onTestDriver(t, "verify", "--device", "cuda", "--law", "100000", "--format", "json")
	var v deviceVerification
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitDone || v.Outcome != "equal" || v.Law == nil || v.Law.Surprises != 100000 ||
		v.Law.Draws != 100000 || v.Law.MassesHash == v.Law.DrawsHash {
		t.Errorf("exit code %d, %v, %s%s", code, err, out, errs)
	}
	if out, errs, code = onTestDriver(t, "verify", "--device", "cuda", "--law", "7"); code != exitDone || !strings.Contains(out, "masses of 7 surprises") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestDriverTopK(t *testing.T) {
	file := writeNpy(t, "(2, 3)", []float32{1, 3, 2, 6, 6, 4})
	for _, flag := range []string{"--smallest=false", "--smallest"} {
		on, errs, code := onTestDriver(t, "topk", file, "--top-k", "2", "--device", "cuda", flag)
		if cpu, _, _ := runLine(t, nil, "topk", file, "--top-k", "2", flag); code != exitDone || errs != "" || on != cpu {
			t.Errorf("exit code %d, %s%s, want %s", code, on, errs, cpu)
		}
	}
	if out, errs, code := onTestDriver(t, "info", "--device", "cuda"); code != exitDone || !strings.Contains(out, "\ngpu        cuda:0, ") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	if out, errs, code := onTestDriver(t, "info", "--device", "cuda:9"); code != exitUsage || out != "" || !strings.Contains(errs, "cuda:9") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}
