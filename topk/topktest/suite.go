package topktest

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

// Run is the conformance suite: it holds the backend to the contract of package
// topk, to the bit, for all three dtypes. With testing.Short it tries fewer
// shapes, and fewer still of an engine that says it is slow.
func Run(t *testing.T, backend Backend) {
	t.Run(DType[float32](), func(t *testing.T) { runEngine(t, backend.Float32) })
	t.Run(DType[topk.Float16](), func(t *testing.T) { runEngine(t, backend.Float16) })
	t.Run(DType[topk.BFloat16](), func(t *testing.T) { runEngine(t, backend.BFloat16) })
}

// CheckRows holds an engine to the contract on given rows, such as logits of a
// model: by Select, in a Stream and merged from shards.
func CheckRows[T topk.Float](t *testing.T, engine Engine[T], logits []T, vocab int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(11, 11))
	shape := topk.Shape{Rows: len(logits) / vocab, Vocab: vocab}
	answers := NewAnswers(logits)
	var questions []question
	for _, k := range []int{1, 50, 100, 200, 1024} {
		for _, smallest := range []bool{false, true} {
			q := randomQuestion(rng, shape)
			q.k, q.rowK, q.smallest = min(k, vocab), nil, smallest
			questions = append(questions, q)
		}
	}
	var counts Counts
	if err := askAll(engine, answers, shape, topk.Options{}, questions, &counts); err != nil {
		t.Error(err)
	}
}

func runEngine[T topk.Float](t *testing.T, engine Engine[T]) {
	if engine.NewSelector == nil {
		t.Skipf("this backend has no %s", DType[T]())
	}
	for _, part := range []struct {
		name string
		test func(*testing.T, Engine[T])
	}{
		{"every row of the alphabet", testAlphabet[T]},
		{"every vocab", testEveryVocab[T]},
		{"every kind of row", testKinds[T]},
		{"chunk edges", testChunkEdges[T]},
		{"ties across k", testTies[T]},
		{"strides and ragged rows", testShapes[T]},
		{"any plan", testPlans[T]},
		{"any order of rows", testRowOrder[T]},
		{"streams", testStreams[T]},
		{"stream after errors", testStreamErrors[T]},
		{"merges", testMerges[T]},
		{"bad input", testBadInput[T]},
		{"random cases", testRandomCases[T]},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.test(t, engine)
		})
	}
}

// both runs test with a selector for the largest and one for the smallest.
func both[T topk.Float](engine Engine[T], test func(s Selector[T], smallest bool)) {
	for _, smallest := range []bool{false, true} {
		test(engine.NewSelector(topk.Options{Smallest: smallest}), smallest)
	}
}

// edgesOf returns every k for a small vocab, and for others those at which
// something may change.
func edgesOf(rng *rand.Rand, vocab int) []int {
	if vocab <= 64 {
		all := make([]int, vocab+1)
		for k := range all {
			all[k] = k
		}
		return all
	}
	return []int{0, 1, 2, 50, vocab / 8, vocab/8 + 1, rng.IntN(vocab + 1), vocab - 1, vocab}
}

// testAlphabet tries every row of up to 6 letters, with every k.
func testAlphabet[T topk.Float](t *testing.T, engine Engine[T]) {
	alphabet := Alphabet[T]()
	longest := engine.pick(6, 4, 2, 2)
	for vocab := range longest + 1 {
		rows := 1
		for range vocab {
			rows *= len(alphabet)
		}
		for first := 0; first < rows; first += 729 {
			shape := topk.Shape{Rows: min(729, rows-first), Vocab: vocab}
			logits := make([]T, 0, shape.Rows*vocab)
			for n := range shape.Rows {
				spelled := first + n
				for range vocab {
					logits = append(logits, alphabet[spelled%len(alphabet)])
					spelled /= len(alphabet)
				}
			}
			answers := NewAnswers(logits)
			both(engine, func(s Selector[T], smallest bool) {
				for shape.K = range vocab + 1 {
					if err := answers.CheckSelect(s, shape, smallest); err != nil {
						t.Fatalf("rows %d onwards, %+v, smallest %v: %v", first, shape, smallest, err)
					}
				}
			})
		}
	}
}

// testEveryVocab tries all vocab sizes up to 1024, of which all kinds of rows
// take their turn.
func testEveryVocab[T topk.Float](t *testing.T, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(1, 1))
	names, makers := kindsOf[T]()
	for vocab := 0; vocab <= 1024; vocab += engine.pick(1, 7, 19, 67) {
		kind := vocab % len(names)
		answers := NewAnswers(makers[kind](rng, vocab))
		both(engine, func(s Selector[T], smallest bool) {
			for _, k := range edgesOf(rng, vocab) {
				if err := answers.CheckSelect(s, topk.Row(vocab, k), smallest); err != nil {
					t.Fatalf("%s, vocab %d, k %d, smallest %v: %v", names[kind], vocab, k, smallest, err)
				}
			}
		})
	}
}

// testKinds tries each kind of row at lengths that are sampled.
func testKinds[T topk.Float](t *testing.T, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(2, 2))
	names, makers := kindsOf[T]()
	vocabs := []int{513, 3000, 50257}
	if testing.Short() || engine.Slow {
		vocabs = []int{5003}
	}
	for kind := range names {
		for _, vocab := range vocabs {
			answers := NewAnswers(newBatch(rng, topk.Row(vocab, 0), 1, makers[kind]))
			both(engine, func(s Selector[T], smallest bool) {
				for _, k := range []int{1, 50, 200, vocab / 9, vocab / 2} {
					if err := answers.CheckSelect(s, topk.Row(vocab, k), smallest); err != nil {
						t.Errorf("%s, vocab %d, k %d, smallest %v: %v", names[kind], vocab, k, smallest, err)
					}
				}
			})
		}
	}
}

// testChunkEdges tries lengths around which a chunk, a tile or a word ends, and
// the vocabularies of models.
func testChunkEdges[T topk.Float](t *testing.T, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(3, 3))
	names, makers := kindsOf[T]()
	vocabs := []int{50304}
	for i := 0; i < len(boundaries); i += engine.pick(1, 1, 2, 4) {
		vocabs = append(vocabs, boundaries[i]-1, boundaries[i], boundaries[i]+1)
	}
	if !testing.Short() {
		vocabs = append(vocabs, 151936)
	}
	for i, vocab := range vocabs {
		kind := i * 5 % len(names)
		answers := NewAnswers(makers[kind](rng, vocab))
		both(engine, func(s Selector[T], smallest bool) {
			for _, k := range edgesOf(rng, vocab) {
				if err := answers.CheckSelect(s, topk.Row(vocab, k), smallest); err != nil {
					t.Errorf("%s, vocab %d, k %d, smallest %v: %v", names[kind], vocab, k, smallest, err)
				}
			}
		})
	}
}

// testTies tries normal logits rounded to bfloat16, of which a tie crosses the
// k-th place in most rows.
func testTies[T topk.Float](t *testing.T, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(4, 5))
	shape := topk.Shape{Rows: 16, Vocab: 50304, K: 50}
	logits := newBatch(rng, shape, 0, func(rng *rand.Rand, n int) []T {
		row := Random(rng, n)
		for i, rounded := range Convert[topk.BFloat16](row) {
			row[i] = rounded.Float32()
		}
		return Convert[T](row)
	})
	answers := NewAnswers(logits)
	crossed := 0
	for i := range shape.Rows {
		ranking := answers.ranking(answers.row(shape, i, false))
		row := logits[i*shape.Vocab:]
		if bits(row[ranking[shape.K-1]]) == bits(row[ranking[shape.K]]) {
			crossed++
		}
	}
	if crossed <= shape.Rows/2 {
		t.Fatalf("a tie crosses place %d in %d of %d rows: not the fixture that was meant", shape.K, crossed, shape.Rows)
	}
	if err := answers.CheckSelect(engine.NewSelector(topk.Options{}), shape, false); err != nil {
		t.Error(err)
	}
}

// batches are shapes of every feature alone, and of all together.
var batches = []struct {
	shape  topk.Shape
	offset int
}{
	{topk.Shape{Rows: 0, Vocab: 100, K: 10}, 0},
	{topk.Shape{Rows: 4, Vocab: 0, K: 0}, 0},
	{topk.Shape{Rows: 4, Vocab: 100, K: 0}, 0},
	{topk.Shape{Rows: 5, Vocab: 1000, K: 30}, 0},
	{topk.Shape{Rows: 5, Vocab: 1000, K: 30}, 1},
	{topk.Shape{Rows: 5, Vocab: 1001, K: 30, Stride: 1001}, 0},
	{topk.Shape{Rows: 5, Vocab: 1000, K: 1000, Stride: 1024}, 3},
	{topk.Shape{Rows: 3, Vocab: 50257, K: 50, Stride: 50304}, 1},
	{topk.Shape{Rows: 6, Vocab: 2000, K: 7, Expand: true}, 1},
	{topk.Shape{Rows: 6, Vocab: 2000, K: 7, Expand: true, Stride: 3}, 0},
	{topk.Shape{Rows: 6, Vocab: 700, K: 100, RowK: []int32{0, 1, 100, 50, 99, 0}}, 0},
	{topk.Shape{Rows: 6, Vocab: 700, K: 100, RowLengths: []int32{0, 1, 700, 99, 100, 101}}, 0},
	{topk.Shape{Rows: 6, Vocab: 700, K: 100, RowLengths: []int32{0, 0, 0, 0, 0, 0}}, 0},
	{topk.Shape{Rows: 4, Vocab: 20000, K: 300, Stride: 20011, RowK: []int32{300, 0, 5, 300}, RowLengths: []int32{20000, 17, 4097, 0}}, 1},
	{topk.Shape{Rows: 4, Vocab: 3000, K: 64, Expand: true, RowK: []int32{1, 64, 0, 20}, RowLengths: []int32{3000, 10, 3000, 0}}, 2},
}

func testShapes[T topk.Float](t *testing.T, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(5, 5))
	names, makers := kindsOf[T]()
	for kind := 0; kind < len(names); kind += engine.pick(1, 1, 4, 12) {
		for _, batch := range batches {
			if kind > 0 && batch.shape.Vocab > 30000 {
				continue // one kind is enough: ranking these takes long
			}
			answers := NewAnswers(newBatch(rng, batch.shape, batch.offset, makers[kind]))
			both(engine, func(s Selector[T], smallest bool) {
				if err := answers.CheckSelect(s, batch.shape, smallest); err != nil {
					t.Errorf("%s, %+v, offset %d, smallest %v: %v", names[kind], batch.shape, batch.offset, smallest, err)
				}
			})
		}
	}
}

// testPlans forces what a plan decides: it may change the time only.
func testPlans[T topk.Float](t *testing.T, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(6, 6))
	names, makers := kindsOf[T]()
	shape := topk.Shape{Rows: len(names), Vocab: 4500, K: 60}
	next := 0
	answers := NewAnswers(newBatch(rng, shape, 1, func(rng *rand.Rand, n int) []T {
		next++
		return makers[next-1](rng, n)
	}))
	for threads := range engine.pick(5, 5, 2, 1) {
		for _, target := range []int{0, 1, 59, 61, 500, 4500, 1 << 20, math.MaxInt} {
			options := topk.Options{Threads: threads, TargetCandidates: target}
			if err := answers.CheckSelect(engine.NewSelector(options), shape, false); err != nil {
				t.Errorf("%+v: %v", options, err)
			}
		}
	}
}

// testRowOrder permutes the rows of a batch: the answers follow.
func testRowOrder[T topk.Float](t *testing.T, engine Engine[T]) {
	rng := rand.New(rand.NewPCG(7, 7))
	_, makers := kindsOf[T]()
	const rows, vocab, k = 21, 1777, 40
	one := topk.NewResult[T](1, k)
	single := engine.NewSelector(topk.Options{})
	var logits, permuted []T
	for i := range rows {
		logits = append(logits, makers[i%len(makers)](rng, vocab)...)
	}
	order := rng.Perm(rows)
	for _, i := range order {
		permuted = append(permuted, logits[i*vocab:(i+1)*vocab]...)
	}
	all := topk.NewResult[T](rows, k)
	if err := engine.NewSelector(topk.Options{}).Select(all, permuted, topk.Shape{Rows: rows, Vocab: vocab, K: k}); err != nil {
		t.Fatal(err)
	}
	for place, i := range order {
		if err := single.Select(one, logits[i*vocab:(i+1)*vocab], topk.Row(vocab, k)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(one.Indices, all.Indices[place*k:(place+1)*k]) {
			t.Errorf("row %d alone: %v, as row %d of a batch: %v", i, one.Indices, place, all.Indices[place*k:(place+1)*k])
		}
	}
}

// splits are ways to cut a row into chunks; the last one takes the rest.
var splits = map[string][]int{
	"whole":       nil,
	"ones":        slices.Repeat([]int{1}, 700),
	"empty":       {0, 0, 5, 0, 100, 0},
	"tiles":       slices.Repeat([]int{4096}, 20),
	"off tiles":   slices.Repeat([]int{4095, 2, 4097}, 6),
	"short first": {3, 16384, 16385},
}

func testStreams[T topk.Float](t *testing.T, engine Engine[T]) {
	if engine.NewStream == nil {
		t.Skip("this backend has no streams")
	}
	rng := rand.New(rand.NewPCG(8, 8))
	names, makers := kindsOf[T]()
	vocabs := []int{1, 200, 20011}
	if testing.Short() {
		vocabs = []int{1, 200, 3001}
	}
	for kind := range names {
		for _, vocab := range vocabs {
			answers := NewAnswers(makers[kind](rng, vocab))
			for _, k := range []int{0, 1, min(50, vocab), min(200, vocab), vocab} {
				for _, smallest := range []bool{false, true} {
					stream, err := engine.NewStream(k, topk.Options{Smallest: smallest})
					if err != nil {
						t.Fatal(err)
					}
					for split, chunks := range splits { // one after the other, on one stream
						if err := answers.CheckStream(stream, 0, vocab, k, smallest, chunks); err != nil {
							t.Errorf("%s, vocab %d, k %d, smallest %v, chunks %s: %v", names[kind], vocab, k, smallest, split, err)
						}
					}
				}
			}
		}
	}
}

// testStreamErrors lets calls fail in the middle of a row: nothing is lost.
func testStreamErrors[T topk.Float](t *testing.T, engine Engine[T]) {
	if engine.NewStream == nil {
		t.Skip("this backend has no streams")
	}
	const k = 10
	for _, bad := range []int{-1, math.MinInt} {
		_, err := engine.NewStream(bad, topk.Options{})
		checkShapeError(t, err, bad)
	}
	stream, err := engine.NewStream(k, topk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	logits := Convert[T](Random(rand.New(rand.NewPCG(9, 9)), 5000))
	push := func(logits []T) {
		t.Helper()
		if err := stream.Push(logits); err != nil {
			t.Fatal(err)
		}
	}
	fails := func(dst topk.Result[T], numbers ...int) {
		t.Helper()
		checkShapeError(t, stream.Finish(dst), numbers...)
		if err := checkPoison(dst); err != nil {
			t.Errorf("after an error: %v", err)
		}
	}
	answers := NewAnswers(logits)
	for range 2 {
		fails(poisoned[T](k), k, 0)
		push(logits[:k-1])
		fails(poisoned[T](k), k, k-1)
		push(logits[k-1 : 3000])
		fails(poisoned[T](k-1), k, k-1)
		fails(topk.Result[T]{Values: poisoned[T](k).Values}, k, 0)
		push(logits[3000:])
		dst := topk.NewResult[T](1, k)
		if err := stream.Finish(dst); err != nil {
			t.Fatal(err)
		}
		if err := answers.Compare(dst, topk.Row(len(logits), k), false); err != nil {
			t.Errorf("after errors: %v", err)
		}
		push(logits[:77])
		stream.Reset() // drops these
	}
}

func testMerges[T topk.Float](t *testing.T, engine Engine[T]) {
	if engine.Merge == nil {
		t.Skip("this backend has no merge")
	}
	rng := rand.New(rand.NewPCG(10, 10))
	names, makers := kindsOf[T]()
	for kind := range names {
		for _, shape := range []topk.Shape{
			{Rows: 1, Vocab: 3000, K: 50},
			{Rows: 3, Vocab: 500, K: 500},
			{Rows: 2, Vocab: 257, K: 1},
			{Rows: 2, Vocab: 10, K: 0},
			{Rows: 0, Vocab: 10, K: 3},
		} {
			n := shape.Vocab
			answers := NewAnswers(newBatch(rng, shape, 0, makers[kind]))
			for _, cuts := range [][]int{nil, {n / 2}, {1, 2, 3, n - 1}, {0, n / 3, n / 3, n}} { // shards shorter than k, and empty ones
				for _, smallest := range []bool{false, true} {
					for _, order := range []*rand.Rand{nil, rng} {
						err := answers.CheckMerge(engine.Merge, shape, topk.Options{Smallest: smallest}, cuts, order)
						if err != nil {
							t.Errorf("%s, %+v, smallest %v, cuts %v, shuffled %v: %v", names[kind], shape, smallest, cuts, order != nil, err)
						}
					}
				}
			}
		}
	}
}

// checkShapeError wants an ErrShape whose message holds the numbers.
func checkShapeError(t *testing.T, err error, numbers ...int) {
	t.Helper()
	if !errors.Is(err, topk.ErrShape) {
		t.Errorf("error %v, want one that wraps %v", err, topk.ErrShape)
		return
	}
	for _, n := range numbers {
		if !strings.Contains(err.Error(), strconv.Itoa(n)) {
			t.Errorf("error %q does not tell the number %d", err, n)
		}
	}
}

// testBadInput wants an error with the numbers, no panic, and an untouched
// result.
func testBadInput[T topk.Float](t *testing.T, engine Engine[T]) {
	past, half := int64(math.MaxInt32), math.MaxInt/2
	past32 := int(past + 1) // negative where an int has 32 bits
	fits := topk.Shape{Rows: 3, Vocab: 10, K: 4}
	with := func(change func(*topk.Shape)) topk.Shape {
		shape := fits
		change(&shape)
		return shape
	}
	for _, bad := range []struct {
		name                    string
		shape                   topk.Shape
		logits, values, indices int
		numbers                 []int
	}{
		{"k negative", with(func(s *topk.Shape) { s.K = -2 }), 30, 12, 12, []int{-2}},
		{"k past vocab", with(func(s *topk.Shape) { s.K = 11 }), 30, 33, 33, []int{11, 10}},
		{"rows negative", with(func(s *topk.Shape) { s.Rows = -1 }), 30, 12, 12, []int{-1}},
		{"vocab negative", topk.Shape{Rows: 3, Vocab: -7}, 30, 12, 12, []int{-7}},
		{"vocab past 2^31-1", with(func(s *topk.Shape) { s.Vocab = past32 }), 30, 12, 12, []int{past32}},
		{"stride below vocab", with(func(s *topk.Shape) { s.Stride = 9 }), 30, 12, 12, []int{9, 10}},
		{"stride negative", with(func(s *topk.Shape) { s.Stride = -10 }), 30, 12, 12, []int{-10, 10}},
		{"rows * stride overflows", topk.Shape{Rows: half, Vocab: 10}, 30, 12, 12, []int{half, 10}},
		{"rows * huge stride overflows", topk.Shape{Rows: 5, Vocab: 10, K: 1, Stride: half}, 30, 12, 12, []int{half, 5}},
		{"rows * k overflows", topk.Shape{Rows: half, Vocab: 10, K: 4, Expand: true}, 30, 12, 12, []int{half, 4}},
		{"short logits", fits, 29, 12, 12, []int{29, 30}},
		{"short last row", with(func(s *topk.Shape) { s.Stride = 12 }), 33, 12, 12, []int{33, 34}},
		{"no logits", fits, 0, 12, 12, []int{30}},
		{"short values", fits, 30, 11, 12, []int{11, 12}},
		{"short indices", fits, 30, 12, 11, []int{11, 12}},
		{"no room", fits, 30, 0, 0, []int{0, 3, 4}},
		{"too few RowK", with(func(s *topk.Shape) { s.RowK = []int32{1, 2} }), 30, 12, 12, []int{2, 3}},
		{"too many RowK", with(func(s *topk.Shape) { s.RowK = make([]int32, 4) }), 30, 12, 12, []int{4, 3}},
		{"RowK negative", with(func(s *topk.Shape) { s.RowK = []int32{1, -3, 2} }), 30, 12, 12, []int{1, -3}},
		{"RowK past k", with(func(s *topk.Shape) { s.RowK = []int32{1, 2, 5} }), 30, 12, 12, []int{2, 5, 4}},
		{"too few RowLengths", with(func(s *topk.Shape) { s.RowLengths = []int32{} }), 30, 12, 12, []int{0, 3}},
		{"RowLengths negative", with(func(s *topk.Shape) { s.RowLengths = []int32{-8, 1, 1} }), 30, 12, 12, []int{0, -8}},
		{"RowLengths past vocab", with(func(s *topk.Shape) { s.RowLengths = []int32{1, 11, 1} }), 30, 12, 12, []int{1, 11, 10}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("panic: %v", r)
				}
			}()
			dst := poisoned[T](max(bad.values, bad.indices))
			short := topk.Result[T]{Values: dst.Values[:bad.values:bad.values], Indices: dst.Indices[:bad.indices:bad.indices]}
			s := engine.NewSelector(topk.Options{})
			checkShapeError(t, s.Select(short, make([]T, bad.logits), bad.shape), bad.numbers...)
			if err := checkPoison(dst); err != nil {
				t.Errorf("after an error: %v", err)
			}
			if err := NewAnswers(make([]T, 30)).CheckSelect(s, fits, false); err != nil {
				t.Errorf("a good call after a bad one: %v", err)
			}
		})
	}
}

// testRandomCases runs the cases of Verify, with a fixed seed.
func testRandomCases[T topk.Float](t *testing.T, engine Engine[T]) {
	cases := engine.pick(100, 20, 30, 10)
	var counts Counts
	for n := range cases {
		rng := rand.New(rand.NewPCG(0, uint64(n)))
		if err := runCase(rng, []named[T]{{"backend", engine}}, &counts); err != nil {
			t.Fatalf("case %d: %v", n, err)
		}
	}
	if counts.Cases != int64(cases) || counts.Calls < counts.Cases {
		t.Errorf("%+v for %d cases: not the work that was meant", counts, cases)
	}
}
