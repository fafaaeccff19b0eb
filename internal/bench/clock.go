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
//
// There are iters rounds, or as many as fit the budget, but at least 11.
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
	const leastRounds = 11
	samples := make([][]float64, len(contestants))
	start := time.Now()
	for round := 0; round < leastRounds && round < iters || round < iters && time.Since(start) < budget; round++ {
		for j := range contestants {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			i := (round + j) % len(contestants)
			if _, err := rotate(contestants[i], inputs, 1); err != nil {
				return nil, err
			}
			elapsed, err := rotate(contestants[i], inputs, rotations[i])
			if err != nil {
				return nil, err
			}
			calls := float64(rotations[i] * inputs)
			samples[i] = append(samples[i], float64(elapsed.Nanoseconds())/1e3/calls)
		}
	}
	times := make([]Times, len(contestants))
	for i, s := range samples {
		slices.Sort(s)
		times[i] = Times{quantile(s, 0.5), quantile(s, 0.1), quantile(s, 0.9), len(s), rotations[i] * inputs}
	}
	return times, nil
}

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

// quantile returns the q-quantile of sorted, between neighbours in proportion.
func quantile(sorted []float64, q float64) float64 {
	place := q * float64(len(sorted)-1)
	below := int(place)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	share := place - float64(below)
	return sorted[below]*(1-share) + sorted[below+1]*share
}

// significant rounds x to five digits: more is noise.
func significant(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return x
	}
	scale := math.Pow(10, 4-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}
