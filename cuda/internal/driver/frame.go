package driver

import "runtime"

// frame is a call of a C function with at most four arguments, integers or
// pointers. The caller keeps the memory that they point to.
type frame struct {
	function  uintptr
	arguments [4]uintptr
}

// invokeSyscallN is invoke by way of package purego. It allocates nothing.
func invokeSyscallN(f *frame) Code {
	code := call(f.function, f.arguments[:]...)
	runtime.KeepAlive(f) // what the arguments point to may be part of the same
	return code
}
