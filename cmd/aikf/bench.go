package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/progress"
	"github.com/ai-kernel-factory/aikf/internal/report"
	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

const benchExamples = `  aikf bench
        the reference matrix and a row of real logits
  aikf bench --batch 1,8 --vocab 151936 --top-k 50,1024 --dtype float32,float16
        every combination
  aikf bench --sweep rows,vocab,k --out sweep.json
        one dimension after the other, the rest as the flags say; "aikf report"
        draws them. --sweep grid is rows by k
  aikf bench --against torch,numpy
        other software too, in a python3 that has it
  aikf bench --device cuda --against torch,python:module:function
        on a GPU; function takes (logits, k), torch tensors, and returns (values, indices)
  aikf bench --device cuda --mode graph,eager --cache warm,cold --plan two-stage
  aikf bench --device cuda --work sample --batch 1,32 --against torch,flashinfer
        tokens instead of a top k; both are asked for tokens, too
  aikf bench --rows adversarial --tier avx512,avx2,pure
  aikf bench --logits model.safetensors:logits --top-k 50
  aikf bench --acceptance
        every figure that has a bar; exit code 1 if one misses its must
  aikf bench --format json > results/today.json
  aikf bench --self-test
        a wrong selector, clocks that lie and answers from memory: each is caught

Rows, for --rows:
  normal       standard normal, also called random; the default
  real         of --logits, or eight rows of a language model that come with aikf
  peaked       of a model that is sure: one logit far above a tail that falls slowly
  ascending    the k largest come last; descending: first
  constant     one value; two_values: zeros and ones
  ties         two_values, and ties_at_k: far more equal logits around rank k than fit
  masked       all but 0, 20 or 300 logits are -Inf: masked_0, masked_20, masked_300
  on_sample, off_sample, clusters, hot_thread, hot_warp
               the largest stand where a filter looks, does not look, or close together
  adversarial  all from ascending on

The reference of work "topk" is a typed heap over the row, what Go programs do
today; of "stream" and "sample" one Select; of "merge" a sort of all entries; on a GPU the
first of --against, and none without.
On a GPU the time of a call is that of a node in a graph that is replayed with
its logits in the cache; beside it stand the same with other logits in the cache
(cold), launches from Go one by one (eager), and what a launch takes of the
processor's time.
exec:command is a program that answers requests as "aikf topk --jsonl" does. Its
times are those of the exchange, JSON and all; what an empty request takes is
told beside them. timed:command is a program that times itself: it writes
{"version": ...}, reads a line for each case with the file of the logits and those
for its answer, and writes its times; internal/bench/programs/peers.py says which
fields there are.
Whatever is measured beside ours is checked in the same run: its answers, its
times against the read floor and against a clock of ours, and whether it answers
from memory. What does not hold is told with its numbers.
AIKF_PYTHON names the python3 for --against; without it, those in PATH and
/usr/bin are tried in turn.
`

// benchFlags are the flags of aikf bench, as given.
type benchFlags struct {
	batch, vocab, topK, threads       intList
	dtype                             dtypeList
	logits, against, rows, work, tier string
	device, mode, cache, plan, sweep  string
	planFile                          string
	format, out                       string
	iters                             int
	seed                              uint64
	acceptance, quiet, testSelf       bool

	bar   *progress.Bar
	watch *bench.Watch
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
	flags.StringVar(&f.against, "against", "", "other software to measure: torch, numpy, onnxruntime, flashinfer, python:module:function, exec:command, timed:command; a `list`")
	flags.StringVar(&f.rows, "rows", "", "normal, real, peaked, ascending, constant, ties, masked and so on, see above; a `list`")
	flags.StringVar(&f.sweep, "sweep", "", "dimensions to vary, each alone: rows, vocab, k, or grid; a `list`")
	flags.StringVar(&f.work, "work", "", "topk, stream, merge, sample; a `list` (default topk, or all with --acceptance)")
	flags.StringVar(&f.tier, "tier", "", "avx512, avx2, neon, pure; a `list` (default: the best here)")
	flags.Var(&f.threads, "threads", "threads that share a batch; a `list` (default 1)")
	flags.StringVar(&f.device, "device", "auto", deviceUsage)
	flags.StringVar(&f.mode, "mode", "", "of a GPU: graph, eager; a `list` (default: both)")
	flags.StringVar(&f.cache, "cache", "", "of a GPU: warm, cold; a `list` (default: both for graph, warm for eager)")
	flags.StringVar(&f.plan, "plan", "", "forces the launch plan of that `name`, see \"aikf plan --device cuda\"")
	flags.StringVar(&f.planFile, "plan-file", "", planFileUsage)
	flags.StringVar(&f.format, "format", report.Table, "table, md, json or csv")
	flags.StringVar(&f.out, "out", "", "write the JSON record to a `file`, too")
	flags.BoolVar(&f.acceptance, "acceptance", false, "measure every figure that has a bar, or those of --work")
	flags.Uint64Var(&f.seed, "seed", 1, "of the random rows")
	flags.BoolVar(&f.testSelf, "self-test", false, "show that contestants which cheat are caught, and nothing else")
	flags.BoolVar(&f.quiet, "quiet", false, quietUsage)
	words, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	if len(words) > 0 {
		return usageErrorf("bench: unexpected word %s", quote(words[0]))
	}
	choice, err := parseDevice(f.device)
	if err != nil {
		return err
	}
	if err := checkFormat(f.format, report.Formats()...); err != nil {
		return err
	}
	if f.iters < 1 {
		return usageErrorf("bench: iters = %d is less than 1", f.iters)
	}
	if f.testSelf {
		return f.selfTest(ctx, c)
	}
	target, err := targetCandidates()
	if err != nil {
		return err
	}
	if choice, err = f.narrow(choice); err != nil {
		return err
	}
	if f.work != "" && len(list(f.work)) == 0 {
		return usageErrorf("bench: work is empty")
	}
	if f.acceptance {
		if flag := f.shaped(); flag != "" {
			return usageErrorf("bench: --acceptance measures cases of its own; leave out --%s", flag)
		}
		for _, work := range list(f.work) {
			if len(bench.BarsOf([]string{work}))+len(bench.DeviceBarsOf([]string{work})) == 0 {
				return usageErrorf("bench: work %s has no bars", quote(work))
			}
		}
	}
	for _, name := range list(f.against) {
		if err := bench.CheckPeer(name); err != nil {
			return usageErrorf("bench: against %w", err)
		}
	}
	settings := bench.Runner{Iters: f.iters, Seed: f.seed, Real: bench.RealLogits(), TargetCandidates: target}
	if f.logits != "" {
		if settings.Real, err = readLogits(f.logits); err != nil {
			return err
		}
	}
	if err := checkOut(f.out); err != nil {
		return err
	}
	device, onDevice, err := openDevice(choice, "bench", c, func(ordinal int) (*bench.DeviceRunner, error) {
		return bench.OpenDevice(ordinal, settings)
	})
	if err != nil {
		return err
	}
	record := bench.Record{
		Schema: bench.Schema, Machine: bench.ThisMachine(), Command: commandLine("bench", args), Commit: bench.Commit(),
		Date: time.Now().UTC().Truncate(time.Second), Seed: f.seed, TargetCandidates: target,
	}
	f.bar, f.watch = c.bar(f.quiet), bench.NewWatch(record.Machine.Virtual)
	if onDevice {
		defer device.Close()
		if err := usePlans(device, f.planFile); err != nil {
			return err
		}
		err = f.measureDevice(ctx, device, choice, &record, c)
	} else {
		if settings.Plans, err = loadPlans(f.planFile, bench.LoadPlans); err != nil {
			return err
		}
		err = f.measureCPU(ctx, &settings, &record, c)
	}
	f.bar.Clear()
	if err != nil {
		err = benchError(ctx, "bench", err)
		if ctx.Err() != nil {
			return errors.Join(err, f.keep(record, c))
		}
		return err
	}
	if f.out != "" {
		if err := writeRecord(f.out, record); err != nil {
			return err
		}
	}
	if err := report.Write(c.out, f.format, record); err != nil {
		return err
	}
	return missed(record.Acceptance)
}

// narrow leaves auto no choice where a flag has a meaning on one kind of device
// only, and reports a flag that the chosen one does not have.
func (f benchFlags) narrow(choice deviceChoice) (deviceChoice, error) {
	ofDevice, ofCPU := "", ""
	for _, flag := range []struct {
		name  string
		given bool
		of    *string
	}{
		{"mode", f.mode != "", &ofDevice}, {"cache", f.cache != "", &ofDevice}, {"plan", f.plan != "", &ofDevice},
		{"tier", f.tier != "", &ofCPU}, {"threads", f.threads != nil, &ofCPU},
		{"work " + f.ofCPU(), f.ofCPU() != "", &ofCPU},
	} {
		if flag.given && *flag.of == "" {
			*flag.of = flag.name
		}
	}
	switch {
	case ofDevice != "" && (!choice.cuda || ofCPU != ""):
		return choice, usageErrorf("bench: --%s is for a GPU", ofDevice)
	case ofCPU != "" && choice.cuda && !choice.auto:
		return choice, usageErrorf("bench: --%s is for the CPU", ofCPU)
	case ofDevice != "" && choice.auto:
		choice.auto = false
	case ofCPU != "" && choice.auto:
		return deviceChoice{text: "cpu"}, nil
	}
	if err := planFlag(f.plan); err != nil {
		return choice, err
	}
	_, err := f.conditions()
	return choice, err
}

// ofCPU returns the first work of the flags that only the CPU does.
func (f benchFlags) ofCPU() string {
	for _, work := range list(f.work) {
		if work != bench.TopK && work != bench.Sample {
			return work
		}
	}
	return ""
}

// conditions returns how a GPU is measured: every mode with every cache, of
// those that were asked for.
func (f benchFlags) conditions() ([]bench.Condition, error) {
	if f.mode == "" && f.cache == "" {
		return bench.Conditions(), nil
	}
	var conditions []bench.Condition
	for _, mode := range orDefault(list(f.mode), bench.Graph) {
		for _, cache := range orDefault(list(f.cache), bench.Warm) {
			switch {
			case mode != bench.Graph && mode != bench.Eager:
				return nil, usageErrorf("bench: --mode %s, want %s or %s", quote(mode), bench.Graph, bench.Eager)
			case cache != bench.Warm && cache != bench.Cold:
				return nil, usageErrorf("bench: --cache %s, want %s or %s", quote(cache), bench.Warm, bench.Cold)
			}
			conditions = append(conditions, bench.Condition{Mode: mode, Cache: cache})
		}
	}
	return conditions, nil
}

// measureCPU measures what the flags ask for on the CPU.
func (f benchFlags) measureCPU(ctx context.Context, runner *bench.Runner, record *bench.Record, c console) (err error) {
	runner.Budget = 2 * time.Second
	var cases []bench.Case
	if !f.acceptance {
		if cases, err = f.cases(runner.Real, bench.SamplingsOf, runner.Validate); err != nil {
			return err
		}
	}
	defer func() { closePeers(runner.Peers) }()
	if runner.Peers, record.Notes, err = startPeers(ctx, f.against, "cpu", c.err); err != nil {
		return err
	}
	defer f.listen(record)
	if err := bench.SelfCheck(); err != nil {
		return err
	}
	if f.acceptance {
		bars := bench.BarsOf(list(f.work))
		record.Acceptance, record.Results, err = runner.Acceptance(ctx, bars, f.progress)
		return err
	}
	record.Results, err = measureAll(cases, f.progress, func(c bench.Case) ([]bench.Result, error) {
		result, err := runner.Measure(ctx, c)
		return []bench.Result{result}, err
	})
	return err
}

// measureDevice measures what the flags ask for on a GPU.
func (f benchFlags) measureDevice(ctx context.Context, runner *bench.DeviceRunner, choice deviceChoice, record *bench.Record, c console) (err error) {
	gpu := runner.GPU()
	record.GPU = &gpu
	runner.Plan, runner.Budget = f.plan, 400*time.Millisecond
	conditions, err := f.conditions()
	if err != nil {
		return err
	}
	var cases []bench.Case
	if !f.acceptance {
		if cases, err = f.cases(runner.Real, bench.DeviceSamplingsOf, runner.Validate); err != nil {
			return err
		}
	}
	defer func() { closePeers(runner.Peers) }()
	if runner.Peers, runner.Notes, err = startPeers(ctx, f.against, fmt.Sprintf("cuda:%d", choice.ordinal), c.err); err != nil {
		return err
	}
	defer func() { record.Notes = runner.Notes }()
	defer f.listen(record)
	if err := runner.SelfCheck(ctx); err != nil {
		return err
	}
	if f.acceptance {
		runner.Budget = bench.AcceptanceBudget
		return runner.Accept(ctx, bench.DeviceBarsOf(list(f.work)), record, f.progress)
	}
	record.Results, err = measureAll(cases, f.progress, func(c bench.Case) ([]bench.Result, error) {
		results, err := runner.Measure(ctx, c, conditions)
		if c.Work == bench.Sample && errors.Is(err, cuda.ErrUnsupported) { // the other samplings are not less worth
			runner.Notes = append(runner.Notes, "not measured: "+bench.Unsupported+err.Error())
			return nil, nil
		}
		return results, err
	})
	if err == nil && len(record.Results) == 0 {
		err = usageErrorf("bench: %s", strings.Join(runner.Notes, "; "))
	}
	return err
}

// progress draws progress on a terminal.
func (f benchFlags) progress(done, total int, next bench.Case) {
	f.watch.Look()
	f.bar.Set(done, total, fmt.Sprintf("%d of %d: %v", done+1, total, next))
}

// listen puts into the record what disturbed the run.
func (f benchFlags) listen(record *bench.Record) {
	noise := f.watch.Noise(record.Results)
	record.Noise = &noise
}

// keep writes what an interrupted run has measured, and says where: to --out, to
// standard output if that receives the record, or else to a new file.
func (f benchFlags) keep(record bench.Record, c console) error {
	if len(record.Results) == 0 {
		fmt.Fprintln(c.err, "aikf: bench: nothing was measured yet")
		return nil
	}
	record.Interrupted = true
	where := f.out
	if where == "" && f.format != report.JSON {
		file, err := os.CreateTemp("", "aikf-bench-*.json")
		if err != nil {
			return err
		}
		where = file.Name()
		if err := file.Close(); err != nil {
			return err
		}
	}
	if where == "" {
		where = "standard output"
	} else if err := writeRecord(where, record); err != nil {
		return err
	}
	fmt.Fprintf(c.err, "aikf: bench: %d results were measured; the record is in %s\n", len(record.Results), where)
	return report.Write(c.out, f.format, record)
}

// checkOut reports a file that cannot be written before anything is measured for it. One
// that is there stays as it is.
func checkOut(name string) error {
	if name == "" {
		return nil
	}
	there, missing := os.Stat(name)
	if missing == nil && !there.Mode().IsRegular() && !there.IsDir() {
		return nil // a pipe, whose reader would see it closed
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return usageErrorf("bench: --out: %w", err)
	}
	err = file.Close()
	if errors.Is(missing, fs.ErrNotExist) {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

func writeRecord(name string, record bench.Record) error {
	var text bytes.Buffer
	if err := record.Encode(&text); err != nil {
		return err
	}
	return os.WriteFile(name, text.Bytes(), 0o644)
}

// benchError says what kind of failure err is.
func benchError(ctx context.Context, command string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, bench.ErrWrong):
		return wrongErrorf("%s: %w", command, err)
	case errors.Is(err, cuda.ErrUnsupported), errors.Is(err, topk.ErrPlans):
		return usageErrorf("%s: %w", command, err)
	}
	return err
}

// missed reports the bars that missed their must, or whose work the device does not
// have.
func missed(verdicts []bench.Verdict) error {
	var works []string
	for _, v := range verdicts {
		if v.Verdict == bench.Missed || strings.HasPrefix(v.Reason, bench.Unsupported) {
			works = append(works, v.Work)
		}
	}
	if len(works) == 0 {
		return nil
	}
	return wrongErrorf("bench: %d of %d bars missed: %s", len(works), len(verdicts), strings.Join(works, "; "))
}

// measureAll returns what was measured before an error, too.
func measureAll(cases []bench.Case, progress func(int, int, bench.Case), measure func(bench.Case) ([]bench.Result, error)) ([]bench.Result, error) {
	var all []bench.Result
	for i, c := range cases {
		progress(i, len(cases), c)
		results, err := measure(c)
		if err != nil {
			return all, err
		}
		all = append(all, results...)
	}
	return all, nil
}

// shaped returns the name of a flag that chooses cases, if one was given.
func (f benchFlags) shaped() string {
	for _, flag := range []struct {
		name    string
		changed bool
	}{
		{"batch", f.batch != nil}, {"vocab", f.vocab != nil}, {"top-k", f.topK != nil}, {"dtype", f.dtype != nil},
		{"logits", f.logits != ""}, {"rows", f.rows != ""}, {"sweep", f.sweep != ""}, {"tier", f.tier != ""},
		{"threads", f.threads != nil}, {"mode", f.mode != ""}, {"cache", f.cache != ""}, {"plan", f.plan != ""},
	} {
		if flag.changed {
			return flag.name
		}
	}
	return ""
}

// cases returns what the flags ask for: the reference matrix and a row of real
// logits, or the product of all lists. samplings lists those of a work; validate
// reports what cannot be measured.
func (f benchFlags) cases(real bench.Logits, samplings func(work string) []string, validate func(bench.Case) error) ([]bench.Case, error) {
	if f.logits != "" && f.rows == "" {
		f.rows = bench.Real
	}
	sources, err := f.sources()
	if err != nil {
		return nil, err
	}
	shapes := bench.Matrix()
	if f.sweep != "" {
		if shapes, err = f.swept(); err != nil {
			return nil, err
		}
	} else if f.batch != nil || f.vocab != nil || f.topK != nil || f.dtype != nil || !slices.Contains(sources, bench.Random) {
		shapes = f.shapes(real, sources)
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
		tiers = []string{""} // the best, or that of the GPU
	}
	works := orDefault(list(f.work), bench.TopK)
	if slices.Contains(f.threads, 0) {
		return nil, usageErrorf("bench: --threads = 0, want 1 or more: a figure names its threads")
	}
	var cases []bench.Case
	for _, work := range works {
		for _, tier := range tiers {
			for _, threads := range orDefault(f.threads, 0) {
				for _, c := range shapes {
					c.Work, c.Tier, c.Threads = work, tier, threads
					rows := sources
					if rows == nil {
						rows = []string{c.Source}
					}
					for _, c.Source = range rows {
						for _, sampling := range samplings(work) {
							c := c
							c.Sampling = sampling
							c = c.WithoutTopK()
							if err := validate(c); err != nil {
								return nil, usageErrorf("bench: %w", err)
							}
							if sampling == "" || !slices.Contains(cases, c) { // without a top-k, rows of several are the same
								cases = append(cases, c)
							}
						}
					}
				}
			}
		}
	}
	return cases, nil
}

// sources returns the kinds of rows.
func (f benchFlags) sources() ([]string, error) {
	if f.rows == "" {
		return []string{bench.Random}, nil
	}
	var sources []string
	for _, name := range list(f.rows) {
		for _, source := range bench.SourcesNamed(name) {
			if !slices.Contains(sources, source) {
				sources = append(sources, source)
			}
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

// swept returns the shapes of --sweep: each dimension alone, around the shape of
// the flags.
func (f benchFlags) swept() ([]bench.Case, error) {
	if f.logits != "" {
		return nil, usageErrorf("bench: --sweep needs rows of any vocab; leave out --logits")
	}
	for _, flag := range []struct {
		name  string
		given int
	}{{"batch", len(f.batch)}, {"vocab", len(f.vocab)}, {"top-k", len(f.topK)}} {
		if flag.given > 1 {
			return nil, usageErrorf("bench: --sweep varies the dimensions; --%s has %d values, want one", flag.name, flag.given)
		}
	}
	names := list(f.sweep)
	if len(names) == 0 {
		return nil, usageErrorf("bench: sweep is empty")
	}
	var shapes []bench.Case
	for _, around := range f.shapes(bench.Logits{}, nil) {
		for _, name := range names {
			line, err := bench.Sweep(name, around)
			if err != nil {
				return nil, usageErrorf("bench: %w", err)
			}
			for _, shape := range line {
				if !slices.Contains(shapes, shape) {
					shapes = append(shapes, shape)
				}
			}
		}
	}
	return shapes, nil
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

func closePeers(peers []*bench.Peer) {
	for _, peer := range peers {
		peer.Close()
	}
}

// startPeers starts the listed software on the device. What is not found becomes
// a note, which is also printed.
func startPeers(ctx context.Context, against, device string, notes io.Writer) (peers []*bench.Peer, missing []string, err error) {
	names := list(against)
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
		peer, err := bench.StartPeer(ctx, name, device, pythons)
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
func commandLine(command string, args []string) string {
	line := "aikf " + command
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
