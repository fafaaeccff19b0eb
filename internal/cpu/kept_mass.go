package cpu

import (
	"math"
	"math/bits"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// sparseShare is the part of a row below which the kept elements are copied side
// by side before they are weighed.
const sparseShare = 3

// Total returns the sum of the masses of the kept tokens, at the temperature that
// is set. The state must be OK, here and in what follows.
func (k *Kept[E]) Total() uint64 {
	k.weigh()
	return k.total
}

// weigh computes the sums of masses of all blocks.
func (k *Kept[E]) weigh() {
	if k.prepare(); k.weighed {
		return
	}
	if !k.sparse && !k.full {
		if kept := count(k.bitmap); kept < len(k.row)/sparseShare {
			k.compact = k.gather(k.compact, k.bitmap, kept)
			k.sparse = true
		}
	}
	k.setSums()
	if k.sparse {
		k.sumCompact()
	} else {
		k.sumBlocks(0, len(k.sums))
		k.front = len(k.sums)
	}
	k.weighExtra()
	k.total = sum(k.sums) + k.extra.Total()
	k.weighed = true
}

// setSums makes room for the sums, of which none is known.
func (k *Kept[E]) setSums() {
	n := len(k.row)
	if k.sparse {
		n = len(k.compact)
	}
	k.sums = resized(k.sums, (n+simd.Block-1)/simd.Block)
	k.front, k.back = 0, len(k.sums)
}

// sumCompact computes all sums where the kept values are compact.
func (k *Kept[E]) sumCompact() {
	if k.ghosts {
		simd.BlockMasses(k.tier, k.sums, k.alive, bitsOfValues(k.compact), k.largest, k.scale, key.Float32)
	} else {
		k.sumList(k.sums, k.compact)
	}
	k.front = len(k.sums)
}

// sumBlocks computes the sums of masses of some blocks of the row.
func (k *Kept[E]) sumBlocks(first, end int) {
	last := min(end*simd.Block, len(k.row))
	bitmap := k.bitmap
	if k.full {
		bitmap = k.all(len(k.row))
	}
	simd.BlockMasses(k.tier, k.sums[first:end], bitmap[first*simd.Block/64:words(last)], k.row[first*simd.Block:last], k.largest, k.scale, k.order)
}

// weighExtra computes the masses of the edited tokens.
func (k *Kept[E]) weighExtra() {
	simd.Masses(k.tier, k.extra.Masses, k.extra.Logits, k.largest, k.scale)
}

// gather copies the n values of a bitmap, and those of no edited tokens.
func (k *Kept[E]) gather(values []float32, bitmap []uint64, n int) []float32 {
	values = resized(values, n+simd.CompactRoom)
	simd.Compact(k.tier, values, bitmap, k.row, k.order)
	return values[:n]
}

// sumList computes the sums of masses of each block of a list of values.
func (k *Kept[E]) sumList(sums []uint64, values []float32) {
	simd.BlockMasses(k.tier, sums, k.all(len(values)), bitsOfValues(values), k.largest, k.scale, key.Float32)
}

// fill sets the first n bits of a bitmap and clears those past them.
func fill(bitmap []uint64, n int) {
	for w := range bitmap {
		bitmap[w] = math.MaxUint64
	}
	if past := n % 64; past > 0 {
		bitmap[len(bitmap)-1] = 1<<past - 1
	}
}

func sum(masses []uint64) (total uint64) {
	for _, mass := range masses {
		total += mass
	}
	return total
}

// Count returns the number of kept tokens, those without mass included.
func (k *Kept[E]) Count() int {
	k.prepare()
	k.settle()
	k.fill()
	return count(k.bitmap) + k.extra.Len()
}

// AtLeast drops the tokens whose mass is less. It never drops the largest logit
// if the mass is at most law.One.
func (k *Kept[E]) AtLeast(mass uint64) {
	k.prepare()
	if mass == 0 {
		return
	}
	k.AtLeastLogit(k.leastLogit(mass))
}

// leastLogit returns the least logit that has such a mass, or +Inf if none has.
func (k *Kept[E]) leastLogit(mass uint64) float32 {
	if mass > law.One || k.largest > math.MaxFloat32 {
		return float32(math.Inf(1))
	}
	reaches := func(ordered uint32) bool {
		l := math.Float32frombits(key.Float32.Bits(ordered))
		return law.Mass(law.Surprise(l, k.largest, k.scale)) >= mass
	}
	// The key of the largest logit reaches it and that of -Inf does not. The law
	// tells nearly which key is the least.
	low, high := key.Float32.Key(math.Float32bits(float32(math.Inf(-1)))), key.Float32.Key(math.Float32bits(k.largest))
	guess := float32(float64(k.largest) + float64(law.Log2(float64(mass)/law.One)*law.Ln2*float64(k.temperature)))
	slack := float32(float64(k.temperature)*0x1p-20 + math.Abs(float64(k.largest))*0x1p-21 + math.Abs(float64(guess))*0x1p-21)
	if l := key.Float32.Key(math.Float32bits(guess - slack)); low < l && l < high && !reaches(l) {
		low = l
	}
	if h := key.Float32.Key(math.Float32bits(guess + slack)); low < h && h < high && reaches(h) {
		high = h
	}
	for low+1 < high {
		if middle := low + (high-low)/2; reaches(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return math.Float32frombits(key.Float32.Bits(high))
}

// AtLeastLogit drops the tokens whose logit is less. The value is not NaN.
func (k *Kept[E]) AtLeastLogit(value float32) { k.atLeast(value, sparseShare) }

// atLeast is AtLeastLogit where about one in share of the row is expected to be
// kept.
func (k *Kept[E]) atLeast(value float32, share int) {
	k.prepare()
	if value < -math.MaxFloat32 {
		return
	}
	k.settle()
	k.weighed, k.sparse = false, false
	least := k.order.Least(value)
	k.bitmap = resized(k.bitmap, words(len(k.row)))
	target := k.bitmap
	if !k.full {
		k.scratch = resized(k.scratch, len(k.bitmap))
		target = k.scratch
	}
	k.sparse = k.full && share >= sparseShare
	kept := 0
	if k.sparse {
		k.compact = resized(k.compact, len(k.row)+simd.CompactRoom)
	}
	// Blocks whose maximum is less have nothing to offer.
	for b := 0; b < len(k.maxima); {
		end := b + 1
		reaches := k.maxima[b] >= value
		for end < len(k.maxima) && k.maxima[end] >= value == reaches {
			end++
		}
		first, last := b*simd.Block, min(end*simd.Block, len(k.row))
		part := target[first/64 : words(last)]
		switch {
		case !reaches:
			clear(part)
		case k.sparse:
			kept += simd.CompactAbove(k.tier, k.compact[kept:], part, k.row[first:last], value, false, k.order)
		default:
			simd.Filter(k.tier, part, k.row[first:last], least, k.order)
		}
		b = end
	}
	if k.sparse {
		k.compact = k.compact[:kept]
		k.sparse = kept < len(k.row)/sparseShare
	}
	if !k.full {
		for w, word := range target {
			k.bitmap[w] &= word
		}
	}
	k.full, k.filled = false, true
	k.keepExtra(func(i int) bool { return k.extra.Logits[i] >= value })
}

// settle drops ghosts from the bitmap and from compact.
func (k *Kept[E]) settle() {
	if !k.ghosts {
		return
	}
	place, kept := 0, k.compact[:0]
	for w, word := range k.bitmap {
		for ; word != 0; word &= word - 1 {
			if k.alive[place>>6]>>(place&63)&1 == 0 {
				k.bitmap[w] &^= word & -word
			} else {
				kept = append(kept, k.compact[place])
			}
			place++
		}
	}
	k.compact = kept
	k.ghosts, k.weighed = false, false
}

// keepExtra drops the edited tokens that keep refuses.
func (k *Kept[E]) keepExtra(keep func(i int) bool) {
	n := 0
	for i := range k.extra.IDs {
		if keep(i) {
			k.extra.IDs[n], k.extra.Logits[n], k.extra.Masses[n] = k.extra.IDs[i], k.extra.Logits[i], k.extra.Masses[i]
			n++
		}
	}
	k.extra.Cut(n)
}

// Draw returns the token at which the sum of the masses of the kept tokens, in
// the order of their IDs, exceeds target, which is less than Total.
func (k *Kept[E]) Draw(target uint64) int32 {
	k.weigh()
	if k.sparse {
		return k.drawSparse(target)
	}
	if target >= k.total/2 && k.front < len(k.sums) {
		return k.drawBackward(target)
	}
	// The edited tokens are in the order of IDs, as the blocks are.
	extra := 0
	for b := range k.sums {
		if b >= k.front && b < k.back {
			k.sumBlocks(b, min(b+lazyBlocks, k.back))
			k.front = min(b+lazyBlocks, k.back)
		}
		blockSum := k.sums[b]
		first := extra
		for extra < k.extra.Len() && int(k.extra.IDs[extra]) < (b+1)*simd.Block {
			blockSum += k.extra.Masses[extra]
			extra++
		}
		if target < blockSum {
			return k.drawBlock(b, first, extra, target)
		}
		target -= blockSum
	}
	return -1 // not reached
}

// lazyBlocks is how many sums are computed together when they are first needed.
const lazyBlocks = 16

// drawBackward is Draw from the last block on, where not all sums are known.
func (k *Kept[E]) drawBackward(target uint64) int32 {
	extra := k.extra.Len()
	before := k.total // the mass of the blocks before
	for b := len(k.sums) - 1; b >= 0; b-- {
		if b >= k.front && b < k.back {
			first := max(b+1-lazyBlocks, k.front)
			k.sumBlocks(first, b+1)
			k.back = first
		}
		before -= k.sums[b]
		end := extra
		for extra > 0 && int(k.extra.IDs[extra-1]) >= b*simd.Block {
			extra--
			before -= k.extra.Masses[extra]
		}
		if before <= target {
			return k.drawBlock(b, extra, end, target-before)
		}
	}
	return -1 // not reached
}

// drawBlock is Draw in one block of the row, which has the edited tokens from
// first to before end.
func (k *Kept[E]) drawBlock(b, first, end int, target uint64) int32 {
	var values [simd.Block]float32
	var masses [simd.Block]uint64
	start := b * simd.Block
	block := k.row[start:min(start+simd.Block, len(k.row))]
	for i := range block {
		values[i] = k.order.Value(key.Widen(block[i]))
	}
	simd.Masses(k.tier, masses[:len(block)], values[:len(block)], k.largest, k.scale)
	if !k.full {
		for i := range block {
			if k.bitmap[(start+i)>>6]>>((start+i)&63)&1 == 0 {
				masses[i] = 0
			}
		}
	}
	for e := first; e < end; e++ {
		masses[int(k.extra.IDs[e])-start] = k.extra.Masses[e]
	}
	for i, mass := range masses {
		if target < mass {
			return int32(start + i)
		}
		target -= mass
	}
	return -1 // not reached
}

// drawSparse is Draw among the values of compact, which are in the order of IDs,
// and the edited tokens.
func (k *Kept[E]) drawSparse(target uint64) int32 {
	k.rankExtra()
	place, extra := 0, 0
	for b, blockSum := range k.sums {
		end := min((b+1)*simd.Block, len(k.compact))
		first := extra
		for extra < k.extra.Len() && (k.ranks[extra] < end || b+1 == len(k.sums)) {
			blockSum += k.extra.Masses[extra]
			extra++
		}
		if target < blockSum {
			return k.drawAmong(place, end, first, extra, target)
		}
		target -= blockSum
		place = end
	}
	return k.drawAmong(0, 0, 0, k.extra.Len(), target)
}

// rankExtra counts, for each edited token, the elements of the bitmap that come
// before it.
func (k *Kept[E]) rankExtra() {
	k.ranks = k.ranks[:0]
	w, before := 0, 0
	for _, id := range k.extra.IDs {
		for ; w < int(id>>6); w++ {
			before += bits.OnesCount64(k.bitmap[w])
		}
		k.ranks = append(k.ranks, before+bits.OnesCount64(k.bitmap[w]&(1<<(id&63)-1)))
	}
}

// drawAmong is Draw among the elements of compact from place to before end and
// the edited tokens from first to before last.
func (k *Kept[E]) drawAmong(place, end, first, last int, target uint64) int32 {
	var masses [simd.Block]uint64
	simd.Masses(k.tier, masses[:end-place], k.compact[place:end], k.largest, k.scale)
	if first == last && !k.ghosts {
		for i, mass := range masses[:end-place] {
			if target < mass {
				w, word := k.seek(place + i)
				return int32(w<<6 + bits.TrailingZeros64(word))
			}
			target -= mass
		}
		return -1 // not reached
	}
	w, word := 0, uint64(0)
	if place < end {
		w, word = k.seek(place)
	}
	for i := place; ; i++ {
		id := int32(math.MaxInt32)
		if i < end {
			for word == 0 {
				w++
				word = k.bitmap[w]
			}
			id = int32(w<<6 + bits.TrailingZeros64(word))
			word &= word - 1
		}
		for ; first < last && k.extra.IDs[first] < id; first++ {
			if target < k.extra.Masses[first] {
				return k.extra.IDs[first]
			}
			target -= k.extra.Masses[first]
		}
		if i >= end {
			return -1 // not reached
		}
		if k.ghosts && k.alive[i>>6]>>(i&63)&1 == 0 {
			continue
		}
		if target < masses[i-place] {
			return id
		}
		target -= masses[i-place]
	}
}

// seek returns the word of the bitmap that has the element of that place among
// those that are set, and the word without the elements before.
func (k *Kept[E]) seek(place int) (w int, word uint64) {
	for {
		n := bits.OnesCount64(k.bitmap[w])
		if place < n {
			break
		}
		place -= n
		w++
	}
	word = k.bitmap[w]
	for range place {
		word &= word - 1
	}
	return w, word
}

// Remove drops one token, which is kept: a draw without replacement. The masses of
// the others stay as they are, also if it was the largest.
func (k *Kept[E]) Remove(id int32) {
	k.weigh()
	if i, edited := slices.BinarySearch(k.extra.IDs, id); edited {
		k.total -= k.extra.Masses[i]
		k.keepExtra(func(j int) bool { return j != i })
		return
	}
	mass := law.LogitMass(k.value(int(id)), k.largest, k.temperature)
	k.total -= mass
	if k.sparse {
		place := count(k.bitmap[:id>>6]) + bits.OnesCount64(k.bitmap[id>>6]&(1<<(id&63)-1))
		if !k.ghosts {
			k.ghosts = true
			k.alive = resized(k.alive, words(len(k.compact)))
			fill(k.alive, len(k.compact))
		}
		k.alive[place>>6] &^= 1 << (place & 63)
		k.sums[place/simd.Block] -= mass
		return
	}
	k.fill()
	k.full = false
	k.bitmap[id>>6] &^= 1 << (id & 63)
	if b := int(id / simd.Block); b < k.front || b >= k.back {
		k.sums[b] -= mass
	}
}

// Expand makes dst a list of the kept tokens, in the order of IDs, without
// masses.
func (k *Kept[E]) Expand(dst *List) {
	dst.resize(k.Count()) // which fills the bitmap
	n, extra := 0, 0
	for w, word := range k.bitmap {
		for {
			id := int32(w<<6 + bits.TrailingZeros64(word)) // the next word's first if there is none
			for ; extra < k.extra.Len() && k.extra.IDs[extra] < id; extra++ {
				dst.IDs[n], dst.Logits[n] = k.extra.IDs[extra], k.extra.Logits[extra]
				n++
			}
			if word == 0 {
				break
			}
			dst.IDs[n], dst.Logits[n] = id, k.value(int(id))
			n++
			word &= word - 1
		}
	}
	for ; extra < k.extra.Len(); extra++ {
		dst.IDs[n], dst.Logits[n] = k.extra.IDs[extra], k.extra.Logits[extra]
		n++
	}
}
