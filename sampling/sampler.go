package sampling

import (
	"fmt"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Options say what beside the parameters decides how a row is sampled.
type Options struct {
	Preset Preset // the zero value is VLLM
	// Chain replaces the order of the preset's steps, and leaves its boundary
	// rules. Nothing that it does not name runs. Nil: the preset's chain.
	Chain   Chain
	Prompt  []int32 // ids before the first generated one
	History []int32 // ids generated before; the parameter Position is behind them
	Encoder []int32 // ids of an encoder's input
	// FirstDraw is the number of a row's first draw: another one gives another
	// token for the same seed and position.
	FirstDraw uint32
	// Tier forces an instruction set, one of [topk.Tiers]. Empty: the best this
	// machine has. It changes the time, never a token.
	Tier string
}

// Sampler samples the tokens of one sequence. It keeps what was accepted as
// its history, and reuses all memory: after the first calls none is allocated. One
// goroutine at a time may use a Sampler. [New] makes one; the zero value refuses
// every row with an error that wraps [ErrParams].
type Sampler[T topk.Float] struct {
	plan     plan
	first    uint32 // draw
	before   int    // ids of the history that were there from the start
	sequence context
	state    State
	states   []State // before each accepted token, if a step learns
	vocab    int     // for which all ids were checked
	one      [1]Token
	place    int // in the last batch

	core   core
	engine engine[T]
	next   []next // what accepting the tokens that were drawn would make of the state
}

// next is a drawn token, how many ids of the history were before it, and the state
// behind it.
type next struct {
	token  Token
	behind int
	state  State
}

// New returns a Sampler. What is wrong with the parameters, the preset or the
// chain is an error that wraps [ErrParams] and names the field and its range;
// whether ids fit the vocabulary is found out with the first row.
func New[T topk.Float](params Params, options Options) (*Sampler[T], error) {
	p, err := newPlan(&params, options.Preset, options.Chain)
	if err != nil {
		return nil, err
	}
	s := &Sampler[T]{plan: *p, first: options.FirstDraw}
	if err := s.setTier(options.Tier); err != nil {
		return nil, err
	}
	s.sequence.prompt = slices.Clone(options.Prompt)
	s.sequence.history = slices.Clone(options.History)
	s.sequence.encoder = slices.Clone(options.Encoder)
	s.sequence.encoderIDs = slices.Clone(options.Encoder)
	slices.Sort(s.sequence.encoderIDs)
	s.sequence.encoderIDs = slices.Compact(s.sequence.encoderIDs)
	s.before = len(options.History)
	return s, nil
}

// setTier sets the instruction set of that name.
func (s *Sampler[T]) setTier(name string) error {
	tier := simd.Best()
	if name != "" {
		available := simd.Available()
		i := slices.IndexFunc(available, func(tier simd.Tier) bool { return tier.String() == name })
		if i < 0 {
			return fmt.Errorf("sampling: tier %.64q, this machine has %v: %w", name, topk.Tiers(), topk.ErrTier)
		}
		tier = available[i]
	}
	s.engine.tier, s.core.row.tier = tier, tier
	return nil
}

// Accept adds tokens to the history: the next one is sampled at the next
// position. A token that was drawn last teaches mirostat and adaptive-p. Ids
// outside the vocabulary are an error that wraps [ErrParams], and none is added.
func (s *Sampler[T]) Accept(tokens ...Token) error {
	vocab := s.vocab
	if vocab == 0 {
		vocab = MaxVocab // the first row tells
	}
	for i, token := range tokens {
		if token < 0 || int(token) >= vocab {
			return fmt.Errorf("sampling: accepted token %d: id %d is outside 0 to %d: %w", i, token, vocab-1, ErrParams)
		}
	}
	for _, token := range tokens {
		if s.plan.statefulSteps {
			s.states = append(s.states, s.state)
			behind := len(s.sequence.history)
			i := slices.IndexFunc(s.next, func(n next) bool { return n.token == token && n.behind == behind })
			if i >= 0 {
				s.state = s.next[i].state
			} else {
				s.next = s.next[:0] // what was drawn behind another token
			}
		}
		s.sequence.history = append(s.sequence.history, token)
	}
	return nil
}

// Rewind takes the last n accepted tokens back, and what they have taught. n
// outside 0 to the number of accepted tokens is an error that wraps [ErrParams].
func (s *Sampler[T]) Rewind(n int) error {
	accepted := s.accepted()
	if n < 0 || n > accepted {
		return fmt.Errorf("sampling: rewind of %d tokens, want 0 to %d: %w", n, accepted, ErrParams)
	}
	s.truncate(len(s.sequence.history) - n)
	if s.plan.statefulSteps && n > 0 {
		s.state = s.states[accepted-n]
		s.states = s.states[:accepted-n]
	}
	s.next = s.next[:0]
	return nil
}

// Reset forgets all accepted tokens and what they have taught. Parameters and
// what was there before them stay.
func (s *Sampler[T]) Reset() {
	s.truncate(s.before)
	s.states, s.next = s.states[:0], s.next[:0]
	s.state = State{}
}

// accepted returns how many tokens were accepted.
func (s *Sampler[T]) accepted() int { return len(s.sequence.history) - s.before }

// truncate takes the history back to n tokens.
func (s *Sampler[T]) truncate(n int) {
	if n < len(s.sequence.history) {
		s.sequence.history = s.sequence.history[:n]
		s.core.editor.tally.reset()
	}
}

// Clone returns a Sampler that goes on from the same history on its own.
func (s *Sampler[T]) Clone() *Sampler[T] {
	clone := &Sampler[T]{plan: s.plan, first: s.first, before: s.before, sequence: s.sequence, state: s.state, vocab: s.vocab}
	clone.plan.bitmask = slices.Clone(s.plan.bitmask)
	clone.engine.tier, clone.core.row.tier = s.engine.tier, s.core.row.tier
	clone.sequence.history = slices.Clone(s.sequence.history)
	clone.states, clone.next = slices.Clone(s.states), slices.Clone(s.next)
	return clone
}

// History returns the generated tokens, which the Sampler owns.
func (s *Sampler[T]) History() []Token { return s.sequence.history }

// Position returns the position of the next token.
func (s *Sampler[T]) Position() uint64 {
	return s.plan.position + uint64(s.accepted())
}

// State returns what mirostat and adaptive-p have learnt.
func (s *Sampler[T]) State() State { return s.state }

// SetState replaces what mirostat and adaptive-p have learnt.
func (s *Sampler[T]) SetState(state State) { s.state = state }

// SetBitmask replaces the parameter GrammarBitmask, which changes from position to
// position. The mask is copied; nil turns the step off.
func (s *Sampler[T]) SetBitmask(mask []int32) {
	s.plan.bitmask = append(s.plan.bitmask[:0], mask...)
	s.plan.turnOn()
}

// Sample draws the next token from a row of logits, one for each id of the
// vocabulary, which are not modified. It does not accept the token.
//
// A row of which no token can be drawn is an error that wraps [ErrNaN] or
// [ErrEmpty]; ids that do not fit the vocabulary are one that wraps [ErrParams].
func (s *Sampler[T]) Sample(logits []T) (Token, error) {
	err := s.sample(s.one[:], logits)
	return s.one[0], err
}

// Draw draws as many tokens for one row as dst has room for: draw 0, 1, and so
// on. Without replacement, tokens past the last that has a mass are [NoToken]
// and an error that wraps [ErrExhausted].
func (s *Sampler[T]) Draw(dst []Token, logits []T) error {
	if len(dst) > maxDraws {
		return wrongDraws(len(dst))
	}
	return s.sample(dst, logits)
}

func wrongDraws(draws int) error {
	return fmt.Errorf("sampling: draws = %d is outside 1 to %d: %w", draws, maxDraws, ErrParams)
}

func (s *Sampler[T]) sample(dst []Token, logits []T) error {
	for i := range dst {
		dst[i] = NoToken
	}
	if err := s.begin(len(logits)); err != nil {
		return err
	}
	if status := s.sampleRow(dst, logits, 0); status != StatusOK {
		return fmt.Errorf("sampling: %w", status.Err())
	}
	return nil
}

// sampleRow draws the tokens of a row, from so many draws behind the first on.
// The Sampler may be nil.
func (s *Sampler[T]) sampleRow(dst []Token, logits []T, behind uint32) Status {
	for i := range dst {
		dst[i] = NoToken
	}
	if s == nil || len(dst) > maxDraws || s.begin(len(logits)) != nil {
		return StatusBadParams
	}
	s.core.firstDraw += behind
	status := s.run(logits)
	if status == StatusOK && len(dst) > 0 {
		status = s.engine.draw(&s.core, dst)
		s.learn(dst)
	}
	return status
}

var errZeroSampler = fmt.Errorf("sampling: a Sampler that New has not made: %w", ErrParams)

// begin checks the ids, once for a vocabulary, and hands the sequence to the core.
func (s *Sampler[T]) begin(vocab int) error {
	if s.plan.draws == 0 {
		return errZeroSampler
	}
	if vocab != s.vocab || vocab == 0 {
		if err := checkVocab(vocab); err != nil {
			return err
		}
		if err := s.plan.fits(vocab); err != nil {
			return err
		}
		if err := s.sequence.fits(vocab); err != nil {
			return err
		}
		s.vocab = vocab
	}
	s.core.begin(&s.plan, s.sequence, s.state, vocab, s.Position(), s.first)
	return nil
}

func checkVocab(vocab int) error {
	if vocab < 1 || vocab > MaxVocab {
		return fmt.Errorf("sampling: vocab = %d is outside 1 to %d: %w", vocab, MaxVocab, ErrShape)
	}
	return nil
}

// fits reports an id that is outside the vocabulary.
func (c *context) fits(vocab int) error {
	for _, part := range []struct {
		name string
		ids  []int32
	}{{"prompt", c.prompt}, {"history", c.history}, {"encoder", c.encoder}} {
		for i, id := range part.ids {
			if id < 0 || int(id) >= vocab {
				return fmt.Errorf("sampling: %s[%d]: id %d is outside 0 to %d: %w", part.name, i, id, vocab-1, ErrParams)
			}
		}
	}
	return nil
}

// run runs the chain over a row.
func (s *Sampler[T]) run(logits []T) Status {
	if status, done := s.engine.run(&s.core, logits); done {
		return status
	}
	load(&s.core, logits)
	return s.core.run()
}

// learn notes what each drawn token would teach.
func (s *Sampler[T]) learn(tokens []Token) {
	s.next = s.next[:0]
	if !s.plan.statefulSteps {
		return
	}
	for _, token := range tokens {
		if token != NoToken {
			s.next = append(s.next, next{token, len(s.sequence.history), s.core.learnt(token)})
		}
	}
}

// learnt returns the state behind a token of the row.
func (c *core) learnt(token Token) State {
	r := &c.row
	i := slices.Index(r.ids, token)
	probability := float32(0)
	if j := slices.Index(c.originalIDs, token); j >= 0 {
		probability = c.original[j]
	}
	r.weigh()
	return c.state.after(c.plan, surprise(r.masses[i], r.total), probability)
}
