package tensorfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

// safetensors makes a file of a header, its length in front, and payload bytes
// behind it that count up.
func safetensors(header string, payload int) []byte {
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(file, header...), counting(payload)...)
}

// npy makes a file of that version.
func npy(major byte, header string, payload []byte) []byte {
	file := append([]byte(npyMagic), major, 0)
	if major == 1 {
		file = binary.LittleEndian.AppendUint16(file, uint16(len(header)))
	} else {
		file = binary.LittleEndian.AppendUint32(file, uint32(len(header)))
	}
	return append(append(file, header...), payload...)
}

func counting(n int) []byte {
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(i)
	}
	return payload
}

func write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// read opens spec and returns all rows of the one tensor, and a description.
func read[T topk.Float](t *testing.T, spec string) (*File, []T) {
	t.Helper()
	f, err := Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	logits := make([]T, f.Rows*f.Vocab)
	if err := ReadRows(logits, f, 0); err != nil {
		t.Fatal(err)
	}
	return f, logits
}

const twoTensors = `{"__metadata__":{"a":"b"},` +
	`"next_token":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},` +
	`"logits":{"dtype":"BF16","shape":[2,3],"data_offsets":[16,28]}}   `

func TestReadSafetensors(t *testing.T) {
	path := write(t, "x.safetensors", safetensors(twoTensors, 28))
	want := []topk.BFloat16{0x1110, 0x1312, 0x1514, 0x1716, 0x1918, 0x1B1A}
	for _, spec := range []string{path, path + ":logits"} {
		f, logits := read[topk.BFloat16](t, spec)
		if f.Name != "logits" || f.DType != BFloat16 || f.Rows != 2 || f.Vocab != 3 || f.Path != path {
			t.Errorf("%s: %+v", spec, f)
		}
		if !reflect.DeepEqual(logits, want) {
			t.Errorf("%s: %#x, want %#x", spec, logits, want)
		}
	}

	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	row := make([]topk.BFloat16, 3)
	if err := ReadRows(row, f, 1); err != nil || !reflect.DeepEqual(row, want[3:]) {
		t.Errorf("row 1: %#x, %v", row, err)
	}
	if err := ReadRows(row, f, 2); !errors.Is(err, topk.ErrShape) {
		t.Errorf("row 2 of 2: %v", err)
	}
	if err := ReadRows(row, f, -1); !errors.Is(err, topk.ErrShape) {
		t.Errorf("row -1: %v", err)
	}
	if err := ReadRows(row[:2], f, 0); !errors.Is(err, topk.ErrShape) {
		t.Errorf("two thirds of a row: %v", err)
	}
	if err := ReadRows(row[:0], f, 2); err != nil {
		t.Errorf("no rows: %v", err)
	}
	if err := ReadRows(make([]topk.Float16, 3), f, 0); !errors.Is(err, ErrDType) || !errors.Is(err, topk.ErrDType) {
		t.Errorf("bfloat16 read as float16: %v", err)
	}
	if err := os.Truncate(path, int64(8+len(twoTensors)+20)); err != nil {
		t.Fatal(err)
	}
	if err := ReadRows(row, f, 1); !errors.Is(err, ErrFormat) {
		t.Errorf("file cut after it was opened: %v", err)
	}
}

func TestReadNpy(t *testing.T) {
	const (
		one   = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }          \n"
		shape = ", 'fortran_order': False, 'shape': (2, 2), }\n"
	)
	f, logits := read[float32](t, write(t, "x.npy", npy(1, one, []byte{0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0, 0, 0, 0xC0, 0x7F})))
	if f.Name != "" || f.DType != Float32 || f.Rows != 1 || f.Vocab != 3 {
		t.Errorf("%+v", f)
	}
	if logits[0] != 1 || logits[1] != -2 || logits[2] == logits[2] {
		t.Errorf("%v, want [1 -2 NaN]", logits)
	}

	little := []topk.Float16{0x0100, 0x0302, 0x0504, 0x0706}
	big := []topk.Float16{0x0001, 0x0203, 0x0405, 0x0607}
	for _, c := range []struct {
		version byte
		descr   string
		want    []topk.Float16
	}{{1, "<f2", little}, {2, "<f2", little}, {3, "<f2", little}, {1, ">f2", big}} {
		_, logits := read[topk.Float16](t, write(t, "x", npy(c.version, "{'descr': '"+c.descr+"'"+shape, counting(8))))
		if !reflect.DeepEqual(logits, c.want) {
			t.Errorf("version %d, %s: %#x, want %#x", c.version, c.descr, logits, c.want)
		}
	}
	_, swapped := read[float32](t, write(t, "x", npy(1, "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", []byte{0x3F, 0x80, 0, 0})))
	if swapped[0] != 1 {
		t.Errorf(">f4: %v, want 1", swapped[0])
	}
	for _, descr := range []string{"|V2", "<V2", "bfloat16"} {
		f, logits := read[topk.BFloat16](t, write(t, "x", npy(1, "{\"descr\": \""+descr+"\""+shape, counting(8))))
		if f.DType != BFloat16 || !reflect.DeepEqual(logits, topk.BFloat16s([]uint16{0x0100, 0x0302, 0x0504, 0x0706})) {
			t.Errorf("%s: %v %#x", descr, f.DType, logits)
		}
	}
}

func TestReadNpyColumnMajor(t *testing.T) {
	// Three rows of two: the columns 0 1 2 and 3 4 5 lie one after the other.
	header := "{'descr': '|V2', 'fortran_order': True, 'shape': (3L, 2L)}"
	f, err := Open(write(t, "x.npy", npy(1, header, []byte{0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0})))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for first, want := range [][]topk.BFloat16{{0, 3, 1, 4, 2, 5}, {1, 4, 2, 5}, {2, 5}} {
		got := make([]topk.BFloat16, len(want))
		if err := ReadRows(got, f, first); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("rows from %d on: %v, %v, want %v", first, got, err, want)
		}
	}
	header = "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1, 2)}"
	if _, err := Open(write(t, "x.npy", npy(1, header, counting(8)))); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "3 dimensions") {
		t.Errorf("three dimensions in column-major order: %v", err)
	}
}

func TestLeadingDimensionsAreRows(t *testing.T) {
	for shape, want := range map[string][2]int{"[7]": {1, 7}, "[1,7]": {1, 7}, "[7,1]": {7, 1}, "[7,1,1]": {7, 1}} {
		f, err := Open(write(t, "x", safetensors(`{"x":{"dtype":"F16","shape":`+shape+`,"data_offsets":[0,14]}}`, 14)))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if f.Rows != want[0] || f.Vocab != want[1] {
			t.Errorf("shape %s: rows %d, vocab %d, want %v", shape, f.Rows, f.Vocab, want)
		}
	}
	f, logits := read[float32](t, write(t, "x", safetensors(`{"x":{"dtype":"F32","shape":[0,9],"data_offsets":[0,0]}}`, 0)))
	if f.Rows != 0 || f.Vocab != 9 || len(logits) != 0 {
		t.Errorf("no rows: %+v", f)
	}
}

func TestOnlyTensorIsPicked(t *testing.T) {
	const (
		flat   = `"flat":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}`
		deep   = `"deep":{"dtype":"F16","shape":[1,1,2],"data_offsets":[4,8]}`
		scalar = `"scalar":{"dtype":"F16","shape":[],"data_offsets":[8,10]}`
	)
	for _, c := range []struct{ header, want string }{
		{flat + "," + deep + "," + scalar, "flat"},
		{strings.Replace(flat, "F16", "I16", 1) + "," + deep + "," + scalar, "deep"},
	} {
		f, err := Open(write(t, "x", safetensors("{"+c.header+"}", 10)))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if f.Name != c.want {
			t.Errorf("picked %q, want %q", f.Name, c.want)
		}
	}
}

// Colons may stand in file names and in tensor names.
func TestColons(t *testing.T) {
	t.Chdir(t.TempDir())
	file := safetensors(`{"b:c":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"c":{"dtype":"F16","shape":[2],"data_offsets":[2,6]}}`, 6)
	for _, name := range []string{"a", "a:b"} {
		if err := os.WriteFile(name, file, 0o600); err != nil {
			t.Skipf("this file system has no file named %q: %v", name, err)
		}
	}
	for spec, want := range map[string]string{"a:c": "a c", "a:b:c": "a:b c", "a:b:b:c": "a:b b:c"} {
		f, err := Open(spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		f.Close()
		if got := f.Path + " " + f.Name; got != want {
			t.Errorf("%s opened %s, want %s", spec, got, want)
		}
	}
	if err := os.Remove("a:b"); err != nil {
		t.Fatal(err)
	}
	f, err := Open("a:b:c")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if f.Path != "a" || f.Name != "b:c" {
		t.Errorf("a:b:c opened %s %s", f.Path, f.Name)
	}
	for _, spec := range []string{"missing", "missing:c", ":c", ""} {
		if _, err := Open(spec); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v, want a file that does not exist", spec, err)
		}
	}
}

// lie is a file that must not be read.
type lie struct {
	name    string
	file    []byte
	tensor  string // asked for, unless empty
	is      error
	message string // part of the error
}

func lies() []lie {
	tensor := func(members string) []byte {
		return safetensors(`{"x":{`+members+`}}`, 8)
	}
	length := func(n uint64) []byte {
		return append(binary.LittleEndian.AppendUint64(nil, n), `{"x":{}}`...)
	}
	pair := func(first, second string) []byte {
		return safetensors(`{"x":{"dtype":"U8","shape":[4],"data_offsets":`+first+`},"y":{"dtype":"U8","shape":[4],"data_offsets":`+second+`}}`, 8)
	}
	dict := func(header string) []byte { return npy(1, header, counting(8)) }
	const order = ", 'fortran_order': False"
	return []lie{
		{"empty", nil, "", ErrFormat, "empty file"},
		{"short", []byte("{}"), "", ErrFormat, "neither .npy nor .safetensors: 2 bytes"},
		{"unknown", []byte("GGUF\x03\x00\x00\x00\x00\x00"), "", ErrFormat, "begin with 47 47 55 46"},
		{"archive", []byte("PK\x03\x04 and so on"), "", ErrFormat, "unpack"},

		{"header past the end", length(9), "", ErrFormat, "header of 9 bytes in a file with 8 left"},
		{"header huge", length(1 << 62), "", ErrFormat, "header of 4611686018427387904 bytes"},
		{"header negative", length(1<<64 - 1), "", ErrFormat, "header of 18446744073709551615 bytes"},
		{"header empty", length(0), "", ErrFormat, "does not end within 0 bytes"},
		{"header cut", length(5), "", ErrFormat, "does not end within 5 bytes"},
		{"not UTF-8", safetensors("{\"\xFF\":{}}", 0), "", ErrFormat, "not UTF-8"},
		{"not JSON", safetensors(`{x}`, 0), "", ErrFormat, "invalid character 'x'"},
		{"no names", safetensors(`{1:{}}`, 0), "", ErrFormat, "invalid character '1'"},
		{"more JSON", safetensors(`{}{}`, 0), "", ErrFormat, "more than spaces"},
		{"name twice", safetensors(`{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0078":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), "", ErrFormat, `"x" comes twice`},
		{"shape twice", tensor(`"dtype":"F32","shape":[2],"shape":[1],"data_offsets":[0,8]`), "", ErrFormat, `"shape" comes twice`},
		{"metadata of numbers", safetensors(`{"__metadata__":{"a":1}}`, 0), "", ErrFormat, "cannot unmarshal number"},
		{"tensor no object", safetensors(`{"x":7}`, 0), "", ErrFormat, `tensor "x": want a JSON object`},
		{"no dtype", tensor(`"shape":[2],"data_offsets":[0,8]`), "", ErrFormat, "no dtype"},
		{"dtype null", tensor(`"dtype":null,"shape":[2],"data_offsets":[0,8]`), "", ErrFormat, "no dtype"},
		{"dtype in other letters", tensor(`"DTYPE":"F32","shape":[2],"data_offsets":[0,8]`), "", ErrFormat, "no dtype"},
		{"no shape", tensor(`"dtype":"F32","data_offsets":[0,8]`), "", ErrFormat, "no shape"},
		{"no offsets", tensor(`"dtype":"F32","shape":[2]`), "", ErrFormat, "0 data_offsets, want 2"},
		{"three offsets", tensor(`"dtype":"F32","shape":[2],"data_offsets":[0,8,9]`), "", ErrFormat, "3 data_offsets, want 2"},
		{"null offset", tensor(`"dtype":"F32","shape":[2],"data_offsets":[null,8]`), "", ErrFormat, `"null" is not an integer`},
		{"negative offset", tensor(`"dtype":"F32","shape":[2],"data_offsets":[-8,0]`), "", ErrFormat, `"-8" is not an integer`},
		{"negative dimension", tensor(`"dtype":"F32","shape":[-2],"data_offsets":[0,8]`), "", ErrFormat, `"-2" is not an integer`},
		{"fraction", tensor(`"dtype":"F32","shape":[2.5],"data_offsets":[0,8]`), "", ErrFormat, `"2.5" is not an integer`},
		{"dimension past int64", tensor(`"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]`), "", ErrFormat, `"9223372036854775808" is not an integer`},
		{"shape overflows", tensor(`"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]`), "", ErrFormat, "shape [4294967296 4294967296] overflows"},
		{"shape overflows to 0", tensor(`"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]`), "", ErrFormat, "overflows"},
		{"bytes overflow", tensor(`"dtype":"F32","shape":[2305843009213693954],"data_offsets":[0,8]`), "", ErrFormat, "at 32 bits an element overflows"},
		{"half a byte", tensor(`"dtype":"F4","shape":[15],"data_offsets":[0,8]`), "", ErrFormat, "does not fill whole bytes"},
		{"unknown dtype", tensor(`"dtype":"F33","shape":[2],"data_offsets":[0,8]`), "", ErrDType, `"F33" [2]: unknown dtype`},
		{"too few bytes", tensor(`"dtype":"F32","shape":[3],"data_offsets":[0,8]`), "", ErrFormat, "has 8 bytes (0 to 8), want 12"},
		{"too many bytes", tensor(`"dtype":"BF16","shape":[3],"data_offsets":[0,8]`), "", ErrFormat, "has 8 bytes (0 to 8), want 6"},
		{"begin past end", tensor(`"dtype":"F32","shape":[2],"data_offsets":[8,0]`), "", ErrFormat, "begins at byte 8 and ends at 0"},
		{"end past the file", tensor(`"dtype":"F32","shape":[2],"data_offsets":[8,16]`), "", ErrFormat, "ends at byte 16 of 8"},
		{"truncated", safetensors(`{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 7), "", ErrFormat, "ends at byte 8 of 7"},
		{"bytes left over", safetensors(`{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 9), "", ErrFormat, "end at byte 8 of 9"},
		{"overlap", pair("[0,4]", "[2,6]"), "", ErrFormat, "begins at byte 2, inside the one that ends at 4"},
		{"same place", pair("[4,8]", "[4,8]"), "", ErrFormat, "a hole after 0"},
		{"hole", pair("[4,8]", "[12,16]"), "", ErrFormat, "ends at byte 16 of 8"},
		{"hole inside", safetensors(`{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[6,8]}}`, 8), "", ErrFormat, "begins at byte 6, a hole after 2"},
		{"no tensors", safetensors(`{}`, 0), "", ErrTensor, "the file has none"},
		{"several tensors", safetensors(`{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}`, 4), "", ErrTensor, `2 tensors of rows of floats, name one as FILE:tensor; the file has "a" "F16" [1], "b" "F16" [1]`},
		{"tensor not there", safetensors(twoTensors, 28), "logit", ErrTensor, `tensor "logit" is not there, the file has "next_token" "I64" [2], "logits" "BF16" [2 3]`},
		{"tensor of integers", safetensors(twoTensors, 28), "next_token", ErrDType, `"next_token" "I64" [2], want float32`},
		{"scalar", tensor(`"dtype":"F64","shape":[],"data_offsets":[0,8]`), "", ErrDType, "want float32"},
		{"scalar float", safetensors(`{"x":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}`, 2), "", ErrTensor, "single number"},
		{"empty rows", safetensors(`{"x":{"dtype":"F16","shape":[1152921504606846976,0],"data_offsets":[0,0]}}`, 0), "", ErrTensor, "rows of 0 values"},
		{"vocab past int32", safetensors(`{"x":{"dtype":"F16","shape":[0,2147483648],"data_offsets":[0,0]}}`, 0), "", ErrTensor, "vocab = 2147483648 exceeds 2147483647"},

		{"npy of 8 bytes", []byte(npyMagic + "\x01\x00"), "", ErrFormat, "an .npy file of 8 bytes"},
		{"npy version", npy(4, "{}", counting(8)), "", ErrFormat, "version 4.0"},
		{"npy version 0", npy(0, "{}", counting(8)), "", ErrFormat, "version 0.0"},
		{"npy header past the end", append([]byte(npyMagic+"\x01\x00\xFF\xFF"), "{ }"...), "", ErrFormat, "header of 65535 bytes in a file with 3 left"},
		{"npy header huge", append([]byte(npyMagic+"\x02\x00\xFF\xFF\xFF\xFF"), "{ }"...), "", ErrFormat, "header of 4294967295 bytes in a file with 3 left"},
		{"npy header long", npy(2, strings.Repeat(" ", 1<<16), nil), "", ErrFormat, "header of 65536 bytes, at most 65535"},
		{"npy no dict", dict("[1, 2, 3, 4]"), "", ErrFormat, `want "{", not "[1, 2, 3, 4]"`},
		{"npy no keys", dict("{}      "), "", ErrFormat, "no descr"},
		{"npy no shape", dict("{'descr': '<f4'" + order + "}"), "", ErrFormat, "no shape"},
		{"npy dict without end", dict("{'descr': '<f4'" + order), "", ErrFormat, `want "}"`},
		{"npy string without end", dict("{'descr"), "", ErrFormat, "a string without an end"},
		{"npy shape without end", dict("{'shape': (1"), "", ErrFormat, "a shape without an end"},
		{"npy shape of words", dict("{'shape': (1 2)}"), "", ErrFormat, `want "," or ")"`},
		{"npy more after the dict", dict("{'descr': '<f4'" + order + ", 'shape': (2,)} + 1"), "", ErrFormat, "more than spaces"},
		{"npy key twice", dict("{'descr': '<f4', 'descr': '<f4'" + order + ", 'shape': (2,)}"), "", ErrFormat, `"descr" comes twice`},
		{"npy unknown key", dict("{'descr': '<f4'" + order + ", 'shape': (2,), 'x': 1}"), "", ErrFormat, `unknown key "x"`},
		{"npy order", dict("{'fortran_order': 0}"), "", ErrFormat, "want True or False"},
		{"npy dtype", dict("{'descr': '<f8'" + order + ", 'shape': (1,)}"), "", ErrDType, `descr "<f8", want '<f4'`},
		{"npy void of 4", dict("{'descr': '|V4'" + order + ", 'shape': (2,)}"), "", ErrDType, `descr "|V4"`},
		{"npy records", dict("{'descr': [('a', '<f4')]" + order + ", 'shape': (2,)}"), "", ErrDType, "records of several fields"},
		{"npy fraction", dict("{'descr': '<f4'" + order + ", 'shape': (2.0,)}"), "", ErrFormat, `dimension "2.0"`},
		{"npy dimension past int64", dict("{'descr': '<f4'" + order + ", 'shape': (9223372036854775808,)}"), "", ErrFormat, `dimension "9223372036854775808"`},
		{"npy negative dimension", dict("{'descr': '<f4'" + order + ", 'shape': (-2,)}"), "", ErrFormat, "shape [-2] has a negative dimension"},
		{"npy shape overflows", dict("{'descr': '<f4'" + order + ", 'shape': (4294967296, 4294967296)}"), "", ErrFormat, "overflows"},
		{"npy bytes overflow", dict("{'descr': '<f4'" + order + ", 'shape': (4611686018427387904,)}"), "", ErrFormat, "overflows"},
		{"npy truncated", dict("{'descr': '<f4'" + order + ", 'shape': (3,)}"), "", ErrFormat, "8 bytes follow the header, want 12"},
		{"npy bytes left over", dict("{'descr': '<f4'" + order + ", 'shape': (1,)}"), "", ErrFormat, "8 bytes follow the header, want 4"},
		{"npy scalar", npy(1, "{'descr': '<f4'"+order+", 'shape': ()}", counting(4)), "", ErrTensor, "single number"},
		{"npy with a name", dict("{'descr': '<f4'" + order + ", 'shape': (2,)}"), "x", ErrTensor, `tensor "x" is not there, the file has "<f4" [2]`},
	}
}

func TestLies(t *testing.T) {
	for _, l := range lies() {
		t.Run(l.name, func(t *testing.T) {
			spec := write(t, "x", l.file)
			if l.tensor != "" {
				spec += ":" + l.tensor
			}
			f, err := Open(spec)
			if err == nil {
				f.Close()
				t.Fatalf("opened as %+v", f)
			}
			if !errors.Is(err, l.is) || !strings.Contains(err.Error(), l.message) {
				t.Errorf("error %q, want %q in it, wrapping %q", err, l.message, l.is)
			}
		})
	}
}

func TestNotAFile(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
	if _, err := os.Stat(os.DevNull); err == nil {
		if _, err := Open(os.DevNull); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", os.DevNull, err)
		}
	}
}

// A long name, dtype or shape is not printed in full, nor are a thousand names.
func TestLongWordsAreCut(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	shape := "[" + strings.Repeat("0,", 1000) + "0]"
	var header strings.Builder
	header.WriteString(`{"` + long + `":{"dtype":"I8","shape":` + shape + `,"data_offsets":[0,0]}`)
	for i := range 1000 {
		fmt.Fprintf(&header, `,"%s":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}`, long[:i+1])
	}
	for last, want := range map[string]string{
		"}": "and 985 more",
		`,"y":{"dtype":"` + long + `","shape":` + shape + `,"data_offsets":[0,0]}}`: "unknown dtype",
	} {
		file := safetensors(header.String()+last, 0)
		_, err := parse(bytes.NewReader(file), int64(len(file)), nil)
		if err == nil || len(err.Error()) > 4000 || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want a short one with %q", err, want)
		}
	}
}

// checkParse reads what can be read and asserts that it lies inside the file.
func checkParse(t *testing.T, file []byte) {
	f, err := parse(bytes.NewReader(file), int64(len(file)), nil)
	if err != nil {
		if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrDType) && !errors.Is(err, ErrTensor) {
			t.Fatalf("an error of no kind: %v", err)
		}
		return
	}
	if bytes := int64(f.Rows) * int64(f.Vocab) * int64(f.DType.Bytes()); bytes > int64(len(file)) {
		t.Fatalf("%d rows of %d %s are %d bytes in a file of %d", f.Rows, f.Vocab, f.DType, bytes, len(file))
	}
	switch f.DType {
	case Float32:
		err = ReadRows(make([]float32, f.Rows*f.Vocab), f, 0)
	case Float16:
		err = ReadRows(make([]topk.Float16, f.Rows*f.Vocab), f, 0)
	case BFloat16:
		err = ReadRows(make([]topk.BFloat16, f.Rows*f.Vocab), f, 0)
	default:
		t.Fatalf("dtype %q", f.DType)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// addLies adds the files of the table that are of the format.
func addLies(f *testing.F, isNpy bool) {
	for _, l := range lies() {
		if bytes.HasPrefix(l.file, []byte(npyMagic)) == isNpy {
			f.Add(l.file)
		}
	}
}

func FuzzSafetensors(f *testing.F) {
	addLies(f, false)
	f.Add(safetensors(twoTensors, 28))
	f.Add(safetensors(`{"x":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}`, 8))
	f.Fuzz(checkParse)
}

func FuzzNpy(f *testing.F) {
	addLies(f, true)
	for version := byte(1); version <= 3; version++ {
		f.Add(npy(version, "{'descr': '>f2', 'fortran_order': True, 'shape': (2, 2), }  \n", counting(8)))
	}
	f.Add(npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }  \n", counting(8)))
	f.Fuzz(checkParse)
}
