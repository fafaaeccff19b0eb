package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

const sampleExamples = `  aikf sample logits.safetensors --temperature 0.8 --top-k 50 --seed 1
  aikf sample model.safetensors:logits --preset llama.cpp --min-p 0.05 --rows 0:8
  aikf sample logits.npy --top-p 0.95 --draws 5 --logprobs 3 --format json

FILE is as for "aikf topk". All rows have one seed: row i of the file uses the draws
i*n to i*n+n-1 of it for its n tokens, so that a row's tokens do not depend on --rows,
and equal rows get different ones. --logprobs N shows the logarithm of the
probability of each token and of the N most likely ones, --logprobs 0 of each token.
` + paramsHelp

func runSample(ctx context.Context, args []string, c console) error {
	flags := newFlagsShown("sample", "FILE[:tensor] [flags]", sampleExamples, c, printSamplingFlags)
	rows := flags.String("rows", ":", "rows `A:B`, from A up to but not including B; either may be left out")
	format := flags.String("format", "table", "`table` or json")
	processed := flags.Bool("processed-logprobs", false, "logprobs of the kept tokens, renormalised, instead of those of the raw logits")
	chosen := addSamplingFlags(flags)
	files, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return usageErrorf("sample: %d files, want one; \"aikf sample --help\" shows examples", len(files))
	}
	if err := checkFormat(*format, "table", "json"); err != nil {
		return err
	}
	s, err := sampleFile(ctx, files[0], *rows, chosen, *processed)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(c.out)
	if *format == "json" {
		s.writeJSON(out)
	} else {
		s.writeTable(out)
	}
	return out.Flush()
}

// sampled are the tokens of rows of a file.
type sampled struct {
	file     *tensorfile.File // closed
	firstRow int
	rows     []sampledRow
	logprobs bool
}

// sampledRow is the answer for a row.
type sampledRow struct {
	status sampling.Status
	draws  []sampledToken
}

// sampledToken is a token, with its logprob and those of the likeliest if they
// are wanted.
type sampledToken struct {
	token    sampling.Token
	logprobs []sampling.Logprob
}

// sampleFile samples the rows of the tensor spec.
func sampleFile(ctx context.Context, spec, rows string, chosen *samplingFlags, processed bool) (*sampled, error) {
	f, err := tensorfile.Open(spec)
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	defer f.Close()
	first, end, err := parseRows(rows, f.Rows)
	if err != nil {
		return nil, err
	}
	s := &sampled{file: f, firstRow: first, logprobs: chosen.logprobs || processed}
	switch f.DType {
	case tensorfile.Float16:
		err = sampleRows[topk.Float16](ctx, s, end, chosen, processed)
	case tensorfile.BFloat16:
		err = sampleRows[topk.BFloat16](ctx, s, end, chosen, processed)
	default:
		err = sampleRows[float32](ctx, s, end, chosen, processed)
	}
	return s, err
}

// newSampler returns the sampler of a row of a file.
func newSampler[T topk.Float](chosen *samplingFlags, row int) (*sampling.Sampler[T], error) {
	draws := max(1, chosen.params.Draws)
	if row > math.MaxUint32/draws-1 {
		return nil, usageErrorf("row %d with %d draws is past draw 2^32-1", row, draws)
	}
	options := chosen.options
	options.FirstDraw = uint32(row * draws)
	s, err := sampling.New[T](chosen.params, options)
	return s, usageOf(err)
}

// usageOf makes an error of the parameters or the file one of usage.
func usageOf(err error) error {
	if errors.Is(err, sampling.ErrParams) || errors.Is(err, sampling.ErrShape) || errors.Is(err, tensorfile.ErrFormat) {
		return usageErrorf("%w", err)
	}
	return err
}

// sampleRows samples row after row up to end.
func sampleRows[T topk.Float](ctx context.Context, s *sampled, end int, chosen *samplingFlags, processed bool) error {
	logits := make([]T, s.file.Vocab)
	tokens := make([]sampling.Token, max(1, chosen.params.Draws))
	for i := s.firstRow; i < end; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := tensorfile.ReadRows(logits, s.file, i); err != nil {
			return usageOf(err)
		}
		sampler, err := newSampler[T](chosen, i)
		if err != nil {
			return err
		}
		row := sampledRow{}
		switch err := sampler.Draw(tokens, logits); {
		case errors.Is(err, sampling.ErrNaN):
			row.status = sampling.StatusNaN
		case errors.Is(err, sampling.ErrEmpty):
			row.status = sampling.StatusEmpty
		case errors.Is(err, sampling.ErrExhausted):
			row.status = sampling.StatusExhausted
		case err != nil:
			return usageOf(err)
		}
		for _, token := range tokens {
			draw := sampledToken{token: token}
			if s.logprobs && token != sampling.NoToken {
				n := chosen.params.Logprobs
				if processed {
					draw.logprobs = sampler.AppendProcessedLogprobs(nil, token, n)
				} else if draw.logprobs, err = sampler.AppendLogprobs(nil, logits, token, n); err != nil {
					return usageOf(err)
				}
			}
			row.draws = append(row.draws, draw)
		}
		s.rows = append(s.rows, row)
	}
	return nil
}

// writeTable writes a line for each token. Flush tells whether that went well.
func (s *sampled) writeTable(w *bufio.Writer) {
	const columns = "%*v %*v %*v %-9v"
	row := max(len("row"), len(strconv.Itoa(s.firstRow+len(s.rows))))
	token := max(len("token"), len(strconv.Itoa(s.file.Vocab)))
	writeLine := func(line []byte) { w.Write(append(bytes.TrimRight(line, " "), '\n')) }
	line := fmt.Appendf(nil, columns, row, "row", len("draw"), "draw", token, "token", "status")
	if s.logprobs {
		line = fmt.Appendf(line, " %10s %6s  likeliest", "logprob", "rank")
	}
	writeLine(line)
	for i, r := range s.rows {
		for j, draw := range r.draws {
			status := r.status
			if draw.token != sampling.NoToken {
				status = sampling.StatusOK // exhausted is where the tokens end
			}
			line = fmt.Appendf(line[:0], columns, row, s.firstRow+i, len("draw"), j, token, draw.token, status)
			if len(draw.logprobs) > 0 {
				own := draw.logprobs[0]
				line = fmt.Appendf(line, " %10.6f %6d ", own.Logprob, own.Rank)
				for _, l := range draw.logprobs[1:] {
					line = fmt.Appendf(line, " %d:%.4f", l.Token, l.Logprob)
				}
			}
			writeLine(line)
		}
	}
}

// writeJSON writes one object. Flush tells whether that went well.
func (s *sampled) writeJSON(w *bufio.Writer) {
	type logprob struct {
		Token   sampling.Token  `json:"token"`
		Logprob json.RawMessage `json:"logprob"`
		Rank    int             `json:"rank"`
	}
	object := struct {
		Schema   int                `json:"schema"`
		Tensor   string             `json:"tensor"`
		DType    tensorfile.DType   `json:"dtype"`
		Rows     int                `json:"rows"`
		FirstRow int                `json:"first_row"`
		Vocab    int                `json:"vocab"`
		Status   []string           `json:"status"`
		Tokens   [][]sampling.Token `json:"tokens"`
		Logprobs [][][]logprob      `json:"logprobs,omitempty"` // the token's, then the likeliest
	}{
		Schema: 1, Tensor: s.file.Name, DType: s.file.DType, Rows: len(s.rows), FirstRow: s.firstRow, Vocab: s.file.Vocab,
		Status: []string{}, Tokens: [][]sampling.Token{},
	}
	for _, r := range s.rows {
		tokens := make([]sampling.Token, len(r.draws))
		logprobs := make([][]logprob, len(r.draws))
		for i, draw := range r.draws {
			tokens[i], logprobs[i] = draw.token, []logprob{}
			for _, l := range draw.logprobs {
				logprobs[i] = append(logprobs[i], logprob{l.Token, appendNumber(nil, l.Logprob), l.Rank})
			}
		}
		object.Status = append(object.Status, r.status.String())
		object.Tokens = append(object.Tokens, tokens)
		if s.logprobs {
			object.Logprobs = append(object.Logprobs, slices.Clip(logprobs))
		}
	}
	json.NewEncoder(w).Encode(object)
}
