package law

import "math/bits"

// What a random number is for. A number for one purpose tells nothing about one
// for another.
const (
	Draw     = 1 // of a token
	XTC      = 2 // the coin of step xtc
	Accept   = 3 // of a drafted token
	Residual = 4 // the draw after a rejection
)

// Words returns the four words of Philox4x32-10 for a key, seed, and a counter:
// position, draw and purpose. Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3", 2011, https://doi.org/10.1145/2063384.2063405.
func Words(seed, position uint64, draw, purpose uint32) [4]uint32 {
	key0, key1 := uint32(seed), uint32(seed>>32)
	c := [4]uint32{uint32(position), uint32(position >> 32), draw, purpose}
	for range 10 {
		a, b := 0xD2511F53*uint64(c[0]), 0xCD9E8D57*uint64(c[2])
		c = [4]uint32{uint32(b>>32) ^ c[1] ^ key0, uint32(b), uint32(a>>32) ^ c[3] ^ key1, uint32(a)}
		key0 += 0x9E3779B9
		key1 += 0xBB67AE85
	}
	return c
}

// Uniform returns a random number for a purpose: the first of the [Words] and
// 2^32 times the second. Every uint64 is as likely as every other.
func Uniform(seed, position uint64, draw, purpose uint32) uint64 {
	w := Words(seed, position, draw, purpose)
	return uint64(w[0]) | uint64(w[1])<<32
}

// Target returns the place, in a row of cumulative masses with that total, that
// a random number picks: the upper 64 bits of u * total. It is less than total
// unless that is 0. The token is the first kept one, in index order, at which the
// sum of masses, its own included, exceeds the target.
func Target(u, total uint64) uint64 {
	place, _ := bits.Mul64(u, total)
	return place
}

// Coin reports whether a random number is less than 2^64 times q, a probability
// from 0 to 1. With q = 1 it always is, with q = 0 it never is.
func Coin(u uint64, q float32) bool {
	if q >= 1 {
		return true
	}
	// u is less than the product just when it is less than its ceiling.
	limit := ceilProduct(q, Uint128{Hi: 1})
	return limit.Hi > 0 || u < limit.Lo
}
