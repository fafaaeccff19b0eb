package differential

import (
	"errors"

	"github.com/ai-kernel-factory/aikf/cuda"
)

// cudaEngine answers on a GPU, on a stream of its own.
type cudaEngine struct {
	device *cuda.Device
	stream *cuda.Stream
	// Memory on the device, which grows with the batches.
	logits, values, indices, rowK, rowLengths, workspace *cuda.Buffer
}

// CUDA returns engines on the device, for [Config].
func CUDA(device *cuda.Device) func() (Engine, error) {
	return func() (Engine, error) {
		stream, err := device.NewStream()
		if err != nil {
			return nil, err
		}
		return &cudaEngine{device: device, stream: stream}, nil
	}
}

// Close frees the memory and the stream.
func (e *cudaEngine) Close() error {
	var problems []error
	for _, buffer := range []*cuda.Buffer{e.logits, e.values, e.indices, e.rowK, e.rowLengths, e.workspace} {
		if buffer != nil {
			problems = append(problems, buffer.Close())
		}
	}
	return errors.Join(append(problems, e.stream.Close())...)
}

// reserve makes the buffer hold so many bytes.
func (e *cudaEngine) reserve(buffer **cuda.Buffer, bytes int) (err error) {
	if *buffer != nil {
		if (*buffer).Bytes() >= bytes {
			return nil
		}
		if err := (*buffer).Close(); err != nil {
			return err
		}
	}
	*buffer, err = e.device.Allocate(bytes + bytes/4 + 256)
	return err
}

// Select implements [Engine].
func (e *cudaEngine) Select(b *Batch) error {
	options := cuda.Options{Smallest: b.Smallest}
	if b.Plan != "" {
		options.Plan = &cuda.Plan{Name: b.Plan}
	}
	selector, err := e.device.NewSelector(options)
	if err != nil {
		return err
	}
	defer selector.Close()
	shape := cuda.Shape{Rows: b.Shape.Rows, Vocab: b.Shape.Vocab, K: b.Shape.K, Stride: b.Shape.Stride, Expand: b.Shape.Expand}
	workspaceBytes, err := selector.WorkspaceBytes(shape, b.DType)
	if err != nil {
		return err
	}
	for _, need := range []struct {
		buffer **cuda.Buffer
		bytes  int
	}{
		{&e.logits, len(b.Logits)}, {&e.values, len(b.Values)}, {&e.indices, len(b.Indices)},
		{&e.rowK, 4 * len(b.Shape.RowK)}, {&e.rowLengths, 4 * len(b.Shape.RowLengths)}, {&e.workspace, workspaceBytes},
	} {
		if err := e.reserve(need.buffer, need.bytes); err != nil {
			return err
		}
	}
	if err := cuda.CopyToDevice(e.stream, e.logits, 0, b.Logits); err != nil {
		return err
	}
	if b.Shape.RowK != nil {
		if err := cuda.CopyToDevice(e.stream, e.rowK, 0, b.Shape.RowK); err != nil {
			return err
		}
		shape.RowK = e.rowK.Pointer()
	}
	if b.Shape.RowLengths != nil {
		if err := cuda.CopyToDevice(e.stream, e.rowLengths, 0, b.Shape.RowLengths); err != nil {
			return err
		}
		shape.RowLengths = e.rowLengths.Pointer()
	}
	for _, buffer := range []*cuda.Buffer{e.values, e.indices} {
		if err := cuda.Fill(e.stream, buffer, Poison); err != nil {
			return err
		}
	}
	logits := cuda.Logits{Pointer: e.logits.Pointer() + cuda.Pointer(b.Offset*b.DType.Bytes()), DType: b.DType}
	result := cuda.Result{Values: e.values.Pointer(), Indices: e.indices.Pointer(), Index64: b.Index64}
	workspace := cuda.Workspace{Pointer: e.workspace.Pointer(), Bytes: workspaceBytes}
	if err := selector.SelectDevice(e.stream, logits, shape, result, workspace); err != nil {
		return err
	}
	if err := cuda.CopyToHost(e.stream, b.Values, e.values, 0); err != nil {
		return err
	}
	return cuda.CopyToHost(e.stream, b.Indices, e.indices, 0)
}
