//go:build linux && (amd64 || arm64) && !aikf_syscalln

package driver

import "unsafe"

// cgocall calls C on the system stack of the thread, where nothing of Go is in
// its way. Package runtime lets packages such as purego refer to it, and keeps
// it for them; purego sets up what it needs.
//
//go:linkname cgocall runtime.cgocall
func cgocall(function uintptr, argument unsafe.Pointer) int32

// enterFrameAddress returns the address of C code that calls the function of the
// frame which its argument points to, and returns what that returns.
func enterFrameAddress() uintptr

var enterFrame = enterFrameAddress()

// invoke calls the function of the frame. It is invokeSyscallN without all that
// makes it general: a quarter of the memory that it runs through.
func invoke(f *frame) Code { return Code(cgocall(enterFrame, unsafe.Pointer(f))) }
