// The law of a sampled token, version 1: internal/law in the terms of a GPU, to
// the bit. All arithmetic is on integers or single roundings of float32; the
// build fuses none of them.
#pragma once

#include "ptx.cuh"

namespace law {

constexpr int kSurpriseBits = 22;
constexpr int kLeastSurprise = -44 * (1 << kSurpriseBits);
constexpr u32 kMassBits = 42;  // of a mass that nothing exceeds
constexpr int kMassSplit = 21;  // bits of its lower part, see Masses

// What makes surprises of differences between logits at a temperature.
DEVICE float scale(float temperature) { return (float)(0x1.71547652b82fep+22 / (double)temperature); }

// Of a logit that is not NaN nor above max, which is finite; scale is that of
// law.Scale.
DEVICE int surprise(float logit, float max, float scale) {
  const float v = (logit - max) * scale;
  return nearest_integer(v > kLeastSurprise ? v : kLeastSurprise);
}

// The mass of a surprise before it is rounded to an integer, at most 2^42.
DEVICE float weight(int surprise) {
  const u32 s = 2 * (u32)surprise;
  const u32 fraction = s & 0x7fffff;
  const float t = as_float(fraction + 0x3f800000) - 1;
  // In units of 2^-42, which changes no rounding.
  constexpr float kUnit = 0x1p42f;
  float p = 0x1.c4458p-13f * kUnit * t + 0x1.473738p-10f * kUnit;
  p = p * t + 0x1.3cfd82p-7f * kUnit;
  p = p * t + 0x1.c68af6p-5f * kUnit;
  p = p * t + 0x1.ebfd3ap-3f * kUnit;
  p = p * t + 0x1.62e42cp-1f * kUnit;
  p = p * t + kUnit;
  return as_float(as_bits(p) + s - fraction);
}

// A mass, or the sum of at most 512 of one thread, in two parts that need no
// conversion and no carry: a weight in units of 2^21, to the nearest, and the rest
// of it, to the nearest integer.
struct Masses {
  u32 high = 0;
  int low = 0;

  DEVICE void add(float weight) {
    constexpr float kCoarse = 0x1.8p44f, kFine = 0x1.8p23f;  // no bits below 2^21, below 1
    const float part = weight + kCoarse;
    high += as_bits(part) - 0x55c00000;
    low += (int)(as_bits(weight - (part - kCoarse) + kFine) - 0x4b400000);
  }

  DEVICE u64 sum() const { return ((u64)high << 21) + (i64)low; }
};

DEVICE u64 mass(int surprise) {
  Masses one;
  one.add(weight(surprise));
  return one.sum();
}

// What a random number is for.
enum Purpose : u32 { kDraw = 1, kXTC = 2, kAccept = 3, kResidual = 4 };

// The first two words of Philox4x32-10, as one number.
DEVICE u64 uniform(u64 seed, u64 position, u32 draw, u32 purpose) {
  u32 key0 = (u32)seed, key1 = (u32)(seed >> 32);
  u32 c0 = (u32)position, c1 = (u32)(position >> 32), c2 = draw, c3 = purpose;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 a = (u64)0xd2511f53 * c0, b = (u64)0xcd9e8d57 * c2;
    c0 = (u32)(b >> 32) ^ c1 ^ key0;
    c1 = (u32)b;
    c2 = (u32)(a >> 32) ^ c3 ^ key1;
    c3 = (u32)a;
    key0 += 0x9e3779b9;
    key1 += 0xbb67ae85;
  }
  return c0 | (u64)c1 << 32;
}

// The place that a random number picks in a row of cumulative masses.
DEVICE u64 target(u64 u, u64 total) { return multiply_high(u, total); }

// p * w rounded up, for p from 0 to 1.
DEVICE u64 ceil_product(float p, u64 w) {
  const u32 exponent = as_bits(p) >> 23;
  const u64 fraction = (as_bits(p) & 0x7fffff) | (exponent ? 0x800000 : 0);
  const u32 shift = exponent ? 150 - exponent : 149;  // at least 23
  const u64 high = multiply_high(fraction, w), low = fraction * w;
  if (shift >= 128) return (high | low) != 0;
  if (shift >= 64) {
    const u64 lost = shift == 64 ? 0 : high << (128 - shift);
    return (high >> (shift - 64)) + ((lost | low) != 0);
  }
  return (high << (64 - shift) | low >> shift) + (low << (64 - shift) != 0);
}

// 2^64 times p, rounded up, for p from 0 to less than 1: exact from 2^-40 on. Of a smaller one the share of masses is less
// than that of the heaviest token, rounded or not. Without a branch.
DEVICE u64 fixed_point(float p) {
  const u32 exponent = as_bits(p) >> 23;
  const u64 fraction = (u64)((as_bits(p) & 0x7fffff) | (exponent ? 0x800000 : 0)) << 40;
  const u32 shift = 126 - (exponent ? exponent : 1);
  const u64 whole = shift < 64 ? fraction >> shift : 0, back = shift < 64 ? whole << shift : 0;
  return whole + (back != fraction);
}

// That share of w, rounded up.
DEVICE u64 ceil_share(u64 share, u64 w) { return multiply_high(share, w) + (share * w != 0); }

// The least mass that is not less than min_p of the heaviest.
DEVICE u64 least_mass(float min_p) {
  constexpr u32 kLost = 64 - kMassBits;
  return min_p < 1 ? (fixed_point(min_p) >> kLost) + (fixed_point(min_p) << kMassBits != 0) : 1ull << kMassBits;
}

// p * w rounded down, for p from 0 to 1.
DEVICE u64 floor_product(float p, u64 w) {
  const u32 exponent = as_bits(p) >> 23;
  const u64 fraction = (as_bits(p) & 0x7fffff) | (exponent ? 0x800000 : 0);
  const u32 shift = exponent ? 150 - exponent : 149;  // at least 23
  const u64 high = multiply_high(fraction, w);
  return shift >= 128 ? 0 : shift >= 64 ? high >> (shift - 64) : high << (64 - shift) | fraction * w >> shift;
}

// Whether a random number is less than 2^64 times q, which is from 0 to 1. Below a number that is not whole is
// below the next that is.
DEVICE bool coin(u64 u, float q) { return q >= 1 || u < fixed_point(q); }

// 2^x for x from -100 to 0.
DEVICE double exp2(double x) {
  constexpr double kUnits = 0x1.8p52;
  constexpr double kSeries[] = {0x1.62e42fefa39efp-1,  0x1.ebfbdff82c58fp-3,  0x1.c6b08d704a0cp-5,   0x1.3b2ab6fba4e77p-7,
                                0x1.5d87fe78a6731p-10, 0x1.430912f86c787p-13, 0x1.ffcbfc588b0c7p-17, 0x1.62c0223a5c824p-20,
                                0x1.b5253d395e7c4p-24, 0x1.e4cf5158b8ecap-28, 0x1.e8cac7351bb25p-32, 0x1.c3bd650fc2986p-36,
                                0x1.816193166d0f9p-40};
  const double n = x + kUnits - kUnits, f = x - n;
  double p = kSeries[12];
#pragma unroll
  for (int i = 11; i >= 0; i--) p = p * f + kSeries[i];
  return (1 + p * f) * as_double((u64)((int)n + 1023) << 52);
}

// The hyperbolic tangent.
DEVICE double tanh(double x) {
  const double magnitude = x < 0 ? -x : x;
  if (magnitude < 0x1p-4) {
    constexpr double kSeries[] = {-1.0 / 3, 2.0 / 15, -17.0 / 315, 62.0 / 2835, -1382.0 / 155925, 21844.0 / 6081075, -929569.0 / 638512875};
    const double z = x * x;
    double p = kSeries[6];
#pragma unroll
    for (int i = 5; i >= 0; i--) p = p * z + kSeries[i];
    return x + p * z * x;
  }
  const double e = exp2(-2 * 0x1.71547652b82fep+0 * (magnitude < 32 ? magnitude : 32));
  const double t = (1 - e) / (1 + e);
  return x < 0 ? -t : t;
}

// a / b of finite numbers, rounded once, by the reciprocal of b, rounded once. b has 24 bits, so that what the first try
// leaves is exact; and the second errs by 2^-105, where no such quotient is within 2^-78 of the middle between two doubles.
DEVICE double quotient(float a, float b, double reciprocal) {
  const double first = a * reciprocal;
  return multiply_add(multiply_add(-first, (double)b, (double)a), reciprocal, first);
}

// A logit, not NaN, under a soft cap.
DEVICE float capped(float logit, float cap) {
  if (!(logit >= -0x1.fffffep127f)) return logit;
  return (float)((double)cap * tanh((double)logit / (double)cap));
}
// The same by the reciprocal of the cap.
DEVICE float capped(float logit, float cap, double reciprocal) {
  if (!(logit >= -0x1.fffffep127f)) return logit;
  return (float)((double)cap * tanh(logit <= 0x1.fffffep127f ? quotient(logit, cap, reciprocal) : (double)logit));
}

constexpr double kLn2 = 0x1.62e42fefa39efp-1;

// The logarithm to the base 2 of a positive, normal number.
DEVICE double log2(double x) {
  const u64 word = as_bits(x);
  int n = (int)(word >> 52) - 1023;
  double m = as_double((word & ((1ull << 52) - 1)) | 0x3ffull << 52);
  if (m > 0x1.6a09e667f3bcdp+0) m = m / 2, n++;
  const double s = (m - 1) / (m + 1), z = s * s;
  constexpr double kSeries[] = {1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  double p = 0;
#pragma unroll
  for (int i = 9; i >= 0; i--) p = p * z + kSeries[i];
  const double series = s + p * z * s;
  return (double)n + 2 * 0x1.71547652b82fep+0 * series;
}

// How many bits less likely the heaviest token is than certain, of a total that is not 0.
DEVICE double log_total(u64 total) { return log2((double)total * 0x1p-42); }

// An unsigned integer of 128 bits.
struct Wide {
  u64 high, low;
  // With each half rounded, and their sum.
  DEVICE double number() const { return (double)high * 0x1p64 + (double)low; }
};

// a * 2^shift + b, for a shift from 1 to 63.
DEVICE Wide shifted_sum(u64 a, u32 shift, u64 b) {
  const u64 low = (a << shift) + b;
  return {(a >> (64 - shift)) + (low < b ? 1 : 0), low};
}

// The entropy of a law in bits: the total of its masses, and the sum of each times the
// magnitude of its surprise.
DEVICE double entropy(u64 total, Wide weighted) { return log_total(total) + weighted.number() / ((double)total * (1 << kSurpriseBits)); }

// Bits in units of a surprise, to the nearest integer, the even one of two.
DEVICE i64 on_grid(double bits) {
  constexpr double kUnits = 0x1.8p52;
  return (i64)(bits * (1 << kSurpriseBits) + kUnits - kUnits);
}

}  // namespace law
