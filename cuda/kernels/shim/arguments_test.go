package shim_test

import "unsafe"

// arguments is SelectArguments of cuda/kernels/arguments.h.
type arguments struct {
	logits, values, indices unsafe.Pointer
	rowK, rowLengths        unsafe.Pointer
	workspace               unsafe.Pointer
	stride, resultStride    int64
	rows, vocab, k          int32
	groups, chunks          int32
	smallest, indexBytes    int32
	_                       int32
}

// first is the address of a slice's elements.
func first[E any](s []E) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }
