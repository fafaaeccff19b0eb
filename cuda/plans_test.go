package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// hand1 is a GPU of tests.
var hand1 = Properties{Name: "Hand 1", Major: 9, Multiprocessors: 132}

// planFile returns a file of plans for the GPU, one entry for each shape.
func planFile(t testing.TB, of Properties, plan planfile.DevicePlan, shapes ...PlanShape) string {
	t.Helper()
	file := planfile.New[planfile.DevicePlan](of.tuned())
	for _, s := range shapes {
		file.Entries = append(file.Entries, planfile.Entry[planfile.DevicePlan]{
			Shape: planfile.Shape{Rows: s.Rows, Vocab: s.Vocab, TopK: s.K, DType: s.DType.String()},
			Plan:  plan, BuiltInUS: 3, TunedUS: 2, Gain: 1.5, GainLow: 1.4, GainHigh: 1.6, Confidence: 0.95, Pairs: 9,
		})
	}
	var text bytes.Buffer
	if err := file.Encode(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestLoadPlans(t *testing.T) {
	arch, err := ParseArchitecture("sm_90")
	if err != nil {
		t.Fatal(err)
	}
	row := PlanShape{1, 50304, 50, BFloat16}
	wanted := planfile.DevicePlan{Name: PlanTwoStage, Groups: 128, Chunks: 7}
	plans, err := LoadPlans(strings.NewReader(planFile(t, hand1, wanted, row)))
	if err != nil {
		t.Fatal(err)
	}
	if err := plans.check(hand1, arch); err != nil {
		t.Error(err)
	}
	if plan, ok := plans.of(row); !ok || plan != wanted || plans.Len() != 1 {
		t.Errorf("%+v, %v", plan, ok)
	}
	for _, other := range []PlanShape{{2, 50304, 50, BFloat16}, {1, 50304, 51, BFloat16}, {1, 50304, 50, Float16}} {
		if plan, ok := plans.of(other); ok {
			t.Errorf("%+v has the plan %+v", other, plan)
		}
	}
	other := hand1
	other.Name, other.Multiprocessors = "Hand 2", 8
	if err := plans.check(other, arch); !errors.Is(err, topk.ErrPlans) || !strings.Contains(err.Error(), "Hand 1") || !strings.Contains(err.Error(), "Hand 2") {
		t.Errorf("of another device: %v", err)
	}
}

// A plan that is none, or that does not fit its shape on the device, is an error
// that names the entry.
func TestLoadPlansRefuses(t *testing.T) {
	arch, err := ParseArchitecture("sm_90")
	if err != nil {
		t.Fatal(err)
	}
	row := PlanShape{1, 50304, 50, BFloat16}
	for _, c := range []struct {
		plan  planfile.DevicePlan
		words []string
	}{
		{planfile.DevicePlan{Name: "fast", Groups: 128, Chunks: 1}, []string{"entries[0].plan", `"fast"`}},
		{planfile.DevicePlan{Name: PlanBlock, Groups: 300, Chunks: 1}, []string{"entries[0].plan", "300"}},
		{planfile.DevicePlan{Name: PlanBlock, Groups: 128, Chunks: 2}, []string{"entries[0].plan", "2 chunks"}},
		{planfile.DevicePlan{Name: PlanCluster, Groups: 128, Chunks: 3}, []string{"entries[0].plan", "3 blocks"}},
		{planfile.DevicePlan{Name: PlanTwoStage, Groups: 128, Chunks: 100}, []string{"entries[0].plan", "100 chunks"}},
	} {
		plans, err := LoadPlans(strings.NewReader(planFile(t, hand1, c.plan, row)))
		if err == nil {
			err = plans.check(hand1, arch)
		}
		if !errors.Is(err, topk.ErrPlans) {
			t.Errorf("%+v: %v", c.plan, err)
			continue
		}
		for _, word := range c.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
	}
	good := planFile(t, hand1, planfile.DevicePlan{Name: PlanBlock, Groups: 128, Chunks: 1}, row)
	for _, c := range []struct{ from, to, words string }{
		{`"kind": "cuda"`, `"kind": "cpu"`, `device.kind = "cpu", want "cuda"`},
		{`"multiprocessors": 132`, `"multiprocessors": 0`, "device.multiprocessors = 0"},
		{`"groups": 128`, `"groups": -128`, "entries[0].plan.groups = -128"},
		{`"chunks": 1`, `"chunks": 0`, "entries[0].plan.chunks = 0"},
		{`"plan_version": 1`, `"plan_version": 0`, "plan_version = 0"},
	} {
		if _, err := LoadPlans(strings.NewReader(strings.Replace(good, c.from, c.to, 1))); !errors.Is(err, topk.ErrPlans) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want it to say %q", c.to, err, c.words)
		}
	}
}

// Whatever stands in a file, it is an error, or every plan fits its shape.
func FuzzLoadPlans(f *testing.F) {
	for _, plan := range []planfile.DevicePlan{{Name: PlanBlock, Groups: 256, Chunks: 1}, {Name: PlanCluster, Groups: 128, Chunks: 8}, {Name: PlanTwoStage, Groups: 512, Chunks: 5}} {
		f.Add([]byte(planFile(f, hand1, plan, PlanShape{1, 151936, 50, Float32}, PlanShape{32, 50304, 50, BFloat16})))
	}
	arch, err := ParseArchitecture("sm_90")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		plans, err := LoadPlans(bytes.NewReader(text))
		if err == nil {
			err = plans.check(hand1, arch)
		}
		if err != nil {
			if !errors.Is(err, topk.ErrPlans) {
				t.Errorf("%v does not wrap ErrPlans", err)
			}
			return
		}
		for _, shape := range plans.shapes {
			tuned, ok := plans.of(shape)
			plan, err := ChoosePlan(shape, arch, PlanOptions{Name: tuned.Name, Groups: tuned.Groups, Chunks: tuned.Chunks})
			if !ok || err != nil || plan.Name != tuned.Name || plan.Chunks != tuned.Chunks || plan.Groups != tuned.Groups {
				t.Errorf("%+v: %v, %v, %s", shape, ok, err, fmt.Sprint(plan))
			}
		}
	})
}
