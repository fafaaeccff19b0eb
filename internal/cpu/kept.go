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

// State says whether a token can be drawn from a row.
type State uint8

// The states of a row.
const (
	OK    State = iota
	NaN         // a token that is allowed has the logit NaN
	Empty       // every token that is allowed has the logit -Inf, or none is allowed
)

// Kept is which tokens of one row are kept, on the way from its logits to one
// token: first all, then what each call leaves. The row is read, never written
// or copied. A Kept is reset from row to row and then allocates only for a larger
// vocabulary.
//
// The order of calls is: Reset; Edit and Allow; then Top, or State and the others.
type Kept[E simd.Bits] struct {
	tier  simd.Tier
	order key.Order
	row   []E

	// What the caller has changed: IDs ascending, and the mask.
	ids    []int32
	logits []float32
	mask   []int32

	selected Row[E]
	plan     Plan
	planned  planTask

	// prepared says that what follows is of this row.
	prepared bool
	state    State
	full     bool     // every element is kept, and the bitmap perhaps not yet filled
	filled   bool     // the bitmap is
	ones     []uint64 // all bits set, but in the word of the end
	end      int
	bitmap   []uint64 // the elements that are kept, edited ones never
	extra    List     // the edited tokens that are kept, IDs ascending
	maxima   []float32
	largest  float32 // of all kept tokens
	best     int     // the first block with the row's largest
	exact    [law.MaxVocab / simd.Block / 64]uint64

	temperature, scale float32

	// sparse says that compact holds the values of the bitmap's elements, in order.
	// With ghosts, just those are kept whose bit in alive is set.
	sparse, ghosts bool
	compact        []float32
	alive          []uint64

	// weighed says that what follows is of these tokens at this temperature.
	weighed bool
	total   uint64
	sums    []uint64 // of masses, for each block of the row or of compact
	front   int      // the sums before this one are known,
	back    int      // and those from this one on

	ranks   []int    // of the edited tokens among the bitmap's elements
	scratch []uint64 // a bitmap
	search  crossingSearch
}

// planTask is what a plan of Top was made for.
type planTask struct {
	tier            simd.Tier
	vocab, n, extra int
}

// Reset starts a row, of at most law.MaxVocab elements, whose order is
// [key.Float32], [key.BFloat16] or [key.Float16]. All its tokens are kept, at
// temperature 1. The row is in use until the next Reset.
func (k *Kept[E]) Reset(tier simd.Tier, row []E, order key.Order) {
	k.tier, k.row, k.order = tier, row, order
	k.ids, k.logits, k.mask = nil, nil, nil
	k.prepared, k.weighed = false, false
	k.SetTemperature(1)
}

// Edit gives tokens other logits: ids are ascending, distinct and within the
// row. The logit of a banned token is -Inf. Both slices are in use until the next
// Reset. A second call takes the place of the first.
func (k *Kept[E]) Edit(ids []int32, logits []float32) {
	k.ids, k.logits = ids, logits
	k.prepared, k.weighed = false, false
}

// Allow bans the tokens whose bit in the mask is not set: bit j%32 of word j/32.
// Tokens past the end of the mask stay allowed. The mask outweighs Edit, and is in
// use until the next Reset.
func (k *Kept[E]) Allow(mask []int32) {
	k.mask = mask
	k.prepared, k.weighed = false, false
}

// SetTemperature sets the temperature of all masses, from law.ColdestTemperature
// to the largest float32.
func (k *Kept[E]) SetTemperature(temperature float32) {
	if temperature != k.temperature {
		k.temperature, k.scale, k.weighed = temperature, law.Scale(temperature), false
	}
}

// Temperature returns the temperature that is set.
func (k *Kept[E]) Temperature() float32 { return k.temperature }

// allowed reports whether the mask allows a token.
func (k *Kept[E]) allowed(id int32) bool {
	word := int(id >> 5)
	return word >= len(k.mask) || uint32(k.mask[word])>>(id&31)&1 != 0
}

// fill makes the bitmap one of all elements, unless it is that of this row.
func (k *Kept[E]) fill() {
	if !k.filled {
		k.filled = true
		k.bitmap = resized(k.bitmap, words(len(k.row)))
		fill(k.bitmap, len(k.row))
	}
}

// all returns a bitmap of n elements that are all set, which is valid until the
// next call.
func (k *Kept[E]) all(n int) []uint64 {
	for len(k.ones) < words(n) {
		k.ones = append(k.ones, math.MaxUint64)
	}
	if k.end < len(k.ones) {
		k.ones[k.end] = math.MaxUint64
	}
	if past := n % 64; past > 0 {
		k.end = n / 64
		k.ones[k.end] = 1<<past - 1
	}
	return k.ones[:words(n)]
}

// words returns how many words a bitmap of n elements has.
func words(n int) int { return (n + 63) / 64 }

// words32 returns how many words a mask of n elements has.
func words32(n int) int { return (n + 31) / 32 }

// resized returns a slice of n elements, whose contents are not defined.
func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// prepare finds the largest logit and whether the row can be drawn from.
func (k *Kept[E]) prepare() {
	if k.prepared {
		return
	}
	k.prepared = true
	k.sparse, k.ghosts = false, false
	k.full = len(k.ids) == 0 && len(k.mask) == 0
	if k.filled = false; !k.full {
		k.fill()
		leaveOut(k.bitmap, 0, k.mask, k.ids)
	}
	k.extra.resize(len(k.ids))
	n := 0
	nan := false
	k.largest = float32(math.Inf(-1))
	for i, id := range k.ids {
		if l := k.logits[i]; k.allowed(id) {
			k.extra.IDs[n], k.extra.Logits[n] = id, l
			n++
			nan = nan || l != l
			k.largest = max(k.largest, l)
		}
	}
	k.extra.Cut(n)
	k.maxima = resized(k.maxima, (len(k.row)+simd.Block-1)/simd.Block)
	if simd.BlockMaxima(k.tier, k.maxima, k.row, k.order) {
		nan = nan || k.full || k.hasNaN()
		if !nan {
			for b := range k.maxima {
				k.maxima[b] = k.blockMaximum(b)
			}
		}
	}
	switch {
	case nan:
		k.state = NaN
	default:
		k.state = OK
		if k.largest = max(k.largest, k.rowMaximum()); k.largest == float32(math.Inf(-1)) {
			k.state = Empty
		}
	}
}

// hasNaN reports whether an element whose bit is set is NaN.
func (k *Kept[E]) hasNaN() bool {
	for w, word := range k.bitmap {
		for ; word != 0; word &= word - 1 {
			if v := k.value(w<<6 + bits.TrailingZeros64(word)); v != v {
				return true
			}
		}
	}
	return false
}

// value returns element i of the row.
func (k *Kept[E]) value(i int) float32 { return k.order.Value(key.Widen(k.row[i])) }

// whole reports whether all elements of a block are kept.
func (k *Kept[E]) whole(b int) bool {
	first := b * (simd.Block / 64)
	kept := count(k.bitmap[first:min(first+simd.Block/64, len(k.bitmap))])
	return kept == min(simd.Block, len(k.row)-b*simd.Block)
}

// blockMaximum returns the largest of the elements of a block that are kept.
func (k *Kept[E]) blockMaximum(b int) float32 {
	largest := float32(math.Inf(-1))
	first := b * (simd.Block / 64)
	for w := first; w < min(first+simd.Block/64, len(k.bitmap)); w++ {
		for word := k.bitmap[w]; word != 0; word &= word - 1 {
			if v := k.value(w<<6 + bits.TrailingZeros64(word)); v > largest {
				largest = v
			}
		}
	}
	return largest
}

// rowMaximum returns the largest element whose bit is set. Where elements are
// not kept, the maxima are upper bounds, and only those that stand in the way are
// computed anew.
func (k *Kept[E]) rowMaximum() float32 {
	if len(k.maxima) == 0 {
		return float32(math.Inf(-1))
	}
	if !k.full {
		clear(k.exact[:])
	}
	for {
		b := k.largestBlock()
		k.best = b
		if k.full || k.exact[b/64]>>(b%64)&1 != 0 {
			return k.maxima[b]
		}
		if !k.whole(b) {
			k.maxima[b] = k.blockMaximum(b)
		}
		k.exact[b/64] |= 1 << (b % 64)
	}
}

// largestBlock returns the first block that has the largest maximum.
func (k *Kept[E]) largestBlock() int {
	maxima := bitsOfValues(k.maxima)
	largest := math.Float32frombits(simd.Max(k.tier, maxima))
	k.scratch = resized(k.scratch, words(len(maxima)))
	simd.Filter(k.tier, k.scratch, maxima, key.Float32.Least(largest), key.Float32)
	for w, word := range k.scratch {
		if word != 0 {
			return w<<6 + bits.TrailingZeros64(word)
		}
	}
	return 0 // not reached: none of the maxima is NaN
}

// State says whether a token can be drawn.
func (k *Kept[E]) State() State {
	k.prepare()
	return k.state
}

// Largest returns the largest logit of the row's kept tokens, if the state is OK.
func (k *Kept[E]) Largest() float32 {
	k.prepare()
	return k.largest
}

// Greedy returns the first token that has the largest logit, if the state is OK.
func (k *Kept[E]) Greedy() int32 {
	k.prepare()
	first := int32(math.MaxInt32)
	if i := slices.Index(k.extra.Logits, k.largest); i >= 0 {
		first = k.extra.IDs[i]
	}
	least := k.order.Least(k.largest)
	for b := k.best; b < len(k.maxima); b++ {
		if k.maxima[b] != k.largest || b*simd.Block > int(first) {
			continue
		}
		var reach [simd.Block / 64]uint64
		block := k.row[b*simd.Block : min(b*simd.Block+simd.Block, len(k.row))]
		simd.Filter(k.tier, reach[:words(len(block))], block, least, k.order)
		for w, word := range reach {
			if word == 0 {
				continue
			}
			at := b*(simd.Block/64) + w
			if !k.full {
				word &= k.bitmap[at]
			}
			if word != 0 {
				return min(first, int32(at*64+bits.TrailingZeros64(word)))
			}
		}
	}
	return first
}

// bitsOfValues views values as their bits.
func bitsOfValues(values []float32) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(values))), len(values))
}
