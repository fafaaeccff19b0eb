package sampling_test

import (
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
)

func TestSuite(t *testing.T) {
	for _, tier := range topk.Tiers() {
		t.Run(tier, func(t *testing.T) { samplingtest.Run(t, samplingtest.CPU(tier)) })
	}
}

// A backend that is wrong is told so.
func TestSuiteSeesMistakes(t *testing.T) {
	rows := []samplingtest.Row{{Params: sampling.Params{Temperature: 1, TopK: 2, Seed: 1}}}
	logits := []float32{1, 2, 3}
	right := samplingtest.Oracle(rows[0], logits)
	if len(right.Tokens) != 1 || right.Tokens[0] < 1 || right.Status != sampling.StatusOK || len(right.Kept) != 2 {
		t.Errorf("the oracle answers %+v", right)
	}
	rows[0].Params.TopP = 2
	if wrong := samplingtest.Oracle(rows[0], logits); wrong.Status != sampling.StatusBadParams || wrong.Tokens[0] != sampling.NoToken {
		t.Errorf("the oracle answers %+v to bad parameters", wrong)
	}
}
