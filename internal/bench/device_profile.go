package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Profile says where the time of a call goes, on a warm cache. Times are
// microseconds, the median of Samples samples.
type Profile struct {
	Work    string    `json:"work,omitempty"`     // if it is not top-k
	Sample  string    `json:"sampling,omitempty"` // of work sample
	Source  string    `json:"source"`
	Batch   int       `json:"batch"`
	Vocab   int       `json:"vocab"`
	TopK    int       `json:"top_k"`
	DType   DType     `json:"dtype"`
	Plan    cuda.Plan `json:"plan,omitzero"`      // of a GPU, with every kernel that a call launches
	Tier    string    `json:"tier,omitempty"`     // of a CPU
	CPUPlan string    `json:"cpu_plan,omitempty"` // in words
	CallUS  float64   `json:"call_us"`
	EmptyUS float64   `json:"empty_us,omitempty"` // of a kernel that does nothing, which every call includes; a GPU's only
	FloorUS float64   `json:"floor_us"`           // of reading the rows, on a GPU with one block each
	Samples int       `json:"samples"`
	Parts   []Part    `json:"parts"`
	// PartsOf names the plan that the parts were measured of: phases of a selection are those
	// of an instrumented build of block, whichever plan the call has.
	PartsOf string `json:"parts_of"`
	Reason  string `json:"reason,omitempty"` // why there are no parts

	// Of a CPU.
	Candidates float64 `json:"candidates,omitempty"`  // that a row has after stage 1, the mean
	Bytes      int     `json:"bytes,omitempty"`       // that the parts read and write together
	FloorBytes int     `json:"floor_bytes,omitempty"` // of the rows
	Uncounted  string  `json:"uncounted,omitempty"`   // why there are no cycles and instructions
}

// PlanName returns the name of a GPU's plan or sampling, or the tier of a CPU.
func (p Profile) PlanName() string { return cmp.Or(p.Plan.Name, p.Tier, p.Sample) }

// Part is a stage of a plan with several kernels, a phase within a kernel, or a
// phase of a CPU.
type Part struct {
	Name         string  `json:"name"`
	US           float64 `json:"us"`
	Cycles       float64 `json:"cycles,omitempty"`       // of the multiprocessor or the core; phases only
	Instructions float64 `json:"instructions,omitempty"` // of a CPU
	Bytes        int     `json:"bytes,omitempty"`        // read and written, of a CPU
	Share        float64 `json:"share"`                  // of the parts together
}

// Profile measures where the time of a case goes: of each stage alone for a plan
// with several kernels, of the phases within the kernel otherwise. Answers are
// checked, those of the instrumented build too.
func (r *DeviceRunner) Profile(ctx context.Context, c Case) (Profile, error) {
	if err := r.Validate(c); err != nil {
		return Profile{}, err
	}
	switch c.DType {
	case Float16:
		return profileDeviceWork[topk.Float16](ctx, r, c)
	case BFloat16:
		return profileDeviceWork[topk.BFloat16](ctx, r, c)
	}
	return profileDeviceWork[float32](ctx, r, c)
}

func profileDeviceWork[T topk.Float](ctx context.Context, r *DeviceRunner, c Case) (p Profile, err error) {
	if c.Work == Sample {
		p, err = profileSampling[T](ctx, r, c)
	} else {
		p, err = profileDevice[T](ctx, r, c)
	}
	if err != nil {
		return Profile{}, fmt.Errorf("%v: %w", c, err)
	}
	all := 0.0
	for _, part := range p.Parts {
		all += part.US
	}
	for i := range p.Parts {
		if all > 0 {
			p.Parts[i].Share = significant(p.Parts[i].US / all)
		}
	}
	return p, nil
}

func profileDevice[T topk.Float](ctx context.Context, r *DeviceRunner, c Case) (Profile, error) {
	b, err := newDeviceBatch[T](ctx, r, c, cuda.Options{})
	if err != nil {
		return Profile{}, err
	}
	defer b.close()
	m, err := b.newRotation(len(b.inputs))
	if err != nil {
		return Profile{}, err
	}
	defer m.close()
	contestants := []deviceContestant{
		{m.buffers, func(i int) error { return b.sel(m, i) }},
		{m.buffers, func(i int) error { return b.floor(m, i) }},
		{1, func(int) error { return r.device.emptyKernel() }},
	}
	stages := len(b.plan.Kernels)
	if stages > 1 {
		for stage := range stages {
			contestants = append(contestants, deviceContestant{m.buffers, func(i int) error {
				return b.selector.selectStage(stage, b.logitsOf(m, i), b.shape, m.resultOf(i), m.scratch(b.plan))
			}})
		}
	}
	if err := m.spoil(); err != nil {
		return Profile{}, err
	}
	times, _, err := r.raceDevice(ctx, Graph, contestants)
	if err != nil {
		return Profile{}, err
	}
	for i := range m.buffers { // a stage alone leaves what it likes
		if err := b.sel(m, i); err != nil {
			return Profile{}, err
		}
	}
	if _, err := b.check(m); err != nil {
		return Profile{}, err
	}
	p := Profile{
		Source: c.Source, Batch: c.Batch, Vocab: c.Vocab, TopK: c.TopK, DType: c.DType, Plan: b.plan,
		CallUS: significant(times[0].Median), FloorUS: significant(times[1].Median), EmptyUS: significant(times[2].Median),
		Samples: times[0].Samples, PartsOf: b.plan.Name,
	}
	if stages > 1 {
		for stage, t := range times[3:] {
			p.Parts = append(p.Parts, Part{Name: fmt.Sprintf("stage %d", stage+1), US: significant(t.Median)})
		}
	} else {
		p.PartsOf = cuda.PlanBlock
		if p.Parts, err = b.phases(m); errors.Is(err, cuda.ErrUnsupported) {
			p.Reason, err = err.Error(), nil
		}
		if err != nil {
			return Profile{}, err
		}
	}
	return p, nil
}

// profileSampling measures where the time of a sampling goes.
func profileSampling[T topk.Float](ctx context.Context, r *DeviceRunner, c Case) (Profile, error) {
	b, err := newSampleBatch[T](ctx, r, c)
	if err != nil {
		return Profile{}, err
	}
	defer b.close()
	m, err := b.newTokenMemory(len(b.inputs))
	if err != nil {
		return Profile{}, err
	}
	defer m.close()
	if err := b.spoil(m); err != nil {
		return Profile{}, err
	}
	call := func(i int) error { return b.call(m, b.sampler, b.edits, m.tokens, i) }
	times, _, err := r.raceDevice(ctx, Graph, []deviceContestant{
		{m.buffers, call},
		{m.buffers, func(i int) error { return b.floor(m.rotation, i) }},
		{1, func(int) error { return r.device.emptyKernel() }},
	})
	if err != nil {
		return Profile{}, err
	}
	if err := b.checkSampled(m); err != nil {
		return Profile{}, err
	}
	p := Profile{
		Work: Sample, Sample: c.Sampling, Source: c.Source, Batch: c.Batch, Vocab: c.Vocab, TopK: b.sampled.TopK, DType: c.DType,
		CallUS: significant(times[0].Median), FloorUS: significant(times[1].Median), EmptyUS: significant(times[2].Median),
		Samples: times[0].Samples, PartsOf: b.path(),
	}
	if err := b.spoil(m); err != nil {
		return Profile{}, err
	}
	p.Parts, err = stampedParts(r, m.buffers, maxClusterBlocks*c.Batch, func(i int, stamps cuda.Pointer) ([]string, int, error) {
		rows, tokens, edits := b.parameters(m, b.sampler, b.edits, m.tokens, i)
		if edits != nil {
			rows.Edits = *edits
		}
		return b.sampler.samplePhases(b.logitsOf(m.rotation, i), cuda.Shape{Rows: c.Batch, Vocab: c.Vocab}, rows, tokens, stamps)
	})
	if errors.Is(err, cuda.ErrUnsupported) {
		p.Reason = err.Error()
		return p, nil
	}
	if err != nil {
		return Profile{}, err
	}
	if err := b.checkSampled(m); err != nil {
		return Profile{}, fmt.Errorf("instrumented: %w", err)
	}
	return p, nil
}

// maxClusterBlocks is how many blocks have a row at most.
const maxClusterBlocks = 8

// phases measures the phases of the instrumented build that selects.
func (b *deviceBatch[T]) phases(m *rotation) ([]Part, error) {
	options := cuda.Options{Plan: &cuda.Plan{Name: cuda.PlanBlock}, TargetCandidates: b.r.TargetCandidates}
	selector, err := b.r.device.selector(options)
	if err != nil {
		return nil, err
	}
	defer selector.close()
	if err := m.spoil(); err != nil {
		return nil, err
	}
	parts, err := stampedParts(b.r, m.buffers, b.c.Batch, func(i int, stamps cuda.Pointer) ([]string, int, error) {
		return cuda.SelectionPhases(), 1, selector.selectPhases(b.logitsOf(m, i), b.shape, m.resultOf(i), stamps)
	})
	if err != nil {
		return nil, err
	}
	if _, err := b.check(m); err != nil {
		return nil, fmt.Errorf("instrumented: %w", err)
	}
	return parts, nil
}

// stampedParts returns the phases of an instrumented build: of each the median over the rows of many calls, as far as they
// went the way of most. Of a row with several blocks they are those of the block that does most and takes longest. call runs it
// on the buffer with that number, with room for so many stamps, and returns the names of the phases and the number of
// blocks that have a row.
func stampedParts(r *DeviceRunner, buffers, room int, call func(buffer int, stamps cuda.Pointer) ([]string, int, error)) ([]Part, error) {
	stamps, none := make([]cuda.Phases, room), make([]cuda.Phases, room)
	memory, err := r.device.allocate(len(bytesOf(stamps)))
	if err != nil {
		return nil, err
	}
	defer memory.close()
	var ways []way
	const calls, leastCalls = 200, 8 // the first ones find cold instructions, and are not counted
	for n := range calls {
		if err := memory.upload(0, bytesOf(none)); err != nil {
			return nil, err
		}
		phases, blocks, err := call(n%buffers, memory.pointer())
		if err != nil {
			return nil, err
		}
		if err := memory.download(bytesOf(stamps), 0); err != nil {
			return nil, err
		}
		if n < leastCalls {
			continue
		}
		for row := 0; row+blocks <= len(stamps) && stamps[row] != (cuda.Phases{}); row += blocks {
			spans, err := phasesOf(phases, slices.MaxFunc(stamps[row:row+blocks], byWork))
			if err != nil {
				return nil, err
			}
			at := slices.IndexFunc(ways, func(w way) bool { return slices.EqualFunc(w.phases, spans, sameName) })
			if at < 0 {
				at, ways = len(ways), append(ways, way{spans, make([][]float64, len(spans))})
			}
			for i, span := range spans {
				ways[at].cycles[i] = append(ways[at].cycles[i], span.Cycles)
			}
		}
	}
	if len(ways) == 0 {
		return nil, fmt.Errorf("bench: the phases have no stamps")
	}
	most := slices.MaxFunc(ways, func(a, b way) int { return cmp.Compare(len(a.cycles[0]), len(b.cycles[0])) })
	perUS := float64(r.device.properties().ClockKHz) / 1e3
	var parts []Part
	for i, phase := range most.phases {
		median := timesOf(most.cycles[i], calls).Median
		parts = append(parts, Part{Name: phase.Name, US: significant(median / perUS), Cycles: significant(median)})
	}
	return parts, nil
}

// way is one through a kernel: its phases, and the cycles of each in the rows that went it.
type way struct {
	phases []Part
	cycles [][]float64
}

func sameName(a, b Part) bool { return a.Name == b.Name }

// byWork orders blocks by the number of their phases, then by the cycles from the first stamp to the last.
func byWork(a, b cuda.Phases) int {
	of := func(stamps cuda.Phases) (phases int, cycles uint64) {
		for _, stamp := range stamps {
			if stamp != 0 {
				phases, cycles = phases+1, stamp-stamps[0]
			}
		}
		return phases, cycles
	}
	phases, cycles := of(a)
	others, otherCycles := of(b)
	return cmp.Or(cmp.Compare(phases, others), cmp.Compare(cycles, otherCycles))
}

// phasesOf returns the cycles of each phase. Phases without a stamp count to the
// next one that has one or, at the end, to the last.
func phasesOf(phases []string, stamps cuda.Phases) (spans []Part, err error) {
	start := stamps[0]
	var names []string
	for i, name := range phases {
		if name != "" {
			names = append(names, name)
		}
		end := stamps[i+1]
		if end == 0 {
			continue
		}
		if end < start {
			return nil, fmt.Errorf("bench: the clock of the phases goes back: %v", stamps)
		}
		spans = append(spans, Part{Name: strings.Join(names, ", "), Cycles: float64(end - start)})
		start, names = end, nil
	}
	if len(spans) == 0 {
		return nil, fmt.Errorf("bench: the phases have no stamps")
	}
	if last := &spans[len(spans)-1]; len(names) > 0 {
		last.Name = strings.Join(append([]string{last.Name}, names...), ", ")
	}
	return spans, nil
}
