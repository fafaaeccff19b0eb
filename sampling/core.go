package sampling

import (
	"math"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/topk"
)

// core runs a chain over one row. It is reused and belongs to one goroutine.
type core struct {
	plan      *plan
	editor    editor
	state     State
	vocab     int
	position  uint64
	firstDraw uint32

	row    row
	ran    bool // the row holds tokens with a law
	edited []edit
	joint  uint64 // the mass before top-k, for a top-p that cuts from it

	// whole holds all tokens with their edited logits, by id, if wanted.
	wantWhole bool
	whole     row

	// trace is called behind each step.
	trace func(step Step, on bool)

	original    []float32 // adaptive-p: probabilities before it, of originalIDs
	originalIDs []int32

	left []uint64 // scratch of draws without replacement
}

// begin takes a row's parameters and sequence.
func (c *core) begin(p *plan, sequence context, state State, vocab int, position uint64, firstDraw uint32) {
	c.plan, c.state, c.vocab, c.position, c.firstDraw = p, state, vocab, position, firstDraw
	c.editor.plan, c.editor.context = p, sequence
	c.editor.sequence = c.editor.sequence[:0]
	c.joint, c.originalIDs, c.ran = 0, c.originalIDs[:0], false
}

// run runs the chain over c.row, which holds all logits of a row.
func (c *core) run() Status {
	if c.plan.softcap != 0 && !c.plan.capKept {
		c.capRow()
	}
	return c.runFrom(0)
}

// runFrom runs the chain from a place on over c.row, whose tokens have ascending
// ids or are in contract order.
func (c *core) runFrom(first int) Status {
	status := c.steps(first)
	c.ran = status == StatusOK
	return status
}

func (c *core) steps(first int) Status {
	p, r := c.plan, &c.row
	capped := p.softcap == 0 || !p.capKept
	checked := false
	for i := first; i < len(p.chain); i++ {
		step, on := p.chain[i], p.stepIsOn(i)
		if !on {
			c.traced(step, false)
			continue
		}
		if p.stepEdits(i) {
			c.edit(step)
			checked = false
			c.traced(step, true)
			continue
		}
		if !checked {
			if status := r.check(); status != StatusOK {
				return status
			}
			checked = true
		}
		if !capped && step != TopK {
			c.softcap()
			capped = true
		}
		switch step {
		case Temperature, DynamicTemperature:
			c.joint = 0
			c.temperature(step)
		default:
			if !p.skips(i) {
				c.truncate(step)
			}
		}
		c.traced(step, true)
	}
	if !checked {
		if status := r.check(); status != StatusOK {
			return status
		}
	}
	if !capped {
		c.softcap()
	}
	return StatusOK
}

func (c *core) traced(step Step, on bool) {
	if c.trace != nil {
		c.trace(step, on)
	}
}

// check reports NaN, and a row of nothing but -Inf.
func (r *row) check() Status {
	status := StatusEmpty
	if r.ranked { // NaN first, -Inf last
		r := r.logits[0]
		switch {
		case r != r:
			return StatusNaN
		case r >= -math.MaxFloat32:
			return StatusOK
		}
		return StatusEmpty
	}
	for _, l := range r.logits {
		if l != l {
			return StatusNaN
		}
		if l >= -math.MaxFloat32 {
			status = StatusOK
		}
	}
	return status
}

// edit runs a step that edits.
func (c *core) edit(step Step) {
	r := &c.row
	c.edited = c.editor.edits(c.edited[:0], step)
	most := c.editor.masksMost(step)
	if len(c.edited) == 0 && !most {
		return
	}
	c.joint = 0
	c.editRow(r, step, most)
	if c.wantWhole {
		c.editRow(&c.whole, step, most)
	}
}

// editRow applies the edits of a step, and its mask, to the tokens of a row.
func (c *core) editRow(r *row, step Step, masksMost bool) {
	r.byID()
	r.materialise()
	r.weighed = false
	if masksMost {
		for i, id := range r.ids {
			if !c.editor.allows(step, id) {
				r.logits[i] = negativeInfinity
			}
		}
	}
	for _, e := range c.edited {
		if i := r.place(e.id); i >= 0 {
			r.logits[i] = c.plan.apply(&e, r.logits[i])
		}
	}
}

// capRow caps the logits before all edits. If the chain begins with no edit, the
// ranking stays that of the logits as they came: ties that the cap makes do not
// count.
func (c *core) capRow() {
	if !c.willEdit() {
		if c.row.check() == StatusOK {
			c.row.rank()
		}
	}
	c.softcap()
}

// willEdit reports whether some step before the first truncation or temperature
// edits an id.
func (c *core) willEdit() bool {
	for i, step := range c.plan.chain[:c.plan.leading] {
		if !c.plan.stepIsOn(i) {
			continue
		}
		c.edited = c.editor.edits(c.edited[:0], step)
		if len(c.edited) > 0 || c.editor.masksMost(step) {
			return true
		}
	}
	return false
}

// softcap caps what is left; the cap is monotone, so that the order stays.
func (c *core) softcap() {
	if c.plan.capKept && c.row.check() == StatusOK {
		c.row.rank()
	}
	limit := float64(c.plan.softcap)
	for _, r := range []*row{&c.row, &c.whole} {
		if r == &c.whole && !c.wantWhole {
			break
		}
		for i, l := range r.logits {
			if l >= -math.MaxFloat32 { // what is masked stays masked
				r.logits[i] = float32(limit * law.Tanh(float64(l)/limit))
			}
		}
		r.weighed = false
	}
}

// temperature runs one of the two steps of that name.
func (c *core) temperature(step Step) {
	if c.plan.dynatempRange > 0 && (step == DynamicTemperature || c.plan.rangeInPlain) {
		c.dynamicTemperature()
	} else {
		c.setTemperature(c.plan.greedy, c.plan.temperature)
	}
}

// setTemperature sets what masses are taken at, or takes the largest.
func (c *core) setTemperature(greedy bool, t float32) {
	r := &c.row
	if !greedy {
		r.setTemperature(t)
		c.whole.t = t
		return
	}
	best := r.largest()
	r.ids[0], r.logits[0] = r.ids[best], r.logits[best]
	r.ids, r.logits = r.ids[:1], r.logits[:1]
	r.ranked, r.weighed = true, false
	r.t, c.whole.t = 1, 0
}

// dynamicTemperature moves the temperature within its range by the entropy of
// the row at a temperature of 1: arXiv 2309.02772 calls it entropy-based, and
// llama.cpp its extended temperature.
func (c *core) dynamicTemperature() {
	p, r := c.plan, &c.row
	n := len(r.ids)
	if n < 2 {
		return
	}
	r.setTemperature(1)
	base := p.temperature
	if p.greedy {
		base = 0
	}
	low, high := max(0, base-p.dynatempRange), base+p.dynatempRange
	part := r.entropy() / law.Log2(float64(n))
	if p.dynatempExponent == 0 {
		part = 1
	} else {
		part = law.Exp2(float64(p.dynatempExponent) * law.Log2(part))
	}
	greedy, t := p.divisor(float32(float64(low) + float64(float64(high-low)*part)))
	c.setTemperature(greedy, t)
}

// draw draws tokens from the row, in index order, and returns how it went. dst
// is filled up with -1 where nothing is left.
func (c *core) draw(dst []Token) Status {
	p, r := c.plan, &c.row
	if len(dst) == 1 && len(r.ids) == 1 {
		dst[0] = r.ids[0] // whatever the number
		return StatusOK
	}
	r.weigh()
	if len(dst) == 1 {
		dst[0] = r.ids[r.find(r.masses, law.Target(c.uniform(0), r.total))]
		return StatusOK
	}
	if p.replacement {
		r.sortPlaces()
		c.left = c.left[:0]
		sum := uint64(0)
		for _, place := range r.keys {
			sum += r.masses[place]
			c.left = append(c.left, sum)
		}
		for d := range dst {
			i, _ := slices.BinarySearch(c.left, law.Target(c.uniform(d), sum)+1) // the first that exceeds the target
			dst[d] = r.ids[r.keys[i]]
		}
		return StatusOK
	}
	c.left = append(c.left[:0], r.masses...)
	total := r.total
	for d := range dst {
		if total == 0 {
			for ; d < len(dst); d++ {
				dst[d] = NoToken
			}
			return StatusExhausted
		}
		i := r.find(c.left, law.Target(c.uniform(d), total))
		dst[d] = r.ids[i]
		total -= c.left[i]
		c.left[i] = 0
	}
	return StatusOK
}

func (c *core) uniform(draw int) uint64 {
	return law.Uniform(c.plan.seed, c.position, c.firstDraw+uint32(draw), law.Draw)
}

// find returns the place of the token at which the sum of the masses, by
// ascending ids, exceeds the target, which is less than their sum.
func (r *row) find(masses []uint64, target uint64) int {
	if !r.ranked {
		sum := uint64(0)
		for i, w := range masses {
			if sum += w; sum > target {
				return i
			}
		}
	}
	r.keys = r.keys[:0]
	for i, id := range r.ids {
		r.keys = append(r.keys, uint64(id)<<32|uint64(i))
	}
	return int(uint32(reaching(r.keys, masses, math.MaxUint32, target)))
}

// reaching returns the word at which the sum of masses exceeds the target, in
// ascending order of the words, which are distinct; masked by places, a word is the
// place of its mass. The target is less than the sum. The words are reordered, in
// a time that grows with their number.
func reaching(words, masses []uint64, places, target uint64) uint64 {
	for len(words) > 1 {
		pivot := pivotOf(words)
		low, sum := 0, uint64(0)
		for i, word := range words {
			if word < pivot {
				sum += masses[word&places]
				words[i], words[low] = words[low], word
				low++
			}
		}
		switch {
		case target < sum:
			words = words[:low]
		case low > 0:
			target -= sum
			words = words[low:]
		default: // the pivot is the smallest
			if mass := masses[pivot&places]; target < mass {
				return pivot
			} else {
				target -= mass
			}
			at, last := slices.Index(words, pivot), len(words)-1
			words[at], words[last] = words[last], pivot
			words = words[:last]
		}
	}
	return words[0]
}

// pivotOf returns the median of three words: not of those at the ends, where a
// masked token in a row of ties would make each pivot the worst.
func pivotOf(words []uint64) uint64 {
	n := len(words)
	return median(words[n/4], words[n/2], words[n/2+n/4])
}

func median(a, b, c uint64) uint64 {
	return max(min(a, b), min(max(a, b), c))
}

// load sets c.row to all logits of a row.
func load[T topk.Float](c *core, logits []T) {
	c.row.reset(len(logits))
	widen(c.row.logits, logits)
	for i := range c.row.ids {
		c.row.ids[i] = int32(i)
	}
	if c.wantWhole {
		c.whole.reset(len(logits))
		copy(c.whole.logits, c.row.logits)
		copy(c.whole.ids, c.row.ids)
	}
}

// widen converts logits to float32, exactly.
func widen[T topk.Float](dst []float32, logits []T) {
	switch logits := any(logits).(type) {
	case []float32:
		copy(dst, logits)
	case []topk.Float16:
		for i, l := range logits {
			dst[i] = l.Float32()
		}
	case []topk.BFloat16:
		for i, l := range logits {
			dst[i] = l.Float32()
		}
	}
}

// ahead reports whether the logit a of id i comes before b of id j in contract
// order.
func ahead(a float32, i int32, b float32, j int32) bool {
	ka, kb := key.Float32.Key(math.Float32bits(a)), key.Float32.Key(math.Float32bits(b))
	return ka > kb || ka == kb && i < j
}
