package shim_test

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
	"github.com/ai-kernel-factory/aikf/internal/fence"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// launch is a kernel on a grid.
type launch struct {
	symbol               string
	grid, block, cluster int
}

// plan says how the kernels of one name select a batch. This is the least that a
// host must know of them, written again, so that a test of the kernels does not
// lean on the code that launches them on a device.
type plan struct {
	name string
	// fits reports whether the kernels take the shape.
	fits func(shape topk.Shape) bool
	// make returns the launches and the 64-bit words of workspace.
	make func(dtype string, shape topk.Shape, chunks int) ([]launch, int)
	// chunks returns into how many parts a row is cut, given the candidates that
	// the caller aims at, 0 for the default.
	chunks func(shape topk.Shape, target int) int
}

const (
	fastK = 2048
	roomK = 4096 // candidates that the second stage of the two-stage plan merges
)

func oneChunk(topk.Shape, int) int { return 1 }

// blockThreads are those of a kernel that selects.
const blockThreads = 512

// samplingThreads are those of a sampling kernel.
const samplingThreads = blockThreads + 64

// block is a plan of one block a row. wide: 64-bit candidates also where 32 bits do.
func block(wide bool) plan {
	name := "block"
	if wide {
		name = "block, wide"
	}
	return plan{
		name: name,
		fits: func(shape topk.Shape) bool { return shape.K <= fastK },
		make: func(dtype string, shape topk.Shape, _ int) ([]launch, int) {
			return []launch{{"select_" + dtype + "_block" + width(dtype, shape, wide), shape.Rows, blockThreads, 1}}, 0
		},
		chunks: oneChunk,
	}
}

// width ends the names of kernels with 32-bit candidates.
func width(dtype string, shape topk.Shape, wide bool) string {
	if wide || dtype == "f32" || shape.Vocab > 1<<16 {
		return ""
	}
	return "_narrow"
}

// cluster is the plan of so many blocks a row.
func cluster(blocks int) plan {
	return plan{
		name: fmt.Sprint("cluster of ", blocks),
		fits: func(shape topk.Shape) bool { return shape.K <= fastK },
		make: func(dtype string, shape topk.Shape, chunks int) ([]launch, int) {
			return []launch{{"select_" + dtype + "_cluster", shape.Rows * chunks, blockThreads, chunks}}, 0
		},
		chunks: func(topk.Shape, int) int { return blocks },
	}
}

var twoStage = plan{
	name: "two-stage",
	fits: func(shape topk.Shape) bool { return shape.K <= fastK },
	make: func(dtype string, shape topk.Shape, chunks int) ([]launch, int) {
		return []launch{
			{"select_" + dtype + "_stage1", shape.Rows * chunks, blockThreads, 1},
			{"select_" + dtype + "_stage2", shape.Rows, blockThreads, 1},
		}, shape.Rows * chunks * shape.K
	},
	chunks: func(shape topk.Shape, target int) int {
		if target == 0 {
			target = 500
		}
		k := max(1, shape.K)
		return max(1, min((min(target, roomK)+k/2)/k, roomK/k, shape.Vocab/k))
	},
}

var anyK = plan{
	name: "any",
	fits: func(topk.Shape) bool { return true },
	make: func(dtype string, shape topk.Shape, _ int) ([]launch, int) {
		return []launch{{"select_" + dtype + "_any", shape.Rows, blockThreads, 1}}, shape.Rows << bits.Len(uint(shape.K-1))
	},
	chunks: oneChunk,
}

// stamps are the 64-bit words of workspace a row of the instrumented build.
const stamps = 8

// phases is the instrumented build of block.
var phases = plan{
	name: "phases",
	fits: func(shape topk.Shape) bool { return shape.K <= fastK },
	make: func(dtype string, shape topk.Shape, _ int) ([]launch, int) {
		return []launch{{"phases_" + dtype + "_block" + width(dtype, shape, false), shape.Rows, blockThreads, 1}}, shape.Rows * stamps
	},
	chunks: oneChunk,
}

// groupCounts are what a kernel can be given.
var groupCounts = []int{128, 256, 512}

// groups returns the group maxima that bound the k-th value: by k, or, where the
// caller aims at a number of candidates, some other count.
func groups(k, target int) int {
	switch {
	case target != 0:
		return groupCounts[target%len(groupCounts)]
	case k <= 128:
		return 256
	}
	return 512
}

// kernels is what the tests of one plan share.
type kernels struct {
	*shim.Library
	symbols []string
	plan    plan
	fences  sync.Pool // of []byte
	counts  struct{ rows, launches, others atomic.Int64 }
}

// fenceBytes hold the largest batch of the suite, and its workspace.
const fenceBytes = 8 << 20

// selector selects by one plan, or by the plan "any" where that does not fit.
type selector[T topk.Float] struct {
	*kernels
	options  topk.Options
	order    uint64 // of threads: part of the seed, and of nothing else
	calls    uint64 // so far: each has another seed
	meetings uint64 // of warps, in all calls
}

func engine[T topk.Float](k *kernels) topktest.Engine[T] {
	return topktest.Engine[T]{
		NewSelector: func(options topk.Options) topktest.Selector[T] { return &selector[T]{kernels: k, options: options} },
		Slow:        true,
	}
}

// short is the name of the dtype in symbols.
func short[T topk.Float]() string {
	return map[string]string{"float32": "f32", "float16": "f16", "bfloat16": "bf16"}[topktest.DType[T]()]
}

// Select checks the call as a host must, and launches the kernels.
func (s *selector[T]) Select(dst topk.Result[T], logits []T, shape topk.Shape) error {
	if err := shape.Validate(); err != nil {
		return err
	}
	span := 0
	if shape.Rows > 0 {
		span = (shape.Rows-1)*stride(shape) + shape.Vocab
	}
	if n := shape.Rows * shape.K; len(logits) < span || len(dst.Values) < n || len(dst.Indices) < n {
		return fmt.Errorf("%d logits, want %d; %d values and %d indices, want %d = %d * %d: %w",
			len(logits), span, len(dst.Values), len(dst.Indices), n, shape.Rows, shape.K, topk.ErrShape)
	}
	if shape.Rows == 0 || shape.K == 0 {
		return nil
	}
	return s.run(dst, logits, span, shape)
}

// run lets the kernels read the first logits, span of them, often in fenced memory,
// and write where the caller wants its results, or, at times, 64-bit indices at a
// stride of their own.
func (s *selector[T]) run(dst topk.Result[T], logits []T, span int, shape topk.Shape) error {
	s.calls++
	choice := s.calls<<32 + uint64(shape.Vocab*4099+shape.K*67+shape.Rows)
	seed := choice + s.order<<56
	plan := s.plan
	if !plan.fits(shape) {
		s.counts.others.Add(1)
		plan = anyK
	}
	chunks := plan.chunks(shape, s.options.TargetCandidates)
	launches, workspace := plan.make(short[T](), shape, chunks)
	s.counts.rows.Add(int64(shape.Rows))

	a := arguments{
		rowK: first(shape.RowK), rowLengths: first(shape.RowLengths),
		stride: int64(stride(shape)), rows: int32(shape.Rows), vocab: int32(shape.Vocab), k: int32(shape.K),
		groups: int32(groups(shape.K, s.options.TargetCandidates)), chunks: int32(chunks),
		values: first(dst.Values), indices: first(dst.Indices), resultStride: int64(shape.K), indexBytes: 4,
	}
	if s.options.Smallest {
		a.smallest = 1
	}
	memory := s.fences.Get().([]byte)
	defer s.fences.Put(memory)
	switch choice / 3 % 3 {
	case 0:
		a.logits = first(logits)
	case 1:
		fenced := fence.AtEnd[T](memory, span)
		copy(fenced, logits)
		a.logits = first(fenced)
	case 2:
		fenced := fence.AtStart[T](memory, span)
		copy(fenced, logits)
		a.logits = first(fenced)
	}
	words := s.fences.Get().([]byte)
	defer s.fences.Put(words)
	if workspace > 0 {
		poisoned := fence.AtEnd[uint64](words, workspace)
		for i := range poisoned {
			poisoned[i] = seed * 0x9e3779b97f4a7c15
		}
		a.workspace = first(poisoned)
	}
	var values []T
	var indices []int64
	if wide := choice%2 == 0; wide {
		a.indexBytes, a.resultStride = 8, int64(shape.K)+5
		values, indices = make([]T, shape.Rows*(shape.K+5)), make([]int64, shape.Rows*(shape.K+5))
		for i := range shape.Rows { // untouched entries stay what they are
			for j := range shape.K {
				values[i*(shape.K+5)+j], indices[i*(shape.K+5)+j] = dst.Values[i*shape.K+j], int64(dst.Indices[i*shape.K+j])
			}
		}
		a.values, a.indices = first(values), first(indices)
	}
	for _, l := range launches {
		if !slices.Contains(s.symbols, l.symbol) {
			return s.withoutKernel(dst, logits, shape)
		}
	}
	for i, l := range launches {
		s.counts.launches.Add(1)
		meetings, err := s.Launch(l.symbol, l.grid, l.block, l.cluster, seed+uint64(i)<<48, unsafe.Pointer(&a))
		if err != nil {
			return err
		}
		s.meetings += meetings
	}
	for i := range shape.Rows {
		for j := 0; j < shape.K+5 && indices != nil; j++ {
			at := i*(shape.K+5) + j
			if j < shape.K {
				dst.Values[i*shape.K+j], dst.Indices[i*shape.K+j] = values[at], int32(indices[at])
				if int64(int32(indices[at])) != indices[at] {
					return fmt.Errorf("row %d, place %d: index %#x", i, j, indices[at])
				}
			} else if indices[at] != 0 || values[at] != *new(T) {
				return fmt.Errorf("row %d: a write past its %d results, at %d", i, shape.K, j)
			}
		}
	}
	return nil
}

// withoutKernel answers by the CPU's engine what no kernel takes.
func (s *selector[T]) withoutKernel(dst topk.Result[T], logits []T, shape topk.Shape) error {
	return (&topk.Selector[T]{Options: topk.Options{Smallest: s.options.Smallest, Threads: 1}}).Select(dst, logits, shape)
}

func stride(shape topk.Shape) int {
	switch {
	case shape.Expand:
		return 0
	case shape.Stride == 0:
		return shape.Vocab
	}
	return shape.Stride
}

// open loads the kernels for tests of the plan.
func open(t *testing.T, p plan) *kernels {
	t.Helper()
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...), plan: p}
	k.symbols = k.Symbols()
	k.fences.New = func() any { return fence.Memory(t, fenceBytes) }
	return k
}

// plans are all ways to run the kernels, the dtypes that each is for, and those
// of them that are held to the whole suite. The dtypes are one source, so that
// plans which are alike share them out; TestPaths asks every plan about each.
var plans = []struct {
	plan
	dtypes, suite []string
}{
	{block(false), dtypes, dtypes},
	{block(true), dtypes[1:], dtypes[2:]},
	{cluster(2), dtypes, dtypes[:2]},
	{cluster(8), dtypes, dtypes[2:]},
	{cluster(16), dtypes, nil},
	{twoStage, dtypes, dtypes[:1]},
	{anyK, dtypes, dtypes[2:]},
	{phases, dtypes, dtypes[1:2]},
}

var dtypes = []string{"f32", "f16", "bf16"}

// forEachPlan runs a test for every plan.
func forEachPlan(t *testing.T, test func(t *testing.T, k *kernels, dtypes []string)) {
	for _, p := range plans {
		runPlan(t, p.plan, p.dtypes, func(t *testing.T, k *kernels) { test(t, k, p.dtypes) })
	}
}

// runPlan runs a test for a plan, if the sources have its kernels.
func runPlan(t *testing.T, p plan, dtypes []string, test func(t *testing.T, k *kernels)) {
	t.Run(p.name, func(t *testing.T) {
		k := open(t, p)
		shape := topk.Row(100, 10)
		for _, dtype := range dtypes {
			launches, _ := p.make(dtype, shape, p.chunks(shape, 0))
			for _, l := range launches {
				if !slices.Contains(k.symbols, l.symbol) {
					t.Fatalf("the sources have no %s", l.symbol)
				}
			}
		}
		t.Cleanup(func() {
			t.Logf("%d launches, %d rows; %d calls by another plan", k.counts.launches.Load(), k.counts.rows.Load(), k.counts.others.Load())
		})
		test(t, k)
	})
}

// Every plan gives the answers of the contract.
func TestConformance(t *testing.T) {
	for _, p := range plans {
		if len(p.suite) > 0 {
			runPlan(t, p.plan, p.suite, func(t *testing.T, k *kernels) {
				topktest.Run(t, topktest.Backend{
					Name:     "shim/" + k.plan.name,
					Float32:  engineOf[float32](k, p.suite),
					Float16:  engineOf[topk.Float16](k, p.suite),
					BFloat16: engineOf[topk.BFloat16](k, p.suite),
				})
			})
		}
	}
}

// engineOf is the engine, or none if its dtype is not among those.
func engineOf[T topk.Float](k *kernels, dtypes []string) topktest.Engine[T] {
	if !slices.Contains(dtypes, short[T]()) {
		return topktest.Engine[T]{}
	}
	return engine[T](k)
}

// Every kind of row, at lengths and k at which a kernel takes another path: a row
// that fits as it is, each way to order the candidates, a bound that is a guess.
func TestPaths(t *testing.T) {
	forEachPlan(t, func(t *testing.T, k *kernels, dtypes []string) {
		if slices.Contains(dtypes, "f32") {
			t.Run("float32", func(t *testing.T) { testPaths(t, engine[float32](k)) })
		}
		t.Run("float16", func(t *testing.T) { testPaths(t, engine[topk.Float16](k)) })
		t.Run("bfloat16", func(t *testing.T) { testPaths(t, engine[topk.BFloat16](k)) })
	})
}

func testPaths[T topk.Float](t *testing.T, engine topktest.Engine[T]) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(12, 12))
	ks := []int{1, 2, 31, 50, 63, 64, 65, 100, 127, 128, 129, 200, 255, 256, 257, 400, 511, 512, 513, 700, 1000, 1024, 1025, 1600, 2047, 2048}
	vocabs := []int{500, 513, 1024, 2500, 4096, 4097, 5000, 8200, 12345}
	most := 3
	if testing.Short() {
		most = 1
	}
	for _, kind := range topktest.Rows() {
		for range most {
			vocab := vocabs[rng.IntN(len(vocabs))]
			logits := topktest.Convert[T](kind.Make(rng, vocab))
			answers := topktest.NewAnswers(logits)
			for range 4 {
				options := topk.Options{Smallest: rng.IntN(2) == 0, TargetCandidates: max(0, rng.IntN(1500)-500)}
				shape := topk.Row(vocab, min(vocab, ks[rng.IntN(len(ks))]))
				if err := answers.CheckSelect(engine.NewSelector(options), shape, options.Smallest); err != nil {
					t.Errorf("%s, %+v, %+v: %v", kind.Name, shape, options, err)
				}
			}
		}
	}
}

// A race between threads may leave the answer right, as one that spoils the bound
// does: the exact path mends that. But then the work depends on the order of
// threads. Rows with more candidates than room are another matter: the first warp
// that finds it full ends the search for all that have not.
func TestSameWorkInEveryOrder(t *testing.T) {
	forEachPlan(t, func(t *testing.T, k *kernels, dtypes []string) {
		if slices.Contains(dtypes, "f32") {
			t.Run("float32", func(t *testing.T) { testSameWork[float32](t, k) })
		}
		t.Run("float16", func(t *testing.T) { testSameWork[topk.Float16](t, k) })
		t.Run("bfloat16", func(t *testing.T) { testSameWork[topk.BFloat16](t, k) })
	})
}

// tiesAtK returns how many elements of a row are equal to the k-th best.
func tiesAtK(row []float32, k int) int {
	sorted := slices.SortedFunc(slices.Values(row), func(a, b float32) int { return cmp.Compare(b, a) })
	nans := 0
	for nans < len(sorted) && sorted[len(sorted)-1-nans] != sorted[len(sorted)-1-nans] {
		nans++
	}
	if k <= nans { // they are the best
		return nans
	}
	ties := 0
	for _, v := range sorted {
		if v == sorted[k-1-nans] {
			ties++
		}
	}
	return ties
}

func testSameWork[T topk.Float](t *testing.T, k *kernels) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(13, 13))
	const room = 4096 // candidates of a block
	crowded := []string{"constant", "two_values", "few_distinct", "zeros", "masked_0", "masked_20", "adjacent", "mostly_nan", "specials", "infinite"}
	for _, kind := range topktest.Rows() {
		cluster := strings.HasPrefix(k.plan.name, "cluster")
		if slices.Contains(crowded, kind.Name) || cluster && strings.HasSuffix(kind.Name, "scending") {
			continue
		}
		shape := topk.Row(1000+rng.IntN(12000), 1+rng.IntN(300))
		if cluster {
			// Each of the blocks must have groups enough for a bound.
			shape = topk.Row(40000+rng.IntN(10000), 1+rng.IntN(60))
		}
		row := kind.Make(rng, shape.Vocab)
		if tiesAtK(row, shape.K) > room { // half of a mixed row may be crowded
			continue
		}
		logits := topktest.Convert[T](row)
		dst := topk.NewResult[T](shape.Rows, shape.K)
		meetings := map[uint64][]uint64{}
		for order := range uint64(4) {
			s := &selector[T]{kernels: k, order: order}
			if err := s.Select(dst, logits, shape); err != nil {
				t.Fatal(err)
			}
			meetings[s.meetings] = append(meetings[s.meetings], order)
		}
		if len(meetings) > 1 {
			t.Errorf("%s, %+v: warps met so often, in these orders of threads: %v", kind.Name, shape, meetings)
		}
	}
}

// wild hands k and lengths to the kernels that no host has checked, as a caller
// may leave them in device memory.
type wild[T topk.Float] struct {
	*selector[T]
	rowK, rowLengths []int32
}

func (w wild[T]) Select(dst topk.Result[T], logits []T, shape topk.Shape) error {
	shape.RowK, shape.RowLengths = w.rowK, w.rowLengths
	return w.run(dst, logits, len(logits), shape)
}

// A row's k is clamped to what its length and the batch allow, and its length to
// the vocab.
func TestClamps(t *testing.T) {
	rowK := []int32{-1, 20, 21, math.MinInt32, math.MaxInt32, 5, 5, 20, -7}
	rowLengths := []int32{700, 701, -1, 700, 10, math.MaxInt32, math.MinInt32, 0, -7}
	clamped := topk.Shape{Rows: len(rowK), Vocab: 700, K: 20}
	for i := range rowK {
		clamped.RowK = append(clamped.RowK, min(max(rowK[i], 0), int32(clamped.K)))
		clamped.RowLengths = append(clamped.RowLengths, min(max(rowLengths[i], 0), int32(clamped.Vocab)))
	}
	forEachPlan(t, func(t *testing.T, k *kernels, dtypes []string) {
		rng := rand.New(rand.NewPCG(14, 14))
		answers := topktest.NewAnswers(topktest.Convert[topk.BFloat16](topktest.Random(rng, clamped.Rows*clamped.Vocab)))
		for _, smallest := range []bool{false, true} {
			for range 8 {
				s := &selector[topk.BFloat16]{kernels: k, options: topk.Options{Smallest: smallest}, calls: rng.Uint64N(1000)}
				if err := answers.CheckSelect(wild[topk.BFloat16]{s, rowK, rowLengths}, clamped, smallest); err != nil {
					t.Errorf("smallest %v: %v", smallest, err)
				}
			}
		}
	})
}

// The clock stamps of the instrumented build are in order.
func TestPhases(t *testing.T) {
	k := open(t, phases)
	const rows, vocab, n = 3, 20000, 50
	logits := topktest.Convert[topk.BFloat16](topktest.Random(rand.New(rand.NewPCG(15, 15)), rows*vocab))
	stamp := make([]uint64, rows*stamps)
	dst := topk.NewResult[topk.BFloat16](rows, n)
	a := arguments{
		logits: first(logits), values: first(dst.Values), indices: first(dst.Indices), workspace: first(stamp),
		stride: vocab, resultStride: n, rows: rows, vocab: vocab, k: n, groups: 256, chunks: 1, indexBytes: 4,
	}
	if _, err := k.Launch("phases_bf16_block_narrow", rows, blockThreads, 1, 1, unsafe.Pointer(&a)); err != nil {
		t.Fatal(err)
	}
	for row := range rows {
		used := slices.DeleteFunc(slices.Clone(stamp[row*stamps:][:stamps]), func(s uint64) bool { return s == 0 })
		if len(used) < 5 || !slices.IsSorted(used) {
			t.Errorf("row %d: stamps %v", row, stamp[row*stamps:][:stamps])
		}
	}
}

// The read floor is the maximum of each row, and NaN where a row holds one.
func TestReadFloor(t *testing.T) {
	k := open(t, phases)
	t.Run("float32", func(t *testing.T) { testReadFloor[float32](t, k) })
	t.Run("float16", func(t *testing.T) { testReadFloor[topk.Float16](t, k) })
	t.Run("bfloat16", func(t *testing.T) { testReadFloor[topk.BFloat16](t, k) })
}

func testReadFloor[T topk.Float](t *testing.T, k *kernels) {
	rng := rand.New(rand.NewPCG(16, 16))
	for _, kind := range topktest.Rows() {
		rows, vocab, gap := 1+rng.IntN(4), rng.IntN(20000), 3
		stride := vocab + rng.IntN(3)
		logits, values := topktest.Convert[T](kind.Make(rng, rows*stride)), make([]T, rows*gap)
		a := arguments{logits: first(logits), values: first(values), stride: int64(stride), resultStride: int64(gap), rows: int32(rows), vocab: int32(vocab)}
		if _, err := k.Launch("floor_read_"+short[T](), rows, 1024, 1, rng.Uint64(), unsafe.Pointer(&a)); err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			want := math.Inf(-1)
			if vocab > 0 {
				largest, _ := topktest.Oracle(logits[i*stride:][:vocab], 1, false)
				want = number(largest[0])
			}
			if got := number(values[i*gap]); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
				t.Errorf("%s, row %d of %d logits: %v, want %v", kind.Name, i, vocab, got, want)
			}
		}
	}
}

// number is what x stands for.
func number[T topk.Float](x T) float64 {
	switch x := any(x).(type) {
	case topk.Float16:
		return float64(x.Float32())
	case topk.BFloat16:
		return float64(x.Float32())
	}
	return float64(any(x).(float32))
}
