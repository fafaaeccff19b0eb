//go:build linux && (amd64 || arm64)

package cuda

import (
	"math/rand/v2"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

// A Verifier gives the verdicts of package sampling.
func TestVerifier(t *testing.T) {
	fake(t)
	m := &memory{device: open(t, 0), buffers: map[string]*Buffer{}}
	rng := rand.New(rand.NewPCG(21, 21))
	t.Run("float32", func(t *testing.T) { testVerifier[float32](t, m, rng, 12, 24, 1, 2, 33, 300, 2600) })
	t.Run("float16", func(t *testing.T) { testVerifier[topk.Float16](t, m, rng, 12, 24, 1, 2, 33, 300, 2600) })
	t.Run("bfloat16", func(t *testing.T) { testVerifier[topk.BFloat16](t, m, rng, 12, 24, 1, 2, 33, 300, 2600) })
}

func TestVerifierGraph(t *testing.T) {
	fake(t)
	testVerifierGraph(t, open(t, 0), 40)
}
