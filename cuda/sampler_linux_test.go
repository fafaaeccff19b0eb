//go:build linux && (amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
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

// together is what rows of one call have in common.
type together struct {
	draws       int
	replacement bool
	preset      sampling.Preset
	softcap     float32
	asked       samplingtest.Asked
}

func togetherOf(row samplingtest.Row) together {
	return together{max(1, row.Params.Draws), row.Params.Replacement, row.Options.Preset, row.Params.Softcap, row.Asked}
}

// orOne returns a parameter that is off at 1, for which 0 stands in package sampling.
func orOne(p float32) float32 {
	if p == 0 {
		return 1
	}
	return p
}

// sampledOn answers by a Sampler, with every parameter in device memory, or, for one row,
// in the Sampler.
func sampledOn[T topk.Float](m *memory) samplingtest.Engine[T] {
	return samplingtest.Alike(func(rows []samplingtest.Row, logits []T, vocab int) ([]samplingtest.Answer, error) {
		m.calls++
		alike, n := togetherOf(rows[0]), len(rows)
		params := sampling.Params{Replacement: alike.replacement, Softcap: alike.softcap}
		options := SamplerOptions{Preset: alike.preset, MostTopK: m.calls % 100}
		stride := alike.draws + m.calls%3
		to := Tokens{Draws: alike.draws, Stride: stride, Index64: m.calls%2 == 0}
		var by RowParams
		if one := rows[0]; n == 1 && fitsVocab(one, vocab) {
			params, options.MostTopK = one.Params, 0
		} else {
			temperature, topP, minP := make([]float32, n), make([]float32, n), make([]float32, n)
			typicalP, topNSigma := make([]float32, n), make([]float32, n)
			xtcProbability, xtcThreshold := make([]float32, n), make([]float32, n)
			topK, seed, position := make([]int32, n), make([]uint64, n), make([]uint64, n)
			for i, row := range rows {
				p := row.Params
				temperature[i], topK[i], topP[i], minP[i], seed[i], position[i] = p.Temperature, int32(p.TopK), orOne(p.TopP), p.MinP, p.Seed, p.Position
				typicalP[i], topNSigma[i], xtcProbability[i], xtcThreshold[i] = orOne(p.TypicalP), p.TopNSigma, p.XTCProbability, orOne(p.XTCThreshold)
				if stepsBehind(p) { // which have to fit
					options.MostTopK = max(options.MostTopK, min(p.TopK, mostTop))
					if p.TopK == 0 {
						options.MostTopK = mostTop
					}
				}
				if !fitsVocab(row, vocab) {
					temperature[i] = float32(math.NaN())
				}
			}
			by = RowParams{
				Temperature: upload(m, "temperature", 0, temperature),
				TopP:        upload(m, "top_p", 0, topP), MinP: upload(m, "min_p", 0, minP),
				TypicalP: upload(m, "typical_p", 0, typicalP), TopNSigma: upload(m, "top_n_sigma", 0, topNSigma),
				XTCProbability: upload(m, "xtc_probability", 0, xtcProbability), XTCThreshold: upload(m, "xtc_threshold", 0, xtcThreshold),
				Seed: upload(m, "seed", 0, seed), Position: upload(m, "position", 0, position),
			}
			if slices.Max(topK) > 0 {
				by.TopK = upload(m, "top_k", 0, topK)
			}
		}
		s, err := m.device.NewSampler(params, options)
		if err != nil {
			return nil, err
		}
		defer s.Close()
		from := Logits{upload(m, "logits", 16, logits), dtypeOf[T]()}
		if to.Index64 {
			to.Tokens = upload(m, "tokens", 0, make([]int64, n*stride))
		} else {
			to.Tokens = upload(m, "tokens", 0, make([]int32, n*stride))
		}
		to.Status = upload(m, "status", 0, make([]uint8, n))
		if m.calls%4 != 0 || alike.asked.Processed { // of which the count tells whether there are logprobs
			to.Kept, to.KeptCount = upload(m, "kept", 0, make([]int32, n*vocab)), upload(m, "kept count", 0, make([]int32, n))
			to.KeptProbabilities = upload(m, "kept probabilities", 0, make([]float32, n*vocab))
		}
		if asked := alike.asked; asked.Logprobs {
			to.Logprobs, to.Ranks = upload(m, "logprobs", 0, make([]float32, n*alike.draws)), upload(m, "ranks", 0, make([]int32, n*alike.draws))
			to.TopCount, to.Processed = asked.Top, asked.Processed
			if asked.Top > 0 {
				to.TopIDs, to.TopLogprobs = upload(m, "top ids", 0, make([]int32, n*asked.Top)), upload(m, "top logprobs", 0, make([]float32, n*asked.Top))
			}
		}
		if m.err != nil {
			return nil, m.err
		}
		k := s.MostKept(from.DType, vocab)
		if err := s.SampleDevice(m.stream, from, Shape{Rows: n, Vocab: vocab}, by, to); err != nil {
			return nil, err
		}
		if err := m.stream.Synchronize(); err != nil {
			return nil, err
		}
		var tokens []int64
		if to.Index64 {
			tokens = download[int64](m, "tokens", n*stride)
		} else {
			tokens = widen(download[int32](m, "tokens", n*stride))
		}
		status := download[uint8](m, "status", n)
		var kept, count []int32
		var probabilities []float32
		if to.Kept != 0 {
			kept, count = download[int32](m, "kept", n*k), download[int32](m, "kept count", n)
			probabilities = download[float32](m, "kept probabilities", n*k)
		}
		answers := make([]samplingtest.Answer, n)
		for i := range answers {
			answers[i].Status = sampling.Status(status[i])
			if count != nil && count[i] >= 0 {
				answers[i].Kept, answers[i].Probabilities = kept[i*k:][:count[i]], probabilities[i*k:][:count[i]]
			}
			for _, token := range tokens[i*stride:][:alike.draws] {
				answers[i].Tokens = append(answers[i].Tokens, sampling.Token(token))
			}
		}
		if asked := alike.asked; asked.Logprobs {
			logprobs, ranks := download[float32](m, "logprobs", n*alike.draws), download[int32](m, "ranks", n*alike.draws)
			var topIDs []int32
			var topLogprobs []float32
			if asked.Top > 0 {
				topIDs, topLogprobs = download[int32](m, "top ids", n*asked.Top), download[float32](m, "top logprobs", n*asked.Top)
			}
			for i := range answers {
				answer := &answers[i]
				if asked.Processed && answer.Kept == nil {
					continue // not told
				}
				answer.Logprobs, answer.Top = []sampling.Logprob{}, []sampling.Logprob{}
				for d, token := range answer.Tokens {
					at := i*alike.draws + d
					answer.Logprobs = append(answer.Logprobs, sampling.Logprob{Token: token, Logprob: logprobs[at], Rank: int(ranks[at])})
				}
				for j := range asked.Top {
					if at := i*asked.Top + j; topIDs[at] != sampling.NoToken {
						answer.Top = append(answer.Top, sampling.Logprob{Token: topIDs[at], Logprob: topLogprobs[at], Rank: j + 1})
					}
				}
			}
		}
		return answers, m.err
	}, togetherOf)
}

// stepsBehind reports whether a step behind top_p is on.
func stepsBehind(p sampling.Params) bool {
	return p.TypicalP != 0 || p.TopNSigma != 0 || p.XTCProbability != 0
}

// fitsVocab reports whether package sampling takes parameters and ids.
func fitsVocab(row samplingtest.Row, vocab int) bool {
	s, err := sampling.New[float32](row.Params, row.Options)
	if err != nil {
		return false
	}
	_, err = s.Explain(make([]float32, vocab), 0)
	return !errors.Is(err, sampling.ErrParams)
}

// A Sampler gives the tokens of package sampling.
func TestSamplerConformance(t *testing.T) {
	fake(t)
	testSamplerConformance(t, open(t, 0), 500)
}

// testSamplerConformance runs the suite on rows of at most so many draws.
func testSamplerConformance(t *testing.T, d *Device, draws int) {
	m := &memory{device: d, buffers: map[string]*Buffer{}}
	samplingtest.Run(t, samplingtest.Backend{
		Float32: sampledOn[float32](m), Float16: sampledOn[topk.Float16](m), BFloat16: sampledOn[topk.BFloat16](m),
		Supports: func(row samplingtest.Row, vocab int) bool {
			p := row.Params
			fits := !stepsBehind(p) || vocab <= mostTop || p.TopK > 0 && p.TopK <= mostTop
			return p.Draws <= draws && row.Options.Chain == nil && fits && (supported(p, row.Options.Preset) == nil || !fitsVocab(row, vocab))
		},
		Reduce: func(row *samplingtest.Row) {
			p := row.Params
			row.Params = sampling.Params{
				Temperature: p.Temperature, TopK: p.TopK, TopP: p.TopP, MinP: p.MinP, Softcap: float32(p.MinTokens) / 2,
				Seed: p.Seed, Position: p.Position, Draws: p.Draws, Replacement: p.Replacement,
			}
			if p.Seed%8 >= 4 {
				row.Params.TypicalP, row.Params.TopNSigma = p.TypicalP, p.TopNSigma
				row.Params.XTCProbability, row.Params.XTCThreshold = p.XTCProbability*float32(p.Seed%5)/4, p.XTCThreshold
			}
			row.Asked = samplingtest.Asked{Logprobs: p.Seed%5 < 2, Top: int(p.Seed % 30), Processed: p.Seed%7 < 3}
			row.Options = sampling.Options{Preset: []sampling.Preset{"", sampling.VLLM, sampling.Nanochat}[p.Seed%3]}
		},
	})
}

// Rows without a top-k have the tokens of package sampling, from one block each or several.
func TestSamplerOfWholeRows(t *testing.T) {
	fake(t)
	d := open(t, 0)
	m := &memory{device: d, buffers: map[string]*Buffer{}}
	rng := rand.New(rand.NewPCG(20, 20))
	for _, rows := range []int{1, 3} {
		for _, vocab := range []int{2100, 9001} {
			t.Run(fmt.Sprintf("%d x %d", rows, vocab), func(t *testing.T) {
				logits := topktest.Convert[topk.BFloat16](topktest.Random(rng, rows*vocab))
				for _, params := range []sampling.Params{
					{Temperature: 1}, {Temperature: 0.7, MinP: 0.05}, {Temperature: 1, TopP: 0.9}, {Temperature: 2, TopP: 0.5, MinP: 0.01},
					{Temperature: 1, TopP: 0.95, TopK: vocab}, {Temperature: 1, Softcap: 2},
				} {
					params.Seed, params.Draws, params.Replacement = rng.Uint64(), 1+rng.IntN(3), rng.IntN(2) == 0
					var batch []samplingtest.Row
					for range rows {
						batch = append(batch, samplingtest.Row{Params: params})
					}
					m.calls = 3 // the next asks for no kept set
					answers, err := sampledOn[topk.BFloat16](m)(batch, logits, vocab)
					if err != nil {
						t.Fatal(err)
					}
					for i, row := range batch {
						want := samplingtest.Oracle(row, logits[i*vocab:(i+1)*vocab])
						if !slices.Equal(answers[i].Tokens, want.Tokens) || answers[i].Status != want.Status {
							t.Errorf("row %d, %+v: %v, %v; want %v, %v", i, params, answers[i].Tokens, answers[i].Status, want.Tokens, want.Status)
						}
					}
				}
			})
		}
	}
}

// One seed for a batch gives its rows different draws, those of sampling.SampleRows.
func TestSamplerOfOneSeed(t *testing.T) {
	fake(t)
	testSamplerOfOneSeed(t, open(t, 0))
}

func testSamplerOfOneSeed(t *testing.T, d *Device) {
	m := &memory{device: d, buffers: map[string]*Buffer{}}
	const rows, vocab, draws = 5, 3000, 2
	params := sampling.Params{Temperature: 1.5, TopK: 300, Seed: 9, Position: 4}
	logits := topktest.Convert[topk.BFloat16](topktest.Random(rand.New(rand.NewPCG(18, 18)), vocab))
	cpu, err := sampling.New[topk.BFloat16](params, sampling.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]sampling.Token, rows*draws)
	shape := topk.Shape{Rows: rows, Vocab: vocab, Expand: true}
	if err := sampling.SampleRows(want, nil, []*sampling.Sampler[topk.BFloat16]{cpu}, logits, shape); err != nil {
		t.Fatal(err)
	}
	s, err := d.NewSampler(params, SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	from := Logits{upload(m, "logits", 0, logits), BFloat16}
	to := Tokens{Tokens: upload(m, "tokens", 0, make([]int32, rows*draws)), Draws: draws}
	call := func() error {
		return s.SampleDevice(m.stream, from, Shape{Rows: rows, Vocab: vocab, Expand: true}, RowParams{}, to)
	}
	if err := errors.Join(m.err, call(), m.stream.Synchronize()); err != nil {
		t.Fatal(err)
	}
	if got := download[int32](m, "tokens", rows*draws); !slices.Equal(got, want) {
		t.Errorf("tokens %v, want %v", got, want)
	}
	if n := testing.AllocsPerRun(20, func() { err = errors.Join(err, call()) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations a call", n)
	}
	if err := errors.Join(err, m.stream.Synchronize()); err != nil {
		t.Fatal(err)
	}
}

// What a device does not have is named.
func TestSamplerNamesWhatIsUnsupported(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	for _, c := range []struct {
		params sampling.Params
		preset sampling.Preset
		want   error
		names  string
	}{
		{sampling.Params{Temperature: 1}, sampling.HF, ErrUnsupported, "hf"},
		{sampling.Params{XTCProbability: 0.5, XTCSpecialIDs: []int32{1}}, "", ErrUnsupported, "xtc_special_ids"},
		{sampling.Params{TopH: 0.5}, "", ErrUnsupported, "top_h"},
		{sampling.Params{LogitBias: map[int32]float32{3: 1}}, "", ErrUnsupported, "logit_bias"},
		{sampling.Params{BannedIDs: []int32{1}}, sampling.Nanochat, ErrUnsupported, "banned_ids"},
		{sampling.Params{GrammarBitmask: []int32{1}}, "", ErrUnsupported, "bitmask"},
		{sampling.Params{DynatempRange: 1}, "", ErrUnsupported, "dynamic_temperature"},
		{sampling.Params{MinKeep: 2}, "", ErrUnsupported, "min_keep"},
		{sampling.Params{TopP: 2}, "", sampling.ErrParams, "top_p"},
		{sampling.Params{Temperature: -1}, "", sampling.ErrParams, "temperature"},
	} {
		s, err := d.NewSampler(c.params, SamplerOptions{Preset: c.preset})
		if s != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%+v: %v, want %v that names %s", c.params, err, c.want, c.names)
		}
	}
}

// A zero that is set by name is not the same as a field left alone: on the device neither.
func TestSamplerTakesZerosByName(t *testing.T) {
	fake(t)
	m := newMemory(t, open(t, 0))
	logits := topktest.Random(rand.New(rand.NewPCG(31, 1)), 200)
	refused := 0
	for _, preset := range []sampling.Preset{sampling.VLLM, sampling.Nanochat} {
		for _, name := range sampling.ParamNames() {
			var zero error
			params := sampling.Params{Temperature: 1, TopK: 40, XTCProbability: 0.9, Seed: 7}
			for _, value := range []string{"0", "[]", "{}", "false"} {
				if zero = params.Set(name, []byte(value)); zero == nil {
					break
				}
			}
			if zero != nil {
				t.Fatal(zero)
			}
			if _, err := sampling.New[float32](params, sampling.Options{Preset: preset}); err != nil {
				continue // nobody takes it
			}
			s, err := m.device.NewSampler(params, SamplerOptions{Preset: preset})
			if errors.Is(err, ErrUnsupported) {
				refused++
				continue
			}
			if err != nil {
				t.Fatalf("%s, %s: %v", preset, name, err)
			}
			const rows = 40
			seeds := make([]uint64, rows)
			for i := range seeds {
				seeds[i] = uint64(i)
			}
			err = s.SampleDevice(m.stream, Logits{upload(m, "logits", 0, logits), Float32}, Shape{Rows: rows, Vocab: len(logits), Expand: true},
				RowParams{Seed: upload(m, "seeds", 0, seeds)}, Tokens{Tokens: m.buffer("tokens", 4*rows).Pointer()})
			got := download[int32](m, "tokens", rows)
			if err := errors.Join(err, m.err, s.Close()); err != nil {
				t.Fatalf("%s, %s: %v", preset, name, err)
			}
			for i, seed := range seeds {
				params.Seed = seed
				if want, _ := onCPU(t, params, preset, logits); got[i] != want {
					t.Errorf("%s, %s = 0 by name, seed %d: token %d, want %d", preset, name, seed, got[i], want)
					break
				}
			}
		}
	}
	if refused != 2 {
		t.Errorf("%d are refused, want adaptive_target by both presets", refused)
	}
}

// Penalties, of all rows or of each, want the tokens that they count.
func TestSamplerWantsCountedTokens(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	m := newMemory(t, d)
	p := m.buffer("all", 4096).Pointer()
	for name, c := range map[string]struct {
		params sampling.Params
		rows   RowParams
	}{
		"of all rows": {params: sampling.Params{PresencePenalty: 1}},
		"repetition":  {rows: RowParams{Repetition: p}},
		"frequency":   {rows: RowParams{Frequency: p}},
		"presence":    {rows: RowParams{Presence: p}},
	} {
		s, err := d.NewSampler(c.params, SamplerOptions{})
		if err := errors.Join(err, m.err); err != nil {
			t.Fatal(err)
		}
		err = s.SampleDevice(m.stream, Logits{p, BFloat16}, Shape{Rows: 2, Vocab: 100}, c.rows, Tokens{Tokens: p + 1024})
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "penalties") {
			t.Errorf("%s: %v, want an error that names the step", name, err)
		}
	}
}

// Edits are those of package sampling: masks, biases and penalties of each row.
func TestSamplerEdits(t *testing.T) {
	fake(t)
	testSamplerEdits(t, open(t, 0))
}

func testSamplerEdits(t *testing.T, d *Device) {
	m := &memory{device: d, buffers: map[string]*Buffer{}}
	t.Run("float32", func(t *testing.T) { testEdits[float32](t, m) })
	t.Run("float16", func(t *testing.T) { testEdits[topk.Float16](t, m) })
	t.Run("bfloat16", func(t *testing.T) { testEdits[topk.BFloat16](t, m) })
}

func testEdits[T topk.Float](t *testing.T, m *memory) {
	rng := rand.New(rand.NewPCG(19, 19))
	const n, few = 3, 12     // rows, and edits of one
	before, inLaunch := 0, 0 // calls
	for _, kind := range topktest.Rows() {
		vocab := 40 + rng.IntN(9000)
		params := sampling.Params{
			Temperature: []float32{0, 0.9}[rng.IntN(2)], TopK: rng.IntN(60), TopP: 0.9, Softcap: []float32{0, 0, 2}[rng.IntN(3)],
			RepetitionPenalty: 1.3, FrequencyPenalty: 0.3, PresencePenalty: -0.2,
		}
		penalties := few // of a row: with many of them, edits take a launch of their own
		if rng.IntN(3) == 0 {
			penalties = mostEdits
		}
		preset := []sampling.Preset{sampling.VLLM, sampling.Nanochat}[rng.IntN(2)]
		var logits []T
		var biases []float32
		var biasIDs, penaltyIDs, counts, mask []int32
		words := rng.IntN(vocab/32 + 2)
		seeds := make([]uint64, n)
		var want []samplingtest.Answer
		for i := range n {
			row := samplingtest.Row{Params: params, Options: sampling.Options{Preset: preset}}
			seeds[i] = rng.Uint64()
			row.Params.Seed, row.Params.LogitBias = seeds[i], map[int32]float32{}
			ids := rng.Perm(vocab)[:2*few]
			for j, id := range ids[:few] {
				bias := float32(rng.NormFloat64())
				if j == 0 {
					bias = float32(math.Inf(-1))
				}
				row.Params.LogitBias[int32(id)] = bias
				biasIDs, biases = append(biasIDs, int32(id)), append(biases, bias)
			}
			for j, id := range ids[few/2 : few/2+few] { // some have a bias too
				row.Options.Prompt = append(row.Options.Prompt, int32(id))
				for range j % 3 {
					row.Options.History = append(row.Options.History, int32(id))
				}
				penaltyIDs, counts = append(penaltyIDs, int32(id)), append(counts, int32(j%3))
			}
			for range penalties - few {
				penaltyIDs, counts = append(penaltyIDs, -1), append(counts, 1)
			}
			for range words {
				mask = append(mask, int32(rng.Uint32()))
			}
			row.Params.GrammarBitmask = mask[len(mask)-words:]
			logits = append(logits, topktest.Convert[T](kind.Make(rng, vocab))...)
			// The position is that of the parameters: what was generated before does not move it.
			want = append(want, samplingtest.Oracle(row, logits[i*vocab:]))
		}
		s, err := m.device.NewSampler(params, SamplerOptions{Preset: preset})
		if err != nil {
			t.Fatal(err)
		}
		from := Logits{upload(m, "logits", 0, logits), dtypeOf[T]()}
		edits := Edits{
			BitmaskWords: words, BitmaskStride: words, BiasCount: few, PenaltyCount: penalties,
			BiasIDs: upload(m, "bias ids", 0, biasIDs), Biases: upload(m, "biases", 0, biases),
			PenaltyIDs: upload(m, "penalty ids", 0, penaltyIDs), PenaltyCounts: upload(m, "penalty counts", 0, counts),
		}
		if words > 0 {
			edits.Bitmask = upload(m, "bitmask", 0, mask)
		}
		to := Tokens{Tokens: upload(m, "tokens", 0, make([]int32, n)), Status: upload(m, "status", 0, make([]uint8, n))}
		rows, shape := RowParams{Seed: upload(m, "seed", 0, seeds)}, Shape{Rows: n, Vocab: vocab}
		if err := s.SampleDevice(m.stream, from, shape, rows, to); !errors.Is(err, ErrUnsupported) {
			t.Fatalf("penalties without edits: %v", err)
		}
		if rows.Edits = edits; rng.IntN(2) == 0 {
			// Penalties of each row. The second is wrong.
			repetition, frequency, presence := []float32{1.3, 0, 1.3}, []float32{0.3, 0.3, 0.3}, []float32{-0.2, -0.2, -0.2}
			rows.Repetition, rows.Frequency, rows.Presence = upload(m, "repetition", 0, repetition), upload(m, "frequency", 0, frequency), upload(m, "presence", 0, presence)
			want[1] = samplingtest.Answer{Tokens: []sampling.Token{-1}, Status: sampling.StatusBadParams}
		}
		if need := s.EditBytes(shape, rows); need > 0 {
			if err := s.SampleDevice(m.stream, from, shape, rows, to); !errors.Is(err, ErrWorkspace) {
				t.Fatalf("without a workspace: %v", err)
			}
			rows.Edits.Workspace = Workspace{m.buffer("workspace", need).Pointer(), need}
			before++
		} else {
			inLaunch++
		}
		if m.err != nil {
			t.Fatal(m.err)
		}
		if err := errors.Join(s.SampleDevice(m.stream, from, shape, rows, to), m.stream.Synchronize(), s.Close()); err != nil {
			t.Fatal(err)
		}
		tokens, status := download[int32](m, "tokens", n), download[uint8](m, "status", n)
		for i := range n {
			if tokens[i] != want[i].Tokens[0] || sampling.Status(status[i]) != want[i].Status {
				t.Errorf("%s, vocab %d, row %d: token %d, status %v, want %d, %v", kind.Name, vocab, i, tokens[i], sampling.Status(status[i]), want[i].Tokens[0], want[i].Status)
			}
		}
	}
	if before == 0 || inLaunch == 0 {
		t.Errorf("%d calls with edits in a launch of their own, %d in the one that samples", before, inLaunch)
	}
}

// Logprobs are those of the logits as they came, of edited rows too: also of a row whose NaN are banned, and of the token
// whose id stands for no token elsewhere.
func TestSamplerRawLogprobs(t *testing.T) {
	fake(t)
	testSamplerRawLogprobs(t, open(t, 0))
}

func testSamplerRawLogprobs(t *testing.T, d *Device) {
	m := &memory{device: d, buffers: map[string]*Buffer{}}
	for _, edited := range []bool{false, true} {
		t.Run(fmt.Sprintf("edited %v, float32", edited), func(t *testing.T) { testRawLogprobs[float32](t, m, edited) })
		t.Run(fmt.Sprintf("edited %v, float16", edited), func(t *testing.T) { testRawLogprobs[topk.Float16](t, m, edited) })
		t.Run(fmt.Sprintf("edited %v, bfloat16", edited), func(t *testing.T) { testRawLogprobs[topk.BFloat16](t, m, edited) })
	}
}

func testRawLogprobs[T topk.Float](t *testing.T, m *memory, edited bool) {
	rng := rand.New(rand.NewPCG(20, 19))
	const n, draws, invalid = 4, 3, 3
	saw := map[string]int{}
	for _, kind := range topktest.Rows() {
		vocab := 8 + rng.IntN([]int{10, 9000}[rng.IntN(2)])
		params := sampling.Params{Temperature: 0.9, TopK: []int{0, 1, 2, 50, 2000}[rng.IntN(5)], Draws: draws, Replacement: rng.IntN(3) == 0}
		asked := samplingtest.Asked{Logprobs: true, Top: []int{0, 1, 20}[rng.IntN(3)]}
		var logits []T
		var biases []float32
		var biasIDs []int32
		seeds, each := make([]uint64, n), make([]samplingtest.Row, n)
		for i := range n {
			values := kind.Make(rng, vocab)
			each[i] = samplingtest.Row{Params: params, Asked: asked}
			seeds[i] = rng.Uint64()
			each[i].Params.Seed, each[i].Params.LogitBias = seeds[i], map[int32]float32{}
			if edited {
				for id, bias := range map[int32]float32{invalid: 6, 5: float32(math.Inf(-1)), int32(6 + rng.IntN(vocab-6)): 2} {
					each[i].Params.LogitBias[id] = bias
					biasIDs, biases = append(biasIDs, id), append(biases, bias)
				}
			} else {
				values[invalid] += 6
			}
			if i == 2 {
				values[5] = float32(math.NaN())
			}
			logits = append(logits, topktest.Convert[T](values)...)
		}
		s, err := m.device.NewSampler(params, SamplerOptions{InvalidToken: invalid})
		if err != nil {
			t.Fatal(err)
		}
		to := Tokens{
			Tokens: upload(m, "tokens", 0, make([]int32, n*draws)), Draws: draws, Status: upload(m, "status", 0, make([]uint8, n)),
			Logprobs: upload(m, "logprobs", 0, make([]float32, n*draws)), Ranks: upload(m, "ranks", 0, make([]int32, n*draws)),
		}
		if to.TopCount = asked.Top; asked.Top > 0 {
			to.TopIDs, to.TopLogprobs = upload(m, "top ids", 0, make([]int32, n*asked.Top)), upload(m, "top logprobs", 0, make([]float32, n*asked.Top))
		}
		shape := Shape{Rows: n, Vocab: vocab}
		rows := RowParams{Seed: upload(m, "seed", 0, seeds), Edits: Edits{
			BiasCount: len(biases) / n, BiasIDs: upload(m, "bias ids", 0, biasIDs), Biases: upload(m, "biases", 0, biases),
			Workspace: Workspace{m.buffer("workspace", EditBytes(n, vocab)).Pointer(), EditBytes(n, vocab)},
		}}
		from := Logits{upload(m, "logits", 0, logits), dtypeOf[T]()}
		if err := errors.Join(m.err, s.SampleDevice(m.stream, from, shape, rows, to), m.stream.Synchronize(), s.Close()); err != nil {
			t.Fatal(err)
		}
		tokens, status := download[int32](m, "tokens", n*draws), download[uint8](m, "status", n)
		logprobs, ranks := download[float32](m, "logprobs", n*draws), download[int32](m, "ranks", n*draws)
		var topIDs []int32
		var topLogprobs []float32
		if asked.Top > 0 {
			topIDs, topLogprobs = download[int32](m, "top ids", n*asked.Top), download[float32](m, "top logprobs", n*asked.Top)
		}
		for i, row := range each {
			got := samplingtest.Answer{Status: sampling.Status(status[i]), Logprobs: []sampling.Logprob{}, Top: []sampling.Logprob{}}
			there := false
			for at := i * draws; at < (i+1)*draws; at++ {
				token := sampling.Token(tokens[at])
				switch {
				case ranks[at] == 0 && token == invalid:
					token = sampling.NoToken
				case token == invalid:
					saw["the token whose id stands for none"]++
				}
				there = there || token != sampling.NoToken
				got.Tokens = append(got.Tokens, token)
				got.Logprobs = append(got.Logprobs, sampling.Logprob{Token: token, Logprob: logprobs[at], Rank: int(ranks[at])})
				if logprobs[at] != logprobs[at] {
					saw["NaN"]++
				}
			}
			for j := range asked.Top {
				if at := i*asked.Top + j; there && j < vocab {
					got.Top = append(got.Top, sampling.Logprob{Token: topIDs[at], Logprob: topLogprobs[at], Rank: j + 1})
				} else if topIDs[at] != invalid || !math.IsInf(float64(topLogprobs[at]), -1) {
					t.Errorf("%s: place %d, of which there is no token, has %d, %v", kind.Name, j, topIDs[at], topLogprobs[at])
				} else if there && logprobs[i*draws] != logprobs[i*draws] {
					saw["NaN, and fewer than the best that are asked for"]++
				}
			}
			saw[got.Status.String()]++
			samplingtest.Agree(t, kind.Name, row, logits[i*vocab:][:vocab], got)
		}
	}
	want := []string{"ok", "exhausted", "the token whose id stands for none"}
	if edited {
		want = append(want, "NaN", "NaN, and fewer than the best that are asked for")
	}
	for _, what := range want {
		if saw[what] == 0 {
			t.Errorf("no row of %s: %v", what, saw)
		}
	}
}
