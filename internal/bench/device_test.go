package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// handDevice is a GPU of tests: the CPU answers, at once or when a graph is
// replayed, and the time of a call is made up.
type handDevice struct {
	memory    []*handMemory
	recording *[]func() error
	l2Bytes   int
	callUS    float64                    // of a selection; others take half of it
	usOf      func(cuda.Options) float64 // instead of callUS
	spentUS   float64
	live      int // allocations, selectors and graphs that are not closed

	after     func(call int, values []byte) // spoils the answer of a selection
	calls     int
	captureIs error // of every capture
	dependent error // of a selector with dependent launch
	logprobs  error // of a sampling that is asked for them
}

type handMemory struct {
	d     *handDevice
	base  cuda.Pointer
	bytes []byte
}

func (d *handDevice) properties() cuda.Properties {
	return cuda.Properties{
		Name: "Hand 1", Ordinal: 2, Major: 9, Multiprocessors: 132, L2Bytes: d.l2Bytes, MemoryBytes: 1 << 30,
		DriverVersion: 12080, ClockKHz: 2_000_000,
	}
}

func (d *handDevice) architecture() cuda.Architecture {
	a, err := cuda.ParseArchitecture("sm_90")
	if err != nil {
		panic(err)
	}
	return a
}

func (d *handDevice) allocate(n int) (deviceMemory, error) {
	base := cuda.Pointer(1 << 20)
	if len(d.memory) > 0 {
		last := d.memory[len(d.memory)-1]
		base = last.base + cuda.Pointer(len(last.bytes)+deviceAlignment)/deviceAlignment*deviceAlignment
	}
	m := &handMemory{d, base, make([]byte, n)}
	d.memory = append(d.memory, m)
	d.live++
	return m, nil
}

func (m *handMemory) pointer() cuda.Pointer { return m.base }
func (m *handMemory) close() error          { m.d.live--; return nil }
func (m *handMemory) upload(offset int, from []byte) error {
	copy(m.bytes[offset:offset+len(from)], from)
	return nil
}
func (m *handMemory) download(to []byte, offset int) error {
	copy(to, m.bytes[offset:offset+len(to)])
	return nil
}

// at returns the memory from an address on.
func (d *handDevice) at(p cuda.Pointer) []byte {
	for _, m := range d.memory {
		if m.base <= p && p < m.base+cuda.Pointer(len(m.bytes)) {
			return m.bytes[p-m.base:]
		}
	}
	panic(fmt.Sprintf("no memory at %#x", uint64(p)))
}

// do runs a call of so many microseconds, or records it.
func (d *handDevice) do(us float64, call func() error) error {
	work := func() error {
		d.spentUS += us
		return call()
	}
	if d.recording != nil {
		*d.recording = append(*d.recording, work)
		return nil
	}
	return work()
}

func (d *handDevice) readFloor(cuda.Logits, cuda.Shape, cuda.Pointer) error {
	return d.do(d.callUS/2, func() error { return nil })
}
func (d *handDevice) emptyKernel() error { return d.do(d.callUS/2, func() error { return nil }) }
func (d *handDevice) synchronize() error { return nil }
func (d *handDevice) close() error       { return nil }

type handGraph struct {
	d    *handDevice
	work []func() error
}

func (d *handDevice) capture(calls func() error) (deviceGraph, error) {
	if d.captureIs != nil {
		return nil, d.captureIs
	}
	g := &handGraph{d: d}
	d.recording = &g.work
	defer func() { d.recording = nil }()
	d.live++
	return g, calls()
}

func (g *handGraph) close() error { g.d.live--; return nil }
func (g *handGraph) launch() error {
	for _, call := range g.work {
		if err := call(); err != nil {
			return err
		}
	}
	return nil
}

func (d *handDevice) replay(graph deviceGraph) (time.Duration, error) {
	if err := graph.launch(); err != nil {
		return 0, err
	}
	d.spentUS = 0
	err := graph.launch()
	return time.Duration(d.spentUS * 1e3), err
}

type handSelector struct {
	d       *handDevice
	options cuda.Options
}

func (d *handDevice) selector(options cuda.Options) (deviceSelector, error) {
	if options.Dependent && d.dependent != nil {
		return nil, d.dependent
	}
	d.live++
	return &handSelector{d, options}, nil
}

func (s *handSelector) close() error { s.d.live--; return nil }

func (s *handSelector) plan(shape cuda.Shape, dtype cuda.DType) (cuda.Plan, error) {
	options := cuda.PlanOptions{TargetCandidates: s.options.TargetCandidates}
	if s.options.Plan != nil {
		options.Name, options.Groups, options.Chunks = s.options.Plan.Name, s.options.Plan.Groups, s.options.Plan.Chunks
	}
	return cuda.ChoosePlan(cuda.PlanShape{Rows: shape.Rows, Vocab: shape.Vocab, K: shape.K, DType: dtype}, s.d.architecture(), options)
}

func (s *handSelector) selectDevice(logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error {
	plan, err := s.plan(shape, logits.DType)
	if err != nil {
		return err
	}
	if workspace.Bytes < plan.WorkspaceBytes {
		return cuda.ErrWorkspace
	}
	us := s.d.callUS
	if s.d.usOf != nil {
		us = s.d.usOf(s.options)
	}
	return s.d.do(us, func() error {
		switch logits.DType {
		case cuda.Float16:
			return handSelect[topk.Float16](s.d, logits, shape, result)
		case cuda.BFloat16:
			return handSelect[topk.BFloat16](s.d, logits, shape, result)
		}
		return handSelect[float32](s.d, logits, shape, result)
	})
}

// sampler: see handSampler.
func (d *handDevice) sampler(params sampling.Params, options cuda.SamplerOptions) (tokenSampler, error) {
	d.live++
	return &handSampler{d, params, options}, nil
}

// handSampler draws by package sampling, in 30 microseconds more than a selection.
type handSampler struct {
	d       *handDevice
	params  sampling.Params
	options cuda.SamplerOptions
}

func (s *handSampler) close() error                             { s.d.live--; return nil }
func (s *handSampler) mostKept(dtype cuda.DType, vocab int) int { return min(vocab, 1024) }

func (s *handSampler) samplePhases(logits cuda.Logits, shape cuda.Shape, rows cuda.RowParams, tokens cuda.Tokens, stamps cuda.Pointer) ([]string, int, error) {
	if logits.DType != cuda.BFloat16 {
		return nil, 0, fmt.Errorf("no phases: %w", cuda.ErrUnsupported)
	}
	if err := s.sample(logits, shape, rows, nil, tokens); err != nil {
		return nil, 0, err
	}
	return []string{"read", "", "draw"}, 2, s.d.do(0, func() error {
		var all []cuda.Phases
		for row := range shape.Rows { // the second block has the token
			at := uint64(1000*row + 1)
			all = append(all, cuda.Phases{at, at + 100, 0, at + 200}, cuda.Phases{at, at + 100, 0, at + 400})
		}
		copy(s.d.at(stamps), bytesOf(all))
		return nil
	})
}

func (s *handSampler) sample(logits cuda.Logits, shape cuda.Shape, rows cuda.RowParams, edits *cuda.Edits, tokens cuda.Tokens) error {
	if s.d.logprobs != nil && tokens.Logprobs != 0 {
		return s.d.logprobs
	}
	us := s.d.callUS + 30
	if edits != nil {
		us += 5
	}
	return s.d.do(us, func() error {
		switch logits.DType {
		case cuda.Float16:
			return handSample[topk.Float16](s, logits, shape, rows, edits, tokens)
		case cuda.BFloat16:
			return handSample[topk.BFloat16](s, logits, shape, rows, edits, tokens)
		}
		return handSample[float32](s, logits, shape, rows, edits, tokens)
	})
}

// numbers reads from the memory of the device.
func numbers[E any](d *handDevice, at cuda.Pointer, first, n int) []E {
	all := make([]E, first+n)
	copy(bytesOf(all), d.at(at))
	return all[first:]
}

func handSample[T topk.Float](s *handSampler, logits cuda.Logits, shape cuda.Shape, rows cuda.RowParams, edits *cuda.Edits, tokens cuda.Tokens) error {
	d, to := s.d, s.d.at(tokens.Tokens)
	for row, seed := range numbers[uint64](d, rows.Seed, 0, shape.Rows) {
		params, options := s.params, sampling.Options{Preset: s.options.Preset}
		params.Seed, params.Position = seed, numbers[uint64](d, rows.Position, row, 1)[0]
		if edits != nil {
			params.GrammarBitmask = numbers[int32](d, edits.Bitmask, row*edits.BitmaskStride, edits.BitmaskWords)
			biases := numbers[float32](d, edits.Biases, row*edits.BiasCount, edits.BiasCount)
			params.LogitBias = map[int32]float32{}
			for i, id := range numbers[int32](d, edits.BiasIDs, row*edits.BiasCount, edits.BiasCount) {
				params.LogitBias[id] = biases[i]
			}
			counts := numbers[int32](d, edits.PenaltyCounts, row*edits.PenaltyCount, edits.PenaltyCount)
			for i, id := range numbers[int32](d, edits.PenaltyIDs, row*edits.PenaltyCount, edits.PenaltyCount) {
				options.History = append(options.History, slices.Repeat([]int32{id}, int(counts[i]))...)
			}
		}
		sampler, err := sampling.New[T](params, options)
		if err != nil {
			return err
		}
		token, err := sampler.Sample(numbers[T](d, logits.Pointer, row*shape.Vocab, shape.Vocab))
		if err != nil {
			return err
		}
		copy(to[4*row:], bytesOf([]int32{token}))
		if tokens.Logprobs != 0 {
			all, err := sampler.AppendLogprobs(nil, numbers[T](d, logits.Pointer, row*shape.Vocab, shape.Vocab), token, tokens.TopCount)
			if err != nil {
				return err
			}
			copy(d.at(tokens.Logprobs)[4*row:], bytesOf([]float32{all[0].Logprob}))
			for i, best := range all[1:] {
				at := 4 * (row*tokens.TopCount + i)
				copy(d.at(tokens.TopIDs)[at:], bytesOf([]int32{best.Token}))
				copy(d.at(tokens.TopLogprobs)[at:], bytesOf([]float32{best.Logprob}))
			}
		}
	}
	d.calls++
	if d.after != nil {
		d.after(d.calls, to)
	}
	return nil
}

// selectStage takes a quarter of the time for the first stage.
func (s *handSelector) selectStage(stage int, logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error {
	return s.d.do(s.d.callUS*float64(1+2*stage)/4, func() error { return nil })
}

func (s *handSelector) selectRepeatedly(times int, logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error {
	for range times {
		if err := s.selectDevice(logits, shape, result, workspace); err != nil {
			return err
		}
	}
	return nil
}

// rawLaunch: there is no driver to call.
func (s *handSelector) rawLaunch(cuda.Logits, cuda.Shape, cuda.Result, cuda.Workspace) (cuda.RawLaunch, error) {
	return cuda.RawLaunch{}, errors.New("no driver")
}

func handSelect[T topk.Float](d *handDevice, logits cuda.Logits, shape cuda.Shape, result cuda.Result) error {
	row := make([]T, shape.Rows*shape.Vocab)
	copy(bytesOf(row), d.at(logits.Pointer))
	answer := topk.NewResult[T](shape.Rows, shape.K)
	if err := topk.Select(answer, row, topk.Shape{Rows: shape.Rows, Vocab: shape.Vocab, K: shape.K}); err != nil {
		return err
	}
	values := d.at(result.Values)
	copy(values, bytesOf(answer.Values))
	copy(d.at(result.Indices), bytesOf(answer.Indices))
	d.calls++
	if d.after != nil {
		d.after(d.calls, values)
	}
	return nil
}

func (s *handSelector) selectPhases(logits cuda.Logits, shape cuda.Shape, result cuda.Result, stamps cuda.Pointer) error {
	if err := s.selectDevice(logits, shape, result, cuda.Workspace{}); err != nil {
		return err
	}
	return s.d.do(0, func() error {
		var all []cuda.Phases
		for row := range shape.Rows {
			at := uint64(1000*row + 1)
			all = append(all, cuda.Phases{at, at + 2000, at + 2500, at + 3500, at + 3900, at + 4000})
		}
		copy(s.d.at(stamps), bytesOf(all))
		return nil
	})
}

// onHand returns a runner on a GPU of tests.
func onHand() (*DeviceRunner, *handDevice) {
	d := &handDevice{callUS: 40, l2Bytes: 1 << 20}
	return &DeviceRunner{Runner: Runner{Iters: 2, Budget: time.Millisecond, Seed: 1, Real: RealLogits()}, device: d}, d
}

func TestMeasureDevice(t *testing.T) {
	for _, dtype := range []DType{Float32, Float16, BFloat16} {
		for _, shape := range [][3]int{{1, 3000, 50}, {3, 257, 257}, {2, 70000, 2500}} {
			r, d := onHand()
			c := Case{Work: TopK, Source: Random, Batch: shape[0], Vocab: shape[1], TopK: shape[2], DType: dtype, BaseOffset: 1}
			results, err := r.Measure(t.Context(), c, Conditions())
			if err != nil {
				t.Fatal(err)
			}
			var conditions []Condition
			for _, result := range results {
				conditions = append(conditions, Condition{result.Mode, result.Cache})
				if field, got := result.invalid(); field != "" {
					t.Errorf("%v: %s = %v", c, field, got)
				}
				if result.Device != "cuda:2" || result.Tier != "sm_90" || result.Plan == "" || result.Batch != c.Batch || result.TopK != c.TopK ||
					!result.IndicesEqual || result.Samples != 2 || result.Reference != "" || result.Speedup != 0 {
					t.Errorf("%v: %+v", c, result)
				}
				if result.Mode == Graph && (result.OursUS != 40 || result.FloorUS != 20 || result.EmptyUS != 20 || result.FloorRatio != 2) {
					t.Errorf("%v: times of a graph: %+v", c, result)
				}
				bytes := result.Inputs * c.Batch * c.Vocab * dtype.Bytes()
				if half := d.properties().L2Bytes / 2; result.Cache == Warm && result.Inputs > 1 && bytes > half ||
					result.Cache == Cold && bytes < 8*half {
					t.Errorf("%v: %d buffers of %d bytes in all, %s", c, result.Inputs, bytes, result.Cache)
				}
			}
			if want := []Condition{{Graph, Warm}, {Eager, Warm}, {Graph, Cold}}; !slices.Equal(conditions, want) {
				t.Errorf("%v, want %v", conditions, want)
			}
			if d.live != 0 {
				t.Errorf("%v: %d things are left open", c, d.live)
			}
		}
	}
}

// TestMeasureDeviceSamplings: every token is that of the CPU, and what a sampling is
// compared with is measured with it.
func TestMeasureDeviceSamplings(t *testing.T) {
	for _, of := range DeviceSamplings() {
		for _, dtype := range []DType{Float32, BFloat16} {
			r, d := onHand()
			d.l2Bytes = 20_000
			c := Case{Work: Sample, Sampling: of, Source: Random, Batch: 3, Vocab: 700, TopK: 20, DType: dtype}
			results, err := r.Measure(t.Context(), c, []Condition{{Graph, Warm}, {Eager, Warm}, {Graph, Cold}})
			if d.live != 0 {
				t.Errorf("%s: %d things are left open", of, d.live)
			}
			if err != nil {
				t.Fatal(err)
			}
			reference, want := map[string]float64{Select: 40, PlainPipeline: 70}, 70.0
			if of == EditedPipeline {
				want = 75
			}
			for _, result := range results {
				if field, got := result.invalid(); field != "" {
					t.Errorf("%v: %s = %v", c, field, got)
				}
				if result.Sampling != of || !result.IndicesEqual || result.Reference != c.deviceReference() || result.TopK != c.WithoutTopK().TopK {
					t.Errorf("%v: %+v", c, result)
				}
				if result.Mode == Graph && (result.OursUS != want || result.ReferenceUS != reference[result.Reference]) {
					t.Errorf("%v: times of a graph: %+v", c, result)
				}
			}
		}
	}
}

// A wrong token is noticed, before the clock runs and while it does.
func TestMeasureDeviceSamplingIsWrong(t *testing.T) {
	c := Case{Work: Sample, Sampling: TopP, Source: Random, Batch: 2, Vocab: 500, TopK: 5, DType: Float32}
	for text, first := range map[string]int{"buffer 1": 2, "after timing": 5} {
		r, d := onHand()
		d.after = func(call int, tokens []byte) {
			if call == first || call > 5 && first == 5 {
				tokens[4] ^= 1
			}
		}
		_, err := r.Measure(t.Context(), c, []Condition{{Graph, Warm}})
		if !errors.Is(err, ErrWrong) || !strings.Contains(err.Error(), text) || d.live != 0 {
			t.Errorf("%s: error %v, %d things left open", text, err, d.live)
		}
	}
}

// A bar whose sampling the device does not have is told, and moves no other.
func TestDeviceAcceptSamplings(t *testing.T) {
	r, d := onHand()
	d.logprobs = cuda.ErrUnsupported
	small := Case{Work: Sample, Sampling: Pipeline, Source: Random, Batch: 1, Vocab: 3000, TopK: 5, DType: BFloat16}
	lacking, greedy := small, small
	lacking.Sampling, greedy.Sampling = LogprobPipeline, Greedy
	bars := []DeviceBar{
		{"pipeline", Beside, []Case{small}, nil, 31, 29},
		{"logprobs", Beside, []Case{lacking}, nil, 31, 29},
		{"greedy", Micros, []Case{greedy.WithoutTopK()}, nil, 7, 5},
	}
	record := sample()
	record.Results, record.Acceptance = nil, nil
	gpu := r.GPU()
	record.GPU = &gpu
	if err := r.Accept(t.Context(), bars, &record, nil); err != nil {
		t.Fatal(err)
	}
	scale := significant(20 / 1.7)
	want := []Verdict{
		{Work: "pipeline", Figure: Beside, Must: 31, Aim: 29, Measured: 30, Verdict: MustOnly},
		{Work: "logprobs", Figure: Beside, Must: 31, Aim: 29, Verdict: NotMeasured, Reason: record.Acceptance[1].Reason},
		{Work: "greedy", Figure: Micros, Must: significant(7 * 20 / 1.7), Aim: significant(5 * 20 / 1.7), Scale: scale, Measured: 70, Verdict: MustOnly},
	}
	if !slices.Equal(record.Acceptance, want) || !strings.HasPrefix(record.Acceptance[1].Reason, Unsupported) {
		t.Errorf("got  %+v\nwant %+v", record.Acceptance, want)
	}
	if record.Dependent != nil || record.Launch != nil || d.live != 0 {
		t.Errorf("%+v, %+v, %d things left open", record.Dependent, record.Launch, d.live)
	}
	if err := record.Validate(); err != nil {
		t.Error(err)
	}
}

// TestMeasureDeviceIsWrong spoils one answer: before the clock runs, and while
// it does.
func TestMeasureDeviceIsWrong(t *testing.T) {
	c := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 500, TopK: 5, DType: Float32}
	for text, first := range map[string]int{"buffer 1": 2, "after timing": 5} {
		r, d := onHand()
		d.after = func(call int, values []byte) {
			if call == first || call > 5 && first == 5 {
				values[0] ^= 1
			}
		}
		_, err := r.Measure(t.Context(), c, []Condition{{Graph, Warm}})
		if !errors.Is(err, ErrWrong) || !strings.Contains(err.Error(), text) || d.live != 0 {
			t.Errorf("%s: error %v, %d things left open", text, err, d.live)
		}
	}
	// A device that does nothing when a graph is replayed.
	r, d := onHand()
	d.after = func(call int, values []byte) {
		if call > 4 {
			copy(values, bytes.Repeat([]byte{0xA5}, 20))
		}
	}
	if _, err := r.Measure(t.Context(), c, []Condition{{Graph, Warm}}); !errors.Is(err, ErrWrong) {
		t.Errorf("results that were never written pass: %v", err)
	}
}

func TestMeasureDeviceFails(t *testing.T) {
	r, d := onHand()
	d.captureIs = cuda.ErrFault
	c := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 500, TopK: 5, DType: Float32}
	if _, err := r.Measure(t.Context(), c, Conditions()); !errors.Is(err, cuda.ErrFault) || d.live != 0 {
		t.Errorf("error %v, %d things left open", err, d.live)
	}
	r.Plan = "no-such-plan"
	if _, err := r.Measure(t.Context(), c, Conditions()); !errors.Is(err, cuda.ErrUnsupported) || d.live != 0 {
		t.Errorf("error %v, %d things left open", err, d.live)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Plan = ""
	if _, err := r.Measure(ctx, c, Conditions()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for _, spoil := range []func(*Case){
		func(c *Case) { c.Work = Stream }, func(c *Case) { c.Tier = "pure" }, func(c *Case) { c.Threads = 2 }, func(c *Case) { c.TopK = 501 },
	} {
		bad := c
		spoil(&bad)
		if _, err := r.Measure(t.Context(), bad, Conditions()); err == nil {
			t.Errorf("%+v was measured", bad)
		}
	}
}

func TestDevicePlanIsForced(t *testing.T) {
	r, _ := onHand()
	r.Plan = cuda.PlanTwoStage
	c := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 50304, TopK: 50, DType: BFloat16}
	results, err := r.Measure(t.Context(), c, []Condition{{Graph, Warm}})
	if err != nil || results[0].Plan != cuda.PlanTwoStage || results[0].WorkspaceBytes == 0 {
		t.Errorf("%v, %+v", err, results)
	}
}

func TestDeviceSelfCheck(t *testing.T) {
	r, d := onHand()
	if err := r.SelfCheck(t.Context()); err != nil || d.live != 0 {
		t.Errorf("%v, %d things left open", err, d.live)
	}
	d.after = func(_ int, values []byte) { values[0] ^= 1 }
	if err := r.SelfCheck(t.Context()); !errors.Is(err, ErrWrong) {
		t.Errorf("a wrong device passes: %v", err)
	}
	d.after = nil
	saved := selectors
	defer func() { selectors = saved }()
	for i := range selectors {
		selectors = slices.Clone(saved)
		selectors[i].right = !selectors[i].right
		if err := r.SelfCheck(t.Context()); !errors.Is(err, ErrWrong) {
			t.Errorf("a gate that misjudges a device that %s passes: %v", selectors[i].name, err)
		}
	}
}

func TestOpenDeviceWithoutOne(t *testing.T) {
	if n, err := cuda.DeviceCount(); err == nil && n > 0 {
		t.Skipf("this machine has %d CUDA devices", n)
	}
	if _, err := OpenDevice(0, Runner{}); !errors.Is(err, cuda.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

func TestDeviceAccept(t *testing.T) {
	r, d := onHand()
	small := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 3000, TopK: 5, DType: BFloat16}
	constant := small
	constant.Source = "constant"
	bars := []DeviceBar{
		{"fast", Micros, []Case{small}, nil, 39, 1},
		{"cold", ColdPenalty, []Case{small}, nil, 0.4, 0.4},
		{"constant", OverRandom, []Case{constant, small}, []Case{small, small}, 3, 3},
		{"floor", Micros, []Case{floorCase}, nil, 4, 3.9},
	}
	record := sample()
	record.Results, record.Acceptance = nil, nil
	gpu := r.GPU()
	record.GPU = &gpu
	d.callUS = 40
	var done int
	if err := r.Accept(t.Context(), bars, &record, func(_, total int, _ Case) { done++ }); err != nil {
		t.Fatal(err)
	}
	if done != 3 || len(record.Results) != 7 {
		t.Errorf("%d cases, %d results: shared ones are measured once", done, len(record.Results))
	}
	// The read floor of the run, 20, is above the table's, so that 39 and 4 move.
	want := []Verdict{
		{Work: "fast", Figure: Micros, Must: significant(39 * 20 / 1.7), Aim: significant(20 / 1.7), Scale: significant(20 / 1.7), Measured: 40, Verdict: MustOnly},
		{Work: "cold", Figure: ColdPenalty, Must: 0.4, Aim: 0.4, Measured: 0, Verdict: Met},
		{Work: "constant", Figure: OverRandom, Must: 3, Aim: 3, Measured: 1, Worst: "constant, 1 x 5, bfloat16, vocab 3000", Verdict: Met},
		{Work: "floor", Figure: Micros, Must: significant(4 * 20 / 1.7), Aim: significant(3.9 * 20 / 1.7), Scale: significant(20 / 1.7), Measured: 40, Verdict: Met},
	}
	if !slices.Equal(record.Acceptance, want) {
		t.Errorf("got  %+v\nwant %+v", record.Acceptance, want)
	}
	if record.Dependent == nil || *record.Dependent != (DependentGain{60, 60}) || d.live != 0 {
		t.Errorf("dependent launch %+v, %d things left open", record.Dependent, d.live)
	}
	if err := record.Validate(); err != nil {
		t.Error(err)
	}
	d.dependent = cuda.ErrUnsupported
	record.Acceptance, record.Results = nil, nil
	if err := r.Accept(t.Context(), bars[:1], &record, nil); err != nil || record.Dependent != nil || !strings.Contains(strings.Join(r.Notes, ""), "dependent launch was not measured") {
		t.Errorf("%v, %+v, notes %q", err, record.Dependent, r.Notes)
	}
}

func TestDeviceVerdict(t *testing.T) {
	c := floorCase
	graph := func(ours, floor float64) Result { return Result{OursUS: ours, FloorUS: floor} }
	measured := map[under]Result{
		{c, Condition{Graph, Warm}}: graph(4, 1.6),
		{c, Condition{Graph, Cold}}: graph(6, 3.3),
	}
	micros := DeviceBar{"a", Micros, []Case{c}, nil, 4, 3}
	if v := micros.verdict(measured, nil, LaunchCost{}, 1.6/1.7); v.Must != 4 || v.Scale != 0 || v.Verdict != MustOnly {
		t.Errorf("a low floor moves the bar: %+v", v)
	}
	if v := (DeviceBar{"a", Micros, []Case{c}, nil, 3.9, 3}).verdict(measured, nil, LaunchCost{}, 1.1); v.Must != 4.29 || v.Aim != 3.3 || v.Verdict != MustOnly {
		t.Errorf("%+v", v)
	}
	cold := DeviceBar{"a", ColdPenalty, []Case{c}, nil, 0.4, 0.4}
	if v := cold.verdict(measured, nil, LaunchCost{}, 2); v.Measured != 0.3 || v.Verdict != Met || v.Scale != 0 {
		t.Errorf("%+v", v)
	}
	host := DeviceBar{"a", OverC, []Case{c}, nil, 0.2, 0.2}
	if v := host.verdict(measured, nil, LaunchCost{GoNS: 2350, CNS: 2100, OverNS: 250}, 1); v.Measured != 0.25 || v.Verdict != Missed {
		t.Errorf("%+v", v)
	}
	if v := host.verdict(measured, nil, LaunchCost{GoNS: 2350, Reason: "no compiler"}, 1); v.Verdict != NotMeasured || v.Reason != "no compiler" {
		t.Errorf("%+v", v)
	}
}

// TestDeviceBarsGolden shows a change of any bar.
func TestDeviceBarsGolden(t *testing.T) {
	r, _ := onHand()
	var text strings.Builder
	for _, b := range DeviceBars() {
		fmt.Fprintf(&text, "%s: must %v, aim %v %s\n", b.Work, b.Must, b.Aim, b.Figure)
		for i, c := range b.Cases {
			fmt.Fprintf(&text, "\t%v; base offset %d", c, c.BaseOffset)
			if b.Against != nil {
				fmt.Fprintf(&text, "; against %v", b.Against[i])
			}
			text.WriteString("\n")
		}
		for _, need := range b.needs() {
			if err := r.Validate(need.Case); err != nil {
				t.Errorf("%s: %v", b.Work, err)
			}
		}
		if len(b.Cases) == 0 || b.Aim > b.Must {
			t.Errorf("%s: an aim below the must, or no cases", b.Work)
		}
	}
	const golden = "testdata/device_bars.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("the bars have changed; go test -update writes\n%s", text.String())
	}
}

func TestProfilePhases(t *testing.T) {
	r, d := onHand()
	c := Case{Work: TopK, Source: Random, Batch: 3, Vocab: 3000, TopK: 50, DType: BFloat16}
	p, err := r.Profile(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	want := []Part{
		{Name: "load", US: 1, Cycles: 2000, Share: 0.5}, {Name: "bound", US: 0.25, Cycles: 500, Share: 0.125},
		{Name: "filter", US: 0.5, Cycles: 1000, Share: 0.25}, {Name: "order", US: 0.2, Cycles: 400, Share: 0.1},
		{Name: "write", US: 0.05, Cycles: 100, Share: 0.025},
	}
	if !slices.Equal(p.Parts, want) || p.CallUS != 40 || p.EmptyUS != 20 || p.PartsOf != cuda.PlanBlock || len(p.Plan.Kernels) != 1 || d.live != 0 {
		t.Errorf("%+v, %d things left open", p, d.live)
	}
}

func TestProfileSampling(t *testing.T) {
	r, d := onHand()
	c := Case{Work: Sample, Sampling: Pipeline, Source: Random, Batch: 3, Vocab: 3000, TopK: 50, DType: BFloat16}
	p, err := r.Profile(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	want := []Part{{Name: "read", US: 0.05, Cycles: 100, Share: 0.25}, {Name: "draw", US: 0.15, Cycles: 300, Share: 0.75}}
	if !slices.Equal(p.Parts, want) || p.Work != Sample || p.Sample != Pipeline || p.CallUS != 70 || p.EmptyUS != 20 || d.live != 0 {
		t.Errorf("%+v, %d things left open", p, d.live)
	}
	c.DType = Float32
	if p, err = r.Profile(t.Context(), c); err != nil || len(p.Parts) != 0 || !strings.Contains(p.Reason, "no phases") || d.live != 0 {
		t.Errorf("%+v, %v, %d things left open", p, err, d.live)
	}
}

func TestProfileStages(t *testing.T) {
	r, d := onHand()
	r.Plan = cuda.PlanTwoStage
	p, err := r.Profile(t.Context(), Case{Work: TopK, Source: Random, Batch: 1, Vocab: 50304, TopK: 50, DType: Float32})
	if err != nil {
		t.Fatal(err)
	}
	want := []Part{{Name: "stage 1", US: 10, Share: 0.25}, {Name: "stage 2", US: 30, Share: 0.75}}
	if !slices.Equal(p.Parts, want) || p.PartsOf != cuda.PlanTwoStage || len(p.Plan.Kernels) != 2 || d.live != 0 {
		t.Errorf("%+v, %d things left open", p, d.live)
	}
	d.after = func(_ int, values []byte) { values[0] ^= 1 }
	if _, err := r.Profile(t.Context(), Case{Work: TopK, Source: Random, Batch: 1, Vocab: 500, TopK: 5, DType: Float32}); !errors.Is(err, ErrWrong) {
		t.Errorf("a wrong answer is profiled: %v", err)
	}
}

func TestPhasesOf(t *testing.T) {
	for _, test := range []struct {
		stamps cuda.Phases
		want   string
	}{
		{cuda.Phases{10, 11, 13, 16, 20, 25}, "load 1; bound 2; filter 3; order 4; write 5"},
		{cuda.Phases{10, 11, 13, 16, 20}, "load 1; bound 2; filter 3; order, write 4"},
		{cuda.Phases{10, 0, 13, 16, 0, 25}, "load, bound 3; filter 3; order, write 9"},
	} {
		spans, err := phasesOf(cuda.SelectionPhases(), test.stamps)
		var got []string
		for _, s := range spans {
			got = append(got, fmt.Sprint(s.Name, " ", s.Cycles))
		}
		if text := strings.Join(got, "; "); text != test.want || err != nil {
			t.Errorf("%+v: %s, %v; want %s", test.stamps, text, err, test.want)
		}
	}
	for _, bad := range []cuda.Phases{{}, {10}, {10, 9}, {10, 12, 0, 0, 11}} {
		if spans, err := phasesOf(cuda.SelectionPhases(), bad); err == nil {
			t.Errorf("%+v: %+v", bad, spans)
		}
	}
}
