package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// manner is how a contestant of the self-test behaves.
type manner struct {
	name   string
	does   string // for people
	lines  bool   // answers the requests of aikf topk --jsonl; otherwise it times itself
	doubts []string
}

// manners are the contestants of the self-test: other software, each in a process
// of its own, as the benchmark meets it. Doubts are the kinds that it has to have,
// none if it is honest; it may have others beside them.
var manners = []manner{
	{"honest", "selects by a heap and times itself", false, nil},
	{"wrong", "looks at the first half of each row only", false, []string{DoubtAnswer}},
	{"timer", "claims a twentieth of its time", false, []string{DoubtClock}},
	{"instant", "claims a nanosecond", false, []string{DoubtTime, DoubtClock}},
	{"place", "remembers its answer by where the logits lie", false, []string{DoubtMemory}},
	{"logits", "remembers its answer by the logits, all of which it compares", false, []string{DoubtMemory}},
	{"honest lines", "answers requests by a heap", true, nil},
	{"wrong lines", "answers requests, from the first half of each row", true, []string{DoubtAnswer}},
	{"lines", "remembers its answer by the request", true, []string{DoubtMemory}},
}

// SelfTestWord is the word that, with the name of a manner behind it, makes a
// program a contestant: its main function passes both to Contest.
const SelfTestWord = "self-test-contestant"

// Caught is what became of a contestant of the self-test.
type Caught struct {
	Name, Does string
	Wanted     []string // kinds of doubts; none: it is honest
	Doubts     []string // that it was given
	Good       bool     // as it should be
}

// SelfTest has the benchmark measure contestants of which most are not honest:
// program with [SelfTestWord] and a name. An error is one of the test itself.
func SelfTest(ctx context.Context, program string, progress func(done, total int, name string)) (all []Caught, err error) {
	if err := SelfCheck(); err != nil {
		return nil, err
	}
	c := Case{Work: TopK, Source: Random, Batch: 1, Vocab: vocab, TopK: sampleK, DType: Float32}
	for i, m := range manners {
		progress(i, len(manners), m.name)
		doubts, err := m.contest(ctx, program, c)
		if err != nil {
			return all, fmt.Errorf("%s: %w", m.name, err)
		}
		caught := Caught{m.name, m.does, m.doubts, doubts, len(m.doubts) > 0 || len(doubts) == 0}
		for _, kind := range m.doubts {
			caught.Good = caught.Good && (PeerResult{Doubts: doubts}).Doubted(kind)
		}
		all = append(all, caught)
	}
	return all, nil
}

// contest measures one contestant, and returns the doubts that it is given.
func (m manner) contest(ctx context.Context, program string, c Case) ([]string, error) {
	directory, err := os.MkdirTemp("", "aikf-bench-")
	if err != nil {
		return nil, err
	}
	peer, err := startProgram(ctx, &Peer{Name: m.name, directory: directory, lines: m.lines}, []string{program, SelfTestWord, m.name})
	if err != nil {
		return nil, err
	}
	r := &Runner{Iters: 11, Budget: time.Second, Seed: 1, Peers: []*Peer{peer}}
	result, err := r.Measure(ctx, c)
	if err := errors.Join(err, peer.Close()); err != nil {
		return nil, err
	}
	return result.Peers[m.name].Doubts, nil
}

// Contest is a contestant of the self-test: it answers requests until there are
// none.
func Contest(name string, in io.Reader, out io.Writer) error {
	i := slices.IndexFunc(manners, func(m manner) bool { return m.name == name })
	if i < 0 {
		return fmt.Errorf("bench: no contestant is named %q", name)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, longestAnswer)
	c := contestantProgram{manner: manners[i], recalled: map[any]memorized{}}
	answer := c.answerTimed
	if c.lines {
		answer = c.answerLine
	} else if _, err := io.WriteString(out, `{"version": "self-test"}`+"\n"); err != nil {
		return err
	}
	for lines.Scan() {
		reply, err := answer(lines.Bytes())
		if err == nil {
			err = json.NewEncoder(out).Encode(reply)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

// memorized is an answer with the logits that it is of.
type memorized struct {
	logits  []float32
	values  []float32
	indices []int32
}

// contestantProgram selects rows of float32 logits, in its manner.
type contestantProgram struct {
	manner
	heap     typedHeap
	recalled map[any]memorized // by what the manner goes by

	request timedRequest
	inputs  [][]float32
}

// selected returns the top k of a row. The result is valid until the next call.
func (c *contestantProgram) selected(row []float32, k int) memorized {
	answer := memorized{values: make([]float32, k), indices: make([]int32, k)}
	switch c.name {
	case "place":
		if known, ok := c.recalled[&row[0]]; ok {
			return known
		}
		defer func() { c.recalled[&row[0]] = answer }()
	case "logits":
		for _, known := range c.recalled {
			if bytes.Equal(bytesOf(known.logits), bytesOf(row)) {
				return known
			}
		}
		defer func() {
			answer.logits = slices.Clone(row)
			c.recalled[len(c.recalled)] = answer
		}()
		time.Sleep(10 * time.Millisecond) // a slow one, for which a memory pays even where comparing is slow
	case "wrong", "wrong lines":
		row = row[:max(k, len(row)/2)]
	}
	selectRow(&c.heap, answer.values, answer.indices, row)
	return answer
}

// timedRequest is what the protocol of programs/peers.py asks.
type timedRequest struct {
	Logits          string
	Values, Indices string
	Inputs, Vocab   int
	TopK            int `json:"top_k"`
	Iters           int
	Calls           *int
	Refresh         string
	Answers         bool
}

// answerTimed answers a request of the protocol of programs/peers.py.
func (c *contestantProgram) answerTimed(text []byte) (any, error) {
	var r timedRequest
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	switch {
	case r.Calls != nil:
		c.rotate(*r.Calls)
		return map[string]int{"calls": *r.Calls}, nil
	case r.Refresh != "":
		return map[string]bool{"refreshed": true}, c.read(r.Refresh)
	case r.Answers:
		return struct{}{}, c.write(r)
	}
	c.request, c.inputs = r, make([][]float32, r.Inputs)
	for i := range c.inputs {
		c.inputs[i] = make([]float32, r.Vocab)
	}
	if err := c.read(r.Logits); err != nil {
		return nil, err
	}
	c.rotate(1)
	times := 1
	for c.rotate(times) < sampleTime && times < 1<<20 {
		times *= 2
	}
	var samples []float64
	for range r.Iters {
		samples = append(samples, microseconds(c.rotate(times))/float64(times*r.Inputs))
	}
	t := timesOf(samples, times)
	switch c.name {
	case "timer":
		t.Median, t.P10, t.P90 = t.Median/20, t.P10/20, t.P90/20
	case "instant":
		t.Median, t.P10, t.P90 = 0.001, 0.001, 0.001
	}
	return map[string]any{
		"us": t.Median, "us_p10": t.P10, "us_p90": t.P90, "samples": t.Samples, "method": c.does, "dtype": Float32,
	}, c.write(r)
}

// rotate calls so many times on each input.
func (c *contestantProgram) rotate(times int) time.Duration {
	start := time.Now()
	for range times {
		for _, row := range c.inputs {
			c.selected(row, c.request.TopK)
		}
	}
	return time.Since(start)
}

// read fills the inputs from a file.
func (c *contestantProgram) read(name string) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for _, row := range c.inputs {
		n, err := binary.Decode(raw, binary.LittleEndian, row)
		if err != nil {
			return err
		}
		raw = raw[n:]
	}
	return nil
}

// write answers every input, into the files of the request.
func (c *contestantProgram) write(r timedRequest) error {
	var values, indices []uint32
	for _, row := range c.inputs {
		answer := c.selected(row, c.request.TopK)
		values = append(values, bitsOf[uint32](answer.values)...)
		for _, index := range answer.indices {
			indices = append(indices, uint32(index))
		}
	}
	return errors.Join(os.WriteFile(r.Values, appendLittleEndian(nil, values), 0o600), os.WriteFile(r.Indices, appendLittleEndian(nil, indices), 0o600))
}

// answerLine answers a request of aikf topk --jsonl.
func (c *contestantProgram) answerLine(text []byte) (any, error) {
	type answer struct {
		Values  []float32 `json:"values"`
		Indices []int32   `json:"indices"`
	}
	if known, ok := c.recalled[string(text)]; ok {
		return answer{known.values, known.indices}, nil
	}
	var r struct {
		X []float32
		K int
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	selected := c.selected(r.X, r.K)
	if c.name == "lines" {
		c.recalled[string(text)] = selected
	}
	return answer{selected.values, selected.indices}, nil
}
