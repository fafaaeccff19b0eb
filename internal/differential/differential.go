// Package differential compares a GPU with the CPU over very many rows, of
// which most are short, and counts what it compared.
//
// [Verify] of package topktest holds an engine against an oracle that sorts; it
// compares thousands of rows a second. Here the CPU's engine, which is held
// against the oracle, gives the answers, and millions are compared.
package differential

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// Engine answers batches, one at a time.
type Engine interface {
	// Select writes the answer to b.Values and b.Indices, whose bytes are Poison
	// where the call wrote nothing.
	Select(b *Batch) error
	Close() error
}

// Config says what Run compares.
type Config struct {
	Extent
	NewEngine    func() (Engine, error) // one for each worker
	Architecture cuda.Architecture      // for which plans are forced
	// Progress, if not nil, is called about twice a second.
	Progress func(Counts)
}

// Extent says how much is compared, and in how many places at a time.
type Extent struct {
	DTypes  []cuda.DType
	Seed    uint64 // batch n depends on Seed, n and its dtype alone
	First   int    // the first batch
	Batches int    // 0: until there are Rows, or the context is done
	Rows    int64  // 0: until the context is done
	Workers int    // batches at a time
}

// Counts says how much was compared.
type Counts struct {
	Batches int64            `json:"batches"`
	Rows    int64            `json:"rows"`
	Logits  int64            `json:"logits"`
	Sorted  int64            `json:"sorted_rows"` // compared with a stable sort, too
	DTypes  map[string]int64 `json:"rows_by_dtype"`
	Plans   map[string]int64 `json:"rows_by_plan"` // "chosen": by the device
	Kinds   map[string]int64 `json:"rows_by_kind"`
}

func newCounts() Counts {
	return Counts{DTypes: map[string]int64{}, Plans: map[string]int64{}, Kinds: map[string]int64{}}
}

func (c *Counts) add(b *Batch, sorted int64) {
	rows := int64(b.Shape.Rows)
	c.Batches++
	c.Rows += rows
	c.Logits += rows * int64(b.Shape.Vocab)
	c.Sorted += sorted
	c.DTypes[b.DType.String()] += rows
	plan := b.Plan
	if plan == "" {
		plan = "chosen"
	}
	c.Plans[plan] += rows
	c.Kinds[b.Kind] += rows
}

// Difference is an answer that is not the CPU's, and where to find it again: the
// same Seed with First = Batch and DTypes = {DType}.
type Difference struct {
	Seed  uint64
	Batch int
	DType cuda.DType
	Err   error // the call, and the first entry that differs
}

func (d *Difference) Error() string {
	return fmt.Sprintf("differential: batch %d of seed %d, %s, %v", d.Batch, d.Seed, d.DType, d.Err)
}

func (d *Difference) Unwrap() error { return d.Err }

// Run compares batches until a *Difference is found, an engine fails, there are
// enough (nil) or the context is done (its error). At least one batch is always
// compared. The counts hold for all of these.
func Run(ctx context.Context, config Config) (Counts, error) {
	counts := newCounts()
	err := config.run(ctx, func() (comparer, error) {
		engine, err := config.NewEngine()
		return &worker{engine: engine, arch: config.Architecture, counts: &counts}, err
	}, func() {
		if config.Progress != nil {
			config.Progress(counts)
		}
	})
	return counts, err
}

// comparer compares one batch at a time. Only count may touch what comparers share.
type comparer interface {
	// compare makes the batch with that number, and returns an error that wraps
	// errDifferent if the answer is not the CPU's.
	compare(seed uint64, number int, dtype cuda.DType) error
	// count adds the batch to what was compared, and returns the rows of all batches.
	count() (rows int64)
	Close() error
}

// run has comparers share the batches, and reports about twice a second.
func (e Extent) run(ctx context.Context, newComparer func() (comparer, error), report func()) error {
	var (
		mutex    sync.Mutex
		rows     int64
		reported = time.Now()
		failure  error
		stopped  atomic.Bool
		next     atomic.Int64
		running  sync.WaitGroup
	)
	fail := func(err error) {
		mutex.Lock()
		defer mutex.Unlock()
		// Of two that fail at once, the earlier batch, so that a run repeats itself.
		var old, found *Difference
		if failure == nil || errors.As(failure, &old) && errors.As(err, &found) && found.Batch < old.Batch {
			failure = err
		}
		stopped.Store(true)
	}
	for range max(1, e.Workers) {
		running.Go(func() {
			c, err := newComparer()
			if err != nil {
				fail(err)
				return
			}
			defer c.Close()
			for {
				i := int(next.Add(1)) - 1
				if i > 0 && (stopped.Load() || ctx.Err() != nil) || e.Batches > 0 && i >= e.Batches {
					return
				}
				n := e.First + i
				dtype := e.DTypes[n%len(e.DTypes)]
				err := c.compare(e.Seed, n, dtype)
				if errors.Is(err, errDifferent) {
					err = &Difference{e.Seed, n, dtype, err}
				} else if err != nil {
					err = fmt.Errorf("differential: batch %d of seed %d, %s: %w", n, e.Seed, dtype, err)
				}
				if err != nil {
					fail(err)
					return
				}
				mutex.Lock()
				rows = c.count()
				if e.Rows > 0 && rows >= e.Rows {
					stopped.Store(true)
				}
				if time.Since(reported) > time.Second/2 {
					report()
					reported = time.Now()
				}
				mutex.Unlock()
			}
		})
	}
	running.Wait()
	if failure == nil && ctx.Err() != nil && (e.Rows == 0 || rows < e.Rows) {
		failure = ctx.Err()
	}
	return failure
}

// errDifferent: an answer that is not the CPU's.
var errDifferent = errors.New("different")

// worker compares selections.
type worker struct {
	engine Engine
	arch   cuda.Architecture
	batch  Batch
	want   struct{ values, indices []byte }
	sorted int64 // rows of the batch that were compared with a stable sort, too
	counts *Counts
}

func (w *worker) Close() error { return w.engine.Close() }

func (w *worker) count() int64 {
	w.counts.add(&w.batch, w.sorted)
	return w.counts.Rows
}

func (w *worker) compare(seed uint64, number int, dtype cuda.DType) (err error) {
	w.batch.generate(seed, number, dtype, w.arch)
	if err := w.engine.Select(&w.batch); err != nil {
		return fmt.Errorf("%s: %w", w.batch.call(), err)
	}
	switch dtype {
	case cuda.Float16:
		w.sorted, err = compareAs[topk.Float16](w)
	case cuda.BFloat16:
		w.sorted, err = compareAs[topk.BFloat16](w)
	default:
		w.sorted, err = compareAs[float32](w)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.batch.call(), err)
	}
	return nil
}

// call describes the call of a batch.
func (b *Batch) call() string {
	s := b.Shape
	s.RowK, s.RowLengths = nil, nil
	text := fmt.Sprintf("rows = %d, vocab = %d, k = %d, stride = %d, expand %v, offset %d, smallest %v, index64 %v, logits of kind %s",
		s.Rows, s.Vocab, s.K, s.Stride, s.Expand, b.Offset, b.Smallest, b.Index64, b.Kind)
	if b.Shape.RowK != nil {
		text += ", a k for each row"
	}
	if b.Shape.RowLengths != nil {
		text += ", a length for each row"
	}
	if b.Plan != "" {
		text += ", plan " + b.Plan
	}
	return text
}

// sortedVocab is the longest row that is sorted, too.
const sortedVocab = 4096

func compareAs[T topk.Float](w *worker) (sorted int64, err error) {
	b := &w.batch
	logits, n := view[T](b.Logits)[b.Offset:], b.Shape.Rows*b.Shape.K
	w.want.values, w.want.indices = room(w.want.values, n*b.DType.Bytes()), room(w.want.indices, 4*n)
	poison(w.want.values)
	poison(w.want.indices)
	want := topk.Result[T]{Values: view[T](w.want.values), Indices: view[int32](w.want.indices)}
	selector := topk.Selector[T]{Options: topk.Options{Smallest: b.Smallest, Threads: 1}}
	if err := selector.Select(want, logits, b.Shape); err != nil {
		return 0, err
	}
	if b.Shape.Vocab <= sortedVocab {
		row := b.Number % b.Shape.Rows
		if err := b.sortRow(logitsOf(logits, b.Shape, row), row, want.Indices); err != nil {
			return 0, err
		}
		sorted = 1
	}
	if i := firstDifferent(b.Values, w.want.values, b.DType.Bytes()); i >= 0 {
		return 0, b.differs("value", i, b.Values, w.want.values, b.DType.Bytes())
	}
	if b.Index64 {
		got := view[int64](b.Indices)
		for i, index := range want.Indices {
			wide := int64(index)
			if index == poisonIndex {
				wide = poisonIndex64
			}
			if got[i] != wide {
				return 0, fmt.Errorf("row %d, place %d: index %#x, want %#x: %w", i/b.Shape.K, i%b.Shape.K, got[i], wide, errDifferent)
			}
		}
	} else if i := firstDifferent(b.Indices, w.want.indices, 4); i >= 0 {
		return 0, b.differs("index", i, b.Indices, w.want.indices, 4)
	}
	return sorted, nil
}

// The indices that consist of Poison.
const (
	poisonIndex   = -0x5A5A5A5B
	poisonIndex64 = -0x5A5A5A5A5A5A5A5B
)

func poison(bytes []byte) {
	for i := range bytes {
		bytes[i] = Poison
	}
}

// logitsOf returns the logits of a row.
func logitsOf[T topk.Float](logits []T, s topk.Shape, row int) []T {
	start, length := row*max(s.Stride, s.Vocab), s.Vocab
	if s.Expand {
		start = 0
	}
	if s.RowLengths != nil {
		length = int(s.RowLengths[row])
	}
	return logits[start : start+length]
}

// sortRow holds the CPU's answer for one row against a stable sort.
func (b *Batch) sortRow(logits any, row int, indices []int32) error {
	var ranking []int32
	switch logits := logits.(type) {
	case []float32:
		ranking = topktest.Ranking(logits, b.Smallest)
	case []topk.Float16:
		ranking = topktest.Ranking(logits, b.Smallest)
	case []topk.BFloat16:
		ranking = topktest.Ranking(logits, b.Smallest)
	}
	for place, want := range ranking[:b.Shape.RowResults(row)] {
		if got := indices[row*b.Shape.K+place]; got != want {
			return fmt.Errorf("row %d, place %d of the CPU's answer: index %d, a stable sort has %d: %w", row, place, got, want, errDifferent)
		}
	}
	return nil
}

// firstDifferent returns the first element that is not the same, or -1.
func firstDifferent(got, want []byte, size int) int {
	if string(got) == string(want) {
		return -1
	}
	for i := 0; i < len(want); i += size {
		if string(got[i:i+size]) != string(want[i:i+size]) {
			return i / size
		}
	}
	return -1
}

func (b *Batch) differs(what string, i int, got, want []byte, size int) error {
	return fmt.Errorf("row %d, place %d: bytes of the %s % x, want % x: %w",
		i/b.Shape.K, i%b.Shape.K, what, got[i*size:(i+1)*size], want[i*size:(i+1)*size], errDifferent)
}
