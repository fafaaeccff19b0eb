package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Condition is how a GPU is given its work, Graph or Eager, and what its cache
// holds then, Warm or Cold.
type Condition struct {
	Mode  string `json:"mode"`
	Cache string `json:"cache"`
}

// String is "graph warm" and so on.
func (c Condition) String() string { return c.Mode + " " + c.Cache }

// Conditions are those of the default run.
func Conditions() []Condition {
	return []Condition{{Graph, Warm}, {Graph, Cold}, {Eager, Warm}}
}

// DeviceRunner measures cases of work TopK and Sample on a GPU. Close it.
type DeviceRunner struct {
	Runner
	Plan  string   // forces the launch plan of that name; empty: chosen for each shape
	Notes []string // what could not be measured, and why

	device    device
	warmPeers bool // peers are not measured cold
}

// OpenDevice returns a runner on the CUDA device with that ordinal. The error
// wraps cuda.ErrUnavailable if there is none.
func OpenDevice(ordinal int, settings Runner) (*DeviceRunner, error) {
	opened, err := openCUDA(ordinal)
	if err != nil {
		return nil, err
	}
	return &DeviceRunner{Runner: settings, device: opened}, nil
}

// Close gives the device back.
func (r *DeviceRunner) Close() error { return r.device.close() }

// GPU describes the device.
func (r *DeviceRunner) GPU() GPU {
	p := r.device.properties()
	return GPU{
		Name: p.Name, Ordinal: p.Ordinal, Driver: fmt.Sprintf("%d.%d", p.DriverVersion/1000, p.DriverVersion%1000/10),
		ComputeCapability: fmt.Sprintf("%d.%d", p.Major, p.Minor), Multiprocessors: p.Multiprocessors,
		L2Bytes: p.L2Bytes, MemoryBytes: p.MemoryBytes, ClockKHz: p.ClockKHz,
	}
}

// Validate reports what of the case cannot be measured on a GPU, with the
// numbers.
func (r *DeviceRunner) Validate(c Case) error {
	switch {
	case c.Work != TopK && c.Work != Sample:
		return fmt.Errorf("work %q does not run on a GPU, only %s and %s", c.Work, TopK, Sample)
	case c.Work == Sample && !slices.Contains(DeviceSamplings(), c.Sampling):
		return fmt.Errorf("sampling %q does not run on a GPU, only %s", c.Sampling, strings.Join(DeviceSamplings(), ", "))
	case c.Work == Sample && r.Plan != "":
		return fmt.Errorf("plan %q: a sampling has no plan to choose", r.Plan)
	case c.Tier != "" || c.Threads > 1 || c.Reference != "":
		return fmt.Errorf("tier %q, threads = %d: a GPU has neither", c.Tier, c.Threads)
	}
	return r.Runner.Validate(c)
}

// note keeps what could not be measured, once.
func (r *DeviceRunner) note(text string) {
	if !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

// Measure checks the answer to every input of the case and times it, the read
// floor, an empty kernel and the peers under each condition. An error wraps
// ErrWrong if an answer is wrong.
func (r *DeviceRunner) Measure(ctx context.Context, c Case, conditions []Condition) ([]Result, error) {
	if err := r.Validate(c); err != nil {
		return nil, err
	}
	switch c.DType {
	case Float16:
		return measureDevice[topk.Float16](ctx, r, c, conditions)
	case BFloat16:
		return measureDevice[topk.BFloat16](ctx, r, c, conditions)
	}
	return measureDevice[float32](ctx, r, c, conditions)
}

func measureDevice[T topk.Float](ctx context.Context, r *DeviceRunner, c Case, conditions []Condition) ([]Result, error) {
	m, err := deviceWork[T](ctx, r, c)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", c, err)
	}
	defer m.close()
	var results []Result
	for _, cache := range []string{Warm, Cold} {
		asked := slices.DeleteFunc(slices.Clone(conditions), func(c Condition) bool { return c.Cache != cache })
		if len(asked) == 0 {
			continue
		}
		if n := r.coldBuffers(c); cache == Cold && n > mostBuffers {
			r.note(fmt.Sprintf("%v: cold was not measured: it takes %d buffers to fill the cache, more than %d", c, n, mostBuffers))
			continue
		}
		measured, err := m.measure(ctx, cache, asked)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", c, err)
		}
		results = append(results, measured...)
	}
	if len(r.Peers) == 0 {
		return results, nil
	}
	for _, peer := range r.Peers {
		if err := m.measurePeer(ctx, peer, results); err != nil {
			return nil, fmt.Errorf("%v: %w", c, err)
		}
	}
	for i := range results {
		if results[i].Reference == "" {
			results[i].setReference(r.Peers[0].Name)
		}
	}
	return results, nil
}

// measurable is a case with its inputs.
type measurable interface {
	measure(ctx context.Context, cache string, conditions []Condition) ([]Result, error)
	measurePeer(ctx context.Context, p *Peer, results []Result) error
	close()
}

// deviceWork makes what a case measures.
func deviceWork[T topk.Float](ctx context.Context, r *DeviceRunner, c Case) (measurable, error) {
	if c.Work == Sample {
		return newSampleBatch[T](ctx, r, c)
	}
	return newDeviceBatch[T](ctx, r, c, cuda.Options{})
}

// setReference takes the peer for the reference, if it was measured.
func (r *Result) setReference(peer string) {
	if p, ok := r.Peers[peer]; ok {
		r.Reference, r.ReferenceUS, r.ReferenceUSP10, r.ReferenceUSP90 = peer, p.US, p.USP10, p.USP90
		r.Speedup = significant(p.US / r.OursUS)
	}
}

// deviceBatch is a case with its inputs and its selector.
type deviceBatch[T topk.Float] struct {
	r        *DeviceRunner
	c        Case
	memory   *memory // of the inputs
	inputs   [][]T
	gates    []gate[T]
	selector deviceSelector
	dtype    cuda.DType
	shape    cuda.Shape
	plan     cuda.Plan
}

// newDeviceBatch makes the inputs of a case and their right answers.
func newDeviceBatch[T topk.Float](ctx context.Context, r *DeviceRunner, c Case, options cuda.Options) (*deviceBatch[T], error) {
	b, err := newUnrankedBatch[T](r, c, options)
	if err != nil {
		return nil, err
	}
	if err := b.rank(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// newUnrankedBatch makes the inputs of a case, without their right answers.
func newUnrankedBatch[T topk.Float](r *DeviceRunner, c Case, options cuda.Options) (*deviceBatch[T], error) {
	n := r.deviceInputs(c)
	memory, err := newMemory(c.inputBytes(n))
	if err != nil {
		return nil, err
	}
	inputs, _ := makeInputs[T](&r.Runner, c, n, memory)
	b, err := deviceBatchOf(r, c, inputs, options)
	if err != nil {
		memory.release()
		return nil, err
	}
	b.memory = memory
	return b, nil
}

// deviceBatchOf makes a selector with the options and the runner's plan.
func deviceBatchOf[T topk.Float](r *DeviceRunner, c Case, inputs [][]T, options cuda.Options) (*deviceBatch[T], error) {
	b := &deviceBatch[T]{
		r: r, c: c, inputs: inputs, dtype: cudaDTypes[c.DType],
		shape: cuda.Shape{Rows: c.Batch, Vocab: c.Vocab, K: c.TopK},
	}
	if r.Plan != "" {
		options.Plan = &cuda.Plan{Name: r.Plan}
	}
	options.TargetCandidates = r.TargetCandidates
	var err error
	if b.selector, err = r.device.selector(options); err != nil {
		return nil, err
	}
	if b.plan, err = b.selector.plan(b.shape, b.dtype); err != nil {
		b.selector.close()
		return nil, err
	}
	return b, nil
}

// rank finds the right answers.
func (b *deviceBatch[T]) rank(ctx context.Context) error {
	for _, logits := range b.inputs {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.gates = append(b.gates, newGate(logits, b.c.Batch, b.c.TopK))
	}
	return nil
}

func (b *deviceBatch[T]) close() {
	if b.memory != nil {
		b.memory.release()
	}
	b.selector.close()
}

var cudaDTypes = map[DType]cuda.DType{Float32: cuda.Float32, Float16: cuda.Float16, BFloat16: cuda.BFloat16}

// deviceInputs returns over how many inputs a warm case rotates: as many as half
// of the second-level cache holds together, since each half of it may keep a
// copy of what it reads, but at least one and at most four.
func (r *DeviceRunner) deviceInputs(c Case) int {
	return max(1, min(4, r.device.properties().L2Bytes/2/(c.DType.Bytes()*c.Batch*c.Vocab)))
}

// coldBuffers returns over how many buffers a cold case rotates: between two
// uses of one, four times as much is read as the cache holds.
func (r *DeviceRunner) coldBuffers(c Case) int {
	bytes := c.DType.Bytes() * c.Batch * c.Vocab
	return max(2, (4*r.device.properties().L2Bytes+bytes-1)/bytes)
}

// mostBuffers bounds the buffers of a cold case, and so the nodes of a graph.
const mostBuffers = 1 << 16

// rotation is device memory that calls rotate over: buffers of logits, with
// results of their own. Buffer i holds input i modulo the number of inputs.
type rotation struct {
	buffers   int
	spacing   int // bytes from one buffer to the next
	offset    int // bytes from the start of a buffer to its first logit
	results   int // entries of a buffer's result
	element   int // bytes of a logit
	logits    deviceMemory
	values    deviceMemory
	indices   deviceMemory
	maxima    deviceMemory // of the read floor
	workspace deviceMemory // nil if the plan needs none
}

const deviceAlignment = 256

func (b *deviceBatch[T]) newRotation(buffers int) (*rotation, error) {
	var zero T
	element := int(unsafe.Sizeof(zero))
	offset := element * b.c.BaseOffset
	bytes := offset + element*b.c.Batch*b.c.Vocab
	m := &rotation{
		buffers: buffers, offset: offset, element: element, results: b.c.Batch * b.c.TopK,
		spacing: (bytes + deviceAlignment - 1) / deviceAlignment * deviceAlignment,
	}
	for _, block := range []struct {
		memory *deviceMemory
		bytes  int
	}{
		{&m.logits, buffers * m.spacing}, {&m.values, buffers * m.results * element}, {&m.indices, buffers * m.results * 4},
		{&m.maxima, b.c.Batch * element}, {&m.workspace, b.plan.WorkspaceBytes},
	} {
		if block.bytes == 0 {
			continue
		}
		var err error
		if *block.memory, err = b.r.device.allocate(block.bytes); err != nil {
			m.close()
			return nil, err
		}
	}
	for i := range buffers {
		if err := m.logits.upload(i*m.spacing+offset, bytesOf(b.inputs[i%len(b.inputs)])); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

func (m *rotation) close() {
	for _, block := range []deviceMemory{m.logits, m.values, m.indices, m.maxima, m.workspace} {
		if block != nil {
			block.close()
		}
	}
}

// bytesOf views a slice as its bytes.
func bytesOf[E any](s []E) []byte {
	var zero E
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(zero)))
}

// logitsOf returns where the logits of a buffer are.
func (b *deviceBatch[T]) logitsOf(m *rotation, buffer int) cuda.Logits {
	return cuda.Logits{Pointer: m.logits.pointer() + cuda.Pointer(buffer*m.spacing+m.offset), DType: b.dtype}
}

// resultOf returns where the results of a buffer go.
func (m *rotation) resultOf(buffer int) cuda.Result {
	first := buffer * m.results
	return cuda.Result{
		Values:  m.values.pointer() + cuda.Pointer(first*m.element),
		Indices: m.indices.pointer() + cuda.Pointer(first*4),
	}
}

// sel puts the selection of one buffer into the stream.
func (b *deviceBatch[T]) sel(m *rotation, buffer int) error {
	return b.selector.selectDevice(b.logitsOf(m, buffer), b.shape, m.resultOf(buffer), m.scratch(b.plan))
}

func (m *rotation) scratch(plan cuda.Plan) cuda.Workspace {
	if m.workspace == nil {
		return cuda.Workspace{}
	}
	return cuda.Workspace{Pointer: m.workspace.pointer(), Bytes: plan.WorkspaceBytes}
}

// floor puts the read floor of one buffer into the stream.
func (b *deviceBatch[T]) floor(m *rotation, buffer int) error {
	return b.r.device.readFloor(b.logitsOf(m, buffer), b.shape, m.maxima.pointer())
}

// spoil overwrites all results, so that what a check finds was written after it.
func (m *rotation) spoil() error {
	poison := slices.Repeat([]byte{0xA5}, max(m.element, 4)*m.buffers*m.results)
	if err := m.values.upload(0, poison[:m.element*m.buffers*m.results]); err != nil {
		return err
	}
	return m.indices.upload(0, poison[:4*m.buffers*m.results])
}

// check compares the results of all buffers with the right answers.
func (b *deviceBatch[T]) check(m *rotation) (agreement, error) {
	got := topk.NewResult[T](m.buffers, m.results)
	if err := m.values.download(bytesOf(got.Values), 0); err != nil {
		return agreement{}, err
	}
	if err := m.indices.download(bytesOf(got.Indices), 0); err != nil {
		return agreement{}, err
	}
	for i := range m.buffers {
		first, last := i*m.results, (i+1)*m.results
		a, err := b.gates[i%len(b.gates)].check(topk.Result[T]{Values: got.Values[first:last], Indices: got.Indices[first:last]})
		if err != nil {
			return a, fmt.Errorf("plan %s, buffer %d: %w", b.plan.Name, i, err)
		}
	}
	return agreement{valuesEqual: true, indicesEqual: true}, nil
}

// measure times all conditions of one kind of cache.
func (b *deviceBatch[T]) measure(ctx context.Context, cache string, conditions []Condition) ([]Result, error) {
	m, err := b.newRotation(b.buffers(cache))
	if err != nil {
		return nil, err
	}
	defer m.close()
	result := b.result(m)
	result.Plan, result.WorkspaceBytes = b.plan.Name, b.plan.WorkspaceBytes
	return b.r.hold(ctx, deviceContest{
		result: result,
		ours:   deviceContestant{m.buffers, func(i int) error { return b.sel(m, i) }},
		floor:  deviceContestant{m.buffers, func(i int) error { return b.floor(m, i) }},
		spoil:  m.spoil,
		check:  func() (agreement, error) { return b.check(m) },
	}, conditions)
}

// buffers returns over how many buffers calls rotate with that kind of cache.
func (b *deviceBatch[T]) buffers(cache string) int {
	if cache == Cold {
		return b.r.coldBuffers(b.c)
	}
	return len(b.inputs)
}

// result returns a result that says what is measured, and nothing else.
func (b *deviceBatch[T]) result(m *rotation) Result {
	return Result{
		Device: fmt.Sprint(cudaPrefix, b.r.device.properties().Ordinal), Tier: b.r.device.architecture().Name,
		Work: b.c.Work, Source: b.c.Source, Batch: b.c.Batch, Vocab: b.c.Vocab, TopK: b.c.TopK, DType: b.c.DType,
		BaseOffset: b.c.BaseOffset, Inputs: m.buffers,
	}
}

// deviceContest is what is timed of a case with one kind of cache.
type deviceContest struct {
	result      Result // without times
	ours, floor deviceContestant
	reference   deviceContestant // of result.Reference; it may have none
	spoil       func() error     // overwrites all answers
	check       func() (agreement, error)
}

// hold times a contest under each condition, and checks every answer before and
// after.
func (r *DeviceRunner) hold(ctx context.Context, c deviceContest, conditions []Condition) ([]Result, error) {
	contestants := []deviceContestant{c.ours, c.floor, {1, func(int) error { return r.device.emptyKernel() }}}
	answering := []deviceContestant{c.ours}
	if c.reference.call != nil {
		contestants, answering = append(contestants, c.reference), append(answering, c.reference)
	}
	var results []Result
	for _, condition := range conditions {
		// Every buffer once, before the clock runs.
		if err := c.spoil(); err != nil {
			return nil, err
		}
		for _, contestant := range answering {
			for i := range contestant.buffers {
				if err := contestant.call(i); err != nil {
					return nil, err
				}
			}
		}
		if err := r.device.synchronize(); err != nil {
			return nil, err
		}
		before, err := c.check()
		if err != nil {
			return nil, err
		}
		if err := c.spoil(); err != nil { // what is checked afterwards was written meanwhile
			return nil, err
		}
		times, launch, err := r.raceDevice(ctx, condition.Mode, contestants)
		if err != nil {
			return nil, err
		}
		after, err := c.check()
		if err != nil {
			return nil, fmt.Errorf("after timing: %w", err)
		}
		result := c.result
		result.Mode, result.Cache = condition.Mode, condition.Cache
		result.MaxAbsDiff, result.IndicesEqual = max(before.maxAbsDiff, after.maxAbsDiff), before.indicesEqual && after.indicesEqual
		reference := Times{}
		if c.reference.call != nil {
			reference = times[3]
		}
		result.setTimes(times[0], reference, times[1], times[1])
		empty := times[2].rounded()
		result.EmptyUS, result.EmptyUSP10, result.EmptyUSP90 = empty.Median, empty.P10, empty.P90
		if condition.Mode == Eager {
			launch = launch.rounded()
			result.LaunchNS, result.LaunchNSP10, result.LaunchNSP90 = launch.Median, launch.P10, launch.P90
			if result.AllocsPerCall, err = r.allocations(c.ours); err != nil {
				return nil, err
			}
		}
		results = append(results, result)
	}
	return results, nil
}

// allocations returns the heap allocations of a call.
func (r *DeviceRunner) allocations(c deviceContestant) (float64, error) {
	const calls = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range calls {
		if err := c.call(i % c.buffers); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	// Whatever else runs in the process may allocate now and then: whole allocations only.
	return float64((after.Mallocs - before.Mallocs) / calls), r.device.synchronize()
}

// deviceContestant is something to be timed on a GPU: a call puts work into the
// stream, over one of so many buffers.
type deviceContestant struct {
	buffers int
	call    func(buffer int) error
}

// deviceSampleTime is the least that a timed sample of a GPU lasts.
const deviceSampleTime = time.Millisecond

// raceDevice times the contestants in rounds, as race does: whole rotations over
// the buffers, for deviceSampleTime or more. The garbage collector is off
// meanwhile. Eager times include a wait at the end, but for launch: the
// nanoseconds in which the processor makes a call of the first contestant.
func (r *DeviceRunner) raceDevice(ctx context.Context, mode string, contestants []deviceContestant) (times []Times, launch Times, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	var launches []float64
	samplers := make([]deviceSampler, len(contestants))
	defer func() {
		for _, s := range samplers {
			s.close()
		}
	}()
	for i, c := range contestants {
		if samplers[i], err = r.newSampler(mode, c); err != nil {
			return nil, Times{}, err
		}
	}
	samples, err := rounds(ctx, len(contestants), r.Iters, r.Budget, func(i int) (float64, error) {
		elapsed, enqueued, err := samplers[i].sample()
		if i == 0 && mode == Eager {
			launches = append(launches, enqueued)
		}
		return microseconds(elapsed) / float64(samplers[i].calls), err
	})
	if err != nil {
		return nil, Times{}, err
	}
	if mode == Eager {
		launch = timesOf(launches, min(samplers[0].calls, queuedLaunches))
	}
	for i, s := range samples {
		times = append(times, timesOf(s, samplers[i].calls))
	}
	return times, launch, nil
}

// deviceSampler takes samples of one contestant.
type deviceSampler struct {
	r     *DeviceRunner
	c     deviceContestant
	calls int
	graph deviceGraph // nil: eager
}

// queuedLaunches is how many launches the queue of a stream holds for sure
// before the processor has to wait for the GPU.
const queuedLaunches = 256

// newSampler finds out how many calls last deviceSampleTime.
func (r *DeviceRunner) newSampler(mode string, c deviceContestant) (s deviceSampler, err error) {
	const leastCalls = 32
	rotations := (leastCalls + c.buffers - 1) / c.buffers
	for {
		s = deviceSampler{r: r, c: c, calls: rotations * c.buffers}
		if mode == Graph {
			if s.graph, err = r.device.capture(func() error { return s.enqueue(0, s.calls) }); err != nil {
				return s, err
			}
		}
		elapsed, _, err := s.sample()
		if err != nil || elapsed >= deviceSampleTime {
			return s, err
		}
		if err := s.close(); err != nil {
			return s, err
		}
		// Aim past the mark, and not too far at once: early calls are slow.
		rotations = min(64*rotations, int(1.2*float64(rotations)*float64(deviceSampleTime)/float64(max(elapsed, 1)))+1)
	}
}

func (s *deviceSampler) enqueue(first, last int) error {
	for i := first; i < last; i++ {
		if err := s.c.call(i % s.c.buffers); err != nil {
			return err
		}
	}
	return nil
}

// sample returns the time of all calls and, of an eager one, the nanoseconds
// that one call takes from the processor.
func (s *deviceSampler) sample() (elapsed time.Duration, enqueued float64, err error) {
	if s.graph != nil {
		elapsed, err = s.r.device.replay(s.graph)
		return elapsed, 0, err
	}
	queued := min(s.calls, queuedLaunches)
	if err := s.r.device.synchronize(); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := s.enqueue(0, queued); err != nil {
		return 0, 0, err
	}
	enqueued = float64(time.Since(start).Nanoseconds()) / float64(queued)
	if err := s.enqueue(queued, s.calls); err != nil {
		return 0, 0, err
	}
	err = s.r.device.synchronize()
	return time.Since(start), enqueued, err
}

func (s *deviceSampler) close() error {
	if s.graph == nil {
		return nil
	}
	graph := s.graph
	s.graph = nil
	return graph.close()
}

// SelfCheck shows that the gate accepts what the device answers, and rejects
// what a wrong selector would leave in the device's memory: answers that are
// deliberately spoiled, each in a way that a benchmark could miss, and none.
func (r *DeviceRunner) SelfCheck(ctx context.Context) error {
	if err := SelfCheck(); err != nil {
		return err
	}
	logits := selfCheckLogits()
	c := Case{Work: TopK, Source: Random, Batch: 1, Vocab: len(logits), TopK: selfCheckK, DType: Float32}
	b, err := deviceBatchOf(r, c, [][]float32{logits}, cuda.Options{})
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.rank(ctx); err != nil {
		return err
	}
	m, err := b.newRotation(1)
	if err != nil {
		return err
	}
	defer m.close()
	misjudges := func(what string, err error) error {
		return fmt.Errorf("bench: the correctness gate misjudges a device that %s (%v): %w", what, err, ErrWrong)
	}
	if err := m.spoil(); err != nil {
		return err
	}
	if _, err := b.check(m); err == nil {
		return misjudges("was not called", err)
	}
	if err := b.sel(m, 0); err != nil {
		return err
	}
	if _, err := b.check(m); err != nil {
		return err
	}
	for _, selector := range selectors {
		answer := topk.Result[float32]{Values: slices.Clone(b.gates[0].want.Values), Indices: slices.Clone(b.gates[0].want.Indices)}
		selector.spoil(answer, logits)
		if err := errors.Join(m.values.upload(0, bytesOf(answer.Values)), m.indices.upload(0, bytesOf(answer.Indices))); err != nil {
			return err
		}
		if _, err := b.check(m); (err == nil) != selector.right {
			return misjudges(selector.name, err)
		}
	}
	return nil
}
