package sampling_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
)

// reference is the contract written for reading, in float64 and without the law:
// softmax, sums and logarithms are those of package math. It tells which of its
// decisions are so close that a rounding may turn them.
type reference struct {
	params  sampling.Params
	options sampling.Options
	greedy  bool
	logits  []float32 // edited, by id
	kept    []int     // in contract order
	t       float64
	close   bool
	whole   float64 // sglang: the mass before top-k
}

// runReference runs a chain without draws. The XTC coin is the caller's.
func runReference(params sampling.Params, options sampling.Options, logits []float32, coin bool) *reference {
	r := &reference{params: params, options: options, logits: slices.Clone(logits), t: 1}
	for i := range logits {
		r.kept = append(r.kept, i)
	}
	chain := options.Chain
	if chain == nil {
		chain = options.Preset.Chain()
	}
	r.sort()
	for _, step := range chain {
		if step == sampling.XTC && !coin {
			continue
		}
		r.step(step)
		r.sort()
	}
	return r
}

func (r *reference) sort() {
	sort.SliceStable(r.kept, func(a, b int) bool {
		x, y := r.logits[r.kept[a]], r.logits[r.kept[b]]
		return x > y || x == y && r.kept[a] < r.kept[b]
	})
}

// probabilities returns the softmax of the kept, in their order.
func (r *reference) probabilities() []float64 {
	p, sum := make([]float64, len(r.kept)), 0.0
	most := float64(r.logits[r.kept[0]])
	for i, id := range r.kept {
		p[i] = math.Exp((float64(r.logits[id]) - most) / r.t)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

func entropy(p []float64) float64 {
	h := 0.0
	for _, x := range p {
		if x > 0 {
			h -= x * math.Log(x)
		}
	}
	return h
}

// atLeast reports a >= b, and notes whether that is close.
func (r *reference) atLeast(a, b float64) bool {
	if math.Abs(a-b) <= 3e-6*math.Max(math.Abs(a), math.Abs(b)) && a != 0 {
		r.close = true
	}
	return a >= b
}

// keep keeps the chosen, at least n of the first.
func (r *reference) keep(n int, choose func(i int) bool) {
	var kept []int
	for i, id := range r.kept {
		if choose(i) {
			kept = append(kept, id)
		}
	}
	if len(kept) < n {
		kept = r.kept[:min(n, len(r.kept))]
	}
	r.kept = kept
}

func (r *reference) mask(id int) { r.logits[id] = float32(math.Inf(-1)) }

func (r *reference) edit(change func()) {
	for id := range r.logits {
		r.logits[id] = float32(float64(r.logits[id]) / r.t)
	}
	r.t = 1
	change()
}

func contains(ids []int32, id int) bool { return slices.Contains(ids, int32(id)) }

func (r *reference) step(step sampling.Step) {
	p, o := r.params, r.options
	preset := o.Preset
	if preset == "" {
		preset = sampling.VLLM
	}
	all := slices.Concat(o.Prompt, o.History)
	least := max(1, p.MinKeep)
	if edits := slices.Index(sampling.Steps(), sampling.Temperature); r.greedy && slices.Index(sampling.Steps(), step) >= edits {
		return
	}
	t, kept, logits := r.t, len(r.kept), slices.Clone(r.logits)
	defer func() {
		if step != sampling.TopK && (r.t != t || len(r.kept) != kept || !slices.Equal(r.logits, logits)) {
			r.whole = 0 // top-p cuts from what is there now
		}
	}()
	switch step {
	case sampling.AllowedIDs:
		if p.AllowedIDs != nil {
			r.edit(func() {
				for id := range r.logits {
					if !contains(p.AllowedIDs, id) {
						r.mask(id)
					}
				}
			})
		}
	case sampling.BannedIDs:
		if len(p.BannedIDs) > 0 {
			r.edit(func() {
				for _, id := range p.BannedIDs {
					r.mask(int(id))
				}
			})
		}
	case sampling.Bitmask:
		if len(p.GrammarBitmask) > 0 {
			r.edit(func() {
				for id := range r.logits {
					if id/32 < len(p.GrammarBitmask) && uint32(p.GrammarBitmask[id/32])&(1<<(id%32)) == 0 {
						r.mask(id)
					}
				}
			})
		}
	case sampling.LogitBias:
		if len(p.LogitBias) > 0 {
			r.edit(func() {
				for id, bias := range p.LogitBias {
					r.logits[id] += bias
				}
			})
		}
	case sampling.Penalties:
		r.penalties(preset)
	case sampling.EncoderPenalty:
		if p.EncoderRepetitionPenalty != 0 && p.EncoderRepetitionPenalty != 1 && len(o.Encoder) > 0 {
			r.edit(func() {
				for id := range r.logits {
					if !contains(o.Encoder, id) {
						continue
					}
					if r.logits[id] > 0 {
						r.logits[id] *= p.EncoderRepetitionPenalty
					} else {
						r.logits[id] /= p.EncoderRepetitionPenalty
					}
				}
			})
		}
	case sampling.DRY:
		r.dry(all)
	case sampling.NoRepeatNgram, sampling.EncoderNoRepeatNgram:
		n, text := p.NoRepeatNgramSize, all
		if step == sampling.EncoderNoRepeatNgram {
			n, text = p.EncoderNoRepeatNgramSize, o.Encoder
		}
		if n > 0 && len(all) >= n-1 {
			for id := range r.logits {
				ngram := append(slices.Clone(all[len(all)-n+1:]), int32(id))
				for i := 0; i+n <= len(text); i++ {
					if slices.Equal(text[i:i+n], ngram) {
						r.edit(func() { r.mask(id) })
					}
				}
			}
		}
	case sampling.BadWords:
		past := all
		if preset == sampling.VLLM {
			past = o.History
		}
		for _, word := range p.BadWords {
			before := word[:len(word)-1]
			if preset == sampling.HF && len(word) == 1 && contains(p.EOSIDs, int(word[0])) {
				continue
			}
			if len(past) >= len(before) && slices.Equal(past[len(past)-len(before):], before) {
				r.edit(func() { r.mask(int(word[len(before)])) })
			}
		}
	case sampling.SequenceBias:
		for _, bias := range p.SequenceBias {
			before := bias.IDs[:len(bias.IDs)-1]
			if len(all) >= len(before) && slices.Equal(all[len(all)-len(before):], before) {
				r.edit(func() { r.logits[bias.IDs[len(before)]] += bias.Value })
			}
		}
	case sampling.MinTokens:
		if len(o.History) < p.MinTokens && len(p.EOSIDs) > 0 {
			r.edit(func() {
				for _, id := range p.EOSIDs {
					r.mask(int(id))
				}
			})
		}
	case sampling.ForcedIDs:
		if n := len(o.History); n < len(p.ForcedIDs) && p.ForcedIDs[n] >= 0 {
			r.edit(func() {
				for id := range r.logits {
					r.mask(id)
				}
				r.logits[p.ForcedIDs[n]] = 0
			})
		}
	case sampling.Temperature:
		r.setTemperature(preset, float64(p.Temperature))
	case sampling.DynamicTemperature:
		switch {
		case p.DynatempRange == 0:
			r.setTemperature(preset, float64(p.Temperature))
		case len(r.kept) > 1:
			r.t = 1
			t, width, exponent := float64(p.Temperature), float64(p.DynatempRange), float64(p.DynatempExponent)
			if exponent == 0 {
				exponent = 1
			}
			low, high := math.Max(0, t-width), t+width
			h := entropy(r.probabilities()) / math.Log(float64(len(r.kept)))
			r.setTemperature(preset, low+(high-low)*math.Pow(h, exponent))
		}
	case sampling.TopK:
		k := p.TopK
		if k <= 0 || k >= len(r.kept) {
			return
		}
		r.whole = 0
		if preset == sampling.SGLang {
			r.whole = 1
		}
		if preset == sampling.HF {
			k = max(k, p.MinKeep)
			for k < len(r.kept) && r.logits[r.kept[k]] == r.logits[r.kept[k-1]] {
				k++
			}
		}
		if r.whole > 0 {
			for _, x := range r.probabilities()[k:] {
				r.whole -= x
			}
		}
		r.kept = r.kept[:min(k, len(r.kept))]
	case sampling.TopP:
		r.topP(preset, least)
	case sampling.MinP:
		if p.MinP > 0 {
			prob := r.probabilities()
			r.keep(least, func(i int) bool { return r.atLeast(prob[i], float64(p.MinP)*prob[0]) })
		}
	case sampling.TypicalP:
		if p.TypicalP > 0 && p.TypicalP < 1 {
			r.typical(preset, least)
		}
	case sampling.EpsilonCutoff:
		r.cutoff(preset, least, float64(p.EpsilonCutoff))
	case sampling.EtaCutoff:
		eps := float64(p.EtaCutoff)
		r.cutoff(preset, least, math.Min(eps, math.Sqrt(eps)*math.Exp(-entropy(r.probabilities()))))
	case sampling.TopNSigma:
		if p.TopNSigma > 0 {
			n, sum, squares := 0.0, 0.0, 0.0
			most := float64(r.logits[r.kept[0]])
			for _, id := range r.kept {
				if l := float64(r.logits[id]); !math.IsInf(l, 0) {
					n, sum, squares = n+1, sum+(l-most), squares+(l-most)*(l-most)
				}
			}
			sigma := math.Sqrt(math.Max(0, squares/n-sum/n*sum/n))
			r.keep(1, func(i int) bool {
				d := most - float64(r.logits[r.kept[i]])
				if math.Abs(d-float64(p.TopNSigma)*sigma) < 4e-5*(1+sigma) { // the grid is 2^-16
					r.close = r.close || d > 0
				}
				return d <= float64(p.TopNSigma)*sigma
			})
		}
	case sampling.TopH:
		if p.TopH > 0 && p.TopH < 1 {
			prob := r.probabilities()
			most := float64(p.TopH) * entropy(prob)
			r.close = r.close || most < 1e-3 // the law has steps of 2^-42
			n := 1
			for ; n < len(prob); n++ {
				part, sum := slices.Clone(prob[:n+1]), 0.0
				for _, x := range part {
					sum += x
				}
				for i := range part {
					part[i] /= sum
				}
				if !r.atLeast(most, entropy(part)) {
					break
				}
			}
			r.kept = r.kept[:n]
		}
	case sampling.PLess:
		prob, squares := r.probabilities(), 0.0
		for _, x := range prob {
			squares += x * x
		}
		r.keep(1, func(i int) bool { return r.atLeast(prob[i], squares) })
	case sampling.XTC:
		if p.XTCProbability > 0 && p.XTCThreshold > 0 && p.XTCThreshold <= 0.5 {
			prob, likely := r.probabilities(), 0
			for _, x := range prob {
				if r.atLeast(x, float64(p.XTCThreshold)) {
					likely++
				}
			}
			var kept []int
			for i, id := range r.kept {
				if i >= likely-1 || contains(p.XTCSpecialIDs, id) {
					kept = append(kept, id)
				}
			}
			if likely >= 2 && len(kept) >= least {
				r.kept = kept
			}
		}
	}
}

func (r *reference) setTemperature(preset sampling.Preset, t float64) {
	if preset == sampling.Ollama && t > 0 {
		t = math.Max(t, 1e-7)
	}
	least := map[sampling.Preset]float64{sampling.VLLM: 1e-5, sampling.SGLang: 1e-6}[preset]
	if t <= 0 || t < least {
		r.greedy, r.kept, r.t = true, r.kept[:1], 1
		return
	}
	r.t = t
}

func (r *reference) penalties(preset sampling.Preset) {
	p, o := r.params, r.options
	window := -1
	if p.PenaltyLastN > 0 {
		window = p.PenaltyLastN
	}
	repetition := p.RepetitionPenalty
	if repetition == 0 {
		repetition = 1
	}
	all := slices.Concat(o.Prompt, o.History)
	start := 0
	if window >= 0 {
		start = max(0, len(all)-window)
	}
	for id := range r.logits {
		seen, output := false, 0
		for i := start; i < len(all); i++ {
			if int(all[i]) == id {
				seen = true
				if i >= len(o.Prompt) || preset == sampling.LlamaCPP || preset == sampling.MLX {
					output++
				}
			}
		}
		if !seen || repetition == 1 && (output == 0 || p.FrequencyPenalty == 0 && p.PresencePenalty == 0) {
			continue
		}
		r.edit(func() {
			l := r.logits[id]
			if l > 0 {
				l /= repetition
			} else {
				l *= repetition
			}
			if output > 0 {
				l -= float32(p.FrequencyPenalty * float32(output))
				l -= p.PresencePenalty
			}
			r.logits[id] = l
		})
	}
}

func (r *reference) dry(all []int32) {
	p := r.params
	if p.DRYMultiplier == 0 {
		return
	}
	base, allowed := float64(p.DRYBase), p.DRYAllowedLength
	if base == 0 {
		base = float64(float32(1.75))
	}
	if allowed == 0 {
		allowed = 2
	}
	if p.DRYPenaltyLastN > 0 {
		all = all[max(0, len(all)-p.DRYPenaltyLastN):]
	}
	for id := range r.logits {
		longest := 0
		for at, next := range all {
			if int(next) != id || contains(p.DRYSequenceBreakers, id) {
				continue
			}
			length := 0
			for length < at && all[at-1-length] == all[len(all)-1-length] && !contains(p.DRYSequenceBreakers, int(all[at-1-length])) {
				length++
			}
			longest = max(longest, length)
		}
		if longest >= allowed {
			r.edit(func() {
				r.logits[id] -= float32(float64(p.DRYMultiplier) * math.Pow(base, float64(longest-allowed)))
			})
		}
	}
}

func (r *reference) topP(preset sampling.Preset, least int) {
	limit := float64(r.params.TopP)
	if limit == 0 || limit >= 1 {
		return
	}
	prob, sum, n := r.probabilities(), 0.0, 0
	whole := 1.0
	if r.whole > 0 {
		whole = 1 / r.whole // prob is a share of what top-k left
	}
	for n < len(prob) {
		if n >= least && r.atLeast(sum, limit*whole) {
			break
		}
		sum += prob[n]
		n++
	}
	r.kept = r.kept[:n]
	_ = preset // all forms differ in close calls alone
}

func (r *reference) typical(preset sampling.Preset, least int) {
	prob := r.probabilities()
	h := entropy(prob)
	type scored struct {
		place int
		d     float64
	}
	var list []scored
	for i, x := range prob {
		list = append(list, scored{i, math.Abs(-math.Log(x) - h)})
	}
	sort.SliceStable(list, func(a, b int) bool { return list[a].d < list[b].d })
	sum, n := 0.0, 0
	for n < len(list) && !r.atLeast(sum, float64(r.params.TypicalP)) {
		sum += prob[list[n].place]
		n++
	}
	for preset == sampling.HF && n < len(list) && list[n].d == list[n-1].d {
		n++
	}
	n = min(max(n, least), len(list))
	if n < len(list) && list[n].d-list[n-1].d < 1e-5 && r.logits[r.kept[list[n].place]] != r.logits[r.kept[list[n-1].place]] {
		r.close = true // the order of the two may differ
	}
	for i := 1; i < n; i++ { // and what comes in between
		if (math.Abs(sum-float64(r.params.TypicalP)) < 2e-3 || n == least) && list[i].d-list[i-1].d < 1e-5 {
			r.close = true
		}
	}
	places := map[int]bool{}
	for _, s := range list[:n] {
		places[s.place] = true
	}
	r.keep(1, func(i int) bool { return places[i] })
}

func (r *reference) cutoff(preset sampling.Preset, least int, cut float64) {
	if cut <= 0 {
		return
	}
	prob := r.probabilities()
	if preset == sampling.HF {
		for least < len(r.kept) && r.logits[r.kept[least]] == r.logits[r.kept[least-1]] {
			least++
		}
	}
	r.keep(least, func(i int) bool { return r.atLeast(prob[i], cut) })
}

// rowKinds make the rows on which kept sets are compared.
var rowKinds = []struct {
	name string
	make func(rng *rand.Rand, n int) []float32
}{
	{"random", func(rng *rand.Rand, n int) []float32 {
		return fill(n, func() float32 { return float32(rng.NormFloat64() * 2) })
	}},
	{"flat", func(rng *rand.Rand, n int) []float32 {
		return fill(n, func() float32 { return float32(rng.NormFloat64() * 0.01) })
	}},
	{"peaked", func(rng *rand.Rand, n int) []float32 {
		row := fill(n, func() float32 { return float32(rng.NormFloat64()) })
		row[rng.IntN(n)] = 12
		return row
	}},
	{"ties", func(rng *rand.Rand, n int) []float32 {
		return fill(n, func() float32 { return float32(rng.IntN(5)) * 0.7 })
	}},
	{"masked", func(rng *rand.Rand, n int) []float32 {
		return fill(n, func() float32 {
			if rng.IntN(3) > 0 {
				return float32(math.Inf(-1))
			}
			return float32(rng.NormFloat64())
		})
	}},
}

func fill(n int, element func() float32) []float32 {
	row := make([]float32, n)
	for i := range row {
		row[i] = element()
	}
	return row
}

func TestKeptSetsOfAReference(t *testing.T) {
	cases := 20000
	if testing.Short() {
		cases = 2000
	}
	compared, tooClose, empty := 0, 0, 0
	for n := range cases {
		rng := rand.New(rand.NewPCG(7, uint64(n)))
		kind := rowKinds[rng.IntN(len(rowKinds))]
		vocab := 5 + rng.IntN(120)
		logits := kind.make(rng, vocab)
		params, options := samplingtest.RandomParams(rng, vocab)
		if options.Preset == sampling.LlamaCPP && params.DynatempRange > 0 && options.Chain != nil {
			params.DynatempRange = 0 // the plain temperature is then dynamic
		}
		if (options.Preset == sampling.MLX || params.DynatempRange > 0) && params.Temperature == 0 {
			params.Temperature = 0.5 // greedy before all else, and dynamic from 0, are tested by name
		}
		s, err := sampling.New[float32](params, options)
		if err != nil {
			t.Fatalf("case %d: %v", n, err)
		}
		e, err := s.Explain(logits, 0)
		if err != nil {
			t.Fatalf("case %d: %v", n, err)
		}
		if e.Status != sampling.StatusOK {
			empty++
			continue
		}
		coin := law.Coin(law.Uniform(params.Seed, 0, 0, law.XTC), params.XTCProbability)
		want := runReference(params, options, logits, coin)
		if want.close {
			tooClose++
			continue
		}
		compared++
		var kept []int
		for _, candidate := range e.Kept {
			kept = append(kept, int(candidate.Token))
		}
		if !slices.Equal(kept, want.kept) {
			t.Fatalf("case %d, %s of %d, preset %q, chain %v:\n%+v\n%+v\nkept %v\nwant %v", n, kind.name, vocab, options.Preset, options.Chain, params, options, kept, want.kept)
		}
		for i, id := range kept {
			if got := e.Logits[id]; got != want.logits[id] && math.Abs(float64(got-want.logits[id])) > 1e-5*math.Abs(float64(got))+1e-7 {
				t.Fatalf("case %d, preset %q, chain %v: logit of %d is %v, want %v, from %v, %+v %+v", n, options.Preset, options.Chain, id, got, want.logits[id], logits[id], params, options)
			}
			p := want.probabilities()[i]
			if want.greedy {
				p = 1
			}
			if math.Abs(e.Kept[i].Probability-p) > 2e-6 {
				t.Fatalf("case %d, preset %q, chain %v: probability of %d is %v, want %v, at %v, %+v", n, options.Preset, options.Chain, id, e.Kept[i].Probability, p, want.t, params)
			}
		}
	}
	if compared < cases/2 {
		t.Errorf("%d cases, of them %d compared, %d too close, %d without a token: not the test that was meant", cases, compared, tooClose, empty)
	}
	if testing.Verbose() {
		fmt.Printf("%d cases, %d compared, %d too close, %d without a token\n", cases, compared, tooClose, empty)
	}
}
