//go:build !linux || (!amd64 && !arm64) || aikf_syscalln

package driver

// invoke calls the function of the frame.
func invoke(f *frame) Code { return invokeSyscallN(f) }
