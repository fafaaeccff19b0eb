package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
)

// cudaDTypes are the dtypes as package cuda has them.
var cudaDTypes = map[tensorfile.DType]cuda.DType{
	tensorfile.Float32: cuda.Float32, tensorfile.Float16: cuda.Float16, tensorfile.BFloat16: cuda.BFloat16,
}

// devicePlan is what "aikf plan --device cuda" says of one shape.
type devicePlan struct {
	Batch    int              `json:"batch"`
	Vocab    int              `json:"vocab"`
	TopK     int              `json:"top_k"`
	DType    tensorfile.DType `json:"dtype"`
	Arch     string           `json:"arch"`
	Chosen   cuda.Plan        `json:"chosen"`
	TwoStage *cuda.Plan       `json:"two_stage,omitempty"`
	Unfit    string           `json:"two_stage_unfit,omitempty"` // why there is no two-stage plan
}

// printDevicePlans prints the plans of all shapes on the architecture, of which
// no GPU need be there.
func printDevicePlans(c console, archName, planFile string, batches, vocabs, ks intList, types dtypeList, target int, format string) error {
	arch, err := cuda.ParseArchitecture(archName)
	if err != nil {
		return usageErrorf("plan: %w", err)
	}
	tuned, err := loadPlans(planFile, readPlans[planfile.DevicePlan](planfile.CUDA))
	if err != nil {
		return err
	}
	if tuned != nil && "sm_"+strings.ReplaceAll(tuned.device.ComputeCapability, ".", "") != arch.Name {
		return usageErrorf("plan: --plan-file %s: plans of %v, not of %s; see --arch", planFile, tuned.device, arch.Name)
	}
	var plans []devicePlan
	for _, dtype := range types {
		for _, vocab := range vocabs {
			for _, batch := range batches {
				for _, k := range ks {
					plan, err := devicePlanOf(cuda.PlanShape{Rows: batch, Vocab: vocab, K: k, DType: cudaDTypes[dtype]}, dtype, arch, target, tuned)
					if err != nil {
						return usageErrorf("plan: %w", err)
					}
					plans = append(plans, plan)
				}
			}
		}
	}
	out := bufio.NewWriter(c.out)
	if format == "json" {
		json.NewEncoder(out).Encode(struct {
			Schema int          `json:"schema"`
			Plans  []devicePlan `json:"plans"`
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

func devicePlanOf(shape cuda.PlanShape, dtype tensorfile.DType, arch cuda.Architecture, target int, tuned *planSet[planfile.DevicePlan]) (devicePlan, error) {
	p := devicePlan{Batch: shape.Rows, Vocab: shape.Vocab, TopK: shape.K, DType: dtype, Arch: arch.Name}
	options := cuda.PlanOptions{TargetCandidates: target}
	chosen := options
	if plan := tuned.of(planfile.Shape{Rows: shape.Rows, Vocab: shape.Vocab, TopK: shape.K, DType: string(dtype)}); plan != nil {
		chosen.Name, chosen.Groups, chosen.Chunks = plan.Name, plan.Groups, plan.Chunks
	}
	var err error
	if p.Chosen, err = cuda.ChoosePlan(shape, arch, chosen); err != nil || p.Chosen.Name == cuda.PlanNone {
		return p, err
	}
	options.Name = cuda.PlanTwoStage
	twoStage, err := cuda.ChoosePlan(shape, arch, options)
	switch {
	case errors.Is(err, cuda.ErrUnsupported):
		p.Unfit = err.Error()
	case err != nil:
		return p, err
	default:
		p.TwoStage = &twoStage
	}
	return p, nil
}

// explain says in words what the plans do.
func (p devicePlan) explain(w io.Writer) {
	fmt.Fprintf(w, "batch %d, vocab %d, top-k %d, %s on a GPU of architecture %s\n", p.Batch, p.Vocab, p.TopK, p.DType, p.Arch)
	if p.Chosen.Name == cuda.PlanNone {
		fmt.Fprintf(w, "  nothing to do: there are no results\n")
		return
	}
	explainDevicePlan(w, "chosen", p.Chosen)
	if p.TwoStage == nil {
		fmt.Fprintf(w, "  two-stage   none: %s\n", p.Unfit)
	} else {
		explainDevicePlan(w, "two-stage", *p.TwoStage)
	}
}

func explainDevicePlan(w io.Writer, title string, p cuda.Plan) {
	fmt.Fprintf(w, "  %-11s %s\n", title, p.Name)
	fmt.Fprintf(w, "    bound       the k-th largest of %d group maxima\n", p.Groups)
	if p.Chunks > 1 {
		fmt.Fprintf(w, "    chunks      %d a row, of up to %d values\n", p.Chunks, p.ChunkSize)
	}
	for _, l := range p.Kernels {
		fmt.Fprintf(w, "    launch      %s, %d blocks of %d threads", l.Symbol, l.Grid, l.Block)
		if l.Cluster > 1 {
			fmt.Fprintf(w, ", in clusters of %d", l.Cluster)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "    workspace   %d bytes\n", p.WorkspaceBytes)
}
