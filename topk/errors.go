package topk

import (
	"errors"

	"github.com/ai-kernel-factory/aikf/internal/planfile"
)

// The errors of this package wrap one of these; test with errors.Is.
var (
	// ErrShape: a number of rows, a vocab, a stride, a k, a length or a slice
	// that does not fit the others.
	ErrShape = errors.New("invalid shape")
	// ErrDType: values of a type that is not a Float.
	ErrDType = errors.New("invalid dtype")
	// ErrTier: an instruction set that this machine does not have.
	ErrTier = errors.New("tier not available")
	// ErrPlans: launch plans in a file that is damaged, or of another device or
	// version.
	ErrPlans = planfile.ErrInvalid
)
