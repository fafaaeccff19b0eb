package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// sourcesOf are records of one case each, with those medians.
func sourcesOf(commit string, spread float64, medians ...float64) (all []Source) {
	for _, us := range medians {
		r := result(bench.Random, 1, 50, bench.BFloat16, us, 50)
		r.OursUSP10, r.OursUSP90 = us*(1-spread), us*(1+spread)
		all = append(all, Source{File: "x.json", Bench: &bench.Record{Machine: bench.Machine{CPU: "Example 9000"}, Commit: commit, Results: []bench.Result{r}}})
	}
	return all
}

func TestCompare(t *testing.T) {
	five := []float64{2, 2.01, 1.99, 2.02, 1.98}
	for name, test := range map[string]struct {
		old, new []float64
		want     string
		tested   bool
	}{
		"the same":              {five, five, Unchanged, true},
		"slower":                {five, []float64{2.2, 2.21, 2.19, 2.22, 2.18}, Slower, true},
		"faster":                {five, []float64{1.8, 1.81, 1.79, 1.82, 1.78}, Faster, true},
		"below the threshold":   {five, []float64{2.06, 2.07, 2.05, 2.08, 2.04}, Unchanged, true},
		"noise":                 {[]float64{1, 3, 2, 1.5, 2.5}, []float64{3.1, 1.2, 2.4, 2.2, 1.9}, Unchanged, true},
		"one run, slower":       {[]float64{2}, []float64{2.4}, Slower, false},
		"one run, overlapping":  {[]float64{2}, []float64{2.11}, Unchanged, false},
		"three runs, one lucky": {[]float64{2, 2, 2}, []float64{2.4, 2.4, 2}, Unchanged, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := Compare(sourcesOf("aaa", 0.03, test.old...), sourcesOf("bbb", 0.03, test.new...), 0.05)
			if len(c.Changes) != 1 {
				t.Fatalf("%d changes, want 1", len(c.Changes))
			}
			if got := c.Changes[0]; got.Verdict != test.want || got.Tested != test.tested {
				t.Errorf("%+v, want %s, tested %t", got, test.want, test.tested)
			}
			if regressed := len(c.Regressions()) > 0; regressed != (test.want == Slower) {
				t.Errorf("regressions: %v", c.Regressions())
			}
		})
	}
}

func TestCompareWrong(t *testing.T) {
	fast := sourcesOf("bbb", 0.03, 1)
	fast[0].Bench.Results[0].IndicesEqual = false
	if c := Compare(sourcesOf("aaa", 0.03, 2), fast, 0.05); len(c.Regressions()) != 1 || c.Changes[0].Verdict != Broken {
		t.Errorf("a wrong answer that is fast: %+v", c.Changes)
	}
}

func TestCompareCases(t *testing.T) {
	old, new := sourcesOf("aaa", 0.03, 2), sourcesOf("bbb", 0.03, 3)
	other := result(bench.Random, 4, 50, bench.Float32, 2, 50)
	old[0].Bench.Results = append(old[0].Bench.Results, other)
	c := Compare(old, new, 0.05)
	if len(c.Changes) != 1 || c.OnlyOld != 1 || c.OnlyNew != 0 {
		t.Fatalf("%d in common, %d and %d alone; want 1, 1, 0", len(c.Changes), c.OnlyOld, c.OnlyNew)
	}
	for format, want := range map[string]string{
		Table:    "Example 9000: topk 1 x 50, vocab 50,304, bfloat16, random rows, avx512  2.00  3.00  +50.0 %",
		Markdown: "| 2.00 | 3.00 | +50.0 % | +0.0 % | - | 1+1 | SLOWER |",
	} {
		var b bytes.Buffer
		if err := c.Write(&b, format); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%s: %v, want %q in\n%s", format, err, want, b.String())
		}
		if want := "1 cases: 1 slower, 0 faster, 0 wrong, 0 unchanged; 1 only in the old records, 0 only in the new."; !strings.Contains(b.String(), want) {
			t.Errorf("want %q in\n%s", want, b.String())
		}
	}
	if err := c.Write(&bytes.Buffer{}, CSV); err == nil {
		t.Error("a comparison as CSV is no error")
	}
}
