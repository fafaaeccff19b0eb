package sampling

import (
	"fmt"
	"math"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Draft is a chain of tokens that a cheaper law has proposed, and that law: a
// Sampler with logits, or probabilities.
type Draft[T topk.Float] struct {
	Tokens []Token
	// Sampler has the parameters that the tokens were drawn with, and the history
	// before the first of them. Logits are its rows: [len(Tokens), vocab].
	Sampler *Sampler[T]
	Logits  []T
	// Probabilities are [len(Tokens), vocab], each from 0 to 1, if there is no
	// Sampler: float32s, taken at 2^-42.
	Probabilities []float32
}

// Verify accepts as many drafted tokens as the law of the Sampler's chain lets
// it, and then draws one more, so that all have that law: speculative sampling,
// arXiv 2211.17192 and 2302.01318. logits is [len(draft.Tokens)+1, vocab]: the
// row for each drafted token, and the one behind them all. Row i is sampled at
// position i of the Sampler, with the drafted tokens before it as its history and
// what they teach mirostat and adaptive-p; nothing is accepted into the history of
// either Sampler.
//
// dst gets the accepted tokens, the one that was drawn, and [NoToken] up to its
// end; it has room for one token more than the draft. accepted is how many of
// the draft stand. A greedy row accepts the largest logit.
//
// Rows without a token are errors as in [Sampler.Sample]; what was accepted
// before stands. A draft that does not fit is an error that wraps [ErrShape] or
// [ErrParams].
func (s *Sampler[T]) Verify(dst []Token, logits []T, vocab int, draft Draft[T]) (accepted int, err error) {
	n := len(draft.Tokens)
	if err := draft.check(vocab, len(dst), len(logits)); err != nil {
		return 0, err
	}
	if draft.Sampler == s {
		return 0, fmt.Errorf("sampling: the draft has the Sampler that verifies it: %w", ErrParams)
	}
	for i := range dst {
		dst[i] = NoToken
	}
	var learnt []next
	defer s.restore(s.accepted(), &learnt)
	if d := draft.Sampler; d != nil {
		defer d.restore(d.accepted(), new([]next))
	}
	v := &verifier{target: make([]uint64, vocab), draft: make([]uint64, vocab)}
	for i, token := range draft.Tokens {
		if err := s.law(v.target, &v.targetTotal, logits[i*vocab:(i+1)*vocab]); err != nil {
			return i, err
		}
		if d := draft.Sampler; d != nil {
			if err := d.law(v.draft, &v.draftTotal, draft.Logits[i*vocab:(i+1)*vocab]); err != nil {
				return i, fmt.Errorf("sampling: draft: %w", err)
			}
			d.follow(token, v.draft[token] > 0)
		} else {
			v.probabilities(draft.Probabilities[i*vocab : (i+1)*vocab])
		}
		if !v.accepts(token, s.uniform(law.Accept)) {
			dst[i] = v.residual(s.uniform(law.Residual))
			s.learn(dst[i : i+1])
			learnt = append(learnt, s.next...)
			return i, nil
		}
		dst[i] = token
		learnt = append(learnt, s.follow(token, true)...)
	}
	bonus, err := s.Sample(logits[n*vocab : (n+1)*vocab])
	dst[n] = bonus
	learnt = append(learnt, s.next...)
	return n, err
}

// follow accepts a drafted token for a while, and returns what it teaches if it
// could have been drawn.
func (s *Sampler[T]) follow(token Token, drawable bool) []next {
	s.next = s.next[:0]
	if drawable {
		s.learn([]Token{token})
	}
	_ = s.Accept(token) // checked with the draft
	return s.next
}

// restore takes the Sampler back to so many accepted tokens, and leaves what
// those behind them have taught for when they are accepted.
func (s *Sampler[T]) restore(accepted int, learnt *[]next) {
	_ = s.Rewind(s.accepted() - accepted) // never past the start
	s.next = append(s.next, *learnt...)
}

func (s *Sampler[T]) uniform(purpose uint32) uint64 {
	return law.Uniform(s.plan.seed, s.Position(), s.first, purpose)
}

// law runs the chain over a row and spreads the masses over the vocabulary.
func (s *Sampler[T]) law(masses []uint64, total *uint64, logits []T) error {
	if err := s.begin(len(logits)); err != nil {
		return err
	}
	if status := s.run(logits); status != StatusOK {
		return fmt.Errorf("sampling: %w", status.Err())
	}
	s.engine.settle(&s.core)
	r := &s.core.row
	r.weigh()
	clear(masses)
	for i, id := range r.ids {
		masses[id] = r.masses[i]
	}
	*total = r.total
	return nil
}

// check reports a draft that does not fit.
func (d *Draft[T]) check(vocab, room, logits int) error {
	n := len(d.Tokens)
	if err := checkVocab(vocab); err != nil {
		return err
	}
	rows := len(d.Logits)
	if d.Sampler == nil {
		rows = len(d.Probabilities)
	}
	switch {
	case logits < (n+1)*vocab:
		return fmt.Errorf("sampling: %d logits, want %d for %d drafted tokens, vocab = %d: %w", logits, (n+1)*vocab, n, vocab, ErrShape)
	case rows < n*vocab:
		return fmt.Errorf("sampling: a draft of %d tokens with %d numbers, want %d for vocab = %d: %w", n, rows, n*vocab, vocab, ErrShape)
	case room <= n:
		return fmt.Errorf("sampling: room for %d tokens, want %d: %w", room, n+1, ErrShape)
	}
	for i, token := range d.Tokens {
		if token < 0 || int(token) >= vocab {
			return fmt.Errorf("sampling: draft[%d]: id %d is outside 0 to %d: %w", i, token, vocab-1, ErrParams)
		}
	}
	if d.Sampler == nil {
		for i, q := range d.Probabilities[:n*vocab] {
			if !share.holds(q) {
				return fmt.Errorf("sampling: draft probability %v of row %d, id %d, is outside %v: %w", q, i/vocab, i%vocab, share, ErrParams)
			}
		}
	}
	return nil
}

// verifier holds the laws of target and draft, by id.
type verifier struct {
	target, draft           []uint64
	targetTotal, draftTotal uint64
}

// probabilities sets the draft's law.
func (v *verifier) probabilities(row []float32) {
	v.draftTotal = 0
	for i, q := range row {
		v.draft[i] = uint64(math.RoundToEven(float64(q) * law.One))
		v.draftTotal += v.draft[i]
	}
}

// accepts reports whether the drafted token stands: with probability target over
// draft.
func (v *verifier) accepts(token Token, u uint64) bool {
	a := law.Mul(v.target[token], v.draftTotal)
	b := law.Mul(v.draft[token], v.targetTotal)
	return law.MulHigh(u, b).Less(a)
}

// residual draws from what the target has more of than the draft, in index
// order; from the target if it has nothing more.
func (v *verifier) residual(u uint64) Token {
	var sum law.Uint128
	for i := range v.target {
		sum = sum.Add(v.excess(i))
	}
	const massBits = 62
	shift := uint(max(0, sum.BitLen()-massBits))
	total := uint64(0)
	for i := range v.target {
		total += v.excess(i).Rsh(shift).Lo
	}
	masses := v.draft
	for i := range masses {
		masses[i] = v.excess(i).Rsh(shift).Lo
	}
	if total == 0 {
		masses, total = v.target, v.targetTotal
	}
	target := law.Target(u, total)
	return Token(slices.IndexFunc(masses, func(w uint64) bool {
		if target < w {
			return true
		}
		target -= w
		return false
	}))
}

// excess returns max(0, target * total of draft - draft * total of target).
func (v *verifier) excess(i int) law.Uint128 {
	a, b := law.Mul(v.target[i], v.draftTotal), law.Mul(v.draft[i], v.targetTotal)
	if a.Less(b) {
		return law.Uint128{}
	}
	return a.Sub(b)
}
