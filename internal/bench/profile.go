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
// It also reads profiles from OldestProfileSchema on: 2 added CPUs.
const (
	ProfileSchema       = 2
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

func profileCPU[T topk.Float, E simd.Bits](ctx context.Context, r *Runner, c Case, order key.Order) (Profile, error) {
	failed := func(err error) (Profile, error) { return Profile{}, fmt.Errorf("%v: %w", c, err) }
	memory, err := newMemory(c.inputBytes(c.inputs()))
	if err != nil {
		return failed(err)
	}
	defer memory.release()
	batches, _ := makeInputs[T](r, c, c.inputs(), memory)
	call := selectWork(c, r.options(c, c.Tier), batches)
	plan := r.plan(c)
	row := new(cpu.Row[E])
	candidates := 0
	until := func(phase cpu.Phase) contestant {
		return contestant{phase.String(), func(input int) error {
			logits := bitsOf[E](batches[input])
			for i := range c.Batch {
				candidates += row.Until(phase, &plan, order, c.TopK, logits[i*c.Vocab:(i+1)*c.Vocab])
			}
			return nil
		}}
	}
	var contestants []contestant
	for phase := range cpu.Phases {
		contestants = append(contestants, until(cpu.Phase(phase)))
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
		return failed(err)
	}
	times, err := race(ctx, contestants, len(batches), r.Iters, r.Budget)
	if err != nil {
		return failed(err)
	}
	if err := check(); err != nil {
		return failed(err)
	}
	whole, floor := times[cpu.Phases], times[cpu.Phases+1]
	p := Profile{
		Source: c.Source, Batch: c.Batch, Vocab: c.Vocab, TopK: c.TopK, DType: c.DType, Tier: c.Tier, CPUPlan: plan.String(),
		CallUS: significant(whole.Median), FloorUS: significant(floor.Median), Samples: whole.Samples, PartsOf: "select",
	}
	candidates = 0
	for i := range batches {
		if err := contestants[cpu.PhaseCandidates].call(i); err != nil {
			return failed(err)
		}
	}
	p.Candidates = significant(float64(candidates) / float64(len(batches)*c.Batch))
	cycles, instructions, err := countAll(contestants[:cpu.Phases+1], len(batches), times)
	if err != nil {
		p.Uncounted = err.Error()
	}
	moved := bytesMoved(plan, c, p.Candidates)
	before, all := Part{}, 0.0
	for i := range cpu.Phases + 1 {
		name := writePhase
		if i < cpu.Phases {
			name = cpu.Phase(i).String()
		}
		// Of a phase that takes next to nothing, noise may make less.
		part := Part{Name: name, US: significant(max(0, times[i].Median-before.US)), Bytes: moved[i]}
		before.US = max(before.US, times[i].Median)
		if err == nil {
			part.Cycles, part.Instructions = math.Round(max(0, cycles[i]-before.Cycles)), math.Round(max(0, instructions[i]-before.Instructions))
			before.Cycles, before.Instructions = max(before.Cycles, cycles[i]), max(before.Instructions, instructions[i])
		}
		p.Parts = append(p.Parts, part)
		p.Bytes += part.Bytes
		all += part.US
	}
	p.FloorBytes = c.Batch * c.Vocab * c.DType.Bytes()
	for i := range p.Parts {
		p.Parts[i].Share = significant(p.Parts[i].US / all)
	}
	return p, nil
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
