package cuda

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Shape describes a batch of rows of logits in device memory, as [topk.Shape]
// does for host memory.
type Shape struct {
	Rows  int // rows in the batch; 0 is allowed
	Vocab int // logits in a row, at most 2^31-1
	K     int // results for each row, 0 <= K <= Vocab

	// Stride is the number of elements from the start of one row to the start
	// of the next; 0 stands for Vocab.
	Stride int
	// Expand makes every row the first one. Stride is then not used.
	Expand bool

	// RowK, if not 0, is the address of a k for each row, [Rows] int32, clamped
	// to 0 and K on the device.
	RowK Pointer
	// RowLengths, if not 0, is the address of a length for each row, [Rows]
	// int32, clamped to 0 and Vocab on the device: only the first RowLengths[i]
	// logits of row i count. A row shorter than its k has as many results as
	// logits.
	RowLengths Pointer
}

// validate reports what is wrong with the shape, as package topk does.
func (s Shape) validate() error {
	return topk.Shape{Rows: s.Rows, Vocab: s.Vocab, K: s.K, Stride: s.Stride, Expand: s.Expand}.Validate()
}

// stride returns the elements from one row to the next.
func (s Shape) stride() int {
	switch {
	case s.Expand:
		return 0
	case s.Stride == 0:
		return s.Vocab
	}
	return s.Stride
}

// Logits are the address of [Rows, Vocab] elements, aligned to the element.
type Logits struct {
	Pointer Pointer
	DType   DType
}

// Result is where the answer goes: row i's results start at i*Stride elements,
// best first. Values has the dtype of the logits and their original bits. What
// lies past a row's results is not touched.
type Result struct {
	Values, Indices Pointer
	Index64         bool // indices are int64, not int32
	Stride          int  // elements from one row to the next; 0 stands for K
}

// indexBytes returns the size of an index.
func (r Result) indexBytes() int {
	if r.Index64 {
		return 8
	}
	return 4
}

// Workspace is device memory that a call may overwrite while it runs. Its
// address is aligned to 8 bytes. Calls that may run at the same time need one
// each.
type Workspace struct {
	Pointer Pointer
	Bytes   int
}

// Options steer a [Selector]. The zero value is right for most callers. Only
// Smallest changes the answer; the others change the time.
type Options struct {
	// Smallest asks for the k smallest logits, smallest first; NaN is last, and
	// equal logits keep the smaller index first.
	Smallest bool
	// Plan forces its Name, Groups and Chunks on every call, whatever the rest
	// of it says; a call whose shape they do not fit is an error that wraps
	// [ErrUnsupported]. Nil: chosen for each shape.
	Plan *Plan
	// Plans are used for the shapes that they have, if Plan is nil. Plans of
	// another device are an error of [Device.NewSelector]. See [LoadPlans].
	Plans *TunedPlans
	// TargetCandidates overrides how many candidates a row leaves for the second
	// stage. 0 stands for 500. See [PlanOptions].
	TargetCandidates int
	// Dependent lets a call start while the kernel before it in the stream ends
	// (programmatic dependent launch); it waits before it reads. Compute
	// capability 9.0 and later.
	Dependent bool
}

// planOptions returns what the options say about plans.
func (o Options) planOptions() PlanOptions {
	p := PlanOptions{TargetCandidates: o.TargetCandidates}
	if o.Plan != nil {
		p.Name, p.Groups, p.Chunks = o.Plan.Name, o.Plan.Groups, o.Plan.Chunks
	}
	return p
}

// Selector selects the top k of batches in device memory. It is safe for use
// by many goroutines, on many streams at once.
type Selector struct {
	owned
	first   deviceCall // for the one goroutine that claims it, as a rule the only one
	others  sync.Pool  // of *deviceCall
	options Options
	planned PlanOptions
	plans   atomic.Pointer[map[PlanShape]*loadedPlan]

	partBytes int // of logits that Select has on the device at a time, about

	mutex sync.Mutex
	idle  []*lane
}

// loadedPlan is a plan with the kernels that it launches.
type loadedPlan struct {
	Plan
	kernels []driver.Kernel // as in Plan.Kernels
}

// mostPlans bounds how many plans a Selector remembers.
const mostPlans = 512

// NewSelector returns a Selector. Options out of range are an error.
func (d *Device) NewSelector(options Options) (*Selector, error) {
	if err := d.usable(); err != nil {
		return nil, err
	}
	s := &Selector{options: options, planned: options.planOptions(), partBytes: 256 << 20}
	if options.Dependent && d.architecture.Major < clusterMajor {
		return nil, fmt.Errorf("cuda: device %d: programmatic dependent launch on compute capability %d.%d, want %d.0 or later: %w",
			d.properties.Ordinal, d.architecture.Major, d.architecture.Minor, clusterMajor, ErrUnsupported)
	}
	if err := s.planned.validate(); err != nil {
		return nil, err
	}
	if err := options.Plans.check(d.properties, d.architecture); err != nil {
		return nil, fmt.Errorf("cuda: device %d: %w", d.properties.Ordinal, err)
	}
	s.first.init(d)
	s.others.New = func() any { return newCall(d) }
	s.plans.Store(&map[PlanShape]*loadedPlan{})
	if err := d.own(&s.owned, "a selector", func() error { return nil }, s.closeLanes); err != nil {
		return nil, err
	}
	return s, nil
}

// launch checks what a call of SelectDevice was given and launches the plan.
func (s *Selector) launch(c *deviceCall, stream *Stream, plan *loadedPlan, logits Logits, shape Shape, result Result, workspace Workspace) error {
	epoch := s.device.epoch.Load() // before the checks: what changes meanwhile ends it
	if err := s.check(stream, plan, logits, shape, result, workspace); err != nil || len(plan.kernels) == 0 {
		return err
	}
	c.set(plan, logits, shape, result, workspace, s.options.Smallest)
	for i, kernel := range plan.kernels {
		l := &plan.Kernels[i]
		c.launch.Configure(l.Grid, l.Block, l.Cluster, s.options.Dependent)
		if err := s.device.launch(&c.launch, kernel, stream); err != nil {
			return err
		}
	}
	if len(plan.kernels) == 1 && stream.device == s.device && s.device.needsNoContext(stream) {
		c.remember(epoch, stream, logits, shape, result, workspace)
	}
	return nil
}

// check reports what is wrong with a call, but for the shape's numbers, which
// the plan was made for.
func (s *Selector) check(stream *Stream, plan *loadedPlan, logits Logits, shape Shape, result Result, workspace Workspace) error {
	d := s.device
	if err := d.checkStream(stream); err != nil {
		return err
	}
	if err := result.validate(shape); err != nil {
		return err
	}
	if len(plan.kernels) == 0 {
		return nil
	}
	if err := d.checkPointers(logits, shape, result); err != nil {
		return err
	}
	if plan.WorkspaceBytes == 0 {
		return nil
	}
	if workspace.Pointer == 0 || workspace.Bytes < plan.WorkspaceBytes {
		return fmt.Errorf("cuda: plan %q needs a workspace of %d bytes for rows = %d, vocab = %d, k = %d, got %d: %w",
			plan.Name, plan.WorkspaceBytes, shape.Rows, shape.Vocab, shape.K, workspace.Bytes, ErrWorkspace)
	}
	return d.checkPointer("workspace", workspace.Pointer, 8)
}

// validate reports rows of results that overlap or overflow.
func (r Result) validate(shape Shape) error {
	stride := r.stride(shape)
	switch {
	case stride < shape.K:
		return fmt.Errorf("cuda: result stride = %d is less than k = %d: %w", stride, shape.K, topk.ErrShape)
	case shape.Rows > 0 && stride > math.MaxInt/shape.Rows:
		return fmt.Errorf("cuda: rows = %d times result stride = %d overflows: %w", shape.Rows, stride, topk.ErrShape)
	}
	return nil
}

// stride returns the elements from one row of results to the next.
func (r Result) stride(shape Shape) int {
	if r.Stride == 0 {
		return shape.K
	}
	return r.Stride
}

// checkStream reports a stream that this device cannot use.
func (d *Device) checkStream(stream *Stream) error {
	return stream.part().usableOn(d)
}

// checkPointers checks every address of a call but that of the workspace.
func (d *Device) checkPointers(logits Logits, shape Shape, result Result) error {
	bytes := logits.DType.Bytes()
	if err := d.checkPointer("logits", logits.Pointer, bytes); err != nil {
		return err
	}
	if err := d.checkPointer("values", result.Values, bytes); err != nil {
		return err
	}
	if err := d.checkPointer("indices", result.Indices, result.indexBytes()); err != nil {
		return err
	}
	if shape.RowK != 0 {
		if err := d.checkPointer("row k", shape.RowK, 4); err != nil {
			return err
		}
	}
	if shape.RowLengths != 0 {
		return d.checkPointer("row lengths", shape.RowLengths, 4)
	}
	return nil
}

// launch puts a kernel into the stream. The driver takes the context from the
// stream, so that the OS thread, which a goroutine may leave at any time, plays
// no part; for a default stream, and for a driver that wants it, the context is
// made current on the thread for the length of the call.
func (d *Device) launch(launch *driver.Launch, kernel driver.Kernel, stream *Stream) error {
	launch.Aim(kernel, stream.handle)
	if d.needsNoContext(stream) {
		err := d.library.Launch(launch)
		if err == nil || driver.CodeOf(err) != driver.InvalidContext {
			return d.check(err)
		}
		d.bindsContext.Store(true)
	}
	return d.check(d.library.LaunchIn(d.context, launch))
}

// needsNoContext reports whether a launch into the stream is a single call.
func (d *Device) needsNoContext(stream *Stream) bool {
	return !stream.isDefault() && !d.bindsContext.Load()
}

// plan returns the plan for the shape, which is made when it is first asked
// for.
func (s *Selector) plan(shape Shape, dtype DType) (*loadedPlan, error) {
	if err := shape.validate(); err != nil {
		return nil, err
	}
	wanted := PlanShape{Rows: shape.Rows, Vocab: shape.Vocab, K: shape.K, DType: dtype}
	if plan := (*s.plans.Load())[wanted]; plan != nil {
		return plan, nil
	}
	return s.newPlan(wanted)
}

// newPlan makes a plan and remembers it.
func (s *Selector) newPlan(shape PlanShape) (*loadedPlan, error) {
	options := s.planned
	if tuned, ok := s.options.Plans.of(shape); ok && s.options.Plan == nil {
		options.Name, options.Groups, options.Chunks = tuned.Name, tuned.Groups, tuned.Chunks
	}
	plan, err := ChoosePlan(shape, s.device.architecture, options)
	if err != nil {
		return nil, err
	}
	p, err := s.device.loadPlan(plan)
	if err != nil {
		return nil, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	old := *s.plans.Load()
	plans := map[PlanShape]*loadedPlan{shape: p}
	if len(old) < mostPlans {
		for k, v := range old {
			plans[k] = v
		}
	}
	s.plans.Store(&plans)
	return p, nil
}

// loadPlan finds the kernels of the plan on the device.
func (d *Device) loadPlan(plan Plan) (*loadedPlan, error) {
	p := &loadedPlan{Plan: plan}
	for _, l := range plan.Kernels {
		kernel, err := d.kernel(l.Symbol)
		if err != nil {
			return nil, err
		}
		p.kernels = append(p.kernels, kernel)
	}
	return p, nil
}

// Plan returns the plan that SelectDevice uses for the shape. It is the caller's:
// what becomes of it changes no call.
func (s *Selector) Plan(shape Shape, dtype DType) (Plan, error) {
	if err := s.usable(); err != nil {
		return Plan{}, err
	}
	plan, err := s.plan(shape, dtype)
	if err != nil {
		return Plan{}, err
	}
	copied := plan.Plan
	copied.Kernels = slices.Clone(copied.Kernels)
	return copied, nil
}

// WorkspaceBytes returns how much workspace SelectDevice needs for the shape;
// most shapes need none.
func (s *Selector) WorkspaceBytes(shape Shape, dtype DType) (int, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	plan, err := s.plan(shape, dtype)
	if err != nil {
		return 0, err
	}
	return plan.WorkspaceBytes, nil
}
