package differential

import (
	"context"
	"errors"
	"math/bits"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/topk"
)

// cpuEngine answers as a device would, by the CPU; spoil, if not nil, changes
// the answer.
type cpuEngine struct {
	spoil  func(b *Batch)
	closed *atomic.Int64
}

func (e cpuEngine) Close() error { e.closed.Add(1); return nil }

func (e cpuEngine) Select(b *Batch) error {
	var err error
	switch b.DType {
	case cuda.Float16:
		err = selectAs[topk.Float16](b)
	case cuda.BFloat16:
		err = selectAs[topk.BFloat16](b)
	default:
		err = selectAs[float32](b)
	}
	if e.spoil != nil {
		e.spoil(b)
	}
	return err
}

func selectAs[T topk.Float](b *Batch) error {
	poison(b.Values)
	poison(b.Indices)
	n := b.Shape.Rows * b.Shape.K
	indices := view[int32](b.Indices)
	if b.Index64 {
		indices = make([]int32, n)
		for i := range indices {
			indices[i] = poisonIndex
		}
	}
	selector := topk.Selector[T]{Options: topk.Options{Smallest: b.Smallest, Threads: 1, TargetCandidates: 3000}}
	err := selector.Select(topk.Result[T]{Values: view[T](b.Values), Indices: indices}, view[T](b.Logits)[b.Offset:], b.Shape)
	if b.Index64 {
		for i, index := range indices {
			if index != poisonIndex {
				view[int64](b.Indices)[i] = int64(index)
			}
		}
	}
	return err
}

// settings compares with the CPU engine, spoiled; every engine of so many runs
// has to be closed.
func settings(t *testing.T, runs int, spoil func(b *Batch)) Config {
	arch, err := cuda.ParseArchitecture("sm_90")
	if err != nil {
		t.Fatal(err)
	}
	closed := new(atomic.Int64)
	c := Config{
		NewEngine:    func() (Engine, error) { return cpuEngine{spoil, closed}, nil },
		Architecture: arch,
		Extent:       Extent{DTypes: []cuda.DType{cuda.Float32, cuda.Float16, cuda.BFloat16}, Seed: 7, Workers: 3},
	}
	t.Cleanup(func() {
		if n := int(closed.Load()); n != runs*c.Workers {
			t.Errorf("%d engines closed, want %d", n, runs*c.Workers)
		}
	})
	return c
}

func TestRunFindsNothing(t *testing.T) {
	c := settings(t, 1, nil)
	c.Batches = 150
	counts, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if counts.Batches != 150 || counts.Rows < 10_000 || counts.Sorted < 50 || counts.Logits < counts.Rows {
		t.Errorf("%+v", counts)
	}
	if len(counts.DTypes) != 3 || len(counts.Kinds) != 8 || len(counts.Plans) < 5 {
		t.Errorf("not all of the cases were met: %+v", counts)
	}
}

// TestRunFindsADifference spoils one answer in one place.
func TestRunFindsADifference(t *testing.T) {
	for name, spoil := range map[string]func(b *Batch){
		"value": func(b *Batch) { b.Values[len(b.Values)-1] ^= 1 },
		"index": func(b *Batch) { b.Indices[len(b.Indices)-1] ^= 1 },
	} {
		const bad = 23
		c := settings(t, 2, func(b *Batch) {
			if b.Number == bad && len(b.Values) > 0 {
				spoil(b)
			}
		})
		c.Batches = 200
		_, err := Run(t.Context(), c)
		var found *Difference
		if !errors.As(err, &found) || found.Batch != bad || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		// It is found again by itself.
		c.First, c.Batches, c.DTypes = bad, 1, []cuda.DType{found.DType}
		if _, again := Run(t.Context(), c); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: again %v, first %v", name, again, err)
		}
	}
}

func TestRunStops(t *testing.T) {
	c := settings(t, 2, nil)
	c.Rows = 1000
	var mutex sync.Mutex
	reports := 0
	c.Progress = func(Counts) { mutex.Lock(); reports++; mutex.Unlock() }
	if counts, err := Run(t.Context(), c); err != nil || counts.Rows < 1000 {
		t.Errorf("%v, %+v", err, counts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	c.Rows = 0
	if counts, err := Run(ctx, c); !errors.Is(err, context.DeadlineExceeded) || counts.Batches < 1 {
		t.Errorf("%v, %+v", err, counts)
	}
	broken := c
	broken.NewEngine = func() (Engine, error) { return nil, cuda.ErrUnavailable }
	if _, err := Run(t.Context(), broken); !errors.Is(err, cuda.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

// TestShapes: the shapes are what the batches claim to hold.
func TestShapes(t *testing.T) {
	arch, err := cuda.ParseArchitecture("sm_90")
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	sizes, many, expanded, ragged, unaligned := 0, false, false, false, false
	for n := range 400 {
		b.generate(3, n, cuda.BFloat16, arch)
		if err := b.Shape.Validate(); err != nil {
			t.Fatal(err)
		}
		if b.Shape.Rows*b.Shape.K > batchResults || span(b.Shape) > batchElements {
			t.Errorf("batch %d has %s", n, b.call())
		}
		sizes |= 1 << bits.Len(uint(b.Shape.Vocab))
		many = many || b.Shape.Rows > 65535
		expanded, ragged = expanded || b.Shape.Expand, ragged || b.Shape.RowLengths != nil
		unaligned = unaligned || b.Offset%2 == 1
	}
	if bits.OnesCount(uint(sizes)) < 18 || !many || !expanded || !ragged || !unaligned {
		t.Errorf("400 batches have vocabs of %d sizes, more than 65,535 rows %v, expanded %v, ragged %v, unaligned %v",
			bits.OnesCount(uint(sizes)), many, expanded, ragged, unaligned)
	}
}

// BenchmarkRun is the speed without a device: making rows, and comparing them.
func BenchmarkRun(b *testing.B) {
	arch, err := cuda.ParseArchitecture("sm_90")
	if err != nil {
		b.Fatal(err)
	}
	c := Config{
		NewEngine:    func() (Engine, error) { return idle{}, nil },
		Architecture: arch,
		Extent:       Extent{DTypes: []cuda.DType{cuda.Float32, cuda.Float16, cuda.BFloat16}, Seed: 7, Workers: runtime.GOMAXPROCS(0)},
	}
	rows := int64(0)
	for b.Loop() {
		c.First += 500
		c.Batches = 500
		counts, err := Run(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		rows += counts.Rows
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}

// idle is a device that takes no time: the CPU's answer counts as its own.
type idle struct{}

func (idle) Close() error { return nil }
func (idle) Select(b *Batch) error {
	return cpuEngine{closed: new(atomic.Int64)}.Select(b)
}
