package driver

import (
	"runtime"
	"unsafe"
)

// Launch is a launch of a kernel with one argument, a structure that is passed
// by value. It holds all that the driver reads, so that a Launch which is kept
// allocates nothing. One goroutine at a time may use it, and it must not be
// copied.
type Launch struct {
	frame      frame
	parameters [1]unsafe.Pointer
	config     launchConfig
	attributes [2]launchAttribute
	push, pop  frame
	popped     Context
}

// launchConfig is a CUlaunchConfig.
type launchConfig struct {
	grid, block    [3]uint32
	sharedBytes    uint32
	stream         Stream
	attributes     *launchAttribute
	attributeCount uint32
}

// launchAttribute is a CUlaunchAttribute: its value is a union of 64 bytes that
// starts at byte 8.
type launchAttribute struct {
	id    uint32
	_     uint32
	value [16]uint32
}

// Prepare makes a launch of kernels whose argument is at the address. Both are
// memory of the heap, which does not move.
func (l *Library) Prepare(launch *Launch, argument unsafe.Pointer) {
	*launch = Launch{parameters: [1]unsafe.Pointer{argument}}
	launch.config.attributes = &launch.attributes[0]
	launch.frame = frame{l.address[cuLaunchKernelEx], [4]uintptr{
		0: uintptr(unsafe.Pointer(&launch.config)),
		2: uintptr(unsafe.Pointer(&launch.parameters[0])),
	}}
	launch.push.function = l.address[cuCtxPushCurrent]
	launch.pop = frame{l.address[cuCtxPopCurrent], [4]uintptr{uintptr(unsafe.Pointer(&launch.popped))}}
}

// NewLaunch returns a launch that is prepared.
func (l *Library) NewLaunch(argument unsafe.Pointer) *Launch {
	launch := new(Launch)
	l.Prepare(launch, argument)
	return launch
}

// Configure sets the grid: how many blocks of how many threads, in clusters of
// how many blocks. A dependent kernel may start while the one before it ends.
func (l *Launch) Configure(grid, block, cluster int, dependent bool) {
	l.config.grid = [3]uint32{uint32(grid), 1, 1}
	l.config.block = [3]uint32{uint32(block), 1, 1}
	l.config.attributeCount = 0
	if cluster > 1 {
		l.attribute(clusterDimension).value = [16]uint32{uint32(cluster), 1, 1}
	}
	if dependent {
		l.attribute(programmaticSerialization).value = [16]uint32{1}
	}
}

// attribute adds an attribute.
func (l *Launch) attribute(id uint32) *launchAttribute {
	a := &l.attributes[l.config.attributeCount]
	a.id = id
	l.config.attributeCount++
	return a
}

// Aim says which kernel to launch into which stream.
func (l *Launch) Aim(kernel Kernel, stream Stream) {
	l.config.stream = stream
	l.frame.arguments[1] = uintptr(kernel)
}

// Do puts the kernel into the stream that the launch is aimed at. The context is
// that of the stream; a default stream takes the current one.
func (l *Launch) Do() Code { return invoke(&l.frame) }

// LaunchError returns the result of a Launch as an error.
func (l *Library) LaunchError(code Code) error { return l.result(cuLaunchKernelEx, code) }

// Launch is Do with an error.
func (l *Library) Launch(launch *Launch) error { return l.LaunchError(launch.Do()) }

// LaunchIn is Launch while the context is the current one of this OS thread.
func (l *Library) LaunchIn(context Context, launch *Launch) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	launch.push.arguments[0] = uintptr(context)
	if code := invoke(&launch.push); code != Success {
		return l.result(cuCtxPushCurrent, code)
	}
	err := l.Launch(launch)
	invoke(&launch.pop)
	return err
}

// ActiveClusters returns how many clusters of the configured launch fit the
// device of the current context at once.
func (l *Library) ActiveClusters(launch *Launch, kernel Kernel) (int, error) {
	var n int32
	err := l.call(cuOccupancyMaxActiveClusters, uintptr(unsafe.Pointer(&n)), uintptr(kernel), launch.frame.arguments[0])
	runtime.KeepAlive(launch)
	return int(n), err
}

// Raw returns the launch as a call of C: the function and its first three
// arguments, the fourth being 0. It lives as long as parameters is referred to.
func (l *Launch) Raw() (function uintptr, config unsafe.Pointer, kernel uintptr, parameters unsafe.Pointer) {
	return l.frame.function, unsafe.Pointer(&l.config), l.frame.arguments[1], unsafe.Pointer(&l.parameters[0])
}
