//go:build linux && (amd64 || arm64)

package driver

import "github.com/ebitengine/purego"

// open loads the shared library.
func open(path string) (handle uintptr, err error) {
	return purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
}

// find returns the address of a symbol.
func find(handle uintptr, symbol string) (address uintptr, err error) {
	return purego.Dlsym(handle, symbol)
}

// call calls a C function of integers and pointers. It allocates nothing if
// arguments is a slice of memory that the caller keeps.
//
//go:uintptrescapes
func call(address uintptr, arguments ...uintptr) Code {
	r, _, _ := purego.SyscallN(address, arguments...)
	return Code(r)
}
