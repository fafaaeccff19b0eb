// Package fence gives tests memory that ends where it says: the pages before
// and after it cannot be read, so that an access past a slice crashes. On
// systems without mmap the memory is ordinary.
package fence

import "unsafe"

// AtEnd returns n elements that end where the memory ends; their capacity is n.
func AtEnd[E any](memory []byte, n int) []E {
	bytes := n * int(unsafe.Sizeof(*new(E)))
	return view[E](memory[len(memory)-bytes:], n)
}

// AtStart returns n elements that start where the memory starts.
func AtStart[E any](memory []byte, n int) []E {
	return view[E](memory, n)
}

func view[E any](memory []byte, n int) []E {
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(memory))), n)
}
