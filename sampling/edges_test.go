package sampling_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

// Rows and parameters at which float32 would give what the contract does not.
func TestEdges(t *testing.T) {
	named := func(parameters string) (p params) {
		if err := p.UnmarshalJSON([]byte(parameters)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, test := range []struct {
		name    string
		params  params
		history []int32
		logits  []float32
		kept    []int32
		token   sampling.Token
	}{
		{"xtc keeps what can be drawn", named(`{"xtc_probability":1,"xtc_threshold":0}`), nil, []float32{1, 2, -inf}, []int32{0, 2}, 0},
		{"xtc keeps tokens of no mass", named(`{"xtc_probability":1,"xtc_threshold":0}`), nil, []float32{-99, 2, 1}, []int32{2, 0}, 2},
		{"a bias of -Inf bans +Inf", params{LogitBias: map[int32]float32{0: -inf}}, nil, []float32{inf, 2, 1}, []int32{1}, 1},
		{"a bias of -Inf bans NaN", params{LogitBias: map[int32]float32{0: -inf}}, nil, []float32{nan, 2, 1}, []int32{1}, 1},
		{"a sequence bias of -Inf bans NaN", params{SequenceBias: []sampling.SequenceBiasOf{{IDs: []int32{0}, Value: -inf}}}, nil, []float32{nan, 2, 1}, []int32{1}, 1},
		{"a penalty leaves -Inf", params{FrequencyPenalty: -3e38, BannedIDs: []int32{0}}, []int32{0, 0, 0}, []float32{5, 2, 1}, []int32{1}, 1},
	} {
		s, err := sampling.New[float32](test.params, sampling.Options{History: test.history})
		if err != nil {
			t.Fatal(err)
		}
		if token, err := s.Sample(test.logits); token != test.token || err != nil {
			t.Errorf("%s: token %d, %v; want %d", test.name, token, err, test.token)
		}
		var kept []int32
		for _, candidate := range s.AppendKept(nil) {
			kept = append(kept, candidate.Token)
		}
		if !slices.Equal(kept, test.kept) {
			t.Errorf("%s: kept %v, want %v", test.name, kept, test.kept)
		}
	}
}

// An edit behind a greedy temperature finds logits that nothing has divided.
func TestExplainedLogitsBehindGreedy(t *testing.T) {
	s, err := sampling.New[float32](params{LogitBias: map[int32]float32{0: 1}}, sampling.Options{Chain: chain{sampling.Temperature, sampling.LogitBias}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Explain([]float32{3, 2, 5}, 0)
	if err != nil || !slices.Equal(e.Logits, []float32{4, 2, 5}) || e.Mass != 1 || e.Tokens[0] != 2 {
		t.Errorf("logits %v, mass %v, tokens %v, %v", e.Logits, e.Mass, e.Tokens, err)
	}
}

func TestBiasesOfOneIDTwice(t *testing.T) {
	for _, biases := range []string{`{"0":1,"0":2}`, `{"0":1,"-0":2}`} {
		var p params
		if err := p.Set("logit_bias", []byte(biases)); !errors.Is(err, sampling.ErrParams) {
			t.Errorf("%s: %v", biases, err)
		}
	}
}

// The zero value is refused, and does not panic.
func TestZeroSampler(t *testing.T) {
	var s sampling.Sampler[float32]
	logits, dst, status := []float32{1, 2}, make([]sampling.Token, 2), make([]sampling.Status, 1)
	_, sampled := s.Sample(logits)
	_, explained := s.Explain(logits, 1)
	_, verified := s.Verify(dst, logits, 1, sampling.Draft[float32]{Tokens: []sampling.Token{0}, Probabilities: []float32{1}})
	_, stepped := sampling.BeamStep(logits, 2, []float32{0}, []*sampling.Sampler[float32]{&s})
	for name, err := range map[string]error{"Sample": sampled, "Draw": s.Draw(dst, logits), "Explain": explained, "Verify": verified, "BeamStep": stepped} {
		if !errors.Is(err, sampling.ErrParams) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := sampling.SampleRows(dst, status, []*sampling.Sampler[float32]{&s}, logits, topk.Row(2, 0)); err != nil || status[0] != sampling.StatusBadParams {
		t.Errorf("SampleRows: %v, status %v", err, status[0])
	}
	s.SetBitmask([]int32{1})
	s.SetState(sampling.State{Begun: true})
	if err := errors.Join(s.Clone().Accept(1), s.Accept(1, 2), s.Rewind(1)); err != nil || s.Position() != 1 || len(s.History()) != 1 {
		t.Errorf("%v, position %d, history %v", err, s.Position(), s.History())
	}
	s.Reset()
	if kept, logprobs := s.AppendKept(nil), s.AppendProcessedLogprobs(nil, 0, 1); len(kept)+len(logprobs) > 0 {
		t.Errorf("kept %v, logprobs %v", kept, logprobs)
	}
	if logprobs, err := s.AppendLogprobs(nil, logits, 1, 1); err != nil || logprobs[0].Rank != 1 {
		t.Errorf("raw logprobs %v, %v", logprobs, err)
	}
}

// Verified tokens teach what the same tokens do one by one, of the target and of
// the draft, once they are accepted.
func TestVerifiedTokensTeach(t *testing.T) {
	const vocab, n = 50, 4
	rng := rand.New(rand.NewPCG(4, 9))
	logits := topktest.Random(rng, vocab*(n+1))
	for _, options := range []sampling.Options{{Chain: chain{sampling.MirostatV2}}, {Chain: chain{sampling.AdaptiveP}}, {Chain: chain{sampling.MirostatV1}}} {
		p := params{MirostatTau: 3, MirostatEta: 0.3, AdaptiveTarget: 0.3}
		rejected := false
		for p.Seed = range 40 {
			target := newSampler(t, p, options)
			drafting := newSampler(t, params{MirostatTau: 3, MirostatEta: 0.3, AdaptiveTarget: 0.3, Seed: p.Seed + 1000}, options)
			draft := sampling.Draft[float32]{Sampler: drafting.Clone(), Logits: logits}
			for i := range n {
				token, err := drafting.Sample(logits[i*vocab : (i+1)*vocab])
				if err != nil || drafting.Accept(token) != nil {
					t.Fatal(err)
				}
				draft.Tokens = append(draft.Tokens, token)
			}
			if p.Seed%2 == 1 { // a law that rejects some
				draft.Sampler, draft.Probabilities = nil, slices.Repeat([]float32{1. / vocab}, n*vocab)
				for i := range draft.Tokens {
					draft.Tokens[i] = sampling.Token(rng.IntN(vocab))
				}
			}
			dst := make([]sampling.Token, n+1)
			accepted, err := target.Verify(dst, logits, vocab, draft)
			if err != nil || p.Seed%2 == 0 && accepted != n { // equal laws accept everything
				t.Fatalf("%v: %d accepted, %v", options.Chain, accepted, err)
			}
			rejected = rejected || accepted < n
			if target.State().Begun || target.Position() != 0 {
				t.Fatalf("%v: a verification taught %+v", options.Chain, target.State())
			}
			var want sampling.State
			for i, token := range dst[:accepted+1] {
				if err := target.Accept(token); err != nil {
					t.Fatal(err)
				}
				one := newSampler(t, p, options)
				one.SetState(want)
				want = stateBehind(t, one, logits[i*vocab:(i+1)*vocab], token)
				if target.State() != want {
					t.Fatalf("%v: token %d of %v leaves %+v, want %+v", options.Chain, i, dst, target.State(), want)
				}
			}
		}
		if !rejected {
			t.Errorf("%v: no draft was rejected: not the test that was meant", options.Chain)
		}
	}
	s := newSampler(t, params{Temperature: 1}, sampling.Options{})
	if _, err := s.Verify(make([]sampling.Token, 2), logits, vocab, sampling.Draft[float32]{Tokens: []sampling.Token{1}, Sampler: s, Logits: logits}); !errors.Is(err, sampling.ErrParams) {
		t.Errorf("a draft of the Sampler itself: %v", err)
	}
}

// stateBehind draws until the token comes, and accepts it.
func stateBehind(t *testing.T, s *sampling.Sampler[float32], logits []float32, token sampling.Token) sampling.State {
	t.Helper()
	dst := make([]sampling.Token, len(logits)) // each token that has a mass
	if err := s.Draw(dst, logits); err != nil && !errors.Is(err, sampling.ErrExhausted) {
		t.Fatal(err)
	}
	if err := s.Accept(token); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(dst, token) {
		t.Fatalf("token %d has no mass", token)
	}
	return s.State()
}

// With top-k on, the token of a row that streams past is that of the whole row:
// all that decides it is what the stream has kept.
func TestStreamedRowsGiveTheSameToken(t *testing.T) {
	const vocab, k = 5000, 40
	rng := rand.New(rand.NewPCG(12, 3))
	result := topk.NewResult[topk.BFloat16](1, k)
	for n := range 200 {
		logits := topktest.Convert[topk.BFloat16](topktest.Random(rng, vocab))
		p := params{Temperature: 0.7, TopK: 1 + rng.IntN(k), TopP: 0.9, MinP: 0.02, Seed: rng.Uint64(), Position: uint64(n)}
		stream, err := topk.NewStream[topk.BFloat16](k, topk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < vocab; {
			end := min(vocab, at+1+rng.IntN(900))
			if err := stream.Push(logits[at:end]); err != nil {
				t.Fatal(err)
			}
			at = end
		}
		if err := stream.Finish(result); err != nil {
			t.Fatal(err)
		}
		streamed := slices.Repeat([]topk.BFloat16{topk.BFloat16FromFloat32(-inf)}, vocab)
		for i, id := range result.Indices {
			streamed[id] = result.Values[i]
		}
		tokens := make([]sampling.Token, 0, 2)
		for _, row := range [][]topk.BFloat16{logits, streamed} {
			s, err := sampling.New[topk.BFloat16](p, sampling.Options{})
			if err != nil {
				t.Fatal(err)
			}
			token, err := s.Sample(row)
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, token)
		}
		if tokens[0] != tokens[1] {
			t.Fatalf("k %d: token %d of the whole row, %d of the streamed one", p.TopK, tokens[0], tokens[1])
		}
	}
}

// Parameters come back from JSON as they went.
func TestParamsToJSON(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	for n := range 500 {
		p, _ := samplingtest.RandomParams(rng, 40)
		p.MirostatMu, p.Position, p.Replacement = []float32{0, inf, -inf, 1e-45}[n%4], rng.Uint64(), n%3 == 0
		for _, name := range []string{"top_p", "xtc_threshold", "eos_ids", "logit_bias", "bad_words", "sequence_bias"} { // zeros by name
			if zero := map[string]string{"eos_ids": "[]", "logit_bias": "{}", "bad_words": "[]", "sequence_bias": "[]"}[name]; rng.IntN(8) == 0 {
				if err := p.Set(name, []byte(max(zero, "0"))); err != nil {
					t.Fatal(err)
				}
			}
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		var back params
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again, err := json.Marshal(back)
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("%s came back as %s, %v", text, again, err)
		}
		// What is compared is the parameters without how they were set.
		if a, b := fmt.Sprintf("%v", values(p)), fmt.Sprintf("%v", values(back)); a != b {
			t.Fatalf("%s\ncame back as %s", a, b)
		}
	}
	if text, err := json.Marshal(params{TopK: 5, LogitBias: map[int32]float32{9: -inf, 2: 0.5}}); string(text) != `{"temperature":0,"top_k":5,"logit_bias":{"2":0.5,"9":"-Infinity"},"replacement":false}` || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

// values lists the exported fields.
func values(p params) (list []any) {
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			list = append(list, v.Field(i).Interface())
		}
	}
	return list
}

// A row of ties between two masked tokens takes no longer than others: with pivots
// from its ends, the seconds here would be minutes.
func TestTiesBetweenMaskedTokens(t *testing.T) {
	const vocab = 1 << 19
	s := newSampler(t, params{Temperature: 1, TopP: 0.5, BannedIDs: []int32{0, vocab - 1}}, sampling.Options{})
	begin := time.Now()
	e, err := s.Explain(make([]float32, vocab), 0)
	if err != nil || len(e.Kept) != vocab/2-1 {
		t.Fatalf("%d kept, %v", len(e.Kept), err)
	}
	if elapsed := time.Since(begin); elapsed > 20*time.Second {
		t.Errorf("%v for a row of ties", elapsed)
	}
}

// A number of tokens below 0 is none, for Explain as for logprobs.
func TestNegativeNumbersOfTokens(t *testing.T) {
	s, err := sampling.New[float32](params{Temperature: 1, TopK: 2}, sampling.Options{})
	if err != nil {
		t.Fatal(err)
	}
	logits := []float32{3, 2, 5}
	e, err := s.Explain(logits, -1)
	if err != nil || len(e.Kept) != 2 {
		t.Fatalf("%+v, %v", e, err)
	}
	for _, step := range e.Steps {
		if len(step.Top) > 0 {
			t.Errorf("step %s tells %v", step.Step, step.Top)
		}
	}
	if raw, err := s.AppendLogprobs(nil, logits, 2, -1); err != nil || len(raw) != 1 {
		t.Errorf("raw logprobs %v, %v", raw, err)
	}
	if _, err := s.Sample(logits); err != nil {
		t.Fatal(err)
	}
	if processed := s.AppendProcessedLogprobs(nil, 2, -1); len(processed) != 1 {
		t.Errorf("processed logprobs %v", processed)
	}
}
