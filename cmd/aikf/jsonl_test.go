package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/internal/tensorfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

func TestRequestsAreAnswered(t *testing.T) {
	for request, want := range map[string]string{
		`{"id":1,"x":[[0.5,2,-1,2],[4,3,2,1]],"k":2,"largest":true,"dtype":"float32"}`: `{"id":1,"values":[[2,2],[4,3]],"indices":[[1,3],[0,1]]}`,
		`{"x":[0.5,2,-1,2],"k":2}`: `{"id":null,"values":[2,2],"indices":[1,3]}`,
		` { "k" : 1 , "largest" : false , "x" : [ [ 3 , 1 ] ] , "id" : { "a": [1e999, "\"}"] } } `:             `{"id":{ "a": [1e999, "\"}"] },"values":[[1]],"indices":[[1]]}`,
		`{"id":"é\u00e9","x":["NaN","Infinity","-Infinity",0],"k":4}`:                                          `{"id":"é\u00e9","values":["NaN","Infinity",0,"-Infinity"],"indices":[0,1,3,2]}`,
		`{"id":null,"x":["NaN",-0,0],"k":3,"largest":false}`:                                                   `{"id":null,"values":[-0,0,"NaN"],"indices":[1,2,0]}`,
		`{"x":[1.00390625,1.005859375,0.1],"k":3,"dtype":"bfloat16"}`:                                          `{"id":null,"values":[1.0078125,1,0.100097656],"indices":[1,0,2]}`,
		`{"x":[1.0039062500000000001,1.00390625,1.0117187499999999999,1e-999999999],"k":4,"dtype":"bfloat16"}`: `{"id":null,"values":[1.0078125,1.0078125,1,0],"indices":[0,2,1,3]}`,
		`{"x":[65519,2049,2051,5e-324],"k":4,"dtype":"float16"}`:                                               `{"id":null,"values":[65504,2052,2048,0],"indices":[0,2,1,3]}`,
		`{"x":[16777217,1e-46,-1e-46],"k":3}`:                                                                  `{"id":null,"values":[16777216,0,-0],"indices":[0,1,2]}`,
		`{"\u0078":[1],"k":1}`:                                                                                 `{"id":null,"values":[1],"indices":[0]}`,
		`{"x":[1,2],"k":0}`:                                                                                    `{"id":null,"values":[],"indices":[]}`,
		`{"x":[],"k":0}`:                                                                                       `{"id":null,"values":[],"indices":[]}`,
		`{"x":[[],[]],"k":0}`:                                                                                  `{"id":null,"values":[[],[]],"indices":[[],[]]}`,
		`{"x":[1,2],"k":-0}`:                                                                                   `{"id":null,"values":[],"indices":[]}`,
	} {
		out, errs, code := runLine(t, strings.NewReader(request), "topk", "--jsonl")
		if out != want+"\n" || errs != "" || code != exitDone {
			t.Errorf("%s\nanswered %swant     %s\nexit %d, errors %q", request, out, want, code, errs)
		}
	}
}

func TestBadRequestsAreAnswered(t *testing.T) {
	const deep = "[[[["
	for request, want := range map[string][2]string{ // the id and a part of the error
		`{"id":1,"x":[1,2],"k":3}`:                            {"1", "k = 3 exceeds vocab = 2"},
		`{"id":1,"x":[1,2],"k":-1}`:                           {"1", "k = -1 is negative"},
		`{"x":[1,2],"k":2147483647,"id":1}`:                   {"1", "k = 2147483647 exceeds vocab = 2"},
		`{"x":[1,2],"k":9223372036854775808,"id":1}`:          {"1", `k: \"9223372036854775808\" is not an integer`},
		`{"x":[1,2],"k":1.0,"id":1}`:                          {"1", `k: \"1.0\" is not an integer`},
		`{"x":[1,2],"k":"1","id":1}`:                          {"1", "is not an integer"},
		`{"x":[1,2],"k":+1,"id":1}`:                           {"1", `k: \"+1\" is not an integer`},
		`{"x":[1,2],"k":01,"id":1}`:                           {"1", `k: \"01\" is not an integer`},
		`{"x":[1,2],"k":null,"id":1}`:                         {"1", `k: \"null\" is not an integer`},
		`{"x":[1,2],"id":1}`:                                  {"1", `no field \"k\"`},
		`{"k":1,"id":1}`:                                      {"1", `no field \"x\"`},
		`{"x":[1],"k":1,"K":2,"id":1}`:                        {"1", `unknown field \"K\", want id, x, k, largest or dtype`},
		`{"x":[1],"k":1,"smallest":true,"id":1}`:              {"1", `unknown field \"smallest\"`},
		`{"x":[1],"k":1,"k":1,"id":1}`:                        {"1", `field \"k\" comes twice`},
		`{"id":1,"x":[1],"k":1,"id":2}`:                       {"1", `field \"id\" comes twice`},
		`{"x":[1],"k":1,"largest":1,"id":1}`:                  {"1", `largest: \"1\", want true or false`},
		`{"x":[1],"k":1,"dtype":"fp16","id":1}`:               {"1", `dtype \"fp16\", want float32, float16 or bfloat16`},
		`{"x":[1],"k":1,"dtype":16,"id":1}`:                   {"1", `dtype: \"16\" is not a string`},
		`{"x":[[1,2],[3]],"k":1,"id":1}`:                      {"1", "x[1] has 1 numbers, x[0] has 2"},
		`{"x":[[1,2],[]],"k":1,"id":1}`:                       {"1", "x[1] has 0 numbers, x[0] has 2"},
		`{"x":[[1,2],3],"k":1,"id":1}`:                        {"1", `x[1]: want a row of numbers, not \"3]\" at byte 12`},
		`{"x":[1,[2]],"k":1,"id":1}`:                          {"1", "x[1]: want a number"},
		`{"x":[[[1]]],"k":1,"id":1}`:                          {"1", "x[0][0]: want a number"},
		`{"x":` + deep + `,"k":1,"id":1}`:                     {"null", "want ',' or '}', not the end after 23 bytes"},
		`{"x":7,"k":1,"id":1}`:                                {"1", `x: want an array, not \"7`},
		`{"x":"NaN","k":1,"id":1}`:                            {"1", "x: want an array"},
		`{"x":[null],"k":1,"id":1}`:                           {"1", "x[0]: want a number"},
		`{"x":[NaN],"k":1,"id":1}`:                            {"1", "x[0]: want a number"},
		`{"x":["nan"],"k":1,"id":1}`:                          {"1", "x[0]: want a number"},
		`{"x":["1"],"k":1,"id":1}`:                            {"1", "x[0]: want a number"},
		`{"x":[0x1p3],"k":1,"id":1}`:                          {"1", "x[0]: want ',' or ']' after it"},
		`{"x":[1_0],"k":1,"id":1}`:                            {"1", "x[0]: want ',' or ']' after it"},
		`{"x":[1.],"k":1,"id":1}`:                             {"1", "x[0]: want a number"},
		`{"x":[1,],"k":1,"id":1}`:                             {"1", "x[1]: want a number"},
		`{"x":[1 2],"k":1,"id":1}`:                            {"1", "x[0]: want ',' or ']' after it"},
		`{"x":[[1],],"k":1,"id":1}`:                           {"1", "x[1]: want a row of numbers"},
		`{"x":[[1][2]],"k":1,"id":1}`:                         {"1", "x: want ',' or ']'"},
		`{"id":1,"x":[1}],"k":1}`:                             {"1", "want ',' or '}'"},
		`{"x":[1]7,"k":1,"id":1}`:                             {"1", "x: want nothing more"},
		`{"x":[[1],[1e999]],"k":1,"id":1}`:                    {"1", `x[1][0]: \"1e999\" overflows float32`},
		`{"x":[-3.5e38],"k":1,"id":1}`:                        {"1", `\"-3.5e38\" overflows float32`},
		`{"x":[65520],"k":1,"dtype":"float16","id":1}`:        {"1", `\"65520\" overflows float16`},
		`{"x":[1e999],"k":1,"dtype":"float16","id":1}`:        {"1", `\"1e999\" overflows float16`},
		`{"x":[3.4e38],"k":1,"dtype":"bfloat16","id":1}`:      {"1", `\"3.4e38\" overflows bfloat16`},
		`{"id":tru,"x":[1],"k":1}`:                            {"null", `id: \"tru\" is not JSON`},
		"{\"id\":\"\xFF\",\"x\":[1],\"k\":1}":                 {"null", "is not JSON"},
		`{"id":1,"x":[1],"k":`:                                {"1", "want a value of field"},
		`{"id":1,"x":  ,"k":1}`:                               {"1", "want a value of field"},
		`{"id":1,"x":[1],"k":}`:                               {"1", "want a value of field"},
		`{"id":1,"x":[1,2`:                                    {"1", "want ',' or '}', not the end after 16 bytes"},
		`{"id":1,"x":"`:                                       {"1", "want ',' or '}', not the end"},
		`{"id":1,"x":[1],"k":1} {}`:                           {"1", `want the end of the line, not \"{}\" at byte 23`},
		`{"id":1,"x":[1],"k":1,}`:                             {"1", "want the name of a field"},
		`{"id":1,x:[1]}`:                                      {"1", "want the name of a field"},
		`{"id":1,"x`:                                          {"1", "want the name of a field"},
		`{"id":1,"\x":1}`:                                     {"1", "the name of a field before byte 12"},
		`{"id":1,"x" [1]}`:                                    {"1", "want ':'"},
		`{"id":1]`:                                            {"1", "want ',' or '}'"},
		`[1]`:                                                 {"null", "want a JSON object, not"},
		`{}`:                                                  {"null", `no field \"x\"`},
		`{"` + strings.Repeat("z", 1000) + `":1,"id":[1, 2]}`: {"[1, 2]", `zzz\", want id, x`},
	} {
		in := request + "\n" + `{"id":"next","x":[1],"k":1}`
		out, errs, code := runLine(t, strings.NewReader(in), "topk", "--jsonl")
		answer, next, _ := strings.Cut(out, "\n")
		if !strings.HasPrefix(answer, `{"id":`+want[0]+`,"error":"line 1: `) || !strings.Contains(answer, want[1]) || !json.Valid([]byte(answer)) {
			t.Errorf("%.200s\nanswered %s\nwant id %s and an error with %s", request, answer, want[0], want[1])
		}
		if next != `{"id":"next","values":[1],"indices":[0]}`+"\n" {
			t.Errorf("%.200s\nthe next one is answered %s", request, next)
		}
		if code != exitUsage || errs != "aikf: topk: 1 of 2 requests were bad\n" {
			t.Errorf("%.200s\nexit %d, errors %q", request, code, errs)
		}
	}
}

func TestEmptyLinesAreIgnored(t *testing.T) {
	in := "\n \r\n{\"id\":1,\"x\":[1],\"k\":1}\r\n\n{\"id\":2,\"x\":[1],\"k\":2}\n{\"id\":3,\"x\":[2],\"k\":1}"
	out, _, code := runLine(t, strings.NewReader(in), "topk", "--jsonl")
	want := `{"id":1,"values":[1],"indices":[0]}
{"id":2,"error":"line 5: topk: k = 2 exceeds vocab = 1: invalid shape"}
{"id":3,"values":[2],"indices":[0]}
`
	if out != want || code != exitUsage {
		t.Errorf("exit %d, output\n%s\nwant\n%s", code, out, want)
	}
	if out, errs, code := runLine(t, strings.NewReader(""), "topk", "--jsonl"); out != "" || errs != "" || code != exitDone {
		t.Errorf("no input: exit %d, output %q, errors %q", code, out, errs)
	}
}

// A line longer than is read is answered with its id, and the next one works.
func TestLongLines(t *testing.T) {
	var in bytes.Buffer
	in.WriteString(`{"id":"long","k":1,"x":[1`)
	in.Write(bytes.Repeat([]byte(",0"), maxLine/2))
	in.WriteString("]}\n{\"id\":2,\"k\":1,\"x\":[[")
	logits := make([]float32, 1<<20)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range logits {
		logits[i] = rng.Float32() - 0.5
		in.Write(strconv.AppendFloat(nil, float64(logits[i]), 'g', -1, 32))
		in.WriteByte(',')
	}
	in.Truncate(in.Len() - 1)
	in.WriteString("]]}\n")
	top := topk.NewResult[float32](1, 1)
	if err := topk.Select(top, logits, topk.Row(len(logits), 1)); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("{\"id\":\"long\",\"error\":\"line 1: longer than 67108864 bytes\"}\n{\"id\":2,\"values\":[[%v]],\"indices\":[[%d]]}\n",
		top.Values[0], top.Indices[0])
	out, errs, code := runLine(t, &in, "topk", "--jsonl")
	if out != want || code != exitUsage {
		t.Errorf("exit %d, errors %q, output %.300s, want %s", code, errs, out, want)
	}
}

func TestReadLine(t *testing.T) {
	reader := bufio.NewReaderSize(strings.NewReader("12345678\n"+strings.Repeat("x", 50)+"\n\nlast"), 16)
	for _, want := range []inputLine{
		{[]byte("12345678"), false, nil}, {bytes.Repeat([]byte("x"), 20), true, nil},
		{nil, false, nil}, {[]byte("last"), false, io.EOF}, {nil, false, io.EOF},
	} {
		if got := readLine(reader, 20); !bytes.Equal(got.text, want.text) || got.cut != want.cut || got.err != want.err {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// Each answer is written before the next request is asked for.
func TestAnswersAreNotHeldBack(t *testing.T) {
	in, requests := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan int)
	go func() {
		done <- run(t.Context(), []string{"topk", "--jsonl"}, console{in: in, out: out, err: io.Discard})
	}()
	reader := bufio.NewReader(answers)
	for i := range 3 {
		fmt.Fprintf(requests, "{\"id\":%d,\"x\":[%d],\"k\":1}\n", i, i)
		answer, err := reader.ReadString('\n')
		if want := fmt.Sprintf("{\"id\":%d,\"values\":[%d],\"indices\":[0]}\n", i, i); err != nil || answer != want {
			t.Fatalf("answer %q, %v, want %q", answer, err, want)
		}
	}
	requests.Close()
	if code := <-done; code != exitDone {
		t.Errorf("exit %d", code)
	}
}

// Ctrl-C ends the command while it waits for input.
func TestInterruptedWhileWaiting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in, requests := io.Pipe()
	defer requests.Close()
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"topk", "--jsonl"}, console{in: in, out: io.Discard, err: io.Discard})
	}()
	fmt.Fprintln(requests, `{"x":[1],"k":1}`)
	cancel()
	select {
	case code := <-done:
		if code != exitInterrupted {
			t.Errorf("exit %d", code)
		}
	case <-time.After(10 * time.Second):
		t.Error("still waiting")
	}
}

func TestReadErrorIsInternal(t *testing.T) {
	in := io.MultiReader(strings.NewReader(`{"x":[1],"k":1}`+"\n"), brokenReader{})
	out, errs, code := runLine(t, in, "topk", "--jsonl")
	if code != exitInternal || !strings.Contains(errs, "disk on fire") || strings.Count(out, "\n") != 1 {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, fmt.Errorf("disk on fire") }

// The grammar of numbers is that of JSON.
func TestNumberGrammar(t *testing.T) {
	const alphabet = "-+.eE019"
	words, numbers := []string{""}, 0
	for range 6 {
		var longer []string
		for _, word := range words {
			for _, c := range alphabet {
				longer = append(longer, word+string(c))
			}
		}
		words = longer
		for _, word := range words {
			valid := json.Valid([]byte(word))
			if got := numberLength([]byte(word)) == len(word); got != valid {
				t.Fatalf("%q: a number %v, in JSON %v", word, got, valid)
			}
			if valid {
				numbers++
			}
		}
	}
	if numbers < 1000 {
		t.Errorf("only %d numbers among the words", numbers)
	}
}

// Rounding to 16 bits is that of the number as a whole, not of its float32.
func TestNumbersAreRoundedOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	twice := 0
	for range 200_000 {
		// A number beside the middle of two neighbours, where errors show.
		bits := math.Float32bits(float32(rng.NormFloat64()))&0xFFFF0000 | 0x8000
		v := float64(math.Float32frombits(bits)) * (1 + float64(rng.IntN(5)-2)*0x1p-40)
		text := strconv.AppendFloat(nil, v, 'g', -1, 64)
		got, _, err := parseNumber(text, tensorfile.BFloat16)
		want, _ := new(big.Float).SetPrec(8).SetMode(big.ToNearestEven).SetFloat64(v).Float32()
		if err != nil || got != want {
			t.Fatalf("%s read as bfloat16 %v, %v, want %v", text, got, err, want)
		}
		if topk.BFloat16FromFloat32(float32(v)).Float32() != want {
			twice++
		}
	}
	if twice == 0 {
		t.Error("no number tells one rounding from two")
	}
	for text, want := range map[string]float32{
		"1.00048828125": 1, "1.000488281250001": 1.0009765625, "1.00146484375": 1.001953125, "1.001464843749999": 1.0009765625,
		"2.98023223876953125e-8": 0, "2.980232238769532e-8": 0x1p-24, "65519.999999": 65504,
	} {
		if got, _, err := parseNumber([]byte(text), tensorfile.Float16); got != want || err != nil {
			t.Errorf("%s read as float16 %v, %v, want %v", text, got, err, want)
		}
	}
}

// FuzzRequest compares what the parser accepts with encoding/json, and sees
// that every answer is one line of JSON.
func FuzzRequest(f *testing.F) {
	for _, line := range []string{
		`{"id":1,"x":[[0.5,2,-1,2],[4,3,2,1]],"k":2,"largest":true,"dtype":"float32"}`,
		`{"id":{"a":[null,"\"}"]},"x":["NaN","Infinity","-Infinity",-0],"k":4,"largest":false}`,
		`{"x":[65519,5e-324],"k":2,"dtype":"float16"}`, `{"x":[1.5E+3],"k":1,"dtype":"bfloat16"}`,
		`{"x":[[],[]],"k":0}`, `{"x":[1e999],"k":1}`, `{"x":[[1],[1,2]],"k":1,"id":"a"}`, `{"id":1,"x":[1,2`,
		`{"k":1,"k":1}`, `{"id":1]`, `{"id":1,"\u0078":[1],"k":1}}`, " \r{}", `{"x":[1}],"k":1}`, `{"x":  ,0`, `{"x":"\`,
	} {
		f.Add([]byte(line))
	}
	server := newRequestServer(topk.Options{Threads: 1}, nil)
	f.Fuzz(func(t *testing.T, line []byte) {
		var r request
		parseErr := r.parse(line)
		if parseErr == nil {
			if !json.Valid(line) {
				t.Fatalf("not JSON, but accepted: %q", line)
			}
			if len(r.x) != r.rows*r.vocab || r.single && r.rows != 1 {
				t.Fatalf("%d numbers in %d rows of %d (single: %v): %q", len(r.x), r.rows, r.vocab, r.single, line)
			}
			checkNumbers(t, r, line)
		}
		if bytes.ContainsRune(line, '\n') {
			return // never a line
		}
		answer, err := server.answer(inputLine{text: line})
		if parseErr != nil && err == nil {
			t.Fatalf("answered %s, although %v: %q", answer, parseErr, line)
		}
		if err != nil {
			answer = server.refuse(err)
		}
		if !json.Valid(answer) || bytes.IndexByte(answer, '\n') != len(answer)-1 {
			t.Fatalf("answered %q: %q", answer, line)
		}
		if want := append([]byte(`{"id":`), r.id...); !bytes.HasPrefix(answer, want) {
			t.Fatalf("answered %q without the id %s: %q", answer, r.id, line)
		}
	})
}

// checkNumbers compares the numbers of a float32 request with encoding/json's.
func checkNumbers(t *testing.T, r request, line []byte) {
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		t.Fatal(err)
	}
	if r.dtype != tensorfile.Float32 {
		return
	}
	rows := fields["x"].([]any)
	if r.single {
		rows = []any{rows}
	}
	i := 0
	for _, row := range rows {
		for _, number := range row.([]any) {
			text, want := fmt.Sprint(number), r.x[i]
			if v, err := strconv.ParseFloat(text, 32); err != nil || float32(v) != want && want == want {
				t.Fatalf("number %d is %v, want %s: %q", i, want, text, line)
			}
			i++
		}
	}
	if i != len(r.x) {
		t.Fatalf("%d numbers, want %d: %q", len(r.x), i, line)
	}
}
