package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/sampling"
	"github.com/ai-kernel-factory/aikf/topk"
)

const explainExamples = `  aikf explain logits.safetensors --row 3 --temperature 0.8 --top-k 50 --top-p 0.95
  aikf explain logits.npy --preset llama.cpp --min-p 0.05 --xtc-probability 0.5 --xtc-threshold 0.1
  echo '{"id":1,"logits":[1,3,2],"params":{"top_k":2},"seed":1}' | aikf explain --jsonl

For every step of the chain: how many tokens are left, their share of the mass at
that step's temperature, and the first of them as id:probability. The token is the one
that "aikf sample" draws for the row with the same flags.

With --jsonl each line of standard input is a request and each line of standard
output its answer, written at once:
  {"id":ANY,"preset":"vllm","chain":["temperature","top_k"],"logits":[...],"params":{"top_k":50},
   "history":[ids],"prompt":[ids],"encoder":[ids],"seed":1,"position":0,"draws":1,"want":["logits"]}
  {"id":ANY,"steps":[{"name":"top_k","kept":50},...],"kept":[ids],"probs":[...],"mass":1,
   "logits":[...],"token":7,"status":"ok"}
All but logits may be left out; "probs" may stand for logits, as ln(probs). kept is what
no step removed, the largest first; probs is theirs, with the sum 1, and mass what it was
before. "draws" is answered by "tokens", and a chain with mirostat by the "mirostat_mu" of
the next request. status is ok, nan, empty or exhausted. Numbers
that are not finite are "NaN", "Infinity" and "-Infinity". A bad line is answered by
{"id":ANY,"error":"..."}; the exit code is then 2 at the end.
` + paramsHelp

func runExplain(ctx context.Context, args []string, c console) error {
	flags := newFlagsShown("explain", "FILE[:tensor] [flags] | --jsonl", explainExamples, c, printSamplingFlags)
	row := flags.Int("row", 0, "which `row`")
	top := flags.Int("top", 5, "how many `tokens` of each step")
	jsonl := flags.Bool("jsonl", false, "answer requests from standard input")
	chosen := addSamplingFlags(flags)
	files, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	if *jsonl {
		switch {
		case len(files) > 0:
			return usageErrorf("explain: --jsonl reads standard input, not %s", quote(files[0]))
		case flags.NFlag() > 1:
			return usageErrorf("explain: --jsonl takes no other flags, each request says all")
		}
		return serveRequests(ctx, c, "explain", &explainServer{})
	}
	switch {
	case len(files) != 1:
		return usageErrorf("explain: %d files, want one; \"aikf explain --help\" shows examples", len(files))
	case *top < 0:
		return usageErrorf("explain: --top %d is negative", *top)
	}
	out := bufio.NewWriter(c.out)
	if err := explainFile(out, files[0], *row, *top, chosen); err != nil {
		return err
	}
	return out.Flush()
}

// explainFile explains one row of the tensor spec.
func explainFile(w *bufio.Writer, spec string, row, top int, chosen *samplingFlags) error {
	f, err := tensorfile.Open(spec)
	if err != nil {
		return usageErrorf("%w", err)
	}
	defer f.Close()
	if row < 0 || row >= f.Rows {
		return usageErrorf("explain: --row %d of a tensor with rows 0:%d", row, f.Rows)
	}
	switch f.DType {
	case tensorfile.Float16:
		return explainRow[topk.Float16](w, f, row, top, chosen)
	case tensorfile.BFloat16:
		return explainRow[topk.BFloat16](w, f, row, top, chosen)
	}
	return explainRow[float32](w, f, row, top, chosen)
}

func explainRow[T topk.Float](w *bufio.Writer, f *tensorfile.File, row, top int, chosen *samplingFlags) error {
	logits := make([]T, f.Vocab)
	if err := tensorfile.ReadRows(logits, f, row); err != nil {
		return usageOf(err)
	}
	sampler, err := newSampler[T](chosen, row)
	if err != nil {
		return err
	}
	e, err := sampler.Explain(logits, top)
	if err != nil {
		return usageOf(err)
	}
	preset := chosen.options.Preset
	if preset == "" {
		preset = sampling.VLLM
	}
	fmt.Fprintf(w, "row %d of %d, vocab %d, %s, preset %s, seed %d, position %d\n\n",
		row, f.Rows, f.Vocab, f.DType, preset, chosen.params.Seed, sampler.Position())
	writeSteps(w, e)
	if err := writeTokens(w, e, sampler, logits); err != nil && !errors.Is(err, sampling.ErrParams) {
		return err
	}
	return nil
}

// writeSteps writes a line for each step that is on.
func writeSteps(w *bufio.Writer, e *sampling.Explanation) {
	const columns = "%-24s %9v %9v  %s\n"
	fmt.Fprintf(w, columns, "step", "kept", "mass", "first")
	var off []string
	for _, step := range e.Steps {
		if !step.On {
			off = append(off, string(step.Step))
			continue
		}
		var first []string
		for _, candidate := range step.Top {
			first = append(first, fmt.Sprintf("%d:%.4f", candidate.Token, candidate.Probability))
		}
		fmt.Fprintf(w, columns, step.Step, step.Kept, fmt.Sprintf("%.6f", step.Mass), strings.Join(first, " "))
	}
	if len(off) > 0 {
		fmt.Fprintf(w, "\noff: %s\n", strings.Join(off, " "))
	}
}

// writeTokens writes what was drawn, and how likely that was.
func writeTokens[T topk.Float](w *bufio.Writer, e *sampling.Explanation, sampler *sampling.Sampler[T], logits []T) error {
	fmt.Fprintf(w, "\nstatus %s, kept %d of mass %.6f\n", e.Status, len(e.Kept), e.Mass)
	probabilities := make(map[sampling.Token]sampling.Candidate)
	for _, candidate := range e.Kept {
		probabilities[candidate.Token] = candidate
	}
	for i, token := range e.Tokens {
		if token == sampling.NoToken {
			fmt.Fprintf(w, "draw %d: none\n", i)
			continue
		}
		raw, err := sampler.AppendLogprobs(nil, logits, token, 0)
		if err != nil {
			return err
		}
		drawn := probabilities[token]
		fmt.Fprintf(w, "draw %d: token %d, probability %.6f, logit %s, raw logprob %s, raw rank %d\n", i, token,
			drawn.Probability, appendFloat(nil, drawn.Logit), strconv.FormatFloat(float64(raw[0].Logprob), 'f', 6, 32), raw[0].Rank)
	}
	return nil
}
