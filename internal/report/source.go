package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// ErrSource: a file that is not a record of this project, or a damaged one.
var ErrSource = errors.New("invalid record")

// Source is one file of results. Exactly one of the pointers is set.
type Source struct {
	File     string          `json:"file"`
	Bench    *bench.Record   `json:"bench,omitempty"`
	Profiles *bench.Profiles `json:"profiles,omitempty"`
	Python   *PythonRecord   `json:"python,omitempty"`
	Verified *Verified       `json:"verified,omitempty"`
	Tuned    *Tuned          `json:"tuned,omitempty"`
}

// Verified is what one run of aikf verify found.
type Verified struct {
	Schema  int      `json:"schema"`
	Device  string   `json:"device"`
	GPU     string   `json:"gpu"`
	CPU     string   `json:"cpu"`
	Command string   `json:"command"`
	Commit  string   `json:"commit"`
	Rows    int64    `json:"rows"` // of the CPU
	Counts  struct { // of a GPU
		Rows   int64 `json:"rows"`
		Logits int64 `json:"logits"`
	} `json:"counts"`
	Sampling struct { // of work sample, on a GPU
		Rows    int64 `json:"rows"`
		Answers int64 `json:"answers"`
		Tokens  int64 `json:"tokens"`
	} `json:"sampling"`
	Law struct { // of sampled tokens, on a GPU
		Surprises int64 `json:"surprises"`
		Draws     int64 `json:"draws"`
	} `json:"law"`
	Outcome string `json:"outcome"`
}

// summary says what was compared.
func (v Verified) summary(subject string) string {
	compared := fmt.Sprintf("%s rows compared with the oracle's answers", thousands(int(v.Rows)))
	switch {
	case v.Counts.Rows > 0:
		compared = fmt.Sprintf("%s rows, %s logits compared with the CPU's answers", thousands(int(v.Counts.Rows)), thousands(int(v.Counts.Logits)))
	case v.Sampling.Rows > 0:
		compared = fmt.Sprintf("%s rows of parameters, seeds and logits, %s answers and %s tokens compared with the CPU's",
			thousands(int(v.Sampling.Rows)), thousands(int(v.Sampling.Answers)), thousands(int(v.Sampling.Tokens)))
	case v.Law.Draws > 0:
		compared = fmt.Sprintf("the masses of %s surprises and %s draws compared with the CPU's", thousands(int(v.Law.Surprises)), thousands(int(v.Law.Draws)))
	default:
		return fmt.Sprintf("%s: %s, to the bit: %s.", subject, compared, v.Outcome)
	}
	return fmt.Sprintf("%s: %s, to the bit: %s (%s).", subject, compared, v.Outcome, v.Command)
}

// ReadSource reads one file. What kind of record it is, its fields say. An
// error names the file and the field, and wraps ErrSource or
// [bench.ErrRecord], unless the file could not be read.
func ReadSource(files fs.FS, name string) (Source, error) {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return Source{}, err
	}
	source := Source{File: name}
	if err := source.decode(text); err != nil {
		return Source{}, fmt.Errorf("%s: %w", name, err)
	}
	return source, nil
}

// ReadSources reads every .json file of the folder, in the order of their names.
// Those that are no records are left out; problems has their errors.
func ReadSources(files fs.FS) (sources []Source, problems []error) {
	names, err := fs.Glob(files, "*.json")
	if err != nil {
		problems = append(problems, err)
	}
	for _, name := range names {
		source, err := ReadSource(files, name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		sources = append(sources, source)
	}
	return sources, problems
}

func (s *Source) decode(text []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return fmt.Errorf("report: %w: %w", err, ErrSource)
	}
	has := func(field string) bool { _, ok := fields[field]; return ok }
	switch {
	case has("profiles"):
		s.Profiles = new(bench.Profiles)
		if err := json.Unmarshal(text, s.Profiles); err != nil {
			return fmt.Errorf("report: %w: %w", err, ErrSource)
		}
		return checkProfiles(*s.Profiles)
	case has("plan_version"):
		s.Tuned = new(Tuned)
		if err := json.Unmarshal(text, s.Tuned); err != nil {
			return fmt.Errorf("report: %w: %w", err, ErrSource)
		}
		return s.Tuned.check()
	case has("outcome"):
		s.Verified = new(Verified)
		if err := json.Unmarshal(text, s.Verified); err != nil {
			return fmt.Errorf("report: %w: %w", err, ErrSource)
		}
		if s.Verified.Schema != 1 {
			return invalid("schema", s.Verified.Schema)
		}
		if s.Verified.Outcome == "" {
			return invalid("outcome", `""`)
		}
	case has("kind"):
		if kind := string(fields["kind"]); kind != `"python"` {
			return invalid("kind", kind)
		}
		record, err := DecodePython(bytes.NewReader(text))
		s.Python = &record
		return err
	case has("schema"):
		record, err := bench.DecodeRecord(bytes.NewReader(text))
		s.Bench = &record
		return err
	default:
		return invalid("schema", "none")
	}
	return nil
}

func invalid(field string, got any) error {
	return fmt.Errorf("report: %s = %v: %w", field, got, ErrSource)
}

// checkProfiles reports the first field that cannot be.
func checkProfiles(p bench.Profiles) error {
	switch {
	case p.Schema < bench.OldestProfileSchema || p.Schema > bench.ProfileSchema:
		return invalid("schema", p.Schema)
	case len(p.Profiles) == 0:
		return invalid("profiles", "[]")
	}
	for i, profile := range p.Profiles {
		field := fmt.Sprintf("profiles[%d].", i)
		switch {
		case profile.Batch < 1:
			return invalid(field+"batch", profile.Batch)
		case profile.Vocab < 1:
			return invalid(field+"vocab", profile.Vocab)
		case profile.TopK < 1:
			return invalid(field+"top_k", profile.TopK)
		case !(profile.CallUS > 0):
			return invalid(field+"call_us", profile.CallUS)
		case len(profile.Parts) == 0 && profile.Reason == "":
			return invalid(field+"parts", "[]")
		}
		for j, part := range profile.Parts {
			if part.Name == "" || !(part.US >= 0) {
				return invalid(fmt.Sprintf("%sparts[%d]", field, j), part)
			}
		}
	}
	return nil
}

// subject names what the record is of: the GPU, or the CPU.
func (s Source) subject() string {
	switch {
	case s.Bench != nil && s.Bench.GPU != nil:
		return s.Bench.GPU.Name
	case s.Bench != nil:
		return s.Bench.Machine.CPU
	case s.Profiles != nil:
		return s.Profiles.Subject()
	case s.Tuned != nil:
		return s.Tuned.Device.Name
	case s.Python != nil:
		return s.Python.Machine.GPU
	}
	return cmp.Or(s.Verified.GPU, s.Verified.CPU, s.Verified.Device, "CPU")
}
