//go:build linux && (amd64 || arm64)

package cuda

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// pythonEngine is what samples on a CPU in the PyTorch package, with the arguments of the kernels.
type pythonEngine struct {
	sample func(dtype int32, arguments *sampleArguments) int32
	verify func(dtype int32, arguments *verifyArguments) int32
}

// buildPythonEngine compiles it.
func buildPythonEngine(t *testing.T) (e pythonEngine) {
	t.Helper()
	library := filepath.Join(t.TempDir(), "sample.so")
	args := []string{"-std=c11", "-O2", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-Ikernels", "-o", library}
	for _, name := range []string{"sample.c", "verify.c", "select.c"} {
		args = append(args, filepath.Join(pythonNative, name))
	}
	compile(t, args...)
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		t.Fatal(err)
	}
	purego.RegisterLibFunc(&e.sample, handle, "sample_rows")
	purego.RegisterLibFunc(&e.verify, handle, "verify_sequences")
	return e
}

// pythonCase is a batch for both samplers, as the golden answers hold it.
type pythonCase struct {
	Params    sampling.Params `json:"params"`
	Preset    sampling.Preset `json:"preset"`
	Prompt    []int32         `json:"prompt,omitempty"`
	History   []int32         `json:"history,omitempty"`
	Rows      int             `json:"rows"`
	Vocab     int             `json:"vocab"`
	Draws     int             `json:"draws"`
	Processed bool            `json:"processed"` // the logprobs
	Top       int             `json:"top"`       // so many of them
}

// randomPythonCase draws a case in which most steps are off.
func randomPythonCase(random *rand.Rand) pythonCase {
	one := func(most int) int { return 1 + random.IntN(most) }
	sometimes := func() bool { return random.IntN(4) == 0 }
	c := pythonCase{Preset: sampling.VLLM, Rows: one(3), Vocab: one(200), Draws: 1, Top: random.IntN(4), Processed: sometimes()}
	if sometimes() {
		c.Preset = sampling.Nanochat
	}
	if sometimes() {
		c.Vocab = one(6000)
	}
	if sometimes() {
		c.Draws = one(5)
	}
	share := func() float32 { return float32(one(1000)) / 1000 }
	p := &c.Params
	p.Seed, p.Position, p.Replacement = random.Uint64(), random.Uint64()>>random.IntN(64), random.IntN(2) == 0
	p.Temperature = []float32{0, 1e-6, 1e-5, .3, 1, 1, 1.7, 30, 0x1p-101, 0x1p-99}[random.IntN(10)]
	for _, step := range []func(){
		func() { p.TopK = one(c.Vocab + 3) },
		func() { p.TopP = share() },
		func() { p.MinP = share() / 10 },
		func() { p.TypicalP = share() },
		func() { p.TopNSigma = 3 * share() },
		func() { p.XTCProbability, p.XTCThreshold = share(), share()*.6+1e-6 },
		func() { p.Softcap = 15 * share() },
		func() {
			p.RepetitionPenalty, p.FrequencyPenalty, p.PresencePenalty = 2*share(), share()-.5, share()-.5
			for range random.IntN(30) {
				c.History = append(c.History, int32(random.IntN(c.Vocab)))
				if sometimes() {
					c.Prompt = append(c.Prompt, int32(random.IntN(c.Vocab)))
				}
			}
		},
		func() {
			p.LogitBias = map[int32]float32{}
			for range one(9) {
				bias := 4*share() - 2
				if sometimes() {
					bias = float32(math.Inf(-1))
				}
				p.LogitBias[int32(random.IntN(c.Vocab))] = bias
			}
		},
		func() {
			p.GrammarBitmask = make([]int32, one((c.Vocab+31)/32))
			for i := range p.GrammarBitmask {
				p.GrammarBitmask[i] = int32(random.Uint32() | random.Uint32())
			}
		},
	} {
		if sometimes() {
			step()
		}
	}
	return c
}

// pythonAnswer is what a batch is answered. The most likely are those of the rows that have a first token.
type pythonAnswer struct {
	Tokens   []int32
	Status   []uint8
	Logprobs []float32
	Ranks    []int32
	TopIDs   []int32
	TopLog   []float32
}

// randomPythonLogits draws the logits of a case.
func randomPythonLogits(random *rand.Rand, n int) []float32 {
	logits, kind := make([]float32, n), random.IntN(6)
	for j := range logits {
		logits[j] = float32(random.NormFloat64() * 4)
		switch {
		case kind == 0: // ties
			logits[j] = float32(random.IntN(3))
		case kind == 1 && random.IntN(10) > 0:
			logits[j] = float32(math.Inf(-1))
		case kind == 2 && random.IntN(50) == 0:
			logits[j] = float32([]float64{math.Inf(1), math.NaN(), math.Inf(-1), 3e38, -3e38, 1e-45}[random.IntN(6)])
		}
	}
	return logits
}

// halves converts logits.
func halves[T topk.Float](logits []float32, convert func(float32) T) []T {
	converted := make([]T, len(logits))
	for i, l := range logits {
		converted[i] = convert(l)
	}
	return converted
}

// pythonGolden is a case with its logits, as float32, and the answer of package sampling, in bits.
type pythonGolden struct {
	pythonCase
	DType    string   `json:"dtype"`
	Logits   []byte   `json:"logits"` // little-endian
	Tokens   []int32  `json:"tokens"`
	Status   []int32  `json:"status"`
	Logprobs []uint32 `json:"logprobs"`
	Ranks    []int32  `json:"ranks"`
	TopIDs   []int32  `json:"top_ids"`
}

// TestPythonTokens holds the golden tokens of the PyTorch package to those of package sampling; go test
// -update writes them.
func TestPythonTokens(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	var lines bytes.Buffer
	for i := range 120 {
		c := randomPythonCase(random)
		for c.Vocab > 70 || c.Rows > 2 {
			c = randomPythonCase(random)
		}
		logits := randomPythonLogits(random, c.Rows*c.Vocab)
		g := pythonGolden{pythonCase: c, DType: dtypes[i%len(dtypes)].name}
		var a pythonAnswer
		switch DType(i % len(dtypes)) {
		case Float32:
			a = answerInGo(t, c, logits)
		case Float16:
			a = answerInGo(t, c, halves(logits, topk.Float16FromFloat32))
		default:
			a = answerInGo(t, c, halves(logits, topk.BFloat16FromFloat32))
		}
		g.Tokens, g.Ranks, g.TopIDs = a.Tokens, a.Ranks, a.TopIDs
		for _, status := range a.Status {
			g.Status = append(g.Status, int32(status))
		}
		for _, logprob := range a.Logprobs {
			g.Logprobs = append(g.Logprobs, math.Float32bits(logprob))
		}
		for _, l := range logits {
			g.Logits = binary.LittleEndian.AppendUint32(g.Logits, math.Float32bits(l))
		}
		line, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	golden := filepath.Join("..", "python", "tests", "tokens.jsonl")
	if *update {
		if err := os.WriteFile(golden, lines.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, lines.Bytes()) {
		t.Errorf("%s is not what package sampling answers; go test ./cuda -run TestPythonTokens -update writes it", golden)
	}
}

// answerInGo samples by package sampling.
func answerInGo[T topk.Float](t *testing.T, c pythonCase, logits []T) (a pythonAnswer) {
	t.Helper()
	for i := range c.Rows {
		row := logits[i*c.Vocab : (i+1)*c.Vocab]
		tokens, status := make([]sampling.Token, c.Draws), make([]sampling.Status, 1)
		options := sampling.Options{Preset: c.Preset, Prompt: c.Prompt, History: c.History, FirstDraw: uint32(i * c.Draws)}
		sampler, err := sampling.New[T](c.Params, options)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if err := sampling.SampleRows(tokens, status, []*sampling.Sampler[T]{sampler}, row, topk.Row(c.Vocab, 0)); err != nil {
			t.Fatal(err)
		}
		a.Tokens = append(a.Tokens, tokens...)
		a.Status = append(a.Status, uint8(status[0]))
		for d, token := range tokens {
			n := 0
			if d == 0 {
				n = min(c.Top, c.Vocab)
			}
			var list []sampling.Logprob
			switch {
			case token < 0:
				list = []sampling.Logprob{{Logprob: float32(math.Inf(-1))}}
			case c.Processed:
				list = sampler.AppendProcessedLogprobs(nil, token, n)
			default:
				if list, err = sampler.AppendLogprobs(nil, row, token, n); err != nil {
					t.Fatal(err)
				}
			}
			a.Logprobs, a.Ranks = append(a.Logprobs, list[0].Logprob), append(a.Ranks, int32(list[0].Rank))
			if d > 0 || token < 0 {
				continue
			}
			for _, top := range list[1:] {
				a.TopIDs, a.TopLog = append(a.TopIDs, top.Token), append(a.TopLog, top.Logprob)
			}
		}
	}
	return a
}

// pythonLists holds what the arguments of a case point to.
type pythonLists struct {
	biasIDs, penaltyIDs, counts, ranks, topIDs, mask []int32
	bias, logprobs, topLog                           []float32
}

// addressOf returns the address of a slice that C is to read or write. The slice is given to a function that the
// compiler does not know: one that does not escape may be on the stack, which moves.
func addressOf[T any](s []T) Pointer {
	escape(unsafe.Pointer(unsafe.SliceData(s)))
	return Pointer(uintptr(unsafe.Pointer(unsafe.SliceData(s))))
}

var escape = func(unsafe.Pointer) {}

// answerInC samples by the PyTorch package.
func answerInC[T topk.Float](t *testing.T, sample func(int32, *sampleArguments) int32, dtype DType, c pythonCase, logits []T) (got pythonAnswer) {
	t.Helper()
	p, lists := c.Params, &pythonLists{}
	got.Tokens, got.Status = make([]int32, c.Rows*c.Draws), make([]uint8, c.Rows)
	or := func(v, off float32) float32 {
		if v == 0 {
			return off
		}
		return v
	}
	a := &sampleArguments{
		selectArguments: selectArguments{
			logits: addressOf(logits), stride: int64(c.Vocab), resultStride: int64(c.Draws), rows: int32(c.Rows), vocab: int32(c.Vocab), indexBytes: 4,
		},
		seed: p.Seed, position: p.Position, temperature: p.Temperature, topK: int32(p.TopK), topP: or(p.TopP, 1), minP: p.MinP,
		typicalP: or(p.TypicalP, 1), topNSigma: p.TopNSigma, xtcProbability: p.XTCProbability, xtcThreshold: p.XTCThreshold,
		repetition: or(p.RepetitionPenalty, 1), frequency: p.FrequencyPenalty, presence: p.PresencePenalty, softcap: p.Softcap,
		greedyBelow: greedyBelow, draws: int32(c.Draws), rowDraws: int32(c.Draws), invalidToken: -1, topCount: int32(c.Top),
		tokens: addressOf(got.Tokens), status: addressOf(got.Status),
	}
	if c.Preset == sampling.Nanochat {
		a.greedyBelow, a.minPLast = law.ColdestTemperature, 1
	}
	if p.Replacement {
		a.replacement = 1
	}
	if c.Processed {
		a.processed = 1
	}
	ids := make([]int32, 0, len(p.LogitBias))
	for id := range p.LogitBias {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	counts, order := map[int32]int32{}, []int32{}
	for i, list := range [][]int32{c.Prompt, c.History} {
		for _, id := range list {
			if _, seen := counts[id]; !seen {
				order = append(order, id)
			}
			counts[id] += int32(i)
		}
	}
	for range c.Rows {
		for _, id := range ids {
			lists.biasIDs, lists.bias = append(lists.biasIDs, id), append(lists.bias, p.LogitBias[id])
		}
		for _, id := range order {
			lists.penaltyIDs, lists.counts = append(lists.penaltyIDs, id), append(lists.counts, counts[id])
		}
	}
	lists.mask = p.GrammarBitmask
	if len(lists.mask) > 0 {
		a.mask, a.maskWords = addressOf(lists.mask), int32(len(lists.mask))
	}
	a.biases, a.penalties = int32(len(ids)), int32(len(order))
	a.biasIds, a.bias = addressOf(lists.biasIDs), addressOf(lists.bias)
	a.penaltyIds, a.penaltyCounts = addressOf(lists.penaltyIDs), addressOf(lists.counts)
	got.Logprobs, got.Ranks = make([]float32, c.Rows*c.Draws), make([]int32, c.Rows*c.Draws)
	lists.topIDs, lists.topLog = make([]int32, c.Rows*c.Top), make([]float32, c.Rows*c.Top)
	a.logprobs, a.ranks = addressOf(got.Logprobs), addressOf(got.Ranks)
	if c.Top > 0 {
		a.topIds, a.topLogprobs = addressOf(lists.topIDs), addressOf(lists.topLog)
	}
	if status := sample(int32(dtype), a); status != 0 {
		t.Fatalf("sample_rows returned %d", status)
	}
	runtime.KeepAlive(lists)
	runtime.KeepAlive(logits)
	for i := range c.Rows {
		if got.Tokens[i*c.Draws] < 0 {
			continue
		}
		for j := range min(c.Top, c.Vocab) {
			if id := lists.topIDs[i*c.Top+j]; id >= 0 {
				got.TopIDs, got.TopLog = append(got.TopIDs, id), append(got.TopLog, lists.topLog[i*c.Top+j])
			}
		}
	}
	return got
}

// TestPythonSamples holds the tokens and logprobs that the PyTorch package answers on a CPU, where C samples,
// to those of package sampling, on random rows and parameters.
func TestPythonSamples(t *testing.T) {
	sample := buildPythonEngine(t).sample
	random := rand.New(rand.NewPCG(3, 4))
	cases, statuses := 30000, map[uint8]int{}
	if testing.Short() {
		cases = 6000
	}
	for i := range cases {
		c := randomPythonCase(random)
		logits := randomPythonLogits(random, c.Rows*c.Vocab)
		var want, got pythonAnswer
		switch DType(i % len(dtypes)) {
		case Float32:
			want, got = answerInGo(t, c, logits), answerInC(t, sample, Float32, c, logits)
		case Float16:
			rounded := halves(logits, topk.Float16FromFloat32)
			want, got = answerInGo(t, c, rounded), answerInC(t, sample, Float16, c, rounded)
		default:
			rounded := halves(logits, topk.BFloat16FromFloat32)
			want, got = answerInGo(t, c, rounded), answerInC(t, sample, BFloat16, c, rounded)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) { // in which NaN equals NaN
			t.Fatalf("case %d, %+v, %s:\n C  %+v\n Go %+v\n logits %v", i, c, DType(i%len(dtypes)), got, want, logits)
		}
		for _, status := range want.Status {
			statuses[status]++
		}
	}
	t.Logf("%d cases, statuses %v", cases, statuses)
	for _, status := range []sampling.Status{sampling.StatusOK, sampling.StatusNaN, sampling.StatusEmpty, sampling.StatusExhausted} {
		if statuses[uint8(status)] == 0 {
			t.Errorf("no row was %v", status)
		}
	}
}

// pythonVerdicts is what the PyTorch package answers for all chains on a CPU.
func pythonVerdicts[T topk.Float](t *testing.T, e pythonEngine, c *chains[T], wide bool) []verdict {
	t.Helper()
	n, drafts := c.shape.Sequences, c.shape.Drafts
	var keep []any
	sideOf := func(side int, logits []T, stride int, of func(one chain) sampling.Params) lawArguments {
		var temperature, topP, minP []float32
		var topK []int32
		for _, one := range c.sequences {
			p := of(one)
			if p.TopP == 0 {
				p.TopP = 1
			}
			temperature, topK, topP, minP = append(temperature, p.Temperature), append(topK, int32(p.TopK)), append(topP, p.TopP), append(minP, p.MinP)
		}
		keep = append(keep, temperature, topK, topP, minP)
		l := lawOf(sampling.Params{Softcap: c.softcaps[side]}, c.presets[side], 0)
		l.rowTemperature, l.rowTopK, l.rowTopP, l.rowMinP = addressOf(temperature), addressOf(topK), addressOf(topP), addressOf(minP)
		l.logits, l.stride = addressOf(logits), int64(stride)
		return l
	}
	var tokens, seed, position []int64
	var narrow, counts []int32
	for _, one := range c.sequences {
		for _, token := range append(slices.Clone(one.tokens), 0) { // a stride of one more
			tokens, narrow = append(tokens, int64(token)), append(narrow, int32(token))
		}
		counts = append(counts, int32(one.count))
		seed, position = append(seed, int64(one.target.Seed)), append(position, int64(one.target.Position))
	}
	got, accepted, status := make([]int64, n*(drafts+1)), make([]int32, n), make([]uint8, n)
	a := &verifyArguments{
		target:        sideOf(0, c.logits, c.target, func(one chain) sampling.Params { return one.target }),
		draft:         sideOf(1, c.draftLogits, c.draft, func(one chain) sampling.Params { return one.draft }),
		probabilities: addressOf(c.probabilities), drafted: addressOf(narrow), draftedCount: addressOf(counts),
		rowSeed: addressOf(seed), rowPosition: addressOf(position), tokens: addressOf(got), accepted: addressOf(accepted), status: addressOf(status),
		draftedStride: int64(drafts + 1), resultStride: int64(drafts + 1), sequences: int32(n), drafts: int32(drafts), vocab: int32(c.shape.Vocab),
		indexBytes: 8, draftedBytes: 4, invalidToken: -1,
	}
	if wide {
		a.drafted, a.draftedBytes = addressOf(tokens), 8
	}
	if failed := e.verify(int32(dtypeOf[T]()), a); failed != 0 {
		t.Fatalf("verify_sequences returned %d", failed)
	}
	runtime.KeepAlive(keep)
	runtime.KeepAlive([]any{c, narrow, tokens, counts, seed, position})
	verdicts := make([]verdict, n)
	for s := range verdicts {
		verdicts[s] = verdict{accepted: int(accepted[s]), status: sampling.Status(status[s])}
		for _, token := range got[s*(drafts+1):][:drafts+1] {
			verdicts[s].tokens = append(verdicts[s].tokens, sampling.Token(token))
		}
	}
	return verdicts
}

// TestPythonVerdicts holds the verification of drafts in the PyTorch package on a CPU to package sampling.
func TestPythonVerdicts(t *testing.T) {
	engine, random := buildPythonEngine(t), rand.New(rand.NewPCG(7, 8))
	statuses := map[sampling.Status]int{}
	for batch := range 60 {
		switch vocab := []int{1, 2, 33, 300, 2600}[random.IntN(5)]; batch % 3 {
		case 0:
			comparePythonVerdicts(t, engine, randomChains[float32](random, 24, batch%6, vocab), batch%2 == 0, statuses)
		case 1:
			comparePythonVerdicts(t, engine, randomChains[topk.Float16](random, 24, batch%6, vocab), batch%2 == 0, statuses)
		default:
			comparePythonVerdicts(t, engine, randomChains[topk.BFloat16](random, 24, batch%6, vocab), batch%2 == 0, statuses)
		}
	}
	t.Logf("statuses %v", statuses)
	for _, status := range []sampling.Status{sampling.StatusOK, sampling.StatusNaN, sampling.StatusEmpty, sampling.StatusBadParams} {
		if statuses[status] == 0 {
			t.Errorf("no sequence was %v", status)
		}
	}
}

func comparePythonVerdicts[T topk.Float](t *testing.T, e pythonEngine, c *chains[T], wide bool, statuses map[sampling.Status]int) {
	t.Helper()
	for s, got := range pythonVerdicts(t, e, c, wide) {
		want := c.want(s)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("sequence %d of %d, drafts = %d, vocab = %d: C %+v, Go %+v\n%+v", s, c.shape.Sequences, c.shape.Drafts, c.shape.Vocab, got, want, c.sequences[s])
		}
		statuses[want.status]++
	}
}
