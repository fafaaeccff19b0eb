package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

const planExamples = `  aikf plan
  aikf plan --batch 1,32 --vocab 50304 --top-k 50,200 --dtype float32
  aikf plan --tier avx512 --cores 16 --format json
  aikf plan --device cuda --arch sm_80 --batch 1,512
  aikf plan --plan-file aikf-plans.json

A plan is made from the shape, the tier and the number of cores alone, or from
the shape and the GPU's architecture, so that of another machine can be printed,
too. It changes the time, never the answer. For a GPU the two-stage plan of the
shape is printed beside the chosen one.
` + targetCandidatesVariable + ` sets how many candidates stage 1 aims at: of a GPU it moves
the groups of the chosen plan, and the chunks of the two-stage plan.
`

// launchPlan is what "aikf plan" says of one shape.
type launchPlan struct {
	Batch          int              `json:"batch"`
	Vocab          int              `json:"vocab"`
	TopK           int              `json:"top_k"`
	DType          tensorfile.DType `json:"dtype"`
	Tier           string           `json:"tier"`
	Cores          int              `json:"cores"`
	Chunk          int              `json:"chunk"`
	SampleStep     int              `json:"sample_step"`
	SampleGroups   int              `json:"sample_groups"`
	SampleRank     int              `json:"sample_rank"`
	Candidates     int              `json:"candidates"`
	Capacity       int              `json:"capacity"`
	WorkspaceBytes int              `json:"workspace_bytes"`
	Threads        int              `json:"threads"`
}

func runPlan(_ context.Context, args []string, c console) error {
	flags := newFlags("plan", "[flags]", planExamples, c)
	batches, vocabs, ks, types := intList{1}, intList{50304}, intList{50}, dtypeList{tensorfile.BFloat16}
	flags.Var(&batches, "batch", "`rows` in a call, a list")
	flags.Var(&vocabs, "vocab", "`values` in a row, a list")
	flags.Var(&ks, "top-k", "how many `values` of each row, a list")
	flags.Var(&types, "dtype", "float32, float16 or bfloat16, a `list`")
	tierName := flags.String("tier", simd.Best().String(), "instruction set `name`, of any machine")
	threads := flags.Int("threads", 0, "`threads` to use (default: the plan decides)")
	cores := flags.Int("cores", cpu.Cores(), "`cores` of the machine")
	device := flags.String("device", "cpu", "`device`: cpu or cuda, which need not be there; auto is cpu")
	planFile := flags.String("plan-file", "", "launch plans that \"aikf tune\" wrote to a `file`, of this machine or another")
	archName := flags.String("arch", "sm_90", "`architecture` of the GPU: "+strings.Join(cuda.Architectures(), ", "))
	format := flags.String("format", "text", "`text` or json")
	words, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	target, err := targetCandidates()
	if err != nil {
		return err
	}
	tier, err := parseTier(*tierName)
	if err != nil {
		return err
	}
	switch {
	case len(words) > 0:
		return usageErrorf("plan: unexpected word %s", quote(words[0]))
	case *threads < 0:
		return usageErrorf("plan: --threads %d is negative", *threads)
	case *cores < 1:
		return usageErrorf("plan: --cores %d, want at least 1", *cores)
	}
	choice, err := parseDevice(*device)
	if err != nil {
		return err
	}
	if err := checkFormat(*format, "text", "json"); err != nil {
		return err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if choice.cuda && !choice.auto {
		for _, name := range []string{"tier", "threads", "cores"} {
			if given[name] {
				return usageErrorf("plan: --%s is for the CPU", name)
			}
		}
		return printDevicePlans(c, *archName, *planFile, batches, vocabs, ks, types, target, *format)
	}
	if given["arch"] {
		return usageErrorf("plan: --arch is for --device cuda")
	}
	tunings, err := loadPlans(*planFile, readPlans[cpu.Tuning](planfile.CPU))
	if err != nil {
		return err
	}
	if tunings != nil && tunings.device.Tier != tier.String() {
		return usageErrorf("plan: --plan-file %s: plans of %v, not of tier %v; see --tier", *planFile, tunings.device, tier)
	}
	var plans []launchPlan
	for _, dtype := range types {
		for _, vocab := range vocabs {
			for _, batch := range batches {
				for _, k := range ks {
					if err := (topk.Shape{Rows: batch, Vocab: vocab, K: k}).Validate(); err != nil {
						return usageErrorf("%w", err)
					}
					plans = append(plans, planShape(cpu.Shape{
						Rows: batch, Vocab: vocab, K: k, ElementBytes: dtype.Bytes(),
						TargetCandidates: target, Threads: *threads, Tuning: tunings.of(planfile.Shape{Rows: batch, Vocab: vocab, TopK: k, DType: string(dtype)}),
					}, dtype, tier, *cores))
				}
			}
		}
	}
	out := bufio.NewWriter(c.out)
	if *format == "json" {
		json.NewEncoder(out).Encode(struct {
			Schema int          `json:"schema"`
			Plans  []launchPlan `json:"plans"`
		}{1, plans})
	} else {
		for i, p := range plans {
			if i > 0 {
				fmt.Fprintln(out)
			}
			p.explain(out)
		}
	}
	return out.Flush()
}

// planShape describes the plan of a shape, with zeros for a shape that has no
// results: a selection then returns at once.
func planShape(shape cpu.Shape, dtype tensorfile.DType, tier simd.Tier, cores int) launchPlan {
	plan := launchPlan{Batch: shape.Rows, Vocab: shape.Vocab, TopK: shape.K, DType: dtype, Tier: tier.String(), Cores: cores}
	if shape.Rows == 0 || shape.K == 0 {
		return plan
	}
	p := cpu.NewPlan(shape, tier, cores)
	plan.Chunk = p.Chunk
	plan.SampleStep, plan.SampleGroups, plan.SampleRank = p.Sample.Step, p.Sample.Groups, p.Sample.Rank
	plan.Candidates, plan.Capacity = p.Sample.Candidates, p.Capacity
	plan.WorkspaceBytes, plan.Threads = p.WorkspaceBytes(), p.Threads
	return plan
}

// explain says in words what the plan does.
func (p launchPlan) explain(w io.Writer) {
	fmt.Fprintf(w, "batch %d, vocab %d, top-k %d, %s on tier %s with %d cores\n",
		p.Batch, p.Vocab, p.TopK, p.DType, p.Tier, p.Cores)
	if p.Threads == 0 {
		fmt.Fprintf(w, "  nothing to do: there are no results\n")
		return
	}
	if p.SampleGroups == 0 {
		fmt.Fprintf(w, "  sample      none: every value is a candidate\n")
	} else {
		fmt.Fprintf(w, "  sample      every %s cache line of 64 bytes, in %d groups; the threshold is the %s largest of their maxima\n",
			ordinal(p.SampleStep), p.SampleGroups, ordinal(p.SampleRank))
		fmt.Fprintf(w, "  candidates  about %d reach the threshold in a row of random order\n", p.Candidates)
	}
	fmt.Fprintf(w, "  filter      chunks of up to %d values, %d a row\n", p.Chunk, (p.Vocab+p.Chunk-1)/p.Chunk)
	fmt.Fprintf(w, "  capacity    %d candidates are held before they are cut to %d\n", p.Capacity, p.TopK)
	fmt.Fprintf(w, "  workspace   %d bytes a thread\n", p.WorkspaceBytes)
	fmt.Fprintf(w, "  threads     %d\n", p.Threads)
}

// ordinal writes n as 1st, 2nd, 3rd, ...
func ordinal(n int) string {
	suffix := "th"
	if n/10%10 != 1 && n%10 >= 1 && n%10 <= 3 {
		suffix = []string{"st", "nd", "rd"}[n%10-1]
	}
	return fmt.Sprintf("%d%s", n, suffix)
}

// parseTier returns the tier of that name, whether this machine has it or not.
func parseTier(name string) (simd.Tier, error) {
	var names []string
	for tier := simd.Pure; tier <= simd.AVX512; tier++ {
		if tier.String() == name {
			return tier, nil
		}
		names = append(names, tier.String())
	}
	return 0, usageErrorf("--tier %s, want one of %s", quote(name), strings.Join(names, ", "))
}
