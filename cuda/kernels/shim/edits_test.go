package shim_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// edited is a batch of rows with edits, as a kernel takes it and as package sampling does.
type edited[T topk.Float] struct {
	rows                                     []samplingtest.Row
	lengths                                  []int32
	logits                                   []T // room for the vocabulary before each row's end
	vocab, stride                            int
	mask                                     []int32
	maskWords, maskStride, biases, penalties int
	biasIDs, penaltyIDs, penaltyCounts       []int32
	bias, repetition, frequency, presence    []float32
	nanochat                                 bool
	invalid                                  []bool
}

// of is a number that a bias, a penalty or a temperature may be.
func of[E any](rng *rand.Rand, from ...E) E { return from[rng.IntN(len(from))] }

// randomEdits makes a batch with edits of the row's best and of others, with masks of every
// density.
func randomEdits[T topk.Float](rng *rand.Rand, kind topktest.Generator, n, vocab, mostK int) edited[T] {
	inf := float32(math.Inf(1))
	e := edited[T]{vocab: vocab, stride: vocab + rng.IntN(9), nanochat: rng.IntN(2) == 0}
	e.biases, e.penalties = of(rng, 0, 1, 20, 300), of(rng, 0, 1, 64, 700)
	e.maskWords = of(rng, 0, vocab/64, (vocab+31)/32, vocab/32+3)
	if e.maskStride = e.maskWords + rng.IntN(3); rng.IntN(3) == 0 {
		e.maskStride = 0
	}
	for i := range n {
		if i > 0 && e.maskStride == 0 {
			break
		}
		words, density := make([]int32, max(e.maskWords, e.maskStride)), rng.IntN(5)
		for j := range words {
			switch density {
			case 0: // nothing is allowed
			case 1:
				words[j] = -1
			case 2:
				words[j] = int32(rng.Uint32())
			case 3:
				words[j] = int32(rng.Uint32() & rng.Uint32() & rng.Uint32() & rng.Uint32() & rng.Uint32())
			case 4:
				if rng.IntN(len(words)) < 2 {
					words[j] = 1 << rng.IntN(32)
				}
			}
		}
		e.mask = append(e.mask, words...)
	}
	shared := sampling.Params{Softcap: 0, Replacement: rng.IntN(2) == 0, Draws: 3}
	if e.nanochat {
		shared.Softcap = of[float32](rng, 0, 3)
	}
	for i := range n {
		row := samplingtest.Row{Params: shared, Options: sampling.Options{Preset: sampling.VLLM}}
		if e.nanochat {
			row.Options.Preset = sampling.Nanochat
		}
		length := vocab - of(rng, 0, 0, 1, rng.IntN(vocab+1))
		e.lengths = append(e.lengths, int32(length))
		logits := topktest.Convert[T](kind(rng, vocab))
		at := len(e.logits)
		e.logits = append(e.logits, logits...)
		e.logits = append(e.logits, make([]T, e.stride-vocab)...)
		p := &row.Params
		p.Temperature = of[float32](rng, 0, 0.7, 1, 2)
		p.TopK = 1 + rng.IntN(of(rng, 3, 60, mostK))
		if rng.IntN(8) == 0 {
			p.TopK = of(rng, 0, mostK+1)
		}
		p.TopP, p.MinP = of[float32](rng, 0, 0.5, 0.95), of[float32](rng, 0, 0.01, 0.2)
		p.Seed, p.Position = rng.Uint64(), rng.Uint64()
		p.RepetitionPenalty = of[float32](rng, 1, 1.3, 0.5)
		p.FrequencyPenalty, p.PresencePenalty = of[float32](rng, 0, 0.3, -2), of[float32](rng, 0, 0.25, -1)
		words := e.mask
		if e.maskStride > 0 {
			words = e.mask[i*e.maskStride:]
		}
		p.GrammarBitmask = words[:e.maskWords]

		// The row's best come first, so that every list has some of them.
		best, ids := topk.NewResult[T](1, min(length, 40)), []int32{}
		if err := topk.Select(best, e.logits[at:at+length], topk.Row(length, min(length, 40))); err != nil {
			panic(err)
		}
		for _, id := range best.Indices {
			if rng.IntN(3) == 0 {
				ids = append(ids, id)
			}
		}
		for range 3 * (e.biases + e.penalties) {
			ids = append(ids, int32(rng.IntN(vocab)))
		}
		list := func(most int) []int32 {
			seen, ids := map[int32]bool{}, slices.Clone(ids)
			rng.Shuffle(min(len(ids), 60), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			list := slices.DeleteFunc(ids, func(id int32) bool { again := seen[id]; seen[id] = true; return again })
			list = list[:min(len(list), most)]
			for len(list) < most {
				list = append(list, of(rng, -1, int32(vocab), math.MaxInt32, math.MinInt32, int32(vocab+31)))
			}
			return list
		}
		p.LogitBias = map[int32]float32{}
		for _, id := range list(e.biases) {
			bias := of(rng, float32(rng.NormFloat64()), 0, 5, -inf, 3e38, -3)
			e.biasIDs, e.bias = append(e.biasIDs, id), append(e.bias, bias)
			if id >= 0 && int(id) < length {
				p.LogitBias[id] = bias
			}
		}
		for _, id := range list(e.penalties) {
			count := of[int32](rng, 0, 1, 2, 5)
			e.penaltyIDs, e.penaltyCounts = append(e.penaltyIDs, id), append(e.penaltyCounts, count)
			if id >= 0 && int(id) < length {
				row.Options.Prompt = append(row.Options.Prompt, id)
				row.Options.History = append(row.Options.History, slices.Repeat([]int32{id}, int(count))...)
			}
		}
		e.repetition = append(e.repetition, p.RepetitionPenalty)
		e.frequency, e.presence = append(e.frequency, p.FrequencyPenalty), append(e.presence, p.PresencePenalty)
		e.invalid = append(e.invalid, false)
		if rng.IntN(12) == 0 {
			e.invalid[i] = true
			switch rng.IntN(3) {
			case 0:
				e.repetition[i] = of(rng, 0, -1, inf, float32(math.NaN()))
			case 1:
				e.frequency[i] = of(rng, -inf, inf, float32(math.NaN()))
			case 2:
				e.presence[i] = of(rng, -inf, inf, float32(math.NaN()))
			}
		}
		e.rows = append(e.rows, row)
	}
	return e
}

// want is the answer of package sampling for a row.
func (e *edited[T]) want(i int) samplingtest.Answer {
	length, row := int(e.lengths[i]), e.rows[i]
	if e.invalid[i] {
		row.Params.Temperature = float32(math.NaN())
	}
	return samplingtest.Oracle(row, e.logits[i*e.stride:][:length:length])
}

// arguments tells a kernel of the batch, which answers in what is returned.
func (e *edited[T]) arguments(mostK int) (a sampleArguments, answers func() []samplingtest.Answer) {
	n, draws := len(e.rows), e.rows[0].Params.Draws
	temperature, topP, minP := make([]float32, n), make([]float32, n), make([]float32, n)
	topK, kept, keptCount := make([]int32, n), make([]int32, n*mostK), make([]int32, n)
	seed, position, status := make([]uint64, n), make([]uint64, n), make([]uint8, n)
	tokens := make([]int64, n*draws)
	for i, row := range e.rows {
		p := row.Params
		temperature[i], topK[i], topP[i], minP[i], seed[i], position[i] = p.Temperature, int32(p.TopK), p.TopP, p.MinP, p.Seed, p.Position
		if p.TopP == 0 {
			topP[i] = 1
		}
	}
	one := e.rows[0].Params
	a = sampleArguments{
		arguments: arguments{
			logits: first(e.logits), rowLengths: first(e.lengths), stride: int64(e.stride), resultStride: int64(draws), rows: int32(n), vocab: int32(e.vocab),
			k: int32(mostK), groups: int32(groups(mostK, 0)), chunks: 1, indexBytes: 8,
		},
		rowTemperature: first(temperature), rowTopK: first(topK), rowTopP: first(topP), rowMinP: first(minP),
		rowRepetition: first(e.repetition), rowFrequency: first(e.frequency), rowPresence: first(e.presence),
		rowSeed: first(seed), rowPosition: first(position),
		tokens: first(tokens), status: first(status), kept: first(kept), keptCount: first(keptCount),
		mask: first(e.mask), maskStride: int64(e.maskStride), maskWords: int32(e.maskWords),
		biasIds: first(e.biasIDs), bias: first(e.bias), biases: int32(e.biases),
		penaltyIds: first(e.penaltyIDs), penaltyCounts: first(e.penaltyCounts), penalties: int32(e.penalties),
		typicalP: 1, repetition: 1, softcap: one.Softcap, greedyBelow: 1e-5, draws: int32(draws), invalidToken: -1,
	}
	if e.nanochat {
		a.greedyBelow, a.minPLast = law.ColdestTemperature, 1
	}
	if one.Replacement {
		a.replacement = 1
	}
	return a, func() (answers []samplingtest.Answer) {
		for i := range n {
			answer := samplingtest.Answer{Status: sampling.Status(status[i])}
			if keptCount[i] >= 0 {
				answer.Kept = []sampling.Token{}
			}
			for _, token := range tokens[i*draws:][:draws] {
				answer.Tokens = append(answer.Tokens, sampling.Token(token))
			}
			for _, token := range kept[i*mostK:][:max(0, keptCount[i])] {
				answer.Kept = append(answer.Kept, sampling.Token(token))
			}
			answers = append(answers, answer)
		}
		return answers
	}
}

// Rows that are edited in the launch that samples them have the tokens of package sampling.
func TestEdits(t *testing.T) {
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...)}
	t.Run("float32", func(t *testing.T) { testEdits[float32](t, k, 7) })
	t.Run("float16", func(t *testing.T) { testEdits[topk.Float16](t, k, 8) })
	t.Run("bfloat16", func(t *testing.T) { testEdits[topk.BFloat16](t, k, 9) })
}

func testEdits[T topk.Float](t *testing.T, k *kernels, order uint64) {
	rng, mosts := rand.New(rand.NewPCG(20, order)), []int{60, 1024}
	for _, kind := range topktest.Rows() {
		for range 10 * len(mosts) {
			most := of(rng, mosts...)
			vocab := of(rng, 1+rng.IntN(700), 700+rng.IntN(3000), 4000+rng.IntN(9000))
			e := randomEdits[T](rng, kind.Make, 3, vocab, min(most, vocab))
			a, answers := e.arguments(min(most, vocab))
			if _, err := k.Launch("sample_"+short[T]()+"_edited", 3, samplingThreads, 1, order<<32|rng.Uint64()>>32, unsafe.Pointer(&a)); err != nil {
				t.Fatal(err)
			}
			for i, got := range answers() {
				want := e.want(i)
				if slices.Equal(got.Tokens, want.Tokens) && got.Status == want.Status && (got.Kept == nil || slices.Equal(got.Kept, want.Kept)) {
					continue
				}
				p := e.rows[i].Params
				t.Errorf("%s, vocab %d, row %d of %d, k %d, %d mask words, %d biases, %d penalties, %+v: %v, status %v, kept %v;\nwant %v, %v, %v", kind.Name, vocab, i, e.lengths[i],
					p.TopK, e.maskWords, e.biases, e.penalties, e.nanochat, got.Tokens, got.Status, got.Kept, want.Tokens, want.Status, want.Kept)
			}
		}
	}
}
