package bench

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pages returns zeroed memory, on huge pages if the system has them to give,
// and what gives it back.
func pages(bytes int) ([]byte, func() error, error) {
	const huge = 2 << 20
	bytes = (bytes + huge - 1) / huge * huge // whole ones, so that the end is not on small pages
	mapping, err := unix.Mmap(-1, 0, bytes+huge, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("bench: mmap of %d bytes: %w", bytes+huge, err)
	}
	skip := int(-uintptr(unsafe.Pointer(&mapping[0])) % huge)
	free := mapping[skip : skip+bytes]
	unix.Madvise(free, unix.MADV_HUGEPAGE) // advice: without it the pages are small
	return free, func() error { return unix.Munmap(mapping) }, nil
}
