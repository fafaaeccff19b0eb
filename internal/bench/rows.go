package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// Sources of rows that are not adversarial.
const (
	Random = "random" // standard normal
	Real   = "real"   // from a file, or the rows shipped with the benchmark
	Peaked = "peaked" // of a model that is sure: one logit far above, the others fall with the logarithm of their rank
)

// distributions are the names for --rows that stand for others.
var distributions = []struct {
	name  string
	means func(source string) bool
}{
	{"normal", func(source string) bool { return source == Random }},
	{"ties", func(source string) bool { return source == "two_values" || source == "ties_at_k" }},
	{"masked", func(source string) bool { return strings.HasPrefix(source, "masked_") }},
	{"adversarial", func(source string) bool { return slices.Contains(AdversarialSources(), source) }},
}

// Sources lists the names of all rows.
func Sources() []string { return append([]string{Random, Real, Peaked}, AdversarialSources()...) }

// SourcesNamed returns the rows that a name stands for: several for a kind of
// rows, such as masked, and the name itself otherwise.
func SourcesNamed(name string) []string {
	for _, d := range distributions {
		if d.name == name {
			return slices.DeleteFunc(Sources(), func(source string) bool { return !d.means(source) })
		}
	}
	return []string{name}
}

// peaked falls by 2 for every factor of e in the rank, with noise, in random
// order; the first stands 3 above.
func peaked(row []float32, rng *rand.Rand) {
	for rank, i := range rng.Perm(len(row)) {
		row[i] = float32(12 - 2*math.Log(float64(rank+1)) + 0.3*rng.NormFloat64())
		if rank == 0 {
			row[i] += 3
		}
	}
}

// fill writes one row. step is the distance in cache lines, of lineElements
// elements each, between the places that the engine samples.
type fill func(row []float32, k, step, lineElements int, rng *rand.Rand)

// adversarial rows defeat a guessed threshold, a branch predictor, a heap, a
// quicksort or a GPU's shared memory; each was slow for some implementation.
var adversarial = []struct {
	name string
	fill fill
}{
	{"ascending", func(row []float32, _, _, _ int, rng *rand.Rand) { ramp(row, rng) }},
	{"descending", func(row []float32, _, _, _ int, rng *rand.Rand) { ramp(row, rng); slices.Reverse(row) }},
	{"constant", func(row []float32, _, _, _ int, rng *rand.Rand) {
		v := float32(rng.NormFloat64())
		for i := range row {
			row[i] = v
		}
	}},
	{"two_values", func(row []float32, _, _, _ int, rng *rand.Rand) {
		for i := range row {
			row[i] = float32(rng.IntN(2))
		}
	}},
	{"masked_0", masked(0)},
	{"masked_20", masked(20)},
	{"masked_300", masked(300)},
	{"on_sample", func(row []float32, _, step, lineElements int, rng *rand.Rand) {
		normal(row, rng)
		raise(row, step, lineElements, 20)
	}},
	{"off_sample", func(row []float32, _, step, lineElements int, rng *rand.Rand) {
		normal(row, rng)
		raise(row, step, lineElements, -20)
	}},
	{"clusters", func(row []float32, k, _, _ int, rng *rand.Rand) {
		normal(row, rng)
		const clusters = 8
		for range clusters {
			start := rng.IntN(len(row))
			for i := start; i < min(start+k/2+1, len(row)); i++ {
				row[i] += 20
			}
		}
	}},
	{"hot_thread", hot(1)},
	{"hot_warp", hot(32)},
	{"ties_at_k", func(row []float32, k, _, _ int, rng *rand.Rand) {
		normal(row, rng)
		// Half of the k largest are alone; all others are 10, of which there are too many.
		places := rng.Perm(len(row))
		for n, i := range places[:min(6*k, len(row))] {
			row[i] = 10
			if n < k/2 {
				row[i] = 11 + 8*rng.Float32()
			}
		}
	}},
}

// AdversarialSources lists the names of the adversarial rows.
func AdversarialSources() []string {
	var names []string
	for _, source := range adversarial {
		names = append(names, source.name)
	}
	return names
}

func normal(row []float32, rng *rand.Rand) {
	for i := range row {
		row[i] = float32(rng.NormFloat64())
	}
}

// ramp rises from about -8 to about 8; 16-bit values have plateaus.
func ramp(row []float32, rng *rand.Rand) {
	slope := (16 + rng.Float64()) / float64(len(row))
	for i := range row {
		row[i] = float32((float64(i) - float64(len(row))/2) * slope)
	}
}

// masked leaves n values finite, as a grammar that allows few tokens does.
func masked(n int) fill {
	return func(row []float32, _, _, _ int, rng *rand.Rand) {
		for i := range row {
			row[i] = float32(math.Inf(-1))
		}
		for _, i := range rng.Perm(len(row))[:min(n, len(row))] {
			row[i] = float32(rng.NormFloat64())
		}
	}
}

// hot has its largest values where n neighbours look of 1,024 threads that take
// the vectors of 16 bytes of a row in turn: the maxima of few threads then stand
// for all of them.
func hot(n int) fill {
	return func(row []float32, _, _, lineElements int, rng *rand.Rand) {
		normal(row, rng)
		const threads = 1024
		vector := max(1, lineElements/(simd.StopBytes/16))
		first := rng.IntN(threads/n) * n
		for i := range row {
			if thread := i / vector % threads; first <= thread && thread < first+n {
				row[i] += 20
			}
		}
	}
}

// raise adds by to every element that the engine samples.
func raise(row []float32, step, lineElements int, by float32) {
	for line := 0; line < len(row); line += step * lineElements {
		for i := line; i < min(line+lineElements, len(row)); i++ {
			row[i] += by
		}
	}
}

// fillRow writes a row of the case's source, which is not Real.
func (c Case) fillRow(row []float32, rng *rand.Rand) {
	for _, source := range adversarial {
		if source.name == c.Source {
			source.fill(row, c.TopK, c.sampleStep(), simd.StopBytes/c.DType.Bytes(), rng)
			return
		}
	}
	if c.Source == Peaked {
		peaked(row, rng)
		return
	}
	normal(row, rng)
}

// sampleStep returns the engine's distance between sampled cache lines for the
// case's shape, or one that it would use if the row is too short to sample.
func (c Case) sampleStep() int {
	if sample := c.plan(0, nil).Sample; sample.Groups > 0 {
		return sample.Step
	}
	return 2
}
