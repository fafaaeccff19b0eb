//go:build linux && (amd64 || arm64)

package driver

import (
	"runtime"
	"testing"
	"unsafe"
)

// A frame reaches C whole, and the result comes back whole, by either way.
func TestInvoke(t *testing.T) {
	library, err := open("libc.so.6")
	if err != nil {
		t.Skipf("no C library of that name: %v", err)
	}
	snprintf, err := find(library, "snprintf")
	if err != nil {
		t.Fatal(err)
	}
	memcmp, err := find(library, "memcmp")
	if err != nil {
		t.Fatal(err)
	}
	text, format, word := []byte("0123456789"), []byte("<%s>\x00"), []byte("four\x00")
	smaller, larger := []byte("abc"), []byte("abd")
	var pinner runtime.Pinner
	defer pinner.Unpin()
	at := func(bytes []byte) uintptr {
		pinner.Pin(&bytes[0])
		return uintptr(unsafe.Pointer(&bytes[0]))
	}
	write := &frame{snprintf, [4]uintptr{at(text), uintptr(len(text)), at(format), at(word)}}
	compare := &frame{memcmp, [4]uintptr{at(smaller), at(larger), 3}}
	for name, by := range map[string]func(*frame) Code{"invoke": invoke, "invokeSyscallN": invokeSyscallN} {
		copy(text, "0123456789")
		if n := by(write); n != 6 || string(text) != "<four>\x00789" {
			t.Errorf("%s: snprintf returned %d and wrote %q", name, n, text)
		}
		if n := by(compare); n >= 0 {
			t.Errorf("%s: memcmp returned %d, want less than 0", name, n)
		}
		if n := testing.AllocsPerRun(10, func() { by(compare) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
