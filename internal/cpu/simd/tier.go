// Package simd chooses the inner loops for the machine it runs on. Each tier is
// a package of its own with the same functions; the dispatch is the if-chain in
// kernels.go.
package simd

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// Tier is an instruction set.
type Tier uint8

// The tiers, in the order in which they are preferred.
const (
	Pure Tier = iota
	NEON
	AVX2
	AVX512
)

var tierNames = [...]string{Pure: "pure", NEON: "neon", AVX2: "avx2", AVX512: "avx512"}

// String returns the name that options and results use.
func (t Tier) String() string { return tierNames[t] }

// Feature is a bit of the CPU, and why a tier needs it.
type Feature struct {
	Tier        Tier
	Name        string
	Instruction string // one that needs it
	Present     bool
}

// Features lists what each tier needs and whether this machine has it.
func Features() []Feature {
	return []Feature{
		{AVX512, "AVX512F", "VCMPPS to a mask, VPMAXUQ", cpu.X86.HasAVX512F},
		{AVX512, "AVX512BW", "VPCMPW, KMOVQ", cpu.X86.HasAVX512BW},
		{AVX512, "AVX512DQ", "KMOVB", cpu.X86.HasAVX512DQ},
		{AVX512, "AVX2", "VEXTRACTI128", cpu.X86.HasAVX2},
		{AVX512, "BMI1", "TZCNT, BLSR", cpu.X86.HasBMI1},
		{AVX512, "POPCNT", "POPCNT", cpu.X86.HasPOPCNT},
		{AVX2, "AVX2", "VPERMD, VPACKSSWB on 256 bits", cpu.X86.HasAVX2},
		{AVX2, "F16C", "VCVTPH2PS", cpu.X86.HasF16C},
		{AVX2, "BMI1", "TZCNT, BLSR", cpu.X86.HasBMI1},
		{AVX2, "POPCNT", "POPCNT", cpu.X86.HasPOPCNT},
		{NEON, "ASIMD", "CMHI, ADDV", runtime.GOARCH == "arm64"},
	}
}

var available = detect()

func detect() []Tier {
	var tiers []Tier
	for _, tier := range []Tier{AVX512, AVX2, NEON} {
		present := true
		for _, f := range Features() {
			if f.Tier == tier && !f.Present {
				present = false
			}
		}
		if present {
			tiers = append(tiers, tier)
		}
	}
	return append(tiers, Pure)
}

// Available lists the tiers of this machine, best first. The caller must not
// change the slice.
func Available() []Tier { return available }

// Best returns the tier that is used unless another one is asked for.
func Best() Tier { return available[0] }
