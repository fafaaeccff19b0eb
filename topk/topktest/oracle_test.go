package topktest

import (
	"math"
	"slices"
	"testing"
)

func TestOracleByHand(t *testing.T) {
	nan, negativeNaN := float32(math.NaN()), math.Float32frombits(0xFFC00000)
	inf, zero := float32(math.Inf(1)), float32(math.Copysign(0, -1))
	for _, test := range []struct {
		logits   []float32
		smallest bool
		want     []int32
	}{
		{[]float32{0.5, 2, -1, 2, 3}, false, []int32{4, 1, 3, 0, 2}},
		{[]float32{0.5, 2, -1, 2, 3}, true, []int32{2, 0, 1, 3, 4}},
		{[]float32{-inf, inf, negativeNaN, 1, nan}, false, []int32{2, 4, 1, 3, 0}},
		{[]float32{-inf, inf, negativeNaN, 1, nan}, true, []int32{0, 3, 1, 2, 4}},
		{[]float32{zero, 0, 1e-45, zero, -1e-45}, false, []int32{2, 0, 1, 3, 4}},
		{[]float32{zero, 0, 1e-45, zero, -1e-45}, true, []int32{4, 0, 1, 3, 2}},
		{nil, false, nil},
	} {
		for k := range len(test.want) + 1 {
			values, indices := Oracle(test.logits, k, test.smallest)
			if !slices.Equal(indices, test.want[:k]) || len(values) != k {
				t.Errorf("k %d of %v, smallest %v: %v, want %v", k, test.logits, test.smallest, indices, test.want[:k])
			}
			for i, v := range values {
				if bits(v) != bits(test.logits[indices[i]]) {
					t.Errorf("place %d of %v: bits %#x", i, test.logits, bits(v))
				}
			}
		}
	}
}
