package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// verifyOutput runs aikf with the arguments and returns the exit code and what
// was printed.
func verifyOutput(ctx context.Context, args ...string) (code int, out, err string) {
	var stdout, stderr bytes.Buffer
	code = run(ctx, args, console{in: strings.NewReader(""), out: &stdout, err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestVerifyFindsNothing(t *testing.T) {
	code, out, errors := verifyOutput(t.Context(), "verify", "--duration", "300ms", "--seed", "5")
	if code != exitDone || errors != "" {
		t.Errorf("exit code %d, %q", code, errors)
	}
	for _, part := range []string{"seed 5,", "cases ", "all equal"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q does not tell %q", out, part)
		}
	}
}

func TestVerifyJSON(t *testing.T) {
	code, out, _ := verifyOutput(t.Context(), "verify", "--duration", "1ns", "--format", "json", "--dtype", "float16,bfloat16", "--tier", "pure")
	var v verification
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code != exitDone || v.Schema != 1 || v.Outcome != "equal" || v.Seed == 0 || v.Cases < 1 || v.Calls < v.Cases ||
		strings.Join(v.DTypes, " ") != "float16 bfloat16" || strings.Join(v.Tiers, " ") != "pure" {
		t.Errorf("exit code %d, %+v", code, v)
	}
}

func TestVerifyOneCase(t *testing.T) {
	code, out, _ := verifyOutput(t.Context(), "verify", "--seed", "5", "--case", "12", "--tier", "pure")
	if code != exitDone || !strings.Contains(out, "cases 1,") {
		t.Errorf("exit code %d, %q", code, out)
	}
}

func TestVerifyInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, out, errors := verifyOutput(ctx, "verify", "--duration", "1h")
	if code != exitInterrupted || !strings.Contains(out, "compared with the oracle") || !strings.Contains(errors, "interrupted") {
		t.Errorf("exit code %d, %q, %q", code, out, errors)
	}
}

// lazy answers every call with nothing, and so is wrong.
type lazy[T topk.Float] struct{}

func (lazy[T]) Select(topk.Result[T], []T, topk.Shape) error { return nil }

func TestVerifyReportsADifference(t *testing.T) {
	config := topktest.VerifyConfig{Seed: 9, DTypes: []string{"float32"}, Backends: []topktest.Backend{{
		Name:    "lazy",
		Float32: topktest.Engine[float32]{NewSelector: func(topk.Options) topktest.Selector[float32] { return lazy[float32]{} }},
	}}}
	v := verification{Seed: 9, DTypes: config.DTypes, Tiers: []string{"pure"}}
	var stdout, stderr bytes.Buffer
	c := console{out: &stdout, err: &stderr}
	code := exitCode(v.run(t.Context(), config, time.Minute, "text", c), c)
	if code != exitWrong || !strings.Contains(stdout.String(), "different: ") || !strings.Contains(stdout.String(), "lazy") {
		t.Errorf("exit code %d, %q", code, stdout.String())
	}
	if !strings.HasPrefix(v.Reproduce, "aikf verify --seed 9 --case ") || !strings.HasSuffix(v.Reproduce, " --dtype float32 --tier pure") {
		t.Errorf("%q is not the command that finds it again", v.Reproduce)
	}
	if !strings.Contains(stderr.String(), v.Reproduce) {
		t.Errorf("%q does not tell %q", stderr.String(), v.Reproduce)
	}
}

func TestVerifyBadUsage(t *testing.T) {
	for _, test := range []struct {
		args string
		part string
	}{
		{"--dtype float64", "float64"},
		{"--dtype float32,", `""`},
		{"--tier mmx", "mmx"},
		{"--format xml", "xml"},
		{"--duration -3s", "-3s"},
		{"--duration soon", "soon"},
		{"--case 3", "--seed"},
		{"--case -4 --seed 1", "-4"},
		{"--seed -1", "-1"},
		{"--nothing", "nothing"},
		{"row", "row"},
		{"--work merge", "merge"},
		{"--work sample", "for a GPU"},
		{"--device cuda --work sample --law 5", "two comparisons"},
	} {
		code, out, errors := verifyOutput(t.Context(), append([]string{"verify"}, strings.Fields(test.args)...)...)
		if code != exitUsage || out != "" || !strings.Contains(errors, test.part) {
			t.Errorf("%s: exit code %d, %q, %q", test.args, code, out, errors)
		}
	}
}

func TestVerifyHelp(t *testing.T) {
	code, out, errors := verifyOutput(t.Context(), "verify", "--help")
	if code != exitDone || errors != "" || !strings.Contains(out, "-duration") || !strings.Contains(out, "Examples:") {
		t.Errorf("exit code %d, %q, %q", code, out, errors)
	}
}
