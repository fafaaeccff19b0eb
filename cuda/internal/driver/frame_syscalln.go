//go:build !linux || (!amd64 && !arm64) || aikf_syscalln

package driver

// invoke calls the function of the frame. The build tag is for a Go release that
// does not let this package refer to runtime.cgocall, and for comparison.
func invoke(f *frame) Code { return invokeSyscallN(f) }
