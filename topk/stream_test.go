package topk_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

func TestStreamRoomGrows(t *testing.T) {
	// No room is taken for candidates that may never come.
	s, err := topk.NewStream[float32](math.MaxInt32, topk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	logits := make([]float32, 100_000)
	for i := range logits {
		logits[i] = float32(i * 7919 % 1000)
	}
	if err := s.Push(logits); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(topk.Result[float32]{}); !errors.Is(err, topk.ErrShape) {
		t.Errorf("finishing %d logits: %v, want %v", len(logits), err, topk.ErrShape)
	}
	const k = 90_000 // more than the room at the start
	s, err = topk.NewStream[float32](k, topk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for chunk := range slices.Chunk(logits, 999) {
		if err := s.Push(chunk); err != nil {
			t.Fatal(err)
		}
	}
	got, want := topk.NewResult[float32](1, k), topk.NewResult[float32](1, k)
	if err := s.Finish(got); err != nil {
		t.Fatal(err)
	}
	if err := topk.Select(want, logits, topk.Row(len(logits), k)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Indices, want.Indices) || !slices.Equal(got.Values, want.Values) {
		t.Error("a stream of a large k differs from Select")
	}
}

// A chunk of few and small logits, then one whose guess brings little more than
// k candidates before the room is full: the cut then keeps some of the first.
func TestStreamCutAmongOlderCandidates(t *testing.T) {
	for _, tier := range topk.Tiers() {
		for _, k := range []int{4000, 8000, 12000} {
			for trial := range 6 {
				rng := rand.New(rand.NewPCG(uint64(k), uint64(trial)))
				logits := make([]float32, 2*k-1+(20+4*trial)*k)
				for i := range logits {
					logits[i] = float32(rng.NormFloat64())
					if i < 2*k-1 {
						logits[i] -= 100
					}
				}
				s, err := topk.NewStream[float32](k, topk.Options{Tier: tier})
				if err != nil {
					t.Fatal(err)
				}
				for _, chunk := range [][]float32{logits[:2*k-1], logits[2*k-1:]} {
					if err := s.Push(chunk); err != nil {
						t.Fatal(err)
					}
				}
				got, want := topk.NewResult[float32](1, k), topk.NewResult[float32](1, k)
				if err := s.Finish(got); err != nil {
					t.Fatal(err)
				}
				if err := topk.Select(want, logits, topk.Row(len(logits), k)); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got.Indices, want.Indices) {
					t.Errorf("tier %s, k = %d, trial %d: a stream differs from Select", tier, k, trial)
				}
			}
		}
	}
}
