package bench

import (
	"unsafe"

	"github.com/ai-kernel-factory/aikf/topk"
)

// memory holds all logits of a case in one piece and, where the system can, on
// huge pages. Small pages lie anywhere in physical memory, and how many of them
// share a cache set then decides the time: between runs of the same case the
// read floor varied by half, and by a tenth on huge pages.
type memory struct {
	free    []byte
	release func() error
}

// cacheLine is the alignment of a row, in bytes.
const cacheLine = 64

func newMemory(bytes int) (*memory, error) {
	free, release, err := pages(bytes)
	return &memory{free, release}, err
}

// aligned takes room for n elements, of which the first lies start elements
// past the beginning of a cache line.
func aligned[T topk.Float](m *memory, n, start int) []T {
	var zero T
	size := int(unsafe.Sizeof(zero))
	skip := int(-uintptr(unsafe.Pointer(&m.free[0])) % cacheLine)
	room := unsafe.Slice((*T)(unsafe.Pointer(&m.free[skip])), start+n)
	m.free = m.free[skip+size*len(room):]
	return room[start:]
}
