package shim_test

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda/kernels/shim"
	"github.com/ai-kernel-factory/aikf/internal/fence"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// launch is a kernel on a grid.
type launch struct {
	symbol               string
	grid, block, cluster int
}

// plan says how the kernels of one name select a batch. This is the least that a
// host must know of them, written again, so that a test of the kernels does not
// lean on the code that launches them on a device.
type plan struct {
	name string
	// fits reports whether the kernels take the shape.
	fits func(shape topk.Shape) bool
	// make returns the launches and the 64-bit words of workspace.
	make func(dtype string, shape topk.Shape, chunks int) ([]launch, int)
	// chunks returns into how many parts a row is cut, given the candidates that
	// the caller aims at, 0 for the default.
	chunks func(shape topk.Shape, target int) int
}

const (
	fastK = 2048
	roomK = 4096 // candidates that the second stage of the two-stage plan merges
)

func oneChunk(topk.Shape, int) int { return 1 }

// block is a plan of one block a row. wide forces 64-bit candidates.
func block(threads, mostK int, wide bool) plan {
	name := fmt.Sprint("block", threads)
	forced := ""
	if wide {
		forced = "_wide"
	}
	return plan{
		name: name + forced,
		fits: func(shape topk.Shape) bool { return shape.K <= mostK },
		make: func(dtype string, shape topk.Shape, _ int) ([]launch, int) {
			suffix := forced
			if shape.Vocab > 1<<16 && dtype != "f32" {
				suffix = "_wide"
			}
			return []launch{{"select_" + dtype + "_" + name + suffix, shape.Rows, threads, 1}}, 0
		},
		chunks: oneChunk,
	}
}

// cluster is the plan of so many blocks a row.
func cluster(blocks int) plan {
	return plan{
		name: fmt.Sprint("cluster of ", blocks),
		fits: func(shape topk.Shape) bool { return shape.K <= fastK },
		make: func(dtype string, shape topk.Shape, chunks int) ([]launch, int) {
			return []launch{{"select_" + dtype + "_cluster", shape.Rows * chunks, 1024, chunks}}, 0
		},
		chunks: func(topk.Shape, int) int { return blocks },
	}
}

var twoStage = plan{
	name: "two-stage",
	fits: func(shape topk.Shape) bool { return shape.K <= fastK },
	make: func(dtype string, shape topk.Shape, chunks int) ([]launch, int) {
		return []launch{
			{"select_" + dtype + "_stage1", shape.Rows * chunks, 1024, 1},
			{"select_" + dtype + "_stage2", shape.Rows, 1024, 1},
		}, shape.Rows * chunks * shape.K
	},
	chunks: func(shape topk.Shape, target int) int {
		if target == 0 {
			target = 500
		}
		k := max(1, shape.K)
		return max(1, min((min(target, roomK)+k/2)/k, roomK/k, shape.Vocab/k))
	},
}

var anyK = plan{
	name: "any",
	fits: func(topk.Shape) bool { return true },
	make: func(dtype string, shape topk.Shape, _ int) ([]launch, int) {
		return []launch{{"select_" + dtype + "_any", shape.Rows, 1024, 1}}, shape.Rows << bits.Len(uint(shape.K-1))
	},
	chunks: oneChunk,
}

// groupCounts are what a kernel can be given; its block has at least so many
// threads.
var groupCounts = []int{128, 256, 512, 1024}

// groups returns the group maxima that bound the k-th value: by k, or, where the
// caller aims at a number of candidates, some other count.
func groups(k, threads, target int) int {
	most := groupCounts[:bits.Len(uint(threads))-7]
	if target != 0 {
		return most[target%len(most)]
	}
	switch {
	case k <= 64:
		return 256
	case k <= 128:
		return 512
	}
	return most[len(most)-1]
}

// kernels is what the tests of one plan share.
type kernels struct {
	*shim.Library
	symbols []string
	plan    plan
	fences  sync.Pool // of []byte
	counts  struct{ rows, launches, others atomic.Int64 }
}

// fenceBytes hold the largest batch of the suite, and its workspace.
const fenceBytes = 8 << 20

// selector selects by one plan, or by the plan "any" where that does not fit.
type selector[T topk.Float] struct {
	*kernels
	options topk.Options
	calls   uint64
}

func engine[T topk.Float](k *kernels) topktest.Engine[T] {
	return topktest.Engine[T]{
		NewSelector: func(options topk.Options) topktest.Selector[T] { return &selector[T]{kernels: k, options: options} },
		Slow:        true,
	}
}

// short is the name of the dtype in symbols.
func short[T topk.Float]() string {
	return map[string]string{"float32": "f32", "float16": "f16", "bfloat16": "bf16"}[topktest.DType[T]()]
}

// Select lets the kernels read fenced memory and write where the caller wants its
// results, or, every other call, 64-bit indices at a stride of their own.
func (s *selector[T]) Select(dst topk.Result[T], logits []T, shape topk.Shape) error {
	if err := shape.Validate(); err != nil {
		return err
	}
	span := 0
	if shape.Rows > 0 {
		span = (shape.Rows-1)*stride(shape) + shape.Vocab
	}
	if n := shape.Rows * shape.K; len(logits) < span || len(dst.Values) < n || len(dst.Indices) < n {
		return fmt.Errorf("%d logits, want %d; %d values and %d indices, want %d = %d * %d: %w",
			len(logits), span, len(dst.Values), len(dst.Indices), n, shape.Rows, shape.K, topk.ErrShape)
	}
	if shape.Rows == 0 || shape.K == 0 {
		return nil
	}
	s.calls++
	seed := s.calls<<32 + uint64(shape.Vocab*4099+shape.K*67+shape.Rows)
	plan := s.plan
	if !plan.fits(shape) {
		s.counts.others.Add(1)
		plan = anyK
	}
	chunks := plan.chunks(shape, s.options.TargetCandidates)
	launches, workspace := plan.make(short[T](), shape, chunks)
	s.counts.rows.Add(int64(shape.Rows))

	a := arguments{
		rowK: first(shape.RowK), rowLengths: first(shape.RowLengths),
		stride: int64(stride(shape)), rows: int32(shape.Rows), vocab: int32(shape.Vocab), k: int32(shape.K),
		groups: int32(groups(shape.K, launches[0].block, s.options.TargetCandidates)), chunks: int32(chunks),
		values: first(dst.Values), indices: first(dst.Indices), resultStride: int64(shape.K), indexBytes: 4,
	}
	if s.options.Smallest {
		a.smallest = 1
	}
	memory := s.fences.Get().([]byte)
	defer s.fences.Put(memory)
	switch seed / 3 % 3 {
	case 0:
		a.logits = first(logits)
	case 1:
		fenced := fence.AtEnd[T](memory, span)
		copy(fenced, logits)
		a.logits = first(fenced)
	case 2:
		fenced := fence.AtStart[T](memory, span)
		copy(fenced, logits)
		a.logits = first(fenced)
	}
	words := s.fences.Get().([]byte)
	defer s.fences.Put(words)
	if workspace > 0 {
		poisoned := fence.AtEnd[uint64](words, workspace)
		for i := range poisoned {
			poisoned[i] = seed * 0x9e3779b97f4a7c15
		}
		a.workspace = first(poisoned)
	}
	var values []T
	var indices []int64
	if wide := seed%2 == 0; wide {
		a.indexBytes, a.resultStride = 8, int64(shape.K)+5
		values, indices = make([]T, shape.Rows*(shape.K+5)), make([]int64, shape.Rows*(shape.K+5))
		for i := range shape.Rows { // untouched entries stay what they are
			for j := range shape.K {
				values[i*(shape.K+5)+j], indices[i*(shape.K+5)+j] = dst.Values[i*shape.K+j], int64(dst.Indices[i*shape.K+j])
			}
		}
		a.values, a.indices = first(values), first(indices)
	}
	for _, l := range launches {
		if !slices.Contains(s.symbols, l.symbol) {
			return s.withoutKernel(dst, logits, shape)
		}
	}
	for i, l := range launches {
		s.counts.launches.Add(1)
		if err := s.Launch(l.symbol, l.grid, l.block, l.cluster, seed+uint64(i)<<48, unsafe.Pointer(&a)); err != nil {
			return err
		}
	}
	for i := range shape.Rows {
		for j := 0; j < shape.K+5 && indices != nil; j++ {
			at := i*(shape.K+5) + j
			if j < shape.K {
				dst.Values[i*shape.K+j], dst.Indices[i*shape.K+j] = values[at], int32(indices[at])
				if int64(int32(indices[at])) != indices[at] {
					return fmt.Errorf("row %d, place %d: index %#x", i, j, indices[at])
				}
			} else if indices[at] != 0 || values[at] != *new(T) {
				return fmt.Errorf("row %d: a write past its %d results, at %d", i, shape.K, j)
			}
		}
	}
	return nil
}

// withoutKernel answers by the CPU's engine what no kernel takes.
func (s *selector[T]) withoutKernel(dst topk.Result[T], logits []T, shape topk.Shape) error {
	return (&topk.Selector[T]{Options: topk.Options{Smallest: s.options.Smallest, Threads: 1}}).Select(dst, logits, shape)
}

func stride(shape topk.Shape) int {
	switch {
	case shape.Expand:
		return 0
	case shape.Stride == 0:
		return shape.Vocab
	}
	return shape.Stride
}

// open loads the kernels for tests of the plan.
func open(t *testing.T, p plan) *kernels {
	t.Helper()
	k := &kernels{Library: shim.Open(t, shim.Kernels(t)...), plan: p}
	k.symbols = k.Symbols()
	k.fences.New = func() any { return fence.Memory(t, fenceBytes) }
	return k
}

// Every plan gives the answers of the contract.
func TestConformance(t *testing.T) {
	for _, p := range []plan{
		block(1024, fastK, false), block(1024, fastK, true), block(512, 128, false), block(512, 128, true),
		cluster(2), cluster(8), cluster(16), twoStage, anyK,
	} {
		t.Run(p.name, func(t *testing.T) {
			k := open(t, p)
			launches, _ := p.make("bf16", topk.Row(100, 10), p.chunks(topk.Row(100, 10), 0))
			if !slices.Contains(k.symbols, launches[0].symbol) {
				t.Skipf("the sources have no %s", launches[0].symbol)
			}
			t.Cleanup(func() {
				t.Logf("%d launches, %d rows; %d calls by another plan", k.counts.launches.Load(), k.counts.rows.Load(), k.counts.others.Load())
			})
			topktest.Run(t, topktest.Backend{
				Name: "shim/" + p.name, Float32: engine[float32](k), Float16: engine[topk.Float16](k), BFloat16: engine[topk.BFloat16](k),
			})
		})
	}
}

var _ = strings.TrimSpace
var _ = rand.IntN
