package topktest

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

// count returns how many of the row satisfy is.
func count(row []float32, is func(v float32) bool) (n int) {
	for _, v := range row {
		if is(v) {
			n++
		}
	}
	return n
}

func isNaN(v float32) bool      { return v != v }
func isNegative(v float32) bool { return math.Signbit(float64(v)) }
func isInf(sign int) func(v float32) bool {
	return func(v float32) bool { return math.IsInf(float64(v), sign) }
}

func distinct(row []float32) int {
	seen := map[uint32]bool{}
	for _, v := range row {
		seen[math.Float32bits(v)] = true
	}
	return len(seen)
}

// claims says of each kind of row what makes it that kind.
var claims = map[string]func(row []float32) bool{
	"ascending":    func(row []float32) bool { return strictly(row, -1) && row[0] == -8 },
	"descending":   func(row []float32) bool { return strictly(row, 1) && row[0] == 8 },
	"constant":     func(row []float32) bool { return distinct(row) == 1 && row[0] == row[0] },
	"two_values":   func(row []float32) bool { return distinct(row) == 2 },
	"masked_0":     func(row []float32) bool { return count(row, isInf(-1)) == len(row) },
	"masked_20":    func(row []float32) bool { return count(row, isInf(-1)) == len(row)-20 && distinct(row) > 10 },
	"masked_300":   func(row []float32) bool { return count(row, isInf(-1)) == len(row)-300 && distinct(row) > 200 },
	"on_sample":    sampled(SampleStep, true),
	"off_sample":   sampled(SampleStep, false),
	"on_every_9th": sampled(9, true), "off_every_9th": sampled(9, false),
	"clusters":     func(row []float32) bool { return neighbours(row) > 700 },
	"random":       func(row []float32) bool { return distinct(row) > len(row)*9/10 && neighbours(row) < 200 },
	"few_distinct": func(row []float32) bool { return distinct(row) <= 40 },
	"max_at_end":   func(row []float32) bool { return slices.Max(Ranking(row, false)[:3]) == int32(len(row)-1) },
	"adjacent": func(row []float32) bool {
		for i := 1; i < len(row); i++ {
			if step := int(math.Float32bits(row[i])) - int(math.Float32bits(row[i-1])); step < -1 || step > 2 {
				return false
			}
		}
		return distinct(row) > len(row)/50 && distinct(row) < len(row)
	},
	"specials": func(row []float32) bool { return count(row, isNaN) > 0 && count(row, isInf(1)) > 0 },
	"zeros": func(row []float32) bool {
		positive := count(row, func(v float32) bool { return v > 0 })
		zeros := count(row, func(v float32) bool { return v == 0 })
		minus := count(row, func(v float32) bool { return v == 0 && isNegative(v) })
		return positive < len(row)/50 && zeros > len(row)*9/10 && minus > zeros/3 && minus < zeros*2/3
	},
	"mostly_nan": func(row []float32) bool {
		nan, negative := count(row, isNaN), count(row, func(v float32) bool { return isNaN(v) && isNegative(v) })
		return nan > len(row)/2 && negative > nan/3 && negative < nan*2/3 && nan < len(row)
	},
	"negative_nan": func(row []float32) bool {
		nan := count(row, isNaN)
		return nan > 0 && nan <= len(row)/1000+1 && nan == count(row, func(v float32) bool { return isNaN(v) && isNegative(v) })
	},
	"infinite": func(row []float32) bool { return count(row, isInf(1)) == len(row) },
	"denormals": func(row []float32) bool {
		return count(row, func(v float32) bool { return v != 0 && math.Abs(float64(v)) < 0x1p-126 }) > len(row)/2
	},
	"any_bits": func(row []float32) bool { return distinct(row) > len(row)*9/10 && count(row, isNaN) > 0 },
	"mixed":    func(row []float32) bool { return len(row) > 0 }, // any two of the others
}

// strictly reports whether each element compares with the next as sign says.
func strictly(row []float32, sign int) bool {
	for i := 1; i < len(row); i++ {
		if cmp.Compare(row[i-1], row[i]) != sign {
			return false
		}
	}
	return true
}

// sampled claims that all of the 700 largest lie on every step-th cache line, or
// none, with 16 and with 32 elements in a line.
func sampled(step int, all bool) func(row []float32) bool {
	return func(row []float32) bool {
		for _, lanes := range []int{16, 32} {
			n := 0
			for _, i := range Ranking(row, false)[:700] {
				if int(i)/lanes%step == 0 {
					n++
				}
			}
			if all && n != 700 || !all && n != 0 {
				return false
			}
		}
		return true
	}
}

// neighbours returns how many of the 1,000 largest stand next to another one.
func neighbours(row []float32) (n int) {
	top := slices.Sorted(slices.Values(Ranking(row, false)[:min(len(row), 1000)]))
	for i := 1; i < len(top); i++ {
		if top[i]-top[i-1] == 1 {
			n++
		}
	}
	return n
}

func TestRowsAreWhatTheyClaim(t *testing.T) {
	kinds := Rows()
	if len(kinds) != len(claims) {
		t.Errorf("%d kinds of rows and %d claims", len(kinds), len(claims))
	}
	for _, kind := range kinds {
		claim := claims[kind.Name]
		if claim == nil {
			t.Errorf("%s: nothing is claimed", kind.Name)
			continue
		}
		row := kind.Make(rand.New(rand.NewPCG(1, 2)), 50304)
		if len(row) != 50304 || !claim(row) {
			t.Errorf("%s: a row of %d is not what it claims", kind.Name, len(row))
		}
		again := kind.Make(rand.New(rand.NewPCG(1, 2)), 50304)
		if !slices.EqualFunc(row, again, func(a, b float32) bool { return bits(a) == bits(b) }) {
			t.Errorf("%s: the same seed gives another row", kind.Name)
		}
		for n := range 70 {
			if got := len(kind.Make(rand.New(rand.NewPCG(3, uint64(n))), n)); got != n {
				t.Errorf("%s: %d elements, want %d", kind.Name, got, n)
			}
		}
	}
}

// The rows against the sample must know what the launch plan samples.
func TestSampleStepIsThePlans(t *testing.T) {
	for _, elementBytes := range []int{2, 4} {
		for _, vocab := range []int{50304, 151936} {
			plan := cpu.NewPlan(cpu.Shape{Rows: 1, Vocab: vocab, K: 50, ElementBytes: elementBytes}, simd.AVX512, 1)
			want := SampleStep
			if elementBytes == 2 && vocab <= 65536 {
				want = ShortSampleStep
			}
			if plan.Sample.Step != want {
				t.Errorf("vocab %d, %d bytes: the plan samples every %d lines, OnSample and OffSample assume %d",
					vocab, elementBytes, plan.Sample.Step, want)
			}
		}
	}
}

func TestConvertKeepsWhatMatters(t *testing.T) {
	testConvert[float32](t, 0xFFC00001)
	testConvert[topk.Float16](t, 0xFE00)
	testConvert[topk.BFloat16](t, 0xFFC0)
}

func testConvert[T topk.Float](t *testing.T, negativeNaN uint32) {
	row := []float32{1.5, float32(math.Inf(-1)), float32(math.Copysign(0, -1)), math.Float32frombits(0xFFC00001)}
	got := Convert[T](row)
	for i, want := range row[:3] {
		if bits(value(got[i])) != bits(want) {
			t.Errorf("%s: %v became %v", DType[T](), want, value(got[i]))
		}
	}
	if bits(got[3]) != negativeNaN {
		t.Errorf("%s: a negative NaN became %#x, want %#x", DType[T](), bits(got[3]), negativeNaN)
	}
	if before(value(got[1]), value(got[0]), false) {
		t.Errorf("%s: -Inf comes before 1.5", DType[T]())
	}
}

func TestAlphabetIsWhatItClaims(t *testing.T) {
	testAlphabetOf[float32](t)
	testAlphabetOf[topk.Float16](t)
	testAlphabetOf[topk.BFloat16](t)
}

func testAlphabetOf[T topk.Float](t *testing.T) {
	// NaN, -NaN, +Inf, next after 1, 1, a denormal, +0, -0, -Inf: ranked.
	want := []int32{0, 1, 2, 8, 7, 6, 4, 5, 3}
	if got := Ranking(Alphabet[T](), false); !slices.Equal(got, want) {
		t.Errorf("%s: the alphabet ranks %v, want %v", DType[T](), got, want)
	}
	if !isNegative(value(Alphabet[T]()[1])) || !isNegative(value(Alphabet[T]()[5])) {
		t.Errorf("%s: -NaN or -0 has lost its sign", DType[T]())
	}
}
