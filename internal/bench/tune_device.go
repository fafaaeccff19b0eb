package bench

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// DevicePlans is a file of plans of a GPU.
type DevicePlans = planfile.File[planfile.DevicePlan]

// NewDevicePlans returns a file without plans for the device.
func (r *DeviceRunner) NewDevicePlans() DevicePlans {
	gpu := r.GPU()
	return planfile.New[planfile.DevicePlan](planfile.Device{
		Kind: planfile.CUDA, Name: gpu.Name, ComputeCapability: gpu.ComputeCapability, Multiprocessors: gpu.Multiprocessors,
	})
}

// The numbers that a search tries, of plans that have a choice.
var (
	triedGroupCounts   = []int{128, 256, 512}
	triedClusterChunks = []int{2, 4, 8, 16}
	triedStageChunks   = []int{2, 3, 4, 6, 8, 12, 16, 24, 32}
)

// Tune is that of [Runner] for a GPU. Times are those of nodes in a graph that is
// replayed, with the logits in the cache.
func (r *DeviceRunner) Tune(ctx context.Context, cases []Case, file *DevicePlans, budget time.Duration, save func() error, progress func(TuneStep)) error {
	return tuneAll(ctx, r.clock(), cases, file, budget, func(c Case) (*search[planfile.DevicePlan], error) {
		if err := r.Validate(c); err != nil {
			return nil, err
		}
		shape := cuda.PlanShape{Rows: c.Batch, Vocab: c.Vocab, K: c.TopK, DType: cudaDTypes[c.DType]}
		arch := r.device.architecture()
		builtIn, err := cuda.ChoosePlan(shape, arch, cuda.PlanOptions{})
		if err != nil {
			return nil, err
		}
		s := &search[planfile.DevicePlan]{plans: devicePlans(shape, arch, builtIn), builtIn: devicePlanOf(builtIn)}
		s.explain = func(p planfile.DevicePlan) string {
			plan, err := cuda.ChoosePlan(shape, arch, cuda.PlanOptions{Name: p.Name, Groups: p.Groups, Chunks: p.Chunks})
			if err != nil {
				return err.Error()
			}
			return plan.String()
		}
		s.open = func(start int) (arena[planfile.DevicePlan], error) {
			switch c.DType {
			case Float16:
				return newDeviceArena[topk.Float16](ctx, r, c, start)
			case BFloat16:
				return newDeviceArena[topk.BFloat16](ctx, r, c, start)
			}
			return newDeviceArena[float32](ctx, r, c, start)
		}
		return s, nil
	}, save, progress)
}

func devicePlanOf(p cuda.Plan) planfile.DevicePlan {
	return planfile.DevicePlan{Name: p.Name, Groups: p.Groups, Chunks: p.Chunks}
}

// devicePlans lists the plans that fit the shape, but the built-in one.
func devicePlans(shape cuda.PlanShape, arch cuda.Architecture, builtIn cuda.Plan) (all []planfile.DevicePlan) {
	chunks := map[string][]int{cuda.PlanCluster: triedClusterChunks, cuda.PlanTwoStage: triedStageChunks}
	for _, name := range []string{cuda.PlanBlock, cuda.PlanCluster, cuda.PlanTwoStage, cuda.PlanAny} {
		for _, chunks := range slices.Concat([]int{0}, chunks[name]) { // 0: the plan's own choice
			for _, groups := range triedGroupCounts {
				plan, err := cuda.ChoosePlan(shape, arch, cuda.PlanOptions{Name: name, Groups: groups, Chunks: chunks})
				if err == nil && plan.String() != builtIn.String() && !slices.Contains(all, devicePlanOf(plan)) {
					all = append(all, devicePlanOf(plan))
				}
			}
		}
	}
	return all
}

// deviceArena is logits on a GPU.
type deviceArena[T topk.Float] struct {
	*deviceBatch[T]
	m *rotation
}

func newDeviceArena[T topk.Float](ctx context.Context, r *DeviceRunner, c Case, start int) (*deviceArena[T], error) {
	anew := *r
	anew.Seed += uint64(start)
	b, err := newDeviceBatch[T](ctx, &anew, c, cuda.Options{})
	if err != nil {
		return nil, err
	}
	m, err := b.newRotation(len(b.inputs))
	if err != nil {
		b.close()
		return nil, err
	}
	return &deviceArena[T]{b, m}, nil
}

func (a *deviceArena[T]) close() {
	a.m.close()
	a.deviceBatch.close()
}

func (a *deviceArena[T]) enter(plan planfile.DevicePlan) (_ lap, err error) {
	l := &deviceLap[T]{arena: a}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	options := cuda.Options{}
	if plan != (planfile.DevicePlan{}) {
		options.Plan = &cuda.Plan{Name: plan.Name, Groups: plan.Groups, Chunks: plan.Chunks}
	}
	if l.selector, err = a.r.device.selector(options); err != nil {
		return nil, err
	}
	if l.plan, err = l.selector.plan(a.shape, a.dtype); err != nil {
		return nil, err
	}
	if l.plan.WorkspaceBytes > 0 {
		if l.workspace, err = a.r.device.allocate(l.plan.WorkspaceBytes); err != nil {
			return nil, err
		}
	}
	if err = l.check(); err != nil {
		return nil, err
	}
	l.sampler, err = a.r.newSampler(Graph, deviceContestant{a.m.buffers, l.call})
	return l, err
}

// deviceLap times one plan on a GPU.
type deviceLap[T topk.Float] struct {
	arena     *deviceArena[T]
	selector  deviceSelector
	plan      cuda.Plan
	workspace deviceMemory // nil if the plan needs none
	sampler   deviceSampler
}

func (l *deviceLap[T]) call(buffer int) error {
	var scratch cuda.Workspace
	if l.workspace != nil {
		scratch = cuda.Workspace{Pointer: l.workspace.pointer(), Bytes: l.plan.WorkspaceBytes}
	}
	a := l.arena
	return l.selector.selectDevice(a.logitsOf(a.m, buffer), a.shape, a.m.resultOf(buffer), scratch)
}

func (l *deviceLap[T]) check() error {
	if err := l.arena.m.spoil(); err != nil {
		return err
	}
	for i := range l.arena.m.buffers {
		if err := l.call(i); err != nil {
			return err
		}
	}
	_, err := l.arena.check(l.arena.m)
	return err
}

func (l *deviceLap[T]) time() (float64, error) {
	elapsed, _, err := l.sampler.sample()
	return microseconds(elapsed) / float64(l.sampler.calls), err
}

func (l *deviceLap[T]) close() error {
	err := l.sampler.close()
	if l.workspace != nil {
		err = errors.Join(err, l.workspace.close())
	}
	if l.selector != nil {
		err = errors.Join(err, l.selector.close())
	}
	return err
}
