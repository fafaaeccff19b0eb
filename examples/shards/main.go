// Command shards splits the vocabulary over goroutines, as tensor parallelism
// splits it over devices: each selects the best of its shard, and only those
// are merged.
package main

import (
	"fmt"
	"log"
	"math/rand/v2"
	"sync"

	"github.com/ai-kernel-factory/aikf/topk"
)

const (
	rows   = 2
	vocab  = 50304
	shards = 4
	k      = 5
)

func main() {
	rng := rand.New(rand.NewPCG(1, 1))
	logits := make([]topk.BFloat16, rows*vocab)
	for i := range logits {
		logits[i] = topk.BFloat16FromFloat32(float32(rng.NormFloat64()))
	}

	var parts [shards]topk.Result[topk.BFloat16]
	var failures [shards]error
	var running sync.WaitGroup
	for s := range shards {
		running.Go(func() { parts[s], failures[s] = selectShard(logits, s*vocab/shards, (s+1)*vocab/shards) })
	}
	running.Wait()
	for _, err := range failures {
		if err != nil {
			log.Fatal(err)
		}
	}

	top := topk.NewResult[topk.BFloat16](rows, k)
	if err := topk.Merge(top, rows, k, topk.Options{}, parts[:]...); err != nil {
		log.Fatal(err)
	}
	for row := range rows {
		for i := row * k; i < (row+1)*k; i++ {
			fmt.Printf("row %d  token %5d  logit %g\n", row, top.Indices[i], top.Values[i].Float32())
		}
	}
}

// selectShard selects the k best of the columns first to last of each row. Its
// indices are those of the whole row.
func selectShard(logits []topk.BFloat16, first, last int) (topk.Result[topk.BFloat16], error) {
	top := topk.NewResult[topk.BFloat16](rows, k)
	err := topk.Select(top, logits[first:], topk.Shape{Rows: rows, Vocab: last - first, K: k, Stride: vocab})
	for i := range top.Indices {
		top.Indices[i] += int32(first)
	}
	return top, err
}
