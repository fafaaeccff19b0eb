package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// pythonSuffix is how the names of such records end.
const pythonSuffix = "-python.json"

// pythonRecord is what python/bench/bars.py writes.
type pythonRecord struct {
	Schema  int
	Machine struct{ GPU, Torch string }
	Command string
	Results []struct {
		Batch, Vocab int
		TopK         int `json:"top_k"`
		DType        string
		Right        bool
		Times        map[string]struct{ US float64 }
	}
	Acceptance []struct {
		Figure    string
		Must, Aim float64
		Measured  *float64
		Row       string
		Verdict   string
	}
}

// pythonTimes are the times of a result that are shown.
var pythonTimes = []string{"host copy_", "host aikf", "eager torch", "eager aikf", "graph torch", "graph aikf"}

func readPythonRecord(project fs.FS, name string) (pythonRecord, error) {
	var r pythonRecord
	if err := readJSON(project, name, &r); err != nil {
		return r, err
	}
	if r.Schema != 1 || len(r.Results) == 0 {
		return r, fmt.Errorf("%s: schema = %d with %d results", name, r.Schema, len(r.Results))
	}
	var problems []error
	for _, result := range r.Results {
		if !result.Right {
			problems = append(problems, fmt.Errorf("%s: %d x %d is not right", name, result.Batch, result.TopK))
		}
		for _, time := range pythonTimes {
			if !(result.Times[time].US > 0) {
				problems = append(problems, fmt.Errorf("%s: %d x %d has no %s", name, result.Batch, result.TopK, time))
			}
		}
	}
	return r, errors.Join(problems...)
}

// markdown renders the record.
func (r pythonRecord) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, torch %s\n\n%s\n\n", r.Machine.GPU, r.Machine.Torch, r.Command)
	b.WriteString("us: medians; host: what a call takes of the CPU; eager: a call in a loop; graph: a call in a CUDA graph\n\n")
	b.WriteString("| rows | vocab | top-k | dtype | host: copy_ | aikf | eager: torch.topk | aikf | speed-up | graph: torch.topk | aikf | speed-up |\n")
	b.WriteString("| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, result := range r.Results {
		us := func(name string) float64 { return result.Times[name].US }
		fmt.Fprintf(&b, "| %d | %d | %d | %s | %.2f | %.2f | %.1f | %.2f | %.1fx | %.1f | %.2f | %.1fx |\n",
			result.Batch, result.Vocab, result.TopK, result.DType, us("host copy_"), us("host aikf"),
			us("eager torch"), us("eager aikf"), us("eager torch")/us("eager aikf"),
			us("graph torch"), us("graph aikf"), us("graph torch")/us("graph aikf"))
	}
	b.WriteString("\n| figure, of the worst row of the matrix | must | aim | measured | verdict |\n| --- | ---: | ---: | ---: | --- |\n")
	for _, v := range r.Acceptance {
		measured := "-"
		if v.Measured != nil {
			measured = fmt.Sprintf("%.2f", *v.Measured)
		}
		fmt.Fprintf(&b, "| %s | %g | %g | %s | %s |\n", v.Figure, v.Must, v.Aim, measured, strings.TrimSuffix(v.Verdict+", at "+v.Row, ", at "))
	}
	return b.String()
}
