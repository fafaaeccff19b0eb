package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/ai-kernel-factory/aikf/topk"
)

// emptyLine is a request that asks for next to nothing.
var emptyLine = []byte(`{"id":0,"x":[0],"k":1}` + "\n")

// lineAnswer is an answer of a program that speaks as aikf topk --jsonl does.
type lineAnswer struct {
	Values  []json.RawMessage
	Indices []json.RawMessage
	Error   string
}

// askLine sends a line and reads the answer.
func (p *Peer) askLine(ctx context.Context, line []byte) (answer []byte, err error) {
	if _, err := p.requests.Write(line); err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	answer, err = p.readLine()
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return answer, err
}

// timeLine is askLine with the time of the exchange, in microseconds.
func (p *Peer) timeLine(ctx context.Context, line []byte) (us float64, answer []byte, err error) {
	start := time.Now()
	answer, err = p.askLine(ctx, line)
	return microseconds(time.Since(start)), answer, err
}

// measureLines times requests to a program, from the first byte written to the
// last one read. Every timed request has logits that the program has not seen,
// and every answer is checked. After it comes the same request again: what is
// much faster then answers from memory.
func measureLines[T topk.Float](ctx context.Context, p *Peer, r *Runner, c Case, batches [][]T, floor float64) (PeerResult, error) {
	fail := func(err error) (PeerResult, error) { return PeerResult{}, fmt.Errorf("%s: %w", p.Name, err) }
	all := comparison{valuesEqual: true, indicesEqual: true}
	var empty, fresh, again []float64
	wrong := 0
	start := time.Now()
	for round := 0; round < 11 && round < r.Iters || round < r.Iters && time.Since(start) < r.Budget; round++ {
		logits := altered(c, batches[round%len(batches):][:1], round)[0]
		us, _, err := p.timeLine(ctx, emptyLine)
		if err != nil {
			return fail(err)
		}
		empty = append(empty, us)
		line := appendLine(nil, round, logits, c)
		us, text, err := p.timeLine(ctx, line)
		if err != nil {
			return fail(err)
		}
		fresh = append(fresh, us)
		values, indices, err := decodeLine(text, c)
		if err != nil {
			return fail(err)
		}
		one := compareAnswer(logits, c, newGate(logits, c.Batch, c.TopK), values, indices)
		if one.wrong != "" {
			wrong++
		}
		all.add(one)
		if us, _, err = p.timeLine(ctx, line); err != nil {
			return fail(err)
		}
		again = append(again, us)
	}
	times := timesOf(fresh, 1).rounded()
	result := PeerResult{
		Version: p.Version, Method: "a line of JSON, and its answer, read and written by the program", DType: c.DType,
		US: times.Median, USP10: times.P10, USP90: times.P90, Samples: times.Samples,
		ValuesEqual: all.valuesEqual, IndicesEqual: all.indicesEqual, ProtocolUS: timesOf(empty, 1).rounded().Median,
	}
	if all.wrong != "" {
		result.doubt(DoubtAnswer, "%d of %d: %s", wrong, len(fresh), all.wrong)
	}
	result.doubtTime(ownFloorShare*floor, readingTheRows)
	least := slices.Min(empty)
	first, second := slices.Min(fresh)-least, max(slices.Min(again)-least, 0)
	if first > memoryFactor*second+memorySlackUS {
		result.doubt(DoubtMemory, "%v us for logits that it has not seen, then %v us for the same, beyond %v us of each for the exchange",
			significant(first), significant(second), significant(least))
	}
	return result, nil
}

// appendLine appends a request for the top k of a batch; a batch of one is one row.
func appendLine[T topk.Float](dst []byte, id int, logits []T, c Case) []byte {
	dst = fmt.Appendf(dst, `{"id":%d,"k":%d,"dtype":%q,"x":`, id, c.TopK, string(c.DType))
	if c.Batch > 1 {
		dst = append(dst, '[')
	}
	for row := range c.Batch {
		if row > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '[')
		for i, x := range logits[row*c.Vocab : (row+1)*c.Vocab] {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSONNumber(dst, widen(x))
		}
		dst = append(dst, ']')
	}
	if c.Batch > 1 {
		dst = append(dst, ']')
	}
	return append(dst, "}\n"...)
}

func appendJSONNumber(dst []byte, v float32) []byte {
	switch {
	case v != v:
		return append(dst, `"NaN"`...)
	case v > math.MaxFloat32:
		return append(dst, `"Infinity"`...)
	case v < -math.MaxFloat32:
		return append(dst, `"-Infinity"`...)
	}
	return strconv.AppendFloat(dst, float64(v), 'g', -1, 32)
}

// decodeLine reads the answer to a batch.
func decodeLine(text []byte, c Case) (values []float32, indices []int32, err error) {
	var answer lineAnswer
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, nil, err
	}
	if answer.Error != "" {
		return nil, nil, fmt.Errorf("%w: %s", errPeerFailed, answer.Error)
	}
	for _, part := range []struct {
		name string
		list []json.RawMessage
		add  func(text []byte) error
	}{
		{"values", answer.Values, func(text []byte) error {
			v, err := strconv.ParseFloat(unquoted(text), 32)
			values = append(values, float32(v))
			return err
		}},
		{"indices", answer.Indices, func(text []byte) error {
			i, err := strconv.ParseInt(string(text), 10, 32)
			indices = append(indices, int32(i))
			return err
		}},
	} {
		rows := [][]json.RawMessage{part.list}
		if c.Batch > 1 {
			rows = make([][]json.RawMessage, len(part.list))
			for i, row := range part.list {
				if err := json.Unmarshal(row, &rows[i]); err != nil {
					return nil, nil, fmt.Errorf("%s[%d]: %w", part.name, i, err)
				}
			}
		}
		if len(rows) != c.Batch || slices.ContainsFunc(rows, func(row []json.RawMessage) bool { return len(row) != c.TopK }) {
			return nil, nil, fmt.Errorf("%s are not %d rows of %d", part.name, c.Batch, c.TopK)
		}
		for _, row := range rows {
			for _, entry := range row {
				if err := part.add(entry); err != nil {
					return nil, nil, fmt.Errorf("%s: %w", part.name, err)
				}
			}
		}
	}
	return values, indices, nil
}

// unquoted returns what a number that is not finite is written as, or the number.
func unquoted(text []byte) string {
	if len(text) > 1 && text[0] == '"' {
		text = text[1 : len(text)-1]
	}
	return string(text)
}
