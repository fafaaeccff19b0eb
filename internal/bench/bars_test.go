package bench

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

var update = flag.Bool("update", false, "write the golden files")

// TestBarsGolden shows a change of any bar.
func TestBarsGolden(t *testing.T) {
	var text strings.Builder
	for _, b := range Bars() {
		fmt.Fprintf(&text, "%s: must %v, aim %v %s", b.Work, b.Must, b.Aim, b.Figure)
		if b.Peer != "" {
			fmt.Fprintf(&text, ", %s %s", b.Peer, b.Major)
		}
		text.WriteString("\n")
		for _, c := range b.Cases {
			c = c.withDefaults()
			if err := c.Validate(); err != nil {
				t.Errorf("%s: %v", b.Work, err)
			}
			fmt.Fprintf(&text, "\t%v; base offset %d, threads %d, reference %s\n", c, c.BaseOffset, c.Threads, c.Reference)
		}
		if len(b.Cases) == 0 || b.judge(b.Aim) != Met || b.Aim != b.Must && b.judge(b.Must) != MustOnly {
			t.Errorf("%s: an aim below the must, or no cases", b.Work)
		}
	}
	const golden = "testdata/bars.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("the bars have changed; go test -update writes\n%s", text.String())
	}
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		figure              Figure
		must, aim, measured float64
		want                string
	}{
		{OverFloor, 2, 1.6, 1.6, Met},
		{OverFloor, 2, 1.6, 1.61, MustOnly},
		{OverFloor, 2, 1.6, 2, MustOnly},
		{OverFloor, 2, 1.6, 2.01, Missed},
		{TimesFaster, 20, 20, 20, Met},
		{TimesFaster, 20, 30, 25, MustOnly},
		{TimesFaster, 20, 20, 19.9, Missed},
		{Allocations, 0, 0, 0, Met},
		{Allocations, 0, 0, 1, Missed},
	} {
		if got := (Bar{Figure: test.figure, Must: test.must, Aim: test.aim}).judge(test.measured); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestLacking(t *testing.T) {
	small := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 100, TopK: 5, DType: Float32, Tier: "pure"}
	abacus, onAbacus := small, small
	abacus.Tier, onAbacus.Reference = "abacus", OnTier+"abacus"
	numpy := []*Peer{{Name: "numpy", Version: "1.24.2"}}
	for _, test := range []struct {
		bar   Bar
		peers []*Peer
		want  string
	}{
		{Bar{Cases: []Case{small}}, nil, ""},
		{Bar{Cases: []Case{small, abacus}}, nil, "this machine has no tier abacus"},
		{Bar{Cases: []Case{onAbacus}}, nil, "this machine has no tier abacus"},
		{Bar{Cases: []Case{small}, Peer: "torch"}, numpy, "needs --against torch, and a python3 that has it"},
		{Bar{Cases: []Case{small}, Peer: "numpy", Major: "2"}, numpy, "the numpy found is 1.24.2"},
		{Bar{Cases: []Case{small}, Peer: "numpy", Major: "1"}, numpy, ""},
		{Bar{Cases: []Case{small}, Peer: "numpy"}, numpy, ""},
	} {
		if got := test.bar.lacking(test.peers); got != test.want {
			t.Errorf("%+v: %q, want %q", test.bar, got, test.want)
		}
	}
}

func TestAcceptance(t *testing.T) {
	c := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 2000, TopK: 5, DType: Float32, Tier: "pure"}
	ascending, absent := c, c
	ascending.Source, absent.Tier = "ascending", "abacus"
	const never, always = 1e-9, 1e9
	bars := []Bar{
		{"easy", OverFloor, []Case{c}, "", "", always, always},
		{"hard", OverFloor, []Case{c, ascending}, "", "", never, never},
		{"half", OverReference, []Case{ascending}, "", "", always, never},
		{"allocations", Allocations, []Case{c}, "", "", 0, 0},
		{"workspace", Workspace, []Case{c}, "", "", 64, 64},
		{"gone", OverFloor, []Case{absent}, "", "", always, always},
		{"torch", TimesFaster, []Case{c}, "torch", "", 1, 1},
	}
	var done []Case
	verdicts, results, err := quick().Acceptance(t.Context(), bars, func(_, total int, next Case) {
		if total != 2 {
			t.Errorf("%d cases, want 2: shared ones are measured once", total)
		}
		done = append(done, next)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 2 || len(done) != 2 || done[0] != c || done[1] != ascending {
		t.Errorf("measured %v", done)
	}
	want := []string{Met, Missed, MustOnly, Met, Met, NotMeasured, NotMeasured}
	for i, v := range verdicts {
		if v.Verdict != want[i] || v.Work != bars[i].Work {
			t.Errorf("%+v, want %s", v, want[i])
		}
		if field, got := v.invalid(); field != "" {
			t.Errorf("%s: %s = %v", v.Work, field, got)
		}
	}
	if got, want := verdicts[1].Measured, max(results[0].FloorRatio, results[1].FloorRatio); got != want || verdicts[1].Worst == "" {
		t.Errorf("of several cases the worst counts: %v %q, want %v", got, verdicts[1].Worst, want)
	}
}

func TestPeerBar(t *testing.T) {
	for _, manner := range []string{"right", "values"} {
		t.Run(manner, func(t *testing.T) { testPeerBar(t, manner) })
	}
}

func testPeerBar(t *testing.T, manner string) {
	t.Setenv("AIKF_TEST_PEER", manner)
	peer, err := StartPeer(t.Context(), "torch", "cpu", []string{os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 200, TopK: 5, DType: BFloat16, Tier: "pure"}
	other := c
	other.TopK = 6
	r := quick()
	r.Peers = []*Peer{peer}
	verdicts, results, err := r.Acceptance(t.Context(), []Bar{
		{"torch", TimesFaster, []Case{c}, "torch", "9", 1e-9, 1e-9},
		{"without", OverFloor, []Case{other}, "", "", 1e9, 1e9},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := verdicts[0]; manner == "values" {
		if v.Verdict != NotMeasured || !strings.Contains(v.Reason, "is not believed") {
			t.Errorf("a wrong answer is judged: %+v", v)
		}
	} else if v.Verdict != Met || v.Measured != significant(30.25/results[0].OursUS) {
		t.Errorf("%+v of %+v", v, results[0])
	}
	if len(results[1].Peers) != 0 {
		t.Error("a peer was measured where no bar asks for it")
	}
}

func TestWrongTierIsAnError(t *testing.T) {
	c := Case{Work: TopK, Source: Random, Batch: 1, Vocab: 200, TopK: 5, DType: BFloat16, Tier: "abacus"}
	if _, err := quick().Measure(t.Context(), c); !errors.Is(err, topk.ErrTier) {
		t.Errorf("error = %v", err)
	}
}
