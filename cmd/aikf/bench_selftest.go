package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/report"
)

// selfTest has the benchmark measure contestants that cheat, and says of each
// whether it was caught.
func (f benchFlags) selfTest(ctx context.Context, c console) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	bar := c.bar(f.quiet)
	all, err := bench.SelfTest(ctx, program, func(done, total int, name string) {
		bar.Set(done, total, fmt.Sprintf("%d of %d: %s", done+1, total, name))
	})
	bar.Clear()
	if err != nil {
		return benchError(ctx, "bench", err)
	}
	missed := 0
	for _, contestant := range all {
		if !contestant.Good {
			missed++
		}
	}
	if f.format == report.JSON {
		encoder := json.NewEncoder(c.out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(all); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(c.out, "passed       a selector in this process that is right")
		for _, does := range bench.WrongSelectors() {
			fmt.Fprintf(c.out, "caught       a selector in this process that %s\n", does)
		}
		for _, contestant := range all {
			fmt.Fprintf(c.out, "%-12s %s: %s\n", outcome(contestant), contestant.Name, contestant.Does)
			for _, doubt := range contestant.Doubts {
				fmt.Fprintf(c.out, "             %s\n", doubt)
			}
		}
	}
	if missed > 0 {
		return wrongErrorf("bench: %d of %d contestants were misjudged", missed, len(all))
	}
	return nil
}

// outcome is what became of a contestant, in a word or two.
func outcome(c bench.Caught) string {
	switch {
	case c.Good && len(c.Wanted) == 0:
		return "passed"
	case c.Good:
		return "caught"
	case len(c.Wanted) == 0:
		return "NOT BELIEVED"
	}
	return "NOT CAUGHT, want " + strings.Join(c.Wanted, " and ")
}
