//go:build linux && (amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda/internal/fakedriver"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// Sampling on a GPU, as gpu_test.go has it for selections, and each of its tests on
// the kernels that run on the CPU, with fewer draws.

func TestGPUSamplerConformance(t *testing.T) {
	d := gpu(t, OpenOptions{})
	testSamplerConformance(t, d, math.MaxInt)
	t.Run("OneSeed", func(t *testing.T) { testSamplerOfOneSeed(t, d) })
	t.Run("Edits", func(t *testing.T) { testSamplerEdits(t, d) })
	t.Run("Raw logprobs", func(t *testing.T) { testSamplerRawLogprobs(t, d) })
}

// The same of the kernels that the driver compiles.
func TestGPUSamplerConformanceOfPTX(t *testing.T) {
	d := gpu(t, OpenOptions{ForcePTX: true})
	testSamplerConformance(t, d, math.MaxInt)
	t.Run("Edits", func(t *testing.T) { testSamplerEdits(t, d) })
	t.Run("Raw logprobs", func(t *testing.T) { testSamplerRawLogprobs(t, d) })
}

func TestGPUSamplerGraph(t *testing.T) { testSamplerGraph(t, gpu(t, OpenOptions{}), 10000) }

func TestSamplerGraph(t *testing.T) {
	fake(t)
	testSamplerGraph(t, open(t, 0), 40)
}

// testSamplerGraph captures a call, and launches it for one step after the other,
// with parameters, seeds and positions that change in the device's memory.
func testSamplerGraph(t *testing.T, d *Device, steps int) {
	const rows, vocab = 4, 3000
	rng := rand.New(rand.NewPCG(21, 21))
	m := newMemory(t, d)
	makers := topktest.Rows()
	var batches [8][]topk.BFloat16
	for i := range batches {
		for range rows {
			batches[i] = append(batches[i], topktest.Convert[topk.BFloat16](makers[rng.IntN(len(makers))].Make(rng, vocab))...)
		}
	}
	s, err := d.NewSampler(sampling.Params{}, SamplerOptions{MostTopK: 100})
	if err != nil {
		t.Fatal(err)
	}
	temperature, topP, minP := make([]float32, rows), make([]float32, rows), make([]float32, rows)
	topK, seed, position := make([]int32, rows), make([]uint64, rows), make([]uint64, rows)
	from, to := Logits{}, Tokens{}
	var by RowParams
	load := func(step int) {
		for i := range rows {
			temperature[i], topK[i] = []float32{0, 0.5, 0.8, 1, 2}[rng.IntN(5)], []int32{0, 1, 20, 50, 100, 101}[rng.IntN(6)]
			topP[i], minP[i] = []float32{1, 0.9, 0.5}[rng.IntN(3)], []float32{0, 0.05}[rng.IntN(2)]
			seed[i], position[i] = uint64(i), position[i]+1
		}
		from = Logits{upload(m, "logits", 0, batches[step%len(batches)]), BFloat16}
		by = RowParams{
			Temperature: upload(m, "temperature", 0, temperature), TopK: upload(m, "top_k", 0, topK), TopP: upload(m, "top_p", 0, topP),
			MinP: upload(m, "min_p", 0, minP), Seed: upload(m, "seed", 0, seed), Position: upload(m, "position", 0, position),
		}
		to = Tokens{Tokens: m.buffer("tokens", 4*rows).Pointer(), Status: m.buffer("status", rows).Pointer()}
	}
	load(0)
	if m.err != nil {
		t.Fatal(m.err)
	}
	call := func() error { return s.SampleDevice(m.stream, from, Shape{Rows: rows, Vocab: vocab}, by, to) }
	graph, err := m.stream.Capture(call)
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[sampling.Status]int{}
	for step := range steps {
		load(step)
		if err := graph.Launch(m.stream); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		tokens, status := download[int32](m, "tokens", rows), download[uint8](m, "status", rows)
		if m.err != nil {
			t.Fatalf("step %d: %v", step, m.err)
		}
		for i := range rows {
			params := sampling.Params{
				Temperature: temperature[i], TopK: int(topK[i]), TopP: topP[i], MinP: minP[i], Seed: seed[i], Position: position[i],
			}
			token, went := onCPU(t, params, "", batches[step%len(batches)][i*vocab:(i+1)*vocab])
			if tokens[i] != token || sampling.Status(status[i]) != went {
				t.Fatalf("step %d, row %d, %+v: token %d, %v, want %d, %v", step, i, params, tokens[i], sampling.Status(status[i]), token, went)
			}
			drawn[went]++
		}
	}
	if drawn[sampling.StatusOK] < steps || drawn[sampling.StatusNaN] == 0 {
		t.Errorf("the rows are not what they should be: %v", drawn)
	}
	if err := graph.Close(); err != nil {
		t.Error(err)
	}
}

// onCPU draws one token by package sampling.
func onCPU[T topk.Float](t testing.TB, params sampling.Params, preset sampling.Preset, row []T) (sampling.Token, sampling.Status) {
	t.Helper()
	s, err := sampling.New[T](params, sampling.Options{Preset: preset})
	if err != nil {
		t.Fatal(err)
	}
	token, status := make([]sampling.Token, 1), make([]sampling.Status, 1)
	if err := sampling.SampleRows(token, status, []*sampling.Sampler[T]{s}, row, topk.Row(len(row), 0)); err != nil {
		t.Fatal(err)
	}
	return token[0], status[0]
}

func TestGPUSamplerStreams(t *testing.T) { testSamplerStreams(t, gpu(t, OpenOptions{}), 2000) }

func TestSamplerStreams(t *testing.T) {
	fake(t)
	testSamplerStreams(t, open(t, 0), 12)
}

// testSamplerStreams has two streams share a Sampler, each with many calls in its
// queue: of few tokens, of all, and edited ones.
func testSamplerStreams(t *testing.T, d *Device, rounds int) {
	errs := make([]error, 2)
	s, err := d.NewSampler(sampling.Params{Temperature: 0.9, TopP: 0.95, RepetitionPenalty: 1}, SamplerOptions{MostTopK: 50})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for i := range errs {
		running.Go(func() { errs[i] = sampleInTurns(d, s, uint64(i), rounds) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// sampleInTurns puts many calls into one stream before it looks at the tokens.
func sampleInTurns(d *Device, s *Sampler, seed uint64, rounds int) error {
	const rows, vocab = 3, 5000
	rng := rand.New(rand.NewPCG(seed, 22))
	stream, err := d.NewStream()
	if err != nil {
		return err
	}
	defer stream.Close()
	m := &memory{device: d, stream: stream, buffers: map[string]*Buffer{}}
	logits := topktest.Convert[topk.BFloat16](topktest.Random(rng, rows*vocab))
	from := Logits{upload(m, "logits", 0, logits), BFloat16}
	seeds, positions, topK := make([]uint64, rows*rounds), make([]uint64, rows*rounds), make([]int32, rows*rounds)
	for i := range seeds {
		seeds[i], positions[i], topK[i] = rng.Uint64(), rng.Uint64(), rng.Int32N(51)
	}
	at := [...]Pointer{upload(m, "seeds", 0, seeds), upload(m, "positions", 0, positions), upload(m, "top_k", 0, topK), upload(m, "bias ids", 0, []int32{7, 8, 9}), upload(m, "biases", 0, []float32{9, 9, 9})}
	tokens := m.buffer("tokens", 4*rows*rounds)
	workspace := m.buffer("workspace", EditBytes(rows, vocab))
	if m.err != nil {
		return m.err
	}
	shape := Shape{Rows: rows, Vocab: vocab}
	for i := range rounds {
		first := Pointer(rows * i)
		by := RowParams{Seed: at[0] + 8*first, Position: at[1] + 8*first, TopK: at[2] + 4*first}
		to := Tokens{Tokens: tokens.Pointer() + 4*first}
		if i%4 == 3 {
			edits := Edits{BiasIDs: at[3], Biases: at[4], BiasCount: 1, Workspace: Workspace{workspace.Pointer(), EditBytes(rows, vocab)}}
			err = s.SampleEdited(stream, from, shape, by, edits, to)
		} else {
			err = s.SampleDevice(stream, from, shape, by, to)
		}
		if err != nil {
			return err
		}
	}
	got := download[int32](m, "tokens", rows*rounds)
	if m.err != nil {
		return m.err
	}
	for i, token := range got {
		params := sampling.Params{Temperature: 0.9, TopP: 0.95, TopK: int(topK[i]), Seed: seeds[i], Position: positions[i]}
		if i/rows%4 == 3 {
			params.LogitBias = map[int32]float32{int32(7 + i%rows): 9}
		}
		cpu, err := sampling.New[topk.BFloat16](params, sampling.Options{})
		if err != nil {
			return err
		}
		want, err := cpu.Sample(logits[i%rows*vocab:][:vocab])
		if err != nil {
			return err
		}
		if token != want {
			return fmt.Errorf("stream %d, call %d, row %d: token %d, want %d", seed, i/rows, i%rows, token, want)
		}
	}
	return nil
}

func TestGPUSamplerDeterminism(t *testing.T) { testSamplerDeterminism(t, gpu(t, OpenOptions{}), 1000) }

func TestSamplerDeterminism(t *testing.T) {
	fake(t)
	testSamplerDeterminism(t, open(t, 0), 3)
}

// testSamplerDeterminism runs one call many times, into tokens of its own each.
func testSamplerDeterminism(t *testing.T, d *Device, runs int) {
	const rows, vocab = 2, 5000
	rng := rand.New(rand.NewPCG(23, 23))
	m := newMemory(t, d)
	for _, kind := range topktest.Rows() {
		logits := topktest.Convert[topk.BFloat16](kind.Make(rng, rows*vocab))
		from := Logits{upload(m, "logits", 0, logits), BFloat16}
		for _, params := range []sampling.Params{{Temperature: 1, TopK: 100, TopP: 0.9, Seed: 3}, {Temperature: 1, TopP: 0.9, Seed: 3}} {
			s, err := d.NewSampler(params, SamplerOptions{})
			if err != nil {
				t.Fatal(err)
			}
			tokens, status := m.buffer("tokens", 4*rows*runs), m.buffer("status", rows*runs)
			if m.err != nil {
				t.Fatal(m.err)
			}
			for i := range runs {
				to := Tokens{Tokens: tokens.Pointer() + Pointer(4*rows*i), Status: status.Pointer() + Pointer(rows*i)}
				if err := s.SampleDevice(m.stream, from, Shape{Rows: rows, Vocab: vocab}, RowParams{}, to); err != nil {
					t.Fatal(err)
				}
			}
			cpu, err := sampling.New[topk.BFloat16](params, sampling.Options{})
			if err != nil {
				t.Fatal(err)
			}
			want, went := make([]sampling.Token, rows), make([]sampling.Status, rows)
			if err := sampling.SampleRows(want, went, []*sampling.Sampler[topk.BFloat16]{cpu}, logits, topk.Shape{Rows: rows, Vocab: vocab}); err != nil {
				t.Fatal(err)
			}
			got, statuses := download[int32](m, "tokens", rows*runs), download[uint8](m, "status", rows*runs)
			for i := range rows * runs {
				if got[i] != want[i%rows] || sampling.Status(statuses[i]) != went[i%rows] {
					t.Fatalf("rows of kind %s, top_k %d, run %d, row %d: token %d, %v, want %d, %v", kind.Name, params.TopK,
						i/rows, i%rows, got[i], sampling.Status(statuses[i]), want[i%rows], went[i%rows])
				}
			}
			if err := errors.Join(m.err, s.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestGPUSamplerLaw(t *testing.T) { testSamplerLaw(t, gpu(t, OpenOptions{}), 1_000_000) }

func TestSamplerLaw(t *testing.T) {
	fake(t)
	testSamplerLaw(t, open(t, 0), 1000)
}

// testSamplerLaw draws n tokens of each of ten rows: they have the probabilities of a
// softmax in float64 over the kept set. Seeds are fixed, so that a run repeats
// itself; another seed fails by chance once in 16,000 rows.
func testSamplerLaw(t *testing.T, d *Device, n int) {
	rng := rand.New(rand.NewPCG(24, 24))
	m := newMemory(t, d)
	random := topktest.Random(rng, 900)
	for i, c := range []struct {
		name   string
		logits []float32
		params sampling.Params
	}{
		{"random", random, sampling.Params{Temperature: 1}},
		{"random, cold", random, sampling.Params{Temperature: 0.7}},
		{"random, hot", random, sampling.Params{Temperature: 2}},
		{"top-k", random, sampling.Params{Temperature: 1, TopK: 50}},
		{"top-k, top-p, min-p", random, sampling.Params{Temperature: 0.8, TopK: 50, TopP: 0.9, MinP: 0.05}},
		{"peaked", append(topktest.Random(rng, 300), 7), sampling.Params{Temperature: 1}},
		{"ties", topktest.FewDistinct(rng, 200), sampling.Params{Temperature: 1}},
		{"masked", topktest.Masked(20)(rng, 400), sampling.Params{Temperature: 1}},
		{"whole row", topktest.Random(rng, 3000), sampling.Params{Temperature: 1}},
		{"whole row, top-p", topktest.Random(rng, 3000), sampling.Params{Temperature: 1, TopP: 0.6}},
	} {
		c.params.Seed = uint64(i)
		counts := drawnOn(t, m, c.params, c.logits, n)
		p := expectedLaw(t, c.params, c.logits)
		for id, count := range counts {
			if p[id] == 0 && count > 0 {
				t.Errorf("%s: token %d, which is not kept, came %d times", c.name, id, count)
			}
		}
		if z := chiSquare(counts, p); math.Abs(z) > 4 {
			t.Errorf("%s: %d draws are %v standard deviations from the law", c.name, n, z)
		}
	}
}

// drawnOn counts how often each token comes in n draws of a row.
func drawnOn(t *testing.T, m *memory, params sampling.Params, logits []float32, n int) []int {
	t.Helper()
	const draws = 10
	params.Replacement = true
	s, err := m.device.NewSampler(params, SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	from := Logits{upload(m, "logits", 0, logits), Float32}
	counts, tokens := make([]int, len(logits)), m.buffer("tokens", 4*n)
	if m.err != nil {
		t.Fatal(m.err)
	}
	// One seed for all rows gives each of them draws of its own.
	err = s.SampleDevice(m.stream, from, Shape{Rows: n / draws, Vocab: len(logits), Expand: true}, RowParams{}, Tokens{Tokens: tokens.Pointer(), Draws: draws})
	for _, token := range download[int32](m, "tokens", n/draws*draws) {
		if token < 0 || int(token) >= len(logits) {
			t.Fatalf("token %d of %d logits, %v, %v", token, len(logits), err, m.err)
		}
		counts[token]++
	}
	if err := errors.Join(err, m.err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return counts
}

// expectedLaw returns the softmax in float64 over the tokens that package sampling keeps.
func expectedLaw(t *testing.T, params sampling.Params, logits []float32) []float64 {
	t.Helper()
	s, err := sampling.New[float32](params, sampling.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sample(logits); err != nil {
		t.Fatal(err)
	}
	p, sum := make([]float64, len(logits)), 0.0
	for _, kept := range s.AppendKept(nil) {
		p[kept.Token] = math.Exp(float64(logits[kept.Token]) / float64(params.Temperature))
		sum += p[kept.Token]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// chiSquare returns Pearson's statistic as about a standard normal one (Wilson and
// Hilferty, 1931), over tokens of ten expected hits or more and the others together.
func chiSquare(counts []int, p []float64) float64 {
	n := 0
	for _, count := range counts {
		n += count
	}
	statistic, cells, rest, restExpected := 0.0, 0, 0, 0.0
	add := func(count int, expected float64) {
		statistic += (float64(count) - expected) * (float64(count) - expected) / expected
		cells++
	}
	for i, count := range counts {
		if expected := p[i] * float64(n); expected >= 10 {
			add(count, expected)
		} else {
			rest, restExpected = rest+count, restExpected+expected
		}
	}
	if restExpected >= 1 {
		add(rest, restExpected)
	}
	freedom := float64(cells - 1)
	return (math.Cbrt(statistic/freedom) - (1 - 2/(9*freedom))) / math.Sqrt(2/(9*freedom))
}

// Of 262,144 tokens 20.5 below the largest and 100,000 draws, 32.8 are expected.
func TestGPUSamplerTails(t *testing.T) {
	testSamplerTails(t, gpu(t, OpenOptions{}), 1<<18, 100_000, 20.5)
}

func TestSamplerTails(t *testing.T) {
	fake(t)
	testSamplerTails(t, open(t, 0), 1<<11, 1000, 11)
}

// testSamplerTails: a tail of many tokens, each of which is rare, is hit as often as
// it should.
func testSamplerTails(t *testing.T, d *Device, tail, draws int, gap float64) {
	logits := slices.Repeat([]float32{float32(-gap)}, tail+1)
	logits[tail/2] = 0
	counts := drawnOn(t, newMemory(t, d), sampling.Params{Temperature: 1, Seed: 4}, logits, draws)
	hits, expected := draws-counts[tail/2], float64(draws)*float64(tail)*math.Exp(-gap)
	if z := (float64(hits) - expected) / math.Sqrt(expected); math.Abs(z) > 4 {
		t.Errorf("%d hits of the tail, expected %v: z = %v", hits, expected, z)
	}
}

// A fault of the device is an error that names the call which told it. The device of
// this process would be gone: another process has it.
func TestGPUSamplerFault(t *testing.T) {
	const child = "AIKF_TEST_FAULT"
	if os.Getenv(child) == "" {
		gpu(t, OpenOptions{}) // or skip
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestGPUSamplerFault$", "-test.v")
		command.Env = append(os.Environ(), child+"=1")
		out, err := command.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "a fault, as it should be: ") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	d, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory(t, d)
	s, err := d.NewSampler(sampling.Params{Temperature: 1, TopK: 5}, SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := m.buffer("memory", 1<<12).Pointer()
	// The second row lies where nothing is.
	launched := s.SampleDevice(m.stream, Logits{p, Float32}, Shape{Rows: 2, Vocab: 100, Stride: 1 << 44}, RowParams{}, Tokens{Tokens: p + 1024})
	if launched != nil {
		t.Fatalf("the launch itself: %v", launched)
	}
	err = m.stream.Synchronize()
	wantError(t, err, ErrFault, "device 0", "cuStreamSynchronize")
	t.Logf("a fault, as it should be: %v", err)
	wantError(t, s.SampleDevice(m.stream, Logits{p, Float32}, Shape{Rows: 1, Vocab: 100}, RowParams{}, Tokens{Tokens: p + 1024}), ErrFault)
}

// Whatever the driver refuses of a sampling, the error names the call; a fault is told
// by the next wait.
func TestSamplerFaults(t *testing.T) {
	library := fake(t)
	d := open(t, 0)
	m := newMemory(t, d)
	s, err := d.NewSampler(sampling.Params{Temperature: 1, TopK: 5}, SamplerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	from := Logits{upload(m, "logits", 0, make([]float32, 100)), Float32}
	tokens, workspace := m.buffer("tokens", 4), m.buffer("workspace", EditBytes(1, 100))
	if m.err != nil {
		t.Fatal(m.err)
	}
	to, shape := Tokens{Tokens: tokens.Pointer()}, Shape{Rows: 1, Vocab: 100}
	edits := Edits{Workspace: Workspace{workspace.Pointer(), EditBytes(1, 100)}}
	for _, call := range []func() error{
		func() error { return s.SampleDevice(m.stream, from, shape, RowParams{}, to) },
		func() error { return s.SampleEdited(m.stream, from, shape, RowParams{}, edits, to) },
	} {
		library.Fail("cuLaunchKernelEx", 1, fakedriver.OutOfMemory)
		wantCall(t, call(), "cuLaunchKernelEx", fakedriver.OutOfMemory)
		if err := errors.Join(call(), m.stream.Synchronize()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	library.Fail("kernel", 1, fakedriver.IllegalAddress)
	if err := s.SampleDevice(m.stream, from, shape, RowParams{}, to); err != nil {
		t.Fatalf("the launch itself: %v", err)
	}
	err = m.stream.Synchronize()
	wantError(t, err, ErrFault, "device 0", "cannot be used again")
	wantCall(t, err, "cuStreamSynchronize", fakedriver.IllegalAddress)
	wantError(t, s.SampleDevice(m.stream, from, shape, RowParams{}, to), ErrFault)
}
