package topk_test

import (
	"fmt"
	"math"

	"github.com/ai-kernel-factory/aikf/topk"
)

// One row with everything that is in dispute elsewhere: a tie across the k-th
// place, NaN, both zeros and -Inf.
func Example_order() {
	nan, infinity := float32(math.NaN()), float32(math.Inf(1))
	minusZero := float32(math.Copysign(0, -1))
	logits := []float32{minusZero, 2, nan, 0, 2, -infinity, 2, -1}

	show := func(k int, options topk.Options) {
		selector := topk.Selector[float32]{Options: options}
		top := topk.NewResult[float32](1, k)
		if err := selector.Select(top, logits, topk.Row(len(logits), k)); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(top.Values, "at", top.Indices)
	}
	show(3, topk.Options{}) // the tie of 2, 2, 2: index 6 is out
	show(6, topk.Options{}) // -0 equals +0: index 0 comes first
	show(8, topk.Options{}) // the whole order
	show(4, topk.Options{Smallest: true})
	show(8, topk.Options{Smallest: true}) // NaN last, ties still by index
	// Output:
	// [NaN 2 2] at [2 1 4]
	// [NaN 2 2 2 -0 0] at [2 1 4 6 0 3]
	// [NaN 2 2 2 -0 0 -1 -Inf] at [2 1 4 6 0 3 7 5]
	// [-Inf -1 -0 0] at [5 7 0 3]
	// [-Inf -1 -0 0 2 2 2 NaN] at [5 7 0 3 1 4 6 2]
}
