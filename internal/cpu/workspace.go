package cpu

import (
	"unsafe"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
)

// WorkspaceBytes returns the memory that a [Row] of this plan holds, for each
// thread, from its first use on.
func (p Plan) WorkspaceBytes() int {
	const word, group = int(unsafe.Sizeof(uint64(0))), int(unsafe.Sizeof(int32(0)))
	return int(unsafe.Sizeof(Row[uint32]{})) + (p.Capacity+simd.SortSlack)*word + p.Sample.Groups*group
}
