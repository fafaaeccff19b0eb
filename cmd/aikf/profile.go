package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/bench"
)

const profileExamples = `  aikf profile
        the phases within the kernel of one row of the reference matrix
  aikf profile --plan two-stage --batch 1,32
        each of the two stages alone
  aikf profile --batch 512 --vocab 151936 --top-k 50 --dtype float32 --format json

Times are those of nodes in a graph that is replayed, with the logits in the
cache. The phases of a plan with a single launch are stamped by the clock of the
multiprocessor in an instrumented build of the plan block; the others have
none of their own. Every answer is checked.
`

// runProfile says where the time of a call goes.
func runProfile(ctx context.Context, args []string, c console) error {
	flags := newFlags("profile", "[flags]", profileExamples, c)
	batches, vocabs, ks, types := intList{1}, intList{50304}, intList{50}, dtypeList{bench.BFloat16}
	flags.Var(&batches, "batch", "`rows` in a call, a list")
	flags.Var(&vocabs, "vocab", "`values` in a row, a list")
	flags.Var(&ks, "top-k", "how many `values` of each row, a list")
	flags.Var(&types, "dtype", "float32, float16 or bfloat16, a `list`")
	plan := flags.String("plan", "", "forces the launch plan of that `name`, see \"aikf plan --device cuda\"")
	deviceName := flags.String("device", "cuda", "`device`: cuda or cuda:N")
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
	if !choice.cuda {
		return usageErrorf("profile: --device %s, want cuda or cuda:N: the CPU has no profile", quote(*deviceName))
	}
	choice.auto = false // there is nothing to fall back to
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
	runner, _, err := openDevice(choice, "profile", c, func(ordinal int) (*bench.DeviceRunner, error) {
		return bench.OpenDevice(ordinal, settings)
	})
	if err != nil {
		return err
	}
	defer runner.Close()
	runner.Plan = *plan
	all := bench.Profiles{
		Schema: bench.ProfileSchema, GPU: runner.GPU(), Command: commandLine("profile", args), Commit: bench.Commit(),
		Date: time.Now().UTC().Truncate(time.Second),
	}
	for _, dtype := range types {
		for _, vocab := range vocabs {
			for _, batch := range batches {
				for _, k := range ks {
					shape := bench.Case{Work: bench.TopK, Source: bench.Random, Batch: batch, Vocab: vocab, TopK: k, DType: dtype}
					if err := runner.Validate(shape); err != nil {
						return usageErrorf("profile: %w", err)
					}
					p, err := runner.Profile(ctx, shape)
					if err != nil {
						return benchError(ctx, "profile", err)
					}
					all.Profiles = append(all.Profiles, p)
				}
			}
		}
	}
	out := bufio.NewWriter(c.out)
	if *format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.Encode(all)
	} else {
		fmt.Fprintf(out, "%s, compute capability %s, driver for CUDA %s\n", all.GPU.Name, all.GPU.ComputeCapability, all.GPU.Driver)
		for _, p := range all.Profiles {
			fmt.Fprintln(out)
			explainProfile(out, p)
		}
	}
	return out.Flush()
}

// explainProfile prints one profile as a table.
func explainProfile(w io.Writer, p bench.Profile) {
	fmt.Fprintf(w, "batch %d, vocab %d, top-k %d, %s: plan %s\n", p.Batch, p.Vocab, p.TopK, p.DType, p.Plan.Name)
	kernels := "kernels"
	if len(p.Plan.Kernels) == 1 {
		kernels = "kernel"
	}
	fmt.Fprintf(w, "  a call launches %d %s and nothing else, no conversion of the logits:", len(p.Plan.Kernels), kernels)
	for _, l := range p.Plan.Kernels {
		fmt.Fprintf(w, " %s (%d x %d)", l.Symbol, l.Grid, l.Block)
	}
	fmt.Fprintf(w, "\n  %-12s %9s %9s %7s\n", "", "us", "cycles", "share")
	fmt.Fprintf(w, "  %-12s %9.2f\n", "call", p.CallUS)
	all := 0.0
	for _, part := range p.Parts {
		all += part.US
		cycles := ""
		if part.Cycles > 0 {
			cycles = fmt.Sprintf("%.0f", part.Cycles)
		}
		fmt.Fprintf(w, "  %-12s %9.2f %9s %6.1f%%\n", part.Name, part.US, cycles, 100*part.Share)
	}
	fmt.Fprintf(w, "  %-12s %9.2f   a pass over the same rows with one block each\n", "floor", p.FloorUS)
	fmt.Fprintf(w, "  %-12s %9.2f   a kernel that does nothing\n", "empty node", p.EmptyUS)
	switch {
	case p.Reason != "":
		fmt.Fprintf(w, "  no phases: %s\n", p.Reason)
	case len(p.Plan.Kernels) > 1:
		fmt.Fprintf(w, "  a stage alone includes an empty node; the stages together take %.2f us\n", all)
	default:
		fmt.Fprintf(w, "  phases of %s, instrumented, at the clock's highest rate: %.2f us together; launch and end are the rest\n", p.PartsOf, all)
		if p.Plan.Name != cuda.PlanBlock {
			fmt.Fprintf(w, "  the plan %s has no instrumented build\n", p.Plan.Name)
		}
	}
}
