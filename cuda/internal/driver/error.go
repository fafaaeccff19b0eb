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

// Error is a call of the driver that failed.
type Error struct {
	Call string // the function, such as "cuMemAlloc_v2"
	Code Code
	Name string // such as "CUDA_ERROR_OUT_OF_MEMORY"; empty if the driver knows none
	Text string // what the driver says about the code
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Code, e.Text)
}
