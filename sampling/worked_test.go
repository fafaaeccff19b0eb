package sampling_test

import (
	"math"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
)

// logarithms are logits whose softmax is p.
func logarithms(p ...float64) []float32 {
	logits := make([]float32, len(p))
	for i, x := range p {
		logits[i] = float32(math.Log(x))
	}
	return logits
}

// lawOf returns the probability of each token behind a chain, and 0 for removed
// ones.
func lawOf(t *testing.T, logits []float32, params sampling.Params, options sampling.Options) []float64 {
	t.Helper()
	s, err := sampling.New[float32](params, options)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Explain(logits, 0)
	if err != nil {
		t.Fatal(err)
	}
	if e.Status != sampling.StatusOK {
		t.Fatalf("status %v", e.Status)
	}
	probabilities := make([]float64, len(logits))
	for _, candidate := range e.Kept {
		probabilities[candidate.Token] = candidate.Probability
	}
	return probabilities
}

type (
	params = sampling.Params
	chain  = sampling.Chain
)

// Numbers of the systems that the presets follow: worked out from the formulae of
// their documentation, for the inputs that their own tests are known to use.
func TestWorkedNumbers(t *testing.T) {
	ascending := []float64{0.1, 0.2, 0.3, 0.4}
	descending := []float64{0.4, 0.3, 0.2, 0.1}
	equal := []float64{0.25, 0.25, 0.25, 0.25}
	fifths := []float64{0.2, 0.2, 0.2, 0.2, 0.2}
	xtc := func(threshold float32) params { return params{XTCProbability: 1, XTCThreshold: threshold} }
	dry := func(multiplier float32, allowed, last int, breakers ...int32) params {
		return params{DRYMultiplier: multiplier, DRYBase: 1.1, DRYAllowedLength: allowed, DRYPenaltyLastN: last, DRYSequenceBreakers: breakers}
	}
	for _, test := range []struct {
		name    string // source: what
		preset  sampling.Preset
		chain   chain
		params  params
		history []int32
		p, want []float64
	}{
		// llama.cpp, tests/test-sampling.cpp.
		{"temp 1", sampling.LlamaCPP, chain{sampling.Temperature}, params{Temperature: 1}, nil, ascending, ascending},
		{"temp 0", sampling.LlamaCPP, chain{sampling.Temperature}, params{}, nil, ascending, []float64{0, 0, 0, 1}},
		{"temp_ext without a range", sampling.LlamaCPP, chain{sampling.DynamicTemperature}, params{Temperature: 1}, nil, ascending, ascending},
		{"temp_ext 0", sampling.LlamaCPP, chain{sampling.DynamicTemperature}, params{}, nil, ascending, []float64{0, 0, 0, 1}},
		{"top_k 1", sampling.LlamaCPP, chain{sampling.TopK}, params{TopK: 1}, nil, ascending, []float64{0, 0, 0, 1}},
		{"top_k 3", sampling.LlamaCPP, chain{sampling.TopK}, params{TopK: 3}, nil, ascending, []float64{0, 0.22222, 0.33333, 0.44444}},
		{"top_k 4", sampling.LlamaCPP, chain{sampling.TopK}, params{TopK: 4}, nil, ascending, ascending},
		{"top_p 0.69", sampling.LlamaCPP, chain{sampling.TopP}, params{TopP: 0.69}, nil, ascending, []float64{0, 0, 0.428571, 0.571429}},
		{"top_p 0.8", sampling.LlamaCPP, chain{sampling.TopP}, params{TopP: 0.8}, nil, ascending, []float64{0, 0.22222, 0.33333, 0.44444}},
		{"top_p 1", sampling.LlamaCPP, chain{sampling.TopP}, params{TopP: 1}, nil, ascending, ascending},
		{"min_p 0.24", sampling.LlamaCPP, chain{sampling.MinP}, params{MinP: 0.24}, nil, ascending, ascending},
		{"min_p 0.26", sampling.LlamaCPP, chain{sampling.MinP}, params{MinP: 0.26}, nil, ascending, []float64{0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9}},
		{"min_p 0.51", sampling.LlamaCPP, chain{sampling.MinP}, params{MinP: 0.51}, nil, ascending, []float64{0, 0, 0.3 / 0.7, 0.4 / 0.7}},
		{"min_p 0.76", sampling.LlamaCPP, chain{sampling.MinP}, params{MinP: 0.76}, nil, ascending, []float64{0, 0, 0, 1}},
		{"min_p 1", sampling.LlamaCPP, chain{sampling.MinP}, params{MinP: 1}, nil, ascending, []float64{0, 0, 0, 1}},
		{"min_p 1.05", sampling.LlamaCPP, chain{sampling.MinP}, params{MinP: 1.05}, nil, ascending, []float64{0, 0, 0, 1}},
		{"xtc 0.09", sampling.LlamaCPP, chain{sampling.XTC}, xtc(0.09), nil, descending, []float64{0, 0, 0, 1}},
		{"xtc 0.19", sampling.LlamaCPP, chain{sampling.XTC}, xtc(0.19), nil, descending, []float64{0, 0, 0.2 / 0.3, 0.1 / 0.3}},
		{"xtc 0.29", sampling.LlamaCPP, chain{sampling.XTC}, xtc(0.29), nil, descending, []float64{0, 0.3 / 0.6, 0.2 / 0.6, 0.1 / 0.6}},
		{"xtc 0.39", sampling.LlamaCPP, chain{sampling.XTC}, xtc(0.39), nil, descending, descending},
		{"typical 0.5, one", sampling.LlamaCPP, chain{sampling.TypicalP}, params{TypicalP: 0.5}, nil, []float64{0.97, 0.01, 0.01, 0.01}, []float64{1, 0, 0, 0}},
		{"typical 0.5, three", sampling.LlamaCPP, chain{sampling.TypicalP}, params{TypicalP: 0.5}, nil, []float64{0.4, 0.2, 0.2, 0.2}, []float64{0, 1. / 3, 1. / 3, 1. / 3}},
		{"repetition, one", sampling.LlamaCPP, chain{sampling.Penalties}, params{RepetitionPenalty: 50}, []int32{0}, fifths, []float64{0, 0.25, 0.25, 0.25, 0.25}},
		{"repetition, three", sampling.LlamaCPP, chain{sampling.Penalties}, params{RepetitionPenalty: 50}, []int32{0, 1, 2}, fifths, []float64{0, 0, 0, 0.5, 0.5}},
		{"frequency and presence, one", sampling.LlamaCPP, chain{sampling.Penalties}, params{FrequencyPenalty: 5, PresencePenalty: 5}, []int32{0}, fifths, []float64{0.000011, 0.249997, 0.249997, 0.249997, 0.249997}},
		{"frequency and presence, three", sampling.LlamaCPP, chain{sampling.Penalties}, params{FrequencyPenalty: 5, PresencePenalty: 5}, []int32{0, 1, 2}, fifths, []float64{0.000023, 0.000023, 0.000023, 0.499966, 0.499966}},
		{"frequency and presence, five", sampling.LlamaCPP, chain{sampling.Penalties}, params{FrequencyPenalty: 5, PresencePenalty: 5}, []int32{0, 1, 2, 0, 0}, fifths, []float64{0, 0.000023, 0.000023, 0.499977, 0.499977}},
		{"dry, nothing repeated", sampling.LlamaCPP, chain{sampling.DRY}, dry(1, 2, 4), []int32{0, 1}, equal, equal},
		{"dry, two repeated", sampling.LlamaCPP, chain{sampling.DRY}, dry(1, 2, 5), []int32{0, 1, 2, 0, 1}, equal, []float64{0.296923, 0.296923, 0.109232, 0.296923}},
		{"dry, a breaker", sampling.LlamaCPP, chain{sampling.DRY}, dry(1, 2, 6, 3), []int32{0, 1, 3, 4, 0, 1}, fifths, fifths},
		{"dry, twice as much", sampling.LlamaCPP, chain{sampling.DRY}, dry(2, 2, 5), []int32{0, 1, 2, 0, 1}, fifths, []float64{0.241818, 0.241818, 0.032727, 0.241818, 0.241818}},
		{"dry, too short", sampling.LlamaCPP, chain{sampling.DRY}, dry(1, 4, 7), []int32{0, 1, 2, 3, 4, 0, 1}, fifths, fifths},
		{"top_n_sigma 1", sampling.LlamaCPP, chain{sampling.TopNSigma}, params{TopNSigma: 1}, nil, ascending, []float64{0, 0, 0.428571, 0.571429}},
		{"top_n_sigma 0", sampling.LlamaCPP, chain{sampling.TopNSigma}, params{}, nil, ascending, ascending},
		{"top_n_sigma 3", sampling.LlamaCPP, chain{sampling.TopNSigma}, params{TopNSigma: 3}, nil, ascending, ascending},

		// transformers, tests/generation/test_logits_process.py.
		{"top_p 0.79", sampling.HF, chain{sampling.TopP}, params{TopP: 0.79}, nil, []float64{0.3, 0.1, 0.1, 0.5}, []float64{0.375, 0, 0, 0.625}},
		{"top_p 0.79, ties", sampling.HF, chain{sampling.TopP}, params{TopP: 0.79}, nil, []float64{0.15, 0.3, 0.3, 0.25}, []float64{0, 0.3 / 0.85, 0.3 / 0.85, 0.25 / 0.85}},
		{"min_p 0.1", sampling.HF, chain{sampling.MinP}, params{MinP: 0.1}, nil, []float64{0.9, 0.0274, 0.047, 0.0274}, []float64{1, 0, 0, 0}},
		{"min_p 0.1, flat", sampling.HF, chain{sampling.MinP}, params{MinP: 0.1}, nil, []float64{0.15, 0.3, 0.3, 0.25}, []float64{0.15, 0.3, 0.3, 0.25}},
		{"typical_p 0.5", sampling.HF, chain{sampling.TypicalP}, params{TypicalP: 0.5}, nil, []float64{0.4, 0.2, 0.2, 0.2}, []float64{0, 1. / 3, 1. / 3, 1. / 3}},
		{"epsilon 0.1", sampling.HF, chain{sampling.EpsilonCutoff}, params{EpsilonCutoff: 0.1}, nil, []float64{0.87, 0.099, 0.001, 0.03}, []float64{1, 0, 0, 0}},
		{"epsilon 0.1, flat", sampling.HF, chain{sampling.EpsilonCutoff}, params{EpsilonCutoff: 0.1}, nil, []float64{0.4, 0.299, 0.101, 0.2}, []float64{0.4, 0.299, 0.101, 0.2}},
		{"eta 0.0625", sampling.HF, chain{sampling.EtaCutoff}, params{EtaCutoff: 0.0625}, nil, []float64{0, 0.1, 0.8, 0.1}, []float64{0, 0.1, 0.8, 0.1}},
		{"eta 0.0625, peaked", sampling.HF, chain{sampling.EtaCutoff}, params{EtaCutoff: 0.0625}, nil, []float64{0.01, 0.04, 0.9, 0.05}, []float64{0, 0, 1, 0}},
		{"top_k 2, ties stay", sampling.HF, chain{sampling.TopK}, params{TopK: 2}, nil, []float64{0.4, 0.2, 0.2, 0.2}, []float64{0.4, 0.2, 0.2, 0.2}},

		// mlx-lm, tests/test_sample_utils.py.
		{"top_p 0.3", sampling.MLX, chain{sampling.TopP}, params{TopP: 0.3}, nil, []float64{0.9, 0, 0, 0.1}, []float64{1, 0, 0, 0}},
		{"top_p 0.95", sampling.MLX, chain{sampling.TopP}, params{TopP: 0.95}, nil, []float64{0.9, 0, 0, 0.1}, []float64{0.9, 0, 0, 0.1}},
		{"top_p 0.4", sampling.MLX, chain{sampling.TopP}, params{TopP: 0.4}, nil, []float64{0, 0.5, 0.4, 0.1}, []float64{0, 1, 0, 0}},
		{"top_p 0.6", sampling.MLX, chain{sampling.TopP}, params{TopP: 0.6}, nil, []float64{0, 0.5, 0.4, 0.1}, []float64{0, 5. / 9, 4. / 9, 0}},
		{"min_p 0.8", sampling.MLX, chain{sampling.MinP}, params{MinP: 0.8}, nil, []float64{0.9, 0, 0, 0.1}, []float64{1, 0, 0, 0}},
		{"min_p 0.05", sampling.MLX, chain{sampling.MinP}, params{MinP: 0.05}, nil, []float64{0.9, 0, 0, 0.1}, []float64{0.9, 0, 0, 0.1}},

		// Where the systems differ. SGLang cuts both from the mass as it was; ollama
		// goes on until the mass exceeds p; in vLLM a share of exactly p is enough.
		{"top_k, top_p, renormalised", sampling.VLLM, chain{sampling.TopK, sampling.TopP}, params{TopK: 2, TopP: 0.55}, nil, []float64{0.5, 0.3, 0.2}, []float64{1, 0, 0}},
		{"top_k, top_p, joint", sampling.SGLang, chain{sampling.TopK, sampling.TopP}, params{TopK: 2, TopP: 0.55}, nil, []float64{0.5, 0.3, 0.2}, []float64{0.625, 0.375, 0}},
		{"top_p 0.5 of a half", sampling.VLLM, chain{sampling.TopP}, params{TopP: 0.5}, nil, []float64{0.5, 0.25, 0.25}, []float64{1, 0, 0}},
		{"top_p 0.5 of a half, exceeded", sampling.Ollama, chain{sampling.TopP}, params{TopP: 0.5}, nil, []float64{0.5, 0.25, 0.25}, []float64{2. / 3, 1. / 3, 0}},
		{"temperature last", sampling.MLX, chain{sampling.TopP, sampling.Temperature}, params{TopP: 0.6, Temperature: 0.5}, nil, []float64{0.5, 0.3, 0.2}, []float64{25. / 34, 9. / 34, 0}},
		{"temperature first", sampling.VLLM, chain{sampling.Temperature, sampling.TopP}, params{TopP: 0.6, Temperature: 0.5}, nil, []float64{0.5, 0.3, 0.2}, []float64{1, 0, 0}},
		{"ties across the k-th place", sampling.VLLM, chain{sampling.TopK}, params{TopK: 2}, nil, []float64{0.2, 0.2, 0.4, 0.2}, []float64{1. / 3, 0, 2. / 3, 0}},

		// p-less (arXiv 2509.23234): p >= 0.16 + 0.09 + 0.04 + 0.01 = 0.3; here 0.3 is
		// moved off the tie.
		{"p_less", sampling.VLLM, chain{sampling.PLess}, params{}, nil, []float64{0.39, 0.31, 0.2, 0.1}, []float64{0.39 / 0.7, 0.31 / 0.7, 0, 0}},
		// top-h (arXiv 2509.02510): H(p) = 1.846 bits; prefixes have 0, 0.985 and
		// 1.530 bits, and half of H(p) is 0.923.
		{"top_h 0.5", sampling.VLLM, chain{sampling.TopH}, params{TopH: 0.5}, nil, descending, []float64{1, 0, 0, 0}},
		{"top_h 0.6", sampling.VLLM, chain{sampling.TopH}, params{TopH: 0.6}, nil, descending, []float64{4. / 7, 3. / 7, 0, 0}},
		{"top_h 0.9", sampling.VLLM, chain{sampling.TopH}, params{TopH: 0.9}, nil, descending, []float64{4. / 9, 3. / 9, 2. / 9, 0}},
		// Dynamic temperature: a uniform row has the largest entropy, so that T = 1.5;
		// a row of one token the least, so that T = 0.5.
		{"dynamic temperature, uniform", sampling.VLLM, chain{sampling.DynamicTemperature}, params{Temperature: 1, DynatempRange: 0.5}, nil, equal, equal},
		{"dynamic temperature of 1 bit of 2", sampling.VLLM, chain{sampling.DynamicTemperature}, params{Temperature: 1, DynatempRange: 0.5}, nil, []float64{0.5, 0.5, 0, 0}, []float64{0.5, 0.5, 0, 0}},
		// Mirostat 2: surprises of 1, 1.74 and 2.32 bits; mu = 2.
		{"mirostat_v2", sampling.LlamaCPP, chain{sampling.MirostatV2}, params{MirostatTau: 1}, nil, []float64{0.5, 0.3, 0.2}, []float64{0.625, 0.375, 0}},
	} {
		got := lawOf(t, logarithms(test.p...), test.params, sampling.Options{Preset: test.preset, Chain: test.chain, History: test.history})
		if !slices.EqualFunc(got, test.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-5 }) {
			t.Errorf("%s, %s: law %.6v, want %.6v", test.preset, test.name, got, test.want)
		}
	}
}
