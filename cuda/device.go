package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
	"github.com/ai-kernel-factory/aikf/cuda/kernels"
)

// driverPath is where the driver is looked for; tests put another one there.
var driverPath = driver.Path

// minMajor is the least compute capability that there are kernels for: 8.0.
const minMajor = 8

// DeviceCount returns how many devices the driver shows this process. Without
// a driver, or a device, it is 0 and an error that wraps [ErrUnavailable].
func DeviceCount() (int, error) {
	library, err := driver.Open(driverPath)
	if err != nil {
		return 0, fmt.Errorf("cuda: %w", err)
	}
	n, err := library.DeviceCount()
	switch {
	case err != nil:
		return 0, fmt.Errorf("cuda: %w: %w", ErrUnavailable, err)
	case n == 0:
		return 0, fmt.Errorf("cuda: %w: the driver shows no device", ErrUnavailable)
	}
	return n, nil
}

// Device is an open device. It is safe for use by many goroutines at once.
type Device struct {
	library      *driver.Library
	handle       driver.Device
	context      driver.Context
	image        driver.Image
	kernels      map[string]driver.Kernel
	properties   Properties
	architecture Architecture

	// epoch is another one whenever something that a call found to be right may
	// be so no more: the device has a fault, memory was given back, or something
	// was closed. It is never 0.
	epoch atomic.Uint64
	// bindsContext: this driver takes a kernel's context from the thread, not
	// from the stream.
	bindsContext atomic.Bool
	pages        pageCache
	fault        atomic.Pointer[fault]

	closed atomic.Bool
	mutex  sync.Mutex
	owned  map[*owned]struct{} // nil when closed
}

// fault is the error after which a device cannot be used.
type fault struct{ err error }

// OpenOptions steer [OpenWith]. The zero value is that of [Open].
type OpenOptions struct {
	// ForcePTX has the driver compile the kernels from PTX, as it does for
	// devices newer than this package, instead of loading machine code. It needs
	// compute capability 9.0.
	ForcePTX bool
}

// Open opens the device with that ordinal, 0 being the first, and loads the
// kernels. No driver, a driver older than CUDA 12.0, no such device and a
// compute capability below 8.0 are errors that wrap [ErrUnavailable].
func Open(ordinal int) (*Device, error) { return OpenWith(ordinal, OpenOptions{}) }

// OpenWith is [Open] with options.
func OpenWith(ordinal int, options OpenOptions) (*Device, error) {
	n, err := DeviceCount()
	if err != nil {
		return nil, err
	}
	if ordinal < 0 || ordinal >= n {
		return nil, fmt.Errorf("cuda: %w: device %d of %d", ErrUnavailable, ordinal, n)
	}
	library, err := driver.Open(driverPath)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	d := &Device{library: library, owned: map[*owned]struct{}{}}
	d.epoch.Store(1)
	if err := d.open(ordinal, options); err != nil {
		return nil, fmt.Errorf("cuda: %w: device %d: %w", ErrUnavailable, ordinal, err)
	}
	return d, nil
}

// open takes the primary context and loads the kernels into it.
func (d *Device) open(ordinal int, options OpenOptions) (err error) {
	if d.handle, err = d.library.Device(ordinal); err != nil {
		return err
	}
	if err := d.describe(ordinal); err != nil {
		return err
	}
	p := d.properties
	if p.Major < minMajor {
		return fmt.Errorf("%s has compute capability %d.%d, want %d.0 or later", p.Name, p.Major, p.Minor, minMajor)
	}
	code, err := kernels.Image(p.Major, p.Minor, options.ForcePTX)
	if err != nil {
		return err
	}
	if d.context, err = d.library.Retain(d.handle); err != nil {
		return err
	}
	err = d.inContext(func() error { return d.load(code) })
	if err != nil {
		d.library.Release(d.handle)
	}
	return err
}

// describe asks the driver for the properties.
func (d *Device) describe(ordinal int) (err error) {
	p := &d.properties
	p.Ordinal, p.DriverVersion = ordinal, d.library.Version()
	if p.Name, err = d.library.Name(d.handle); err != nil {
		return err
	}
	if p.MemoryBytes, err = d.library.Memory(d.handle); err != nil {
		return err
	}
	for _, a := range []struct {
		attribute driver.Attribute
		to        *int
	}{
		{driver.CapabilityMajor, &p.Major},
		{driver.CapabilityMinor, &p.Minor},
		{driver.Multiprocessors, &p.Multiprocessors},
		{driver.SharedMemoryBlockOptIn, &p.SharedMemoryBytes},
		{driver.L2CacheSize, &p.L2Bytes},
		{driver.ClockRate, &p.ClockKHz},
	} {
		if *a.to, err = d.library.Attribute(a.attribute, d.handle); err != nil {
			return err
		}
	}
	d.architecture = Architecture{
		Name:              fmt.Sprintf("sm_%d%d", p.Major, p.Minor),
		Major:             p.Major,
		Minor:             p.Minor,
		Multiprocessors:   p.Multiprocessors,
		SharedMemoryBytes: p.SharedMemoryBytes,
	}
	return nil
}

// load loads the kernels that the code has; a plan that needs another one is
// refused when it is asked for.
func (d *Device) load(code []byte) (err error) {
	if d.image, err = d.library.Load(code); err != nil {
		if driver.CodeOf(err) == driver.InvalidPTX {
			return fmt.Errorf("%w: %s", err, d.library.CompileLog(code))
		}
		return err
	}
	d.kernels = map[string]driver.Kernel{}
	for _, symbol := range kernelSymbols() {
		kernel, err := d.library.Kernel(d.image, symbol)
		if driver.CodeOf(err) == driver.NotFound {
			continue
		}
		if err == nil && strings.HasSuffix(symbol, clusterSuffix) {
			d.library.AllowLargeClusters(kernel, d.handle) // if not, clusterBlocks finds out
		}
		if err == nil {
			err = d.library.LoadKernel(kernel)
		}
		if err != nil {
			d.library.Unload(d.image)
			return fmt.Errorf("kernel %s: %w", symbol, err)
		}
		d.kernels[symbol] = kernel
	}
	d.architecture.ClusterBlocks = d.clusterBlocks()
	return nil
}

// clusterBlocks returns the most blocks that a cluster can have on the device,
// for every dtype: few in a small MIG instance.
func (d *Device) clusterBlocks() int {
	if d.architecture.Major < clusterMajor {
		return 0
	}
	most := 16
	launch := d.library.NewLaunch(nil)
	for _, t := range dtypes {
		kernel, ok := d.kernels["select_"+t.symbol+clusterSuffix]
		if !ok {
			return 0
		}
		for ; most > 1; most /= 2 {
			launch.Configure(most, blockThreads, most, false)
			if n, err := d.library.ActiveClusters(launch, kernel); err == nil && n > 0 {
				break
			}
		}
	}
	return most
}

// clusterSuffix ends the names of kernels that run in clusters.
const clusterSuffix = "_cluster"

// kernelSymbols lists the kernels that any plan or probe launches.
func kernelSymbols() []string {
	symbols := append([]string{emptySymbol}, lawSymbols...)
	for t, names := range dtypes {
		for _, name := range []string{"select_%s_block", "phases_%s_block", "sample_%s_block"} {
			symbols = append(symbols, fmt.Sprintf(name, names.symbol))
			if width(PlanShape{DType: DType(t), Vocab: 1}) == narrow {
				symbols = append(symbols, fmt.Sprintf(name, names.symbol)+narrow)
			}
		}
		for _, name := range []string{"select_%s_cluster", "select_%s_stage1", "select_%s_stage2", "select_%s_any", "floor_read_%s", "edit_%s", "verify_%s", "sample_%s_edited", "sample_%s_whole", "sample_%s_whole_cluster"} {
			symbols = append(symbols, fmt.Sprintf(name, names.symbol))
		}
	}
	return symbols
}

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
func (d *Device) Properties() Properties { return d.properties }

// Architecture returns what launch plans depend on.
func (d *Device) Architecture() Architecture { return d.architecture }

// Close waits for the work on the device, closes everything that was made by
// it, and gives it back. A second Close does nothing.
func (d *Device) Close() error {
	if !d.closed.CompareAndSwap(false, true) {
		return nil
	}
	d.epoch.Add(1)
	d.mutex.Lock()
	rest := d.owned
	d.owned = nil
	d.mutex.Unlock()
	err := d.inContext(func() error {
		err := d.library.Wait()
		for o := range rest {
			err = errors.Join(err, o.end())
		}
		return errors.Join(err, d.library.Unload(d.image))
	})
	return d.check(errors.Join(err, d.library.Release(d.handle)))
}

// inContext calls do while the context is the current one of its thread.
// Whatever was current there before is so again afterwards.
func (d *Device) inContext(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := d.library.Push(d.context); err != nil {
		return err
	}
	defer d.library.Pop()
	return do()
}

// do is inContext for a device that must be fit for use.
func (d *Device) do(call func() error) error {
	if err := d.usable(); err != nil {
		return err
	}
	return d.check(d.inContext(call))
}

// usable reports a device that was closed or had a fault.
func (d *Device) usable() error {
	if d.closed.Load() {
		return fmt.Errorf("cuda: device %d: %w", d.properties.Ordinal, ErrClosed)
	}
	if f := d.fault.Load(); f != nil {
		return f.err
	}
	return nil
}

// check says which device an error of the driver is of, and remembers one after
// which no call can succeed.
func (d *Device) check(err error) error {
	if err == nil {
		return nil
	}
	if !driver.CodeOf(err).Sticky() {
		return fmt.Errorf("cuda: device %d: %w", d.properties.Ordinal, err)
	}
	err = fmt.Errorf("cuda: device %d: work launched earlier in this process failed, and the device cannot be used again before the process ends: %w: %w",
		d.properties.Ordinal, ErrFault, err)
	d.fault.CompareAndSwap(nil, &fault{err})
	d.epoch.Add(1)
	return err
}

// owned is what a device closes with itself. The types that embed it are made
// by own.
type owned struct {
	device  *Device
	what    string // in errors
	release func() error
	closed  atomic.Bool
}

// own makes something on the device: create makes it and release unmakes it,
// both in the context.
func (d *Device) own(o *owned, what string, create, release func() error) error {
	o.device, o.what, o.release = d, what, release
	if err := d.do(create); err != nil {
		return err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.owned == nil {
		return d.usable() // closed meanwhile, with all that is in its context
	}
	d.owned[o] = struct{}{}
	return nil
}

// Close gives it back. Work that uses it must be over. A second Close does
// nothing.
func (o *owned) Close() error {
	if o.device == nil || o.closed.Load() {
		return nil
	}
	o.device.mutex.Lock()
	delete(o.device.owned, o)
	o.device.mutex.Unlock()
	return o.device.check(o.device.inContext(o.end))
}

// end releases it, once.
func (o *owned) end() error {
	if !o.closed.CompareAndSwap(false, true) {
		return nil
	}
	o.device.epoch.Add(1)
	return o.release()
}

// usable reports what no device made, what was closed, and a device that is
// not usable.
func (o *owned) usable() error {
	switch {
	case o.device == nil:
		return fmt.Errorf("cuda: made by no device: %w", ErrClosed)
	case o.closed.Load():
		return fmt.Errorf("cuda: %s of device %d: %w", o.what, o.device.properties.Ordinal, ErrClosed)
	}
	return o.device.usable()
}

// usableOn also reports what belongs to another device than d.
func (o *owned) usableOn(d *Device) error {
	if err := o.usable(); err != nil {
		return err
	}
	if o.device.handle != d.handle {
		return fmt.Errorf("cuda: %s of device %d, given to device %d: %w",
			o.what, o.device.properties.Ordinal, d.properties.Ordinal, ErrDevice)
	}
	return nil
}
