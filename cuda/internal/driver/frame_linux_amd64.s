//go:build !aikf_syscalln

#include "textflag.h"

// enterFrame(DI *frame), by the calling convention of C: a jump, so that the
// function's result is that of the call and its stack is aligned as it expects.
// AX is 0, as functions with any number of arguments want it.
TEXT enterFrame<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ 0(DI), R11
	MOVQ 16(DI), SI
	MOVQ 24(DI), DX
	MOVQ 32(DI), CX
	MOVQ 8(DI), DI
	XORL AX, AX
	JMP  R11

// func enterFrameAddress() uintptr
TEXT ·enterFrameAddress(SB), NOSPLIT, $0-8
	LEAQ enterFrame<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET
