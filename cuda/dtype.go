package cuda

import (
	"fmt"

	"github.com/ai-kernel-factory/aikf/topk"
)

// DType is the format of logits and values in device memory.
type DType uint8

const (
	Float32 DType = iota
	Float16
	BFloat16
)

var dtypes = [...]struct {
	name, symbol string // in results and options, and in the names of kernels
	bytes        int
}{
	Float32:  {"float32", "f32", 4},
	Float16:  {"float16", "f16", 2},
	BFloat16: {"bfloat16", "bf16", 2},
}

// String returns "float32", "float16" or "bfloat16".
func (t DType) String() string {
	if !t.valid() {
		return fmt.Sprintf("DType(%d)", uint8(t))
	}
	return dtypes[t].name
}

// Bytes returns the size of one element, 0 for a DType that is none.
func (t DType) Bytes() int {
	if !t.valid() {
		return 0
	}
	return dtypes[t].bytes
}

func (t DType) valid() bool { return int(t) < len(dtypes) }

// validate reports a DType that is none.
func (t DType) validate() error {
	if !t.valid() {
		return fmt.Errorf("cuda: dtype %d, want %v, %v or %v: %w", uint8(t), Float32, Float16, BFloat16, topk.ErrDType)
	}
	return nil
}

// dtypeOf returns the DType of T.
func dtypeOf[T topk.Float]() DType {
	var zero T
	switch any(zero).(type) {
	case topk.Float16:
		return Float16
	case topk.BFloat16:
		return BFloat16
	}
	return Float32
}
