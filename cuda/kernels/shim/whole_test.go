package shim_test

import (
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
)

// The kernels for rows without a top-k give the tokens of package sampling.
func TestWhole(t *testing.T) {
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...)}
	for _, blocks := range []int{1, 2, 8} {
		name := map[int]string{1: "block", 2: "cluster of 2", 8: "cluster of 8"}[blocks]
		t.Run(name, func(t *testing.T) {
			samplingtest.Run(t, samplingtest.Backend{
				Float32: sampleWhole[float32](k, blocks, 7), Float16: sampleWhole[topk.Float16](k, blocks, 8), BFloat16: sampleWhole[topk.BFloat16](k, blocks, 9),
				Supports: samples, Reduce: reduce,
			})
		})
	}
}
