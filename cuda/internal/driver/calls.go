package driver

import (
	"bytes"
	"runtime"
	"unsafe"
)

// The handles of the driver.
type (
	Device  int32
	Context uintptr
	Stream  uintptr
	Event   uintptr
	Graph   uintptr // ready to be launched: a CUgraphExec
	Image   uintptr // a CUlibrary
	Kernel  uintptr // a CUkernel: it belongs to no context
	Pointer uint64  // a CUdeviceptr
)

// Attribute is a CUdevice_attribute.
type Attribute int32

const (
	ClockRate              Attribute = 13
	Multiprocessors        Attribute = 16
	L2CacheSize            Attribute = 38
	CapabilityMajor        Attribute = 75
	CapabilityMinor        Attribute = 76
	SharedMemoryBlockOptIn Attribute = 97
)

// Other numbers of cuda.h.
const (
	nonPortableCluster        = 14 // CUfunction_attribute
	deviceOrdinal             = 9  // CUpointer_attribute
	jitErrorLog               = 5  // CUjit_option
	jitErrorLogBytes          = 6  // CUjit_option
	streamNonBlocking         = 1  // CUstream_flags
	captureRelaxed            = 2  // CUstreamCaptureMode: may end on another thread than it began on
	clusterDimension          = 4  // CUlaunchAttributeID
	programmaticSerialization = 6  // CUlaunchAttributeID
)

// DeviceCount returns how many devices there are.
func (l *Library) DeviceCount() (int, error) {
	var n int32
	err := l.call(cuDeviceGetCount, uintptr(unsafe.Pointer(&n)))
	return int(n), err
}

// Device returns the device with that ordinal.
func (l *Library) Device(ordinal int) (Device, error) {
	var d Device
	err := l.call(cuDeviceGet, uintptr(unsafe.Pointer(&d)), uintptr(ordinal))
	return d, err
}

// Name returns the name of the device.
func (l *Library) Name(d Device) (string, error) {
	name := make([]byte, 256)
	err := l.call(cuDeviceGetName, uintptr(unsafe.Pointer(&name[0])), uintptr(len(name)-1), uintptr(d))
	return cString(&name[0]), err
}

// Memory returns the size of the device's memory in bytes.
func (l *Library) Memory(d Device) (int64, error) {
	var n uintptr
	err := l.call(cuDeviceTotalMem, uintptr(unsafe.Pointer(&n)), uintptr(d))
	return int64(n), err
}

// Attribute returns an attribute of the device.
func (l *Library) Attribute(a Attribute, d Device) (int, error) {
	var n int32
	err := l.call(cuDeviceGetAttribute, uintptr(unsafe.Pointer(&n)), uintptr(a), uintptr(d))
	return int(n), err
}

// Retain returns the primary context of the device, to be given back by
// Release.
func (l *Library) Retain(d Device) (Context, error) {
	var c Context
	err := l.call(cuDevicePrimaryCtxRetain, uintptr(unsafe.Pointer(&c)), uintptr(d))
	return c, err
}

// Release gives the primary context back.
func (l *Library) Release(d Device) error { return l.call(cuDevicePrimaryCtxRelease, uintptr(d)) }

// Push makes the context the current one of this OS thread, which the caller
// has locked, until Pop.
func (l *Library) Push(c Context) error { return l.call(cuCtxPushCurrent, uintptr(c)) }

// Pop makes the context current again that was so before Push.
func (l *Library) Pop() error {
	var c Context
	return l.call(cuCtxPopCurrent, uintptr(unsafe.Pointer(&c)))
}

// CurrentDevice returns the device of the current context.
func (l *Library) CurrentDevice() (Device, error) {
	var d Device
	err := l.call(cuCtxGetDevice, uintptr(unsafe.Pointer(&d)))
	return d, err
}

// Wait waits for all work in the current context.
func (l *Library) Wait() error { return l.call(cuCtxSynchronize) }

// Load loads machine code, or compiles PTX that ends with a zero.
func (l *Library) Load(code []byte) (Image, error) {
	var image Image
	err := l.call(cuLibraryLoadData, uintptr(unsafe.Pointer(&image)), uintptr(unsafe.Pointer(&code[0])), 0, 0, 0, 0, 0, 0)
	return image, err
}

// CompileLog returns what the compiler says about PTX that Load refuses. The
// options that ask for it are not given to Load, which may keep them for later.
func (l *Library) CompileLog(code []byte) string {
	log := make([]byte, 8192)
	options := []int32{jitErrorLog, jitErrorLogBytes}
	values := []uintptr{uintptr(unsafe.Pointer(&log[0])), uintptr(len(log) - 1)}
	var module uintptr
	err := l.call(cuModuleLoadDataEx, uintptr(unsafe.Pointer(&module)), uintptr(unsafe.Pointer(&code[0])),
		uintptr(len(options)), uintptr(unsafe.Pointer(&options[0])), uintptr(unsafe.Pointer(&values[0])))
	runtime.KeepAlive(log)
	if err == nil {
		l.call(cuModuleUnload, module)
	}
	text, _, _ := bytes.Cut(log, []byte{0})
	return string(bytes.TrimSpace(text))
}

// Unload gives back what Load loaded.
func (l *Library) Unload(image Image) error { return l.call(cuLibraryUnload, uintptr(image)) }

// Kernel returns the kernel with that name.
func (l *Library) Kernel(image Image, name string) (Kernel, error) {
	var kernel Kernel
	symbol := append([]byte(name), 0)
	err := l.call(cuLibraryGetKernel, uintptr(unsafe.Pointer(&kernel)), uintptr(image), uintptr(unsafe.Pointer(&symbol[0])))
	return kernel, err
}

// LoadKernel loads the kernel into the current context: one that is loaded by its
// first launch would end a capture.
func (l *Library) LoadKernel(kernel Kernel) error {
	var inContext uintptr
	return l.call(cuKernelGetFunction, uintptr(unsafe.Pointer(&inContext)), uintptr(kernel))
}

// AllowLargeClusters lets the kernel have clusters of more than 8 blocks, if the
// device can; it is for a kernel that is not loaded yet.
func (l *Library) AllowLargeClusters(kernel Kernel, d Device) error {
	return l.call(cuKernelSetAttribute, nonPortableCluster, 1, uintptr(kernel), uintptr(d))
}

// Allocate allocates device memory in the current context.
func (l *Library) Allocate(bytes int) (Pointer, error) {
	var p Pointer
	err := l.call(cuMemAlloc, uintptr(unsafe.Pointer(&p)), uintptr(bytes))
	return p, err
}

// Free frees device memory.
func (l *Library) Free(p Pointer) error { return l.call(cuMemFree, uintptr(p)) }

// CopyToDevice copies host memory that stays where it is until the stream is
// synchronised.
func (l *Library) CopyToDevice(to Pointer, from unsafe.Pointer, bytes int, s Stream) error {
	return l.call(cuMemcpyHtoDAsync, uintptr(to), uintptr(from), uintptr(bytes), uintptr(s))
}

// CopyToHost copies to host memory that stays where it is until the stream is
// synchronised.
func (l *Library) CopyToHost(to unsafe.Pointer, from Pointer, bytes int, s Stream) error {
	return l.call(cuMemcpyDtoHAsync, uintptr(to), uintptr(from), uintptr(bytes), uintptr(s))
}

// Fill sets bytes of device memory.
func (l *Library) Fill(to Pointer, value byte, bytes int, s Stream) error {
	return l.call(cuMemsetD8Async, uintptr(to), uintptr(value), uintptr(bytes), uintptr(s))
}

// DeviceOf returns the device that the memory belongs to.
func (l *Library) DeviceOf(p Pointer) (Device, error) {
	var d Device
	err := l.call(cuPointerGetAttribute, uintptr(unsafe.Pointer(&d)), deviceOrdinal, uintptr(p))
	return d, err
}

// NewStream makes a stream in the current context.
func (l *Library) NewStream() (Stream, error) {
	var s Stream
	err := l.call(cuStreamCreate, uintptr(unsafe.Pointer(&s)), streamNonBlocking)
	return s, err
}

// DestroyStream destroys the stream when its work is done.
func (l *Library) DestroyStream(s Stream) error { return l.call(cuStreamDestroy, uintptr(s)) }

// Synchronize waits for the work in the stream.
func (l *Library) Synchronize(s Stream) error { return l.call(cuStreamSynchronize, uintptr(s)) }

// ContextOf returns the context of the stream.
func (l *Library) ContextOf(s Stream) (Context, error) {
	var c Context
	err := l.call(cuStreamGetCtx, uintptr(s), uintptr(unsafe.Pointer(&c)))
	return c, err
}

// BeginCapture has the stream record its work instead of doing it.
func (l *Library) BeginCapture(s Stream) error {
	return l.call(cuStreamBeginCapture, uintptr(s), captureRelaxed)
}

// EndCapture returns what was recorded, ready to be launched.
func (l *Library) EndCapture(s Stream) (Graph, error) {
	var graph uintptr
	if err := l.call(cuStreamEndCapture, uintptr(s), uintptr(unsafe.Pointer(&graph))); err != nil {
		return 0, err
	}
	var ready Graph
	err := l.call(cuGraphInstantiate, uintptr(unsafe.Pointer(&ready)), graph, 0)
	l.call(cuGraphDestroy, graph)
	return ready, err
}

// DropCapture ends a recording and drops what was recorded.
func (l *Library) DropCapture(s Stream) error {
	var graph uintptr
	err := l.call(cuStreamEndCapture, uintptr(s), uintptr(unsafe.Pointer(&graph)))
	if graph != 0 {
		l.call(cuGraphDestroy, graph)
	}
	return err
}

// LaunchGraph puts the graph into the stream.
func (l *Library) LaunchGraph(g Graph, s Stream) error {
	return l.call(cuGraphLaunch, uintptr(g), uintptr(s))
}

// DestroyGraph destroys the graph.
func (l *Library) DestroyGraph(g Graph) error { return l.call(cuGraphExecDestroy, uintptr(g)) }

// NewEvent makes an event in the current context.
func (l *Library) NewEvent() (Event, error) {
	var e Event
	err := l.call(cuEventCreate, uintptr(unsafe.Pointer(&e)), 0)
	return e, err
}

// DestroyEvent destroys the event.
func (l *Library) DestroyEvent(e Event) error { return l.call(cuEventDestroy, uintptr(e)) }

// Record puts the event into the stream.
func (l *Library) Record(e Event, s Stream) error {
	return l.call(cuEventRecord, uintptr(e), uintptr(s))
}

// Elapsed waits for the later event and returns the milliseconds between both.
func (l *Library) Elapsed(start, end Event) (float32, error) {
	if err := l.call(cuEventSynchronize, uintptr(end)); err != nil {
		return 0, err
	}
	var milliseconds float32
	err := l.call(cuEventElapsedTime, uintptr(unsafe.Pointer(&milliseconds)), uintptr(start), uintptr(end))
	return milliseconds, err
}
