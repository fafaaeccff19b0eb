package topktest

import (
	"math"
	"math/rand/v2"

	"github.com/ai-kernel-factory/aikf/topk"
)

// Generator makes a row of n logits. It takes all its chance from rng.
type Generator func(rng *rand.Rand, n int) []float32

// RowKind is a generator with the name that it has in results.
type RowKind struct {
	Name string
	Make Generator
}

// SampleStep is the distance, in cache lines of 64 bytes, of what the CPU's
// launch plan reads of a long row to guess a threshold for a small k.
const SampleStep = 17

// ShortSampleStep is the same of 16-bit rows that are one chunk.
const ShortSampleStep = 11

// Adversarial returns the kinds of rows on which a fast top-k is likely to be
// slow: the benchmark prints each of them.
func Adversarial() []RowKind {
	return []RowKind{
		{"ascending", Ascending},
		{"descending", Descending},
		{"constant", Constant},
		{"two_values", TwoValues},
		{"masked_0", Masked(0)},
		{"masked_20", Masked(20)},
		{"masked_300", Masked(300)},
		{"on_sample", OnSample(SampleStep)},
		{"off_sample", OffSample(SampleStep)},
		{"clusters", Clusters},
	}
}

// Rows returns all kinds of rows: the adversarial ones, and those on which a
// fast top-k is likely to be wrong.
func Rows() []RowKind {
	return append(Adversarial(), []RowKind{
		{"on_every_9th", OnSample(9)}, // the step of a large k
		{"off_every_9th", OffSample(9)},
		{"random", Random},
		{"few_distinct", FewDistinct},
		{"max_at_end", MaxAtEnd},
		{"adjacent", Adjacent},
		{"specials", Specials},
		{"zeros", Zeros},
		{"mostly_nan", MostlyNaN},
		{"negative_nan", NegativeNaN},
		{"infinite", Infinite},
		{"denormals", Denormals},
		{"any_bits", AnyBits[float32]},
		{"mixed", mixed},
	}...)
}

// Convert returns the row in another format, rounded to nearest even. Float32
// rows are copied bit by bit.
func Convert[T topk.Float](row []float32) []T {
	converted := make([]T, len(row))
	switch converted := any(converted).(type) {
	case []float32:
		copy(converted, row)
	case []topk.Float16:
		for i, v := range row {
			converted[i] = topk.Float16FromFloat32(v)
		}
	case []topk.BFloat16:
		for i, v := range row {
			converted[i] = topk.BFloat16FromFloat32(v)
		}
	}
	return converted
}

// fill makes a row element by element.
func fill(n int, element func(i int) float32) []float32 {
	row := make([]float32, n)
	for i := range row {
		row[i] = element(i)
	}
	return row
}

// Random is normally distributed, as logits roughly are.
func Random(rng *rand.Rand, n int) []float32 {
	return fill(n, func(int) float32 { return float32(rng.NormFloat64()) })
}

// Ascending rises from -8 to 8: every element replaces one in a heap.
func Ascending(_ *rand.Rand, n int) []float32 {
	return fill(n, func(i int) float32 { return float32(16*float64(i)/float64(n) - 8) })
}

// Descending falls from 8 to -8.
func Descending(_ *rand.Rand, n int) []float32 {
	return fill(n, func(i int) float32 { return float32(8 - 16*float64(i)/float64(n)) })
}

// Constant repeats one finite value.
func Constant(rng *rand.Rand, n int) []float32 {
	v := float32(rng.NormFloat64())
	return fill(n, func(int) float32 { return v })
}

// TwoValues holds 1 at about half of the places and -1 at the others.
func TwoValues(rng *rand.Rand, n int) []float32 {
	return fill(n, func(int) float32 { return float32(2*rng.IntN(2) - 1) })
}

// FewDistinct holds small integers, so that every k cuts through ties.
func FewDistinct(rng *rand.Rand, n int) []float32 {
	distinct := 1 + rng.IntN(40)
	return fill(n, func(int) float32 { return float32(rng.IntN(distinct) - distinct/2) })
}

// MaxAtEnd is random, with its largest values at its very end.
func MaxAtEnd(rng *rand.Rand, n int) []float32 {
	row := Random(rng, n)
	for i := max(0, n-3); i < n; i++ {
		row[i] = float32(100 + i%2)
	}
	return row
}

// Adjacent rises by single steps of float32's precision, with ties: a threshold
// that is one step too high loses an element.
func Adjacent(rng *rand.Rand, n int) []float32 {
	bits, every := math.Float32bits(rng.Float32()+1), 1+rng.IntN(40)
	return fill(n, func(i int) float32 { return math.Float32frombits(bits + uint32(i/every+rng.IntN(2))) })
}

// Masked holds -Inf at all but finite places, or fewer if the row is shorter,
// as a grammar's mask leaves it.
func Masked(finite int) Generator {
	return func(rng *rand.Rand, n int) []float32 {
		row := fill(n, func(int) float32 { return float32(math.Inf(-1)) })
		for _, i := range rng.Perm(n)[:min(finite, n)] {
			row[i] = float32(rng.NormFloat64())
		}
		return row
	}
}

// OnSample has its largest values only at places that a sample of every step-th
// cache line reads, so that the sample promises too much. The places are right
// for 32 and for 16 bits an element.
func OnSample(step int) Generator {
	return func(rng *rand.Rand, n int) []float32 {
		row := Random(rng, n)
		for i := range row {
			if i%(32*step) < 16 {
				row[i] = 100 + rng.Float32()
			}
		}
		return row
	}
}

// OffSample has its smallest values at all places that a sample of every
// step-th cache line reads, for 32 and for 16 bits an element, so that the
// sample promises too little.
func OffSample(step int) Generator {
	return func(rng *rand.Rand, n int) []float32 {
		row := Random(rng, n)
		for i := range row {
			if i%(16*step) < 32 {
				row[i] = -100 - rng.Float32()
			}
		}
		return row
	}
}

// Clusters is random, with its largest values in a few runs of neighbours.
func Clusters(rng *rand.Rand, n int) []float32 {
	row := Random(rng, n)
	for range min(n, 4) {
		start := rng.IntN(n)
		for i := start; i < min(n, start+300); i++ {
			row[i] = 50 + rng.Float32()
		}
	}
	return row
}

// Alphabet holds the values at which a comparison goes wrong most easily: NaN
// of both signs, the infinities, the zeros, a denormal, 1 and what comes next,
// all in T.
func Alphabet[T topk.Float]() []T {
	infinity, one := fromValue[T](float32(math.Inf(1))), fromValue[T](1)
	sign := bits(fromValue[T](float32(math.Copysign(0, -1))))
	nan := bits(infinity) + 1
	var alphabet []T
	for _, b := range []uint32{nan, nan | sign, bits(infinity), bits(infinity) | sign, 0, sign, 1, bits(one), bits(one) + 1} {
		alphabet = append(alphabet, fromBits[T](b))
	}
	return alphabet
}

func fromValue[T topk.Float](v float32) T { return Convert[T]([]float32{v})[0] }

// Specials draws from the Alphabet and from random numbers.
func Specials(rng *rand.Rand, n int) []float32 {
	alphabet := Alphabet[float32]()
	share := rng.Float64()
	return fill(n, func(int) float32 {
		if rng.Float64() < share {
			return alphabet[rng.IntN(len(alphabet))]
		}
		return float32(rng.NormFloat64())
	})
}

// Zeros mixes +0 and -0 with negative values and a few positive ones, so that
// the threshold is zero.
func Zeros(rng *rand.Rand, n int) []float32 {
	return fill(n, func(int) float32 {
		switch rng.IntN(200) {
		case 0:
			return rng.Float32()
		case 1, 2, 3, 4, 5, 6, 7, 8, 9:
			return -rng.Float32()
		}
		return float32(math.Copysign(0, float64(rng.IntN(2))-0.5))
	})
}

// MostlyNaN holds NaN of both signs with payloads, and some numbers.
func MostlyNaN(rng *rand.Rand, n int) []float32 {
	return fill(n, func(int) float32 {
		if rng.IntN(8) == 0 {
			return float32(rng.NormFloat64())
		}
		return math.Float32frombits(0x7F800000 | rng.Uint32()&0x807FFFFF | 1<<22)
	})
}

// NegativeNaN is random with a few NaN whose sign bit is set: the largest
// elements, which a comparison of bits takes for the smallest.
func NegativeNaN(rng *rand.Rand, n int) []float32 {
	row := Random(rng, n)
	for range (n + 999) / 1000 {
		row[rng.IntN(n)] = math.Float32frombits(0xFFC00000 | rng.Uint32()&0x3FFFFF)
	}
	return row
}

// Infinite repeats +Inf.
func Infinite(_ *rand.Rand, n int) []float32 {
	return fill(n, func(int) float32 { return float32(math.Inf(1)) })
}

// Denormals holds numbers of both signs that are denormal in float32, in
// bfloat16 or in float16; in the formats with fewer bits some become zero.
func Denormals(rng *rand.Rand, n int) []float32 {
	return fill(n, func(int) float32 {
		units := []float64{0x1p-149, 0x1p-133, 0x1p-24}
		v := units[rng.IntN(len(units))] * float64(1+rng.IntN(100))
		return float32(math.Copysign(v, rng.Float64()-0.5))
	})
}

// AnyBits holds every pattern of T's bits with the same chance.
func AnyBits[T topk.Float](rng *rand.Rand, n int) []T {
	row := make([]T, n)
	for i := range row {
		row[i] = fromBits[T](rng.Uint32())
	}
	return row
}

// mixed joins parts of two other kinds.
func mixed(rng *rand.Rand, n int) []float32 {
	kinds := Rows()
	kinds = kinds[:len(kinds)-1]
	cut := rng.IntN(n + 1)
	row := kinds[rng.IntN(len(kinds))].Make(rng, cut)
	return append(row, kinds[rng.IntN(len(kinds))].Make(rng, n-cut)...)
}
