package sampling

import (
	"math"
	"math/bits"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/law"
)

// truncate runs a step that is no edit and no temperature. The row is not empty
// and holds no NaN; at least one token stays.
func (c *core) truncate(step Step) {
	p, r := c.plan, &c.row
	if step != TopP {
		c.joint = 0
	}
	switch step {
	case TopK:
		c.topK()
	case TopP:
		c.topP()
	case MinP:
		r.keepHeavy(law.CeilProduct(p.minP, law.One), p.keep, false)
	case EpsilonCutoff:
		r.weigh()
		r.keepHeavy(law.CeilProduct(p.epsilonCutoff, r.total), p.keep, p.cutoffTies)
	case EtaCutoff:
		eps := float64(p.etaCutoff)
		eta := min(eps, math.Sqrt(eps)*law.Exp2(-r.entropy()))
		r.keepHeavy(uint64(math.Ceil(eta*float64(r.total))), p.keep, p.cutoffTies)
	case TypicalP:
		c.typicalP()
	case TopNSigma:
		c.topNSigma()
	case TopH:
		c.topH()
	case PLess:
		c.pLess()
	case XTC:
		c.xtc()
	case MirostatV1:
		c.mirostatV1()
	case MirostatV2:
		c.mirostatV2()
	case AdaptiveP:
		c.adaptiveP()
	}
}

// topK keeps the first k; with topKTies also what ties with the k-th.
func (c *core) topK() {
	p, r := c.plan, &c.row
	k := p.topK
	if k >= len(r.ids) {
		return
	}
	if p.jointTopP {
		r.weigh()
		c.joint = r.total
	}
	r.rank()
	if p.topKTies {
		k = r.withTies(k)
	}
	r.keepFirst(k)
}

// topP keeps the shortest prefix whose mass reaches a share of the whole.
func (c *core) topP() {
	p, r := c.plan, &c.row
	r.rank()
	r.weigh()
	whole := r.total
	if c.joint > 0 {
		whole = c.joint
	}
	c.joint = 0
	enough := p.topPMass(whole)
	n, sum := 0, uint64(0)
	for n < len(r.masses) && (sum < enough || n < p.keep) {
		sum += r.masses[n]
		n++
	}
	r.keepFirst(max(n, 1))
}

// topPMass returns the mass that top-p keeps of a whole.
func (p *plan) topPMass(whole uint64) uint64 {
	switch {
	case p.topPAscending: // what goes sums up to at most whole less this
		return law.FloorProduct(p.topP, whole)
	case p.topPOver:
		return law.FloorProduct(p.topP, whole) + 1
	}
	return law.CeilProduct(p.topP, whole)
}

// typicalP keeps what is of the most typical surprise: locally typical sampling,
// arXiv 2202.00666.
func (c *core) typicalP() {
	p, r := c.plan, &c.row
	r.rank()
	r.measure()
	h := law.OnGrid(r.entropy())
	typical := law.OnGrid(law.LogTotal(r.total)) - h
	// A distance needs 33 bits at most, and a place 20: contract order decides ties.
	distances := r.keys[:0]
	for i, q := range r.surprises {
		d := int64(-q) + typical
		if d < 0 {
			d = -d
		}
		distances = append(distances, uint64(d)<<20|uint64(i))
	}
	slices.Sort(distances)
	r.keys = distances
	enough := law.FloorProduct(p.typicalP, r.total) + 1
	if p.typicalReach {
		enough = law.CeilProduct(p.typicalP, r.total)
	}
	const places = 1<<20 - 1
	n, sum := 0, uint64(0)
	for n < len(distances) && (sum < enough || n < p.keep) {
		sum += r.masses[distances[n]&places]
		n++
	}
	n = max(n, 1)
	for p.typicalReach && n < len(distances) && distances[n]>>20 == distances[n-1]>>20 {
		n++
	}
	kept := distances[:n]
	for i := range kept {
		kept[i] &= places
	}
	slices.Sort(kept)
	for to, from := range kept {
		r.move(to, int(from))
	}
	r.cut(n)
	r.weighed = r.weighed && kept[0] == 0
}

// topNSigma keeps what is within n standard deviations of the largest logit,
// over the finite logits: arXiv 2411.07641.
func (c *core) topNSigma() {
	p, r := c.plan, &c.row
	most := r.logits[r.largest()]
	if most > math.MaxFloat32 {
		r.keepLogits(func(l float32) bool { return l == most })
		return
	}
	var n, sum uint64
	var squares law.Uint128
	for _, l := range r.logits {
		if l >= -math.MaxFloat32 {
			d := below(l, most)
			n++
			sum += d
			squares = squares.Add(law.Mul(d, d))
		}
	}
	// n^2 times the variance; squares has 82 bits at most.
	spread := law.Mul(n, squares.Lo)
	spread.Hi += n * squares.Hi
	spread = spread.Sub(law.Mul(sum, sum))
	sigma := math.Sqrt(spread.Float64()) / float64(n)
	limit := float64(p.topNSigma) * sigma
	r.keepLogits(func(l float32) bool { return l >= -math.MaxFloat32 && float64(below(l, most)) <= limit })
}

// below returns how far a logit is below the largest, in units of 2^-16, to the
// nearest integer, ties to even, at most 2^31.
func below(l, most float32) uint64 {
	return uint64(math.RoundToEven(min(float64(most-l)*0x1p16, 1<<31)))
}

// keepLogits keeps the logits that are chosen, in their order.
func (r *row) keepLogits(choose func(l float32) bool) {
	n := 0
	for i, l := range r.logits {
		if choose(l) {
			r.ids[n], r.logits[n] = r.ids[i], l
			n++
		}
	}
	r.weighed = r.weighed && n == len(r.ids)
	r.ids, r.logits = r.ids[:n], r.logits[:n]
}

// topH keeps the longest prefix whose entropy, renormalised, is at most a share
// of that of the whole: arXiv 2509.02510.
func (c *core) topH() {
	p, r := c.plan, &c.row
	r.rank()
	most := float64(p.topH) * r.entropy()
	var sum uint64
	var weighted law.Uint128
	for i, w := range r.masses {
		sum += w
		weighted = weighted.Add(law.Mul(w, uint64(-r.surprises[i])))
		if i > 0 && law.Entropy(sum, weighted) > most {
			r.keepFirst(i)
			return
		}
	}
}

// pLess keeps what is at least as likely as two draws are to be equal: p-less
// sampling, arXiv 2509.23234.
func (c *core) pLess() {
	r := &c.row
	r.weigh()
	var squares law.Uint128
	for _, w := range r.masses {
		squares = squares.Add(law.Mul(w, w))
	}
	least, rest := bits.Div64(squares.Hi, squares.Lo, r.total)
	if rest > 0 {
		least++
	}
	r.keepHeavy(least, 1, false)
}

// xtc drops, with a probability, all tokens that are likely enough but the
// least likely of them: exclude top choices.
func (c *core) xtc() {
	p, r := c.plan, &c.row
	if !law.Coin(law.Uniform(p.seed, c.position, c.firstDraw, law.XTC), p.xtcProbability) {
		return
	}
	r.rank()
	r.weigh()
	least := law.CeilProduct(p.xtcThreshold, r.total)
	likely := 0
	for likely < len(r.masses) && r.masses[likely] >= least {
		likely++
	}
	n := 0
	exempt := func(id int32) bool {
		_, found := slices.BinarySearch(p.xtcSpecial, id)
		return found
	}
	for i, id := range r.ids {
		if i >= likely-1 || exempt(id) {
			n++
		}
	}
	if likely < 2 || n < p.keep {
		return
	}
	n = 0
	for i, id := range r.ids {
		if i >= likely-1 || exempt(id) {
			r.move(n, i)
			n++
		}
	}
	r.weighed = false
	r.ids, r.logits = r.ids[:n], r.logits[:n]
}

// mirostatTokens is how many of the likeliest tokens tell the exponent of the
// row's law.
const mirostatTokens = 100

// mirostatV1 keeps as many tokens as have, under Zipf's law, the surprise mu:
// arXiv 2007.14966.
func (c *core) mirostatV1() {
	r := &c.row
	r.rank()
	r.measure()
	products, squares := 0.0, 0.0
	for i := 0; i+1 < min(mirostatTokens, len(r.masses)); i++ {
		t := law.Log2(float64(i+2) / float64(i+1))
		b := float64(r.surprises[i]-r.surprises[i+1]) * (1.0 / (1 << law.SurpriseBits))
		products += float64(t * b)
		squares += float64(t * t)
	}
	s := products / squares // NaN of a single token
	epsilon := s - 1
	vocab := law.Exp2(-epsilon * law.Log2(float64(c.vocab)))
	k := law.Exp2(law.Log2(epsilon*law.Exp2(float64(c.state.mu(c.plan)))/(1-vocab)) / s)
	switch {
	case k >= float64(len(r.ids)): // also +Inf
	case k >= 1:
		r.keepFirst(int(k))
	default: // also NaN
		r.keepFirst(1)
	}
}

// mirostatV2 keeps what is of a surprise of at most mu.
func (c *core) mirostatV2() {
	r := &c.row
	r.rank()
	r.measure()
	most := law.OnGrid(float64(c.state.mu(c.plan))) - law.OnGrid(law.LogTotal(r.total))
	n := 0
	for n < len(r.surprises) && int64(-r.surprises[n]) <= most {
		n++
	}
	r.keepFirst(max(n, 1))
}

// The shape of adaptive-p's transform, from llama.cpp's pull request 17927.
const (
	adaptivePeak      = 5
	adaptiveSharpness = 10
	adaptiveInverse   = float32(1) / float32(0.3)
)

// adaptiveP replaces each logit by one that is the larger the nearer the
// token's probability is to the target.
func (c *core) adaptiveP() {
	r := &c.row
	r.weigh()
	target := c.state.target(c.plan)
	c.original = slices.Grow(c.original[:0], len(r.ids))[:len(r.ids)]
	c.originalIDs = append(c.originalIDs[:0], r.ids...)
	for i, w := range r.masses {
		probability := float32(float64(w) / float64(r.total))
		c.original[i] = probability
		if r.logits[i] >= -math.MaxFloat32 {
			distance := float32(probability-target) * adaptiveInverse
			if distance < 0 {
				distance = -distance
			}
			square := float32(adaptiveSharpness*distance) * distance
			r.logits[i] = adaptivePeak - float32(float32(square)/float32(1+distance))
		}
	}
	r.byID()
	r.t, r.weighed, r.ranked = 1, false, false
}
