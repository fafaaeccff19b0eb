package bench

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Logits are rows of a model, as a file holds them.
type Logits struct {
	DType       DType
	Rows, Vocab int
	// Bits holds Rows times Vocab logits, row-major; those of 16 bits lie in
	// the lower half.
	Bits []uint32
}

// row writes row i as float32 values, exactly.
func (l Logits) row(dst []float32, i int) {
	for j, bits := range l.Bits[i*l.Vocab : (i+1)*l.Vocab] {
		switch l.DType {
		case Float16:
			dst[j] = topk.Float16(bits).Float32()
		case BFloat16:
			dst[j] = topk.BFloat16(bits).Float32()
		default:
			dst[j] = math.Float32frombits(bits)
		}
	}
}

// turned returns the rows from row first on, and behind them those before it.
func (l Logits) turned(first int) Logits {
	if l.Rows > 0 {
		at := first % l.Rows * l.Vocab
		l.Bits = slices.Concat(l.Bits[at:], l.Bits[:at])
	}
	return l
}

// ReadLogits reads the rows of a file, or the first ones of a very large file.
func ReadLogits(f *tensorfile.File) (Logits, error) {
	if f.Vocab > maxElements {
		return Logits{}, fmt.Errorf("vocab = %d exceeds %d logits", f.Vocab, maxElements)
	}
	l := Logits{DType: f.DType, Rows: min(f.Rows, maxElements/f.Vocab), Vocab: f.Vocab}
	var err error
	switch f.DType {
	case Float16:
		l.Bits, err = readBits[topk.Float16](f, l.Rows)
	case BFloat16:
		l.Bits, err = readBits[topk.BFloat16](f, l.Rows)
	default:
		l.Bits, err = readBits[float32](f, l.Rows)
	}
	return l, err
}

func readBits[T topk.Float](f *tensorfile.File, rows int) ([]uint32, error) {
	all, row := make([]uint32, 0, rows*f.Vocab), make([]T, f.Vocab)
	for i := range rows {
		if err := tensorfile.ReadRows(row, f, i); err != nil {
			return nil, err
		}
		for _, x := range row {
			all = append(all, bits(x))
		}
	}
	return all, nil
}

// RealLogits returns the eight rows that the benchmark ships; see
// testdata/README.md.
func RealLogits() Logits {
	headerBytes := binary.LittleEndian.Uint64(realLogits)
	var header struct {
		Logits struct{ Shape [2]int }
	}
	if err := json.Unmarshal(realLogits[8:8+headerBytes], &header); err != nil {
		panic("bench: the shipped logits have no header: " + err.Error())
	}
	shape := header.Logits.Shape
	body := realLogits[8+headerBytes:]
	l := Logits{DType: BFloat16, Rows: shape[0], Vocab: shape[1], Bits: make([]uint32, len(body)/2)}
	for i := range l.Bits {
		l.Bits[i] = uint32(binary.LittleEndian.Uint16(body[2*i:]))
	}
	return l
}

//go:embed testdata/real_logits_8x50304_bf16.safetensors
var realLogits []byte
