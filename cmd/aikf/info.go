package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/ai-kernel-factory/aikf/cuda"
	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

const infoExamples = `  aikf info
  aikf info --device cuda:1
  aikf info --format json
`

// machineInfo is what "aikf info" says.
type machineInfo struct {
	Schema   int           `json:"schema"`
	Version  string        `json:"version"`
	Commit   string        `json:"commit,omitempty"`
	Go       string        `json:"go"`
	OS       string        `json:"os"`
	Arch     string        `json:"arch"`
	CPU      string        `json:"cpu,omitempty"`
	Cores    int           `json:"cores"` // that Go uses
	Features []featureInfo `json:"features"`
	Tiers    []string      `json:"tiers"` // best first
	Tier     string        `json:"tier"`  // that is used unless another is asked for
	GPU      *bench.GPU    `json:"gpu,omitempty"`
	NoGPU    string        `json:"no_gpu,omitempty"` // why there is none
}

// featureInfo is a bit of the CPU that a tier needs.
type featureInfo struct {
	Tier        string `json:"tier"`
	Name        string `json:"name"`
	Instruction string `json:"instruction"`
	Present     bool   `json:"present"`
}

func runInfo(_ context.Context, args []string, c console) error {
	flags := newFlags("info", "[flags]", infoExamples, c)
	format := flags.String("format", "text", "`text` or json")
	deviceName := flags.String("device", "auto", deviceUsage)
	words, err := parseFlags(flags, args, c)
	if err != nil {
		return err
	}
	if len(words) > 0 {
		return usageErrorf("info: unexpected word %s", quote(words[0]))
	}
	if err := checkFormat(*format, "text", "json"); err != nil {
		return err
	}
	choice, err := parseDevice(*deviceName)
	if err != nil {
		return err
	}
	info := describeMachine()
	quiet := c // what is missing is part of the answer
	quiet.err = io.Discard
	device, opened, err := openDevice(choice, "info", quiet, func(ordinal int) (*bench.DeviceRunner, error) {
		device, err := bench.OpenDevice(ordinal, bench.Runner{})
		if errors.Is(err, cuda.ErrUnavailable) {
			info.NoGPU = err.Error()
		}
		return device, err
	})
	if err != nil {
		return err
	}
	if opened {
		gpu := device.GPU()
		info.GPU = &gpu
		if err := device.Close(); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(c.out)
	if *format == "json" {
		json.NewEncoder(out).Encode(info)
	} else {
		info.writeText(out)
	}
	return out.Flush()
}

func describeMachine() machineInfo {
	info := machineInfo{
		Schema: 1,
		Go:     runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		CPU: cpuModel(), Cores: cpu.Cores(),
		Tiers: topk.Tiers(), Tier: simd.Best().String(),
	}
	info.Version, info.Commit = buildVersion()
	for _, f := range simd.Features() {
		info.Features = append(info.Features, featureInfo{f.Tier.String(), f.Name, f.Instruction, f.Present})
	}
	return info
}

// buildVersion returns the module's version and the commit it was built from,
// as far as the Go command recorded them.
func buildVersion() (version, commit string) {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", ""
	}
	modified := false
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			commit = setting.Value
		case "vcs.modified":
			modified = setting.Value == "true"
		}
	}
	if modified {
		commit += " with changes"
	}
	return build.Main.Version, commit
}

// cpuModel returns the name of the CPU, or nothing where the system does not
// tell it in a file.
func cpuModel() string {
	const file = "/proc/cpuinfo" // Linux
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(text) {
		key, value, found := strings.Cut(string(line), ":")
		if found && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (m machineInfo) writeText(w *bufio.Writer) {
	fmt.Fprintf(w, "aikf       %s\n", strings.TrimSpace(m.Version+" "+m.Commit))
	fmt.Fprintf(w, "go         %s %s/%s\n", m.Go, m.OS, m.Arch)
	if m.CPU != "" {
		fmt.Fprintf(w, "cpu        %s\n", m.CPU)
	}
	fmt.Fprintf(w, "cores      %d\n", m.Cores)
	fmt.Fprintf(w, "tier       %s, of %s\n", m.Tier, strings.Join(m.Tiers, ", "))
	switch {
	case m.GPU != nil:
		g := m.GPU
		fmt.Fprintf(w, "gpu        cuda:%d, %s, compute capability %s, %d multiprocessors, %.0f GB, driver for CUDA %s\n",
			g.Ordinal, g.Name, g.ComputeCapability, g.Multiprocessors, float64(g.MemoryBytes)/1e9, g.Driver)
	case m.NoGPU != "":
		fmt.Fprintf(w, "gpu        none: %s\n", m.NoGPU)
	}
	fmt.Fprintln(w)
	const columns = "%-7s %-9s %-7s %s\n"
	fmt.Fprintf(w, columns, "tier", "feature", "present", "needed by")
	for _, f := range m.Features {
		present := "no"
		if f.Present {
			present = "yes"
		}
		fmt.Fprintf(w, columns, f.Tier, f.Name, present, f.Instruction)
	}
}
