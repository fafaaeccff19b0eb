package sampling

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

// SampleRows draws tokens for a batch: row i of the logits by samplers[i], which
// has parameters, seed and history of its own, or all rows by the only one. The
// shape says where rows lie; its K has no meaning. dst is [rows, draws], status
// has an entry for each row and may be nil. Equal samplers answer as they do row
// by row: neither the batch nor the place in it matters.
//
// If one Sampler serves several rows, row i uses the draws i*n to i*n+n-1 of its
// seed for its n tokens, so that equal rows get different ones.
//
// Large batches of samplers that are all different are shared by as many goroutines
// as there are cores.
//
// What is wrong with a row is told by its status, with tokens of [NoToken], and
// leaves the others as they are. An error is one of the shape, and wraps
// [ErrShape]; dst is then untouched.
func SampleRows[T topk.Float](dst []Token, status []Status, samplers []*Sampler[T], logits []T, shape topk.Shape) error {
	shape.K = 0
	if err := shape.Validate(); err != nil {
		return fmt.Errorf("sampling: %w", err)
	}
	rows := shape.Rows
	if rows == 0 {
		return nil
	}
	stride := shape.Stride
	if stride == 0 {
		stride = shape.Vocab
	}
	if shape.Expand {
		stride = 0
	}
	switch need := (rows-1)*stride + shape.Vocab; {
	case len(logits) < need:
		return fmt.Errorf("sampling: %d logits, want %d for rows = %d, vocab = %d, stride = %d: %w", len(logits), need, rows, shape.Vocab, stride, ErrShape)
	case len(samplers) != rows && len(samplers) != 1:
		return fmt.Errorf("sampling: %d samplers for %d rows, want 1 or %d: %w", len(samplers), rows, rows, ErrShape)
	case len(dst)%rows != 0:
		return fmt.Errorf("sampling: room for %d tokens of %d rows: %w", len(dst), rows, ErrShape)
	case status != nil && len(status) < rows:
		return fmt.Errorf("sampling: room for %d statuses of %d rows: %w", len(status), rows, ErrShape)
	case len(dst) > math.MaxInt32:
		return fmt.Errorf("sampling: %d tokens exceed %d: %w", len(dst), math.MaxInt32, ErrShape)
	}
	if err := checkVocab(shape.Vocab); err != nil {
		return err
	}
	b := batch[T]{dst, status, samplers, logits, shape, stride}
	if threads := b.threads(); threads > 1 {
		b.share(threads)
		return nil
	}
	for i := range rows {
		b.sampleRow(i)
	}
	return nil
}

// batch is what SampleRows was given.
type batch[T topk.Float] struct {
	dst      []Token
	status   []Status
	samplers []*Sampler[T]
	logits   []T
	shape    topk.Shape
	stride   int
}

// sampleRow draws the tokens of row i.
func (b *batch[T]) sampleRow(i int) {
	row := b.logits[i*b.stride : i*b.stride+b.shape.Vocab]
	if b.shape.RowLengths != nil {
		row = row[:b.shape.RowLengths[i]]
	}
	draws := len(b.dst) / b.shape.Rows
	s, firstDraw := b.samplers[0], i*draws
	if len(b.samplers) > 1 {
		s, firstDraw = b.samplers[i], 0
	}
	status := s.sampleRow(b.dst[i*draws:(i+1)*draws], row, uint32(firstDraw))
	if b.status != nil {
		b.status[i] = status
	}
}

// threads returns how many goroutines are to share the rows: one where a Sampler serves
// several of them, or where there is too little work to wake a core for.
func (b *batch[T]) threads() int {
	if len(b.samplers) == 1 {
		return 1
	}
	const likelyK = 50 // the work of most rows is about that of their top-k
	var zero T
	// Half the rows: at twice the work that pays for top-k, sharing pays for certain.
	shape := cpu.Shape{Rows: b.shape.Rows / 2, Vocab: b.shape.Vocab, K: likelyK, ElementBytes: int(unsafe.Sizeof(zero))}
	threads := cpu.Threads(shape, simd.Best(), b.shape.Rows)
	if threads > 1 {
		threads = min(threads, cpu.Cores()) // which takes a lock
	}
	if threads == 1 {
		return 1
	}
	for i, s := range b.samplers {
		if s != nil {
			s.place = i
		}
	}
	for i, s := range b.samplers {
		if s != nil && s.place != i {
			return 1
		}
	}
	return threads
}

// share has goroutines take row after row until none is left.
func (b batch[T]) share(threads int) {
	var next atomic.Int64
	var running sync.WaitGroup
	work := func() {
		for i := int(next.Add(1)) - 1; i < b.shape.Rows; i = int(next.Add(1)) - 1 {
			b.sampleRow(i)
		}
	}
	for range threads - 1 {
		running.Go(work)
	}
	work()
	running.Wait()
}
