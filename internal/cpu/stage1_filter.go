package cpu

import (
	"math"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// Row selects the k best elements of one row, which is pushed in any number of
// chunks. It is reused from row to row.
//
// Stage 1 keeps as candidates the elements that reach a threshold. A threshold
// is either proven, when k elements are known to reach it, or guessed from a
// sample; if fewer than k candidates come of a guess, they are dropped and the
// elements are read again with a lower one. So a guess costs time, never the
// answer.
type Row[E simd.Bits] struct {
	plan  *Plan
	order key.Order
	k     int

	// packed holds the candidates; see key.Pack.
	packed []uint64
	// bound is proven: an element yet to come with a smaller key is not among
	// the k best.
	bound uint64
	// crowded says that the candidates had to be cut, so that the bound may be
	// far too low for what is to come.
	crowded bool

	// Of a row of which not every element counts; see leaveOut. A guess then hopes for
	// more than the k best.
	mask   []int32
	except []int32
	hope   int

	sample     SamplePlan
	sampleTask sampleTask // what it was planned for
	groups     []int32
	bitmap     [chunk / 64]uint64

	// KeepBits makes the row remember the bits of candidates that the key does
	// not tell: NaN and zero.
	KeepBits bool
	kept     []keptBits
}

// sampleTask is what a sample is planned for.
type sampleTask struct {
	elements, k, target int
	tuning              *Tuning
}

// keptBits are the bits of an element whose key does not tell them.
type keptBits struct {
	packed uint64
	bits   uint32
}

// beyond is a bound that no key reaches.
const beyond = math.MaxUint32 + 1

// Reset starts a new row of which the k best are wanted, k >= 1. It allocates
// only when the plan needs more room than any before. The plan must not change
// while the row is in use.
func (r *Row[E]) Reset(plan *Plan, order key.Order, k int) {
	r.plan, r.order, r.k = plan, order, k
	r.mask, r.except, r.hope = nil, nil, k
	r.bound, r.crowded = 0, false
	r.packed, r.kept = r.packed[:0], r.kept[:0]
	if r.room() < plan.FirstRoom {
		r.grow(plan.FirstRoom)
	}
}

// room returns how many candidates there is room for.
func (r *Row[E]) room() int { return min(r.plan.Capacity, cap(r.packed)-simd.SortSlack) }

// grow makes room for so many candidates, but no more than planned.
func (r *Row[E]) grow(candidates int) {
	packed := make([]uint64, len(r.packed), min(candidates, r.plan.Capacity)+simd.SortSlack)
	copy(packed, r.packed)
	r.packed = packed
}

// Push adds elements to the row; base is the index of the first, and grows from
// call to call. The slice is not kept.
func (r *Row[E]) Push(elements []E, base uint32) {
	// Cutting at twice k keeps the bound sharp. If the bound is guessed anew for
	// each chunk, cutting only makes room.
	if spare := r.plan.Capacity - simd.ExpandRoom - len(r.packed); len(r.packed)/2 >= r.k && (!r.crowded || spare/2 < r.k) {
		r.cut()
	}
	for attempt, reached := 0, 0; len(elements) > 0 && r.bound < beyond; {
		before, keptBefore := len(r.packed), len(r.kept)
		least := max(r.bound, r.guess(elements, attempt, reached))
		read := r.filter(elements, base, least)
		if read < len(elements) {
			// The room was full, of which the older candidates leave enough for k new
			// ones that reach the threshold: it is proven. The bound of the cut may be
			// lower, where the cut has kept some more than k.
			r.bound = max(r.bound, least)
		} else if least > r.bound {
			if found := len(r.packed) - before; found < r.k {
				// The guess was too high.
				r.packed, r.kept = r.packed[:before], r.kept[:keptBefore]
				attempt, reached = attempt+1, found
				continue
			}
			r.drop(before, least)
			r.bound = least
		}
		elements, base, attempt = elements[read:], base+uint32(read), 0
	}
}

// guess returns a key that k of the elements are hoped to reach, or 0. Each
// further attempt at the same elements, of which so many have reached the guess
// before, hopes for less; the last cannot fail.
func (r *Row[E]) guess(elements []E, attempt, reached int) uint64 {
	if r.bound > 0 && !r.crowded {
		return 0
	}
	sample := r.planGuess(elements)
	if sample.Groups == 0 {
		return 0
	}
	rank := sample.Rank
	switch {
	case attempt == 0:
		r.takeSample(sample, elements)
		if r.crowded {
			rank = max(rank, sample.SortedRank)
		}
	case attempt == 1: // as much further as is missing, and half as much again
		rank = max(2*rank+2, rank+3*rank*(r.k-reached)/(2*reached+2), sample.SortedRank)
		rank = min(rank, sample.Groups*3/4)
	case attempt == 2 && r.hope <= sample.Groups:
		rank = r.hope // each of k groups has an element that reaches this one
	default:
		return 0
	}
	guess := uint64(uint32(simd.Rank(r.plan.Tier, r.groups[:sample.Groups], rank)) ^ key.SignBit)
	if guess <= r.bound {
		r.crowded = false
	}
	return guess
}

// planGuess returns how the elements are to be sampled.
func (r *Row[E]) planGuess(elements []E) *SamplePlan {
	if task := (sampleTask{len(elements), r.hope, r.plan.targetCandidates, r.plan.tuning}); task != r.sampleTask {
		r.sample, r.sampleTask = r.plan.sampleFor(task.elements, task.k), task
	}
	return &r.sample
}

// takeSample finds the maxima of the groups.
func (r *Row[E]) takeSample(sample *SamplePlan, elements []E) {
	if cap(r.groups) < sample.Groups {
		r.groups = make([]int32, sample.Groups)
	}
	simd.Sample(r.plan.Tier, r.groups[:sample.Groups], sampled(elements, sample.Step), sample.Step, r.order)
}

// sampled returns the elements from the first stop of a sample on. It is the
// start of a cache line, so that a stop reads one line and not halves of two; and
// it is not the first one, because vocabularies begin with what is frequent: half
// of eight rows of a model had more than their share of the best there.
func sampled[E simd.Bits](elements []E, step int) []E {
	var zero E
	bytes := int(unsafe.Sizeof(zero))
	past := uintptr(unsafe.Pointer(unsafe.SliceData(elements))) % simd.StopBytes
	skip := (simd.StopBytes-int(past))%simd.StopBytes/bytes + step*simd.StopBytes/bytes
	return elements[min(skip, len(elements)):]
}

// filter makes candidates of the elements whose key is at least least, and
// returns how many elements it has read: all of them, unless the room for
// candidates ran out and it had to cut them, which raises the bound.
func (r *Row[E]) filter(elements []E, base uint32, least uint64) (read int) {
	for read < len(elements) {
		block := elements[read:min(read+r.plan.Chunk, len(elements))]
		bitmap := r.bitmap[:(len(block)+63)/64]
		simd.Filter(r.plan.Tier, bitmap, block, uint32(least), r.order)
		leaveOut(bitmap, int(base)+read, r.mask, r.except)
		n := len(r.packed)
		written, words := simd.Expand(r.plan.Tier, r.packed[n:r.room()], bitmap, block, base+uint32(read), r.order)
		r.packed = r.packed[:n+written]
		r.keep(elements, base, r.packed[n:], least)
		switch {
		case words == len(bitmap):
			read += len(block)
		case r.room() < r.plan.Capacity:
			read += words * 64
			r.grow(2 * r.room())
		default:
			r.cut()
			r.crowded = true
			return read + words*64
		}
	}
	return read
}

// leaveOut clears the bits of elements that do not count: those whose bit j%32 of
// word j/32 of the mask is not set, and those with the indices of except. What is
// past the mask counts. first is the index of the first bit, a multiple of 64.
func leaveOut(bitmap []uint64, first int, mask, except []int32) {
	if mask = mask[min(len(mask), first/32):]; len(mask) > 0 {
		masked := bitmap[:min(len(bitmap), len(mask)/2)]
		pairs := mask[:2*len(masked)]
		for w := range masked {
			masked[w] &= uint64(uint32(pairs[2*w])) | uint64(pairs[2*w+1])<<32
		}
		if len(masked) < len(bitmap) && len(mask)%2 == 1 {
			bitmap[len(masked)] &= uint64(uint32(mask[len(mask)-1])) | math.MaxUint32<<32
		}
	}
	for _, index := range except {
		if i := int(index) - first; 0 <= i && i < len(bitmap)*64 {
			bitmap[i>>6] &^= 1 << (i & 63)
		}
	}
}
