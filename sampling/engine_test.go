package sampling_test

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

func pick[E any](rng *rand.Rand, from ...E) E { return from[rng.IntN(len(from))] }

func ids(rng *rand.Rand, vocab, n int) (ids []int32) {
	for range rng.IntN(n + 1) {
		ids = append(ids, int32(rng.IntN(vocab)))
	}
	return ids
}

// Explain copies all logits and sorts them; Sample runs on the row as it is, as far as
// the chain allows. They must agree in everything.
func TestEngineChangesNothing(t *testing.T) {
	t.Run("float32", testEngine[float32])
	t.Run("float16", testEngine[topk.Float16])
	t.Run("bfloat16", testEngine[topk.BFloat16])
}

func testEngine[T topk.Float](t *testing.T) {
	cases := 5000
	if testing.Short() {
		cases = 600
	}
	selected, statuses := 0, map[sampling.Status]int{}
	for n := range cases {
		rng := rand.New(rand.NewPCG(11, uint64(n)))
		vocab := 4 + rng.IntN(1500)
		kind := topktest.Rows()[rng.IntN(len(topktest.Rows()))]
		logits := topktest.Convert[T](kind.Make(rng, vocab))
		params, options := samplingtest.RandomParams(rng, vocab)
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
			params.BannedIDs = ids(rng, vocab, vocab/3)
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
			at := 0
			for at < min(len(kept), len(want.Kept)) && same(kept[at], want.Kept[at]) {
				at++
			}
			t.Fatalf("case %d, %s of %d, preset %q, chain %v:\n%+v\n%+v\nkept %d, want %d, from %d on %v, want %v", n, kind.Name, vocab, options.Preset, options.Chain,
				params, options, len(kept), len(want.Kept), at, kept[at:min(at+3, len(kept))], want.Kept[at:min(at+3, len(want.Kept))])
		}
		if one, err := s.Sample(logits); err != nil || one != want.Tokens[0] {
			t.Fatalf("case %d: one draw is %v, %v, the first of many %v", n, one, err, want.Tokens[0])
		}
	}
	if selected < cases/4 || statuses[sampling.StatusOK] < cases/3 || statuses[sampling.StatusNaN] == 0 || statuses[sampling.StatusExhausted] == 0 {
		t.Errorf("of %d cases %d by the engine, statuses %v: not the test that was meant", cases, selected, statuses)
	}
}

// Rows of a model, through every preset: the engine against the whole row,
// and kept sets against the reference in float64.
func TestRealRows(t *testing.T) {
	file, err := tensorfile.Open("../internal/bench/testdata/real_logits_8x50304_bf16.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	compared := 0
	for i := range file.Rows {
		row := make([]topk.BFloat16, file.Vocab)
		if err := tensorfile.ReadRows(row, file, i); err != nil {
			t.Fatal(err)
		}
		wide := make([]float32, len(row))
		for j, l := range row {
			wide[j] = l.Float32()
		}
		for j, preset := range sampling.Presets() {
			if testing.Short() && (i+j)%4 > 0 {
				continue
			}
			params := []sampling.Params{
				{Temperature: 0.8, TopK: 50, TopP: 0.95, MinP: 0.05},
				{Temperature: 1.3, TopP: 0.9},
				{Temperature: 1, MinP: 0.02, RepetitionPenalty: 1.2},
				{Temperature: 0.7, TypicalP: 0.8, EpsilonCutoff: 3e-4},
				{Temperature: 1, TopNSigma: 1.5},
			}[(i+j)%5]
			params.Seed, params.Draws, params.Replacement = uint64(i), 5, true
			options := sampling.Options{Preset: preset, Tier: topk.Tiers()[i%len(topk.Tiers())], History: []int32{309, 414, int32(i)}}
			s, err := sampling.New[topk.BFloat16](params, options)
			if err != nil {
				t.Fatal(err)
			}
			explained, err := s.Explain(row, 0)
			if err != nil {
				t.Fatal(err)
			}
			tokens := make([]sampling.Token, 5)
			if err := s.Draw(tokens, row); err != nil || !slices.Equal(tokens, explained.Tokens) {
				t.Errorf("row %d, %s: drew %v, %v, want %v", i, preset, tokens, err, explained.Tokens)
			}
			want := runReference(params, options, wide, false)
			if want.close {
				continue
			}
			compared++
			if !slices.EqualFunc(explained.Kept, want.kept, func(c sampling.Candidate, id int) bool { return int(c.Token) == id }) {
				t.Errorf("row %d, %s, %+v: kept %d tokens, want %d", i, preset, params, len(explained.Kept), len(want.kept))
			}
		}
	}
	if compared < 5 {
		t.Errorf("%d rows compared: not the test that was meant", compared)
	}
}

// FuzzSample compares the engine with the whole row on any bits.
func FuzzSample(f *testing.F) {
	for i, n := range []int{16, 200, 3000, 9000} {
		raw := make([]byte, n)
		for j := range raw {
			raw[j] = byte(j * (i + 3) >> (j % 5))
		}
		for seed := range uint64(6) {
			f.Add(raw, seed, uint8(seed))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64, dtype uint8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		logits := make([]float32, len(raw)/4)
		for i := range logits {
			logits[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		if len(logits) < 4 {
			return
		}
		switch dtype % 3 {
		case 0:
			fuzzSample(t, rng, logits)
		case 1:
			fuzzSample(t, rng, topktest.Convert[topk.Float16](logits))
		default:
			fuzzSample(t, rng, topktest.Convert[topk.BFloat16](logits))
		}
	})
}

func fuzzSample[T topk.Float](t *testing.T, rng *rand.Rand, logits []T) {
	row := samplingtest.Row{}
	row.Params, row.Options = samplingtest.RandomParams(rng, len(logits))
	row.Params.Draws, row.Params.Softcap = 1+rng.IntN(40), pick[float32](rng, 0, 0, 4)
	row.Options.Tier = pick(rng, topk.Tiers()...)
	s, err := sampling.New[T](row.Params, row.Options)
	if err != nil {
		t.Fatal(err)
	}
	want, tokens := samplingtest.Oracle(row, logits), make([]sampling.Token, row.Params.Draws)
	if err := s.Draw(tokens, logits); !errors.Is(err, want.Status.Err()) || !slices.Equal(tokens, want.Tokens) {
		t.Fatalf("%+v: drew %v, %v, want %v, %v", row, tokens, err, want.Tokens, want.Status)
	}
	if kept := s.AppendKept(nil); !slices.EqualFunc(kept, want.Kept, func(c sampling.Candidate, id sampling.Token) bool { return c.Token == id }) {
		t.Fatalf("%+v: kept %d tokens, want %d", row, len(kept), len(want.Kept))
	}
}
