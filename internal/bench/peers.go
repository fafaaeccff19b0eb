package bench

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

// PeerNames lists the other software that can be measured.
func PeerNames() []string { return []string{"torch", "numpy"} }

// ErrNoPeer: none of the Pythons has it.
var ErrNoPeer = errors.New("not found")

//go:embed peers.py
var peerScript []byte

// Peer is other software, running in a Python of its own and waiting for
// requests.
type Peer struct {
	Name, Version, Python string

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

// StartPeer starts the named software in the first of the Pythons that has it.
// The error wraps ErrNoPeer if none has. Close it.
func StartPeer(ctx context.Context, name string, pythons []string) (*Peer, error) {
	directory, err := os.MkdirTemp("", "aikf-bench-")
	if err != nil {
		return nil, err
	}
	script := filepath.Join(directory, "peers.py")
	if err := os.WriteFile(script, peerScript, 0o600); err != nil {
		os.RemoveAll(directory)
		return nil, err
	}
	var reasons []string
	for _, python := range pythons {
		p := &Peer{Name: name, Python: python, directory: directory}
		err := p.start(ctx, script)
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

func (p *Peer) start(ctx context.Context, script string) (err error) {
	var complaint bytes.Buffer
	p.command = exec.CommandContext(ctx, p.Python, script, p.Name)
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
	var hello struct{ Version string }
	if err := p.read(&hello); err != nil {
		p.requests.Close()
		p.command.Wait()
		if lines := strings.Split(strings.TrimSpace(complaint.String()), "\n"); lines[len(lines)-1] != "" {
			return errors.New(lines[len(lines)-1])
		}
		return err
	}
	p.Version = hello.Version
	return nil
}

// Close stops the software and removes its files.
func (p *Peer) Close() error {
	p.requests.Close()
	return errors.Join(p.command.Wait(), os.RemoveAll(p.directory))
}

func (p *Peer) read(answer any) error {
	if !p.answers.Scan() {
		return errors.Join(p.answers.Err(), io.ErrUnexpectedEOF)
	}
	return json.Unmarshal(p.answers.Bytes(), answer)
}

// measurePeer times the peer on the case's inputs and compares its answers with
// the gates'.
func measurePeer[T topk.Float](ctx context.Context, p *Peer, r *Runner, c Case, batches [][]T, gates []gate[T]) (PeerResult, error) {
	file := func(name string) string { return filepath.Join(p.directory, name) }
	var raw []byte
	for _, logits := range batches {
		if c.DType == Float32 {
			raw = appendLittleEndian(raw, bitsOf[uint32](logits))
		} else {
			raw = appendLittleEndian(raw, bitsOf[uint16](logits))
		}
	}
	if err := os.WriteFile(file("logits"), raw, 0o600); err != nil {
		return PeerResult{}, err
	}
	request, err := json.Marshal(map[string]any{
		"logits": file("logits"), "values": file("values"), "indices": file("indices"),
		"dtype": c.DType, "inputs": len(batches), "batch": c.Batch, "vocab": c.Vocab, "top_k": c.TopK,
		"threads": c.Threads, "iters": r.Iters, "budget_s": r.Budget.Seconds(),
	})
	if err != nil {
		return PeerResult{}, err
	}
	if _, err := p.requests.Write(append(request, '\n')); err != nil {
		return PeerResult{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	var answer struct {
		PeerResult
		Error string
	}
	if err := p.read(&answer); err != nil {
		if ctx.Err() != nil {
			return PeerResult{}, ctx.Err()
		}
		return PeerResult{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	if answer.Error != "" {
		return PeerResult{}, fmt.Errorf("%s: %s", p.Name, answer.Error)
	}
	result := answer.PeerResult
	result.Version = p.Version
	result.US, result.USP10, result.USP90 = significant(result.US), significant(result.USP10), significant(result.USP90)
	result.ValuesEqual, result.IndicesEqual, err = comparePeer(file("values"), file("indices"), c, gates)
	if err != nil {
		return PeerResult{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	return result, nil
}

// comparePeer reads the peer's answers to all inputs.
func comparePeer[T topk.Float](valuesFile, indicesFile string, c Case, gates []gate[T]) (valuesEqual, indicesEqual bool, err error) {
	n := c.Batch * c.TopK
	values, indices := make([]float32, len(gates)*n), make([]int32, len(gates)*n)
	for file, entries := range map[string]any{valuesFile: values, indicesFile: indices} {
		raw, err := os.ReadFile(file)
		if err != nil {
			return false, false, err
		}
		if len(raw) != 4*len(values) {
			return false, false, fmt.Errorf("%d bytes of answers, want %d", len(raw), 4*len(values))
		}
		if _, err := binary.Decode(raw, binary.LittleEndian, entries); err != nil {
			return false, false, err
		}
	}
	valuesEqual, indicesEqual = true, true
	for i, g := range gates {
		a := compare(values[i*n:(i+1)*n], widenAll(g.want.Values), indices[i*n:(i+1)*n], g.want.Indices, c.TopK)
		valuesEqual, indicesEqual = valuesEqual && a.valuesEqual, indicesEqual && a.indicesEqual
	}
	return valuesEqual, indicesEqual, nil
}

func appendLittleEndian[E simd.Bits](raw []byte, bits []E) []byte {
	raw, err := binary.Append(raw, binary.LittleEndian, bits)
	if err != nil {
		panic(err) // a slice of integers has a size
	}
	return raw
}
