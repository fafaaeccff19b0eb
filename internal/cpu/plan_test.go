package cpu

import (
	"math"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// tunings reach the ends of what a tuning may say.
var tunings = []Tuning{
	{Step: 1}, {Step: 255}, {Deviations: 0.125}, {Deviations: 16}, {Groups: 1}, {Groups: 64}, {Chunk: 64}, {Threads: 1 << 16},
	{Step: 1, Deviations: 16, Groups: 64, Chunk: 4096, Threads: 3}, {Step: 255, Deviations: 0.125, Groups: 1, Threads: 2},
}

// eachShape calls test with shapes of every size, sane and not.
func eachShape(test func(shape Shape, cores int)) {
	// As large as memory can hold candidates for: on 32 bits that is less.
	largest := min(math.MaxInt32, math.MaxInt/8)
	for _, vocab := range []int{1, 2, 64, 127, 512, 513, 700, 1000, 4096, 8191, 50257, 50304, 151936, 1 << 20, largest} {
		for _, k := range []int{1, 2, 10, 50, 200, 1024, 2048, vocab / 8, vocab/8 + 1, vocab} {
			if k < 1 || k > vocab {
				continue
			}
			for _, elementBytes := range []int{2, 4} {
				for _, target := range []int{0, 1, k, 500, vocab, math.MaxInt} {
					for _, rows := range []int{1, 32, 1000} {
						for i, threads := range []int{0, 1, 4, math.MaxInt} {
							shape := Shape{Rows: rows, Vocab: vocab, K: k, ElementBytes: elementBytes, TargetCandidates: target, Threads: threads}
							test(shape, 8)
							shape.Tuning = &tunings[(rows+vocab+k+i)%len(tunings)]
							test(shape, 8)
						}
					}
				}
			}
		}
	}
}

func TestPlansKeepTheirPromises(t *testing.T) {
	sampled := 0
	eachShape(func(shape Shape, cores int) {
		for _, tier := range []simd.Tier{simd.Pure, simd.AVX512} {
			p := NewPlan(shape, tier, cores)
			if p != NewPlan(shape, tier, cores) {
				t.Fatalf("%+v: two plans", shape)
			}
			if p.Threads < 1 || p.Threads > shape.Rows || shape.Threads == 0 && p.Threads > cores {
				t.Errorf("%+v: %d threads", shape, p.Threads)
			}
			if p.Tier != tier || p.Chunk < 64 || p.Chunk%64 != 0 {
				t.Errorf("%+v: tier %v, chunk %d", shape, p.Tier, p.Chunk)
			}
			if p.Capacity < 2*shape.K {
				t.Errorf("%+v: room for %d candidates", shape, p.Capacity)
			}
			s := p.Sample
			if s.Groups == 0 {
				if p.Capacity < shape.Vocab {
					t.Errorf("%+v: room for %d candidates, and no sample to filter by", shape, p.Capacity)
				}
				continue
			}
			sampled++
			lanes := simd.StopBytes / shape.ElementBytes
			stops := (shape.Vocab/lanes + s.Step - 1) / s.Step
			if s.Step < 1 || s.Groups%simd.GroupUnit != 0 || s.Groups > stops*lanes || s.Rank < 1 || s.Rank > s.Groups {
				t.Errorf("%+v: %+v", shape, s)
			}
		}
	})
	if sampled < 1000 {
		t.Errorf("%d plans with a sample: not the shapes that were meant", sampled)
	}
}

// A power of two between samples would meet few sets of the cache only.
func TestSampleStepsAreOdd(t *testing.T) {
	eachShape(func(shape Shape, cores int) {
		if s := NewPlan(shape, simd.Pure, cores).Sample; s.Groups > 0 && s.Step%2 == 0 {
			t.Fatalf("%+v: every %d lines", shape, s.Step)
		}
	})
}

func TestSmallBatchesStayOnOneCore(t *testing.T) {
	shape := Shape{Rows: 4, Vocab: 50304, K: 50, ElementBytes: 4}
	if p := NewPlan(shape, simd.AVX512, 8); p.Threads != 1 {
		t.Errorf("4 rows on %d threads", p.Threads)
	}
	shape.Rows = 4096
	if p := NewPlan(shape, simd.AVX512, 8); p.Threads != 8 {
		t.Errorf("4096 rows on %d of 8 cores", p.Threads)
	}
}

func TestPlanString(t *testing.T) {
	line := NewPlan(Shape{Rows: 1, Vocab: 50304, K: 50, ElementBytes: 4}, simd.AVX512, 1).String()
	for _, part := range []string{"tier avx512", "sample every 17 lines", "threads 1"} {
		if !strings.Contains(line, part) {
			t.Errorf("%q does not tell %q", line, part)
		}
	}
}

func TestTuningsOutOfRange(t *testing.T) {
	for _, tuning := range append(tunings, Tuning{}) {
		if field, got := tuning.Invalid(); field != "" {
			t.Errorf("%+v: %s = %v", tuning, field, got)
		}
	}
	for field, wrong := range map[string][]Tuning{
		"sample_step":      {{Step: 2}, {Step: -1}, {Step: 257}},
		"deviations":       {{Deviations: -1}, {Deviations: 0.1}, {Deviations: 17}, {Deviations: math.NaN()}, {Deviations: math.Inf(1)}},
		"groups_per_place": {{Groups: -1}, {Groups: 0.5}, {Groups: 65}, {Groups: math.NaN()}},
		"chunk":            {{Chunk: -64}, {Chunk: 63}, {Chunk: chunk + 64}},
		"threads":          {{Threads: -1}, {Threads: 1<<16 + 1}},
	} {
		for _, tuning := range wrong {
			if got, value := tuning.Invalid(); got != field {
				t.Errorf("%+v: %q = %v, want %s", tuning, got, value, field)
			}
		}
	}
}

// A tuning that repeats the built-in figures changes nothing.
func TestTuningOfBuiltInFigures(t *testing.T) {
	for _, k := range []int{1, 50, 256, 257, 1024} {
		shape := Shape{Rows: 64, Vocab: 50304, K: k, ElementBytes: 2}
		plan := NewPlan(shape, simd.AVX512, 8)
		figures := BuiltIn(shape.Vocab, k, shape.ElementBytes)
		shape.Tuning = &figures
		tuned := NewPlan(shape, simd.AVX512, 8)
		if plan.tuning, tuned.tuning = nil, nil; tuned != plan {
			t.Errorf("k = %d: %v, want %v", k, tuned, plan)
		}
		shape.Tuning = &Tuning{Step: 33, Deviations: 4, Threads: 2}
		if tuned := NewPlan(shape, simd.AVX512, 8); tuned.Sample == plan.Sample || tuned.Threads != 2 {
			t.Errorf("k = %d: tuned, it is %v", k, tuned)
		}
	}
}
