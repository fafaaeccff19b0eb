package topktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

// wrong is a selector with one defect: it changes a right answer.
type wrong[T topk.Float] struct {
	topk.Selector[T]
	spoil func(dst topk.Result[T], logits []T, shape topk.Shape)
}

func (w *wrong[T]) Select(dst topk.Result[T], logits []T, shape topk.Shape) error {
	err := w.Selector.Select(dst, logits, shape)
	if err == nil && shape.K > 0 && shape.Rows > 0 {
		w.spoil(dst, logits, shape)
	}
	return err
}

// defects are mistakes that a selector might make, each of them small.
func defects[T topk.Float]() map[string]func(dst topk.Result[T], logits []T, shape topk.Shape) {
	return map[string]func(dst topk.Result[T], logits []T, shape topk.Shape){
		"ties in the other order": func(dst topk.Result[T], logits []T, shape topk.Shape) {
			sort.SliceStable(dst.Indices[:shape.RowResults(0)], func(a, b int) bool {
				return bits(dst.Values[a]) == bits(dst.Values[b]) && dst.Indices[a] > dst.Indices[b]
			})
		},
		"one sign of zero": func(dst topk.Result[T], _ []T, shape topk.Shape) {
			for i, v := range dst.Values[:shape.RowResults(0)] {
				if value(v) == 0 {
					dst.Values[i] = fromBits[T](0)
				}
			}
		},
		"one NaN for all": func(dst topk.Result[T], _ []T, shape topk.Shape) {
			for i, v := range dst.Values[:shape.RowResults(0)] {
				if isNaN(value(v)) {
					dst.Values[i] = Alphabet[T]()[0]
				}
			}
		},
		"an index in the batch, not in the row": func(dst topk.Result[T], _ []T, shape topk.Shape) {
			for i := shape.K; i < shape.Rows*shape.K; i++ {
				dst.Indices[i] += int32(shape.Vocab)
			}
		},
		"a write past the end": func(dst topk.Result[T], _ []T, shape topk.Shape) {
			dst.Indices[shape.Rows*shape.K] = 0
		},
		"a short row filled up": func(dst topk.Result[T], _ []T, shape topk.Shape) {
			for i := shape.RowResults(0); i < shape.K; i++ {
				dst.Values[i] = fromBits[T](0)
			}
		},
		"a logit overwritten": func(_ topk.Result[T], logits []T, _ topk.Shape) {
			if len(logits) > 0 {
				logits[len(logits)-1] = fromBits[T](bits(logits[len(logits)-1]) ^ 1)
			}
		},
	}
}

// withDefect returns the pure CPU with one defect in every dtype.
func withDefect(name string) Backend {
	backend := CPU("pure")
	backend.Name = name
	backend.Float32.NewSelector = spoiled(defects[float32]()[name])
	backend.Float16.NewSelector = spoiled(defects[topk.Float16]()[name])
	backend.BFloat16.NewSelector = spoiled(defects[topk.BFloat16]()[name])
	return backend
}

func spoiled[T topk.Float](spoil func(topk.Result[T], []T, topk.Shape)) func(topk.Options) Selector[T] {
	return func(options topk.Options) Selector[T] {
		return &wrong[T]{Selector: topk.Selector[T]{Options: options}, spoil: spoil}
	}
}

// Every wrong selector must be found, in every dtype, and found again from what
// the difference says.
func TestVerifyRejectsWrongSelectors(t *testing.T) {
	for name := range defects[float32]() {
		for _, dtype := range DTypes() {
			config := VerifyConfig{
				Backends: []Backend{CPU("pure"), withDefect(name)},
				DTypes:   []string{dtype}, Seed: 7, Cases: 300,
			}
			_, err := Verify(t.Context(), config)
			var found *Difference
			if !errors.As(err, &found) {
				t.Errorf("%s, %s: not rejected: %v", name, dtype, err)
				continue
			}
			if found.DType != dtype || found.Seed != 7 || !strings.Contains(err.Error(), name) {
				t.Errorf("%s, %s: a difference that names another: %v", name, dtype, err)
			}
			config.First, config.Cases = found.Case, 1
			counts, again := Verify(t.Context(), config)
			if again == nil || again.Error() != err.Error() || counts.Cases != 1 {
				t.Errorf("%s, %s: case %d gave %v, then %v", name, dtype, found.Case, err, again)
			}
		}
	}
}

func TestVerifyAcceptsTheEngine(t *testing.T) {
	counts, err := Verify(t.Context(), VerifyConfig{Backends: []Backend{CPU("pure")}, Seed: 1, Cases: 30})
	if err != nil {
		t.Error(err)
	}
	if counts.Cases != 30 || counts.Calls < 120 || counts.Rows < counts.Cases {
		t.Errorf("%+v: not the work that was meant", counts)
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	counts, err := Verify(ctx, VerifyConfig{Backends: []Backend{CPU("pure")}})
	if !errors.Is(err, context.Canceled) || counts.Cases != 1 {
		t.Errorf("%+v, %v: want one case and %v", counts, err, context.Canceled)
	}
}

func TestVerifyRefusesAnUnknownDType(t *testing.T) {
	_, err := Verify(t.Context(), VerifyConfig{Backends: []Backend{CPU("pure")}, DTypes: []string{"float64"}})
	if !errors.Is(err, topk.ErrDType) || !strings.Contains(err.Error(), "float64") {
		t.Errorf("%v, want %v", err, topk.ErrDType)
	}
	if _, err := Verify(t.Context(), VerifyConfig{}); err == nil {
		t.Error("no backend was accepted")
	}
}

// What the random cases are made of must hold what matters.
func TestCasesCoverShapes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	see := func(what string, is bool) {
		if is {
			seen[what]++
		}
	}
	const cases = 2000
	for range cases {
		shape := randomShape(rng)
		q := randomQuestion(rng, shape)
		shape.K, shape.RowK = q.k, q.rowK
		if err := shape.Validate(); err != nil {
			t.Fatal(err)
		}
		see("no rows", shape.Rows == 0)
		see("many rows", shape.Rows > 20)
		see("padded", shape.Stride > shape.Vocab)
		see("expanded", shape.Expand)
		see("ragged", shape.RowLengths != nil)
		see("k of its own", shape.RowK != nil)
		see("k is the vocab", shape.K == shape.Vocab && shape.Vocab > 0)
		see("k is 0", shape.K == 0)
		see("several chunks", shape.Vocab > 16384)
		see("smallest", q.smallest)
		see("empty chunk", slices.Contains(q.chunks, 0))
		see("shards", len(q.cuts) > 0)
	}
	for _, what := range []string{"no rows", "many rows", "padded", "expanded", "ragged", "k of its own",
		"k is the vocab", "k is 0", "several chunks", "smallest", "empty chunk", "shards"} {
		if seen[what] == 0 {
			t.Errorf("%s: %d of %d cases", what, seen[what], cases)
		}
	}
}
