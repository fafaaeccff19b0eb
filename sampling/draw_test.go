package sampling_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// softmax is the law in float64.
func softmax(logits []float32, t float64) []float64 {
	most, sum := float64(slices.Max(logits)), 0.0
	p := make([]float64, len(logits))
	for i, l := range logits {
		p[i] = math.Exp((float64(l) - most) / t)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// drawn counts how often each token comes in n draws.
func drawn(t *testing.T, params sampling.Params, options sampling.Options, logits []float32, n int) []int {
	t.Helper()
	params.Replacement = true
	s := newSampler(t, params, options)
	tokens := make([]sampling.Token, n)
	if err := s.Draw(tokens, logits); err != nil {
		t.Fatal(err)
	}
	counts := make([]int, len(logits))
	for _, token := range tokens {
		counts[token]++
	}
	return counts
}

// gTest returns the G statistic of counts under a law, over cells of at least
// ten expected hits, rarer ones pooled, and the degrees of freedom.
func gTest(counts []int, p []float64) (g float64, freedom int) {
	n := 0
	for _, c := range counts {
		n += c
	}
	cells, rest, restExpected := -1, 0, 0.0
	add := func(count int, expected float64) {
		if count > 0 {
			g += 2 * float64(count) * math.Log(float64(count)/expected)
		}
		cells++
	}
	for i, c := range counts {
		if expected := p[i] * float64(n); expected >= 10 {
			add(c, expected)
		} else {
			rest, restExpected = rest+c, restExpected+expected
		}
	}
	if restExpected >= 1 {
		add(rest, restExpected)
	} else if rest > 0 && restExpected < 1e-6 {
		return math.Inf(1), 1
	}
	return g, cells
}

// normalOf turns a chi-square statistic into about a standard normal one: Wilson
// and Hilferty, 1931.
func normalOf(statistic float64, freedom int) float64 {
	k := float64(freedom)
	return (math.Cbrt(statistic/k) - (1 - 2/(9*k))) / math.Sqrt(2/(9*k))
}

// The false alarm rate of each case is that of 4.5 standard deviations, 3.4e-6.
func TestTokensHaveTheLaw(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	n := 200000
	if testing.Short() {
		n = 40000
	}
	for name, logits := range map[string][]float32{
		"random": topktest.Random(rng, 1000),
		"flat":   make([]float32, 700),
		"peaked": append(topktest.Random(rng, 300), 7),
		"ties":   topktest.FewDistinct(rng, 200),
		"masked": topktest.Masked(20)(rng, 400),
		"two":    {0, -3},
	} {
		for seed, temperature := range []float32{1, 0.7, 2} {
			counts := drawn(t, sampling.Params{Temperature: temperature, Seed: uint64(seed)}, sampling.Options{}, logits, n)
			g, freedom := gTest(counts, softmax(logits, float64(temperature)))
			if z := normalOf(g, freedom); math.Abs(z) > 4.5 {
				t.Errorf("%s at %v: G = %v with %d degrees of freedom, z = %v", name, temperature, g, freedom, z)
			}
		}
	}
}

// Over seeds, the place of a token among the cumulative masses is uniform:
// Kolmogorov-Smirnov. Its false alarm rate is that of the limit 2.5, 7.5e-6.
func TestSeedsAndPositionsAreIndependent(t *testing.T) {
	const vocab = 4096
	logits := make([]float32, vocab)
	statistic := func(places []float64) float64 {
		slices.Sort(places)
		n, worst := float64(len(places)), 0.0
		for i, x := range places {
			worst = max(worst, math.Abs(x-float64(i)/n), math.Abs(x-float64(i+1)/n))
		}
		return worst * math.Sqrt(n)
	}
	rng := rand.New(rand.NewPCG(9, 9))
	var all []float64
	for range 200 {
		s := newSampler(t, sampling.Params{Temperature: 1, Seed: rng.Uint64(), Position: rng.Uint64()}, sampling.Options{})
		var places []float64
		for range 50 {
			token, err := s.Sample(logits)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Accept(token); err != nil {
				t.Fatal(err)
			}
			places = append(places, (float64(token)+0.5)/vocab)
		}
		all = append(all, places...)
		if d := statistic(places); d > 3 {
			t.Errorf("seed: Kolmogorov-Smirnov %v", d)
		}
	}
	if d := statistic(all); d > 2.5 {
		t.Errorf("all seeds: Kolmogorov-Smirnov %v", d)
	}
}

func TestZeroMassIsNeverDrawn(t *testing.T) {
	n := 10_000_000
	if testing.Short() {
		n /= 10
	}
	inf := float32(math.Inf(1))
	logits := []float32{-inf, 0, -31, -inf, 5, -30, -inf, 4.99} // 43 bits are 29.8
	counts := drawn(t, sampling.Params{Temperature: 1, Seed: 77}, sampling.Options{}, logits, n)
	for _, i := range []int{0, 2, 3, 5, 6} {
		if counts[i] != 0 {
			t.Errorf("the token of logit %v came %d times", logits[i], counts[i])
		}
	}
	if counts[1] == 0 || counts[4] == 0 || counts[7] == 0 {
		t.Errorf("counts %v", counts)
	}
	logits[2] = inf
	if counts := drawn(t, sampling.Params{Temperature: 1}, sampling.Options{}, logits, 1000); counts[2] != 1000 {
		t.Errorf("beside +Inf: counts %v", counts)
	}
}

// A tail of many tokens, each of which is rare, is hit as often as it should: of
// 262,144 tokens 20.5 below the largest and 100,000 draws, 32.8 are expected.
func TestTails(t *testing.T) {
	const tail, draws = 1 << 18, 100000
	logits := make([]float32, tail+1)
	for i := range logits {
		logits[i] = -20.5
	}
	logits[tail/2] = 0
	counts := drawn(t, sampling.Params{Temperature: 1, Seed: 4}, sampling.Options{}, logits, draws)
	hits := draws - counts[tail/2]
	expected := draws * tail * math.Exp(-20.5)
	if z := (float64(hits) - expected) / math.Sqrt(expected); math.Abs(z) > 4 {
		t.Errorf("%d hits of the tail, expected %v: z = %v", hits, expected, z)
	}
}

// Without replacement: the law of each draw, given the ones before, is that of
// the tokens that are left.
func TestDrawsWithoutReplacement(t *testing.T) {
	logits := []float32{0, 1, -1, 0.5, float32(math.Inf(-1)), 2}
	p := softmax(logits, 1)
	pairs := make([]int, len(p)*len(p))
	want := make([]float64, len(pairs))
	for i := range p {
		for j := range p {
			if i != j {
				want[i*len(p)+j] = p[i] * p[j] / (1 - p[i])
			}
		}
	}
	s := newSampler(t, sampling.Params{Temperature: 1, Seed: 3}, sampling.Options{})
	n := 50000
	for range n {
		tokens := make([]sampling.Token, 7)
		if err := s.Draw(tokens, logits); !errors.Is(err, sampling.ErrExhausted) {
			t.Fatalf("%v, %v", tokens, err)
		}
		pairs[int(tokens[0])*len(p)+int(tokens[1])]++
		if tokens[5] != sampling.NoToken || tokens[6] != sampling.NoToken {
			t.Fatalf("more tokens than have a mass: %v", tokens)
		}
		slices.Sort(tokens)
		if !slices.Equal(tokens, []sampling.Token{-1, -1, 0, 1, 2, 3, 5}) {
			t.Fatalf("not each token once: %v", tokens)
		}
		if err := s.Accept(1); err != nil {
			t.Fatal(err)
		}
	}
	g, freedom := gTest(pairs, want)
	if z := normalOf(g, freedom); math.Abs(z) > 4.5 {
		t.Errorf("pairs: G = %v with %d degrees of freedom", g, freedom)
	}
}

// Logprobs against float64: the error is at most 1e-6 * max(1, |logprob|).
func TestLogprobs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 8))
	for _, kind := range topktest.Rows() {
		for _, vocab := range []int{1, 7, 300} {
			logits := kind.Make(rng, vocab)
			s := newSampler(t, sampling.Params{Temperature: 1}, sampling.Options{})
			token := int32(rng.IntN(vocab))
			got, err := s.AppendLogprobs(nil, logits, token, 5)
			if err != nil || len(got) != 1+min(5, vocab) {
				t.Fatalf("%d logprobs, %v", len(got), err)
			}
			_, order := topktest.Oracle(logits, vocab, false)
			if slices.ContainsFunc(logits, func(l float32) bool { return l != l }) {
				if !math.IsNaN(float64(got[1].Logprob)) {
					t.Errorf("%s: logprob %v in a row with NaN", kind.Name, got[1].Logprob)
				}
				continue
			}
			if math.IsInf(float64(logits[order[0]]), 0) {
				continue // by hand below
			}
			p := softmax(logits, 1)
			for i, l := range got {
				id := token
				if i > 0 {
					id = order[i-1]
				}
				if l.Token != id || order[l.Rank-1] != id {
					t.Fatalf("%s: entry %d is %+v, want token %d", kind.Name, i, l, id)
				}
				want := float64(logits[id]) - float64(logits[order[0]]) + math.Log(p[order[0]])
				if math.Abs(float64(l.Logprob)-want) > 1e-6*math.Max(1, math.Abs(want)) && !math.IsInf(want, -1) {
					t.Errorf("%s: logprob of %d is %v, want %v", kind.Name, id, l.Logprob, want)
				}
			}
		}
	}
	inf := float32(math.Inf(1))
	s := newSampler(t, sampling.Params{Temperature: 0.5, TopK: 2}, sampling.Options{})
	got, err := s.AppendLogprobs(nil, []float32{1, inf, -inf, inf}, 0, 2)
	if err != nil || !math.IsInf(float64(got[0].Logprob), -1) || got[0].Rank != 3 || math.Abs(float64(got[1].Logprob)+math.Ln2) > 1e-6 {
		t.Errorf("beside +Inf: %+v, %v", got, err)
	}
	if _, err := s.AppendLogprobs(nil, []float32{1}, 1, 0); !errors.Is(err, sampling.ErrParams) {
		t.Errorf("a token past the vocabulary: %v", err)
	}
	// Processed: at T = 0.5 over the two kept tokens.
	if _, err := s.Sample([]float32{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	processed := s.AppendProcessedLogprobs(nil, 0, 3)
	want := math.Log(1 / (1 + math.Exp(-2)))
	if len(processed) != 3 || !math.IsInf(float64(processed[0].Logprob), -1) || processed[1].Token != 2 ||
		math.Abs(float64(processed[1].Logprob)-want) > 1e-6 || math.Abs(float64(processed[2].Logprob)-(want-2)) > 2e-6 {
		t.Errorf("processed %+v, want %v and %v", processed, want, want-2)
	}
}

// Golden tokens: the same on every machine, and of every later version.
func TestGoldenTokens(t *testing.T) {
	logits := make([]float32, 1000)
	for i := range logits { // 997 is prime: all values differ
		logits[i] = float32(i*389%997)/100 - 5
	}
	for _, golden := range []struct {
		params  sampling.Params
		options sampling.Options
		want    []sampling.Token
	}{
		{sampling.Params{Temperature: 1}, sampling.Options{}, []sampling.Token{71, 551, 238, 164, 346, 469}},
		{sampling.Params{Temperature: 0.8, TopK: 50, Seed: 1}, sampling.Options{}, []sampling.Token{105, 369, 510, 351, 428, 856}},
		{sampling.Params{Temperature: 0.8, TopK: 50, TopP: 0.95, MinP: 0.05, Seed: 1 << 40, Position: 1 << 33}, sampling.Options{}, []sampling.Token{187, 287, 551, 756, 815, 269}},
		{sampling.Params{Temperature: 1.2, TopP: 0.9, TypicalP: 0.8, Seed: 3}, sampling.Options{Preset: sampling.LlamaCPP}, []sampling.Token{538, 46, 461, 461, 510, 679}},
		{sampling.Params{Temperature: 0.7, XTCProbability: 0.5, XTCThreshold: 0.01, Seed: 4}, sampling.Options{Preset: sampling.MLX}, []sampling.Token{356, 346, 861, 986, 451, 592}},
		{sampling.Params{Temperature: 0.7, TopK: 20, Softcap: 3, Seed: 5}, sampling.Options{Preset: sampling.Nanochat}, []sampling.Token{246, 774, 246, 469, 164, 205}},
	} {
		golden.params.Replacement = true
		s := newSampler(t, golden.params, golden.options)
		tokens := make([]sampling.Token, 6)
		if err := s.Draw(tokens, logits); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(tokens, golden.want) {
			t.Errorf("%+v: %#v, want %v", golden.params, tokens, golden.want)
		}
	}
	if sampling.LawVersion != 1 {
		t.Errorf("version %d of the law has other tokens", sampling.LawVersion)
	}
}

func TestSampleLogits(t *testing.T) {
	logits := topktest.Convert[topk.Float16](topktest.Random(rand.New(rand.NewPCG(2, 9)), 400))
	tokens, err := sampling.SampleLogits(logits, 300, 0.9, 7, 100, false)
	if err != nil {
		t.Fatal(err)
	}
	again, err := sampling.SampleLogits(logits, 300, 0.9, 7, 100, false)
	if err != nil || !slices.Equal(tokens, again) {
		t.Errorf("the same seed gave %v, then %v, %v", tokens, again, err)
	}
	slices.Sort(again)
	if len(slices.Compact(again)) != 100 {
		t.Errorf("100 draws without replacement gave %d tokens", len(slices.Compact(again)))
	}
	if greedy, err := sampling.SampleLogits([]float32{1, 3, 3}, 2, 0, 0, 1, true); err != nil || greedy[0] != 1 {
		t.Errorf("greedy: %v, %v", greedy, err)
	}
	if _, err := sampling.SampleLogits([]float32{1, 2}, 0, 1, 0, 3, false); !errors.Is(err, sampling.ErrExhausted) {
		t.Errorf("3 of 2 tokens: %v", err)
	}
	if _, err := sampling.SampleLogits([]float32{1, 2}, 0, -1, 0, 1, false); !errors.Is(err, sampling.ErrParams) {
		t.Errorf("temperature -1: %v", err)
	}
	if _, err := sampling.SampleLogits([]float32{1, 2}, 0, 1, 0, 0, false); !errors.Is(err, sampling.ErrParams) {
		t.Errorf("no samples: %v", err)
	}
	if _, err := sampling.SampleLogits([]float32{}, 0, 1, 0, 1, false); !errors.Is(err, sampling.ErrShape) {
		t.Errorf("no logits: %v", err)
	}
}
