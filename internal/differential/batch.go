package differential

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"unsafe"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// Batch is one call of a device, and its answer.
type Batch struct {
	Number   int
	DType    cuda.DType
	Shape    topk.Shape // with the k and the length of each row, if these differ
	Kind     string     // of logits
	Smallest bool
	Index64  bool
	Plan     string // forced; empty: the device chooses
	Offset   int    // elements from an aligned address to the first logit

	// Logits holds Offset elements and then the rows, in the byte order of this
	// machine, as a device has them.
	Logits []byte
	// Values and Indices receive the answer. Every byte is Poison before.
	Values, Indices []byte
}

// Poison fills the room for an answer: what a call must not write stays so.
const Poison = 0xA5

// Bounds of a batch, so that its parts stay in a processor's cache, and its
// answers in a device's memory.
const (
	batchElements = 1 << 20
	batchResults  = 1 << 20
)

// vocabs are lengths at which something changes inside a kernel or plan, beside
// those of models.
var vocabs = []int{
	8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072,
	32000, 50257, 50304, 128256, 151936, 262144,
}

// shape draws a shape: mostly of short rows, which are cheap to compare, and
// with long ones of every size among them.
func shape(rng *rand.Rand) topk.Shape {
	var s topk.Shape
	switch n := rng.IntN(40); {
	case n < 26:
		s.Vocab = int(math.Exp(rng.Float64() * math.Log(4096)))
	case n < 34:
		s.Vocab = vocabs[rng.IntN(len(vocabs))] + rng.IntN(3) - 1
	case n < 39:
		s.Vocab = 1 + rng.IntN(60000)
	default:
		s.Vocab = 1 + rng.IntN(1<<20)
	}
	switch rng.IntN(16) {
	case 0:
		s.K = rng.IntN(s.Vocab + 1)
	case 1:
		s.K = s.Vocab
	case 2:
		s.K = rng.IntN(2)
	case 3, 4:
		s.K = rng.IntN(2100)
	default:
		s.K = rng.IntN(300)
	}
	s.K = min(s.K, s.Vocab)
	switch rng.IntN(8) {
	case 0:
		s.Stride = s.Vocab + rng.IntN(40)
	case 1:
		s.Expand = true
	}
	most := min(batchElements/max(s.Stride, s.Vocab), batchResults/max(1, s.K))
	s.Rows = 1 + rng.IntN(max(1, min(most, 1<<(4+rng.IntN(17)))))
	if rng.IntN(4) == 0 {
		s.RowK = ints(rng, s.Rows, s.K)
	}
	if rng.IntN(4) == 0 {
		s.RowLengths = ints(rng, s.Rows, s.Vocab)
	}
	return s
}

// ints returns n numbers from 0 to most, both of which are frequent.
func ints(rng *rand.Rand, n, most int) []int32 {
	all := make([]int32, n)
	for i := range all {
		switch rng.IntN(4) {
		case 0, 1:
			all[i] = int32(most)
		case 2:
			all[i] = int32(rng.IntN(most + 1))
		}
	}
	return all
}

// span returns the elements from the first logit to the last.
func span(s topk.Shape) int {
	stride := max(s.Stride, s.Vocab)
	if s.Expand {
		stride = 0
	}
	return (s.Rows-1)*stride + s.Vocab
}

// generate makes batch number n of the seed; it depends on these and the dtype
// alone. It reuses the memory of b.
func (b *Batch) generate(seed uint64, n int, dtype cuda.DType, arch cuda.Architecture) {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	*b = Batch{Number: n, DType: dtype, Logits: b.Logits, Values: b.Values, Indices: b.Indices}
	b.Shape = shape(rng)
	b.Smallest, b.Index64, b.Offset = rng.IntN(3) == 0, rng.IntN(4) == 0, rng.IntN(9)
	if wanted := (cuda.PlanShape{Rows: b.Shape.Rows, Vocab: b.Shape.Vocab, K: b.Shape.K, DType: dtype}); rng.IntN(2) == 0 {
		if plans, err := cuda.Plans(wanted, arch, cuda.PlanOptions{}); err == nil {
			if plan := plans[rng.IntN(len(plans))]; plan.Name != cuda.PlanNone {
				b.Plan = plan.Name
			}
		}
	}
	elements := b.Offset + span(b.Shape)
	b.Logits = room(b.Logits, elements*dtype.Bytes())
	switch dtype {
	case cuda.Float16:
		b.Kind = fill(rng, view[topk.Float16](b.Logits), b.Shape.Vocab)
	case cuda.BFloat16:
		b.Kind = fill(rng, view[topk.BFloat16](b.Logits), b.Shape.Vocab)
	default:
		b.Kind = fill(rng, view[float32](b.Logits), b.Shape.Vocab)
	}
	results, indexBytes := b.Shape.Rows*b.Shape.K, 4
	if b.Index64 {
		indexBytes = 8
	}
	b.Values, b.Indices = room(b.Values, results*dtype.Bytes()), room(b.Indices, results*indexBytes)
}

// room returns n bytes, aligned to 8, of the memory if it has them.
func room(memory []byte, n int) []byte {
	if cap(memory) >= n {
		return memory[:n]
	}
	words := make([]uint64, (n+n/4)/8+1)
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))[:n]
}

// view returns bytes as elements.
func view[E any](bytes []byte) []E {
	var zero E
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(bytes))), len(bytes)/int(unsafe.Sizeof(zero)))
}

// fill writes random logits of one kind, a nanosecond or less each, and returns
// its name.
func fill[T topk.Float](rng *rand.Rand, logits []T, vocab int) string {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(logits))), len(logits)*int(unsafe.Sizeof(*new(T))))
	switch rng.IntN(8) {
	case 0:
		words(rng, bytes)
		return "any bits"
	case 1:
		few := 1 + rng.IntN(40)
		choose(rng, logits, func(int) T { return of[T](float32(rng.IntN(few) - few/2)) })
		return "few distinct"
	case 2:
		alphabet := topktest.Alphabet[T]()
		share := rng.Float64()
		choose(rng, logits, func(int) T {
			if rng.Float64() < share {
				return alphabet[rng.IntN(len(alphabet))]
			}
			return of[T](float32(rng.NormFloat64()))
		})
		return "specials"
	case 3:
		finite := rng.IntN(20)
		choose(rng, logits, func(i int) T {
			if i < finite {
				return of[T](float32(rng.NormFloat64()))
			}
			return of[T](float32(math.Inf(-1)))
		})
		return "masked"
	case 4:
		ramp(rng, logits, vocab)
		return "ramp"
	case 5:
		normal(rng, logits)
		// The largest where one thread, or one group of threads, looks.
		period, width := 1<<(4+rng.IntN(9)), 1<<rng.IntN(6)
		hot := of[T](30)
		for i := rng.IntN(period); i < len(logits); i += period {
			for j := i; j < min(i+width, len(logits)); j++ {
				logits[j] = hot
			}
			if rng.IntN(64) == 0 {
				hot = of[T](float32(30 + rng.NormFloat64()))
			}
		}
		return "hot"
	case 6:
		v := of[T](float32(rng.NormFloat64()))
		for i := range logits {
			logits[i] = v
		}
		return "constant"
	}
	normal(rng, logits)
	return "random"
}

// words fills bytes with random ones.
func words(rng *rand.Rand, bytes []byte) {
	for ; len(bytes) >= 8; bytes = bytes[8:] {
		binary.NativeEndian.PutUint64(bytes, rng.Uint64())
	}
	for i := range bytes {
		bytes[i] = byte(rng.Uint32())
	}
}

// choose draws every logit from a table of 256.
func choose[T topk.Float](rng *rand.Rand, logits []T, entry func(i int) T) {
	var table [256]T
	for i := range table {
		table[i] = entry(i)
	}
	for len(logits) > 0 {
		word := rng.Uint64()
		part := logits[:min(8, len(logits))]
		for i := range part {
			part[i] = table[byte(word)]
			word >>= 8
		}
		logits = logits[len(part):]
	}
}

// normal adds up two tables, so that the sums are distributed about as logits
// are, with 65,536 different values.
func normal[T topk.Float](rng *rand.Rand, logits []T) {
	var coarse, fine [256]float32
	for i := range coarse {
		coarse[i], fine[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64()/64)
	}
	for len(logits) > 0 {
		word := rng.Uint64()
		part := logits[:min(4, len(logits))]
		for i := range part {
			part[i] = of[T](coarse[byte(word)] + fine[byte(word>>8)])
			word >>= 16
		}
		logits = logits[len(part):]
	}
}

// ramp rises or falls along a row.
func ramp[T topk.Float](rng *rand.Rand, logits []T, vocab int) {
	row := make([]T, vocab)
	slope := 16 / float32(vocab)
	for i := range row {
		row[i] = of[T](float32(i)*slope - 8)
	}
	if rng.IntN(2) == 0 {
		slices.Reverse(row)
	}
	for len(logits) > 0 {
		logits = logits[copy(logits, row):]
	}
}

// of rounds v to a T.
func of[T topk.Float](v float32) T {
	var x T
	switch x := any(&x).(type) {
	case *float32:
		*x = v
	case *topk.Float16:
		*x = topk.Float16FromFloat32(v)
	case *topk.BFloat16:
		*x = topk.BFloat16FromFloat32(v)
	}
	return x
}
