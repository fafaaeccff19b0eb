package cuda

import "fmt"

// SelectStage is SelectDevice, but puts only kernel number stage of the plan
// into the stream, 0 being the first. A later stage reads what the earlier ones
// left in the workspace. For benchmarks; it allocates.
func (s *Selector) SelectStage(stream *Stream, stage int, logits Logits, shape Shape, result Result, workspace Workspace) error {
	if err := s.usable(); err != nil {
		return err
	}
	plan, err := s.plan(shape, logits.DType)
	if err != nil {
		return err
	}
	if stage < 0 || stage >= len(plan.kernels) {
		return fmt.Errorf("cuda: stage %d of plan %q, which has %d kernels: %w", stage, plan.Name, len(plan.kernels), ErrUnsupported)
	}
	part := *plan
	part.Kernels, part.kernels = plan.Kernels[stage:stage+1], plan.kernels[stage:stage+1]
	return s.launch(newCall(s.device), stream, &part, logits, shape, result, workspace)
}
