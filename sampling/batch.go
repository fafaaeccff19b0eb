package sampling

import (
	"fmt"
	"math"

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
	draws := len(dst) / rows
	for i := range rows {
		row := logits[i*stride : i*stride+shape.Vocab]
		if shape.RowLengths != nil {
			row = row[:shape.RowLengths[i]]
		}
		s, firstDraw := samplers[0], i*draws
		if len(samplers) > 1 {
			s, firstDraw = samplers[i], 0
		}
		went := s.sampleRow(dst[i*draws:(i+1)*draws], row, uint32(firstDraw))
		if status != nil {
			status[i] = went
		}
	}
	return nil
}
