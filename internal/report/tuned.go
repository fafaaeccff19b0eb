package report

import (
	"fmt"
	"time"

	"github.com/ai-kernel-factory/aikf/internal/bench"
	"github.com/ai-kernel-factory/aikf/internal/planfile"
)

// Tuned is a file of launch plans of aikf tune, as far as the report shows it.
type Tuned struct {
	Schema      int             `json:"schema"`
	PlanVersion int             `json:"plan_version"` // of the library's plans
	Device      planfile.Device `json:"device"`       // that they were searched for on
	Command     string          `json:"command"`
	Commit      string          `json:"commit"`
	Date        time.Time       `json:"date"`
	Entries     []TunedEntry    `json:"entries"`  // plans that win beyond noise
	NotKept     []TunedEntry    `json:"not_kept"` // the best of the other shapes
}

// TunedEntry is the fastest plan that was found for a shape, beside the built-in
// one: the gain is the mean over several starts of the median over pairs of times.
type TunedEntry struct {
	Rows       int            `json:"rows"`
	Vocab      int            `json:"vocab"`
	TopK       int            `json:"top_k"`
	DType      bench.DType    `json:"dtype"`
	Plan       map[string]any `json:"plan"`        // what differs from the built-in plan
	Explained  string         `json:"explained"`   // the plan in words
	Tried      int            `json:"plans_tried"` // the built-in one among them
	BuiltInUS  float64        `json:"built_in_us"`
	TunedUS    float64        `json:"tuned_us"`
	Gain       float64        `json:"gain"`
	GainLow    float64        `json:"gain_low"`
	GainHigh   float64        `json:"gain_high"`
	Confidence float64        `json:"confidence"` // that the gain lies between gain_low and gain_high
	Pairs      int            `json:"pairs"`
	Starts     int            `json:"starts"`
	LeastStart float64        `json:"least_start"`      // the gain of the worst
	Reason     string         `json:"reason,omitempty"` // why it is not kept
}

// check reports the first field that cannot be. A file of an older version of the
// plans is shown, though no selection would take it.
func (t Tuned) check() error {
	switch {
	case t.Schema != planfile.Schema:
		return invalid("schema", t.Schema)
	case t.Device.Name == "":
		return invalid("device.name", `""`)
	case len(t.Entries)+len(t.NotKept) == 0:
		return invalid("entries", "[]")
	}
	for name, entries := range map[string][]TunedEntry{"entries": t.Entries, "not_kept": t.NotKept} {
		for i, e := range entries {
			if !(e.Gain > 0 && e.BuiltInUS > 0 && e.TunedUS > 0) {
				return invalid(fmt.Sprintf("%s[%d].gain", name, i), e.Gain)
			}
		}
	}
	return nil
}

// tuned shows the plans that were searched for, those that were not kept too.
func (l Lab) tuned() section {
	g := grid{columns: []heading{
		{"machine", false}, {"rows x k", false}, {"vocab", true}, {"dtype", false}, {"built-in (us)", true}, {"tuned (us)", true},
		{"gain", true}, {"95 %", false}, {"plans", true}, {"kept", false}, {"plan", false},
	}}
	percent := func(gain float64) string { return fmt.Sprintf("%+.1f %%", 100*(gain-1)) }
	for _, s := range l.Sources {
		if s.Tuned == nil {
			continue
		}
		for _, entries := range [][]TunedEntry{s.Tuned.Entries, s.Tuned.NotKept} {
			for _, e := range entries {
				kept := "yes"
				if e.Reason != "" {
					kept = "no: " + e.Reason
				}
				g.rows = append(g.rows, []string{
					s.subject(), fmt.Sprintf("%d x %d", e.Rows, e.TopK), thousands(e.Vocab), string(e.DType), micros(e.BuiltInUS), micros(e.TunedUS),
					percent(e.Gain), percent(e.GainLow) + " to " + percent(e.GainHigh), fmt.Sprint(e.Tried), kept, e.Explained,
				})
			}
		}
	}
	s := section{id: "tuned", title: "Tuned plans"}
	if len(g.rows) > 0 {
		s.text = []string{"What aikf tune found beside the built-in launch plans, each on other logits than it was found on. A plan is kept if all of the interval is above 1 %."}
		s.tables = []table{{nil, g}}
	}
	return s
}
