package tensorfile

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/topk"
)

// ReadRows fills dst with rows of f, beginning with the row first. T must be
// the type that f.DType names, and len(dst) a multiple of f.Vocab. Logits keep
// their bits, those of a NaN included.
//
// An error wraps [ErrDType], [topk.ErrShape], or [ErrFormat] if the file has
// become shorter since it was opened; or it is the file system's.
func ReadRows[T topk.Float](dst []T, f *File, first int) error {
	if have := dtypeOf[T](); have != f.DType {
		return fmt.Errorf("tensorfile: tensor %v read as %s: %w", f.tensor, have, ErrDType)
	}
	rows := len(dst) / f.Vocab
	if first < 0 || first > f.Rows || rows > f.Rows-first || rows*f.Vocab != len(dst) {
		return fmt.Errorf("tensorfile: room for %d values from row %d on, the tensor has rows = %d of vocab = %d: %w",
			len(dst), first, f.Rows, f.Vocab, topk.ErrShape)
	}
	if rows == 0 {
		return nil
	}
	var err error
	if f.tensor.columnMajor && f.Rows > 1 {
		err = readColumns(dst, f, first, rows)
	} else {
		err = readValues(dst, f, int64(first)*int64(f.Vocab))
	}
	if err != nil {
		return fmt.Errorf("%s: tensor %v: %w", f.Path, f.tensor, err)
	}
	return nil
}

// readColumns transposes: the file has column after column.
func readColumns[T topk.Float](dst []T, f *File, first, rows int) error {
	column := make([]T, rows)
	for c := range f.Vocab {
		if err := readValues(column, f, int64(c)*int64(f.Rows)+int64(first)); err != nil {
			return err
		}
		for r, v := range column {
			dst[r*f.Vocab+c] = v
		}
	}
	return nil
}

// readValues fills dst with consecutive values, beginning with the value first.
func readValues[T topk.Float](dst []T, f *File, first int64) error {
	size := int(unsafe.Sizeof(dst[0]))
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), len(dst)*size)
	if err := readAt(f.file, bytes, f.tensor.offset+first*int64(size)); err != nil {
		return err
	}
	if f.tensor.bigEndian == hostBigEndian {
		return nil
	}
	if size == 2 {
		swap(dst, bits.ReverseBytes16)
	} else {
		swap(dst, bits.ReverseBytes32)
	}
	return nil
}

// swap turns the bytes of every value around.
func swap[T topk.Float, E uint16 | uint32](values []T, reverse func(E) E) {
	words := unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(values))), len(values))
	for i, word := range words {
		words[i] = reverse(word)
	}
}

var hostBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// dtypeOf names T.
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
