package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/bench"
)

const verifiedRecord = `{"schema": 1, "device": "cpu", "command": "aikf verify", "commit": "abc", "counts": {"rows": 9, "logits": 99}, "outcome": "equal"}`

// recordFolder writes files into a folder.
func recordFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestReport(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		code  int
		err   string
	}{
		"whole":   {map[string]string{"a.json": verifiedRecord}, exitDone, ""},
		"damaged": {map[string]string{"a.json": verifiedRecord, "b.json": `{"schema": 99}`}, exitUsage, "b.json: bench: schema = 99"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			stdout, stderr, code := runLine(t, nil, "report", recordFolder(t, test.files), "--out", out)
			if code != test.code || !strings.Contains(stderr, test.err) {
				t.Fatalf("exit code %d, want %d: %s", code, test.code, stderr)
			}
			for _, file := range []string{"report.html", "report.md"} {
				name := filepath.Join(out, file)
				text, err := os.ReadFile(name)
				if err != nil || !strings.Contains(string(text), "99 logits compared") {
					t.Errorf("%s: %v, %d bytes", file, err, len(text))
				}
				if !strings.Contains(stdout, name+"\n") {
					t.Errorf("standard output does not name %s: %s", name, stdout)
				}
			}
		})
	}
}

func TestReportErrors(t *testing.T) {
	empty := t.TempDir()
	file := filepath.Join(recordFolder(t, map[string]string{"a.json": verifiedRecord}), "a.json")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{filepath.Join(empty, "absent")}, "absent"},
		{[]string{"--compare", file}, "with 1 files or folders, want 2"},
		{[]string{"--compare", file, file}, "no case is in both"},
		{[]string{"--compare", file, file, "--threshold", "-1"}, "--threshold = -1"},
		{[]string{"--compare", file, file, "--format", "csv"}, `--format "csv"`},
		{[]string{empty}, "no record in"},
		{[]string{empty, "b"}, `unexpected word "b"`},
		{[]string{"--against", "torch"}, "--against needs --device"},
		{[]string{"--device", "cpu", empty}, "leave out"},
		{[]string{"--device", "tpu", "--out", empty}, `"tpu"`},
	} {
		_, stderr, code := runLine(t, nil, append([]string{"report"}, test.args...)...)
		if code != exitUsage || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit code %d, %q; want %q", test.args, code, stderr, test.want)
		}
	}
}

// TestReportCompare holds a slower record to exit code 1, and its own self to 0.
func TestReportCompare(t *testing.T) {
	records, err := filepath.Glob("../../results/*-bench.json")
	if err != nil || len(records) == 0 {
		t.Fatalf("no record in results: %v", err)
	}
	old := records[0]
	text, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	record, err := bench.DecodeRecord(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r := &record.Results[0]
	for _, us := range []*float64{&r.OursUS, &r.OursUSP10, &r.OursUSP90, &r.FloorRatio} {
		*us *= 2
	}
	r.Speedup /= 2
	var slower bytes.Buffer
	if err := record.Encode(&slower); err != nil {
		t.Fatal(err)
	}
	new := filepath.Join(recordFolder(t, map[string]string{"new.json": slower.String()}), "new.json")
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{old, old}, exitDone, "0 slower"},
		{[]string{old, new}, exitWrong, "1 slower"},
		{[]string{new, old}, exitDone, "1 faster"},
		{[]string{old, new, "--threshold", "150", "--format", "md"}, exitDone, "0 slower"},
	} {
		stdout, stderr, code := runLine(t, nil, append([]string{"report", "--compare"}, test.args...)...)
		if code != test.code || !strings.Contains(stdout, test.want) {
			t.Errorf("%q: exit code %d, want %d and %q in\n%s%s", test.args, code, test.code, test.want, stdout, stderr)
		}
	}
}

// TestMeasurements holds what a report measures to flags that the commands take.
func TestMeasurements(t *testing.T) {
	for device, last := range map[string]string{"cpu": "profile.json", "auto": "profile.json", "cuda:1": "profile.json"} {
		choice, err := parseDevice(device)
		if err != nil {
			t.Fatal(err)
		}
		folder := t.TempDir()
		all := measurements(choice, "torch", folder)
		if m := all[len(all)-1]; m.printed != filepath.Join(folder, last) && !slices.Contains(m.args, filepath.Join(folder, last)) {
			t.Errorf("%s: the last record is that of %q, want %s", device, m.args, last)
		}
		for _, m := range all {
			if device != "cpu" {
				continue // there may be no other
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := m.run(ctx, m.args, console{out: io.Discard, err: io.Discard}); !errors.Is(err, context.Canceled) {
				t.Errorf("%q: error = %v, want that it was interrupted", m.args, err)
			}
		}
	}
}
