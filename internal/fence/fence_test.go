//go:build linux || darwin

package fence

import (
	"runtime/debug"
	"testing"
	"unsafe"
)

// reads reports whether the byte at an offset from the slice can be read.
func reads(memory []byte, offset int) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() == nil }()
	sink = *(*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(memory)), offset))
	return
}

var sink byte

func TestMemoryIsFenced(t *testing.T) {
	memory := Memory(t, 100)
	last := len(memory) - 1
	if !reads(memory, 0) || !reads(memory, last) {
		t.Error("the memory itself cannot be read")
	}
	if reads(memory, -1) || reads(memory, last+1) {
		t.Error("there is no fence")
	}
	words := AtEnd[uint32](memory, 5)
	if len(words) != 5 || cap(words) != 5 || unsafe.Pointer(&words[4]) != unsafe.Pointer(&memory[last-3]) {
		t.Error("AtEnd does not end at the end")
	}
	if first := AtStart[uint16](memory, 5); unsafe.Pointer(&first[0]) != unsafe.Pointer(&memory[0]) {
		t.Error("AtStart does not start at the start")
	}
}
