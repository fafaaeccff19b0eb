// Package tensorfile reads rows of logits from .safetensors and .npy files, in
// the dtype they were written in.
//
// A header is not believed: every size, offset and dimension is checked against
// the others and against the size of the file before anything of that size is
// allocated. A file that contradicts itself is an error with the numbers.
package tensorfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/ai-kernel-factory/aikf/topk"
)

// The errors of this package wrap one of these or an error of the file system.
var (
	// ErrFormat: not a file of a known format, or one that contradicts itself.
	ErrFormat = errors.New("invalid tensor file")
	// ErrDType: a tensor of a type that is not a [topk.Float]. It is a
	// [topk.ErrDType].
	ErrDType = fmt.Errorf("unsupported in a tensor file: %w", topk.ErrDType)
	// ErrTensor: the tensor is not there, could be one of several, or does not
	// consist of rows of logits.
	ErrTensor = errors.New("no such tensor")
)

// DType names the type of a logit.
type DType string

// The types that can be read, by the names that flags and results use.
const (
	Float32  DType = "float32"
	Float16  DType = "float16"
	BFloat16 DType = "bfloat16"
)

// Bytes returns the size of one value.
func (d DType) Bytes() int {
	if d == Float32 {
		return 4
	}
	return 2
}

// File is an open file of which one tensor can be read as rows of logits. Close
// it after use.
type File struct {
	Path   string
	Name   string  // of the tensor; empty in an .npy file
	DType  DType   // of its logits
	Shape  []int64 // as the file has it
	Rows   int     // the product of all dimensions but the last
	Vocab  int     // the last dimension, at least 1
	tensor tensor
	file   io.ReaderAt
	close  func() error
}

// Open opens the tensor that spec names: FILE or FILE:tensor. A file with that
// whole name is preferred to a tensor of a file with a shorter one. Without a
// tensor, the file must have a single one of one or two dimensions of floats,
// or a single one of floats. Only the header is read.
func Open(spec string) (*File, error) {
	path, name, err := split(spec)
	if err != nil {
		return nil, err
	}
	// Look before opening: opening a pipe waits for its writer.
	switch info, err := os.Stat(path); {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory: %w", path, ErrFormat)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file (%v): %w", path, info.Mode().Type(), ErrFormat)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := open(file, name)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.Path, f.close = path, file.Close
	return f, nil
}

// Close closes the file.
func (f *File) Close() error { return f.close() }

// split takes FILE:tensor apart. The longest path that exists wins, so that
// both file names and tensor names may hold colons; name is nil if the whole of
// spec is a path.
func split(spec string) (path string, name *string, err error) {
	_, missing := os.Stat(spec)
	if missing == nil {
		return spec, nil, nil
	}
	for path = spec; ; {
		colon := strings.LastIndexByte(path, ':')
		if colon < 0 {
			return "", nil, missing
		}
		path = path[:colon]
		if _, err := os.Stat(path); err == nil {
			tensor := spec[colon+1:]
			return path, &tensor, nil
		} else if !errors.Is(err, fs.ErrNotExist) && errors.Is(missing, fs.ErrNotExist) {
			missing = err // such as a file that may not be read, which says more
		}
	}
}

func open(file *os.File, name *string) (*File, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return parse(file, info.Size(), name)
}

// parse reads the header of a file of size bytes and picks a tensor.
func parse(file io.ReaderAt, size int64, name *string) (*File, error) {
	tensors, err := readHeader(file, size)
	if err != nil {
		return nil, err
	}
	t, err := pick(tensors, name)
	if err != nil {
		return nil, err
	}
	rows, vocab := product(t.shape[:len(t.shape)-1]), t.shape[len(t.shape)-1]
	switch {
	case vocab > math.MaxInt32:
		return nil, fmt.Errorf("tensor %v: vocab = %d exceeds %d: %w", t, vocab, math.MaxInt32, ErrTensor)
	case rows > math.MaxInt:
		return nil, fmt.Errorf("tensor %v: rows = %d exceed %d: %w", t, rows, math.MaxInt, ErrTensor)
	case t.columnMajor && len(t.shape) > 2:
		return nil, fmt.Errorf("tensor %v: fortran_order with %d dimensions, at most 2 can be read: %w", t, len(t.shape), ErrFormat)
	}
	return &File{Name: t.name, DType: t.float, Shape: t.shape, Rows: int(rows), Vocab: int(vocab), tensor: t, file: file}, nil
}

// tensor is an entry of a header. Its extent lies inside the file and agrees
// with its shape and dtype.
type tensor struct {
	name        string
	dtype       string // as the file spells it
	float       DType  // empty if it is none that can be read
	shape       []int64
	offset      int64 // of the first byte, from the start of the file
	bigEndian   bool
	columnMajor bool
}

// String describes the tensor in messages.
func (t tensor) String() string {
	description := fmt.Sprintf("%s %s", quote(t.dtype), shapeString(t.shape))
	if t.name == "" {
		return description
	}
	return quote(t.name) + " " + description
}

// readHeader tells the formats apart by their first bytes; a file may have any
// name.
func readHeader(file io.ReaderAt, size int64) ([]tensor, error) {
	if size == 0 {
		return nil, fmt.Errorf("empty file: %w", ErrFormat)
	}
	var start [safetensorsPrefix + 1]byte
	head := start[:min(size, int64(len(start)))]
	if err := readAt(file, head, 0); err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(string(head), npyMagic):
		t, err := readNpy(file, size)
		return []tensor{t}, err
	case strings.HasPrefix(string(head), "PK\x03\x04"):
		return nil, fmt.Errorf("a zip archive, perhaps .npz; unpack it and name the .npy inside: %w", ErrFormat)
	case len(head) > safetensorsPrefix && head[safetensorsPrefix] == '{':
		return readSafetensors(file, size)
	}
	return nil, fmt.Errorf("neither .npy nor .safetensors: %d bytes that begin with % x: %w", size, head, ErrFormat)
}

// pick chooses the tensor of that name, or the only one that can be meant.
func pick(tensors []tensor, name *string) (tensor, error) {
	if name != nil {
		for _, t := range tensors {
			if t.name == *name {
				return t, t.checkRows()
			}
		}
		return tensor{}, fmt.Errorf("tensor %s is not there, the file has %s: %w", quote(*name), list(tensors), ErrTensor)
	}
	if len(tensors) == 1 {
		return tensors[0], tensors[0].checkRows()
	}
	var floats, flat []tensor
	for _, t := range tensors {
		if t.checkRows() == nil {
			floats = append(floats, t)
			if len(t.shape) <= 2 {
				flat = append(flat, t)
			}
		}
	}
	switch {
	case len(flat) == 1:
		return flat[0], nil
	case len(floats) == 1:
		return floats[0], nil
	}
	return tensor{}, fmt.Errorf("%d tensors of rows of floats, name one as FILE:tensor; the file has %s: %w", len(floats), list(tensors), ErrTensor)
}

// checkRows reports a tensor that does not consist of rows of floats.
func (t tensor) checkRows() error {
	switch {
	case t.float == "":
		return fmt.Errorf("tensor %v, want float32, float16 or bfloat16: %w", t, ErrDType)
	case len(t.shape) == 0:
		return fmt.Errorf("tensor %v is a single number, want at least one dimension: %w", t, ErrTensor)
	case t.shape[len(t.shape)-1] == 0:
		return fmt.Errorf("tensor %v has rows of 0 values: %w", t, ErrTensor)
	}
	return nil
}

// list describes tensors in a message, the first ones if there are many.
func list(tensors []tensor) string {
	const most = 16
	if len(tensors) == 0 {
		return "none"
	}
	var words []string
	for _, t := range tensors[:min(most, len(tensors))] {
		words = append(words, t.String())
	}
	if more := len(tensors) - most; more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, ", ")
}

// quote quotes a word of the file for a message, shortened if it is very long.
func quote(word string) string {
	const most = 64
	if len(word) > most {
		return strconv.Quote(word[:most]) + "..."
	}
	return strconv.Quote(word)
}

// shapeString formats a shape for a message, shortened if it is very long.
func shapeString(shape []int64) string {
	const most = 8
	if len(shape) > most {
		return fmt.Sprintf("%v and %d more dimensions", shape[:most], len(shape)-most)
	}
	return fmt.Sprint(shape)
}

// span returns the bytes that a shape takes at so many bits an element, or why
// there is no such number.
func span(shape []int64, bits int64) (int64, error) {
	elements := int64(1)
	for _, dimension := range shape {
		if dimension < 0 {
			return 0, fmt.Errorf("shape %s has a negative dimension: %w", shapeString(shape), ErrFormat)
		}
		if dimension != 0 && elements > math.MaxInt64/dimension {
			return 0, fmt.Errorf("shape %s overflows: %w", shapeString(shape), ErrFormat)
		}
		elements *= dimension
	}
	switch {
	case elements > math.MaxInt64/bits:
		return 0, fmt.Errorf("shape %s at %d bits an element overflows: %w", shapeString(shape), bits, ErrFormat)
	case elements*bits%8 != 0:
		return 0, fmt.Errorf("shape %s at %d bits an element does not fill whole bytes: %w", shapeString(shape), bits, ErrFormat)
	}
	return elements * bits / 8, nil
}

// product multiplies leading dimensions of a shape that span has checked.
func product(shape []int64) int64 {
	elements := int64(1)
	for _, dimension := range shape {
		elements *= dimension
	}
	return elements
}

// readAt fills p from that offset. A file that ends early is an ErrFormat.
func readAt(file io.ReaderAt, p []byte, offset int64) error {
	n, err := file.ReadAt(p, offset)
	switch {
	case n == len(p):
		return nil
	case err == io.EOF:
		return fmt.Errorf("truncated: %d of %d bytes at offset %d: %w", n, len(p), offset, ErrFormat)
	}
	return err
}
