// Package planfile reads and writes files of launch plans that were searched for
// on one device, and refuses those that cannot be trusted.
package planfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// Schema is the version of the format.
const Schema = 1

// The kinds of devices.
const (
	CPU  = "cpu"
	CUDA = "cuda"
)

// versions are those of the library's plans. One is raised by whatever may change
// which plan is fastest: the inner loops, or what the numbers of a plan mean.
var versions = map[string]int{CPU: 1, CUDA: 1}

// Unknown is the name of a CPU that the system does not tell.
const Unknown = "unknown"

// mostBytes bounds a file: some 100,000 shapes.
const mostBytes = 64 << 20

// ErrInvalid: a file that is damaged, or of another device or version.
var ErrInvalid = errors.New("launch plans not usable here")

// Plan is what a file says of how a shape is selected.
type Plan interface {
	// Invalid returns the name and the value of the first field that no plan can
	// have, or no name.
	Invalid() (field string, got any)
}

// DevicePlan is a plan of a GPU, whose package knows the names and the numbers.
type DevicePlan struct {
	Name   string `json:"name"`
	Groups int    `json:"groups"`
	Chunks int    `json:"chunks"`
}

// Invalid implements [Plan].
func (p DevicePlan) Invalid() (field string, got any) {
	switch {
	case p.Name == "":
		return "name", `""`
	case p.Groups < 1:
		return "groups", p.Groups
	case p.Chunks < 1:
		return "chunks", p.Chunks
	}
	return "", nil
}

// File holds the plans of one device.
type File[P Plan] struct {
	Schema      int        `json:"schema"`
	PlanVersion int        `json:"plan_version"` // of the library's plans, for the kind of device
	Device      Device     `json:"device"`
	Command     string     `json:"command"`
	Commit      string     `json:"commit"`
	Date        time.Time  `json:"date"`
	Seed        uint64     `json:"seed"`
	Entries     []Entry[P] `json:"entries"`  // plans that win beyond noise
	NotKept     []Entry[P] `json:"not_kept"` // the best of the other shapes, which do not
	// Unfinished is the shape whose search was interrupted.
	Unfinished *Unfinished[P] `json:"unfinished,omitempty"`
}

// Device is what plans were searched for on.
type Device struct {
	Kind              string `json:"kind"`
	Name              string `json:"name"`                         // of the CPU's or GPU's model
	Tier              string `json:"tier,omitempty"`               // of a CPU
	Cores             int    `json:"cores,omitempty"`              // of a CPU; others do not make it another device
	ComputeCapability string `json:"compute_capability,omitempty"` // of a GPU, as 9.0
	Multiprocessors   int    `json:"multiprocessors,omitempty"`    // of a GPU
}

// String names the device in an error.
func (d Device) String() string {
	if d.Kind == CUDA {
		return fmt.Sprintf("%s (compute capability %s, %d multiprocessors)", d.Name, d.ComputeCapability, d.Multiprocessors)
	}
	return fmt.Sprintf("CPU %s (tier %s)", d.Name, d.Tier)
}

// Is reports whether plans of one device are plans of the other.
func (d Device) Is(other Device) bool {
	d.Cores, other.Cores = 0, 0
	return d == other
}

// Shape is what a plan is for.
type Shape struct {
	Rows  int    `json:"rows"`
	Vocab int    `json:"vocab"`
	TopK  int    `json:"top_k"`
	DType string `json:"dtype"`
}

// String names the shape in a line.
func (s Shape) String() string {
	return fmt.Sprintf("%d x %d, k = %d, %s", s.Rows, s.Vocab, s.TopK, s.DType)
}

// dtypes are those that a shape can have.
var dtypes = []string{"float32", "float16", "bfloat16"}

func (s Shape) invalid() (field string, got any) {
	switch {
	case s.Rows < 1 || s.Rows > math.MaxInt32:
		return "rows", s.Rows
	case s.Vocab < 1 || s.Vocab > math.MaxInt32:
		return "vocab", s.Vocab
	case s.TopK < 1 || s.TopK > s.Vocab:
		return "top_k", s.TopK
	case !slices.Contains(dtypes, s.DType):
		return "dtype", fmt.Sprintf("%.64q", s.DType)
	}
	return "", nil
}

// Entry is the fastest plan that was found for a shape. Its gain was measured
// after the search, several times with other logits in other memory: the plan and
// the built-in one took turns. The gain of a start is the median over these pairs
// of the built-in time over the plan's, and Gain is the mean over the starts.
type Entry[P Plan] struct {
	Shape
	Plan       P       `json:"plan"`
	Explained  string  `json:"explained"`   // the plan in words
	Tried      int     `json:"plans_tried"` // the built-in one among them
	BuiltInUS  float64 `json:"built_in_us"`
	TunedUS    float64 `json:"tuned_us"`
	Gain       float64 `json:"gain"`
	GainLow    float64 `json:"gain_low"`
	GainHigh   float64 `json:"gain_high"`
	Confidence float64 `json:"confidence"` // that the gain lies between gain_low and gain_high
	Pairs      int     `json:"pairs"`
	Starts     int     `json:"starts"`           // how many times logits and memory were made anew
	LeastStart float64 `json:"least_start"`      // the gain of the worst of them
	Reason     string  `json:"reason,omitempty"` // why it is not kept
}

// Unfinished is a search that was interrupted: the plans that are still in it.
type Unfinished[P Plan] struct {
	Shape
	Plans []P `json:"plans"`
	Tried int `json:"plans_tried"`
}

// Decode reads a file of plans for a kind of device. An error names the field,
// and wraps ErrInvalid unless reading failed.
func Decode[P Plan](from io.Reader, kind string) (File[P], error) {
	text, err := io.ReadAll(io.LimitReader(from, mostBytes+1))
	switch {
	case err != nil:
		return File[P]{}, err
	case len(text) > mostBytes:
		return File[P]{}, fmt.Errorf("more than %d bytes: %w", mostBytes, ErrInvalid)
	case len(text) == 0:
		return File[P]{}, fmt.Errorf("nothing to read: %w", ErrInvalid)
	}
	// What a file is of comes first: one of another kind or version has other fields.
	var f File[P]
	var head struct {
		Schema      int    `json:"schema"`
		PlanVersion int    `json:"plan_version"`
		Device      Device `json:"device"`
	}
	if json.Unmarshal(text, &head) == nil {
		f.Schema, f.PlanVersion, f.Device = head.Schema, head.PlanVersion, head.Device
		if err := f.validateHead(kind); err != nil {
			return File[P]{}, err
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err = decoder.Decode(&f); err == nil {
		if _, end := decoder.Token(); end != io.EOF {
			err = errors.New("something follows the plans")
		}
	}
	if err != nil {
		return File[P]{}, fmt.Errorf("%s: %w", strings.TrimPrefix(err.Error(), "json: "), ErrInvalid)
	}
	if err := f.validate(kind); err != nil {
		return File[P]{}, err
	}
	return f, nil
}

// New returns a file without plans.
func New[P Plan](device Device) File[P] {
	return File[P]{Schema: Schema, PlanVersion: versions[device.Kind], Device: device, Entries: []Entry[P]{}, NotKept: []Entry[P]{}}
}

// Resume takes over what another file of the same device has found.
func (f *File[P]) Resume(from io.Reader) error {
	old, err := Decode[P](from, f.Device.Kind)
	if err != nil {
		return err
	}
	if !old.Device.Is(f.Device) {
		return fmt.Errorf("device: plans of %v, this is %v: %w", old.Device, f.Device, ErrInvalid)
	}
	f.Entries, f.NotKept, f.Unfinished = old.Entries, old.NotKept, old.Unfinished
	return nil
}

// Encode writes the file.
func (f File[P]) Encode(to io.Writer) error {
	if err := f.validate(f.Device.Kind); err != nil {
		return err
	}
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(f)
}

func invalid(field string, got any) error { return fmt.Errorf("%s = %v: %w", field, got, ErrInvalid) }

// validateHead reports a file of another kind or version.
func (f File[P]) validateHead(kind string) error {
	switch {
	case f.Schema != Schema:
		return fmt.Errorf("schema = %d, this version reads %d: %w", f.Schema, Schema, ErrInvalid)
	case f.Device.Kind != kind:
		return fmt.Errorf("device.kind = %.64q, want %q: %w", f.Device.Kind, kind, ErrInvalid)
	case f.PlanVersion != versions[kind]:
		return fmt.Errorf("plan_version = %d, this version of the library has %d; \"aikf tune\" makes a new file: %w", f.PlanVersion, versions[kind], ErrInvalid)
	case f.Device.Name == "":
		return invalid("device.name", `""`)
	case kind == CPU && f.Device.Tier == "":
		return invalid("device.tier", `""`)
	case kind == CUDA && f.Device.ComputeCapability == "":
		return invalid("device.compute_capability", `""`)
	case kind == CUDA && f.Device.Multiprocessors < 1:
		return invalid("device.multiprocessors", f.Device.Multiprocessors)
	}
	return nil
}

// validate reports the first field that cannot be.
func (f File[P]) validate(kind string) error {
	if err := f.validateHead(kind); err != nil {
		return err
	}
	seen := map[Shape]bool{}
	for _, list := range []struct {
		name    string
		entries []Entry[P]
	}{{"entries", f.Entries}, {"not_kept", f.NotKept}} {
		for i, e := range list.entries {
			at := func(field string) string { return fmt.Sprintf("%s[%d].%s", list.name, i, field) }
			if field, got := e.Shape.invalid(); field != "" {
				return invalid(at(field), got)
			}
			if field, got := e.Plan.Invalid(); field != "" {
				return invalid(at("plan."+field), got)
			}
			if field, got := e.invalid(list.name == "entries"); field != "" {
				return invalid(at(field), got)
			}
			if seen[e.Shape] {
				return fmt.Errorf("%s: the shape %v comes twice: %w", at("rows"), e.Shape, ErrInvalid)
			}
			seen[e.Shape] = true
		}
	}
	if u := f.Unfinished; u != nil {
		if field, got := u.Shape.invalid(); field != "" {
			return invalid("unfinished."+field, got)
		}
		for i, plan := range u.Plans {
			if field, got := plan.Invalid(); field != "" {
				return invalid(fmt.Sprintf("unfinished.plans[%d].%s", i, field), got)
			}
		}
	}
	return nil
}

// invalid reports figures that no measurement has, or that no plan that is kept
// has.
func (e Entry[P]) invalid(kept bool) (field string, got any) {
	switch {
	case !(e.BuiltInUS > 0):
		return "built_in_us", e.BuiltInUS
	case !(e.TunedUS > 0):
		return "tuned_us", e.TunedUS
	case kept && !(e.GainLow > 1): // of a few noisy starts the interval may begin below 0
		return "gain_low", e.GainLow
	case !(e.GainLow <= e.Gain && e.Gain <= e.GainHigh):
		return "gain", fmt.Sprintf("%v, outside %v to %v", e.Gain, e.GainLow, e.GainHigh)
	case !(0 <= e.Confidence && e.Confidence <= 1):
		return "confidence", e.Confidence
	case e.Pairs < 1:
		return "pairs", e.Pairs
	}
	return "", nil
}
