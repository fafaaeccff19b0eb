package bench

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ai-kernel-factory/aikf/topk"
)

type bfloat16 = topk.BFloat16

//go:embed programs/launch.c
var launchProgram []byte

// launchFromC compiles the bundled C program with the system's cc and returns
// what a launch costs that it makes: nanoseconds. Without a compiler it is an
// error that says so.
func launchFromC(ctx context.Context, ordinal int) (Times, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		return Times{}, fmt.Errorf("needs a C compiler, cc: %w", err)
	}
	directory, err := os.MkdirTemp("", "aikf-bench-")
	if err != nil {
		return Times{}, err
	}
	defer os.RemoveAll(directory)
	source, program := filepath.Join(directory, "launch.c"), filepath.Join(directory, "launch")
	if err := os.WriteFile(source, launchProgram, 0o600); err != nil {
		return Times{}, err
	}
	if _, err := output(ctx, compiler, "-O2", "-o", program, source, "-ldl"); err != nil {
		return Times{}, err
	}
	text, err := output(ctx, program, strconv.Itoa(ordinal))
	if err != nil {
		return Times{}, err
	}
	var samples []float64
	for _, word := range strings.Fields(text) {
		ns, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return Times{}, fmt.Errorf("launch.c: %w", err)
		}
		samples = append(samples, ns)
	}
	if len(samples) == 0 {
		return Times{}, fmt.Errorf("launch.c: no samples")
	}
	return timesOf(samples, 256), nil
}

// output runs a program and returns what it prints; an error shows the first
// line of its complaint.
func output(ctx context.Context, program string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, program, args...)
	var out, complaint bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaint
	if err := command.Run(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(program), err, first)
	}
	return out.String(), nil
}
