package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

// TestMain is aikf itself if a test asks for it, or a contestant of the
// benchmark's self-test.
func TestMain(m *testing.M) {
	if os.Getenv("AIKF_TEST_COMMAND") != "" || len(os.Args) == 3 && os.Args[1] == bench.SelfTestWord {
		main()
	}
	os.Exit(m.Run())
}

// selfTest is one of three runs in which all contestants are judged right, or the last: what a cheat saves may
// drown in the noise of a machine that others use meanwhile.
func selfTest(t *testing.T, args ...string) (out, errs string, code int) {
	for range 3 {
		if out, errs, code = benchRun(t, append([]string{"--self-test"}, args...)...); code == exitDone {
			break
		}
		t.Logf("exit code %d, %s%s", code, out, errs)
	}
	return out, errs, code
}

func TestBenchSelfTest(t *testing.T) {
	out, errs, code := selfTest(t)
	if code != exitDone || errs != "" {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	for _, want := range []string{"passed       honest: ", "caught       wrong: ", "caught       timer: ", "caught       logits: ", "that rounds the values", "clock: claims"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _, code = selfTest(t, "--format", "json")
	var all []bench.Caught
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != exitDone || len(all) < 4 {
		t.Errorf("exit code %d, %v, %d contestants", code, err, len(all))
	}
}

func TestOutcome(t *testing.T) {
	for want, c := range map[string]bench.Caught{
		"passed":                 {Good: true},
		"caught":                 {Good: true, Wanted: []string{bench.DoubtTime}},
		"NOT BELIEVED":           {},
		"NOT CAUGHT, want clock": {Wanted: []string{bench.DoubtClock}},
	} {
		if got := outcome(c); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}
