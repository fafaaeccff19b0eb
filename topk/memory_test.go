package topk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/fence"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// Rows lie between pages that cannot be read: a read past a row crashes.
func TestNothingIsReadPastARow(t *testing.T) {
	allDTypes(t, testFenced[float32], testFenced[topk.Float16], testFenced[topk.BFloat16])
}

func testFenced[T topk.Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const longest = 50304
	memory := fence.Memory(t, 4*longest)
	lengths := []int{511, 513, 1023, 4097, 16383, 16385, 50257, longest}
	for n := range 301 {
		lengths = append(lengths, n)
	}
	for _, tier := range topk.Tiers() {
		for _, n := range lengths {
			kind := topktest.Rows()[rng.IntN(len(topktest.Rows()))]
			row := topktest.Convert[T](kind.Make(rng, n))
			k := min(n, 1+rng.IntN(60))
			top := topk.NewResult[T](1, k)
			for _, logits := range [][]T{fence.AtEnd[T](memory, n), fence.AtStart[T](memory, n)} {
				copy(logits, row)
				s := topk.Selector[T]{Options: topk.Options{Tier: tier, Smallest: rng.IntN(2) == 0}}
				if err := s.Select(top, logits, topk.Row(n, k)); err != nil {
					t.Fatal(err)
				}
				stream, err := topk.NewStream[T](k, s.Options)
				if err != nil {
					t.Fatal(err)
				}
				streamed := topk.NewResult[T](1, k)
				if err := stream.Push(logits); err != nil {
					t.Fatal(err)
				}
				if err := stream.Finish(streamed); err != nil {
					t.Fatal(err)
				}
				for i, index := range top.Indices {
					if streamed.Indices[i] != index || int(index) >= n {
						t.Fatalf("%s, %s of %d, k %d, place %d: selected %d, streamed %d", tier, kind.Name, n, k, i, index, streamed.Indices[i])
					}
				}
			}
		}
	}
}

// Logits of a model: AIKF_TEST_LOGITS names a .safetensors file with a tensor
// "logits", [rows, vocab] in BF16, of which the first 8 rows are tried.
func TestLogitsOfAModel(t *testing.T) {
	path := os.Getenv("AIKF_TEST_LOGITS")
	if path == "" {
		t.Skip("AIKF_TEST_LOGITS names no file of logits")
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A header length, the header in JSON, the tensors: huggingface/safetensors.
	header := file[8 : 8+binary.LittleEndian.Uint64(file)]
	var tensors struct {
		Logits struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets []int  `json:"data_offsets"`
		} `json:"logits"`
	}
	if err := json.Unmarshal(header, &tensors); err != nil {
		t.Fatal(err)
	}
	logits := tensors.Logits
	if logits.DType != "BF16" || len(logits.Shape) != 2 || len(logits.Offsets) != 2 {
		t.Fatalf("%s holds %+v, want logits [rows, vocab] in BF16", path, logits)
	}
	vocab := logits.Shape[1]
	bits := make([]uint16, min(8, logits.Shape[0])*vocab)
	if err := binary.Read(bytes.NewReader(file[8+len(header)+logits.Offsets[0]:]), binary.LittleEndian, bits); err != nil {
		t.Fatal(err)
	}
	rows := topk.BFloat16s(bits)
	var wide []float32
	for _, x := range rows {
		wide = append(wide, x.Float32())
	}
	for _, tier := range topk.Tiers() {
		t.Run(tier, func(t *testing.T) {
			topktest.CheckRows(t, topktest.CPU(tier).BFloat16, rows, vocab)
			topktest.CheckRows(t, topktest.CPU(tier).Float16, topktest.Convert[topk.Float16](wide), vocab)
			topktest.CheckRows(t, topktest.CPU(tier).Float32, wide, vocab)
		})
	}
}
