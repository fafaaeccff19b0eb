// Package driver calls the NVIDIA driver library, found at run time: its
// functions, their results as errors, and nothing above them.
package driver

import (
	"errors"
	"fmt"
)

// ErrUnavailable: there is no driver, or not one that can be used.
var ErrUnavailable = errors.New("CUDA is not available")

// Code is a CUresult.
type Code int32

// The results that are told apart.
const (
	Success          Code = 0
	InvalidValue     Code = 1
	NoDevice         Code = 100
	InvalidContext   Code = 201
	InvalidPTX       Code = 218
	NotFound         Code = 500
	uncorrectableECC Code = 214
	nvlink           Code = 220
	illegalAddress   Code = 700
	launchTimeout    Code = 702
	contextDestroyed Code = 709
	assert           Code = 710
	stackError       Code = 714
	launchFailed     Code = 719 // those between are of the same kind
)

// Sticky reports whether every later call in the context fails the same way.
func (c Code) Sticky() bool {
	switch c {
	case uncorrectableECC, nvlink, illegalAddress, launchTimeout, contextDestroyed, assert:
		return true
	}
	return stackError <= c && c <= launchFailed
}

// Error is a call of the driver that failed.
type Error struct {
	Call string // the function, such as "cuMemAlloc_v2"
	Code Code
	Name string // such as "CUDA_ERROR_OUT_OF_MEMORY"
	Text string // what the driver says about the code
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Code, e.Text)
}

// CodeOf returns the code of the driver's error that err wraps, or Success.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Success
}
