// Package cpu is the selection engine for one row at a time: stage 1 filters
// the row by a threshold, stage 2 orders the candidates that are left.
package cpu

import (
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
	TargetCandidates int // 0: the plan decides
	Threads          int // 0: the plan decides
}

// NewPlan is a pure function of the shape, the tier and the number of cores.
func NewPlan(shape Shape, tier simd.Tier, cores int) Plan {
	p := Plan{
		Tier:     tier,
		Sample:   planSample(shape.Vocab, shape.K, shape.ElementBytes, shape.TargetCandidates),
		Chunk:    chunk,
		Capacity: capacity(shape.K, shape.TargetCandidates),
		Threads:  shape.Threads,

		elementBytes:     shape.ElementBytes,
		targetCandidates: shape.TargetCandidates,
	}
	if p.Sample.Groups == 0 {
		p.Capacity = max(p.Capacity, shape.Vocab+simd.ExpandRoom)
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
	return Plan{Tier: tier, Capacity: entries, FirstRoom: entries, Threads: 1}
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
	return planSample(n, k, p.elementBytes, p.targetCandidates)
}

// planSample chooses a threshold guess for n elements. Its figures were
// searched for on random rows of 50,304 float32 (docs/log.md, 2026-11-22);
// around them the time is flat.
func planSample(n, k, elementBytes, target int) SamplePlan {
	lanes := simd.StopBytes / elementBytes
	stops := n / lanes
	if k == 0 || k > n/8 || n <= 512 {
		return SamplePlan{} // ordering all elements is no more work
	}
	// Every 17th line, or every 9th when many candidates make a sharper threshold
	// pay; more often in short rows, so that each group gets a line. An odd step
	// spreads the stops over the sets of the caches.
	step := 17
	if k > 256 {
		step = 9
	}
	for step > 1 && stops/step*lanes < min(6*k, 2048) {
		step -= 2
	}
	sampled := (stops - 1) / step * lanes // the first line is left out
	share := float64(sampled) / float64(n)
	// The threshold is to lie below the k-th largest, but not far: that many of
	// the k are expected in the sample, and two standard deviations more.
	expected := float64(k) * share
	places := expected + 2*math.Sqrt(expected) + 1
	if target > 0 {
		places = min(max(1, float64(target)*share), float64(sampled))
	}
	groups := simd.GroupUnit
	for float64(groups) < 3*places {
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
