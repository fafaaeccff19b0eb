package bench

import (
	"errors"
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	_ "github.com/ai-kernel-factory/aikf/cuda/kernels/phases" // for profiles
	"github.com/ai-kernel-factory/aikf/sampling"
)

// cudaDevice is a GPU of package cuda, with a stream and two events.
type cudaDevice struct {
	*cuda.Device
	stream     *cuda.Stream
	start, end *cuda.Event
}

// openCUDA opens the device with that ordinal.
func openCUDA(ordinal int) (device, error) {
	opened, err := cuda.Open(ordinal)
	if err != nil {
		return nil, err
	}
	d := &cudaDevice{Device: opened}
	if d.stream, err = opened.NewStream(); err == nil {
		if d.start, err = opened.NewEvent(); err == nil {
			d.end, err = opened.NewEvent()
		}
	}
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return d, nil
}

func (d *cudaDevice) properties() cuda.Properties     { return d.Properties() }
func (d *cudaDevice) architecture() cuda.Architecture { return d.Architecture() }
func (d *cudaDevice) emptyKernel() error              { return d.EmptyKernel(d.stream) }
func (d *cudaDevice) synchronize() error              { return d.stream.Synchronize() }

// close closes what the device made, too.
func (d *cudaDevice) close() error { return d.Close() }

func (d *cudaDevice) readFloor(logits cuda.Logits, shape cuda.Shape, maxima cuda.Pointer) error {
	return d.ReadFloor(d.stream, logits, shape, maxima)
}

func (d *cudaDevice) allocate(bytes int) (deviceMemory, error) {
	buffer, err := d.Allocate(bytes)
	if err != nil {
		return nil, err
	}
	return cudaMemory{buffer, d.stream}, nil
}

func (d *cudaDevice) selector(options cuda.Options) (deviceSelector, error) {
	selector, err := d.NewSelector(options)
	if err != nil {
		return nil, err
	}
	return cudaSelector{selector, d.stream}, nil
}

func (d *cudaDevice) sampler(params sampling.Params, options cuda.SamplerOptions) (tokenSampler, error) {
	sampler, err := d.NewSampler(params, options)
	if err != nil {
		return nil, err
	}
	return cudaSampler{sampler, d.stream}, nil
}

func (d *cudaDevice) capture(calls func() error) (deviceGraph, error) {
	graph, err := d.stream.Capture(calls)
	if err != nil {
		return nil, err
	}
	return cudaGraph{graph, d.stream}, nil
}

func (d *cudaDevice) replay(graph deviceGraph) (time.Duration, error) {
	for _, step := range []func() error{
		graph.launch,
		func() error { return d.stream.Record(d.start) },
		graph.launch,
		func() error { return d.stream.Record(d.end) },
	} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	return cuda.Elapsed(d.start, d.end)
}

type cudaMemory struct {
	buffer *cuda.Buffer
	stream *cuda.Stream
}

func (m cudaMemory) pointer() cuda.Pointer { return m.buffer.Pointer() }
func (m cudaMemory) close() error          { return m.buffer.Close() }

func (m cudaMemory) upload(offset int, from []byte) error {
	return cuda.CopyToDevice(m.stream, m.buffer, offset, from)
}

func (m cudaMemory) download(to []byte, offset int) error {
	return cuda.CopyToHost(m.stream, to, m.buffer, offset)
}

type cudaSelector struct {
	*cuda.Selector
	stream *cuda.Stream
}

func (s cudaSelector) plan(shape cuda.Shape, dtype cuda.DType) (cuda.Plan, error) {
	return s.Plan(shape, dtype)
}

func (s cudaSelector) selectDevice(logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error {
	return s.SelectDevice(s.stream, logits, shape, result, workspace)
}

func (s cudaSelector) selectStage(stage int, logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error {
	return s.SelectStage(s.stream, stage, logits, shape, result, workspace)
}

func (s cudaSelector) selectRepeatedly(times int, logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error {
	for range times {
		if err := s.SelectDevice(s.stream, logits, shape, result, workspace); err != nil {
			return err
		}
	}
	return nil
}

func (s cudaSelector) rawLaunch(logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) (cuda.RawLaunch, error) {
	return s.RawLaunch(s.stream, logits, shape, result, workspace)
}

func (s cudaSelector) selectPhases(logits cuda.Logits, shape cuda.Shape, result cuda.Result, stamps cuda.Pointer) error {
	return s.SelectPhases(s.stream, logits, shape, result, stamps)
}

func (s cudaSelector) close() error { return s.Close() }

type cudaSampler struct {
	*cuda.Sampler
	stream *cuda.Stream
}

func (s cudaSampler) mostKept(dtype cuda.DType, vocab int) int { return s.MostKept(dtype, vocab) }
func (s cudaSampler) close() error                             { return s.Close() }

func (s cudaSampler) sample(logits cuda.Logits, shape cuda.Shape, rows cuda.RowParams, edits *cuda.Edits, tokens cuda.Tokens) error {
	if edits != nil {
		return s.SampleEdited(s.stream, logits, shape, rows, *edits, tokens)
	}
	return s.SampleDevice(s.stream, logits, shape, rows, tokens)
}

func (s cudaSampler) samplePhases(logits cuda.Logits, shape cuda.Shape, rows cuda.RowParams, tokens cuda.Tokens, stamps cuda.Pointer) ([]string, int, error) {
	return s.SamplePhases(s.stream, logits, shape, rows, tokens, stamps)
}

type cudaGraph struct {
	graph  *cuda.Graph
	stream *cuda.Stream
}

func (g cudaGraph) launch() error { return g.graph.Launch(g.stream) }
func (g cudaGraph) close() error  { return g.graph.Close() }
