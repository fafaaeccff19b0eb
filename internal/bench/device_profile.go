package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Profile says where the time of a call goes, on a warm cache. Times are
// microseconds, the median of Samples samples.
type Profile struct {
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
	// PartsOf names the plan that the parts were measured of: phases are those
	// of an instrumented build of block, whichever plan the call has.
	PartsOf string `json:"parts_of"`
	Reason  string `json:"reason,omitempty"` // why there are no parts

	// Of a CPU.
	Candidates float64 `json:"candidates,omitempty"`  // that a row has after stage 1, the mean
	Bytes      int     `json:"bytes,omitempty"`       // that the parts read and write together
	FloorBytes int     `json:"floor_bytes,omitempty"` // of the rows
	Uncounted  string  `json:"uncounted,omitempty"`   // why there are no cycles and instructions
}

// PlanName returns the name of a GPU's plan, or the tier of a CPU.
func (p Profile) PlanName() string { return cmp.Or(p.Plan.Name, p.Tier) }

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
		return profileDevice[topk.Float16](ctx, r, c)
	case BFloat16:
		return profileDevice[topk.BFloat16](ctx, r, c)
	}
	return profileDevice[float32](ctx, r, c)
}

func profileDevice[T topk.Float](ctx context.Context, r *DeviceRunner, c Case) (Profile, error) {
	failed := func(err error) (Profile, error) { return Profile{}, fmt.Errorf("%v: %w", c, err) }
	b, err := newDeviceBatch[T](ctx, r, c, cuda.Options{})
	if err != nil {
		return failed(err)
	}
	defer b.close()
	m, err := b.newRotation(len(b.inputs))
	if err != nil {
		return failed(err)
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
		return failed(err)
	}
	times, _, err := r.raceDevice(ctx, Graph, contestants)
	if err != nil {
		return failed(err)
	}
	for i := range m.buffers { // a stage alone leaves what it likes
		if err := b.sel(m, i); err != nil {
			return failed(err)
		}
	}
	if _, err := b.check(m); err != nil {
		return failed(err)
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
			return failed(err)
		}
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

// phaseNames are what an instrumented build stamps the end of, after its start.
// The stamp of one that is not told apart from the next is 0.
var phaseNames = []string{"load", "bound", "filter", "order", "write"}

// phases measures the phases of the instrumented build: of each the median over
// the rows of many calls.
func (b *deviceBatch[T]) phases(m *rotation) ([]Part, error) {
	options := cuda.Options{Plan: &cuda.Plan{Name: cuda.PlanBlock}, TargetCandidates: b.r.TargetCandidates}
	selector, err := b.r.device.selector(options)
	if err != nil {
		return nil, err
	}
	defer selector.close()
	stamps := make([]cuda.Phases, b.c.Batch)
	memory, err := b.r.device.allocate(len(bytesOf(stamps)))
	if err != nil {
		return nil, err
	}
	defer memory.close()
	if err := errors.Join(m.spoil(), memory.upload(0, bytesOf(stamps))); err != nil {
		return nil, err
	}
	var names []string
	cycles := map[string][]float64{}
	const calls, leastCalls = 200, 8 // the first ones find cold instructions, and are not counted
	for call := range calls {
		i := call % m.buffers
		if err := selector.selectPhases(b.logitsOf(m, i), b.shape, m.resultOf(i), memory.pointer()); err != nil {
			return nil, err
		}
		if err := memory.download(bytesOf(stamps), 0); err != nil {
			return nil, err
		}
		if call < leastCalls {
			continue
		}
		for _, s := range stamps {
			spans, err := phasesOf(s)
			if err != nil {
				return nil, err
			}
			for _, span := range spans {
				if cycles[span.Name] == nil {
					names = append(names, span.Name)
				}
				cycles[span.Name] = append(cycles[span.Name], span.Cycles)
			}
		}
	}
	if _, err := b.check(m); err != nil {
		return nil, fmt.Errorf("instrumented: %w", err)
	}
	perUS := float64(b.r.device.properties().ClockKHz) / 1e3
	var parts []Part
	for _, name := range names {
		median := timesOf(cycles[name], calls).Median
		parts = append(parts, Part{Name: name, US: significant(median / perUS), Cycles: significant(median)})
	}
	return parts, nil
}

// phasesOf returns the cycles of each phase. Phases without a stamp count to the
// next one that has one or, at the end, to the last.
func phasesOf(s cuda.Phases) (spans []Part, err error) {
	start := s.Start
	var names []string
	for phase, end := range []uint64{s.Loaded, s.Bounded, s.Filtered, s.Ordered, s.Written} {
		names = append(names, phaseNames[phase])
		if end == 0 {
			continue
		}
		if end < start {
			return nil, fmt.Errorf("bench: the clock of the phases goes back: %+v", s)
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
