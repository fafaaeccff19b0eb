// Package samplingtest holds implementations of sampling to the answers of package
// sampling: parameters and rows to try, and a conformance suite that every backend
// passes.
package samplingtest

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

// Row is what decides the tokens of one row: Params.Draws of them.
type Row struct {
	Params  sampling.Params
	Options sampling.Options
	Asked   Asked
}

// Asked is what a row is asked for beside its tokens and kept set.
type Asked struct {
	Logprobs  bool // of the tokens, and of the Top most likely ones
	Top       int
	Processed bool // of the kept set, not of the logits as they came
}

// Answer is what a backend makes of a row. What it does not tell is nil.
type Answer struct {
	Tokens        []sampling.Token
	Status        sampling.Status
	Kept          []sampling.Token // in contract order
	Probabilities []float32        // of Kept
	// Logprobs are those of Tokens, -Inf and the rank 0 for no token, if the row is asked for
	// them; and Top those of the most likely tokens.
	Logprobs, Top []sampling.Logprob
}

// Engine samples a batch of [len(rows), vocab] logits of one type.
type Engine[T topk.Float] func(rows []Row, logits []T, vocab int) ([]Answer, error)

// Backend is an implementation to be tested. An engine may be nil: then that type
// is not tested.
type Backend struct {
	Float32  Engine[float32]
	Float16  Engine[topk.Float16]
	BFloat16 Engine[topk.BFloat16]
	// Supports says which rows of a vocabulary the backend answers. Nil: all.
	Supports func(row Row, vocab int) bool
	// Reduce turns off what the backend does not support, if not nil: a random row
	// has most steps on.
	Reduce func(row *Row)
}

// CPU is the backend of package sampling, on an instruction set of that name, or the
// best for none.
func CPU(tier string) Backend {
	return Backend{Float32: onCPU[float32](tier), Float16: onCPU[topk.Float16](tier), BFloat16: onCPU[topk.BFloat16](tier)}
}

func onCPU[T topk.Float](tier string) Engine[T] {
	return func(rows []Row, logits []T, vocab int) ([]Answer, error) {
		answers := make([]Answer, len(rows))
		for i, row := range rows {
			row.Options.Tier = tier
			s, err := sampling.New[T](row.Params, row.Options)
			if errors.Is(err, sampling.ErrParams) {
				answers[i] = Answer{Tokens: none(row), Status: sampling.StatusBadParams}
				continue
			}
			if err != nil {
				return nil, err
			}
			status := make([]sampling.Status, 1)
			answers[i].Tokens = none(row)
			if err := sampling.SampleRows(answers[i].Tokens, status, []*sampling.Sampler[T]{s}, logits[i*vocab:], topk.Row(vocab, 0)); err != nil {
				return nil, err
			}
			answers[i].Status = status[0]
			answers[i].Kept = []sampling.Token{}
			for _, kept := range s.AppendKept(nil) {
				answers[i].Kept = append(answers[i].Kept, kept.Token)
			}
		}
		return answers, nil
	}
}

// none returns the tokens of a row that has none.
func none(row Row) []sampling.Token {
	return slices.Repeat([]sampling.Token{sampling.NoToken}, max(1, row.Params.Draws))
}

// Oracle returns the answer for a row: that of [sampling.Sampler.Explain], which
// sorts a copy of all logits and runs every step on it.
func Oracle[T topk.Float](row Row, logits []T) Answer {
	s, err := sampling.New[T](row.Params, row.Options)
	if err != nil {
		return Answer{Tokens: none(row), Status: sampling.StatusBadParams, Kept: []sampling.Token{}}
	}
	e, err := s.Explain(logits, 0)
	if err != nil {
		return Answer{Tokens: none(row), Status: sampling.StatusBadParams, Kept: []sampling.Token{}}
	}
	answer := Answer{Tokens: e.Tokens, Status: e.Status, Kept: []sampling.Token{}, Probabilities: []float32{}}
	for _, kept := range e.Kept {
		answer.Kept = append(answer.Kept, kept.Token)
		answer.Probabilities = append(answer.Probabilities, float32(kept.Probability))
	}
	if row.Asked.Logprobs {
		answer.Logprobs, answer.Top = logprobs(s, row, logits, answer)
	}
	return answer
}

// logprobs returns what package sampling tells of the tokens of an answer.
func logprobs[T topk.Float](s *sampling.Sampler[T], row Row, logits []T, answer Answer) (own, top []sampling.Logprob) {
	tokens := make([]sampling.Token, len(answer.Tokens))
	if err := sampling.SampleRows(tokens, nil, []*sampling.Sampler[T]{s}, logits, topk.Row(len(logits), 0)); err != nil {
		return nil, nil
	}
	own, top = []sampling.Logprob{}, []sampling.Logprob{}
	for _, token := range answer.Tokens {
		entry := sampling.Logprob{Token: token, Logprob: float32(math.Inf(-1))}
		if token != sampling.NoToken {
			var list []sampling.Logprob
			if row.Asked.Processed {
				list = s.AppendProcessedLogprobs(nil, token, row.Asked.Top)
			} else {
				list, _ = s.AppendLogprobs(nil, logits, token, row.Asked.Top)
			}
			entry, top = list[0], list[1:]
		}
		own = append(own, entry)
	}
	return own, top
}

// agrees reports whether an answer is the one that is wanted: logprobs within the contract,
// all else to the bit.
func (a Answer) agrees(want Answer) bool {
	near := func(a, b sampling.Logprob) bool {
		x, y := float64(a.Logprob), float64(b.Logprob)
		return a.Token == b.Token && a.Rank == b.Rank && (x == y || x != x && y != y || math.Abs(x-y) <= 1e-6*max(1, math.Abs(y)))
	}
	return slices.Equal(a.Tokens, want.Tokens) && a.Status == want.Status &&
		(a.Kept == nil || slices.Equal(a.Kept, want.Kept)) &&
		(a.Probabilities == nil || slices.Equal(a.Probabilities, want.Probabilities)) &&
		(a.Logprobs == nil || slices.EqualFunc(a.Logprobs, want.Logprobs, near)) &&
		(a.Top == nil || slices.EqualFunc(a.Top, want.Top, near))
}

// Agree fails the test where an answer is not the oracle's.
func Agree[T topk.Float](t testing.TB, name string, row Row, logits []T, got Answer) {
	t.Helper()
	if want := Oracle(row, logits); !got.agrees(want) {
		show := func(a Answer) string {
			return fmt.Sprintf("%v, status %v, kept %d tokens, logprobs %v, top %v", a.Tokens, a.Status, len(a.Kept), a.Logprobs, a.Top)
		}
		t.Errorf("%s, vocab %d, %+v\n%s; want\n%s", name, len(logits), row, show(got), show(want))
	}
}

// Alike returns an engine for any batch, made of one for batches of rows that are of
// one kind.
func Alike[T topk.Float, K comparable](engine Engine[T], kind func(row Row) K) Engine[T] {
	return func(rows []Row, logits []T, vocab int) ([]Answer, error) {
		places := map[K][]int{}
		for i, row := range rows {
			places[kind(row)] = append(places[kind(row)], i)
		}
		answers := make([]Answer, len(rows))
		for _, of := range places {
			var some []Row
			var theirs []T
			for _, i := range of {
				some, theirs = append(some, rows[i]), append(theirs, logits[i*vocab:(i+1)*vocab]...)
			}
			got, err := engine(some, theirs, vocab)
			if err != nil {
				return nil, err
			}
			for j, i := range of {
				answers[i] = got[j]
			}
		}
		return answers, nil
	}
}

// Run is the conformance suite.
func Run(t *testing.T, b Backend) {
	if b.Supports == nil {
		b.Supports = func(Row, int) bool { return true }
	}
	if b.Float32 != nil {
		t.Run("float32", func(t *testing.T) { run(t, b, b.Float32) })
	}
	if b.Float16 != nil {
		t.Run("float16", func(t *testing.T) { run(t, b, b.Float16) })
	}
	if b.BFloat16 != nil {
		t.Run("bfloat16", func(t *testing.T) { run(t, b, b.BFloat16) })
	}
}

func run[T topk.Float](t *testing.T, b Backend, engine Engine[T]) {
	t.Run("Batches", func(t *testing.T) { testBatches(t, b, engine) })
	t.Run("Common", func(t *testing.T) { testCommon(t, b, engine) })
	t.Run("Rows", func(t *testing.T) { testRows(t, b, engine) })
	t.Run("ZeroMass", func(t *testing.T) { testZeroMass(t, b, engine) })
}

// check compares a backend's answers with the oracle's.
func check[T topk.Float](t *testing.T, engine Engine[T], rows []Row, logits []T, vocab int) {
	t.Helper()
	answers, err := engine(rows, logits, vocab)
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != len(rows) {
		t.Fatalf("%d answers for %d rows", len(answers), len(rows))
	}
	for i, row := range rows {
		Agree(t, fmt.Sprintf("row %d of %d", i, len(rows)), row, logits[i*vocab:(i+1)*vocab], answers[i])
	}
}

// supported draws random rows until the backend supports so many.
func supported(t *testing.T, b Backend, rng *rand.Rand, vocab, n int) []Row {
	t.Helper()
	var rows []Row
	for tries := 0; len(rows) < n; tries++ {
		if tries > 1000*n {
			t.Skipf("of %d random rows %d are supported", tries, len(rows))
		}
		var row Row
		row.Params, row.Options = RandomParams(rng, vocab)
		row.Params.Draws, row.Params.Replacement = 1+rng.IntN(4), rng.IntN(2) == 0
		row.Params.Position = rng.Uint64() >> rng.IntN(64)
		if b.Reduce != nil {
			b.Reduce(&row)
		}
		if b.Supports(row, vocab) {
			rows = append(rows, row)
		}
	}
	return rows
}

// testBatches tries rows with parameters of their own in batches of every size
// and in another order: the answers must not know.
func testBatches[T topk.Float](t *testing.T, b Backend, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(1, 1))
	sizes := []int{1, 2, 7, 32, 129}
	if testing.Short() {
		sizes = sizes[:4]
	}
	for _, size := range sizes {
		vocab := 4 + rng.IntN(900)
		rows := supported(t, b, rng, vocab, size)
		var logits []T
		for range rows {
			kind := topktest.Rows()[rng.IntN(len(topktest.Rows()))]
			logits = append(logits, topktest.Convert[T](kind.Make(rng, vocab))...)
		}
		check(t, engine, rows, logits, vocab)
		permuted, order := make([]Row, size), rng.Perm(size)
		var others []T
		for i, from := range order {
			permuted[i] = rows[from]
			others = append(others, logits[from*vocab:(from+1)*vocab]...)
		}
		check(t, engine, permuted, others, vocab)
	}
}

// testCommon tries the chains that most callers have, on a vocabulary of a model.
func testCommon[T topk.Float](t *testing.T, b Backend, engine Engine[T]) {
	const vocab = 50304
	rng := rand.New(rand.NewPCG(2, 2))
	logits := topktest.Convert[T](topktest.Random(rng, vocab))
	mask := make([]int32, vocab/32)
	for i := range mask {
		mask[i] = int32(rng.Uint32())
	}
	history := make([]int32, 64)
	for i := range history {
		history[i] = int32(rng.IntN(vocab))
	}
	for i, params := range []sampling.Params{
		{},
		{Temperature: 0.8, TopK: 50},
		{Temperature: 0.8, TopK: 50, TopP: 0.95, MinP: 0.05},
		{Temperature: 1},
		{Temperature: 1, TopP: 0.95},
		{Temperature: 1, MinP: 0.05},
		{Temperature: 0.7, TopK: 50, RepetitionPenalty: 1.1, FrequencyPenalty: 0.2, PresencePenalty: 0.1, LogitBias: map[int32]float32{5: 4, 50303: -1}},
		{Temperature: 0.7, TopK: 50, GrammarBitmask: mask},
		{Temperature: 0.7, GrammarBitmask: mask, TopP: 0.9},
		{Temperature: 0.7, TopK: 50, AllowedIDs: history[:20]},
		{Temperature: 1, TopK: 20, Softcap: 2},
		{Temperature: 1, TypicalP: 0.8},
		{Temperature: 1, TopNSigma: 1},
		{Temperature: 1, TopK: 100, XTCProbability: 0.5, XTCThreshold: 0.01},
	} {
		for _, preset := range []sampling.Preset{sampling.VLLM, sampling.Nanochat} {
			params.Seed, params.Draws = uint64(i)<<32, 2
			row := Row{Params: params, Options: sampling.Options{Preset: preset, History: history}}
			if b.Supports(row, vocab) {
				check(t, engine, []Row{row}, logits, vocab)
			}
		}
	}
}

// testRows tries every kind of row, bad ones among them, beside one that must not
// know.
func testRows[T topk.Float](t *testing.T, b Backend, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(3, 3))
	good := Row{Params: sampling.Params{Temperature: 1, TopK: 5, Seed: 8}}
	wrong := Row{Params: sampling.Params{Temperature: 1, TopK: 5, BannedIDs: []int32{1 << 19}}}
	for _, kind := range topktest.Rows() {
		for _, vocab := range []int{1, 7, 33, 1000} {
			row := Row{Params: sampling.Params{Temperature: 0.9, TopK: 1 + rng.IntN(40), TopP: 0.9, Seed: rng.Uint64()}}
			var logits []T
			for _, make := range []topktest.Generator{topktest.Random, kind.Make, topktest.Random, kind.Make} {
				logits = append(logits, topktest.Convert[T](make(rng, vocab))...)
			}
			rows := []Row{good, row, wrong, {Params: sampling.Params{Temperature: row.Params.Temperature}}}
			if slices.ContainsFunc(rows, func(row Row) bool { return !b.Supports(row, vocab) }) {
				continue
			}
			check(t, engine, rows, logits, vocab)
		}
	}
}

// testZeroMass draws many tokens of a row in which some have no mass.
func testZeroMass[T topk.Float](t *testing.T, b Backend, engine Engine[T]) {
	inf := float32(math.Inf(-1))
	logits := topktest.Convert[T]([]float32{inf, 0, -31, inf, 5, -30, inf, 4.5})
	row := Row{Params: sampling.Params{Temperature: 1, Draws: 20000, Replacement: true, Seed: 6}}
	if !b.Supports(row, len(logits)) {
		t.Skip("the backend does not draw 20,000 tokens of a row")
	}
	answers, err := engine([]Row{row}, logits, len(logits))
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range answers[0].Tokens {
		if token != 1 && token != 4 && token != 7 {
			t.Fatalf("drew token %d, which has no mass", token)
		}
	}
	check(t, engine, []Row{row}, logits, len(logits))
}
