package bench

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ai-kernel-factory/aikf/internal/cpu"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
	"github.com/ai-kernel-factory/aikf/topk"
)

// Plans are launch plans of the CPU from a file: as selections take them, and as
// they are.
type Plans struct {
	tuned   *topk.TunedPlans
	tunings map[planfile.Shape]*cpu.Tuning
}

// LoadPlans reads what aikf tune wrote, as topk.LoadPlans does.
func LoadPlans(from io.Reader) (*Plans, error) {
	text, err := io.ReadAll(from)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	tuned, err := topk.LoadPlans(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	file, err := planfile.Decode[cpu.Tuning](bytes.NewReader(text), planfile.CPU)
	p := &Plans{tuned, map[planfile.Shape]*cpu.Tuning{}}
	for i := range file.Entries {
		p.tunings[file.Entries[i].Shape] = &file.Entries[i].Plan
	}
	return p, err
}

// selection returns the plans as a selection takes them.
func (p *Plans) selection() *topk.TunedPlans {
	if p == nil {
		return nil
	}
	return p.tuned
}

// Tuning returns what the plans, which may be nil, say of a shape, or nil.
func (p *Plans) Tuning(shape planfile.Shape) *cpu.Tuning {
	if p == nil {
		return nil
	}
	return p.tunings[shape]
}
