package shim_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// sampleArguments is SampleArguments of cuda/kernels/arguments.h.
type sampleArguments struct {
	arguments
	rowTemperature, rowTopK, rowTopP, rowMinP, rowTypicalP                        unsafe.Pointer
	rowTopNSigma, rowXtcProbability, rowXtcThreshold, rowRepetition, rowFrequency unsafe.Pointer
	rowPresence, rowSeed, rowPosition, tokens, status                             unsafe.Pointer
	kept, keptCount, keptProbabilities, logprobs, ranks                           unsafe.Pointer
	topIds, topLogprobs, mask, biasIds, bias                                      unsafe.Pointer
	penaltyIds, penaltyCounts                                                     unsafe.Pointer
	maskStride                                                                    int64
	seed, position                                                                int64
	maskWords, biases, penalties                                                  int32
	temperature                                                                   float32
	topK                                                                          int32
	topP, minP, typicalP, topNSigma, xtcProbability                               float32
	xtcThreshold, repetition, frequency, presence, softcap                        float32
	greedyBelow                                                                   float32
	draws                                                                         int32
	firstDraw                                                                     int32
	rowDraws, replacement, minPLast, invalidToken, topCount                       int32
	processed, told, unused                                                       int32
}

// mostKept is the most that a row's top-k may be, by the width of candidates.
func mostKept(symbol string) int {
	if width := len("_narrow"); len(symbol) > width && symbol[len(symbol)-width:] == "_narrow" {
		return 2048
	}
	return 1024
}

// sampled are the rows of one launch.
type sampled struct {
	draws       int
	replacement bool
	nanochat    bool
	softcap     float32
	asked       samplingtest.Asked
}

func sampledAs(row samplingtest.Row) sampled {
	return sampled{max(1, row.Params.Draws), row.Params.Replacement, row.Options.Preset == sampling.Nanochat, row.Params.Softcap, row.Asked}
}

// orOne returns a parameter that is off at 1, for which 0 stands in package sampling.
func orOne(p float32) float32 {
	if p == 0 {
		return 1
	}
	return p
}

// sample answers rows of one launch by the kernels.
func sample[T topk.Float](k *kernels, wide bool, order uint64) samplingtest.Engine[T] {
	return sampleBy[T](k, 1, order, func(vocab int) string { return "block" + width(short[T](), topk.Row(vocab, 1), wide) })
}

// sampleWhole answers them by the kernels for rows without a top-k, of so many blocks each.
func sampleWhole[T topk.Float](k *kernels, blocks int, order uint64) samplingtest.Engine[T] {
	return sampleBy[T](k, blocks, order, func(int) string {
		if blocks > 1 {
			return "whole_cluster"
		}
		return "whole"
	})
}

// sampleBy answers them by the kernels of that name.
func sampleBy[T topk.Float](k *kernels, blocks int, order uint64, name func(vocab int) string) samplingtest.Engine[T] {
	calls := order << 32
	return samplingtest.Alike(func(rows []samplingtest.Row, logits []T, vocab int) ([]samplingtest.Answer, error) {
		calls++
		alike, n := sampledAs(rows[0]), len(rows)
		symbol := "sample_" + short[T]() + "_" + name(vocab)
		most := min(vocab, mostKept(symbol))
		temperature, topP, minP := make([]float32, n), make([]float32, n), make([]float32, n)
		typicalP, topNSigma, xtcProbability, xtcThreshold := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
		probabilities, logprobs, ranks := make([]float32, n*most), make([]float32, n*alike.draws), make([]int32, n*alike.draws)
		topIDs, topLogprobs := make([]int32, n*alike.asked.Top), make([]float32, n*alike.asked.Top)
		topK, kept, keptCount := make([]int32, n), make([]int32, n*most), make([]int32, n)
		seed, position, status := make([]uint64, n), make([]uint64, n), make([]uint8, n)
		tokens := make([]int64, n*(alike.draws+1)) // one more a row, which is not touched
		for i, row := range rows {
			p := row.Params
			temperature[i], topK[i], topP[i], minP[i] = p.Temperature, int32(p.TopK), orOne(p.TopP), p.MinP
			typicalP[i], topNSigma[i], xtcProbability[i], xtcThreshold[i] = orOne(p.TypicalP), p.TopNSigma, p.XTCProbability, orOne(p.XTCThreshold)
			seed[i], position[i] = p.Seed, p.Position
			if !fits(row, vocab) {
				temperature[i] = float32(math.NaN())
			}
		}
		a := sampleArguments{
			arguments: arguments{
				logits: first(logits), stride: int64(vocab), resultStride: int64(alike.draws + 1), rows: int32(n), vocab: int32(vocab),
				k: int32(most), groups: int32(groups(most, 0)), chunks: int32(blocks), indexBytes: 8,
			},
			rowTemperature: first(temperature), rowTopK: first(topK), rowTopP: first(topP), rowMinP: first(minP),
			rowTypicalP: first(typicalP), rowTopNSigma: first(topNSigma),
			rowXtcProbability: first(xtcProbability), rowXtcThreshold: first(xtcThreshold),
			rowSeed: first(seed), rowPosition: first(position),
			tokens: first(tokens), status: first(status), kept: first(kept), keptCount: first(keptCount),
			typicalP: 1, repetition: 1,
			softcap: alike.softcap, greedyBelow: 1e-5, draws: int32(alike.draws), invalidToken: -1,
		}
		a.keptProbabilities = first(probabilities)
		if alike.asked.Logprobs {
			a.logprobs, a.ranks = first(logprobs), first(ranks)
			a.topIds, a.topLogprobs, a.topCount = first(topIDs), first(topLogprobs), int32(alike.asked.Top)
		}
		if alike.asked.Processed {
			a.processed = 1
		}
		if alike.nanochat {
			a.greedyBelow, a.minPLast = law.ColdestTemperature, 1
		}
		if alike.replacement {
			a.replacement = 1
		}
		if _, err := k.Launch(symbol, n*blocks, samplingThreads, blocks, calls, unsafe.Pointer(&a)); err != nil {
			return nil, err
		}
		answers := make([]samplingtest.Answer, n)
		for i := range answers {
			answer := &answers[i]
			answer.Status = sampling.Status(status[i])
			if keptCount[i] >= 0 {
				answer.Kept = []sampling.Token{}
				answer.Probabilities = probabilities[i*most:][:keptCount[i]]
			}
			for _, token := range tokens[i*(alike.draws+1):][:alike.draws] {
				answer.Tokens = append(answer.Tokens, sampling.Token(token))
			}
			for _, token := range kept[i*most:][:max(0, keptCount[i])] {
				answer.Kept = append(answer.Kept, sampling.Token(token))
			}
			if alike.asked.Logprobs && (keptCount[i] >= 0 || !alike.asked.Processed) {
				answer.Logprobs, answer.Top = []sampling.Logprob{}, []sampling.Logprob{}
				for d, token := range answer.Tokens {
					at := i*alike.draws + d
					answer.Logprobs = append(answer.Logprobs, sampling.Logprob{Token: token, Logprob: logprobs[at], Rank: int(ranks[at])})
				}
				for j, id := range topIDs[i*alike.asked.Top:][:alike.asked.Top] {
					if id != sampling.NoToken {
						answer.Top = append(answer.Top, sampling.Logprob{Token: id, Logprob: topLogprobs[i*alike.asked.Top+j], Rank: j + 1})
					}
				}
			}
			if tokens[i*(alike.draws+1)+alike.draws] != 0 {
				return nil, errors.New("a token past the last draw")
			}
		}
		return answers, nil
	}, sampledAs)
}

// fits reports whether parameters and ids are in range.
func fits(row samplingtest.Row, vocab int) bool {
	for _, id := range row.Params.BannedIDs {
		if int(id) >= vocab {
			return false
		}
	}
	_, err := sampling.New[float32](row.Params, row.Options)
	return err == nil
}

// samples reports whether the kernels have what a row asks for.
func samples(row samplingtest.Row, vocab int) bool {
	p := row.Params
	preset := row.Options.Preset
	if preset != "" && preset != sampling.VLLM && preset != sampling.Nanochat || row.Options.Chain != nil || p.Draws > 500 {
		return false
	}
	on := p.DynatempRange != 0 || p.MinKeep > 1 || p.EpsilonCutoff != 0 || p.EtaCutoff != 0 || p.TopH != 0 || len(p.XTCSpecialIDs) > 0 ||
		p.RepetitionPenalty != 0 || p.FrequencyPenalty != 0 || p.PresencePenalty != 0 || p.EncoderRepetitionPenalty != 0 ||
		p.DRYMultiplier != 0 || p.LogitBias != nil || p.AllowedIDs != nil || len(p.BannedIDs) > 0 && fits(row, vocab) || p.BadWords != nil ||
		p.NoRepeatNgramSize != 0 || p.EncoderNoRepeatNgramSize != 0 || p.SequenceBias != nil || p.MinTokens != 0 || p.ForcedIDs != nil || p.GrammarBitmask != nil
	// Steps behind top-p are for rows of which all that top-k leaves has room.
	behind := p.TypicalP != 0 || p.TopNSigma != 0 || p.XTCProbability != 0
	return !on && (!behind || vocab <= 1024 || p.TopK > 0 && p.TopK <= 1024)
}

// reduce leaves what the kernels sample.
func reduce(row *samplingtest.Row) {
	p := row.Params
	row.Params = sampling.Params{
		Temperature: p.Temperature, TopK: p.TopK, TopP: p.TopP, MinP: p.MinP, Softcap: float32(p.MinTokens) / 2,
		Seed: p.Seed, Position: p.Position, Draws: p.Draws, Replacement: p.Replacement,
	}
	if p.Seed%8 >= 4 {
		row.Params.TypicalP, row.Params.TopNSigma = p.TypicalP, p.TopNSigma
		row.Params.XTCProbability, row.Params.XTCThreshold = p.XTCProbability*float32(p.Seed%3)/2, p.XTCThreshold
	}
	row.Asked = samplingtest.Asked{Logprobs: p.Seed%5 < 2, Top: int(p.Seed % 30), Processed: p.Seed%7 < 3}
	row.Options = sampling.Options{}
	if p.Seed%2 == 0 {
		row.Options.Preset = sampling.Nanochat
	}
}

// The kernels that sample give the tokens of package sampling.
func TestSampling(t *testing.T) {
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...)}
	for _, wide := range []bool{false, true} {
		t.Run(map[bool]string{false: "narrow", true: "wide"}[wide], func(t *testing.T) {
			samplingtest.Run(t, samplingtest.Backend{
				Float32: sample[float32](k, wide, 1), Float16: sample[topk.Float16](k, wide, 2), BFloat16: sample[topk.BFloat16](k, wide, 3),
				Supports: samples, Reduce: reduce,
			})
		})
	}
}

// Rows of a larger vocabulary, with every k for which a kernel takes another way.
func TestSamplingOfManyCandidates(t *testing.T) {
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...)}
	t.Run("float32", func(t *testing.T) { testManyCandidates(t, sample[float32](k, false, 4), 1024) })
	t.Run("float16", func(t *testing.T) { testManyCandidates(t, sample[topk.Float16](k, true, 5), 1024) })
	t.Run("bfloat16", func(t *testing.T) { testManyCandidates(t, sample[topk.BFloat16](k, false, 6), 2048) })
}

// Rows of equal logits, of which the tokens crowd in the bins of the smallest ids.
func TestSamplingOfEqualLogits(t *testing.T) {
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...)}
	t.Run("bfloat16", func(t *testing.T) { testEqualLogits(t, sample[topk.BFloat16](k, false, 7), 40000, 2048) })
	t.Run("float32", func(t *testing.T) { testEqualLogits(t, sample[float32](k, false, 8), 70000, 1024) })
}

func testEqualLogits[T topk.Float](t *testing.T, engine samplingtest.Engine[T], vocab, k int) {
	logits := make([]T, vocab)
	for seed := range uint64(2) {
		row := samplingtest.Row{Params: sampling.Params{Temperature: 1, TopK: k, Seed: seed, Draws: 3, Replacement: seed == 0}}
		answers, err := engine([]samplingtest.Row{row}, logits, vocab)
		if err != nil {
			t.Fatal(err)
		}
		samplingtest.Agree(t, "equal", row, logits, answers[0])
	}
}

func testManyCandidates[T topk.Float](t *testing.T, engine samplingtest.Engine[T], most int) {
	rng := rand.New(rand.NewPCG(17, 17))
	vocabs := []int{2049, 5000, 12345}
	for _, kind := range topktest.Rows() {
		vocab := vocabs[rng.IntN(len(vocabs))]
		var rows []samplingtest.Row
		var logits []T
		for _, k := range []int{0, 1, 2, 31, 64, 65, 192, 193, 512, 513, 1024, most, most + 1} {
			row := samplingtest.Row{Params: sampling.Params{
				Temperature: []float32{0.5, 1, 5}[rng.IntN(3)], TopK: k, Seed: rng.Uint64(), Draws: 3, Replacement: rng.IntN(2) == 0,
				TopP: []float32{0, 0.5, 0.95}[rng.IntN(3)], MinP: []float32{0, 0.001, 0.1}[rng.IntN(3)], Softcap: []float32{0, 1.5}[rng.IntN(2)],
			}}
			if rng.IntN(2) == 0 {
				row.Options.Preset = sampling.Nanochat
			}
			if k > 0 && k <= 1024 && rng.IntN(2) == 0 {
				row.Params.TypicalP, row.Params.TopNSigma = []float32{0, 0.2, 0.7}[rng.IntN(3)], []float32{0, 0.5, 1.5}[rng.IntN(3)]
				row.Params.XTCProbability, row.Params.XTCThreshold = []float32{0, 0.5, 1}[rng.IntN(3)], []float32{0, 0.001, 0.1}[rng.IntN(3)]
			}
			row.Asked = []samplingtest.Asked{{}, {Logprobs: true}, {Logprobs: true, Top: 20}, {Logprobs: true, Top: 90, Processed: true}}[rng.IntN(4)]
			rows = append(rows, row)
			logits = append(logits, topktest.Convert[T](kind.Make(rng, vocab))...)
		}
		answers, err := engine(rows, logits, vocab)
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range rows {
			samplingtest.Agree(t, kind.Name, row, logits[i*vocab:(i+1)*vocab], answers[i])
		}
	}
}
