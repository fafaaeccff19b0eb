//go:build linux && (amd64 || arm64)

package cuda

import "testing"

// The kernels, on the CPU, obey the law: some of its surprises and draws.
func TestKernelsObeyTheLaw(t *testing.T) {
	fake(t)
	surprises, draws := 5_000_000, 300_000
	if testing.Short() || raceEnabled {
		surprises, draws = 300_000, 30_000
	}
	testLaw(t, open(t, 0), surprises, draws, 3)
}
