package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/kernels"
)

// The probes measure what a selection is compared with. They are for
// benchmarks, and allocate.

const emptySymbol = "floor_empty"

// ReadFloor puts a kernel into the stream that reads each row once, one block
// a row, and writes its maximum to maxima, [Rows] in the dtype of the logits:
// the time that no selection by one block a row can beat. Of the shape, K, RowK
// and RowLengths are not used.
func (d *Device) ReadFloor(stream *Stream, logits Logits, shape Shape, maxima Pointer) error {
	shape.K, shape.RowK, shape.RowLengths = min(1, shape.Vocab), 0, 0
	if err := d.usable(); err != nil {
		return err
	}
	if err := shape.validate(); err != nil {
		return err
	}
	if err := logits.DType.validate(); err != nil {
		return err
	}
	if shape.Rows == 0 || shape.Vocab == 0 {
		return d.checkStream(stream)
	}
	if err := d.checkPointer("logits", logits.Pointer, logits.DType.Bytes()); err != nil {
		return err
	}
	if err := d.checkPointer("maxima", maxima, logits.DType.Bytes()); err != nil {
		return err
	}
	return d.probe(stream, Launch{"floor_read_" + dtypes[logits.DType].symbol, shape.Rows, 1024, 1}, selectArguments{
		logits: logits.Pointer, values: maxima, stride: int64(shape.stride()), resultStride: 1,
		rows: int32(shape.Rows), vocab: int32(shape.Vocab), k: 1, groups: int32(groupCounts[0]), chunks: 1, indexBytes: 4,
	})
}

// EmptyKernel puts a kernel that does nothing into the stream: what a launch
// costs.
func (d *Device) EmptyKernel(stream *Stream) error {
	if err := d.usable(); err != nil {
		return err
	}
	return d.probe(stream, Launch{emptySymbol, 1, 32, 1}, selectArguments{})
}

// probe launches one kernel.
func (d *Device) probe(stream *Stream, l Launch, arguments selectArguments) error {
	if l.Grid > math.MaxInt32 {
		return fmt.Errorf("cuda: kernel %s in %d blocks, more than %d: %w", l.Symbol, l.Grid, math.MaxInt32, ErrUnsupported)
	}
	if err := d.checkStream(stream); err != nil {
		return err
	}
	if err := d.do(func() error { return d.load(l.Symbol) }); err != nil {
		return err
	}
	plan, err := d.loadPlan(Plan{Kernels: []Launch{l}})
	if err != nil {
		return err
	}
	launch := d.library.NewLaunch(unsafe.Pointer(&arguments))
	launch.Configure(l.Grid, l.Block, l.Cluster, false)
	return d.launch(launch, plan.kernels[0], stream)
}

// Phases are clock stamps of a block, in cycles of its multiprocessor: when it began, and when each phase was over. It
// is 0 for a phase that is not told apart from the next.
type Phases [8]uint64

// The names of phases, in their order; empty for none.
var (
	selectionPhases = []string{"load", "bound", "filter", "order", "write"}
	samplingPhases  = []string{"load", "bound", "filter", "order", "weigh", "cut", "draw"}
	wholePhases     = []string{"load", "bracket", "weigh", "cut", "", "", "draw"} // of rows without a top-k
)

// phasesPrefix begins the names of instrumented kernels.
const phasesPrefix = "phases_"

// loadPhases loads the instrumented kernels.
func (d *Device) loadPhases() error {
	return d.do(func() error {
		d.loading.Lock()
		defer d.loading.Unlock()
		if !d.phases {
			images, err := kernels.Instrumented.Images(d.properties.Major, d.properties.Minor, d.forcePTX)
			if errors.Is(err, kernels.ErrNotLinked) {
				return fmt.Errorf("cuda: instrumented kernels: %w: %w", err, ErrUnsupported)
			}
			if err != nil {
				return err
			}
			d.unloaded, d.phases = append(d.unloaded, images...), true
		}
		return d.loadLocked(phaseSymbols()...)
	})
}

// SelectionPhases names the phases of [Selector.SelectPhases].
func SelectionPhases() []string { return slices.Clone(selectionPhases) }

// SelectPhases is SelectDevice by an instrumented build of the plan
// [PlanBlock], which package cuda/kernels/phases holds: a program that does not
// import it gets an error that wraps [ErrUnsupported]. stamps is the address of
// [Rows] Phases; their phases are those of [SelectionPhases].
func (s *Selector) SelectPhases(stream *Stream, logits Logits, shape Shape, result Result, stamps Pointer) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := shape.validate(); err != nil {
		return err
	}
	options := s.planned
	if options.Name != "" && options.Name != PlanBlock {
		return fmt.Errorf("cuda: phases of plan %q, want %q: %w", options.Name, PlanBlock, ErrUnsupported)
	}
	options.Name = PlanBlock
	plan, err := ChoosePlan(PlanShape{shape.Rows, shape.Vocab, shape.K, logits.DType}, s.device.architecture, options)
	if err != nil {
		return err
	}
	plan.WorkspaceBytes = shape.Rows * int(unsafe.Sizeof(Phases{}))
	for i := range plan.Kernels {
		plan.Kernels[i].Symbol = phasesPrefix + plan.Kernels[i].Symbol[len("select_"):]
	}
	if err := s.device.loadPhases(); err != nil {
		return err
	}
	loaded, err := s.device.loadPlan(plan)
	if err != nil {
		return err
	}
	return s.launch(newCall(s.device), stream, loaded, logits, shape, result, Workspace{stamps, plan.WorkspaceBytes})
}

// SamplePhases is SampleDevice by an instrumented build of the same package, of
// which there is one for bfloat16: for edited rows, for rows without a top-k and
// for a vocab of up to 65,536. stamps is the address of [Rows, 8] Phases, of which
// the first [Rows, blocks] are written. It returns the names of the phases, and
// how many blocks have a row.
func (s *Sampler) SamplePhases(stream *Stream, logits Logits, shape Shape, rows RowParams, tokens Tokens, stamps Pointer) (names []string, blocks int, err error) {
	if err := s.usable(); err != nil {
		return nil, 0, err
	}
	if err := s.device.checkPointer("stamps", stamps, 8); err != nil {
		return nil, 0, err
	}
	if err := s.device.loadPhases(); err != nil {
		return nil, 0, err
	}
	c := s.calls.New().(*sampleCall)
	c.stamps = stamps
	if err := s.sampleBy(c, stream, logits, shape, &rows, &tokens); err != nil {
		return nil, 0, err
	}
	names, blocks = samplingPhases, max(1, c.plan.Cluster)
	if c.whole {
		names = wholePhases
	}
	return slices.Clone(names), blocks, nil
}

// RawLaunch is a launch in the terms of the driver: a call of its function with
// the other fields, in their order, and 0. It owns what it refers to, but for
// the memory of the device.
type RawLaunch struct {
	Function   uintptr        // cuLaunchKernelEx
	Config     unsafe.Pointer // CUlaunchConfig
	Kernel     uintptr        // CUfunction
	Parameters unsafe.Pointer // void *[1]
}

// RawLaunch returns what SelectDevice would launch, for a comparison with the
// same launch by other means. A plan with another number of kernels than one,
// and a default stream, are errors that wrap [ErrUnsupported].
func (s *Selector) RawLaunch(stream *Stream, logits Logits, shape Shape, result Result, workspace Workspace) (RawLaunch, error) {
	if err := s.usable(); err != nil {
		return RawLaunch{}, err
	}
	plan, err := s.plan(shape, logits.DType)
	if err != nil {
		return RawLaunch{}, err
	}
	if err := s.check(stream, plan, logits, shape, result, workspace); err != nil {
		return RawLaunch{}, err
	}
	if len(plan.kernels) != 1 || !s.device.needsNoContext(stream) {
		return RawLaunch{}, fmt.Errorf("cuda: plan %q as a single call of the driver: %w", plan.Name, ErrUnsupported)
	}
	c := newCall(s.device)
	c.set(plan, logits, shape, result, workspace, s.options.Smallest)
	l := plan.Kernels[0]
	c.launch.Configure(l.Grid, l.Block, l.Cluster, s.options.Dependent)
	c.launch.Aim(plan.kernels[0], stream.handle)
	var raw RawLaunch
	raw.Function, raw.Config, raw.Kernel, raw.Parameters = c.launch.Raw()
	return raw, nil
}
