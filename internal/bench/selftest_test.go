package bench

import (
	"math"
	"os"
	"strings"
	"testing"
)

// TestPeerSelfTest holds every contestant to being judged as it is.
func TestPeerSelfTest(t *testing.T) {
	all, err := SelfTest(t.Context(), os.Args[0], func(int, int, string) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(manners) {
		t.Fatalf("%d contestants, want %d", len(all), len(manners))
	}
	for _, c := range all {
		if !c.Good {
			t.Errorf("%s (%s) has the doubts %q, want %q", c.Name, c.Does, c.Doubts, c.Wanted)
		}
	}
}

func TestContestUnknown(t *testing.T) {
	if err := Contest("nobody", strings.NewReader(""), os.Stdout); err == nil {
		t.Error("a contestant that is none answers")
	}
}

// TestMisplaced holds the gate of other software to what is wrong, and to what is
// merely another order of equal values.
func TestMisplaced(t *testing.T) {
	c := Case{Batch: 2, Vocab: 4, TopK: 2}
	logits := []float32{1, 3, 3, 3, 9, 8, 7, 6}
	want := []float32{3, 3, 9, 8}
	for name, test := range map[string]struct {
		values  []float32
		indices []int32
		wrong   string
	}{
		"right":     {want, []int32{1, 2, 0, 1}, ""},
		"tie":       {want, []int32{3, 1, 0, 1}, ""},
		"twice":     {want, []int32{1, 1, 0, 1}, "index 1 comes twice"},
		"elsewhere": {want, []int32{1, 2, 0, 2}, "row 1, place 1: index 2 holds 7, not 8"},
		"outside":   {want, []int32{1, 2, 0, 4}, "index 4 of vocab = 4"},
		"negative":  {want, []int32{1, 2, -1, 1}, "index -1"},
		"value":     {[]float32{3, 3, 9, 7}, []int32{1, 2, 0, 2}, "7, want 8"},
	} {
		wrong := misplaced(logits, c, want, test.values, test.indices)
		if (wrong == "") != (test.wrong == "") || !strings.Contains(wrong, test.wrong) {
			t.Errorf("%s: %q, want %q", name, wrong, test.wrong)
		}
	}
}

// TestPeerLines measures a program that answers requests.
func TestPeerLines(t *testing.T) {
	peer, err := StartPeer(t.Context(), "exec:"+os.Args[0]+" "+SelfTestWord+" lines", "cpu", nil)
	if err != nil {
		t.Fatal(err)
	}
	r := quick()
	r.Peers = []*Peer{peer}
	result, err := r.Measure(t.Context(), Case{Work: TopK, Source: Random, Batch: 1, Vocab: 300, TopK: 7, DType: Float32})
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	got := result.Peers[peer.Name]
	if !got.ValuesEqual || !got.IndicesEqual || got.Doubted(DoubtAnswer) || !(got.ProtocolUS > 0) || got.Samples != 2 {
		t.Errorf("%+v", got)
	}
}

// TestLineFormat holds what is written and read to the protocol.
func TestLineFormat(t *testing.T) {
	one, two := Case{Batch: 1, Vocab: 3, TopK: 2, DType: Float32}, Case{Batch: 2, Vocab: 2, TopK: 1, DType: BFloat16}
	inf := float32(math.Inf(1))
	if got, want := string(appendLine(nil, 4, []float32{-inf, 0.5, inf - inf}, one)), `{"id":4,"k":2,"dtype":"float32","x":["-Infinity",0.5,"NaN"]}`+"\n"; got != want {
		t.Errorf("wrote %s, want %s", got, want)
	}
	if got, want := string(appendLine(nil, 0, []float32{1, 2, inf, 4}, two)), `{"id":0,"k":1,"dtype":"bfloat16","x":[[1,2],["Infinity",4]]}`+"\n"; got != want {
		t.Errorf("wrote %s, want %s", got, want)
	}
	values, indices, err := decodeLine([]byte(`{"id":1,"values":[["Infinity"],[-2.5]],"indices":[[1],[0]]}`), two)
	if err != nil || len(values) != 2 || values[0] != inf || values[1] != -2.5 || indices[0] != 1 || indices[1] != 0 {
		t.Errorf("%v, %v, %v", values, indices, err)
	}
	for text, want := range map[string]string{
		`{"values":[1],"indices":[1]}`:       "values are not 1 rows of 2",
		`{"values":[1,2],"indices":[1]}`:     "indices are not 1 rows of 2",
		`{"values":[1,"x"],"indices":[1,2]}`: "values",
		`{"values":[1,2],"indices":[1,2.5]}`: "indices",
		`{"error":"no luck"}`:                "no luck",
		`nothing`:                            "invalid character",
	} {
		if _, _, err := decodeLine([]byte(text), one); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}
