// Command stream selects the best tokens while an output projection computes
// their logits tile by tile. One tile of logits is all that is ever in memory.
package main

import (
	"fmt"
	"log"
	"math/rand/v2"

	"github.com/ai-kernel-factory/aikf/topk"
)

const (
	width = 32    // of the hidden state
	vocab = 20000 // rows of the projection
	tile  = 4096  // logits computed at a time; the last tile is shorter
	k     = 4
)

func main() {
	rng := rand.New(rand.NewPCG(1, 1))
	state, projection := integers(rng, width), integers(rng, vocab*width)

	stream, err := topk.NewStream[float32](k, topk.Options{})
	if err != nil {
		log.Fatal(err)
	}
	var logits [tile]float32
	for first := 0; first < vocab; first += tile {
		n := min(tile, vocab-first)
		for i := range n {
			logits[i] = dot(state, projection[(first+i)*width:])
		}
		if err := stream.Push(logits[:n]); err != nil { // reads the tile, and does not keep it
			log.Fatal(err)
		}
	}
	top := topk.NewResult[float32](1, k)
	if err := stream.Finish(top); err != nil { // and is ready for the next row
		log.Fatal(err)
	}
	for i, token := range top.Indices {
		fmt.Printf("token %5d  logit %g\n", token, top.Values[i])
	}
}

// integers returns n small integers, whose products and sums are exact.
func integers(rng *rand.Rand, n int) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.IntN(9) - 4)
	}
	return values
}

func dot(a, b []float32) (sum float32) {
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}
