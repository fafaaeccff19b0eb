package bench

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == SelfTestWord {
		if err := Contest(os.Args[2], os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	if os.Getenv("AIKF_TEST_PEER") != "" {
		fakePeer(os.Getenv("AIKF_TEST_PEER"))
	}
	os.Exit(m.Run())
}

// quick is a runner for tests: timing is not what they look at.
func quick() *Runner {
	return &Runner{Iters: 2, Budget: time.Second, Seed: 1, Real: RealLogits()}
}

func TestMeasure(t *testing.T) {
	for _, work := range Works() {
		for _, dtype := range []DType{Float32, Float16, BFloat16} {
			for _, shape := range [][3]int{{1, 1000, 50}, {3, 257, 257}, {2, 5, 1}} {
				c := Case{Work: work, Source: Random, Batch: shape[0], Vocab: shape[1], TopK: shape[2], DType: dtype, BaseOffset: 1}
				r, err := quick().Measure(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if field, got := r.invalid(); field != "" {
					t.Errorf("%v: %s = %v", c, field, got)
				}
				if r.Batch != shape[0] || r.Vocab != shape[1] || r.TopK != shape[2] || r.DType != dtype || r.BaseOffset != 1 ||
					!r.IndicesEqual || r.MaxAbsDiff != 0 || r.Samples != 2 {
					t.Errorf("%v: %+v", c, r)
				}
			}
		}
	}
}

func TestMeasureSources(t *testing.T) {
	for _, source := range append(AdversarialSources(), Random, Real) {
		vocab := 3000
		if source == Real {
			vocab = 50304
		}
		for _, tier := range topk.Tiers() {
			c := Case{Work: TopK, Source: source, Batch: 1, Vocab: vocab, TopK: 50, DType: BFloat16, Tier: tier}
			r, err := quick().Measure(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if r.Source != source || r.Tier != tier {
				t.Errorf("%v: source %q, tier %q", c, r.Source, r.Tier)
			}
		}
	}
}

func TestMeasureReferences(t *testing.T) {
	base := Case{Work: TopK, Source: Random, Batch: 2, Vocab: 1000, TopK: 20, DType: Float32}
	for _, reference := range []string{TypedHeap, Select, OnTier + "pure"} {
		c := base
		c.Reference, c.Threads = reference, 2
		r, err := quick().Measure(t.Context(), c)
		if err != nil || r.Reference != reference || r.Threads != 2 {
			t.Errorf("%q: %v, %+v", reference, err, r)
		}
	}
	for _, reference := range []string{FullSort, OnTier + "abacus", "guess"} {
		c := base
		c.Reference = reference
		if _, err := quick().Measure(t.Context(), c); err == nil {
			t.Errorf("reference %q was measured", reference)
		}
	}
}

func TestMeasureCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := quick().Measure(ctx, Matrix()[0])
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestCaseValidate(t *testing.T) {
	good := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 100, TopK: 10, DType: Float32}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*Case){
		`work "guess"`: func(c *Case) { c.Work = "guess" },
		`rows "odd"`:   func(c *Case) { c.Source = "odd" },
		"batch = 0":    func(c *Case) { c.Batch = 0 },
		"vocab = -1":   func(c *Case) { c.Vocab = -1 },
		"top-k = 101 is outside 1 to vocab = 100": func(c *Case) { c.TopK = 101 },
		"top-k = 0":                   func(c *Case) { c.TopK = 0 },
		`dtype "int8"`:                func(c *Case) { c.DType = "int8" },
		"threads = -1":                func(c *Case) { c.Threads = -1 },
		"threads = 2":                 func(c *Case) { c.Work, c.Threads = Stream, 2 },
		"batch = 9223372036854775807": func(c *Case) { c.Batch = math.MaxInt },
	} {
		c := good
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %s", c, err, want)
		}
	}
	r := quick()
	if err := r.Validate(Case{Work: TopK, Source: Real, Batch: 1, Vocab: 100, TopK: 10, DType: Float32}); err == nil {
		t.Error("real logits of another vocab")
	}
	r.Real = Logits{Vocab: 100}
	if err := r.Validate(Case{Work: TopK, Source: Real, Batch: 1, Vocab: 100, TopK: 10, DType: Float32}); err == nil {
		t.Error("real logits without rows")
	}
}

func TestInputsRotate(t *testing.T) {
	for _, test := range []struct{ batch, vocab, want int }{{1, 50304, 4}, {1, 151936, 2}, {32, 50304, 2}, {1, 10, 4}} {
		c := Case{Work: TopK, Source: Random, Batch: test.batch, Vocab: test.vocab, TopK: 1, DType: Float32, BaseOffset: 1}
		if got := c.inputs(); got != test.want {
			t.Errorf("%d x %d: %d inputs, want %d", test.batch, test.vocab, got, test.want)
		}
	}
	c := RealCase()
	c.BaseOffset = 1
	memory, err := newMemory(c.inputBytes(c.inputs()))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.release()
	batches, wide := makeInputs[topk.BFloat16](quick(), c, c.inputs(), memory)
	for i := range batches {
		if got := uintptr(unsafe.Pointer(&batches[i][0])) % 64; got != 2 {
			t.Errorf("input %d starts %d bytes into a cache line, want 2", i, got)
		}
		for j := range i {
			if slices.Equal(wide[i], wide[j]) {
				t.Errorf("inputs %d and %d are the same", i, j)
			}
		}
	}
}

// bySort is the contract, word by word: a stable sort.
func bySort[T topk.Float](row []T, k int) []int32 {
	indices := make([]int32, len(row))
	for i := range indices {
		indices[i] = int32(i)
	}
	sort.SliceStable(indices, func(i, j int) bool {
		a, b := widen(row[indices[i]]), widen(row[indices[j]])
		if a != a || b != b {
			return a != a && b == b
		}
		return a > b
	})
	return indices[:k]
}

func testHeapAndGate[T topk.Float](t *testing.T) {
	specials := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0, float32(math.Copysign(0, -1)), 1, 2}
	rng := rand.New(rand.NewPCG(1, 2))
	var h typedHeap
	for round := range 300 {
		row := make([]T, 1+rng.IntN(60))
		for i := range row {
			if round%2 == 0 {
				row[i] = narrow[T](specials[rng.IntN(len(specials))])
			} else {
				row[i] = narrow[T](float32(rng.IntN(20)))
			}
		}
		k := 1 + rng.IntN(len(row))
		want := bySort(row, k)
		got := topk.NewResult[T](1, k)
		selectRow(&h, got.Values, got.Indices, row)
		if !slices.Equal(got.Indices, want) {
			t.Fatalf("row %v, k = %d: heap %v, want %v", row, k, got.Indices, want)
		}
		g := newGate(row, 1, k)
		if !slices.Equal(g.want.Indices, want) {
			t.Fatalf("row %v, k = %d: gate wants %v, sort %v", row, k, g.want.Indices, want)
		}
		if _, err := g.check(got); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHeapAndGate(t *testing.T) {
	t.Run("float32", testHeapAndGate[float32])
	t.Run("float16", testHeapAndGate[topk.Float16])
	t.Run("bfloat16", testHeapAndGate[topk.BFloat16])
}

func TestSelfCheck(t *testing.T) {
	if err := SelfCheck(); err != nil {
		t.Fatal(err)
	}
	saved := selectors
	defer func() { selectors = saved }()
	for i := range selectors {
		selectors = slices.Clone(saved)
		selectors[i].right = !selectors[i].right // as if the gate judged it the other way
		if err := SelfCheck(); !errors.Is(err, ErrWrong) {
			t.Errorf("a gate that misjudges a selector that %s passes: %v", selectors[i].name, err)
		}
	}
}

func TestGateTells(t *testing.T) {
	g := newGate([]float32{1, 5, 5, 3}, 1, 3)
	for _, test := range []struct {
		name    string
		values  []float32
		indices []int32
		diff    float64
		equal   bool
		text    string
	}{
		{"value", []float32{5, 4, 3}, []int32{1, 2, 3}, 1, true, "place 1: 4 at index 2, want 5 at index 2"},
		{"index", []float32{5, 5, 3}, []int32{2, 1, 3}, 0, false, "place 0: 5 at index 2, want 5 at index 1"},
		{"NaN", []float32{5, 5, float32(math.NaN())}, []int32{1, 2, 3}, math.Inf(1), true, "place 2: NaN"},
	} {
		a, err := g.check(topk.Result[float32]{Values: test.values, Indices: test.indices})
		if !errors.Is(err, ErrWrong) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.text)
		}
		if a.maxAbsDiff != test.diff || a.indicesEqual != test.equal {
			t.Errorf("%s: max |diff| = %v, indices equal = %v", test.name, a.maxAbsDiff, a.indicesEqual)
		}
	}
}

func TestAdversarialRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, dtype := range []DType{Float32, BFloat16} {
		const vocab, k = 50304, 50
		rows := map[string][]float32{}
		for _, source := range AdversarialSources() {
			row := make([]float32, vocab)
			Case{Work: TopK, Source: source, Batch: 1, Vocab: vocab, TopK: k, DType: dtype}.fillRow(row, rng)
			rows[source] = row
		}
		finite := func(row []float32) (n int) {
			for _, v := range row {
				if !math.IsInf(float64(v), 0) {
					n++
				}
			}
			return n
		}
		distinct := func(row []float32) int {
			values := slices.Clone(row)
			slices.Sort(values)
			return len(slices.Compact(values))
		}
		if !slices.IsSorted(rows["ascending"]) || distinct(rows["ascending"]) != vocab {
			t.Error("ascending does not ascend")
		}
		down := slices.Clone(rows["descending"])
		slices.Reverse(down)
		if !slices.IsSorted(down) || distinct(down) != vocab {
			t.Error("descending does not descend")
		}
		for source, want := range map[string]int{"constant": 1, "two_values": 2} {
			if got := distinct(rows[source]); got != want {
				t.Errorf("%s has %d values", source, got)
			}
		}
		for source, want := range map[string]int{"masked_0": 0, "masked_20": 20, "masked_300": 300} {
			if got := finite(rows[source]); got != want {
				t.Errorf("%s has %d finite values", source, got)
			}
		}
		c := Case{Batch: 1, Vocab: vocab, TopK: k, DType: dtype}
		sampled := func(index int32) bool {
			return int(index)/(simd.StopBytes/dtype.Bytes())%c.sampleStep() == 0
		}
		for source, want := range map[string]bool{"on_sample": true, "off_sample": false} {
			for _, index := range bySort(rows[source], k) {
				if sampled(index) != want {
					t.Errorf("%s: index %d is sampled: %v", source, index, !want)
				}
			}
		}
		for source, threads := range map[string]int{"hot_thread": 1, "hot_warp": 32} {
			seen := map[int]bool{}
			for _, index := range bySort(rows[source], k-2) { // one thread sees 48 float32 or more
				seen[int(index)/(16/dtype.Bytes())%1024] = true
			}
			first, last := slices.Min(slices.Collect(maps.Keys(seen))), slices.Max(slices.Collect(maps.Keys(seen)))
			if last-first >= threads {
				t.Errorf("%s: the %d largest belong to threads %d to %d", source, k, first, last)
			}
		}
		if tied := bySort(rows["ties_at_k"], k+1); rows["ties_at_k"][tied[k/2]] != rows["ties_at_k"][tied[k]] || rows["ties_at_k"][tied[0]] == rows["ties_at_k"][tied[k]] {
			t.Error("ties_at_k has no ties across the k-th place")
		}
		neighbours := 0
		near := bySort(rows["clusters"], 8*(k/2+1))
		for _, index := range near[:k] {
			if slices.Contains(near, index-1) || slices.Contains(near, index+1) {
				neighbours++
			}
		}
		if neighbours < k-8 {
			t.Errorf("clusters: only %d of the %d largest have a large neighbour", neighbours, k)
		}
	}
}

func TestRealLogits(t *testing.T) {
	l := RealLogits()
	if l.DType != BFloat16 || l.Rows != 8 || l.Vocab != 50304 || len(l.Bits) != 8*50304 {
		t.Fatalf("%s [%d, %d], %d logits", l.DType, l.Rows, l.Vocab, len(l.Bits))
	}
	// As testdata/README.md says.
	wantTied := []int{1, 1, 4, 6, 5, 1, 3, 6}
	wantCrossing := []bool{false, false, true, false, true, false, true, true}
	row := make([]float32, l.Vocab)
	for i := range l.Rows {
		l.row(row, i)
		slices.Sort(row)
		slices.Reverse(row)
		tied := 0
		for _, v := range row {
			if v == row[49] {
				tied++
			}
		}
		if crossing := row[49] == row[50]; tied != wantTied[i] || crossing != wantCrossing[i] {
			t.Errorf("row %d: %d logits tie at the 50th place, crossing it: %v", i, tied, crossing)
		}
	}
}

func TestLogitsRow(t *testing.T) {
	for dtype, bits := range map[DType]uint32{Float32: 0x3FC00000, BFloat16: 0x3FC0, Float16: 0x3E00} {
		row := make([]float32, 1)
		Logits{DType: dtype, Rows: 2, Vocab: 1, Bits: []uint32{0, bits}}.row(row, 1)
		if row[0] != 1.5 {
			t.Errorf("%s: %v", dtype, row[0])
		}
	}
}

func TestSourcesNamed(t *testing.T) {
	for name, want := range map[string][]string{
		"normal": {Random}, "random": {Random}, "real": {Real}, "peaked": {Peaked}, "ascending": {"ascending"}, "constant": {"constant"},
		"ties": {"two_values", "ties_at_k"}, "masked": {"masked_0", "masked_20", "masked_300"}, "adversarial": AdversarialSources(), "odd": {"odd"},
	} {
		if got := SourcesNamed(name); !slices.Equal(got, want) {
			t.Errorf("%s stands for %v, want %v", name, got, want)
		}
	}
}

// TestPeaked holds the rows of a model that is sure to being that.
func TestPeaked(t *testing.T) {
	row := make([]float32, 50304)
	Case{Work: TopK, Source: Peaked, Batch: 1, Vocab: len(row), TopK: 50, DType: Float32}.fillRow(row, rand.New(rand.NewPCG(1, 2)))
	largest := slices.Max(row)
	var mass float64
	for _, v := range row {
		mass += math.Exp(float64(v - largest))
	}
	if 1/mass < 0.9 {
		t.Errorf("the largest has a share of %.3f, want 0.9 or more", 1/mass)
	}
}
