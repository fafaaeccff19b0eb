// Package phases holds the instrumented builds of the kernels. A program that calls SelectPhases or SamplePhases of
// package cuda imports it for its effect:
//
//	import _ "github.com/ai-kernel-factory/aikf/cuda/kernels/phases"
//
// Others need not carry its two megabytes.
package phases

import (
	_ "embed"

	"github.com/ai-kernel-factory/aikf/cuda/kernels"
)

var (
	//go:embed kernels_sm_80.cubin.gz
	sm80 []byte
	//go:embed kernels_sm_90.cubin.gz
	sm90 []byte
	//go:embed kernels_compute_90.ptx.gz
	compute90 []byte
)

func init() { kernels.Instrumented = kernels.Set{SM80: sm80, SM90: sm90, Compute90: compute90} }
