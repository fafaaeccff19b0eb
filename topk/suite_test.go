package topk_test

import (
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

func TestConformance(t *testing.T) {
	for _, tier := range topk.Tiers() {
		t.Run(tier, func(t *testing.T) { topktest.Run(t, topktest.CPU(tier)) })
	}
}
