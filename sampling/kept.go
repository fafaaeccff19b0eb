package sampling

import (
	"fmt"
	"math"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// Candidate is a token that no step has removed.
type Candidate struct {
	Token       Token
	Logit       float32 // edited
	Probability float64 // among the kept, 0 for what can not be drawn
}

// AppendKept appends the kept set of the row that was sampled last: every token
// that no step has removed, the largest logit first and equal ones by id, those
// of no mass and of -Inf included. A row of which no token can be drawn has none.
// The row's logits must be as they were when it was sampled.
func (s *Sampler[T]) AppendKept(dst []Candidate) []Candidate {
	s.engine.settle(&s.core)
	return s.core.appendKept(dst)
}

func (c *core) appendKept(dst []Candidate) []Candidate {
	if !c.ran {
		return dst
	}
	r := &c.row
	r.rank()
	r.weigh()
	for i, id := range r.ids {
		dst = append(dst, Candidate{id, r.logits[i], float64(r.masses[i]) / float64(r.total)})
	}
	return dst
}

// Logprob is the logarithm of a token's probability.
type Logprob struct {
	Token   Token
	Logprob float32 // natural, -Inf for what is removed or masked
	Rank    int     // 1 and the number of tokens before it in contract order
}

// AppendProcessedLogprobs appends the logprobs of the row that was sampled last,
// renormalised over the kept set: that of the token, and of the n most likely
// ones. A removed token has -Inf and a rank behind all kept ones. A row of which no
// token can be drawn has none. The row's logits must be as they were.
func (s *Sampler[T]) AppendProcessedLogprobs(dst []Logprob, token Token, n int) []Logprob {
	r := &s.core.row
	if !s.core.ran {
		return dst
	}
	s.engine.settle(&s.core)
	r.rank()
	r.weigh()
	chosen := Logprob{Token: token, Logprob: negativeInfinity, Rank: len(r.ids) + 1}
	entry := func(i int) Logprob {
		return Logprob{r.ids[i], logprob(r.logits[i], r.logits[0], r.t, r.total), i + 1}
	}
	for i, id := range r.ids {
		if id == token {
			chosen = entry(i)
		}
	}
	dst = append(dst, chosen)
	for i := range min(n, len(r.ids)) {
		dst = append(dst, entry(i))
	}
	return dst
}

// AppendLogprobs appends the logprobs of raw logits, at a temperature of 1: that
// of the token, and of the n most likely ones. A row that holds NaN has no
// logprobs but NaN.
func (s *Sampler[T]) AppendLogprobs(dst []Logprob, logits []T, token Token, n int) ([]Logprob, error) {
	if err := checkVocab(len(logits)); err != nil {
		return dst, err
	}
	if token < 0 || int(token) >= len(logits) {
		return dst, fmt.Errorf("sampling: token %d is outside 0 to %d: %w", token, len(logits)-1, ErrParams)
	}
	s.engine.settle(&s.core) // what was sampled last stays
	n = max(0, min(n, len(logits)))
	r := &s.core.whole
	r.reset(len(logits))
	widen(r.logits, logits)
	s.engine.reset(logits)
	s.engine.Top(&s.engine.list, max(n, 1))
	list := &s.engine.list
	most, total := list.Logits[0], uint64(0)
	s.engine.reset(logits)
	if s.engine.State() == cpu.OK {
		total = s.engine.Total()
	}
	mine, rank := r.logits[token], 1
	for i, l := range r.logits {
		if ahead(l, int32(i), mine, token) {
			rank++
		}
	}
	dst = append(dst, Logprob{token, logprob(mine, most, 1, total), rank})
	for i, id := range list.IDs[:n] {
		dst = append(dst, Logprob{id, logprob(list.Logits[i], most, 1, total), i + 1})
	}
	return dst, nil
}

// logprob returns exactLogprob as a float32.
func logprob(l, most, t float32, total uint64) float32 {
	return float32(exactLogprob(l, most, t, total))
}

// exactLogprob returns the natural logarithm of the probability of a logit
// beside the largest, where the masses have that total.
func exactLogprob(l, most, t float32, total uint64) float64 {
	x := (float64(l) - float64(most)) / float64(t)
	switch {
	case most != most:
		x = math.NaN()
	case most > math.MaxFloat32 && l == most:
		x = 0
	case l < -math.MaxFloat32:
		return math.Inf(-1)
	}
	return x - float64(law.Ln2*law.LogTotal(total))
}
