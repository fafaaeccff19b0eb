package main

import (
	"fmt"
	"log"

	"github.com/ai-kernel-factory/aikf/topk"
)

func main() {
	logits := []float32{0.5, 2, -1, 2, 3}
	top := topk.NewResult[float32](1, 3) // one row, k = 3
	if err := topk.Select(top, logits, topk.Row(len(logits), 3)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(top.Values, top.Indices) // [3 2 2] [4 1 3]
}
