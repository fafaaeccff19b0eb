// The loops of package law for 64-bit ARM. A row of float32 is read in whole
// blocks of 256; those of 16 bits are widened first, a block at a time.
//
// blockMaxima32: V0-V7 x, V16-V23 maxima, V24 ordered so far, V25 a comparison
//
// A mass, for 4 vectors that take turns, because the chain is long:
//
//	t = integer(maximum((max - x) * -scale, least)) * 2
//	e = exponent bits of t; t = fraction bits of t, with those of 1, minus 1
//	p = polynomial(t); p's bits += e
//
//	V0-V3 x, then t   V4-V7 p   V8-V11 e   V12 max   V13 -scale   V14 least
//	V15 exponent mask   V16 fraction mask   V17 1   V18-V24 coefficients, highest first
//
// blockMasses32 then sums the integers nearest to p, in two parts:
//
//	part = p + 1.5 * 2^44; high += bits of part      units of 2^21
//	low += bits of (p - (part - 1.5 * 2^44)) + 1.5 * 2^23      units of 1
//
//	V25 1.5 * 2^44   V26 1.5 * 2^23   V27 high   V28 low   V29 bits of the lanes
//	V30, V31 of one vector
//
// Both sums begin with what takes the constants out again, and have 30 bits.

//go:build arm64

#include "textflag.h"

#define FADD_S4(m, n, d)   WORD $(0x4E20D400 | m<<16 | n<<5 | d) // fadd vd.4s, vn.4s, vm.4s
#define FSUB_S4(m, n, d)   WORD $(0x4EA0D400 | m<<16 | n<<5 | d) // fsub vd.4s, vn.4s, vm.4s
#define FMUL_S4(m, n, d)   WORD $(0x6E20DC00 | m<<16 | n<<5 | d) // fmul vd.4s, vn.4s, vm.4s
#define FMAXNM_S4(m, n, d) WORD $(0x4E20C400 | m<<16 | n<<5 | d) // fmaxnm vd.4s, vn.4s, vm.4s
#define FMAXNMV_S4(n, d)   WORD $(0x6E30C800 | n<<5 | d)         // fmaxnmv sd, vn.4s
#define FCMEQ_S4(m, n, d)  WORD $(0x4E20E400 | m<<16 | n<<5 | d) // fcmeq vd.4s, vn.4s, vm.4s
#define CMTST_S4(m, n, d)  WORD $(0x4EA08C00 | m<<16 | n<<5 | d) // cmtst vd.4s, vn.4s, vm.4s
#define FCVTNS_S4(n, d)    WORD $(0x4E21A800 | n<<5 | d)         // fcvtns vd.4s, vn.4s
#define FCVTNS_D2(n, d)    WORD $(0x4E61A800 | n<<5 | d)         // fcvtns vd.2d, vn.2d
#define FCVTL_D2(n, d)     WORD $(0x0E617800 | n<<5 | d)         // fcvtl vd.2d, vn.2s
#define FCVTL2_D2(n, d)    WORD $(0x4E617800 | n<<5 | d)         // fcvtl2 vd.2d, vn.4s
#define FCVTL_S4(n, d)     WORD $(0x0E217800 | n<<5 | d)         // fcvtl vd.4s, vn.4h
#define FCVTL2_S4(n, d)    WORD $(0x4E217800 | n<<5 | d)         // fcvtl2 vd.4s, vn.8h
#define SHLL_S4(n, d)      WORD $(0x2E613800 | n<<5 | d)         // shll vd.4s, vn.4h, #16
#define SHLL2_S4(n, d)     WORD $(0x6E613800 | n<<5 | d)         // shll2 vd.4s, vn.8h, #16

#define CONSTANT(bits, v) \
	MOVD $bits, R10 \
	VDUP R10, v.S4

// WEIGHER sets the constants of masses; R8 has the bits of max, R9 those of
// scale.
#define WEIGHER \
	VDUP     R8, V12.S4 \
	EOR      $0x80000000, R9 \
	VDUP     R9, V13.S4 \
	CONSTANT(0xCD300000, V14) \
	CONSTANT(0xFF800000, V15) \
	CONSTANT(0x007FFFFF, V16) \
	CONSTANT(0x3F800000, V17) \
	CONSTANT(0x4E6222C0, V18) \
	CONSTANT(0x4FA39B9C, V19) \
	CONSTANT(0x511E7EC1, V20) \
	CONSTANT(0x5263457B, V21) \
	CONSTANT(0x5375FE9D, V22) \
	CONSTANT(0x54317216, V23) \
	CONSTANT(0x54800000, V24)

// TERM adds a coefficient and multiplies by t.
#define TERM(c) \
	FADD_S4(c, 4, 4) \
	FADD_S4(c, 5, 5) \
	FADD_S4(c, 6, 6) \
	FADD_S4(c, 7, 7) \
	FMUL_S4(0, 4, 4) \
	FMUL_S4(1, 5, 5) \
	FMUL_S4(2, 6, 6) \
	FMUL_S4(3, 7, 7)

// WEIGH makes p of x.
#define WEIGH \
	FSUB_S4(0, 12, 0) \
	FSUB_S4(1, 12, 1) \
	FSUB_S4(2, 12, 2) \
	FSUB_S4(3, 12, 3) \
	FMUL_S4(13, 0, 0) \
	FMUL_S4(13, 1, 1) \
	FMUL_S4(13, 2, 2) \
	FMUL_S4(13, 3, 3) \
	FMAXNM_S4(14, 0, 0) \
	FMAXNM_S4(14, 1, 1) \
	FMAXNM_S4(14, 2, 2) \
	FMAXNM_S4(14, 3, 3) \
	FCVTNS_S4(0, 0) \
	FCVTNS_S4(1, 1) \
	FCVTNS_S4(2, 2) \
	FCVTNS_S4(3, 3) \
	VADD V0.S4, V0.S4, V0.S4 \
	VADD V1.S4, V1.S4, V1.S4 \
	VADD V2.S4, V2.S4, V2.S4 \
	VADD V3.S4, V3.S4, V3.S4 \
	VAND V15.B16, V0.B16, V8.B16 \
	VAND V15.B16, V1.B16, V9.B16 \
	VAND V15.B16, V2.B16, V10.B16 \
	VAND V15.B16, V3.B16, V11.B16 \
	VAND V16.B16, V0.B16, V0.B16 \
	VAND V16.B16, V1.B16, V1.B16 \
	VAND V16.B16, V2.B16, V2.B16 \
	VAND V16.B16, V3.B16, V3.B16 \
	VORR V17.B16, V0.B16, V0.B16 \
	VORR V17.B16, V1.B16, V1.B16 \
	VORR V17.B16, V2.B16, V2.B16 \
	VORR V17.B16, V3.B16, V3.B16 \
	FSUB_S4(17, 0, 0) \
	FSUB_S4(17, 1, 1) \
	FSUB_S4(17, 2, 2) \
	FSUB_S4(17, 3, 3) \
	FMUL_S4(18, 0, 4) \
	FMUL_S4(18, 1, 5) \
	FMUL_S4(18, 2, 6) \
	FMUL_S4(18, 3, 7) \
	TERM(19) \
	TERM(20) \
	TERM(21) \
	TERM(22) \
	TERM(23) \
	FADD_S4(24, 4, 4) \
	FADD_S4(24, 5, 5) \
	FADD_S4(24, 6, 6) \
	FADD_S4(24, 7, 7) \
	VADD V8.S4, V4.S4, V4.S4 \
	VADD V9.S4, V5.S4, V5.S4 \
	VADD V10.S4, V6.S4, V6.S4 \
	VADD V11.S4, V7.S4, V7.S4

// ADD_KEPT adds the masses p, a vector number and its name, of the lanes whose bits
// are the lowest ones of R5, and moves to the next bits.
#define ADD_KEPT(p, v) \
	VDUP R5, V30.S4 \
	LSR  $4, R5 \
	CMTST_S4(29, 30, 30) \
	VAND V30.B16, v.B16, v.B16 \
	FADD_S4(25, p, 30) \
	VADD V30.S4, V27.S4, V27.S4 \
	FSUB_S4(25, 30, 30) \
	FSUB_S4(30, p, 31) \
	FADD_S4(26, 31, 31) \
	VADD V31.S4, V28.S4, V28.S4

// func blockMaxima32(maxima []float32, row *uint32) (unordered bool)
TEXT ·blockMaxima32(SB), NOSPLIT, $0-33
	MOVD maxima_base+0(FP), R0
	MOVD maxima_len+8(FP), R1
	MOVD row+24(FP), R2
	VEOR V24.B16, V24.B16, V24.B16
	VCMEQ V24.B16, V24.B16, V24.B16 // all ones
	CBZ  R1, blockMaxima32Done

blockMaxima32Block:
	CONSTANT(0xFF800000, V16)
	VMOV V16.B16, V17.B16
	VMOV V16.B16, V18.B16
	VMOV V16.B16, V19.B16
	VMOV V16.B16, V20.B16
	VMOV V16.B16, V21.B16
	VMOV V16.B16, V22.B16
	VMOV V16.B16, V23.B16
	MOVD $8, R3

blockMaxima32Vectors:
	VLD1.P 64(R2), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1.P 64(R2), [V4.S4, V5.S4, V6.S4, V7.S4]
	FMAXNM_S4(0, 16, 16)
	FMAXNM_S4(1, 17, 17)
	FMAXNM_S4(2, 18, 18)
	FMAXNM_S4(3, 19, 19)
	FMAXNM_S4(4, 20, 20)
	FMAXNM_S4(5, 21, 21)
	FMAXNM_S4(6, 22, 22)
	FMAXNM_S4(7, 23, 23)
	FCMEQ_S4(0, 0, 0)
	FCMEQ_S4(1, 1, 1)
	FCMEQ_S4(2, 2, 2)
	FCMEQ_S4(3, 3, 3)
	FCMEQ_S4(4, 4, 4)
	FCMEQ_S4(5, 5, 5)
	FCMEQ_S4(6, 6, 6)
	FCMEQ_S4(7, 7, 7)
	VAND V1.B16, V0.B16, V0.B16
	VAND V3.B16, V2.B16, V2.B16
	VAND V5.B16, V4.B16, V4.B16
	VAND V7.B16, V6.B16, V6.B16
	VAND V2.B16, V0.B16, V0.B16
	VAND V6.B16, V4.B16, V4.B16
	VAND V4.B16, V0.B16, V0.B16
	VAND V0.B16, V24.B16, V24.B16
	SUBS $1, R3
	BNE  blockMaxima32Vectors
	FMAXNM_S4(17, 16, 16)
	FMAXNM_S4(19, 18, 18)
	FMAXNM_S4(21, 20, 20)
	FMAXNM_S4(23, 22, 22)
	FMAXNM_S4(18, 16, 16)
	FMAXNM_S4(22, 20, 20)
	FMAXNM_S4(20, 16, 16)
	FMAXNMV_S4(16, 16)
	FMOVS F16, (R0)
	ADD  $4, R0
	SUBS $1, R1
	BNE  blockMaxima32Block

blockMaxima32Done:
	VMOV V24.D[0], R3
	VMOV V24.D[1], R4
	AND  R4, R3
	CMN  $1, R3
	CSET NE, R3
	MOVB R3, unordered+32(FP)
	RET

// func blockMasses32(sums, bitmap []uint64, row *uint32, max, scale uint32)
TEXT ·blockMasses32(SB), NOSPLIT, $0-64
	MOVD  sums_base+0(FP), R0
	MOVD  sums_len+8(FP), R1
	MOVD  bitmap_base+24(FP), R2
	MOVD  row+48(FP), R3
	MOVWU max+56(FP), R8
	MOVWU scale+60(FP), R9
	WEIGHER
	CONSTANT(0x55C00000, V25)
	CONSTANT(0x4B400000, V26)
	MOVD  $0x0000000200000001, R10
	VMOV  R10, V29.D[0]
	MOVD  $0x0000000800000004, R10
	VMOV  R10, V29.D[1]
	CBZ   R1, blockMasses32Done

blockMasses32Block:
	LDP  (R2), (R4, R5)
	LDP  16(R2), (R6, R7)
	ORR  R5, R4
	ORR  R7, R6
	ORR  R6, R4
	CBZ  R4, blockMasses32Skip
	CONSTANT(0x90000000, V27) // -64 * 0x55C00000
	CONSTANT(0x30000000, V28) // -64 * 0x4B400000
	MOVD $4, R4

blockMasses32Word:
	MOVD.P 8(R2), R5
	MOVD   $4, R6

blockMasses32Vectors:
	VLD1.P 64(R3), [V0.S4, V1.S4, V2.S4, V3.S4]
	WEIGH
	ADD_KEPT(4, V4)
	ADD_KEPT(5, V5)
	ADD_KEPT(6, V6)
	ADD_KEPT(7, V7)
	SUBS $1, R6
	BNE  blockMasses32Vectors
	SUBS $1, R4
	BNE  blockMasses32Word
	VADDV V27.S4, V30
	VADDV V28.S4, V31
	VMOV V30.S[0], R4
	VMOV V31.S[0], R5
	MOVW R5, R5
	LSL  $21, R4
	ADD  R5, R4
	B    blockMasses32Store

blockMasses32Skip:
	ADD $32, R2
	ADD $1024, R3

blockMasses32Store:
	MOVD.P R4, 8(R0)
	SUBS   $1, R1
	BNE    blockMasses32Block

blockMasses32Done:
	RET

// func masses16(masses *uint64, logits []float32, max, scale uint32)
TEXT ·masses16(SB), NOSPLIT, $0-40
	MOVD  masses+0(FP), R0
	MOVD  logits_base+8(FP), R2
	MOVD  logits_len+16(FP), R1
	MOVWU max+32(FP), R8
	MOVWU scale+36(FP), R9
	WEIGHER

masses16Loop:
	SUBS $16, R1
	BLT  masses16Done
	VLD1.P 64(R2), [V0.S4, V1.S4, V2.S4, V3.S4]
	WEIGH
	FCVTL_D2(4, 8)
	FCVTL2_D2(4, 9)
	FCVTL_D2(5, 10)
	FCVTL2_D2(5, 11)
	FCVTL_D2(6, 0)
	FCVTL2_D2(6, 1)
	FCVTL_D2(7, 2)
	FCVTL2_D2(7, 3)
	FCVTNS_D2(8, 8)
	FCVTNS_D2(9, 9)
	FCVTNS_D2(10, 10)
	FCVTNS_D2(11, 11)
	FCVTNS_D2(0, 0)
	FCVTNS_D2(1, 1)
	FCVTNS_D2(2, 2)
	FCVTNS_D2(3, 3)
	VST1.P [V8.D2, V9.D2, V10.D2, V11.D2], 64(R0)
	VST1.P [V0.D2, V1.D2, V2.D2, V3.D2], 64(R0)
	B    masses16Loop

masses16Done:
	RET

// func widenBFloat16(values *[256]uint32, row *uint16)
TEXT ·widenBFloat16(SB), NOSPLIT, $0-16
	MOVD values+0(FP), R0
	MOVD row+8(FP), R1
	MOVD $16, R2

widenBFloat16Loop:
	VLD1.P 32(R1), [V0.H8, V1.H8]
	SHLL_S4(0, 4)
	SHLL2_S4(0, 5)
	SHLL_S4(1, 6)
	SHLL2_S4(1, 7)
	VST1.P [V4.S4, V5.S4, V6.S4, V7.S4], 64(R0)
	SUBS   $1, R2
	BNE    widenBFloat16Loop
	RET

// func widenFloat16(values *[256]uint32, row *uint16)
TEXT ·widenFloat16(SB), NOSPLIT, $0-16
	MOVD values+0(FP), R0
	MOVD row+8(FP), R1
	MOVD $16, R2

widenFloat16Loop:
	VLD1.P 32(R1), [V0.H8, V1.H8]
	FCVTL_S4(0, 4)
	FCVTL2_S4(0, 5)
	FCVTL_S4(1, 6)
	FCVTL2_S4(1, 7)
	VST1.P [V4.S4, V5.S4, V6.S4, V7.S4], 64(R0)
	SUBS   $1, R2
	BNE    widenFloat16Loop
	RET
