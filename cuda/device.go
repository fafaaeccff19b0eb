package cuda

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
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
	kernels      atomic.Pointer[map[string]driver.Kernel] // of the images that are loaded
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
	making sync.RWMutex // read-locked by whoever makes something; Close waits for it
	mutex  sync.Mutex
	owned  map[*owned]struct{}

	loading  sync.Mutex
	unloaded [][]byte // images that nobody has asked for
	images   []driver.Image
	forcePTX bool
	phases   bool // whether the instrumented images are among them
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
	if d.unloaded, err = kernels.Images(p.Major, p.Minor, options.ForcePTX); err != nil {
		return err
	}
	d.forcePTX = options.ForcePTX
	d.kernels.Store(&map[string]driver.Kernel{})
	if d.context, err = d.library.Retain(d.handle); err != nil {
		return err
	}
	if err = d.load(selectorSymbols()...); err == nil {
		err = d.inContext(func() error {
			d.architecture.ClusterBlocks = d.clusterBlocks()
			return nil
		})
	}
	if err != nil {
		d.inContext(d.unload)
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

// load loads the images that have these kernels and are not loaded yet. A kernel that
// none has is no error: a plan that needs it is refused when it is asked for.
func (d *Device) load(symbols ...string) error {
	d.loading.Lock()
	defer d.loading.Unlock()
	return d.loadLocked(symbols...)
}

// loadLocked is load for a caller that holds the lock.
func (d *Device) loadLocked(symbols ...string) error {
	loaded := *d.kernels.Load()
	for _, symbol := range symbols {
		if _, ok := loaded[symbol]; ok {
			continue
		}
		i := slices.IndexFunc(d.unloaded, func(image []byte) bool { return kernels.MayHold(image, symbol) })
		if i < 0 {
			continue
		}
		loaded = maps.Clone(loaded)
		if err := d.inContext(func() error { return d.loadImage(d.unloaded[i], loaded) }); err != nil {
			return err
		}
		d.unloaded = slices.Delete(d.unloaded, i, i+1)
		d.kernels.Store(&loaded)
	}
	return nil
}

// loadImage adds the kernels that an image has.
func (d *Device) loadImage(code []byte, to map[string]driver.Kernel) error {
	image, err := d.library.Load(code)
	if err != nil {
		if driver.CodeOf(err) == driver.InvalidPTX {
			return fmt.Errorf("%w: %s", err, d.library.CompileLog(code))
		}
		return err
	}
	for _, symbol := range kernelSymbols() {
		if !kernels.MayHold(code, symbol) {
			continue
		}
		kernel, err := d.library.Kernel(image, symbol)
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
			d.library.Unload(image)
			return fmt.Errorf("kernel %s: %w", symbol, err)
		}
		to[symbol] = kernel
	}
	d.images = append(d.images, image)
	return nil
}

// unload gives back all images.
func (d *Device) unload() (err error) {
	d.loading.Lock()
	defer d.loading.Unlock()
	for _, image := range d.images {
		err = errors.Join(err, d.library.Unload(image))
	}
	d.images, d.unloaded = nil, nil
	return err
}

// kernel returns a kernel that is loaded.
func (d *Device) kernel(symbol string) (driver.Kernel, error) {
	kernel, ok := (*d.kernels.Load())[symbol]
	if !ok {
		return kernel, fmt.Errorf("cuda: device %d: no kernel %s for %s: %w", d.properties.Ordinal, symbol, d.architecture.Name, ErrUnsupported)
	}
	return kernel, nil
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
		kernel, err := d.kernel("select_" + t.symbol + clusterSuffix)
		if err != nil {
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
	return slices.Concat([]string{emptySymbol}, lawSymbols, symbolsOf("floor_read_%s"), selectorSymbols(), samplerSymbols(), verifierSymbols(), phaseSymbols())
}

func selectorSymbols() []string {
	return slices.Concat(symbolsInWidths("select_%s_block"),
		symbolsOf("select_%s_cluster", "select_%s_stage1", "select_%s_stage2", "select_%s_any"))
}

func samplerSymbols() []string {
	return slices.Concat(symbolsInWidths("sample_%s_block"), symbolsOf("sample_%s_whole", "sample_%s_whole_cluster", "sample_%s_edited", "edit_%s"))
}

// phaseSymbols lists the instrumented kernels.
func phaseSymbols() []string {
	const sample = phasesPrefix + "sample_bf16_"
	return append(symbolsInWidths(phasesPrefix+"%s_block"), sample+"block"+narrow, sample+"whole", sample+"whole"+clusterSuffix, sample+"edited")
}

func verifierSymbols() []string { return symbolsOf("verify_%s") }

// symbolsOf puts each dtype in the place of %s.
func symbolsOf(names ...string) (symbols []string) {
	for _, t := range dtypes {
		for _, name := range names {
			symbols = append(symbols, fmt.Sprintf(name, t.symbol))
		}
	}
	return symbols
}

// symbolsInWidths does the same for kernels of which there are narrow ones.
func symbolsInWidths(names ...string) (symbols []string) {
	for t := range dtypes {
		for _, name := range names {
			symbol := fmt.Sprintf(name, dtypes[t].symbol)
			symbols = append(symbols, symbol)
			if width(PlanShape{DType: DType(t), Vocab: 1}) == narrow {
				symbols = append(symbols, symbol+narrow)
			}
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
	if d == nil || d.library == nil {
		return nil
	}
	if !d.closed.CompareAndSwap(false, true) {
		return nil
	}
	d.epoch.Add(1)
	d.making.Lock() // what is made at this time is closed, too
	d.mutex.Lock()
	rest := d.owned
	d.owned = nil
	d.mutex.Unlock()
	d.making.Unlock()
	err := d.inContext(func() error {
		err := d.library.Wait()
		for o := range rest {
			err = errors.Join(err, o.end())
		}
		return errors.Join(err, d.unload())
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

// usable reports a device that Open has not made, that was closed or had a fault.
func (d *Device) usable() error {
	if d == nil || d.library == nil {
		return fmt.Errorf("cuda: a device that Open has not made: %w", ErrClosed)
	}
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
	if err := d.usable(); err != nil {
		return err
	}
	o.device, o.what, o.release = d, what, release
	d.making.RLock()
	defer d.making.RUnlock()
	if err := d.do(create); err != nil {
		return err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
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

// usable reports what is nil or was made by no device, what was closed, and a
// device that is not usable.
func (o *owned) usable() error {
	switch {
	case o == nil:
		return fmt.Errorf("cuda: a stream, buffer or event is nil: %w", ErrClosed)
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
