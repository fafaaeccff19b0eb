package bench

import (
	"slices"
	"testing"
)

func TestSweep(t *testing.T) {
	around := Case{Work: TopK, Source: Random, Batch: 3, Vocab: 1500, TopK: 30, DType: Float32}
	for name, want := range map[string]int{
		SweepRows:  len(sweptRows) + 1,
		SweepVocab: len(sweptVocabs) + 1,
		SweepK:     len(sweptKs), // 30 more, 2,048 less: it exceeds the vocab
		SweepGrid:  (len(gridRows) + 1) * (len(gridKs) + 1),
	} {
		cases, err := Sweep(name, around)
		if err != nil || len(cases) != want {
			t.Errorf("%s: %d cases, %v; want %d", name, len(cases), err, want)
		}
		if !slices.Contains(cases, around) {
			t.Errorf("%s leaves out %v", name, around)
		}
		for _, c := range cases {
			if err := c.Validate(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := Sweep("columns", around); err == nil {
		t.Error("a sweep over columns is no error")
	}
}
