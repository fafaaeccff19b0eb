package topk_test

import (
	"errors"
	"fmt"
	"os"

	"github.com/ai-kernel-factory/aikf/topk"
)

func ExampleSelect() {
	logits := []float32{0.5, 2, -1, 2, 3}
	top := topk.NewResult[float32](1, 3)
	if err := topk.Select(top, logits, topk.Row(len(logits), 3)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(top.Values, top.Indices)
	// Output: [3 2 2] [4 1 3]
}

// A bad shape is an error that tells the numbers.
func ExampleSelect_error() {
	top := topk.NewResult[float32](1, 3)
	err := topk.Select(top, []float32{1, 2}, topk.Row(2, 3))
	fmt.Println(err)
	fmt.Println(errors.Is(err, topk.ErrShape))
	// Output:
	// topk: k = 3 exceeds vocab = 2: invalid shape
	// true
}

// A Selector is reused from token to token and then allocates nothing.
func ExampleSelector() {
	var selector topk.Selector[float32]
	top := topk.NewResult[float32](2, 2)
	shape := topk.Shape{Rows: 2, Vocab: 4, K: 2}
	for _, logits := range [][]float32{
		{1, 4, 2, 3, 0, 0, 9, 0},
		{5, 6, 7, 8, 8, 7, 6, 5},
	} {
		if err := selector.Select(top, logits, shape); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(top.Indices[:2], top.Indices[2:])
	}
	// Output:
	// [1 3] [2 0]
	// [3 2] [0 1]
}

func ExampleOptions() {
	selector := topk.Selector[float32]{Options: topk.Options{Smallest: true, Threads: 1}}
	top := topk.NewResult[float32](1, 2)
	if err := selector.Select(top, []float32{3, -1, 2, -1}, topk.Row(4, 2)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(top.Values, top.Indices)
	// Output: [-1 -1] [1 3]
}

// Rows of a vocabulary that is padded to 4, each with a k and a length of its
// own.
func ExampleShape() {
	logits := []float32{
		1, 2, 3, -1,
		6, 5, 4, -1,
		7, 8, 9, -1,
	}
	shape := topk.Shape{
		Rows: 3, Vocab: 3, K: 2, Stride: 4,
		RowK:       []int32{2, 1, 2},
		RowLengths: []int32{3, 3, 1},
	}
	top := topk.NewResult[float32](shape.Rows, shape.K)
	if err := topk.Select(top, logits, shape); err != nil {
		fmt.Println(err)
		return
	}
	for i := range shape.Rows {
		fmt.Println(top.Values[i*shape.K:][:shape.RowResults(i)])
	}
	// Output:
	// [3 2]
	// [6]
	// [7]
}

func ExampleShape_Validate() {
	fmt.Println(topk.Shape{Rows: 2, Vocab: 50257, K: 50, Stride: 50304}.Validate())
	fmt.Println(topk.Shape{Rows: 2, Vocab: 50257, K: 50, Stride: 50000}.Validate())
	// Output:
	// <nil>
	// topk: stride = 50000 is less than vocab = 50257: invalid shape
}

// A row is pushed tile by tile, as it is computed; no tile need be kept.
func ExampleStream() {
	stream, err := topk.NewStream[float32](2, topk.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, tile := range [][]float32{{1, 5}, {3, 5}, {4}} {
		if err := stream.Push(tile); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("pushed", stream.Pushed())
	top := topk.NewResult[float32](1, 2)
	if err := stream.Finish(top); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(top.Values, top.Indices)
	// Output:
	// pushed 5
	// [5 5] [1 3]
}

func ExampleStream_Reset() {
	stream, err := topk.NewStream[float32](1, topk.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	top := topk.NewResult[float32](1, 1)
	push := stream.Push([]float32{9, 9, 9})
	stream.Reset() // the row is not wanted after all
	fmt.Println(push, stream.Push([]float32{1, 2}), stream.Finish(top), top.Values, top.Indices)
	// Output: <nil> <nil> <nil> [2] [1]
}

// Two halves of a vocabulary, each with the indices of the whole.
func ExampleMerge() {
	left := topk.Result[float32]{Values: []float32{7, 4}, Indices: []int32{3, 1}}
	right := topk.Result[float32]{Values: []float32{7, 5}, Indices: []int32{10, 12}}
	top := topk.NewResult[float32](1, 3)
	if err := topk.Merge(top, 1, 3, topk.Options{}, left, right); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(top.Values, top.Indices)
	// Output: [7 7 5] [3 10 12]
}

// Logits that another library holds as raw bits are used as they are.
func ExampleBFloat16s() {
	bits := []uint16{0x3F80, 0x4040, 0xC000} // 1, 3, -2
	top := topk.NewResult[topk.BFloat16](1, 1)
	if err := topk.Select(top, topk.BFloat16s(bits), topk.Row(3, 1)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(top.Values[0].Float32(), top.Indices)
	// Output: 3 [1]
}

func ExampleFloat16s() {
	bits := []uint16{0x3C00, 0x4200, 0xC000} // 1, 3, -2
	for _, h := range topk.Float16s(bits) {
		fmt.Println(h.Float32())
	}
	// Output:
	// 1
	// 3
	// -2
}

func ExampleBFloat16FromFloat32() {
	b := topk.BFloat16FromFloat32(3.14159)
	fmt.Printf("%#04x %v\n", uint16(b), b.Float32())
	// Output: 0x4049 3.140625
}

func ExampleFloat16FromFloat32() {
	h := topk.Float16FromFloat32(3.14159)
	fmt.Printf("%#04x %v\n", uint16(h), h.Float32())
	// Output: 0x4248 3.140625
}

// The last tier is plain Go and runs everywhere.
func ExampleTiers() {
	tiers := topk.Tiers()
	fmt.Println(tiers[len(tiers)-1])
	// Output: pure
}

// Plans that "aikf tune --device cpu --out plans.json" found on this model of CPU.
func ExampleLoadPlans() {
	file, err := os.Open("plans.json")
	if err != nil {
		fmt.Println("no plans: the built-in ones serve every shape")
	} else {
		defer file.Close()
	}
	var selector topk.Selector[float32]
	if file != nil {
		if selector.Options.Plans, err = topk.LoadPlans(file); err != nil {
			fmt.Println(err) // damaged, or of another CPU or version: the error says which
		}
	}
	top := topk.NewResult[float32](1, 2)
	if err := selector.Select(top, []float32{0.5, 2, -1, 3}, topk.Row(4, 2)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(top.Indices)
	// Output:
	// no plans: the built-in ones serve every shape
	// [3 1]
}
