package topktest

import (
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

// Selector selects the top k of a batch; [topk.Selector] is one.
type Selector[T topk.Float] interface {
	Select(dst topk.Result[T], logits []T, shape topk.Shape) error
}

// Stream selects the top k of a row that arrives in chunks; [topk.Stream] is
// one.
type Stream[T topk.Float] interface {
	Push(logits []T) error
	Finish(dst topk.Result[T]) error
	Reset()
}

// Merge joins the results of shards; [topk.Merge] is one.
type Merge[T topk.Float] func(dst topk.Result[T], rows, k int, options topk.Options, shards ...topk.Result[T]) error

// Engine is what a backend offers for one dtype. The options that it is given
// have no Tier.
type Engine[T topk.Float] struct {
	NewSelector func(options topk.Options) Selector[T]
	NewStream   func(k int, options topk.Options) (Stream[T], error) // nil: not offered
	Merge       Merge[T]                                             // nil: not offered

	// Slow is set by an engine whose rows take a hundred times what a CPU's
	// take, such as a simulated machine: it is asked about fewer of them.
	Slow bool
}

// pick returns how far a test goes.
func (e Engine[T]) pick(full, short, slow, slowShort int) int {
	switch {
	case e.Slow && testing.Short():
		return slowShort
	case e.Slow:
		return slow
	case testing.Short():
		return short
	}
	return full
}

// Backend is an implementation of top-k under test.
type Backend struct {
	Name     string
	Float32  Engine[float32]
	Float16  Engine[topk.Float16]
	BFloat16 Engine[topk.BFloat16]
}

// CPU returns package topk as a backend, held to one of [topk.Tiers].
func CPU(tier string) Backend {
	return Backend{
		Name:     "cpu/" + tier,
		Float32:  cpuEngine[float32](tier),
		Float16:  cpuEngine[topk.Float16](tier),
		BFloat16: cpuEngine[topk.BFloat16](tier),
	}
}

func cpuEngine[T topk.Float](tier string) Engine[T] {
	return Engine[T]{
		NewSelector: func(options topk.Options) Selector[T] {
			options.Tier = tier
			return &topk.Selector[T]{Options: options}
		},
		NewStream: func(k int, options topk.Options) (Stream[T], error) {
			options.Tier = tier
			return topk.NewStream[T](k, options)
		},
		Merge: func(dst topk.Result[T], rows, k int, options topk.Options, shards ...topk.Result[T]) error {
			options.Tier = tier
			return topk.Merge(dst, rows, k, options, shards...)
		},
	}
}
