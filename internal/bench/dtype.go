package bench

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// DType names a logit type as flags and records do.
type DType = tensorfile.DType

// The logit types.
const (
	Float32  = tensorfile.Float32
	Float16  = tensorfile.Float16
	BFloat16 = tensorfile.BFloat16
)

// checkDType returns an error that lists the logit types if d is none of them.
func checkDType(d DType) error {
	switch d {
	case Float32, Float16, BFloat16:
		return nil
	}
	return fmt.Errorf("dtype %q is not one of %s, %s, %s", string(d), Float32, Float16, BFloat16)
}

// narrow rounds v to a T, if it does not fit.
func narrow[T topk.Float](v float32) T {
	var x T
	switch x := any(&x).(type) {
	case *float32:
		*x = v
	case *topk.Float16:
		*x = topk.Float16FromFloat32(v)
	case *topk.BFloat16:
		*x = topk.BFloat16FromFloat32(v)
	}
	return x
}

// widen returns the value of x, exactly.
func widen[T topk.Float](x T) float32 {
	switch x := any(x).(type) {
	case topk.Float16:
		return x.Float32()
	case topk.BFloat16:
		return x.Float32()
	case float32:
		return x
	}
	return float32(math.NaN())
}

// bitsOf views logits as their bits.
func bitsOf[E simd.Bits, T topk.Float](logits []T) []E {
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(logits))), len(logits))
}
