package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

const (
	torch      = "torch"
	flashInfer = "flashinfer"
)

// What comes before the command of a program that is a peer by itself: one that
// answers the requests of aikf topk --jsonl, which the benchmark times, and one
// that times itself, by the protocol of programs/peers.py.
const (
	execPrefix  = "exec:"
	timedPrefix = "timed:"
)

// PeerNames lists the other software that can be measured. Beside it stand any
// function of (logits, k) on torch tensors, as python:module:function, and any
// program, as exec:command and timed:command.
func PeerNames() []string { return []string{torch, "numpy", "onnxruntime", flashInfer} }

// CheckPeer reports a name that is none of other software.
func CheckPeer(name string) error {
	words := strings.Split(name, ":")
	if kind, command, _ := strings.Cut(name, ":"); (kind+":" == execPrefix || kind+":" == timedPrefix) && len(strings.Fields(command)) > 0 {
		return nil
	}
	if slices.Contains(PeerNames(), name) || len(words) == 3 && words[0] == "python" && words[1] != "" && words[2] != "" {
		return nil
	}
	return fmt.Errorf("%q is not one of %s, python:module:function, exec:command, timed:command", name, strings.Join(PeerNames(), ", "))
}

// ErrNoPeer: none of the Pythons has it.
var ErrNoPeer = errors.New("not found")

//go:embed programs/peers.py
var peerScript []byte

// Peer is other software, running in a Python of its own, or as a program, and
// waiting for requests.
type Peer struct {
	Name, Version string
	Python        string // "" of a program

	lines     bool   // it answers the requests of aikf topk --jsonl
	directory string // for the script and the logits
	command   *exec.Cmd
	requests  io.WriteCloser
	answers   *bufio.Scanner
}

// Pythons lists the python3 of every folder in PATH, and the system's, because
// the first one may lack what another has.
func Pythons() []string {
	var found []string
	for _, folder := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		python, err := exec.LookPath(filepath.Join(folder, "python3"))
		if err == nil && filepath.IsAbs(python) && !slices.Contains(found, python) {
			found = append(found, python)
		}
	}
	return found
}

// StartPeer starts the named software in the first of the Pythons that has it
// on the device, cpu or cuda:N; a program is started as it is, its words apart
// by spaces, one that times itself with the device as its last word. The error
// wraps ErrNoPeer if none has it. Close it.
func StartPeer(ctx context.Context, name, device string, pythons []string) (*Peer, error) {
	directory, err := os.MkdirTemp("", "aikf-bench-")
	if err != nil {
		return nil, err
	}
	if program, ok := strings.CutPrefix(name, timedPrefix); ok {
		return startProgram(ctx, &Peer{Name: name, directory: directory}, append(strings.Fields(program), device))
	}
	if program, ok := strings.CutPrefix(name, execPrefix); ok {
		return startProgram(ctx, &Peer{Name: name, directory: directory, lines: true}, strings.Fields(program))
	}
	script := filepath.Join(directory, "peers.py")
	if err := os.WriteFile(script, peerScript, 0o600); err != nil {
		os.RemoveAll(directory)
		return nil, err
	}
	var reasons []string
	for _, python := range pythons {
		p := &Peer{Name: name, Python: python, directory: directory}
		err := p.start(ctx, []string{python, script, name, device})
		if err == nil {
			return p, nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", python, err))
	}
	os.RemoveAll(directory)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(reasons) == 0 {
		reasons = []string{"there is no python3"}
	}
	return nil, fmt.Errorf("%s %w (%s)", name, ErrNoPeer, strings.Join(reasons, "; "))
}

// startProgram starts a program that is a peer by itself.
func startProgram(ctx context.Context, p *Peer, line []string) (*Peer, error) {
	if err := p.start(ctx, line); err != nil {
		os.RemoveAll(p.directory)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s %w (%w)", p.Name, ErrNoPeer, err)
	}
	return p, nil
}

// longestAnswer bounds a line of a peer, in bytes.
const longestAnswer = 64 << 20

// start runs the command line and reads the first line that it writes.
func (p *Peer) start(ctx context.Context, line []string) (err error) {
	var complaint bytes.Buffer
	p.command = exec.CommandContext(ctx, line[0], line[1:]...)
	p.command.Stderr = &complaint
	if p.requests, err = p.command.StdinPipe(); err != nil {
		return err
	}
	answers, err := p.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.command.Start(); err != nil {
		return err
	}
	p.answers = bufio.NewScanner(answers)
	p.answers.Buffer(nil, longestAnswer)
	if p.lines {
		p.Version = "unknown" // nothing in the protocol says it
		_, err = p.askLine(ctx, emptyLine)
	} else {
		err = p.hello()
	}
	if err != nil {
		p.requests.Close()
		p.command.Wait()
		if lines := strings.Split(strings.TrimSpace(complaint.String()), "\n"); lines[len(lines)-1] != "" {
			return errors.New(lines[len(lines)-1])
		}
		return err
	}
	return nil
}

// hello reads the line that says which version answers.
func (p *Peer) hello() error {
	var hello struct{ Version string }
	text, err := p.readLine()
	if err == nil {
		err = json.Unmarshal(text, &hello)
	}
	if err == nil && hello.Version == "" {
		err = errors.New("its first line has no version")
	}
	p.Version = hello.Version
	return err
}

// Close stops the software and removes its files.
func (p *Peer) Close() error {
	p.requests.Close()
	return errors.Join(p.command.Wait(), os.RemoveAll(p.directory))
}

// readLine returns the next line of the peer, until the one after it is read.
func (p *Peer) readLine() ([]byte, error) {
	if !p.answers.Scan() {
		return nil, errors.Join(p.answers.Err(), io.ErrUnexpectedEOF)
	}
	return p.answers.Bytes(), nil
}

// file returns the path of one of the peer's files.
func (p *Peer) file(name string) string { return filepath.Join(p.directory, name) }

// errPeerFailed: an answer that is an error.
var errPeerFailed = errors.New("it failed")

// writeLogits leaves the batches in the peer's file.
func writeLogits[T topk.Float](p *Peer, c Case, batches [][]T) error {
	var raw []byte
	for _, logits := range batches {
		if c.DType == Float32 {
			raw = appendLittleEndian(raw, bitsOf[uint32](logits))
		} else {
			raw = appendLittleEndian(raw, bitsOf[uint16](logits))
		}
	}
	return os.WriteFile(p.file("logits"), raw, 0o600)
}

// ask writes the batches for the peer, sends the request, to which it adds what
// describes them, and reads the answer.
func ask[T topk.Float](ctx context.Context, p *Peer, c Case, batches [][]T, request map[string]any, answer any) error {
	if err := writeLogits(p, c, batches); err != nil {
		return err
	}
	maps.Copy(request, map[string]any{
		"logits": p.file("logits"), "values": p.file("values"), "indices": p.file("indices"),
		"dtype": c.DType, "inputs": len(batches), "batch": c.Batch, "vocab": c.Vocab, "top_k": c.TopK,
	})
	return p.exchange(ctx, request, answer)
}

// exchange sends a request and reads the answer.
func (p *Peer) exchange(ctx context.Context, request map[string]any, answer any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := p.requests.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	var failure struct{ Error string }
	line, err = p.readLine()
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	if err := errors.Join(json.Unmarshal(line, &failure), json.Unmarshal(line, answer)); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	if failure.Error != "" {
		return fmt.Errorf("%s: %w: %s", p.Name, errPeerFailed, failure.Error)
	}
	return nil
}

// measurePeer times the peer on the case's inputs, compares its answers with the
// gates', and says what speaks against its times. ours takes turns with it; floor is
// the time of reading the rows, in the dtype that is read fastest.
func measurePeer[T topk.Float](ctx context.Context, p *Peer, r *Runner, c Case, batches [][]T, gates []gate[T], ours contestant, floor float64) (PeerResult, error) {
	if p.lines {
		return measureLines(ctx, p, r, c, batches, floor)
	}
	var result PeerResult
	request := map[string]any{"threads": c.Threads, "iters": r.Iters, "budget_s": r.Budget.Seconds()}
	if err := ask(ctx, p, c, batches, request, &result); err != nil {
		return PeerResult{}, err
	}
	if checkDType(result.DType) != nil || !spans(result.USP10, result.US, result.USP90) || result.Samples < 1 {
		return PeerResult{}, fmt.Errorf("%s: dtype = %q, us = %v (p10 %v, p90 %v), samples = %d is no answer: %w",
			p.Name, result.DType, result.US, result.USP10, result.USP90, result.Samples, ErrRecord)
	}
	result.Version = p.Version
	result.US, result.USP10, result.USP90 = significant(result.US), significant(result.USP10), significant(result.USP90)
	compared, err := comparePeer(p.file("values"), p.file("indices"), c, batches, gates)
	if err != nil {
		return PeerResult{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	result.ValuesEqual, result.IndicesEqual = compared.valuesEqual, compared.indicesEqual
	if compared.wrong != "" {
		result.doubt(DoubtAnswer, "%s", compared.wrong)
	}
	result.doubtTime(ownFloorShare*floor, readingTheRows)
	if err := examine(ctx, p, c, batches, &ours, result.US, floor, &result); err != nil {
		return PeerResult{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	return result, nil
}

// peerTimes is a peer's answer on a GPU: a result for each condition, or why it
// has none.
type peerTimes struct {
	Times         map[string]PeerResult
	Failed        map[string]string
	Method, DType string
}

// askDevicePeer times the peer on the inputs of a batch, under the conditions of
// the results.
func askDevicePeer[T topk.Float](ctx context.Context, p *Peer, b *deviceBatch[T], request map[string]any, results []Result) (peerTimes, error) {
	conditions := []Condition{}
	for _, result := range results {
		if result.Cache == Warm || !b.r.warmPeers {
			conditions = append(conditions, Condition{result.Mode, result.Cache})
		}
	}
	maps.Copy(request, map[string]any{
		"iters": b.r.Iters, "budget_s": b.r.Budget.Seconds(), "conditions": conditions, "cold_buffers": b.r.coldBuffers(b.c),
	})
	var answer peerTimes
	err := ask(ctx, p, b.c, b.inputs, request, &answer)
	return answer, err
}

// addTo adds the times of a peer to the results, with what came of its answers and
// the doubts that all conditions share, and notes what could not be measured.
func (t peerTimes) addTo(results []Result, r *DeviceRunner, p *Peer, doubts PeerResult, valuesEqual, indicesEqual, sortEqual bool) {
	for i := range results {
		condition := Condition{results[i].Mode, results[i].Cache}
		peer, ok := t.Times[condition.String()]
		if !ok {
			if reason, asked := t.Failed[condition.String()]; asked {
				r.note(fmt.Sprintf("%s was not measured, %v: %s", p.Name, condition, reason))
			}
			continue
		}
		peer.Version, peer.Method, peer.DType = p.Version, t.Method, DType(t.DType)
		peer.US, peer.USP10, peer.USP90 = significant(peer.US), significant(peer.USP10), significant(peer.USP90)
		peer.ValuesEqual, peer.IndicesEqual, peer.SortEqual = valuesEqual, indicesEqual, sortEqual
		peer.Doubts = slices.Clone(doubts.Doubts)
		if condition.Mode == Eager {
			peer.WallUS = doubts.WallUS
		}
		peer.doubtTime(leastOfLaunch*results[i].EmptyUS, "a kernel that does nothing")
		if results[i].Peers == nil {
			results[i].Peers = map[string]PeerResult{}
		}
		results[i].Peers[p.Name] = peer
	}
}

// measurePeer times the peer and adds to the results what came of it. Torch leaves
// ties open, so that its values are held against ours and the indices of its
// stable sort; a difference wraps ErrWrong.
func (b *deviceBatch[T]) measurePeer(ctx context.Context, p *Peer, results []Result) error {
	if p.Name == flashInfer {
		b.r.note(flashInfer + " was not asked for a top k, only for tokens")
		return nil
	}
	if p.lines {
		b.r.note(p.Name + " was not measured: its times are those of the text of the numbers; see --device cpu")
		return nil
	}
	request := map[string]any{}
	if p.Name == torch {
		request["sort_indices"] = p.file("sort_indices")
	}
	answer, err := askDevicePeer(ctx, p, b, request, results)
	if err != nil {
		return err
	}
	compared, err := comparePeer(p.file("values"), p.file("indices"), b.c, b.inputs, b.gates)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	valuesEqual, indicesEqual := compared.valuesEqual, compared.indicesEqual
	sortEqual := false
	if p.Name == torch {
		sorted, err := comparePeer(p.file("values"), p.file("sort_indices"), b.c, b.inputs, b.gates)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		sortEqual = sorted.indicesEqual
		if !valuesEqual || !sortEqual {
			return fmt.Errorf("%s %s: values of topk equal: %v, indices of a stable sort equal: %v: %w", p.Name, p.Version, valuesEqual, sortEqual, ErrWrong)
		}
	}
	var doubts PeerResult // that all conditions share
	if compared.wrong != "" {
		doubts.doubt(DoubtAnswer, "%s", compared.wrong)
	}
	warm := answer.Times[Condition{Eager, Warm}.String()].US
	if err := examine(ctx, p, b.c, b.inputs, nil, warm, warm, &doubts); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	answer.addTo(results, b.r, p, doubts, valuesEqual, indicesEqual, sortEqual)
	return nil
}

// leastOfLaunch is the share of an empty kernel's time below which no software
// comes on a GPU: others launch with less overhead, but do launch. The floor is
// no bound there: it has one block a row.
const leastOfLaunch = 0.5

// readingTheRows is the read floor in a doubt.
const readingTheRows = "most of reading the rows"

// comparison is how a peer's answers to all inputs compare.
type comparison struct {
	valuesEqual, indicesEqual bool
	wrong                     string // what is not merely another order of equal values
}

// comparePeer reads the peer's answers to all inputs.
func comparePeer[T topk.Float](valuesFile, indicesFile string, c Case, batches [][]T, gates []gate[T]) (comparison, error) {
	n := c.Batch * c.TopK
	values, indices := make([]float32, len(gates)*n), make([]int32, len(gates)*n)
	for file, entries := range map[string]any{valuesFile: values, indicesFile: indices} {
		raw, err := os.ReadFile(file)
		if err != nil {
			return comparison{}, err
		}
		if err := decodeAnswers(raw, entries); err != nil {
			return comparison{}, err
		}
	}
	all := comparison{valuesEqual: true, indicesEqual: true}
	for i, g := range gates {
		all.add(compareAnswer(batches[i], c, g, values[i*n:(i+1)*n], indices[i*n:(i+1)*n]))
	}
	return all, nil
}

// compareAnswer compares the answer to one input.
func compareAnswer[T topk.Float](logits []T, c Case, g gate[T], values []float32, indices []int32) comparison {
	want := widenAll(g.want.Values)
	a := compare(values, want, indices, g.want.Indices, c.TopK)
	return comparison{a.valuesEqual, a.indicesEqual, misplaced(logits, c, want, values, indices)}
}

func (all *comparison) add(one comparison) {
	all.valuesEqual, all.indicesEqual = all.valuesEqual && one.valuesEqual, all.indicesEqual && one.indicesEqual
	all.wrong = cmp.Or(all.wrong, one.wrong)
}

// decodeAnswers fills entries, a slice of numbers, with all of a file.
func decodeAnswers(raw []byte, entries any) error {
	if size := binary.Size(entries); len(raw) != size {
		return fmt.Errorf("%d bytes of answers, want %d", len(raw), size)
	}
	_, err := binary.Decode(raw, binary.LittleEndian, entries)
	return err
}

func appendLittleEndian[E simd.Bits](raw []byte, bits []E) []byte {
	raw, err := binary.Append(raw, binary.LittleEndian, bits)
	if err != nil {
		panic(err) // a slice of integers has a size
	}
	return raw
}
