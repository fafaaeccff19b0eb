package bench

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// sample is a record that is in order.
func sample() Record {
	return Record{
		Schema:  Schema,
		Machine: Machine{CPU: "a processor", Cores: 4, OS: "linux", Arch: "amd64", Go: "go1.26", Tiers: []string{"avx512", "pure"}},
		Command: "aikf bench", Commit: "unknown", Date: time.Unix(1e9, 0).UTC(), Seed: 1,
		Results: []Result{{
			Device: "cpu", Tier: "avx512", Work: TopK, Source: Random, Batch: 1, Vocab: 50304, TopK: 50, DType: BFloat16, Threads: 1,
			Inputs: 4, Samples: 200,
			Reference: TypedHeap, ReferenceUS: 50, ReferenceUSP10: 49, ReferenceUSP90: 52,
			OursUS: 1.6, OursUSP10: 1.5, OursUSP90: 1.7, Speedup: 31.25,
			FloorUS: 1, FloorUSP10: 1, FloorUSP90: 1.1, FloorRatio: 1.6,
			DTypeFloorUS: 0.5, DTypeFloorUSP10: 0.5, DTypeFloorUSP90: 0.6, IndicesEqual: true,
			Peers: map[string]PeerResult{"torch": {Version: "1.13", Method: "torch.topk", DType: BFloat16, US: 54, USP10: 53, USP90: 55, Samples: 200, ValuesEqual: true}},
		}},
		Acceptance: []Verdict{{Work: "bfloat16", Figure: OverFloor, Must: 2, Aim: 1, Measured: 1.6, Verdict: MustOnly}},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	var first, second bytes.Buffer
	if err := sample().Encode(&first); err != nil {
		t.Fatal(err)
	}
	r, err := DecodeRecord(bytes.NewReader(first.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Encode(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("%v; encoded\n%s\nthen\n%s", err, &first, &second)
	}
	for _, name := range []string{
		"schema", "machine", "command", "commit", "results", "device", "tier", "work", "source", "batch", "vocab", "top_k", "dtype",
		"threads", "reference", "reference_us", "ours_us", "speedup", "floor_us", "dtype_floor_us", "floor_ratio", "max_abs_diff",
		"indices_equal", "peers", "version", "us",
	} {
		if !strings.Contains(first.String(), `"`+name+`":`) {
			t.Errorf("no field %q", name)
		}
	}
}

// deviceSample is a record of a GPU that is in order.
func deviceSample() Record {
	r := sample()
	r.GPU = &GPU{Name: "a card", Driver: "12.8", ComputeCapability: "9.0", Multiprocessors: 132}
	one := &r.Results[0]
	one.Device, one.Tier, one.Mode, one.Cache, one.Plan, one.Threads = "cuda:0", "sm_90", Eager, Cold, "cluster", 0
	one.EmptyUS, one.EmptyUSP10, one.EmptyUSP90 = 0.9, 0.8, 1
	one.LaunchNS, one.LaunchNSP10, one.LaunchNSP90 = 2000, 1900, 2100
	r.Launch = &LaunchCost{GoNS: 2000, GoNSP10: 1900, GoNSP90: 2100, Reason: "no compiler"}
	r.Dependent = &DependentGain{5, 4}
	return r
}

func TestDeviceRecordRoundTrip(t *testing.T) {
	var text bytes.Buffer
	if err := deviceSample().Encode(&text); err != nil {
		t.Fatal(err)
	}
	r, err := DecodeRecord(&text)
	if err != nil || !reflect.DeepEqual(r, deviceSample()) {
		t.Errorf("%v: %+v", err, r)
	}
	alone := deviceSample()
	alone.Results[0].Reference, alone.Results[0].Speedup = "", 0
	alone.Results[0].ReferenceUS, alone.Results[0].ReferenceUSP10, alone.Results[0].ReferenceUSP90 = 0, 0, 0
	if err := alone.Validate(); err != nil {
		t.Errorf("without a reference: %v", err)
	}
}

func TestDeviceRecordInvalid(t *testing.T) {
	first := func(change func(*Result)) func(*Record) { return func(r *Record) { change(&r.Results[0]) } }
	for field, spoil := range map[string]func(*Record){
		"gpu.name":                             func(r *Record) { r.GPU.Name = "" },
		"gpu.driver":                           func(r *Record) { r.GPU.Driver = "" },
		"gpu.compute_capability":               func(r *Record) { r.GPU.ComputeCapability = "" },
		"gpu.multiprocessors":                  func(r *Record) { r.GPU.Multiprocessors = 0 },
		"gpu.ordinal":                          func(r *Record) { r.GPU.Ordinal = -1 },
		"results[0].device = cuda:0 without":   func(r *Record) { r.GPU = nil },
		"results[0].device = cuda:0 without a": func(r *Record) { r.Schema = 1 },
		"launch":                               func(r *Record) { r.Launch.Reason = "" },
		"dependent":                            func(r *Record) { r.Dependent.PlainUS = 0 },
		"results[0].device":                    first(func(r *Result) { r.Device = "tpu:0" }),
		"results[0].mode":                      first(func(r *Result) { r.Mode = "slow" }),
		"results[0].mode = \"eager\"":          first(func(r *Result) { r.Device = "cpu" }),
		"results[0].cache":                     first(func(r *Result) { r.Cache = "" }),
		"results[0].plan":                      first(func(r *Result) { r.Plan = "" }),
		"results[0].empty_us":                  first(func(r *Result) { r.EmptyUS = 0 }),
		"results[0].launch_ns":                 first(func(r *Result) { r.LaunchNSP10 = 2050 }),
		"results[0].launch_ns = 2000":          first(func(r *Result) { r.Mode = Graph }),
		"results[0].reference_us":              first(func(r *Result) { r.Reference = "" }),
	} {
		r := deviceSample()
		spoil(&r)
		if err := r.Validate(); !errors.Is(err, ErrRecord) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
	}
}

// TestOldRecords reads what the version before GPUs wrote.
func TestOldRecords(t *testing.T) {
	var text bytes.Buffer
	if err := sample().Encode(&text); err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(text.String(), `"schema": 3`, `"schema": 1`, 1)
	if r, err := DecodeRecord(strings.NewReader(old)); err != nil || r.Schema != 1 {
		t.Errorf("%v", err)
	}
}

func TestRecordInvalid(t *testing.T) {
	first := func(change func(*Result)) func(*Record) { return func(r *Record) { change(&r.Results[0]) } }
	for field, spoil := range map[string]func(*Record){
		"schema":                           func(r *Record) { r.Schema = Schema + 1 },
		"machine.cpu":                      func(r *Record) { r.Machine.CPU = "" },
		"machine.cores":                    func(r *Record) { r.Machine.Cores = 0 },
		"machine.os":                       func(r *Record) { r.Machine.OS = "" },
		"machine.tiers":                    func(r *Record) { r.Machine.Tiers = nil },
		"command":                          func(r *Record) { r.Command = "" },
		"commit":                           func(r *Record) { r.Commit = "" },
		"date":                             func(r *Record) { r.Date = time.Time{} },
		"results = ":                       func(r *Record) { r.Results, r.Acceptance = nil, nil },
		"results[0].device":                first(func(r *Result) { r.Device = "" }),
		"results[0].tier":                  first(func(r *Result) { r.Tier = "" }),
		"results[0].reference =":           first(func(r *Result) { r.Reference = "" }),
		"results[0].threads":               first(func(r *Result) { r.Threads = 0 }),
		"results[0].base_offset":           first(func(r *Result) { r.BaseOffset = -1 }),
		"results[0].inputs":                first(func(r *Result) { r.Inputs = 0 }),
		"results[0].samples":               first(func(r *Result) { r.Samples = 0 }),
		"results[0].max_abs_diff":          first(func(r *Result) { r.MaxAbsDiff = -1 }),
		"results[0].shape":                 first(func(r *Result) { r.TopK = 50305 }),
		"results[0].ours_us":               first(func(r *Result) { r.OursUSP10 = 1.65 }),
		"results[0].reference_us":          first(func(r *Result) { r.ReferenceUS = 0 }),
		"results[0].floor_us":              first(func(r *Result) { r.FloorUSP90 = 0.9 }),
		"results[0].dtype_floor_us":        first(func(r *Result) { r.DTypeFloorUS = -1 }),
		"results[0].speedup":               first(func(r *Result) { r.Speedup = 32 }),
		"results[0].floor_ratio":           first(func(r *Result) { r.FloorRatio = 1.5 }),
		"results[0].peers.torch.us":        first(func(r *Result) { r.Peers["torch"] = PeerResult{Version: "1", DType: Float32} }),
		"results[0].peers.torch.dtype":     first(func(r *Result) { r.Peers["torch"] = PeerResult{Version: "1"} }),
		"results[0].peers.numpy.version":   first(func(r *Result) { r.Peers["numpy"] = PeerResult{} }),
		"noise.other_cores":                func(r *Record) { r.Noise = &Noise{OtherCores: -1} },
		"results[0].speedup_p10":           first(func(r *Result) { r.SpeedupP10, r.SpeedupP90 = 30, 20 }),
		"results[0].floor_ratio_p10":       first(func(r *Result) { r.FloorRatioP90 = 2 }),
		"results[0].peers.torch.pairs_p10": first(func(r *Result) { p := r.Peers["torch"]; p.PairsP10, p.PairsP90 = 3, 2; r.Peers["torch"] = p }),
		"acceptance[0].work":               func(r *Record) { r.Acceptance[0].Work = "" },
		"acceptance[0].figure":             func(r *Record) { r.Acceptance[0].Figure = "luck" },
		"acceptance[0].verdict":            func(r *Record) { r.Acceptance[0].Verdict = Met },
		"acceptance[0].reason":             func(r *Record) { r.Acceptance[0].Verdict = NotMeasured },
	} {
		r := sample()
		spoil(&r)
		err := r.Validate()
		if !errors.Is(err, ErrRecord) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
		if err := r.Encode(new(bytes.Buffer)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: was written: %v", field, err)
		}
	}
}

func TestDecodeRecordRefuses(t *testing.T) {
	var good bytes.Buffer
	if err := sample().Encode(&good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":    "",
		"half":       good.String()[:good.Len()/2],
		"two":        good.String() + good.String(),
		"batch":      strings.Replace(good.String(), `"batch": 1`, `"batch": "one"`, 1),
		"colour":     strings.Replace(good.String(), `"command"`, `"colour": 1, "command"`, 1),
		"schema":     strings.Replace(good.String(), `"schema": 3`, `"schema": 7`, 1),
		"schema = 0": "{}",
	} {
		_, err := DecodeRecord(strings.NewReader(text))
		if !errors.Is(err, ErrRecord) {
			t.Errorf("%s: error %v", name, err)
		}
		switch name {
		case "batch", "colour", "schema", "schema = 0":
			if !strings.Contains(err.Error(), name) {
				t.Errorf("error %q does not name %s", err, name)
			}
		}
	}
}

func TestThisMachine(t *testing.T) {
	r := sample()
	r.Machine, r.Commit = ThisMachine(), Commit()
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
}
