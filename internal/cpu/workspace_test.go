package cpu

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// WorkspaceBytes must tell what a row really holds.
func TestWorkspaceBytes(t *testing.T) {
	for _, shape := range []Shape{
		{Rows: 1, Vocab: 50304, K: 50, ElementBytes: 4},
		{Rows: 1, Vocab: 50304, K: 200, ElementBytes: 4},
		{Rows: 1, Vocab: 151936, K: 2048, ElementBytes: 4},
		{Rows: 1, Vocab: 400, K: 5, ElementBytes: 4},
	} {
		rng := rand.New(rand.NewPCG(1, 2))
		logits := make([]uint32, shape.Vocab)
		for i := range logits {
			logits[i] = math.Float32bits(float32(rng.NormFloat64()))
		}
		plan := NewPlan(shape, simd.Pure, 1)
		var row Row[uint32]
		row.Reset(&plan, key.Float32, shape.K)
		row.Push(logits, 0)
		row.Best()
		held := int(unsafe.Sizeof(row)) + 8*cap(row.packed) + 4*cap(row.groups)
		if told := plan.WorkspaceBytes(); told != held {
			t.Errorf("%+v: %d bytes, a row holds %d", shape, told, held)
		}
	}
}
