package cpu

import (
	"math"
	"math/bits"
	"slices"
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
	extra := 0 // edited tokens are not in the row's own selection
	for _, id := range k.ids {
		if k.allowed(id) {
			extra++
		}
	}
	row, allowed := &k.selected, k.countAllowed()
	k.replan(n, extra)
	row.Reset(&k.plan, k.order, n)
	row.mask, row.except = k.mask, k.ids
	if few := k.plan.Capacity - simd.ExpandRoom - extra; allowed <= few {
		row.pushOnly(k.row)
	} else {
		row.hope = min(int(int64(n)*int64(len(k.row))/int64(allowed))+len(k.ids), len(k.row))
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
	for i, id := range k.ids {
		if k.allowed(id) {
			row.packed = append(row.packed, key.Pack(key.Float32.Key(math.Float32bits(k.logits[i])), uint32(id)))
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

// countAllowed returns how many elements the mask allows, or about how many if
// they are more than some hundred.
func (k *Kept[E]) countAllowed() int {
	masked := k.mask[:min(len(k.mask), words32(len(k.row)))]
	free := len(k.row) - 32*len(masked)
	const step, few = 16, 64
	sampled := 0
	for i := 0; i < len(masked); i += step {
		sampled += bits.OnesCount32(uint32(masked[i]))
	}
	if sampled >= few {
		return max(free, 0) + sampled*step
	}
	for _, word := range masked {
		free += bits.OnesCount32(uint32(word))
	}
	return max(free, 0)
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
	k.weigh()
	if target = max(target, 1); target >= k.total {
		k.AtLeast(1)
		return
	}
	c := k.crossing(target)
	mass := law.LogitMass(c.value, k.largest, k.temperature)
	ties := int((target - c.before + mass - 1) / mass)
	k.AtLeastLogit(c.value)
	if ties < c.tied {
		k.dropTies(c.value, ties)
	}
}

// dropTies drops the kept tokens with the least logit but the first n.
func (k *Kept[E]) dropTies(value float32, n int) {
	past := uint32(math.MaxUint32)
	if value <= math.MaxFloat32 {
		past = k.leastKey(math.Nextafter32(value, float32(math.Inf(1))))
	}
	k.scratch = resized(k.scratch, len(k.bitmap))
	simd.Filter(k.tier, k.scratch, k.row, past, k.order)
	tied := k.tied[:0]
	for w, word := range k.bitmap {
		for word &^= k.scratch[w]; word != 0; word &= word - 1 {
			tied = append(tied, int32(w<<6+bits.TrailingZeros64(word)))
		}
	}
	for i, id := range k.extra.IDs {
		if k.extra.Logits[i] == value {
			tied = append(tied, id)
		}
	}
	k.tied = tied
	slices.Sort(tied)
	for _, id := range tied[n:] {
		k.bitmap[id>>6] &^= 1 << (id & 63) // that of an edited token is 0
	}
	last := tied[n-1]
	k.keepExtra(func(i int) bool { return k.extra.Logits[i] != value || k.extra.IDs[i] <= last })
}

// crossing is where a prefix in the order of Top reaches a mass.
type crossing struct {
	value  float32 // of the token that reaches it
	before uint64  // the mass of all tokens with a larger logit
	tied   int     // tokens of that logit
}

// crossingSearch is the memory of a search.
type crossingSearch struct {
	lists         [2][]float32
	upper, lower  []uint64 // bitmaps
	sums          []uint64
	sample        List
	packed        []uint64
	below, spread []float64
}

// crossing finds where the kept tokens reach a mass, which is less than the
// total. It narrows the values down to few, which it sorts. What it guesses from
// samples costs time, never the answer.
func (k *Kept[E]) crossing(target uint64) crossing {
	s := &k.search
	values := k.keptValues()
	next := 0 // of the lists
	before, total := uint64(0), k.total
	for halve := false; len(values) > 512; {
		lower, upper := k.guess(values, total, target-before, halve)
		if lower == math.MaxUint32 {
			return crossing{values[0], before, len(values)}
		}
		s.lower = resized(s.lower, words(len(values)))
		s.upper = resized(s.upper, words(len(values)))
		simd.Filter(k.tier, s.lower, bitsOfValues(values), lower, key.Float32)
		least := count(s.lower)
		most := 0 // that reach upper
		if upper > lower && least > len(values)/8 {
			simd.Filter(k.tier, s.upper, bitsOfValues(values), upper, key.Float32)
			most = count(s.upper)
			for w := range s.lower {
				s.lower[w] &^= s.upper[w]
			}
		} else {
			clear(s.upper)
		}
		// The middle part is the one hoped for. Of the others the smaller one tells the
		// larger one's mass.
		middle := s.take(k.tier, next, values, s.lower, least-most)
		middleMass := k.massOf(middle)
		var upperMass uint64
		switch {
		case most == 0:
		case most <= len(values)-least:
			upperMass = k.massOfSome(values, s.upper)
		default:
			s.complement(values)
			upperMass = total - middleMass - k.massOfSome(values, s.lower)
			s.complement(values)
		}
		size := len(values)
		switch {
		case before+upperMass >= target:
			values, total = s.take(k.tier, next, values, s.upper, most), upperMass
		case before+upperMass+middleMass >= target:
			values, total = middle, middleMass
			before += upperMass
		default:
			s.complement(values)
			before += upperMass + middleMass
			values, total = s.take(k.tier, next, values, s.lower, size-least), total-upperMass-middleMass
		}
		next = 1 - next
		halve = len(values) > size*3/4
	}
	return k.walk(values, before, target)
}

// keptValues returns the logits of the kept tokens, in any order.
func (k *Kept[E]) keptValues() []float32 {
	var element E
	if k.full && k.extra.Len() == 0 && unsafe.Sizeof(element) == 4 {
		return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(k.row))), len(k.row))
	}
	s := &k.search
	k.fill()
	n := count(k.bitmap)
	s.lists[1] = resized(s.lists[1], n+k.extra.Len()+simd.CompactRoom)
	simd.Compact(k.tier, s.lists[1], k.bitmap, k.row, k.order)
	return append(s.lists[1][:n], k.extra.Logits...)
}

// take copies the n values whose bit is set to one of the lists.
func (s *crossingSearch) take(tier simd.Tier, list int, values []float32, bitmap []uint64, n int) []float32 {
	s.lists[list] = resized(s.lists[list], n+simd.CompactRoom)
	simd.Compact(tier, s.lists[list], bitmap, bitsOfValues(values), key.Float32)
	return s.lists[list][:n]
}

// complement makes lower the values that are in neither bitmap.
func (s *crossingSearch) complement(values []float32) {
	for w := range s.lower {
		s.lower[w] = ^(s.lower[w] | s.upper[w])
	}
	if past := len(values) % 64; past > 0 {
		s.lower[len(s.lower)-1] &= 1<<past - 1
	}
}

// massOf returns the mass of values.
func (k *Kept[E]) massOf(values []float32) uint64 {
	k.search.sums = k.sumList(k.search.sums, values)
	return sum(k.search.sums)
}

// massOfSome returns the mass of the values whose bit is set.
func (k *Kept[E]) massOfSome(values []float32, bitmap []uint64) uint64 {
	s := &k.search
	s.sums = resized(s.sums, (len(values)+simd.Block-1)/simd.Block)
	simd.BlockMasses(k.tier, s.sums, bitmap, bitsOfValues(values), k.largest, k.scale, key.Float32)
	return sum(s.sums)
}

// guess returns two keys between which the values are hoped to reach a mass,
// given the mass of all. If it is to halve, both are the middle of the keys, or
// the largest uint32 if all values are equal.
func (k *Kept[E]) guess(values []float32, total, mass uint64, halve bool) (lower, upper uint32) {
	if halve {
		low, high := uint32(math.MaxUint32), uint32(0)
		for _, v := range values {
			of := key.Float32.Key(math.Float32bits(v))
			low, high = min(low, of), max(high, of)
		}
		if low == high {
			return math.MaxUint32, math.MaxUint32
		}
		middle := low + (high-low)/2 + 1
		return middle, middle
	}
	s := &k.search
	const size = 512
	n := min(size, len(values)/8)
	s.sample.resize(n)
	s.packed = resized(s.packed, n+simd.SortSlack)[:n]
	step := len(values) / n
	for i := range n {
		s.sample.Logits[i] = values[i*step+i%step]
	}
	for i, l := range s.sample.Logits {
		s.packed[i] = key.Pack(key.Float32.Key(math.Float32bits(l)), uint32(i))
	}
	simd.Masses(k.tier, s.sample.Masses, s.sample.Logits, k.largest, k.scale)
	simd.Sort(k.tier, s.packed, n)
	// From the least value up, until that much mass is surely reached.
	rest := float64(total-mass) * (float64(n) / float64(len(values)))
	below, square := 0.0, 0.0
	lower, upper = 0, math.MaxUint32
	for i := n - 1; i >= 0; i-- {
		w := float64(s.sample.Masses[key.Index(s.packed[i])])
		below += w
		square += float64(w * w)
		slack := 2*math.Sqrt(square) + w
		if below+slack < rest {
			lower = key.Of(s.packed[i])
		}
		if below-slack > rest {
			upper = key.Of(s.packed[i])
			break
		}
	}
	return lower, upper
}

// walk sorts the values and finds the crossing among them, given the mass of
// those that are larger.
func (k *Kept[E]) walk(values []float32, before, target uint64) crossing {
	s := &k.search
	n := len(values)
	s.packed = resized(s.packed, n+simd.SortSlack)[:n]
	for i, l := range values {
		s.packed[i] = key.Pack(key.Float32.Key(math.Float32bits(l)), uint32(i))
	}
	simd.Sort(k.tier, s.packed, n)
	s.sample.resize(n)
	for i, word := range s.packed {
		s.sample.Logits[i] = values[key.Index(word)]
	}
	simd.Masses(k.tier, s.sample.Masses, s.sample.Logits, k.largest, k.scale)
	for i := 0; i < n; {
		tied := i + 1
		for tied < n && s.sample.Logits[tied] == s.sample.Logits[i] {
			tied++
		}
		mass := uint64(tied-i) * s.sample.Masses[i]
		if before+mass >= target {
			return crossing{s.sample.Logits[i], before, tied - i}
		}
		before += mass
		i = tied
	}
	return crossing{s.sample.Logits[n-1], before, 1} // not reached
}
