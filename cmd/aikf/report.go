package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ai-kernel-factory/aikf/internal/report"
)

const reportExamples = `  aikf report
        report/report.html and report/report.md, made of the records in results
  aikf bench --acceptance --device cpu --out mine/acceptance.json; aikf report mine --out mine
        a report of one's own machine

The page is one file that needs no network. Files that are not records, or are
damaged, are named on standard error and in the report; the rest is shown.
`

// runReport writes what a folder of records says as a page and as Markdown.
func runReport(_ context.Context, args []string, c console) error {
	flags := newFlags("report", "[flags] [FOLDER]", reportExamples, c)
	out := flags.String("out", "report", "`folder` for report.html and report.md")
	words, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	folder := "results"
	switch len(words) {
	case 0:
	case 1:
		folder = words[0]
	default:
		return usageErrorf("report: unexpected word %s", quote(words[1]))
	}
	if info, err := os.Stat(folder); err != nil {
		return usageErrorf("report: %w", err)
	} else if !info.IsDir() {
		return usageErrorf("report: %s is not a folder", quote(folder))
	}
	var lab report.Lab
	lab.Sources, lab.Problems = report.ReadSources(os.DirFS(folder))
	for _, problem := range lab.Problems {
		fmt.Fprintf(c.err, "aikf: %v\n", problem)
	}
	if len(lab.Sources) == 0 {
		return usageErrorf("report: no record in %s", quote(folder))
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	for _, file := range []struct {
		name  string
		write func(io.Writer) error
	}{{"report.html", lab.HTML}, {"report.md", lab.Markdown}} {
		name := filepath.Join(*out, file.name)
		if err := writeFile(name, file.write); err != nil {
			return err
		}
		fmt.Fprintln(c.out, name)
	}
	if len(lab.Problems) > 0 {
		return usageErrorf("report: %d files could not be read", len(lab.Problems))
	}
	return nil
}

// writeFile writes a file anew.
func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
