package cuda

import (
	"fmt"
	"io"

	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// TunedPlans are launch plans that "aikf tune" found to be faster on one kind of
// device than the built-in ones, each for one number of rows, vocab, k and dtype.
// They do not change, and serve any number of [Selector]s.
type TunedPlans struct {
	device planfile.Device
	shapes []PlanShape // in the order of the file
	plans  map[PlanShape]planfile.DevicePlan
}

// LoadPlans reads a file that "aikf tune --device cuda" wrote. A file of another
// version of the plans, or with a number that no plan can have, is an error that
// wraps [topk.ErrPlans] and names the field. Whether the plans are of a device
// is seen when its [Device.NewSelector] is given them.
func LoadPlans(from io.Reader) (*TunedPlans, error) {
	file, err := planfile.Decode[planfile.DevicePlan](from, planfile.CUDA)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	p := &TunedPlans{device: file.Device, plans: map[PlanShape]planfile.DevicePlan{}}
	for i, e := range file.Entries {
		if err := (PlanOptions{Name: e.Plan.Name, Groups: e.Plan.Groups, Chunks: e.Plan.Chunks}).validate(); err != nil {
			return nil, fmt.Errorf("entries[%d].plan: %w: %w", i, err, topk.ErrPlans)
		}
		shape := PlanShape{Rows: e.Rows, Vocab: e.Vocab, K: e.TopK}
		for t, names := range dtypes {
			if names.name == e.DType {
				shape.DType = DType(t)
			}
		}
		p.shapes, p.plans[shape] = append(p.shapes, shape), e.Plan
	}
	return p, nil
}

// Len returns how many shapes have a plan.
func (p *TunedPlans) Len() int { return len(p.shapes) }

// of returns the plan of the shape, if there is one.
func (p *TunedPlans) of(shape PlanShape) (planfile.DevicePlan, bool) {
	if p == nil {
		return planfile.DevicePlan{}, false
	}
	plan, ok := p.plans[shape]
	return plan, ok
}

// check reports plans of another device, or that do not fit their shapes on it.
func (p *TunedPlans) check(of Properties, arch Architecture) error {
	if p == nil {
		return nil
	}
	if here := of.tuned(); !p.device.Is(here) {
		return fmt.Errorf("plans of %v, this is %v: %w", p.device, here, topk.ErrPlans)
	}
	for i, shape := range p.shapes {
		plan := p.plans[shape]
		if _, err := ChoosePlan(shape, arch, PlanOptions{Name: plan.Name, Groups: plan.Groups, Chunks: plan.Chunks}); err != nil {
			return fmt.Errorf("plans, entries[%d].plan: %w: %w", i, err, topk.ErrPlans)
		}
	}
	return nil
}

// tuned is what plans are searched for on.
func (p Properties) tuned() planfile.Device {
	return planfile.Device{
		Kind: planfile.CUDA, Name: p.Name, ComputeCapability: fmt.Sprintf("%d.%d", p.Major, p.Minor), Multiprocessors: p.Multiprocessors,
	}
}
