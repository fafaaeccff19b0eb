//go:build !linux || (!amd64 && !arm64)

package launchloop

import (
	"fmt"
	"runtime"
)

func load(string) (Loop, error) {
	return nil, fmt.Errorf("%w on %s/%s", ErrUnavailable, runtime.GOOS, runtime.GOARCH)
}
