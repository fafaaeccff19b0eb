package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// Lab is all that a folder of records says, as one document: [Lab.Markdown] and
// [Lab.HTML] write it.
type Lab struct {
	Sources  []Source
	Problems []error // files that could not be taken
}

// section is a part of the document. The page draws the charts whose names it
// has; Markdown has the tables alone.
type section struct {
	id, title string
	charts    []string
	text      []string
	tables    []table
}

// table is a grid with what stands above it.
type table struct {
	caption []string
	grid    grid
}

// sections are the document.
func (l Lab) sections() []section {
	all := []section{l.overview(), l.losses(), l.matrix(),
		{id: "latency", title: "Latency against rows, vocab and k", charts: []string{"rows", "vocab", "k"},
			text: []string{"Microseconds of a call over the batch, both axes logarithmic; a band is the 10th to the 90th percentile. The read floor is what reading the rows once takes."}},
		{id: "floor", title: "Distance from the floor", charts: []string{"floor"},
			text: []string{"Our time over that of reading the same rows once, in their own dtype, of the same run; 1 would be as fast as reading. The tables and the bars of a CPU hold every dtype against reading float32 rows, so that 16-bit rows can be below 1 there."}},
		l.phases(), l.tuned(), l.adversarial(), l.sampling(), l.acceptance(), l.python(), l.verified(), l.records(),
	}
	if len(l.Problems) > 0 {
		problems := section{id: "problems", title: "Files that could not be read"}
		for _, err := range l.Problems {
			problems.text = append(problems.text, err.Error())
		}
		all = append(all, problems)
	}
	return slices.DeleteFunc(all, func(s section) bool { return len(s.charts)+len(s.text)+len(s.tables) == 0 })
}

// benches are the records of the benchmark.
func (l Lab) benches() []Source {
	return slices.DeleteFunc(slices.Clone(l.Sources), func(s Source) bool { return s.Bench == nil })
}

// overview answers how fast, compared with what, and how far from possible.
func (l Lab) overview() section {
	g := grid{columns: []heading{
		{"machine", false}, {"record", false}, {"results", true}, {"compared with", false},
		{"speed-up", true}, {"ours / floor", true}, {"worst spread", true}, {"answers exact", false}, {"bars met", true},
	}}
	for _, s := range l.benches() {
		var speedups, floors, spreads []float64
		var references []string
		exact := true
		for _, r := range s.Bench.Results {
			if r.Work != bench.TopK {
				continue
			}
			if r.Reference != "" {
				speedups = append(speedups, r.Speedup)
				references = append(references, r.Reference)
			}
			floors, spreads = append(floors, r.FloorRatio), append(spreads, r.Spread())
			exact = exact && r.IndicesEqual && r.MaxAbsDiff == 0
		}
		for _, name := range peerNames(s.Bench.Results) {
			references = append(references, name)
		}
		slices.Sort(references)
		met, spread := notMeasured, notMeasured
		if verdicts := s.Bench.Acceptance; len(verdicts) > 0 {
			n := 0
			for _, v := range verdicts {
				if v.Verdict == bench.Met || v.Verdict == bench.MustOnly {
					n++
				}
			}
			met = fmt.Sprintf("%d of %d", n, len(verdicts))
		}
		if len(spreads) > 0 {
			spread = fmt.Sprintf("±%.0f %%", 100*slices.Max(spreads))
		}
		g.rows = append(g.rows, []string{
			s.subject(), s.File, fmt.Sprint(len(s.Bench.Results)), orNone(strings.Join(slices.Compact(references), ", ")),
			span(speedups), span(floors), spread, yes(exact), met,
		})
	}
	return section{id: "overview", title: "At a glance", tables: []table{{nil, g}},
		text: append(l.answers(), "Every answer was compared with that of a stable sort in the run that timed it. Of work topk, the least and the greatest of a record:")}
}

// answers says of each machine in a few sentences how fast it is, compared with
// what, how far from possible, and where it is slow.
func (l Lab) answers() (lines []string) {
	type answer struct {
		usual, far, hard bench.Result  // a row of the matrix; the farthest from the floor of random and of adversarial rows
		record           *bench.Record // that usual is of
	}
	all := map[string]*answer{}
	var subjects []string
	usual := bench.Matrix()[0]
	for _, s := range l.benches() {
		a := all[s.subject()]
		if a == nil {
			a = &answer{}
			all[s.subject()] = a
			subjects = append(subjects, s.subject())
		}
		for _, r := range s.Bench.Results {
			if r.Work != bench.TopK || r.Mode == bench.Eager || r.Cache == bench.Cold || r.Mode == "" && r.Tier != s.Bench.Machine.Tiers[0] || r.Threads > 1 {
				continue
			}
			if r.Source == bench.Random && r.Batch == usual.Batch && r.Vocab == usual.Vocab && r.TopK == usual.TopK && r.DType == usual.DType && r.BaseOffset == 0 &&
				(a.record == nil || !s.Bench.Date.Before(a.record.Date)) {
				a.usual, a.record = r, s.Bench
			}
			worst := &a.hard
			if isPlain(r) {
				worst = &a.far
			}
			if worst.OursUS == 0 || ownRatio(r) > ownRatio(*worst) {
				*worst = r
			}
		}
	}
	for _, subject := range subjects {
		a := all[subject]
		var said []string
		if r := a.usual; r.OursUS > 0 {
			line := fmt.Sprintf("the top %d of a row of %s %s logits take %s us", r.TopK, thousands(r.Vocab), r.DType, micros(r.OursUS))
			if r.Reference != "" {
				line += fmt.Sprintf("; %s takes %s us, %s as long", r.Reference, micros(r.ReferenceUS), ratio(r.Speedup))
			}
			for _, name := range peerNames([]bench.Result{r}) {
				if p := r.Peers[name]; name != r.Reference && len(p.Doubts) == 0 && p.ProtocolUS == 0 {
					line += fmt.Sprintf("; %s %s us, %s", name, micros(p.US), ratio(p.US/r.OursUS))
				}
			}
			said = append(said, line+fmt.Sprintf(". Reading them once takes %s us: we are at %s of that", micros(r.DTypeFloorUS), ratio(ownRatio(r))))
		}
		if r := a.far; r.OursUS > 0 {
			said = append(said, fmt.Sprintf("Farthest from reading: %s, %s", caseName(r), ratio(ownRatio(r))))
		}
		if r := a.hard; r.OursUS > 0 {
			said = append(said, fmt.Sprintf("Of adversarial rows: %s, %s", caseName(r), ratio(ownRatio(r))))
		}
		if a.record != nil && (a.record.Noise != nil && len(a.record.Noise.Warnings) > 0 || a.usual.Spread() > bench.NoisySpread) {
			said = append(said, `The machine was not quiet: see "Can it be believed"`)
		}
		if len(said) > 0 {
			lines = append(lines, subject+": "+strings.Join(said, ". ")+".")
		}
	}
	return lines
}

// ownRatio is our time over that of reading the rows in their own dtype.
func ownRatio(r bench.Result) float64 { return r.OursUS / r.DTypeFloorUS }

// span shows the least and the greatest.
func span(of []float64) string {
	if len(of) == 0 {
		return notMeasured
	}
	least, greatest := ratio(slices.Min(of)), ratio(slices.Max(of))
	if least == greatest {
		return least
	}
	return least + " to " + greatest
}

func orNone(text string) string {
	if text == "" {
		return notMeasured
	}
	return text
}

// losses gathers what does not flatter: bars that were missed, cases in which
// something else is faster, wrong answers and noise.
func (l Lab) losses() section {
	g := grid{columns: []heading{{"machine", false}, {"what", false}, {"by how much", false}, {"record", false}}}
	// The worst kind comes first.
	const (
		wrong = iota
		missed
		slower
		open
		noise
		kinds
	)
	var rows [kinds][][]string
	add := func(kind int, s Source, what, much string) {
		rows[kind] = append(rows[kind], []string{s.subject(), what, much, s.File})
	}
	for _, s := range l.Sources {
		if s.Python != nil {
			for _, v := range s.Python.Acceptance {
				if v.Verdict == bench.Missed && v.Measured != nil {
					add(missed, s, v.Figure+", at "+v.Row, fmt.Sprintf("must %s, measured %s", ratioDigits(v.Must), ratioDigits(*v.Measured)))
				}
			}
		}
		if s.Verified != nil && s.Verified.Outcome != "equal" {
			add(wrong, s, s.Verified.Command, s.Verified.Outcome)
		}
		if s.Bench == nil {
			continue
		}
		for _, v := range s.Bench.Acceptance {
			switch v.Verdict {
			case bench.Missed:
				add(missed, s, strings.TrimSuffix(v.Work+", worst: "+v.Worst, ", worst: "), fmt.Sprintf("must %s %s, measured %s", ratioDigits(v.Must), v.Figure, ratioDigits(v.Measured)))
			case bench.NotMeasured:
				add(open, s, v.Work, "not measured: "+v.Reason)
			}
		}
		loud, worst := 0, bench.Result{}
		for _, r := range s.Bench.Results {
			if !r.IndicesEqual || r.MaxAbsDiff != 0 {
				add(wrong, s, caseName(r), fmt.Sprintf("WRONG ANSWER, max |diff| %g", r.MaxAbsDiff))
			}
			// The references of other works are parts of the same work, not rivals.
			_, peer := r.Peers[r.Reference]
			if (r.Work == bench.TopK || peer) && r.Reference != "" && r.Speedup < 1 && !strings.HasPrefix(r.Reference, bench.OnTier) {
				add(slower, s, caseName(r), fmt.Sprintf("%s is faster: %s against %s us", r.Reference, micros(r.ReferenceUS), micros(r.OursUS)))
			}
			for _, name := range peerNames([]bench.Result{r}) {
				peer := r.Peers[name]
				if peer.US < r.OursUS && len(peer.Doubts) == 0 && name != r.Reference {
					add(slower, s, caseName(r), fmt.Sprintf("%s is faster: %s against %s us", name, micros(peer.US), micros(r.OursUS)))
				}
				for _, doubt := range peer.Doubts {
					add(wrong, s, caseName(r), fmt.Sprintf("%s is NOT BELIEVED: %s", name, doubt))
				}
				if !peer.ValuesEqual && r.Work == bench.Sample {
					add(wrong, s, caseName(r), fmt.Sprintf("%s draws a token that is not kept", name))
				} else if !peer.ValuesEqual && !peer.Doubted(bench.DoubtAnswer) {
					add(wrong, s, caseName(r), fmt.Sprintf("%s is WRONG: its values are others", name))
				}
			}
			if r.Spread() > bench.NoisySpread {
				loud++
				if worst.OursUS == 0 || r.Spread() > worst.Spread() {
					worst = r
				}
			}
		}
		if loud > 0 {
			add(noise, s, fmt.Sprintf("%d of %d medians spread beyond ±%.0f %%", loud, len(s.Bench.Results), 100*bench.NoisySpread),
				fmt.Sprintf("the worst ±%.0f %%: %s", 100*worst.Spread(), caseName(worst)))
		}
	}
	g.rows = slices.Concat(rows[:]...)
	text := fmt.Sprintf("Bars that were missed or not measured, cases in which something else is faster, wrong answers, and spreads beyond ±%.0f %%.", 100*bench.NoisySpread)
	if len(g.rows) == 0 {
		return section{id: "losses", title: "Losses", text: []string{text, "None in these records."}}
	}
	return section{id: "losses", title: "Losses", text: []string{text}, tables: []table{{nil, g}}}
}

// caseName is what was measured, in a line.
func caseName(r bench.Result) string {
	name := fmt.Sprintf("%s %d x %d, vocab %s, %s, %s rows", strings.TrimSpace(r.Work+" "+r.Sampling), r.Batch, r.TopK, thousands(r.Vocab), r.DType, r.Source)
	for _, detail := range []string{r.Mode, r.Cache} {
		if detail != "" {
			name += ", " + detail
		}
	}
	if r.BaseOffset != 0 {
		name += fmt.Sprintf(", offset %d", r.BaseOffset)
	}
	if r.Mode == "" && r.Tier != "" {
		name += ", " + r.Tier
	}
	return name
}

// tablesOf shows those results of every record that keep says.
func (l Lab) tablesOf(keep func(bench.Result) bool) (tables []table) {
	for _, s := range l.benches() {
		results := slices.DeleteFunc(slices.Clone(s.Bench.Results), func(r bench.Result) bool { return !keep(r) })
		if len(results) == 0 {
			continue
		}
		t := table{caption: []string{s.subject() + ": " + s.File}}
		if s.Bench.GPU != nil {
			cases := byCase(results)
			t.grid = gridOf(deviceColumns, cases)
			t.caption = append(append(t.caption, deviceFacts(cases)...), deviceUnit(cases))
		} else {
			t.grid = gridOf(resultColumns, results)
			t.caption = append(t.caption, strings.Join(constants(resultColumns, results), "; "))
		}
		tables = append(tables, t)
		if peers := peerGrid(results, false); len(peers.rows) > 0 {
			tables = append(tables, table{[]string{peerFacts(results), strings.TrimSpace(methods(results))}, peers})
		}
	}
	return tables
}

func isPlain(r bench.Result) bool { return r.Source == bench.Random || r.Source == bench.Real }

func (l Lab) matrix() section {
	return section{id: "speedups", title: "Speed-ups", charts: []string{"speedups"},
		text:   []string{"The time of others over ours, for the same rows: right of 1 we are faster. Cases are named rows x k; V is the vocabulary, where it is not that of the reference matrix."},
		tables: l.tablesOf(func(r bench.Result) bool { return r.Work == bench.TopK && isPlain(r) })}
}

func (l Lab) phases() section {
	s := section{id: "phases", title: "Where the time goes"}
	g := grid{columns: []heading{
		{"machine", false}, {"batch", true}, {"vocab", true}, {"top-k", true}, {"dtype", false}, {"plan, tier or sampling", false},
		{"part", false}, {"us", true}, {"cycles", true}, {"share", true}, {"call (us)", true}, {"floor (us)", true}, {"empty (us)", true},
	}}
	for _, source := range l.Sources {
		if source.Profiles == nil {
			continue
		}
		for _, p := range source.Profiles.Profiles {
			for _, part := range p.Parts {
				cycles := notMeasured
				if part.Cycles > 0 {
					cycles = fmt.Sprintf("%.0f", part.Cycles)
				}
				empty := notMeasured
				if p.EmptyUS > 0 {
					empty = micros(p.EmptyUS)
				}
				g.rows = append(g.rows, []string{
					source.subject(), fmt.Sprint(p.Batch), thousands(p.Vocab), fmt.Sprint(p.TopK), string(p.DType), p.PlanName(),
					part.Name, micros(part.US), cycles, fmt.Sprintf("%.0f %%", 100*part.Share), micros(p.CallUS), micros(p.FloorUS), empty,
				})
			}
		}
	}
	if len(g.rows) == 0 {
		s.text = []string{"No record of aikf profile is here."}
		return s
	}
	s.charts, s.tables = []string{"phases"}, []table{{nil, g}}
	s.text = []string{"Stages of a plan with several kernels, each alone, and phases within the kernel of the others, of an instrumented build; launch and end of the kernel are the rest of the call. A phase of a CPU is the difference between selections that stop behind it and before it."}
	return s
}

func (l Lab) adversarial() section {
	return section{id: "adversarial", title: "Adversarial rows", charts: []string{"adversarial"},
		text:   []string{"Our time over the read floor, on rows made to hurt: sorted, constant, masked, with ties. The mark is what random rows take."},
		tables: l.tablesOf(func(r bench.Result) bool { return r.Work == bench.TopK && !isPlain(r) })}
}

func (l Lab) sampling() section {
	s := section{id: "sampling", title: "Sampling",
		tables: l.tablesOf(func(r bench.Result) bool { return r.Work == bench.Sample })}
	if len(s.tables) == 0 {
		s.text = []string{"No record measures sampling: aikf bench --work sample --out FILE makes one."}
		return s
	}
	s.charts = []string{"sampling"}
	s.text = []string{"Microseconds of drawing a token for each row, and the read floor."}
	return s
}

func (l Lab) acceptance() section {
	s := section{id: "acceptance", title: "Bars"}
	for _, source := range l.benches() {
		if verdicts := source.Bench.Acceptance; len(verdicts) > 0 {
			s.tables = append(s.tables, table{[]string{source.subject() + ": " + source.File, summary(verdicts)}, acceptanceGrid(verdicts)})
		}
	}
	return s
}

func (l Lab) python() section {
	s := section{id: "python", title: "From PyTorch"}
	for _, source := range l.Sources {
		if r := source.Python; r != nil {
			s.tables = append(s.tables, table{[]string{fmt.Sprintf("%s, torch %s: %s", r.Machine.GPU, r.Machine.Torch, source.File), pythonFacts}, pythonGrid(r.Results, "torch.topk")})
			if len(r.Sampling) > 0 {
				s.tables = append(s.tables, table{[]string{pythonSamplingFacts}, pythonGrid(r.Sampling, "torch")})
			}
			if len(r.Decode) > 0 {
				s.tables = append(s.tables, table{[]string{pythonDecodeFacts}, r.decodeGrid()})
			}
			s.tables = append(s.tables, table{nil, r.barGrid()})
		}
	}
	return s
}

func (l Lab) verified() section {
	s := section{id: "verified", title: "Can it be believed"}
	for _, source := range l.benches() {
		if noise := source.Bench.Noise; noise != nil {
			s.text = append(s.text, fmt.Sprintf("%s: noise: %v.", source.File, noise))
			continue
		}
		loud := 0
		for _, r := range source.Bench.Results {
			if r.Spread() > bench.NoisySpread {
				loud++
			}
		}
		if all := len(source.Bench.Results); loud > 0 {
			s.text = append(s.text, fmt.Sprintf("%s: %d of %d medians spread beyond ±%.0f %%: the machine was not idle, or is virtual.", source.File, loud, all, 100*bench.NoisySpread))
		}
	}
	for _, source := range l.Sources {
		v := source.Verified
		if v == nil {
			continue
		}
		s.text = append(s.text, v.summary(source.subject()))
	}
	return s
}

func (l Lab) records() section {
	g := grid{columns: []heading{{"file", false}, {"machine", false}, {"command", false}, {"commit", false}, {"date", true}}}
	for _, s := range l.Sources {
		row := []string{s.File, s.subject(), "", notMeasured, notMeasured}
		switch {
		case s.Bench != nil:
			lines := caption(*s.Bench)
			machine := lines[0]
			if s.Bench.GPU != nil {
				machine += fmt.Sprintf(", %.2f GHz; %s", float64(s.Bench.GPU.ClockKHz)/1e6, lines[1])
			}
			row = []string{s.File, machine, s.Bench.Command, shortCommit(s.Bench.Commit), s.Bench.Date.UTC().Format("2006-01-02 15:04")}
		case s.Profiles != nil:
			machine := s.subject()
			if s.Profiles.Machine == nil {
				machine = gpuLine(s.Profiles.GPU)
			}
			row = []string{s.File, machine, s.Profiles.Command, shortCommit(s.Profiles.Commit), s.Profiles.Date.UTC().Format("2006-01-02 15:04")}
		case s.Tuned != nil:
			row = []string{s.File, s.Tuned.Device.String(), s.Tuned.Command, shortCommit(s.Tuned.Commit), s.Tuned.Date.UTC().Format("2006-01-02 15:04")}
		case s.Python != nil:
			row[2] = s.Python.Command
		case s.Verified != nil:
			row[2], row[3] = s.Verified.Command, shortCommit(s.Verified.Commit)
		}
		g.rows = append(g.rows, row)
	}
	s := section{id: "records", title: "Records", text: []string{"What every number above comes from. Where two records have the same case, the charts show the newer one."}, tables: []table{{nil, g}}}
	for _, source := range l.benches() {
		for _, note := range source.Bench.Notes {
			s.text = append(s.text, source.File+": "+note)
		}
		if source.Bench.Interrupted {
			s.text = append(s.text, source.File+": the run was interrupted; the rest was not measured.")
		}
	}
	return s
}

// Markdown writes the document.
func (l Lab) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# " + labTitle + "\n")
	for _, s := range l.sections() {
		fmt.Fprintf(&b, "\n## %s\n", s.title)
		for _, line := range s.text {
			fmt.Fprintf(&b, "\n%s\n", line)
		}
		for _, t := range s.tables {
			for _, line := range t.caption {
				fmt.Fprintf(&b, "\n%s\n", line)
			}
			b.WriteString("\n")
			t.grid.markdown(&b)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const labTitle = "aikf: what was measured"
