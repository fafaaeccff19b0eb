package bench

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// CPUPlans is a file of plans of a CPU.
type CPUPlans = planfile.File[cpu.Tuning]

// NewCPUPlans returns a file without plans for a tier of this machine; "" is the
// best one.
func NewCPUPlans(tier string) CPUPlans {
	return planfile.New[cpu.Tuning](planfile.Device{
		Kind: planfile.CPU, Name: cmp.Or(cpu.Model(), planfile.Unknown), Tier: cmp.Or(tier, topk.Tiers()[0]), Cores: cpu.Cores(),
	})
}

// The figures that a search tries, beside the built-in ones.
var (
	triedSteps      = []int{5, 7, 9, 11, 13, 17, 21, 25, 33}
	triedDeviations = []float64{1, 1.5, 2, 2.5, 3, 4}
	triedGroups     = []float64{1.5, 3, 6}
	triedChunks     = []int{16384, 32768, 65536}
)

// Tune searches for plans of the cases, which are of work TopK, for the budget,
// and adds them to the file. It calls save after each, and when the context ends,
// whose error it then returns. Every plan's answers are compared with the
// oracle's before it is timed.
func (r *Runner) Tune(ctx context.Context, cases []Case, file *CPUPlans, budget time.Duration, save func() error, progress func(TuneStep)) error {
	return tuneAll(ctx, r.clock(), cases, file, budget, func(c Case) (*search[cpu.Tuning], error) {
		c.Tier = file.Device.Tier
		if err := r.Validate(c); err != nil {
			return nil, err
		}
		plans, err := tunings(c)
		if err != nil {
			return nil, err
		}
		s := &search[cpu.Tuning]{plans: plans, builtIn: c.builtIn()}
		s.explain = func(t cpu.Tuning) string { return c.tuned(t).String() }
		s.open = func(start int) (arena[cpu.Tuning], error) {
			switch c.DType {
			case Float16:
				return newCPUArena[topk.Float16](r, c, file.Device, start)
			case BFloat16:
				return newCPUArena[topk.BFloat16](r, c, file.Device, start)
			}
			return newCPUArena[float32](r, c, file.Device, start)
		}
		return s, nil
	}, save, progress)
}

// builtIn returns the figures of the case without a tuning.
func (c Case) builtIn() cpu.Tuning { return cpu.BuiltIn(c.Vocab, c.TopK, c.DType.Bytes()) }

// tuned returns the plan of the case with a tuning.
func (c Case) tuned(t cpu.Tuning) cpu.Plan { return c.plan(0, &t) }

// tunings lists the tunings to try, those that change the fewest figures first.
// Of those that make the same plan there is one, and none of the built-in plan.
func tunings(c Case) ([]cpu.Tuning, error) {
	b := c.builtIn()
	threads := []int{0}
	if c.Threads == 0 && c.Batch > 1 {
		for n := 1; n <= min(c.Batch, cpu.Cores()); n *= 2 {
			threads = append(threads, n)
		}
	}
	var all []cpu.Tuning
	changes := func(t cpu.Tuning) (n int) {
		for _, changed := range []bool{t.Step != 0, t.Deviations != 0, t.Groups != 0, t.Chunk != 0, t.Threads != 0} {
			if changed {
				n++
			}
		}
		return n
	}
	for _, step := range triedSteps {
		for _, deviations := range triedDeviations {
			for _, groups := range triedGroups {
				for _, chunk := range triedChunks {
					for _, threads := range threads {
						t := cpu.Tuning{Threads: threads}
						// A figure is left out where it is the built-in one.
						if step != b.Step {
							t.Step = step
						}
						if deviations != b.Deviations {
							t.Deviations = deviations
						}
						if groups != b.Groups {
							t.Groups = groups
						}
						if chunk != b.Chunk && c.Vocab > chunk {
							t.Chunk = chunk
						}
						all = append(all, t)
					}
				}
			}
		}
	}
	slices.SortStableFunc(all, func(s, t cpu.Tuning) int { return changes(s) - changes(t) })
	seen := map[string]bool{c.tuned(cpu.Tuning{}).String(): true}
	all = slices.DeleteFunc(all, func(t cpu.Tuning) bool {
		plan := c.tuned(t).String()
		again := seen[plan]
		seen[plan] = true
		return again
	})
	return all, nil
}

// cpuArena is logits on the CPU: half of the inputs are random rows, and half are
// of a model, where its vocab is that of the case.
type cpuArena[T topk.Float] struct {
	c       Case
	device  planfile.Device
	memory  *memory
	batches [][]T
	gates   []gate[T]
}

func newCPUArena[T topk.Float](r *Runner, c Case, device planfile.Device, start int) (*cpuArena[T], error) {
	n := c.inputs()
	memory, err := newMemory(c.inputBytes(2 * n))
	if err != nil {
		return nil, err
	}
	anew := *r
	anew.Seed += uint64(start)
	c.Source = Random
	a := &cpuArena[T]{c: c, device: device, memory: memory}
	a.batches, _ = makeInputs[T](&anew, c, n, memory)
	if r.Real.Rows > 0 && r.Real.Vocab == c.Vocab {
		c.Source, anew.Real = Real, r.Real.turned(start) // other rows in each start
		real, _ := makeInputs[T](&anew, c, n, memory)
		copy(a.batches[n-n/2:], real)
	}
	for _, logits := range a.batches {
		a.gates = append(a.gates, newGate(logits, c.Batch, c.TopK))
	}
	return a, nil
}

func (a *cpuArena[T]) close() { a.memory.release() }

// enter hands the plan over as a user would, in a file.
func (a *cpuArena[T]) enter(tuning cpu.Tuning) (lap, error) {
	options := topk.Options{Tier: a.c.Tier, Threads: a.c.Threads}
	if tuning != (cpu.Tuning{}) {
		file := planfile.New[cpu.Tuning](a.device)
		file.Entries = append(file.Entries, planfile.Entry[cpu.Tuning]{
			Shape: a.c.planShape(), Plan: tuning, BuiltInUS: 1, TunedUS: 1, Gain: 2, GainLow: 2, GainHigh: 2, Pairs: 1,
		})
		var text bytes.Buffer
		if err := file.Encode(&text); err != nil {
			return nil, err
		}
		plans, err := topk.LoadPlans(&text)
		if err != nil {
			return nil, err
		}
		options.Plans = plans
	}
	l := &cpuLap[T]{arena: a, work: selectWork(a.c, options, a.batches), rotations: 1}
	if err := l.check(); err != nil {
		return nil, err
	}
	for {
		elapsed, err := rotate(l.work.contestant, len(a.batches), l.rotations)
		if err != nil || elapsed >= sampleTime {
			return l, err
		}
		l.rotations = min(10*l.rotations, int(1.1*float64(l.rotations)*float64(sampleTime)/float64(max(elapsed, 1)))+1)
	}
}

// cpuLap times one plan on the CPU.
type cpuLap[T topk.Float] struct {
	arena     *cpuArena[T]
	work      work[T]
	rotations int
}

func (l *cpuLap[T]) close() error { return nil }

func (l *cpuLap[T]) check() error {
	for i, gate := range l.arena.gates {
		if err := l.work.call(i); err != nil {
			return err
		}
		if _, err := gate.check(l.work.answer); err != nil {
			return fmt.Errorf("input %d: %w", i, err)
		}
	}
	return nil
}

func (l *cpuLap[T]) time() (float64, error) {
	inputs := len(l.arena.batches)
	if _, err := rotate(l.work.contestant, inputs, 1); err != nil {
		return 0, err
	}
	elapsed, err := rotate(l.work.contestant, inputs, l.rotations)
	return microseconds(elapsed) / float64(l.rotations*inputs), err
}
