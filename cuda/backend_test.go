package cuda

import (
	"errors"
	"testing"

	"github.com/ai-kernel-factory/aikf/topk"
	"github.com/ai-kernel-factory/aikf/topk/topktest"
)

// hostSelector is Select as the conformance suite wants it. A shape that a
// forced plan does not fit is left to the chosen one.
type hostSelector[T topk.Float] struct {
	forced, chosen *Selector
	others         *int // calls by the chosen plan
	err            error
}

func (s *hostSelector[T]) Select(dst topk.Result[T], logits []T, shape topk.Shape) error {
	if s.err != nil {
		return s.err
	}
	err := Select(s.forced, dst, logits, shape)
	if errors.Is(err, ErrUnsupported) {
		*s.others++
		return Select(s.chosen, dst, logits, shape)
	}
	return err
}

// engine is package cuda for one dtype, with the options of the suite beside
// those of the test.
func engine[T topk.Float](t testing.TB, d *Device, base Options, slow bool, others *int) topktest.Engine[T] {
	return topktest.Engine[T]{
		Slow: slow,
		NewSelector: func(options topk.Options) topktest.Selector[T] {
			o := base
			o.Smallest, o.TargetCandidates = options.Smallest, options.TargetCandidates
			s := &hostSelector[T]{others: others}
			if s.forced, s.err = d.NewSelector(o); s.err == nil {
				o.Plan = nil
				s.chosen, s.err = d.NewSelector(o)
			}
			t.Cleanup(func() {
				s.forced.Close()
				s.chosen.Close()
			})
			return s
		},
	}
}

// backend is package cuda as the conformance suite wants it.
func backend(t testing.TB, d *Device, base Options, slow bool) topktest.Backend {
	others := 0
	t.Cleanup(func() { t.Logf("%d calls by the chosen plan, since the forced one did not fit", others) })
	return topktest.Backend{
		Name:     "cuda",
		Float32:  engine[float32](t, d, base, slow, &others),
		Float16:  engine[topk.Float16](t, d, base, slow, &others),
		BFloat16: engine[topk.BFloat16](t, d, base, slow, &others),
	}
}
