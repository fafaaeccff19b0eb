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
//
// sort32 and merge32, for each block of 32 words: V0-V15 hold it, V30 and V31
// are scratch. sort32 sorts both lanes by a network over the vectors and lines
// them up, one in reverse, as a bitonic block. merge32 sorts a bitonic block:
// it compares words at a distance of 16, 8, 4, 2 (two vectors) and 1 (the lanes
// of two vectors). Networks: K. E. Batcher, "Sorting networks and their
// applications", 1968, https://doi.org/10.1145/1468075.1468121.
//
// flip, fold and exchange compare V0-V3 of a with V4-V7 of b.

//go:build arm64

#include "textflag.h"

// What the assembler lacks, or does not take by number; m, n, d are registers in
// its order.
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
#define CMHI_D2(m, n, d)   WORD $(0x6EE03400 | m<<16 | n<<5 | d) // cmhi vd.2d, vn.2d, vm.2d
#define BIT_B16(m, n, d)   WORD $(0x6EA01C00 | m<<16 | n<<5 | d) // bit vd.16b, vn.16b, vm.16b
#define ZIP1_D2(m, n, d)   WORD $(0x4EC03800 | m<<16 | n<<5 | d) // zip1 vd.2d, vn.2d, vm.2d
#define ZIP2_D2(m, n, d)   WORD $(0x4EC07800 | m<<16 | n<<5 | d) // zip2 vd.2d, vn.2d, vm.2d
#define ORR_B16(m, n, d)   WORD $(0x4EA01C00 | m<<16 | n<<5 | d) // orr vd.16b, vn.16b, vm.16b
#define MOV_B16(n, d)      ORR_B16(n, n, d)

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
	ADD  R2>>5, R2, R3 // enough
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

// EXCHANGE leaves the larger words in a and the smaller ones in b.
#define EXCHANGE(a, b) \
	CMHI_D2(a, b, 31)  \
	MOV_B16(a, 30)     \
	BIT_B16(31, b, a)  \
	BIT_B16(31, 30, b)

// EXCHANGE_LANES leaves the larger word of each vector in lane 0.
#define EXCHANGE_LANES(a, b) \
	ZIP1_D2(b, a, 28)  \
	ZIP2_D2(b, a, 29)  \
	EXCHANGE(28, 29)   \
	ZIP1_D2(29, 28, a) \
	ZIP2_D2(29, 28, b)

#define LOAD32 \
	ADD  $64, R0, R2  \
	ADD  $128, R0, R3 \
	ADD  $192, R0, R4 \
	VLD1 (R0), [V0.D2, V1.D2, V2.D2, V3.D2]   \
	VLD1 (R2), [V4.D2, V5.D2, V6.D2, V7.D2]   \
	VLD1 (R3), [V8.D2, V9.D2, V10.D2, V11.D2] \
	VLD1 (R4), [V12.D2, V13.D2, V14.D2, V15.D2]

#define STORE32 \
	VST1.P [V0.D2, V1.D2, V2.D2, V3.D2], 64(R0)   \
	VST1.P [V4.D2, V5.D2, V6.D2, V7.D2], 64(R0)   \
	VST1.P [V8.D2, V9.D2, V10.D2, V11.D2], 64(R0) \
	VST1.P [V12.D2, V13.D2, V14.D2, V15.D2], 64(R0)

#define MERGE32 \
	EXCHANGE(0, 8); EXCHANGE(1, 9); EXCHANGE(2, 10); EXCHANGE(3, 11) \
	EXCHANGE(4, 12); EXCHANGE(5, 13); EXCHANGE(6, 14); EXCHANGE(7, 15) \
	EXCHANGE(0, 4); EXCHANGE(1, 5); EXCHANGE(2, 6); EXCHANGE(3, 7) \
	EXCHANGE(8, 12); EXCHANGE(9, 13); EXCHANGE(10, 14); EXCHANGE(11, 15) \
	EXCHANGE(0, 2); EXCHANGE(1, 3); EXCHANGE(4, 6); EXCHANGE(5, 7) \
	EXCHANGE(8, 10); EXCHANGE(9, 11); EXCHANGE(12, 14); EXCHANGE(13, 15) \
	EXCHANGE(0, 1); EXCHANGE(2, 3); EXCHANGE(4, 5); EXCHANGE(6, 7) \
	EXCHANGE(8, 9); EXCHANGE(10, 11); EXCHANGE(12, 13); EXCHANGE(14, 15) \
	EXCHANGE_LANES(0, 1); EXCHANGE_LANES(2, 3); EXCHANGE_LANES(4, 5); EXCHANGE_LANES(6, 7) \
	EXCHANGE_LANES(8, 9); EXCHANGE_LANES(10, 11); EXCHANGE_LANES(12, 13); EXCHANGE_LANES(14, 15)

// func sort32(packed *uint64, blocks int)
TEXT ·sort32(SB), NOSPLIT, $0-16
	MOVD packed+0(FP), R0
	MOVD blocks+8(FP), R1
	CBZ  R1, sort32Done

sort32Block:
	LOAD32
	// runs of 2
	EXCHANGE(0, 1); EXCHANGE(2, 3); EXCHANGE(4, 5); EXCHANGE(6, 7)
	EXCHANGE(8, 9); EXCHANGE(10, 11); EXCHANGE(12, 13); EXCHANGE(14, 15)
	// runs of 4
	EXCHANGE(0, 2); EXCHANGE(1, 3); EXCHANGE(4, 6); EXCHANGE(5, 7)
	EXCHANGE(8, 10); EXCHANGE(9, 11); EXCHANGE(12, 14); EXCHANGE(13, 15)
	EXCHANGE(1, 2); EXCHANGE(5, 6); EXCHANGE(9, 10); EXCHANGE(13, 14)
	// runs of 8
	EXCHANGE(0, 4); EXCHANGE(1, 5); EXCHANGE(2, 6); EXCHANGE(3, 7)
	EXCHANGE(8, 12); EXCHANGE(9, 13); EXCHANGE(10, 14); EXCHANGE(11, 15)
	EXCHANGE(2, 4); EXCHANGE(3, 5); EXCHANGE(10, 12); EXCHANGE(11, 13)
	EXCHANGE(1, 2); EXCHANGE(3, 4); EXCHANGE(5, 6); EXCHANGE(9, 10)
	EXCHANGE(11, 12); EXCHANGE(13, 14)
	// runs of 16
	EXCHANGE(0, 8); EXCHANGE(1, 9); EXCHANGE(2, 10); EXCHANGE(3, 11)
	EXCHANGE(4, 12); EXCHANGE(5, 13); EXCHANGE(6, 14); EXCHANGE(7, 15)
	EXCHANGE(4, 8); EXCHANGE(5, 9); EXCHANGE(6, 10); EXCHANGE(7, 11)
	EXCHANGE(2, 4); EXCHANGE(3, 5); EXCHANGE(6, 8); EXCHANGE(7, 9)
	EXCHANGE(10, 12); EXCHANGE(11, 13)
	EXCHANGE(1, 2); EXCHANGE(3, 4); EXCHANGE(5, 6); EXCHANGE(7, 8)
	EXCHANGE(9, 10); EXCHANGE(11, 12); EXCHANGE(13, 14)

	// Lane 0 to V0-V7, lane 1 from its end to V8-V15.
	ZIP2_D2(14, 15, 16); ZIP2_D2(12, 13, 17); ZIP2_D2(10, 11, 18); ZIP2_D2(8, 9, 19)
	ZIP2_D2(6, 7, 20); ZIP2_D2(4, 5, 21); ZIP2_D2(2, 3, 22); ZIP2_D2(0, 1, 23)
	ZIP1_D2(1, 0, 0); ZIP1_D2(3, 2, 1); ZIP1_D2(5, 4, 2); ZIP1_D2(7, 6, 3)
	ZIP1_D2(9, 8, 4); ZIP1_D2(11, 10, 5); ZIP1_D2(13, 12, 6); ZIP1_D2(15, 14, 7)
	MOV_B16(16, 8); MOV_B16(17, 9); MOV_B16(18, 10); MOV_B16(19, 11)
	MOV_B16(20, 12); MOV_B16(21, 13); MOV_B16(22, 14); MOV_B16(23, 15)
	MERGE32
	STORE32
	SUBS $1, R1
	BNE  sort32Block

sort32Done:
	RET

// func merge32(packed *uint64, blocks int)
TEXT ·merge32(SB), NOSPLIT, $0-16
	MOVD packed+0(FP), R0
	MOVD blocks+8(FP), R1
	CBZ  R1, merge32Done

merge32Block:
	LOAD32
	MERGE32
	STORE32
	SUBS $1, R1
	BNE  merge32Block

merge32Done:
	RET

// LOAD_FLIPPED loads the 8 words that end at R0, in reverse, and those at R1.
#define LOAD_FLIPPED \
	SUB  $64, R0 \
	VLD1 (R0), [V16.D2, V17.D2, V18.D2, V19.D2] \
	VLD1 (R1), [V4.D2, V5.D2, V6.D2, V7.D2]     \
	VEXT $8, V19.B16, V19.B16, V0.B16 \
	VEXT $8, V18.B16, V18.B16, V1.B16 \
	VEXT $8, V17.B16, V17.B16, V2.B16 \
	VEXT $8, V16.B16, V16.B16, V3.B16

#define STORE_FLIPPED \
	VEXT $8, V0.B16, V0.B16, V19.B16 \
	VEXT $8, V1.B16, V1.B16, V18.B16 \
	VEXT $8, V2.B16, V2.B16, V17.B16 \
	VEXT $8, V3.B16, V3.B16, V16.B16 \
	VST1 [V16.D2, V17.D2, V18.D2, V19.D2], (R0)

// func flip(a, b *uint64, n int)
TEXT ·flip(SB), NOSPLIT, $0-24
	MOVD a+0(FP), R0
	MOVD b+8(FP), R1
	MOVD n+16(FP), R2
	ADD  R2<<3, R0, R0 // the end of a

flipWords:
	LOAD_FLIPPED
	EXCHANGE(0, 4); EXCHANGE(1, 5); EXCHANGE(2, 6); EXCHANGE(3, 7)
	STORE_FLIPPED
	VST1.P [V4.D2, V5.D2, V6.D2, V7.D2], 64(R1)
	SUBS $8, R2
	BNE  flipWords
	RET

// func fold(a, b *uint64, n int)
TEXT ·fold(SB), NOSPLIT, $0-24
	MOVD a+0(FP), R0
	MOVD b+8(FP), R1
	MOVD n+16(FP), R2
	ADD  R2<<3, R0, R0 // the end of a

foldWords:
	LOAD_FLIPPED
	ADD  $64, R1
	CMHI_D2(0, 4, 28); CMHI_D2(1, 5, 29); CMHI_D2(2, 6, 30); CMHI_D2(3, 7, 31)
	BIT_B16(28, 4, 0); BIT_B16(29, 5, 1); BIT_B16(30, 6, 2); BIT_B16(31, 7, 3)
	STORE_FLIPPED
	SUBS $8, R2
	BNE  foldWords
	RET

// func exchange(a, b *uint64, n int)
TEXT ·exchange(SB), NOSPLIT, $0-24
	MOVD a+0(FP), R0
	MOVD b+8(FP), R1
	MOVD n+16(FP), R2

exchangeWords:
	VLD1 (R0), [V0.D2, V1.D2, V2.D2, V3.D2]
	VLD1 (R1), [V4.D2, V5.D2, V6.D2, V7.D2]
	EXCHANGE(0, 4); EXCHANGE(1, 5); EXCHANGE(2, 6); EXCHANGE(3, 7)
	VST1.P [V0.D2, V1.D2, V2.D2, V3.D2], 64(R0)
	VST1.P [V4.D2, V5.D2, V6.D2, V7.D2], 64(R1)
	SUBS $8, R2
	BNE  exchangeWords
	RET
