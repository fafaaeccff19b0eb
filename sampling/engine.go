package sampling

import (
	"slices"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/topk"
)

// A row is sampled without a copy of it as far as its chain allows: edits of
// single ids and masks first, then the temperature and truncations that a value or
// a mass decides. Whatever else a chain has runs on the tokens that these leave.
// The answers are those of [core.run] over the whole row.

// keeper is [cpu.Kept] for elements of either width.
type keeper interface {
	Edit(ids []int32, logits []float32)
	Allow(mask []int32)
	SetTemperature(t float32)
	Temperature() float32
	Top(dst *cpu.List, n int) cpu.State
	State() cpu.State
	Greedy() int32
	Largest() float32
	Total() uint64
	AtLeast(mass uint64)
	AtLeastLogit(l float32)
	KeepShare(share cpu.Share)
	Draw(target uint64) int32
	Expand(dst *cpu.List)
}

// engine runs the part of a chain that needs no copy of the row.
type engine[T topk.Float] struct {
	tier   simd.Tier
	kept16 *cpu.Kept[uint16] // nil for the other width
	kept32 *cpu.Kept[uint32]
	keeper
	list cpu.List

	mask   []int32 // of the steps that mask most ids
	own    []int32 // room for it
	masked bool
	ids    []int32 // edited, ascending
	logits []float32
	keys   []uint64

	held      bool // the tokens are in the keeper, not in the core's row
	untouched bool // and no truncation has removed one
}

// reset starts a row.
func (e *engine[T]) reset(logits []T) {
	var zero T
	order := key.Float32
	switch any(zero).(type) {
	case topk.Float16:
		order = key.Float16
	case topk.BFloat16:
		order = key.BFloat16
	}
	if unsafe.Sizeof(zero) == 2 {
		if e.kept16 == nil {
			e.kept16 = new(cpu.Kept[uint16])
			e.keeper = e.kept16
		}
		e.kept16.Reset(e.tier, bitsOf[uint16](logits), order)
	} else {
		if e.kept32 == nil {
			e.kept32 = new(cpu.Kept[uint32])
			e.keeper = e.kept32
		}
		e.kept32.Reset(e.tier, bitsOf[uint32](logits), order)
	}
}

// bitsOf views floats as their bits.
func bitsOf[E simd.Bits, T topk.Float](logits []T) []E {
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(logits))), len(logits))
}

// run runs the chain over a row, and reports whether it could. If it could not,
// nothing has happened.
func (e *engine[T]) run(c *core, logits []T) (Status, bool) {
	p := c.plan
	e.held = false
	first := p.leading
	if !e.edit(c, logits, first) {
		return StatusOK, false
	}
	edited := e.masked || len(e.ids) > 0
	k := p.prefix
	if k >= len(logits) {
		k = 0
	}
	if p.softcap != 0 && (k == 0 || edited && !p.capKept) {
		return StatusOK, false // the cap is for all, or its ties matter
	}
	e.start(logits)
	if k > 0 {
		return e.top(c, k, first), true
	}
	return e.walk(c, logits, first), true
}

// start hands the row and its edits to the keeper.
func (e *engine[T]) start(logits []T) {
	e.reset(logits)
	e.Edit(e.ids, e.logits)
	if e.masked {
		e.Allow(e.mask)
	}
}

// edit collects what the leading edits come to: a mask, and a logit for each id
// that is edited. It reports false for what it does not cover.
func (e *engine[T]) edit(c *core, logits []T, first int) bool {
	p := c.plan
	e.masked = false
	c.edited = c.edited[:0]
	for i, step := range p.chain[:first] {
		if !p.stepIsOn(i) {
			continue
		}
		switch {
		case step == ForcedIDs && c.editor.forced() != free:
			return false
		case c.editor.masksMost(step):
			e.addMask(c, step, len(logits))
		default:
			c.edited = c.editor.edits(c.edited, step)
		}
	}
	e.fold(p, c.edited, logits)
	return true
}

// addMask adds the ids that a step masks to the mask.
func (e *engine[T]) addMask(c *core, step Step, vocab int) {
	words := (vocab + 31) / 32
	if !e.masked {
		e.masked = true
		if step == Bitmask {
			e.mask = c.plan.bitmask
			return
		}
		e.own = slices.Grow(e.own[:0], words)[:words]
		e.mask = e.own
		clear(e.mask)
		for _, id := range c.plan.allowed {
			e.mask[id/32] |= 1 << (id % 32)
		}
		return
	}
	e.own = append(e.own[:0], e.mask...) // the first may be the caller's
	for len(e.own) < words {
		e.own = append(e.own, -1)
	}
	e.mask = e.own
	for id := range int32(vocab) {
		if !c.editor.allows(step, id) {
			e.mask[id/32] &^= 1 << (id % 32)
		}
	}
}

// fold applies edits, each on what those before it have left, and sets the
// logits of all ids that they name.
func (e *engine[T]) fold(p *plan, edits []edit, logits []T) {
	e.ids, e.logits = e.ids[:0], e.logits[:0]
	if len(edits) == 0 {
		return
	}
	keys := slices.Grow(e.keys[:0], len(edits)+simd.SortSlack)[:len(edits)]
	for i, edit := range edits { // the largest first: the smallest id, and of one the first edit
		keys[i] = uint64(^uint32(edit.id))<<32 | uint64(^uint32(i))
	}
	simd.Sort(e.tier, keys, len(keys))
	e.keys = keys
	for _, word := range keys {
		if id := int32(^uint32(word >> 32)); len(e.ids) == 0 || e.ids[len(e.ids)-1] != id {
			e.ids = append(e.ids, id)
		}
	}
	e.logits = gather(e.logits, logits, e.ids)
	at := 0
	for _, word := range keys {
		edit := &edits[^uint32(word)]
		if e.ids[at] != edit.id {
			at++
		}
		e.logits[at] = p.apply(edit, e.logits[at])
	}
}

// gather appends the logits of the ids as float32s.
func gather[T topk.Float](dst []float32, logits []T, ids []int32) []float32 {
	switch logits := any(logits).(type) {
	case []float32:
		for _, id := range ids {
			dst = append(dst, logits[id])
		}
	case []topk.Float16:
		for _, id := range ids {
			dst = append(dst, logits[id].Float32())
		}
	case []topk.BFloat16:
		for _, id := range ids {
			dst = append(dst, logits[id].Float32())
		}
	}
	return dst
}

// top sets the row to the k first tokens, and runs the chain from a place on.
func (e *engine[T]) top(c *core, k, first int) Status {
	if status := statusOf(e.Top(&e.list, k)); status != StatusOK {
		return status
	}
	e.take(c)
	c.row.ranked = true
	c.row.fillMasked(k, c.vocab)
	if p := c.plan; p.softcap != 0 && !p.capKept {
		c.softcap()
	}
	return c.runFrom(first)
}

func statusOf(state cpu.State) Status {
	switch state {
	case cpu.NaN:
		return StatusNaN
	case cpu.Empty:
		return StatusEmpty
	}
	return StatusOK
}

// take sets the row to the tokens of the list.
func (e *engine[T]) take(c *core) {
	r := &c.row
	r.reset(len(e.list.IDs))
	copy(r.ids, e.list.IDs)
	copy(r.logits, e.list.Logits)
}

// fillMasked puts masked tokens, which are not in the keeper, among the k first,
// if these have not k finite logits: of all that have the logit -Inf the smallest
// ids come first.
func (r *row) fillMasked(k, vocab int) {
	if len(r.ids) >= k && r.logits[k-1] != negativeInfinity {
		return
	}
	infinite := 0
	for _, l := range r.logits {
		if l == negativeInfinity {
			infinite++
		}
	}
	if len(r.ids)-infinite >= k {
		return
	}
	r.addMasked(k-(len(r.ids)-infinite), vocab)
	r.keepFirst(k)
}

// addMasked adds tokens that are not there, n of the smallest ids or all if they
// are fewer, with the logit -Inf, and leaves the row with ascending ids.
func (r *row) addMasked(n, vocab int) {
	missing := min(n, vocab-len(r.ids))
	if missing <= 0 {
		return
	}
	r.byID()
	r.ids2 = append(r.ids2[:0], r.ids...)
	r.values = append(r.values[:0], r.logits...)
	t := r.t
	r.reset(len(r.ids2) + missing)
	r.t = t
	i, next := 0, 0
	for id := int32(0); missing > 0; id++ {
		if next < len(r.ids2) && r.ids2[next] == id {
			r.ids[i], r.logits[i] = id, r.values[next]
			next++
		} else {
			r.ids[i], r.logits[i] = id, negativeInfinity
			missing--
		}
		i++
	}
	copy(r.ids[i:], r.ids2[next:])
	copy(r.logits[i:], r.values[next:])
}

// walk runs the chain from a place on in the keeper, as far as that goes, and then
// in the row.
func (e *engine[T]) walk(c *core, logits []T, first int) Status {
	if status := statusOf(e.State()); status != StatusOK {
		return status
	}
	p := c.plan
	e.held, e.untouched = true, true
	for i := first; i < len(p.chain); i++ {
		if !p.stepIsOn(i) || p.skips(i) {
			continue
		}
		switch step := p.chain[i]; {
		case step == Temperature && p.dynatempRange == 0 && p.greedy:
			r := &c.row
			r.reset(1)
			r.ids[0], r.logits[0], r.ranked = e.Greedy(), e.Largest(), true
			e.held = false
			return c.runFrom(i + 1)
		case step == Temperature && p.dynatempRange == 0:
			e.SetTemperature(p.temperature)
		case p.keep > 1: // the systems do not agree on what that means
			return e.leave(c, i)
		case step == MinP && p.minP <= 1:
			e.AtLeast(law.CeilProduct(p.minP, law.One))
			e.untouched = false
		case step == EpsilonCutoff && law.CeilProduct(p.epsilonCutoff, e.Total()) <= law.One:
			e.AtLeast(law.CeilProduct(p.epsilonCutoff, e.Total()))
			e.untouched = false
		case step == TopP:
			e.KeepShare((*topPShare)(p))
			e.untouched = false
		case step == TopK && e.untouched:
			if p.topK >= len(logits) {
				continue
			}
			if !p.topKTies {
				return e.topOf(c, logits, i)
			}
			e.keepTies(c, logits)
		default:
			return e.leave(c, i)
		}
	}
	c.ran = true
	return StatusOK
}

// topOf is the step top_k where something of the whole row is wanted behind it.
func (e *engine[T]) topOf(c *core, logits []T, i int) Status {
	joint := uint64(0)
	if c.plan.jointTopP {
		joint = e.Total()
	}
	t := e.Temperature()
	e.start(logits)
	e.held = false
	e.Top(&e.list, c.plan.topK) // the state was OK before
	e.take(c)
	c.row.ranked = true
	c.row.fillMasked(c.plan.topK, c.vocab)
	c.row.t, c.joint = t, joint
	return c.runFrom(i + 1)
}

// keepTies is the step top_k that keeps what ties with the k-th.
func (e *engine[T]) keepTies(c *core, logits []T) {
	k, t := c.plan.topK, e.Temperature()
	e.start(logits)
	e.Top(&e.list, k)
	e.start(logits)
	e.State()
	e.SetTemperature(t)
	// Where masked tokens are among the first k, all of them tie with the k-th.
	if len(e.list.Logits) == k && e.list.Logits[k-1] != negativeInfinity {
		e.AtLeastLogit(e.list.Logits[k-1])
		e.untouched = false
	}
}

// leave sets the row to what the keeper holds, and runs the chain on it from a
// place on.
func (e *engine[T]) leave(c *core, i int) Status {
	e.settle(c)
	return c.runFrom(i)
}

// settle sets the row to what the keeper holds, if it holds something.
func (e *engine[T]) settle(c *core) {
	if !e.held {
		return
	}
	e.held = false
	e.Expand(&e.list)
	e.take(c)
	c.row.t = e.Temperature()
	if e.untouched {
		c.row.addMasked(c.vocab, c.vocab)
	}
}

// draw draws tokens from the row or the keeper, whichever holds them.
func (e *engine[T]) draw(c *core, dst []Token) Status {
	if len(dst) > 1 && !c.plan.replacement {
		e.settle(c)
	}
	const many = 16 // draws that pay for sums of all masses
	if len(dst) > many {
		e.settle(c)
	}
	if !e.held {
		return c.draw(dst)
	}
	total := e.Total()
	for d := range dst {
		dst[d] = e.Draw(law.Target(c.uniform(d), total))
	}
	return StatusOK
}
