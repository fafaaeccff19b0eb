package bench

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/topk"
)

// fakePeer is the other software in tests: the test program itself, started in
// the place of a Python. It answers like peers.py, and as manner says.
func fakePeer(manner string) {
	if manner == "absent" {
		fmt.Fprintln(os.Stderr, "No module named "+os.Args[2])
		os.Exit(3)
	}
	if manner == "nameless" {
		fmt.Println(`{}`)
		os.Exit(0)
	}
	fmt.Println(`{"version": "9.8.7"}`)
	var request struct {
		Logits, Values, Indices string
		Inputs, Batch, Vocab    int
		TopK                    int `json:"top_k"`
		DType                   DType
		SortIndices             string `json:"sort_indices"`
		Conditions              []Condition
		Calls                   *int
		Refresh                 string
		Answers                 bool
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if manner == "dies" {
			os.Exit(1)
		}
		request.Calls, request.Refresh, request.SortIndices = nil, "", ""
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			panic(err)
		}
		if request.Calls != nil {
			fmt.Printf(`{"calls": %d}`+"\n", *request.Calls)
			continue
		}
		if request.Refresh != "" {
			fmt.Println(`{"refreshed": true}`)
			continue
		}
		raw, err := os.ReadFile(request.Logits)
		if err != nil {
			panic(err)
		}
		row := make([]topk.BFloat16, request.Vocab)
		var values []float32
		var indices []int32
		for len(raw) > 0 {
			if _, err := binary.Decode(raw, binary.LittleEndian, row); err != nil {
				panic(err)
			}
			raw = raw[2*len(row):]
			for _, index := range bySort(row, request.TopK) {
				values, indices = append(values, widen(row[index])), append(indices, index)
			}
		}
		sorted := slices.Clone(indices)
		switch manner {
		case "sort":
			sorted[0]++
		case "values":
			values[len(values)-1]++
		case "ties":
			indices[len(indices)-1]++
		case "short":
			values = values[1:]
		case "timeless":
			fmt.Println(`{"method": "magic", "dtype": "bfloat16"}`)
			continue
		case "fails":
			fmt.Println(`{"error": "out of luck"}`)
			continue
		}
		files := map[string]any{request.Values: values, request.Indices: indices}
		if request.SortIndices != "" {
			files[request.SortIndices] = sorted
		}
		for file, entries := range files {
			answer, err := binary.Append(nil, binary.LittleEndian, entries)
			if err == nil {
				err = os.WriteFile(file, answer, 0o600)
			}
			if err != nil {
				panic(err)
			}
		}
		if request.Answers {
			fmt.Println(`{}`)
			continue
		}
		const times = `"us": 30.25, "us_p10": 30, "us_p90": 31, "samples": 12`
		if len(request.Conditions) == 0 {
			fmt.Println(`{` + times + `, "method": "magic", "dtype": "bfloat16"}`)
			continue
		}
		// On a GPU everything but eager calls works.
		var all []string
		for _, c := range request.Conditions {
			if c.Mode == Graph {
				all = append(all, fmt.Sprintf(`"%v": {%s}`, c, times))
			}
		}
		fmt.Printf(`{"times": {%s}, "failed": {"eager warm": "no queue"}, "method": "magic", "dtype": "bfloat16"}`+"\n", strings.Join(all, ", "))
	}
	os.Exit(0)
}

func TestPeer(t *testing.T) {
	c := Case{Work: TopK, Source: Random, Batch: 2, Vocab: 500, TopK: 20, DType: BFloat16}
	for _, test := range []struct {
		manner          string
		values, indices bool
		err             string
	}{
		{"right", true, true, ""},
		{"values", false, true, ""},
		{"ties", true, false, ""},
		{"short", false, false, "bytes of answers"},
		{"fails", false, false, "out of luck"},
		{"timeless", false, false, "us = 0 (p10 0, p90 0), samples = 0 is no answer"},
		{"dies", false, false, "EOF"},
	} {
		t.Run(test.manner, func(t *testing.T) {
			t.Setenv("AIKF_TEST_PEER", test.manner)
			peer, err := StartPeer(t.Context(), "torch", "cpu", []string{filepath.Join(t.TempDir(), "nothing"), os.Args[0]})
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			r := quick()
			r.Peers = []*Peer{peer}
			result, err := r.Measure(t.Context(), c)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error = %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := PeerResult{
				Version: "9.8.7", Method: "magic", DType: BFloat16, US: 30.25, USP10: 30, USP90: 31, Samples: 12,
				ValuesEqual: test.values, IndicesEqual: test.indices,
			}
			got := result.Peers["torch"]
			if wrong := !test.values || !test.indices; got.Doubted(DoubtAnswer) != wrong || wrong != (len(got.Doubts) == 1) {
				t.Errorf("doubts %q", got.Doubts)
			}
			got.Doubts, got.WallUS, got.PairsP10, got.PairsP90 = nil, 0, 0, 0
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if err := peer.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(peer.directory); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its files are left: %v", err)
			}
		})
	}
}

func TestPeerOnDevice(t *testing.T) {
	c := Case{Work: TopK, Source: Random, Batch: 2, Vocab: 5000, TopK: 20, DType: BFloat16}
	for _, test := range []struct {
		name, manner string
		equal        PeerResult
		err          string
	}{
		{"torch", "right", PeerResult{ValuesEqual: true, IndicesEqual: true, SortEqual: true}, ""},
		{"torch", "ties", PeerResult{ValuesEqual: true, SortEqual: true}, ""},
		{"torch", "sort", PeerResult{}, "indices of a stable sort equal: false"},
		{"torch", "values", PeerResult{}, "values of topk equal: false"},
		{"torch", "fails", PeerResult{}, "out of luck"},
		{"python:some:f", "values", PeerResult{IndicesEqual: true}, ""},
	} {
		t.Run(test.name+" "+test.manner, func(t *testing.T) {
			t.Setenv("AIKF_TEST_PEER", test.manner)
			peer, err := StartPeer(t.Context(), test.name, "cuda:2", []string{os.Args[0]})
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			r, d := onHand()
			r.Peers = []*Peer{peer}
			results, err := r.Measure(t.Context(), c, Conditions())
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || test.manner != "fails" && !errors.Is(err, ErrWrong) {
					t.Errorf("error = %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := test.equal
			want.Version, want.Method, want.DType, want.US, want.USP10, want.USP90, want.Samples = "9.8.7", "magic", BFloat16, 30.25, 30, 31, 12
			for _, result := range results {
				got, ok := result.Peers[test.name]
				if wrong := !want.ValuesEqual || !want.IndicesEqual; ok && got.Doubted(DoubtAnswer) != wrong {
					t.Errorf("doubts %q", got.Doubts)
				}
				got.Doubts, got.WallUS, got.PairsP10, got.PairsP90 = nil, 0, 0, 0
				if ok != (result.Mode == Graph) || ok && (!reflect.DeepEqual(got, want) || result.Reference != test.name || result.ReferenceUS != 30.25) {
					t.Errorf("%s %s: %+v", result.Mode, result.Cache, result)
				}
				if field, value := result.invalid(); field != "" {
					t.Errorf("%s = %v", field, value)
				}
			}
			if notes := strings.Join(r.Notes, "; "); notes != test.name+" was not measured, eager warm: no queue" {
				t.Errorf("notes %q", notes)
			}
			if d.live != 0 {
				t.Errorf("%d things left open", d.live)
			}
		})
	}
}

func TestCheckPeer(t *testing.T) {
	for name, good := range map[string]bool{
		"torch": true, "numpy": true, "python:flashinfer:top_k": true, "python:a.b:c": true,
		"exec:./selector": true, "exec:./selector --fast": true, "exec:": false, "exec: ": false, "timed:./selector": true, "timed:": false,
		"": false, "python": false, "python:a": false, "python::f": false, "python:a:": false, "perl:a:b": false, "python:a:b:c": false,
	} {
		if err := CheckPeer(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestPeerNotFound(t *testing.T) {
	t.Setenv("AIKF_TEST_PEER", "absent")
	_, err := StartPeer(t.Context(), "numpy", "cpu", []string{os.Args[0]})
	if !errors.Is(err, ErrNoPeer) || !strings.Contains(err.Error(), "No module named numpy") {
		t.Errorf("error = %v", err)
	}
	if _, err = StartPeer(t.Context(), "numpy", "cpu", nil); !errors.Is(err, ErrNoPeer) || !strings.Contains(err.Error(), "no python3") {
		t.Errorf("error = %v", err)
	}
}

// TestPeerProgram measures a program that is no Python's.
func TestPeerProgram(t *testing.T) {
	t.Setenv("AIKF_TEST_PEER", "values")
	name := "timed:" + os.Args[0] + " --fast"
	peer, err := StartPeer(t.Context(), name, "cpu", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if want := []string{os.Args[0], "--fast", "cpu"}; !slices.Equal(peer.command.Args, want) {
		t.Errorf("started as %q, want %q", peer.command.Args, want)
	}
	r := quick()
	r.Peers = []*Peer{peer}
	result, err := r.Measure(t.Context(), Case{Work: TopK, Source: Random, Batch: 2, Vocab: 500, TopK: 20, DType: BFloat16})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Peers[name]; got.Version != "9.8.7" || got.US != 30.25 || got.ValuesEqual || !got.IndicesEqual {
		t.Errorf("got %+v, want 30.25 us of version 9.8.7 with wrong values", got)
	}
	for manner, want := range map[string]string{"absent": "No module named", "nameless": "no version"} {
		t.Setenv("AIKF_TEST_PEER", manner)
		if _, err := StartPeer(t.Context(), name, "cpu", nil); !errors.Is(err, ErrNoPeer) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want %q", manner, err, want)
		}
	}
	if _, err := StartPeer(t.Context(), "timed:"+filepath.Join(t.TempDir(), "nothing"), "cpu", nil); !errors.Is(err, ErrNoPeer) {
		t.Errorf("error = %v, want ErrNoPeer", err)
	}
}

// TestPeerScript runs the bundled script on what there is.
func TestPeerScript(t *testing.T) {
	for _, name := range PeerNames() {
		t.Run(name, func(t *testing.T) {
			peer, err := StartPeer(t.Context(), name, "cpu", Pythons())
			if errors.Is(err, ErrNoPeer) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			for _, dtype := range []DType{Float32, Float16, BFloat16} {
				r := &Runner{Iters: 2, Budget: time.Second, Seed: 1, Peers: []*Peer{peer}}
				result, err := r.Measure(t.Context(), Case{Work: TopK, Source: "descending", Batch: 2, Vocab: 3000, TopK: 20, DType: dtype})
				if err != nil {
					t.Fatal(err)
				}
				got := result.Peers[name]
				if field, value := result.invalid(); field != "" || got.Samples != 2 || got.Method == "" || !got.ValuesEqual {
					t.Errorf("%s: %+v (%s %v)", dtype, got, field, value)
				}
				if dtype == Float32 && !got.IndicesEqual { // no ties
					t.Errorf("indices differ without a tie")
				}
			}
		})
	}
}

func TestPythons(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	name := filepath.Join(second, "python3")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", strings.Join([]string{first, second, second}, string(os.PathListSeparator)))
	t.Setenv("PATHEXT", "")
	pythons := Pythons()
	if n := len(slices.DeleteFunc(slices.Clone(pythons), func(p string) bool { return p != name })); n != 1 {
		t.Errorf("%v holds %s %d times", pythons, name, n)
	}
}

// TestPeerScriptSamples: torch is asked for tokens, which are held against what is
// kept; other peers are not.
func TestPeerScriptSamples(t *testing.T) {
	pythons := Pythons()
	if len(pythons) == 0 {
		t.Skip("there is no python3")
	}
	folder, err := filepath.Abs(filepath.Join("testdata", "handtorch"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PYTHONPATH", folder)
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	c := Case{Work: Sample, Sampling: Greedy, Source: Random, Batch: 2, Vocab: 1000, TopK: 20, DType: Float32}
	for _, test := range []struct {
		name, manner string
		measured     bool
		equal        bool
		note         string
	}{
		{torch, "", true, true, ""},
		{torch, "astray", true, false, ""},
		{"python:handpeer:top_k", "", false, false, "was not asked for tokens"},
	} {
		t.Setenv("HANDTORCH", test.manner)
		peer, err := StartPeer(t.Context(), test.name, "cuda:2", pythons[:1])
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		r, d := onHand()
		r.Peers, d.l2Bytes = []*Peer{peer}, 20_000
		results, err := r.Measure(t.Context(), c, []Condition{{Graph, Warm}, {Eager, Warm}})
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range results {
			p, ok := result.Peers[test.name]
			if ok != test.measured || ok && (p.ValuesEqual != test.equal || p.IndicesEqual != test.equal || p.Method != "argmax" || result.Reference != torch) {
				t.Errorf("%s %s: %+v", test.name, test.manner, result)
			}
			if field, value := result.invalid(); field != "" {
				t.Errorf("%s = %v", field, value)
			}
		}
		if notes := strings.Join(r.Notes, "; "); !strings.Contains(notes, test.note) || (notes == "") != (test.note == "") {
			t.Errorf("notes %q", notes)
		}
	}
}

// TestPeerScriptOnDevice runs the bundled script as on a GPU, with a torch of
// tests.
func TestPeerScriptOnDevice(t *testing.T) {
	pythons := Pythons()
	if len(pythons) == 0 {
		t.Skip("there is no python3")
	}
	folder, err := filepath.Abs(filepath.Join("testdata", "handtorch"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PYTHONPATH", folder)
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	for _, test := range []struct {
		name, manner, method string
		conditions           int // that are measured
	}{
		{"torch", "", "torch.topk(x, k, sorted=True)", 3},
		{"torch", "uncapturable", "torch.topk(x, k, sorted=True)", 1},
		{"python:handpeer:top_k", "", "handpeer.top_k(x, k)", 3},
	} {
		t.Setenv("HANDTORCH", test.manner)
		peer, err := StartPeer(t.Context(), test.name, "cuda:2", pythons[:1])
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		for _, dtype := range []DType{Float32, Float16, BFloat16} {
			r, d := onHand()
			r.Peers, d.l2Bytes = []*Peer{peer}, 20_000
			c := Case{Work: TopK, Source: Random, Batch: 2, Vocab: 1000, TopK: 20, DType: dtype}
			results, err := r.Measure(t.Context(), c, Conditions())
			if err != nil {
				t.Fatal(err)
			}
			measured := 0
			for _, result := range results {
				p, ok := result.Peers[test.name]
				if !ok {
					continue
				}
				measured++
				if field, value := result.invalid(); field != "" || !p.ValuesEqual || !p.IndicesEqual || p.SortEqual != (test.name == "torch") || p.Method != test.method || p.DType != dtype {
					t.Errorf("%s: %+v (%s %v)", dtype, p, field, value)
				}
			}
			if measured != test.conditions {
				t.Errorf("%s %s, %s: %d conditions measured, want %d; %q", test.name, test.manner, dtype, measured, test.conditions, r.Notes)
			}
		}
	}
	for manner, name := range map[string]string{"blind": "torch", "": "python:handpeer:fast"} {
		t.Setenv("HANDTORCH", manner)
		if _, err := StartPeer(t.Context(), name, "cuda:2", pythons[:1]); !errors.Is(err, ErrNoPeer) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := StartPeer(t.Context(), "numpy", "cuda:2", pythons[:1]); !errors.Is(err, ErrNoPeer) {
		t.Errorf("numpy on a GPU: error %v", err)
	}
}
