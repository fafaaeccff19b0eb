package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/topk"
)

// deviceChoice is the value of --device: auto, cpu, cuda or cuda:N.
type deviceChoice struct {
	text    string
	cuda    bool // auto too
	auto    bool // the CPU will do
	ordinal int
}

const deviceUsage = "`device`: auto, cpu, cuda or cuda:N; auto takes the first GPU and, without one, the CPU"

// parseDevice reports a --device that is none.
func parseDevice(text string) (deviceChoice, error) {
	name, number, numbered := strings.Cut(text, ":")
	d := deviceChoice{text: text, cuda: text == "auto" || name == "cuda", auto: text == "auto"}
	switch {
	case text == "cpu":
	case !d.cuda:
		return d, usageErrorf("--device %s, want auto, cpu, cuda or cuda:N", quote(text))
	case numbered:
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return d, usageErrorf("--device %s: %s is not the number of a device", quote(text), quote(number))
		}
		d.ordinal = int(n)
	}
	return d, nil
}

// openDevice opens the GPU that was chosen with open. Without one the error is
// one of usage; if the CPU will do, that is said instead, and opened is false.
func openDevice[D any](choice deviceChoice, command string, c console, open func(ordinal int) (D, error)) (device D, opened bool, err error) {
	if !choice.cuda {
		return device, false, nil
	}
	device, err = open(choice.ordinal)
	switch {
	case err == nil:
		return device, true, nil
	case !errors.Is(err, cuda.ErrUnavailable):
		return device, false, err
	case choice.auto:
		fmt.Fprintf(c.err, "aikf: %s: on the CPU: %v\n", command, err)
		return device, false, nil
	}
	return device, false, usageErrorf("--device %s: %w", quote(choice.text), err)
}

// planFlag checks the name of a forced launch plan.
func planFlag(name string) error {
	names := []string{cuda.PlanBlock, cuda.PlanCluster, cuda.PlanTwoStage, cuda.PlanAny}
	for _, known := range names {
		if name == "" || name == known {
			return nil
		}
	}
	return usageErrorf("--plan %s, want one of %s", quote(name), strings.Join(names, ", "))
}

// gpu is a device that selects rows of host memory. Nil stands for the CPU.
type gpu struct {
	device            *cuda.Device
	largest, smallest *cuda.Selector
}

// openGPU opens the device. target overrides the candidates that a plan aims at,
// and planFile, unless empty, names a file of plans.
func openGPU(ordinal, target int, planFile string) (*gpu, error) {
	device, err := cuda.Open(ordinal)
	if err != nil {
		return nil, err
	}
	g := &gpu{device: device}
	plans, err := loadPlans(planFile, cuda.LoadPlans)
	if err == nil {
		g.largest, err = device.NewSelector(cuda.Options{TargetCandidates: target, Plans: plans})
	}
	if err == nil {
		g.smallest, err = device.NewSelector(cuda.Options{TargetCandidates: target, Plans: plans, Smallest: true})
	}
	if err != nil {
		return nil, errors.Join(planFileError(planFile, err), device.Close())
	}
	return g, nil
}

// close gives the device back, and with it what it made.
func (g *gpu) close() error {
	if g == nil {
		return nil
	}
	return g.device.Close()
}

// selectOn selects on the GPU or, if that is nil, by the selector, whose options
// say which order is asked for.
func selectOn[T topk.Float](g *gpu, selector *topk.Selector[T], dst topk.Result[T], logits []T, shape topk.Shape) error {
	switch {
	case g == nil:
		return selector.Select(dst, logits, shape)
	case selector.Options.Smallest:
		return cuda.Select(g.smallest, dst, logits, shape)
	}
	return cuda.Select(g.largest, dst, logits, shape)
}
