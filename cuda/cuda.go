// Package cuda selects the k largest logits of each row on an NVIDIA GPU, in
// one launch for most shapes, and draws tokens from them. The answers are those
// of packages topk and sampling, to the bit.
//
// [Open] takes a device, [Device.NewSelector] makes a [Selector], whose
// SelectDevice works on device memory, and [Select] on host slices. A [Sampler],
// by [Device.NewSampler], draws tokens in the launch that selects; a [Verifier],
// by [Device.NewVerifier], verifies drafted tokens. The NVIDIA driver is found at
// run time (libcuda.so.1 of Linux, 525 or newer); nothing but Go is needed to
// build. Without a driver or a device, [Open] and [DeviceCount] return an error
// that wraps [ErrUnavailable] and says why.
//
// Devices are numbered as the driver numbers them: CUDA_VISIBLE_DEVICES and
// MIG instances are honoured, since the driver hides what they hide. The
// primary context of a device is used, the one that PyTorch and the CUDA
// runtime use, so that their pointers and streams can be passed in.
package cuda

import (
	"errors"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
)

// The errors of this package wrap one of these, or a sentinel of package topk or
// sampling; test with errors.Is.
var (
	// ErrUnavailable: no driver, a driver that is too old, no such device, or a
	// device of a compute capability below 8.0.
	ErrUnavailable = driver.ErrUnavailable
	// ErrUnsupported: a plan, an option or a size that the device or the shape
	// does not allow.
	ErrUnsupported = errors.New("not supported")
	// ErrDevice: a stream, buffer or address that belongs to another device.
	ErrDevice = errors.New("belongs to another device")
	// ErrWorkspace: a plan that needs more workspace than it was given.
	ErrWorkspace = errors.New("workspace too small")
	// ErrFault: the device failed while it ran, and can no longer be used by
	// this process.
	ErrFault = errors.New("device fault")
	// ErrClosed: something that was used after its Close, or that is nil or was
	// made by no device.
	ErrClosed = errors.New("already closed")
)

// DriverError is an error of the driver: the call that failed, the code, its
// name and what the driver says about it. Use errors.As.
type DriverError = driver.Error
