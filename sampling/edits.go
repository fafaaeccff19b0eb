package sampling

import (
	"math"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/law"
)

var negativeInfinity = float32(math.Inf(-1))

// context is what the edits know of the sequence: ids within the vocabulary.
type context struct {
	prompt  []int32
	history []int32 // generated
	encoder []int32

	encoderIDs []int32 // those of encoder, each once
}

// edit changes the logit of one id.
type edit struct {
	id    int32
	op    op
	value float32
}

type op uint8

const (
	opMask     op = iota // -Inf
	opAdd                // l + value
	opShrink             // l > 0: l / value, else l * value
	opGrow               // l > 0: l * value, else l / value
	opSet                // value
	opPenalise           // the penalties of an id that occurs value times in what they count
)

// apply returns the edited logit, in single roundings of float32. What is masked
// stays masked, but for a forced id.
func (p *plan) apply(e *edit, l float32) float32 {
	if l == negativeInfinity && e.op != opSet {
		return l
	}
	switch e.op {
	case opPenalise:
		if p.repetition != 1 {
			l = shrunk(l, p.repetition)
		}
		if e.value > 0 {
			l -= float32(p.frequency * e.value)
			l -= p.presence
		}
		return l
	case opAdd:
		if e.value == negativeInfinity { // bans NaN and +Inf too
			return e.value
		}
		return l + e.value
	case opShrink:
		return shrunk(l, e.value)
	case opGrow:
		if l > 0 {
			return l * e.value
		}
		return l / e.value
	case opSet:
		return e.value
	}
	return negativeInfinity
}

// shrunk is a logit that is less likely by a factor. It has no branch on the sign,
// which is as good as random.
func shrunk(l, factor float32) float32 {
	quotient, product := math.Float32bits(l/factor), math.Float32bits(l*factor)
	if l > 0 {
		product = quotient
	}
	return math.Float32frombits(product)
}

// editor turns the steps that edit into lists of edits, and reuses its room.
type editor struct {
	plan *plan
	context
	sequence []int32 // scratch: prompt and history
	tally    tally
	repeats  []int
	lengths  []int // by id; zero between calls
	repeated []int32
}

// tally counts ids. It goes on from one row of a sequence to the next.
type tally struct {
	counts  []count
	places  []int32 // by id: 1 and its place in counts, or 0
	prompt  bool    // counted
	history int     // ids of it that are counted
}

// count is how often an id occurs.
type count struct {
	id          int32
	all, output int32
}

// reset forgets all counts.
func (t *tally) reset() {
	for _, c := range t.counts {
		t.places[c.id] = 0
	}
	t.counts, t.prompt, t.history = t.counts[:0], false, 0
}

// add counts ids.
func (t *tally) add(ids []int32, output bool) {
	for _, id := range ids {
		if int(id) >= len(t.places) {
			t.places = append(t.places, make([]int32, int(id)+1-len(t.places))...)
		}
		place := t.places[id]
		if place == 0 {
			t.counts = append(t.counts, count{id: id})
			place = int32(len(t.counts))
			t.places[id] = place
		}
		c := &t.counts[place-1]
		c.all++
		if output {
			c.output++
		}
	}
}

// edits appends what a sparse step edits, in the order of application.
func (e *editor) edits(dst []edit, step Step) []edit {
	p := e.plan
	switch step {
	case BannedIDs:
		for _, id := range p.banned {
			dst = append(dst, edit{id: id})
		}
	case LogitBias:
		for _, bias := range p.bias {
			dst = append(dst, edit{bias.id, opAdd, bias.value})
		}
	case Penalties:
		dst = e.penalties(dst)
	case EncoderPenalty:
		for _, id := range e.encoderIDs {
			dst = append(dst, edit{id, opGrow, p.encoderRepetition})
		}
	case DRY:
		dst = e.dry(dst)
	case NoRepeatNgram:
		dst = banNgrams(dst, e.all(), e.all(), p.ngram)
	case EncoderNoRepeatNgram:
		dst = banNgrams(dst, e.all(), e.encoder, p.encoderNgram)
	case BadWords:
		past := e.all()
		if p.wordsInOutput {
			past = e.history
		}
		for _, word := range p.badWords {
			if last := len(word) - 1; endsWith(past, word[:last]) {
				dst = append(dst, edit{id: word[last]})
			}
		}
	case SequenceBias:
		for _, bias := range p.sequenceBias {
			if last := len(bias.IDs) - 1; endsWith(e.all(), bias.IDs[:last]) {
				dst = append(dst, edit{bias.IDs[last], opAdd, bias.Value})
			}
		}
	case MinTokens:
		if len(e.history) < p.minTokens {
			for _, id := range p.eos {
				dst = append(dst, edit{id: id})
			}
		}
	case ForcedIDs:
		if id := e.forced(); id != free {
			dst = append(dst, edit{id: id, op: opSet})
		}
	}
	return dst
}

// forced returns the id that must come next, or free.
func (e *editor) forced() int32 {
	if next := len(e.history); next < len(e.plan.forced) {
		return e.plan.forced[next]
	}
	return free
}

// masksMost reports whether a step masks all ids but some, which are allowed.
func (e *editor) masksMost(step Step) bool {
	return step == AllowedIDs || step == Bitmask || step == ForcedIDs && e.forced() != free
}

// allows reports whether a step that masks most leaves the id.
func (e *editor) allows(step Step, id int32) bool {
	switch step {
	case AllowedIDs:
		_, found := slices.BinarySearch(e.plan.allowed, id)
		return found
	case Bitmask:
		return bitmaskAllows(e.plan.bitmask, id)
	}
	return id == e.forced()
}

// bitmaskAllows reports whether bit id of the mask is 1 or past its end.
func bitmaskAllows(mask []int32, id int32) bool {
	word := int(id) / 32
	return word >= len(mask) || mask[word]>>(id%32)&1 == 1
}

// all returns prompt and history.
func (e *editor) all() []int32 {
	if len(e.prompt) == 0 {
		return e.history
	}
	if len(e.sequence) == 0 {
		e.sequence = append(append(e.sequence, e.prompt...), e.history...)
	}
	return e.sequence
}

// lastOf returns the last n ids, all of them for -1.
func lastOf(ids []int32, n int) []int32 {
	if n < 0 || n > len(ids) {
		return ids
	}
	return ids[len(ids)-n:]
}

// penalties appends, for each id of the window: repetition, then frequency,
// then presence.
func (e *editor) penalties(dst []edit) []edit {
	p, t := e.plan, &e.tally
	if p.lastN >= 0 {
		t.reset()
		output := lastOf(e.history, p.lastN)
		t.add(lastOf(e.prompt, p.lastN-len(output)), p.wholeWindow)
		t.add(output, true)
	} else {
		if !t.prompt {
			t.add(e.prompt, p.wholeWindow)
			t.prompt = true
		}
		t.add(e.history[t.history:], true)
		t.history = len(e.history)
	}
	for _, c := range t.counts {
		if c.output > 0 || p.repetition != 1 {
			dst = append(dst, edit{c.id, opPenalise, float32(c.output)})
		}
	}
	return dst
}

// endsWith reports whether the latest ids are those of the suffix.
func endsWith(ids, suffix []int32) bool {
	return len(ids) >= len(suffix) && slices.Equal(ids[len(ids)-len(suffix):], suffix)
}

// banNgrams masks what would complete, behind the latest n-1 ids of past, n ids
// that occur in text.
func banNgrams(dst []edit, past, text []int32, n int) []edit {
	if len(past) < n-1 {
		return dst
	}
	prefix := past[len(past)-(n-1):]
	for i := 0; i+n <= len(text); i++ {
		if slices.Equal(text[i:i+n-1], prefix) {
			dst = append(dst, edit{id: text[i+n-1]})
		}
	}
	return dst
}

// largestExponent is log2 of what a penalty's power of the base may reach.
const largestExponent = 127.99999

// dry appends the penalties of tokens that would go on with a repeat of the
// latest ids: don't repeat yourself, as text-generation-webui's pull request
// 5677 defines it.
func (e *editor) dry(dst []edit) []edit {
	p := e.plan
	past := lastOf(e.all(), p.dryLastN)
	n := len(past)
	if n <= p.dryAllowed {
		return dst
	}
	limit := n // of a repeat: it holds no breaker
	for i := range n {
		if _, found := slices.BinarySearch(p.dryBreakers, past[n-1-i]); found {
			limit = i
			break
		}
	}
	if limit < p.dryAllowed {
		return dst
	}
	e.suffixes(past)
	// The longest repeat that each token would go on with, plus one.
	for back := 1; back < n; back++ {
		id, length := past[n-back], min(e.repeats[back], limit)
		if length < p.dryAllowed {
			continue
		}
		if int(id) >= len(e.lengths) {
			e.lengths = append(e.lengths, make([]int, int(id)+1-len(e.lengths))...)
		}
		if e.lengths[id] == 0 {
			e.repeated = append(e.repeated, id)
		}
		e.lengths[id] = max(e.lengths[id], length+1)
	}
	most := math.MaxInt
	if p.dryBase > 1.000001 {
		most = int(largestExponent / law.Log2(float64(p.dryBase)))
	}
	for _, id := range e.repeated {
		exponent := min(e.lengths[id]-1-p.dryAllowed, most)
		e.lengths[id] = 0
		if _, found := slices.BinarySearch(p.dryBreakers, id); !found {
			penalty := float32(float64(p.dryMultiplier) * power(float64(p.dryBase), exponent))
			dst = append(dst, edit{id, opAdd, -penalty})
		}
	}
	e.repeated = e.repeated[:0]
	return dst
}

// suffixes sets repeats[back], for each back from 1 on, to how many ids before
// the place that lies back ids before the end equal the latest ids: the
// Z-function of the reversed sequence. Gusfield, "Algorithms on Strings, Trees
// and Sequences", 1997, 1.3.
func (e *editor) suffixes(past []int32) {
	n := len(past)
	z := slices.Grow(e.repeats[:0], n)[:n]
	left, right := 0, 0 // the match that reaches furthest: [left, right)
	for k := 1; k < n; k++ {
		length := 0
		if k < right {
			length = min(right-k, z[k-left])
		}
		for k+length < n && past[n-1-length] == past[n-1-k-length] {
			length++
		}
		z[k] = length
		if k+length > right {
			left, right = k, k+length
		}
	}
	e.repeats = z
}

// power returns base^n by repeated squaring.
func power(base float64, n int) float64 {
	result := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			result *= base
		}
		base *= base
	}
	return result
}
