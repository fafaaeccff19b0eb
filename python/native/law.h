// The law of a sampled token, version 1: internal/law in C, to the bit. Every
// operation is on integers or a single rounding of IEEE 754: the build fuses none.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef unsigned __int128 uint128;

enum { LAW_SURPRISE_BITS = 22, LAW_LEAST_SURPRISE = -44 * (1 << LAW_SURPRISE_BITS), LAW_MASS_BITS = 42 };

#define LAW_ONE (1ull << LAW_MASS_BITS)  // the mass of the heaviest token
#define LAW_LN2 0x1.62e42fefa39efp-1
#define LAW_LOG2E 0x1.71547652b82fep+0
#define LAW_MOST 0x1.fffffep127f  // the largest finite float32

// What a random number is for.
enum law_purpose { LAW_DRAW = 1, LAW_XTC = 2, LAW_ACCEPT = 3, LAW_RESIDUAL = 4 };

static inline uint32_t law_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float law_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline uint64_t law_bits_wide(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline double law_double(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// To the nearest integer, ties to even, of a magnitude below 2^51.
static inline double law_nearest(double x) { return x + 0x1.8p52 - 0x1.8p52; }

// What makes surprises of differences between logits at a temperature of at least 2^-100.
static inline float law_scale(float temperature) { return (float)(0x1.71547652b82fep+22 / (double)temperature); }

// Of a logit that is not NaN nor above most, which is finite.
static inline int32_t law_surprise(float logit, float most, float scale) {
  const float v = (logit - most) * scale;
  return (int32_t)(uint32_t)law_bits_wide((double)(v > LAW_LEAST_SURPRISE ? v : (float)LAW_LEAST_SURPRISE) + 0x1.8p52);
}

static inline uint64_t law_mass(int32_t surprise) {
  const uint32_t s = (uint32_t)surprise << 1;
  const float t = law_float((s & 0x7fffff) | 0x3f800000) - 1;
  float p = 0x1.c4458p-13f * t + 0x1.473738p-10f;
  p = p * t + 0x1.3cfd82p-7f;
  p = p * t + 0x1.c68af6p-5f;
  p = p * t + 0x1.ebfd3ap-3f;
  p = p * t + 0x1.62e42cp-1f;
  p = p * t + 1;
  p = law_float(law_bits(p) + (s & 0xff800000u) + ((uint32_t)LAW_MASS_BITS << 23));
  return law_bits_wide((double)p + 0x1p52) - (0x433ull << 52);
}

// The first two words of Philox4x32-10, as one number.
static inline uint64_t law_uniform(uint64_t seed, uint64_t position, uint32_t draw, uint32_t purpose) {
  uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
  uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32), c2 = draw, c3 = purpose;
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)0xd2511f53 * c0, b = (uint64_t)0xcd9e8d57 * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ key0;
    c1 = (uint32_t)b;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ key1;
    c3 = (uint32_t)a;
    key0 += 0x9e3779b9;
    key1 += 0xbb67ae85;
  }
  return c0 | (uint64_t)c1 << 32;
}

// The place that a random number picks in a row of cumulative masses.
static inline uint64_t law_target(uint64_t u, uint64_t total) { return (uint64_t)((uint128)u * total >> 64); }

// p * x rounded down or up, for p from 0 to 1 and x of at most 65 bits.
static inline uint128 law_product(float p, uint128 x, bool up) {
  const uint32_t exponent = law_bits(p) >> 23;
  const uint128 product = ((law_bits(p) & 0x7fffff) | (exponent ? 0x800000u : 0)) * x;
  const uint32_t shift = exponent ? 150 - exponent : 149;  // at least 23
  if (shift >= 128) return up && product;
  const uint128 down = product >> shift;
  return down + (up && down << shift != product);
}

static inline uint64_t law_ceil_product(float p, uint64_t w) { return (uint64_t)law_product(p, w, true); }
static inline uint64_t law_floor_product(float p, uint64_t w) { return (uint64_t)law_product(p, w, false); }

// Whether a random number is less than 2^64 times q, a probability from 0 to 1.
static inline bool law_coin(uint64_t u, float q) { return u < law_product(q, (uint128)1 << 64, true); }

static inline double law_wide(uint128 x) { return (double)(uint64_t)(x >> 64) * 0x1p64 + (double)(uint64_t)x; }

// The logarithm to the base 2 of a number that is not negative.
static inline double law_log2(double x) {
  if (x == 0) return -1 / x;
  uint64_t word = law_bits_wide(x);
  int n = -1023;
  if (word >> 52 == 0) {
    word = law_bits_wide(x * 0x1p52);
    n -= 52;
  }
  n += (int)(word >> 52);
  double m = law_double((word & ((1ull << 52) - 1)) | 0x3ffull << 52);
  if (m > 0x1.6a09e667f3bcdp+0) m = m / 2, n++;
  const double s = (m - 1) / (m + 1), z = s * s;
  double p = 0;
  for (int i = 21; i >= 3; i -= 2) p = p * z + 1 / (double)i;
  const double series = s + p * z * s;
  return (double)n + 2 * LAW_LOG2E * series;
}

// How many bits less likely the heaviest token is than certain.
static inline double law_log_total(uint64_t total) { return law_log2((double)total * (1.0 / LAW_ONE)); }

// The entropy, in bits, of a law of masses, from their total and the sum of each times the magnitude of its surprise.
static inline double law_entropy(uint64_t total, uint128 weighted) {
  return law_log_total(total) + law_wide(weighted) / ((double)total * (1 << LAW_SURPRISE_BITS));
}

// Bits in units of a surprise.
static inline int64_t law_on_grid(double bits) { return (int64_t)law_nearest(bits * (1 << LAW_SURPRISE_BITS)); }

// 2^x for x from -100 to 0.
static inline double law_exp2(double x) {
  static const double kSeries[] = {0x1.62e42fefa39efp-1,  0x1.ebfbdff82c58fp-3,  0x1.c6b08d704a0cp-5,   0x1.3b2ab6fba4e77p-7,
                                   0x1.5d87fe78a6731p-10, 0x1.430912f86c787p-13, 0x1.ffcbfc588b0c7p-17, 0x1.62c0223a5c824p-20,
                                   0x1.b5253d395e7c4p-24, 0x1.e4cf5158b8ecap-28, 0x1.e8cac7351bb25p-32, 0x1.c3bd650fc2986p-36,
                                   0x1.816193166d0f9p-40};
  const double n = law_nearest(x), f = x - n;
  double p = 0;
  for (int i = 12; i >= 0; i--) p = p * f + kSeries[i];
  return (1 + p * f) * law_double((uint64_t)((int)n + 1023) << 52);
}

// The hyperbolic tangent of a number that is not NaN.
static inline double law_tanh(double x) {
  const double magnitude = x < 0 ? -x : x;
  if (magnitude < 0x1p-4) {
    static const double kSeries[] = {-1.0 / 3, 2.0 / 15, -17.0 / 315, 62.0 / 2835, -1382.0 / 155925, 21844.0 / 6081075, -929569.0 / 638512875};
    const double z = x * x;
    double p = 0;
    for (int i = 6; i >= 0; i--) p = p * z + kSeries[i];
    return x + p * z * x;
  }
  const double e = law_exp2(-2 * LAW_LOG2E * (magnitude < 32 ? magnitude : 32));
  const double t = (1 - e) / (1 + e);
  return x < 0 ? -t : t;
}

// A logit under a soft cap; what is masked, and NaN, stay.
static inline float law_capped(float logit, float cap) {
  return logit >= -LAW_MOST ? (float)((double)cap * law_tanh((double)logit / (double)cap)) : logit;
}
