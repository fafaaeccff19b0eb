// The order of logits as integers, and the packed word of a candidate.
//
// A key is an unsigned integer that sorts as the contract says: both zeros have
// one key, every NaN the largest of all. For the smallest k the sign is turned
// over first, and NaN has the key 0. Keys of 16-bit floats have 16 bits.
//
// A candidate is one word, the key above the complement of the index: the larger
// word is the better element, and of equal keys the smaller index. So a plain
// unsigned comparison is the whole contract, in whatever order candidates come.
#pragma once

#include "ptx.cuh"

// Float is one dtype: the bits of an element, its order, and maxima of whole
// vectors in the float's own order.
template <class Bits, u32 kInfinity, u32 (*kMaximum)(u32, u32)>
struct Float {
  using Element = Bits;
  static constexpr u32 kBits = sizeof(Bits) * 8;
  static constexpr u32 kPerVector = 16 / sizeof(Bits);  // elements
  static constexpr u32 kSign = 1u << (kBits - 1);
  static constexpr u32 kAll = kBits == 32 ? 0xffffffffu : (1u << kBits) - 1;
  static constexpr u32 kLargestKey = kAll;
  static constexpr u32 kZeroKey = kSign;
  // Turns over the sign of each element in a 32-bit word.
  static constexpr u32 kSigns = kBits == 32 ? kSign : kSign | kSign << 16;
  // Negative infinity in each element of a 32-bit word.
  static constexpr u32 kLowest = kBits == 32 ? kSign | kInfinity : (kSign | kInfinity) * 0x10001u;

  static DEVICE u32 element(const Vector& v, u32 e) {
    if constexpr (kBits == 32) return v.word[e];
    return v.word[e / 2] >> (e % 2 * 16) & 0xffff;
  }

  static DEVICE bool is_nan(u32 bits) { return (bits & (kAll >> 1)) > kInfinity; }

  static DEVICE u32 key(u32 bits, bool smallest) {
    if (is_nan(bits)) return smallest ? 0 : kLargestKey;
    if (smallest) bits ^= kSign;
    u32 k = bits & kSign ? bits ^ kAll : bits | kSign;
    return k == kSign - 1 ? kZeroKey : k;  // -0, the only value with that key
  }

  // The bits of a key. What several bit patterns share, NaN and zero, a key does
  // not tell: those are read from the row again.
  static DEVICE bool key_has_bits(u32 key, bool smallest) { return key != kZeroKey && key != (smallest ? 0 : kLargestKey); }
  static DEVICE u32 bits_of(u32 key, bool smallest) {
    u32 bits = key & kSign ? key ^ kSign : key ^ kAll;
    return smallest ? bits ^ kSign : bits;
  }

  // The element-wise maximum of a and of a vector whose signs are turned over by
  // the mask; NaN wins.
  static DEVICE u32 maximum(u32 a, const Vector& v, u32 signs) {
    u32 low = kMaximum(v.word[0] ^ signs, v.word[1] ^ signs);
    u32 high = kMaximum(v.word[2] ^ signs, v.word[3] ^ signs);
    return kMaximum(a, kMaximum(low, high));
  }
  // The largest element of such a maximum.
  static DEVICE u32 fold(u32 a) {
    if constexpr (kBits == 32) return a;
    return kMaximum(a, a >> 16) & kAll;
  }
};

using bf16 = Float<u16, 0x7f80, max_bf16x2>;
using f16 = Float<u16, 0x7c00, max_f16x2>;
using f32 = Float<u32, 0x7f800000, max_f32>;

// Word is a candidate of 32 bits, for keys of 16 bits and at most 65,536
// elements, or of 64 bits.
template <class Bits>
struct Word;

template <>
struct Word<u32> {
  static DEVICE u32 pack(u32 key, u32 index) { return key << 16 | (0xffff - index); }
  static DEVICE u32 key(u32 word) { return word >> 16; }
  static DEVICE u32 index(u32 word) { return 0xffff - (word & 0xffff); }
};

template <>
struct Word<u64> {
  static DEVICE u64 pack(u32 key, u32 index) { return (u64)key << 32 | ~index; }
  static DEVICE u32 key(u64 word) { return (u32)(word >> 32); }
  static DEVICE u32 index(u64 word) { return ~(u32)word; }
};
