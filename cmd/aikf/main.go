// Command aikf selects the top k of rows of logits, samples tokens from them, and
// measures how fast that goes. Run "aikf help" for the list of commands.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/progress"
)

// Exit codes.
const (
	exitDone        = 0
	exitWrong       = 1   // a wrong result, a missed bar or a regression
	exitUsage       = 2   // bad usage, bad input, or a device that is not there
	exitInternal    = 3   // an internal failure, such as I/O or a device fault
	exitInterrupted = 130 // Ctrl-C, or SIGTERM
)

// exitError is an error that decides the exit code. Any other error is
// internal.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usageErrorf reports bad usage or bad input.
func usageErrorf(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// wrongErrorf reports a wrong result or a missed bar.
func wrongErrorf(format string, args ...any) error {
	return &exitError{exitWrong, fmt.Errorf(format, args...)}
}

// console is where a command reads and writes.
type console struct {
	in  io.Reader
	out io.Writer // results only
	err io.Writer // errors, notes and progress
	// progress says whether err is a terminal that erases lines, so that progress
	// may be drawn. It has no colours, so that NO_COLOR is of no account.
	progress bool
}

// quietUsage is the help of --quiet.
const quietUsage = "no progress, also on a terminal"

// bar returns a line of progress, or one that is not drawn.
func (c console) bar(quiet bool) *progress.Bar { return progress.New(c.err, c.progress && !quiet) }

// command is one word after aikf.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args []string, c console) error
}

var commands = []command{
	{"bench", "measure top-k and sampling against the read floor and other software (the main job)", runBench},
	{"topk", "select the top k of rows in a file, or of requests on standard input", runTopK},
	{"sample", "draw tokens from rows in a file", runSample},
	{"explain", "say what each step of a sampling chain does to a row", runExplain},
	{"profile", "say where the time of a call goes", runProfile},
	{"tune", "search for faster launch plans of this machine, for a plan file", runTune},
	{"plan", "print the launch plan of a shape", runPlan},
	{"report", "make a page and Markdown of the records in a folder", runReport},
	{"info", "print the CPU's features, the tier that is chosen, and the GPU", runInfo},
	{"verify", "compare with a reference over random and adversarial rows", runVerify},
}

func usage(w io.Writer) {
	fmt.Fprint(w, `aikf: streaming top-k and token sampling for LLM decoding.

Usage: aikf COMMAND [flags]

Commands:
`)
	for _, c := range commands {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
"aikf COMMAND --help" explains a command's flags, with examples; "aikf version"
prints the version.
Exit codes: 0 done, 1 wrong result or missed bar, 2 bad usage or input,
3 internal failure, 130 interrupted.
`)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second one ends the program at once
	c := console{in: os.Stdin, out: os.Stdout, err: os.Stderr, progress: isTerminal(os.Stderr) && os.Getenv("TERM") != "dumb"}
	os.Exit(run(ctx, os.Args[1:], c))
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, c console) int {
	if len(args) == 0 {
		usage(c.err)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		if len(args) > 1 && args[0] == "help" {
			return run(ctx, []string{args[1], "--help"}, c)
		}
		usage(c.out)
		return exitDone
	case "version", "-version", "--version":
		version, commit := buildVersion()
		fmt.Fprintln(c.out, strings.TrimSpace("aikf "+version+" "+commit))
		return exitDone
	}
	if len(args) == 2 && args[0] == bench.SelfTestWord {
		return exitCode(bench.Contest(args[1], c.in, c.out), c)
	}
	for _, command := range commands {
		if command.name == args[0] {
			return exitCode(command.run(ctx, args[1:], c), c)
		}
	}
	fmt.Fprintf(c.err, "aikf: unknown command %q; \"aikf help\" lists them\n", args[0])
	return exitUsage
}

// exitCode prints the error, if any, and returns its exit code.
func exitCode(err error, c console) int {
	var coded *exitError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(c.err, "aikf: interrupted")
		return exitInterrupted
	case errors.As(err, &coded):
		fmt.Fprintf(c.err, "aikf: %v\n", err)
		return coded.code
	}
	fmt.Fprintf(c.err, "aikf: %v\n", err)
	return exitInternal
}

// newFlags returns a flag set whose help shows usage, the examples and the
// flags. parseFlags uses it.
func newFlags(name, usage, examples string, c console) *flag.FlagSet {
	return newFlagsShown(name, usage, examples, c, func(flags *flag.FlagSet) {
		flags.VisitAll(func(f *flag.Flag) { printFlag(flags.Output(), f) })
	})
}

// newFlagsShown is newFlags for a command that shows its flags in its own way.
func newFlagsShown(name, usage, examples string, c console, show func(*flag.FlagSet)) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(c.err)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "Usage: aikf %s %s\n\nExamples:\n%s\nFlags:\n", name, usage, examples)
		show(flags)
	}
	return flags
}

// printFlag prints what flag.PrintDefaults does, with two dashes.
func printFlag(w io.Writer, f *flag.Flag) {
	value, usage := flag.UnquoteUsage(f)
	if value != "" {
		value = " " + value
	}
	fmt.Fprintf(w, "  --%s%s\n    \t%s", f.Name, value, usage)
	switch f.DefValue {
	case "", "0", "0s", "false":
	default:
		fmt.Fprintf(w, " (default %s)", f.DefValue)
	}
	fmt.Fprintln(w)
}

// parseFlags parses args; flags may stand before and after the other words,
// which it returns. Asking for help prints it to standard output.
func parseFlags(flags *flag.FlagSet, args []string, c console) (words []string, err error) {
	for {
		var help bool
		for _, arg := range args {
			if arg == "--" {
				break
			}
			if arg == "-h" || arg == "-help" || arg == "--help" {
				help = true
			}
		}
		if help {
			flags.SetOutput(c.out)
			flags.Usage()
			return nil, flag.ErrHelp
		}
		usage := flags.Usage
		flags.Usage = func() {} // one line is enough for a mistake
		flags.SetOutput(io.Discard)
		err := flags.Parse(args)
		flags.Usage = usage
		if err != nil {
			message := strings.NewReplacer("defined: -", "defined: --", "flag -", "flag --", "argument: -", "argument: --").Replace(err.Error())
			return nil, usageErrorf("%s: %s; \"aikf %s --help\" lists the flags", flags.Name(), message, flags.Name())
		}
		args = flags.Args()
		if len(args) == 0 {
			return words, nil
		}
		words, args = append(words, args[0]), args[1:]
	}
}

// isTerminal reports whether f is a character device, as a terminal is.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
