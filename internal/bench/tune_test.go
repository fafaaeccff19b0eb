package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// handArena is logits of tests: plan n takes us(n) microseconds and a little
// more, and a clock of its own goes on by a thousand times that.
type handArena struct {
	us    func(step int) float64
	noise *rand.Rand
	clock *time.Time
	live  *int
	wrong int // the step of a plan with wrong answers
}

func (a *handArena) close() { *a.live-- }

func (a *handArena) enter(plan cpu.Tuning) (lap, error) {
	if a.wrong != 0 && plan.Step == a.wrong {
		return nil, ErrWrong
	}
	*a.live++
	return &handLap{a, plan.Step}, nil
}

type handLap struct {
	a    *handArena
	step int
}

func (l *handLap) time() (float64, error) {
	us := l.a.us(l.step) * (1 + 0.02*l.a.noise.Float64())
	*l.a.clock = l.a.clock.Add(time.Duration(us * 1e6))
	return us, nil
}

func (l *handLap) close() error { *l.a.live--; return nil }

// handSearch is a search among plans of the steps 3, 5, ..., 99.
func handSearch(us func(step int) float64) (s *search[cpu.Tuning], live *int) {
	live = new(int)
	clock, noise := new(time.Time), rand.New(rand.NewPCG(1, 2))
	s = &search[cpu.Tuning]{
		shape: planfile.Shape{Rows: 1, Vocab: 1000, TopK: 5, DType: "float32"}, explain: func(t cpu.Tuning) string { return fmt.Sprint("step ", t.Step) },
		builtIn: cpu.Tuning{Step: 1}, budget: 100 * time.Second, now: func() time.Time { return *clock }, beat: func() {},
	}
	s.open = func(int) (arena[cpu.Tuning], error) {
		*live++
		return &handArena{us: us, noise: noise, clock: clock, live: live}, nil
	}
	for step := 3; step < 100; step += 2 {
		s.plans = append(s.plans, cpu.Tuning{Step: step})
	}
	return s, live
}

// vee takes least for step 41, and 10 for the built-in plan.
func vee(step int) float64 {
	if step == 0 {
		return 10
	}
	return 8 + 0.1*float64(max(step-41, 41-step))
}

func TestSearchFindsTheFastest(t *testing.T) {
	s, live := handSearch(vee)
	entry, left, err := s.run(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if entry.Plan.Step < 39 || entry.Plan.Step > 43 || entry.Reason != "" || left != nil {
		t.Errorf("%+v, left %v", entry, left)
	}
	if !(1.2 < entry.GainLow && entry.GainLow <= entry.Gain && entry.Gain <= entry.GainHigh && entry.GainHigh < 1.3) || entry.Confidence != confidence {
		t.Errorf("gain %v, %v to %v", entry.Gain, entry.GainLow, entry.GainHigh)
	}
	if entry.Tried != 50 || entry.Starts < leastFinals || entry.Pairs < leastPairs*entry.Starts || *live != 0 {
		t.Errorf("%d plans, %d starts, %d pairs, %d left open", entry.Tried, entry.Starts, entry.Pairs, *live)
	}
	if spent := s.now().Sub(time.Time{}); spent > s.budget*12/10 {
		t.Errorf("%v of a budget of %v", spent, s.budget)
	}
}

// A gain within the noise, or below what is worth a plan, is not kept.
func TestSearchKeepsNoNoise(t *testing.T) {
	for name, us := range map[string]func(int) float64{
		"all alike":      func(int) float64 { return 10 },
		"half a percent": func(step int) float64 { return 10 - 0.05*float64(min(step, 1)) },
		"slower":         func(step int) float64 { return 10 + float64(min(step, 1)) },
	} {
		s, _ := handSearch(us)
		entry, _, err := s.run(t.Context(), 0)
		if err != nil || entry.Reason == "" {
			t.Errorf("%s: %+v, %v", name, entry, err)
		}
	}
	s, _ := handSearch(vee)
	s.plans = nil
	if entry, _, err := s.run(t.Context(), 0); err != nil || entry.Plan != s.builtIn || entry.Reason != "there is no other plan" {
		t.Errorf("%+v, %v", entry, err)
	}
}

// A plan that is fast on most logits and slow on some is judged by its mean.
func TestSearchCountsBadStarts(t *testing.T) {
	starts := 0
	s, _ := handSearch(nil)
	open := s.open
	s.open = func(start int) (arena[cpu.Tuning], error) {
		a, err := open(start)
		starts++
		us := 9.5
		if starts%4 == 0 {
			us = 14
		}
		a.(*handArena).us = func(step int) float64 {
			if step == 0 {
				return 10
			}
			return us
		}
		return a, err
	}
	if entry, _, err := s.run(t.Context(), 0); err != nil || entry.Reason == "" || entry.LeastStart > 0.8 {
		t.Errorf("%+v, %v", entry, err)
	}
}

func TestSearchRefusesWrongAnswers(t *testing.T) {
	s, live := handSearch(vee)
	open := s.open
	s.open = func(start int) (arena[cpu.Tuning], error) {
		a, err := open(start)
		a.(*handArena).wrong = 7
		return a, err
	}
	if _, _, err := s.run(t.Context(), 0); !errors.Is(err, ErrWrong) || !strings.Contains(err.Error(), "step 7") || *live != 0 {
		t.Errorf("%v, %d left open", err, *live)
	}
}

// An interrupt leaves the plans that are still in the race, and the next search
// goes on with them.
func TestTuneGoesOn(t *testing.T) {
	cases := []Case{{Batch: 1, Vocab: 1000, TopK: 5, DType: Float32}, {Batch: 2, Vocab: 1000, TopK: 5, DType: Float32}, {Batch: 2, Vocab: 1000, TopK: 5, DType: Float32}}
	file := NewCPUPlans("")
	ctx, stop := context.WithCancel(t.Context())
	searches, laps, saved := 0, 0, 0
	raced := map[int]bool{}
	searchOf := func(Case) (*search[cpu.Tuning], error) {
		searches++
		s, _ := handSearch(func(step int) float64 {
			raced[step] = true
			if laps++; searches == 2 && laps == 500 {
				stop()
			}
			return vee(step)
		})
		laps = 0
		return s, nil
	}
	save := func() error { saved++; return file.Encode(&bytes.Buffer{}) }
	var steps []TuneStep
	tune := func(ctx context.Context) error {
		return tuneAll(ctx, time.Now, cases, &file, time.Minute, searchOf, save, func(s TuneStep) {
			if s.Spent = 0; len(steps) == 0 || steps[len(steps)-1] != s {
				steps = append(steps, s)
			}
		})
	}
	if err := tune(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	u := file.Unfinished
	if len(file.Entries) != 1 || saved != 2 || u == nil || u.Rows != 2 || len(u.Plans) == 0 || u.Tried != 50 {
		t.Fatalf("%d entries, saved %d times, unfinished %+v", len(file.Entries), saved, u)
	}
	left := len(u.Plans)
	clear(raced)
	if err := tune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if file.Unfinished != nil || len(file.Entries) != 2 || file.Entries[1].Tried != 50 || len(raced) > left+1 {
		t.Errorf("%+v, %d of %d plans raced", file, len(raced), left)
	}
	shapes := []TuneStep{{0, 2, cases[0].planShape(), 0}, {1, 2, cases[1].planShape(), 0}}
	if !slices.Equal(steps, shapes) {
		t.Errorf("steps %v", steps)
	}
}

// The plans of a search on the CPU can be loaded, and steer a selection.
func TestTuneCPU(t *testing.T) {
	r := &Runner{Seed: 1, Real: RealLogits()}
	file := NewCPUPlans("")
	var cases []Case
	for _, dtype := range []DType{Float32, Float16, BFloat16} {
		cases = append(cases, Case{Work: TopK, Source: Random, Batch: 2, Vocab: 3000, TopK: 20, DType: dtype})
	}
	if err := r.Tune(t.Context(), cases, &file, 300*time.Millisecond, func() error { return nil }, func(TuneStep) {}); err != nil {
		t.Fatal(err)
	}
	if len(file.Entries)+len(file.NotKept) != len(cases) {
		t.Fatalf("%+v", file)
	}
	for _, e := range slices.Concat(file.Entries, file.NotKept) {
		if e.Tried < 2 || e.Explained == "" || e.BuiltInUS <= 0 {
			t.Errorf("%+v", e)
		}
	}
	var text bytes.Buffer
	if err := file.Encode(&text); err != nil {
		t.Fatal(err)
	}
	if _, err := topk.LoadPlans(&text); err != nil {
		t.Error(err)
	}
	if err := r.Tune(t.Context(), []Case{{Work: TopK, Source: Random, Batch: 1, Vocab: 10, TopK: 20, DType: Float32}}, &file, time.Second, nil, nil); err == nil {
		t.Error("k beyond the vocab")
	}
}

func TestTuningsAreAllDifferent(t *testing.T) {
	c := Case{Batch: 4, Vocab: 151936, TopK: 50, DType: BFloat16, Tier: topk.Tiers()[0]}
	plans, err := tunings(c)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{c.tuned(cpu.Tuning{}).String(): true}
	for _, tuning := range plans {
		if field, got := tuning.Invalid(); field != "" {
			t.Errorf("%+v: %s = %v", tuning, field, got)
		}
		if plan := c.tuned(tuning).String(); seen[plan] {
			t.Errorf("%+v: %s again", tuning, plan)
		} else {
			seen[plan] = true
		}
	}
	if len(plans) < 100 || plans[0].Step == 0 == (plans[0].Deviations == 0) {
		t.Errorf("%d plans, %+v first", len(plans), plans[0])
	}
}

// On a GPU of tests the two-stage plan with 512 groups is fastest.
func TestTuneDevice(t *testing.T) {
	r, d := onHand()
	d.usOf = func(o cuda.Options) float64 {
		if p := o.Plan; p != nil && p.Name == cuda.PlanTwoStage && p.Groups == 512 {
			return 30
		}
		return 40
	}
	var now time.Time
	r.now = func() time.Time { // all plans enter in time, however slow the machine
		now = now.Add(time.Millisecond)
		return now
	}
	file := r.NewDevicePlans()
	cases := []Case{
		{Work: TopK, Source: Random, Batch: 1, Vocab: 3000, TopK: 50, DType: BFloat16},
		{Work: TopK, Source: Random, Batch: 1, Vocab: 3000, TopK: 2500, DType: Float32},
	}
	if err := r.Tune(t.Context(), cases, &file, time.Second, func() error { return nil }, func(TuneStep) {}); err != nil {
		t.Fatal(err)
	}
	if len(file.Entries) != 1 || file.Entries[0].Plan.Name != cuda.PlanTwoStage || file.Entries[0].Plan.Groups != 512 || file.Entries[0].Gain < 1.3 {
		t.Errorf("%+v", file.Entries)
	}
	if len(file.NotKept) != 1 || file.NotKept[0].Plan.Name != cuda.PlanAny {
		t.Errorf("%+v", file.NotKept)
	}
	if file.Device.String() != "Hand 1 (compute capability 9.0, 132 multiprocessors)" || d.live != 0 {
		t.Errorf("%v, %d left open", file.Device, d.live)
	}
	var text bytes.Buffer
	if err := file.Encode(&text); err != nil {
		t.Fatal(err)
	}
	if plans, err := cuda.LoadPlans(&text); err != nil || plans.Len() != 1 {
		t.Error(plans, err)
	}
}
