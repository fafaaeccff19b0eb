package main

import (
	"fmt"
	"log"

	"github.com/ai-kernel-factory/aikf/sampling"
)

func main() {
	logits := []float32{0.5, 2, -1, 2, 3}
	sampler, err := sampling.New[float32](sampling.Params{Temperature: .8, TopK: 50, Seed: 1}, sampling.Options{})
	if err != nil {
		log.Fatal(err) // names the field and its range
	}
	token, err := sampler.Sample(logits)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token) // the same on every machine
}
