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

// NewLaunch returns a launch of kernels whose argument is at the address.
func (l *Library) NewLaunch(argument unsafe.Pointer) *Launch {
	launch := &Launch{parameters: [1]unsafe.Pointer{argument}}
	launch.config.attributes = &launch.attributes[0]
	launch.frame = frame{l.address[cuLaunchKernelEx], [4]uintptr{
		0: uintptr(unsafe.Pointer(&launch.config)), // heap memory does not move
		2: uintptr(unsafe.Pointer(&launch.parameters[0])),
	}}
	launch.push.function = l.address[cuCtxPushCurrent]
	launch.pop = frame{l.address[cuCtxPopCurrent], [4]uintptr{uintptr(unsafe.Pointer(&launch.popped))}}
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

// Launch puts the kernel into the stream. The context is that of the stream; a
// default stream takes the current one.
func (l *Library) Launch(launch *Launch, kernel Kernel, stream Stream) error {
	launch.config.stream = stream
	launch.frame.arguments[1] = uintptr(kernel)
	if code := invoke(&launch.frame); code != Success {
		return l.result(cuLaunchKernelEx, code)
	}
	return nil
}

// LaunchIn is Launch while the context is the current one of this OS thread.
func (l *Library) LaunchIn(context Context, launch *Launch, kernel Kernel, stream Stream) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	launch.push.arguments[0] = uintptr(context)
	if code := invoke(&launch.push); code != Success {
		return l.result(cuCtxPushCurrent, code)
	}
	err := l.Launch(launch, kernel, stream)
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

// Addresses returns the CUlaunchConfig and the array of parameters, for a call
// of the driver from elsewhere.
func (l *Launch) Addresses() (config, parameters unsafe.Pointer) {
	return unsafe.Pointer(&l.config), unsafe.Pointer(&l.parameters[0])
}
