package cpu

import (
	"strings"

	"golang.org/x/sys/unix"
)

func model() string {
	brand, err := unix.Sysctl("machdep.cpu.brand_string")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(brand)
}
