package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/perf/benchmath"

	"github.com/ai-kernel-factory/aikf/internal/planfile"
)

// The search for a plan: all contenders race against the built-in one in rounds,
// and of each heat the best third goes on. The winner then meets the built-in plan
// again: what the search says of its winner is too good, since it chose it. Each
// heat and each final has other logits in other memory. A figure of one start is
// the median over its rounds, so that noise does not count; that of a plan is the
// mean over starts, so that rows on which it fares badly do.
const (
	searchShare = 0.6  // of a shape's budget for the heats; the finals have the rest
	enterShare  = 0.2  // of it for taking in the contenders, at first
	openShare   = 0.15 // of it for making logits and finding their answers, in the finals
	leastRounds = 3    // of a start in a heat
	leastPairs  = 7    // of rounds in a final
	mostPairs   = 50   // of rounds in a final
	heatStarts  = 4    // of a heat, when so few are left that it costs little
	fewRacers   = 20   // that is
	leastFinals = 3
	mostFinals  = 16
	leastGain   = 1.01 // that is worth a plan of its own
	confidence  = 0.95 // that the gain is at least this
)

// lap times one plan over the logits of an arena.
type lap interface {
	time() (us float64, err error)
	close() error
}

// arena is one set of logits, in one piece of memory, with the right answers.
type arena[P planfile.Plan] interface {
	// enter takes a plan in, which is right on all logits. The zero plan is the
	// built-in one.
	enter(plan P) (lap, error)
	close()
}

// search finds the fastest plan of one shape.
type search[P interface {
	planfile.Plan
	comparable
}] struct {
	shape   planfile.Shape
	plans   []P // but the built-in one; the likeliest come first
	builtIn P   // the built-in one in full
	explain func(P) string
	open    func(start int) (arena[P], error) // other logits for each start
	budget  time.Duration
	now     func() time.Time
	beat    func() // is called between timings

	start  time.Time
	opened int // arenas so far
}

// run returns the best plan and how it compares with the built-in one. If the
// context ends, the plans that are left are returned with its error.
func (s *search[P]) run(ctx context.Context, tried int) (entry planfile.Entry[P], left []P, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	s.start = s.now()
	winner, n := s.builtIn, 1
	if len(s.plans) > 0 {
		if winner, n, left, err = s.heats(ctx); err != nil {
			return entry, left, err
		}
	}
	entry = planfile.Entry[P]{Shape: s.shape, Plan: winner, Explained: s.explain(winner), Tried: max(tried, n)}
	if err := s.final(ctx, &entry); err != nil {
		return entry, []P{winner}, err
	}
	return entry, nil, nil
}

// until is when a share of the budget is spent.
func (s *search[P]) until(share float64) time.Time {
	return s.start.Add(time.Duration(share * float64(s.budget)))
}

// contender is a plan in the search.
type contender[P any] struct {
	plan  P
	gains []float64 // of each start
}

func (c *contender[P]) gain() float64 { return mean(c.gains) }

// heats returns the fastest of the plans, and how many took part, the built-in
// one among them.
func (s *search[P]) heats(ctx context.Context) (winner P, n int, left []P, err error) {
	alive := make([]*contender[P], len(s.plans))
	for i, plan := range s.plans {
		alive[i] = &contender[P]{plan: plan}
	}
	for first := true; first || len(alive) > 1; first = false {
		starts, heats := 1, 1
		for most := len(alive); most > 3; most = (most + 2) / 3 {
			heats++
		}
		if len(alive) <= fewRacers {
			starts = heatStarts
		}
		enterBy := s.until(searchShare)
		if first {
			enterBy = s.until(enterShare)
		}
		heatEnd := s.now().Add(s.until(searchShare).Sub(s.now()) / time.Duration(heats))
		for i := range starts {
			if i > 0 && s.now().After(heatEnd) {
				break
			}
			end := s.now().Add(heatEnd.Sub(s.now()) / time.Duration(starts-i))
			racers, err := s.meet(ctx, alive, enterBy, func(round int) bool { return round < leastRounds || s.now().Before(end) })
			if err != nil {
				for _, c := range alive {
					left = append(left, c.plan)
				}
				return winner, n, left, err
			}
			alive = alive[:len(racers)-1]
			for i, r := range racers[1:] {
				alive[i].gains = append(alive[i].gains, median(r.ratios(racers[0])))
			}
		}
		if first {
			n = 1 + len(alive)
		}
		slices.SortStableFunc(alive, func(a, b *contender[P]) int { return cmp.Compare(b.gain(), a.gain()) })
		alive = alive[:(len(alive)+2)/3]
	}
	return alive[0].plan, n, nil, nil
}

// racer is a plan in an arena.
type racer struct {
	lap   lap
	times []float64
}

// ratios returns the times of the other one over those of r, round by round.
func (r *racer) ratios(of *racer) []float64 {
	ratios := make([]float64, len(r.times))
	for i := range ratios {
		ratios[i] = of.times[i] / r.times[i]
	}
	return ratios
}

// meet times the built-in plan, the first of the racers, and others in turns, in a
// new arena, for as many rounds as again says. Of the others at least one takes
// part, and those for which there is time.
func (s *search[P]) meet(ctx context.Context, others []*contender[P], enterBy time.Time, again func(round int) bool) (racers []*racer, err error) {
	runtime.GC()
	a, err := s.open(s.opened)
	if err != nil {
		return nil, err
	}
	s.opened++
	defer a.close()
	defer func() {
		for _, r := range racers {
			err = errors.Join(err, r.lap.close())
		}
	}()
	enter := func(plan P) error {
		s.beat()
		if err := ctx.Err(); err != nil {
			return err
		}
		lap, err := a.enter(plan)
		if err != nil {
			return fmt.Errorf("plan %s: %w", s.explain(plan), err)
		}
		racers = append(racers, &racer{lap: lap})
		return nil
	}
	var zero P
	if err := enter(zero); err != nil {
		return racers, err
	}
	for i, c := range others {
		if i > 0 && s.now().After(enterBy) {
			break
		}
		if err := enter(c.plan); err != nil {
			return racers, err
		}
	}
	for round := 0; again(round); round++ {
		s.beat()
		for i := range racers { // in an order that rotates, so that a slow spell hits all alike
			if err := ctx.Err(); err != nil {
				return racers, err
			}
			r := racers[(round+i)%len(racers)]
			us, err := r.lap.time()
			if err != nil {
				return racers, err
			}
			r.times = append(r.times, us)
		}
	}
	return racers, nil
}

// final compares the plan of the entry with the built-in one, several times anew,
// and says whether it is kept.
func (s *search[P]) final(ctx context.Context, entry *planfile.Entry[P]) error {
	others := []*contender[P]{{plan: entry.Plan}}
	var builtIn, tuned, gains []float64
	opening := s.now()
	for start, starts := 0, mostFinals; start < starts; start++ {
		end := s.now().Add(s.until(1).Sub(s.now()) / time.Duration(starts-start))
		entered := s.now()
		racers, err := s.meet(ctx, others, end, func(round int) bool {
			if round == 0 {
				entered = s.now()
			}
			return round < leastPairs || round < mostPairs && s.now().Before(end)
		})
		if err != nil {
			return err
		}
		if start == 0 {
			for once := entered.Sub(opening); starts > leastFinals && time.Duration(starts)*once > time.Duration(openShare*float64(s.budget)); {
				starts--
			}
		}
		gains = append(gains, median(racers[1].ratios(racers[0])))
		builtIn, tuned = append(builtIn, racers[0].times...), append(tuned, racers[1].times...)
	}
	entry.Starts, entry.Pairs = len(gains), len(tuned)
	entry.BuiltInUS, entry.TunedUS = significant(median(builtIn)), significant(median(tuned))
	entry.LeastStart = significant(slices.Min(gains))
	gain := benchmath.AssumeNormal.Summary(benchmath.NewSample(gains, &benchmath.DefaultThresholds), confidence)
	entry.Gain, entry.GainLow, entry.GainHigh = significant(gain.Center), significant(gain.Lo), significant(gain.Hi)
	entry.Confidence = gain.Confidence
	switch {
	case len(s.plans) == 0:
		entry.Reason = "there is no other plan"
	case entry.Gain <= 1:
		entry.Reason = "the built-in plan is as fast"
	case entry.GainLow < leastGain:
		entry.Reason = fmt.Sprintf("the gain may be below %.0f %%", 100*(leastGain-1))
	}
	return nil
}

// median sorts the values.
func median(values []float64) float64 {
	slices.Sort(values)
	return quantile(values, 0.5)
}

func mean(values []float64) (sum float64) {
	for _, v := range values {
		sum += v / float64(len(values))
	}
	return sum
}

// TuneStep is how far a search has come.
type TuneStep struct {
	Done, Total int // shapes
	Shape       planfile.Shape
	Spent       time.Duration // of the budget
}

// tuneAll searches for a plan of every case that the file does not have, in equal
// parts of the budget, and saves the file after each. If the context ends, the
// file says what was left of the case that was searched.
func tuneAll[P interface {
	planfile.Plan
	comparable
}](ctx context.Context, now func() time.Time, cases []Case, file *planfile.File[P], budget time.Duration, searchOf func(Case) (*search[P], error), save func() error, progress func(TuneStep)) error {
	known, asked := map[planfile.Shape]bool{}, map[planfile.Shape]bool{}
	for _, e := range slices.Concat(file.Entries, file.NotKept) {
		known[e.Shape] = true
	}
	var left []Case
	for _, c := range cases {
		if shape := c.planShape(); !known[shape] && !asked[shape] {
			left = append(left, c)
		}
		asked[c.planShape()] = true
	}
	start := now()
	for i, c := range left {
		s, err := searchOf(c)
		if err != nil {
			return fmt.Errorf("%v: %w", c.planShape(), err)
		}
		s.shape = c.planShape()
		if s.now == nil {
			s.now = now
		}
		s.budget = (budget - now().Sub(start)) / time.Duration(len(left)-i)
		tried := 0
		if u := file.Unfinished; u != nil && u.Shape == s.shape && len(u.Plans) > 0 && len(s.plans) > 0 {
			s.plans, tried = u.Plans, u.Tried
		}
		s.beat = func() {
			progress(TuneStep{len(asked) - len(left) + i, len(asked), s.shape, min(now().Sub(start), budget)})
		}
		entry, plans, err := s.run(ctx, tried)
		switch {
		case ctx.Err() != nil:
			file.Unfinished = &planfile.Unfinished[P]{Shape: s.shape, Plans: plans, Tried: max(tried, len(s.plans)+1)}
			return errors.Join(ctx.Err(), save())
		case err != nil:
			return fmt.Errorf("%v: %w", s.shape, err)
		case entry.Reason != "":
			file.NotKept = append(file.NotKept, entry)
		default:
			file.Entries = append(file.Entries, entry)
		}
		file.Unfinished = nil
		if err := save(); err != nil {
			return err
		}
	}
	return nil
}

// planShape is what a plan of the case is for.
func (c Case) planShape() planfile.Shape {
	return planfile.Shape{Rows: c.Batch, Vocab: c.Vocab, TopK: c.TopK, DType: string(c.DType)}
}
