package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

var update = flag.Bool("update", false, "write the golden files")

func result(source string, batch, k int, dtype bench.DType, ours, reference float64) bench.Result {
	floor := 1.25 * float64(batch)
	return bench.Result{
		Device: "cpu", Tier: "avx512", Work: bench.TopK, Source: source, Batch: batch, Vocab: 50304, TopK: k, DType: dtype, Threads: 1,
		Inputs: 4, Samples: 200, Reference: bench.TypedHeap,
		ReferenceUS: reference, ReferenceUSP10: reference * 0.9, ReferenceUSP90: reference * 1.2,
		OursUS: ours, OursUSP10: ours * 0.98, OursUSP90: ours * 1.04, Speedup: reference / ours,
		FloorUS: floor, FloorUSP10: floor, FloorUSP90: floor, FloorRatio: ours / floor,
		DTypeFloorUS: 0.6, DTypeFloorUSP10: 0.5, DTypeFloorUSP90: 0.7, IndicesEqual: true, WorkspaceBytes: 9000,
	}
}

// records are what the golden files show.
func records() map[string]bench.Record {
	base := bench.Record{
		Schema:  bench.Schema,
		Machine: bench.Machine{CPU: "Example 9000", Cores: 4, OS: "linux", Arch: "amd64", Go: "go1.26.0", Tiers: []string{"avx512", "avx2", "pure"}, Virtual: true},
		Command: "aikf bench", Commit: "0123456789abcdef0123456789abcdef01234567-dirty", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seed: 1,
	}
	matrix := base
	matrix.Results = []bench.Result{
		result(bench.Random, 1, 50, bench.BFloat16, 1.59, 50.7),
		result(bench.Random, 32, 200, bench.BFloat16, 83.4, 3456),
		result(bench.Real, 1, 50, bench.BFloat16, 1.7, 31),
	}
	peers := base
	peers.Command = "aikf bench --against torch,numpy --work topk,stream"
	one := result(bench.Random, 1, 50, bench.BFloat16, 1.6, 50)
	one.Peers = map[string]bench.PeerResult{
		"torch": {Version: "1.13.0", Method: "torch.topk(x, k)", DType: bench.BFloat16, US: 54, USP10: 53, USP90: 56, Samples: 200, ValuesEqual: true},
	}
	stream := result(bench.Random, 1, 50, bench.BFloat16, 2, 1.6)
	stream.Work, stream.Reference = bench.Stream, bench.Select
	peers.Results = []bench.Result{one, stream}
	peers.Notes = []string{"numpy not found (/usr/bin/python3: No module named 'numpy')"}
	doubted := base
	doubted.Command = "aikf bench --against torch,timed:f,exec:l"
	pair := one
	pair.SpeedupP10, pair.SpeedupP90, pair.FloorRatioP10, pair.FloorRatioP90 = 30.5, 33.25, 1.25, 1.5
	pair.Peers = map[string]bench.PeerResult{
		"timed:f": {Version: "1", Method: "fast", DType: bench.BFloat16, US: 0.001, USP10: 0.001, USP90: 0.001, Samples: 200, ValuesEqual: true,
			WallUS: 25, PairsP10: 15, PairsP90: 17.5, Doubts: []string{"impossible time: 0.001 us, but most of reading the rows takes 0.48 us", "clock: claims 0.001 us, but by ours a call takes 25 us"}},
		"exec:l": {Version: "unknown", Method: "a line", DType: bench.BFloat16, US: 5400, USP10: 5300, USP90: 5600, Samples: 11, ValuesEqual: true, IndicesEqual: true, ProtocolUS: 130},
	}
	doubted.Results = []bench.Result{pair}
	doubted.Interrupted = true
	doubted.Noise = &bench.Noise{OtherCores: 1.5, ClockChange: 0.01, Virtual: true, Unknown: []string{"temperature"},
		Warnings: []string{"others kept 1.5 of 4 cores busy", "the processor is virtual: it may share its core, and its clock is not seen"}}
	acceptance := base
	acceptance.Command = "aikf bench --acceptance"
	acceptance.Results = matrix.Results
	acceptance.Acceptance = []bench.Verdict{
		{Work: "float32, k = 50", Figure: bench.OverFloor, Must: 2, Aim: 1.6, Measured: 1.55, Verdict: bench.Met},
		{Work: "float32, k = 200", Figure: bench.OverFloor, Must: 2.8, Aim: 2.2, Measured: 2.51, Verdict: bench.MustOnly},
		{Work: "worst adversarial row", Figure: bench.OverFloor, Must: 10, Aim: 5, Measured: 12.3, Verdict: bench.Missed, Worst: "ascending, float32"},
		{Work: "torch.topk", Figure: bench.TimesFaster, Must: 20, Aim: 20, Verdict: bench.NotMeasured, Reason: "needs --against torch, and a python3 that has it"},
	}
	return map[string]bench.Record{
		"matrix": matrix, "peers": peers, "doubted": doubted, "acceptance": acceptance,
		"device": deviceRecord(base), "device_acceptance": deviceAcceptance(base), "device_peers": devicePeers(base),
	}
}

// deviceResults are those of one case of a GPU under the default conditions.
func deviceResults(batch, k int, plan string, warm float64) []bench.Result {
	var results []bench.Result
	for i, c := range bench.Conditions() {
		r := result(bench.Random, batch, k, bench.BFloat16, warm+float64(i), 0)
		r.Device, r.Tier, r.Threads, r.Reference, r.Speedup = "cuda:0", "sm_90", 0, "", 0
		r.Mode, r.Cache, r.Plan = c.Mode, c.Cache, plan
		r.FloorUS = 1.75 + float64(i)
		r.FloorUSP10, r.FloorUSP90, r.FloorRatio = r.FloorUS, r.FloorUS, r.OursUS/r.FloorUS
		r.EmptyUS, r.EmptyUSP10, r.EmptyUSP90 = 0.875, 0.85, 0.9
		if c.Mode == bench.Eager {
			r.LaunchNS, r.LaunchNSP10, r.LaunchNSP90 = 2345, 2300, 2400
		}
		results = append(results, r)
	}
	return results
}

func onGPU(base bench.Record, args string) bench.Record {
	base.Command = "aikf bench --device cuda" + args
	base.GPU = &bench.GPU{
		Name: "Example H1", Driver: "12.8", ComputeCapability: "9.0", Multiprocessors: 132, L2Bytes: 50 << 20,
		MemoryBytes: 80e9, ClockKHz: 1_980_000,
	}
	return base
}

func deviceRecord(base bench.Record) bench.Record {
	r := onGPU(base, "")
	r.Results = append(deviceResults(1, 50, "block", 3.5), deviceResults(512, 50, "block", 24.5)...)
	return r
}

func devicePeers(base bench.Record) bench.Record {
	r := onGPU(base, " --against torch,...")
	r.Results = deviceResults(1, 50, "block", 3.5)
	for i := range r.Results {
		r.Results[i].Peers = map[string]bench.PeerResult{
			"torch": {Version: "2.11.0", Method: "torch.topk(x, k, sorted=True)", DType: bench.BFloat16, US: 35, USP10: 34, USP90: 36, Samples: 20, ValuesEqual: true, SortEqual: true},
		}
		r.Results[i].Reference, r.Results[i].ReferenceUS, r.Results[i].ReferenceUSP10, r.Results[i].ReferenceUSP90 = "torch", 35, 34, 36
		r.Results[i].Speedup = 35 / r.Results[i].OursUS
	}
	r.Results[0].Peers["python:fast:f"] = bench.PeerResult{Version: "1.0", Method: "fast.f(x, k)", DType: bench.BFloat16, US: 12, USP10: 11, USP90: 13, Samples: 20}
	return r
}

func deviceAcceptance(base bench.Record) bench.Record {
	r := onGPU(base, " --acceptance")
	r.Results = deviceResults(1, 50, "block", 3.5)
	r.Acceptance = []bench.Verdict{
		{Work: "bfloat16, vocab 50304, 1 x 50", Figure: bench.Micros, Must: 4.1176, Aim: 3.0882, Scale: 1.0294, Measured: 3.5, Verdict: bench.MustOnly},
		{Work: "cold less warm", Figure: bench.ColdPenalty, Must: 0.4, Aim: 0.4, Measured: -0.25, Verdict: bench.Met, Worst: "1 x 50, bfloat16"},
		{Work: "a launch from Go", Figure: bench.OverC, Must: 0.2, Aim: 0.2, Measured: 0.145, Verdict: bench.Met},
	}
	r.Launch = &bench.LaunchCost{GoNS: 2345, GoNSP10: 2300, GoNSP90: 2400, CNS: 2200, CNSP10: 2100, CNSP90: 2300}
	r.Dependent = &bench.DependentGain{PlainUS: 5.25, DependentUS: 4.5}
	return r
}

func TestGolden(t *testing.T) {
	for name, record := range records() {
		for _, format := range []string{Table, Markdown, CSV} {
			var got bytes.Buffer
			if err := Write(&got, format, record); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+"."+format)
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != strings.ReplaceAll(string(want), "\r\n", "\n") {
				t.Errorf("%s: got\n%s\nwant\n%s", golden, &got, want)
			}
			if format != Table {
				continue
			}
			for line := range strings.Lines(got.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
					t.Errorf("%s: a line of %d columns: %s", golden, n, line)
				}
			}
		}
	}
}

func TestJSONIsTheRecord(t *testing.T) {
	for name, record := range records() {
		var text bytes.Buffer
		if err := Write(&text, JSON, record); err != nil {
			t.Fatal(err)
		}
		decoded, err := bench.DecodeRecord(&text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(decoded.Results) != len(record.Results) || len(decoded.Acceptance) != len(record.Acceptance) {
			t.Errorf("%s: %+v", name, decoded)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	var text bytes.Buffer
	if err := Write(&text, "pdf", records()["matrix"]); err == nil || text.Len() > 0 {
		t.Errorf("error %v, wrote %q", err, &text)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 151936: "151,936", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q", n, got)
		}
	}
	for us, want := range map[float64]string{0.1234: "0.123", 1.599: "1.60", 99.5: "99.50", 123.4: "123"} {
		if got := micros(us); got != want {
			t.Errorf("micros(%v) = %q", us, got)
		}
	}
	for x, want := range map[float64]string{0: "0", 20: "20", 1.234: "1.23", 31.25: "31.2", 340.6: "341"} {
		if got := ratioDigits(x); got != want {
			t.Errorf("ratioDigits(%v) = %q", x, got)
		}
	}
}
