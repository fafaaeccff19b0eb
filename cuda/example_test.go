package cuda_test

import (
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Open says why there is no device.
func ExampleOpen() {
	device, err := cuda.Open(0)
	if errors.Is(err, cuda.ErrUnavailable) {
		log.Print(err) // and the caller selects on the CPU, with package topk
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	defer device.Close()
	p := device.Properties()
	log.Printf("%s, compute capability %d.%d", p.Name, p.Major, p.Minor)
}

// Logits in host memory.
func ExampleSelect() {
	device, err := cuda.Open(0)
	if err != nil {
		log.Print(err)
		return
	}
	defer device.Close()
	selector, err := device.NewSelector(cuda.Options{})
	if err != nil {
		log.Fatal(err)
	}
	logits := []float32{0.5, 2, -1, 2, 1}
	best := topk.NewResult[float32](1, 3)
	if err := cuda.Select(selector, best, logits, topk.Row(len(logits), 3)); err != nil {
		log.Fatal(err)
	}
	log.Println(best.Indices, best.Values) // [1 3 4] [2 2 1]
}

// Logits in device memory: the call returns at once, and Synchronize waits.
func ExampleSelector_SelectDevice() {
	const rows, vocab, k = 4, 50304, 50
	device, err := cuda.Open(0)
	if err != nil {
		log.Print(err)
		return
	}
	defer device.Close() // closes all that follows, too
	stream, err := device.NewStream()
	if err != nil {
		log.Fatal(err)
	}
	logits, err := device.Allocate(rows * vocab * 2)
	if err != nil {
		log.Fatal(err)
	}
	values, err := device.Allocate(rows * k * 2)
	if err != nil {
		log.Fatal(err)
	}
	indices, err := device.Allocate(rows * k * 8)
	if err != nil {
		log.Fatal(err)
	}
	if err := cuda.Fill(stream, logits, 0); err != nil { // here, a model writes them
		log.Fatal(err)
	}
	selector, err := device.NewSelector(cuda.Options{})
	if err != nil {
		log.Fatal(err)
	}
	err = selector.SelectDevice(stream,
		cuda.Logits{Pointer: logits.Pointer(), DType: cuda.BFloat16},
		cuda.Shape{Rows: rows, Vocab: vocab, K: k},
		cuda.Result{Values: values.Pointer(), Indices: indices.Pointer(), Index64: true},
		cuda.Workspace{})
	if err != nil {
		log.Fatal(err)
	}
	if err := stream.Synchronize(); err != nil {
		log.Fatal(err)
	}
	first := make([]int64, k)
	if err := cuda.CopyToHost(stream, first, indices, 0); err != nil {
		log.Fatal(err)
	}
	log.Println(first)
}

// A call that is captured once can be launched any number of times.
func ExampleStream_Capture() {
	device, err := cuda.Open(0)
	if err != nil {
		log.Print(err)
		return
	}
	defer device.Close()
	stream, err := device.NewStream()
	if err != nil {
		log.Fatal(err)
	}
	memory, err := device.Allocate(1 << 20)
	if err != nil {
		log.Fatal(err)
	}
	selector, err := device.NewSelector(cuda.Options{})
	if err != nil {
		log.Fatal(err)
	}
	p := memory.Pointer()
	graph, err := stream.Capture(func() error {
		return selector.SelectDevice(stream,
			cuda.Logits{Pointer: p, DType: cuda.Float32},
			cuda.Shape{Rows: 2, Vocab: 50257, K: 40},
			cuda.Result{Values: p + 900<<10, Indices: p + 960<<10},
			cuda.Workspace{})
	})
	if err != nil {
		log.Fatal(err)
	}
	defer graph.Close()
	for range 100 {
		if err := graph.Launch(stream); err != nil {
			log.Fatal(err)
		}
	}
	if err := stream.Synchronize(); err != nil {
		log.Fatal(err)
	}
}

// A plan needs no device to be printed.
func ExampleChoosePlan() {
	h100, err := cuda.ParseArchitecture("sm_90")
	if err != nil {
		log.Fatal(err)
	}
	plan, err := cuda.ChoosePlan(cuda.PlanShape{Rows: 1, Vocab: 50304, K: 50, DType: cuda.BFloat16}, h100,
		cuda.PlanOptions{Name: cuda.PlanTwoStage})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(plan)
	// Output:
	// two-stage, 256 groups, 10 chunks of 5032, workspace 4000 bytes: select_bf16_stage1<<<10, 512>>> select_bf16_stage2<<<1, 512>>>
}

// Plans that "aikf tune --device cuda --out plans.json" found on this model of GPU.
func ExampleLoadPlans() {
	file, err := os.Open("plans.json")
	if err != nil {
		log.Print(err)
		return
	}
	defer file.Close()
	plans, err := cuda.LoadPlans(file)
	if err != nil {
		log.Fatal(err)
	}
	device, err := cuda.Open(0)
	if err != nil {
		log.Print(err)
		return
	}
	defer device.Close()
	selector, err := device.NewSelector(cuda.Options{Plans: plans})
	if errors.Is(err, topk.ErrPlans) { // of another model, which the error names
		selector, err = device.NewSelector(cuda.Options{})
	}
	if err != nil {
		log.Fatal(err)
	}
	log.Print(selector.Plan(cuda.Shape{Rows: 32, Vocab: 50304, K: 50}, cuda.BFloat16))
}

// A token for each row, drawn in the launch that selects. Temperatures and seeds of rows
// are in device memory, where a captured graph reads those of each step; the other parameters
// are the Sampler's.
func ExampleSampler_SampleDevice() {
	device, err := cuda.Open(0)
	if err != nil {
		log.Print(err)
		return
	}
	defer device.Close()
	stream, err := device.NewStream()
	if err != nil {
		log.Fatal(err)
	}
	const rows, vocab = 2, 50304
	allocate := func(bytes int) *cuda.Buffer {
		b, err := device.Allocate(bytes)
		if err == nil {
			err = cuda.Fill(stream, b, 0)
		}
		if err != nil {
			log.Fatal(err)
		}
		return b
	}
	logits := allocate(rows * vocab * 2) // here, a model writes them
	temperatures, seeds := allocate(rows*4), allocate(rows*8)
	tokens, statuses := allocate(rows*4), allocate(rows)
	err = errors.Join(
		cuda.CopyToDevice(stream, temperatures, 0, []float32{0, 0.8}), // the first row is greedy
		cuda.CopyToDevice(stream, seeds, 0, []uint64{1, 2}))
	if err != nil {
		log.Fatal(err)
	}
	sampler, err := device.NewSampler(sampling.Params{TopK: 50, TopP: 0.95}, cuda.SamplerOptions{})
	if err != nil {
		log.Fatal(err) // names the parameter, or the step that a device does not have
	}
	err = sampler.SampleDevice(stream,
		cuda.Logits{Pointer: logits.Pointer(), DType: cuda.BFloat16},
		cuda.Shape{Rows: rows, Vocab: vocab},
		cuda.RowParams{Temperature: temperatures.Pointer(), Seed: seeds.Pointer()},
		cuda.Tokens{Tokens: tokens.Pointer(), Status: statuses.Pointer()})
	if err != nil {
		log.Fatal(err)
	}
	drawn, status := make([]sampling.Token, rows), make([]sampling.Status, rows)
	err = errors.Join(cuda.CopyToHost(stream, drawn, tokens, 0), cuda.CopyToHost(stream, status, statuses, 0))
	if err != nil {
		log.Fatal(err)
	}
	log.Println(drawn, status)
}

// Drafts of four tokens each are verified for eight sequences. The parameters, seeds and
// positions of sequences are in device memory in a server; here all share them.
func ExampleVerifier_VerifyDevice() {
	device, err := cuda.Open(0)
	if err != nil {
		log.Print(err)
		return
	}
	defer device.Close()
	stream, err := device.NewStream()
	if err != nil {
		log.Fatal(err)
	}
	const sequences, drafts, vocab = 8, 4, 50304
	allocate := func(bytes int) *cuda.Buffer {
		b, err := device.Allocate(bytes)
		if err == nil {
			err = cuda.Fill(stream, b, 0)
		}
		if err != nil {
			log.Fatal(err)
		}
		return b
	}
	target := allocate(sequences * (drafts + 1) * vocab * 2)
	draft := allocate(sequences * drafts * vocab * 2)
	drafted, tokens := allocate(sequences*drafts*4), allocate(sequences*(drafts+1)*4)
	accepted := allocate(sequences * 4)
	workspace := allocate(cuda.VerifyBytes(sequences)) // 0 before the first call
	params := sampling.Params{Temperature: 0.8, TopP: 0.95, Seed: 1}
	verifier, err := device.NewVerifier(params, sampling.Params{Temperature: 0.8}, cuda.VerifierOptions{})
	if err != nil {
		log.Fatal(err)
	}
	err = verifier.VerifyDevice(stream,
		cuda.Logits{Pointer: target.Pointer(), DType: cuda.BFloat16},
		cuda.VerifyShape{Sequences: sequences, Drafts: drafts, Vocab: vocab},
		cuda.RowParams{}, cuda.RowParams{},
		cuda.Drafts{Tokens: drafted.Pointer(), Logits: draft.Pointer()},
		cuda.Verified{Tokens: tokens.Pointer(), Accepted: accepted.Pointer()},
		cuda.Workspace{Pointer: workspace.Pointer(), Bytes: workspace.Bytes()})
	if err != nil {
		log.Fatal(err)
	}
	if err := stream.Synchronize(); err != nil {
		log.Fatal(err)
	}
	stand := make([]int32, sequences)
	if err := cuda.CopyToHost(stream, stand, accepted, 0); err != nil {
		log.Fatal(err)
	}
	log.Println(stand)
}
