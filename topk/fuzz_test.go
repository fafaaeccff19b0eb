package topk_test

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// fuzzed is what the fuzzer decides beside the logits' bits. The choices are
// packed into one number: dtype (3), smallest (2), tier (4), threads (4), target
// candidates (4).
type fuzzed struct {
	dtype   int
	tier    string
	options topk.Options
}

func unpack(choices uint16) fuzzed {
	take := func(n int) int {
		digit := int(choices) % n
		choices /= uint16(n)
		return digit
	}
	f := fuzzed{dtype: take(3)}
	f.options.Smallest = take(2) == 1
	tiers := topk.Tiers()
	f.tier = tiers[take(4)%len(tiers)]
	f.options.Threads = take(4)
	f.options.TargetCandidates = []int{0, 1, 300, 1 << 20}[take(4)]
	return f
}

// float32s and bits16 read logits from raw bytes.
func float32s(raw []byte) []float32 {
	logits := make([]float32, len(raw)/4)
	for i := range logits {
		logits[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return logits
}

func bits16(raw []byte) []uint16 {
	logits := make([]uint16, len(raw)/2)
	for i := range logits {
		logits[i] = binary.LittleEndian.Uint16(raw[2*i:])
	}
	return logits
}

// addSeeds gives the fuzzer rows that reach every stage in every dtype.
func addSeeds(add func(raw []byte, choices uint16)) {
	for i, n := range []int{0, 1, 2, 40, 600, 5000, 9000} {
		raw := make([]byte, n)
		for j := range raw {
			raw[j] = byte(j * (i + 3) >> (j % 5))
		}
		for choices := range uint16(6) {
			add(raw, choices+6*uint16(i))
		}
	}
	add(slices.Repeat([]byte{0xFF, 0xFF, 0x00, 0x80, 0x00, 0x00}, 900), 2) // negative NaN and both zeros
}

func FuzzSelect(f *testing.F) {
	addSeeds(func(raw []byte, choices uint16) {
		f.Add(raw, choices, uint16(50), uint8(1))
		f.Add(raw, choices, uint16(3), uint8(3))
	})
	f.Fuzz(func(t *testing.T, raw []byte, choices, k uint16, rows uint8) {
		fuzz, backend := unpack(choices), topktest.CPU(unpack(choices).tier)
		switch fuzz.dtype {
		case 0:
			fuzzSelect(t, backend.Float32, fuzz.options, float32s(raw), int(k), int(rows))
		case 1:
			fuzzSelect(t, backend.Float16, fuzz.options, topk.Float16s(bits16(raw)), int(k), int(rows))
		default:
			fuzzSelect(t, backend.BFloat16, fuzz.options, topk.BFloat16s(bits16(raw)), int(k), int(rows))
		}
	})
}

func fuzzSelect[T topk.Float](t *testing.T, engine topktest.Engine[T], options topk.Options, logits []T, k, rows int) {
	rows = max(1, rows%8)
	shape := topk.Shape{Rows: rows, Vocab: len(logits) / rows}
	shape.K = k % (shape.Vocab + 1)
	if err := topktest.NewAnswers(logits).CheckSelect(engine.NewSelector(options), shape, options.Smallest); err != nil {
		t.Errorf("%s, %+v, %+v: %v", topktest.DType[T](), shape, options, err)
	}
}

func FuzzStream(f *testing.F) {
	addSeeds(func(raw []byte, choices uint16) {
		f.Add(raw, choices, uint16(50), []byte{1, 0, 200, 255})
		f.Add(raw, choices, uint16(7), []byte{})
	})
	f.Fuzz(func(t *testing.T, raw []byte, choices, k uint16, splits []byte) {
		fuzz, backend := unpack(choices), topktest.CPU(unpack(choices).tier)
		switch fuzz.dtype {
		case 0:
			fuzzStream(t, backend.Float32, fuzz.options, float32s(raw), int(k), splits)
		case 1:
			fuzzStream(t, backend.Float16, fuzz.options, topk.Float16s(bits16(raw)), int(k), splits)
		default:
			fuzzStream(t, backend.BFloat16, fuzz.options, topk.BFloat16s(bits16(raw)), int(k), splits)
		}
	})
}

// fuzzStream takes the splits for chunks of a Stream and for shards of a Merge.
func fuzzStream[T topk.Float](t *testing.T, engine topktest.Engine[T], options topk.Options, logits []T, k int, splits []byte) {
	k %= len(logits) + 1
	var chunks, cuts []int
	for _, n := range splits {
		chunks = append(chunks, int(n)*int(n)/8) // up to 8,128
		cuts = append(cuts, int(n)*len(logits)/256)
	}
	slices.Sort(cuts)
	answers := topktest.NewAnswers(logits)
	stream, err := engine.NewStream(k, options)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second row meets what the first has left behind
		if err := answers.CheckStream(stream, 0, len(logits), k, options.Smallest, chunks); err != nil {
			t.Fatalf("%s, k %d of %d, %+v, chunks %v: %v", topktest.DType[T](), k, len(logits), options, chunks, err)
		}
	}
	if err := answers.CheckMerge(engine.Merge, topk.Row(len(logits), k), options, cuts, nil); err != nil {
		t.Errorf("%s, k %d of %d, %+v, cuts %v: %v", topktest.DType[T](), k, len(logits), options, cuts, err)
	}
}
