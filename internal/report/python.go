package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// PythonRecord is one run of python/bench/bars.py: the PyTorch package beside
// torch.topk. Times are microseconds.
type PythonRecord struct {
	Schema  int `json:"schema"`
	Machine struct {
		GPU   string `json:"gpu"`
		Torch string `json:"torch"`
	} `json:"machine"`
	Command  string         `json:"command"`
	Results  []pythonResult `json:"results"`
	Sampling []pythonResult `json:"sampling"`
	Decode   []struct {
		Vocab           int                `json:"vocab"`
		Batch           int                `json:"batch"`
		Right           bool               `json:"right"`
		TokensPerSecond map[string]float64 `json:"tokens_per_second"` // by mode and sampling, as "graph torch"
	} `json:"decode"`
	Acceptance []struct {
		Figure   string   `json:"figure"`
		Must     float64  `json:"must"`
		Aim      float64  `json:"aim"`
		Measured *float64 `json:"measured"` // none: not measured
		Row      string   `json:"row"`
		Verdict  string   `json:"verdict"`
	} `json:"acceptance"`
}

// pythonResult is a row that was measured.
type pythonResult struct {
	Batch int                    `json:"batch"`
	Vocab int                    `json:"vocab"`
	TopK  int                    `json:"top_k"`
	DType string                 `json:"dtype"`
	Right bool                   `json:"right"`
	Times map[string]pythonTimes `json:"times"` // by where the time was taken and of whom, as "eager torch"
}

// pythonTimes are the median and the 10th and 90th percentile.
type pythonTimes struct {
	US    float64 `json:"us"`
	USP10 float64 `json:"us_p10"`
	USP90 float64 `json:"us_p90"`
}

// pythonNames are the times of a result that are shown.
var pythonNames = []string{"host copy_", "host aikf", "eager torch", "eager aikf", "graph torch", "graph aikf"}

// DecodePython reads one such record and validates it. An error names every
// field that cannot be.
func DecodePython(from io.Reader) (PythonRecord, error) {
	var r PythonRecord
	if err := json.NewDecoder(from).Decode(&r); err != nil {
		return r, fmt.Errorf("report: %w: %w", err, ErrSource)
	}
	if r.Schema != 1 || len(r.Results) == 0 {
		return r, fmt.Errorf("report: schema = %d with %d results: %w", r.Schema, len(r.Results), ErrSource)
	}
	var problems []error
	for _, list := range []struct {
		name    string
		results []pythonResult
	}{{"results", r.Results}, {"sampling", r.Sampling}} {
		for i, result := range list.results {
			if !result.Right {
				problems = append(problems, fmt.Errorf("%s[%d].right = false, %d x %d: %w", list.name, i, result.Batch, result.TopK, ErrSource))
			}
			for _, name := range pythonNames {
				if us := result.Times[name].US; !(us > 0) {
					problems = append(problems, fmt.Errorf("%s[%d].times[%q].us = %v, %d x %d: %w", list.name, i, name, us, result.Batch, result.TopK, ErrSource))
				}
			}
		}
	}
	for i, loop := range r.Decode {
		if !loop.Right {
			problems = append(problems, fmt.Errorf("decode[%d].right = false, %d x %d: %w", i, loop.Batch, loop.Vocab, ErrSource))
		}
		for _, name := range decodeNames {
			if rate := loop.TokensPerSecond[name]; !(rate > 0) {
				problems = append(problems, fmt.Errorf("decode[%d].tokens_per_second[%q] = %v, %d x %d: %w", i, name, rate, loop.Batch, loop.Vocab, ErrSource))
			}
		}
	}
	return r, errors.Join(problems...)
}

// decodeNames are the loops that are shown.
var decodeNames = []string{"eager none", "eager torch", "eager aikf", "graph none", "graph torch", "graph aikf"}

// Markdown renders the record.
func (r PythonRecord) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, torch %s\n\n%s\n\n%s\n\n", r.Machine.GPU, r.Machine.Torch, r.Command, pythonFacts)
	pythonGrid(r.Results, "torch.topk").markdown(&b)
	if len(r.Sampling) > 0 {
		b.WriteString("\n" + pythonSamplingFacts + "\n\n")
		pythonGrid(r.Sampling, "torch").markdown(&b)
	}
	if len(r.Decode) > 0 {
		b.WriteString("\n" + pythonDecodeFacts + "\n\n")
		r.decodeGrid().markdown(&b)
	}
	b.WriteString("\n")
	r.barGrid().markdown(&b)
	return b.String()
}

const pythonFacts = "us: medians; host: what a call takes of the CPU; eager: a call in a loop; graph: a call in a CUDA graph"

const pythonSamplingFacts = "sampling: `sample_next_token` beside torch's topk, softmax, multinomial and gather; top-k 0: none"

// pythonGrid is a table of rows beside what torch has.
func pythonGrid(results []pythonResult, torch string) grid {
	g := grid{columns: []heading{
		{"rows", true}, {"vocab", true}, {"top-k", true}, {"dtype", false}, {"host: copy_", true}, {"aikf", true},
		{"eager: " + torch, true}, {"aikf", true}, {"speed-up", true}, {"graph: " + torch, true}, {"aikf", true}, {"speed-up", true},
	}}
	for _, result := range results {
		us := func(name string) float64 { return result.Times[name].US }
		g.rows = append(g.rows, []string{
			fmt.Sprint(result.Batch), fmt.Sprint(result.Vocab), fmt.Sprint(result.TopK), result.DType,
			fmt.Sprintf("%.2f", us("host copy_")), fmt.Sprintf("%.2f", us("host aikf")),
			fmt.Sprintf("%.1f", us("eager torch")), fmt.Sprintf("%.2f", us("eager aikf")), fmt.Sprintf("%.1fx", us("eager torch")/us("eager aikf")),
			fmt.Sprintf("%.1f", us("graph torch")), fmt.Sprintf("%.2f", us("graph aikf")), fmt.Sprintf("%.1fx", us("graph torch")/us("graph aikf")),
		})
	}
	return g
}

const pythonDecodeFacts = "tokens a second of a decode loop of a small GPT, python/bench/decode.py; none: without sampling"

func (r PythonRecord) decodeGrid() grid {
	g := grid{columns: []heading{
		{"rows", true}, {"vocab", true}, {"eager: none", true}, {"torch", true}, {"aikf", true}, {"speed-up", true},
		{"graph: none", true}, {"torch", true}, {"aikf", true}, {"speed-up", true},
	}}
	for _, loop := range r.Decode {
		row := []string{fmt.Sprint(loop.Batch), fmt.Sprint(loop.Vocab)}
		for _, mode := range []string{"eager", "graph"} {
			rate := func(sampling string) float64 { return loop.TokensPerSecond[mode+" "+sampling] }
			row = append(row, fmt.Sprintf("%.0f", rate("none")), fmt.Sprintf("%.0f", rate("torch")), fmt.Sprintf("%.0f", rate("aikf")),
				fmt.Sprintf("%.2fx", rate("aikf")/rate("torch")))
		}
		g.rows = append(g.rows, row)
	}
	return g
}

func (r PythonRecord) barGrid() grid {
	g := grid{columns: []heading{{"figure, of the worst row of the matrix", false}, {"must", true}, {"aim", true}, {"measured", true}, {"verdict", false}}}
	for _, v := range r.Acceptance {
		measured := notMeasured
		if v.Measured != nil {
			measured = fmt.Sprintf("%.2f", *v.Measured)
		}
		g.rows = append(g.rows, []string{v.Figure, fmt.Sprintf("%g", v.Must), fmt.Sprintf("%g", v.Aim), measured, strings.TrimSuffix(v.Verdict+", at "+v.Row, ", at ")})
	}
	return g
}
