package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// chains are sequences whose drafts are verified in one call.
type chains[T topk.Float] struct {
	shape                VerifyShape
	presets              [2]sampling.Preset // of target and draft
	softcaps             [2]float32
	sequences            []chain
	logits, draftLogits  []T // of no draft if there are probabilities
	probabilities        []float32
	target, draft, lawBy int // strides, and bytes that logits are off by
}

// chain is one of them.
type chain struct {
	target, draft sampling.Params
	tokens        []sampling.Token // drafted
	count         int              // of them, as the device is told
}

// verdict is what a chain comes to.
type verdict struct {
	tokens   []sampling.Token
	accepted int
	status   sampling.Status
}

// randomParams returns the parameters of a sequence.
func randomParams(rng *rand.Rand, vocab int) sampling.Params {
	p := sampling.Params{
		Temperature: []float32{0, 0.6, 1, 1, 2, 5}[rng.IntN(6)], TopK: []int{0, 0, 1, 3, 50, 700, vocab, vocab + 5}[rng.IntN(8)],
		TopP: []float32{0, 0, 0.5, 0.95}[rng.IntN(4)], MinP: []float32{0, 0, 0.1, 0.001}[rng.IntN(4)],
		Seed: rng.Uint64(), Position: rng.Uint64N(1000),
	}
	if rng.IntN(60) == 0 {
		p.Temperature = float32(math.NaN())
	}
	return p
}

// randomChains returns sequences of all kinds: drafts that are the target's own, near it and
// elsewhere, of rows of every kind, with what is wrong in some.
func randomChains[T topk.Float](rng *rand.Rand, sequences, drafts, vocab int) *chains[T] {
	presets := []sampling.Preset{"", sampling.VLLM, sampling.Nanochat}
	c := &chains[T]{shape: VerifyShape{Sequences: sequences, Drafts: drafts, Vocab: vocab}}
	for i := range c.presets {
		c.presets[i], c.softcaps[i] = presets[rng.IntN(3)], []float32{0, 0, 3}[rng.IntN(3)]
	}
	c.target, c.draft = vocab+rng.IntN(4), vocab+rng.IntN(4)
	c.lawBy = rng.IntN(9) * int(dtypeOf[T]().Bytes())
	c.logits, c.draftLogits = make([]T, sequences*(drafts+1)*c.target), make([]T, sequences*drafts*c.draft)
	probable := rng.IntN(2) == 0
	if probable {
		c.probabilities = make([]float32, sequences*drafts*c.draft)
	}
	kinds := topktest.Rows()
	nan := float32(math.NaN())
	for s := range sequences {
		one := chain{target: randomParams(rng, vocab), draft: randomParams(rng, vocab), count: drafts}
		if rng.IntN(3) == 0 {
			one.count = rng.IntN(drafts + 1)
		}
		kind, like := kinds[rng.IntN(len(kinds))], rng.IntN(4)
		if rng.IntN(2) == 0 {
			kind = topktest.RowKind{Name: "random", Make: topktest.Random}
		}
		if like == 0 {
			seed := one.draft.Seed
			one.draft = one.target
			one.draft.Seed = seed
		}
		for i := range drafts + 1 {
			row := kind.Make(rng, vocab)
			if i == drafts {
				if rng.IntN(20) == 0 {
					row[rng.IntN(vocab)] = nan
				}
				copy(c.logits[(s*(drafts+1)+i)*c.target:], topktest.Convert[T](row))
				break
			}
			other := slices.Clone(row)
			switch like {
			case 0:
			case 1, 2:
				for j := range other {
					other[j] += float32(rng.NormFloat64()) * float32(like) / 4
				}
			default:
				other = kinds[rng.IntN(len(kinds))].Make(rng, vocab)
			}
			for _, row := range [][]float32{row, other} {
				switch rng.IntN(60) {
				case 0:
					row[rng.IntN(vocab)] = nan
				case 1:
					for j := range row {
						row[j] = float32(math.Inf(-1))
					}
				}
			}
			copy(c.logits[(s*(drafts+1)+i)*c.target:], topktest.Convert[T](row))
			law := topktest.Convert[T](other)
			copy(c.draftLogits[(s*drafts+i)*c.draft:], law)
			one.tokens = append(one.tokens, draftToken(rng, one, c.presets[1], c.softcaps[1], law, i))
			if probable {
				copy(c.probabilities[(s*drafts+i)*c.draft:], probabilitiesOf(rng, one, c.presets[1], law))
			}
		}
		if rng.IntN(40) == 0 && drafts > 0 {
			one.tokens[rng.IntN(drafts)] = []sampling.Token{-1, sampling.Token(vocab), math.MinInt32}[rng.IntN(3)]
		}
		if rng.IntN(60) == 0 {
			one.count = []int{-1, drafts + 1}[rng.IntN(2)]
		}
		c.sequences = append(c.sequences, one)
	}
	if probable {
		c.draftLogits = nil
	}
	return c
}

// draftToken drafts a token: what the draft's law draws, or now and then any.
func draftToken[T topk.Float](rng *rand.Rand, one chain, preset sampling.Preset, softcap float32, law []T, i int) sampling.Token {
	p := one.draft
	p.Position, p.Softcap = uint64(i), softcap
	s, err := sampling.New[T](p, sampling.Options{Preset: preset})
	if err == nil && rng.IntN(8) > 0 {
		if token, err := s.Sample(law); err == nil {
			return token
		}
	}
	return sampling.Token(rng.IntN(len(law)))
}

// probabilitiesOf returns what the draft's parameters make of logits, or something near; now
// and then nothing, or what is no probability.
func probabilitiesOf[T topk.Float](rng *rand.Rand, one chain, preset sampling.Preset, law []T) []float32 {
	row := make([]float32, len(law))
	p := one.draft
	s, err := sampling.New[T](p, sampling.Options{Preset: preset})
	kind := rng.IntN(40)
	switch {
	case err != nil || kind == 0:
	case kind < 10:
		for i := range row {
			row[i] = rng.Float32()
		}
	default:
		kept, err := s.Explain(law, 1)
		if err == nil && len(kept.Kept) > 0 {
			for _, token := range kept.Kept {
				row[token.Token] = float32(token.Probability)
			}
		}
	}
	if rng.IntN(60) == 0 {
		row[rng.IntN(len(row))] = []float32{float32(math.NaN()), 1.5, -0.25, float32(math.Inf(1))}[rng.IntN(4)]
	}
	return row
}

// want is what package sampling answers for a chain.
func (c *chains[T]) want(s int) verdict {
	one, drafts, vocab := c.sequences[s], c.shape.Drafts, c.shape.Vocab
	v := verdict{tokens: slices.Repeat([]sampling.Token{sampling.NoToken}, drafts+1), status: sampling.StatusBadParams}
	if one.count < 0 || one.count > drafts {
		return v
	}
	one.target.Softcap, one.draft.Softcap = c.softcaps[0], c.softcaps[1]
	target, err := sampling.New[T](one.target, sampling.Options{Preset: c.presets[0]})
	if err != nil {
		return v
	}
	var logits, law []T
	draft := sampling.Draft[T]{Tokens: one.tokens[:one.count]}
	for i := range one.count + 1 {
		logits = append(logits, c.logits[(s*(drafts+1)+i)*c.target:][:vocab]...)
		switch at := (s*drafts + i) * c.draft; {
		case i == one.count:
		case c.probabilities != nil:
			draft.Probabilities = append(draft.Probabilities, c.probabilities[at:at+vocab]...)
		default:
			law = append(law, c.draftLogits[at:at+vocab]...)
		}
	}
	if c.probabilities == nil && one.count > 0 {
		if draft.Sampler, err = sampling.New[T](one.draft, sampling.Options{Preset: c.presets[1]}); err != nil {
			return v
		}
		draft.Logits = law
	}
	accepted, err := target.Verify(v.tokens[:one.count+1], logits, vocab, draft)
	v.accepted, v.status = accepted, sampling.StatusOK
	for status := sampling.StatusNaN; err != nil && status <= sampling.StatusBadParams; status++ {
		if errors.Is(err, status.Err()) {
			v.status = status
		}
	}
	return v
}

// verification is a call, and where its answer is.
type verification struct {
	verifier      *Verifier
	stream        *Stream
	logits        Logits
	shape         VerifyShape
	target, draft RowParams
	drafts        Drafts
	to            Verified
	workspace     Workspace
}

func (v *verification) do() error {
	return v.verifier.VerifyDevice(v.stream, v.logits, v.shape, v.target, v.draft, v.drafts, v.to, v.workspace)
}

// uploaded returns the call for all chains, whose operands it uploads. The turn decides the types of
// tokens, and strides.
func (c *chains[T]) uploaded(m *memory, v *Verifier, turn int) *verification {
	n, drafts := c.shape.Sequences, c.shape.Drafts
	rowsOf := func(name string, of func(one chain) sampling.Params) RowParams {
		var temperature, topP, minP []float32
		var topK []int32
		var seed, position []uint64
		for _, one := range c.sequences {
			p := of(one)
			if p.TopP == 0 {
				p.TopP = 1
			}
			temperature, topK, topP, minP = append(temperature, p.Temperature), append(topK, int32(p.TopK)), append(topP, p.TopP), append(minP, p.MinP)
			seed, position = append(seed, p.Seed), append(position, p.Position)
		}
		return RowParams{
			Temperature: upload(m, name+" temperature", 0, temperature), TopK: upload(m, name+" top_k", 0, topK),
			TopP: upload(m, name+" top_p", 0, topP), MinP: upload(m, name+" min_p", 0, minP),
			Seed: upload(m, name+" seed", 0, seed), Position: upload(m, name+" position", 0, position),
		}
	}
	call := &verification{
		verifier: v, stream: m.stream, shape: c.shape, logits: Logits{upload(m, "logits", c.lawBy, c.logits), dtypeOf[T]()},
		target: rowsOf("target", func(one chain) sampling.Params { return one.target }),
		draft:  rowsOf("draft", func(one chain) sampling.Params { return one.draft }),
		drafts: Drafts{Index64: turn%2 == 0, Stride: drafts + turn%3, LawStride: c.draft},
		to:     Verified{Index64: turn%4 < 2, Stride: drafts + 1 + turn%2},
	}
	call.shape.Stride, call.stream = c.target, m.stream
	var tokens []int64
	var counts []int32
	for _, one := range c.sequences {
		counts = append(counts, int32(one.count))
		row := make([]int64, call.drafts.Stride)
		for i, token := range one.tokens {
			row[i] = int64(token)
		}
		tokens = append(tokens, row...)
	}
	call.drafts.Counts = upload(m, "drafted counts", 0, counts)
	call.drafts.Tokens = uploadTokens(m, "drafted", append(tokens, 0), call.drafts.Index64)
	switch {
	case drafts == 0:
	case c.probabilities != nil:
		call.drafts.Probabilities = upload(m, "probabilities", 4*(turn%5), c.probabilities)
	default:
		call.drafts.Logits = upload(m, "draft logits", c.lawBy, c.draftLogits)
	}
	call.to.Tokens = uploadTokens(m, "tokens", make([]int64, n*call.to.Stride), call.to.Index64)
	call.to.Accepted, call.to.Status = upload(m, "accepted", 0, make([]int32, n)), upload(m, "status", 0, make([]uint8, n))
	call.workspace = Workspace{upload(m, "workspace", 0, make([]uint64, n)), VerifyBytes(n)}
	return call
}

// uploadTokens uploads tokens of either width.
func uploadTokens(m *memory, name string, tokens []int64, wide bool) Pointer {
	if wide {
		return upload(m, name, 0, tokens)
	}
	narrow := make([]int32, len(tokens))
	for i, token := range tokens {
		narrow[i] = int32(token)
	}
	return upload(m, name, 0, narrow)
}

// answer returns what the call has come to.
func (v *verification) answer(m *memory) ([]verdict, error) {
	n, drafts, stride := v.shape.Sequences, v.shape.Drafts, v.to.Stride
	m.err = errors.Join(m.err, v.stream.Synchronize())
	if used := download[uint64](m, "workspace", n); slices.Max(used) != 0 {
		return nil, fmt.Errorf("the workspace is left as %x", used)
	}
	var tokens []int64
	if v.to.Index64 {
		tokens = download[int64](m, "tokens", n*stride)
	} else {
		tokens = widen(download[int32](m, "tokens", n*stride))
	}
	accepted, status := download[int32](m, "accepted", n), download[uint8](m, "status", n)
	verdicts := make([]verdict, n)
	for s := range verdicts {
		row := tokens[s*stride:][:stride]
		verdicts[s] = verdict{accepted: int(accepted[s]), status: sampling.Status(status[s])}
		for _, token := range row[:drafts+1] {
			verdicts[s].tokens = append(verdicts[s].tokens, sampling.Token(token))
		}
		if stride > drafts+1 && row[drafts+1] != 0 {
			return nil, fmt.Errorf("sequence %d: %d behind its tokens", s, row[drafts+1])
		}
	}
	return verdicts, m.err
}

// got is what a Verifier answers for all chains.
func (c *chains[T]) got(m *memory) ([]verdict, error) {
	m.calls++
	v, err := m.device.NewVerifier(sampling.Params{Softcap: c.softcaps[0]}, sampling.Params{Softcap: c.softcaps[1]},
		VerifierOptions{Preset: c.presets[0], DraftPreset: c.presets[1], MostTopK: m.calls % 3 * 40, MostDraftTopK: m.calls % 4 * 20})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if team := 1 << (m.calls % 4); team <= max(1, m.device.architecture.ClusterBlocks) {
		v.team = team
	}
	call := c.uploaded(m, v, m.calls)
	if m.err != nil {
		return nil, m.err
	}
	for range 2 { // the workspace serves the next call as it is
		if err := call.do(); err != nil {
			return nil, err
		}
	}
	return call.answer(m)
}

// check compares verdicts with those of package sampling.
func (c *chains[T]) check(got []verdict, see func(s int, want verdict)) error {
	for s, verdict := range got {
		want := c.want(s)
		if !slices.Equal(verdict.tokens, want.tokens) || verdict.accepted != want.accepted || verdict.status != want.status {
			return fmt.Errorf("%+v, presets %q, caps %v, probabilities %v, chain %d, %+v:\n%+v, want\n%+v",
				c.shape, c.presets, c.softcaps, c.probabilities != nil, s, c.sequences[s], verdict, want)
		}
		see(s, want)
	}
	return nil
}

// chainEnd is how a chain ends.
type chainEnd struct {
	all, none bool // accepted
	status    sampling.Status
}

// requireEnds requires that chains came to every kind of end.
func requireEnds(t *testing.T, ends map[chainEnd]int) {
	t.Helper()
	for _, one := range []chainEnd{
		{true, true, sampling.StatusOK}, {true, false, sampling.StatusOK}, {false, true, sampling.StatusOK}, {false, false, sampling.StatusOK},
		{false, false, sampling.StatusNaN}, {false, true, sampling.StatusEmpty}, {false, true, sampling.StatusBadParams},
	} {
		if ends[one] == 0 {
			t.Errorf("no chain ends with %+v: %v", one, ends)
		}
	}
}

// testVerifier compares random chains on a device with package sampling, and returns how many
// came to each end.
func testVerifier[T topk.Float](t *testing.T, m *memory, rng *rand.Rand, batches, sequences int, vocabs ...int) map[chainEnd]int {
	t.Helper()
	ends := map[chainEnd]int{}
	for batch := range batches {
		c := randomChains[T](rng, sequences, batch%6, vocabs[rng.IntN(len(vocabs))])
		got, err := c.got(m)
		if err == nil {
			err = c.check(got, func(s int, want verdict) {
				ends[chainEnd{want.accepted == c.sequences[s].count, want.accepted == 0, want.status}]++
			})
		}
		if err != nil {
			t.Fatalf("batch %d, %+v: %v", batch, c.shape, err)
		}
	}
	return ends
}

// testVerifierGraph launches one captured call again and again: on other rows, drafts,
// parameters, seeds and positions in the same memory.
func testVerifierGraph(t *testing.T, d *Device, launches int) {
	m := newMemory(t, d)
	const sequences, drafts, vocab, batches = 3, 3, 700, 16
	rng := rand.New(rand.NewPCG(24, 24))
	var batch [batches]*chains[topk.BFloat16]
	for i := range batch {
		c := &chains[topk.BFloat16]{}
		for c.target != vocab || c.draft != vocab || c.probabilities == nil { // the layout is captured
			c = randomChains[topk.BFloat16](rng, sequences, drafts, vocab)
		}
		c.presets, c.softcaps, c.lawBy = [2]sampling.Preset{}, [2]float32{}, 0
		batch[i] = c
	}
	v, err := d.NewVerifier(sampling.Params{}, sampling.Params{}, VerifierOptions{MostTopK: 64})
	if err != nil {
		t.Fatal(err)
	}
	call := batch[0].uploaded(m, v, 0)
	graph, err := m.stream.Capture(call.do)
	if err := errors.Join(m.err, err); err != nil {
		t.Fatal(err)
	}
	for i := range launches {
		c := batch[i%batches]
		if again := c.uploaded(m, v, 0); *again != *call {
			t.Fatalf("launch %d: the operands are elsewhere", i)
		}
		if err := graph.Launch(m.stream); err != nil {
			t.Fatal(err)
		}
		got, err := call.answer(m)
		if err == nil {
			err = c.check(got, func(int, verdict) {})
		}
		if err != nil {
			t.Fatalf("launch %d: %v", i, err)
		}
	}
	if err := errors.Join(graph.Close(), v.Close()); err != nil {
		t.Error(err)
	}
}
