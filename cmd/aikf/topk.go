package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

const topkExamples = `  aikf topk logits.safetensors --top-k 5
  aikf topk model.safetensors:logits --top-k 50 --rows 0:8 --format json
  echo '{"id":1,"x":[0.5,2,-1,2],"k":2}' | aikf topk --jsonl

FILE is .safetensors or .npy with float32, float16 or bfloat16 rows: the last
dimension is the vocab, the others are rows. :tensor may be left out if only one
tensor fits. Equal values keep the smaller index first; NaN is the largest.

With --jsonl each line of standard input is a request and each line of standard
output its answer, written at once:
  {"id":ANY,"x":[[...],...],"k":5,"largest":true,"dtype":"float32"}
  {"id":ANY,"values":[[...],...],"indices":[[...],...]}
id, largest and dtype may be left out; x may be one row [...], which is answered
as one row. Numbers that are not finite are "NaN", "Infinity" and "-Infinity".
With dtype float16 or bfloat16 numbers are rounded to the nearest, ties to even;
one that would become infinite is an error. A bad line is answered by
{"id":ANY,"error":"..."}; the exit code is then 2 at the end.
`

func runTopK(ctx context.Context, args []string, c console) error {
	flags := newFlags("topk", "FILE[:tensor] --top-k K [flags] | --jsonl [flags]", topkExamples, c)
	k := flags.Int("top-k", 0, "how many `values` of each row")
	smallest := flags.Bool("smallest", false, "the smallest values, smallest first, instead of the largest")
	rows := flags.String("rows", ":", "rows `A:B`, from A up to but not including B; either may be left out")
	format := flags.String("format", "table", "`table` or json")
	jsonl := flags.Bool("jsonl", false, "answer requests from standard input")
	tier := flags.String("tier", "", "instruction set `name`, see \"aikf info\" (default: the best)")
	threads := flags.Int("threads", 0, "at most so many threads (default: the launch plan decides)")
	deviceName := flags.String("device", "cpu", deviceUsage)
	planFile := flags.String("plan-file", "", planFileUsage)
	files, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	target, err := targetCandidates()
	if err != nil {
		return err
	}
	options := topk.Options{Tier: *tier, Threads: *threads, TargetCandidates: target}
	if err := checkOptions(options); err != nil {
		return usageErrorf("%w", err)
	}
	choice, err := parseDevice(*deviceName)
	if err != nil {
		return err
	}
	if choice.cuda && !choice.auto {
		for _, name := range []string{"tier", "threads"} {
			if given[name] {
				return usageErrorf("topk: --%s is for the CPU", name)
			}
		}
	}
	if *jsonl {
		for _, name := range []string{"top-k", "smallest", "rows", "format"} {
			if given[name] {
				return usageErrorf("topk: --%s has no meaning with --jsonl, each request says it", name)
			}
		}
		if len(files) > 0 {
			return usageErrorf("topk: --jsonl reads standard input, not %s", quote(files[0]))
		}
	}
	switch {
	case *jsonl:
	case len(files) != 1:
		return usageErrorf("topk: %d files, want one; \"aikf topk --help\" shows examples", len(files))
	case !given["top-k"]:
		return usageErrorf("topk: --top-k is missing")
	}
	if err := checkFormat(*format, "table", "json"); err != nil {
		return err
	}
	on, onDevice, err := openDevice(choice, "topk", c, func(ordinal int) (*gpu, error) { return openGPU(ordinal, target, *planFile) })
	if err != nil {
		return err
	}
	defer on.close()
	if !onDevice {
		if options.Plans, err = loadPlans(*planFile, topk.LoadPlans); err != nil {
			return err
		}
		if err := checkOptions(options); err != nil {
			return planFileError(*planFile, err)
		}
	}
	if *jsonl {
		return serveRequests(ctx, c, "topk", newRequestServer(options, on))
	}
	options.Smallest = *smallest
	selected, err := selectFile(ctx, files[0], *rows, *k, options, on)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(c.out)
	if *format == "json" {
		selected.writeJSON(out)
	} else {
		selected.writeTable(out)
	}
	return out.Flush()
}

// checkOptions has an empty batch check the options.
func checkOptions(options topk.Options) error {
	return (&topk.Selector[float32]{Options: options}).Select(topk.Result[float32]{}, nil, topk.Shape{})
}

// selection is the top k of rows of a file.
type selection struct {
	file     *tensorfile.File // closed
	rows     int
	firstRow int
	k        int
	smallest bool
	values   []float32 // of the file's dtype; row i begins at i*k
	indices  []int32
}

// selectFile selects the top k of the rows of the tensor spec.
func selectFile(ctx context.Context, spec, rows string, k int, options topk.Options, on *gpu) (*selection, error) {
	f, err := tensorfile.Open(spec)
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	defer f.Close()
	first, end, err := parseRows(rows, f.Rows)
	if err != nil {
		return nil, err
	}
	s := &selection{file: f, rows: end - first, firstRow: first, k: k, smallest: options.Smallest}
	if err := s.shape(s.rows).Validate(); err != nil {
		return nil, usageErrorf("%s: %w", f.Path, err)
	}
	switch f.DType {
	case tensorfile.Float16:
		err = selectRows[topk.Float16](ctx, s, options, on)
	case tensorfile.BFloat16:
		err = selectRows[topk.BFloat16](ctx, s, options, on)
	default:
		err = selectRows[float32](ctx, s, options, on)
	}
	if errors.Is(err, tensorfile.ErrFormat) {
		return nil, usageErrorf("%w", err)
	}
	return s, err
}

// shape describes some rows of the selection.
func (s *selection) shape(rows int) topk.Shape {
	return topk.Shape{Rows: rows, Vocab: s.file.Vocab, K: s.k}
}

// readBytes is how much of a file is read at a time, at least a row.
var readBytes = 64 << 20

// selectRows fills the selection, reading a bounded number of rows at a time.
func selectRows[T topk.Float](ctx context.Context, s *selection, options topk.Options, on *gpu) error {
	vocab := s.file.Vocab
	batch := min(s.rows, max(1, readBytes/(vocab*s.file.DType.Bytes())))
	logits := make([]T, batch*vocab)
	top := topk.NewResult[T](s.rows, s.k)
	selector := topk.Selector[T]{Options: options}
	for i := 0; i < s.rows; i += batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows := min(batch, s.rows-i)
		if err := tensorfile.ReadRows(logits[:rows*vocab], s.file, s.firstRow+i); err != nil {
			return err
		}
		part := topk.Result[T]{Values: top.Values[i*s.k:], Indices: top.Indices[i*s.k:]}
		if err := selectOn(on, &selector, part, logits, s.shape(rows)); err != nil {
			return err
		}
	}
	s.values, s.indices = widen(nil, top.Values), top.Indices
	return nil
}

// parseRows resolves the rows A:B of so many.
func parseRows(spec string, rows int) (first, end int, err error) {
	from, to, found := strings.Cut(spec, ":")
	if !found {
		return 0, 0, usageErrorf("--rows %s, want A:B", quote(spec))
	}
	bound := func(word string, missing int) int {
		n, wrong := strconv.Atoi(word)
		if word == "" {
			return missing
		}
		if wrong != nil && err == nil {
			err = usageErrorf("--rows %s: %s is not an integer", quote(spec), quote(word))
		}
		return n
	}
	first, end = bound(from, 0), bound(to, rows)
	if err == nil && (first < 0 || first > end || end > rows) {
		err = usageErrorf("--rows %d:%d of a tensor with rows 0:%d", first, end, rows)
	}
	return first, end, err
}

// writeJSON writes one object. Flush tells whether that went well.
func (s *selection) writeJSON(w *bufio.Writer) {
	object := struct {
		Schema   int              `json:"schema"`
		Tensor   string           `json:"tensor"`
		DType    tensorfile.DType `json:"dtype"`
		Rows     int              `json:"rows"`
		FirstRow int              `json:"first_row"`
		Vocab    int              `json:"vocab"`
		TopK     int              `json:"top_k"`
		Largest  bool             `json:"largest"`
		Values   json.RawMessage  `json:"values"`
		Indices  json.RawMessage  `json:"indices"`
	}{
		1, s.file.Name, s.file.DType, s.rows, s.firstRow, s.file.Vocab, s.k, !s.smallest,
		appendRows(nil, s.values, s.rows, s.k, appendNumber),
		appendRows(nil, s.indices, s.rows, s.k, appendIndex),
	}
	json.NewEncoder(w).Encode(object)
}

// writeTable writes a line for each value. Flush tells whether that went well.
func (s *selection) writeTable(w *bufio.Writer) {
	const columns = "%*v %*v %*v %*s\n"
	row := max(len("row"), len(strconv.Itoa(s.firstRow+s.rows)))
	rank := max(len("rank"), len(strconv.Itoa(s.k)))
	index := max(len("index"), len(strconv.Itoa(s.file.Vocab)))
	const value = len("-1.1754944e-38")
	fmt.Fprintf(w, columns, row, "row", rank, "rank", index, "index", value, "value")
	for i, v := range s.values {
		fmt.Fprintf(w, columns, row, s.firstRow+i/s.k, rank, i%s.k+1, index, s.indices[i], value, appendFloat(nil, v))
	}
}

// widen appends the values to dst as float32s, which is exact.
func widen[T topk.Float](dst []float32, values []T) []float32 {
	dst = slices.Grow(dst, len(values))
	switch values := any(values).(type) {
	case []float32:
		dst = append(dst, values...)
	case []topk.Float16:
		for _, v := range values {
			dst = append(dst, v.Float32())
		}
	case []topk.BFloat16:
		for _, v := range values {
			dst = append(dst, v.Float32())
		}
	}
	return dst
}

// appendRows appends rows of k entries as a JSON array of arrays.
func appendRows[E any](dst []byte, entries []E, rows, k int, appendEntry func([]byte, E) []byte) []byte {
	dst = append(dst, '[')
	for i := range rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendRow(dst, entries[i*k:(i+1)*k], appendEntry)
	}
	return append(dst, ']')
}

// appendRow appends entries as a JSON array.
func appendRow[E any](dst []byte, entries []E, appendEntry func([]byte, E) []byte) []byte {
	dst = append(dst, '[')
	for i, entry := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendEntry(dst, entry)
	}
	return append(dst, ']')
}

func appendIndex(dst []byte, index int32) []byte {
	return strconv.AppendInt(dst, int64(index), 10)
}

// appendNumber appends v in JSON: a string if v is not finite.
func appendNumber(dst []byte, v float32) []byte {
	if v-v == 0 {
		return appendFloat(dst, v)
	}
	return append(appendFloat(append(dst, '"'), v), '"')
}

// appendFloat appends the shortest decimal that is v when read as a float32.
func appendFloat(dst []byte, v float32) []byte {
	magnitude := math.Abs(float64(v))
	switch {
	case v != v:
		return append(dst, "NaN"...)
	case v > math.MaxFloat32:
		return append(dst, "Infinity"...)
	case v < -math.MaxFloat32:
		return append(dst, "-Infinity"...)
	case magnitude != 0 && (magnitude < 1e-6 || magnitude >= 1e21):
		return strconv.AppendFloat(dst, float64(v), 'e', -1, 32)
	}
	return strconv.AppendFloat(dst, float64(v), 'f', -1, 32)
}
