package sampling

import (
	"fmt"
	"math"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/law"
)

// plan is what parameters, a preset and a chain come to: every value checked,
// and what is off told from what is zero.
type plan struct {
	rules
	chain []Step
	on    uint64 // bit i: step i of the chain does something
	edits uint64 // bit i: it is an edit
	// leading is the place of the first step that is on and no edit.
	leading int
	// prefix is how many tokens, in contract order behind the leading edits, tell
	// everything about a row, or 0 if all are needed.
	prefix int

	greedy           bool // temperature takes the largest logit
	temperature      float32
	dynatempRange    float32
	dynatempExponent float32
	topK             int // 0: off
	topP             float32
	minP             float32
	keep             int // at least so many stay
	typicalP         float32
	epsilonCutoff    float32
	etaCutoff        float32
	topNSigma        float32
	topH             float32
	xtcProbability   float32
	xtcThreshold     float32
	xtcSpecial       []int32 // ascending

	repetition, frequency, presence float32
	lastN                           int // -1: all
	encoderRepetition               float32

	dryMultiplier, dryBase float32
	dryAllowed, dryLastN   int
	dryBreakers            []int32 // ascending

	mirostatTau, mirostatEta, mirostatMu float32
	adaptiveTarget, adaptiveDecay        float32

	bias         []biasOf // ascending ids
	allowed      []int32  // ascending
	banned       []int32
	badWords     [][]int32
	ngram        int
	encoderNgram int
	sequenceBias []SequenceBiasOf
	minTokens    int
	eos          []int32
	forced       []int32
	bitmask      []int32
	softcap      float32 // 0: off

	logprobs    int
	seed        uint64
	position    uint64
	draws       int
	replacement bool

	leastID, mostID int32 // of all ids in the parameters; 0 and -1 if there is none
	mostName        string
	statefulSteps   bool // some step that is on learns
}

// biasOf is a bias of one id.
type biasOf struct {
	id    int32
	value float32
}

// interval is a range of real numbers.
type interval struct {
	least, most         float64
	openLeast, openMost bool
}

// String writes the interval as mathematics does.
func (r interval) String() string {
	opening, closing := "[", "]"
	if r.openLeast {
		opening = "("
	}
	if r.openMost {
		closing = ")"
	}
	return fmt.Sprintf("%s%v, %v%s", opening, r.least, r.most, closing)
}

func (r interval) holds(v float32) bool {
	x := float64(v)
	if r.openLeast && x == r.least || r.openMost && x == r.most {
		return false
	}
	return x >= r.least && x <= r.most // false for NaN
}

var infinity = math.Inf(1)

var (
	anyFinite    = interval{-infinity, infinity, true, true}
	notNegative  = interval{0, infinity, false, true}
	positive     = interval{0, infinity, true, true}
	share        = interval{0, 1, false, false}
	positivePart = interval{0, 1, true, false}
	lessThanOne  = interval{0, 1, false, true}
)

// checker collects the first parameter out of range.
type checker struct {
	params *Params
	err    error
}

// wrong keeps the first error.
func (c *checker) wrong(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("sampling: "+format+": %w", append(args, ErrParams)...)
	}
}

// real returns the value of a parameter that is in the range, or off if it was
// left alone.
func (c *checker) real(name string, v, off float32, in interval) float32 {
	if v == 0 && !c.params.Has(name) {
		return off
	}
	if !in.holds(v) {
		c.wrong("%s = %v is outside %v", name, v, in)
	}
	return v
}

// integer is real for an int.
func (c *checker) integer(name string, v, off, least int) int {
	if v == 0 && !c.params.Has(name) {
		return off
	}
	if v < least {
		c.wrong("%s = %d is less than %d", name, v, least)
	}
	return v
}

// newPlan checks everything but ids, whose range is not known before the
// vocabulary.
func newPlan(params *Params, preset Preset, chain Chain) (*plan, error) {
	if err := preset.validate(); err != nil {
		return nil, err
	}
	if err := chain.validate(); err != nil {
		return nil, err
	}
	if chain == nil {
		chain = preset.Chain()
	}
	if len(chain) > 64 {
		return nil, fmt.Errorf("sampling: a chain of %d steps, at most 64: %w", len(chain), ErrParams)
	}
	c := &checker{params: params}
	p := &plan{rules: preset.rules(), chain: slices.Clone(chain)}

	p.setTemperature(c)
	p.setTruncations(c, preset)
	p.setPenalties(c, preset)
	p.setIDs(c)
	p.softcap = c.real("softcap", params.Softcap, 0, notNegative)
	p.logprobs = c.integer("logprobs", params.Logprobs, 0, 0)
	p.seed, p.position, p.replacement = params.Seed, params.Position, params.Replacement
	p.draws = c.integer("draws", params.Draws, 1, 1)
	if p.draws > maxDraws {
		c.wrong("draws = %d exceeds %d", p.draws, maxDraws)
	}
	if c.err != nil {
		return nil, c.err
	}
	p.turnOn()
	return p, nil
}

// turnOn finds out which steps do something, and what follows from it.
func (p *plan) turnOn() {
	p.on, p.edits, p.leading, p.statefulSteps = 0, 0, 0, false
	for i, step := range p.chain {
		if !p.isOn(step) {
			continue
		}
		p.on |= 1 << i
		if step.isEdit() {
			p.edits |= 1 << i
		}
		p.statefulSteps = p.statefulSteps || step == MirostatV1 || step == MirostatV2 || step == AdaptiveP
	}
	for p.leading < len(p.chain) && (!p.stepIsOn(p.leading) || p.stepEdits(p.leading)) {
		p.leading++
	}
	p.prefix = p.findPrefix()
}

// findPrefix returns the k of a top-k that comes first behind the leading edits, or
// behind steps that do not need what it removes.
func (p *plan) findPrefix() int {
	for i := p.leading; i < len(p.chain); i++ {
		step := p.chain[i]
		switch {
		case !p.stepIsOn(i) || p.skips(i):
		case step == Temperature && p.dynatempRange == 0 && !p.greedy:
		case step == MinP && p.keep == 1: // only the largest logit decides what it keeps
		case step == TopK && !p.topKTies && !(p.jointTopP && p.topP < 1):
			return p.topK
		default:
			return 0
		}
	}
	return 0
}

// maxDraws bounds the draws of a row.
const maxDraws = 1 << 24

func (p *plan) setTemperature(c *checker) {
	in := notNegative
	if p.clampT {
		in = anyFinite
	}
	t := c.params.Temperature
	if !in.holds(t) {
		c.wrong("temperature = %v is outside %v", t, in)
	}
	p.greedy, p.temperature = p.divisor(t)
	p.dynatempRange = c.real("dynatemp_range", c.params.DynatempRange, 0, notNegative)
	p.dynatempExponent = c.real("dynatemp_exponent", c.params.DynatempExponent, 1, notNegative)
}

// divisor returns what a temperature divides by, or that it is greedy.
func (p *plan) divisor(t float32) (greedy bool, divisor float32) {
	switch {
	case p.leastT > 0 && t > 0:
		return false, max(t, p.leastT)
	case t < law.ColdestTemperature || t < p.greedyBelow:
		return true, 1
	}
	return false, t
}

func (p *plan) setTruncations(c *checker, preset Preset) {
	params, loose := c.params, preset == LlamaCPP || preset == Ollama
	unbounded := interval{-infinity, infinity, false, false}
	in := func(strict interval) interval {
		if loose {
			return unbounded
		}
		return strict
	}
	p.topK = max(params.TopK, 0)
	p.keep = max(1, c.integer("min_keep", params.MinKeep, 1, 0))
	if p.topKMinKeep && p.topK > 0 {
		p.topK = max(p.topK, p.keep)
	}
	topP := in(positivePart)
	if p.topPZero != zeroIsError && !loose {
		topP = share
	}
	p.topP = min(1, max(0, c.real("top_p", params.TopP, 1, topP)))
	if p.topP == 0 && p.topPZero == zeroIsOff {
		p.topP = 1
	}
	p.minP = max(0, c.real("min_p", params.MinP, 0, in(share)))
	if preset == Ollama {
		p.minP = min(1, p.minP)
	}
	p.typicalP = min(1, max(0, c.real("typical_p", params.TypicalP, 1, in(positivePart))))
	p.epsilonCutoff = c.real("epsilon_cutoff", params.EpsilonCutoff, 0, lessThanOne)
	p.etaCutoff = c.real("eta_cutoff", params.EtaCutoff, 0, lessThanOne)
	p.topNSigma = max(0, c.real("top_n_sigma", params.TopNSigma, 0, anyFinite))
	p.topH = c.real("top_h", params.TopH, 1, positivePart)
	p.xtcProbability = min(1, max(0, c.real("xtc_probability", params.XTCProbability, 0, in(share))))
	p.xtcThreshold = max(0, c.real("xtc_threshold", params.XTCThreshold, 1, in(share)))
	p.mirostatTau = c.real("mirostat_tau", params.MirostatTau, 5, notNegative)
	p.mirostatEta = c.real("mirostat_eta", params.MirostatEta, 0.1, notNegative)
	p.mirostatMu = c.real("mirostat_mu", params.MirostatMu, 2*p.mirostatTau, anyFinite)
	target := interval{-infinity, 1, true, false}
	decay := interval{0, 0.99, false, false}
	if loose {
		target, decay = anyFinite, anyFinite
	}
	p.adaptiveTarget = min(1, c.real("adaptive_target", params.AdaptiveTarget, -1, target))
	p.adaptiveDecay = min(0.99, max(0, c.real("adaptive_decay", params.AdaptiveDecay, 0.9, decay)))
}

func (p *plan) setPenalties(c *checker, preset Preset) {
	params := c.params
	p.repetition = c.real("repetition_penalty", params.RepetitionPenalty, 1, positive)
	p.frequency = c.real("frequency_penalty", params.FrequencyPenalty, 0, anyFinite)
	p.presence = c.real("presence_penalty", params.PresencePenalty, 0, anyFinite)
	p.lastN = c.integer("penalty_last_n", params.PenaltyLastN, -1, -1)
	p.encoderRepetition = c.real("encoder_repetition_penalty", params.EncoderRepetitionPenalty, 1, positive)
	p.dryMultiplier = c.real("dry_multiplier", params.DRYMultiplier, 0, notNegative)
	base := interval{1, infinity, false, true}
	if preset == LlamaCPP {
		base = anyFinite
	}
	p.dryBase = c.real("dry_base", params.DRYBase, 1.75, base)
	p.dryAllowed = c.integer("dry_allowed_length", params.DRYAllowedLength, 2, 0)
	p.dryLastN = c.integer("dry_penalty_last_n", params.DRYPenaltyLastN, -1, -1)
}

// setIDs copies all lists of ids, sorted where their order has no meaning.
func (p *plan) setIDs(c *checker) {
	params := c.params
	p.mostID = -1
	ids := func(name string, ids []int32) []int32 {
		for i, id := range ids {
			p.noteID(c, fmt.Sprintf("%s[%d]", name, i), id)
		}
		return slices.Clone(ids)
	}
	sorted := func(name string, list []int32) []int32 {
		list = ids(name, list)
		slices.Sort(list)
		return slices.Compact(list)
	}
	for id, value := range params.LogitBias {
		p.noteID(c, "logit_bias", id)
		if value != value || float64(value) == infinity {
			c.wrong("logit_bias of %d = %v is outside [-Inf, +Inf)", id, value)
		}
		p.bias = append(p.bias, biasOf{id, value})
	}
	slices.SortFunc(p.bias, func(a, b biasOf) int { return int(a.id) - int(b.id) })
	if len(params.AllowedIDs) == 0 && (params.AllowedIDs != nil || params.Has("allowed_ids")) {
		c.wrong("allowed_ids is empty, which allows nothing")
	}
	p.allowed = sorted("allowed_ids", params.AllowedIDs)
	p.banned = sorted("banned_ids", params.BannedIDs)
	p.eos = sorted("eos_ids", params.EOSIDs)
	p.xtcSpecial = sorted("xtc_special_ids", params.XTCSpecialIDs)
	p.dryBreakers = sorted("dry_sequence_breakers", params.DRYSequenceBreakers)
	for i, word := range params.BadWords {
		if len(word) == 0 {
			c.wrong("bad_words[%d] is empty", i)
			continue
		}
		word = ids(fmt.Sprintf("bad_words[%d]", i), word)
		if p.lonelyEOS && len(word) == 1 && slices.Contains(p.eos, word[0]) {
			continue
		}
		p.badWords = append(p.badWords, word)
	}
	for i, bias := range params.SequenceBias {
		name := fmt.Sprintf("sequence_bias[%d]", i)
		if len(bias.IDs) == 0 {
			c.wrong("%s has no ids", name)
		}
		if bias.Value != bias.Value || float64(bias.Value) == infinity {
			c.wrong("%s = %v is outside [-Inf, +Inf)", name, bias.Value)
		}
		p.sequenceBias = append(p.sequenceBias, SequenceBiasOf{ids(name, bias.IDs), bias.Value})
	}
	p.ngram = c.integer("no_repeat_ngram_size", params.NoRepeatNgramSize, 0, 0)
	p.encoderNgram = c.integer("encoder_no_repeat_ngram_size", params.EncoderNoRepeatNgramSize, 0, 0)
	p.minTokens = c.integer("min_tokens", params.MinTokens, 0, 0)
	for i, id := range params.ForcedIDs {
		if id != free {
			p.noteID(c, fmt.Sprintf("forced_ids[%d]", i), id)
		}
	}
	p.forced = slices.Clone(params.ForcedIDs)
	p.bitmask = slices.Clone(params.GrammarBitmask)
}

// free is a forced id that forces nothing.
const free = -1

// noteID checks an id as far as it can be without a vocabulary.
func (p *plan) noteID(c *checker, name string, id int32) {
	if id < 0 {
		c.wrong("%s: id %d is negative", name, id)
	}
	if id > p.mostID {
		p.mostID, p.mostName = id, name
	}
}

// fits reports an id of the parameters that is outside the vocabulary.
func (p *plan) fits(vocab int) error {
	if int(p.mostID) >= vocab {
		return fmt.Errorf("sampling: %s: id %d is outside 0 to %d: %w", p.mostName, p.mostID, vocab-1, ErrParams)
	}
	return nil
}

// isOn reports whether the parameters let a step do something.
func (p *plan) isOn(step Step) bool {
	switch step {
	case AllowedIDs:
		return len(p.allowed) > 0
	case BannedIDs:
		return len(p.banned) > 0
	case Bitmask:
		return len(p.bitmask) > 0
	case LogitBias:
		return len(p.bias) > 0
	case Penalties:
		return p.lastN != 0 && (p.repetition != 1 || p.frequency != 0 || p.presence != 0)
	case EncoderPenalty:
		return p.encoderRepetition != 1
	case DRY:
		return p.dryMultiplier != 0 && p.dryBase >= 1 && p.dryLastN != 0
	case NoRepeatNgram:
		return p.ngram > 0
	case EncoderNoRepeatNgram:
		return p.encoderNgram > 0
	case BadWords:
		return len(p.badWords) > 0
	case SequenceBias:
		return len(p.sequenceBias) > 0
	case MinTokens:
		return p.minTokens > 0 && len(p.eos) > 0
	case ForcedIDs:
		return len(p.forced) > 0
	case Temperature: // one that is dynamic takes its place
		if p.dynatempRange > 0 && slices.Contains(p.chain, DynamicTemperature) {
			return false
		}
		return p.greedy || p.temperature != 1 || p.dynatempRange > 0 && p.rangeInPlain
	case DynamicTemperature:
		return p.dynatempRange > 0 || !slices.Contains(p.chain, Temperature) && (p.greedy || p.temperature != 1)
	case MinP:
		return p.minP > 0
	case TopK:
		return p.topK > 0
	case TopP:
		return p.topP < 1
	case TypicalP:
		return p.typicalP < 1
	case EpsilonCutoff:
		return p.epsilonCutoff > 0
	case EtaCutoff:
		return p.etaCutoff > 0
	case TopNSigma:
		return p.topNSigma > 0
	case TopH:
		return p.topH < 1
	case XTC:
		return p.xtcProbability > 0 && p.xtcThreshold <= 0.5
	case AdaptiveP:
		return p.adaptiveTarget >= 0
	}
	return true // p_less and mirostat are on where a chain has them
}

// stepIsOn is isOn for a place of the chain.
func (p *plan) stepIsOn(i int) bool { return p.on>>i&1 == 1 }

// stepEdits reports whether the step at a place of the chain is on and an edit.
func (p *plan) stepEdits(i int) bool { return p.edits>>i&1 == 1 }

// skips reports whether the step at place i is a truncation before a greedy
// temperature that comes before them all.
func (p *plan) skips(i int) bool {
	if !p.greedyFirst || !p.greedy || p.stepEdits(i) || p.chain[i] == Temperature || p.chain[i] == DynamicTemperature {
		return false
	}
	for j := i + 1; j < len(p.chain); j++ {
		if p.chain[j] == Temperature && p.stepIsOn(j) {
			return true
		}
	}
	return false
}
