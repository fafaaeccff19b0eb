package cpu

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// A selection that goes up to the last phase is a selection; one that stops before
// leaves nothing behind.
func TestUntil(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 400, 5000, 70000, 150000} {
		row := make([]uint32, n)
		for i := range row {
			row[i] = math.Float32bits(float32(rng.NormFloat64()))
		}
		for _, k := range []int{1, min(50, n), n / 3} {
			if k == 0 {
				continue
			}
			for _, tuning := range []*Tuning{nil, {Step: 3, Chunk: 4096}} {
				plan := NewPlan(Shape{Rows: 1, Vocab: n, K: k, ElementBytes: 4, Tuning: tuning}, simd.Best(), 1)
				var plain, phased Row[uint32]
				plain.Reset(&plan, key.Float32, k)
				plain.Push(row, 0)
				want := plain.Best()
				for phase := range Phases {
					found := phased.Until(Phase(phase), &plan, key.Float32, k, row)
					if Phase(phase) < PhaseCandidates && found != 0 || Phase(phase) >= PhaseCandidates && found < k {
						t.Errorf("n = %d, k = %d: %d candidates after %v", n, k, found, Phase(phase))
					}
				}
				if got := phased.packed[:k]; !slices.Equal(got, want) {
					t.Errorf("n = %d, k = %d: another answer", n, k)
				}
			}
		}
	}
}
