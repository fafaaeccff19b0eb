package sampling

import "github.com/ai-kernel-factory/aikf/internal/law"

// State is what mirostat and adaptive-p learn from the tokens of a sequence. The
// zero value begins a sequence. A [Sampler] carries its own; who samples by
// other means owns the state.
type State struct {
	Begun bool // the fields below count
	// Mu is mirostat's: the surprise, in bits, above which tokens are removed.
	Mu float32
	// Sum and Weight are adaptive-p's moving average of the probabilities of
	// the tokens, before its transform.
	Sum, Weight float32
}

// mu returns where mirostat stands.
func (s *State) mu(p *plan) float32 {
	if s.Begun {
		return s.Mu
	}
	return p.mirostatMu
}

// average returns adaptive-p's moving average, as a sum and its weight.
func (s *State) average(p *plan) (sum, weight float32) {
	if s.Begun {
		return s.Sum, s.Weight
	}
	weight = 1 / float32(1-p.adaptiveDecay)
	return p.adaptiveTarget * weight, weight
}

// target returns the probability that adaptive-p aims at.
func (s *State) target(p *plan) float32 {
	target := p.adaptiveTarget
	if sum, weight := s.average(p); weight != 0 {
		target = float32(2*target) - sum/weight
	}
	return min(1, max(0, target))
}

// after returns the state behind a token of a surprise, in bits, under the law
// that it was drawn from, and of a probability before adaptive-p.
func (s State) after(p *plan, surprise float64, probability float32) State {
	sum, weight := s.average(p)
	return State{
		Begun:  true,
		Mu:     float32(float64(s.mu(p)) - float64(float64(p.mirostatEta)*(surprise-float64(p.mirostatTau)))),
		Sum:    probability + float32(p.adaptiveDecay*sum),
		Weight: 1 + float32(p.adaptiveDecay*weight),
	}
}

// surprise returns the surprise of a mass among a total, in bits.
func surprise(mass, total uint64) float64 {
	return law.Log2(float64(total)) - law.Log2(float64(mass))
}
