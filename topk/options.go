package topk

import (
	"fmt"

	"github.com/ai-kernel-factory/aikf/internal/cpu/key"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// Options steer a selection. The zero value is right for most callers. Only
// Smallest changes the answer; the others change the time.
type Options struct {
	// Smallest asks for the k smallest logits, smallest first; NaN is last,
	// and equal logits keep the smaller index first.
	Smallest bool
	// Threads bounds the goroutines that share the rows of one call. 0 lets
	// the launch plan decide: several only when the batch is large enough.
	Threads int
	// Tier forces an instruction set: "avx512", "avx2", "neon" or "pure".
	// Empty: the best this machine has. See [Tiers].
	Tier string
	// TargetCandidates overrides how many candidates the first stage aims to
	// leave for the second. 0 lets the launch plan decide.
	TargetCandidates int
	// Plans are used by a [Selector] for the shapes that they have, unless the
	// options above say otherwise. Their tier must be that of the selection. See
	// [LoadPlans].
	Plans *TunedPlans
}

// Tiers lists the instruction sets that this machine can run, best first.
func Tiers() []string {
	var names []string
	for _, tier := range simd.Available() {
		names = append(names, tier.String())
	}
	return names
}

// tier resolves the option.
func (o Options) tier() (simd.Tier, error) {
	if o.Tier == "" {
		return simd.Best(), nil
	}
	for _, tier := range simd.Available() {
		if tier.String() == o.Tier {
			return tier, nil
		}
	}
	return 0, fmt.Errorf("topk: tier %q, this machine has %v: %w", o.Tier, Tiers(), ErrTier)
}

// validate reports options out of range and returns the tier they name.
func (o Options) validate() (simd.Tier, error) {
	switch {
	case o.Threads < 0:
		return 0, fmt.Errorf("topk: threads = %d is negative: %w", o.Threads, ErrShape)
	case o.TargetCandidates < 0:
		return 0, fmt.Errorf("topk: target candidates = %d is negative: %w", o.TargetCandidates, ErrShape)
	}
	tier, err := o.tier()
	if err == nil {
		err = o.Plans.check(tier)
	}
	return tier, err
}

// orderOf returns the total order of T's bits under the options.
func orderOf[T Float](o Options) key.Order {
	order := key.Float32
	var zero T
	switch any(zero).(type) {
	case Float16:
		order = key.Float16
	case BFloat16:
		order = key.BFloat16
	}
	if o.Smallest {
		return order.Smallest()
	}
	return order
}
