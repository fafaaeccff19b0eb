package cpu

import (
	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// Phase is how far a selection goes, for a profile: what a phase takes is what a
// selection up to it takes less one up to the phase before.
type Phase int

// The phases, each after those before.
const (
	PhaseSample     Phase = iota // the maxima of the groups of a sample
	PhaseThreshold               // the guess: a rank of these
	PhaseFilter                  // the bitmap of what reaches it
	PhaseCandidates              // the candidates, and whatever a guess that failed costs
	PhaseOrder                   // the k best of them, in order
	Phases          int   = iota
)

// String names the phase.
func (p Phase) String() string {
	return [...]string{"sample", "threshold", "filter", "candidates", "order"}[p]
}

// Until selects from a row up to and including the phase, by the very steps of a
// selection, and returns how many candidates there are after PhaseCandidates, 0
// before it.
func (r *Row[E]) Until(phase Phase, plan *Plan, order key.Order, k int, elements []E) (candidates int) {
	r.Reset(plan, order, k)
	switch phase {
	case PhaseSample:
		if sample := r.planGuess(elements); sample.Groups > 0 {
			r.takeSample(sample, elements)
		}
		return 0
	case PhaseThreshold:
		r.guess(elements, 0, 0)
		return 0
	case PhaseFilter:
		least := r.guess(elements, 0, 0)
		for first := 0; first < len(elements); first += plan.Chunk {
			block := elements[first:min(first+plan.Chunk, len(elements))]
			simd.Filter(plan.Tier, r.bitmap[:(len(block)+63)/64], block, uint32(least), order)
		}
		return 0
	}
	r.Push(elements, 0)
	candidates = len(r.packed)
	if phase == PhaseOrder {
		r.Best()
	}
	return candidates
}
