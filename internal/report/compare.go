package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/perf/benchmath"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// How a case changed.
const (
	Slower    = "SLOWER" // beyond noise and past the threshold: a regression
	Faster    = "faster"
	Unchanged = "~" // not beyond noise, or not past the threshold
	Broken    = "WRONG ANSWER"
)

// enoughRuns is the number of records of each side from which on a test of ranks
// can tell anything at alpha .05: of 4 and 4, the least p is .029.
const enoughRuns = 4

// Change is one case, before and after.
type Change struct {
	Case       string
	Old, New   float64 // us, the median over the runs of their medians
	Delta      float64 // New over Old, less 1
	FloorDelta float64 // the same of the read floor: what the machine did meanwhile
	Runs       [2]int
	P          float64 // of a Mann-Whitney U-test; 1 without it
	Tested     bool    // by that test; otherwise by whether the 10th to 90th percentiles of the runs overlap
	Verdict    string
}

// Comparison is what became of the cases that two sets of runs have in common.
type Comparison struct {
	Threshold          float64 // the share beyond which a change counts
	Changes            []Change
	OnlyOld, OnlyNew   int // cases of one side
	oldNames, newNames []string
}

// runs are the results of one case, one a record.
type runs []bench.Result

// Compare holds two sets of records against each other, case by case. A record is
// one run: the spread between runs is what a change must be told from. A change
// counts beyond threshold, a share such as .05.
func Compare(old, new []Source, threshold float64) Comparison {
	before, _ := runsOf(old)
	after, order := runsOf(new)
	c := Comparison{Threshold: threshold, OnlyOld: len(before), oldNames: commitsOf(old), newNames: commitsOf(new)}
	for _, name := range order {
		if before[name] == nil {
			c.OnlyNew++
			continue
		}
		c.OnlyOld--
		c.Changes = append(c.Changes, changeOf(name, before[name], after[name], threshold))
	}
	return c
}

// Regressions are the changes for the worse.
func (c Comparison) Regressions() []Change {
	return slices.DeleteFunc(slices.Clone(c.Changes), func(d Change) bool { return d.Verdict != Slower && d.Verdict != Broken })
}

// runsOf gathers the runs of every case, and the cases in the order in which they come.
func runsOf(sources []Source) (all map[string]runs, order []string) {
	all = map[string]runs{}
	for _, s := range sources {
		if s.Bench == nil {
			continue
		}
		for _, r := range s.Bench.Results {
			name := s.subject() + ": " + caseName(r)
			if r.Threads > 1 {
				name += fmt.Sprintf(", %d threads", r.Threads)
			}
			if all[name] == nil {
				order = append(order, name)
			}
			all[name] = append(all[name], r)
		}
	}
	return all, order
}

func changeOf(name string, old, new runs, threshold float64) Change {
	oldTimes, newTimes := old.sample(oursUS), new.sample(oursUS)
	c := Change{Case: name, Old: center(oldTimes), New: center(newTimes), Runs: [2]int{len(old), len(new)}, P: 1, Verdict: Unchanged}
	c.Delta = c.New/c.Old - 1
	c.FloorDelta = center(new.sample(floorUS))/center(old.sample(floorUS)) - 1
	beyondNoise := false
	if min(len(old), len(new)) >= enoughRuns {
		test := benchmath.AssumeNothing.Compare(oldTimes, newTimes)
		c.Tested, c.P = true, test.P
		beyondNoise = test.P < test.Alpha
	} else {
		oldLow, oldHigh := old.span()
		newLow, newHigh := new.span()
		beyondNoise = newLow > oldHigh || newHigh < oldLow
	}
	switch {
	case slices.ContainsFunc(new, func(r bench.Result) bool { return !r.IndicesEqual || r.MaxAbsDiff != 0 }):
		c.Verdict = Broken
	case beyondNoise && c.Delta > threshold:
		c.Verdict = Slower
	case beyondNoise && c.Delta < -threshold:
		c.Verdict = Faster
	}
	return c
}

func oursUS(r bench.Result) float64  { return r.OursUS }
func floorUS(r bench.Result) float64 { return r.FloorUS }

func (all runs) sample(of func(bench.Result) float64) *benchmath.Sample {
	var values []float64
	for _, r := range all {
		values = append(values, of(r))
	}
	return benchmath.NewSample(values, &benchmath.DefaultThresholds)
}

// span is from the least 10th percentile of the runs to the greatest 90th.
func (all runs) span() (low, high float64) {
	low, high = all[0].OursUSP10, all[0].OursUSP90
	for _, r := range all[1:] {
		low, high = min(low, r.OursUSP10), max(high, r.OursUSP90)
	}
	return low, high
}

// center is the median.
func center(s *benchmath.Sample) float64 { return benchmath.AssumeNothing.Summary(s, 0.95).Center }

// commitsOf lists the commits of the records, each once.
func commitsOf(sources []Source) (commits []string) {
	for _, s := range sources {
		if s.Bench != nil && !slices.Contains(commits, shortCommit(s.Bench.Commit)) {
			commits = append(commits, shortCommit(s.Bench.Commit))
		}
	}
	return commits
}

// Write renders the comparison, as [Table] or [Markdown].
func (c Comparison) Write(w io.Writer, format string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "commit %s, then %s; a change counts beyond noise and past %.1f %%\n\n", strings.Join(c.oldNames, ", "), strings.Join(c.newNames, ", "), 100*c.Threshold)
	g := grid{columns: []heading{{"case", false}, {"old\n(us)", true}, {"new\n(us)", true}, {"change", true}, {"floor's\nchange", true}, {"p", true}, {"runs", true}, {"verdict", false}}}
	percent := func(share float64) string { return fmt.Sprintf("%+.1f %%", 100*share) }
	counts := map[string]int{}
	untested := false
	for _, d := range c.Changes {
		p := notMeasured
		if d.Tested {
			p = fmt.Sprintf("%.3f", d.P)
		}
		untested = untested || !d.Tested
		counts[d.Verdict]++
		g.rows = append(g.rows, []string{d.Case, micros(d.Old), micros(d.New), percent(d.Delta), percent(d.FloorDelta), p, fmt.Sprintf("%d+%d", d.Runs[0], d.Runs[1]), d.Verdict})
	}
	switch format {
	case Markdown:
		g.markdown(&b)
	case Table:
		g.text(&b)
	default:
		return fmt.Errorf("report: format %q is not %s or %s", format, Table, Markdown)
	}
	fmt.Fprintf(&b, "\n%d cases: %d slower, %d faster, %d wrong, %d unchanged; %d only in the old records, %d only in the new.\n",
		len(c.Changes), counts[Slower], counts[Faster], counts[Broken], counts[Unchanged], c.OnlyOld, c.OnlyNew)
	if untested {
		fmt.Fprintf(&b, "Cases without p have fewer than %d runs on a side: they changed if the 10th to 90th percentiles are apart, which one lucky run can do.\n", enoughRuns)
	}
	if moved := slices.IndexFunc(c.Changes, func(d Change) bool { return d.FloorDelta > c.Threshold || d.FloorDelta < -c.Threshold }); moved >= 0 {
		b.WriteString("The read floor moved past the threshold, too: the machine was not the same, or not as idle.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
