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

	elementBytes, targetCandidates int
}

// SamplePlan says how the threshold is guessed: the Rank-th largest of Groups
// maxima over every Step-th cache line of the row.
type SamplePlan struct {
	Step       int // cache lines from one stop to the next
	Groups     int // 0: no guess, every element is a candidate
	Rank       int
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
		p.Threads = planThreads(shape, tier, cores)
	}
	p.Threads = max(1, min(p.Threads, shape.Rows))
	return p
}

// NewStreamPlan plans for a row of unknown length.
func NewStreamPlan(k, elementBytes, targetCandidates int, tier simd.Tier) Plan {
	return Plan{
		Tier: tier, Chunk: chunk, Capacity: capacity(k, targetCandidates), Threads: 1,
		elementBytes: elementBytes, targetCandidates: targetCandidates,
	}
}

// NewMergePlan plans for candidates that are added, not filtered.
func NewMergePlan(entries int, tier simd.Tier) Plan {
	return Plan{Tier: tier, Capacity: entries, Threads: 1}
}

// capacity leaves room for twice the k that are kept at each cut, so that cuts
// are rare, and for the places that Expand wants to see free.
func capacity(k, target int) int {
	return max(512, 3*k+256, 2*target) + simd.ExpandRoom
}

// sampleFor plans a guess for a part of the row, or for another row's length.
func (p Plan) sampleFor(n, k int) SamplePlan {
	return planSample(n, k, p.elementBytes, p.targetCandidates)
}

// planSample chooses a threshold guess for n elements.
func planSample(n, k, elementBytes, target int) SamplePlan {
	lanes := simd.StopBytes / elementBytes
	stops := n / lanes
	if k == 0 || k > n/8 || n <= 512 {
		return SamplePlan{}
	}
	p := SamplePlan{Step: 1, Groups: simd.GroupUnit}
	// About 3,000 elements are enough for a sharp threshold at small k.
	for p.Step = 17; p.Step > 1 && stops/p.Step*lanes < min(3000, 60*k)*3/4; p.Step -= 2 {
	}
	sampled := (stops + p.Step - 1) / p.Step * lanes
	share := float64(sampled) / float64(n)
	expected := float64(k) * share // of the k largest, in the sample
	p.Rank = int(math.Ceil(expected + 2.5*math.Sqrt(expected) + 1.5))
	if target > 0 {
		p.Rank = max(1, int(math.Round(float64(target)*share)))
	}
	for p.Groups < 4*p.Rank && 2*p.Groups <= sampled {
		p.Groups *= 2
	}
	if p.Groups > sampled {
		return SamplePlan{}
	}
	p.Rank = min(p.Rank, p.Groups)
	p.Candidates = int(float64(p.Rank) / share)
	return p
}

// planThreads shares rows only when that pays: waking a core costs as much as
// many rows.
func planThreads(shape Shape, tier simd.Tier, cores int) int {
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
