package bench

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// sampleTime is the least that one timed sample lasts, so that the clock's
// resolution and the cost of reading it do not count.
const sampleTime = 200 * time.Microsecond

// Times sums up the timed samples of one contestant: microseconds of one call
// over the whole batch.
type Times struct {
	Median, P10, P90 float64
	Samples          int // timed samples
	Calls            int // calls in each

	rounds []float64 // the samples, in the order of the rounds
}

// contestant is something to be timed.
type contestant struct {
	name string
	call func(input int) error // one call over one input, a whole batch
}

// race times the contestants in rounds. In each round every one of them is
// timed once, in an order that rotates, so that a slow spell of a shared
// machine hits all alike. A sample rotates over the inputs: an untimed call of
// each first, so that the caches hold what the call before would leave, then as
// many calls as fill sampleTime. The garbage collector is off meanwhile.
func race(ctx context.Context, contestants []contestant, inputs, iters int, budget time.Duration) ([]Times, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	rotations := make([]int, len(contestants)) // over the inputs, in a sample
	for i, c := range contestants {
		rotations[i] = 1
		for {
			elapsed, err := rotate(c, inputs, rotations[i])
			if err != nil {
				return nil, err
			}
			if elapsed >= sampleTime {
				break
			}
			// Aim past the mark, and no more than tenfold at once: early calls are slow.
			rotations[i] = min(10*rotations[i], int(1.1*float64(rotations[i])*float64(sampleTime)/float64(max(elapsed, 1)))+1)
		}
	}
	samples, err := rounds(ctx, len(contestants), iters, budget, func(i int) (float64, error) {
		if _, err := rotate(contestants[i], inputs, 1); err != nil {
			return 0, err
		}
		elapsed, err := rotate(contestants[i], inputs, rotations[i])
		return microseconds(elapsed) / float64(rotations[i]*inputs), err
	})
	if err != nil {
		return nil, err
	}
	times := make([]Times, len(contestants))
	for i, s := range samples {
		times[i] = timesOf(s, rotations[i]*inputs)
	}
	return times, nil
}

// rounds takes one sample of each of n contestants in every round, in an order
// that rotates, and returns the samples of each. There are iters rounds, or as
// many as fit the budget, but at least 11.
func rounds(ctx context.Context, n, iters int, budget time.Duration, sample func(contestant int) (float64, error)) ([][]float64, error) {
	const leastRounds = 11
	samples := make([][]float64, n)
	start := time.Now()
	for round := 0; round < leastRounds && round < iters || round < iters && time.Since(start) < budget; round++ {
		for j := range n {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			i := (round + j) % n
			us, err := sample(i)
			if err != nil {
				return nil, err
			}
			samples[i] = append(samples[i], us)
		}
	}
	return samples, nil
}

// timesOf sums up samples of so many calls each.
func timesOf(samples []float64, calls int) Times {
	rounds := slices.Clone(samples)
	slices.Sort(samples)
	return Times{quantile(samples, 0.5), quantile(samples, 0.1), quantile(samples, 0.9), len(samples), calls, rounds}
}

// rounded has five digits.
func (t Times) rounded() Times {
	t.Median, t.P10, t.P90 = significant(t.Median), significant(t.P10), significant(t.P90)
	return t
}

// pairs returns the 10th and the 90th percentile of a over b, round by round: of
// the same round they saw the same machine. Both are 0 if there are no rounds.
func pairs(a, b Times) (p10, p90 float64) {
	if len(a.rounds) == 0 || len(a.rounds) != len(b.rounds) {
		return 0, 0
	}
	ratios := make([]float64, len(a.rounds))
	for i, time := range a.rounds {
		ratios[i] = time / b.rounds[i]
	}
	slices.Sort(ratios)
	return significant(quantile(ratios, 0.1)), significant(quantile(ratios, 0.9))
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// rotate calls c over all inputs, times over.
func rotate(c contestant, inputs, times int) (time.Duration, error) {
	start := time.Now()
	for range times {
		for input := range inputs {
			if err := c.call(input); err != nil {
				return 0, err
			}
		}
	}
	return time.Since(start), nil
}

// quantile returns the q-quantile of sorted, between neighbours in proportion: a
// step from the lower one and never past the upper, so that rounding puts no
// quantile of equal samples above a higher one.
func quantile(sorted []float64, q float64) float64 {
	place := q * float64(len(sorted)-1)
	below := int(place)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	share := place - float64(below)
	return min(sorted[below]+share*(sorted[below+1]-sorted[below]), sorted[below+1])
}

// significant rounds x to five digits: more is noise.
func significant(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return x
	}
	scale := math.Pow(10, 4-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}
