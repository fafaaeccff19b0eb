package topk_test

import (
	"fmt"

	"github.com/ai-kernel-factory/aikf/topk"
)

func ExampleSelect() {
	logits := []float32{0.5, 2, -1, 2, 3}
	top := topk.NewResult[float32](1, 3)
	if err := topk.Select(top, logits, topk.Row(len(logits), 3)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(top.Values, top.Indices)
	// Output: [3 2 2] [4 1 3]
}
