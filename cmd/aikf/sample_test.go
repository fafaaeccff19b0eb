package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

func TestSampleTable(t *testing.T) {
	file := writeNpy(t, "(5, 4)", []float32{
		1, 2, 3, 4,
		nan, 0, 0, 0,
		-infinity, -infinity, -infinity, -infinity,
		0, infinity, 0, 0,
		9, -infinity, 8, -infinity,
	})
	out, errs, code := runLine(t, nil, "sample", file, "--temperature", ".5", "--top-k", "3", "--draws", "3", "--replacement", "false", "--seed", "11", "--logprobs", "1")
	want := `row draw token status       logprob   rank  likeliest
  0    0     3 ok         -0.440190      1  3:-0.4402
  0    1     2 ok         -1.440190      2  3:-0.4402
  0    2     1 ok         -2.440190      3  3:-0.4402
  1    0    -1 nan
  1    1    -1 nan
  1    2    -1 nan
  2    0    -1 empty
  2    1    -1 empty
  2    2    -1 empty
  3    0     1 ok          0.000000      1  1:0.0000
  3    1    -1 exhausted
  3    2    -1 exhausted
  4    0     0 ok         -0.313262      1  0:-0.3133
  4    1     2 ok         -1.313262      2  0:-0.3133
  4    2    -1 exhausted
`
	if out != want || errs != "" || code != exitDone {
		t.Errorf("exit %d, errors %q, output\n%swant\n%s", code, errs, out, want)
	}
}

// Logprobs of none but the tokens.
func TestSampleOwnLogprobs(t *testing.T) {
	file := writeNpy(t, "(1, 3)", []float32{1, 2, 3})
	for want, flags := range map[string][]string{
		"row draw token status\n  0    0     2 ok\n":                                                          nil,
		"row draw token status       logprob   rank  likeliest\n  0    0     2 ok         -0.407606      1\n": {"--logprobs", "0"},
		"row draw token status       logprob   rank  likeliest\n  0    0     2 ok          0.000000      1\n": {"--processed-logprobs"},
	} {
		out, errs, code := runLine(t, nil, append([]string{"sample", file, "--temperature", "0"}, flags...)...)
		if out != want || errs != "" || code != exitDone {
			t.Errorf("%v: exit %d, errors %q, output\n%swant\n%s", flags, code, errs, out, want)
		}
	}
}

func TestSampleJSON(t *testing.T) {
	file := writeNpy(t, "(2, 3)", topk.BFloat16s([]uint16{0x3F80, 0x4000, 0x7F80, 0x4000, 0x3F80, 0}))
	out, errs, code := runLine(t, nil, "sample", file, "--temperature", "0", "--logprobs", "2", "--format", "json")
	var answer struct {
		Schema, Rows, Vocab int
		FirstRow            int `json:"first_row"`
		DType               string
		Status              []string
		Tokens              [][]int32
		Logprobs            [][][]struct {
			Token   int32
			Logprob any
			Rank    int
		}
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || errs != "" || code != exitDone {
		t.Fatalf("exit %d, errors %q, output %s: %v", code, errs, out, err)
	}
	if answer.Schema != 1 || answer.Rows != 2 || answer.Vocab != 3 || answer.DType != "bfloat16" ||
		!slices.EqualFunc(answer.Tokens, [][]int32{{2}, {0}}, slices.Equal) || !slices.Equal(answer.Status, []string{"ok", "ok"}) {
		t.Errorf("answered %s", out)
	}
	last := answer.Logprobs[0][0]
	if len(last) != 3 || last[0].Token != 2 || last[2].Token != 1 || last[2].Logprob != "-Infinity" || last[2].Rank != 2 {
		t.Errorf("logprobs of a row with +Inf: %+v", last)
	}
}

// A row's tokens do not depend on which rows are asked for, and rows that are
// equal get different ones.
func TestSampleRowsAreIndependent(t *testing.T) {
	file := writeNpy(t, "(40, 8)", make([]float32, 320))
	tokens := func(args ...string) []string {
		out, errs, code := runLine(t, nil, append([]string{"sample", file, "--seed", "2", "--draws", "2"}, args...)...)
		if errs != "" || code != exitDone {
			t.Fatalf("exit %d, errors %q", code, errs)
		}
		return strings.Split(strings.TrimSpace(out), "\n")[1:]
	}
	all := tokens()
	if some := tokens("--rows", "30:33"); !slices.Equal(some, all[60:66]) {
		t.Errorf("rows 30 to 33: %v, among all: %v", some, all[60:66])
	}
	distinct := map[string]bool{}
	for _, line := range all {
		distinct[strings.Fields(line)[2]] = true
	}
	if len(distinct) != 8 {
		t.Errorf("80 draws from 8 equal logits gave %d tokens", len(distinct))
	}
	if out, _, _ := runLine(t, nil, "explain", file, "--row", "31", "--seed", "2", "--draws", "2"); !strings.Contains(out, "draw 1: token "+strings.Fields(all[63])[2]+",") {
		t.Errorf("explain of row 31 does not draw what sample does, %s:\n%s", all[63], out)
	}
}

func TestExplainTable(t *testing.T) {
	file := writeNpy(t, "(1, 4)", []float32{1, 2, 3, 4})
	out, errs, code := runLine(t, nil, "explain", file, "--chain", "banned_ids,temperature,top_k,min_p", "--banned-ids", "3", "--temperature", ".5", "--top-k", "2", "--top", "3")
	want := `row 0 of 1, vocab 4, float32, preset vllm, seed 0, position 0

step                          kept      mass  first
banned_ids                       4  1.000000  2:0.6652 1:0.2447 0:0.0900
temperature                      4  1.000000  2:0.8668 1:0.1173 0:0.0159
top_k                            2  0.984124  2:0.8808 1:0.1192

off: min_p

status ok, kept 2 of mass 0.984124
draw 0: token 1, probability 0.119203, logit 2, raw logprob -2.440190, raw rank 3
`
	if out != want || errs != "" || code != exitDone {
		t.Errorf("exit %d, errors %q, output\n%swant\n%s", code, errs, out, want)
	}
	failing := writeNpy(t, "(1, 2)", []float32{nan, 2})
	if out, _, code := runLine(t, nil, "explain", failing); code != exitDone || !strings.Contains(out, "status nan, kept 0 of mass 0.000000\ndraw 0: none\n") {
		t.Errorf("exit %d, output\n%s", code, out)
	}
}

func TestSampleRefuses(t *testing.T) {
	file := writeNpy(t, "(1, 4)", []float32{1, 2, 3, 4})
	wantRefused(t, "0 files, want one", "sample")
	wantRefused(t, "2 files, want one", "explain", file, file)
	wantRefused(t, "no such file", "sample", file+"x")
	wantRefused(t, "--rows 2:1 of a tensor with rows 0:1", "sample", file, "--rows", "2:")
	wantRefused(t, "--row 1 of a tensor with rows 0:1", "explain", file, "--row", "1")
	wantRefused(t, "--top -1 is negative", "explain", file, "--top", "-1")
	wantRefused(t, `--format "md"`, "sample", file, "--format", "md")
	wantRefused(t, `preset "x"`, "sample", file, "--preset", "x")
	wantRefused(t, `chain[1] = "y" is not a step`, "explain", file, "--chain", "top_k,y")
	wantRefused(t, "top_p = 0 is outside (0, 1]", "sample", file, "--top-p", "0")
	wantRefused(t, "top_k: x is not an integer", "sample", file, "--top-k", "x")
	wantRefused(t, "banned_ids[1]: id 4 is outside 0 to 3", "sample", file, "--banned-ids", "1,4")
	wantRefused(t, "history[0]: id 7 is outside 0 to 3", "explain", file, "--history", "7")
	wantRefused(t, `"x" is not an id`, "explain", file, "--history", "x")
	wantRefused(t, "--jsonl reads standard input", "explain", "--jsonl", file)
	wantRefused(t, "--jsonl takes no other flags", "explain", "--jsonl", "--top-k", "3")
	for _, name := range []string{"sample", "explain"} {
		out, errs, code := runLine(t, nil, name, "--help")
		if code != exitDone || errs != "" || !strings.Contains(out, "--repetition-penalty") || !strings.Contains(out, "--preset") {
			t.Errorf("%s --help: exit %d, errors %q, output\n%s", name, code, errs, out)
		}
	}
}

func TestNumSamples(t *testing.T) {
	file := writeNpy(t, "(1, 4)", []float32{1, 2, 3, 4})
	one, _, _ := runLine(t, nil, "sample", file, "--draws", "5")
	other, _, _ := runLine(t, nil, "sample", file, "--num-samples", "5")
	if one != other || strings.Count(one, "\n") != 6 {
		t.Errorf("--draws printed\n%s--num-samples\n%s", one, other)
	}
}
