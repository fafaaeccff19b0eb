package topk_test

import (
	"math/rand/v2"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// Rows that the sample of short 16-bit rows misjudges: it promises too much of them, or
// too little.
func TestRowsAgainstTheShortSample(t *testing.T) {
	const vocab = 50304
	rng := rand.New(rand.NewPCG(11, 16))
	var rows []float32
	for _, generate := range []topktest.Generator{topktest.OnSample(topktest.ShortSampleStep), topktest.OffSample(topktest.ShortSampleStep)} {
		rows = append(rows, generate(rng, vocab)...)
	}
	for _, tier := range topk.Tiers() {
		t.Run(tier, func(t *testing.T) {
			topktest.CheckRows(t, topktest.CPU(tier).BFloat16, topktest.Convert[topk.BFloat16](rows), vocab)
			topktest.CheckRows(t, topktest.CPU(tier).Float16, topktest.Convert[topk.Float16](rows), vocab)
		})
	}
}
