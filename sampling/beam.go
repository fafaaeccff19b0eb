package sampling

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ai-kernel-factory/aikf/topk"
)

// BeamCandidate is a beam that goes on with a token.
type BeamCandidate struct {
	Beam  int
	Token Token
	Score float32 // the beam's, plus the logprob of the token
}

// BeamStep returns the candidates of a step of beam search: of all beams and
// tokens the 2n with the highest scores, for n beams, so that n are left even if
// all others end the sequence; fewer if there are fewer. logits is [n, vocab], scores
// has an entry for each beam, and samplers may be nil, or have a Sampler for each
// beam whose chain runs before the logprobs are taken: removed tokens are then no
// candidates. Equal scores: the smaller beam first, then contract order.
//
// A row without a token is an error that wraps [ErrNaN] or [ErrEmpty], and
// names the beam; other errors wrap [ErrShape] or [ErrParams].
func BeamStep[T topk.Float](logits []T, vocab int, scores []float32, samplers []*Sampler[T]) ([]BeamCandidate, error) {
	n := len(scores)
	if err := checkVocab(vocab); err != nil {
		return nil, err
	}
	if len(logits) < n*vocab {
		return nil, fmt.Errorf("sampling: %d logits, want %d for %d beams, vocab = %d: %w", len(logits), n*vocab, n, vocab, ErrShape)
	}
	if samplers != nil && len(samplers) != n {
		return nil, fmt.Errorf("sampling: %d samplers for %d beams: %w", len(samplers), n, ErrShape)
	}
	type scored struct {
		BeamCandidate
		score float64
	}
	var all []scored
	plain, err := New[T](Params{Temperature: 1}, Options{Chain: Chain{}})
	if err != nil {
		return nil, err
	}
	for beam, score := range scores {
		s := plain
		if samplers != nil {
			s = samplers[beam]
		}
		if score != score {
			return nil, fmt.Errorf("sampling: score of beam %d is NaN: %w", beam, ErrParams)
		}
		if s == nil {
			return nil, fmt.Errorf("sampling: beam %d has no sampler: %w", beam, ErrParams)
		}
		if err := s.begin(vocab); err != nil {
			return nil, fmt.Errorf("sampling: beam %d: %w", beam, err)
		}
		if status := s.run(logits[beam*vocab : (beam+1)*vocab]); status != StatusOK {
			return nil, fmt.Errorf("sampling: beam %d: %w", beam, status.Err())
		}
		s.engine.settle(&s.core)
		r := &s.core.row
		r.rank()
		r.weigh()
		for i := range min(2*n, len(r.ids)) {
			sum := float64(score) + exactLogprob(r.logits[i], r.logits[0], r.t, r.total)
			all = append(all, scored{BeamCandidate{beam, r.ids[i], float32(sum)}, sum})
		}
	}
	slices.SortStableFunc(all, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	var best []BeamCandidate
	for _, candidate := range all[:min(2*n, len(all))] {
		best = append(best, candidate.BeamCandidate)
	}
	return best, nil
}
