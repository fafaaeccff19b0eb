package topk_test

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

// wantError wants an error that wraps is and whose message holds all words.
func wantError(t *testing.T, err, is error, words ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("error %v, want one that wraps %v", err, is)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not tell %s", err, word)
		}
	}
}

// The suite of topktest tries every bad shape; here is what only package topk
// has.
func TestBadOptions(t *testing.T) {
	logits, dst := []float32{1, 2, 3}, topk.NewResult[float32](1, 2)
	for _, test := range []struct {
		options topk.Options
		is      error
		words   []string
	}{
		{topk.Options{Tier: "sse9"}, topk.ErrTier, []string{"sse9", "pure"}},
		{topk.Options{Tier: "PURE"}, topk.ErrTier, []string{"PURE"}},
		{topk.Options{Threads: -3}, topk.ErrShape, []string{"-3"}},
		{topk.Options{TargetCandidates: -500}, topk.ErrShape, []string{"-500"}},
	} {
		s := topk.Selector[float32]{Options: test.options}
		wantError(t, s.Select(dst, logits, topk.Row(3, 2)), test.is, test.words...)
		_, err := topk.NewStream[float32](2, test.options)
		wantError(t, err, test.is, test.words...)
		wantError(t, topk.Merge(dst, 1, 2, test.options, dst), test.is, test.words...)
	}
	if slices.Max(dst.Values) != 0 || slices.Max(dst.Indices) != 0 {
		t.Errorf("an error wrote %v", dst)
	}
}

func TestBadMerge(t *testing.T) {
	type result = topk.Result[float32]
	two, three := topk.NewResult[float32](1, 2), topk.NewResult[float32](1, 3)
	negative := result{Values: []float32{1, 2}, Indices: []int32{4, -6}}
	huge := math.MaxInt/2 + 1
	for name, test := range map[string]struct {
		dst     result
		rows, k int
		shards  []result
		numbers []int
	}{
		"too few entries":  {three, 1, 3, []result{two}, []int{3, 2}},
		"no shards":        {three, 1, 3, nil, []int{3, 0}},
		"rows negative":    {three, -1, 3, []result{three}, []int{-1}},
		"k negative":       {three, 1, -2, []result{three}, []int{-2}},
		"rows * k":         {three, huge, 4, []result{three}, []int{huge, 4}},
		"short result":     {two, 1, 3, []result{three}, []int{2, 3}},
		"uneven shard":     {three, 2, 1, []result{two, three}, []int{1, 3, 2}},
		"values missing":   {three, 1, 1, []result{{Indices: []int32{1}}}, []int{0, 1}},
		"indices missing":  {three, 1, 1, []result{{Values: []float32{1}}}, []int{0, 1}},
		"entries, no rows": {three, 0, 3, []result{three}, []int{3, 0}},
		"negative index":   {two, 1, 2, []result{two, negative}, []int{1, -6}},
	} {
		t.Run(name, func(t *testing.T) {
			var words []string
			for _, n := range test.numbers {
				words = append(words, strconv.Itoa(n))
			}
			wantError(t, topk.Merge(test.dst, test.rows, test.k, topk.Options{}, test.shards...), topk.ErrShape, words...)
			if slices.Max(test.dst.Values) != 0 || slices.Max(test.dst.Indices) != 0 {
				t.Errorf("an error wrote %v", test.dst)
			}
		})
	}
}

func TestSelectRefusesWhatASelectorRefuses(t *testing.T) {
	dst := topk.NewResult[topk.Float16](1, 2)
	err := topk.Select(dst, make([]topk.Float16, 5), topk.Row(5, 6))
	wantError(t, err, topk.ErrShape, "6", "5")
}

func TestTiers(t *testing.T) {
	tiers := topk.Tiers()
	if len(tiers) == 0 || tiers[len(tiers)-1] != "pure" {
		t.Fatalf("tiers %v, want pure as the last", tiers)
	}
	tiers[0] = "changed by the caller"
	if again := topk.Tiers(); again[0] == tiers[0] {
		t.Error("Tiers hands out its own memory")
	}
}
