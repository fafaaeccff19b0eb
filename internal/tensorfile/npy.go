package tensorfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The .npy format, versions 1 to 3 (numpy.lib.format): a magic string, two
// bytes of version, the length of the header as a little-endian uint16 (uint32
// from version 2 on), the header as a Python dict with the keys descr,
// fortran_order and shape, then the elements.

const (
	npyMagic = "\x93NUMPY"
	// npyMaxHeader bounds the header, in bytes, to what version 1 can say. Only
	// records with very many fields have longer ones.
	npyMaxHeader = 1<<16 - 1
)

// npyType is an element type, as descr spells it.
type npyType struct {
	float     DType
	bigEndian bool
}

// npyTypes are the types that can be read. NumPy has no bfloat16: ml_dtypes,
// which JAX and TensorFlow use, adds one that NumPy writes as two bytes of
// "void", so such an element is read as a bfloat16. Some programs write the
// name itself.
var npyTypes = map[string]npyType{
	"<f4":      {Float32, false},
	">f4":      {Float32, true},
	"<f2":      {Float16, false},
	">f2":      {Float16, true},
	"|V2":      {BFloat16, false},
	"<V2":      {BFloat16, false},
	"bfloat16": {BFloat16, false},
}

// readNpy reads and checks the header of a file of size bytes that begins with
// npyMagic.
func readNpy(file io.ReaderAt, size int64) (tensor, error) {
	var prefix [len(npyMagic) + 2 + 4]byte
	n := min(size, int64(len(prefix)))
	if err := readAt(file, prefix[:n], 0); err != nil {
		return tensor{}, err
	}
	if n < int64(len(prefix)) { // the smallest header is longer than what is left
		return tensor{}, fmt.Errorf("truncated: an .npy file of %d bytes: %w", size, ErrFormat)
	}
	major, minor := prefix[len(npyMagic)], prefix[len(npyMagic)+1]
	start, length := int64(len(prefix)), int64(binary.LittleEndian.Uint32(prefix[len(npyMagic)+2:]))
	switch major {
	case 1:
		start, length = start-2, length&0xFFFF
	case 2, 3:
	default:
		return tensor{}, fmt.Errorf(".npy version %d.%d, want 1 to 3: %w", major, minor, ErrFormat)
	}
	switch {
	case length > size-start:
		return tensor{}, fmt.Errorf("header of %d bytes in a file with %d left: %w", length, size-start, ErrFormat)
	case length > npyMaxHeader:
		return tensor{}, fmt.Errorf("header of %d bytes, at most %d are read: %w", length, npyMaxHeader, ErrFormat)
	}
	header := make([]byte, length)
	if err := readAt(file, header, start); err != nil {
		return tensor{}, err
	}
	t, err := parseNpy(string(header))
	if err != nil {
		return tensor{}, fmt.Errorf("header: %w", err)
	}
	t.offset = start + length
	need, err := span(t.shape, int64(t.float.Bytes())*8)
	if err != nil {
		return tensor{}, err
	}
	if have := size - t.offset; have != need {
		return tensor{}, fmt.Errorf("tensor %v: %d bytes follow the header, want %d: %w", t, have, need, ErrFormat)
	}
	return t, nil
}

// parseNpy reads the Python dict of a header. An error wraps ErrFormat or
// ErrDType.
func parseNpy(header string) (tensor, error) {
	s := npyScanner{left: header}
	var t tensor
	seen := make(map[string]bool)
	s.expect("{")
	for s.err == nil && !s.accept("}") {
		key := s.quoted()
		s.expect(":")
		if seen[key] {
			s.fail("key %s comes twice", quote(key))
		}
		seen[key] = true
		switch key {
		case "descr":
			if strings.HasPrefix(s.left, "[") {
				return tensor{}, fmt.Errorf("records of several fields, want float32, float16 or bfloat16: %w", ErrDType)
			}
			t.dtype = s.quoted()
		case "fortran_order":
			t.columnMajor = s.boolean()
		case "shape":
			t.shape = s.tuple()
		default:
			s.fail("unknown key %s", quote(key))
		}
		if !s.accept(",") && !strings.HasPrefix(s.left, "}") {
			s.expect("}")
		}
	}
	if s.err == nil && s.left != "" {
		s.fail("more than spaces after the dict: %s", quote(s.left))
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if !seen[key] {
			s.fail("no %s", key)
		}
	}
	if s.err != nil {
		return tensor{}, s.err
	}
	kind, known := npyTypes[t.dtype]
	if !known {
		return tensor{}, fmt.Errorf("descr %s, want '<f4', '>f4', '<f2', '>f2' or '|V2' for bfloat16: %w", quote(t.dtype), ErrDType)
	}
	t.float, t.bigEndian = kind.float, kind.bigEndian
	return t, nil
}

// npyScanner takes the words of a Python literal from the front of left, which
// never begins with a space. After an error it goes on doing nothing.
type npyScanner struct {
	left string
	err  error
}

func (s *npyScanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format+": %w", append(args, ErrFormat)...)
	}
	s.left = ""
}

// skip drops n bytes and the spaces that follow.
func (s *npyScanner) skip(n int) { s.left = strings.TrimLeft(s.left[n:], " \t\r\n") }

func (s *npyScanner) accept(word string) bool {
	if !strings.HasPrefix(s.left, word) {
		return false
	}
	s.skip(len(word))
	return true
}

func (s *npyScanner) expect(word string) {
	if !s.accept(word) {
		s.fail("want %q, not %s", word, quote(s.left))
	}
}

// quoted takes a string; the ones of a header need no escapes.
func (s *npyScanner) quoted() string {
	if s.left == "" || s.left[0] != '\'' && s.left[0] != '"' {
		s.fail("want a string, not %s", quote(s.left))
		return ""
	}
	length := strings.IndexByte(s.left[1:], s.left[0])
	if length < 0 {
		s.fail("a string without an end: %s", quote(s.left))
		return ""
	}
	word := s.left[1 : 1+length]
	s.skip(length + 2)
	return word
}

func (s *npyScanner) boolean() bool {
	if s.accept("True") {
		return true
	}
	if !s.accept("False") {
		s.fail("want True or False, not %s", quote(s.left))
	}
	return false
}

// tuple takes a tuple of integers, such as (), (3,) or (2, 3).
func (s *npyScanner) tuple() []int64 {
	shape := []int64{}
	s.expect("(")
	for s.err == nil && !s.accept(")") {
		end := strings.IndexAny(s.left, ",) ")
		if end < 0 {
			s.fail("a shape without an end: %s", quote(s.left))
			return nil
		}
		// Python 2 wrote long integers with an L.
		dimension, err := strconv.ParseInt(strings.TrimSuffix(s.left[:end], "L"), 10, 64)
		if err != nil {
			s.fail("dimension %s is not an integer below 2^63", quote(s.left[:end]))
			return nil
		}
		shape = append(shape, dimension)
		s.skip(end)
		if !s.accept(",") && !strings.HasPrefix(s.left, ")") {
			s.fail("want \",\" or \")\", not %s", quote(s.left))
		}
	}
	return shape
}
