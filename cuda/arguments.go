package cuda

// selectArguments mirrors SelectArguments of kernels/arguments.h: the argument
// of every kernel, passed by value.
type selectArguments struct {
	logits, values, indices Pointer
	rowK, rowLengths        Pointer
	workspace               Pointer
	stride, resultStride    int64
	rows, vocab, k          int32
	groups, chunks          int32
	smallest                int32
	indexBytes              int32
	reserved                int32
}
