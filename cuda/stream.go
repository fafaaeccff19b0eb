package cuda

import (
	"errors"
	"fmt"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
)

// Stream is a queue of work on a device: what is put in runs in order.
type Stream struct {
	owned
	handle driver.Stream
}

// The handles of CUDA's default streams.
const (
	legacyStream    = 1
	perThreadStream = 2
)

// NewStream makes a stream that does not wait for the default one.
func (d *Device) NewStream() (*Stream, error) {
	s := &Stream{}
	create := func() (err error) {
		s.handle, err = d.library.NewStream()
		return err
	}
	if err := d.own(&s.owned, "a stream", create, func() error { return d.library.DestroyStream(s.handle) }); err != nil {
		return nil, err
	}
	return s, nil
}

// ForeignStream takes a CUstream or cudaStream_t of another owner, which must
// live as long as the Stream is used. 0 and 1 are CUDA's default stream; the
// default stream of a thread, 2, is an error that wraps [ErrUnsupported], since
// goroutines change threads. A stream of another device is an error that wraps
// [ErrDevice]. Close leaves the foreign stream as it is.
//
// One Stream serves all calls on a foreign stream: the device holds each until its
// Close, and a call is fast if it is on the Stream of the call before.
func (d *Device) ForeignStream(handle uintptr) (*Stream, error) {
	s := &Stream{handle: driver.Stream(handle)}
	if handle == perThreadStream {
		return nil, fmt.Errorf("cuda: the default stream of a thread: %w", ErrUnsupported)
	}
	create := func() error {
		if s.isDefault() {
			return nil
		}
		return d.hasStream(s.handle)
	}
	if err := d.own(&s.owned, "a stream", create, func() error { return nil }); err != nil {
		return nil, err
	}
	return s, nil
}

// hasStream reports a stream that is not in the device's primary context.
func (d *Device) hasStream(handle driver.Stream) error {
	context, err := d.library.ContextOf(handle)
	if err != nil || context == d.context {
		return err
	}
	if err := d.library.Push(context); err != nil {
		return err
	}
	defer d.library.Pop()
	owner, err := d.library.CurrentDevice()
	switch {
	case err != nil:
		return err
	case owner != d.handle:
		return fmt.Errorf("a stream of device %d, given to device %d: %w", owner, d.properties.Ordinal, ErrDevice)
	}
	return fmt.Errorf("a stream of another context than the device's primary one: %w", ErrUnsupported)
}

// isDefault reports a stream that takes its context from the thread.
func (s *Stream) isDefault() bool { return s.handle <= legacyStream }

// part is what a device closes of the stream, nil of none.
func (s *Stream) part() *owned {
	if s == nil {
		return nil
	}
	return &s.owned
}

// Handle returns the CUstream.
func (s *Stream) Handle() uintptr { return uintptr(s.handle) }

// Synchronize waits until all work in the stream is done. A failure of any of
// it is reported here: an error that wraps [ErrFault] if the device cannot be
// used any more by this process.
func (s *Stream) Synchronize() error {
	return s.do(func() error { return s.device.library.Synchronize(s.handle) })
}

// do calls in the device's context, if stream and device can be used.
func (s *Stream) do(call func() error) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.device.do(call)
}

// Capture calls record and returns the work that it put into the stream as a
// graph; none of it runs. An error of record ends the capture and is returned; a
// panic ends it, too. Between, no other goroutine may use the stream.
func (s *Stream) Capture(record func() error) (*Graph, error) {
	if err := s.do(func() error { return s.device.library.BeginCapture(s.handle) }); err != nil {
		return nil, err
	}
	d, recorded := s.device, false
	defer func() {
		if !recorded { // by a panic, or the end of the goroutine
			d.inContext(func() error { return d.library.DropCapture(s.handle) })
		}
	}()
	failed := record()
	recorded = true
	g := &Graph{}
	create := func() (err error) {
		g.handle, err = d.library.EndCapture(s.handle)
		return err
	}
	err := d.own(&g.owned, "a graph", create, func() error { return d.library.DestroyGraph(g.handle) })
	switch {
	case failed != nil && err == nil:
		return nil, errors.Join(failed, g.Close())
	case failed != nil:
		return nil, failed // the capture failed by it
	case err != nil:
		return nil, err
	}
	return g, nil
}

// Graph is captured work, ready to be launched any number of times. The memory
// that the work uses must live as long.
type Graph struct {
	owned
	handle driver.Graph
}

// Launch puts the work of the graph into the stream.
func (g *Graph) Launch(stream *Stream) error {
	if err := g.usable(); err != nil {
		return err
	}
	if err := stream.part().usableOn(g.device); err != nil {
		return err
	}
	return g.device.do(func() error { return g.device.library.LaunchGraph(g.handle, stream.handle) })
}

// Event is a place in a stream whose time is taken.
type Event struct {
	owned
	handle driver.Event
}

// NewEvent makes an event.
func (d *Device) NewEvent() (*Event, error) {
	e := &Event{}
	create := func() (err error) {
		e.handle, err = d.library.NewEvent()
		return err
	}
	if err := d.own(&e.owned, "an event", create, func() error { return d.library.DestroyEvent(e.handle) }); err != nil {
		return nil, err
	}
	return e, nil
}

// part is what a device closes of the event, nil of none.
func (e *Event) part() *owned {
	if e == nil {
		return nil
	}
	return &e.owned
}

// Record puts the event into the stream.
func (s *Stream) Record(event *Event) error {
	if err := event.part().usable(); err != nil {
		return err
	}
	if err := s.usableOn(event.device); err != nil {
		return err
	}
	return s.device.do(func() error { return s.device.library.Record(event.handle, s.handle) })
}

// Elapsed waits for both events, which were recorded in this order, and returns
// the time from start to end, to about 0.5 microseconds.
func Elapsed(start, end *Event) (time.Duration, error) {
	if err := start.part().usable(); err != nil {
		return 0, err
	}
	if err := end.part().usableOn(start.device); err != nil {
		return 0, err
	}
	var milliseconds float32
	err := start.device.do(func() (err error) {
		milliseconds, err = start.device.library.Elapsed(start.handle, end.handle)
		return err
	})
	return time.Duration(float64(milliseconds) * float64(time.Millisecond)), err
}
