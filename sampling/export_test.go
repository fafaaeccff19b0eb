package sampling

import "github.com/ai-kernel-factory/aikf/topk"

// Selects reports whether a row's tokens are found by a selection, without the
// whole row.
func Selects[T topk.Float](s *Sampler[T], logits []T) bool {
	return s.begin(len(logits)) == nil && s.selection.load(&s.core, logits)
}
