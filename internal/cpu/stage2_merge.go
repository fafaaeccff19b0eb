package cpu

import (
	"cmp"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// cut drops all candidates but the k best. Whatever comes later has a larger
// index, so it must beat the last of these, not equal it.
func (r *Row[E]) cut() {
	best := r.Best()
	r.packed = best
	if len(best) == r.k {
		r.bound = max(r.bound, uint64(key.Of(best[r.k-1]))+1)
	}
	r.kept = slices.DeleteFunc(r.kept, func(kept keptBits) bool {
		_, found := r.find(kept.packed)
		return !found
	})
}

// Best orders the candidates and returns the k best, best first, or all if
// there are fewer. The slice is valid until the next call.
func (r *Row[E]) Best() []uint64 {
	k := min(r.k, len(r.packed))
	simd.Sort(r.plan.Tier, r.packed, k)
	slices.SortFunc(r.kept, func(a, b keptBits) int { return cmp.Compare(key.Index(a.packed), key.Index(b.packed)) })
	return r.packed[:k]
}

// Add makes candidates of elements with indices of their own, in any order,
// such as the best of a shard. The plan must have room for all of them.
func (r *Row[E]) Add(elements []E, indices []int32) {
	for i, x := range elements {
		bits := key.Widen(x)
		packed := key.Pack(r.order.Key(bits), uint32(indices[i]))
		r.packed = append(r.packed, packed)
		if r.needsBits(packed) {
			r.kept = append(r.kept, keptBits{packed, bits})
		}
	}
}

// needsBits reports whether the key does not tell the bits: NaN and zero.
func (r *Row[E]) needsBits(packed uint64) bool {
	of := key.Of(packed)
	return r.KeepBits && (of == r.order.NaN || of == key.SignBit)
}

// find searches the ordered candidates.
func (r *Row[E]) find(packed uint64) (int, bool) {
	return slices.BinarySearchFunc(r.packed, packed, func(a, b uint64) int { return cmp.Compare(b, a) })
}

// keep remembers the bits of new candidates that are NaN or zero.
func (r *Row[E]) keep(elements []E, base uint32, candidates []uint64) {
	for _, packed := range candidates {
		if r.needsBits(packed) {
			r.kept = append(r.kept, keptBits{packed, key.Widen(elements[key.Index(packed)-base])})
		}
	}
}

// BitsOf returns the bits of a candidate of a row with KeepBits, widened to 32.
func (r *Row[E]) BitsOf(packed uint64) uint32 {
	if !r.needsBits(packed) {
		return r.order.Bits(key.Of(packed))
	}
	i, _ := slices.BinarySearchFunc(r.kept, key.Index(packed), func(kept keptBits, index uint32) int {
		return cmp.Compare(key.Index(kept.packed), index)
	})
	return r.kept[i].bits
}
