package sampling_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

// From logits to a token, and on to the next.
func ExampleSampler() {
	sampler, err := sampling.New[float32](sampling.Params{Temperature: .8, TopK: 50, Seed: 1}, sampling.Options{})
	if err != nil {
		fmt.Println(err) // names the field and its range
		return
	}
	for _, logits := range [][]float32{{1, 2, 3, 4}, {4, 3, 2, 1}, {0, 0, 0, 0}} {
		token, err := sampler.Sample(logits)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(token, " ")
		if err := sampler.Accept(token); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("at position", sampler.Position())
	// Output: 2 0 2 at position 3
}

func ExampleNew_error() {
	_, err := sampling.New[float32](sampling.Params{TopP: 1.5}, sampling.Options{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, sampling.ErrParams))
	// Output:
	// sampling: top_p = 1.5 is outside (0, 1]: invalid parameters
	// true
}

// 16-bit logits are read as they are.
func ExampleSampleLogits() {
	logits := topk.BFloat16s([]uint16{0x3F80, 0x4000, 0x4040, 0xC000}) // 1, 2, 3, -2
	tokens, err := sampling.SampleLogits(logits, 3, 0.9, 42, 3, false)
	fmt.Println(tokens, err)
	// Output: [2 1 0] <nil>
}

// A row that is made in chunks is never in one place: a stream keeps its best logits,
// and the token is that of the whole row.
func ExampleSampler_SampleTop() {
	const k = 3
	sampler, err := sampling.New[float32](sampling.Params{Temperature: .8, TopK: k, Seed: 1}, sampling.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	stream, err := topk.NewStream[float32](k, topk.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, chunk := range [][]float32{{1, 2, 3}, {4, 0, 3}, {-1}} {
		if err := stream.Push(chunk); err != nil {
			fmt.Println(err)
			return
		}
	}
	vocab, best := stream.Pushed(), topk.NewResult[float32](1, k)
	if err := stream.Finish(best); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sampler.SampleTop(best, vocab))
	fmt.Println(sampler.Sample([]float32{1, 2, 3, 4, 0, 3, -1}))
	// Output:
	// 2 <nil>
	// 2 <nil>
}

// Draws without replacement end where no token has a mass any more.
func ExampleSampler_Draw() {
	sampler, err := sampling.New[float32](sampling.Params{Temperature: 1, TopK: 2}, sampling.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	tokens := make([]sampling.Token, 3)
	err = sampler.Draw(tokens, []float32{1, 5, 4})
	fmt.Println(tokens, err)
	// Output: [1 2 -1] sampling: no further token is left
}

// Every row has its own parameters, and a bad one spoils no other.
func ExampleSampleRows() {
	var samplers []*sampling.Sampler[float32]
	for _, params := range []sampling.Params{{}, {Temperature: 1, TopK: 2, Seed: 3}, {BannedIDs: []int32{0, 1, 2}}} {
		sampler, err := sampling.New[float32](params, sampling.Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		samplers = append(samplers, sampler)
	}
	logits := []float32{1, 3, 2, 1, 3, 2, 1, 3, 2}
	tokens, status := make([]sampling.Token, 3), make([]sampling.Status, 3)
	err := sampling.SampleRows(tokens, status, samplers, logits, topk.Shape{Rows: 3, Vocab: 3})
	fmt.Println(tokens, status, err)
	// Output: [1 1 -1] [ok ok empty] <nil>
}

// What a generation does when it has to go back, or in two directions.
func ExampleSampler_Rewind() {
	sampler, err := sampling.New[float32](sampling.Params{Temperature: 1, RepetitionPenalty: 1.5, Seed: 5}, sampling.Options{Prompt: []int32{2}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := sampler.Accept(0, 1, 3); err != nil {
		fmt.Println(err)
		return
	}
	other := sampler.Clone()
	if err := other.Rewind(2); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sampler.History(), sampler.Position(), other.History(), other.Position())
	sampler.Reset()
	fmt.Println(sampler.History(), sampler.Position())
	// Output:
	// [0 1 3] 3 [0] 1
	// [] 0
}

// The kept set, and logprobs over it and over the raw logits.
func ExampleSampler_AppendKept() {
	sampler, err := sampling.New[float32](sampling.Params{Temperature: .5, TopK: 2}, sampling.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	logits := []float32{1, 3, 2.5, 0}
	token, err := sampler.Sample(logits)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, kept := range sampler.AppendKept(nil) {
		fmt.Printf("%d: logit %v, probability %.4f\n", kept.Token, kept.Logit, kept.Probability)
	}
	processed := sampler.AppendProcessedLogprobs(nil, token, 0)[0]
	raw, err := sampler.AppendLogprobs(nil, logits, token, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("token %d: %.4f, of the raw logits %.4f, rank %d\n", token, processed.Logprob, raw[0].Logprob, raw[0].Rank)
	// Output:
	// 1: logit 3, probability 0.7311
	// 2: logit 2.5, probability 0.2689
	// token 1: -0.3133, of the raw logits -0.5831, rank 1
}

// A grammar allows other tokens at each position.
func ExampleSampler_SetBitmask() {
	sampler, err := sampling.New[float32](sampling.Params{}, sampling.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	logits := []float32{1, 4, 3, 2}
	for _, allowed := range []int32{0b0101, 0b1000} {
		sampler.SetBitmask([]int32{allowed})
		token, err := sampler.Sample(logits)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(token, " ")
	}
	// Output: 2 3
}

// Parameters by name, as requests have them: an explicit zero is not the same as
// none.
func ExampleParams_Set() {
	var params sampling.Params
	if err := json.Unmarshal([]byte(`{"top_k": 40, "logit_bias": {"7": -2.5}}`), &params); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(params.Temperature, params.TopK, params.LogitBias)
	if err := params.Set("top_p", []byte("0")); err != nil {
		fmt.Println(err)
		return
	}
	_, err := sampling.New[float32](params, sampling.Options{})
	fmt.Println(err)
	_, err = sampling.New[float32](params, sampling.Options{Preset: sampling.LlamaCPP})
	fmt.Println(err)
	// Output:
	// 1 40 map[7:-2.5]
	// sampling: top_p = 0 is outside (0, 1]: invalid parameters
	// <nil>
}

// Two drafted tokens: the first stands, the second does not.
func ExampleSampler_Verify() {
	sampler, err := sampling.New[float32](sampling.Params{Temperature: 1, Seed: 1}, sampling.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	logits := []float32{9, 0, 0 /**/, 0, 0, 9 /**/, 1, 1, 1} // three rows for two drafted tokens
	tokens := make([]sampling.Token, 3)
	accepted, err := sampler.Verify(tokens, logits, 3, sampling.Draft[float32]{
		Tokens:        []sampling.Token{0, 1},
		Probabilities: []float32{.8, .1, .1 /**/, .1, .8, .1},
	})
	fmt.Println(accepted, tokens, err)
	// Output: 1 [0 2 -1] <nil>
}

func ExampleBeamStep() {
	logits := []float32{1, 2, 3 /**/, 3, 2, 1}
	candidates, err := sampling.BeamStep(logits, 3, []float32{-1, -1.5}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range candidates {
		fmt.Printf("beam %d, token %d: %.3f\n", c.Beam, c.Token, c.Score)
	}
	// Output:
	// beam 0, token 2: -1.408
	// beam 1, token 0: -1.908
	// beam 0, token 1: -2.408
	// beam 1, token 1: -2.908
}
