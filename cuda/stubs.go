package cuda

import (
	"time"

	"github.com/ai-kernel-factory/aikf/topk"
)

// DeviceCount returns how many devices the driver shows this process. Without
// a driver it is 0 and an error that wraps [ErrUnavailable].
func DeviceCount() (int, error) { return 0, ErrUnavailable }

// OpenOptions steer [OpenWith]. The zero value is that of [Open].
type OpenOptions struct {
	// ForcePTX has the driver compile the kernels from PTX, as it does for
	// devices newer than this package, instead of loading the device's own code.
	ForcePTX bool
}

// Device is an open device. It is safe for use by many goroutines at once.
type Device struct{}

// Open opens the device with that ordinal, 0 being the first, and loads the
// kernels. No driver, a driver older than CUDA 12.0, no such device and a
// compute capability below 8.0 are errors that wrap [ErrUnavailable].
func Open(ordinal int) (*Device, error) { return OpenWith(ordinal, OpenOptions{}) }

// OpenWith is [Open] with options.
func OpenWith(ordinal int, options OpenOptions) (*Device, error) { return nil, ErrUnavailable }

// Properties describe a device.
type Properties struct {
	Name              string // as the driver has it
	Ordinal           int
	Major, Minor      int // compute capability
	Multiprocessors   int
	SharedMemoryBytes int // the most that a block may use
	L2Bytes           int
	MemoryBytes       int64
	DriverVersion     int // the CUDA version that the driver supports, 12080 for 12.8
	ClockKHz          int // of the multiprocessors, at most
}

// Properties returns what the driver told when the device was opened.
func (d *Device) Properties() Properties { return Properties{} }

// Architecture returns what launch plans depend on.
func (d *Device) Architecture() Architecture { return Architecture{} }

// Close closes everything that was made by the device, and gives the device
// back. A second Close does nothing.
func (d *Device) Close() error { return nil }

// Pointer is an address in device memory, of a [Buffer] or of anything else
// that lives in the device's primary context, such as a PyTorch tensor.
type Pointer uint64

// Buffer is memory of a device.
type Buffer struct{}

// Allocate returns a buffer of that many bytes, aligned to 256, with any
// content. Close gives it back.
func (d *Device) Allocate(bytes int) (*Buffer, error) { return nil, ErrUnavailable }

// Pointer returns the address of the first byte.
func (b *Buffer) Pointer() Pointer { return 0 }

// Bytes returns the size.
func (b *Buffer) Bytes() int { return 0 }

// Close frees the memory. Work that uses it must be over. A second Close does
// nothing.
func (b *Buffer) Close() error { return nil }

// CopyToDevice writes from to the buffer, offset bytes from its start, after
// the work that is in the stream, and returns when that is done.
func CopyToDevice[T any](stream *Stream, to *Buffer, offset int, from []T) error {
	return ErrUnavailable
}

// CopyToHost fills to from the buffer, offset bytes from its start, after the
// work that is in the stream, and returns when that is done.
func CopyToHost[T any](stream *Stream, to []T, from *Buffer, offset int) error {
	return ErrUnavailable
}

// Fill sets every byte of the buffer, after the work that is in the stream. It
// does not wait, and can be captured in a graph.
func Fill(stream *Stream, to *Buffer, value byte) error { return ErrUnavailable }

// Stream is a queue of work on a device: what is put in runs in order.
type Stream struct{}

// NewStream makes a stream that does not wait for the default one.
func (d *Device) NewStream() (*Stream, error) { return nil, ErrUnavailable }

// ForeignStream takes a CUstream or cudaStream_t of another owner, which must
// live as long as the Stream is used; 0, 1 and 2 are CUDA's default streams. A
// stream of another device is an error that wraps [ErrDevice]. Close leaves the
// foreign stream as it is.
func (d *Device) ForeignStream(handle uintptr) (*Stream, error) { return nil, ErrUnavailable }

// Handle returns the CUstream.
func (s *Stream) Handle() uintptr { return 0 }

// Synchronize waits until all work in the stream is done. A failure of any of
// it is reported here: an error that wraps [ErrFault] if the device cannot be
// used any more by this process.
func (s *Stream) Synchronize() error { return ErrUnavailable }

// Close destroys the stream; work that is in it is finished first. A second
// Close does nothing.
func (s *Stream) Close() error { return nil }

// Capture calls record and returns the work that it put into the stream as a
// graph; none of it runs. An error of record ends the capture and is returned.
func (s *Stream) Capture(record func() error) (*Graph, error) { return nil, ErrUnavailable }

// Record puts the event into the stream.
func (s *Stream) Record(event *Event) error { return ErrUnavailable }

// Graph is captured work, ready to be launched any number of times. The memory
// that the work uses must live as long.
type Graph struct{}

// Launch puts the work of the graph into the stream.
func (g *Graph) Launch(stream *Stream) error { return ErrUnavailable }

// Close frees the graph; launches that run are finished first. A second Close
// does nothing.
func (g *Graph) Close() error { return nil }

// Event is a place in a stream whose time is taken.
type Event struct{}

// NewEvent makes an event.
func (d *Device) NewEvent() (*Event, error) { return nil, ErrUnavailable }

// Close destroys the event. A second Close does nothing.
func (e *Event) Close() error { return nil }

// Elapsed waits for both events and returns the time from start to end, to
// about 0.5 microseconds.
func Elapsed(start, end *Event) (time.Duration, error) { return 0, ErrUnavailable }

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
	// TargetCandidates overrides how many candidates a row leaves for the second
	// stage. 0 stands for 500. See [PlanOptions].
	TargetCandidates int
	// Dependent lets a call start while the kernel before it in the stream ends
	// (programmatic dependent launch); it waits before it reads. Compute
	// capability 9.0 and later.
	Dependent bool
}

// Selector selects the top k of batches in device memory. It is safe for use
// by many goroutines, on many streams at once.
type Selector struct{}

// NewSelector returns a Selector. Options out of range are an error.
func (d *Device) NewSelector(options Options) (*Selector, error) { return nil, ErrUnavailable }

// SelectDevice puts the selection of the K largest logits of each row into the
// stream and returns; [Stream.Synchronize] reports what fails later. The call
// neither allocates nor synchronises, and can be captured in a graph. A plan
// that needs workspace gets it from the caller: see WorkspaceBytes; too little
// is an error that wraps [ErrWorkspace] and names the size. Of memory only the
// addresses are checked, not the sizes.
func (s *Selector) SelectDevice(stream *Stream, logits Logits, shape Shape, result Result, workspace Workspace) error {
	return ErrUnavailable
}

// Plan returns the plan that SelectDevice uses for the shape.
func (s *Selector) Plan(shape Shape, dtype DType) (Plan, error) { return Plan{}, ErrUnavailable }

// WorkspaceBytes returns how much workspace SelectDevice needs for the shape;
// most shapes need none.
func (s *Selector) WorkspaceBytes(shape Shape, dtype DType) (int, error) { return 0, ErrUnavailable }

// Close frees what [Select] keeps on the device. A second Close does nothing.
func (s *Selector) Close() error { return nil }

// Select is [topk.Select] on the device: it copies the logits there, selects,
// and copies the results back. It returns when that is done, and is safe for
// many goroutines at once. Most of its time is copying: logits that are on the
// device already belong to [Selector.SelectDevice].
func Select[T topk.Float](s *Selector, dst topk.Result[T], logits []T, shape topk.Shape) error {
	return ErrUnavailable
}

// ReadFloor puts a kernel into the stream that reads each row once, one block
// a row, and writes its maximum to maxima, [Rows] in the dtype of the logits:
// the time that no selection can beat. Of the shape, K, RowK and RowLengths are
// not used.
func (d *Device) ReadFloor(stream *Stream, logits Logits, shape Shape, maxima Pointer) error {
	return ErrUnavailable
}

// EmptyKernel puts a kernel that does nothing into the stream: what a launch
// costs.
func (d *Device) EmptyKernel(stream *Stream) error { return ErrUnavailable }

// Phases are the clock stamps that [Selector.SelectPhases] writes for a row, in
// cycles of the multiprocessor.
type Phases struct {
	Start, Loaded, Bounded, Filtered, Ordered, Written uint64
	_                                                  [2]uint64
}

// SelectPhases is SelectDevice by an instrumented build of the plan
// [PlanBlock1024]. stamps is the address of [Rows] Phases.
func (s *Selector) SelectPhases(stream *Stream, logits Logits, shape Shape, result Result, stamps Pointer) error {
	return ErrUnavailable
}
