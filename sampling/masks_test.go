package sampling_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// Masks that fool a count of the allowed ids: one whose last word reaches past the
// row, and one of which only every 16th word says how few they are.
func TestMasksAreCounted(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 431))
	for range 150 {
		vocab := 1000 + rng.IntN(30000)
		logits := topktest.MaxAtEnd(rng, vocab)
		even := make([]int32, (vocab+31)/32)
		for range rng.IntN(1200) {
			id := rng.IntN(vocab)
			even[id/32] |= 1 << (id % 32)
		}
		even[(vocab-2)/32] |= 1 << ((vocab - 2) % 32)
		uneven := slices.Repeat([]int32{-1}, len(even))
		for i := 0; i < len(uneven); i += 16 {
			uneven[i] = 1<<rng.IntN(4) - 1
		}
		for _, mask := range [][]int32{even, uneven} {
			row := samplingtest.Row{Params: sampling.Params{Temperature: 1, TopK: pick(rng, 1, 10, 200), GrammarBitmask: mask, Seed: rng.Uint64()}}
			s := newSampler(t, row.Params, row.Options)
			want := samplingtest.Oracle(row, logits)
			if token, err := s.Sample(logits); err != nil || token != want.Tokens[0] {
				t.Fatalf("vocab %d, top_k %d: drew %d, %v, want %d", vocab, row.Params.TopK, token, err, want.Tokens[0])
			}
			if kept := s.AppendKept(nil); !slices.EqualFunc(kept, want.Kept, func(c sampling.Candidate, id sampling.Token) bool { return c.Token == id }) {
				t.Fatalf("vocab %d, top_k %d: kept %d tokens, want %d others", vocab, row.Params.TopK, len(kept), len(want.Kept))
			}
		}
	}
}
