package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eventCounters count the cycles and the instructions of the calling thread, outside
// of the kernel.
type eventCounters struct{ cycles, instructions int }

// openEventCounters starts counters, which stand still as yet. The error says why the
// system does not allow them.
func openEventCounters() (*eventCounters, error) {
	open := func(config uint64, group int) (int, error) {
		attributes := unix.PerfEventAttr{
			Type: unix.PERF_TYPE_HARDWARE, Config: config, Read_format: unix.PERF_FORMAT_GROUP,
			Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
		}
		attributes.Size = uint32(unsafe.Sizeof(attributes))
		if group < 0 {
			attributes.Bits |= unix.PerfBitDisabled
		}
		return unix.PerfEventOpen(&attributes, 0, -1, group, unix.PERF_FLAG_FD_CLOEXEC)
	}
	cycles, err := open(unix.PERF_COUNT_HW_CPU_CYCLES, -1)
	if err != nil {
		return nil, refused(err)
	}
	instructions, err := open(unix.PERF_COUNT_HW_INSTRUCTIONS, cycles)
	if err != nil {
		unix.Close(cycles)
		return nil, refused(err)
	}
	return &eventCounters{cycles, instructions}, nil
}

// refused says what may be done about it.
func refused(err error) error {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		level, _ := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
		return fmt.Errorf("perf_event_open: %w; kernel.perf_event_paranoid is %s, or a container forbids the call", err, strings.TrimSpace(string(level)))
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("perf_event_open: %w; the processor shows no counters, as many virtual machines do not", err)
	}
	return fmt.Errorf("perf_event_open: %w", err)
}

// count returns what run takes. The goroutine keeps its thread.
func (c *eventCounters) count(run func() error) (cycles, instructions float64, err error) {
	if err := unix.IoctlSetInt(c.cycles, unix.PERF_EVENT_IOC_RESET, unix.PERF_IOC_FLAG_GROUP); err != nil {
		return 0, 0, err
	}
	if err := unix.IoctlSetInt(c.cycles, unix.PERF_EVENT_IOC_ENABLE, unix.PERF_IOC_FLAG_GROUP); err != nil {
		return 0, 0, err
	}
	failed := run()
	if err := errors.Join(failed, unix.IoctlSetInt(c.cycles, unix.PERF_EVENT_IOC_DISABLE, unix.PERF_IOC_FLAG_GROUP)); err != nil {
		return 0, 0, err
	}
	var got [3]uint64 // how many counters, and each
	buffer := make([]byte, unsafe.Sizeof(got))
	if n, err := unix.Read(c.cycles, buffer); err != nil || n != len(buffer) {
		return 0, 0, fmt.Errorf("bench: %d bytes of counters: %w", n, err)
	}
	for i := range got {
		got[i] = binary.NativeEndian.Uint64(buffer[8*i:])
	}
	return float64(got[1]), float64(got[2]), nil
}

func (c *eventCounters) close() error {
	return errors.Join(unix.Close(c.instructions), unix.Close(c.cycles))
}
