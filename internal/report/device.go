package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// deviceCase is one case of a GPU, under all conditions that were measured.
type deviceCase struct {
	bench.Result // of the first of the conditions: graph warm, if it was measured
	conditions   map[bench.Condition]bench.Result
}

// byCase joins the results of a case, in the order in which the cases come.
func byCase(results []bench.Result) []deviceCase {
	type shape struct {
		work, sampling       string
		source               string
		batch, vocab, k, off int
		dtype                bench.DType
	}
	var order []shape
	conditions := map[shape]map[bench.Condition]bench.Result{}
	for _, r := range results {
		s := shape{r.Work, r.Sampling, r.Source, r.Batch, r.Vocab, r.TopK, r.BaseOffset, r.DType}
		if conditions[s] == nil {
			order, conditions[s] = append(order, s), map[bench.Condition]bench.Result{}
		}
		conditions[s][bench.Condition{Mode: r.Mode, Cache: r.Cache}] = r
	}
	var cases []deviceCase
	for _, s := range order {
		c := deviceCase{conditions: conditions[s]}
		for _, condition := range slices.Concat(bench.Conditions(), []bench.Condition{eagerCold}) {
			if r, ok := conditions[s][condition]; ok && c.Device == "" {
				c.Result = r
			}
		}
		cases = append(cases, c)
	}
	return cases
}

var (
	graphWarm = bench.Condition{Mode: bench.Graph, Cache: bench.Warm}
	graphCold = bench.Condition{Mode: bench.Graph, Cache: bench.Cold}
	eagerWarm = bench.Condition{Mode: bench.Eager, Cache: bench.Warm}
	eagerCold = bench.Condition{Mode: bench.Eager, Cache: bench.Cold}
)

// of shows a field of the case under a condition, if that was measured.
func of(condition bench.Condition, field func(bench.Result) string) func(deviceCase) string {
	return func(c deviceCase) string {
		r, ok := c.conditions[condition]
		if !ok {
			return notMeasured
		}
		return field(r)
	}
}

func ours(r bench.Result) string  { return micros(r.OursUS) }
func floor(r bench.Result) string { return micros(r.FloorUS) }

// unlessAbsent shows a field that needs a reference.
func unlessAbsent(field func(bench.Result) string) func(deviceCase) string {
	return func(c deviceCase) string {
		if c.Reference == "" {
			return notMeasured
		}
		return field(c.Result)
	}
}

var deviceColumns = []column[deviceCase]{
	{"sampling", false, ifAny, func(c deviceCase) string { return cmp.Or(c.Sampling, notMeasured) }},
	{"rows", false, "%s rows", func(c deviceCase) string { return c.Source }},
	{"batch", true, "", func(c deviceCase) string { return fmt.Sprint(c.Batch) }},
	{"vocab", true, "vocab %s", func(c deviceCase) string { return thousands(c.Vocab) }},
	{"top-k", true, "", func(c deviceCase) string { return fmt.Sprint(c.TopK) }},
	{"dtype", false, "%s", func(c deviceCase) string { return string(c.DType) }},
	{"plan", false, "plan %s", func(c deviceCase) string { return c.Plan }},
	{"refer-\nence", true, ifAny, unlessAbsent(func(r bench.Result) string { return micros(r.ReferenceUS) })},
	{"ours", true, "", func(c deviceCase) string { return micros(c.OursUS) }},
	{"±%", true, "", func(c deviceCase) string { return fmt.Sprintf("%.0f", 100*c.Spread()) }},
	{"speed-\nup", true, ifAny, unlessAbsent(func(r bench.Result) string { return ratio(r.Speedup) })},
	{"floor", true, "", func(c deviceCase) string { return floor(c.Result) }},
	{"ours /\nfloor", true, "", func(c deviceCase) string { return ratio(c.FloorRatio) }},
	{"empty\nnode", true, "", func(c deviceCase) string { return micros(c.EmptyUS) }},
	{"ours,\ncold", true, ifAny, of(graphCold, ours)},
	{"floor,\ncold", true, ifAny, of(graphCold, floor)},
	{"eager", true, ifAny, of(eagerWarm, ours)},
	{"eager,\ncold", true, ifAny, of(eagerCold, ours)},
	{"launch\n(ns)", true, ifAny, of(eagerWarm, func(r bench.Result) string { return fmt.Sprintf("%.0f", r.LaunchNS) })},
	{"max\n|diff|", true, "max |diff| %s", func(c deviceCase) string { return fmt.Sprintf("%g", c.MaxAbsDiff) }},
	{"indices\nequal", true, "indices equal: %s", func(c deviceCase) string { return yes(c.IndicesEqual) }},
}

// gpuLine names the GPU.
func gpuLine(g bench.GPU) string {
	return fmt.Sprintf("%s, %d multiprocessors, compute capability %s, driver for CUDA %s, %.0f GB",
		g.Name, g.Multiprocessors, g.ComputeCapability, g.Driver, float64(g.MemoryBytes)/1e9)
}

// deviceCaption says what the numbers of a GPU mean.
func deviceCaption(r bench.Record) []string {
	const floor = "floor: the same rows, read by one block each; medians of interleaved samples"
	if len(r.Acceptance) > 0 {
		return []string{"us of a call over the batch, graph replay, warm, unless it says otherwise", floor}
	}
	cases := byCase(r.Results)
	return append(deviceFacts(cases), deviceUnit(cases), floor)
}

// deviceUnit says what a column means that names no condition.
func deviceUnit(cases []deviceCase) string {
	return fmt.Sprintf("us of a call over the batch, %s, %s, unless it says otherwise", cases[0].Mode, cases[0].Cache)
}

// deviceFacts say what the columns of a GPU's cases mean, and what all of the
// cases have in common.
func deviceFacts(cases []deviceCase) []string {
	var references []string
	for _, c := range cases {
		if c.Reference != "" && !slices.Contains(references, c.Reference) {
			references = append(references, c.Reference)
		}
	}
	reference := cmp.Or(strings.Join(references, ", "), "none; --against torch fills that column, with a python3 that has it")
	return []string{
		strings.Join(constants(deviceColumns, cases), "; "),
		"reference: " + reference,
		"cold: each call has its own logits, four caches of them together; eager: launches from Go",
	}
}

// matrixOf returns the cases that were measured under all conditions.
func matrixOf(results []bench.Result) []deviceCase {
	return slices.DeleteFunc(byCase(results), func(c deviceCase) bool { return len(c.conditions) < len(bench.Conditions()) })
}

// reported is what an acceptance measures without a bar.
func reported(record bench.Record) []string {
	var lines []string
	if l := record.Launch; l != nil {
		line := fmt.Sprintf("reported: a launch takes %.0f ns from Go", l.GoNS)
		if l.Reason == "" {
			line += fmt.Sprintf(", %.0f ns from C", l.CNS)
		}
		lines = append(lines, line)
	}
	if d := record.Dependent; d != nil {
		lines = append(lines, fmt.Sprintf("reported: programmatic dependent launch behind the read floor: %s -> %s us for both kernels",
			micros(d.PlainUS), micros(d.DependentUS)))
	}
	scaled := slices.IndexFunc(record.Acceptance, func(v bench.Verdict) bool { return v.Scale > 1 })
	if scaled >= 0 {
		lines = append(lines, fmt.Sprintf("the bars in us are the table's times %.3f: the read floor of this run over the table's",
			record.Acceptance[scaled].Scale))
	}
	return lines
}
