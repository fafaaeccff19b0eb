package sampling

import (
	"math/bits"
	"slices"

	"github.com/ai-kernel-factory/aikf/topk"
)

// A row whose chain begins with top-k, or with steps that a top-k behind them
// does not change, needs only the k largest of its logits and those that are
// edited: everything else is removed, whatever the numbers.

// prefix returns how many tokens, in contract order behind the edits, tell
// everything about the row, or 0 if all are needed, and the place in the chain
// of the step that removes the others.
func (p *plan) prefix(vocab int) (k, end int) {
	tempered := false
	for i, step := range p.chain {
		if !p.stepIsOn(i) {
			continue
		}
		switch {
		case step.isEdit():
			if tempered {
				return 0, 0 // the edit would meet other logits
			}
		case step == Temperature && !(p.rangeInPlain && p.dynatempRange > 0),
			step == DynamicTemperature && p.dynatempRange == 0:
			if p.greedy {
				return 1, i
			}
			tempered = true
		case step == MinP && p.keep == 1:
			// What it keeps is a prefix that only the largest logit decides.
		case step == TopK:
			if p.topK >= vocab {
				continue
			}
			if p.topKTies || p.jointTopP && p.topP < 1 {
				return 0, 0
			}
			return p.topK, i
		default:
			return 0, 0
		}
	}
	return 0, 0
}

// selection finds the tokens that matter, and reuses its room.
type selection[T topk.Float] struct {
	selector topk.Selector[T]
	top      topk.Result[T]
	ids      []int32 // ascending, scratch
}

// fewAllowed is how many allowed ids are looked at one by one.
const fewAllowed = 1024

// load sets c.row to the tokens of the row that can matter. It reports false,
// and leaves c.row alone, if these are too many to be worth it.
func (s *selection[T]) load(c *core, logits []T) bool {
	p, vocab := c.plan, len(logits)
	k, end := p.prefix(vocab)
	if k == 0 || k > vocab/4 {
		return false
	}
	mask, masks, ok := c.leadingEdits(end)
	if !ok {
		return false
	}
	edited := len(masks) > 0 || mask != ""
	if p.softcap != 0 && !p.capKept && edited {
		return false // the cap could make ties that edits break
	}
	s.ids = s.ids[:0]
	for _, e := range masks {
		s.ids = append(s.ids, e.id)
	}
	if mask != "" {
		return s.loadMasked(c, logits, k, mask)
	}
	k = min(k+len(s.ids), vocab)
	s.find(logits, k)
	if !edited {
		c.row.reset(k)
		copy(c.row.ids, s.top.Indices[:k])
		widen(c.row.logits, s.top.Values[:k])
		c.row.ranked = true
		return true
	}
	s.ids = append(s.ids, s.top.Indices[:k]...)
	s.take(c, logits)
	return true
}

// leadingEdits returns the step, if any, that masks most ids before a place of
// the chain, and all edits of single ids there. ok is false if two steps mask
// most.
func (c *core) leadingEdits(end int) (mask Step, edits []edit, ok bool) {
	c.edited = c.edited[:0]
	for i, step := range c.plan.chain[:end] {
		if !c.plan.stepIsOn(i) || !step.isEdit() {
			continue
		}
		if c.editor.masksMost(step) {
			if mask != "" {
				return "", nil, false
			}
			mask = step
		}
		c.edited = c.editor.edits(c.edited, step)
	}
	return mask, c.edited, true
}

// find selects the k largest logits, of which there are as many.
func (s *selection[T]) find(logits []T, k int) {
	if len(s.top.Values) < k {
		s.top = topk.NewResult[T](1, k)
	}
	// A row of at least k logits and a result of k places leave nothing to refuse.
	_ = s.selector.Select(s.top, logits, topk.Row(len(logits), k))
}

// take sets c.row to the tokens of s.ids.
func (s *selection[T]) take(c *core, logits []T) {
	slices.Sort(s.ids)
	s.ids = slices.Compact(s.ids)
	r := &c.row
	r.reset(len(s.ids))
	copy(r.ids, s.ids)
	for i, id := range s.ids {
		widen(r.logits[i:i+1], logits[id:id+1])
	}
}

// loadMasked is load where a step masks all ids but some. s.ids holds those that
// are edited.
func (s *selection[T]) loadMasked(c *core, logits []T, k int, mask Step) bool {
	vocab, edited := len(logits), len(s.ids)
	if c.editor.countAllowed(mask, vocab) <= fewAllowed {
		// All of them, and the first of the others: a masked token may have to
		// fill the k places.
		others := 0
		for id := int32(0); int(id) < vocab && others < k+edited; id++ {
			if !c.editor.allows(mask, id) {
				s.ids = append(s.ids, id)
				others++
			}
		}
		s.ids = c.editor.appendAllowed(s.ids, mask, vocab)
		s.take(c, logits)
		return true
	}
	for n := min(2*k+edited, vocab); n <= vocab/4; n *= 2 {
		s.find(logits, n)
		allowed := 0
		for i, id := range s.top.Indices[:n] {
			var l [1]float32
			widen(l[:], s.top.Values[i:i+1])
			if l[0] != negativeInfinity && c.editor.allows(mask, id) {
				allowed++
			}
		}
		if allowed >= k+edited {
			s.ids = append(s.ids, s.top.Indices[:n]...)
			s.take(c, logits)
			return true
		}
	}
	return false
}

// countAllowed returns how many ids a step that masks most leaves.
func (e *editor) countAllowed(mask Step, vocab int) int {
	switch mask {
	case AllowedIDs:
		return len(e.plan.allowed)
	case ForcedIDs:
		return 1
	}
	n := max(0, vocab-32*len(e.plan.bitmask))
	for i, word := range e.plan.bitmask {
		if rest := vocab - 32*i; rest < 32 {
			if rest <= 0 {
				break
			}
			word &= 1<<rest - 1
		}
		n += bits.OnesCount32(uint32(word))
	}
	return n
}

// appendAllowed appends the ids that a step that masks most leaves.
func (e *editor) appendAllowed(dst []int32, mask Step, vocab int) []int32 {
	switch mask {
	case AllowedIDs:
		return append(dst, e.plan.allowed...)
	case ForcedIDs:
		return append(dst, e.forced())
	}
	for i, word := range e.plan.bitmask {
		for rest := uint32(word); rest != 0; rest &= rest - 1 {
			if id := 32*i + bits.TrailingZeros32(rest); id < vocab {
				dst = append(dst, int32(id))
			}
		}
	}
	for id := 32 * len(e.plan.bitmask); id < vocab; id++ {
		dst = append(dst, int32(id))
	}
	return dst
}
