package sampling_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// Whatever the draft, tokens that were verified have the target's law: G-tests
// with a false alarm rate of 3.4e-6 each.
func TestVerifiedTokensHaveTheTargetsLaw(t *testing.T) {
	const vocab = 12
	n := 16000
	if testing.Short() {
		n = 4000
	}
	rng := rand.New(rand.NewPCG(4, 4))
	rows := func() []float32 { return topktest.Random(rng, 3*vocab) }
	target, other := rows(), rows()
	params := sampling.Params{Temperature: 0.9, TopP: 0.95}
	for name, draft := range map[string]struct {
		params sampling.Params
		logits []float32
	}{
		"the same law":          {params, target},
		"another temperature":   {sampling.Params{Temperature: 2}, target},
		"other logits":          {sampling.Params{Temperature: 1}, other},
		"greedy":                {sampling.Params{}, other},
		"few tokens of another": {sampling.Params{Temperature: 1, TopK: 2}, other},
	} {
		first, second, bonus := make([]int, vocab), make([]int, vocab), make([]int, vocab)
		lengths := make([]int, 3)
		probabilities := draftLaw(t, draft.params, draft.logits[:vocab])
		probabilities = append(probabilities, draftLaw(t, draft.params, draft.logits[vocab:2*vocab])...)
		for seed := range n {
			params.Seed = uint64(seed)
			draft.params.Seed = uint64(seed) + 1<<32 // independent of the target's
			drafter := newSampler(t, draft.params, sampling.Options{})
			var tokens []sampling.Token
			for i := range 2 {
				token, err := drafter.Sample(draft.logits[i*vocab : (i+1)*vocab])
				if err != nil {
					t.Fatal(err)
				}
				if err := drafter.Accept(token); err != nil {
					t.Fatal(err)
				}
				tokens = append(tokens, token)
			}
			drafter.Reset()
			proposal := sampling.Draft[float32]{Tokens: tokens, Sampler: drafter, Logits: draft.logits[:2*vocab]}
			if seed%2 == 1 { // the draft's law as probabilities
				proposal = sampling.Draft[float32]{Tokens: tokens, Probabilities: probabilities}
			}
			s := newSampler(t, params, sampling.Options{})
			dst := make([]sampling.Token, 3)
			accepted, err := s.Verify(dst, target, vocab, proposal)
			if err != nil {
				t.Fatal(err)
			}
			if s.Position() != 0 || drafter.Position() != 0 {
				t.Fatalf("positions %d and %d: something was accepted", s.Position(), drafter.Position())
			}
			if !slices.Equal(dst[:accepted], tokens[:accepted]) || dst[accepted] == sampling.NoToken || accepted < 2 && slices.Max(dst[accepted+1:]) != sampling.NoToken {
				t.Fatalf("accepted %d of %v: %v", accepted, tokens, dst)
			}
			lengths[accepted]++
			first[dst[0]]++
			if accepted > 0 {
				second[dst[1]]++
			}
			if accepted == 2 {
				bonus[dst[2]]++
			}
		}
		if name == "the same law" && (lengths[0] > 0 || lengths[1] > 0) {
			t.Errorf("%s: accepted none, one and both %v times", name, lengths)
		}
		for i, counts := range [][]int{first, second, bonus} {
			if total := lengths[2]; i == 2 && total < 200 {
				continue
			}
			g, freedom := gTest(counts, lawOf(t, target[i*vocab:(i+1)*vocab], params, sampling.Options{}))
			if z := normalOf(g, freedom); z > 4.5 {
				t.Errorf("%s, token %d: G = %v with %d degrees of freedom, %v", name, i, g, freedom, counts)
			}
		}
	}
}

// draftLaw returns a row's law as float32s.
func draftLaw(t *testing.T, params sampling.Params, logits []float32) []float32 {
	var row []float32
	for _, p := range lawOf(t, logits, params, sampling.Options{}) {
		row = append(row, float32(p))
	}
	return row
}

func TestVerifyGreedy(t *testing.T) {
	logits := []float32{0, 1, 9, 5, 5, 0, 7, 0, 1}
	flat := slices.Repeat([]float32{1. / 3}, 6)
	for _, test := range []struct {
		draft, want []sampling.Token
		accepted    int
	}{
		{[]sampling.Token{2, 0}, []sampling.Token{2, 0, 0}, 2}, // the tie of 5 and 5 is the smaller id
		{[]sampling.Token{2, 1}, []sampling.Token{2, 0, -1}, 1},
		{[]sampling.Token{0, 0}, []sampling.Token{2, -1, -1}, 0},
		{nil, []sampling.Token{2, -1, -1}, 0},
	} {
		s := newSampler(t, sampling.Params{}, sampling.Options{})
		dst := make([]sampling.Token, 3)
		accepted, err := s.Verify(dst, logits, 3, sampling.Draft[float32]{Tokens: test.draft, Probabilities: flat})
		if err != nil || accepted != test.accepted || !slices.Equal(dst, test.want) {
			t.Errorf("draft %v: %d accepted, %v, %v; want %d, %v", test.draft, accepted, dst, err, test.accepted, test.want)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	s := newSampler(t, sampling.Params{Temperature: 1}, sampling.Options{})
	good := sampling.Draft[float32]{Tokens: []sampling.Token{1}, Probabilities: []float32{0.5, 0.5}}
	logits, dst := []float32{1, 2, 3, 4}, make([]sampling.Token, 2)
	try := func(dst []sampling.Token, logits []float32, vocab int, change func(d *sampling.Draft[float32])) error {
		draft := good
		change(&draft)
		_, err := s.Verify(dst, logits, vocab, draft)
		return err
	}
	same := func(*sampling.Draft[float32]) {}
	for name, test := range map[string]struct {
		err, is error
	}{
		"few logits":        {try(dst, logits[:3], 2, same), sampling.ErrShape},
		"vocab 0":           {try(dst, logits, 0, same), sampling.ErrShape},
		"no room":           {try(dst[:1], logits, 2, same), sampling.ErrShape},
		"few probabilities": {try(dst, logits, 2, func(d *sampling.Draft[float32]) { d.Probabilities = d.Probabilities[:1] }), sampling.ErrShape},
		"id past the vocabulary": {try(dst, logits, 2, func(d *sampling.Draft[float32]) { d.Tokens = []sampling.Token{2} }),
			sampling.ErrParams},
		"probability NaN": {try(dst, logits, 2, func(d *sampling.Draft[float32]) { d.Probabilities = []float32{0, float32(math.NaN())} }),
			sampling.ErrParams},
		"few draft logits": {try(dst, logits, 2, func(d *sampling.Draft[float32]) { d.Sampler, d.Logits = s.Clone(), []float32{1} }), sampling.ErrShape},
		"a row with NaN":   {try(dst, []float32{float32(math.NaN()), 1, 2, 3}, 2, same), sampling.ErrNaN},
	} {
		if !errors.Is(test.err, test.is) {
			t.Errorf("%s: %v, want one that wraps %v", name, test.err, test.is)
		}
	}
	if err := try(dst, logits, 2, same); err != nil {
		t.Errorf("a good call behind bad ones: %v", err)
	}
	// A draft that holds no mass: nothing of it stands, the target is drawn from.
	dst = []sampling.Token{5, 5}
	if n, err := s.Verify(dst, logits, 2, sampling.Draft[float32]{Tokens: []sampling.Token{0}, Probabilities: []float32{0, 0}}); n != 0 || err != nil || dst[0] < 0 {
		t.Errorf("a draft without mass: %d, %v, %v", n, dst, err)
	}
}

func TestBeamStep(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	const vocab, beams = 40, 3
	for range 50 {
		logits := topktest.FewDistinct(rng, vocab*beams)
		scores := []float32{float32(rng.NormFloat64()), float32(rng.NormFloat64()), float32(math.Inf(-1))}
		got, err := sampling.BeamStep(logits, vocab, scores, nil)
		if err != nil || len(got) != 2*beams {
			t.Fatalf("%v, %v", got, err)
		}
		type entry struct {
			beam, token int
			score       float64
		}
		var all []entry
		for b := range beams {
			for i, p := range softmax(logits[b*vocab:(b+1)*vocab], 1) {
				all = append(all, entry{b, i, float64(scores[b]) + math.Log(p)})
			}
		}
		slices.SortStableFunc(all, func(a, b entry) int {
			switch {
			case a.score > b.score+1e-9:
				return -1
			case b.score > a.score+1e-9:
				return 1
			}
			return 0
		})
		for i, candidate := range got {
			if want := all[i]; candidate.Beam != want.beam || int(candidate.Token) != want.token || math.Abs(float64(candidate.Score)-want.score) > 1e-5 {
				t.Fatalf("candidate %d is %+v, want %+v", i, candidate, want)
			}
		}
	}
	banned := newSampler(t, sampling.Params{Temperature: 1, TopK: 1, BannedIDs: []int32{1}}, sampling.Options{})
	got, err := sampling.BeamStep([]float32{1, 9, 3}, 3, []float32{-1}, []*sampling.Sampler[float32]{banned})
	if err != nil || len(got) != 1 || got[0] != (sampling.BeamCandidate{Token: 2, Score: -1}) {
		t.Errorf("with a chain: %+v, %v", got, err)
	}
	nan := float32(math.NaN())
	for name, test := range map[string]struct {
		err error
		is  error
	}{
		"few logits":      {second(sampling.BeamStep([]float32{1}, 2, []float32{0}, nil)), sampling.ErrShape},
		"vocab 0":         {second(sampling.BeamStep([]float32{}, 0, []float32{0}, nil)), sampling.ErrShape},
		"few samplers":    {second(sampling.BeamStep([]float32{1, 2}, 1, []float32{0, 0}, []*sampling.Sampler[float32]{banned})), sampling.ErrShape},
		"no sampler":      {second(sampling.BeamStep([]float32{1, 2}, 2, []float32{0}, []*sampling.Sampler[float32]{nil})), sampling.ErrParams},
		"score NaN":       {second(sampling.BeamStep([]float32{1, 2}, 2, []float32{nan}, nil)), sampling.ErrParams},
		"a row with NaN":  {second(sampling.BeamStep([]float32{1, 2, nan, 1}, 2, []float32{0, 0}, nil)), sampling.ErrNaN},
		"a row of -Inf's": {second(sampling.BeamStep([]float32{float32(math.Inf(-1))}, 1, []float32{0}, nil)), sampling.ErrEmpty},
	} {
		if !errors.Is(test.err, test.is) || !strings.HasPrefix(test.err.Error(), "sampling: ") {
			t.Errorf("%s: %v, want one that wraps %v", name, test.err, test.is)
		}
	}
	if none, err := sampling.BeamStep([]float32{}, 5, nil, nil); err != nil || len(none) != 0 {
		t.Errorf("no beams: %v, %v", none, err)
	}
}

func second[A any](_ A, err error) error { return err }
