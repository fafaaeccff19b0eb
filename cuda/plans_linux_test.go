//go:build linux && (amd64 || arm64)

package cuda

import (
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// A Selector takes the plan of a shape from the file, and that of another shape, or
// a forced one, as before. Plans of another device are refused.
func TestPlansOfASelector(t *testing.T) {
	standIn(t)
	d := open(t, 0)
	shape := PlanShape{2, 5000, 50, BFloat16}
	load := func(of Properties) *TunedPlans {
		plans, err := LoadPlans(strings.NewReader(planFile(t, of, planfile.DevicePlan{Name: PlanTwoStage, Groups: 128, Chunks: 7}, shape)))
		if err != nil {
			t.Fatal(err)
		}
		return plans
	}
	planOf := func(o Options, rows int) Plan {
		s, err := d.NewSelector(o)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := s.Plan(Shape{Rows: rows, Vocab: shape.Vocab, K: shape.K}, shape.DType)
		if err != nil {
			t.Fatal(err)
		}
		return plan
	}
	plans := load(d.Properties())
	if plan := planOf(Options{Plans: plans}, 2); plan.Name != PlanTwoStage || plan.Groups != 128 || plan.Chunks != 7 {
		t.Errorf("the plan of the file is %v", plan)
	}
	if plan := planOf(Options{Plans: plans}, 3); plan.String() != planOf(Options{}, 3).String() {
		t.Errorf("a shape that the file does not have has the plan %v", plan)
	}
	if plan := planOf(Options{Plans: plans, Plan: &Plan{Name: PlanAny}}, 2); plan.Name != PlanAny {
		t.Errorf("forced, the plan is %v", plan)
	}
	other := d.Properties()
	other.Multiprocessors++
	_, err := d.NewSelector(Options{Plans: load(other)})
	wantError(t, err, topk.ErrPlans, "plans of "+other.tuned().String(), "this is "+d.Properties().tuned().String())
}
