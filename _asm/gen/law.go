package gen

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Formats of a row's elements, in the order of Formats, and how functions are
// named after them.
type Format struct {
	Name, Element string // of the function, of the row
	Bytes         int
}

// The formats.
var (
	Float32  = Format{"32", "uint32", 4}
	BFloat16 = Format{"BFloat16", "uint16", 2}
	Float16  = Format{"Float16", "uint16", 2}
	Formats  = []Format{Float32, BFloat16, Float16}
)

// Constants of the mass of a surprise; see package law.
const (
	FractionMask = 0x007FFFFF
	ExponentMask = 0xFF800000
	OneBits      = 0x3F800000
	LeastBits    = 0xCD300000 // -44 * 2^22
)

// Coefficients of the polynomial of 2^t, the highest first, in units of 2^-42,
// which makes the polynomial that of a mass and changes no rounding.
var Coefficients = []uint32{
	math.Float32bits(0x1.c4458p-13 * 0x1p42),
	math.Float32bits(0x1.473738p-10 * 0x1p42),
	math.Float32bits(0x1.3cfd82p-7 * 0x1p42),
	math.Float32bits(0x1.c68af6p-5 * 0x1p42),
	math.Float32bits(0x1.ebfd3ap-3 * 0x1p42),
	math.Float32bits(0x1.62e42cp-1 * 0x1p42),
	math.Float32bits(0x1p42),
}

// RoughCoefficients are those of a polynomial of 2^t, the highest first, with a
// relative error of 7.7e-8 where it is evaluated exactly.
var RoughCoefficients = []uint32{
	math.Float32bits(0x1.ebaf42p-10),
	math.Float32bits(0x1.26bbd2p-7),
	math.Float32bits(0x1.c949b8p-5),
	math.Float32bits(0x1.ebd6c2p-3),
	math.Float32bits(0x1.62e4eap-1),
	math.Float32bits(0x1.fffffep-1),
}

// NegatedScale loads the parameter scale, with the other sign: (max - x) * -scale
// is (x - max) * scale to the bit.
func NegatedScale() reg.GPVirtual {
	r := GP32()
	Load(Param("scale"), r)
	XORL(U32(1<<31), r)
	return r
}
