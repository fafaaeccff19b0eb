//go:build linux && (amd64 || arm64)

package cuda

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// A Verifier gives the verdicts of package sampling.
func TestVerifier(t *testing.T) {
	fake(t)
	m := &memory{device: open(t, 0), buffers: map[string]*Buffer{}}
	rng := rand.New(rand.NewPCG(21, 21))
	const batches = 12 // all endings occur in so many
	t.Run("float32", func(t *testing.T) { requireEnds(t, testVerifier[float32](t, m, rng, batches, 16, 1, 2, 33, 300, 2600)) })
	t.Run("float16", func(t *testing.T) {
		requireEnds(t, testVerifier[topk.Float16](t, m, rng, batches, 16, 1, 2, 33, 300, 2600))
	})
	t.Run("bfloat16", func(t *testing.T) {
		requireEnds(t, testVerifier[topk.BFloat16](t, m, rng, batches, 16, 1, 2, 33, 300, 2600))
	})
}

func TestVerifierGraph(t *testing.T) {
	fake(t)
	testVerifierGraph(t, open(t, 0), 40)
}

// Whatever the draft, the first token has the target's law: each within 4 standard deviations.
// One seed serves all sequences, so that each has a draw of its own.
func TestVerifiedTokensHaveTheTargetsLaw(t *testing.T) {
	fake(t)
	d := open(t, 0)
	const sequences, vocab = 800, 8
	rng := rand.New(rand.NewPCG(25, 25))
	target := []float32{1.5, 0.5, 0, -1, 2, 0.3, -4, 1}
	params := sampling.Params{Temperature: 0.8, TopP: 0.97, Seed: 77, Position: 3}
	for name, draft := range map[string]sampling.Params{
		"the same":   {Temperature: 0.8, TopP: 0.97},
		"flat":       {Temperature: 20},
		"two tokens": {Temperature: 1, TopK: 2},
		"greedy":     {},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, d)
			law := []float32{0.5, 1, 0, 1, 1, -0.3, 2, -1}
			if name == "the same" {
				law = target
			}
			var logits, laws []float32
			var drafted []int32
			for range sequences {
				draft.Seed = rng.Uint64()
				drafter, err := sampling.New[float32](draft, sampling.Options{})
				if err != nil {
					t.Fatal(err)
				}
				token, err := drafter.Sample(law)
				if err != nil {
					t.Fatal(err)
				}
				logits, laws, drafted = append(append(logits, target...), target...), append(laws, law...), append(drafted, token)
			}
			v, err := d.NewVerifier(params, draft, VerifierOptions{FirstDraw: 5})
			if err != nil {
				t.Fatal(err)
			}
			call := verification{
				verifier: v, stream: m.stream, shape: VerifyShape{Sequences: sequences, Drafts: 1, Vocab: vocab},
				logits: Logits{upload(m, "logits", 0, logits), Float32},
				drafts: Drafts{Tokens: upload(m, "drafted", 0, drafted), Logits: upload(m, "laws", 0, laws)},
				to: Verified{
					Tokens: upload(m, "tokens", 0, make([]int32, 2*sequences)), Stride: 2,
					Accepted: upload(m, "accepted", 0, make([]int32, sequences)), Status: upload(m, "status", 0, make([]uint8, sequences)),
				},
				workspace: Workspace{upload(m, "workspace", 0, make([]uint64, sequences)), VerifyBytes(sequences)},
			}
			if err := errors.Join(m.err, call.do()); err != nil {
				t.Fatal(err)
			}
			verdicts, err := call.answer(m)
			if err != nil {
				t.Fatal(err)
			}
			counts, accepted := make([]float64, vocab), 0
			for s, verdict := range verdicts {
				counts[verdict.tokens[0]]++
				accepted += verdict.accepted
				if s >= 3 {
					continue
				}
				cpu, err := sampling.New[float32](params, sampling.Options{FirstDraw: 5 + uint32(s)})
				if err != nil {
					t.Fatal(err)
				}
				drafter, err := sampling.New[float32](draft, sampling.Options{})
				if err != nil {
					t.Fatal(err)
				}
				want := make([]sampling.Token, 2)
				if _, err := cpu.Verify(want, logits[:2*vocab], vocab, sampling.Draft[float32]{Tokens: drafted[s : s+1], Sampler: drafter, Logits: law}); err != nil {
					t.Fatal(err)
				}
				if verdict.tokens[0] != want[0] || verdict.tokens[1] != want[1] {
					t.Errorf("sequence %d: %v, want %v", s, verdict.tokens, want)
				}
			}
			if (accepted == sequences) != (name == "the same") {
				t.Errorf("%d of %d drafts are accepted", accepted, sequences)
			}
			cpu, err := sampling.New[float32](params, sampling.Options{})
			if err != nil {
				t.Fatal(err)
			}
			kept, err := cpu.Explain(target, 0)
			if err != nil {
				t.Fatal(err)
			}
			probabilities := make([]float64, vocab)
			for _, token := range kept.Kept {
				probabilities[token.Token] = token.Probability
			}
			for id, p := range probabilities {
				if z := (counts[id] - p*sequences) / math.Sqrt(p*(1-p)*sequences); counts[id] > 0 && p == 0 || p > 0 && math.Abs(z) > 4 {
					t.Errorf("token %d: %v times of %d with probability %v, z = %.2f", id, counts[id], sequences, p, z)
				}
			}
		})
	}
}

// What a device does not have is named.
func TestVerifierNamesWhatIsUnsupported(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	for _, c := range []struct {
		params sampling.Params
		preset sampling.Preset
		want   error
		names  string
	}{
		{sampling.Params{Temperature: 1}, sampling.HF, ErrUnsupported, "hf"},
		{sampling.Params{TypicalP: 0.5}, "", ErrUnsupported, "typical_p"},
		{sampling.Params{TopNSigma: 1}, "", ErrUnsupported, "top_n_sigma"},
		{sampling.Params{XTCProbability: 0.5, XTCThreshold: 0.1}, "", ErrUnsupported, "xtc"},
		{sampling.Params{PresencePenalty: 1}, "", ErrUnsupported, "penalties"},
		{sampling.Params{RepetitionPenalty: 1.5}, sampling.Nanochat, ErrUnsupported, "penalties"},
		{sampling.Params{LogitBias: map[int32]float32{3: 1}}, "", ErrUnsupported, "logit_bias"},
		{sampling.Params{GrammarBitmask: []int32{1}}, "", ErrUnsupported, "bitmask"},
		{sampling.Params{MinKeep: 2}, "", ErrUnsupported, "min_keep"},
		{sampling.Params{TopP: 2}, "", sampling.ErrParams, "top_p"},
	} {
		for side, make := range map[string]func() (*Verifier, error){
			"target": func() (*Verifier, error) {
				return d.NewVerifier(c.params, sampling.Params{}, VerifierOptions{Preset: c.preset})
			},
			"draft": func() (*Verifier, error) {
				return d.NewVerifier(sampling.Params{}, c.params, VerifierOptions{DraftPreset: c.preset})
			},
		} {
			v, err := make()
			if v != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.names) || !strings.Contains(err.Error(), side) {
				t.Errorf("%s, %+v: %v, want %v that names it and %s", side, c.params, err, c.want, c.names)
			}
		}
	}
	if _, err := d.NewVerifier(sampling.Params{}, sampling.Params{}, VerifierOptions{MostTopK: -1}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a negative top_k: %v", err)
	}
}

// A call that does not fit is refused; one that fits allocates nothing.
func TestVerifierRefuses(t *testing.T) {
	fake(t)
	d := open(t, 0)
	m := newMemory(t, d)
	v, err := d.NewVerifier(sampling.Params{Temperature: 1}, sampling.Params{Temperature: 1}, VerifierOptions{})
	if err != nil {
		t.Fatal(err)
	}
	memory := m.buffer("all", 1<<16)
	if err := errors.Join(m.err, Fill(m.stream, memory, 0)); err != nil {
		t.Fatal(err)
	}
	p := memory.Pointer()
	good := verification{
		verifier: v, stream: m.stream, shape: VerifyShape{Sequences: 2, Drafts: 3, Vocab: 100}, logits: Logits{p, BFloat16},
		drafts: Drafts{Tokens: p + 16384, Logits: p + 8192}, to: Verified{Tokens: p + 17408}, workspace: Workspace{p + 18432, VerifyBytes(2)},
	}
	for name, c := range map[string]struct {
		change func(c *verification)
		want   error
	}{
		"sequences":          {func(c *verification) { c.shape.Sequences = -1 }, topk.ErrShape},
		"drafts":             {func(c *verification) { c.shape.Drafts = MostDrafts + 1 }, topk.ErrShape},
		"vocab 0":            {func(c *verification) { c.shape.Vocab = 0 }, topk.ErrShape},
		"large vocab":        {func(c *verification) { c.shape.Vocab = sampling.MaxVocab + 1 }, topk.ErrShape},
		"many rows":          {func(c *verification) { c.shape.Sequences, c.shape.Drafts = 1<<20, 1<<16 }, topk.ErrShape},
		"stride":             {func(c *verification) { c.shape.Stride = 99 }, topk.ErrShape},
		"overflow":           {func(c *verification) { c.shape.Stride = math.MaxInt / 16 }, topk.ErrShape},
		"law stride":         {func(c *verification) { c.drafts.LawStride = 99 }, topk.ErrShape},
		"drafted stride":     {func(c *verification) { c.drafts.Stride = 2 }, topk.ErrShape},
		"token stride":       {func(c *verification) { c.to.Stride = 3 }, topk.ErrShape},
		"no law":             {func(c *verification) { c.drafts.Logits = 0 }, topk.ErrShape},
		"two laws":           {func(c *verification) { c.drafts.Probabilities = p }, topk.ErrShape},
		"dtype":              {func(c *verification) { c.logits.DType = 9 }, topk.ErrDType},
		"no workspace":       {func(c *verification) { c.workspace = Workspace{} }, ErrWorkspace},
		"little workspace":   {func(c *verification) { c.workspace.Bytes-- }, ErrWorkspace},
		"no tokens":          {func(c *verification) { c.to.Tokens = 0 }, nil},
		"odd tokens":         {func(c *verification) { c.to.Tokens++ }, nil},
		"no drafted tokens":  {func(c *verification) { c.drafts.Tokens = 0 }, nil},
		"odd workspace":      {func(c *verification) { c.workspace.Pointer += 4 }, nil},
		"odd counts":         {func(c *verification) { c.drafts.Counts = p + 2 }, nil},
		"odd probabilities":  {func(c *verification) { c.drafts.Logits, c.drafts.Probabilities = 0, p+2 }, nil},
		"odd seeds":          {func(c *verification) { c.target.Seed = p + 4 }, nil},
		"a foreign address":  {func(c *verification) { c.draft.TopP = 4096 }, nil},
		"typical_p":          {func(c *verification) { c.target.TypicalP = p }, ErrUnsupported},
		"top_n_sigma":        {func(c *verification) { c.draft.TopNSigma = p }, ErrUnsupported},
		"xtc_probability":    {func(c *verification) { c.target.XTCProbability = p }, ErrUnsupported},
		"xtc_threshold":      {func(c *verification) { c.draft.XTCThreshold = p }, ErrUnsupported},
		"repetition":         {func(c *verification) { c.target.Repetition = p }, ErrUnsupported},
		"frequency":          {func(c *verification) { c.target.Frequency = p }, ErrUnsupported},
		"presence":           {func(c *verification) { c.draft.Presence = p }, ErrUnsupported},
		"counted tokens":     {func(c *verification) { c.target.Edits.PenaltyCount = 1 }, ErrUnsupported},
		"bitmask":            {func(c *verification) { c.target.Edits.Bitmask = p }, ErrUnsupported},
		"biases":             {func(c *verification) { c.draft.Edits.BiasCount = 1 }, ErrUnsupported},
		"a stream elsewhere": {func(c *verification) { c.stream = &Stream{} }, nil},
	} {
		call := good
		c.change(&call)
		if err := call.do(); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want an error that wraps %v", name, err, c.want)
		}
	}
	none := good
	none.shape.Sequences = 0
	if err := errors.Join(good.do(), none.do(), m.stream.Synchronize()); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(20, func() { err = errors.Join(err, good.do()) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations a call", n)
	}
	if err := errors.Join(err, m.stream.Synchronize(), v.Close()); err != nil {
		t.Fatal(err)
	}
	if err := good.do(); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed Verifier: %v", err)
	}
}
