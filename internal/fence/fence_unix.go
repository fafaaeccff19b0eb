//go:build linux || darwin

package fence

import (
	"os"
	"syscall"
	"testing"
)

// Memory returns at least so many bytes, aligned to a page at both ends, until
// the test ends. AtEnd and AtStart place slices in it.
func Memory(t testing.TB, bytes int) []byte {
	t.Helper()
	page := os.Getpagesize()
	inner := (bytes + page - 1) / page * page
	all, err := syscall.Mmap(-1, 0, inner+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("fence: %d bytes: %v", inner, err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(all); err != nil {
			t.Errorf("fence: %v", err)
		}
	})
	for _, outside := range [][]byte{all[:page], all[page+inner:]} {
		if err := syscall.Mprotect(outside, syscall.PROT_NONE); err != nil {
			t.Fatalf("fence: %v", err)
		}
	}
	return all[page : page+inner : page+inner]
}
