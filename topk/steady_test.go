package topk_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// allDTypes runs one test for each dtype.
func allDTypes(t *testing.T, f32 func(*testing.T), f16 func(*testing.T), bf16 func(*testing.T)) {
	t.Run(topktest.DType[float32](), f32)
	t.Run(topktest.DType[topk.Float16](), f16)
	t.Run(topktest.DType[topk.BFloat16](), bf16)
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and lets a sync.Pool forget")
	}
	allDTypes(t, testNoAllocations[float32], testNoAllocations[topk.Float16], testNoAllocations[topk.BFloat16])
}

func testNoAllocations[T topk.Float](t *testing.T) {
	// A collection would empty the pools in the middle of a measurement.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	rng := rand.New(rand.NewPCG(1, 1))
	const rows, vocab, k = 8, 20000, 50
	none := func(what string, call func() error) {
		t.Helper()
		var err error
		for range 3 { // the first calls of a shape may allocate
			err = call()
		}
		allocations := testing.AllocsPerRun(20, func() {
			if e := call(); e != nil {
				err = e
			}
		})
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if allocations != 0 {
			t.Errorf("%s: %v allocations a call, want 0", what, allocations)
		}
	}
	for _, kind := range topktest.Rows() {
		var logits []T
		for range rows {
			logits = append(logits, topktest.Convert[T](kind.Make(rng, vocab))...)
		}
		dst := topk.NewResult[T](rows, k)
		batch := topk.Shape{Rows: rows, Vocab: vocab, K: k}
		ragged := topk.Shape{Rows: rows, Vocab: vocab, K: k,
			RowK: []int32{1, 2, 3, 50, 0, 6, 7, 8}, RowLengths: []int32{vocab, 5, 0, vocab, vocab, 600, 20, 9000}}
		for _, smallest := range []bool{false, true} {
			one := topk.Selector[T]{Options: topk.Options{Smallest: smallest, Threads: 1}}
			none(kind.Name+", row", func() error { return one.Select(dst, logits, topk.Row(vocab, k)) })
			several := topk.Selector[T]{Options: topk.Options{Smallest: smallest}}
			none(kind.Name+", batch", func() error { return several.Select(dst, logits, batch) })
			none(kind.Name+", ragged", func() error { return several.Select(dst, logits, ragged) })
			stream, err := topk.NewStream[T](k, topk.Options{Smallest: smallest})
			if err != nil {
				t.Fatal(err)
			}
			none(kind.Name+", stream", func() error {
				for start := 0; start < vocab; start += 4096 {
					if err := stream.Push(logits[start:min(start+4096, vocab)]); err != nil {
						return err
					}
				}
				return stream.Finish(dst)
			})
		}
		none(kind.Name+", Select", func() error { return topk.Select(dst, logits, topk.Row(vocab, k)) })
		shards := []topk.Result[T]{topk.NewResult[T](1, k), topk.NewResult[T](1, k)}
		for i, shard := range shards {
			if err := topk.Select(shard, logits[i*vocab:], topk.Row(vocab, k)); err != nil {
				t.Fatal(err)
			}
		}
		none(kind.Name+", merge", func() error { return topk.Merge(dst, 1, k, topk.Options{}, shards...) })
	}
}

// A batch that is shared by goroutines allocates nothing either. AllocsPerRun
// would run it on one core. The runtime makes goroutines anew until each core
// has some to reuse, which takes a few thousand calls; so the steady state is a
// thousand calls without any allocation. A call that allocated would never
// reach it.
func TestNoAllocationsWithThreads(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	shape := topk.Shape{Rows: 32, Vocab: 2000, K: 20}
	logits := topktest.Random(rand.New(rand.NewPCG(1, 1)), shape.Rows*shape.Vocab)
	dst := topk.NewResult[float32](shape.Rows, shape.K)
	s := topk.Selector[float32]{Options: topk.Options{Threads: 3}}
	var allocations []uint64
	for range 40 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 1000 {
			if err := s.Select(dst, logits, shape); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		allocations = append(allocations, after.Mallocs-before.Mallocs)
		if after.Mallocs == before.Mallocs {
			return
		}
	}
	t.Errorf("allocations in each thousand calls with 3 threads: %v, want 0 at last", allocations)
}

// The workspace stays below 64 KiB a Selector plus 16 bytes a candidate.
func TestWorkspaceIsBounded(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	allDTypes(t, testWorkspace[float32], testWorkspace[topk.Float16], testWorkspace[topk.BFloat16])
}

func testWorkspace[T topk.Float](t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, vocab := range []int{50304, 1 << 20} {
		for _, k := range []int{1, 50, 200, 2048, vocab / 4} {
			// A k beyond an eighth of the row makes a candidate of every logit.
			candidates := k
			if k > vocab/8 {
				candidates = vocab
			}
			rng := rand.New(rand.NewPCG(1, 1))
			for _, make := range []topktest.Generator{topktest.Random, topktest.Ascending, topktest.MostlyNaN} {
				logits, dst := topktest.Convert[T](make(rng, vocab)), topk.NewResult[T](1, k)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				s := new(topk.Selector[T])
				if err := s.Select(dst, logits, topk.Row(vocab, k)); err != nil {
					t.Fatal(err)
				}
				runtime.ReadMemStats(&after)
				if bytes, most := after.TotalAlloc-before.TotalAlloc, uint64(64<<10+16*candidates); bytes > most {
					t.Errorf("vocab %d, k %d: %d bytes of workspace, want at most %d", vocab, k, bytes, most)
				}
			}
		}
	}
}

// Select is for many goroutines at once, of any dtype and shape.
func TestSelectFromManyGoroutines(t *testing.T) {
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() { selectOften[float32](t, uint64(g)) })
		group.Go(func() { selectOften[topk.Float16](t, uint64(g)) })
		group.Go(func() { selectOften[topk.BFloat16](t, uint64(g)) })
	}
	group.Wait()
}

// throughSelect lets the suite's checks call the function Select.
type throughSelect[T topk.Float] struct{}

func (throughSelect[T]) Select(dst topk.Result[T], logits []T, shape topk.Shape) error {
	return topk.Select(dst, logits, shape)
}

func selectOften[T topk.Float](t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	for range 5 {
		shape := topk.Shape{Rows: 1 + rng.IntN(40), Vocab: 1 + rng.IntN(3000)}
		answers := topktest.NewAnswers(topktest.AnyBits[T](rng, shape.Rows*shape.Vocab))
		for range 5 {
			shape.K = rng.IntN(min(shape.Vocab, 300) + 1)
			if err := answers.CheckSelect(throughSelect[T]{}, shape, false); err != nil {
				t.Errorf("%s, %+v: %v", topktest.DType[T](), shape, err)
			}
		}
	}
}

// Selectors that share nothing may run at once, with threads of their own.
func TestSelectorsAtOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	shape := topk.Shape{Rows: 30, Vocab: 1500, K: 33}
	logits := topktest.Random(rng, shape.Rows*shape.Vocab)
	want := topk.NewResult[float32](shape.Rows, shape.K)
	if err := topk.Select(want, logits, shape); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for threads := range 5 {
		group.Go(func() {
			s := topk.Selector[float32]{Options: topk.Options{Threads: threads}}
			for range 20 {
				got := topk.NewResult[float32](shape.Rows, shape.K)
				if err := s.Select(got, logits, shape); err != nil {
					t.Error(err)
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("threads %d: another answer", threads)
				}
			}
		})
	}
	group.Wait()
}
