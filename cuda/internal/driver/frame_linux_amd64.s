//go:build !aikf_syscalln

#include "textflag.h"

// enterFrame(DI *frame), by the calling convention of C: a jump, so that the
// function's result is that of the call and its stack is aligned as it expects.
TEXT enterFrame<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ DI, AX
	MOVQ 8(AX), DI
	MOVQ 16(AX), SI
	MOVQ 24(AX), DX
	MOVQ 32(AX), CX
	MOVQ 0(AX), AX
	JMP  AX

// func enterFrameAddress() uintptr
TEXT ·enterFrameAddress(SB), NOSPLIT, $0-8
	LEAQ enterFrame<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET
