// Package report renders records of the benchmark for people and programs.
package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// The formats.
const (
	Table    = "table"
	Markdown = "md"
	JSON     = "json"
	CSV      = "csv"
)

// Formats lists them.
func Formats() []string { return []string{Table, Markdown, JSON, CSV} }

// Write renders the record.
func Write(w io.Writer, format string, record bench.Record) error {
	switch format {
	case JSON:
		return record.Encode(w)
	case CSV:
		return writeCSV(w, record)
	case Markdown, Table:
		_, err := io.WriteString(w, document(format, record))
		return err
	}
	return fmt.Errorf("report: format %q is not one of %v", format, Formats())
}

// document is the text for people: grids with captions.
func document(format string, record bench.Record) string {
	var b strings.Builder
	show := func(g grid) {
		if format == Markdown {
			g.markdown(&b)
		} else {
			g.text(&b)
		}
	}
	for _, line := range caption(record) {
		b.WriteString(line + "\n")
		if format == Markdown {
			b.WriteString("\n")
		}
	}
	if format == Table {
		b.WriteString("\n")
	}
	switch {
	case len(record.Acceptance) > 0:
		show(acceptanceGrid(record.Acceptance))
		fmt.Fprintf(&b, "\n%s\n", summary(record.Acceptance))
		for _, v := range record.Acceptance {
			if v.Verdict == bench.NotMeasured {
				fmt.Fprintf(&b, "not measured: %s: %s\n", v.Work, v.Reason)
			}
		}
		for _, line := range reported(record) {
			b.WriteString(line + "\n")
		}
		if shown := matrixOf(record.Results); record.GPU != nil && len(shown) > 0 {
			fmt.Fprintf(&b, "\n%s\n\n", strings.Join(deviceFacts(shown), "\n"))
			show(gridOf(deviceColumns, shown))
		}
	case record.GPU != nil:
		show(gridOf(deviceColumns, byCase(record.Results)))
	case format == Table:
		columns := slices.DeleteFunc(slices.Clone(resultColumns), func(c column[bench.Result]) bool { return c.head == pairsHead || c.head == percentilesHead })
		show(gridOf(columns, record.Results))
		if line := worstPairs(record.Results); line != "" {
			fmt.Fprintf(&b, "\n%s\n", line)
		}
	default:
		show(gridOf(resultColumns, record.Results))
	}
	if peers := peerGrid(record.Results, format == Table); len(peers.rows) > 0 {
		fmt.Fprintf(&b, "\n%s\n%s\n", peerFacts(record.Results), methods(record.Results))
		show(peers)
		for _, line := range doubts(record.Results) {
			b.WriteString("\nNOT BELIEVED: " + line + "\n")
		}
	}
	for _, note := range record.Notes {
		fmt.Fprintf(&b, "\nnote: %s\n", note)
	}
	if record.Noise != nil {
		fmt.Fprintf(&b, "\nnoise: %s\n", strings.ReplaceAll(record.Noise.String(), "; ", ";\n  "))
	}
	if record.Interrupted {
		b.WriteString("\nnote: the run was interrupted; the rest was not measured\n")
	}
	return b.String()
}

// caption says where the numbers come from and what they mean.
func caption(r bench.Record) []string {
	m := r.Machine
	machine := fmt.Sprintf("%s, %d cores, %s/%s, %s, tiers %s", m.CPU, m.Cores, m.OS, m.Arch, m.Go, strings.Join(m.Tiers, " "))
	if m.Virtual {
		machine += ", virtual"
	}
	var lines []string
	if r.GPU != nil {
		lines = append(lines, gpuLine(*r.GPU))
	}
	lines = append(lines,
		machine,
		fmt.Sprintf("%s; commit %s, %s", r.Command, shortCommit(r.Commit), r.Date.UTC().Format("2006-01-02 15:04 MST")),
	)
	if r.GPU != nil {
		return append(lines, deviceCaption(r)...)
	}
	if len(r.Acceptance) > 0 {
		return append(lines, "x floor: ours over a maximum pass of the same run over float32 rows; medians of interleaved samples")
	}
	facts := constants(resultColumns, r.Results)
	var references []string
	for _, result := range r.Results {
		if fact := fmt.Sprintf("reference of %s: %s", result.Work, result.Reference); !slices.Contains(references, fact) {
			references = append(references, fact)
		}
	}
	return append(lines, strings.Join(append(facts, references...), "; "),
		"us: median of a call over the batch, ± half of p10 to p90; floor: a maximum pass over float32 rows")
}

// shortCommit keeps 12 digits of a commit, and that files were changed.
func shortCommit(commit string) string {
	commit, dirty := strings.CutSuffix(commit, "-dirty")
	if len(commit) == 40 {
		commit = commit[:12]
	}
	if dirty {
		commit += "-dirty"
	}
	return commit
}

// constants says what the columns hold that are left out.
func constants[E any](columns []column[E], results []E) []string {
	var facts []string
	for _, c := range columns {
		if c.constant != ifAny && !c.shown(results) {
			facts = append(facts, fmt.Sprintf(c.constant, c.cell(results[0])))
		}
	}
	return facts
}

// column is a column of results. Those with a constant text are shown only if
// their cells differ; otherwise the caption says what they all are. The text
// ifAny stands for: shown if there is anything but notMeasured in the cells.
type column[E any] struct {
	head     string // "\n" breaks the line in a text table
	right    bool
	constant string
	cell     func(E) string
}

// What a text table has no room for: percentiles, which ±% says there, and the
// spread of a ratio over the rounds, in each of which both of its times were
// taken; worstPairs stands below the table instead.
const (
	percentilesHead = "p10-p90 (us)"
	pairsHead       = "by pairs p10-p90"
)

// worstPairs says how far the ratios of single rounds spread, or "".
func worstPairs(results []bench.Result) string {
	var speedup, floor float64
	for _, r := range results {
		speedup = max(speedup, (r.SpeedupP90-r.SpeedupP10)/2/cmp.Or(r.Speedup, 1))
		floor = max(floor, (r.FloorRatioP90-r.FloorRatioP10)/2/r.FloorRatio)
	}
	if floor == 0 {
		return ""
	}
	return fmt.Sprintf("round by round, half of p10 to p90 at most: speed-up ±%.0f %%, ours / floor ±%.0f %%", 100*speedup, 100*floor)
}

var resultColumns = []column[bench.Result]{
	{"work", false, "work %s", func(r bench.Result) string { return strings.TrimSpace(r.Work + " " + r.Sampling) }},
	{"rows", false, "%s rows", func(r bench.Result) string { return r.Source }},
	{"tier", false, "tier %s", func(r bench.Result) string { return r.Tier }},
	{"threads", true, "threads %s", func(r bench.Result) string { return fmt.Sprint(r.Threads) }},
	{"batch", true, "", func(r bench.Result) string { return fmt.Sprint(r.Batch) }},
	{"vocab", true, "", func(r bench.Result) string { return thousands(r.Vocab) }},
	{"top-k", true, "", func(r bench.Result) string { return fmt.Sprint(r.TopK) }},
	{"dtype", false, "", func(r bench.Result) string { return string(r.DType) }},
	{"reference\n(us)", true, "", func(r bench.Result) string { return micros(r.ReferenceUS) }},
	{"ours\n(us)", true, "", func(r bench.Result) string { return micros(r.OursUS) }},
	{percentilesHead, true, "", func(r bench.Result) string { return micros(r.OursUSP10) + "-" + micros(r.OursUSP90) }},
	{"±%", true, "", func(r bench.Result) string { return fmt.Sprintf("%.0f", 100*r.Spread()) }},
	{"speed-\nup", true, "", func(r bench.Result) string { return ratio(r.Speedup) }},
	{pairsHead, true, ifAny, func(r bench.Result) string { return pairSpan(r.SpeedupP10, r.SpeedupP90) }},
	{"floor\n(us)", true, "", func(r bench.Result) string { return micros(r.FloorUS) }},
	{"ours /\nfloor", true, "", func(r bench.Result) string { return ratio(r.FloorRatio) }},
	{pairsHead, true, ifAny, func(r bench.Result) string { return pairSpan(r.FloorRatioP10, r.FloorRatioP90) }},
	{"max\n|diff|", true, "", func(r bench.Result) string { return fmt.Sprintf("%g", r.MaxAbsDiff) }},
	{"indices\nequal", true, "", func(r bench.Result) string { return yes(r.IndicesEqual) }},
}

// pairSpan shows the spread of a ratio over the rounds.
func pairSpan(p10, p90 float64) string {
	if p90 == 0 {
		return notMeasured
	}
	return ratioDigits(p10) + "-" + ratioDigits(p90)
}

const (
	ifAny       = "if any"
	notMeasured = "-"
)

// shown reports whether the column is part of the table.
func (c column[E]) shown(results []E) bool {
	switch c.constant {
	case "":
		return true
	case ifAny:
		return slices.ContainsFunc(results, func(r E) bool { return c.cell(r) != notMeasured })
	}
	return varies(c, results)
}

func varies[E any](c column[E], results []E) bool {
	return slices.ContainsFunc(results, func(r E) bool { return c.cell(r) != c.cell(results[0]) })
}

func gridOf[E any](columns []column[E], results []E) grid {
	var g grid
	for _, c := range columns {
		if c.shown(results) {
			g.columns = append(g.columns, heading{c.head, c.right})
		}
	}
	for _, r := range results {
		var row []string
		for _, c := range columns {
			if c.shown(results) {
				row = append(row, c.cell(r))
			}
		}
		g.rows = append(g.rows, row)
	}
	return g
}

// peered is a peer's measurement, beside ours.
type peered struct {
	name string
	ours bench.Result
	bench.PeerResult
}

// condition is how a GPU was measured, "" for a CPU.
func (p peered) condition() string { return strings.TrimSpace(p.ours.Mode + " " + p.ours.Cache) }

var peerColumns = []column[peered]{
	{"sampling", false, ifAny, func(p peered) string { return cmp.Or(p.ours.Sampling, notMeasured) }},
	{"batch", true, "", func(p peered) string { return fmt.Sprint(p.ours.Batch) }},
	{"vocab", true, "", func(p peered) string { return thousands(p.ours.Vocab) }},
	{"top-k", true, "", func(p peered) string { return fmt.Sprint(p.ours.TopK) }},
	{"dtype", false, "", func(p peered) string { return string(p.ours.DType) }},
	{"mode", false, "%s", peered.condition},
	{"software", false, "", func(p peered) string { return strings.TrimSuffix(p.name+" "+p.Version, " unknown") }},
	{"on", false, "", func(p peered) string { return string(p.DType) }},
	{"it\n(us)", true, "", func(p peered) string { return micros(p.US) }},
	{"ours\n(us)", true, "", func(p peered) string { return micros(p.ours.OursUS) }},
	{"speed-\nup", true, "", func(p peered) string {
		if p.ProtocolUS > 0 {
			return notMeasured // most of its time is that of the numbers' text
		}
		return ratio(p.US / p.ours.OursUS)
	}},
	{pairsHead, true, ifAny, func(p peered) string { return pairSpan(p.PairsP10, p.PairsP90) }},
	{"values\nequal", true, "", func(p peered) string { return yes(p.ValuesEqual) }},
	{"indices\nequal", true, "", func(p peered) string { return yes(p.IndicesEqual) }},
	{"be-\nlieved", true, "believed %s", func(p peered) string { return yes(len(p.Doubts) == 0) }},
}

func peerGrid(results []bench.Result, narrow bool) grid {
	var all []peered
	for _, r := range results {
		for _, name := range peerNames([]bench.Result{r}) {
			all = append(all, peered{name, r, r.Peers[name]})
		}
	}
	columns := slices.DeleteFunc(slices.Clone(peerColumns), func(c column[peered]) bool { return narrow && c.head == pairsHead })
	if len(results) > 0 && results[0].Mode != "" { // a GPU has all dtypes
		columns = slices.DeleteFunc(columns, func(c column[peered]) bool { return c.head == "on" })
	}
	return gridOf(columns, all)
}

// peerFacts says what the columns of peers mean.
func peerFacts(results []bench.Result) string {
	text := "Other software, on the same logits; answers are compared with ours, those of a stable sort."
	if slices.ContainsFunc(results, func(r bench.Result) bool { return r.Work == bench.Sample && len(r.Peers) > 0 }) {
		text += " Of a sampling, which has random numbers of its own: values are equal if its tokens are among those that are kept, and indices if they are ours."
	}
	return text
}

// methods says what was timed of each peer.
func methods(results []bench.Result) string {
	var lines []string
	for _, r := range results {
		for _, name := range peerNames([]bench.Result{r}) {
			line := fmt.Sprintf("%s: %s.", name, r.Peers[name].Method)
			if r.Sampling != "" {
				line = fmt.Sprintf("%s, %s: %s.", name, r.Sampling, r.Peers[name].Method)
			}
			if us := r.Peers[name].ProtocolUS; us > 0 {
				line = fmt.Sprintf("%s: %s;\n  no speed-up: most of it is the text of the numbers. An empty request takes %s us.", name, r.Peers[name].Method, micros(us))
			}
			if !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// doubts says what speaks against the peers, a line each.
func doubts(results []bench.Result) (lines []string) {
	for _, r := range results {
		for _, name := range peerNames([]bench.Result{r}) {
			for _, doubt := range r.Peers[name].Doubts {
				lines = append(lines, fmt.Sprintf("%s, %s:\n  %s", name, caseName(r), doubt))
			}
		}
	}
	return lines
}

// peerNames lists the peers of the results, in alphabetical order.
func peerNames(results []bench.Result) []string {
	var names []string
	for _, r := range results {
		for name := range r.Peers {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func acceptanceGrid(verdicts []bench.Verdict) grid {
	g := grid{columns: []heading{{"work", false}, {"must", true}, {"aim", true}, {"measured", true}, {"figure", false}, {"verdict", false}}}
	for _, v := range verdicts {
		measured, verdict := ratioDigits(v.Measured), v.Verdict
		if v.Verdict == bench.NotMeasured {
			measured = "-"
		} else if v.Worst != "" {
			verdict += " (worst: " + v.Worst + ")"
		}
		g.rows = append(g.rows, []string{v.Work, ratioDigits(v.Must), ratioDigits(v.Aim), measured, string(v.Figure), verdict})
	}
	return g
}

// summary counts the verdicts.
func summary(verdicts []bench.Verdict) string {
	counts := map[string]int{}
	for _, v := range verdicts {
		counts[v.Verdict]++
	}
	parts := []string{}
	for _, verdict := range []string{bench.Met, bench.MustOnly, bench.Missed, bench.NotMeasured} {
		if counts[verdict] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[verdict], verdict))
		}
	}
	return fmt.Sprintf("%d bars: %s.", len(verdicts), strings.Join(parts, ", "))
}

// micros shows three or four digits.
func micros(us float64) string {
	switch {
	case us < 1:
		return fmt.Sprintf("%.3f", us)
	case us < 100:
		return fmt.Sprintf("%.2f", us)
	}
	return fmt.Sprintf("%.0f", us)
}

func ratio(x float64) string { return ratioDigits(x) + "x" }

func ratioDigits(x float64) string {
	switch {
	case x == float64(int(x)):
		return fmt.Sprintf("%.0f", x)
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

// thousands writes n with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
