package cpu

import (
	"math"
	"math/bits"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// Top makes dst a list of the n best tokens that Reset, Edit and Allow have left,
// or of all if they are fewer: largest logit first, of equal ones the smaller ID
// first, NaN before all. Tokens of logit -Inf are among them, but none that is
// banned. It says whether a token can be drawn from the list, which has no masses
// yet.
func (k *Kept[E]) Top(dst *List, n int) State {
	extra := len(k.ids) // edited tokens are not in the row's own selection
	if len(k.mask) > 0 {
		for _, id := range k.ids {
			if !k.allowed(id) {
				extra--
			}
		}
	}
	k.replan(n, extra)
	row, few := &k.selected, k.plan.Capacity-simd.ExpandRoom-extra
	row.Reset(&k.plan, k.order, n)
	row.mask, row.except = k.mask, k.ids
	allowed := k.countAllowed(few)
	if allowed <= few {
		row.pushOnly(k.row)
	} else {
		// Some of the edited tokens would have been among the best.
		row.hope = min(int(int64(n)*int64(len(k.row))/int64(allowed))+len(k.ids)/4, len(k.row))
		row.Push(k.row, 0)
	}
	if k.order.Infinity != key.Float32.Infinity {
		for i, word := range row.packed {
			l := k.value(int(key.Index(word)))
			row.packed[i] = key.Pack(key.Float32.Key(math.Float32bits(l)), key.Index(word))
		}
	}
	if len(row.packed) > k.plan.Capacity-extra { // the capacity is for them too
		row.cut()
	}
	// Where n of the row reach its bound, an edited token must reach it too, or equal
	// what is right below it.
	least := float32(math.Inf(-1))
	if len(row.packed) >= n && k.order.Infinity == key.Float32.Infinity && row.bound > 0 {
		least = math.Float32frombits(key.Float32.Bits(uint32(row.bound - 1)))
	}
	for i, l := range k.logits {
		if !(l < least) && k.allowed(k.ids[i]) { // NaN too
			row.packed = append(row.packed, key.Pack(key.Float32.Key(math.Float32bits(l)), uint32(k.ids[i])))
		}
	}
	best := row.packed[:min(n, len(row.packed))]
	simd.Sort(k.tier, row.packed, len(best))
	dst.setPacked(best)
	switch {
	case len(best) == 0:
		return Empty
	case dst.Logits[0] != dst.Logits[0]:
		return NaN
	case dst.Logits[0] == float32(math.Inf(-1)):
		return Empty
	}
	return OK
}

// countAllowed returns how many elements the mask allows at most, or about how many
// if they are more than enough.
func (k *Kept[E]) countAllowed(enough int) int {
	masked := k.mask[:min(len(k.mask), words32(len(k.row)))]
	free := max(0, len(k.row)-32*len(masked)) // the last word may reach past the row
	const step, few = 16, 64
	sampled := 0
	for i := 0; i < len(masked); i += step {
		sampled += bits.OnesCount32(uint32(masked[i]))
	}
	if about := free + sampled*step; sampled >= few && about > 4*enough {
		return about
	}
	for _, word := range masked {
		free += bits.OnesCount32(uint32(word))
	}
	return free
}

// replan makes a plan for the n best of a row, with room for edited tokens.
func (k *Kept[E]) replan(n, extra int) {
	const step = 64 // so that a history that grows does not make a plan for each token
	task := planTask{k.tier, len(k.row), n, (extra + step - 1) / step * step}
	if task == k.planned {
		return
	}
	var element E
	k.planned = task
	k.plan = NewPlan(Shape{Rows: 1, Vocab: len(k.row), K: n, ElementBytes: int(unsafe.Sizeof(element)), Threads: 1}, k.tier, 1)
	k.plan.Capacity += task.extra
	k.plan.FirstRoom = k.plan.Capacity
}

// KeepMass keeps the shortest prefix of the kept tokens, in the order of Top, whose
// mass reaches target, which is at most Total; at least one.
func (k *Kept[E]) KeepMass(target uint64) {
	k.settle()
	k.weigh()
	if target = max(target, 1); target >= k.total {
		k.AtLeast(1)
		return
	}
	c, _ := k.crossing(target, k.total, true)
	ties, total := k.prefix(c, target)
	k.keepPrefix(c, ties, total)
}

// Share tells which part of a mass is wanted: the more the larger the mass is, or as
// much.
type Share interface{ Of(mass uint64) uint64 }

// KeepShare is KeepMass for a share of Total.
func (k *Kept[E]) KeepShare(share Share) {
	if k.prepare(); !k.keepRoughly(share) {
		k.KeepMass(share.Of(k.Total()))
	}
}

// keepRoughly is KeepShare where bounds of the total tell which tokens are kept.
// If not it reports false and keeps what was kept.
//
// The bounds are two millionths apart, so that the tokens of a small prefix of a
// whole row, whose masses are known exactly, almost always reach both of the
// targets or neither.
func (k *Kept[E]) keepRoughly(share Share) bool {
	if k.weighed || !k.rowIsFloat32() || len(k.row) < manyValues || k.flat() {
		return false
	}
	low, high, ok := simd.RoughMass(k.tier, bitsOfValues(k.float32s()), k.largest, k.scale)
	if !ok {
		return false
	}
	target := max(share.Of(low), 1)
	c, found := k.crossing(target, low, false)
	if !found {
		return false
	}
	ties, total := k.prefix(c, target)
	if total < share.Of(high) {
		return false
	}
	k.keepPrefix(c, ties, total)
	return true
}

// flat reports whether many tokens are likely to weigh nearly as much as the
// largest, so that no small part of the row has most of the mass.
func (k *Kept[E]) flat() bool {
	s := &k.search
	s.sums = resized(s.sums, len(k.maxima))
	simd.Masses(k.tier, s.sums, k.maxima, k.largest, k.scale)
	return sum(s.sums) > flatMass
}

// rowIsFloat32 reports whether the kept tokens are all of the row, as it is.
func (k *Kept[E]) rowIsFloat32() bool {
	var element E
	return k.full && k.extra.Len() == 0 && unsafe.Sizeof(element) == 4
}

// float32s views a row of which rowIsFloat32 is true.
func (k *Kept[E]) float32s() []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(k.row))), len(k.row))
}

// prefix returns how many tokens of the crossing's logit a prefix has that reaches
// the target, and its mass.
func (k *Kept[E]) prefix(c crossing, target uint64) (ties int, total uint64) {
	mass := law.LogitMass(c.value, k.largest, k.temperature)
	ties = int((target - c.before + mass - 1) / mass)
	return ties, c.before + uint64(ties)*mass
}

// keepPrefix keeps what is before a crossing and the first ties of its tied tokens,
// given their mass.
func (k *Kept[E]) keepPrefix(c crossing, ties int, total uint64) {
	if c.gathered {
		k.keepGathered(c.value, ties, c.tied)
	} else {
		share := len(k.row)
		if c.dense {
			share = 1
		}
		k.atLeast(c.value, share)
		if ties < c.tied {
			k.dropTies(c.value, c.tied-ties)
		}
	}
	// That is enough to draw; the sums are computed as a draw needs them.
	k.total, k.weighed = total, true
	k.weighExtra()
	k.setSums()
	if k.sparse {
		k.sumCompact()
	}
}

// keepGathered keeps, of the gathered values, those that are larger than value and
// the first n of the tied ones that equal it.
func (k *Kept[E]) keepGathered(value float32, n, tied int) {
	k.alive = resized(k.alive, words(len(k.compact)))
	simd.Filter(k.tier, k.alive, bitsOfValues(k.compact), key.Float32.Least(value), key.Float32)
	if drop := tied - n; drop > 0 {
		k.scratch = resized(k.scratch, len(k.alive))
		simd.Filter(k.tier, k.scratch, bitsOfValues(k.compact), leastAbove(value, key.Float32), key.Float32)
		for w := len(k.alive) - 1; w >= 0 && drop > 0; w-- {
			_, drop = dropLast(k.alive, w, k.alive[w]&^k.scratch[w], drop)
		}
	}
	k.sparse, k.ghosts = true, true
	k.full, k.filled = false, true
}

// dropTies drops the last kept tokens of the least logit, so many.
func (k *Kept[E]) dropTies(value float32, drop int) {
	past := leastAbove(value, k.order)
	k.sparse = false
	k.scratch = resized(k.scratch, lazyBlocks*simd.Block/64)
	extra, dropped := k.extra.Len(), 0 // the first that is dropped
	for b := len(k.maxima); b > 0 && drop > 0; b -= lazyBlocks {
		start := max(b-lazyBlocks, 0) * simd.Block
		part := k.row[start:min(b*simd.Block, len(k.row))]
		larger := k.scratch[:words(len(part))]
		simd.Filter(k.tier, larger, part, past, k.order)
		for i := len(larger) - 1; i >= 0 && drop > 0; i-- {
			w := start/64 + i
			tied := k.bitmap[w] &^ larger[i]
			for ; extra > 0 && int(k.extra.IDs[extra-1]>>6) == w; extra-- {
				if k.extra.Logits[extra-1] == value {
					tied |= 1 << (k.extra.IDs[extra-1] & 63)
				}
			}
			if tied != 0 {
				dropped, drop = dropLast(k.bitmap, w, tied, drop) // bits of edited tokens are 0
			}
		}
	}
	k.keepExtra(func(i int) bool { return k.extra.Logits[i] != value || int(k.extra.IDs[i]) < dropped })
}

// leastAbove returns the least key of the values that are larger.
func leastAbove(value float32, order key.Order) uint32 {
	if value > math.MaxFloat32 {
		return math.MaxUint32
	}
	return order.Least(math.Nextafter32(value, float32(math.Inf(1))))
}

// dropLast clears, in word w of a bitmap, the last bits of those in tied, at most
// drop of them. It returns the place of the first it clears, if any, and how many
// are left to drop.
func dropLast(bitmap []uint64, w int, tied uint64, drop int) (place, left int) {
	for ; tied != 0 && drop > 0; drop-- {
		last := 63 - bits.LeadingZeros64(tied)
		tied &^= 1 << last
		bitmap[w] &^= 1 << last
		place = w<<6 + last
	}
	return place, drop
}

// crossing is where a prefix in the order of Top reaches a mass.
type crossing struct {
	value    float32 // of the token that reaches it
	before   uint64  // the mass of all tokens with a larger logit
	tied     int     // tokens of that logit
	gathered bool    // compact and the bitmap have all tokens from that logit on
	dense    bool    // a large part of the tokens is before it
}

// crossingSearch is the memory of a search.
type crossingSearch struct {
	lists  [2][]float32
	bitmap []uint64
	sums   []uint64
	sample List
	packed []uint64
}

// crossing finds where the kept tokens reach a mass, which is less than the
// total. Guesses from samples narrow the values down to few, which are sorted. A
// guess costs time, never the answer. If the total is not exact, the first guess
// must find a part of the row that has the crossing; otherwise it is not found.
func (k *Kept[E]) crossing(target, total uint64, exact bool) (c crossing, found bool) {
	values, whole := k.keptValues()
	next := 0 // of the lists
	for halve := false; len(values) > mostSorted; {
		var least float32
		below, few := true, false
		if !halve {
			least, below, few = k.guess(values, total, target-c.before)
		} else if low, middle := halves(values); low == middle {
			c.value, c.tied = low, len(values) // all are equal
			return c, true
		} else {
			least = middle
		}
		if !exact && below {
			return c, false
		}
		size := len(values)
		part := k.cut(values, next, whole, least, below, few)
		mass := k.massOf(part)
		inPart := c.before+mass >= target
		if below {
			inPart = c.before+total-mass < target
		}
		switch {
		case !exact && !inPart:
			return c, false
		case inPart && below:
			c.before += total - mass
			c.dense = c.dense || whole
		case inPart:
			c.gathered = c.gathered || whole
		default: // the guess was on the wrong side
			if !below {
				c.before += mass
				c.dense = c.dense || whole
			}
			mass = total - mass
			part = k.cut(values, next, false, least, !below, false)
		}
		values, total = part, mass
		whole, exact = false, true
		next = 1 - next
		halve = len(values) > size*3/4
	}
	c.value, c.before, c.tied = k.walk(values, c.before, target)
	return c, true
}

// Figures that were tried out on random and real rows of 50,304 float32.
const (
	mostSorted = 256  // values are sorted rather than narrowed down
	sampleSize = 64   // of them are looked at for a guess,
	manyValues = 8192 // and twice as many if there are more than these
	fewShare   = 10   // one in so many of the values, or fewer, are picked one by one

	// Of all blocks' largest tokens, from which on no small part is looked for.
	flatMass = 16 * law.One
)

// keptValues returns the logits of the kept tokens, in any order, and whether
// that is the row itself.
func (k *Kept[E]) keptValues() (values []float32, whole bool) {
	if k.rowIsFloat32() {
		return k.float32s(), true
	}
	s := &k.search
	k.fill()
	n := count(k.bitmap)
	s.lists[1] = resized(s.lists[1], n+k.extra.Len()+simd.CompactRoom)
	simd.Compact(k.tier, s.lists[1], k.bitmap, k.row, k.order)
	return append(s.lists[1][:n], k.extra.Logits...), false
}

// cut returns the values that are at least least or, if below, those that are
// less. It copies them to one of the lists or, if those from least on of a whole
// row are wanted, gathers them. Few says that they are likely to be few.
func (k *Kept[E]) cut(values []float32, list int, whole bool, least float32, below, few bool) []float32 {
	s := &k.search
	to, bitmap := &s.lists[list], &s.bitmap
	if whole && !below {
		to, bitmap, k.filled = &k.compact, &k.bitmap, false
	}
	*to = resized(*to, len(values)+simd.CompactRoom)
	*bitmap = resized(*bitmap, words(len(values)))
	n := 0
	if few && !below {
		n = simd.Pick(k.tier, *to, *bitmap, values, least)
	} else {
		n = simd.CompactAbove(k.tier, *to, *bitmap, bitsOfValues(values), least, below, key.Float32)
	}
	*to = (*to)[:n]
	return *to
}

// massOf returns the mass of values.
func (k *Kept[E]) massOf(values []float32) uint64 {
	s := &k.search
	s.sums = resized(s.sums, (len(values)+simd.Block-1)/simd.Block)
	k.sumList(s.sums, values)
	return sum(s.sums)
}

// halves returns the least value and one in the middle between it and the largest,
// by their keys, which is larger unless all are equal.
func halves(values []float32) (low, middle float32) {
	least, most := uint32(math.MaxUint32), uint32(0)
	for _, v := range values {
		of := ordered(v)
		least, most = min(least, of), max(most, of)
	}
	value := func(of uint32) float32 { return math.Float32frombits(key.Float32.Bits(of)) }
	return value(least), value(least + (most-least+1)/2)
}

// ordered is [key.Order.Key] of a float32 that is not NaN, but for -0, which comes
// right before +0.
func ordered(v float32) uint32 {
	bits := math.Float32bits(v)
	return bits ^ (uint32(int32(bits)>>31) | key.SignBit)
}

// guess returns a value such that the part of values from it on or, if below,
// the part of those that are less is small and is hoped to hold the one that
// reaches a mass, given the mass of all. Few says that it is likely to be very
// small.
func (k *Kept[E]) guess(values []float32, total, mass uint64) (least float32, below, few bool) {
	s := &k.search
	n := sampleSize
	if len(values) > manyValues {
		n = 2 * sampleSize
	}
	s.sample.resize(n)
	s.packed = resized(s.packed, n+simd.SortSlack)[:n]
	// One place further at each step, so that none is missed by a pattern.
	step := len(values) / n
	logits, packed := s.sample.Logits[:n], s.packed[:n]
	for i, start, further := 0, 0, 0; i < n; i++ {
		l := values[start+further]
		logits[i] = l
		packed[i] = key.Pack(ordered(l), uint32(i))
		start += step
		if further++; further == step {
			further = 0
		}
	}
	simd.Masses(k.tier, s.sample.Masses, s.sample.Logits, k.largest, k.scale)
	simd.Sort(k.tier, s.packed, n)
	// From the least value up, until surely not yet, or no longer, so much mass is
	// less.
	rest := float64(total-mass) * (float64(n) / float64(len(values)))
	less, square := 0.0, 0.0
	lower, upper := -1, -1 // places in the sample
	for i := n - 1; i >= 0; i-- {
		w := float64(s.sample.Masses[key.Index(s.packed[i])])
		less += w
		square += float64(w * w)
		// Two standard deviations, and one token more.
		if d := rest - less - w; d > 0 && d*d > 4*square {
			lower = i
		} else if d := less - w - rest; d > 0 && d*d > 4*square {
			upper = i
			break
		}
	}
	at := func(i int) float32 { return s.sample.Logits[key.Index(s.packed[i])] }
	switch {
	case lower >= 0 && (upper < 0 || n-upper > lower):
		return at(lower), false, lower < n/fewShare
	case upper >= 0:
		return at(upper), true, false
	}
	return at(n / 2), true, false
}

// walk sorts the values and finds the one that reaches the target, given the mass
// of those that are larger; before is that of all that are larger than it, and tied
// are how many equal it.
func (k *Kept[E]) walk(values []float32, larger, target uint64) (value float32, before uint64, tied int) {
	s := &k.search
	n := len(values)
	s.packed = resized(s.packed, n+simd.SortSlack)[:n]
	for i, l := range values {
		s.packed[i] = key.Pack(ordered(l), uint32(i))
	}
	simd.Sort(k.tier, s.packed, n)
	s.sample.resize(n)
	for i, word := range s.packed {
		s.sample.Logits[i] = values[key.Index(word)]
	}
	simd.Masses(k.tier, s.sample.Masses, s.sample.Logits, k.largest, k.scale)
	before = larger
	for i := 0; i < n; i += tied {
		value, tied = s.sample.Logits[i], 1
		for i+tied < n && s.sample.Logits[i+tied] == value {
			tied++
		}
		mass := uint64(tied) * s.sample.Masses[i]
		if before+mass >= target {
			break
		}
		before += mass
	}
	return value, before, tied
}
