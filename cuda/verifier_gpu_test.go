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

// A Verifier gives the verdicts of package sampling, on the device, for teams of every
// size.
func TestGPUVerifier(t *testing.T) { gpuVerifier(t, OpenOptions{}) }

// The same of the kernels that the driver compiles.
func TestGPUVerifierOfPTX(t *testing.T) { gpuVerifier(t, OpenOptions{ForcePTX: true}) }

func gpuVerifier(t *testing.T, options OpenOptions) {
	m := newMemory(t, gpu(t, options))
	rng := rand.New(rand.NewPCG(22, 22))
	batches := 150
	if testing.Short() {
		batches = 30
	}
	few, many := []int{1, 2, 33, 300, 2600, 5000}, []int{50257, 50304, 151936}
	t.Run("float32", func(t *testing.T) { requireEnds(t, testVerifier[float32](t, m, rng, batches, 24, few...)) })
	t.Run("float16", func(t *testing.T) { requireEnds(t, testVerifier[topk.Float16](t, m, rng, batches, 24, few...)) })
	t.Run("bfloat16", func(t *testing.T) { requireEnds(t, testVerifier[topk.BFloat16](t, m, rng, batches, 24, few...)) })
	// Few, since the CPU is slow at these: not every end is among them.
	t.Run("large float32", func(t *testing.T) { testVerifier[float32](t, m, rng, 6, 16, many...) })
	t.Run("large bfloat16", func(t *testing.T) { testVerifier[topk.BFloat16](t, m, rng, 6, 16, many...) })
}

func TestGPUVerifierGraph(t *testing.T) { testVerifierGraph(t, gpu(t, OpenOptions{}), 10000) }

// BenchmarkGPUVerifier times calls in a graph, 8 sequences of 4 drafted tokens each.
func BenchmarkGPUVerifier(b *testing.B) {
	d := gpu(b, OpenOptions{})
	const sequences, drafts, vocab, calls = 8, 4, 50304, 20
	rng := rand.New(rand.NewPCG(23, 23))
	m := newMemory(b, d)
	var logits, laws []topk.BFloat16
	var drafted []int32
	probabilities := make([]float32, sequences*drafts*vocab)
	for s := range sequences {
		for i := range drafts + 1 {
			row := topktest.Random(rng, vocab)
			for j := range row {
				row[j] *= 2
			}
			logits = append(logits, topktest.Convert[topk.BFloat16](row)...)
			if i == drafts {
				break
			}
			for j := range row {
				row[j] += float32(rng.NormFloat64()) / 2
			}
			law := topktest.Convert[topk.BFloat16](row)
			laws = append(laws, law...)
			sampler, err := sampling.New[topk.BFloat16](sampling.Params{Temperature: 1, Seed: uint64(i), Position: uint64(s)}, sampling.Options{})
			if err != nil {
				b.Fatal(err)
			}
			token, err := sampler.Sample(law)
			if err != nil {
				b.Fatal(err)
			}
			drafted = append(drafted, token)
			sum := 0.0
			for _, l := range row {
				sum += math.Exp(float64(l))
			}
			for j, l := range row {
				probabilities[(s*drafts+i)*vocab+j] = float32(math.Exp(float64(l)) / sum)
			}
		}
	}
	from := Logits{upload(m, "logits", 0, logits), BFloat16}
	law := Drafts{Tokens: upload(m, "drafted", 0, drafted), Logits: upload(m, "draft logits", 0, laws)}
	probable := Drafts{Tokens: law.Tokens, Probabilities: upload(m, "probabilities", 0, probabilities)}
	to := Verified{Tokens: upload(m, "tokens", 0, make([]int64, sequences*(drafts+1))), Index64: true, Accepted: upload(m, "accepted", 0, make([]int32, sequences))}
	workspace := Workspace{upload(m, "workspace", 0, make([]uint64, sequences)), VerifyBytes(sequences)}
	start, err := d.NewEvent()
	end, err2 := d.NewEvent()
	if err := errors.Join(m.err, err, err2); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		params sampling.Params
		draft  Drafts
	}{
		{"greedy", sampling.Params{}, law},
		{"top_k=50,top_p", sampling.Params{Temperature: 1, TopK: 50, TopP: 0.95}, law},
		{"top_k=50,probabilities", sampling.Params{Temperature: 1, TopK: 50}, probable},
		{"top_k=1024", sampling.Params{Temperature: 1, TopK: 1024}, law},
		{"temperature", sampling.Params{Temperature: 1}, law},
		{"temperature,probabilities", sampling.Params{Temperature: 1}, probable},
		{"min_p", sampling.Params{Temperature: 1, MinP: 0.02}, law},
		{"top_p", sampling.Params{Temperature: 1, TopP: 0.9}, law},
	} {
		for _, n := range []int{1, sequences} {
			for _, team := range []int{0, 1, 2, 4, 8} {
				b.Run(fmt.Sprintf("%s/sequences=%d/team=%d", c.name, n, team), func(b *testing.B) {
					v, err := d.NewVerifier(c.params, c.params, VerifierOptions{})
					if err != nil {
						b.Fatal(err)
					}
					defer v.Close()
					v.team = team
					shape := VerifyShape{Sequences: n, Drafts: drafts, Vocab: vocab}
					graph, err := m.stream.Capture(func() (err error) {
						for range calls {
							err = errors.Join(err, v.VerifyDevice(m.stream, from, shape, RowParams{}, RowParams{}, c.draft, to, workspace))
						}
						return err
					})
					if err != nil {
						b.Fatal(err)
					}
					defer graph.Close()
					var times []float64
					for range 30 {
						err := errors.Join(m.stream.Record(start), graph.Launch(m.stream), m.stream.Record(end), m.stream.Synchronize())
						elapsed, err2 := Elapsed(start, end)
						if err := errors.Join(err, err2); err != nil {
							b.Fatal(err)
						}
						times = append(times, float64(elapsed.Nanoseconds())/calls/1000)
					}
					slices.Sort(times)
					accepted := 0
					for _, n := range download[int32](m, "accepted", n) {
						accepted += int(n)
					}
					b.ReportMetric(times[len(times)/2], "us/call")
					b.ReportMetric(float64(accepted)/float64(n), "accepted")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}
