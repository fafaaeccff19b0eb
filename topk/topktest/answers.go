package topktest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/topk"
)

// Answers knows the right answers for some logits. It ranks a row when it is
// first asked about it, and remembers the ranking for every later k.
type Answers[T topk.Float] struct {
	logits   []T
	original []T // the logits as they were, to notice a call that writes to them
	rankings map[part][]int32
}

// part is a row, by its place in the logits, in one of the two orders.
type part struct {
	start, length int
	smallest      bool
}

// NewAnswers returns the answers for rows within logits. The logits must stay
// as they are.
func NewAnswers[T topk.Float](logits []T) *Answers[T] {
	return &Answers[T]{logits: logits, original: slices.Clone(logits), rankings: map[part][]int32{}}
}

func (a *Answers[T]) ranking(p part) []int32 {
	ranking, ok := a.rankings[p]
	if !ok {
		ranking = Ranking(a.logits[p.start:p.start+p.length], p.smallest)
		a.rankings[p] = ranking
	}
	return ranking
}

// row returns the place of row i of the shape.
func (a *Answers[T]) row(shape topk.Shape, i int, smallest bool) part {
	p := part{i * shape.Stride, shape.Vocab, smallest}
	switch {
	case shape.Expand:
		p.start = 0
	case shape.Stride == 0:
		p.start = i * shape.Vocab
	}
	if shape.RowLengths != nil {
		p.length = int(shape.RowLengths[i])
	}
	return p
}

// Compare reports the first entry of the result that is not the oracle's, to
// the bit.
func (a *Answers[T]) Compare(got topk.Result[T], shape topk.Shape, smallest bool) error {
	for i := range shape.Rows {
		p, first := a.row(shape, i, smallest), i*shape.K
		if err := a.compareRow(got, first, p, shape.RowResults(i)); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	return nil
}

// compareRow compares k entries from the first with the best of the row.
func (a *Answers[T]) compareRow(got topk.Result[T], first int, p part, k int) error {
	for place, want := range a.ranking(p)[:k] {
		index, value := got.Indices[first+place], got.Values[first+place]
		wantValue := a.logits[p.start+int(want)]
		if index != want || bits(value) != bits(wantValue) {
			return fmt.Errorf("place %d of %d: index %d with bits %#x, want index %d with bits %#x",
				place, k, index, bits(value), want, bits(wantValue))
		}
	}
	return nil
}

// CheckSelect calls the selector and reports an answer that is not the
// oracle's, a write outside a row's results or to the logits, and an error.
func (a *Answers[T]) CheckSelect(s Selector[T], shape topk.Shape, smallest bool) error {
	dst := poisoned[T](shape.Rows*shape.K + margin)
	if err := s.Select(dst, a.logits, shape); err != nil {
		return err
	}
	if err := a.Compare(dst, shape, smallest); err != nil {
		return err
	}
	untouched := dst
	for i := range shape.Rows {
		n := shape.RowResults(i)
		rest := topk.Result[T]{Values: untouched.Values[n:shape.K], Indices: untouched.Indices[n:shape.K]}
		if err := checkPoison(rest); err != nil {
			return fmt.Errorf("row %d, past its %d results: %w", i, n, err)
		}
		untouched.Values, untouched.Indices = untouched.Values[shape.K:], untouched.Indices[shape.K:]
	}
	if err := checkPoison(untouched); err != nil {
		return fmt.Errorf("past the last row: %w", err)
	}
	return a.checkUnmodified()
}

// CheckStream pushes length logits from start, cut into chunks of the given
// lengths and a last one of what is left, and compares what Finish answers.
// Every chunk is overwritten after its Push.
func (a *Answers[T]) CheckStream(s Stream[T], start, length, k int, smallest bool, chunks []int) error {
	rest := a.logits[start : start+length]
	var chunk []T
	for _, n := range append(slices.Clone(chunks), length) {
		n = min(n, len(rest))
		chunk = append(chunk[:0], rest[:n]...)
		if err := s.Push(chunk); err != nil {
			return err
		}
		for i := range chunk {
			chunk[i] = poison[T]()
		}
		rest = rest[n:]
	}
	dst := poisoned[T](k + margin)
	if err := s.Finish(dst); err != nil {
		return err
	}
	if err := a.compareRow(dst, 0, part{start, length, smallest}, k); err != nil {
		return err
	}
	return checkPoison(topk.Result[T]{Values: dst.Values[k:], Indices: dst.Indices[k:]})
}

// CheckMerge cuts the vocabulary of every row at the given places, in order, and
// merges the best of the parts. With a random source, a shard's entries are in
// random order. Rows have neither a k nor a length of their own.
func (a *Answers[T]) CheckMerge(merge Merge[T], shape topk.Shape, options topk.Options, cuts []int, rng *rand.Rand) error {
	var shards []topk.Result[T]
	first := 0
	for _, last := range append(slices.Clone(cuts), shape.Vocab) {
		var shard topk.Result[T]
		for i := range shape.Rows {
			p, length := a.row(shape, i, options.Smallest), len(shard.Indices)
			for _, index := range a.ranking(p) {
				if len(shard.Indices)-length < shape.K && first <= int(index) && int(index) < last {
					shard.Indices = append(shard.Indices, index)
					shard.Values = append(shard.Values, a.logits[p.start+int(index)])
				}
			}
			if rng != nil {
				rng.Shuffle(len(shard.Indices)-length, func(i, j int) {
					i, j = i+length, j+length
					shard.Indices[i], shard.Indices[j] = shard.Indices[j], shard.Indices[i]
					shard.Values[i], shard.Values[j] = shard.Values[j], shard.Values[i]
				})
			}
		}
		shards = append(shards, shard)
		first = last
	}
	n := shape.Rows * shape.K
	dst := poisoned[T](n + margin)
	if err := merge(dst, shape.Rows, shape.K, options, shards...); err != nil {
		return err
	}
	if err := a.Compare(dst, shape, options.Smallest); err != nil {
		return err
	}
	return checkPoison(topk.Result[T]{Values: dst.Values[n:], Indices: dst.Indices[n:]})
}

func (a *Answers[T]) checkUnmodified() error {
	for i, x := range a.logits {
		if bits(x) != bits(a.original[i]) {
			return fmt.Errorf("logit %d was overwritten: bits %#x, were %#x", i, bits(x), bits(a.original[i]))
		}
	}
	return nil
}

// margin is how many entries past the last row a result gets, to see them
// untouched.
const margin = 17

// poisonIndex and poison stand where nothing may be written.
const poisonIndex = -0x5A5A5A5A

func poison[T topk.Float]() T { return fromBits[T](0xA5A5A5A5) }

func poisoned[T topk.Float](n int) topk.Result[T] {
	r := topk.NewResult[T](1, n)
	for i := range n {
		r.Values[i], r.Indices[i] = poison[T](), poisonIndex
	}
	return r
}

func checkPoison[T topk.Float](r topk.Result[T]) error {
	for i, x := range r.Values {
		if bits(x) != bits(poison[T]()) {
			return fmt.Errorf("value %d was written: bits %#x", i, bits(x))
		}
	}
	for i, index := range r.Indices {
		if index != poisonIndex {
			return fmt.Errorf("index %d was written: %d", i, index)
		}
	}
	return nil
}

// bits returns the bits of x.
func bits[T topk.Float](x T) uint32 {
	switch x := any(x).(type) {
	case topk.Float16:
		return uint32(x)
	case topk.BFloat16:
		return uint32(x)
	}
	return math.Float32bits(any(x).(float32))
}

// fromBits returns the float with those bits; a 16-bit format takes the lower
// half.
func fromBits[T topk.Float](bits uint32) T {
	var x T
	switch x := any(&x).(type) {
	case *topk.Float16:
		*x = topk.Float16(bits)
	case *topk.BFloat16:
		*x = topk.BFloat16(bits)
	case *float32:
		*x = math.Float32frombits(bits)
	}
	return x
}

// DType returns the name of T in results and options: "float32", "float16" or
// "bfloat16".
func DType[T topk.Float]() string {
	name := fmt.Sprintf("%T", *new(T))
	return strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
}
