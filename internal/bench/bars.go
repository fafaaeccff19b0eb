package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/topk"
)

// Figure is what a bar bounds.
type Figure string

// The figures.
const (
	OverFloor     Figure = "x floor"     // ours_us / floor_us, at most
	OverReference Figure = "x reference" // ours_us / reference_us, at most
	Beside        Figure = "us beside"   // ours_us - reference_us, at most
	TimesFaster   Figure = "x faster"    // a peer's us / ours_us, at least
	Allocations   Figure = "allocations" // of a call after the first, at most
	Workspace     Figure = "KiB"         // of a Selector, without 16 bytes a candidate, at most
)

// figures lists them all.
var figures = []Figure{
	OverFloor, OverReference, Beside, TimesFaster, Allocations, Workspace,
	Micros, ColdPenalty, OverAligned, OverRandom, OverC,
}

// Bar is a promise about a figure. Of several cases the worst counts.
type Bar struct {
	Work   string // for people
	Figure Figure
	Cases  []Case
	Peer   string // for TimesFaster
	Major  string // of the peer's version; empty: any
	Must   float64
	Aim    float64 // equal to Must if there is no further aim
}

const (
	vocab    = 50304 // of the reference matrix
	bigVocab = 151936
)

// matrix is the reference matrix.
func matrix(tier string) []Case {
	var cases []Case
	for _, shape := range [][2]int{{1, 50}, {1, 100}, {1, 200}, {4, 50}, {16, 50}, {32, 50}, {32, 200}} {
		cases = append(cases, Case{Work: TopK, Source: Random, Batch: shape[0], Vocab: vocab, TopK: shape[1], DType: BFloat16, Tier: tier})
	}
	return cases
}

// Matrix is the reference matrix on the machine's best tier.
func Matrix() []Case { return matrix("") }

// RealCase is the row of real logits that closes the default run.
func RealCase() Case {
	return Case{Work: TopK, Source: Real, Batch: 1, Vocab: vocab, TopK: 50, DType: BFloat16}
}

// Bars lists every figure that has a bar on the CPU, one thread. Must
// is the bar of a release, aim what is hoped for.
func Bars() []Bar {
	const (
		avx512 = "avx512"
		avx2   = "avx2"
		pure   = "pure"
	)
	one := func(tier string, dtype DType, k int) Case {
		return Case{Work: TopK, Source: Random, Batch: 1, Vocab: vocab, TopK: k, DType: dtype, Tier: tier}
	}
	from := func(source string, c Case) Case { c.Source = source; return c }
	wide := func(vocab, offset int, c Case) Case { c.Vocab, c.BaseOffset = vocab, offset; return c }
	against := func(reference string, c Case) Case { c.Reference = reference; return c }
	stream := func(c Case) Case { c.Work = Stream; return c }
	var worst []Case
	for _, source := range AdversarialSources() {
		for _, dtype := range []DType{Float32, BFloat16} {
			worst = append(worst, from(source, one(avx512, dtype, 50)))
		}
	}
	bars := []Bar{
		{"float32, k = 50", OverFloor, []Case{one(avx512, Float32, 50)}, "", "", 2.0, 1.6},
		{"float32, k = 100", OverFloor, []Case{one(avx512, Float32, 100)}, "", "", 2.5, 1.9},
		{"float32, k = 200", OverFloor, []Case{one(avx512, Float32, 200)}, "", "", 2.8, 2.2},
		{"float32, k = 1,024", OverFloor, []Case{one(avx512, Float32, 1024)}, "", "", 8, 5},
		{"float32, k = 2,048", OverFloor, []Case{one(avx512, Float32, 2048)}, "", "", 12, 8},
		{"bfloat16, k = 50", OverFloor, []Case{one(avx512, BFloat16, 50)}, "", "", 1.6, 1.2},
		{"bfloat16, k = 200", OverFloor, []Case{one(avx512, BFloat16, 200)}, "", "", 2.5, 1.8},
		{"float16, k = 50", OverFloor, []Case{one(avx512, Float16, 50)}, "", "", 1.6, 1.2},
		{"float16, k = 200", OverFloor, []Case{one(avx512, Float16, 200)}, "", "", 2.5, 1.8},
		{"real logits, float32, k = 50", OverFloor, []Case{from(Real, one(avx512, Float32, 50))}, "", "", 2.0, 1.6},
		{"real logits, bfloat16, k = 50", OverFloor, []Case{from(Real, one(avx512, BFloat16, 50))}, "", "", 1.6, 1.2},
		{"real logits, bfloat16, k = 200", OverFloor, []Case{from(Real, one(avx512, BFloat16, 200))}, "", "", 2.5, 1.8},
		{"vocab 151,936, float32, k = 50", OverFloor, []Case{wide(bigVocab, 0, one(avx512, Float32, 50))}, "", "", 1.8, 1.5},
		{"vocab 32,768, float32, k = 50", OverFloor, []Case{wide(32768, 0, one(avx512, Float32, 50))}, "", "", 2.2, 1.8},
		{"vocab 32,768, unaligned", OverFloor, []Case{wide(32768, 1, one(avx512, Float32, 50))}, "", "", 2.2, 1.8},
		{"vocab 50,257, unaligned", OverFloor, []Case{wide(50257, 1, one(avx512, Float32, 50))}, "", "", 2.2, 1.8},
		{"worst adversarial row, k = 50", OverFloor, worst, "", "", 10, 5},
		{"stream of 4,096 to one select, k = 50", OverReference, []Case{stream(one(avx512, Float32, 50))}, "", "", 1.5, 1.2},
		{"stream of 4,096 to one select, k = 200", OverReference, []Case{stream(one(avx512, Float32, 200))}, "", "", 2.0, 1.5},
		{"stream of an ascending row, k = 50", OverFloor, []Case{stream(from("ascending", one(avx512, Float32, 50)))}, "", "", 12, 8},
		{"stream of an ascending row, k = 200", OverFloor, []Case{stream(from("ascending", one(avx512, Float32, 200)))}, "", "", 12, 8},
	}
	for _, to := range []struct {
		work, tier, reference string
		must, aim             float64
	}{
		{"avx2 to avx512", avx2, OnTier + avx512, 1.6, 1.3},
		{"pure Go to a typed heap", pure, TypedHeap, 0.5, 0.3},
	} {
		for _, dtype := range []DType{Float32, BFloat16} {
			for _, k := range []int{50, 200} {
				c := against(to.reference, one(to.tier, dtype, k))
				bars = append(bars, Bar{fmt.Sprintf("%s, %s, k = %d", to.work, dtype, k), OverReference, []Case{c}, "", "", to.must, to.aim})
			}
		}
	}
	bars = append(bars, sampleBars()...)
	return append(bars,
		Bar{"allocations of a call", Allocations, matrix(avx512), "", "", 0, 0},
		Bar{"workspace of a selector", Workspace, matrix(avx512), "", "", 64, 64},
		Bar{"torch.topk on the CPU", TimesFaster, matrix(avx512), "torch", "", 20, 20},
		Bar{"numpy 1 argpartition", TimesFaster, matrix(avx512), "numpy", "1", 100, 100},
		Bar{"numpy 2 argpartition", TimesFaster, matrix(avx512), "numpy", "2", 10, 10},
	)
}

// BarsOf returns the bars of some works, as they are listed, or all if none is
// named.
func BarsOf(works []string) []Bar {
	return slices.DeleteFunc(Bars(), func(b Bar) bool {
		return len(works) > 0 && !slices.Contains(works, b.Cases[0].Work)
	})
}

// sampleBars lists the figures of sampling: one row of the matrix's vocab, float32.
// Those in us stand as they are; what is beside top-k alone or another sampling was
// measured in the same rounds.
func sampleBars() []Bar {
	sample := func(sampling, source, tier, reference string) Case {
		return Case{Work: Sample, Sampling: sampling, Source: source, Batch: 1, Vocab: vocab, TopK: sampleK, DType: Float32, Tier: tier, Reference: reference}
	}
	const avx512, avx2 = "avx512", "avx2"
	mixed := sample(Mixed, Random, avx512, RowByRow)
	mixed.Batch = 32
	var all []Case
	bars := []Bar{
		{"sample: top-k 50, top-p, min-p, to top-k alone", Beside, []Case{sample(ChainSampling, Random, avx512, Select)}, "", "", 0.8, 0.5},
		{"sample: greedy", OverFloor, []Case{sample(Greedy, Random, avx512, Select)}, "", "", 1.3, 1.15},
		{"sample: min-p alone, random row", Micros, []Case{sample(MinP, Random, avx512, Select)}, "", "", 6, 4},
		{"sample: min-p alone, real row", Micros, []Case{sample(MinP, Real, avx512, Select)}, "", "", 3, 2},
		{"sample: top-p alone, random row", Micros, []Case{sample(TopP, Random, avx512, Select)}, "", "", 45, 30},
		{"sample: top-p alone, real row", Micros, []Case{sample(TopP, Real, avx512, Select)}, "", "", 15, 11},
		{"sample: no filter", Micros, []Case{sample(NoFilter, Random, avx512, Select)}, "", "", 15, 11},
		{"sample: penalties over 64 tokens and 20 biases, to none", Beside, []Case{sample(Penalties, Random, avx512, PlainChain)}, "", "", 1, 0.5},
		{"sample: bitmask of half, to none", Beside, []Case{sample(HalfMask, Random, avx512, PlainChain)}, "", "", 1, 0.5},
		{"sample: 20 ids allowed, to none", Beside, []Case{sample(AllowedIDs, Random, avx512, PlainChain)}, "", "", 1, 0.5},
		{"sample: no filter, avx2 to avx512", OverReference, []Case{sample(NoFilter, Random, avx2, OnTier+avx512)}, "", "", 2.5, 2},
		{"sample: 32 rows of different parameters, to 32 calls", OverReference, []Case{mixed}, "", "", 1.05, 1},
	}
	for _, b := range bars {
		all = append(all, b.Cases...)
	}
	return append(bars, Bar{"sample: allocations of a call", Allocations, all, "", "", 0, 0})
}

// Verdicts.
const (
	Met         = "met"       // the aim too
	MustOnly    = "must only" // the must, not the aim
	Missed      = "MISSED"
	NotMeasured = "not measured"
)

// Verdict is what became of a bar.
type Verdict struct {
	Work     string  `json:"work"`
	Figure   Figure  `json:"figure"`
	Must     float64 `json:"must"`
	Aim      float64 `json:"aim"`
	Scale    float64 `json:"scale,omitempty"` // by which must and aim were moved with the read floor of the run
	Measured float64 `json:"measured"`        // of the worst case; 0 if not measured
	Worst    string  `json:"worst,omitempty"` // that case, if there are several
	Verdict  string  `json:"verdict"`
	Reason   string  `json:"reason,omitempty"` // why it was not measured
}

// AtLeast reports whether larger is better.
func (f Figure) AtLeast() bool { return f == TimesFaster }

// meets reports whether measured is as good as the bar.
func (f Figure) meets(measured, bar float64) bool {
	if f.AtLeast() {
		return measured >= bar
	}
	return measured <= bar
}

// judge compares a figure with the bar.
func (b Bar) judge(measured float64) string {
	switch {
	case !b.Figure.meets(measured, b.Must):
		return Missed
	case !b.Figure.meets(measured, b.Aim):
		return MustOnly
	}
	return Met
}

// invalid returns the name and the value of the first field that cannot be.
func (v Verdict) invalid() (field string, got any) {
	b := Bar{Figure: v.Figure, Must: v.Must, Aim: v.Aim}
	switch {
	case v.Work == "":
		return "work", `""`
	case !slices.Contains(figures, v.Figure):
		return "figure", v.Figure
	case v.Verdict == NotMeasured && v.Reason == "":
		return "reason", `""`
	case v.Verdict != NotMeasured && v.Verdict != b.judge(v.Measured):
		return "verdict", fmt.Sprintf("%q, but %v against %v and %v is %q", v.Verdict, v.Measured, v.Must, v.Aim, b.judge(v.Measured))
	}
	return "", nil
}

// lacking returns why the bar cannot be measured, or "".
func (b Bar) lacking(peers []*Peer) string {
	for _, c := range b.Cases {
		needed := []string{c.Tier}
		if tier, ok := strings.CutPrefix(c.Reference, OnTier); ok {
			needed = append(needed, tier)
		}
		for _, tier := range needed {
			if !slices.Contains(topk.Tiers(), tier) {
				return fmt.Sprintf("this machine has no tier %s", tier)
			}
		}
	}
	if b.Peer == "" {
		return ""
	}
	for _, peer := range peers {
		if peer.Name == b.Peer {
			if major, _, _ := strings.Cut(peer.Version, "."); b.Major != "" && major != b.Major {
				return fmt.Sprintf("the %s found is %s", peer.Name, peer.Version)
			}
			return ""
		}
	}
	return fmt.Sprintf("needs --against %s, and a python3 that has it", b.Peer)
}

// figure returns the bar's figure of one result.
func (b Bar) figure(r Result) float64 {
	switch b.Figure {
	case OverReference:
		return significant(r.OursUS / r.ReferenceUS)
	case Beside:
		return significant(r.OursUS - r.ReferenceUS)
	case Micros:
		return r.OursUS
	case TimesFaster:
		return significant(r.Peers[b.Peer].US / r.OursUS)
	case Allocations:
		return r.AllocsPerCall
	case Workspace:
		return significant((float64(r.WorkspaceBytes) - 16*float64(r.Capacity)) / 1024)
	}
	return r.FloorRatio
}

// Acceptance measures every bar. progress, if not nil, is told how many cases
// are done, of how many, and the next. A wrong result is an error; a missed bar
// is not. With an error come the results before it.
func (r *Runner) Acceptance(ctx context.Context, bars []Bar, progress func(done, total int, next Case)) (verdicts []Verdict, results []Result, err error) {
	// Cases that several bars share are measured once.
	var cases []Case
	for _, b := range bars {
		if b.lacking(r.Peers) != "" {
			continue
		}
		for _, c := range b.Cases {
			if !slices.Contains(cases, c) {
				cases = append(cases, c)
			}
		}
	}
	peerCases := map[Case]bool{}
	for _, b := range bars {
		for _, c := range b.Cases {
			peerCases[c] = peerCases[c] || b.Peer != ""
		}
	}
	measured := map[Case]Result{}
	for i, c := range cases {
		if progress != nil {
			progress(i, len(cases), c)
		}
		runner := *r
		if !peerCases[c] {
			runner.Peers = nil
		}
		result, err := runner.Measure(ctx, c)
		if err != nil {
			return nil, results, err
		}
		measured[c] = result
		results = append(results, result)
	}
	for _, b := range bars {
		v := Verdict{Work: b.Work, Figure: b.Figure, Must: b.Must, Aim: b.Aim, Verdict: NotMeasured, Reason: b.lacking(r.Peers)}
		for i, c := range b.Cases {
			if v.Reason != "" {
				break
			}
			if doubts := measured[c].Peers[b.Peer].Doubts; len(doubts) > 0 {
				v = Verdict{Work: b.Work, Figure: b.Figure, Must: b.Must, Aim: b.Aim, Verdict: NotMeasured,
					Reason: fmt.Sprintf("%s is not believed (%s): %s", b.Peer, c.label(), doubts[0])}
				break
			}
			figure := b.figure(measured[c])
			if i == 0 || !b.Figure.meets(figure, v.Measured) {
				v.Measured, v.Verdict = figure, b.judge(figure)
				if len(b.Cases) > 1 {
					v.Worst = c.label()
				}
			}
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, results, nil
}

// label tells cases of one bar apart.
func (c Case) label() string {
	if c.Work == Sample {
		return fmt.Sprintf("%s, %s, %s", c.Sampling, c.Source, c.Tier)
	}
	if c.Source != Random {
		return fmt.Sprintf("%s, %s", c.Source, c.DType)
	}
	return fmt.Sprintf("%d x %d", c.Batch, c.TopK)
}
