package launchloop

import (
	"errors"
	"strings"
	"testing"
)

// The function loads; launches are tested where there is a driver.
func TestLoad(t *testing.T) {
	loop, err := Load(t.Context())
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if ns := loop(0, 0, nil, 0, nil); ns == ns && ns < 0 {
		t.Errorf("no launch failed, yet it returned %v", ns)
	}
}

func TestLoadWithoutCompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Load(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "needs a C compiler") {
		t.Errorf("error %v", err)
	}
}
