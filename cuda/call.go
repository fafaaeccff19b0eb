package cuda

import (
	"sync/atomic"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
)

// deviceCall is a call of SelectDevice: what the driver reads of it, and what
// there is to know so that the next call like it need not be looked at again.
//
// A driver runs through much code and memory, so that each call of SelectDevice
// begins with cold caches: its cost is that of the cache lines which it touches.
// A call like the one before touches those of this structure, the epoch of the
// device, and nothing else before it calls the driver.
type deviceCall struct {
	claimed atomic.Bool // of the first call of a Selector only

	// What was checked: the call with these operands, while the device is in
	// this epoch.
	device    *Device
	epoch     uint64 // 0: nothing was
	stream    *Stream
	shape     Shape
	workspace Workspace
	dtype     DType
	index64   bool
	stride    int // of the result, as given

	// Where an address may differ from that of the call before and yet be known
	// to be aligned, and on the device: these bits.
	elementBits, indexBits Pointer

	arguments selectArguments
	launch    driver.Launch
}

// unlike is what repeat returns for another call.
const unlike driver.Code = -1

// SelectDevice puts the selection of the K largest logits of each row into the
// stream and returns; [Stream.Synchronize] reports what fails later. The call
// neither allocates nor synchronises, and can be captured in a graph. A plan
// that needs workspace gets it from the caller: see WorkspaceBytes; too little
// is an error that wraps [ErrWorkspace] and names the size. Of memory the
// alignment and the device are checked, not the size.
func (s *Selector) SelectDevice(stream *Stream, logits Logits, shape Shape, result Result, workspace Workspace) (err error) {
	c := &s.first
	if !c.claimed.CompareAndSwap(false, true) {
		return s.selectAside(stream, &logits, &shape, &result, &workspace)
	}
	if code := c.repeat(stream, &logits, &shape, &result, &workspace); code != driver.Success {
		err = s.selectAnew(c, code, stream, &logits, &shape, &result, &workspace)
	}
	c.claimed.Store(false)
	return err
}

// repeat launches the last call again with other addresses, if that is what is
// asked for and it is right because the last one was. Otherwise it returns
// unlike.
func (c *deviceCall) repeat(stream *Stream, logits *Logits, shape *Shape, result *Result, workspace *Workspace) driver.Code {
	if c.epoch == 0 || c.epoch != c.device.epoch.Load() || c.stream != stream ||
		c.dtype != logits.DType || c.index64 != result.Index64 || c.stride != result.Stride ||
		!c.shape.is(shape) || c.workspace != *workspace {
		return unlike
	}
	elements := (logits.Pointer ^ c.arguments.logits) | (result.Values ^ c.arguments.values)
	indices := result.Indices ^ c.arguments.indices
	if elements&^c.elementBits|indices&^c.indexBits != 0 {
		return unlike
	}
	c.arguments.logits, c.arguments.values, c.arguments.indices = logits.Pointer, result.Values, result.Indices
	return c.launch.Do()
}

// is reports whether the shapes are the same. The compiler's == calls code that
// is elsewhere.
func (s *Shape) is(other *Shape) bool {
	return s.Rows == other.Rows && s.Vocab == other.Vocab && s.K == other.K && s.Stride == other.Stride &&
		s.Expand == other.Expand && s.RowK == other.RowK && s.RowLengths == other.RowLengths
}

// selectAside is SelectDevice while another goroutine is in it.
func (s *Selector) selectAside(stream *Stream, logits *Logits, shape *Shape, result *Result, workspace *Workspace) (err error) {
	if s.device == nil {
		return s.usable()
	}
	c := s.others.Get().(*deviceCall)
	if code := c.repeat(stream, logits, shape, result, workspace); code != driver.Success {
		err = s.selectAnew(c, code, stream, logits, shape, result, workspace)
	}
	s.others.Put(c)
	return err
}

// selectAnew is SelectDevice where repeat returned the code.
func (s *Selector) selectAnew(c *deviceCall, code driver.Code, stream *Stream, logits *Logits, shape *Shape, result *Result, workspace *Workspace) error {
	if code != unlike && code != driver.InvalidContext {
		return s.device.check(s.device.library.LaunchError(code))
	}
	if err := s.usable(); err != nil {
		return err
	}
	plan, err := s.plan(*shape, logits.DType)
	if err != nil {
		return err
	}
	return s.launch(c, stream, plan, *logits, *shape, *result, *workspace)
}

// init prepares a call on the device. The call stays where it is.
func (c *deviceCall) init(d *Device) {
	c.device = d
	d.library.Prepare(&c.launch, unsafe.Pointer(&c.arguments))
}

// newCall returns a call on the device.
func newCall(d *Device) *deviceCall {
	c := &deviceCall{}
	c.init(d)
	return c
}

// set has the arguments be those of a call.
func (c *deviceCall) set(plan *loadedPlan, logits Logits, shape Shape, result Result, workspace Workspace, smallest bool) {
	c.epoch = 0
	c.arguments = selectArguments{
		logits: logits.Pointer, values: result.Values, indices: result.Indices,
		rowK: shape.RowK, rowLengths: shape.RowLengths, workspace: workspace.Pointer,
		stride: int64(shape.stride()), resultStride: int64(result.stride(shape)),
		rows: int32(shape.Rows), vocab: int32(shape.Vocab), k: int32(shape.K),
		groups: int32(plan.Groups), chunks: int32(plan.Chunks),
		indexBytes: int32(result.indexBytes()),
	}
	if smallest {
		c.arguments.smallest = 1
	}
}

// remember says that a call with these operands was checked in the epoch, and
// launched, by one kernel, without a context, into a stream of the same Device:
// the end of any other is no new epoch.
func (c *deviceCall) remember(epoch uint64, stream *Stream, logits Logits, shape Shape, result Result, workspace Workspace) {
	c.epoch, c.stream, c.shape, c.workspace = epoch, stream, shape, workspace
	c.dtype, c.index64, c.stride = logits.DType, result.Index64, result.Stride
	const page = 1<<pageBits - 1
	c.elementBits = page &^ Pointer(logits.DType.Bytes()-1)
	c.indexBits = page &^ Pointer(result.indexBytes()-1)
}
