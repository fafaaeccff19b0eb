package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/report"
	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

const benchExamples = `  aikf bench
        the reference matrix and a row of real logits
  aikf bench --batch 1,8 --vocab 151936 --top-k 50,1024 --dtype float32,float16
        every combination
  aikf bench --against torch,numpy
        other software too, in a python3 that has it
  aikf bench --rows adversarial --tier avx512,avx2,pure
  aikf bench --logits model.safetensors:logits --top-k 50
  aikf bench --acceptance
        every figure that has a bar; exit code 1 if one misses its must
  aikf bench --format json > results/today.json

The reference of work "topk" is a typed heap over the row, what Go programs do
today; of "stream" one Select; of "merge" a sort of all entries.
AIKF_PYTHON names the python3 for --against; without it, those in PATH and
/usr/bin are tried in turn.
`

// benchFlags are the flags of aikf bench, as given.
type benchFlags struct {
	batch, vocab, topK, threads       intList
	dtype                             dtypeList
	logits, against, rows, work, tier string
	device, format                    string
	iters                             int
	seed                              uint64
	acceptance                        bool
}

// runBench measures, and prints what came of it.
func runBench(ctx context.Context, args []string, c console) error {
	var f benchFlags
	flags := newFlags("bench", "[flags]", benchExamples, c)
	flags.Var(&f.batch, "batch", "rows in a batch; a `list` (default: the reference matrix)")
	flags.Var(&f.vocab, "vocab", "logits in a row; a `list` (default 50304)")
	flags.Var(&f.topK, "top-k", "results for each row; a `list` (default: the reference matrix)")
	flags.Var(&f.dtype, "dtype", "float32, float16, bfloat16; a `list` (default bfloat16, or that of --logits)")
	flags.IntVar(&f.iters, "iters", 200, "timed samples of each contestant, at most; a sample is 200 us of calls or more")
	flags.StringVar(&f.logits, "logits", "", "real rows from a .safetensors or .npy `file[:tensor]`")
	flags.StringVar(&f.against, "against", "", "other software to measure: torch, numpy; a `list`")
	flags.StringVar(&f.rows, "rows", "", "random, real, adversarial, or an adversarial row's name; a `list`")
	flags.StringVar(&f.work, "work", bench.TopK, "topk, stream, merge; a `list`")
	flags.StringVar(&f.tier, "tier", "", "avx512, avx2, neon, pure; a `list` (default: the best here)")
	flags.Var(&f.threads, "threads", "threads that share a batch; a `list` (default 1)")
	flags.StringVar(&f.device, "device", "auto", "`device`: auto, cpu, cuda or cuda:N")
	flags.StringVar(&f.format, "format", report.Table, "table, md, json or csv")
	flags.BoolVar(&f.acceptance, "acceptance", false, "measure every figure that has a bar")
	flags.Uint64Var(&f.seed, "seed", 1, "of the random rows")
	words, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	if len(words) > 0 {
		return usageErrorf("bench: unexpected word %s", quote(words[0]))
	}
	if err := checkDevice(f.device); err != nil {
		return err
	}
	if err := checkFormat(f.format, report.Formats()...); err != nil {
		return err
	}
	if f.iters < 1 {
		return usageErrorf("bench: iters = %d is less than 1", f.iters)
	}
	target, err := targetCandidates()
	if err != nil {
		return err
	}
	runner := &bench.Runner{
		Iters: f.iters, Budget: 2 * time.Second, Seed: f.seed, Real: bench.RealLogits(), TargetCandidates: target,
	}
	var cases []bench.Case
	if f.acceptance {
		if flag := f.shaped(); flag != "" {
			return usageErrorf("bench: --acceptance measures cases of its own; leave out --%s", flag)
		}
	} else if cases, err = f.cases(runner); err != nil {
		return err
	}
	record := bench.Record{
		Schema: bench.Schema, Machine: bench.ThisMachine(), Command: commandLine(args), Commit: bench.Commit(),
		Date: time.Now().UTC().Truncate(time.Second), Seed: f.seed, TargetCandidates: target,
	}
	defer func() {
		for _, peer := range runner.Peers {
			peer.Close()
		}
	}()
	if runner.Peers, record.Notes, err = startPeers(ctx, f.against, c.err); err != nil {
		return err
	}
	if err := bench.SelfCheck(); err != nil {
		return benchError(ctx, err)
	}
	progress := func(done, total int, next bench.Case) {
		if c.progress {
			fmt.Fprintf(c.err, "\r\x1b[K%d of %d: %v", done+1, total, next)
		}
	}
	if f.acceptance {
		record.Acceptance, record.Results, err = runner.Acceptance(ctx, bench.Bars(), progress)
	} else {
		record.Results, err = measureAll(ctx, runner, cases, progress)
	}
	if c.progress {
		fmt.Fprint(c.err, "\r\x1b[K")
	}
	if err != nil {
		return benchError(ctx, err)
	}
	if err := report.Write(c.out, f.format, record); err != nil {
		return err
	}
	return missed(record.Acceptance)
}

// benchError says what kind of failure err is.
func benchError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, bench.ErrWrong):
		return wrongErrorf("bench: %w", err)
	}
	return err
}

// missed reports the bars that missed their must.
func missed(verdicts []bench.Verdict) error {
	var works []string
	for _, v := range verdicts {
		if v.Verdict == bench.Missed {
			works = append(works, v.Work)
		}
	}
	if len(works) == 0 {
		return nil
	}
	return wrongErrorf("bench: %d of %d bars missed: %s", len(works), len(verdicts), strings.Join(works, "; "))
}

func measureAll(ctx context.Context, runner *bench.Runner, cases []bench.Case, progress func(int, int, bench.Case)) ([]bench.Result, error) {
	var results []bench.Result
	for i, c := range cases {
		progress(i, len(cases), c)
		result, err := runner.Measure(ctx, c)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// shaped returns the name of a flag that chooses cases, if one was given.
func (f benchFlags) shaped() string {
	for _, flag := range []struct {
		name    string
		changed bool
	}{
		{"batch", f.batch != nil}, {"vocab", f.vocab != nil}, {"top-k", f.topK != nil}, {"dtype", f.dtype != nil},
		{"logits", f.logits != ""}, {"rows", f.rows != ""}, {"work", f.work != bench.TopK}, {"tier", f.tier != ""},
		{"threads", f.threads != nil},
	} {
		if flag.changed {
			return flag.name
		}
	}
	return ""
}

// cases returns what the flags ask for: the reference matrix and a row of real
// logits, or the product of all lists. It loads the file of real logits.
func (f benchFlags) cases(runner *bench.Runner) ([]bench.Case, error) {
	if f.logits != "" {
		logits, err := readLogits(f.logits)
		if err != nil {
			return nil, err
		}
		runner.Real = logits
		if f.rows == "" {
			f.rows = bench.Real
		}
	}
	sources, err := f.sources()
	if err != nil {
		return nil, err
	}
	shapes := bench.Matrix()
	if f.batch != nil || f.vocab != nil || f.topK != nil || f.dtype != nil || !slices.Contains(sources, bench.Random) {
		shapes = f.shapes(runner.Real, sources)
	} else if f.rows == "" {
		sources = nil // as the matrix has them, and a row of real logits
		shapes = append(shapes, bench.RealCase())
	}
	tiers := list(f.tier)
	for _, tier := range tiers {
		if !slices.Contains(topk.Tiers(), tier) {
			return nil, usageErrorf("bench: this machine has no tier %q, only %s", tier, strings.Join(topk.Tiers(), ", "))
		}
	}
	if len(tiers) == 0 {
		tiers = topk.Tiers()[:1]
	}
	if len(list(f.work)) == 0 {
		return nil, usageErrorf("bench: work is empty")
	}
	if slices.Contains(f.threads, 0) {
		return nil, usageErrorf("bench: --threads = 0, want 1 or more: a figure names its threads")
	}
	var cases []bench.Case
	for _, work := range list(f.work) {
		for _, tier := range tiers {
			for _, threads := range orDefault(f.threads, 1) {
				for _, c := range shapes {
					c.Work, c.Tier, c.Threads = work, tier, threads
					rows := sources
					if rows == nil {
						rows = []string{c.Source}
					}
					for _, c.Source = range rows {
						if err := runner.Validate(c); err != nil {
							return nil, usageErrorf("bench: %w", err)
						}
						cases = append(cases, c)
					}
				}
			}
		}
	}
	return cases, nil
}

// sources returns the kinds of rows; "adversarial" stands for all of these.
func (f benchFlags) sources() ([]string, error) {
	if f.rows == "" {
		return []string{bench.Random}, nil
	}
	var sources []string
	for _, name := range list(f.rows) {
		if name == "adversarial" {
			sources = append(sources, bench.AdversarialSources()...)
		} else {
			sources = append(sources, name)
		}
	}
	if len(sources) == 0 {
		return nil, usageErrorf("bench: rows is empty")
	}
	return sources, nil
}

// shapes returns the product of the shape flags. Real rows bring their vocab and
// dtype.
func (f benchFlags) shapes(real bench.Logits, sources []string) []bench.Case {
	vocab, dtype := 50304, bench.BFloat16
	if slices.Contains(sources, bench.Real) {
		vocab, dtype = real.Vocab, real.DType
	}
	var shapes []bench.Case
	for _, dtype := range orDefault(f.dtype, dtype) {
		for _, batch := range orDefault(f.batch, 1) {
			for _, vocab := range orDefault(f.vocab, vocab) {
				for _, k := range orDefault(f.topK, 50) {
					shapes = append(shapes, bench.Case{Batch: batch, Vocab: vocab, TopK: k, DType: dtype})
				}
			}
		}
	}
	return shapes
}

// readLogits reads all rows of a tensor: FILE or FILE:TENSOR.
func readLogits(spec string) (bench.Logits, error) {
	f, err := tensorfile.Open(spec)
	if err != nil {
		return bench.Logits{}, usageErrorf("bench: %w", err)
	}
	defer f.Close()
	logits, err := bench.ReadLogits(f)
	if err != nil {
		return bench.Logits{}, usageErrorf("bench: %w", err)
	}
	return logits, nil
}

// startPeers starts the listed software. What is not found becomes a note, which
// is also printed.
func startPeers(ctx context.Context, against string, notes io.Writer) (peers []*bench.Peer, missing []string, err error) {
	names := list(against)
	for _, name := range names {
		if !slices.Contains(bench.PeerNames(), name) {
			return nil, nil, usageErrorf("bench: against %q is not one of %s", name, strings.Join(bench.PeerNames(), ", "))
		}
	}
	if len(names) == 0 {
		return nil, nil, nil
	}
	pythons := bench.Pythons()
	if chosen := os.Getenv("AIKF_PYTHON"); chosen != "" {
		python, err := exec.LookPath(chosen)
		if err != nil {
			return nil, nil, usageErrorf("bench: AIKF_PYTHON=%s: %w", chosen, err)
		}
		pythons = []string{python}
	}
	for _, name := range names {
		peer, err := bench.StartPeer(ctx, name, pythons)
		switch {
		case errors.Is(err, bench.ErrNoPeer):
			missing = append(missing, err.Error())
			fmt.Fprintf(notes, "aikf: bench: %v; going on without it\n", err)
		case err != nil:
			return peers, missing, err
		default:
			peers = append(peers, peer)
		}
	}
	return peers, missing, nil
}

// commandLine is what to type to repeat a run.
func commandLine(args []string) string {
	line := "aikf bench"
	for _, arg := range args {
		if strings.ContainsAny(arg, " \t\n'\"$\\*?;&|<>()") || arg == "" {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		line += " " + arg
	}
	return line
}

// list splits a list at its commas.
func list(s string) []string {
	var items []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

func orDefault[E any, L ~[]E](given L, otherwise E) L {
	if len(given) == 0 {
		return L{otherwise}
	}
	return given
}
