//go:build !aikf_syscalln

#include "textflag.h"

// enterFrame(R0 *frame), by the calling convention of C: a jump, so that the
// function's result is that of the call.
TEXT enterFrame<>(SB), NOSPLIT|NOFRAME, $0
	MOVD 0(R0), R9
	MOVD 16(R0), R1
	MOVD 24(R0), R2
	MOVD 32(R0), R3
	MOVD 8(R0), R0
	JMP  (R9)

// func enterFrameAddress() uintptr
TEXT ·enterFrameAddress(SB), NOSPLIT, $0-8
	MOVD $enterFrame<>(SB), R0
	MOVD R0, ret+0(FP)
	RET
