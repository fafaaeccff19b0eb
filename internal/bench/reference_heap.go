package bench

import (
	"math"
	"slices"

	"github.com/ai-kernel-factory/aikf/topk"
)

// typedHeap is what Go programs do today: one pass over the row with a min-heap
// of the k best so far. It is written as well as that can be: the heap is typed
// (no interface), its root is compared in a register, and most logits cost one
// comparison that the branch predictor gets right. 16-bit logits are widened as
// they are read.
type typedHeap []ranked

// ranked is a logit and its place.
type ranked struct {
	value float32
	index int32
}

// worse orders by value and, of equal values, the larger index first, so that
// the heap's root is what the next better logit replaces. NaN is the best.
func (a ranked) worse(b ranked) bool {
	switch aNaN, bNaN := a.value != a.value, b.value != b.value; {
	case aNaN && bNaN, a.value == b.value:
		return a.index > b.index
	case aNaN || bNaN:
		return bNaN
	}
	return a.value < b.value
}

func (a ranked) compare(b ranked) int {
	if b.worse(a) {
		return -1
	}
	return 1
}

// selectRow writes the best len(indices) of the row, best first.
func selectRow[T topk.Float](h *typedHeap, values []T, indices []int32, row []T) {
	k := len(indices)
	if k == 0 {
		return
	}
	*h = (*h)[:0]
	for i, x := range row[:k] {
		*h = append(*h, ranked{widen(x), int32(i)})
	}
	for i := k/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	switch rest := any(row[k:]).(type) {
	case []float32:
		h.scanFloat32(rest, k)
	case []topk.Float16:
		h.scanFloat16(rest, k)
	case []topk.BFloat16:
		h.scanBFloat16(rest, k)
	}
	slices.SortFunc(*h, ranked.compare)
	for i, best := range *h {
		values[i], indices[i] = row[best.index], best.index
	}
}

// One scan for each type: a type parameter would turn the conversion into a
// call through a table.

func (h *typedHeap) scanFloat32(row []float32, base int) {
	root := h.root()
	for i, v := range row {
		if !(v <= root) {
			root = h.replaceRoot(v, base+i)
		}
	}
}

func (h *typedHeap) scanFloat16(row []topk.Float16, base int) {
	root := h.root()
	for i, x := range row {
		if v := x.Float32(); !(v <= root) {
			root = h.replaceRoot(v, base+i)
		}
	}
}

func (h *typedHeap) scanBFloat16(row []topk.BFloat16, base int) {
	root := h.root()
	for i, x := range row {
		if v := x.Float32(); !(v <= root) {
			root = h.replaceRoot(v, base+i)
		}
	}
}

// root returns the value that a later logit has to exceed; none exceeds NaN.
func (h *typedHeap) root() float32 {
	if v := (*h)[0].value; v == v {
		return v
	}
	return float32(math.Inf(1)) // only NaN comes through, and loses by its index
}

// replaceRoot puts a later logit in the place of the worst of the heap, if it
// is better, and returns the new root.
func (h *typedHeap) replaceRoot(v float32, index int) float32 {
	if next := (ranked{v, int32(index)}); (*h)[0].worse(next) {
		(*h)[0] = next
		h.down(0)
	}
	return h.root()
}

// down moves entry i to where no entry below it is worse.
func (h *typedHeap) down(i int) {
	heap := *h
	moved := heap[i]
	for {
		child := 2*i + 1
		if child >= len(heap) {
			break
		}
		if right := child + 1; right < len(heap) && heap[right].worse(heap[child]) {
			child = right
		}
		if !heap[child].worse(moved) {
			break
		}
		heap[i] = heap[child]
		i = child
	}
	heap[i] = moved
}
