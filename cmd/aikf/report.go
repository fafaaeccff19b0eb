package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ai-kernel-factory/aikf/internal/report"
)

const reportExamples = `  aikf report
        report/report.html and report/report.md, made of the records in results
  aikf report --device cpu --out mine
        measure this machine first, two or three minutes; the records stay in mine/records
  aikf report mine/records --out mine
        the same again, without measuring

  aikf report --compare before after
        what got faster or slower between two files or folders of records; exit
        code 1 if something is slower past --threshold, or wrong

Each record of a comparison is one run; with four or more on each side a test
tells a change from noise, so repeat the same bench, in turns:
  for i in 1 2 3 4 5; do old bench --out before/$i.json; new bench --out after/$i.json; done

The page is one file that needs no network. Files that are not records, or are
damaged, are named on standard error and in the report; the rest is shown.
`

// runReport writes what a folder of records says as a page and as Markdown.
func runReport(ctx context.Context, args []string, c console) error {
	flags := newFlags("report", "[flags] [FOLDER]\n       aikf report --compare [flags] OLD NEW", reportExamples, c)
	out := flags.String("out", "report", "`folder` for report.html and report.md")
	device := flags.String("device", "", "measure that `device` first: auto, cpu, cuda or cuda:N; the records go to records in --out")
	against := flags.String("against", "", "other software to measure, with --device; a `list`, see \"aikf bench --help\"")
	compare := flags.Bool("compare", false, "compare two files or folders of records, OLD and NEW")
	threshold := flags.Float64("threshold", 5, "the `percent` from which on a change counts, with --compare")
	format := flags.String("format", report.Table, "`table` or md, with --compare")
	words, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	if *compare {
		return compareRecords(words, *threshold, *format, c)
	}
	folder := "results"
	switch {
	case *against != "" && *device == "":
		return usageErrorf("report: --against needs --device: records say what they were measured against")
	case *device != "" && len(words) > 0:
		return usageErrorf("report: --device measures anew; leave out %s", quote(words[0]))
	case *device != "":
		folder = filepath.Join(*out, "records")
		if err := measureRecords(ctx, *device, *against, folder, c); err != nil {
			return err
		}
	case len(words) == 1:
		folder = words[0]
	case len(words) > 1:
		return usageErrorf("report: unexpected word %s", quote(words[1]))
	}
	var lab report.Lab
	lab.Sources, lab.Problems, err = readRecords(folder, c)
	if err != nil {
		return err
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

// measurement is one command that leaves a record.
type measurement struct {
	run     func(ctx context.Context, args []string, c console) error
	args    []string
	printed string // the file for a record that the command prints; "" if it writes a file itself
}

// measurements are what a report of a device is made of; their records go to the
// folder.
func measurements(choice deviceChoice, against, folder string) []measurement {
	bench := func(file string, args ...string) measurement {
		return measurement{runBench, append([]string{"--device", choice.text, "--out", filepath.Join(folder, file)}, args...), ""}
	}
	others := []string{}
	if against != "" {
		others = []string{"--against", against}
	}
	return []measurement{
		bench("matrix.json", others...),
		bench("sweep.json", append([]string{"--sweep", "rows,vocab,k,grid"}, others...)...),
		bench("adversarial.json", "--rows", "adversarial,peaked", "--batch", "1", "--top-k", "50,200"),
		bench("sample.json", "--work", "sample", "--batch", "1"),
		{runProfile, []string{"--device", choice.text, "--batch", "1,32", "--top-k", "50,200", "--format", "json"}, filepath.Join(folder, "profile.json")},
	}
}

// measureRecords leaves new records of a device in the folder. If it is
// interrupted it says where those are that were finished.
func measureRecords(ctx context.Context, device, against, folder string, c console) error {
	choice, err := parseDevice(device)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for done, m := range measurements(choice, against, folder) {
		var printed bytes.Buffer
		mute := c
		mute.out = &printed
		if err := m.run(ctx, m.args, mute); err != nil {
			if done > 0 {
				fmt.Fprintf(c.err, "aikf: report: %d whole records are in %s\n", done, folder)
			}
			return err
		}
		if m.printed == "" {
			continue
		}
		if err := os.WriteFile(m.printed, printed.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// readRecords reads a folder of records, or one file. Those that are damaged it
// names, on standard error too.
func readRecords(name string, c console) (sources []report.Source, problems []error, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, usageErrorf("report: %w", err)
	}
	if info.IsDir() {
		sources, problems = report.ReadSources(os.DirFS(name))
	} else if source, err := report.ReadSource(os.DirFS(filepath.Dir(name)), filepath.Base(name)); err != nil {
		problems = []error{err}
	} else {
		sources = []report.Source{source}
	}
	for _, problem := range problems {
		fmt.Fprintf(c.err, "aikf: %v\n", problem)
	}
	if len(sources) == 0 {
		return nil, problems, usageErrorf("report: no record in %s", quote(name))
	}
	return sources, problems, nil
}

// compareRecords says what changed between two sets of records.
func compareRecords(words []string, threshold float64, format string, c console) error {
	if len(words) != 2 {
		return usageErrorf("report: --compare with %d files or folders, want 2: OLD and NEW", len(words))
	}
	if !(threshold >= 0) {
		return usageErrorf("report: --threshold = %v, want 0 or more", threshold)
	}
	if err := checkFormat(format, report.Table, report.Markdown); err != nil {
		return err
	}
	var sides [2][]report.Source
	damaged := 0
	for i, name := range words {
		sources, problems, err := readRecords(name, c)
		if err != nil {
			return err
		}
		sides[i] = sources
		damaged += len(problems)
	}
	comparison := report.Compare(sides[0], sides[1], threshold/100)
	if len(comparison.Changes) == 0 {
		return usageErrorf("report: no case is in both %s and %s: of the same machine, shape and conditions", quote(words[0]), quote(words[1]))
	}
	if err := comparison.Write(c.out, format); err != nil {
		return err
	}
	switch worse := len(comparison.Regressions()); {
	case worse > 0:
		return wrongErrorf("report: %d of %d cases are slower by more than %g %%, or wrong", worse, len(comparison.Changes), threshold)
	case damaged > 0:
		return usageErrorf("report: %d files could not be read", damaged)
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
