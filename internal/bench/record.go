package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Schema is the version of the record format that this package writes. It also
// reads records from oldestSchema on: 2 added GPUs; 3 what speaks against a
// number, of a peer and of the machine, and runs that were interrupted.
const (
	Schema       = 3
	oldestSchema = 1
)

// ErrRecord: a record that cannot be trusted.
var ErrRecord = errors.New("invalid record")

// Record is one run of the benchmark.
type Record struct {
	Schema     int       `json:"schema"`               // of the format
	Machine    Machine   `json:"machine"`              // that the processor is of
	GPU        *GPU      `json:"gpu,omitempty"`        // that was measured, if one was
	Command    string    `json:"command"`              // that makes such a record again
	Commit     string    `json:"commit"`               // of the project; "-dirty" is appended if files were changed, "unknown" if nothing tells
	Date       time.Time `json:"date"`                 // of its beginning
	Seed       uint64    `json:"seed"`                 // of the random rows
	Results    []Result  `json:"results"`              // in the order in which they were measured
	Acceptance []Verdict `json:"acceptance,omitempty"` // of every figure that has a bar
	// TargetCandidates is the override of the launch plan's target; 0: none.
	TargetCandidates int `json:"target_candidates,omitempty"`
	// Launch and Dependent belong to the acceptance of a GPU.
	Launch    *LaunchCost    `json:"launch,omitempty"`
	Dependent *DependentGain `json:"dependent,omitempty"`
	Notes     []string       `json:"notes,omitempty"` // what could not be measured, and why
	Noise     *Noise         `json:"noise,omitempty"` // what disturbed the run
	// Interrupted says that the run was ended before all was measured.
	Interrupted bool `json:"interrupted,omitempty"`
}

// GPU is the device that a record was measured on.
type GPU struct {
	Name              string `json:"name"`
	Ordinal           int    `json:"ordinal"`
	Driver            string `json:"driver"`             // the newest CUDA version that it serves, as 12.8
	ComputeCapability string `json:"compute_capability"` // as 9.0
	Multiprocessors   int    `json:"multiprocessors"`
	L2Bytes           int    `json:"l2_bytes"`
	MemoryBytes       int64  `json:"memory_bytes"`
	ClockKHz          int    `json:"clock_khz"` // the highest of a multiprocessor
}

// LaunchCost is the time of the processor for one launch, without waiting for
// the GPU: nanoseconds, the median and the 10th and 90th percentile.
type LaunchCost struct {
	GoNS    float64 `json:"go_ns"` // a SelectDevice, of 1 x 50 in the matrix
	GoNSP10 float64 `json:"go_ns_p10"`
	GoNSP90 float64 `json:"go_ns_p90"`
	CNS     float64 `json:"c_ns"` // the driver's launch alone, called from C; 0 if not measured
	CNSP10  float64 `json:"c_ns_p10"`
	CNSP90  float64 `json:"c_ns_p90"`
	OverNS  float64 `json:"over_ns"`          // the median of Go less C of one round, in which they take turns
	Reason  string  `json:"reason,omitempty"` // why C was not measured
}

// DependentGain is what programmatic dependent launch saves behind another
// kernel, the read floor: microseconds of both kernels, graph replay, warm.
type DependentGain struct {
	PlainUS     float64 `json:"plain_us"`
	DependentUS float64 `json:"dependent_us"`
}

// How a GPU is given its work, and what its second-level cache holds then.
const (
	Graph = "graph" // launches captured in a graph and replayed: the time of the device alone
	Eager = "eager" // one launch after the other from Go, and a wait at the end
	Warm  = "warm"  // the logits, read by an earlier call
	Cold  = "cold"  // other logits: every call reads a buffer of its own
)

// Result is the measurement of one case. Times are microseconds of one call
// over the whole batch: the median, and the 10th and 90th percentile, of
// Samples samples. The ratios are those of the medians.
type Result struct {
	Device     string `json:"device"`          // cpu or cuda:N
	Tier       string `json:"tier"`            // the instruction set, or the GPU's architecture
	Mode       string `json:"mode,omitempty"`  // of a GPU: Graph or Eager
	Cache      string `json:"cache,omitempty"` // of a GPU: Warm or Cold
	Plan       string `json:"plan,omitempty"`  // of a GPU: the name of the launch plan, or how rows are sampled
	Work       string `json:"work"`
	Sampling   string `json:"sampling,omitempty"` // of work sample
	Source     string `json:"source"`             // of the rows: random, real, or the name of an adversarial row
	Batch      int    `json:"batch"`              // rows of a call
	Vocab      int    `json:"vocab"`              // logits of a row
	TopK       int    `json:"top_k"`
	DType      DType  `json:"dtype"`
	Threads    int    `json:"threads"`               // that share a batch; of a GPU 0
	BaseOffset int    `json:"base_offset,omitempty"` // elements from the start of a cache line to the first logit
	Inputs     int    `json:"inputs"`                // different batches in rotation
	Samples    int    `json:"samples"`

	// On a GPU "" without other software, but for what of work sample has a reference of
	// its own; its times are 0 then.
	Reference      string  `json:"reference"`
	ReferenceUS    float64 `json:"reference_us"`
	ReferenceUSP10 float64 `json:"reference_us_p10"`
	ReferenceUSP90 float64 `json:"reference_us_p90"`
	OursUS         float64 `json:"ours_us"`
	OursUSP10      float64 `json:"ours_us_p10"`
	OursUSP90      float64 `json:"ours_us_p90"`
	Speedup        float64 `json:"speedup"` // reference_us / ours_us
	// SpeedupP10 and SpeedupP90 are of the quotients of single rounds, in which
	// both were timed one after the other; 0 of a reference timed by itself.
	SpeedupP10 float64 `json:"speedup_p10,omitempty"`
	SpeedupP90 float64 `json:"speedup_p90,omitempty"`

	// FloorUS is one maximum pass of the best tier over the batch as float32
	// values, whatever the dtype; DTypeFloorUS the same over the dtype's own.
	// On a GPU both are one pass over the dtype's own with one block a row.
	FloorUS         float64 `json:"floor_us"`
	FloorUSP10      float64 `json:"floor_us_p10"`
	FloorUSP90      float64 `json:"floor_us_p90"`
	DTypeFloorUS    float64 `json:"dtype_floor_us"`
	DTypeFloorUSP10 float64 `json:"dtype_floor_us_p10"`
	DTypeFloorUSP90 float64 `json:"dtype_floor_us_p90"`
	FloorRatio      float64 `json:"floor_ratio"` // ours_us / floor_us
	// FloorRatioP10 and FloorRatioP90 are of the quotients of single rounds.
	FloorRatioP10 float64 `json:"floor_ratio_p10,omitempty"`
	FloorRatioP90 float64 `json:"floor_ratio_p90,omitempty"`

	// EmptyUS is a kernel that does nothing, launched in the same way; a GPU's only.
	EmptyUS    float64 `json:"empty_us,omitempty"`
	EmptyUSP10 float64 `json:"empty_us_p10,omitempty"`
	EmptyUSP90 float64 `json:"empty_us_p90,omitempty"`
	// LaunchNS is the processor's time for one launch of Eager, in nanoseconds,
	// without waiting for the GPU.
	LaunchNS    float64 `json:"launch_ns,omitempty"`
	LaunchNSP10 float64 `json:"launch_ns_p10,omitempty"`
	LaunchNSP90 float64 `json:"launch_ns_p90,omitempty"`

	MaxAbsDiff   float64 `json:"max_abs_diff"`  // of ours to the first k of a stable sort
	IndicesEqual bool    `json:"indices_equal"` // to those of a stable sort; of work sample: the tokens are right

	AllocsPerCall  float64 `json:"allocs_per_call"`           // after the first call; works topk and sample only
	WorkspaceBytes int     `json:"workspace_bytes,omitempty"` // of a Selector; work topk only
	Capacity       int     `json:"capacity,omitempty"`        // candidates for which it has room

	Peers map[string]PeerResult `json:"peers,omitempty"` // by the name that --against has
}

// PeerResult is the measurement of other software on the same logits.
type PeerResult struct {
	Version string  `json:"version"`
	Method  string  `json:"method"` // the calls that were timed
	DType   DType   `json:"dtype"`  // as the peer had them
	US      float64 `json:"us"`
	USP10   float64 `json:"us_p10"`
	USP90   float64 `json:"us_p90"`
	Samples int     `json:"samples"`

	// Of work sample on a GPU, where it has random numbers of its own: whether its tokens
	// are among those that are kept, and whether they are ours.
	ValuesEqual  bool `json:"values_equal"`  // to ours
	IndicesEqual bool `json:"indices_equal"` // to ours; most software leaves ties unspecified
	// SortEqual says that its stable sort has our indices; only of software
	// that leaves ties to another function.
	SortEqual bool `json:"sort_equal,omitempty"`
	// WallUS is a call by the benchmark's own clock, around an exchange that asks
	// for many, of software that times itself and answers such requests.
	WallUS float64 `json:"wall_us,omitempty"`
	// PairsP10 and PairsP90 are of its time over ours in single rounds, in which both
	// took turns, by the benchmark's clock; of a CPU's, where WallUS is measured.
	PairsP10 float64 `json:"pairs_p10,omitempty"`
	PairsP90 float64 `json:"pairs_p90,omitempty"`
	// ProtocolUS is what an exchange takes that asks for next to nothing, of a
	// program that the benchmark times: its times hold as much, and the reading
	// and writing of the numbers.
	ProtocolUS float64 `json:"protocol_us,omitempty"`
	// Doubts are what speaks against the numbers, each with its kind first.
	Doubts []string `json:"doubts,omitempty"`
}

// setTimes fills in the times and their ratios.
func (r *Result) setTimes(ours, reference, floor, dtypeFloor Times) {
	for _, t := range []*Times{&ours, &reference, &floor, &dtypeFloor} {
		*t = t.rounded()
	}
	r.Samples = ours.Samples
	r.OursUS, r.OursUSP10, r.OursUSP90 = ours.Median, ours.P10, ours.P90
	r.ReferenceUS, r.ReferenceUSP10, r.ReferenceUSP90 = reference.Median, reference.P10, reference.P90
	r.FloorUS, r.FloorUSP10, r.FloorUSP90 = floor.Median, floor.P10, floor.P90
	r.DTypeFloorUS, r.DTypeFloorUSP10, r.DTypeFloorUSP90 = dtypeFloor.Median, dtypeFloor.P10, dtypeFloor.P90
	if reference.Median > 0 {
		r.Speedup = significant(reference.Median / ours.Median)
	}
	r.FloorRatio = significant(ours.Median / floor.Median)
	r.SpeedupP10, r.SpeedupP90 = pairs(reference, ours)
	r.FloorRatioP10, r.FloorRatioP90 = pairs(ours, floor)
}

// Spread returns half of what lies between the 10th and the 90th percentile of
// our times, as a share of the median.
func (r Result) Spread() float64 {
	return (r.OursUSP90 - r.OursUSP10) / 2 / r.OursUS
}

// DecodeRecord reads one record and validates it. An error names the field and
// wraps ErrRecord, unless reading failed.
func DecodeRecord(from io.Reader) (Record, error) {
	var r Record
	decoder := json.NewDecoder(from)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("bench: %w: %w", err, ErrRecord)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Record{}, fmt.Errorf("bench: something follows the record: %w", ErrRecord)
	}
	if err := r.Validate(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// Encode writes the record as one JSON object.
func (r Record) Encode(to io.Writer) error {
	if err := r.Validate(); err != nil {
		return err
	}
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// Validate reports the first field that is missing or contradicts another one.
func (r Record) Validate() error {
	invalid := func(field string, got any) error {
		return fmt.Errorf("bench: %s = %v: %w", field, got, ErrRecord)
	}
	switch {
	case r.Schema < oldestSchema || r.Schema > Schema:
		return fmt.Errorf("bench: schema = %d, this version reads %d to %d: %w", r.Schema, oldestSchema, Schema, ErrRecord)
	case r.Machine.CPU == "":
		return invalid("machine.cpu", `""`)
	case r.Machine.Cores < 1:
		return invalid("machine.cores", r.Machine.Cores)
	case r.Machine.OS == "" || r.Machine.Arch == "":
		return invalid("machine.os/arch", r.Machine.OS+"/"+r.Machine.Arch)
	case len(r.Machine.Tiers) == 0:
		return invalid("machine.tiers", "[]")
	case r.Command == "":
		return invalid("command", `""`)
	case r.Commit == "":
		return invalid("commit", `""`)
	case r.Date.IsZero():
		return invalid("date", r.Date)
	case len(r.Results) == 0 && len(r.Acceptance) == 0:
		return invalid("results", "[]")
	}
	if r.GPU != nil {
		if field, got := r.GPU.invalid(); field != "" {
			return invalid("gpu."+field, got)
		}
	}
	for i, result := range r.Results {
		if field, got := result.invalid(); field != "" {
			return invalid(fmt.Sprintf("results[%d].%s", i, field), got)
		}
		if result.onGPU() && (r.GPU == nil || r.Schema < 2) {
			return invalid(fmt.Sprintf("results[%d].device", i), result.Device+" without a gpu")
		}
	}
	if l := r.Launch; l != nil && (!spans(l.GoNSP10, l.GoNS, l.GoNSP90) || !spans(l.CNSP10, l.CNS, l.CNSP90) && l.Reason == "") {
		return invalid("launch", *l)
	}
	if d := r.Dependent; d != nil && !(d.PlainUS > 0 && d.DependentUS > 0) {
		return invalid("dependent", *d)
	}
	if r.Noise != nil {
		if field, got := r.Noise.invalid(); field != "" {
			return invalid("noise."+field, got)
		}
	}
	for i, verdict := range r.Acceptance {
		if field, got := verdict.invalid(); field != "" {
			return invalid(fmt.Sprintf("acceptance[%d].%s", i, field), got)
		}
	}
	return nil
}

// invalid returns the name and the value of the first field that cannot be.
func (r Result) invalid() (field string, got any) {
	gpu := r.onGPU()
	switch {
	case r.Device != "cpu" && !gpu:
		return "device", fmt.Sprintf("%q", r.Device)
	case r.Tier == "":
		return "tier", `""`
	case gpu && r.Mode != Graph && r.Mode != Eager, !gpu && r.Mode != "":
		return "mode", fmt.Sprintf("%q", r.Mode)
	case gpu && r.Cache != Warm && r.Cache != Cold, !gpu && r.Cache != "":
		return "cache", fmt.Sprintf("%q", r.Cache)
	case gpu == (r.Plan == ""):
		return "plan", fmt.Sprintf("%q", r.Plan)
	case r.Reference == "" && !gpu:
		return "reference", `""`
	case r.Threads < 1 && !gpu:
		return "threads", r.Threads
	case r.BaseOffset < 0:
		return "base_offset", r.BaseOffset
	case r.Inputs < 1:
		return "inputs", r.Inputs
	case r.Samples < 1:
		return "samples", r.Samples
	case !(r.MaxAbsDiff >= 0):
		return "max_abs_diff", r.MaxAbsDiff
	}
	shape := Case{Work: r.Work, Sampling: r.Sampling, Source: r.Source, Batch: r.Batch, Vocab: r.Vocab, TopK: r.TopK, DType: r.DType}
	if err := shape.Validate(); err != nil {
		return "shape", err
	}
	for _, t := range []struct {
		name             string
		median, p10, p90 float64
	}{
		{"ours_us", r.OursUS, r.OursUSP10, r.OursUSP90},
		{"reference_us", r.ReferenceUS, r.ReferenceUSP10, r.ReferenceUSP90},
		{"floor_us", r.FloorUS, r.FloorUSP10, r.FloorUSP90},
		{"dtype_floor_us", r.DTypeFloorUS, r.DTypeFloorUSP10, r.DTypeFloorUSP90},
		{"empty_us", r.EmptyUS, r.EmptyUSP10, r.EmptyUSP90},
		{"launch_ns", r.LaunchNS, r.LaunchNSP10, r.LaunchNSP90},
	} {
		absent := t.name == "empty_us" && !gpu || t.name == "launch_ns" && r.Mode != Eager || t.name == "reference_us" && r.Reference == ""
		if absent != (t.median == 0) || !absent && !spans(t.p10, t.median, t.p90) {
			return t.name, fmt.Sprintf("%v (p10 %v, p90 %v)", t.median, t.p10, t.p90)
		}
	}
	if !near(r.Speedup, r.ReferenceUS/r.OursUS) {
		return "speedup", fmt.Sprintf("%v, but reference_us / ours_us = %v", r.Speedup, r.ReferenceUS/r.OursUS)
	}
	if !near(r.FloorRatio, r.OursUS/r.FloorUS) {
		return "floor_ratio", fmt.Sprintf("%v, but ours_us / floor_us = %v", r.FloorRatio, r.OursUS/r.FloorUS)
	}
	for _, p := range []struct {
		name     string
		p10, p90 float64
	}{{"speedup_p10", r.SpeedupP10, r.SpeedupP90}, {"floor_ratio_p10", r.FloorRatioP10, r.FloorRatioP90}} {
		if (p.p10 != 0 || p.p90 != 0) && !spans(p.p10, p.p10, p.p90) {
			return p.name, fmt.Sprintf("%v (p90 %v)", p.p10, p.p90)
		}
	}
	for name, peer := range r.Peers {
		switch {
		case peer.Version == "":
			return "peers." + name + ".version", `""`
		case checkDType(peer.DType) != nil:
			return "peers." + name + ".dtype", peer.DType
		case !spans(peer.USP10, peer.US, peer.USP90):
			return "peers." + name + ".us", peer.US
		case (peer.PairsP10 != 0 || peer.PairsP90 != 0) && !(peer.PairsP10 >= 0 && peer.PairsP10 <= peer.PairsP90):
			return "peers." + name + ".pairs_p10", peer.PairsP10
		}
	}
	return "", nil
}

// onGPU reports whether the result is that of a GPU.
func (r Result) onGPU() bool {
	_, isCUDA := strings.CutPrefix(r.Device, cudaPrefix)
	return isCUDA
}

// cudaPrefix comes before the ordinal in the name of a CUDA device.
const cudaPrefix = "cuda:"

// invalid returns the name and the value of the first field that cannot be.
func (g GPU) invalid() (field string, got any) {
	switch {
	case g.Name == "":
		return "name", `""`
	case g.Ordinal < 0:
		return "ordinal", g.Ordinal
	case g.Driver == "":
		return "driver", `""`
	case g.ComputeCapability == "":
		return "compute_capability", `""`
	case g.Multiprocessors < 1:
		return "multiprocessors", g.Multiprocessors
	}
	return "", nil
}

// spans reports whether the times are positive and in order.
func spans(p10, median, p90 float64) bool {
	return 0 < p10 && p10 <= median && median <= p90 && !math.IsInf(p90, 0)
}

// near allows for the rounding of what was written.
func near(got, want float64) bool {
	return math.Abs(got-want) <= 1e-3*math.Abs(want)
}
