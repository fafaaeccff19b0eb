package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/internal/progress"
	"github.com/ai-kernel-factory/aikf/topk"
)

const tuneExamples = `  aikf tune
        searches for plans of the reference matrix, for a minute, on a GPU or the CPU
  aikf tune --device cpu --batch 1,8 --vocab 151936 --top-k 50 --dtype float32 --budget 5m --out mine.json
        of every combination
  aikf tune --device cpu --out mine.json --resume
        goes on with what an interrupt has left, for another minute
  aikf bench --device cpu --plan-file mine.json
        bench, topk, plan and profile use the file; programs load it with topk.LoadPlans or
        cuda.LoadPlans

Every plan is first compared with a full sort, to the bit; no plan changes an
answer. All plans of a shape then race against the built-in one, in turns, and the
best third of each heat goes on. The winner meets the built-in plan again, up to 16
times with other logits in other memory; its gain is the mean over these of the
median over pairs of times, with its interval of 95 % confidence. A plan is kept if
all of the interval is above 1 %. The other shapes stand in the file, too, under
not_kept. Rows are random, and half of them real where the vocab is 50304.
The file is for this model of CPU and its tier, or this model of GPU, and for this
version of the plans; others refuse it.
`

// tuneFlags are the flags of aikf tune, as given.
type tuneFlags struct {
	shapes  benchFlags
	threads int
	budget  time.Duration
	out     string
	resume  bool
	seed    uint64
	command string
}

// runTune searches for launch plans and writes those that win to a file.
func runTune(ctx context.Context, args []string, c console) error {
	f := tuneFlags{command: commandLine("tune", args)}
	flags := newFlags("tune", "[flags]", tuneExamples, c)
	flags.Var(&f.shapes.batch, "batch", "rows in a batch; a `list` (default: the reference matrix)")
	flags.Var(&f.shapes.vocab, "vocab", "logits in a row; a `list` (default 50304)")
	flags.Var(&f.shapes.topK, "top-k", "results for each row; a `list` (default: the reference matrix)")
	flags.Var(&f.shapes.dtype, "dtype", "float32, float16, bfloat16; a `list` (default bfloat16)")
	flags.StringVar(&f.shapes.tier, "tier", "", "instruction set `name` of the CPU, see \"aikf info\" (default: the best)")
	flags.IntVar(&f.threads, "threads", 0, "`threads` of the CPU that share a batch (default: that is searched for, too)")
	flags.StringVar(&f.shapes.device, "device", "auto", deviceUsage)
	flags.DurationVar(&f.budget, "budget", time.Minute, "`time` to search, for all shapes together")
	flags.StringVar(&f.out, "out", "aikf-plans.json", "the plan `file` to write")
	flags.BoolVar(&f.resume, "resume", false, "go on with the file: search for the shapes that it does not have")
	flags.Uint64Var(&f.seed, "seed", 1, "of the random rows")
	words, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	choice, err := parseDevice(f.shapes.device)
	if err != nil {
		return err
	}
	ofCPU := given["tier"] || given["threads"]
	switch {
	case len(words) > 0:
		return usageErrorf("tune: unexpected word %s", quote(words[0]))
	case f.budget <= 0:
		return usageErrorf("tune: --budget %v, want more than nothing", f.budget)
	case f.threads < 0:
		return usageErrorf("tune: --threads %d is negative", f.threads)
	case ofCPU && choice.cuda && !choice.auto:
		return usageErrorf("tune: --tier and --threads are for the CPU")
	case ofCPU:
		choice = deviceChoice{text: "cpu"}
	}
	if tier := f.shapes.tier; tier != "" && !slices.Contains(topk.Tiers(), tier) {
		return usageErrorf("tune: this machine has no tier %s, only %v", quote(tier), topk.Tiers())
	}
	settings := bench.Runner{Seed: f.seed, Real: bench.RealLogits()}
	device, onDevice, err := openDevice(choice, "tune", c, func(ordinal int) (*bench.DeviceRunner, error) {
		return bench.OpenDevice(ordinal, settings)
	})
	if err != nil {
		return err
	}
	if onDevice {
		defer device.Close()
		return tune(ctx, f, device.NewDevicePlans(), device.Validate, device.SelfCheck, device.Tune, c)
	}
	return tune(ctx, f, bench.NewCPUPlans(f.shapes.tier), settings.Validate, func(context.Context) error { return bench.SelfCheck() }, settings.Tune, c)
}

// tune searches with search, and keeps the file up to date.
func tune[P planfile.Plan](ctx context.Context, f tuneFlags, file planfile.File[P], validate func(bench.Case) error, selfCheck func(context.Context) error,
	search func(context.Context, []bench.Case, *planfile.File[P], time.Duration, func() error, func(bench.TuneStep)) error, c console) error {
	cases, err := f.cases(validate)
	if err != nil {
		return err
	}
	if err := f.reopen(&file); err != nil {
		return err
	}
	file.Command, file.Commit, file.Seed = f.command, bench.Commit(), f.seed
	save := func() error {
		file.Date = time.Now().UTC().Truncate(time.Second)
		return writePlans(f.out, file)
	}
	if err := errors.Join(selfCheck(ctx), save()); err != nil { // an --out that cannot be written is no news to wait for
		return benchError(ctx, "tune", err)
	}
	bar := progress.New(c.err, c.progress)
	err = search(ctx, cases, &file, f.budget, save, func(at bench.TuneStep) {
		bar.Set(int(at.Spent.Milliseconds()), int(f.budget.Milliseconds()), fmt.Sprintf("%d of %d: %v", at.Done+1, at.Total, at.Shape))
	})
	bar.Clear()
	out := bufio.NewWriter(c.out)
	explainPlans(out, file)
	if err := out.Flush(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		done := len(file.Entries) + len(file.NotKept)
		fmt.Fprintf(c.err, "aikf: tune: %s keeps what is known of %d of %d shapes; the same command with --resume goes on\n", f.out, done, len(cases))
	}
	if err != nil {
		return benchError(ctx, "tune", err)
	}
	return nil
}

// cases returns the shapes to search for: the reference matrix, or the product of
// the lists.
func (f tuneFlags) cases(validate func(bench.Case) error) ([]bench.Case, error) {
	shapes := bench.Matrix()
	if s := f.shapes; s.batch != nil || s.vocab != nil || s.topK != nil || s.dtype != nil {
		shapes = s.shapes(bench.Logits{}, nil)
	}
	for i := range shapes {
		shapes[i].Work, shapes[i].Source, shapes[i].Threads = bench.TopK, bench.Random, f.threads
		shapes[i].Reference = ""
		if err := validate(shapes[i]); err != nil {
			return nil, usageErrorf("tune: %w", err)
		}
	}
	return shapes, nil
}

// reopen reads the file that is to be resumed. A file that is there is not
// overwritten otherwise.
func (f tuneFlags) reopen(file interface{ Resume(io.Reader) error }) error {
	from, err := os.Open(f.out)
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.resume:
		return usageErrorf("tune: --resume: %w", err)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return usageErrorf("tune: %w", err)
	}
	defer from.Close()
	if !f.resume {
		return usageErrorf("tune: %s is there; --resume goes on with it, --out names another", f.out)
	}
	if err := file.Resume(from); err != nil {
		return usageErrorf("tune: %s: %w", f.out, err)
	}
	return nil
}

// writePlans replaces the file at once, so that an interrupt leaves the old or the
// new one.
func writePlans[P planfile.Plan](name string, file planfile.File[P]) error {
	var text bytes.Buffer
	if err := file.Encode(&text); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return usageErrorf("tune: --out: %w", err)
	}
	_, err = next.Write(text.Bytes())
	err = errors.Join(err, next.Chmod(0o644), next.Close())
	if err == nil {
		err = os.Rename(next.Name(), name)
	}
	if err != nil {
		os.Remove(next.Name())
	}
	return err
}

// explainPlans prints a file of plans as a table.
func explainPlans[P planfile.Plan](out io.Writer, file planfile.File[P]) {
	fmt.Fprintf(out, "%v\n", file.Device)
	if len(file.Entries)+len(file.NotKept) == 0 {
		fmt.Fprintln(out, "no shape was searched")
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nshape\tbuilt-in (us)\ttuned (us)\tgain\t95 % interval\tleast\tstarts\tplans\tkept")
	for _, list := range [][]planfile.Entry[P]{file.Entries, file.NotKept} {
		for _, e := range list {
			kept := "yes"
			if e.Reason != "" {
				kept = "no: " + e.Reason
			}
			fmt.Fprintf(w, "%v\t%.3g\t%.3g\t%+.1f %%\t%+.1f to %+.1f %%\t%+.1f %%\t%d\t%d\t%s\n",
				e.Shape, e.BuiltInUS, e.TunedUS, 100*(e.Gain-1), 100*(e.GainLow-1), 100*(e.GainHigh-1), 100*(e.LeastStart-1), e.Starts, e.Tried, kept)
		}
	}
	w.Flush()
	for _, e := range file.Entries {
		fmt.Fprintf(out, "\n%v: %s\n", e.Shape, e.Explained)
	}
}

// planFileUsage is that of --plan-file.
const planFileUsage = "launch plans of this machine that \"aikf tune\" wrote to a `file`"

// usePlans makes the runner use the plans of a file.
func usePlans(device *bench.DeviceRunner, name string) error {
	plans, err := loadPlans(name, cuda.LoadPlans)
	if err != nil {
		return err
	}
	return planFileError(name, device.UsePlans(plans))
}

// planFileError names the file in an error that is its own.
func planFileError(name string, err error) error {
	if errors.Is(err, topk.ErrPlans) {
		return usageErrorf("--plan-file %s: %w", name, err)
	}
	return err
}

// loadPlans reads a file of plans with load, which is that of the device's
// package. No name is no plans.
func loadPlans[P any](name string, load func(io.Reader) (*P, error)) (*P, error) {
	if name == "" {
		return nil, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, usageErrorf("--plan-file: %w", err)
	}
	defer file.Close()
	plans, err := load(file)
	return plans, planFileError(name, err)
}

// planSet is the plans of a file by their shapes, of any machine.
type planSet[P planfile.Plan] struct {
	device planfile.Device
	plans  map[planfile.Shape]*P
}

// of returns the plan of the shape, or nil; a nil set has none.
func (s *planSet[P]) of(shape planfile.Shape) *P {
	if s == nil {
		return nil
	}
	return s.plans[shape]
}

// readPlans reads a file for a kind of device.
func readPlans[P planfile.Plan](kind string) func(io.Reader) (*planSet[P], error) {
	return func(from io.Reader) (*planSet[P], error) {
		file, err := planfile.Decode[P](from, kind)
		if err != nil {
			return nil, err
		}
		s := &planSet[P]{file.Device, map[planfile.Shape]*P{}}
		for i := range file.Entries {
			s.plans[file.Entries[i].Shape] = &file.Entries[i].Plan
		}
		return s, nil
	}
}
