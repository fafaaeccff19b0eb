package main

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/sampling"
)

// explained is an answer of "aikf explain --jsonl".
type explained struct {
	ID    json.RawMessage `json:"id"`
	Error string          `json:"error"`
	Steps []struct {
		Name string `json:"name"`
		Kept int    `json:"kept"`
	} `json:"steps"`
	Kept   []int32   `json:"kept"`
	Probs  []float64 `json:"probs"`
	Mass   float64   `json:"mass"`
	Logits []any     `json:"logits"`
	Token  *int32    `json:"token"`
	Tokens []int32   `json:"tokens"`
	Status string    `json:"status"`
}

func explain(t *testing.T, request string) explained {
	t.Helper()
	out, errs, code := runLine(t, strings.NewReader(request), "explain", "--jsonl")
	if errs != "" || code != exitDone {
		t.Fatalf("%s\nexit %d, errors %q, answer %s", request, code, errs, out)
	}
	var answer explained
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%s\nanswered %s: %v", request, out, err)
	}
	return answer
}

func TestExplainRequests(t *testing.T) {
	for request, want := range map[string]string{
		`{"id":1,"chain":["top_k"],"logits":[1,3,2,3],"params":{"top_k":3}}`:                                                   `{"id":1,"steps":[{"name":"top_k","kept":3}],"kept":[1,3,2],"probs":[0.422318801934969,0.422318801934969,0.155362396130062],"mass":0.945935408,"token":1,"status":"ok"}`,
		`{"logits":[0,0],"chain":[],"draws":4,"seed":5,"position":9}`:                                                          `{"id":null,"steps":[],"kept":[0,1],"probs":[0.5,0.5],"mass":1,"tokens":[1,1,0,0],"status":"ok"}`,
		`{"logits":[0,0],"chain":[],"draws":3,"params":{"replacement":false}}`:                                                 `{"id":null,"steps":[],"kept":[0,1],"probs":[0.5,0.5],"mass":1,"tokens":[0,1,-1],"status":"exhausted"}`,
		`{"logits":["Infinity",1],"chain":["logit_bias"],"params":{"logit_bias":{"1":2.5}},"want":["logits"]}`:                 `{"id":null,"steps":[{"name":"logit_bias","kept":2}],"kept":[0,1],"probs":[1,0],"mass":1,"logits":["Infinity",3.5],"token":0,"status":"ok"}`,
		`{"logits":["NaN",1],"chain":["top_k"],"params":{"top_k":1}}`:                                                          `{"id":null,"steps":[],"kept":[],"probs":[],"mass":0,"token":-1,"status":"nan"}`,
		`{"logits":["NaN",1],"chain":["banned_ids"],"params":{"banned_ids":[0]},"want":["logits"]}`:                            `{"id":null,"steps":[{"name":"banned_ids","kept":2}],"kept":[1,0],"probs":[1,0],"mass":1,"logits":["-Infinity",1],"token":1,"status":"ok"}`,
		`{"logits":[1,2],"chain":["bitmask"],"params":{"grammar_bitmask":[0]},"draws":1}`:                                      `{"id":null,"steps":[{"name":"bitmask","kept":2}],"kept":[],"probs":[],"mass":0,"tokens":[-1],"token":-1,"status":"empty"}`,
		`{"id":"a","preset":"llama.cpp","probs":[0.25,0.5,0,0.25],"chain":["min_p"],"params":{"min_p":0.5},"want":["logits"]}`: `{"id":"a","steps":[{"name":"min_p","kept":3}],"kept":[1,0,3],"probs":[0.5,0.25,0.25],"mass":1,"logits":[-1.3862944,-0.6931472,"-Infinity",-1.3862944],"token":0,"status":"ok"}`,
		`{"logits":[0,0],"chain":["mirostat_v2"],"params":{"mirostat_tau":3,"mirostat_eta":0.5}}`:                              `{"id":null,"steps":[{"name":"mirostat_v2","kept":2}],"kept":[0,1],"probs":[0.5,0.5],"mass":1,"token":0,"mirostat_mu":7,"status":"ok"}`,
		`{"logits":[1,2,3],"params":{"temperature":0},"chain":["temperature","top_k"]}`:                                        `{"id":null,"steps":[{"name":"temperature","kept":1},{"name":"top_k","kept":1}],"kept":[2],"probs":[1],"mass":1,"token":2,"status":"ok"}`,
	} {
		out, errs, code := runLine(t, strings.NewReader(request), "explain", "--jsonl")
		if errs != "" || code != exitDone {
			t.Errorf("%s\nexit %d, errors %q", request, code, errs)
		}
		if !sameJSON(t, out, want) {
			t.Errorf("%s\nanswered %swant     %s", request, out, want)
		}
	}
}

// sameJSON compares two objects, numbers to nine digits.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		t.Fatalf("%s or %s is not JSON", a, b)
	}
	return same(x, y)
}

func same(x, y any) bool {
	switch x := x.(type) {
	case float64:
		y, ok := y.(float64)
		return ok && math.Abs(x-y) <= 1e-6*math.Max(1, math.Abs(x))
	case []any:
		y, ok := y.([]any)
		return ok && slices.EqualFunc(x, y, same)
	case map[string]any:
		y, ok := y.(map[string]any)
		for name, value := range x {
			ok = ok && same(value, y[name])
		}
		return ok && len(x) == len(y)
	}
	return x == y
}

func TestExplainListsTheChain(t *testing.T) {
	for _, preset := range sampling.Presets() {
		answer := explain(t, `{"preset":"`+string(preset)+`","logits":[1,2,3,4,5,6],"params":{"top_k":3,"temperature":0.5}}`)
		var names []string
		for _, step := range answer.Steps {
			names = append(names, step.Name)
			want := 6
			if slices.Contains(names, "top_k") {
				want = 3
			}
			if step.Kept != want {
				t.Errorf("%s: %d kept behind %s, want %d", preset, step.Kept, step.Name, want)
			}
		}
		var want []string
		for _, step := range preset.Chain() {
			want = append(want, string(step))
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: steps %v, want %v", preset, names, want)
		}
		if !slices.Equal(answer.Kept, []int32{5, 4, 3}) || answer.Status != "ok" || answer.Token == nil || *answer.Token < 3 {
			t.Errorf("%s: %+v", preset, answer)
		}
	}
}

func TestBadExplainRequests(t *testing.T) {
	for request, want := range map[string]string{ // a part of the error
		`{"id":1}`:                                                              `want one of the fields \"logits\" and \"probs\"`,
		`{"id":1,"logits":[1],"probs":[1]}`:                                     `want one of the fields`,
		`{"id":1,"logits":[]}`:                                                  "vocab = 0 is outside 1 to 1048576",
		`{"id":1,"logits":7}`:                                                   "logits: want an array",
		`{"id":1,"logits":[1,"x"]}`:                                             "logits[1]: want a number",
		`{"id":1,"logits":[[1]]}`:                                               "logits[0]: want a number",
		`{"id":1,"probs":[-0.5]}`:                                               "probs[0] = -0.5 is outside [0, +Inf)",
		`{"id":1,"logits":[1],"preset":"gpt"}`:                                  `preset \"gpt\", want one of`,
		`{"id":1,"logits":[1],"chain":["topk"]}`:                                `chain[0] = \"topk\" is not a step`,
		`{"id":1,"logits":[1],"chain":null}`:                                    "chain: null",
		`{"id":1,"logits":[1],"chain":"top_k"}`:                                 "chain: ",
		`{"id":1,"logits":[1],"params":[]}`:                                     "params: ",
		`{"id":1,"logits":[1],"params":null}`:                                   "params: want a JSON object",
		`{"id":1,"logits":[1],"params":{"topk":1}}`:                             `unknown parameter \"topk\"`,
		`{"id":1,"logits":[1],"params":{"top_k":1.5}}`:                          "top_k: 1.5 is not an integer",
		`{"id":1,"logits":[1],"params":{"top_p":"1"}}`:                          `top_p: \"1\" is not a number`,
		`{"id":1,"logits":[1],"params":{"top_p":0}}`:                            "top_p = 0 is outside (0, 1]",
		`{"id":1,"logits":[1],"params":{"top_p":1.5}}`:                          "top_p = 1.5 is outside (0, 1]",
		`{"id":1,"logits":[1],"params":{"min_p":-0.5}}`:                         "min_p = -0.5 is outside [0, 1]",
		`{"id":1,"logits":[1],"params":{"temperature":-1}}`:                     "temperature = -1 is outside [0, +Inf)",
		`{"id":1,"logits":[1],"params":{"temperature":"NaN"}}`:                  "temperature = NaN is outside [0, +Inf)",
		`{"id":1,"logits":[1],"params":{"temperature":"Infinity"}}`:             "temperature = +Inf is outside [0, +Inf)",
		`{"id":1,"logits":[1],"params":{"temperature":1e39}}`:                   "temperature: 1e39 overflows float32",
		`{"id":1,"logits":[1],"params":{"repetition_penalty":0}}`:               "repetition_penalty = 0 is outside (0, +Inf)",
		`{"id":1,"logits":[1],"params":{"logit_bias":{"1":2}}}`:                 "logit_bias: id 1 is outside 0 to 0",
		`{"id":1,"logits":[1],"params":{"logit_bias":{"-1":2}}}`:                "logit_bias: id -1 is negative",
		`{"id":1,"logits":[1],"params":{"logit_bias":{"0":"NaN"}}}`:             "logit_bias of 0 = NaN",
		`{"id":1,"logits":[1],"params":{"allowed_ids":[]}}`:                     "allowed_ids is empty",
		`{"id":1,"logits":[1],"params":{"banned_ids":[5]}}`:                     "banned_ids[0]: id 5 is outside 0 to 0",
		`{"id":1,"logits":[1],"params":{"bad_words":[[]]}}`:                     "bad_words[0] is empty",
		`{"id":1,"logits":[1],"params":{"draws":2},"draws":2}`:                  "draws comes in params and beside them",
		`{"id":1,"logits":[1],"draws":0}`:                                       "draws = 0 is less than 1",
		`{"id":1,"logits":[1],"draws":1000000000}`:                              "draws = 1000000000 exceeds",
		`{"id":1,"logits":[1],"seed":-1}`:                                       "seed: -1 is not an integer from 0 to 2^64-1",
		`{"id":1,"logits":[1],"history":[3]}`:                                   "history[0]: id 3 is outside 0 to 0",
		`{"id":1,"logits":[1],"prompt":[-1]}`:                                   "prompt[0]: id -1 is outside 0 to 0",
		`{"id":1,"logits":[1],"want":["probs"]}`:                                `want: \"probs\", want \"logits\"`,
		`{"id":1,"logits":[1],"top_k":1}`:                                       `unknown field \"top_k\"`,
		`{"id":1,"logits":[1],"logits":[1]}`:                                    `field \"logits\" comes twice`,
		`{"id":1,"logits":[1],"params":{"top_k":1,"top_k":2}}`:                  `\"top_k\" comes twice`,
		`{"id":1,"logits":[1],"params":{"sequence_bias":[[[],1]]}}`:             "sequence_bias[0] has no ids",
		`{"id":1,"logits":[1],"params":{"sequence_bias":[[[0],1,2]]}}`:          "sequence_bias: [0]: not a pair",
		`{"id":1,"logits":[1],"params":{"mirostat_tau":-1},"chain":["dry"]}`:    "mirostat_tau = -1 is outside",
		`{"id":1,"logits":[1],"params":{"adaptive_target":1.5}}`:                "adaptive_target = 1.5 is outside",
		`{"id":1,"logits":[1],"params":{"softcap":-1}}`:                         "softcap = -1 is outside [0, +Inf)",
		`{"id":1,"logits":[1],"params":{"penalty_last_n":-2}}`:                  "penalty_last_n = -2 is less than -1",
		`{"id":1,"logits":[1],"params":{"epsilon_cutoff":1}}`:                   "epsilon_cutoff = 1 is outside [0, 1)",
		`{"id":1,"logits":[1],"params":{"xtc_probability":2}}`:                  "xtc_probability = 2 is outside [0, 1]",
		`{"id":1,"logits":[1],"params":{"xtc_special_ids":[9]}}`:                "xtc_special_ids[0]: id 9 is outside",
		`{"id":1,"logits":[1],"params":{"min_keep":-1}}`:                        "min_keep = -1 is less than 0",
		`{"id":1,"logits":[1],"params":{"forced_ids":[-2]}}`:                    "forced_ids[0]: id -2 is negative",
		`{"id":1,"logits":[1],"params":{"replacement":1}}`:                      "replacement: 1, want true or false",
		`{"id":1,"logits":[1],"params":{"grammar_bitmask":[2147483648]}}`:       "grammar_bitmask: [0]: 2147483648 is not an integer",
		`{"id":1,"preset":"mlx","logits":[1],"params":{"top_p":-0.1}}`:          "top_p = -0.1 is outside [0, 1]",
		`{"id":1,"preset":"llama.cpp","logits":[1],"params":{"top_p":"NaN"}}`:   "top_p = NaN is outside [-Inf, +Inf]",
		`{"id":1,"preset":"nanochat","logits":[1],"params":{"temperature":-1}}`: "temperature = -1 is outside",
	} {
		out, errs, code := runLine(t, strings.NewReader(request), "explain", "--jsonl")
		if !strings.HasPrefix(out, `{"id":1,"error":"`) || !strings.Contains(out, want) || code != exitUsage || !strings.Contains(errs, "1 of 1 requests were bad") {
			t.Errorf("%s\nanswered %swant     %s\nexit %d, errors %q", request, out, want, code, errs)
		}
	}
}

// Zeros that a preset takes as its system does.
func TestExplicitZeros(t *testing.T) {
	for request, want := range map[string][]int32{
		`{"preset":"llama.cpp","params":{"top_p":0}`:         {2},
		`{"preset":"hf","params":{"top_p":0}`:                {2},
		`{"preset":"ollama","params":{"top_p":0}`:            {2},
		`{"preset":"mlx","params":{"top_p":0}`:               {2, 1, 0},
		`{"preset":"vllm","params":{"min_p":0}`:              {2, 1, 0},
		`{"preset":"vllm","params":{"temperature":0}`:        {2},
		`{"preset":"vllm","params":{"temperature":0.000009}`: {2},
		`{"preset":"llama.cpp","params":{"temperature":-1}`:  {2},
		`{"preset":"ollama","params":{"temperature":-1}`:     {2},
		`{"preset":"llama.cpp","params":{"min_p":1.5}`:       {2},
		`{"preset":"llama.cpp","params":{"top_k":0}`:         {2, 1, 0},
		`{"preset":"vllm","params":{"top_k":-1}`:             {2, 1, 0},
		`{"preset":"vllm","params":{"top_k":99}`:             {2, 1, 0},
	} {
		answer := explain(t, request+`,"logits":[1,2,3]}`)
		if !slices.Equal(answer.Kept, want) {
			t.Errorf("%s: kept %v, want %v", request, answer.Kept, want)
		}
	}
}

func TestPositionIsNotMovedByHistory(t *testing.T) {
	alone := explain(t, `{"logits":[0,0,0,0,0,0,0,0,0,0],"draws":20,"seed":3,"position":4}`)
	behind := explain(t, `{"logits":[0,0,0,0,0,0,0,0,0,0],"draws":20,"seed":3,"position":4,"history":[1,2,3]}`)
	elsewhere := explain(t, `{"logits":[0,0,0,0,0,0,0,0,0,0],"draws":20,"seed":3,"position":5}`)
	if !slices.Equal(alone.Tokens, behind.Tokens) || slices.Equal(alone.Tokens, elsewhere.Tokens) {
		t.Errorf("tokens %v, behind a history %v, at another position %v", alone.Tokens, behind.Tokens, elsewhere.Tokens)
	}
}

func FuzzExplainRequest(f *testing.F) {
	for _, line := range []string{
		`{"id":1,"preset":"vllm","chain":["temperature","top_k"],"logits":[1,2,3],"params":{"top_k":2,"temperature":0.5},"history":[1],"prompt":[2],"encoder":[0],"seed":7,"position":3,"draws":2,"want":["logits"]}`,
		`{"probs":[0.1,0.2,0.7],"params":{"top_p":0.5,"typical_p":0.9,"xtc_probability":1,"xtc_threshold":0.1},"preset":"llama.cpp"}`,
		`{"logits":["NaN","Infinity",-0],"params":{"logit_bias":{"1":-1},"bad_words":[[1,2]],"sequence_bias":[[[0],1.5]],"dry_multiplier":1},"history":[0,1,0,1]}`,
		`{"logits":[1,2],"chain":["mirostat_v1","mirostat_v2","adaptive_p","p_less","top_h"],"params":{"adaptive_target":0.5,"top_h":0.5}}`,
		`{"logits":[1,2],"params":{"grammar_bitmask":[1],"forced_ids":[-1,1],"min_tokens":2,"eos_ids":[0],"softcap":3,"replacement":false},"draws":4}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		server := &explainServer{}
		answer, err := server.answer(inputLine{text: line})
		if err != nil {
			answer = server.refuse(err)
		}
		if !json.Valid(answer) || bytes.Count(answer, []byte{'\n'}) != 1 {
			t.Fatalf("%q answered %q", line, answer)
		}
		again, err2 := (&explainServer{}).answer(inputLine{text: line})
		if err == nil && (err2 != nil || !bytes.Equal(answer, again)) {
			t.Fatalf("%q answered %q, then %q, %v", line, answer, again, err2)
		}
		if err != nil {
			return
		}
		var got explained
		if json.Unmarshal(answer, &got) != nil {
			return // an id that Go's JSON refuses, such as 1e999
		}
		sum := 0.0
		for _, p := range got.Probs {
			sum += p
		}
		if got.Status == "ok" && (math.Abs(sum-1) > 1e-6 || len(got.Kept) != len(got.Probs) || len(got.Kept) == 0) {
			t.Fatalf("%q answered %q", line, answer)
		}
		for _, token := range got.Tokens {
			if token != -1 && !slices.Contains(got.Kept, token) {
				t.Fatalf("%q drew %d, which is not kept: %q", line, token, answer)
			}
		}
	})
}
