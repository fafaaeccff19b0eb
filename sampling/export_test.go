package sampling

import "github.com/ai-kernel-factory/aikf/topk"

// Engine reports whether a row is sampled without a copy of it.
func Engine[T topk.Float](s *Sampler[T], logits []T) bool {
	if s.begin(len(logits)) != nil {
		return false
	}
	_, done := s.engine.run(&s.core, logits)
	return done
}
