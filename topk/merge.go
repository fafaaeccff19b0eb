package topk

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// Merge joins the results of shards of a vocabulary into the k largest of all
// of them, row by row: the answer is that of one [Select] over the whole row if
// each shard holds its own k largest (or all it has) with indices of the whole
// row. A shard holds len(Indices)/rows entries a row, in any order. Smallest is
// the only option that matters here.
//
// Shards that together hold fewer than k entries a row, a shard whose slices
// differ in length or are no multiple of rows, and a negative index are errors
// that wrap [ErrShape] and leave dst untouched. dst may not overlap a shard.
func Merge[T Float](dst Result[T], rows, k int, options Options, shards ...Result[T]) error {
	tier, err := options.validate()
	if err != nil {
		return err
	}
	if rows < 0 || k < 0 {
		return fmt.Errorf("topk: rows = %d, k = %d: negative: %w", rows, k, ErrShape)
	}
	if _, ok := product(rows, k); !ok {
		return fmt.Errorf("topk: rows = %d times k = %d overflows: %w", rows, k, ErrShape)
	}
	if err := dst.check(rows, k); err != nil {
		return err
	}
	entries := 0
	for i, shard := range shards {
		switch n := len(shard.Indices); {
		case len(shard.Values) != n:
			return fmt.Errorf("topk: shard %d has %d values and %d indices: %w", i, len(shard.Values), n, ErrShape)
		case rows == 0 && n > 0, rows > 0 && n%rows != 0:
			return fmt.Errorf("topk: shard %d has %d entries for %d rows: %w", i, n, rows, ErrShape)
		case rows > 0:
			entries += n / rows
		}
		for j, index := range shard.Indices {
			if index < 0 {
				return fmt.Errorf("topk: shard %d entry %d: index = %d is negative: %w", i, j, index, ErrShape)
			}
		}
	}
	if rows > 0 && entries < k {
		return fmt.Errorf("topk: k = %d exceeds the %d entries a row of all shards: %w", k, entries, ErrShape)
	}
	if k == 0 || rows == 0 {
		return nil
	}
	m := mergers.Get().(*merger)
	defer mergers.Put(m)
	var zero T
	m.plan = cpu.NewMergePlan(entries, tier)
	for row := range rows {
		out := Result[T]{dst.Values[row*k : row*k+k], dst.Indices[row*k : row*k+k]}
		if unsafe.Sizeof(zero) == 2 {
			mergeRow(&m.row16, &m.plan, orderOf[T](options), out, row, rows, shards)
		} else {
			mergeRow(&m.row32, &m.plan, orderOf[T](options), out, row, rows, shards)
		}
	}
	return nil
}

// merger is the workspace of a Merge.
type merger struct {
	plan  cpu.Plan
	row16 cpu.Row[uint16]
	row32 cpu.Row[uint32]
}

var mergers = sync.Pool{New: func() any {
	m := new(merger)
	m.row16.KeepBits, m.row32.KeepBits = true, true
	return m
}}

// mergeRow merges row of rows.
func mergeRow[E simd.Bits, T Float](r *cpu.Row[E], plan *cpu.Plan, order key.Order, dst Result[T], row, rows int, shards []Result[T]) {
	r.Reset(plan, order, len(dst.Indices))
	for _, shard := range shards {
		n := len(shard.Indices) / rows
		r.Add(bitsOf[E](shard.Values[row*n:row*n+n]), shard.Indices[row*n:row*n+n])
	}
	r.Write(bitsOf[E](dst.Values), dst.Indices)
}
