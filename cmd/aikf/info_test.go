package main

import (
	"encoding/json"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/internal/cpu/simd"
	"github.com/ai-kernel-factory/aikf/topk"
)

func TestInfo(t *testing.T) {
	out, errs, code := runLine(t, nil, "info", "--format", "json")
	var got machineInfo
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || errs != "" {
		t.Fatalf("exit %d, errors %q, %v, output %s", code, errs, err, out)
	}
	if got.Schema != 1 || got.Go != runtime.Version() || got.OS != runtime.GOOS || got.Arch != runtime.GOARCH || got.Version == "" || got.Cores < 1 {
		t.Errorf("%+v", got)
	}
	if !reflect.DeepEqual(got.Tiers, topk.Tiers()) || got.Tier != got.Tiers[0] {
		t.Errorf("tier %s of %v, want the first of %v", got.Tier, got.Tiers, topk.Tiers())
	}
	if len(got.Features) != len(simd.Features()) {
		t.Errorf("%d features, want %d", len(got.Features), len(simd.Features()))
	}

	text, _, code := runLine(t, nil, "info")
	if code != exitDone {
		t.Errorf("exit %d", code)
	}
	words := []string{got.Version, got.Go, got.OS + "/" + got.Arch, got.CPU, "tier       " + got.Tier}
	for i, f := range simd.Features() {
		if want := (featureInfo{f.Tier.String(), f.Name, f.Instruction, f.Present}); got.Features[i] != want {
			t.Errorf("feature %+v, want %+v", got.Features[i], want)
		}
		words = append(words, f.Name, f.Instruction)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in\n%s", word, text)
		}
	}
}
