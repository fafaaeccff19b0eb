package sampling

import (
	"math"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// row holds the tokens that no step has removed yet.
type row struct {
	ids    []int32
	logits []float32 // edited; never NaN once checked
	// ranked: in contract order, value descending and equal values by id.
	// Otherwise ascending ids.
	ranked bool

	t float32 // what masses are taken at

	tier      simd.Tier
	weighed   bool
	masses    []uint64
	total     uint64
	measured  bool // the surprises are those of the masses
	surprises []int32

	keys   []uint64 // scratch of a sort
	sorted int      // of the keys
	ids2   []int32
	values []float32
}

// reset makes room for n tokens, whose ids and logits the caller sets.
func (r *row) reset(n int) {
	r.ids = slices.Grow(r.ids[:0], n)[:n]
	r.logits = slices.Grow(r.logits[:0], n)[:n]
	r.ranked, r.weighed, r.t = false, false, 1
}

// largest returns the place of the largest logit, of several the one with the
// smallest id. NaN is passed over.
func (r *row) largest() int {
	best := 0
	if r.ranked {
		return best
	}
	for i, l := range r.logits {
		if l > r.logits[best] || r.logits[best] != r.logits[best] {
			best = i
		}
	}
	return best
}

// rank brings the tokens into contract order.
func (r *row) rank() {
	if r.ranked {
		return
	}
	r.fillKeys()
	slices.Sort(r.keys)
	r.takeFirst(len(r.keys))
}

// fillKeys sets keys to words of which the smaller comes first in contract order;
// none is in its place yet.
func (r *row) fillKeys() {
	r.sorted = 0
	if r.ranked {
		return
	}
	r.keys = r.keys[:0]
	for i, l := range r.logits {
		r.keys = append(r.keys, ^key.Pack(key.Float32.Key(math.Float32bits(l)), uint32(i)))
	}
}

// nth returns the place of the i-th token in contract order; keys must have been
// filled. It sorts no more than is asked for, or a few times that.
func (r *row) nth(i int) int {
	if r.ranked {
		return i
	}
	if i >= r.sorted {
		n := min(max(i+1, 4*r.sorted, 256), len(r.keys))
		partition(r.keys[r.sorted:], n-r.sorted)
		slices.Sort(r.keys[r.sorted:n])
		r.sorted = n
	}
	return int(key.Index(^r.keys[i]))
}

// takeFirst makes the row one of its first n tokens, whose keys are sorted.
func (r *row) takeFirst(n int) {
	for i, word := range r.keys[:n] {
		r.keys[i] = uint64(key.Index(^word))
	}
	r.permute(n)
	r.ranked = true
}

// partition moves the n smallest words to the front.
func partition(words []uint64, n int) {
	for n > 0 && n < len(words) {
		pivot := pivotOf(words)
		low, high := 0, len(words)-1
		for low <= high {
			for words[low] < pivot {
				low++
			}
			for words[high] > pivot {
				high--
			}
			if low <= high {
				words[low], words[high] = words[high], words[low]
				low++
				high--
			}
		}
		switch { // [0, high] <= pivot <= [low, end)
		case n <= high+1:
			words = words[:high+1]
		case n >= low:
			words, n = words[low:], n-low
		default:
			return
		}
	}
}

// byID brings the tokens into the order of their ids.
func (r *row) byID() {
	if !r.ranked {
		return
	}
	r.sortPlaces()
	r.permute(len(r.keys))
	r.ranked = false
}

// sortPlaces fills keys with the places of the tokens in the order of their ids.
func (r *row) sortPlaces() {
	r.keys = r.keys[:0]
	for i, id := range r.ids {
		r.keys = append(r.keys, uint64(id)<<32|uint64(i))
	}
	if r.ranked {
		slices.Sort(r.keys)
	}
	for i, packed := range r.keys {
		r.keys[i] = packed & math.MaxUint32
	}
}

// permute makes the row one of the tokens at the first n of the places in keys.
func (r *row) permute(n int) {
	r.ids2 = append(r.ids2[:0], r.ids...)
	r.values = append(r.values[:0], r.logits...)
	r.ids, r.logits = r.ids[:n], r.logits[:n]
	for i, place := range r.keys[:n] {
		r.ids[i], r.logits[i] = r.ids2[place], r.values[place]
	}
	r.weighed = false
}

// place returns where the id is, or -1.
func (r *row) place(id int32) int {
	n := len(r.ids)
	if r.ranked {
		return slices.Index(r.ids, id)
	}
	if int(id) < n && r.ids[id] == id { // as long as nothing is removed
		return int(id)
	}
	if i, found := slices.BinarySearch(r.ids, id); found {
		return i
	}
	return -1
}

// materialise divides the logits by the temperature, so that edits apply to
// what the temperature has made of them. One of 0 has divided nothing.
func (r *row) materialise() {
	if r.t == 1 || r.t == 0 {
		return
	}
	for i, l := range r.logits {
		r.logits[i] = l / r.t
	}
	r.t, r.weighed = 1, false
}

// setTemperature sets what masses are taken at.
func (r *row) setTemperature(t float32) {
	r.weighed = r.weighed && t == r.t
	r.t = t
}

// weigh takes the masses of all tokens.
func (r *row) weigh() {
	if r.weighed {
		return
	}
	n := len(r.logits)
	r.masses = slices.Grow(r.masses[:0], n)[:n]
	simd.Masses(r.tier, r.masses, r.logits, r.logits[r.largest()], law.Scale(r.t))
	r.total = sumOf(r.masses)
	r.weighed, r.measured = true, false
}

// measure takes the surprises of all tokens, and their masses.
func (r *row) measure() {
	r.weigh()
	if r.measured {
		return
	}
	r.surprises = slices.Grow(r.surprises[:0], len(r.logits))[:len(r.logits)]
	r.measured = true
	most := r.logits[r.largest()]
	if most > math.MaxFloat32 { // where the difference has no meaning
		for i, l := range r.logits {
			r.surprises[i] = law.LeastSurprise
			if l == most {
				r.surprises[i] = 0
			}
		}
		return
	}
	scale := law.Scale(r.t)
	for i, l := range r.logits {
		r.surprises[i] = law.Surprise(l, most, scale)
	}
}

// keepFirst removes all but the first n in contract order, if there are more.
func (r *row) keepFirst(n int) {
	if n >= len(r.ids) {
		return
	}
	if r.ranked {
		r.cut(n)
		return
	}
	r.fillKeys()
	partition(r.keys, n)
	slices.Sort(r.keys[:n])
	r.takeFirst(n)
}

// cut removes all but the first n places, whose masses the total then counts.
func (r *row) cut(n int) {
	if r.weighed {
		if gone := r.masses[n:]; len(gone) < n {
			for _, w := range gone {
				r.total -= w
			}
		} else {
			r.total = sumOf(r.masses[:n])
		}
	}
	r.shrink(n)
}

// shrink is cut after what stays was moved to the first n places: the total is
// that of these already, or there is none.
func (r *row) shrink(n int) {
	r.ids, r.logits = r.ids[:n], r.logits[:n]
	if r.weighed {
		r.masses = r.masses[:n]
		if r.measured {
			r.surprises = r.surprises[:n]
		}
	}
}

// sumOf adds masses up.
func sumOf(masses []uint64) (total uint64) {
	for _, w := range masses {
		total += w
	}
	return total
}

// keepHeavy removes the tokens of less than a mass, but leaves at least so many
// of the first. Of ties with the last of these all stay if ties is set.
func (r *row) keepHeavy(least uint64, atLeast int, ties bool) {
	r.weigh()
	heavy := 0
	if r.ranked { // the heavy ones come first
		for heavy < len(r.masses) && r.masses[heavy] >= least {
			heavy++
		}
	} else {
		for _, w := range r.masses {
			if w >= least {
				heavy++
			}
		}
	}
	switch {
	case heavy < min(atLeast, len(r.ids)):
	case r.ranked:
		r.cut(heavy)
		return
	default:
		n := 0
		for i, w := range r.masses {
			if w >= least {
				r.move(n, i)
				n++
			}
		}
		r.total = sumOf(r.masses[:n])
		r.shrink(n)
		return
	}
	if ties {
		atLeast = r.withTies(atLeast)
	}
	r.keepFirst(atLeast)
}

// withTies returns n, and how many more tokens have the value of the n-th.
func (r *row) withTies(n int) int {
	n = min(n, len(r.logits))
	r.fillKeys()
	for n < len(r.logits) && r.logits[r.nth(n)] == r.logits[r.nth(n-1)] {
		n++
	}
	return n
}

// move copies a token to an earlier place.
func (r *row) move(to, from int) {
	r.ids[to], r.logits[to] = r.ids[from], r.logits[from]
	r.masses[to] = r.masses[from]
	if r.measured {
		r.surprises[to] = r.surprises[from]
	}
}

// weighted returns the sum of each mass times the magnitude of its surprise.
func (r *row) weighted() law.Uint128 {
	r.measure()
	var sum law.Uint128
	for i, w := range r.masses {
		sum = sum.Add(law.Mul(w, uint64(-r.surprises[i])))
	}
	return sum
}

// entropy returns the entropy of the row in bits.
func (r *row) entropy() float64 {
	weighted := r.weighted()
	return law.Entropy(r.total, weighted)
}
