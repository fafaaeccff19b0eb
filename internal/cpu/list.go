package cpu

import (
	"math/bits"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/law"
)

// List holds tokens side by side, in any order; token i has ID IDs[i], the edited
// logit Logits[i] and, after Weigh, the mass Masses[i]. The three slices are
// equally long, and a step may reorder or cut them together.
type List struct {
	IDs    []int32
	Logits []float32
	Masses []uint64

	order []uint64 // of IDs, for a draw
}

// Len returns the number of tokens.
func (l *List) Len() int { return len(l.IDs) }

// Cut leaves the first n tokens.
func (l *List) Cut(n int) { l.IDs, l.Logits, l.Masses = l.IDs[:n], l.Logits[:n], l.Masses[:n] }

// resize makes room for n tokens, whose contents are not defined.
func (l *List) resize(n int) {
	if cap(l.IDs) < n {
		l.IDs, l.Logits, l.Masses = make([]int32, n), make([]float32, n), make([]uint64, n)
	}
	l.Cut(n)
}

// Weigh computes the masses at a temperature of at least law.ColdestTemperature,
// beside the largest logit, which none of the list exceeds, and returns their sum.
// No logit is NaN.
func (l *List) Weigh(tier simd.Tier, largest, temperature float32) (total uint64) {
	simd.Masses(tier, l.Masses, l.Logits, largest, law.Scale(temperature))
	return l.Total()
}

// Total returns the sum of the masses.
func (l *List) Total() (total uint64) {
	for _, mass := range l.Masses {
		total += mass
	}
	return total
}

// Draw returns the place in the list of the token at which the sum of the masses,
// in the order of IDs, exceeds target, which is less than their total.
func (l *List) Draw(tier simd.Tier, target uint64) int {
	n := len(l.IDs)
	if cap(l.order) < n+simd.SortSlack {
		l.order = make([]uint64, n+simd.SortSlack)
	}
	order := l.order[:n]
	for i, id := range l.IDs {
		order[i] = uint64(^uint32(id))<<32 | uint64(i) // largest first is smallest ID first
	}
	simd.Sort(tier, order, n)
	for _, word := range order {
		i := int(uint32(word))
		if mass := l.Masses[i]; target < mass {
			return i
		} else {
			target -= mass
		}
	}
	return int(uint32(order[n-1])) // not reached
}

// setPacked makes the list one of packed words, whose keys are of float32 order.
func (l *List) setPacked(packed []uint64) {
	l.resize(len(packed))
	ids, logits := l.IDs, l.Logits[:len(l.IDs)]
	for i, word := range packed {
		ids[i] = int32(key.Index(word))
		logits[i] = key.Float32.Value(key.Float32.Bits(key.Of(word)))
	}
}

// count returns the number of bits that are set.
func count(bitmap []uint64) (n int) {
	for _, word := range bitmap {
		n += bits.OnesCount64(word)
	}
	return n
}
