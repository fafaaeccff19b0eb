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
	before := len(r.ids)
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
	if len(r.ids) < before && step != TopK {
		c.joint = 0
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
	if p.topKTies {
		k = r.withTies(k)
	}
	r.keepFirst(k)
}

// topP keeps the shortest prefix whose mass reaches a share of the whole.
func (c *core) topP() {
	p, r := c.plan, &c.row
	r.weigh()
	r.fillKeys()
	whole := r.total
	if c.joint > 0 {
		whole = c.joint
	}
	enough := p.topPMass(whole)
	n, sum := 0, uint64(0)
	for n < len(r.masses) && (sum < enough || n < p.keep) {
		sum += r.masses[r.nth(n)]
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

// topPShare is a plan as the share of mass that top-p keeps.
type topPShare plan

// Of is topPMass.
func (s *topPShare) Of(mass uint64) uint64 { return (*plan)(s).topPMass(mass) }

// typicalP keeps what is of the most typical surprise: locally typical sampling,
// arXiv 2202.00666.
func (c *core) typicalP() {
	p, r := c.plan, &c.row
	r.measure()
	typical := law.OnGrid(law.LogTotal(r.total)) - law.OnGrid(r.entropy())
	// The distances, of 33 bits at most, and the places, of 20.
	const places = 1<<20 - 1
	words := r.keys[:0]
	for i, q := range r.surprises {
		d := int64(-q) + typical
		if d < 0 {
			d = -d
		}
		words = append(words, uint64(d)<<20|uint64(i))
	}
	r.keys = words
	enough := law.FloorProduct(p.typicalP, r.total) + 1
	if p.typicalReach {
		enough = law.CeilProduct(p.typicalP, r.total)
	}
	last := reaching(words, r.masses, places, enough-1) >> 20
	// What is nearer stays, and so much of what is equally far, in contract order.
	nearer, end, sum := 0, 0, uint64(0)
	for i, word := range words {
		if word>>20 > last {
			continue
		}
		words[i], words[end] = words[end], word
		if word>>20 < last {
			sum += r.masses[word&places]
			words[end], words[nearer] = words[nearer], word
			nearer++
		}
		end++
	}
	equal := words[nearer:end]
	if end < p.keep { // more than the mass asks for
		equal = words[nearer:]
	}
	slices.SortFunc(equal, func(a, b uint64) int {
		i, j := a&places, b&places
		if a>>20 < b>>20 || a>>20 == b>>20 && ahead(r.logits[i], r.ids[i], r.logits[j], r.ids[j]) {
			return -1
		}
		return 1
	})
	n := nearer
	for _, word := range equal {
		if sum >= enough && n >= p.keep && !(p.typicalReach && word>>20 == last) {
			break
		}
		sum += r.masses[word&places]
		n++
	}
	// The places of what stays, as bits: the row keeps its order.
	stays := slices.Grow(c.left[:0], len(words)/64+1)[:len(words)/64+1]
	clear(stays)
	for _, word := range words[:n] {
		stays[word&places/64] |= 1 << (word & 63)
	}
	c.left = stays
	largest, to := r.largest(), 0
	for i := range stays {
		for rest := stays[i]; rest != 0; rest &= rest - 1 {
			r.move(to, 64*i+bits.TrailingZeros64(rest))
			to++
		}
	}
	r.weighed = r.weighed && stays[largest/64]>>(largest%64)&1 == 1
	r.total = sumOf(r.masses[:n])
	r.shrink(n)
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
	most := float64(p.topH) * r.entropy()
	r.fillKeys()
	var sum uint64
	var weighted law.Uint128
	for i := range r.masses {
		place := r.nth(i)
		sum += r.masses[place]
		weighted = weighted.Add(law.Mul(r.masses[place], uint64(-r.surprises[place])))
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
	r.weigh()
	least := max(law.CeilProduct(p.xtcThreshold, r.total), 1) // without a mass no token is likely
	likely, last := 0, 0                                      // how many, and the last of them in contract order
	for i, w := range r.masses {
		if w >= least {
			if likely == 0 || ahead(r.logits[last], r.ids[last], r.logits[i], r.ids[i]) {
				last = i
			}
			likely++
		}
	}
	stays := func(i int) bool {
		if r.masses[i] < least || i == last {
			return true
		}
		_, found := slices.BinarySearch(p.xtcSpecial, r.ids[i])
		return found
	}
	n := 0
	for i := range r.ids {
		if stays(i) {
			n++
		}
	}
	if likely < 2 || n < p.keep {
		return
	}
	n = 0
	for i, id := range r.ids {
		if stays(i) {
			r.ids[n], r.logits[n] = id, r.logits[i]
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
	r.measure()
	r.fillKeys()
	products, squares := 0.0, 0.0
	for i := 0; i+1 < min(mirostatTokens, len(r.masses)); i++ {
		t := law.Log2(float64(i+2) / float64(i+1))
		b := float64(r.surprises[r.nth(i)]-r.surprises[r.nth(i+1)]) * (1.0 / (1 << law.SurpriseBits))
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
	r.measure()
	most := law.OnGrid(float64(c.state.mu(c.plan))) - law.OnGrid(law.LogTotal(r.total))
	n := 0
	for _, q := range r.surprises {
		if int64(-q) <= most {
			n++
		}
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
			distance := float32(float32(probability-target) * adaptiveInverse)
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
