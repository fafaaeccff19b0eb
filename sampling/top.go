package sampling

import (
	"fmt"
	"math"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/topk"
)

// SampleTop is [Sampler.Sample] of a row of vocab logits of which only the best are
// at hand, in the order in which package topk writes them: what a [topk.Stream] makes
// of the row, or a selection on another machine. The token is the one that Sample
// draws from the whole row.
//
// They have to tell everything: TopK of them or more, or one if the Sampler is greedy.
// Fewer are an error that wraps [ErrShape] and names the number; so are logits out of
// order. A chain that edits logits, or that looks at all of them before top_k, is an
// error that wraps [ErrParams].
func (s *Sampler[T]) SampleTop(best topk.Result[T], vocab int) (Token, error) {
	if err := s.begin(vocab); err != nil {
		return NoToken, err
	}
	if err := s.takeTop(best); err != nil {
		return NoToken, err
	}
	s.one[0] = NoToken
	status := s.core.runTop()
	if status == StatusOK {
		status = s.engine.draw(&s.core, s.one[:])
		s.learn(s.one[:])
	}
	if status != StatusOK {
		return NoToken, fmt.Errorf("sampling: %w", status.Err())
	}
	return s.one[0], nil
}

// takeTop sets the core's row to as many of the best logits as the chain looks at.
func (s *Sampler[T]) takeTop(best topk.Result[T]) error {
	p, vocab := &s.plan, s.core.vocab
	for i, step := range p.chain[:p.leading] {
		if p.stepIsOn(i) {
			return fmt.Errorf("sampling: step %s edits logits, and only the best are at hand: %w", step, ErrParams)
		}
	}
	n := min(p.few(), vocab)
	if n == 0 {
		return fmt.Errorf("sampling: the chain looks at all logits before top_k, and only the best are at hand: %w", ErrParams)
	}
	if given := min(len(best.Values), len(best.Indices)); given < n {
		return fmt.Errorf("sampling: the best %d logits of vocab = %d, want %d: %w", given, vocab, n, ErrShape)
	}
	s.engine.held = false
	r := &s.core.row
	r.reset(n)
	widen(r.logits, best.Values[:n])
	copy(r.ids, best.Indices)
	var before uint64
	for i, id := range r.ids {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("sampling: index %d of the best logits is %d, outside 0 to %d: %w", i, id, vocab-1, ErrShape)
		}
		place := uint64(key.Float32.Key(math.Float32bits(r.logits[i])))<<32 | uint64(^uint32(id))
		if i > 0 && place >= before {
			return fmt.Errorf("sampling: the best logits are out of order at index %d, id %d: %w", i, id, ErrShape)
		}
		before = place
	}
	r.ranked = true
	return nil
}

// few returns how many tokens, in contract order, tell everything about a row that no
// step edits, or 0 if all are needed.
func (p *plan) few() int {
	if p.greedy && p.leading < len(p.chain) && p.chain[p.leading] == Temperature {
		return 1
	}
	return p.prefix
}

// runTop runs the chain over c.row, which holds the best tokens of a row in contract
// order.
func (c *core) runTop() Status {
	if len(c.row.ids) == c.vocab {
		c.row.byID()
		return c.run()
	}
	if c.plan.softcap != 0 && !c.plan.capKept {
		c.softcap()
	}
	return c.runFrom(c.plan.leading)
}
