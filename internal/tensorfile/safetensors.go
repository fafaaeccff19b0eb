package tensorfile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The .safetensors format, as huggingface/safetensors describes it: the length
// of the header as a little-endian uint64, the header as a JSON object padded
// with spaces, then the tensors' bytes, little-endian and row-major, without
// holes between them.

const (
	// safetensorsPrefix is the bytes in front of the header.
	safetensorsPrefix = 8
	// safetensorsMaxHeader is the longest header, in bytes, that the reference
	// implementation reads.
	safetensorsMaxHeader = 100_000_000
)

// safetensorsBits is the size of an element of each dtype, in bits.
var safetensorsBits = map[string]int64{
	"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
	"BOOL": 8, "U8": 8, "I8": 8,
	"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"U16": 16, "I16": 16, "F16": 16, "BF16": 16,
	"U32": 32, "I32": 32, "F32": 32,
	"U64": 64, "I64": 64, "F64": 64, "C64": 64,
}

var safetensorsFloats = map[string]DType{"F32": Float32, "F16": Float16, "BF16": BFloat16}

// safetensorsEntry is what the header says of a tensor.
type safetensorsEntry struct {
	tensor
	begin, end int64 // bytes from the end of the header
}

// readSafetensors reads and checks the header of a file of size bytes, of at
// least safetensorsPrefix. The tensors are in the order of the header.
func readSafetensors(file io.ReaderAt, size int64) ([]tensor, error) {
	var prefix [safetensorsPrefix]byte
	if err := readAt(file, prefix[:], 0); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	if left := uint64(size - safetensorsPrefix); length > left {
		return nil, fmt.Errorf("header of %d bytes in a file with %d left: %w", length, left, ErrFormat)
	}
	if length > safetensorsMaxHeader {
		return nil, fmt.Errorf("header of %d bytes, at most %d are read: %w", length, safetensorsMaxHeader, ErrFormat)
	}
	header := make([]byte, length)
	if err := readAt(file, header, safetensorsPrefix); err != nil {
		return nil, err
	}
	if !utf8.Valid(header) {
		return nil, fmt.Errorf("the header is not UTF-8: %w", ErrFormat)
	}
	entries, err := parseSafetensors(header)
	if err != nil {
		return nil, fmt.Errorf("header: %w: %w", err, ErrFormat)
	}
	start := safetensorsPrefix + int64(length)
	if err := checkExtents(entries, size-start); err != nil {
		return nil, err
	}
	tensors := make([]tensor, len(entries))
	for i, e := range entries {
		tensors[i] = e.tensor
		tensors[i].offset = start + e.begin
	}
	return tensors, nil
}

// checkExtents reports tensors whose bytes do not agree with their shapes, or
// that do not cover the size bytes behind the header just once.
func checkExtents(entries []safetensorsEntry, size int64) error {
	for _, e := range entries {
		bits, known := safetensorsBits[e.dtype]
		if !known {
			return fmt.Errorf("tensor %v: unknown dtype: %w", e.tensor, ErrDType)
		}
		need, err := span(e.shape, bits)
		if err != nil {
			return fmt.Errorf("tensor %v: %w", e.tensor, err)
		}
		switch {
		case e.begin > e.end:
			return fmt.Errorf("tensor %v begins at byte %d and ends at %d: %w", e.tensor, e.begin, e.end, ErrFormat)
		case e.end > size:
			return fmt.Errorf("tensor %v ends at byte %d of %d: %w", e.tensor, e.end, size, ErrFormat)
		case e.end-e.begin != need:
			return fmt.Errorf("tensor %v has %d bytes (%d to %d), want %d: %w", e.tensor, e.end-e.begin, e.begin, e.end, need, ErrFormat)
		}
	}
	byPlace := slices.SortedFunc(slices.Values(entries), func(a, b safetensorsEntry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	var covered int64
	for _, e := range byPlace {
		switch {
		case e.begin < covered:
			return fmt.Errorf("tensor %v begins at byte %d, inside the one that ends at %d: %w", e.tensor, e.begin, covered, ErrFormat)
		case e.begin > covered:
			return fmt.Errorf("tensor %v begins at byte %d, a hole after %d: %w", e.tensor, e.begin, covered, ErrFormat)
		}
		covered = e.end
	}
	if covered != size {
		return fmt.Errorf("the tensors end at byte %d of %d: %w", covered, size, ErrFormat)
	}
	return nil
}

// parseSafetensors reads the JSON of a header.
func parseSafetensors(header []byte) ([]safetensorsEntry, error) {
	var entries []safetensorsEntry
	decoder := json.NewDecoder(bytes.NewReader(header))
	err := members(decoder, func(name string) error {
		if name == "__metadata__" {
			var metadata map[string]string
			return decoder.Decode(&metadata)
		}
		e, err := parseEntry(decoder)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		e.name = name
		entries = append(entries, e)
		return nil
	})
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("the JSON object does not end within %d bytes", len(header))
	case err != nil:
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than spaces after the JSON object, from byte %d on", decoder.InputOffset())
	}
	return entries, nil
}

// parseEntry reads the object that describes one tensor. Members that the
// format does not know are passed over, as the reference implementation does.
func parseEntry(decoder *json.Decoder) (safetensorsEntry, error) {
	var dtype *string
	var shape, offsets []natural
	err := members(decoder, func(name string) error {
		switch name {
		case "dtype":
			return decoder.Decode(&dtype)
		case "shape":
			return decoder.Decode(&shape)
		case "data_offsets":
			return decoder.Decode(&offsets)
		}
		var unknown json.RawMessage
		return decoder.Decode(&unknown)
	})
	switch {
	case err != nil:
		return safetensorsEntry{}, err
	case dtype == nil:
		return safetensorsEntry{}, fmt.Errorf("no dtype")
	case shape == nil:
		return safetensorsEntry{}, fmt.Errorf("no shape")
	case len(offsets) != 2:
		return safetensorsEntry{}, fmt.Errorf("%d data_offsets, want 2", len(offsets))
	}
	e := safetensorsEntry{begin: int64(offsets[0]), end: int64(offsets[1])}
	e.dtype, e.float = *dtype, safetensorsFloats[*dtype]
	e.shape = make([]int64, len(shape))
	for i, dimension := range shape {
		e.shape[i] = int64(dimension)
	}
	return e, nil
}

// members calls visit for the name of each member of the next JSON object;
// visit reads the value. A name that comes twice is an error: readers differ in
// which of the two they believe.
func members(decoder *json.Decoder, visit func(name string) error) error {
	if open, err := decoder.Token(); err != nil {
		return err
	} else if open != json.Delim('{') {
		return fmt.Errorf("want a JSON object at byte %d", decoder.InputOffset())
	}
	seen := make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		name := token.(string) // the decoder allows nothing else here
		if seen[name] {
			return fmt.Errorf("%s comes twice", quote(name))
		}
		seen[name] = true
		if err := visit(name); err != nil {
			return err
		}
	}
	_, err := decoder.Token()
	return err
}

// natural is an integer of a header, from 0 to the largest int64. JSON's null,
// fractions and strings are errors.
type natural int64

// UnmarshalJSON implements [json.Unmarshaler].
func (n *natural) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || v < 0 {
		return fmt.Errorf("%s is not an integer from 0 to 2^63-1", quote(string(text)))
	}
	*n = natural(v)
	return nil
}
