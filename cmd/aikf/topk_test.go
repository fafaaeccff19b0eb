package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

// runLine runs a command line with that standard input.
func runLine(t *testing.T, in io.Reader, args ...string) (out, errs string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, console{in: in, out: &stdout, err: &stderr})
	return stdout.String(), stderr.String(), code
}

// wantRefused runs a command line that must exit with code 2, print nothing on
// standard output, and message on standard error.
func wantRefused(t *testing.T, message string, args ...string) {
	t.Helper()
	out, errs, code := runLine(t, strings.NewReader(""), args...)
	if code != exitUsage || out != "" || !strings.Contains(errs, message) || strings.Count(errs, "\n") != 1 {
		t.Errorf("aikf %q: exit %d, output %q, errors %q; want exit 2 and a line with %q", args, code, out, errs, message)
	}
}

// writeNpy writes rows of float32, float16 or bfloat16 bits.
func writeNpy(t *testing.T, shape string, logits any) string {
	t.Helper()
	descr := map[reflect.Type]string{
		reflect.TypeFor[[]float32]():       "<f4",
		reflect.TypeFor[[]topk.Float16]():  "<f2",
		reflect.TypeFor[[]topk.BFloat16](): "|V2",
	}[reflect.TypeOf(logits)]
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n", descr, shape)
	var file bytes.Buffer
	file.WriteString("\x93NUMPY\x01\x00")
	for _, part := range []any{uint16(len(header)), []byte(header), logits} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "x.npy")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	nan      = float32(math.NaN())
	infinity = float32(math.Inf(1))
	minus0   = float32(math.Copysign(0, -1))
)

func TestTopKTable(t *testing.T) {
	file := writeNpy(t, "(2, 5)", []float32{0.1, 2, -1, 2, 1e-45, -infinity, infinity, nan, minus0, 3e38})
	out, errs, code := runLine(t, nil, "topk", file, "--top-k", "3")
	want := `row rank index          value
  0    1     1              2
  0    2     3              2
  0    3     0            0.1
  1    1     2            NaN
  1    2     1       Infinity
  1    3     4          3e+38
`
	if out != want || errs != "" || code != exitDone {
		t.Errorf("exit %d, errors %q, output\n%s\nwant\n%s", code, errs, out, want)
	}
}

func TestTopKJSON(t *testing.T) {
	file := writeNpy(t, "(2, 5)", []float32{0.1, 2, -1, 2, 1e-45, -infinity, infinity, nan, minus0, 3e38})
	out, errs, code := runLine(t, nil, "topk", "--format", "json", "--smallest", file, "--top-k=5")
	want := `{"schema":1,"tensor":"","dtype":"float32","rows":2,"first_row":0,"vocab":5,"top_k":5,"largest":false,` +
		`"values":[[-1,1e-45,0.1,2,2],["-Infinity",-0,3e+38,"Infinity","NaN"]],"indices":[[2,4,0,1,3],[0,3,4,1,2]]}` + "\n"
	if out != want || errs != "" || code != exitDone {
		t.Errorf("exit %d, errors %q, output\n%s\nwant\n%s", code, errs, out, want)
	}
}

// answerJSON is what --format json and a line of --jsonl have in common.
type answerJSON struct {
	DType    string
	Rows     int
	FirstRow int `json:"first_row"`
	Values   [][]any
	Indices  [][]int32
}

func TestTopKReadsEachDType(t *testing.T) {
	for dtype, logits := range map[string]any{
		"float32":  []float32{1, 3, 2, 6, 5, 4, 7, 7, 7},
		"float16":  topk.Float16s([]uint16{0x3C00, 0x4200, 0x4000, 0x4600, 0x4500, 0x4400, 0x4700, 0x4700, 0x4700}),
		"bfloat16": topk.BFloat16s([]uint16{0x3F80, 0x4040, 0x4000, 0x40C0, 0x40A0, 0x4080, 0x40E0, 0x40E0, 0x40E0}),
	} {
		file := writeNpy(t, "(3, 3)", logits)
		for rows, want := range map[string]answerJSON{
			":":   {dtype, 3, 0, [][]any{{3., 2.}, {6., 5.}, {7., 7.}}, [][]int32{{1, 2}, {0, 1}, {0, 1}}},
			"1:":  {dtype, 2, 1, [][]any{{6., 5.}, {7., 7.}}, [][]int32{{0, 1}, {0, 1}}},
			":1":  {dtype, 1, 0, [][]any{{3., 2.}}, [][]int32{{1, 2}}},
			"1:2": {dtype, 1, 1, [][]any{{6., 5.}}, [][]int32{{0, 1}}},
			"3:3": {dtype, 0, 3, [][]any{}, [][]int32{}},
		} {
			out, errs, code := runLine(t, nil, "topk", file, "--top-k", "2", "--rows", rows, "--format", "json")
			var got answerJSON
			if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, rows %s: exit %d, errors %q, %+v, want %+v", dtype, rows, code, errs, got, want)
			}
		}
	}
}

// A file that is read in several parts gives what it gives in one.
func TestTopKReadsInParts(t *testing.T) {
	logits := make([]float32, 7*11)
	for i := range logits {
		logits[i] = float32(i * 37 % 101)
	}
	args := []string{"topk", writeNpy(t, "(7, 11)", logits), "--top-k", "4", "--rows", "1:", "--format", "json"}
	whole, _, code := runLine(t, nil, args...)
	if code != exitDone {
		t.Fatalf("exit %d", code)
	}
	defer func(bytes int) { readBytes = bytes }(readBytes)
	for _, readBytes = range []int{1, 2 * 11 * 4, 5 * 11 * 4} {
		if parts, errs, _ := runLine(t, nil, args...); parts != whole {
			t.Errorf("%d bytes at a time: %s %s, want %s", readBytes, parts, errs, whole)
		}
	}
}

func TestTopKOfNothing(t *testing.T) {
	file := writeNpy(t, "(2, 3)", []float32{1, 2, 3, 4, 5, 6})
	out, _, code := runLine(t, nil, "topk", file, "--top-k", "0", "--format", "json")
	if code != exitDone || !strings.Contains(out, `"values":[[],[]],"indices":[[],[]]`) {
		t.Errorf("k = 0: exit %d, %s", code, out)
	}
	file = writeNpy(t, "(0, 3)", []float32{})
	out, _, code = runLine(t, nil, "topk", file, "--top-k", "2")
	if code != exitDone || out != "row rank index          value\n" {
		t.Errorf("no rows: exit %d, %s", code, out)
	}
}

func TestTopKRefuses(t *testing.T) {
	file := writeNpy(t, "(2, 3)", []float32{1, 2, 3, 4, 5, 6})
	broken := filepath.Join(t.TempDir(), "broken.npy")
	if err := os.WriteFile(broken, []byte("\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		message string
		args    []string
	}{
		{"0 files, want one", []string{"--top-k", "1"}},
		{"2 files, want one", []string{file, file, "--top-k", "1"}},
		{"--top-k is missing", []string{file}},
		{"k = 4 exceeds vocab = 3", []string{file, "--top-k", "4"}},
		{"k = -1 is negative (vocab = 3)", []string{file, "--top-k", "-1"}},
		{`invalid value "many"`, []string{file, "--top-k", "many"}},
		{"not defined: --top_k", []string{file, "--top_k", "1"}},
		{`--format "xml", want table or json`, []string{file, "--top-k", "1", "--format", "xml"}},
		{"--rows 1:3 of a tensor with rows 0:2", []string{file, "--top-k", "1", "--rows", "1:3"}},
		{"--rows 2:1 of a tensor with rows 0:2", []string{file, "--top-k", "1", "--rows", "2:1"}},
		{"--rows -1:2 of", []string{file, "--top-k", "1", "--rows", "-1:2"}},
		{`--rows "1", want A:B`, []string{file, "--top-k", "1", "--rows", "1"}},
		{`"b" is not an integer`, []string{file, "--top-k", "1", "--rows", "0:b"}},
		{`tier "avx1024", this machine has`, []string{file, "--top-k", "1", "--tier", "avx1024"}},
		{"threads = -1 is negative", []string{file, "--top-k", "1", "--threads", "-1"}},
		{"x.npy.missing", []string{file + ".missing", "--top-k", "1"}},
		{`tensor "logits" is not there, the file has "<f4" [2 3]`, []string{file + ":logits", "--top-k", "1"}},
		{"no fortran_order", []string{broken, "--top-k", "1"}},
		{"is a directory", []string{t.TempDir(), "--top-k", "1"}},
		{"--top-k has no meaning with --jsonl", []string{"--jsonl", "--top-k", "1"}},
		{"--rows has no meaning with --jsonl", []string{"--jsonl", "--rows", ":"}},
		{"--jsonl reads standard input, not", []string{"--jsonl", file}},
	} {
		wantRefused(t, c.message, append([]string{"topk"}, c.args...)...)
	}
}

func TestTopKInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	args := []string{"topk", writeNpy(t, "(2,)", []float32{1, 2}), "--top-k", "1"}
	if code := run(ctx, args, console{out: &out, err: &errs}); code != exitInterrupted || out.Len() > 0 {
		t.Errorf("exit %d, output %q, errors %q", code, &out, &errs)
	}
}

// full is a device without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestTopKCannotWrite(t *testing.T) {
	file := writeNpy(t, "(2,)", []float32{1, 2})
	for _, args := range [][]string{
		{"topk", file, "--top-k", "1"},
		{"topk", file, "--top-k", "1", "--format", "json"},
		{"topk", "--jsonl"},
		{"plan"},
		{"info"},
	} {
		var errs bytes.Buffer
		in := strings.NewReader(`{"x":[1],"k":1}`)
		if code := run(t.Context(), args, console{in: in, out: full{}, err: &errs}); code != exitInternal {
			t.Errorf("aikf %q: exit %d, errors %q", args, code, &errs)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, command := range []string{"topk", "plan", "info"} {
		out, errs, code := runLine(t, nil, command, "--help")
		if code != exitDone || errs != "" || !strings.Contains(out, "Examples:\n  aikf "+command) || !strings.Contains(out, "-format") {
			t.Errorf("%s --help: exit %d, errors %q, output %s", command, code, errs, out)
		}
	}
}

func TestNumbersRoundTrip(t *testing.T) {
	for bits := uint64(0); bits <= math.MaxUint32; bits += 65_521 {
		v := math.Float32frombits(uint32(bits))
		text := appendNumber(nil, v)
		if !json.Valid(text) {
			t.Fatalf("%x prints as %s", bits, text)
		}
		got, length, err := parseNumber(text, "float32")
		if err != nil || length != len(text) || math.Float32bits(got) != math.Float32bits(v) && v == v || (got != got) != (v != v) {
			t.Fatalf("%x prints as %s, which reads as %v, %v", bits, text, got, err)
		}
	}
}
