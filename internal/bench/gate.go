package bench

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

	"github.com/ai-kernel-factory/aikf/topk"
)

// ErrWrong: an answer that is not the first k entries of a stable descending
// sort.
var ErrWrong = errors.New("wrong result")

// agreement is how an answer compares with another one.
type agreement struct {
	maxAbsDiff   float64
	valuesEqual  bool // NaN equals NaN, -0 equals +0
	indicesEqual bool
	row, place   int // the first difference in values or, if there is none, in indices
}

// compare holds got against want; both have k entries a row. Values may be of
// any type: get them as float32.
func compare(gotValues, wantValues []float32, gotIndices, wantIndices []int32, k int) agreement {
	a := agreement{valuesEqual: true, indicesEqual: true}
	for i, want := range wantValues {
		got := gotValues[i]
		if got == want || got != got && want != want {
			continue
		}
		if a.valuesEqual {
			a.valuesEqual, a.row, a.place = false, i/k, i%k
		}
		diff := math.Abs(float64(got) - float64(want))
		if diff != diff {
			diff = math.Inf(1)
		}
		a.maxAbsDiff = max(a.maxAbsDiff, diff)
	}
	for i, want := range wantIndices {
		if gotIndices[i] != want {
			if a.valuesEqual {
				a.row, a.place = i/k, i%k
			}
			a.indicesEqual = false
			break
		}
	}
	return a
}

// gate is the correct answer to one input of a case, k entries a row.
type gate[T topk.Float] struct {
	want topk.Result[T]
	k    int
}

// newGate sorts the rows: the oracle.
func newGate[T topk.Float](logits []T, batch, k int) gate[T] {
	g := gate[T]{topk.NewResult[T](batch, k), k}
	vocab := len(logits) / batch
	shareRows(runtime.GOMAXPROCS(0), batch, func(first, last int) {
		sorted := make([]ranked, vocab)
		for row := first; row < last; row++ {
			logits := logits[row*vocab : (row+1)*vocab]
			for i, x := range logits {
				sorted[i] = ranked{widen(x), int32(i)}
			}
			// Sorting by value and index is what a stable sort by value does.
			slices.SortFunc(sorted, ranked.compare)
			for i, best := range sorted[:k] {
				g.want.Values[row*k+i], g.want.Indices[row*k+i] = logits[best.index], best.index
			}
		}
	})
	return g
}

// check returns how got compares, and an error that wraps ErrWrong and shows
// the first difference, to the bit, if it is not the answer.
func (g gate[T]) check(got topk.Result[T]) (agreement, error) {
	a := compare(widenAll(got.Values), widenAll(g.want.Values), got.Indices, g.want.Indices, g.k)
	if !a.valuesEqual || !a.indicesEqual {
		i := a.row*g.k + a.place
		return a, fmt.Errorf("row %d, place %d: %v at index %d, want %v at index %d: %w", a.row, a.place,
			widen(got.Values[i]), got.Indices[i], widen(g.want.Values[i]), g.want.Indices[i], ErrWrong)
	}
	for i, want := range g.want.Values {
		if bits(got.Values[i]) != bits(want) {
			return a, fmt.Errorf("row %d, place %d, index %d: bits %#x, want %#x: %w",
				i/g.k, i%g.k, g.want.Indices[i], bits(got.Values[i]), bits(want), ErrWrong)
		}
	}
	return a, nil
}

func widenAll[T topk.Float](values []T) []float32 {
	wide := make([]float32, len(values))
	for i, x := range values {
		wide[i] = widen(x)
	}
	return wide
}

// bits returns the bits of x.
func bits[T topk.Float](x T) uint32 {
	switch x := any(x).(type) {
	case topk.Float16:
		return uint32(x)
	case topk.BFloat16:
		return uint32(x)
	}
	return math.Float32bits(widen(x))
}

// SelfCheck shows that the gate rejects selectors that are deliberately wrong,
// each in a way that a benchmark could miss, and accepts a right one.
func SelfCheck() error {
	logits := selfCheckLogits()
	g := newGate(logits, 1, selfCheckK)
	var h typedHeap
	for _, selector := range selectors {
		got := topk.NewResult[float32](1, selfCheckK)
		selectRow(&h, got.Values, got.Indices, logits)
		selector.spoil(got, logits)
		if _, err := g.check(got); (err == nil) != selector.right {
			return fmt.Errorf("bench: the correctness gate misjudges a selector that %s (%v): %w", selector.name, err, ErrWrong)
		}
	}
	return nil
}

// selfCheckK is how many of the selfCheckLogits are selected.
const selfCheckK = 295

// selfCheckLogits are a row on which each of the selectors goes wrong.
func selfCheckLogits() []float32 {
	logits := make([]float32, 300)
	for i := range logits {
		logits[i] = float32(i * 7 % 30) // ties everywhere
	}
	logits[3] = float32(math.Copysign(0, -1))
	logits[len(logits)-1] = 50 // the largest comes last
	return logits
}

// WrongSelectors says what each of the selectors does that SelfCheck shows to be
// rejected.
func WrongSelectors() (names []string) {
	for _, selector := range selectors {
		if !selector.right {
			names = append(names, selector.name)
		}
	}
	return names
}

// selectors spoil a right answer.
var selectors = []struct {
	name  string
	right bool
	spoil func(r topk.Result[float32], logits []float32)
}{
	{"is right", true, func(topk.Result[float32], []float32) {}},
	{"prefers the larger index of equal logits", false, func(r topk.Result[float32], logits []float32) {
		for i := 1; i < len(r.Values); i++ {
			if r.Values[i] == r.Values[i-1] {
				r.Indices[i], r.Indices[i-1] = r.Indices[i-1], r.Indices[i]
				return
			}
		}
	}},
	{"leaves out the last logit", false, func(r topk.Result[float32], logits []float32) {
		var h typedHeap
		selectRow(&h, r.Values, r.Indices, logits[:len(logits)-1])
	}},
	{"is not sorted", false, func(r topk.Result[float32], logits []float32) {
		slices.Reverse(r.Values)
		slices.Reverse(r.Indices)
	}},
	{"rounds the values", false, func(r topk.Result[float32], logits []float32) {
		r.Values[0] = math.Nextafter32(r.Values[0], 0)
	}},
	{"loses the sign of zero", false, func(r topk.Result[float32], logits []float32) {
		for i, v := range r.Values {
			r.Values[i] = v + 0
		}
	}},
	{"writes nothing", false, func(r topk.Result[float32], logits []float32) {
		clear(r.Values)
		clear(r.Indices)
	}},
}
