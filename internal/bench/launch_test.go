package bench

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/ai-kernel-factory/aikf/cuda"
)

// TestLaunchFromC compiles the program, which needs a driver to go on.
func TestLaunchFromC(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	times, err := launchFromC(t.Context(), 0)
	if n, unavailable := cuda.DeviceCount(); unavailable == nil && n > 0 {
		if err != nil || times.Median <= 0 || times.Samples != 200 {
			t.Errorf("%+v, %v", times, err)
		}
	} else if err == nil || !strings.Contains(err.Error(), "launch: exit status 1: ") {
		t.Errorf("error %v", err)
	}
}

func TestLaunchFromCWithoutCompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := launchFromC(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "needs a C compiler") {
		t.Errorf("error %v", err)
	}
}
