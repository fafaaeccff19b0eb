package bench

import (
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

func TestMeasureSamplings(t *testing.T) {
	for _, sampling := range Samplings() {
		for _, tier := range topk.Tiers() {
			c := Case{Work: Sample, Sampling: sampling, Source: Random, Batch: 1, Vocab: 3000, TopK: sampleK, DType: Float32, Tier: tier}
			if sampling == Mixed {
				c.Batch, c.Reference = 7, RowByRow
			}
			r, err := quick().Measure(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if field, got := r.invalid(); field != "" || r.Sampling != sampling {
				t.Errorf("%v: %s = %v", c, field, got)
			}
		}
	}
	for _, c := range []Case{
		{Work: Sample, Sampling: "dice", Source: Random, Batch: 1, Vocab: 100, TopK: 50, DType: Float32},
		{Work: TopK, Sampling: Greedy, Source: Random, Batch: 1, Vocab: 100, TopK: 50, DType: Float32},
		{Work: Sample, Reference: TypedHeap, Source: Random, Batch: 1, Vocab: 100, TopK: 50, DType: Float32},
	} {
		if _, err := quick().Measure(t.Context(), c); err == nil {
			t.Errorf("%v with reference %q: no error", c, c.Reference)
		}
	}
}

// The token by definition is another one if anything that it depends on changes,
// so that a wrong sampler is noticed.
func TestTokenByDefinition(t *testing.T) {
	c := Case{Work: Sample, Sampling: ChainSampling, Source: Random, Batch: 1, Vocab: 3000, TopK: sampleK, DType: Float32}.withDefaults()
	r := quick()
	memory, err := newMemory(c.inputBytes(4))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.release()
	_, rows := makeInputs[float32](r, c, 4, memory)
	var tokens [][]int32
	for _, sampling := range []string{ChainSampling, Penalties, HalfMask, AllowedIDs, Greedy, MinP, TopP, NoFilter} {
		c.Sampling = sampling
		var of []int32
		for _, row := range rows {
			got, err := tokensByDefinition(t.Context(), r, c, row)
			if err != nil || got[0] < 0 || int(got[0]) >= c.Vocab {
				t.Fatalf("%s: token %v, %v", sampling, got, err)
			}
			of = append(of, got[0])
		}
		if slices.ContainsFunc(tokens, func(other []int32) bool { return slices.Equal(other, of) }) {
			t.Errorf("%s draws %v, as another sampling does", sampling, of)
		}
		tokens = append(tokens, of)
	}
}
