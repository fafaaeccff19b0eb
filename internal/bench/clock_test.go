package bench

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"testing"
	"time"
)

func TestRace(t *testing.T) {
	percent := debug.SetGCPercent(77)
	defer debug.SetGCPercent(percent)
	var calls [2][3]int
	count := func(contestant int) func(int) error {
		return func(input int) error {
			calls[contestant][input]++
			return nil
		}
	}
	times, err := race(t.Context(), []contestant{{"a", count(0)}, {"b", count(1)}}, 3, 5, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range calls {
		if c[0] == 0 || c[0] != c[1] || c[1] != c[2] {
			t.Errorf("contestant %d saw its inputs %v times", i, c)
		}
		if got := times[i]; got.Samples != 5 || got.Calls%3 != 0 || !spans(got.P10, got.Median, got.P90) {
			t.Errorf("contestant %d: %+v", i, got)
		}
	}
	if got := debug.SetGCPercent(77); got != 77 {
		t.Errorf("the garbage collector was left at %d%%", got)
	}
}

func TestRaceStops(t *testing.T) {
	failure := errors.New("failure")
	calls := 0
	_, err := race(t.Context(), []contestant{{"a", func(int) error {
		if calls++; calls > 1000 {
			return failure
		}
		return nil
	}}}, 1, math.MaxInt, time.Minute)
	if !errors.Is(err, failure) {
		t.Errorf("error = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = race(ctx, []contestant{{"a", func(int) error { cancel(); return nil }}}, 1, math.MaxInt, time.Minute)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	times, err := race(t.Context(), []contestant{{"a", func(int) error { return nil }}}, 1, 1000, 0)
	if err != nil || times[0].Samples != 11 {
		t.Errorf("no budget: %v, %+v", err, times)
	}
}

func TestQuantile(t *testing.T) {
	sorted := []float64{1, 2, 3, 4, 10}
	for q, want := range map[float64]float64{0: 1, 0.1: 1.4, 0.5: 3, 0.9: 7.6, 1: 10} {
		if got := quantile(sorted, q); math.Abs(got-want) > 1e-12 {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
	if got := quantile([]float64{7}, 0.9); got != 7 {
		t.Errorf("of one sample: %v", got)
	}
	// 0.9*x + 0.1*x is below this x: the 90th percentile was below the 10th.
	const x = 6.6174375
	for _, q := range []float64{0, 0.1, 0.5, 0.9, 1} {
		if got := quantile([]float64{x, x}, q); got != x {
			t.Errorf("quantile %v of equal samples: %v, want %v", q, got, x)
		}
	}
}

func TestSignificant(t *testing.T) {
	for x, want := range map[float64]float64{0: 0, 1.2345678: 1.2346, 123456.7: 123460, 0.000123456: 0.00012346, -2.00004: -2} {
		if got := significant(x); math.Abs(got-want) > 1e-9*math.Abs(want) {
			t.Errorf("significant(%v) = %v, want %v", x, got, want)
		}
	}
}
