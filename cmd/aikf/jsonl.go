package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// maxLine is the longest line that is read, in bytes: over a million numbers
// with all their digits.
const maxLine = 64 << 20

// lineServer answers requests one after the other. What it returns is valid
// until the next call.
type lineServer interface {
	answer(line inputLine) ([]byte, error)
	// refuse answers the request that had the error.
	refuse(err error) []byte
}

// serveRequests answers each line of c.in by a line of c.out, for a command. It
// returns when the input ends or the context is cancelled.
func serveRequests(ctx context.Context, c console, command string, server lineServer) error {
	// A read cannot be cancelled, so it has a goroutine of its own; one that
	// waits for input when the context is cancelled ends with the process.
	stopped := make(chan struct{})
	defer close(stopped)
	lines := make(chan inputLine)
	go func() {
		reader := bufio.NewReaderSize(c.in, 64<<10)
		for {
			line := readLine(reader, maxLine)
			select {
			case lines <- line:
			case <-stopped:
				return
			}
			if line.err != nil {
				return
			}
		}
	}()
	for number, answered, bad := 1, 0, 0; ; number++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var line inputLine
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line = <-lines:
		}
		if len(bytes.TrimSpace(line.text)) > 0 {
			answer, err := server.answer(line)
			answered++
			if err != nil {
				bad++
				answer = server.refuse(fmt.Errorf("line %d: %w", number, err))
			}
			if _, err := c.out.Write(answer); err != nil {
				return err
			}
		}
		switch {
		case line.err == io.EOF && bad > 0:
			return usageErrorf("%s: %d of %d requests were bad", command, bad, answered)
		case line.err == io.EOF:
			return nil
		case line.err != nil:
			return line.err
		}
	}
}

// inputLine is a line without its end, or its beginning if it was too long. An
// err comes with what was read before it.
type inputLine struct {
	text []byte
	cut  bool
	err  error
}

// readLine reads a line and keeps at most limit bytes of it.
func readLine(reader *bufio.Reader, limit int) inputLine {
	var line inputLine
	for {
		part, err := reader.ReadSlice('\n')
		if err == nil {
			part = part[:len(part)-1]
		}
		if room := limit - len(line.text); len(part) > room {
			part, line.cut = part[:room], true
		}
		line.text = append(line.text, part...)
		if err == bufio.ErrBufferFull {
			continue
		}
		line.err = err
		return line
	}
}

// requestServer answers requests one after the other and reuses their room.
type requestServer struct {
	on       *gpu // nil: the CPU
	request  request
	text     []byte // of the answer
	values   []float32
	float32s engine[float32]
	float16s engine[topk.Float16]
	bfloat16 engine[topk.BFloat16]
}

// engine selects logits of one type.
type engine[T topk.Float] struct {
	selector topk.Selector[T]
	logits   []T
	top      topk.Result[T]
}

func newRequestServer(options topk.Options, on *gpu) *requestServer {
	s := &requestServer{on: on}
	s.float32s.selector.Options = options
	s.float16s.selector.Options = options
	s.bfloat16.selector.Options = options
	return s
}

// answer returns the line that answers a request, valid until the next call.
func (s *requestServer) answer(line inputLine) ([]byte, error) {
	r := &s.request
	err := r.parse(line.text)
	if line.cut {
		return nil, fmt.Errorf("longer than %d bytes", len(line.text))
	}
	if err != nil {
		return nil, err
	}
	var indices []int32
	switch r.dtype {
	case tensorfile.Float16:
		indices, err = selectRequest(s, &s.float16s, topk.Float16FromFloat32)
	case tensorfile.BFloat16:
		indices, err = selectRequest(s, &s.bfloat16, topk.BFloat16FromFloat32)
	default:
		indices, err = selectRequest(s, &s.float32s, func(v float32) float32 { return v })
	}
	if err != nil {
		return nil, err
	}
	s.text = append(append(append(s.text[:0], `{"id":`...), r.id...), `,"values":`...)
	if r.single {
		s.text = appendRow(s.text, s.values, appendNumber)
		s.text = appendRow(append(s.text, `,"indices":`...), indices, appendIndex)
	} else {
		s.text = appendRows(s.text, s.values, r.rows, r.k, appendNumber)
		s.text = appendRows(append(s.text, `,"indices":`...), indices, r.rows, r.k, appendIndex)
	}
	s.text = append(s.text, '}', '\n')
	return s.text, nil
}

// refuse returns the line that answers the request with an error, valid until
// the next call.
func (s *requestServer) refuse(err error) []byte {
	s.text = appendRefusal(s.text[:0], s.request.id, err)
	return s.text
}

// appendRefusal appends the line that answers a request with an error.
func appendRefusal(dst, id []byte, err error) []byte {
	message, _ := json.Marshal(err.Error()) // a string always has a JSON form
	dst = append(append(append(dst, `{"id":`...), id...), `,"error":`...)
	return append(append(dst, message...), '}', '\n')
}

// selectRequest selects the top k of s.request, whose numbers narrow turns into
// T without loss, leaves the values in s.values and returns the indices.
func selectRequest[T topk.Float](s *requestServer, e *engine[T], narrow func(float32) T) ([]int32, error) {
	r := &s.request
	shape := topk.Shape{Rows: r.rows, Vocab: r.vocab, K: r.k}
	if err := shape.Validate(); err != nil {
		return nil, err
	}
	e.logits = e.logits[:0]
	for _, v := range r.x {
		e.logits = append(e.logits, narrow(v))
	}
	if need := r.rows * r.k; need > cap(e.top.Values) {
		e.top = topk.NewResult[T](r.rows, r.k)
	}
	e.selector.Options.Smallest = !r.largest
	if err := selectOn(s.on, &e.selector, e.top, e.logits, shape); err != nil {
		return nil, err
	}
	s.values = widen(s.values[:0], e.top.Values[:r.rows*r.k])
	return e.top.Indices[:r.rows*r.k], nil
}
