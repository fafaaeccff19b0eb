package samplingtest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/ai-kernel-factory/aikf/sampling"
)

func pick[E any](rng *rand.Rand, from ...E) E { return from[rng.IntN(len(from))] }

// randomIDs returns up to n ids below the vocabulary.
func randomIDs(rng *rand.Rand, vocab, n int) []int32 {
	var ids []int32
	for range rng.IntN(n + 1) {
		ids = append(ids, int32(rng.IntN(vocab)))
	}
	return ids
}

// RandomParams returns parameters and options for rows of a vocabulary of at least
// four tokens, in which about every third parameter is on: all presets, and chains
// in any order. Mirostat and adaptive-p are not among the steps.
func RandomParams(rng *rand.Rand, vocab int) (sampling.Params, sampling.Options) {
	real := func(values ...float32) float32 {
		if rng.IntN(3) > 0 {
			return 0
		}
		return pick(rng, values...)
	}
	number := func(values ...int) int {
		if rng.IntN(3) > 0 {
			return 0
		}
		return pick(rng, values...)
	}
	few := vocab / 2 // so that ids meet each other
	p := sampling.Params{
		Temperature:   pick[float32](rng, 0, 0.3, 0.8, 1, 1, 1.7),
		DynatempRange: real(0.2, 0.5), DynatempExponent: real(0.5, 2),
		TopK: number(1, 2, 7, 20, 1000), TopP: real(0.1, 0.5, 0.9, 0.99), MinP: real(0.01, 0.1, 0.5, 1), MinKeep: number(1, 3),
		TypicalP: real(0.3, 0.9), EpsilonCutoff: real(0.001, 0.05), EtaCutoff: real(0.002, 0.1),
		TopNSigma: real(0.5, 1, 2), TopH: real(0.3, 0.7, 0.95),
		XTCProbability: real(1), XTCThreshold: pick[float32](rng, 0.02, 0.1, 0.3), XTCSpecialIDs: randomIDs(rng, vocab, 2),
		RepetitionPenalty: real(0.8, 1.3), FrequencyPenalty: real(-0.4, 0.7), PresencePenalty: real(-0.3, 0.5), PenaltyLastN: number(-1, 3, 10),
		EncoderRepetitionPenalty: real(0.7, 1.5),
		DRYMultiplier:            real(0.8), DRYBase: real(1.5), DRYAllowedLength: number(1, 3), DRYPenaltyLastN: number(-1, 12), DRYSequenceBreakers: randomIDs(rng, few, 3),
		BannedIDs: randomIDs(rng, vocab, 3), EOSIDs: randomIDs(rng, vocab, 2), MinTokens: number(2, 30),
		NoRepeatNgramSize: number(1, 2, 3), EncoderNoRepeatNgramSize: number(2),
		Seed: rng.Uint64(),
	}
	if rng.IntN(4) == 0 {
		p.LogitBias = map[int32]float32{}
		for _, id := range randomIDs(rng, vocab, 5) {
			p.LogitBias[id] = pick(rng, -1, 0.5, 3, float32(math.Inf(-1)))
		}
	}
	if rng.IntN(6) == 0 {
		p.AllowedIDs = append(randomIDs(rng, vocab, vocab/2), 1)
	}
	if rng.IntN(6) == 0 {
		for range rng.IntN(vocab/32 + 2) {
			p.GrammarBitmask = append(p.GrammarBitmask, int32(rng.Uint32()))
		}
	}
	if rng.IntN(12) == 0 {
		p.ForcedIDs = []int32{int32(rng.IntN(vocab)), -1, 2}
	}
	for range rng.IntN(3) {
		p.BadWords = append(p.BadWords, append(randomIDs(rng, 3, 2), int32(rng.IntN(vocab))))
		p.SequenceBias = append(p.SequenceBias, sampling.SequenceBiasOf{IDs: append(randomIDs(rng, 3, 1), int32(rng.IntN(vocab))), Value: 1.5})
	}
	sequence := func(n int) []int32 {
		ids := randomIDs(rng, few, n)
		if rng.IntN(2) == 0 {
			ids = randomIDs(rng, min(4, vocab), n)
		}
		return ids
	}
	o := sampling.Options{Preset: pick(rng, append(sampling.Presets(), "")...), Prompt: sequence(10), History: sequence(20), Encoder: sequence(10)}
	if rng.IntN(3) == 0 {
		steps := slices.DeleteFunc(sampling.Steps(), func(s sampling.Step) bool {
			return slices.Contains([]sampling.Step{sampling.MirostatV1, sampling.MirostatV2, sampling.AdaptiveP}, s)
		})
		rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		o.Chain = steps[:rng.IntN(len(steps)+1)]
		if i, j := slices.Index(o.Chain, sampling.Temperature), slices.Index(o.Chain, sampling.DynamicTemperature); i >= 0 && j >= 0 {
			o.Chain = slices.Delete(o.Chain, j, j+1) // the two in any order are tested by name
		}
	}
	return p, o
}
