package bench

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

// ProfileSchema is the version of the profile's format that this package writes.
// It also reads profiles from OldestProfileSchema on: 2 added CPUs, 3 samplings.
const (
	ProfileSchema       = 3
	OldestProfileSchema = 1
)

// Profiles is one run of the profiler, of a GPU or, if Machine is set, of a CPU.
type Profiles struct {
	Schema   int       `json:"schema"`
	GPU      GPU       `json:"gpu,omitzero"`
	Machine  *Machine  `json:"machine,omitempty"`
	Command  string    `json:"command"`
	Commit   string    `json:"commit"`
	Date     time.Time `json:"date"`
	Profiles []Profile `json:"profiles"`
}

// Subject names what was profiled: the GPU, or the CPU.
func (p Profiles) Subject() string {
	if p.Machine != nil {
		return p.Machine.CPU
	}
	return p.GPU.Name
}

// writePhase is what a call does beyond the phases of package cpu: checks, and the
// values and indices of the result.
const writePhase = "write"

// Profile measures where the time of a case goes on the CPU, on one thread. What a
// phase takes is what a selection up to it takes, less one up to the phase before:
// the steps are those of every selection, and no clock is read between them. The
// answers are checked.
func (r *Runner) Profile(ctx context.Context, c Case) (Profile, error) {
	c.Threads, c = 1, c.withDefaults()
	if err := r.Validate(c); err != nil {
		return Profile{}, err
	}
	switch c.DType {
	case Float16:
		return profileCPU[topk.Float16, uint16](ctx, r, c, key.Float16)
	case BFloat16:
		return profileCPU[topk.BFloat16, uint16](ctx, r, c, key.BFloat16)
	}
	return profileCPU[float32, uint32](ctx, r, c, key.Float32)
}

// profileStarts is how many times logits and memory are made anew: where they lie
// decides over a tenth of a microsecond, which is more than the shorter phases take.
const profileStarts = 5

func profileCPU[T topk.Float, E simd.Bits](ctx context.Context, r *Runner, c Case, order key.Order) (Profile, error) {
	plan := r.plan(c)
	p := Profile{
		Source: c.Source, Batch: c.Batch, Vocab: c.Vocab, TopK: c.TopK, DType: c.DType, Tier: c.Tier, CPUPlan: plan.String(), PartsOf: "select",
		FloorBytes: c.Batch * c.Vocab * c.DType.Bytes(),
	}
	var all [cpu.Phases + 2]struct{ us, cycles, instructions []float64 } // of the phases, the call and the floor
	candidates := 0.0
	for start := range profileStarts {
		s, err := profileOnce[T, E](ctx, r, c, &plan, order, start)
		if err != nil {
			return Profile{}, fmt.Errorf("%v: %w", c, err)
		}
		p.Samples += s.times[cpu.Phases].Samples
		candidates += s.candidates / profileStarts
		if s.uncounted != nil {
			p.Uncounted = s.uncounted.Error()
		}
		for i := range all {
			all[i].us = append(all[i].us, s.times[i].Median)
			if s.uncounted == nil && i <= cpu.Phases {
				all[i].cycles, all[i].instructions = append(all[i].cycles, s.cycles[i]), append(all[i].instructions, s.instructions[i])
			}
		}
	}
	p.CallUS, p.FloorUS = significant(median(all[cpu.Phases].us)), significant(median(all[cpu.Phases+1].us))
	p.Candidates = significant(candidates)
	moved := bytesMoved(plan, c, p.Candidates)
	before, sum := Part{}, 0.0
	for i := range cpu.Phases + 1 {
		name := writePhase
		if i < cpu.Phases {
			name = cpu.Phase(i).String()
		}
		// Of a phase that takes next to nothing, noise may make less.
		us := median(all[i].us)
		part := Part{Name: name, US: significant(max(0, us-before.US)), Bytes: moved[i]}
		before.US = max(before.US, us)
		if p.Uncounted == "" {
			cycles, instructions := median(all[i].cycles), median(all[i].instructions)
			part.Cycles, part.Instructions = math.Round(max(0, cycles-before.Cycles)), math.Round(max(0, instructions-before.Instructions))
			before.Cycles, before.Instructions = max(before.Cycles, cycles), max(before.Instructions, instructions)
		}
		p.Parts = append(p.Parts, part)
		p.Bytes += part.Bytes
		sum += part.US
	}
	for i := range p.Parts {
		p.Parts[i].Share = significant(p.Parts[i].US / sum)
	}
	return p, nil
}

// profileStart is what one start of a profile tells, of the phases, the call and
// the floor.
type profileStart struct {
	times                []Times
	candidates           float64 // of a row
	cycles, instructions []float64
	uncounted            error // why there are none
}

// profileOnce times selections that stop behind each phase.
func profileOnce[T topk.Float, E simd.Bits](ctx context.Context, r *Runner, c Case, plan *cpu.Plan, order key.Order, start int) (s profileStart, err error) {
	memory, err := newMemory(c.inputBytes(c.inputs()))
	if err != nil {
		return s, err
	}
	defer memory.release()
	anew := *r
	anew.Seed += uint64(start)
	batches, _ := makeInputs[T](&anew, c, c.inputs(), memory)
	call := selectWork(c, r.options(c, c.Tier), batches)
	row := new(cpu.Row[E])
	found := 0
	var contestants []contestant
	for phase := range cpu.Phases {
		contestants = append(contestants, contestant{cpu.Phase(phase).String(), func(input int) error {
			logits := bitsOf[E](batches[input])
			for i := range c.Batch {
				found += row.Until(cpu.Phase(phase), plan, order, c.TopK, logits[i*c.Vocab:(i+1)*c.Vocab])
			}
			return nil
		}})
	}
	contestants = append(contestants, call.contestant, floor[E]("floor", c, batches))
	check := func() error {
		for i, logits := range batches {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := call.call(i); err != nil {
				return err
			}
			if _, err := newGate(logits, c.Batch, c.TopK).check(call.answer); err != nil {
				return err
			}
		}
		return nil
	}
	if err := check(); err != nil {
		return s, err
	}
	if s.times, err = race(ctx, contestants, len(batches), r.Iters, r.Budget/profileStarts); err != nil {
		return s, err
	}
	if err := check(); err != nil {
		return s, err
	}
	found = 0
	for i := range batches {
		if err := contestants[cpu.PhaseCandidates].call(i); err != nil {
			return s, err
		}
	}
	s.candidates = float64(found) / float64(len(batches)*c.Batch)
	s.cycles, s.instructions, s.uncounted = countAll(contestants[:cpu.Phases+1], len(batches), s.times)
	return s, nil
}

// bytesMoved returns how many bytes each phase of a batch reads and writes, the
// row, the groups, the bitmap and the candidates together, unless a guess fails.
func bytesMoved(plan cpu.Plan, c Case, candidates float64) []int {
	const word, group, index = 8, 4, 4
	row := c.Vocab * c.DType.Bytes()
	found := int(candidates)
	moved := make([]int, cpu.Phases+1)
	if s := plan.Sample; s.Groups > 0 {
		moved[cpu.PhaseSample] = row/s.Step + s.Groups*group
		moved[cpu.PhaseThreshold] = s.Groups * group
	}
	bitmap := (c.Vocab + 63) / 64 * word
	moved[cpu.PhaseFilter] = row + bitmap
	moved[cpu.PhaseCandidates] = bitmap + found*(c.DType.Bytes()+word)
	moved[cpu.PhaseOrder] = 2 * found * word
	moved[cpu.Phases] = c.TopK * (word + 2*c.DType.Bytes() + index)
	for i := range moved {
		moved[i] *= c.Batch
	}
	return moved
}

// countAll counts the cycles and the instructions of a call of each contestant, or
// says why the system does not.
func countAll(contestants []contestant, inputs int, times []Times) (cycles, instructions []float64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := openEventCounters()
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	const samples = 15
	for i, contestant := range contestants {
		var all, executed []float64
		for range samples {
			rotations := max(1, times[i].Calls/inputs)
			n, m, err := c.count(func() error {
				_, err := rotate(contestant, inputs, rotations)
				return err
			})
			if err != nil {
				return nil, nil, err
			}
			all, executed = append(all, n/float64(rotations*inputs)), append(executed, m/float64(rotations*inputs))
		}
		slices.Sort(all)
		slices.Sort(executed)
		cycles, instructions = append(cycles, quantile(all, 0.5)), append(instructions, quantile(executed, 0.5))
	}
	return cycles, instructions, nil
}
