package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
)

// The figures of a GPU: graph replay, warm, unless they say otherwise.
const (
	Micros      Figure = "us"              // ours_us, at most; a GPU's moves with the read floor of the run
	ColdPenalty Figure = "us beyond floor" // ours cold - warm, less the floor's cold - warm, at most
	OverAligned Figure = "x aligned"       // ours_us over that of the aligned case, at most
	OverRandom  Figure = "x random"        // ours_us over that of random rows, at most
	OverC       Figure = "us over C"       // a launch from Go less one from C, at most
)

// DeviceBar is a promise about a figure of a GPU. Of several cases the worst
// counts.
type DeviceBar struct {
	Work    string // for people
	Figure  Figure
	Cases   []Case
	Against []Case // for OverAligned and OverRandom, one for each case
	Must    float64
	Aim     float64 // equal to Must if there is no further aim
}

// tableFloorUS is the read floor of one row of the matrix, with one block, on
// the card that the table of bars was made for, an H100 SXM. Cards differ: where
// the floor of the run is higher, the bars move in proportion.
const tableFloorUS = 1.7

// floorCase is the one whose read floor moves the bars.
var floorCase = Case{Work: TopK, Source: Random, Batch: 1, Vocab: vocab, TopK: 50, DType: BFloat16}

// DeviceBars lists every figure that has a bar on a GPU, made for an H100.
func DeviceBars() []DeviceBar {
	shape := func(dtype DType, vocab, batch, k int) Case {
		return Case{Work: TopK, Source: Random, Batch: batch, Vocab: vocab, TopK: k, DType: dtype}
	}
	var bars []DeviceBar
	var matrix []Case // of the matrix's vocab and dtype
	for _, row := range []struct {
		dtype           DType
		vocab, batch, k int
		must, aim       float64
	}{
		{BFloat16, vocab, 1, 50, 4.0, 3.0},
		{BFloat16, vocab, 1, 100, 4.6, 3.5},
		{BFloat16, vocab, 1, 200, 5.6, 4.2},
		{BFloat16, vocab, 4, 50, 4.4, 3.3},
		{BFloat16, vocab, 16, 50, 4.6, 3.6},
		{BFloat16, vocab, 32, 50, 5.0, 4.0},
		{BFloat16, vocab, 32, 200, 6.4, 5.0},
		{BFloat16, vocab, 128, 50, 5.9, 4.8},
		{BFloat16, vocab, 512, 50, 26, 22},
		{BFloat16, vocab, 1, 1024, 9, 6.5},
		{BFloat16, vocab, 1, 2048, 13, 9},
		{BFloat16, bigVocab, 1, 50, 6.5, 5},
		{BFloat16, bigVocab, 32, 50, 8.5, 6.5},
		{BFloat16, bigVocab, 128, 50, 14, 11},
		{Float32, vocab, 1, 50, 6, 4.6},
		{Float32, vocab, 32, 50, 8, 6},
		{Float32, 32768, 1, 50, 5.0, 3.8},
		{Float32, 32768, 8, 50, 5.2, 4},
		{Float32, 32768, 16, 50, 5.4, 4.2},
	} {
		c := shape(row.dtype, row.vocab, row.batch, row.k)
		name := fmt.Sprintf("%s, vocab %d, %d x %d", row.dtype, row.vocab, row.batch, row.k)
		bars = append(bars, DeviceBar{name, Micros, []Case{c}, nil, row.must, row.aim})
		if row.dtype == BFloat16 && row.vocab == vocab {
			matrix = append(matrix, c)
		}
	}
	var odd, aligned []Case
	for _, c := range []Case{shape(BFloat16, vocab, 1, 50), shape(BFloat16, vocab, 32, 50), shape(Float32, vocab, 1, 50)} {
		offset, stride := c, c
		offset.BaseOffset, stride.Vocab = 1, 50257
		odd, aligned = append(odd, offset, stride), append(aligned, c, c)
	}
	var hard, random []Case
	for _, c := range []Case{
		shape(BFloat16, vocab, 1, 50), shape(BFloat16, vocab, 32, 50), shape(BFloat16, vocab, 1, 1024), shape(Float32, vocab, 1, 50),
	} {
		for _, source := range AdversarialSources() {
			adversarial := c
			adversarial.Source = source
			hard, random = append(hard, adversarial), append(random, c)
		}
	}
	bars = append(bars,
		DeviceBar{"cold less warm", ColdPenalty, matrix, nil, 0.4, 0.4},
		DeviceBar{"unaligned rows, odd strides", OverAligned, odd, aligned, 1.3, 1.3},
		DeviceBar{"worst adversarial row", OverRandom, hard, random, 3, 3},
		DeviceBar{"a launch from Go", OverC, []Case{floorCase}, nil, 0.2, 0.2},
	)
	return append(bars, deviceSampleBars()...)
}

// DeviceBarsOf returns the bars of some works, as they are listed, or all if none is
// named.
func DeviceBarsOf(works []string) []DeviceBar {
	return slices.DeleteFunc(DeviceBars(), func(b DeviceBar) bool {
		return len(works) > 0 && !slices.Contains(works, b.Cases[0].Work)
	})
}

// deviceSampleBars lists the figures of sampling. What is beside the top-k alone of
// the same rows, or beside the pipeline alone, was measured in the same rounds.
func deviceSampleBars() []DeviceBar {
	sample := func(sampling, source string, dtype DType, vocab, batch, k int) Case {
		return Case{Work: Sample, Sampling: sampling, Source: source, Batch: batch, Vocab: vocab, TopK: k, DType: dtype}.WithoutTopK()
	}
	var bars []DeviceBar
	beside := func(work string, must, aim float64, cases ...Case) {
		bars = append(bars, DeviceBar{"sample: " + work, Beside, cases, nil, must, aim})
	}
	alone := func(work string, c Case, must, aim float64) {
		bars = append(bars, DeviceBar{fmt.Sprintf("sample: %s, %d rows", work, c.Batch), Micros, []Case{c}, nil, must, aim})
	}
	for _, row := range []struct {
		batch     int
		must, aim float64
	}{{1, 0.9, 0.5}, {32, 1.0, 0.6}, {512, 3, 1.5}} {
		beside(fmt.Sprintf("top-k 50, top-p, min-p, to top-k alone, %d rows", row.batch), row.must, row.aim,
			sample(Pipeline, Random, BFloat16, vocab, row.batch, 50))
	}
	beside("the same with k = 1,024, 1 row", 2.5, 1.5, sample(Pipeline, Random, BFloat16, vocab, 1, 1024))
	beside("the same with vocab 151,936, 32 rows", 1.2, 0.8, sample(Pipeline, Random, BFloat16, bigVocab, 32, 50))
	alone("greedy", sample(Greedy, Random, BFloat16, vocab, 1, 50), 3.0, 2.4)
	alone("greedy", sample(Greedy, Random, BFloat16, vocab, 32, 50), 3.6, 3.0)
	for _, dtype := range []struct {
		name   DType
		factor float64 // of the bars of 16 bits
	}{{BFloat16, 1}, {Float32, 1.6}} {
		for _, source := range []string{Random, Real} {
			for _, row := range []struct {
				batch     int
				must, aim float64
			}{{1, 10, 6}, {32, 14, 9}, {512, 70, 45}} {
				alone(fmt.Sprintf("top-p alone, %s %s", source, dtype.name), sample(TopP, source, dtype.name, vocab, row.batch, 50),
					significant(dtype.factor*row.must), significant(dtype.factor*row.aim))
			}
		}
	}
	alone("min-p alone", sample(MinP, Random, BFloat16, vocab, 1, 50), 6, 4.5)
	alone("min-p alone", sample(MinP, Random, BFloat16, vocab, 32, 50), 8, 6)
	alone("no filter", sample(NoFilter, Random, BFloat16, vocab, 1, 50), 6, 4)
	alone("no filter", sample(NoFilter, Random, BFloat16, vocab, 32, 50), 9, 6)
	alone("no filter", sample(NoFilter, Random, BFloat16, vocab, 512, 50), 45, 30)
	beside("bitmask, 64 penalties and 20 biases, to none", 1.0, 0.5,
		sample(EditedPipeline, Random, BFloat16, vocab, 1, 50), sample(EditedPipeline, Random, BFloat16, vocab, 32, 50))
	beside("logprobs of the chosen and the 20 best, to none", 2.5, 1.5,
		sample(LogprobPipeline, Random, BFloat16, vocab, 1, 50), sample(LogprobPipeline, Random, BFloat16, vocab, 32, 50))
	for _, batch := range []int{1, 8, 16} {
		beside(fmt.Sprintf("nanochat, float32, vocab 32,768, to top-k alone, %d rows", batch), 1.0, 0.6,
			sample(NanochatPipeline, Random, Float32, 32768, batch, 50))
	}
	return bars
}

// under is a case under a condition.
type under struct {
	Case
	Condition
}

// needs lists what has to be measured for the bar.
func (b DeviceBar) needs() []under {
	var needed []under
	for i, c := range b.Cases {
		needed = append(needed, under{c, Condition{Graph, Warm}})
		switch b.Figure {
		case Micros, Beside: // the others are shown beside it
			for _, condition := range Conditions() {
				if c.Work == TopK || condition.Cache == Warm {
					needed = append(needed, under{c, condition})
				}
			}
		case ColdPenalty:
			needed = append(needed, under{c, Condition{Graph, Cold}})
		case OverAligned, OverRandom:
			needed = append(needed, under{b.Against[i], Condition{Graph, Warm}})
		}
	}
	return needed
}

// figure returns the bar's figure of its case i.
func (b DeviceBar) figure(i int, measured map[under]Result, launch LaunchCost) float64 {
	c := b.Cases[i]
	warm := measured[under{c, Condition{Graph, Warm}}]
	switch b.Figure {
	case ColdPenalty:
		cold := measured[under{c, Condition{Graph, Cold}}]
		return significant((cold.OursUS - warm.OursUS) - (cold.FloorUS - warm.FloorUS))
	case OverAligned, OverRandom:
		return significant(warm.OursUS / measured[under{b.Against[i], Condition{Graph, Warm}}].OursUS)
	case Beside:
		return significant(warm.OursUS - warm.ReferenceUS)
	case OverC:
		return significant(launch.OverNS / 1e3)
	}
	return warm.OursUS
}

// verdict judges the bar. scale moves bars in microseconds; lacking says what the
// device does not have.
func (b DeviceBar) verdict(measured map[under]Result, lacking map[Case]string, launch LaunchCost, scale float64) Verdict {
	v := Verdict{Work: b.Work, Figure: b.Figure, Must: b.Must, Aim: b.Aim}
	if b.Figure == Micros && scale > 1 {
		v.Scale = significant(scale)
		v.Must, v.Aim = significant(b.Must*scale), significant(b.Aim*scale)
	}
	if b.Figure == OverC && launch.Reason != "" {
		v.Verdict, v.Reason = NotMeasured, launch.Reason
		return v
	}
	for _, c := range b.Cases {
		if reason, lacks := lacking[c]; lacks {
			v.Verdict, v.Reason = NotMeasured, reason
			return v
		}
	}
	for i, c := range b.Cases {
		figure := b.figure(i, measured, launch)
		if i == 0 || figure > v.Measured {
			v.Measured = figure
			v.Verdict = Bar{Figure: v.Figure, Must: v.Must, Aim: v.Aim}.judge(figure)
			if len(b.Cases) > 1 {
				v.Worst = c.deviceLabel()
			}
		}
	}
	return v
}

// deviceLabel tells cases of one bar apart.
func (c Case) deviceLabel() string {
	s := fmt.Sprintf("%d x %d, %s", c.Batch, c.TopK, c.DType)
	if c.Sampling != "" {
		s = c.Sampling + ", " + s
	}
	if c.Source != Random {
		s = c.Source + ", " + s
	}
	if c.BaseOffset > 0 {
		s += fmt.Sprintf(", offset %d", c.BaseOffset)
	}
	if c.Vocab != vocab {
		s += fmt.Sprintf(", vocab %d", c.Vocab)
	}
	return s
}

// Accept measures every bar and adds to the record what came of it. A case that
// several bars share is measured once; the peers are measured, warm, where a bar
// is in microseconds. A wrong result is an error; a missed bar is not.
func (r *DeviceRunner) Accept(ctx context.Context, bars []DeviceBar, record *Record, progress func(done, total int, next Case)) error {
	var cases []Case
	conditions, withPeers := map[Case][]Condition{}, map[Case]bool{}
	for _, b := range bars {
		for _, need := range b.needs() {
			if !slices.Contains(cases, need.Case) {
				cases = append(cases, need.Case)
			}
			if !slices.Contains(conditions[need.Case], need.Condition) {
				conditions[need.Case] = append(conditions[need.Case], need.Condition)
			}
			withPeers[need.Case] = withPeers[need.Case] || (b.Figure == Micros || b.Figure == Beside) && need.Case.peersTell()
		}
	}
	if conditions[floorCase] == nil { // its read floor moves bars
		cases, conditions[floorCase] = append(cases, floorCase), []Condition{{Graph, Warm}}
	}
	measured, lacking := map[under]Result{}, map[Case]string{}
	for i, c := range cases {
		if progress != nil {
			progress(i, len(cases), c)
		}
		runner := *r
		runner.warmPeers = true
		if !withPeers[c] {
			runner.Peers = nil
		}
		results, err := runner.Measure(ctx, c, conditions[c])
		r.Notes = runner.Notes
		if c.Work == Sample && errors.Is(err, cuda.ErrUnsupported) {
			lacking[c] = Unsupported + err.Error()
			continue
		}
		if err != nil {
			return err
		}
		for _, result := range results {
			measured[under{c, Condition{result.Mode, result.Cache}}] = result
		}
		record.Results = append(record.Results, results...)
	}
	launch := LaunchCost{Reason: "no bar asks for it"}
	if i := slices.IndexFunc(bars, func(b DeviceBar) bool { return b.Figure == OverC }); i >= 0 {
		var err error
		if launch, err = r.launchCost(ctx, bars[i].Cases[0]); err != nil {
			return err
		}
		record.Launch = &launch
	}
	scale := measured[under{floorCase, Condition{Graph, Warm}}].FloorUS / tableFloorUS
	for _, b := range bars {
		record.Acceptance = append(record.Acceptance, b.verdict(measured, lacking, launch, scale))
	}
	if !slices.ContainsFunc(bars, func(b DeviceBar) bool { return b.Cases[0].Work == TopK }) {
		return nil
	}
	var err error
	record.Dependent, err = r.dependentGain(ctx)
	return err
}

// dependentGain measures a selection behind the read floor of the same row,
// without and with programmatic dependent launch. It returns nil, and leaves a
// note, if the device has no such thing.
func (r *DeviceRunner) dependentGain(ctx context.Context) (*DependentGain, error) {
	var batches [2]*deviceBatch[bfloat16]
	var rotations [2]*rotation
	var contestants []deviceContestant
	for i, dependent := range []bool{false, true} {
		b, err := newDeviceBatch[bfloat16](ctx, r, floorCase, cuda.Options{Dependent: dependent})
		if errors.Is(err, cuda.ErrUnsupported) {
			r.note(fmt.Sprintf("programmatic dependent launch was not measured: %v", err))
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		defer b.close()
		m, err := b.newRotation(len(b.inputs))
		if err != nil {
			return nil, err
		}
		defer m.close()
		if err := m.spoil(); err != nil {
			return nil, err
		}
		batches[i], rotations[i] = b, m
		contestants = append(contestants, deviceContestant{m.buffers, func(buffer int) error {
			if err := b.floor(m, buffer); err != nil {
				return err
			}
			return b.sel(m, buffer)
		}})
	}
	times, _, err := r.raceDevice(ctx, Graph, contestants)
	if errors.Is(err, cuda.ErrUnsupported) {
		r.note(fmt.Sprintf("programmatic dependent launch was not measured: %v", err))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i, b := range batches {
		if _, err := b.check(rotations[i]); err != nil {
			return nil, fmt.Errorf("behind another kernel: %w", err)
		}
	}
	return &DependentGain{significant(times[0].Median), significant(times[1].Median)}, nil
}

// peersTell reports whether other software is measured for a bar: what it takes for real
// rows, or for another dtype, tells little that random ones do not.
func (c Case) peersTell() bool {
	return c.Work == TopK || c.Sampling == NanochatPipeline || c.Source == Random && c.DType == BFloat16
}

// AcceptanceBudget is for the samples of a case under one condition.
const AcceptanceBudget = 200 * time.Millisecond
