package topk_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// thisCPU is what plans of a tier of this machine are of.
func thisCPU(tier string) planfile.Device {
	name := cpu.Model()
	if name == "" {
		name = planfile.Unknown
	}
	return planfile.Device{Kind: planfile.CPU, Name: name, Tier: tier, Cores: 3}
}

// planFile returns a file of plans for this machine's best tier, one for each
// shape.
func planFile(t testing.TB, tuning cpu.Tuning, shapes ...planfile.Shape) string {
	t.Helper()
	file := planfile.New[cpu.Tuning](thisCPU(topk.Tiers()[0]))
	for _, shape := range shapes {
		file.Entries = append(file.Entries, planfile.Entry[cpu.Tuning]{
			Shape: shape, Plan: tuning, BuiltInUS: 3, TunedUS: 2, Gain: 1.5, GainLow: 1.4, GainHigh: 1.6, Confidence: 0.95, Pairs: 9,
		})
	}
	var text bytes.Buffer
	if err := file.Encode(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// oddTunings reach the ends of what a plan file may say.
var oddTunings = []cpu.Tuning{
	{Step: 1, Deviations: 16, Groups: 64, Chunk: 64, Threads: 3}, {Step: 255, Deviations: 0.125, Groups: 1}, {Step: 3, Chunk: 4096, Threads: 1 << 16}, {Deviations: 0.125},
}

// checkPlans holds a selection with plans against the oracle's answers.
func checkPlans[T topk.Float](t *testing.T, options topk.Options, logits []T, shape topk.Shape) {
	t.Helper()
	answers := topktest.NewAnswers(logits)
	selector := &topk.Selector[T]{Options: options}
	for range 2 { // the second call has the plan already
		if err := answers.CheckSelect(selector, shape, false); err != nil {
			t.Errorf("%s, %+v: %v", topktest.DType[T](), shape, err)
		}
	}
}

// No plan changes an answer, whatever the rows.
func TestPlansChangeNoAnswer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i, tuning := range oddTunings {
		for _, shape := range []topk.Shape{{Rows: 3, Vocab: 20000, K: 50}, {Rows: 1, Vocab: 5000, K: 600}, {Rows: 2, Vocab: 70000, K: 1}} {
			var shapes []planfile.Shape
			for _, dtype := range topktest.DTypes() {
				shapes = append(shapes, planfile.Shape{Rows: shape.Rows, Vocab: shape.Vocab, TopK: shape.K, DType: dtype})
			}
			plans, err := topk.LoadPlans(strings.NewReader(planFile(t, tuning, shapes...)))
			if err != nil {
				t.Fatal(err)
			}
			if plans.Len() != 3 {
				t.Fatalf("%d plans", plans.Len())
			}
			kinds := topktest.Rows()
			for j := i % 3; j < len(kinds); j += 3 {
				row := kinds[j].Make(rng, shape.Rows*shape.Vocab)
				options := topk.Options{Plans: plans}
				checkPlans(t, options, row, shape)
				checkPlans(t, options, topktest.Convert[topk.Float16](row), shape)
				checkPlans(t, options, topktest.Convert[topk.BFloat16](row), shape)
			}
		}
	}
}

// A Selector whose plans are changed takes the new ones, and allocates nothing
// when they are not.
func TestPlansOfASelector(t *testing.T) {
	logits := topktest.Random(rand.New(rand.NewPCG(1, 1)), 20000)
	shape, dst := topk.Row(20000, 50), topk.NewResult[float32](1, 50)
	of := planfile.Shape{Rows: 1, Vocab: 20000, TopK: 50, DType: "float32"}
	var selector topk.Selector[float32]
	for _, tuning := range oddTunings {
		plans, err := topk.LoadPlans(strings.NewReader(planFile(t, tuning, of)))
		if err != nil {
			t.Fatal(err)
		}
		selector.Options.Plans = plans
		checkPlans(t, selector.Options, logits, shape)
		var failed error
		call := func() { failed = errors.Join(failed, selector.Select(dst, logits, shape)) }
		call()
		if n := testing.AllocsPerRun(10, call); n != 0 && !raceEnabled || failed != nil {
			t.Errorf("%+v: %v allocations, %v", tuning, n, failed)
		}
	}
}

// Files that cannot be used say which field is wrong, and name both devices.
func TestLoadPlansRefuses(t *testing.T) {
	best, cores := topk.Tiers()[0], thisCPU("x").Name
	good := planFile(t, cpu.Tuning{Step: 9, Deviations: 2.5}, planfile.Shape{Rows: 1, Vocab: 50304, TopK: 50, DType: "float32"})
	if _, err := topk.LoadPlans(strings.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, words string }{
		{good, "", "nothing to read"},
		{good, "[]", "cannot unmarshal array"},
		{good, good[:len(good)/2], "unexpected EOF"},
		{good, good + "{}", "something follows"},
		{`"schema": 1`, `"schema": 2`, "schema = 2, this version reads 1"},
		{`"plan_version": 1`, `"plan_version": 7`, "plan_version = 7, this version of the library has 1"},
		{`"kind": "cpu"`, `"kind": "cuda"`, `device.kind = "cuda", want "cpu"`},
		{`"name": "` + cores, `"name": "Some Other`, "plans of CPU Some Other"},
		{`"name": "` + cores, `"name": "Some Other`, "this is CPU " + cores},
		{`"tier": "` + best, `"tier": "vax`, "tier vax"},
		{`"tier": "` + best, `"tier": "vax`, "tier " + best},
		{`"sample_step": 9`, `"sample_step": 8`, "entries[0].plan.sample_step = 8"},
		{`"sample_step": 9`, `"sample_step": 99999999999999999999`, "plan.sample_step"},
		{`"sample_step": 9`, `"sample_stop": 9`, "sample_stop"},
		{`"deviations": 2.5`, `"deviations": -1`, "entries[0].plan.deviations = -1"},
		{`"rows": 1`, `"rows": 0`, "entries[0].rows = 0"},
		{`"vocab": 50304`, `"vocab": 49`, "entries[0].top_k = 50"},
		{`"dtype": "float32"`, `"dtype": "float64"`, `entries[0].dtype = "float64"`},
		{`"gain_low": 1.4`, `"gain_low": 0.9`, "entries[0].gain_low = 0.9"},
		{`"not_kept": []`, `"not_kept": [{"rows": 1, "vocab": 50304, "top_k": 50, "dtype": "float32", "plan": {}, "explained": "", "plans_tried": 1,
			"built_in_us": 1, "tuned_us": 1, "gain": 1, "gain_low": 1, "gain_high": 1, "confidence": 0.9, "pairs": 1, "starts": 1, "least_start": 1}]`, "comes twice"},
	} {
		text := strings.Replace(good, c.from, c.to, 1)
		if text == good {
			t.Errorf("%s is not in the file", c.from)
		}
		plans, err := topk.LoadPlans(strings.NewReader(text))
		if !errors.Is(err, topk.ErrPlans) || plans != nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want it to say %q", c.to, err, c.words)
		}
	}
	broken := errors.New("broken")
	if _, err := topk.LoadPlans(iotest.ErrReader(broken)); !errors.Is(err, broken) || errors.Is(err, topk.ErrPlans) {
		t.Errorf("a reader that fails: %v", err)
	}
	endless := io.MultiReader(strings.NewReader(`{"command": "`), &endlessReader{})
	if _, err := topk.LoadPlans(endless); !errors.Is(err, topk.ErrPlans) {
		t.Errorf("a file without an end: %v", err)
	}
}

// endlessReader reads an endless word.
type endlessReader struct{}

func (*endlessReader) Read(to []byte) (int, error) {
	for i := range to {
		to[i] = 'a'
	}
	return len(to), nil
}

// Plans of one tier are refused by a selection of another.
func TestPlansOfAnotherTier(t *testing.T) {
	tiers := topk.Tiers()
	if len(tiers) < 2 {
		t.Skip("this machine has one tier only")
	}
	plans, err := topk.LoadPlans(strings.NewReader(planFile(t, cpu.Tuning{})))
	if err != nil {
		t.Fatal(err)
	}
	selector := topk.Selector[float32]{Options: topk.Options{Plans: plans, Tier: tiers[1]}}
	err = selector.Select(topk.Result[float32]{}, nil, topk.Shape{})
	if !errors.Is(err, topk.ErrPlans) || !strings.Contains(err.Error(), tiers[0]) || !strings.Contains(err.Error(), tiers[1]) {
		t.Errorf("%v, want it to name %s and %s", err, tiers[0], tiers[1])
	}
}

// Whatever stands in a file, it is an error, or plans that change no answer.
func FuzzLoadPlans(f *testing.F) {
	for i, tuning := range append(oddTunings, cpu.Tuning{}) {
		f.Add([]byte(planFile(f, tuning, planfile.Shape{Rows: 1 + i, Vocab: 600 * (i + 1), TopK: 5, DType: topktest.DTypes()[i%3]})))
	}
	f.Add([]byte(`{"schema": 1}`))
	logits := topktest.Random(rand.New(rand.NewPCG(1, 1)), 1<<14)
	f.Fuzz(func(t *testing.T, text []byte) {
		plans, err := topk.LoadPlans(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, topk.ErrPlans) {
				t.Errorf("%v does not wrap ErrPlans", err)
			}
			return
		}
		file, err := planfile.Decode[cpu.Tuning](bytes.NewReader(text), planfile.CPU)
		if err != nil {
			t.Fatal(err)
		}
		options := topk.Options{Plans: plans, Tier: file.Device.Tier} // any tier of this machine may stand there
		for _, e := range file.Entries[:min(4, len(file.Entries))] {
			if e.Rows > len(logits)/e.Vocab {
				continue
			}
			rows, shape := logits[:e.Rows*e.Vocab], topk.Shape{Rows: e.Rows, Vocab: e.Vocab, K: e.TopK}
			switch e.DType {
			case "float16":
				checkPlans(t, options, topktest.Convert[topk.Float16](rows), shape)
			case "bfloat16":
				checkPlans(t, options, topktest.Convert[topk.BFloat16](rows), shape)
			default:
				checkPlans(t, options, rows, shape)
			}
		}
	})
}
