package sampling

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
)

// Params says how the tokens of a row are sampled. A field's zero value means
// that it is off: Temperature 0 is greedy, and Seed 0 is a seed. An explicit
// zero in JSON or by [Params.Set] is judged by the preset instead: top_p = 0 is
// an error in most and keeps one token in some.
//
// Every real parameter is a float32, rounded once where it enters.
type Params struct {
	// Temperature divides the logits: 0 (or below 2^-100) takes the largest.
	// The steps temperature and dynamic_temperature read it.
	Temperature       float32
	DynatempRange     float32 // dynamic_temperature: T from Temperature-range to Temperature+range by the entropy
	DynatempExponent  float32 // off: 1
	TopK              int     // top_k: at most so many tokens; 0, below and vocab or more are off
	TopP              float32 // top_p: the fewest likely tokens that hold this mass, in (0, 1]
	MinP              float32 // min_p: at least this share of the largest mass, in [0, 1]
	MinKeep           int     // truncations that a system guards by it leave at least so many tokens
	TypicalP          float32 // typical_p: this mass of the tokens of most typical surprise, in (0, 1]
	EpsilonCutoff     float32 // epsilon_cutoff: at least this probability, in [0, 1)
	EtaCutoff         float32 // eta_cutoff: at least min(eta, sqrt(eta) exp(-entropy)), in [0, 1)
	TopNSigma         float32 // top_n_sigma: within n standard deviations of the largest logit
	TopH              float32 // top_h: the entropy of what stays is at most this share of the whole, in (0, 1]
	XTCProbability    float32 // xtc: how often, in [0, 1]
	XTCThreshold      float32 // xtc: all tokens of at least this probability go, but the least likely of them; above 0.5 off
	XTCSpecialIDs     []int32 // xtc: never removed
	RepetitionPenalty float32 // penalties: positive logits are divided, others multiplied, above 0
	FrequencyPenalty  float32 // penalties: subtracted for each occurrence
	PresencePenalty   float32 // penalties: subtracted once
	// PenaltyLastN is how many of the last tokens the penalties count: off and
	// -1 all of them. An explicit 0 turns the penalties off.
	PenaltyLastN             int
	EncoderRepetitionPenalty float32 // encoder_penalty: the reverse, for ids of the encoder, above 0

	DRYMultiplier       float32 // dry: times base^(length of the repeat - allowed length) is subtracted
	DRYBase             float32 // off: 1.75
	DRYAllowedLength    int     // off: 2
	DRYPenaltyLastN     int     // as PenaltyLastN
	DRYSequenceBreakers []int32 // ids that end a repeat

	MirostatTau float32 // mirostat: the target surprise in bits; off: 5
	MirostatEta float32 // mirostat: the learning rate; off: 0.1
	// MirostatMu is where mirostat begins; off: twice MirostatTau. A [State]
	// carries it on.
	MirostatMu     float32
	AdaptiveTarget float32 // adaptive_p: the probability to aim at, in [0, 1]; off and below 0: none
	AdaptiveDecay  float32 // adaptive_p: of the moving average, at most 0.99; off: 0.9

	LogitBias                map[int32]float32 // logit_bias: added; -Inf bans
	AllowedIDs               []int32           // allowed_ids: all others are masked
	BannedIDs                []int32           // banned_ids: masked
	BadWords                 [][]int32         // bad_words: sequences that may not be completed
	NoRepeatNgramSize        int               // no_repeat_ngram: no n ids twice in prompt and output
	EncoderNoRepeatNgramSize int               // encoder_no_repeat_ngram: no n ids of the encoder
	SequenceBias             []SequenceBiasOf  // sequence_bias
	MinTokens                int               // min_tokens: EOSIDs are masked before so many are generated
	EOSIDs                   []int32           // ends of sequence, for min_tokens and bad_words
	// ForcedIDs are the ids of the first generated tokens, in order; -1 leaves one
	// free. The forced token gets the logit 0, the others are masked.
	ForcedIDs []int32
	// GrammarBitmask allows ids: bit j%32 of word j/32, the least significant
	// first. Ids past its end are allowed. Empty: off.
	GrammarBitmask []int32
	Softcap        float32 // cap * tanh(logit / cap), before all edits

	// Logprobs is how many of the most likely tokens the commands report beside the
	// chosen one; in Go, AppendLogprobs is told.
	Logprobs int

	Seed     uint64
	Position uint64 // of the first token; a [Sampler] adds how many it has accepted
	Draws    int    // tokens that Explain and the commands draw for a row; off: 1. Draw draws as many as there is room for
	// Replacement lets draws of one row take the same token again.
	Replacement bool

	given uint64 // bit i: the i-th of fields was set by name, even if to zero
}

// SequenceBiasOf adds Value to the last of the IDs where the others are the
// latest tokens, or always if there is no other.
type SequenceBiasOf struct {
	IDs   []int32
	Value float32
}

// field is a parameter by name.
type field struct {
	name string
	at   func(p *Params) any // a pointer to it
}

// fields lists the parameters in the order in which they are reported.
var fields = []field{
	{"temperature", func(p *Params) any { return &p.Temperature }},
	{"dynatemp_range", func(p *Params) any { return &p.DynatempRange }},
	{"dynatemp_exponent", func(p *Params) any { return &p.DynatempExponent }},
	{"top_k", func(p *Params) any { return &p.TopK }},
	{"top_p", func(p *Params) any { return &p.TopP }},
	{"min_p", func(p *Params) any { return &p.MinP }},
	{"min_keep", func(p *Params) any { return &p.MinKeep }},
	{"typical_p", func(p *Params) any { return &p.TypicalP }},
	{"epsilon_cutoff", func(p *Params) any { return &p.EpsilonCutoff }},
	{"eta_cutoff", func(p *Params) any { return &p.EtaCutoff }},
	{"top_n_sigma", func(p *Params) any { return &p.TopNSigma }},
	{"top_h", func(p *Params) any { return &p.TopH }},
	{"xtc_probability", func(p *Params) any { return &p.XTCProbability }},
	{"xtc_threshold", func(p *Params) any { return &p.XTCThreshold }},
	{"xtc_special_ids", func(p *Params) any { return &p.XTCSpecialIDs }},
	{"repetition_penalty", func(p *Params) any { return &p.RepetitionPenalty }},
	{"frequency_penalty", func(p *Params) any { return &p.FrequencyPenalty }},
	{"presence_penalty", func(p *Params) any { return &p.PresencePenalty }},
	{"penalty_last_n", func(p *Params) any { return &p.PenaltyLastN }},
	{"encoder_repetition_penalty", func(p *Params) any { return &p.EncoderRepetitionPenalty }},
	{"dry_multiplier", func(p *Params) any { return &p.DRYMultiplier }},
	{"dry_base", func(p *Params) any { return &p.DRYBase }},
	{"dry_allowed_length", func(p *Params) any { return &p.DRYAllowedLength }},
	{"dry_penalty_last_n", func(p *Params) any { return &p.DRYPenaltyLastN }},
	{"dry_sequence_breakers", func(p *Params) any { return &p.DRYSequenceBreakers }},
	{"mirostat_tau", func(p *Params) any { return &p.MirostatTau }},
	{"mirostat_eta", func(p *Params) any { return &p.MirostatEta }},
	{"mirostat_mu", func(p *Params) any { return &p.MirostatMu }},
	{"adaptive_target", func(p *Params) any { return &p.AdaptiveTarget }},
	{"adaptive_decay", func(p *Params) any { return &p.AdaptiveDecay }},
	{"logit_bias", func(p *Params) any { return &p.LogitBias }},
	{"allowed_ids", func(p *Params) any { return &p.AllowedIDs }},
	{"banned_ids", func(p *Params) any { return &p.BannedIDs }},
	{"bad_words", func(p *Params) any { return &p.BadWords }},
	{"no_repeat_ngram_size", func(p *Params) any { return &p.NoRepeatNgramSize }},
	{"encoder_no_repeat_ngram_size", func(p *Params) any { return &p.EncoderNoRepeatNgramSize }},
	{"sequence_bias", func(p *Params) any { return &p.SequenceBias }},
	{"min_tokens", func(p *Params) any { return &p.MinTokens }},
	{"eos_ids", func(p *Params) any { return &p.EOSIDs }},
	{"forced_ids", func(p *Params) any { return &p.ForcedIDs }},
	{"grammar_bitmask", func(p *Params) any { return &p.GrammarBitmask }},
	{"softcap", func(p *Params) any { return &p.Softcap }},
	{"logprobs", func(p *Params) any { return &p.Logprobs }},
	{"seed", func(p *Params) any { return &p.Seed }},
	{"position", func(p *Params) any { return &p.Position }},
	{"draws", func(p *Params) any { return &p.Draws }},
	{"replacement", func(p *Params) any { return &p.Replacement }},
}

// ParamNames lists the names of all parameters.
func ParamNames() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// Has reports whether the parameter of that name was set by name, by [Params.Set]
// or from JSON, even if to zero.
func (p *Params) Has(name string) bool {
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	return i >= 0 && p.given>>i&1 == 1
}

// Set sets the parameter of that name to a value in JSON: a number, "NaN",
// "Infinity" or "-Infinity", true or false, or arrays and objects of them. A
// zero set this way is not the same as a field left alone. An unknown name and
// a value of another type are errors that wrap [ErrParams].
func (p *Params) Set(name string, value []byte) error {
	for i, f := range fields {
		if f.name != name {
			continue
		}
		if err := setValue(f.at(p), bytes.TrimSpace(value)); err != nil {
			return fmt.Errorf("sampling: %s: %w: %w", name, err, ErrParams)
		}
		p.given |= 1 << i
		return nil
	}
	return fmt.Errorf("sampling: unknown parameter %.64q: %w", name, ErrParams)
}

// UnmarshalJSON reads an object of parameters by name. A temperature that neither
// it nor p gives is 1, and draws are with replacement unless one of them says so
// by name, which is what an absent parameter means everywhere but in Go. The
// parameters that it names replace those of p.
func (p *Params) UnmarshalJSON(object []byte) error {
	if p.Temperature == 0 && !p.Has("temperature") {
		p.Temperature = 1
	}
	if !p.Has("replacement") {
		p.Replacement = true
	}
	seen := make(map[string]bool)
	err := eachMember(object, func(name string, value []byte) error {
		if seen[name] {
			return fmt.Errorf("parameter %.64q comes twice", name)
		}
		seen[name] = true
		return p.Set(name, value)
	})
	if err != nil && !errors.Is(err, ErrParams) {
		err = fmt.Errorf("sampling: params: %w: %w", err, ErrParams)
	}
	return err
}

// MarshalJSON writes the object that UnmarshalJSON reads: the temperature,
// replacement, and what is not off.
func (p Params) MarshalJSON() ([]byte, error) {
	object := []byte{'{'}
	for i, f := range fields {
		at := f.at(&p)
		always := f.name == "temperature" || f.name == "replacement" // absent ones are not zero
		if !always && p.given>>i&1 == 0 && reflect.ValueOf(at).Elem().IsZero() {
			continue
		}
		if len(object) > 1 {
			object = append(object, ',')
		}
		object = append(strconv.AppendQuote(object, f.name), ':')
		var err error
		if object, err = appendValue(object, at); err != nil {
			return nil, fmt.Errorf("sampling: %s: %w", f.name, err)
		}
	}
	return append(object, '}'), nil
}

// appendValue appends what at points to as setValue reads it.
func appendValue(dst []byte, at any) ([]byte, error) {
	switch at := at.(type) {
	case *float32:
		return appendReal(dst, *at), nil
	case *map[int32]float32:
		for i, id := range slices.Sorted(maps.Keys(*at)) {
			dst = append(append(dst, "{,"[min(i, 1)], '"'), strconv.Itoa(int(id))...)
			dst = appendReal(append(dst, `":`...), (*at)[id])
		}
		if len(*at) == 0 {
			dst = append(dst, '{')
		}
		return append(dst, '}'), nil
	case *[]SequenceBiasOf:
		dst = append(dst, '[')
		for i, bias := range *at {
			if i > 0 {
				dst = append(dst, ',')
			}
			ids, err := json.Marshal(append([]int32{}, bias.IDs...))
			if err != nil {
				return dst, err
			}
			dst = append(append(append(dst, '['), ids...), ',')
			dst = append(appendReal(dst, bias.Value), ']')
		}
		return append(dst, ']'), nil
	case *[]int32:
		if *at == nil { // null is no list
			return append(dst, "[]"...), nil
		}
	case *[][]int32:
		if *at == nil {
			return append(dst, "[]"...), nil
		}
	}
	value, err := json.Marshal(at)
	return append(dst, value...), err
}

// appendReal appends what parseReal reads.
func appendReal(dst []byte, v float32) []byte {
	switch x := float64(v); {
	case x != x:
		return append(dst, `"NaN"`...)
	case math.IsInf(x, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(x, -1):
		return append(dst, `"-Infinity"`...)
	}
	return strconv.AppendFloat(dst, float64(v), 'g', -1, 32)
}

// setValue parses a value for what at points to.
func setValue(at any, value []byte) (err error) {
	switch at := at.(type) {
	case *float32:
		*at, err = parseReal(value)
	case *int:
		var n int64
		n, err = parseInteger(value, math.MinInt32, math.MaxInt32)
		*at = int(n)
	case *uint64:
		*at, err = strconv.ParseUint(string(value), 10, 64)
		if err != nil {
			err = fmt.Errorf("%.64s is not an integer from 0 to 2^64-1", value)
		}
	case *bool:
		if string(value) != "true" && string(value) != "false" {
			return fmt.Errorf("%.64s, want true or false", value)
		}
		*at = string(value) == "true"
	case *[]int32:
		*at, err = parseIDs(value)
	case *[][]int32:
		var words []json.RawMessage
		if err := parseList(value, &words); err != nil {
			return err
		}
		*at = make([][]int32, len(words))
		for i, word := range words {
			if (*at)[i], err = parseIDs(word); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		}
	case *map[int32]float32:
		*at, err = parseBiases(value)
	case *[]SequenceBiasOf:
		*at, err = parseSequenceBias(value)
	}
	return err
}

func parseReal(value []byte) (float32, error) {
	switch string(value) {
	case `"NaN"`:
		return float32(math.NaN()), nil
	case `"Infinity"`:
		return float32(math.Inf(1)), nil
	case `"-Infinity"`:
		return float32(math.Inf(-1)), nil
	}
	if !isNumber(value) {
		return 0, fmt.Errorf("%.64s is not a number, \"NaN\", \"Infinity\" or \"-Infinity\"", value)
	}
	v, err := strconv.ParseFloat(string(value), 32)
	if err != nil {
		return 0, fmt.Errorf("%.64s overflows float32", value)
	}
	return float32(v), nil
}

// isNumber reports whether a value of JSON is a number.
func isNumber(value []byte) bool {
	return len(value) > 0 && (value[0] == '-' || value[0] >= '0' && value[0] <= '9') && json.Valid(value)
}

func parseInteger(value []byte, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || !isNumber(value) || n < least || n > most {
		return 0, fmt.Errorf("%.64s is not an integer from %d to %d", value, least, most)
	}
	return n, nil
}

func parseList(value []byte, list *[]json.RawMessage) error {
	if len(value) == 0 || value[0] != '[' || json.Unmarshal(value, list) != nil {
		return fmt.Errorf("%.64s is not an array", value)
	}
	return nil
}

func parseIDs(value []byte) ([]int32, error) {
	var list []json.RawMessage
	if err := parseList(value, &list); err != nil {
		return nil, err
	}
	ids := make([]int32, len(list))
	for i, item := range list {
		n, err := parseInteger(item, math.MinInt32, math.MaxInt32)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		ids[i] = int32(n)
	}
	return ids, nil
}

func parseBiases(value []byte) (map[int32]float32, error) {
	if len(value) == 0 || value[0] != '{' || !json.Valid(value) {
		return nil, fmt.Errorf("%.64s is not an object", value)
	}
	biases := make(map[int32]float32)
	err := eachMember(value, func(name string, value []byte) error {
		id, err := parseInteger([]byte(name), math.MinInt32, math.MaxInt32)
		if err != nil {
			return fmt.Errorf("id %w", err)
		}
		if _, twice := biases[int32(id)]; twice {
			return fmt.Errorf("id %d comes twice", id)
		}
		if biases[int32(id)], err = parseReal(value); err != nil {
			return fmt.Errorf("%d: %w", id, err)
		}
		return nil
	})
	return biases, err
}

// eachMember calls visit for each member of a JSON object, in their order, up to
// an error.
func eachMember(object []byte, visit func(name string, value []byte) error) error {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if opening, err := decoder.Token(); err != nil || opening != json.Delim('{') {
		return errors.New("want a JSON object")
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		key, ok := name.(string)
		if !ok {
			return errors.New("want a name")
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return fmt.Errorf("%.64s: %w", key, err)
		}
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return nil
}

var errPair = errors.New("not a pair of ids and a value")

func parseSequenceBias(value []byte) ([]SequenceBiasOf, error) {
	var list []json.RawMessage
	if err := parseList(value, &list); err != nil {
		return nil, err
	}
	biases := make([]SequenceBiasOf, len(list))
	for i, item := range list {
		var pair []json.RawMessage
		if parseList(item, &pair) != nil || len(pair) != 2 {
			return nil, fmt.Errorf("[%d]: %w", i, errPair)
		}
		var err error
		if biases[i].IDs, err = parseIDs(pair[0]); err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		if biases[i].Value, err = parseReal(pair[1]); err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return biases, nil
}
