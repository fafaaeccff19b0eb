package sampling_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// Explain copies all logits and sorts them; Sample runs on the row as it is, as far as
// the chain allows. They must agree in everything.
func TestEngineChangesNothing(t *testing.T) {
	t.Run("float32", testEngine[float32])
	t.Run("float16", testEngine[topk.Float16])
	t.Run("bfloat16", testEngine[topk.BFloat16])
}

func testEngine[T topk.Float](t *testing.T) {
	cases := 6000
	if testing.Short() {
		cases = 600
	}
	selected, statuses := 0, map[sampling.Status]int{}
	for n := range cases {
		rng := rand.New(rand.NewPCG(11, uint64(n)))
		vocab := 40 + rng.IntN(800)
		kind := topktest.Rows()[rng.IntN(len(topktest.Rows()))]
		logits := topktest.Convert[T](kind.Make(rng, vocab))
		params, options := randomParams(rng, vocab)
		params.TopK = pick(rng, 0, 1, 10, 20, params.TopK)
		if rng.IntN(2) == 0 {
			params.DynatempRange, params.TypicalP = 0, 0
		}
		if rng.IntN(4) == 0 {
			params.Softcap = 5
		}
		if rng.IntN(4) == 0 { // masks that leave many, and NaN behind them
			params.GrammarBitmask = slices.Repeat([]int32{0x5A5A5A5A}, vocab/32+rng.IntN(2))
		}
		if rng.IntN(8) == 0 { // bans that reach into the top
			params.BannedIDs = randomIDs(rng, vocab, vocab/3)
		}
		params.Draws = 1 + rng.IntN(30)
		params.Replacement = rng.IntN(2) == 0
		options.Tier = pick(rng, topk.Tiers()...)
		s, err := sampling.New[T](params, options)
		if err != nil {
			t.Fatalf("case %d: %v", n, err)
		}
		want, err := s.Explain(logits, 0)
		if err != nil {
			t.Fatalf("case %d: %v", n, err)
		}
		statuses[want.Status]++
		if sampling.Engine(s, logits) {
			selected++
		}
		got := make([]sampling.Token, params.Draws)
		err = s.Draw(got, logits)
		if !errors.Is(err, want.Status.Err()) {
			t.Fatalf("case %d, %s of %d, preset %q: error %v, want status %v", n, kind.Name, vocab, options.Preset, err, want.Status)
		}
		if !slices.Equal(got, want.Tokens) {
			t.Fatalf("case %d, %s of %d, preset %q, chain %v:\n%+v\n%+v\ndrew %v, want %v", n, kind.Name, vocab, options.Preset, options.Chain, params, options, got, want.Tokens)
		}
		if want.Status != sampling.StatusOK {
			continue
		}
		same := func(a, b sampling.Candidate) bool {
			return a.Token == b.Token && a.Probability == b.Probability && a.Logit == b.Logit
		}
		if kept := s.AppendKept(nil); !slices.EqualFunc(kept, want.Kept, same) {
			t.Fatalf("case %d, %s of %d, preset %q, chain %v:\n%+v\n%+v\nkept %.200v\nwant %.200v", n, kind.Name, vocab, options.Preset, options.Chain, params, options, kept, want.Kept)
		}
		if one, err := s.Sample(logits); err != nil || one != want.Tokens[0] {
			t.Fatalf("case %d: one draw is %v, %v, the first of many %v", n, one, err, want.Tokens[0])
		}
	}
	if selected < cases/4 || statuses[sampling.StatusOK] < cases/3 || statuses[sampling.StatusNaN] == 0 || statuses[sampling.StatusExhausted] == 0 {
		t.Errorf("of %d cases %d by the engine, statuses %v: not the test that was meant", cases, selected, statuses)
	}
}
