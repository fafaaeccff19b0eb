package topk_test

import (
	"errors"
	"math"
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
