package sampling_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/sampling/samplingtest"
	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// From a stream of a row comes the token of the row.
func TestSampleTop(t *testing.T) {
	t.Run("float32", testSampleTop[float32])
	t.Run("float16", testSampleTop[topk.Float16])
	t.Run("bfloat16", testSampleTop[topk.BFloat16])
}

func testSampleTop[T topk.Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 50))
	compared, greedy, ended, kinds := 0, 0, 0, topktest.Rows()
	for range 3000 {
		vocab := 8 + rng.IntN(300)
		logits := topktest.Convert[T](kinds[rng.IntN(len(kinds))].Make(rng, vocab))
		params, options := samplingtest.RandomParams(rng, vocab)
		if rng.IntN(2) == 0 {
			params = sampling.Params{
				Temperature: params.Temperature, TopK: 1 + rng.IntN(40), TopP: params.TopP, MinP: params.MinP, TypicalP: params.TypicalP,
				Softcap: params.Softcap, Seed: params.Seed,
			}
			options.Chain = nil
		}
		k := min(vocab, max(1, params.TopK)+rng.IntN(3))
		stream, err := topk.NewStream[T](k, topk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		half := rng.IntN(vocab)
		best := topk.NewResult[T](1, k)
		if err := errors.Join(stream.Push(logits[:half]), stream.Push(logits[half:]), stream.Finish(best)); err != nil {
			t.Fatal(err)
		}
		whole, part := newSamplerOf[T](t, params, options), newSamplerOf[T](t, params, options)
		want, wantErr := whole.Sample(logits)
		got, err := part.SampleTop(best, vocab)
		if errors.Is(err, sampling.ErrParams) && !errors.Is(wantErr, sampling.ErrParams) {
			continue // edits, or a chain that wants more
		}
		if got != want || (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("from the best %d of %d: %d, %v; from the row: %d, %v; %+v, %+v", k, vocab, got, err, want, wantErr, params, options)
		}
		compared++
		if params.Temperature == 0 {
			greedy++
		}
		if err != nil {
			ended++
		}
	}
	if compared < 500 || greedy == 0 || ended == 0 {
		t.Errorf("%d compared, %d of them greedy, %d without a token", compared, greedy, ended)
	}
}

// What the best logits cannot tell is an error.
func TestSampleTopRefuses(t *testing.T) {
	best := topk.Result[float32]{Values: []float32{3, 2, 2, 1}, Indices: []int32{7, 1, 4, 0}}
	with := func(i int, value float32, id int32) topk.Result[float32] {
		values, ids := append([]float32{}, best.Values...), append([]int32{}, best.Indices...)
		values[i], ids[i] = value, id
		return topk.Result[float32]{Values: values, Indices: ids}
	}
	params := sampling.Params{Temperature: 1, TopK: 4}
	for _, bad := range []struct {
		params sampling.Params
		best   topk.Result[float32]
		want   error
		says   string
	}{
		{sampling.Params{Temperature: 1}, best, sampling.ErrParams, "all logits"},
		{sampling.Params{Temperature: 1, TopK: 4, BannedIDs: []int32{1}}, best, sampling.ErrParams, "banned_ids"},
		{sampling.Params{Temperature: 1, TopK: 5}, best, sampling.ErrShape, "want 5"},
		{params, with(3, 1, 8), sampling.ErrShape, "outside 0 to 7"},
		{params, with(3, 1, -1), sampling.ErrShape, "outside 0 to 7"},
		{params, with(2, 2, 1), sampling.ErrShape, "order at index 2"},
		{params, with(1, 2, 5), sampling.ErrShape, "order at index 2"},
		{params, with(3, 2.5, 0), sampling.ErrShape, "order at index 3"},
		{params, topk.Result[float32]{Values: best.Values, Indices: best.Indices[:3]}, sampling.ErrShape, "best 3"},
	} {
		token, err := newSamplerOf[float32](t, bad.params, sampling.Options{}).SampleTop(bad.best, 8)
		if token != sampling.NoToken || !errors.Is(err, bad.want) || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%+v: token %d, %v; want %q", bad.params, token, err, bad.says)
		}
	}
	if _, err := new(sampling.Sampler[float32]).SampleTop(best, 8); !errors.Is(err, sampling.ErrParams) {
		t.Errorf("the zero Sampler: %v", err)
	}
}

func newSamplerOf[T topk.Float](t *testing.T, params sampling.Params, options sampling.Options) *sampling.Sampler[T] {
	t.Helper()
	s, err := sampling.New[T](params, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
