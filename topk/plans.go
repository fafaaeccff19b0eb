package topk

import (
	"cmp"
	"fmt"
	"io"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
)

// TunedPlans are launch plans that "aikf tune" found to be faster on this machine
// than the built-in ones, each for one number of rows, vocab, k and dtype. Make
// them with [LoadPlans] and hand them to any number of [Selector]s; they do not
// change.
type TunedPlans struct {
	tier    simd.Tier
	tunings map[planfile.Shape]*cpu.Tuning
}

// LoadPlans reads a file that "aikf tune --device cpu" wrote. A file of another
// CPU, of another version of the plans or with a number that no plan can have is
// an error that wraps [ErrPlans] and names the field.
func LoadPlans(from io.Reader) (*TunedPlans, error) {
	file, err := planfile.Decode[cpu.Tuning](from, planfile.CPU)
	if err != nil {
		return nil, fmt.Errorf("topk: %w", err)
	}
	p := &TunedPlans{tier: simd.Best(), tunings: map[planfile.Shape]*cpu.Tuning{}}
	for _, tier := range simd.Available() {
		if tier.String() == file.Device.Tier {
			p.tier = tier
		}
	}
	here := planfile.Device{Kind: planfile.CPU, Name: cmp.Or(cpu.Model(), planfile.Unknown), Tier: p.tier.String()}
	if !file.Device.Is(here) {
		return nil, fmt.Errorf("topk: device: plans of %v, this is %v: %w", file.Device, here, ErrPlans)
	}
	for i := range file.Entries {
		p.tunings[file.Entries[i].Shape] = &file.Entries[i].Plan
	}
	return p, nil
}

// Len returns how many shapes have a plan.
func (p *TunedPlans) Len() int { return len(p.tunings) }

// tuningOf returns the plan of the shape for logits of type T, or nil.
func tuningOf[T Float](p *TunedPlans, rows, vocab, k int) *cpu.Tuning {
	if p == nil {
		return nil
	}
	dtype := "float32"
	var zero T
	switch any(zero).(type) {
	case Float16:
		dtype = "float16"
	case BFloat16:
		dtype = "bfloat16"
	}
	return p.tunings[planfile.Shape{Rows: rows, Vocab: vocab, TopK: k, DType: dtype}]
}

// check reports plans of another tier than the one that is to be used.
func (p *TunedPlans) check(tier simd.Tier) error {
	if p != nil && p.tier != tier {
		return fmt.Errorf("topk: plans of tier %q, the selection is of tier %q: %w", p.tier, tier, ErrPlans)
	}
	return nil
}
