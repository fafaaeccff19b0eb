package sampling_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
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
