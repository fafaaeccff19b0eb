package shim_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
	"github.com/ai-kernel-factory/aikf/internal/law"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// The kernels for rows without a top-k give the tokens of package sampling.
func TestWhole(t *testing.T) {
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...)}
	for _, blocks := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(blocks, " blocks"), func(t *testing.T) {
			samplingtest.Run(t, samplingtest.Backend{
				Float32: sampleWhole[float32](k, blocks, 7), Float16: sampleWhole[topk.Float16](k, blocks, 8), BFloat16: sampleWhole[topk.BFloat16](k, blocks, 9),
				Supports: func(row samplingtest.Row, vocab int) bool {
					p := row.Params
					return samples(row, vocab) && p.TypicalP == 0 && p.TopNSigma == 0 && p.XTCProbability == 0 && !row.Asked.Logprobs
				},
				Reduce: func(row *samplingtest.Row) {
					reduce(row)
					row.Params.TypicalP, row.Params.TopNSigma, row.Params.XTCProbability, row.Params.XTCThreshold = 0, 0, 0, 0
					row.Asked = samplingtest.Asked{}
				},
			})
		})
	}
}

// peaked is a row in which few tokens have nearly all of the mass.
func peaked(rng *rand.Rand, vocab int) []float32 {
	row := topktest.Random(rng, vocab)
	for range 40 {
		row[rng.IntN(vocab)] += 4 + 8*rng.Float32()
	}
	return row
}

// large is a row of large logits, of which a 16-bit type has few.
func large(rng *rand.Rand, vocab int) []float32 {
	row := topktest.Random(rng, vocab)
	for i := range row {
		row[i] += 20
	}
	return row
}

// huge is a row of which many tokens have the same logit in a 16-bit type.
func huge(rng *rand.Rand, vocab int) []float32 {
	row := topktest.Random(rng, vocab)
	for i := range row {
		row[i] += 200
	}
	return row
}

// wholeKinds are rows, and whether they must be drawn from without passes for every
// question.
var wholeKinds = func() (kinds []wholeKind) {
	for _, kind := range topktest.Rows() {
		kinds = append(kinds, wholeKind{kind.Name, kind.Make, false})
	}
	return append(kinds, wholeKind{"random", topktest.Random, true}, wholeKind{"peaked", peaked, true}, wholeKind{"large", large, true},
		wholeKind{"huge", huge, true}, wholeKind{"constant", topktest.Constant, true}, wholeKind{"two values", topktest.TwoValues, true})
}()

type wholeKind struct {
	name string
	make topktest.Generator
	fast bool
}

// Rows of larger vocabularies, of every length modulo a vector, at any address and of
// a length of their own, with every share of the mass.
func TestWholeRows(t *testing.T) {
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...)}
	t.Run("float32", func(t *testing.T) { testWholeRows[float32](t, k) })
	t.Run("float16", func(t *testing.T) { testWholeRows[topk.Float16](t, k) })
	t.Run("bfloat16", func(t *testing.T) { testWholeRows[topk.BFloat16](t, k) })
}

func testWholeRows[T topk.Float](t *testing.T, k *kernels) {
	rng := rand.New(rand.NewPCG(19, uint64(len(short[T]()))))
	for n, kind := range wholeKinds {
		for i, base := range []int{3000, 9000, 20000} {
			for range 2 {
				vocab := base + rng.IntN(16)
				row := samplingtest.Row{Params: sampling.Params{
					Temperature: []float32{0.5, 1, 1, 5, 1e-20, 1e20}[rng.IntN(6)], Seed: rng.Uint64(), Position: rng.Uint64(),
					Draws: []int{1, 3, 40}[rng.IntN(3)], Replacement: rng.IntN(2) == 0,
					TopP: []float32{0, 0, 1e-6, 0.1, 0.5, 0.9, 0.95, 0.999, 0.9999999}[rng.IntN(9)],
					MinP: []float32{0, 0, 0, 1e-13, 1e-5, 0.001, 0.1, 0.7, 1}[rng.IntN(9)],
				}}
				if kind.fast {
					row.Params.Temperature = []float32{0.5, 1, 2}[rng.IntN(3)]
				}
				if rng.IntN(2) == 0 {
					row.Options.Preset = sampling.Nanochat
				}
				logits := topktest.Convert[T](kind.make(rng, vocab))
				want := samplingtest.Oracle(row, logits)
				blocks := []int{1, 2, 4, 8}[rng.IntN(4)]
				got, slow, err := launchWhole(k, row, logits, blocks, rng.IntN(9), uint64(n*8+i))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got.Tokens, want.Tokens) || got.Status != want.Status {
					t.Errorf("%s, vocab %d, %d blocks, %+v:\n%v, status %v; want %v, %v", kind.name, vocab, blocks, row.Params, got.Tokens, got.Status, want.Tokens, want.Status)
				}
				if kind.fast && slow {
					t.Errorf("%s, vocab %d, %d blocks, %+v: drawn by passes", kind.name, vocab, blocks, row.Params)
				}
			}
		}
	}
}

// flat is a row of which all tokens have nearly the same mass.
func flat(rng *rand.Rand, vocab int) []float32 {
	row := make([]float32, vocab)
	for i := range row {
		row[i] = rng.Float32() / 4
	}
	return row
}

// Draws whose target lies next to the border of a token, and shares that end next to one: nearer than roundings of
// masses tell.
func TestNearBorders(t *testing.T) {
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...)}
	t.Run("float32", func(t *testing.T) { testNearBorders[float32](t, k) })
	t.Run("float16", func(t *testing.T) { testNearBorders[topk.Float16](t, k) })
	t.Run("bfloat16", func(t *testing.T) { testNearBorders[topk.BFloat16](t, k) })
}

func testNearBorders[T topk.Float](t *testing.T, k *kernels) {
	const positions, nearest = 100_000, 12
	rng := rand.New(rand.NewPCG(23, uint64(len(short[T]()))))
	for n, kind := range []wholeKind{{"random", topktest.Random, true}, {"flat", flat, true}, {"peaked", peaked, true}, {"two values", topktest.TwoValues, true}} {
		logits := topktest.Convert[T](kind.make(rng, 18_000+rng.IntN(16)))
		numbers := make([]float32, len(logits))
		for i, logit := range logits {
			numbers[i] = numberOf(logit)
		}
		best := slices.Max(numbers)
		check := func(p sampling.Params) {
			t.Helper()
			row := samplingtest.Row{Params: p}
			want := samplingtest.Oracle(row, logits)
			blocks := []int{1, 2, 8}[rng.IntN(3)]
			got, slow, err := launchWhole(k, row, logits, blocks, rng.IntN(9), rng.Uint64())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Tokens, want.Tokens) || got.Status != want.Status || slow {
				t.Errorf("%s, %d blocks, %+v: %v, status %v, by passes %v; want %v, %v", kind.name, blocks, p, got.Tokens, got.Status, slow, want.Tokens, want.Status)
			}
		}

		for _, minP := range []float32{0, 0.02} {
			p := sampling.Params{Temperature: 1, MinP: minP, Seed: uint64(n)}
			var ends []uint64 // of the tokens, in the order of ids
			var total uint64
			for _, logit := range numbers {
				if mass := law.LogitMass(logit, best, 1); mass >= law.CeilProduct(minP, law.One) {
					total += mass
				}
				ends = append(ends, total)
			}
			// The positions of which the target is next to a border, the nearest first.
			type draw struct{ position, distance uint64 }
			var draws []draw
			for position := range uint64(positions) {
				target := law.Target(law.Uniform(p.Seed, position, 0, law.Draw), total)
				token, _ := slices.BinarySearch(ends, target+1)
				begin := uint64(0)
				if token > 0 {
					begin = ends[token-1]
				}
				draws = append(draws, draw{position, min(target-begin, ends[token]-target)})
			}
			slices.SortFunc(draws, func(a, b draw) int { return cmp.Compare(a.distance, b.distance) })
			for _, draw := range draws[:nearest] {
				p.Position = draw.position
				check(p)
			}
		}

		// The sums of the tokens, the most likely first.
		slices.SortFunc(numbers, func(a, b float32) int { return cmp.Compare(b, a) })
		sums := []uint64{0}
		for i, logit := range numbers {
			sums = append(sums, sums[i]+law.LogitMass(logit, best, 1))
		}
		for range nearest {
			share := float64(sums[1+rng.IntN(len(numbers)-1)]) / float64(sums[len(numbers)])
			for _, topP := range []float32{math.Nextafter32(float32(share), 0), float32(share), math.Nextafter32(float32(share), 1)} {
				check(sampling.Params{Temperature: 1, TopP: topP, Seed: rng.Uint64()})
			}
		}
	}
}

func numberOf[T topk.Float](logit T) float32 {
	if half, ok := any(logit).(interface{ Float32() float32 }); ok {
		return half.Float32()
	}
	return any(logit).(float32)
}

// launchWhole answers one row, the second of two of which the first is empty, by so many
// blocks, at so many elements from an aligned address, and tells whether it was drawn by
// passes.
func launchWhole[T topk.Float](k *kernels, row samplingtest.Row, logits []T, blocks, offset int, order uint64) (samplingtest.Answer, bool, error) {
	vocab, draws, p := len(logits)+3, max(1, row.Params.Draws), row.Params
	padded := make([]T, offset+2*vocab)
	for i := range padded {
		padded[i] = topktest.Convert[T]([]float32{float32(math.NaN())})[0]
	}
	copy(padded[offset+vocab:], logits)
	lengths, tokens, status, slow := []int32{0, int32(len(logits))}, make([]int32, 2*draws), make([]uint8, 2), make([]uint32, 2)
	seed, position := []uint64{0, p.Seed}, []uint64{0, p.Position}
	a := sampleArguments{
		arguments: arguments{
			logits: first(padded[offset:]), stride: int64(vocab), resultStride: int64(draws), rows: 2, vocab: int32(vocab), rowLengths: first(lengths),
			workspace: first(slow), k: 1024, groups: 512, chunks: int32(blocks), indexBytes: 4,
		},
		rowSeed: first(seed), rowPosition: first(position), tokens: first(tokens), status: first(status),
		temperature: p.Temperature, topP: p.TopP, minP: p.MinP, typicalP: 1, repetition: 1, greedyBelow: 1e-5, draws: int32(draws), invalidToken: -1,
	}
	if p.TopP == 0 {
		a.topP = 1
	}
	if row.Options.Preset == sampling.Nanochat {
		a.greedyBelow, a.minPLast = law.ColdestTemperature, 1
	}
	if p.Replacement {
		a.replacement = 1
	}
	symbol := "sample_" + short[T]() + "_whole"
	if blocks > 1 {
		symbol += "_cluster"
	}
	if _, err := k.Launch(symbol, 2*blocks, samplingThreads, blocks, order, unsafe.Pointer(&a)); err != nil {
		return samplingtest.Answer{}, false, err
	}
	answer := samplingtest.Answer{Status: sampling.Status(status[1])}
	for _, token := range tokens[draws:] {
		answer.Tokens = append(answer.Tokens, sampling.Token(token))
	}
	return answer, slow[1] != 0, nil
}
