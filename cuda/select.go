package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/internal/driver"
	"github.com/ai-kernel-factory/aikf/topk"
)

// lane is what one call of Select works with: a stream, and device memory that
// grows to the largest call.
type lane struct {
	stream  *Stream
	memory  *Buffer
	results []byte // of rows that have a k or a length of their own
	pinner  runtime.Pinner
}

// Select is [topk.Select] on the device: it copies the logits there, selects,
// and copies the results back. It returns when that is done, and is safe for
// many goroutines at once. Most of its time is copying: logits that are on the
// device already belong to [Selector.SelectDevice].
func Select[T topk.Float](s *Selector, dst topk.Result[T], logits []T, shape topk.Shape) error {
	if s == nil {
		return fmt.Errorf("cuda: the selector is nil: %w", ErrClosed)
	}
	if err := s.usable(); err != nil {
		return err
	}
	stride, err := checkHost(dst, logits, shape)
	if err != nil {
		return err
	}
	if shape.Rows == 0 || shape.K == 0 {
		return nil
	}
	l, err := s.takeLane()
	if err != nil {
		return err
	}
	defer s.returnLane(l)
	part := hostBatch{
		values: unsafe.Pointer(unsafe.SliceData(dst.Values)), indices: dst.Indices,
		logits: unsafe.Pointer(unsafe.SliceData(logits)), dtype: dtypeOf[T](), shape: shape, stride: stride,
	}
	atOnce := max(1, s.partBytes/max(stride*part.dtype.Bytes(), 1))
	for first := 0; first < shape.Rows; first += atOnce {
		if err := l.run(s, part.rows(first, min(first+atOnce, shape.Rows))); err != nil {
			return err
		}
	}
	return nil
}

// checkHost reports a shape that is none, or slices too short for it, and returns
// the elements from one row to the next.
func checkHost[T topk.Float](dst topk.Result[T], logits []T, shape topk.Shape) (stride int, err error) {
	if err := shape.Validate(); err != nil {
		return 0, err
	}
	if need := shape.Rows * shape.K; len(dst.Values) < need || len(dst.Indices) < need {
		return 0, fmt.Errorf("cuda: room for %d values and %d indices, want rows = %d times k = %d: %w",
			len(dst.Values), len(dst.Indices), shape.Rows, shape.K, topk.ErrShape)
	}
	stride = Shape{Vocab: shape.Vocab, Stride: shape.Stride, Expand: shape.Expand}.stride()
	if need := span(shape.Rows, shape.Vocab, stride); len(logits) < need {
		return 0, fmt.Errorf("cuda: %d logits, want %d for rows = %d, vocab = %d, stride = %d: %w",
			len(logits), need, shape.Rows, shape.Vocab, stride, topk.ErrShape)
	}
	return stride, nil
}

// span returns how many elements the rows take.
func span(rows, vocab, stride int) int {
	if rows == 0 {
		return 0
	}
	return (rows-1)*stride + vocab
}

// hostBatch is a batch of rows in host memory, of any dtype.
type hostBatch struct {
	values  unsafe.Pointer
	indices []int32
	logits  unsafe.Pointer
	dtype   DType
	shape   topk.Shape
	stride  int
}

// rows returns a part of the batch.
func (b hostBatch) rows(first, end int) hostBatch {
	b.values = unsafe.Add(b.values, first*b.shape.K*b.dtype.Bytes())
	b.indices = b.indices[first*b.shape.K:]
	b.logits = unsafe.Add(b.logits, first*b.stride*b.dtype.Bytes())
	b.shape.Rows = end - first
	if b.shape.RowK != nil {
		b.shape.RowK = b.shape.RowK[first:end]
	}
	if b.shape.RowLengths != nil {
		b.shape.RowLengths = b.shape.RowLengths[first:end]
	}
	return b
}

// layout places parts of memory one after the other.
type layout struct{ bytes int }

// place returns where a part starts, at a multiple of 256.
func (l *layout) place(bytes int) Pointer {
	start := l.bytes
	l.bytes += (bytes + 255) &^ 255
	return Pointer(start)
}

// run selects the batch.
func (l *lane) run(s *Selector, b hostBatch) error {
	rows, k := b.shape.Rows, b.shape.K
	shape := Shape{Rows: rows, Vocab: b.shape.Vocab, K: k, Stride: b.shape.Stride, Expand: b.shape.Expand}
	workspaceBytes, err := s.WorkspaceBytes(shape, b.dtype)
	if err != nil {
		return err
	}
	logitsBytes := span(rows, b.shape.Vocab, b.stride) * b.dtype.Bytes()
	valuesBytes, indicesBytes := rows*k*b.dtype.Bytes(), rows*k*4
	// Logits keep their place within 256 bytes, so that the kernels see the
	// alignment that the caller's rows have.
	skew := int(uintptr(b.logits) % 256)
	var place layout
	logitsAt := place.place(skew+logitsBytes) + Pointer(skew)
	valuesAt := place.place(valuesBytes)
	indicesAt := place.place(indicesBytes)
	rowKAt := place.place(4 * len(b.shape.RowK))
	lengthsAt := place.place(4 * len(b.shape.RowLengths))
	workspaceAt := place.place(workspaceBytes)
	if err := l.grow(s.device, place.bytes); err != nil {
		return err
	}
	base := l.memory.Pointer()
	if b.shape.RowK != nil {
		shape.RowK = base + rowKAt
	}
	if b.shape.RowLengths != nil {
		shape.RowLengths = base + lengthsAt
	}
	defer l.pinner.Unpin()
	err = errors.Join(
		l.toDevice(base+logitsAt, b.logits, logitsBytes),
		l.toDevice(base+rowKAt, unsafe.Pointer(unsafe.SliceData(b.shape.RowK)), 4*len(b.shape.RowK)),
		l.toDevice(base+lengthsAt, unsafe.Pointer(unsafe.SliceData(b.shape.RowLengths)), 4*len(b.shape.RowLengths)),
	)
	if err == nil {
		err = s.SelectDevice(l.stream, Logits{base + logitsAt, b.dtype}, shape,
			Result{Values: base + valuesAt, Indices: base + indicesAt}, Workspace{base + workspaceAt, workspaceBytes})
	}
	values, indices := b.values, unsafe.Pointer(unsafe.SliceData(b.indices))
	ragged := b.shape.RowK != nil || b.shape.RowLengths != nil
	if ragged {
		if need := valuesBytes + indicesBytes; cap(l.results) < need {
			l.results = make([]byte, need)
		}
		values = unsafe.Pointer(unsafe.SliceData(l.results))
		indices = unsafe.Add(values, valuesBytes)
	}
	if err == nil {
		err = errors.Join(l.toHost(values, base+valuesAt, valuesBytes), l.toHost(indices, base+indicesAt, indicesBytes))
	}
	// Also after an error: copies that have begun use the caller's memory.
	if err := errors.Join(err, l.stream.Synchronize()); err != nil {
		return err
	}
	if ragged {
		for i := range rows {
			n, first := b.shape.RowResults(i), i*k
			copyBytes(b.values, values, first*b.dtype.Bytes(), n*b.dtype.Bytes())
			copyBytes(unsafe.Pointer(unsafe.SliceData(b.indices)), indices, first*4, n*4)
		}
	}
	return nil
}

// copyBytes copies n bytes at the same offset of both.
func copyBytes(to, from unsafe.Pointer, offset, n int) {
	copy(unsafe.Slice((*byte)(unsafe.Add(to, offset)), n), unsafe.Slice((*byte)(unsafe.Add(from, offset)), n))
}

// grow makes the memory at least that large.
func (l *lane) grow(d *Device, bytes int) error {
	if l.memory != nil && l.memory.Bytes() >= bytes {
		return nil
	}
	if old := l.memory; old != nil {
		l.memory = nil // also if it cannot be given back: it is no memory of ours then
		if err := old.Close(); err != nil {
			return err
		}
	}
	memory, err := d.Allocate(bytes + bytes/4)
	l.memory = memory
	return err
}

// toDevice starts a copy.
func (l *lane) toDevice(to Pointer, from unsafe.Pointer, bytes int) error {
	if bytes == 0 {
		return nil
	}
	l.pinner.Pin(from)
	d := l.stream.device
	return d.do(func() error {
		return d.library.CopyToDevice(driver.Pointer(to), from, bytes, l.stream.handle)
	})
}

// toHost starts a copy.
func (l *lane) toHost(to unsafe.Pointer, from Pointer, bytes int) error {
	l.pinner.Pin(to)
	d := l.stream.device
	return d.do(func() error {
		return d.library.CopyToHost(to, driver.Pointer(from), bytes, l.stream.handle)
	})
}

// takeLane returns a lane that no other call uses.
func (s *Selector) takeLane() (*lane, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if n := len(s.idle); n > 0 {
		l := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return l, nil
	}
	stream, err := s.device.NewStream()
	if err != nil {
		return nil, err
	}
	return &lane{stream: stream}, nil
}

// returnLane keeps the lane for the next call.
func (s *Selector) returnLane(l *lane) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.idle = append(s.idle, l)
}

// closeLanes closes the lanes that no call uses.
func (s *Selector) closeLanes() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var err error
	for _, l := range s.idle {
		err = errors.Join(err, l.stream.Close())
		if l.memory != nil {
			err = errors.Join(err, l.memory.Close())
		}
	}
	s.idle = nil
	return err
}
