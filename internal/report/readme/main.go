// Command readme fills in what the project's Markdown shows of records and of
// programs. It runs in the root of the project.
//
//	go run ./internal/report/readme           rewrites the files
//	go run ./internal/report/readme -check    fails if one is out of date
//
// What stands between these lines is generated:
//
//	<!-- generated: results/2026-01-02-machine-bench.json -->
//	<!-- end -->
//
// A record is shown as "aikf bench --format md" prints it, a .go file as code, and
// schema:Type as the fields of that type in a record. docs/records.schema.json is
// generated, too.
// Every record in results and every link to a file of the project is checked,
// too.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/report"
)

func main() {
	check := flag.Bool("check", false, "change nothing; fail if a file is out of date")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1)
	}
}

// run brings all Markdown files up to date, or reports those that are not.
func run(check bool) error {
	project := os.DirFS(".")
	files, err := markdown(project)
	if err != nil {
		return err
	}
	problems := []error{checkRecords(project), bringSchema(project, check)}
	for _, name := range files {
		old, err := fs.ReadFile(project, name)
		if err != nil {
			return err
		}
		text, err := fill(project, string(old))
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		case text == string(old):
		case check:
			problems = append(problems, fmt.Errorf("%s is out of date; go run ./internal/report/readme", name))
		default:
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				return err
			}
			fmt.Println("wrote", name)
		}
		for _, link := range deadLinks(project, name, text) {
			problems = append(problems, fmt.Errorf("%s links to %s, which is not there", name, link))
		}
	}
	return errors.Join(problems...)
}

// bringSchema is run for the schema of records.
func bringSchema(project fs.FS, check bool) error {
	all, err := schemaOf(project)
	if err != nil {
		return err
	}
	text, err := all.encode()
	if err != nil {
		return err
	}
	old, err := fs.ReadFile(project, schemaFile)
	switch {
	case err == nil && string(old) == string(text):
		return nil
	case check:
		return fmt.Errorf("%s is out of date; go run ./internal/report/readme", schemaFile)
	}
	fmt.Println("wrote", schemaFile)
	return os.WriteFile(schemaFile, text, 0o644)
}

// markdown lists the project's Markdown files, but for those of tests.
func markdown(project fs.FS) (files []string, err error) {
	err = fs.WalkDir(project, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || len(name) > 1 && strings.HasPrefix(entry.Name(), ".")):
			return fs.SkipDir
		case path.Ext(name) == ".md":
			files = append(files, name)
		}
		return nil
	})
	return files, err
}

// generated matches a generated part: its two lines, the file and what is shown.
var generated = regexp.MustCompile(`(?ms)^(<!-- generated: (\S+) -->\n).*?^(<!-- end -->)$`)

// fill returns the text with all of its generated parts up to date.
func fill(project fs.FS, text string) (string, error) {
	if opened, closed := strings.Count(text, "\n<!-- generated: "), len(generated.FindAllString(text, -1)); opened != closed {
		return "", fmt.Errorf("%d generated parts begin, %d of them end", opened, closed)
	}
	var problems []error
	text = generated.ReplaceAllStringFunc(text, func(part string) string {
		lines := generated.FindStringSubmatch(part)
		shown, err := show(project, lines[2])
		if err != nil {
			problems = append(problems, err)
		}
		return lines[1] + shown + lines[3]
	})
	return text, errors.Join(problems...)
}

// show returns the Markdown of a record or a program.
func show(project fs.FS, name string) (string, error) {
	if of, ok := strings.CutPrefix(name, "schema:"); ok {
		return fieldTable(project, of)
	}
	switch path.Ext(name) {
	case ".json":
		source, err := report.ReadSource(project, name)
		switch {
		case err != nil:
			return "", err
		case source.Python != nil:
			return source.Python.Markdown(), nil
		case source.Bench == nil:
			return "", fmt.Errorf("%s is no record that is shown", name)
		}
		var b strings.Builder
		err = report.Write(&b, report.Markdown, *source.Bench)
		return b.String(), err
	case ".go":
		program, err := fs.ReadFile(project, name)
		return "```go\n" + string(program) + "```\n", err
	}
	return "", fmt.Errorf("%s is neither a record, .json, nor a program, .go", name)
}

// checkRecords reports the files in results that are not valid: records of the
// benchmark, of the profiler, of verify and of Python.
func checkRecords(project fs.FS) error {
	names, err := fs.Glob(project, "results/*.json")
	problems := []error{err}
	for _, name := range names {
		source, err := report.ReadSource(project, name)
		if err == nil && source.Verified != nil && source.Verified.Outcome != "equal" {
			err = fmt.Errorf("%s: outcome = %q", name, source.Verified.Outcome)
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

var (
	code = regexp.MustCompile("(?s)```.*?```|`[^`]*`")
	link = regexp.MustCompile(`\]\(([^)#\s]+)[^)\s]*\)`)
)

// deadLinks returns the links of the file to files that are not there.
func deadLinks(project fs.FS, name, text string) (dead []string) {
	for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
		if strings.Contains(found[1], ":") {
			continue // of another place
		}
		if _, err := fs.Stat(project, path.Join(path.Dir(name), found[1])); err != nil {
			dead = append(dead, found[1])
		}
	}
	return dead
}
