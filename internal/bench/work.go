package bench

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ai-kernel-factory/aikf/topk"
)

// work is a contestant with an answer.
type work[T topk.Float] struct {
	contestant
	answer topk.Result[T] // of the last call
}

// makeWork returns what the case measures, and its reference.
func makeWork[T topk.Float](r *Runner, c Case, batches [][]T) (ours, reference work[T], err error) {
	switch c.Work {
	case Stream:
		ours, err = streamWork(c, r.options(c, c.Tier), batches)
	case Merge:
		var parts [][]topk.Result[T]
		if parts, err = selectShards(c, batches); err == nil {
			ours, reference = mergeWork(c, r.options(c, c.Tier), parts), sortWork(c, parts)
		}
	default:
		ours = selectWork(c, r.options(c, c.Tier), batches)
	}
	if err != nil {
		return ours, reference, err
	}
	switch tier, onTier := strings.CutPrefix(c.Reference, OnTier); {
	case onTier:
		reference = selectWork(c, r.options(c, tier), batches)
	case c.Reference == Select:
		reference = selectWork(c, r.options(c, c.Tier), batches)
	case c.Reference == TypedHeap:
		reference = heapWork(c, batches)
	case c.Reference != FullSort || c.Work != Merge:
		return ours, reference, fmt.Errorf("work %q has no reference %q", c.Work, c.Reference)
	}
	return ours, reference, nil
}

func selectWork[T topk.Float](c Case, options topk.Options, batches [][]T) work[T] {
	answer := topk.NewResult[T](c.Batch, c.TopK)
	selector := &topk.Selector[T]{Options: options}
	shape := topk.Shape{Rows: c.Batch, Vocab: c.Vocab, K: c.TopK}
	return work[T]{contestant{"select", func(input int) error {
		return selector.Select(answer, batches[input], shape)
	}}, answer}
}

func heapWork[T topk.Float](c Case, batches [][]T) work[T] {
	answer := topk.NewResult[T](c.Batch, c.TopK)
	heaps := make([]typedHeap, c.Batch)
	rows := func(logits []T, first, last int) {
		for row := first; row < last; row++ {
			out := row * c.TopK
			selectRow(&heaps[first], answer.Values[out:out+c.TopK], answer.Indices[out:out+c.TopK], logits[row*c.Vocab:(row+1)*c.Vocab])
		}
	}
	return work[T]{contestant{TypedHeap, func(input int) error {
		shareRows(c.Threads, c.Batch, func(first, last int) { rows(batches[input], first, last) })
		return nil
	}}, answer}
}

func streamWork[T topk.Float](c Case, options topk.Options, batches [][]T) (work[T], error) {
	answer := topk.NewResult[T](c.Batch, c.TopK)
	stream, err := topk.NewStream[T](c.TopK, options)
	return work[T]{contestant{Stream, func(input int) error {
		for row := range c.Batch {
			logits := batches[input][row*c.Vocab : (row+1)*c.Vocab]
			for tiles := logits; len(tiles) > 0; {
				n := min(tile, len(tiles))
				if err := stream.Push(tiles[:n]); err != nil {
					return err
				}
				tiles = tiles[n:]
			}
			out := row * c.TopK
			if err := stream.Finish(topk.Result[T]{Values: answer.Values[out : out+c.TopK], Indices: answer.Indices[out : out+c.TopK]}); err != nil {
				return err
			}
		}
		return nil
	}}, answer}, err
}

// selectShards selects the top k of each shard of the vocabulary, with indices
// of the whole row.
func selectShards[T topk.Float](c Case, batches [][]T) ([][]topk.Result[T], error) {
	parts := make([][]topk.Result[T], len(batches))
	for input, logits := range batches {
		for s := range shards {
			first, last := s*c.Vocab/shards, (s+1)*c.Vocab/shards
			shape := topk.Shape{Rows: c.Batch, Vocab: last - first, K: min(c.TopK, last-first), Stride: c.Vocab}
			part := topk.NewResult[T](c.Batch, shape.K)
			if err := topk.Select(part, logits[first:], shape); err != nil {
				return nil, err
			}
			for i := range part.Indices {
				part.Indices[i] += int32(first)
			}
			parts[input] = append(parts[input], part)
		}
	}
	return parts, nil
}

func mergeWork[T topk.Float](c Case, options topk.Options, parts [][]topk.Result[T]) work[T] {
	answer := topk.NewResult[T](c.Batch, c.TopK)
	return work[T]{contestant{Merge, func(input int) error {
		return topk.Merge(answer, c.Batch, c.TopK, options, parts[input]...)
	}}, answer}
}

// sortWork is a merge as Go programs do it: all entries in one slice, sorted.
func sortWork[T topk.Float](c Case, parts [][]topk.Result[T]) work[T] {
	answer := topk.NewResult[T](c.Batch, c.TopK)
	type entry struct {
		ranked
		logit T
	}
	var entries []entry
	return work[T]{contestant{FullSort, func(input int) error {
		for row := range c.Batch {
			entries = entries[:0]
			for _, part := range parts[input] {
				n := len(part.Indices) / c.Batch
				for i := row * n; i < (row+1)*n; i++ {
					entries = append(entries, entry{ranked{widen(part.Values[i]), part.Indices[i]}, part.Values[i]})
				}
			}
			slices.SortFunc(entries, func(a, b entry) int { return a.compare(b.ranked) })
			for i, best := range entries[:c.TopK] {
				answer.Values[row*c.TopK+i], answer.Indices[row*c.TopK+i] = best.logit, best.index
			}
		}
		return nil
	}}, answer}
}

// shareRows calls do for consecutive parts of the rows, in as many goroutines as
// there are threads.
func shareRows(threads, rows int, do func(first, last int)) {
	threads = min(threads, rows)
	var running sync.WaitGroup
	for t := 1; t < threads; t++ {
		running.Go(func() { do(t*rows/threads, (t+1)*rows/threads) })
	}
	do(0, rows/max(threads, 1))
	running.Wait()
}
