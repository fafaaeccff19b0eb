// Package cpu is the selection engine for one row at a time: stage 1 filters
// the row by a threshold, stage 2 orders the candidates that are left.
package cpu

import (
	"cmp"
	"fmt"
	"math"
	"runtime"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// chunk is the number of elements filtered between two looks at the candidates.
// Its bitmap is 8 KiB, so the workspace does not grow with the vocab, and a row
// whose threshold turns out too low has filtered at most this much in vain.
const chunk = 65536

// Plan says how a row is selected. It changes the time, never the answer.
type Plan struct {
	Tier     simd.Tier
	Sample   SamplePlan
	Chunk    int // elements filtered at a time
	Capacity int // candidates held before they are cut down to k
	Threads  int // goroutines that share the rows

	// FirstRoom is for how many candidates a row starts with room. It grows up to
	// the capacity if a k as large as that of a stream is given before the logits.
	FirstRoom int

	elementBytes, targetCandidates int
	tuning                         *Tuning
}

// SamplePlan says how the threshold is guessed: the Rank-th largest of Groups
// maxima over every Step-th cache line of the row.
type SamplePlan struct {
	Step       int // cache lines from one stop to the next
	Groups     int // 0: no guess, every element is a candidate
	Rank       int
	SortedRank int // enough in a sorted row, too, where neighbours are alike
	Candidates int // expected to pass, if the row is in random order
}

// Shape is what a plan depends on, beside the machine.
type Shape struct {
	Rows, Vocab, K   int
	ElementBytes     int
	TargetCandidates int     // 0: the plan decides
	Threads          int     // 0: the plan decides
	Tuning           *Tuning // nil: the plan decides; not changed while the plan is in use
}

// Tuning overrides figures of a plan that were searched for. 0 stands for the
// built-in one. No tuning changes an answer.
type Tuning struct {
	Step       int     `json:"sample_step,omitempty"`      // cache lines from one stop of the sample to the next; odd
	Deviations float64 `json:"deviations,omitempty"`       // standard deviations by which the guess goes below the expected k-th
	Groups     float64 `json:"groups_per_place,omitempty"` // groups for each of the best that are looked for
	Chunk      int     `json:"chunk,omitempty"`            // elements filtered at a time
	Threads    int     `json:"threads,omitempty"`          // unless the caller says how many
}

// BuiltIn returns the figures of a plan for rows of n elements without a tuning,
// but for the threads. They were searched for on random rows of 50,304 float32
// (docs/log.md, 2026-11-22); around them the time is flat. Every 17th line, or every
// 9th when many candidates make a sharper threshold pay. Of 16 bits a row has half
// the lines, so that more of them pay, up to 14 % in rows of one chunk; in longer
// ones they cost 3 % (results, the plans of an AMD EPYC).
func BuiltIn(n, k, elementBytes int) Tuning {
	t := Tuning{Step: 17, Deviations: 2, Groups: 3, Chunk: chunk}
	switch {
	case k > 256:
		t.Step = 9
	case elementBytes == 2 && n <= chunk:
		t.Step = 11
	}
	return t
}

// orBuiltIn fills in what the tuning, which may be nil, leaves open.
func (t *Tuning) orBuiltIn(n, k, elementBytes int) Tuning {
	b := BuiltIn(n, k, elementBytes)
	if t == nil {
		return b
	}
	return Tuning{
		cmp.Or(t.Step, b.Step), cmp.Or(t.Deviations, b.Deviations), cmp.Or(t.Groups, b.Groups), cmp.Or(t.Chunk, b.Chunk), t.Threads,
	}
}

// Invalid returns the name and the value of the first figure that no plan can
// have, or no name.
func (t Tuning) Invalid() (field string, got any) {
	switch {
	case t.Step < 0 || t.Step > 255 || t.Step > 0 && t.Step%2 == 0: // an odd step spreads the stops over the sets of the caches
		return "sample_step", t.Step
	case t.Deviations != 0 && !(0.125 <= t.Deviations && t.Deviations <= 16):
		return "deviations", t.Deviations
	case t.Groups != 0 && !(1 <= t.Groups && t.Groups <= 64):
		return "groups_per_place", t.Groups
	case t.Chunk < 0 || t.Chunk > chunk || t.Chunk%64 != 0:
		return "chunk", t.Chunk
	case t.Threads < 0 || t.Threads > 1<<16:
		return "threads", t.Threads
	}
	return "", nil
}

// NewPlan is a pure function of the shape, the tier and the number of cores.
func NewPlan(shape Shape, tier simd.Tier, cores int) Plan {
	p := Plan{
		Tier:     tier,
		Chunk:    shape.Tuning.orBuiltIn(shape.Vocab, shape.K, shape.ElementBytes).Chunk,
		Capacity: capacity(shape.K, shape.TargetCandidates),
		Threads:  shape.Threads,

		elementBytes:     shape.ElementBytes,
		targetCandidates: shape.TargetCandidates,
		tuning:           shape.Tuning,
	}
	p.Sample = p.sampleFor(shape.Vocab, shape.K)
	if p.Sample.Groups == 0 {
		p.Capacity = max(p.Capacity, shape.Vocab+simd.ExpandRoom)
	}
	if p.Threads == 0 && shape.Tuning != nil {
		p.Threads = min(shape.Tuning.Threads, cores)
	}
	if p.Threads == 0 {
		p.Threads = Threads(shape, tier, cores)
	}
	p.Threads = max(1, min(p.Threads, shape.Rows))
	p.FirstRoom = p.Capacity
	return p
}

// NewStreamPlan plans for a row of unknown length.
func NewStreamPlan(k, elementBytes, targetCandidates int, tier simd.Tier) Plan {
	p := Plan{
		Tier: tier, Chunk: chunk, Capacity: capacity(k, targetCandidates), Threads: 1,
		elementBytes: elementBytes, targetCandidates: targetCandidates,
	}
	p.FirstRoom = min(p.Capacity, 8192)
	return p
}

// NewMergePlan plans for candidates that are added, not filtered.
func NewMergePlan(entries int, tier simd.Tier) Plan {
	return Plan{Tier: tier, Chunk: chunk, Capacity: entries, FirstRoom: entries, Threads: 1}
}

// capacity leaves room for twice the k that are kept at each cut, so that cuts
// are rare, and for the places that Expand wants to see free. A target past
// 65,536 gets no more room: cutting now and then costs less than a megabyte.
func capacity(k, target int) int {
	const most = math.MaxInt - simd.ExpandRoom - simd.SortSlack // 3k may overflow an int of 32 bits
	room := int64(max(768, 2*min(target, 1<<16)))
	return int(min(max(room, 3*int64(k)+512), most)) + simd.ExpandRoom
}

// sampleFor plans a guess for a part of the row, or for another row's length.
func (p Plan) sampleFor(n, k int) SamplePlan {
	return planSample(n, k, p.elementBytes, p.targetCandidates, p.tuning)
}

// planSample chooses a threshold guess for n elements.
func planSample(n, k, elementBytes, target int, tuning *Tuning) SamplePlan {
	lanes := simd.StopBytes / elementBytes
	stops := n / lanes
	if k == 0 || k > n/8 || n <= 512 {
		return SamplePlan{} // ordering all elements is no more work
	}
	figures := tuning.orBuiltIn(n, k, elementBytes)
	// More often in short rows, so that each group gets a line. An odd step spreads
	// the stops over the sets of the caches.
	step := figures.Step
	for step > 1 && stops/step*lanes < min(6*k, 2048) {
		step -= 2
	}
	sampled := (stops - 1) / step * lanes // the first line is left out
	share := float64(sampled) / float64(n)
	// The threshold is to lie below the k-th largest, but not far: that many of
	// the k are expected in the sample, and some standard deviations more.
	expected := float64(k) * share
	places := expected + figures.Deviations*math.Sqrt(expected) + 1
	if target > 0 {
		places = min(max(1, float64(target)*share), float64(sampled))
	}
	groups := simd.GroupUnit
	for float64(groups) < figures.Groups*places {
		groups *= 2
	}
	if groups > sampled {
		return SamplePlan{}
	}
	// That many of the best fall into so many different groups, in random order.
	rank := float64(groups) * (1 - math.Exp(-places/float64(groups)))
	return SamplePlan{
		Step:       step,
		Groups:     groups,
		Rank:       int(math.Ceil(rank)),
		SortedRank: min(lanes*((k-1)/(step*lanes)+1)+1, groups*3/4), // one more than the lines that stand for k
		Candidates: int(places / share),
	}
}

// Threads returns how many goroutines a plan has share the rows, at most one a core: more
// than one only where that pays, since waking a core costs as much as many rows.
func Threads(shape Shape, tier simd.Tier, cores int) int {
	const worthwhile = 150e3 // ns of work below which one core is faster
	perByte := 0.02
	if tier == simd.Pure {
		perByte = 0.1
	}
	work := float64(shape.Rows) * (500 + perByte*float64(shape.Vocab*shape.ElementBytes) + 5*float64(shape.K))
	if work < worthwhile {
		return 1
	}
	return min(cores, int(work/(worthwhile/2)))
}

// Cores returns how many goroutines can run at once.
func Cores() int { return runtime.GOMAXPROCS(0) }

// String is one line for people.
func (p Plan) String() string {
	return fmt.Sprintf("tier %v, chunk %d, sample every %d lines into %d groups, threshold at rank %d, about %d candidates, capacity %d, threads %d",
		p.Tier, p.Chunk, p.Sample.Step, p.Sample.Groups, p.Sample.Rank, p.Sample.Candidates, p.Capacity, p.Threads)
}
