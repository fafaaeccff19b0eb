package cuda

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// selecting is a way to ask package cuda, of one dtype.
type selecting[T topk.Float] func(s *Selector, dst topk.Result[T], logits []T, shape topk.Shape) error

// suiteSelector is package cuda as the conformance suite wants it. A shape that
// a forced plan does not fit is left to the chosen one.
type suiteSelector[T topk.Float] struct {
	ask            selecting[T]
	forced, chosen *Selector
	others         *atomic.Int64 // calls by the chosen plan
	err            error
}

func (s *suiteSelector[T]) Select(dst topk.Result[T], logits []T, shape topk.Shape) error {
	if s.err != nil {
		return s.err
	}
	err := s.ask(s.forced, dst, logits, shape)
	if errors.Is(err, ErrUnsupported) && s.forced.options.Plan != nil {
		s.others.Add(1)
		return s.ask(s.chosen, dst, logits, shape)
	}
	return err
}

// engine is package cuda for one dtype, with the options of the suite beside
// those of the test.
func engine[T topk.Float](t testing.TB, d *Device, base Options, slow bool, others *atomic.Int64, ask selecting[T]) topktest.Engine[T] {
	return topktest.Engine[T]{
		Slow: slow,
		NewSelector: func(options topk.Options) topktest.Selector[T] {
			o := base
			o.Smallest, o.TargetCandidates = options.Smallest, options.TargetCandidates
			s := &suiteSelector[T]{ask: ask, others: others}
			if s.forced, s.err = d.NewSelector(o); s.err == nil {
				o.Plan = nil
				s.chosen, s.err = d.NewSelector(o)
			}
			return s // closed with the device
		},
	}
}

// hostBackend asks Select.
func hostBackend(t testing.TB, d *Device, base Options, slow bool) topktest.Backend {
	others := countOthers(t)
	return topktest.Backend{
		Name:     "cuda",
		Float32:  engine(t, d, base, slow, others, Select[float32]),
		Float16:  engine(t, d, base, slow, others, Select[topk.Float16]),
		BFloat16: engine(t, d, base, slow, others, Select[topk.BFloat16]),
	}
}

// deviceBackend asks SelectDevice.
func deviceBackend(t testing.TB, d *Device, base Options, slow bool) topktest.Backend {
	others := countOthers(t)
	memories := &sync.Pool{New: func() any { return &memory{device: d, buffers: map[string]*Buffer{}} }}
	return topktest.Backend{
		Name:     "cuda",
		Float32:  engine(t, d, base, slow, others, onDevice[float32](memories)),
		Float16:  engine(t, d, base, slow, others, onDevice[topk.Float16](memories)),
		BFloat16: engine(t, d, base, slow, others, onDevice[topk.BFloat16](memories)),
	}
}

func countOthers(t testing.TB) *atomic.Int64 {
	others := new(atomic.Int64)
	t.Cleanup(func() { t.Logf("%d calls by the chosen plan, since the forced one did not fit", others.Load()) })
	return others
}

// memory is device memory by name, which grows, and a stream. The first error
// stays; nothing more is done after it.
type memory struct {
	device  *Device
	stream  *Stream
	buffers map[string]*Buffer
	calls   int
	err     error
}

// buffer returns at least that many bytes.
func (m *memory) buffer(name string, bytes int) *Buffer {
	if m.stream == nil && m.err == nil {
		m.stream, m.err = m.device.NewStream()
	}
	b := m.buffers[name]
	if m.err != nil || b != nil && b.Bytes() >= bytes {
		return b
	}
	if b != nil {
		m.err = b.Close()
	}
	if m.err == nil {
		b, m.err = m.device.Allocate(bytes + bytes/2 + 64)
	}
	m.buffers[name] = b
	return b
}

// upload copies to the buffer with that name, offset bytes from its start.
func upload[T any](m *memory, name string, offset int, from []T) Pointer {
	b := m.buffer(name, offset+len(from)*int(unsafe.Sizeof(*new(T))))
	if m.err != nil {
		return 0
	}
	m.err = CopyToDevice(m.stream, b, offset, from)
	return b.Pointer() + Pointer(offset)
}

// download copies n elements from the start of the buffer with that name.
func download[T any](m *memory, name string, n int) []T {
	to := make([]T, n)
	if m.err == nil {
		m.err = CopyToHost(m.stream, to, m.buffers[name], 0)
	}
	return to
}

// extra is how much further apart rows of results are than k, in every other
// call.
const extra = 5

// onDevice asks SelectDevice with logits that are aligned as the host's are, in
// turns with 32-bit indices and with 64-bit ones in rows that are apart. What
// lies past a row's results is compared, too.
func onDevice[T topk.Float](memories *sync.Pool) selecting[T] {
	return func(s *Selector, dst topk.Result[T], logits []T, shape topk.Shape) error {
		if _, err := checkHost(dst, logits, shape); err != nil {
			return err
		}
		m := memories.Get().(*memory)
		defer memories.Put(m)
		m.calls++
		index64 := m.calls%2 == 0
		stride := shape.K
		if index64 {
			stride += extra
		}
		values, indices := spread(dst.Values, shape, stride), spread(dst.Indices, shape, stride)
		skew := int(uintptr(unsafe.Pointer(unsafe.SliceData(logits))) % 256)
		on := Shape{Rows: shape.Rows, Vocab: shape.Vocab, K: shape.K, Stride: shape.Stride, Expand: shape.Expand}
		from := Logits{upload(m, "logits", skew, logits), dtypeOf[T]()}
		to := Result{Values: upload(m, "values", 0, values), Index64: index64, Stride: stride}
		if index64 {
			to.Indices = upload(m, "indices", 0, widen(indices))
		} else {
			to.Indices = upload(m, "indices", 0, indices)
		}
		if shape.RowK != nil {
			on.RowK = upload(m, "row k", 0, shape.RowK)
		}
		if shape.RowLengths != nil {
			on.RowLengths = upload(m, "row lengths", 0, shape.RowLengths)
		}
		bytes, err := s.WorkspaceBytes(on, from.DType)
		if err != nil {
			return err
		}
		workspace := m.buffer("workspace", bytes)
		if m.err != nil {
			return m.err
		}
		if err := Fill(m.stream, workspace, byte(m.calls)); err != nil {
			return err
		}
		if err := s.SelectDevice(m.stream, from, on, to, Workspace{workspace.Pointer(), bytes}); err != nil {
			return err
		}
		if err := m.stream.Synchronize(); err != nil {
			return err
		}
		values = download[T](m, "values", len(values))
		if index64 {
			wide := download[int64](m, "indices", len(indices))
			indices = indices[:0]
			for i, index := range wide {
				if int64(int32(index)) != index {
					return fmt.Errorf("entry %d: index %#x", i, index)
				}
				indices = append(indices, int32(index))
			}
		} else {
			indices = download[int32](m, "indices", len(indices))
		}
		if m.err != nil {
			return m.err
		}
		for i := range shape.Rows {
			copy(dst.Values[i*shape.K:(i+1)*shape.K], values[i*stride:])
			copy(dst.Indices[i*shape.K:(i+1)*shape.K], indices[i*stride:])
			for j := shape.K; j < stride; j++ {
				if at := i*stride + j; values[at] != *new(T) || indices[at] != 0 {
					return fmt.Errorf("row %d, past its %d results: value %v, index %d", i, shape.K, values[at], indices[at])
				}
			}
		}
		return nil
	}
}

// spread places rows of k entries at a stride.
func spread[E any](from []E, shape topk.Shape, stride int) []E {
	to := make([]E, shape.Rows*stride)
	for i := range shape.Rows {
		copy(to[i*stride:], from[i*shape.K:(i+1)*shape.K])
	}
	return to
}

func widen(from []int32) []int64 {
	to := make([]int64, len(from))
	for i, v := range from {
		to[i] = int64(v)
	}
	return to
}
