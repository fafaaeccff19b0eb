package sampling

import (
	"fmt"
	"slices"
)

// Step is the name of a step of a chain. Go, JSON, flags and Python use the
// same names.
type Step string

// The steps. Edits change logits and remove nothing: a masked token has the
// logit -Inf. Truncations remove tokens and change no logit. The two
// temperatures set what the masses of later steps are taken at. docs/semantics.md
// defines each of them.
const (
	// Edits.
	AllowedIDs           Step = "allowed_ids"
	BannedIDs            Step = "banned_ids"
	Bitmask              Step = "bitmask"
	LogitBias            Step = "logit_bias"
	Penalties            Step = "penalties"
	EncoderPenalty       Step = "encoder_penalty"
	DRY                  Step = "dry"
	NoRepeatNgram        Step = "no_repeat_ngram"
	EncoderNoRepeatNgram Step = "encoder_no_repeat_ngram"
	BadWords             Step = "bad_words"
	SequenceBias         Step = "sequence_bias"
	MinTokens            Step = "min_tokens"
	ForcedIDs            Step = "forced_ids"

	// Temperatures.
	Temperature        Step = "temperature"
	DynamicTemperature Step = "dynamic_temperature"

	// Truncations.
	MinP          Step = "min_p"
	TopK          Step = "top_k"
	TopP          Step = "top_p"
	TypicalP      Step = "typical_p"
	EpsilonCutoff Step = "epsilon_cutoff"
	EtaCutoff     Step = "eta_cutoff"
	TopNSigma     Step = "top_n_sigma"
	TopH          Step = "top_h"
	PLess         Step = "p_less"
	XTC           Step = "xtc"

	// Truncations that learn from what was drawn; their state is the caller's.
	MirostatV1 Step = "mirostat_v1"
	MirostatV2 Step = "mirostat_v2"
	// AdaptiveP removes nothing and replaces the logits by a function of the
	// probabilities.
	AdaptiveP Step = "adaptive_p"
)

// Steps lists the names of all steps: edits, temperatures, truncations.
func Steps() []Step {
	return []Step{
		AllowedIDs, BannedIDs, Bitmask, LogitBias, Penalties, EncoderPenalty, DRY, NoRepeatNgram,
		EncoderNoRepeatNgram, BadWords, SequenceBias, MinTokens, ForcedIDs,
		Temperature, DynamicTemperature,
		MinP, TopK, TopP, TypicalP, EpsilonCutoff, EtaCutoff, TopNSigma, TopH, PLess, XTC,
		MirostatV1, MirostatV2, AdaptiveP,
	}
}

// isEdit reports whether the step changes logits by id.
func (s Step) isEdit() bool {
	steps := Steps()
	return slices.Index(steps, s) < slices.Index(steps, Temperature)
}

// Chain is the order in which steps run. Steps whose parameters are off do
// nothing.
type Chain []Step

// validate reports a name that is no step's.
func (c Chain) validate() error {
	for i, step := range c {
		if !slices.Contains(Steps(), step) {
			return fmt.Errorf("sampling: chain[%d] = %.64q is not a step, want one of %v: %w", i, string(step), Steps(), ErrParams)
		}
	}
	return nil
}
