package sampling_test

import (
	"math/rand/v2"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

func BenchmarkSample(b *testing.B) {
	const vocab = 50304
	rng := rand.New(rand.NewPCG(1, 2))
	var rows [4][]float32
	for i := range rows {
		rows[i] = topktest.Random(rng, vocab)
	}
	history := make([]int32, 64)
	for i := range history {
		history[i] = int32(rng.IntN(vocab))
	}
	bias := map[int32]float32{}
	for len(bias) < 20 {
		bias[int32(rng.IntN(vocab))] = 1
	}
	mask := make([]int32, vocab/32)
	for i := range mask {
		mask[i] = int32(rng.Uint32())
	}
	common := sampling.Params{Temperature: 0.8, TopK: 50, TopP: 0.95, MinP: 0.05, Seed: 1}
	with := func(change func(p *sampling.Params)) sampling.Params {
		p := common
		change(&p)
		return p
	}
	for _, bench := range []struct {
		name    string
		params  sampling.Params
		options sampling.Options
	}{
		{"top_k_top_p_min_p", common, sampling.Options{}},
		{"greedy", sampling.Params{}, sampling.Options{}},
		{"penalties_bias", with(func(p *sampling.Params) { p.RepetitionPenalty, p.PresencePenalty, p.LogitBias = 1.1, 0.1, bias }), sampling.Options{History: history}},
		{"bitmask_half", with(func(p *sampling.Params) { p.GrammarBitmask = mask }), sampling.Options{}},
		{"allowed_20", with(func(p *sampling.Params) {
			for id := range bias {
				p.AllowedIDs = append(p.AllowedIDs, id)
			}
		}), sampling.Options{}},
		{"min_p", sampling.Params{Temperature: 1, MinP: 0.05}, sampling.Options{}},
		{"top_p", sampling.Params{Temperature: 1, TopP: 0.95}, sampling.Options{}},
		{"typical_p", sampling.Params{Temperature: 1, TypicalP: 0.9}, sampling.Options{}},
		{"top_n_sigma", sampling.Params{Temperature: 1, TopNSigma: 1}, sampling.Options{}},
		{"eta_cutoff", sampling.Params{Temperature: 1, EtaCutoff: 1e-4}, sampling.Options{}},
		{"top_h", sampling.Params{Temperature: 1, TopH: 0.4}, sampling.Options{}},
		{"xtc", sampling.Params{Temperature: 1, XTCProbability: 1, XTCThreshold: 1e-4}, sampling.Options{}},
		{"hf_top_k", sampling.Params{Temperature: 1, TopK: 50}, sampling.Options{Preset: sampling.HF}},
		{"sglang_joint", sampling.Params{Temperature: 1, TopK: 50, TopP: 0.9}, sampling.Options{Preset: sampling.SGLang}},
		{"no_filter", sampling.Params{Temperature: 1}, sampling.Options{}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s, err := sampling.New[float32](bench.params, bench.options)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := range b.N {
				if _, err := s.Sample(rows[i%len(rows)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
