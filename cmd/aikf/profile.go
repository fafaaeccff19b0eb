package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/topk"
)

const profileExamples = `  aikf profile
        one row of the reference matrix: the phases within the kernel of a GPU or,
        without one, those of a selection on the CPU
  aikf profile --device cpu --batch 1,32 --dtype float32 --tier avx2
  aikf profile --device cuda --plan two-stage --batch 1,32
        each of the two stages alone
  aikf profile --device cuda --work sample --top-k 50,1024
        the phases of every sampling of "aikf bench --work sample"
  aikf profile --batch 512 --vocab 151936 --top-k 50 --dtype float32 --format json

On a GPU times are those of nodes in a graph that is replayed, with the logits in the
cache. The phases of a plan with a single launch are stamped by the clock of the
multiprocessor in an instrumented build of the plan block; the others have
none of their own. Samplings have such a build for bfloat16, with a top-k for a
vocab of up to 65536. On the CPU a phase is the difference between selections that
stop behind it and before it, on one thread; cycles and instructions are counted by
perf_event_open where Linux allows it. Every answer is checked.
`

// runProfile says where the time of a call goes.
func runProfile(ctx context.Context, args []string, c console) error {
	flags := newFlags("profile", "[flags]", profileExamples, c)
	batches, vocabs, ks, types := intList{1}, intList{50304}, intList{50}, dtypeList{bench.BFloat16}
	flags.Var(&batches, "batch", "`rows` in a call, a list")
	flags.Var(&vocabs, "vocab", "`values` in a row, a list")
	flags.Var(&ks, "top-k", "how many `values` of each row, a list")
	flags.Var(&types, "dtype", "float32, float16 or bfloat16, a `list`")
	work := flags.String("work", bench.TopK, "of a GPU: what to profile, topk or sample")
	plan := flags.String("plan", "", "of a GPU: forces the launch plan of that `name`, see \"aikf plan --device cuda\"")
	planFile := flags.String("plan-file", "", planFileUsage)
	tier := flags.String("tier", "", "of the CPU: instruction set `name`, see \"aikf info\" (default: the best)")
	deviceName := flags.String("device", "auto", deviceUsage)
	format := flags.String("format", "text", "`text` or json")
	seed := flags.Uint64("seed", 1, "of the random rows")
	words, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	if len(words) > 0 {
		return usageErrorf("profile: unexpected word %s", quote(words[0]))
	}
	choice, err := parseDevice(*deviceName)
	if err != nil {
		return err
	}
	switch {
	case *plan != "" && (!choice.cuda || *tier != ""):
		return usageErrorf("profile: --plan is for a GPU")
	case *work != bench.TopK && *work != bench.Sample:
		return usageErrorf("profile: --work %s, want topk or sample", quote(*work))
	case *work == bench.Sample && (!choice.cuda || *tier != ""):
		return usageErrorf("profile: --work sample is for a GPU")
	case *work == bench.Sample && *plan != "":
		return usageErrorf("profile: --plan is for --work topk")
	case *plan != "" || *work == bench.Sample:
		choice.auto = false
	case *tier != "" && choice.cuda && !choice.auto:
		return usageErrorf("profile: --tier is for the CPU")
	case *tier != "" && !slices.Contains(topk.Tiers(), *tier):
		return usageErrorf("profile: this machine has no tier %s, only %s", quote(*tier), strings.Join(topk.Tiers(), ", "))
	case *tier != "":
		choice = deviceChoice{text: "cpu"}
	}
	if err := checkFormat(*format, "text", "json"); err != nil {
		return err
	}
	if err := planFlag(*plan); err != nil {
		return err
	}
	target, err := targetCandidates()
	if err != nil {
		return err
	}
	settings := bench.Runner{Iters: 200, Budget: 400 * time.Millisecond, Seed: *seed, Real: bench.RealLogits(), TargetCandidates: target}
	runner, onDevice, err := openDevice(choice, "profile", c, func(ordinal int) (*bench.DeviceRunner, error) {
		return bench.OpenDevice(ordinal, settings)
	})
	if err != nil {
		return err
	}
	all := bench.Profiles{
		Schema: bench.ProfileSchema, Command: commandLine("profile", args), Commit: bench.Commit(), Date: time.Now().UTC().Truncate(time.Second),
	}
	validate, profile := runner.Validate, runner.Profile
	if onDevice {
		defer runner.Close()
		if err := usePlans(runner, *planFile); err != nil {
			return err
		}
		runner.Plan, all.GPU = *plan, runner.GPU()
	} else {
		machine := bench.ThisMachine()
		all.Machine = &machine
		settings.Budget = 2 * time.Second
		if settings.Plans, err = loadPlans(*planFile, bench.LoadPlans); err != nil {
			return err
		}
		validate, profile = settings.Validate, settings.Profile
	}
	var cases []bench.Case
	for _, shape := range (benchFlags{batch: batches, vocab: vocabs, topK: ks, dtype: types}).shapes(bench.Logits{}, nil) {
		shape.Work, shape.Source, shape.Tier = *work, bench.Random, *tier
		for _, sampling := range bench.DeviceSamplingsOf(*work) {
			shape.Sampling = sampling
			if err := validate(shape); err != nil {
				return usageErrorf("profile: %w", err)
			}
			if c := shape.WithoutTopK(); sampling == "" || !slices.Contains(cases, c) { // without a top-k, those of several are the same
				cases = append(cases, c)
			}
		}
	}
	for _, c := range cases {
		p, err := profile(ctx, c)
		if err != nil {
			return benchError(ctx, "profile", err)
		}
		all.Profiles = append(all.Profiles, p)
	}
	out := bufio.NewWriter(c.out)
	if *format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.Encode(all)
		return out.Flush()
	}
	if onDevice {
		fmt.Fprintf(out, "%s, compute capability %s, driver for CUDA %s\n", all.GPU.Name, all.GPU.ComputeCapability, all.GPU.Driver)
	} else {
		fmt.Fprintf(out, "%s, %s/%s\n", all.Machine.CPU, all.Machine.OS, all.Machine.Arch)
	}
	for _, p := range all.Profiles {
		fmt.Fprintln(out)
		if onDevice {
			explainProfile(out, p)
		} else {
			explainCPUProfile(out, p)
		}
	}
	return out.Flush()
}

// explainCPUProfile prints one profile of the CPU as a table.
func explainCPUProfile(w io.Writer, p bench.Profile) {
	fmt.Fprintf(w, "batch %d, vocab %d, top-k %d, %s: %s\n", p.Batch, p.Vocab, p.TopK, p.DType, p.CPUPlan)
	count := func(n float64) string {
		if p.Uncounted != "" {
			return ""
		}
		return fmt.Sprintf("%.0f", n)
	}
	const columns = "  %-12s %9s %7s %10s %12s %12s %8s\n"
	fmt.Fprintf(w, columns, "", "us", "share", "cycles", "instructions", "bytes", "GB/s")
	line := func(name string, us, share, cycles, instructions float64, bytes int) {
		fmt.Fprintf(w, columns, name, fmt.Sprintf("%.3f", us), fmt.Sprintf("%.1f%%", 100*share), count(cycles), count(instructions), fmt.Sprint(bytes), gigabytes(bytes, us))
	}
	var cycles, instructions float64
	for _, part := range p.Parts {
		line(part.Name, part.US, part.Share, part.Cycles, part.Instructions, part.Bytes)
		cycles, instructions = cycles+part.Cycles, instructions+part.Instructions
	}
	line("call", p.CallUS, 1, cycles, instructions, p.Bytes)
	fmt.Fprintf(w, columns, "floor", fmt.Sprintf("%.3f", p.FloorUS), "", "", "", fmt.Sprint(p.FloorBytes), gigabytes(p.FloorBytes, p.FloorUS))
	fmt.Fprintf(w, "  the call takes %.2f times the floor, one maximum pass over the same rows, and moves %.2f times its bytes; %.4g candidates a row\n",
		p.CallUS/p.FloorUS, float64(p.Bytes)/float64(p.FloorBytes), p.Candidates)
	if p.Uncounted != "" {
		fmt.Fprintf(w, "  no cycles and instructions: %s\n", p.Uncounted)
	}
}

// gigabytes returns how many of them a second that is.
func gigabytes(bytes int, us float64) string {
	if us == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", float64(bytes)/us/1e3)
}

// explainProfile prints one profile as a table.
func explainProfile(w io.Writer, p bench.Profile) {
	if p.Work == bench.Sample {
		fmt.Fprintf(w, "batch %d, vocab %d, top-k %d, %s: sampling %s\n", p.Batch, p.Vocab, p.TopK, p.DType, p.Sample)
	} else {
		fmt.Fprintf(w, "batch %d, vocab %d, top-k %d, %s: plan %s\n", p.Batch, p.Vocab, p.TopK, p.DType, p.Plan.Name)
		kernels := "kernels"
		if len(p.Plan.Kernels) == 1 {
			kernels = "kernel"
		}
		fmt.Fprintf(w, "  a call launches %d %s and nothing else, no conversion of the logits:", len(p.Plan.Kernels), kernels)
		for _, l := range p.Plan.Kernels {
			fmt.Fprintf(w, " %s (%d x %d)", l.Symbol, l.Grid, l.Block)
		}
		fmt.Fprintln(w)
	}
	wide := 12
	for _, part := range p.Parts {
		wide = max(wide, len(part.Name))
	}
	fmt.Fprintf(w, "  %-*s %9s %9s %7s\n", wide, "", "us", "cycles", "share")
	fmt.Fprintf(w, "  %-*s %9.2f\n", wide, "call", p.CallUS)
	all := 0.0
	for _, part := range p.Parts {
		all += part.US
		cycles := ""
		if part.Cycles > 0 {
			cycles = fmt.Sprintf("%.0f", part.Cycles)
		}
		fmt.Fprintf(w, "  %-*s %9.2f %9s %6.1f%%\n", wide, part.Name, part.US, cycles, 100*part.Share)
	}
	fmt.Fprintf(w, "  %-*s %9.2f   a pass over the same rows with one block each\n", wide, "floor", p.FloorUS)
	fmt.Fprintf(w, "  %-*s %9.2f   a kernel that does nothing\n", wide, "empty node", p.EmptyUS)
	switch {
	case p.Reason != "":
		fmt.Fprintf(w, "  no phases: %s\n", p.Reason)
	case len(p.Plan.Kernels) > 1:
		fmt.Fprintf(w, "  a stage alone includes an empty node; the stages together take %.2f us\n", all)
	default:
		fmt.Fprintf(w, "  phases of %s, instrumented, at the clock's highest rate: %.2f us together; launch and end are the rest\n", p.PartsOf, all)
		if p.Work != bench.Sample && p.Plan.Name != cuda.PlanBlock {
			fmt.Fprintf(w, "  the plan %s has no instrumented build\n", p.Plan.Name)
		}
	}
}
