package sampling

import (
	"fmt"
	"slices"
)

// Preset names a system whose order of steps and boundary rules are followed.
// The zero value is VLLM. Presets set no parameter: what a system does by
// default is left to the caller.
type Preset string

// The presets, with the version that each was compared with by its public
// sources.
const (
	// VLLM is vLLM 0.11 (V1 engine): temperature, min-p, top-k, top-p, each on the
	// renormalised mass of what the one before kept. A temperature below 1e-5 is
	// greedy. Repetition counts prompt and output, frequency and presence the
	// output alone. It is the default, and accepts every step.
	VLLM Preset = "vllm"
	// LlamaCPP is llama.cpp of January 2026 (with adaptive-p): the temperature
	// comes last, all penalties count the last n of prompt and output, and
	// parameters past their range mean what they mean there: top_p = 0 keeps one
	// token, min_p > 1 the largest, temperature <= 0 is greedy.
	LlamaCPP Preset = "llama.cpp"
	// HF is Hugging Face transformers 4.57: top-k keeps what ties with the k-th,
	// top-p drops from the least likely upward.
	HF Preset = "hf"
	// SGLang is SGLang 0.5: top-k and top-p both cut from the mass before
	// either, and what both keep stays.
	SGLang Preset = "sglang"
	// MLX is mlx-lm 0.28: truncations at T = 1, temperature last; top_p of 0 or
	// 1 is off. T = 0 is greedy before any truncation. All penalties count prompt
	// and output.
	MLX Preset = "mlx"
	// Ollama is ollama 0.12's own sampler: top-k, temperature of at least 1e-7,
	// top-p that goes on until the mass exceeds p, min-p. Parameters past their
	// range are clamped to it.
	Ollama Preset = "ollama"
	// Nanochat is nanochat of October 2025: top-k, temperature, draw. A soft cap
	// is applied to the kept logits alone.
	Nanochat Preset = "nanochat"
)

// Presets lists the names of all presets; the first is the default.
func Presets() []Preset {
	return []Preset{VLLM, LlamaCPP, HF, SGLang, MLX, Ollama, Nanochat}
}

// Chain returns the preset's steps in their order. The slice is the caller's.
// Mirostat and p-less are in no preset's chain, because no parameter turns them
// on: a chain does.
func (p Preset) Chain() Chain {
	masks := Chain{AllowedIDs, BannedIDs, Bitmask, LogitBias}
	words := Chain{NoRepeatNgram, EncoderNoRepeatNgram, BadWords, SequenceBias, MinTokens, ForcedIDs}
	var edits, rest Chain
	switch p {
	case LlamaCPP:
		edits = slices.Concat(masks, Chain{Penalties, EncoderPenalty, DRY}, words)
		rest = Chain{TopNSigma, TopK, TypicalP, TopP, MinP, XTC, EpsilonCutoff, EtaCutoff, TopH, Temperature, DynamicTemperature, AdaptiveP}
	case HF:
		edits = slices.Concat(masks, Chain{SequenceBias, EncoderPenalty, Penalties, DRY, NoRepeatNgram, EncoderNoRepeatNgram, BadWords, MinTokens, ForcedIDs})
		rest = Chain{Temperature, DynamicTemperature, TopH, TopK, TopP, MinP, TypicalP, EpsilonCutoff, EtaCutoff, TopNSigma, XTC}
	case SGLang:
		edits = slices.Concat(masks, Chain{Penalties, EncoderPenalty, DRY}, words)
		rest = Chain{Temperature, DynamicTemperature, TopK, TopP, MinP, TypicalP, EpsilonCutoff, EtaCutoff, TopNSigma, TopH, XTC}
	case MLX:
		edits = slices.Concat(masks, Chain{Penalties, EncoderPenalty, DRY}, words)
		rest = Chain{TopP, MinP, XTC, TopK, TypicalP, EpsilonCutoff, EtaCutoff, TopNSigma, TopH, Temperature, DynamicTemperature}
	case Ollama:
		edits = slices.Concat(masks, Chain{Penalties, EncoderPenalty, DRY}, words)
		rest = Chain{TopK, Temperature, DynamicTemperature, TopP, MinP, TypicalP, EpsilonCutoff, EtaCutoff, TopNSigma, TopH, XTC}
	case Nanochat:
		edits = slices.Concat(masks, Chain{Penalties, EncoderPenalty, DRY}, words)
		rest = Chain{TopK, Temperature, DynamicTemperature, TopP, MinP, TypicalP, EpsilonCutoff, EtaCutoff, TopNSigma, TopH, XTC}
	default:
		edits = slices.Concat(masks, Chain{Penalties, EncoderPenalty, DRY}, words)
		rest = Chain{Temperature, DynamicTemperature, MinP, TopK, TopP, TypicalP, EpsilonCutoff, EtaCutoff, TopNSigma, TopH, XTC, AdaptiveP}
	}
	return append(edits, rest...)
}

// rules are the boundary rules of a preset.
type rules struct {
	greedyBelow   float32 // a temperature below it is greedy; 0 is anyway
	leastT        float32 // a temperature that is not greedy is at least this
	rangeInPlain  bool    // the step temperature is dynamic if it has a range
	greedyFirst   bool    // truncations before a greedy temperature do nothing
	clampT        bool    // a negative temperature is greedy
	wholeWindow   bool    // all penalties count prompt and output
	wordsInOutput bool    // bad words match the output alone
	topPZero      zeroRule
	topPOver      bool // a mass of exactly p is not enough
	topPAscending bool
	jointTopP     bool // top-p cuts from the mass before top-k
	topKTies      bool
	topKMinKeep   bool
	cutoffTies    bool // what must stay includes what ties with it
	typicalReach  bool // a mass of exactly p is enough, and ties stay
	anyTopP       bool // top_p past its range is taken as the system takes it
	capKept       bool // the soft cap is applied behind top-k
	lonelyEOS     bool // bad words of one end-of-sequence id are ignored
}

// zeroRule says what top_p = 0 means.
type zeroRule uint8

const (
	zeroIsError zeroRule = iota
	zeroKeepsOne
	zeroIsOff
)

// leastTemperature is where a temperature starts to divide: below, the division
// of two neighbouring logits could overflow.
const leastTemperature = 0x1p-100

func (p Preset) rules() rules {
	switch p {
	case LlamaCPP:
		return rules{clampT: true, rangeInPlain: true, wholeWindow: true, topPZero: zeroKeepsOne, anyTopP: true}
	case HF:
		return rules{topPZero: zeroKeepsOne, topPAscending: true, topKTies: true, topKMinKeep: true, cutoffTies: true, typicalReach: true, lonelyEOS: true}
	case SGLang:
		return rules{greedyBelow: 1e-6, jointTopP: true}
	case MLX:
		return rules{greedyFirst: true, wholeWindow: true, topPZero: zeroIsOff}
	case Ollama:
		return rules{clampT: true, leastT: 1e-7, topPZero: zeroKeepsOne, topPOver: true, anyTopP: true}
	case Nanochat:
		return rules{capKept: true}
	}
	return rules{greedyBelow: 1e-5, wordsInOutput: true}
}

// validate reports a name that is no preset's.
func (p Preset) validate() error {
	if p != "" && !slices.Contains(Presets(), p) {
		return fmt.Errorf("sampling: preset %.64q, want one of %v: %w", string(p), Presets(), ErrParams)
	}
	return nil
}
