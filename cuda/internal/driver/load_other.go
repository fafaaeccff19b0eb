//go:build !linux || (!amd64 && !arm64)

package driver

import (
	"fmt"
	"runtime"
)

func open(string) (uintptr, error) {
	return 0, fmt.Errorf("not supported on %s/%s", runtime.GOOS, runtime.GOARCH)
}

func find(uintptr, string) (uintptr, error) { panic("driver: no library is open") }

//go:uintptrescapes
func call(uintptr, ...uintptr) Code { panic("driver: no library is open") }
