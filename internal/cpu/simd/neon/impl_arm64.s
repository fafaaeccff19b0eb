// The inner loops for 64-bit ARM. A row is read once, forward, 64 bytes a load,
// and never past its end; a base is aligned to the element only.
//
// filter32, for each word of the bitmap:
//
//	m[j] = v >= x[4j .. 4j+3]             j = 0..15, 32 equal bits a lane
//	low  = bit p of lane l is m[p/4], lane l, for m[0..7]; high for m[8..15]
//	low  = only the bits p = l mod 4 of lane l; high alike
//	word = sum of low's lanes + sum of high's lanes << 32, ^ ^invert
//
//	V0-V15 x, then m   V16 v   V17-V19 bits of odd m, m/2, m/4   V20 bits of lane l
//
// greater16 and less16:
//
//	m[j] = x[8j .. 8j+7] > above, or below > x    j = 0..7, 16 equal bits a lane
//	q[i] = bit p of lane l is m[2i + p/8], lane l      i = 0..3
//	q[i] = only the bits p = l mod 8 of lane l
//	word = sums of the lanes of q[0..3], each 16 bits, ^ invert
//
//	V0-V7 x   V8-V15 m   V16 above or below   V17 bits of odd m   V18 bits of lane l
//	V20-V23 largest
//
// sample32 and sample16, for each line of 16 or 32 groups:
//
//	for stops j = line, line + lines, ...:
//	    y = x ^ flip
//	    a = signed max(a, y); b = unsigned min(b, y)
//	key = a if a >= 0, else b ^ 0x7FFF...        b is the best if all are negative
//
//	V0-V3 y   V4-V7 a   V8-V11 b   V16 flip
//
// Rank bisects between the least and the largest group; V16 is the middle, V4-V7
// count. max32 and max16 keep eight maxima in V16-V23; the last 128 bytes may
// overlap those before.

//go:build arm64

#include "textflag.h"

// What the assembler lacks; m, n, d are numbers of registers, in its order.
#define FCMGE_S4(m, n, d)  WORD $(0x6E20E400 | m<<16 | n<<5 | d) // fcmge vd.4s, vn.4s, vm.4s
#define FMAXNM_S4(m, n, d) WORD $(0x4E20C400 | m<<16 | n<<5 | d) // fmaxnm vd.4s, vn.4s, vm.4s
#define FMAXNMV_S4(n, d)   WORD $(0x6E30C800 | n<<5 | d)         // fmaxnmv sd, vn.4s
#define CMGT_H8(m, n, d)   WORD $(0x4E603400 | m<<16 | n<<5 | d) // cmgt vd.8h, vn.8h, vm.8h
#define CMHI_H8(m, n, d)   WORD $(0x6E603400 | m<<16 | n<<5 | d) // cmhi vd.8h, vn.8h, vm.8h
#define CMGE_S4(m, n, d)   WORD $(0x4EA03C00 | m<<16 | n<<5 | d) // cmge vd.4s, vn.4s, vm.4s
#define SMAX_S4(m, n, d)   WORD $(0x4EA06400 | m<<16 | n<<5 | d) // smax vd.4s, vn.4s, vm.4s
#define SMAX_H8(m, n, d)   WORD $(0x4E606400 | m<<16 | n<<5 | d) // smax vd.8h, vn.8h, vm.8h
#define SMIN_S4(m, n, d)   WORD $(0x4EA06C00 | m<<16 | n<<5 | d) // smin vd.4s, vn.4s, vm.4s
#define SMAXV_S4(n, d)     WORD $(0x4EB0A800 | n<<5 | d)         // smaxv sd, vn.4s
#define SMAXV_H8(n, d)     WORD $(0x4E70A800 | n<<5 | d)         // smaxv hd, vn.8h
#define SMINV_S4(n, d)     WORD $(0x4EB1A800 | n<<5 | d)         // sminv sd, vn.4s
#define UMAXV_H8(n, d)     WORD $(0x6E70A800 | n<<5 | d)         // umaxv hd, vn.8h
#define SIGN_S4(n, d)      WORD $(0x4F210400 | n<<5 | d)         // sshr vd.4s, vn.4s, #31
#define SIGN_H8(n, d)      WORD $(0x4F110400 | n<<5 | d)         // sshr vd.8h, vn.8h, #15

// func filter32(bitmap []uint64, row *uint32, above uint32, invert uint64)
TEXT ·filter32(SB), NOSPLIT, $0-48
	MOVD  bitmap_base+0(FP), R0
	MOVD  bitmap_len+8(FP), R1
	MOVD  row+24(FP), R2
	MOVWU above+32(FP), R3
	MOVD  invert+40(FP), R4
	MVN   R4, R4
	VDUP  R3, V16.S4
	MOVD  $0xF0F0F0F0, R3
	VDUP  R3, V17.S4
	MOVD  $0xFF00FF00, R3
	VDUP  R3, V18.S4
	MOVD  $0xFFFF0000, R3
	VDUP  R3, V19.S4
	MOVD  $0x2222222211111111, R3
	VMOV  R3, V20.D[0]
	MOVD  $0x8888888844444444, R3
	VMOV  R3, V20.D[1]
	CBZ   R1, filter32Done

filter32Word:
	VLD1.P 64(R2), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1.P 64(R2), [V4.S4, V5.S4, V6.S4, V7.S4]
	VLD1.P 64(R2), [V8.S4, V9.S4, V10.S4, V11.S4]
	VLD1.P 64(R2), [V12.S4, V13.S4, V14.S4, V15.S4]
	FCMGE_S4(0, 16, 0)
	FCMGE_S4(1, 16, 1)
	FCMGE_S4(2, 16, 2)
	FCMGE_S4(3, 16, 3)
	FCMGE_S4(4, 16, 4)
	FCMGE_S4(5, 16, 5)
	FCMGE_S4(6, 16, 6)
	FCMGE_S4(7, 16, 7)
	FCMGE_S4(8, 16, 8)
	FCMGE_S4(9, 16, 9)
	FCMGE_S4(10, 16, 10)
	FCMGE_S4(11, 16, 11)
	FCMGE_S4(12, 16, 12)
	FCMGE_S4(13, 16, 13)
	FCMGE_S4(14, 16, 14)
	FCMGE_S4(15, 16, 15)
	VBIT   V17.B16, V1.B16, V0.B16
	VBIT   V17.B16, V3.B16, V2.B16
	VBIT   V17.B16, V5.B16, V4.B16
	VBIT   V17.B16, V7.B16, V6.B16
	VBIT   V17.B16, V9.B16, V8.B16
	VBIT   V17.B16, V11.B16, V10.B16
	VBIT   V17.B16, V13.B16, V12.B16
	VBIT   V17.B16, V15.B16, V14.B16
	VBIT   V18.B16, V2.B16, V0.B16
	VBIT   V18.B16, V6.B16, V4.B16
	VBIT   V18.B16, V10.B16, V8.B16
	VBIT   V18.B16, V14.B16, V12.B16
	VBIT   V19.B16, V4.B16, V0.B16
	VBIT   V19.B16, V12.B16, V8.B16
	VAND   V20.B16, V0.B16, V0.B16
	VAND   V20.B16, V8.B16, V8.B16
	VADDP  V8.S4, V0.S4, V0.S4
	VADDP  V0.S4, V0.S4, V0.S4
	VMOV   V0.D[0], R3
	EOR    R4, R3
	MOVD.P R3, 8(R0)
	SUBS   $1, R1
	BNE    filter32Word

filter32Done:
	RET

// FILTER16_START sets the constants of greater16 and less16; R3 is the limit.
#define FILTER16_START \
	VDUP R3, V16.H8                 \
	MOVD $0xFF00FF00, R3            \
	VDUP R3, V17.S4                 \
	MOVD $0x0808040402020101, R3    \
	VMOV R3, V18.D[0]               \
	MOVD $0x8080404020201010, R3    \
	VMOV R3, V18.D[1]               \
	VEOR V20.B16, V20.B16, V20.B16  \
	VEOR V21.B16, V21.B16, V21.B16  \
	VEOR V22.B16, V22.B16, V22.B16  \
	VEOR V23.B16, V23.B16, V23.B16

#define FILTER16_LOAD \
	VLD1.P 64(R2), [V0.H8, V1.H8, V2.H8, V3.H8] \
	VLD1.P 64(R2), [V4.H8, V5.H8, V6.H8, V7.H8]

// FILTER16_WORD packs the comparisons and takes the largest elements.
#define FILTER16_WORD \
	VUMAX  V0.H8, V20.H8, V20.H8   \
	VUMAX  V1.H8, V21.H8, V21.H8   \
	VUMAX  V2.H8, V22.H8, V22.H8   \
	VUMAX  V3.H8, V23.H8, V23.H8   \
	VUMAX  V4.H8, V20.H8, V20.H8   \
	VUMAX  V5.H8, V21.H8, V21.H8   \
	VUMAX  V6.H8, V22.H8, V22.H8   \
	VUMAX  V7.H8, V23.H8, V23.H8   \
	VBIT   V17.B16, V9.B16, V8.B16   \
	VBIT   V17.B16, V11.B16, V10.B16 \
	VBIT   V17.B16, V13.B16, V12.B16 \
	VBIT   V17.B16, V15.B16, V14.B16 \
	VAND   V18.B16, V8.B16, V8.B16   \
	VAND   V18.B16, V10.B16, V10.B16 \
	VAND   V18.B16, V12.B16, V12.B16 \
	VAND   V18.B16, V14.B16, V14.B16 \
	VADDP  V10.H8, V8.H8, V8.H8      \
	VADDP  V14.H8, V12.H8, V12.H8    \
	VADDP  V12.H8, V8.H8, V8.H8      \
	VADDP  V8.H8, V8.H8, V8.H8       \
	VMOV   V8.D[0], R3 \
	EOR    R4, R3      \
	MOVD.P R3, 8(R0)   \
	SUBS   $1, R1

// FILTER16_END leaves the largest element in R3.
#define FILTER16_END \
	VUMAX V21.H8, V20.H8, V20.H8 \
	VUMAX V23.H8, V22.H8, V22.H8 \
	VUMAX V22.H8, V20.H8, V20.H8 \
	UMAXV_H8(20, 20)             \
	VMOV  V20.H[0], R3

// func greater16(bitmap []uint64, row *uint16, above uint16, invert uint64) (largest uint16)
TEXT ·greater16(SB), NOSPLIT, $0-50
	MOVD  bitmap_base+0(FP), R0
	MOVD  bitmap_len+8(FP), R1
	MOVD  row+24(FP), R2
	MOVHU above+32(FP), R3
	MOVD  invert+40(FP), R4
	FILTER16_START
	CBZ   R1, greater16Done

greater16Word:
	FILTER16_LOAD
	CMGT_H8(16, 0, 8)
	CMGT_H8(16, 1, 9)
	CMGT_H8(16, 2, 10)
	CMGT_H8(16, 3, 11)
	CMGT_H8(16, 4, 12)
	CMGT_H8(16, 5, 13)
	CMGT_H8(16, 6, 14)
	CMGT_H8(16, 7, 15)
	FILTER16_WORD
	BNE greater16Word

greater16Done:
	FILTER16_END
	MOVH  R3, largest+48(FP)
	RET

// func less16(bitmap []uint64, row *uint16, below uint16, invert uint64) (largest uint16)
TEXT ·less16(SB), NOSPLIT, $0-50
	MOVD  bitmap_base+0(FP), R0
	MOVD  bitmap_len+8(FP), R1
	MOVD  row+24(FP), R2
	MOVHU below+32(FP), R3
	MOVD  invert+40(FP), R4
	FILTER16_START
	CBZ   R1, less16Done

less16Word:
	FILTER16_LOAD
	CMHI_H8(0, 16, 8)
	CMHI_H8(1, 16, 9)
	CMHI_H8(2, 16, 10)
	CMHI_H8(3, 16, 11)
	CMHI_H8(4, 16, 12)
	CMHI_H8(5, 16, 13)
	CMHI_H8(6, 16, 14)
	CMHI_H8(7, 16, 15)
	FILTER16_WORD
	BNE less16Word

less16Done:
	FILTER16_END
	MOVH  R3, largest+48(FP)
	RET

// SAMPLE_LINE starts line R6, at R2: R7 is the address of its next stop, R8 the
// number of that stop.
#define SAMPLE_LINE \
	MOVD R2, R7           \
	MOVD R6, R8           \
	MOVD $-1, R10         \
	VDUP R10, V8.D2       \
	VMOV V8.B16, V9.B16   \
	VMOV V8.B16, V10.B16  \
	VMOV V8.B16, V11.B16  \
	VMOV V17.B16, V4.B16  \
	VMOV V17.B16, V5.B16  \
	VMOV V17.B16, V6.B16  \
	VMOV V17.B16, V7.B16

// func sample32(groups []int32, row *uint32, stops, step int, flip uint32)
TEXT ·sample32(SB), NOSPLIT, $0-52
	MOVD  groups_base+0(FP), R0
	MOVD  groups_len+8(FP), R1
	MOVD  row+24(FP), R2
	MOVD  stops+32(FP), R3
	MOVD  step+40(FP), R4
	LSR   $4, R1 // lines
	LSL   $6, R4 // bytes from stop to stop
	MUL   R1, R4, R5 // bytes from one stop of a line to its next
	MOVD  ZR, R6 // the line
	MOVWU flip+48(FP), R9
	VDUP  R9, V16.S4
	MOVD  $0x80000000, R9
	VDUP  R9, V17.S4 // the least a
	MOVD  $0x7FFFFFFF, R9
	VDUP  R9, V18.S4
	CBZ   R1, sample32Done

sample32Line:
	SAMPLE_LINE

sample32Stop:
	CMP   R3, R8
	BGE   sample32Keys
	VLD1  (R7), [V0.S4, V1.S4, V2.S4, V3.S4]
	ADD   R5, R7
	ADD   R1, R8
	VEOR  V16.B16, V0.B16, V0.B16
	VEOR  V16.B16, V1.B16, V1.B16
	VEOR  V16.B16, V2.B16, V2.B16
	VEOR  V16.B16, V3.B16, V3.B16
	SMAX_S4(0, 4, 4)
	SMAX_S4(1, 5, 5)
	SMAX_S4(2, 6, 6)
	SMAX_S4(3, 7, 7)
	VUMIN V0.S4, V8.S4, V8.S4
	VUMIN V1.S4, V9.S4, V9.S4
	VUMIN V2.S4, V10.S4, V10.S4
	VUMIN V3.S4, V11.S4, V11.S4
	B     sample32Stop

sample32Keys:
	SIGN_S4(4, 0)
	SIGN_S4(5, 1)
	SIGN_S4(6, 2)
	SIGN_S4(7, 3)
	VEOR   V18.B16, V8.B16, V8.B16
	VEOR   V18.B16, V9.B16, V9.B16
	VEOR   V18.B16, V10.B16, V10.B16
	VEOR   V18.B16, V11.B16, V11.B16
	VBIT   V0.B16, V8.B16, V4.B16
	VBIT   V1.B16, V9.B16, V5.B16
	VBIT   V2.B16, V10.B16, V6.B16
	VBIT   V3.B16, V11.B16, V7.B16
	VST1.P [V4.S4, V5.S4, V6.S4, V7.S4], 64(R0)
	ADD    R4, R2
	ADD    $1, R6
	CMP    R1, R6
	BLT    sample32Line

sample32Done:
	RET

// func sample16(groups []int32, row *uint16, stops, step int, flip uint16)
TEXT ·sample16(SB), NOSPLIT, $0-50
	MOVD  groups_base+0(FP), R0
	MOVD  groups_len+8(FP), R1
	MOVD  row+24(FP), R2
	MOVD  stops+32(FP), R3
	MOVD  step+40(FP), R4
	LSR   $5, R1 // lines
	LSL   $6, R4 // bytes from stop to stop
	MUL   R1, R4, R5 // bytes from one stop of a line to its next
	MOVD  ZR, R6 // the line
	MOVHU flip+48(FP), R9
	VDUP  R9, V16.H8
	MOVD  $0x8000, R9
	VDUP  R9, V17.H8 // the least a
	MOVD  $0x7FFF, R9
	VDUP  R9, V18.H8
	CBZ   R1, sample16Done

sample16Line:
	SAMPLE_LINE

sample16Stop:
	CMP   R3, R8
	BGE   sample16Keys
	VLD1  (R7), [V0.H8, V1.H8, V2.H8, V3.H8]
	ADD   R5, R7
	ADD   R1, R8
	VEOR  V16.B16, V0.B16, V0.B16
	VEOR  V16.B16, V1.B16, V1.B16
	VEOR  V16.B16, V2.B16, V2.B16
	VEOR  V16.B16, V3.B16, V3.B16
	SMAX_H8(0, 4, 4)
	SMAX_H8(1, 5, 5)
	SMAX_H8(2, 6, 6)
	SMAX_H8(3, 7, 7)
	VUMIN V0.H8, V8.H8, V8.H8
	VUMIN V1.H8, V9.H8, V9.H8
	VUMIN V2.H8, V10.H8, V10.H8
	VUMIN V3.H8, V11.H8, V11.H8
	B     sample16Stop

sample16Keys:
	SIGN_H8(4, 0)
	SIGN_H8(5, 1)
	SIGN_H8(6, 2)
	SIGN_H8(7, 3)
	VEOR   V18.B16, V8.B16, V8.B16
	VEOR   V18.B16, V9.B16, V9.B16
	VEOR   V18.B16, V10.B16, V10.B16
	VEOR   V18.B16, V11.B16, V11.B16
	VBIT   V0.B16, V8.B16, V4.B16
	VBIT   V1.B16, V9.B16, V5.B16
	VBIT   V2.B16, V10.B16, V6.B16
	VBIT   V3.B16, V11.B16, V7.B16
	// The upper half of a key is the key of 16 bits, the lower half its sign:
	// a negative key has all its lower bits flipped.
	VZIP1  V4.H8, V0.H8, V12.H8
	VZIP2  V4.H8, V0.H8, V13.H8
	VZIP1  V5.H8, V1.H8, V14.H8
	VZIP2  V5.H8, V1.H8, V15.H8
	VST1.P [V12.S4, V13.S4, V14.S4, V15.S4], 64(R0)
	VZIP1  V6.H8, V2.H8, V12.H8
	VZIP2  V6.H8, V2.H8, V13.H8
	VZIP1  V7.H8, V3.H8, V14.H8
	VZIP2  V7.H8, V3.H8, V15.H8
	VST1.P [V12.S4, V13.S4, V14.S4, V15.S4], 64(R0)
	ADD    R4, R2
	ADD    $1, R6
	CMP    R1, R6
	BLT    sample16Line

sample16Done:
	RET

// func Rank(groups []int32, rank int) int32
TEXT ·Rank(SB), NOSPLIT, $0-36
	MOVD groups_base+0(FP), R0
	MOVD groups_len+8(FP), R1
	MOVD rank+24(FP), R2
	ADD  R2>>3, R2, R3 // enough
	ADD  R1<<2, R0, R1 // the end
	MOVD R0, R4
	VLD1R (R0), [V8.S4]
	VMOV V8.B16, V9.B16
	VMOV V8.B16, V10.B16
	VMOV V8.B16, V11.B16
	VMOV V8.B16, V12.B16
	VMOV V8.B16, V13.B16
	VMOV V8.B16, V14.B16
	VMOV V8.B16, V15.B16

rankBounds:
	VLD1.P 64(R4), [V0.S4, V1.S4, V2.S4, V3.S4]
	SMIN_S4(0, 8, 8)
	SMIN_S4(1, 9, 9)
	SMIN_S4(2, 10, 10)
	SMIN_S4(3, 11, 11)
	SMAX_S4(0, 12, 12)
	SMAX_S4(1, 13, 13)
	SMAX_S4(2, 14, 14)
	SMAX_S4(3, 15, 15)
	CMP    R1, R4
	BLO    rankBounds
	SMIN_S4(9, 8, 8)
	SMIN_S4(11, 10, 10)
	SMIN_S4(10, 8, 8)
	SMINV_S4(8, 8)
	SMAX_S4(13, 12, 12)
	SMAX_S4(15, 14, 14)
	SMAX_S4(14, 12, 12)
	SMAXV_S4(12, 12)
	VMOV   V8.S[0], R5
	SXTW   R5, R5 // low: at least rank groups reach it
	VMOV   V12.S[0], R6
	SXTW   R6, R6 // high: fewer reach high + 1

rankStep:
	CMP  R6, R5
	BGE  rankDone
	ADD  R6, R5, R7
	ADD  $1, R7
	ASR  $1, R7 // middle
	VDUP R7, V16.S4
	VEOR V4.B16, V4.B16, V4.B16
	VEOR V5.B16, V5.B16, V5.B16
	VEOR V6.B16, V6.B16, V6.B16
	VEOR V7.B16, V7.B16, V7.B16
	MOVD R0, R4

rankCount:
	VLD1.P 64(R4), [V0.S4, V1.S4, V2.S4, V3.S4]
	CMGE_S4(16, 0, 0)
	CMGE_S4(16, 1, 1)
	CMGE_S4(16, 2, 2)
	CMGE_S4(16, 3, 3)
	VSUB   V0.S4, V4.S4, V4.S4
	VSUB   V1.S4, V5.S4, V5.S4
	VSUB   V2.S4, V6.S4, V6.S4
	VSUB   V3.S4, V7.S4, V7.S4
	CMP    R1, R4
	BLO    rankCount
	VADD   V5.S4, V4.S4, V4.S4
	VADD   V7.S4, V6.S4, V6.S4
	VADD   V6.S4, V4.S4, V4.S4
	VADDV  V4.S4, V4
	VMOV   V4.S[0], R8 // how many reach the middle
	CMP    R2, R8
	BGE    rankReached
	SUB    $1, R7, R6
	B      rankStep

rankReached:
	MOVD R7, R5
	CMP  R3, R8
	BGT  rankStep

rankDone:
	MOVW R5, ret+32(FP)
	RET

// func max32(row []uint32) (best float32, signaling bool)
TEXT ·max32(SB), NOSPLIT, $0-29
	MOVD row_base+0(FP), R0
	MOVD row_len+8(FP), R1
	ADD  R1<<2, R0, R1
	SUB  $128, R1 // the last block
	MSR  ZR, FPSR // a signaling NaN sets bit 0
	MOVD $0xFF800000, R2
	VDUP R2, V16.S4
	VDUP R2, V17.S4
	VDUP R2, V18.S4
	VDUP R2, V19.S4
	VDUP R2, V20.S4
	VDUP R2, V21.S4
	VDUP R2, V22.S4
	VDUP R2, V23.S4

max32Block:
	CMP    R1, R0
	CSEL   LO, R0, R1, R0 // the block that ends the row is read last
	MOVD   R0, R3
	VLD1.P 64(R0), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1.P 64(R0), [V4.S4, V5.S4, V6.S4, V7.S4]
	FMAXNM_S4(0, 16, 16)
	FMAXNM_S4(1, 17, 17)
	FMAXNM_S4(2, 18, 18)
	FMAXNM_S4(3, 19, 19)
	FMAXNM_S4(4, 20, 20)
	FMAXNM_S4(5, 21, 21)
	FMAXNM_S4(6, 22, 22)
	FMAXNM_S4(7, 23, 23)
	CMP    R1, R3
	BLO    max32Block
	FMAXNM_S4(17, 16, 16)
	FMAXNM_S4(19, 18, 18)
	FMAXNM_S4(21, 20, 20)
	FMAXNM_S4(23, 22, 22)
	FMAXNM_S4(18, 16, 16)
	FMAXNM_S4(22, 20, 20)
	FMAXNM_S4(20, 16, 16)
	FMAXNMV_S4(16, 16)
	FMOVS  F16, best+24(FP)
	MRS    FPSR, R2
	AND    $1, R2
	MOVB   R2, signaling+28(FP)
	RET

// func max16(row []uint16) (best int16)
TEXT ·max16(SB), NOSPLIT, $0-26
	MOVD row_base+0(FP), R0
	MOVD row_len+8(FP), R1
	ADD  R1<<1, R0, R1
	SUB  $128, R1 // the last block
	MOVD $0x8000, R2
	VDUP R2, V16.H8
	VDUP R2, V17.H8
	VDUP R2, V18.H8
	VDUP R2, V19.H8
	VDUP R2, V20.H8
	VDUP R2, V21.H8
	VDUP R2, V22.H8
	VDUP R2, V23.H8

max16Block:
	CMP    R1, R0
	CSEL   LO, R0, R1, R0
	MOVD   R0, R3
	VLD1.P 64(R0), [V0.H8, V1.H8, V2.H8, V3.H8]
	VLD1.P 64(R0), [V4.H8, V5.H8, V6.H8, V7.H8]
	SMAX_H8(0, 16, 16)
	SMAX_H8(1, 17, 17)
	SMAX_H8(2, 18, 18)
	SMAX_H8(3, 19, 19)
	SMAX_H8(4, 20, 20)
	SMAX_H8(5, 21, 21)
	SMAX_H8(6, 22, 22)
	SMAX_H8(7, 23, 23)
	CMP    R1, R3
	BLO    max16Block
	SMAX_H8(17, 16, 16)
	SMAX_H8(19, 18, 18)
	SMAX_H8(21, 20, 20)
	SMAX_H8(23, 22, 22)
	SMAX_H8(18, 16, 16)
	SMAX_H8(22, 20, 20)
	SMAX_H8(20, 16, 16)
	SMAXV_H8(16, 16)
	VMOV   V16.H[0], R2
	MOVH   R2, best+24(FP)
	RET
