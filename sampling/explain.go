package sampling

import (
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/law"
)

// Explanation is what a chain does to a row, step by step.
type Explanation struct {
	Status Status
	Steps  []StepResult // of the whole chain, up to where the row failed
	// Kept is every token that no step has removed, the largest logit first and
	// equal ones by id, those of no mass and of -Inf included.
	Kept []Candidate
	// Mass is the share of the kept tokens in the law of all tokens, at the last
	// temperature, before it is made 1.
	Mass   float64
	Logits []float32 // all of them, edited
	Tokens []Token
	State  State // behind the first of the tokens
}

// StepResult is the row behind a step.
type StepResult struct {
	Step Step
	On   bool    // the parameters let it do something
	Kept int     // tokens that are left
	Mass float64 // their share, as of Explanation
	Top  []Candidate
}

// Explain runs the chain over a row as [Sampler.Sample] does, and tells what
// each step leaves, with the first top tokens of it. It draws as many tokens as
// the parameter Draws says. A row of which no token can be drawn is told by the
// status; an error is one of the parameters. It is slow, and allocates.
func (s *Sampler[T]) Explain(logits []T, top int) (*Explanation, error) {
	if err := s.begin(len(logits)); err != nil {
		return nil, err
	}
	c, e := &s.core, &Explanation{}
	top = max(0, top)
	c.wantWhole = true
	defer func() { c.wantWhole, c.trace = false, nil }()
	c.trace = func(step Step, on bool) {
		result := StepResult{Step: step, On: on, Kept: len(c.row.ids)}
		if n := len(e.Steps); on || n == 0 {
			result.Mass, result.Top = c.keptMass(), c.top(top)
		} else {
			result.Mass, result.Top = e.Steps[n-1].Mass, e.Steps[n-1].Top
		}
		e.Steps = append(e.Steps, result)
	}
	s.engine.held = false
	load(c, logits)
	e.Status = c.run()
	e.Logits = slices.Clone(c.whole.logits)
	e.Tokens = slices.Repeat([]Token{NoToken}, s.plan.draws)
	if e.Status != StatusOK {
		return e, nil
	}
	e.Kept, e.Mass = c.appendKept(nil), c.keptMass()
	e.Status = c.draw(e.Tokens)
	if e.Tokens[0] != NoToken {
		e.State = c.learnt(e.Tokens[0])
	}
	s.learn(e.Tokens)
	return e, nil
}

// keptMass returns the share of the row in the law of all tokens.
func (c *core) keptMass() float64 {
	whole := &c.whole
	if whole.check() != StatusOK {
		return 0
	}
	if whole.t == 0 {
		return 1 // the law of a greedy row is its largest logit
	}
	most := whole.logits[whole.largest()]
	var all, kept uint64
	for _, l := range whole.logits {
		all += law.LogitMass(l, most, whole.t)
	}
	for _, id := range c.row.ids {
		kept += law.LogitMass(whole.logits[id], most, whole.t)
	}
	return float64(kept) / float64(all)
}

// top returns the first tokens of the row, which is left as it is.
func (c *core) top(n int) []Candidate {
	if n == 0 || c.row.check() != StatusOK {
		return nil
	}
	view := core{ran: true, row: row{tier: c.row.tier, ids: slices.Clone(c.row.ids), logits: slices.Clone(c.row.logits), ranked: c.row.ranked, t: c.row.t}}
	list := view.appendKept(nil)
	return list[:min(n, len(list))]
}
