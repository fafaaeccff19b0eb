package cuda

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Pointer is an address in device memory, of a [Buffer] or of anything else
// that lives on the device, such as a PyTorch tensor.
type Pointer uint64

// Buffer is memory of a device.
type Buffer struct {
	owned
	pointer Pointer
	bytes   int
}

// Allocate returns a buffer of that many bytes, aligned to 256, with any
// content. Close gives it back.
func (d *Device) Allocate(bytes int) (*Buffer, error) {
	if bytes < 0 {
		return nil, fmt.Errorf("cuda: a buffer of %d bytes: %w", bytes, topk.ErrShape)
	}
	b := &Buffer{bytes: bytes}
	create := func() error {
		pointer, err := d.library.Allocate(max(bytes, 1)) // the driver refuses 0
		if err != nil {
			return fmt.Errorf("%d bytes: %w", bytes, err)
		}
		b.pointer = Pointer(pointer)
		return nil
	}
	release := func() error {
		d.pages.forget()
		return d.library.Free(driver.Pointer(b.pointer))
	}
	if err := d.own(&b.owned, "a buffer", create, release); err != nil {
		return nil, err
	}
	return b, nil
}

// part is what a device closes of the buffer, nil of none.
func (b *Buffer) part() *owned {
	if b == nil {
		return nil
	}
	return &b.owned
}

// Pointer returns the address of the first byte.
func (b *Buffer) Pointer() Pointer { return b.pointer }

// Bytes returns the size.
func (b *Buffer) Bytes() int { return b.bytes }

// CopyToDevice writes from to the buffer, offset bytes from its start, after
// the work that is in the stream, and returns when that is done.
func CopyToDevice[T any](stream *Stream, to *Buffer, offset int, from []T) error {
	bytes := len(from) * int(unsafe.Sizeof(*new(T)))
	return stream.copy(to, offset, bytes, unsafe.Pointer(unsafe.SliceData(from)), func(host unsafe.Pointer) error {
		return stream.device.library.CopyToDevice(driver.Pointer(to.pointer)+driver.Pointer(offset), host, bytes, stream.handle)
	})
}

// CopyToHost fills to from the buffer, offset bytes from its start, after the
// work that is in the stream, and returns when that is done.
func CopyToHost[T any](stream *Stream, to []T, from *Buffer, offset int) error {
	bytes := len(to) * int(unsafe.Sizeof(*new(T)))
	return stream.copy(from, offset, bytes, unsafe.Pointer(unsafe.SliceData(to)), func(host unsafe.Pointer) error {
		return stream.device.library.CopyToHost(host, driver.Pointer(from.pointer)+driver.Pointer(offset), bytes, stream.handle)
	})
}

// copy copies between the buffer and host memory, which it holds in place until
// the stream has done it.
func (s *Stream) copy(b *Buffer, offset, bytes int, host unsafe.Pointer, start func(host unsafe.Pointer) error) error {
	if err := s.takes(b, offset, bytes); err != nil {
		return err
	}
	if bytes == 0 {
		return nil
	}
	var pinner runtime.Pinner
	pinner.Pin(host)
	defer pinner.Unpin()
	return s.device.do(func() error {
		if err := start(host); err != nil {
			return err
		}
		return s.device.library.Synchronize(s.handle)
	})
}

// Fill sets every byte of the buffer, after the work that is in the stream. It
// does not wait, and can be captured in a graph.
func Fill(stream *Stream, to *Buffer, value byte) error {
	if err := stream.takes(to, 0, 0); err != nil || to.bytes == 0 {
		return err
	}
	return stream.device.do(func() error {
		return stream.device.library.Fill(driver.Pointer(to.pointer), value, to.bytes, stream.handle)
	})
}

// takes reports a stream or buffer that cannot be used, or not together, and a
// part that the buffer does not have.
func (s *Stream) takes(b *Buffer, offset, bytes int) error {
	if err := s.part().usable(); err != nil {
		return err
	}
	if err := b.part().usableOn(s.device); err != nil {
		return err
	}
	if offset < 0 || offset > b.bytes || bytes > b.bytes-offset {
		return fmt.Errorf("cuda: %d bytes at offset %d of a buffer of %d: %w", bytes, offset, b.bytes, topk.ErrShape)
	}
	return nil
}

// pageCache remembers pages of memory that belong to the device, so that the
// driver is asked about an address once.
type pageCache [256]atomic.Uint64

const pageBits = 21 // the driver maps device memory in pages of 2 MiB

func (c *pageCache) slot(page uint64) *atomic.Uint64 { return &c[page%uint64(len(c))] }

// forget is for memory that is given back: its page may be another device's
// next.
func (c *pageCache) forget() {
	for i := range c {
		c[i].Store(0)
	}
}

// checkPointer reports an address that is not aligned, that the driver does not
// know, or that is on another device.
func (d *Device) checkPointer(what string, p Pointer, alignment int) error {
	if uint64(p)%uint64(alignment) != 0 {
		return fmt.Errorf("cuda: %s at %#x, not aligned to %d bytes: %w", what, uint64(p), alignment, topk.ErrShape)
	}
	page := uint64(p) >> pageBits
	slot := d.pages.slot(page)
	if page != 0 && slot.Load() == page {
		return nil
	}
	return d.askPointer(what, p, slot)
}

// askPointer asks the driver about an address.
func (d *Device) askPointer(what string, p Pointer, slot *atomic.Uint64) error {
	if p == 0 {
		return fmt.Errorf("cuda: %s at address 0: %w", what, topk.ErrShape)
	}
	owner, err := d.library.DeviceOf(driver.Pointer(p))
	switch {
	case driver.CodeOf(err) == driver.InvalidValue:
		return fmt.Errorf("cuda: %s at %#x, which is no device memory: %w: %w", what, uint64(p), ErrUnsupported, err)
	case err != nil:
		return d.check(err)
	case owner != d.handle:
		return fmt.Errorf("cuda: %s at %#x of device %d, given to device %d: %w", what, uint64(p), owner, d.properties.Ordinal, ErrDevice)
	}
	slot.Store(uint64(p) >> pageBits)
	return nil
}
