package bench

import (
	"fmt"
	"slices"
	"strings"
)

// The sweeps: what varies.
const (
	SweepRows  = "rows"
	SweepVocab = "vocab"
	SweepK     = "k"
	SweepGrid  = "grid" // rows by k, for a map of the distance from the floor
)

// Sweeps lists them.
func Sweeps() []string { return []string{SweepRows, SweepVocab, SweepK, SweepGrid} }

// What a sweep visits. The vocabularies are those of models that are in use, and
// powers of two between them; k ends at the largest that a GPU selects.
var (
	sweptRows   = []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}
	sweptVocabs = []int{4096, 16384, 32768, 50304, 65536, 102400, 128256, 151936, 200064, 262144}
	sweptKs     = []int{1, 2, 5, 10, 20, 50, 100, 200, 500, 1024, 2048}
	gridRows    = []int{1, 4, 16, 64, 256}
	gridKs      = []int{1, 10, 50, 200, 1024}
)

// Sweep returns the cases that differ from around in what is swept, around
// itself among them, in rising order. Those whose k exceeds their vocab are left out.
func Sweep(name string, around Case) ([]Case, error) {
	rows, vocabs, ks := []int{around.Batch}, []int{around.Vocab}, []int{around.TopK}
	with := func(swept []int, own int) []int {
		all := append(slices.Clone(swept), own)
		slices.Sort(all)
		return slices.Compact(all)
	}
	switch name {
	case SweepRows:
		rows = with(sweptRows, around.Batch)
	case SweepVocab:
		vocabs = with(sweptVocabs, around.Vocab)
	case SweepK:
		ks = with(sweptKs, around.TopK)
	case SweepGrid:
		rows, ks = with(gridRows, around.Batch), with(gridKs, around.TopK)
	default:
		return nil, fmt.Errorf("sweep %q is not one of %s", name, strings.Join(Sweeps(), ", "))
	}
	var cases []Case
	for _, batch := range rows {
		for _, vocab := range vocabs {
			for _, k := range ks {
				c := around
				c.Batch, c.Vocab, c.TopK = batch, vocab, k
				if k <= vocab {
					cases = append(cases, c)
				}
			}
		}
	}
	return cases, nil
}
