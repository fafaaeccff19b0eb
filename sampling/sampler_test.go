package sampling_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// newSampler fails the test if there is no such Sampler.
func newSampler(t testing.TB, params sampling.Params, options sampling.Options) *sampling.Sampler[float32] {
	t.Helper()
	s, err := sampling.New[float32](params, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSequences(t *testing.T) {
	logits := topktest.Random(rand.New(rand.NewPCG(1, 1)), 500)
	p := sampling.Params{Temperature: 1, RepetitionPenalty: 1.5, PresencePenalty: 1, DRYMultiplier: 1, Seed: 9, Position: 100}
	generate := func(s *sampling.Sampler[float32], n int) (tokens []sampling.Token) {
		for range n {
			token, err := s.Sample(logits)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Accept(token); err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, token)
		}
		return tokens
	}
	for _, chain := range []sampling.Chain{nil, {sampling.Penalties, sampling.MirostatV1}, {sampling.MirostatV2}, {sampling.MinP, sampling.AdaptiveP}} {
		p.AdaptiveTarget, p.MinP = 0.2, 0.01
		s := newSampler(t, p, sampling.Options{Chain: chain, Prompt: []int32{5, 6}, History: []int32{7}})
		first := generate(s, 40)
		if s.Position() != 140 || !slices.Equal(s.History()[1:], first) {
			t.Fatalf("position %d, history %v behind %v", s.Position(), s.History(), first)
		}
		clone := s.Clone()
		rest := generate(s, 20)
		if again := generate(clone, 20); !slices.Equal(again, rest) {
			t.Errorf("%v: a clone went on with %v, the original with %v", chain, again, rest)
		}
		if err := s.Rewind(30); err != nil {
			t.Fatal(err)
		}
		if again := generate(s, 30); !slices.Equal(again, append(slices.Clone(first[30:]), rest...)) {
			t.Errorf("%v: after a rewind %v, before %v%v", chain, again, first[30:], rest)
		}
		s.Reset()
		if again := generate(s, 40); !slices.Equal(again, first) {
			t.Errorf("%v: after a reset %v, before %v", chain, again, first)
		}
		if err := s.Rewind(41); !errors.Is(err, sampling.ErrParams) || !strings.Contains(err.Error(), "41") {
			t.Errorf("a rewind past the start: %v", err)
		}
		if err := s.Accept(3, 500); !errors.Is(err, sampling.ErrParams) || s.Position() != 140 {
			t.Errorf("an id past the vocabulary: %v, position %d", err, s.Position())
		}
	}
}

// Mirostat brings the mean surprise to its target, from both sides.
func TestMirostatReachesItsTarget(t *testing.T) {
	logits := topktest.Random(rand.New(rand.NewPCG(3, 1)), 3000)
	for _, step := range []sampling.Step{sampling.MirostatV1, sampling.MirostatV2} {
		for _, tau := range []float32{3, 6} {
			s := newSampler(t, sampling.Params{MirostatTau: tau, MirostatEta: 0.1, Seed: 4}, sampling.Options{Chain: sampling.Chain{step}})
			sum, n := 0.0, 0
			for i := range 1500 {
				token, err := s.Sample(logits)
				if err != nil {
					t.Fatal(err)
				}
				if i >= 300 {
					sum -= float64(s.AppendProcessedLogprobs(nil, token, 0)[0].Logprob) / math.Ln2
					n++
				}
				if err := s.Accept(token); err != nil {
					t.Fatal(err)
				}
			}
			if mean := sum / float64(n); math.Abs(mean-float64(tau)) > 0.25 {
				t.Errorf("%s, tau %v: mean surprise %v bits", step, tau, mean)
			}
		}
	}
}

// Adaptive-p lifts tokens of about the probability that it aims at.
func TestAdaptiveP(t *testing.T) {
	p := lawOf(t, logarithms(0.6, 0.3, 0.1), sampling.Params{AdaptiveTarget: 0.3}, sampling.Options{Chain: sampling.Chain{sampling.AdaptiveP}})
	// Distances from 0.3 in widths of 0.3 are 1, 0 and 2/3: logits 5 - 10 d^2/(1+d).
	a, b, c := math.Exp(-5.), 1., math.Exp(-10*4./9/(5./3))
	want := []float64{a / (a + b + c), b / (a + b + c), c / (a + b + c)}
	if !slices.EqualFunc(p, want, func(a, b float64) bool { return math.Abs(a-b) < 1e-5 }) {
		t.Errorf("law %v, want %v", p, want)
	}
	s := newSampler(t, sampling.Params{AdaptiveTarget: 0.3, AdaptiveDecay: 0.5}, sampling.Options{Chain: sampling.Chain{sampling.AdaptiveP}})
	e, err := s.Explain(logarithms(1), 0)
	if err != nil {
		t.Fatal(err)
	}
	// The average began at 0.3 with weight 2; the token had the probability 1.
	if got, want := e.State, (sampling.State{Begun: true, Sum: 1 + 0.5*0.6, Weight: 2}); math.Abs(float64(got.Sum-want.Sum)) > 1e-6 || got.Weight != want.Weight {
		t.Errorf("state %+v, want %+v", got, want)
	}
	if off := lawOf(t, logarithms(0.6, 0.4), sampling.Params{}, sampling.Options{Chain: sampling.Chain{sampling.AdaptiveP}}); math.Abs(off[0]-0.6) > 1e-6 {
		t.Errorf("without a target: law %v", off)
	}
}

// A batch answers row by row, whatever its size and order.
func TestBatchesChangeNothing(t *testing.T) {
	const vocab, rows = 300, 1024
	rng := rand.New(rand.NewPCG(2, 2))
	logits := make([]topk.BFloat16, 0, rows*vocab)
	var samplers []*sampling.Sampler[topk.BFloat16]
	want := make([]sampling.Token, 0, 2*rows)
	status := make([]sampling.Status, rows)
	for i := range rows {
		row := topktest.Convert[topk.BFloat16](topktest.Rows()[i%len(topktest.Rows())].Make(rng, vocab))
		params, options := samplingtest.RandomParams(rng, vocab)
		params.Replacement = true
		s, err := sampling.New[topk.BFloat16](params, options)
		if err != nil {
			t.Fatal(err)
		}
		logits, samplers = append(logits, row...), append(samplers, s)
		tokens := make([]sampling.Token, 2)
		err = s.Draw(tokens, row)
		want = append(want, tokens...)
		if errors.Is(err, sampling.ErrNaN) {
			status[i] = sampling.StatusNaN
		} else if errors.Is(err, sampling.ErrEmpty) {
			status[i] = sampling.StatusEmpty
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{1, 2, 7, 32, 512} {
		for first := 0; first+size <= rows; first += size {
			tokens, statuses := make([]sampling.Token, 2*size), make([]sampling.Status, size)
			err := sampling.SampleRows(tokens, statuses, samplers[first:first+size], logits[first*vocab:], topk.Shape{Rows: size, Vocab: vocab})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(tokens, want[2*first:2*(first+size)]) || !slices.Equal(statuses, status[first:first+size]) {
				t.Fatalf("batch of %d from row %d: %v, %v; alone %v, %v", size, first, tokens, statuses, want[2*first:2*(first+size)], status[first:first+size])
			}
		}
	}
	for _, i := range rng.Perm(rows) { // one after the other, in another order
		tokens := make([]sampling.Token, 2)
		if err := sampling.SampleRows(tokens, nil, samplers[i:i+1], logits[i*vocab:], topk.Row(vocab, 0)); err != nil || !slices.Equal(tokens, want[2*i:2*i+2]) {
			t.Fatalf("row %d: %v, %v, before %v", i, tokens, err, want[2*i:2*i+2])
		}
	}
}

// A Sampler that is there for several rows by name serves one after the other, however
// large the batch.
func TestBatchNamesASamplerTwice(t *testing.T) {
	const vocab, rows = 300, 1024
	logits := topktest.Random(rand.New(rand.NewPCG(2, 3)), rows*vocab)
	s := newSampler(t, sampling.Params{Temperature: 1, Seed: 5, TopP: 0.9}, sampling.Options{})
	tokens := make([]sampling.Token, rows)
	shape := topk.Shape{Rows: rows, Vocab: vocab}
	if err := sampling.SampleRows(tokens, nil, slices.Repeat([]*sampling.Sampler[float32]{s, nil}, rows/2), logits, shape); err != nil {
		t.Fatal(err)
	}
	for i, token := range tokens {
		want := sampling.NoToken
		if i%2 == 0 {
			var err error
			if want, err = s.Sample(logits[i*vocab : (i+1)*vocab]); err != nil {
				t.Fatal(err)
			}
		}
		if token != want {
			t.Fatalf("row %d: %d, alone %d", i, token, want)
		}
	}
}

// One Sampler for a batch: row i uses draws i*n to i*n+n-1.
func TestOneSeedForABatch(t *testing.T) {
	const vocab, rows, draws = 50, 6, 3
	logits := make([]float32, vocab)
	s := newSampler(t, sampling.Params{Temperature: 1, Seed: 5, Replacement: true}, sampling.Options{})
	all := make([]sampling.Token, rows*draws)
	if err := s.Draw(all, logits); err != nil {
		t.Fatal(err)
	}
	batch := make([]sampling.Token, rows*draws)
	if err := sampling.SampleRows(batch, nil, []*sampling.Sampler[float32]{s}, logits, topk.Shape{Rows: rows, Vocab: vocab, Expand: true}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(all, batch) {
		t.Errorf("equal rows got %v, draws of one row %v", batch, all)
	}
	late := newSampler(t, sampling.Params{Temperature: 1, Seed: 5, Replacement: true}, sampling.Options{FirstDraw: 4 * draws})
	row := make([]sampling.Token, draws)
	if err := late.Draw(row, logits); err != nil || !slices.Equal(row, all[4*draws:5*draws]) {
		t.Errorf("from draw %d on: %v, %v", 4*draws, row, all[4*draws:5*draws])
	}
}

func TestBatchesWithBadRows(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	logits := []float32{1, 2, 3, nan, 1, 1, -inf, -inf, -inf, 3, 2, 1, 1, inf, 2}
	greedy := func(options sampling.Options) *sampling.Sampler[float32] {
		return newSampler(t, sampling.Params{}, options)
	}
	samplers := []*sampling.Sampler[float32]{greedy(sampling.Options{}), greedy(sampling.Options{}), greedy(sampling.Options{}),
		greedy(sampling.Options{Prompt: []int32{3}}), greedy(sampling.Options{})}
	tokens, status := make([]sampling.Token, 5), make([]sampling.Status, 5)
	shape := topk.Shape{Rows: 5, Vocab: 3}
	if err := sampling.SampleRows(tokens, status, samplers, logits, shape); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(tokens, []sampling.Token{2, -1, -1, -1, 1}) ||
		!slices.Equal(status, []sampling.Status{sampling.StatusOK, sampling.StatusNaN, sampling.StatusEmpty, sampling.StatusBadParams, sampling.StatusOK}) {
		t.Errorf("tokens %v, statuses %v", tokens, status)
	}
	samplers[1] = nil
	if err := sampling.SampleRows(tokens, status, samplers, logits, shape); err != nil || status[1] != sampling.StatusBadParams || tokens[0] != 2 {
		t.Errorf("a row without a sampler: %v, %v, %v", tokens, status, err)
	}
	for name, err := range map[string]error{
		"logits":   sampling.SampleRows(tokens, status, samplers, logits[:14], shape),
		"samplers": sampling.SampleRows(tokens, status, samplers[:2], logits, shape),
		"tokens":   sampling.SampleRows(tokens[:4], status, samplers, logits, shape),
		"status":   sampling.SampleRows(tokens, status[:4], samplers, logits, shape),
		"rows":     sampling.SampleRows(tokens, status, samplers, logits, topk.Shape{Rows: -1, Vocab: 3}),
		"vocab":    sampling.SampleRows(tokens[:1], status, samplers[:1], make([]float32, 1<<20+1), topk.Row(1<<20+1, 0)),
	} {
		if !errors.Is(err, sampling.ErrShape) {
			t.Errorf("bad %s: %v, want an ErrShape", name, err)
		}
	}
}

func TestStatusesAreErrors(t *testing.T) {
	for status, want := range map[sampling.Status]error{
		sampling.StatusOK: nil, sampling.StatusNaN: sampling.ErrNaN, sampling.StatusEmpty: sampling.ErrEmpty,
		sampling.StatusExhausted: sampling.ErrExhausted, sampling.StatusBadParams: sampling.ErrParams,
	} {
		if status.Err() != want || status.String() == "" {
			t.Errorf("status %v has the error %v, want %v", status, status.Err(), want)
		}
	}
}

func TestLogitsAreNotWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	for range 200 {
		vocab := 50 + rng.IntN(200)
		logits := topktest.Random(rng, vocab)
		before := slices.Clone(logits)
		params, options := samplingtest.RandomParams(rng, vocab)
		params.Softcap = pick[float32](rng, 0, 3)
		s := newSampler(t, params, options)
		_, _ = s.Sample(logits)
		if _, err := s.Explain(logits, 2); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(before, logits) {
			t.Fatalf("%+v changed the logits", params)
		}
	}
}

func TestSteadySamplersDoNotAllocate(t *testing.T) {
	logits := topktest.Random(rand.New(rand.NewPCG(1, 6)), 3000)
	for name, params := range map[string]sampling.Params{
		"vllm":      {Temperature: 0.8, TopK: 50, TopP: 0.95, MinP: 0.05},
		"greedy":    {},
		"penalties": {Temperature: 0.8, TopK: 20, RepetitionPenalty: 1.1, PresencePenalty: 0.5, LogitBias: map[int32]float32{5: 1}},
		"bitmask":   {Temperature: 1, TopK: 20, GrammarBitmask: slices.Repeat([]int32{0x55555555}, 93)},
		"no filter": {Temperature: 1},
		"top-p":     {Temperature: 1, TopP: 0.9},
		"typical":   {Temperature: 1, TypicalP: 0.9},
		"others":    {Temperature: 1, TopNSigma: 1, XTCProbability: 1, XTCThreshold: 0.1, EtaCutoff: 0.01, TopH: 0.5},
		"dry":       {Temperature: 1, TopK: 10, DRYMultiplier: 1, NoRepeatNgramSize: 2},
	} {
		s := newSampler(t, params, sampling.Options{History: []int32{1, 2, 3, 1, 2}, Prompt: []int32{1, 9}})
		kept, logprobs := s.AppendKept(nil), []sampling.Logprob{}
		if raceEnabled {
			t.Skip("the race detector allocates")
		}
		if allocs := testing.AllocsPerRun(20, func() {
			token, err := s.Sample(logits)
			if err != nil {
				t.Fatal(err)
			}
			kept = s.AppendKept(kept[:0])
			logprobs = s.AppendProcessedLogprobs(logprobs[:0], token, 3)
			if logprobs, err = s.AppendLogprobs(logprobs, logits, token, 3); err != nil {
				t.Fatal(err)
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations a token", name, allocs)
		}
	}
}

// The names of parameters in JSON are those of the fields.
func TestParamsInJSON(t *testing.T) {
	var p sampling.Params
	if err := json.Unmarshal([]byte(`{"top_k":5,"logit_bias":{"7":-1.5},"bad_words":[[1,2],[3]],"sequence_bias":[[[1,2],0.5]],"seed":18446744073709551615,
		"min_p":1e-1,"eos_ids":[2],"mirostat_mu":"-Infinity"}`), &p); err != nil {
		t.Fatal(err)
	}
	if p.TopK != 5 || p.LogitBias[7] != -1.5 || len(p.BadWords) != 2 || p.SequenceBias[0].Value != 0.5 || p.Seed != math.MaxUint64 ||
		p.MinP != 0.1 || p.EOSIDs[0] != 2 || !math.IsInf(float64(p.MirostatMu), -1) {
		t.Errorf("read %+v", p)
	}
	if p.Temperature != 1 || !p.Replacement {
		t.Errorf("an absent temperature is %v, absent replacement %v", p.Temperature, p.Replacement)
	}
	if err := json.Unmarshal([]byte(`{"temperature":0,"replacement":false}`), &p); err != nil || p.Temperature != 0 || p.Replacement || p.TopK != 5 {
		t.Errorf("read %+v, %v", p, err)
	}
	own := sampling.Params{Temperature: 0.7}
	if err := json.Unmarshal([]byte(`{"top_k":5}`), &own); err != nil || own.Temperature != 0.7 || own.TopK != 5 {
		t.Errorf("over a temperature of 0.7: %+v, %v", own, err)
	}
	for _, bad := range []string{`[]`, `{"top_k":"5"}`, `{"TopK":5}`, `{"top_k":1,"top_k":1}`, `{"min_p":null}`, `{"eos_ids":2}`, `{"logit_bias":[1]}`, `{"logit_bias":{"x":1}}`} {
		if err := json.Unmarshal([]byte(bad), new(sampling.Params)); !errors.Is(err, sampling.ErrParams) {
			t.Errorf("%s: %v, want an ErrParams", bad, err)
		}
	}
	for _, name := range sampling.ParamNames() {
		for _, value := range []string{"1", "[1]", "true", `{"1":1}`, "[[1]]", "[[[1],1]]"} {
			if p.Set(name, []byte(value)) == nil {
				goto settable
			}
		}
		t.Errorf("%s takes no value", name)
	settable:
	}
}

// What no parameter turns on does nothing, and no step adds a token.
func TestStepsOnlyRemove(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 3))
	for range 300 {
		vocab := 20 + rng.IntN(100)
		logits := topktest.Random(rng, vocab)
		for _, step := range sampling.Steps() {
			switch step {
			case sampling.PLess, sampling.MirostatV1, sampling.MirostatV2:
				continue // on wherever a chain has them
			}
			if got := lawOf(t, logits, sampling.Params{Temperature: 1}, sampling.Options{Chain: sampling.Chain{step}}); slices.Contains(got, 0) {
				t.Fatalf("%s removed tokens without a parameter", step)
			}
		}
		params, options := samplingtest.RandomParams(rng, vocab)
		s := newSampler(t, params, options)
		e, err := s.Explain(logits, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := vocab
		for _, step := range e.Steps {
			if step.Kept > before || step.Kept < 1 {
				t.Fatalf("%s kept %d of %d: %+v", step.Step, step.Kept, before, params)
			}
			before = step.Kept
		}
		if e.Status == sampling.StatusOK && len(e.Kept) != before {
			t.Fatalf("%d kept behind the last step, %d in the answer", before, len(e.Kept))
		}
		// Repeating a step that only its own threshold decides changes nothing.
		for _, step := range []sampling.Step{sampling.Temperature, sampling.MinP, sampling.TopK, sampling.BannedIDs} {
			once := lawOf(t, logits, params, sampling.Options{Preset: options.Preset, Chain: sampling.Chain{step}})
			if twice := lawOf(t, logits, params, sampling.Options{Preset: options.Preset, Chain: sampling.Chain{step, step}}); !slices.Equal(once, twice) {
				t.Fatalf("%s twice is not %s once: %+v", step, step, params)
			}
		}
	}
}
