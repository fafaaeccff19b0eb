//go:build amd64

package avx2

import "github.com/ai-kernel-factory/aikf/internal/cpu/simd/pure"

// Sort is [pure.Sort].
func Sort(packed []uint64, k int) { pure.Sort(packed, k) }
