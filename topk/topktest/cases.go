package topktest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/ai-kernel-factory/aikf/topk"
)

// Counts says how much was compared with the oracle.
type Counts struct {
	Cases int64 // batches of random shape and content
	Calls int64 // answers of a Select, a Stream or a Merge
	Rows  int64 // rows in these answers
}

// named is an engine and the name of its backend.
type named[T topk.Float] struct {
	name string
	Engine[T]
}

// kindsOf returns all kinds of rows in T, with one of any bits of T itself.
func kindsOf[T topk.Float]() (names []string, makers []func(rng *rand.Rand, n int) []T) {
	for _, kind := range Rows() {
		names = append(names, kind.Name)
		makers = append(makers, func(rng *rand.Rand, n int) []T { return Convert[T](kind.Make(rng, n)) })
	}
	return append(names, DType[T]()+"_bits"), append(makers, AnyBits[T])
}

// newBatch makes the logits of the shape, row by row, at an offset from the
// start of their memory, so that they are aligned to the element only. NaN
// stands around the rows: it would win if it were read.
func newBatch[T topk.Float](rng *rand.Rand, shape topk.Shape, offset int, row func(rng *rand.Rand, n int) []T) []T {
	rows, stride := shape.Rows, max(shape.Stride, shape.Vocab)
	if shape.Expand {
		rows = min(rows, 1)
	}
	span := max(0, rows-1)*stride + min(rows, 1)*shape.Vocab
	memory := make([]T, offset+span)
	nan := fromValue[T](float32(math.NaN()))
	for i := range memory {
		memory[i] = nan
	}
	logits := memory[offset:]
	for i := range rows {
		copy(logits[i*stride:], row(rng, shape.Vocab))
	}
	return logits
}

// question is one call on a batch.
type question struct {
	k        int
	rowK     []int32
	smallest bool
	chunks   []int // of a Stream
	cuts     []int // of a Merge
	shuffle  uint64
}

// runCase makes one random batch and asks each engine several questions about
// it. What it does depends on rng alone, not on how many engines there are.
func runCase[T topk.Float](rng *rand.Rand, engines []named[T], counts *Counts) error {
	names, makers := kindsOf[T]()
	kind := rng.IntN(len(names))
	shape := randomShape(rng)
	options := topk.Options{Threads: rng.IntN(5)}
	if rng.IntN(4) == 0 {
		options.TargetCandidates = []int{1, 2, 100, 5000, 1 << 20, math.MaxInt}[rng.IntN(6)]
	}
	answers := NewAnswers(newBatch(rng, shape, rng.IntN(4), makers[kind]))
	var questions []question
	for range 4 {
		questions = append(questions, randomQuestion(rng, shape))
	}
	counts.Cases++
	for _, engine := range engines {
		if err := askAll(engine.Engine, answers, shape, options, questions, counts); err != nil {
			return fmt.Errorf("%s, rows of kind %s: %w", engine.name, names[kind], err)
		}
	}
	return nil
}

// askAll asks the engine all questions, with one selector for each direction, so
// that what a call leaves behind would show in the next.
func askAll[T topk.Float](engine Engine[T], answers *Answers[T], shape topk.Shape, options topk.Options, questions []question, counts *Counts) error {
	selectors := map[bool]Selector[T]{}
	for _, q := range questions {
		options.Smallest = q.smallest
		if selectors[q.smallest] == nil {
			selectors[q.smallest] = engine.NewSelector(options)
		}
		shape.K, shape.RowK = q.k, q.rowK
		counts.Calls++
		counts.Rows += int64(shape.Rows)
		if err := answers.CheckSelect(selectors[q.smallest], shape, q.smallest); err != nil {
			return fmt.Errorf("Select, %+v, %+v: %w", shape, options, err)
		}
		if err := askStream(engine, answers, shape, options, q, counts); err != nil {
			return err
		}
		if engine.Merge == nil {
			continue
		}
		whole := shape
		whole.RowK, whole.RowLengths = nil, nil
		counts.Calls++
		counts.Rows += int64(shape.Rows)
		rng := rand.New(rand.NewPCG(q.shuffle, 0))
		if err := answers.CheckMerge(engine.Merge, whole, options, q.cuts, rng); err != nil {
			return fmt.Errorf("Merge, %+v, %+v, shards cut at %v: %w", whole, options, q.cuts, err)
		}
	}
	return nil
}

// askStream pushes the first rows of the batch through one Stream.
func askStream[T topk.Float](engine Engine[T], answers *Answers[T], shape topk.Shape, options topk.Options, q question, counts *Counts) error {
	if engine.NewStream == nil {
		return nil
	}
	stream, err := engine.NewStream(q.k, options)
	if err != nil {
		return err
	}
	for i := range min(shape.Rows, 2) {
		row := answers.row(shape, i, q.smallest)
		if row.length < q.k {
			continue
		}
		counts.Calls++
		counts.Rows++
		if err := answers.CheckStream(stream, row.start, row.length, q.k, q.smallest, q.chunks); err != nil {
			return fmt.Errorf("Stream, k = %d, %d logits, %+v, in chunks of %v: %w", q.k, row.length, options, q.chunks, err)
		}
	}
	return nil
}

// boundaries are lengths at which something changes inside: a word of a bitmap,
// the smallest row that is sampled, a tile, a chunk.
var boundaries = []int{16, 32, 64, 512, 1024, 4096, 8192, 16384, 32768}

// randomShape has no k yet.
func randomShape(rng *rand.Rand) topk.Shape {
	shape := topk.Shape{Rows: 1 + rng.IntN(5)}
	switch rng.IntN(10) {
	case 0, 1, 2:
		shape.Vocab = rng.IntN(70)
	case 3, 4, 5:
		shape.Vocab = rng.IntN(2000)
	case 6, 7:
		shape.Vocab = boundaries[rng.IntN(len(boundaries))] + rng.IntN(3) - 1
	case 8:
		shape.Vocab, shape.Rows = rng.IntN(700), rng.IntN(70)
	default:
		shape.Vocab, shape.Rows = rng.IntN(60000), 1+rng.IntN(2)
		if rng.IntN(20) == 0 {
			shape.Vocab *= 4
		}
	}
	switch rng.IntN(5) {
	case 0:
		shape.Stride = shape.Vocab + rng.IntN(80)
	case 1:
		shape.Expand = true
	}
	if rng.IntN(4) == 0 {
		shape.RowLengths = randomInts(rng, shape.Rows, shape.Vocab)
	}
	return shape
}

// randomInts returns n numbers from 0 to most, both of which are frequent.
func randomInts(rng *rand.Rand, n, most int) []int32 {
	ints := make([]int32, n)
	for i := range ints {
		switch rng.IntN(4) {
		case 0:
			ints[i] = int32(most)
		case 1, 2:
			ints[i] = int32(rng.IntN(most + 1))
		}
	}
	return ints
}

func randomQuestion(rng *rand.Rand, shape topk.Shape) question {
	q := question{smallest: rng.IntN(3) == 0, shuffle: rng.Uint64()}
	switch rng.IntN(16) {
	case 0:
		q.k = rng.IntN(shape.Vocab + 1)
	case 1:
		q.k = shape.Vocab
	case 2, 3:
		q.k = min(shape.Vocab, rng.IntN(2))
	case 4, 5:
		q.k = min(shape.Vocab, rng.IntN(2100))
	default:
		q.k = min(shape.Vocab, rng.IntN(300))
	}
	if rng.IntN(4) == 0 {
		q.rowK = randomInts(rng, shape.Rows, q.k)
	}
	longest := []int{1, 20, 700, 5000, 40000}[rng.IntN(5)]
	for range rng.IntN(40) {
		q.chunks = append(q.chunks, rng.IntN(longest+1))
	}
	for range rng.IntN(5) {
		q.cuts = append(q.cuts, rng.IntN(shape.Vocab+1))
	}
	slices.Sort(q.cuts)
	return q
}
