package cuda

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
)

var update = flag.Bool("update", false, "write the golden file")

// referenceMatrix and the shapes around it have bars on the H100.
var referenceMatrix = []PlanShape{
	{1, 50304, 50, BFloat16}, {1, 50304, 100, BFloat16}, {1, 50304, 200, BFloat16},
	{4, 50304, 50, BFloat16}, {16, 50304, 50, BFloat16}, {32, 50304, 50, BFloat16}, {32, 50304, 200, BFloat16},
	{128, 50304, 50, BFloat16}, {512, 50304, 50, BFloat16}, {1, 50304, 1024, BFloat16}, {1, 50304, 2048, BFloat16},
	{1, 151936, 50, BFloat16}, {32, 151936, 50, BFloat16}, {128, 151936, 50, BFloat16},
	{1, 50304, 50, Float32}, {32, 50304, 50, Float32}, {8, 32768, 50, Float32},
}

// edgeShapes are where a plan changes, and where one could overflow.
var edgeShapes = []PlanShape{
	{0, 50304, 50, BFloat16}, {5, 50304, 0, BFloat16}, {0, 0, 0, Float32},
	{1, 1, 1, BFloat16}, {3, 2, 2, Float16}, {1, 1024, 1024, Float32}, {1, 65536, 64, Float16}, {1, 65537, 65, Float16},
	{1, 50304, 2049, BFloat16}, {2, 50304, 50304, Float32}, {100000, 50304, 50, BFloat16}, {100000, 50304, 200, BFloat16},
	{1, 1 << 20, 50, BFloat16}, {16, 1 << 20, 2048, Float32}, {1, math.MaxInt32, 1, Float32}, {1, math.MaxInt32, math.MaxInt32, BFloat16},
}

// TestPlansGolden shows a change of any plan.
func TestPlansGolden(t *testing.T) {
	var text strings.Builder
	for _, name := range []string{"sm_80", "sm_86", "sm_89", "sm_90", "sm_100"} {
		arch, err := ParseArchitecture(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, shape := range slices.Concat(referenceMatrix, edgeShapes) {
			plans, err := Plans(shape, arch, PlanOptions{})
			if err != nil {
				t.Fatalf("%s, %+v: %v", name, shape, err)
			}
			fmt.Fprintf(&text, "%s, %d x %d, k = %d, %v\n", name, shape.Rows, shape.Vocab, shape.K, shape.DType)
			for _, plan := range plans {
				fmt.Fprintf(&text, "  %v\n", plan)
			}
		}
	}
	const golden = "testdata/plans.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, wanted := strings.Split(text.String(), "\n"), strings.Split(strings.ReplaceAll(string(want), "\r\n", "\n"), "\n")
	for i := range min(len(got), len(wanted)) {
		if got[i] != wanted[i] {
			t.Fatalf("the plans have changed, first in line %d; go test -update writes them\n got %s\nwant %s", i+1, got[i], wanted[i])
		}
	}
	if len(got) != len(wanted) {
		t.Errorf("%d lines of plans, want %d; go test -update writes them", len(got), len(wanted))
	}
}

// Every plan of every shape keeps within what its kernels can do.
func TestPlansKeepTheirPromises(t *testing.T) {
	seen := map[string]int{}
	for _, name := range Architectures() {
		arch, err := ParseArchitecture(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, vocab := range []int{1, 2, 7, 8, 9, 64, 513, 1000, 4096, 32768, 50257, 50304, 65536, 65537, 131072, 151936, 1 << 20, math.MaxInt32} {
			for _, k := range []int{1, 2, 50, 64, 65, 128, 129, 512, 513, 1024, 2048, 2049, 4096, 4097, vocab / 2, vocab} {
				for _, rows := range []int{1, 2, 16, 17, 264, 265, 100000} {
					for _, target := range []int{0, 1, 99, 500, 5000, math.MaxInt} {
						shape := PlanShape{rows, vocab, k, DType((vocab + rows) % 3)}
						if k < 1 || k > vocab {
							continue
						}
						checkPlans(t, shape, arch, PlanOptions{TargetCandidates: target}, seen)
					}
				}
			}
		}
	}
	for _, name := range planNames {
		if seen[name] < 100 {
			t.Errorf("plan %q was made for %d shapes only", name, seen[name])
		}
	}
}

func checkPlans(t *testing.T, shape PlanShape, arch Architecture, options PlanOptions, seen map[string]int) {
	t.Helper()
	plans, err := Plans(shape, arch, options)
	if err != nil {
		t.Fatalf("%+v on %s: %v", shape, arch.Name, err)
	}
	chosen, err := ChoosePlan(shape, arch, options)
	if err != nil || chosen.String() != plans[0].String() {
		t.Fatalf("%+v on %s: chosen %v, listed %v, %v", shape, arch.Name, chosen, plans[0], err)
	}
	symbols := kernelSymbols()
	for i, p := range plans {
		seen[p.Name]++
		bad := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%+v on %s, %v: %s", shape, arch.Name, p, fmt.Sprintf(format, args...))
		}
		forced, err := ChoosePlan(shape, arch, PlanOptions{Name: p.Name, Groups: p.Groups, Chunks: p.Chunks})
		if err != nil || forced.String() != p.String() {
			bad("forced, it is %v, %v", forced, err)
		}
		for _, other := range plans[:i] {
			if other.Name == p.Name {
				bad("listed twice")
			}
		}
		if !slices.Contains(groupCounts, p.Groups) || p.Groups > p.Kernels[0].Block {
			bad("%d groups", p.Groups)
		}
		if p.Chunks*p.ChunkSize < shape.Vocab || p.Chunks > 1 && p.ChunkSize*shape.DType.Bytes()%16 != 0 {
			bad("chunks of %d", p.ChunkSize)
		}
		if p.Name == PlanTwoStage && (p.Chunks*shape.K > mergeCandidates || p.WorkspaceBytes != 8*shape.Rows*p.Chunks*shape.K) {
			bad("%d candidates", p.Chunks*shape.K)
		}
		if p.Name == PlanTwoStage && p.Chunks > 1 && shape.Vocab-(p.Chunks-1)*p.ChunkSize < shape.K {
			bad("the last chunk is too short")
		}
		if p.Name == PlanCluster && (p.Chunks > arch.ClusterBlocks || p.Chunks < 2) {
			bad("%d blocks in a cluster", p.Chunks)
		}
		if p.Name != PlanTwoStage && p.Name != PlanAny && p.WorkspaceBytes != 0 {
			bad("a workspace")
		}
		if p.Name == PlanAny && (p.WorkspaceBytes < 8*shape.Rows*shape.K || p.WorkspaceBytes >= 16*shape.Rows*shape.K) {
			bad("a workspace of %d bytes", p.WorkspaceBytes)
		}
		if shape.K > fastK && p.Name != PlanAny {
			bad("k = %d", shape.K)
		}
		for _, l := range p.Kernels {
			if !slices.Contains(symbols, l.Symbol) {
				bad("no such kernel")
			}
			if l.Grid < shape.Rows || l.Grid%l.Cluster != 0 || l.Block > 1024 {
				bad("grid %d, cluster %d", l.Grid, l.Cluster)
			}
		}
	}
}

// The target moves the groups of the block plans and the chunks of the two-stage
// plan.
func TestTargetCandidates(t *testing.T) {
	arch, err := ParseArchitecture("sm_90")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ k, target, groups, chunks int }{
		{50, 0, 256, 10}, {50, 500, 256, 10}, {50, 100, 128, 2}, {50, 1000, 512, 20}, {50, 1, 128, 1},
		{50, math.MaxInt, 512, 81}, {200, 100, 256, 1}, {200, 0, 512, 3}, {2048, 1, 512, 1}, {2048, 5000, 512, 2},
	} {
		shape := PlanShape{1, 50304, c.k, BFloat16}
		block, err1 := ChoosePlan(shape, arch, PlanOptions{Name: PlanBlock, TargetCandidates: c.target})
		two, err2 := ChoosePlan(shape, arch, PlanOptions{Name: PlanTwoStage, TargetCandidates: c.target})
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if block.Groups != c.groups || two.Chunks != c.chunks {
			t.Errorf("%+v: %d groups, %d chunks", c, block.Groups, two.Chunks)
		}
	}
}

// A plan that does not fit says by what numbers.
func TestUnfitPlans(t *testing.T) {
	sm80, err1 := ParseArchitecture("sm_80")
	sm90, err2 := ParseArchitecture("sm_90")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	row := PlanShape{1, 50304, 50, BFloat16}
	for _, c := range []struct {
		shape    PlanShape
		arch     Architecture
		options  PlanOptions
		sentinel error
		words    []string
	}{
		{row, sm80, PlanOptions{Name: PlanCluster}, ErrUnsupported, []string{"cluster", "sm_80"}},
		{row, sm90, PlanOptions{Name: PlanCluster, Chunks: 3}, ErrUnsupported, []string{"3", "power of two", "16"}},
		{row, sm90, PlanOptions{Name: PlanCluster, Chunks: 32}, ErrUnsupported, []string{"32", "16"}},
		{row, sm90, PlanOptions{Name: "fast"}, ErrUnsupported, []string{`"fast"`, "block"}},
		{row, sm90, PlanOptions{Groups: 300}, ErrUnsupported, []string{"300"}},
		{row, sm90, PlanOptions{Groups: 1024}, ErrUnsupported, []string{"1024"}},
		{row, sm90, PlanOptions{Chunks: 2}, ErrUnsupported, []string{"block", "2"}},
		{row, sm90, PlanOptions{Chunks: -2}, ErrUnsupported, []string{"-2"}},
		{row, sm90, PlanOptions{TargetCandidates: -5}, ErrUnsupported, []string{"-5"}},
		{row, sm90, PlanOptions{Name: PlanTwoStage, Chunks: 82}, ErrUnsupported, []string{"82", "50", "4096"}},
		{PlanShape{1, 100, 50, Float32}, sm90, PlanOptions{Name: PlanTwoStage, Chunks: 3}, ErrUnsupported, []string{"3", "100"}},
		{PlanShape{1, 50304, 2049, Float32}, sm90, PlanOptions{Name: PlanBlock}, ErrUnsupported, []string{"2049", "2048"}},
		{PlanShape{1 << 30, 50304, 50, Float32}, sm90, PlanOptions{Name: PlanTwoStage}, ErrUnsupported, []string{"1073741824", "10"}},
		{PlanShape{-1, 50304, 50, Float32}, sm90, PlanOptions{}, topk.ErrShape, []string{"-1"}},
		{PlanShape{1, 50, 51, Float32}, sm90, PlanOptions{}, topk.ErrShape, []string{"50", "51"}},
		{PlanShape{1, 50, 5, 7}, sm90, PlanOptions{}, topk.ErrDType, []string{"7"}},
	} {
		_, err := ChoosePlan(c.shape, c.arch, c.options)
		if !errors.Is(err, c.sentinel) {
			t.Errorf("%+v, %+v: %v, want %v", c.shape, c.options, err, c.sentinel)
			continue
		}
		for _, word := range c.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
	}
	_, err := ParseArchitecture("sm_75")
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "sm_90") {
		t.Errorf("sm_75: %v", err)
	}
}
