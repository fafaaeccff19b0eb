package bench

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/launchloop"
	"github.com/ai-kernel-factory/aikf/topk"
)

type bfloat16 = topk.BFloat16

// launchBurst is how many launches a sample of launchCost times: few enough that
// the queue of the stream holds them all, with room to spare.
const launchBurst = 100

// launchCost measures what a launch of one case takes of the processor: by
// SelectDevice, and by a loop in C that makes the same call of the driver, in
// the same process, with the same kernel, arguments and stream, in turns.
func (r *DeviceRunner) launchCost(ctx context.Context, c Case) (LaunchCost, error) {
	b, err := newDeviceBatch[bfloat16](ctx, r, c, cuda.Options{})
	if err != nil {
		return LaunchCost{}, err
	}
	defer b.close()
	m, err := b.newRotation(1)
	if err != nil {
		return LaunchCost{}, err
	}
	defer m.close()
	if err := m.spoil(); err != nil {
		return LaunchCost{}, err
	}
	logits, result, workspace := b.logitsOf(m, 0), m.resultOf(0), m.scratch(b.plan)
	bursts := []func() (float64, error){func() (float64, error) {
		start := time.Now()
		if err := b.selector.selectRepeatedly(launchBurst, logits, b.shape, result, workspace); err != nil {
			return 0, err
		}
		return float64(time.Since(start).Nanoseconds()) / launchBurst, nil
	}}
	fromC, missing := launchFromC(ctx, b.selector, logits, b.shape, result, workspace)
	if missing == nil {
		bursts = append(bursts, fromC)
	}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	samples, err := rounds(ctx, len(bursts), r.Iters, r.Budget, func(i int) (float64, error) {
		if err := r.device.synchronize(); err != nil {
			return 0, err
		}
		return bursts[i]()
	})
	if err != nil {
		return LaunchCost{}, err
	}
	if err := r.device.synchronize(); err != nil {
		return LaunchCost{}, err
	}
	if _, err := b.check(m); err != nil {
		return LaunchCost{}, fmt.Errorf("after timing launches: %w", err)
	}
	var over []float64
	if missing == nil {
		for i := range samples[0] {
			over = append(over, samples[0][i]-samples[1][i])
		}
	}
	inGo := timesOf(samples[0], launchBurst).rounded()
	cost := LaunchCost{GoNS: inGo.Median, GoNSP10: inGo.P10, GoNSP90: inGo.P90}
	if missing != nil {
		cost.Reason = missing.Error()
		return cost, nil
	}
	inC := timesOf(samples[1], launchBurst).rounded()
	cost.CNS, cost.CNSP10, cost.CNSP90 = inC.Median, inC.P10, inC.P90
	cost.OverNS = timesOf(over, launchBurst).rounded().Median
	return cost, nil
}

// launchFromC returns a burst of the same launches from C: nanoseconds a launch.
// Without a C compiler, and for a plan that is more than one call of the driver,
// it is an error that says so.
func launchFromC(ctx context.Context, selector deviceSelector, logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) (burst func() (float64, error), err error) {
	raw, err := selector.rawLaunch(logits, shape, result, workspace)
	if err != nil {
		return nil, err
	}
	loop, err := launchloop.Load(ctx)
	if err != nil {
		return nil, err
	}
	return func() (float64, error) {
		ns := loop(raw.Function, launchBurst, raw.Config, raw.Kernel, raw.Parameters)
		if ns < 0 {
			return 0, fmt.Errorf("bench: a launch from C failed")
		}
		return ns, nil
	}, nil
}
