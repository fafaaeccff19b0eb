package bench

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// The phases of a CPU are those of every selection, and no more than the call.
func TestProfileCPU(t *testing.T) {
	r := &Runner{Iters: 20, Budget: 100 * time.Millisecond, Seed: 1, Real: RealLogits()}
	for _, c := range []Case{
		{Work: TopK, Source: Random, Batch: 1, Vocab: 20000, TopK: 50, DType: Float32},
		{Work: TopK, Source: Random, Batch: 3, Vocab: 3000, TopK: 20, DType: Float16},
		{Work: TopK, Source: Random, Batch: 1, Vocab: 300, TopK: 7, DType: BFloat16, Tier: "pure"},
	} {
		p, err := r.Profile(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		shares, bytes := 0.0, 0
		for _, part := range p.Parts {
			names = append(names, part.Name)
			shares, bytes = shares+part.Share, bytes+part.Bytes
			if part.US < 0 || (part.Cycles > 0) != (part.Instructions > 0) && p.Uncounted == "" && part.Cycles > 100 {
				t.Errorf("%v: %+v", c, part)
			}
		}
		if want := []string{"sample", "threshold", "filter", "candidates", "order", "write"}; !slices.Equal(names, want) {
			t.Errorf("%v: parts %v", c, names)
		}
		if math.Abs(shares-1) > 1e-3 || bytes != p.Bytes || p.FloorBytes != c.Batch*c.Vocab*c.DType.Bytes() || p.Bytes <= p.FloorBytes {
			t.Errorf("%v: shares %v, %d bytes in parts, %+v", c, shares, bytes, p)
		}
		if p.CallUS <= 0 || p.FloorUS <= 0 || p.Samples < 11 || p.Candidates < float64(c.TopK) || !strings.Contains(p.CPUPlan, "tier "+p.Tier) || p.PlanName() != p.Tier {
			t.Errorf("%v: %+v", c, p)
		}
		if p.Uncounted != "" && !strings.Contains(p.Uncounted, "perf_event_open") {
			t.Errorf("%v: %s", c, p.Uncounted)
		}
	}
	if _, err := r.Profile(t.Context(), Case{Work: TopK, Source: Random, Batch: 1, Vocab: 5, TopK: 6, DType: Float32}); err == nil {
		t.Error("k beyond the vocab")
	}
}
