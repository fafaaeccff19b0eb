// The law of a sampled token, version 1: internal/law in the terms of a GPU, to
// the bit. All arithmetic is on integers or single roundings of float32; the
// build fuses none of them.
#pragma once

#include "ptx.cuh"

namespace law {

constexpr int kSurpriseBits = 22;
constexpr int kLeastSurprise = -44 * (1 << kSurpriseBits);
constexpr u32 kMassBits = 42;  // of a mass that nothing exceeds

// Of a logit that is not NaN nor above max, which is finite; scale is that of
// law.Scale.
DEVICE int surprise(float logit, float max, float scale) {
  const float v = (logit - max) * scale;
  return nearest_integer(v > kLeastSurprise ? v : kLeastSurprise);
}

// The mass of a surprise before it is rounded to an integer, at most 2^42.
DEVICE float weight(int surprise) {
  const u32 s = 2 * (u32)surprise;
  const float t = as_float((s & 0x7fffff) | 0x3f800000) - 1;
  // In units of 2^-42, which changes no rounding.
  constexpr float kUnit = 0x1p42f;
  float p = 0x1.c4458p-13f * kUnit * t + 0x1.473738p-10f * kUnit;
  p = p * t + 0x1.3cfd82p-7f * kUnit;
  p = p * t + 0x1.c68af6p-5f * kUnit;
  p = p * t + 0x1.ebfd3ap-3f * kUnit;
  p = p * t + 0x1.62e42cp-1f * kUnit;
  p = p * t + kUnit;
  return as_float(as_bits(p) + (s & 0xff800000));
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

}  // namespace law
