package differential

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda"
)

// cpuSampleEngine answers as a device would, by the CPU; spoil, if not nil, changes
// the answer.
type cpuSampleEngine struct {
	spoil  func(b *SampleBatch)
	closed *atomic.Int64
}

func (e cpuSampleEngine) Close() error { e.closed.Add(1); return nil }

func (e cpuSampleEngine) Sample(b *SampleBatch) (err error) {
	b.MostKept = min(b.Vocab, 1024)
	b.Outcomes, err = b.Answer()
	for i, o := range b.Outcomes {
		b.Outcomes[i] = b.asTold(i, o)
	}
	if e.spoil != nil {
		e.spoil(b)
	}
	return err
}

// sampleSettings compares with the CPU engine, spoiled; every engine of so many runs
// has to be closed.
func sampleSettings(t testing.TB, runs int, spoil func(b *SampleBatch)) SampleConfig {
	closed := new(atomic.Int64)
	c := SampleConfig{
		NewEngine: func() (SampleEngine, error) { return cpuSampleEngine{spoil, closed}, nil },
		Extent:    Extent{DTypes: []cuda.DType{cuda.Float32, cuda.Float16, cuda.BFloat16}, Seed: 7, Workers: 3},
	}
	t.Cleanup(func() {
		if n := int(closed.Load()); n != runs*c.Workers {
			t.Errorf("%d engines closed, want %d", n, runs*c.Workers)
		}
	})
	return c
}

func TestRunSampleFindsNothing(t *testing.T) {
	c := sampleSettings(t, 1, nil)
	c.Batches = 120
	counts, err := RunSample(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if counts.Batches != 120 || counts.Rows < 2000 || counts.Answers <= counts.Rows || counts.Tokens < counts.Answers || counts.KeptSets == 0 {
		t.Errorf("%+v", counts)
	}
	for name, of := range map[string]struct {
		counts map[string]int64
		want   []string
	}{
		"dtypes":  {counts.DTypes, []string{"float32", "float16", "bfloat16"}},
		"presets": {counts.Presets, []string{"vllm", "nanochat"}},
		"batches": {counts.Batch, []string{"1", "2", "7", "32", "512"}},
		"steps": {counts.Steps, []string{
			"bitmask", "logit_bias", "penalties", "softcap", "greedy", "temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc",
			"raw logprobs", "processed logprobs", "draws", "replacement", "one seed", "shorter row",
		}},
		"paths":    {counts.Paths, []string{"refused", "greedy", "among the largest", "whole row", "whole row, as all of the batch"}},
		"statuses": {counts.Statuses, []string{"ok", "nan", "empty", "exhausted", "bad parameter"}},
		"vocabs":   {counts.Vocabs, []string{"up to 4096"}},
	} {
		for _, key := range of.want {
			if of.counts[key] == 0 {
				t.Errorf("no %s of the %s: %v", key, name, of.counts)
			}
		}
	}
	if len(counts.Kinds) != 9 {
		t.Errorf("kinds %v", counts.Kinds)
	}
}

// TestRunSampleFindsADifference spoils one answer in one place.
func TestRunSampleFindsADifference(t *testing.T) {
	for name, spoil := range map[string]func(b *SampleBatch) bool{
		"tokens": func(b *SampleBatch) bool { b.Outcomes[len(b.Outcomes)-1].Tokens[0] ^= 1; return true },
		"ok":     func(b *SampleBatch) bool { b.Outcomes[0].Status ^= 1; return true },
		"kept": func(b *SampleBatch) bool {
			kept := &b.Outcomes[0].Kept
			*kept = append(slices.Clone(*kept), 3)
			return b.Kept
		},
	} {
		bad := -1
		for n := range 200 {
			var b SampleBatch
			b.generate(rand.New(rand.NewPCG(7, uint64(n))), n, []cuda.DType{cuda.Float32, cuda.Float16, cuda.BFloat16}[n%3])
			if bad < 0 && n > 5 && b.Kept && b.Rows() < 50 {
				bad = n
			}
		}
		c := sampleSettings(t, 2, func(b *SampleBatch) {
			if b.Number == bad {
				spoil(b)
			}
		})
		c.Batches = bad + 20
		_, err := RunSample(t.Context(), c)
		var found *Difference
		if !errors.As(err, &found) || found.Batch != bad || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want batch %d", name, err, bad)
			continue
		}
		// It is found again by itself.
		c.First, c.Batches, c.DTypes = bad, 1, []cuda.DType{found.DType}
		if _, again := RunSample(t.Context(), c); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: again %v, first %v", name, again, err)
		}
	}
}

// A batch of picked rows has their answers, whatever their order.
func TestPick(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	tried := 0
	for n := 0; tried < 10; n++ {
		var b, other SampleBatch
		b.generate(rng, n, cuda.BFloat16)
		if b.OneSeed || b.Rows() < 3 || b.Rows() > 50 {
			continue
		}
		tried++
		order := rng.Perm(b.Rows())[:b.Rows()-1]
		b.pick(order, &other)
		want, err := b.Answer()
		if err != nil {
			t.Fatal(err)
		}
		got, err := other.Answer()
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range order {
			if !slices.Equal(got[i].Tokens, want[row].Tokens) || got[i].Status != want[row].Status || !slices.Equal(got[i].Kept, want[row].Kept) {
				t.Fatalf("batch %d, row %d in place %d: %+v, want %+v", n, row, i, got[i], want[row])
			}
		}
	}
}

// BenchmarkRunSample is the speed without a device: making rows, and sampling them.
func BenchmarkRunSample(b *testing.B) {
	c := SampleConfig{
		NewEngine: func() (SampleEngine, error) { return &idleSampler{}, nil },
		Extent:    Extent{DTypes: []cuda.DType{cuda.Float32, cuda.Float16, cuda.BFloat16}, Seed: 7, Workers: runtime.GOMAXPROCS(0)},
	}
	rows := int64(0)
	for b.Loop() {
		c.First += 200
		c.Batches = 200
		counts, err := RunSample(b.Context(), c)
		var different *Difference
		if err != nil && !errors.As(err, &different) {
			b.Fatal(err)
		}
		rows += counts.Rows
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}

// idleSampler takes no time.
type idleSampler struct{ batch SampleBatch }

func (*idleSampler) Close() error { return nil }
func (*idleSampler) Sample(b *SampleBatch) (err error) {
	if b.Outcomes == nil { // as they would be
		b.Outcomes, err = b.Answer()
	}
	return err
}
