// Package sampling draws tokens from rows of logits, reproducibly.
//
// A token is a function of the row's logits, the parameters, the history, the
// seed, the position and the number of the draw, and of nothing else: not of the
// batch, the place in it, the instruction set or the machine. Masses are integers
// and random numbers are counted, not kept, so that the same call gives the same
// token everywhere. docs/semantics.md states the law to the bit.
//
// [Params] are checked once, by [New], which makes a [Sampler] of one sequence:
// Sample the next token, Accept it, go on. [SampleRows] samples a batch in which
// every row has its own Sampler. A [Chain] is the order of the steps from logits to
// a law, and a [Preset] the order and the boundary rules of a known system.
// [Sampler.Explain] tells what each step did to a row. [SampleLogits] is one call
// for one row, [Sampler.Verify] speculative sampling, and [BeamStep] a step of beam
// search.
//
// Logits are float32, [topk.Float16] or [topk.BFloat16], are read as they are and
// never written. NaN among them is an error that wraps [ErrNaN], unless it is masked.
package sampling

import (
	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/topk"
)

// LawVersion is the version of the law by which logits, parameters, history,
// seed, position and draw decide a token. The same version gives the same
// tokens.
const LawVersion = law.Version

// MaxVocab is the largest vocabulary that is sampled from: 2^20.
const MaxVocab = law.MaxVocab

// Token is the id of a token: its index in a row of logits.
type Token = int32

// NoToken stands where no token could be sampled.
const NoToken Token = -1

// SampleLogits draws tokens for one row as nanochat's engine does: the topK
// largest logits, the temperature, softmax over these, numSamples draws with or
// without replacement. topK of 0 and below or of the vocabulary or more is off,
// and a temperature of 0 takes the largest logit. The same seed gives the same
// tokens. Errors are those of [New] and [Sampler.Draw]; for call after call, use
// a [Sampler].
func SampleLogits[T topk.Float](logits []T, topK int, temperature float32, seed uint64, numSamples int, replacement bool) ([]Token, error) {
	s, err := New[T](Params{Temperature: temperature, TopK: topK, Seed: seed, Replacement: replacement}, Options{Preset: Nanochat})
	if err != nil {
		return nil, err
	}
	if numSamples < 1 || numSamples > maxDraws {
		return nil, wrongDraws(numSamples)
	}
	tokens := make([]Token, numSamples)
	return tokens, s.Draw(tokens, logits)
}
