package cpu

import (
	"cmp"
	"slices"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// cut drops candidates until hardly more than the k best are left.
func (r *Row[E]) cut() {
	kept, least := simd.Trim(r.plan.Tier, r.packed, r.k)
	r.packed = r.packed[:kept]
	// Whatever comes later has a larger index, so it must have a larger key than
	// the k that reach the bound.
	r.bound = max(r.bound, uint64(key.Of(least))+1)
	r.kept = slices.DeleteFunc(r.kept, func(kept keptBits) bool { return kept.packed < least })
}

// drop drops those of the first candidates whose key is less than least, which
// k of the others reach.
func (r *Row[E]) drop(first int, least uint64) {
	if first == 0 {
		return
	}
	reaches := least << 32 // just the words with that key or a better one
	older := 0
	for _, packed := range r.packed[:first] {
		r.packed[older] = packed
		if packed >= reaches {
			older++
		}
	}
	r.packed = r.packed[:older+copy(r.packed[older:], r.packed[first:])]
	r.kept = slices.DeleteFunc(r.kept, func(kept keptBits) bool { return kept.packed < reaches })
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

// pushOnly makes candidates of all elements of a whole row that count, for which
// there is room.
func (r *Row[E]) pushOnly(elements []E) {
	for first := 0; first < len(elements); first += chunk {
		block := elements[first:min(first+chunk, len(elements))]
		bitmap := r.bitmap[:words(len(block))]
		fill(bitmap, len(block))
		leaveOut(bitmap, first, r.mask, r.except)
		n := len(r.packed)
		written, _ := simd.Expand(r.plan.Tier, r.packed[n:r.room()], bitmap, block, uint32(first), r.order)
		r.packed = r.packed[:n+written]
	}
}

// needsBits reports whether the key does not tell the bits: NaN and zero.
func (r *Row[E]) needsBits(packed uint64) bool {
	of := key.Of(packed)
	return r.KeepBits && (of == r.order.NaN || of == key.SignBit)
}

// keep remembers the bits of new candidates that are NaN or zero. All of them
// have at least the key least.
func (r *Row[E]) keep(elements []E, base uint32, candidates []uint64, least uint64) {
	if !r.KeepBits {
		return
	}
	// Mostly there is none: neither zero nor a NaN that is the worst of all
	// reaches the threshold, and there is no better NaN.
	if least > key.SignBit {
		const carry = 1 << 32 // out of the key of NaN, if 1 is added
		var next uint64
		rest := candidates
		for ; len(rest) >= 4; rest = rest[4:] {
			next |= (rest[0]>>32 + 1) | (rest[1]>>32 + 1) | (rest[2]>>32 + 1) | (rest[3]>>32 + 1)
		}
		for _, packed := range rest {
			next |= packed>>32 + 1
		}
		if next&carry == 0 {
			return
		}
	}
	for _, packed := range candidates {
		if r.needsBits(packed) {
			r.kept = append(r.kept, keptBits{packed, key.Widen(elements[key.Index(packed)-base])})
		}
	}
}

// Write writes the bits and the indices of the k best, best first, of a row with
// KeepBits.
func (r *Row[E]) Write(bits []E, indices []int32) {
	best := r.Best()
	bits, indices = bits[:len(best)], indices[:len(best)]
	var narrow E
	shift := 32 - 8*unsafe.Sizeof(narrow)
	for i, packed := range best {
		bits[i], indices[i] = E(r.order.Bits(key.Of(packed))>>shift), int32(key.Index(packed))
	}
	if len(r.kept) == 0 {
		return
	}
	for i, packed := range best {
		if r.needsBits(packed) {
			bits[i] = E(r.keptBitsOf(packed) >> shift)
		}
	}
}

// keptBitsOf returns the bits of a candidate that is NaN or zero.
func (r *Row[E]) keptBitsOf(packed uint64) uint32 {
	i, _ := slices.BinarySearchFunc(r.kept, key.Index(packed), func(kept keptBits, index uint32) int {
		return cmp.Compare(key.Index(kept.packed), index)
	})
	return r.kept[i].bits
}
