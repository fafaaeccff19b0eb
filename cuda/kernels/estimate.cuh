// Estimates of masses: what the machine's own power of two makes of a surprise, in a quarter of the
// instructions of the law. Most draws are sure by them; the few that are not are drawn again by masses.
//
// An estimate is within a 2^21st of its mass, 4.8e-7, and two units: 2.4e-7 are allowed to ex2.approx, two units in the
// last place, 0.8e-7 to the law's polynomial, and 1.2e-7 to a sum of four in float32. law.cu measures the first two
// together, for every surprise. Units are what roundings to integers leave.
//
// Whether a token comes before the target of a draw, u of the total, is the sign of (1 - u) * (what is up to it) -
// u * (what is behind it). With estimates that is off by 2^-21 of (1 - u) * the one + u * the other, near the
// target 2^-20 * u * (1 - u) of the total. Farther from it than this margin, the sign is that of masses.
#pragma once

#include "law.cuh"

namespace estimate {

constexpr u32 kError = 21;    // a 2^21st of a mass
constexpr float kLift = 4;    // octaves: added to a surprise, it rounds as the law does, and the largest estimate is 2^kLift
constexpr float kOctave = 1.0f / (1 << law::kSurpriseBits);
constexpr int kUnit = (int)kLift - (int)law::kMassBits;  // binary exponent of a mass of 1
constexpr float kLeastScale = 0x1p-80f;  // of smaller ones, for temperatures that nobody uses, a 2^22nd would lose bits

// Of octaves to which kLift was added: surprises that are not integers are above -2, and have the unit
// 2^-22 then; of others, no bit is lost.
DEVICE float mass(float lifted) { return approximate_exp2(lifted); }

// What each side of a target may be off: for random numbers u of 64 bits, a total, the sum over the segment that is
// weighed anew for the draw, and the number of elements.
DEVICE u64 margin(u64 u, u64 total, u64 segment, u32 length) {
  const u32 part = (u32)(u >> 32), both = (u32)((u64)part * ~part >> 32);
  return ((multiply_high(total, (u64)both << 32) + segment) >> (kError - 1)) + 2 * length + 4;
}
// The same for p of the sum of what is above and of all others.
DEVICE u64 margin_of_share(float p, u64 above, u64 others, u32 length) {
  return ((above - law::ceil_product(p, above) + law::ceil_product(p, others)) >> kError) + 2 * length + 4;
}

// Whether what lies so far from the begin and from the end of a token may lie in another one. Never without a margin, as long as
// it lies before the end.
DEVICE bool near_border(u64 from_begin, u64 to_end, u64 margin) { return from_begin < margin || to_end <= margin; }

}  // namespace estimate
