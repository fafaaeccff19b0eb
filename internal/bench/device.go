package bench

import (
	"time"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/sampling"
)

// device is what the benchmark asks of a GPU: one stream of work, in order.
// cudaDevice puts it to package cuda; tests have a GPU of their own.
type device interface {
	properties() cuda.Properties
	architecture() cuda.Architecture
	// allocate returns memory with any content, aligned to 256 bytes.
	allocate(bytes int) (deviceMemory, error)
	selector(options cuda.Options) (deviceSelector, error)
	sampler(params sampling.Params, options cuda.SamplerOptions) (tokenSampler, error)
	readFloor(logits cuda.Logits, shape cuda.Shape, maxima cuda.Pointer) error
	emptyKernel() error
	// capture records the calls as a graph, without running them.
	capture(calls func() error) (deviceGraph, error)
	// replay runs the graph twice and returns the time of the second run, which
	// waits in the queue when the first one ends.
	replay(graph deviceGraph) (time.Duration, error)
	synchronize() error
	close() error
}

// deviceMemory is memory of a device. Copies wait for the work before them, and
// return when they are done.
type deviceMemory interface {
	pointer() cuda.Pointer
	upload(offset int, from []byte) error
	download(to []byte, offset int) error
	close() error
}

// deviceSelector puts selections into the stream.
type deviceSelector interface {
	plan(shape cuda.Shape, dtype cuda.DType) (cuda.Plan, error)
	selectDevice(logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error
	// selectRepeatedly is selectDevice so many times, with nothing between.
	selectRepeatedly(times int, logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error
	// selectStage puts only one kernel of the plan into the stream.
	selectStage(stage int, logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) error
	// rawLaunch is what selectDevice would have the driver do.
	rawLaunch(logits cuda.Logits, shape cuda.Shape, result cuda.Result, workspace cuda.Workspace) (cuda.RawLaunch, error)
	// selectPhases is an instrumented build that writes clock stamps of each row.
	selectPhases(logits cuda.Logits, shape cuda.Shape, result cuda.Result, stamps cuda.Pointer) error
	close() error
}

// tokenSampler puts samplings into the stream.
type tokenSampler interface {
	mostKept(dtype cuda.DType, vocab int) int
	// sample edits the logits, if edits are not nil, and draws the tokens.
	sample(logits cuda.Logits, shape cuda.Shape, rows cuda.RowParams, edits *cuda.Edits, tokens cuda.Tokens) error
	// samplePhases is an instrumented build that writes clock stamps of each block. It returns the names of the
	// phases and the number of blocks that have a row.
	samplePhases(logits cuda.Logits, shape cuda.Shape, rows cuda.RowParams, tokens cuda.Tokens, stamps cuda.Pointer) ([]string, int, error)
	close() error
}

// deviceGraph is captured work.
type deviceGraph interface {
	launch() error
	close() error
}
