package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		{[]string{file}, "is not a folder"},
		{[]string{empty}, "no record in"},
		{[]string{empty, "b"}, `unexpected word "b"`},
	} {
		_, stderr, code := runLine(t, nil, append([]string{"report"}, test.args...)...)
		if code != exitUsage || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit code %d, %q; want %q", test.args, code, stderr, test.want)
		}
	}
}
