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

// Vectors and words of a row hold one or two elements in 32 bits. Order is one
// dtype with one direction; kBest is its better element of each pair in two words.
template <class Bits, u32 kInfinity, u32 (*kBest)(u32, u32), bool kSmallestFirst>
struct Order {
  using Element = Bits;
  static constexpr bool kSmallest = kSmallestFirst;
  static constexpr bool kMasked = false;
  static constexpr u32 kBits = sizeof(Bits) * 8;
  static constexpr u32 kPerWord = 4 / sizeof(Bits);     // elements
  static constexpr u32 kPerVector = 16 / sizeof(Bits);  // elements
  static constexpr u32 kSign = 1u << (kBits - 1);
  static constexpr u32 kAll = kBits == 32 ? 0xffffffffu : (1u << kBits) - 1;
  static constexpr u32 kPair = kBits == 32 ? 1 : 0x10001;  // times an element: a word of it
  static constexpr u32 kZeroKey = kSign;
  static constexpr u32 kNaNKey = kSmallest ? 0 : kAll;
  static constexpr u32 kWorstNumber = kSign - 1 - kInfinity;  // key of -Inf, or of +Inf if that is the worst
  static constexpr u32 kBestNumber = kSign + kInfinity;       // key of the other one
  // A word that loses against every element.
  static constexpr u32 kWorst = (kSmallest ? kAll >> 1 : kSign | kInfinity) * kPair;

  static DEVICE u32 key(u32 bits) {
    const bool nan = (bits & (kAll >> 1)) > kInfinity;
    if (kSmallest) bits ^= kSign;
    const u32 negative = (int)(bits << (32 - kBits)) >> 31;  // all ones or 0
    u32 k = bits ^ ((negative & (kAll >> 1)) | kSign);
    k += k == kSign - 1 ? 1 : 0;  // -0, the only value with that key
    return nan ? kNaNKey : k;
  }
  // The bits of a key, or of one that shares it: a NaN, a zero.
  static DEVICE u32 bits_of(u32 key) { return key ^ (key & kSign ? kSign : kAll) ^ (kSmallest ? kSign : 0); }

  static DEVICE u32 best(u32 a, u32 b) { return kBest(a, b); }
  static DEVICE u32 best(const Vector& v) { return kBest(kBest(v.word[0], v.word[1]), kBest(v.word[2], v.word[3])); }
  // The key of the best element of a word.
  static DEVICE u32 key_of_word(u32 word) {
    if (kPerWord == 2) word = kBest(word, word >> 16) & kAll;
    return key(word);
  }

  // Elements that reach a threshold are those that beat the number just below it.
  // There is no such number if the threshold is not above the worst one.
  static DEVICE bool beatable(u32 threshold) { return threshold > kWorstNumber; }
  static DEVICE u32 just_below(u32 threshold) {
    u32 key = threshold > kBestNumber ? kBestNumber : threshold - 1;
    key -= key == kZeroKey - 1 ? 1 : 0;  // below zero is not the other zero
    return bits_of(key) * kPair;
  }

  // Marks of the elements of a vector, in one word: bit i for the lower or only
  // element of word i, bit 16 + i for the upper one.
  static DEVICE u32 marked_shift(u32 mark) { return mark & 16; }
  static DEVICE u32 marked_element(u32 mark) { return kPerWord == 1 ? mark % 4 : mark % 4 * 2 + mark / 16; }

  // Limits of the elements of a vector: for those with a 1 among these bits a NaN, which limits nothing, and for the
  // others the worst number. A bit is all that the NaN has below its exponent.
  static DEVICE Vector limits(u32 bits) {
    static_assert(!kSmallest, "the worst number is -Inf, a NaN without such a bit");
    const u32 spread = kept((kPerWord == 1 ? bits : bits * 0x8001) | kWorst);  // those of a pair 16 apart
    Vector v;
#pragma unroll
    for (u32 i = 0; i < 4; i++) v.word[i] = spread & (kWorst | kPair << i * kPerWord);
    return v;
  }
  static DEVICE Vector limited(Vector v, const Vector& limits) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      if (kBits == 32) {
        v.word[i] = min_f32(v.word[i], limits.word[i]);
      } else {
        v.word[i] = kInfinity == 0x7f80 ? min_bf16x2(v.word[i], limits.word[i]) : min_f16x2(v.word[i], limits.word[i]);
      }
    }
    return v;
  }
  // The vector with the worst number in place of the elements that have a 0 among these bits.
  static DEVICE Vector masked(const Vector& v, u32 bits) { return limited(v, limits(bits)); }

  // Whether an element of a word beats a number, and marks of those that do: bits 0
  // and 16.
  static DEVICE bool beats(u32 word, u32 below) { return kBest(word, below) != below; }
  static DEVICE u32 mark(u32 word, u32 below) {
    const u32 over = kBest(word, below) ^ below;
    return kPerWord == 1 ? (over ? 1u : 0u) : min_u16x2(over, 0x10001);
  }
  static DEVICE u32 mark(const Vector& v, u32 below) {
    return mark(v.word[0], below) | mark(v.word[1], below) << 1 | mark(v.word[2], below) << 2 | mark(v.word[3], below) << 3;
  }
  // How many elements of a vector beat a number.
  static DEVICE u32 count(const Vector& v, u32 below) {
    const u32 counts = mark(v.word[0], below) + mark(v.word[1], below) + mark(v.word[2], below) + mark(v.word[3], below);
    return kPerWord == 1 ? counts : (counts & 0xffff) + (counts >> 16);
  }
  // Whether an element has a key.
  static DEVICE bool has_key(u32 bits, u32 key) {
    const u32 magnitude = bits & (kAll >> 1), pattern = key == kZeroKey ? kAll >> 1 : kAll;
    return key == kNaNKey ? magnitude > kInfinity : (bits & pattern) == (bits_of(key) & pattern);
  }
  // The same as mark for any threshold, by keys.
  static DEVICE_APART u32 mark_by_key(Vector v, u32 threshold) {
    u32 marks = 0;
#pragma unroll 1
    for (u32 i = 0; i < 4; i++) {
      marks |= (key(v.word[0] & kAll) >= threshold ? 1u : 0u) << i;
      if (kPerWord == 2) marks |= (key(v.word[0] >> 16) >= threshold ? 0x10000u : 0u) << i;
      v.word[0] = v.word[1], v.word[1] = v.word[2], v.word[2] = v.word[3];
    }
    return marks;
  }
};

using bf16 = Order<u16, 0x7f80, max_bf16x2, false>;
using bf16_smallest = Order<u16, 0x7f80, min_bf16x2, true>;
using f16 = Order<u16, 0x7c00, max_f16x2, false>;
using f16_smallest = Order<u16, 0x7c00, min_f16x2, true>;
using f32 = Order<u32, 0x7f800000, max_f32, false>;
using f32_smallest = Order<u32, 0x7f800000, min_f32, true>;

// Masked is an order for rows some elements of which do not count: see Row.
template <class Elements>
struct Masked : Elements {
  static constexpr bool kMasked = true;
};

// Word is a candidate of 32 bits, for keys of 16 bits and at most 65,536
// elements, or of 64 bits.
template <class Bits>
struct Word;

template <>
struct Word<u32> {
  static DEVICE u32 pack(u32 key, u32 index) { return key << 16 | (0xffff - index); }
  static DEVICE u32 key(u32 word) { return word >> 16; }
  static DEVICE u32 index(u32 word) { return 0xffff - (word & 0xffff); }
  static DEVICE u32 top(u32 word) { return word; }     // its upper 32 bits
  static DEVICE u32 bottom(u32 word) { return word; }  // its lower 32 bits
};

template <>
struct Word<u64> {
  static DEVICE u64 pack(u32 key, u32 index) { return (u64)key << 32 | ~index; }
  static DEVICE u32 key(u64 word) { return (u32)(word >> 32); }
  static DEVICE u32 index(u64 word) { return ~(u32)word; }
  static DEVICE u32 top(u64 word) { return (u32)(word >> 32); }
  static DEVICE u32 bottom(u64 word) { return (u32)word; }
};

// The same, of another type: what the threads of a block share goes by the type of its
// words.
using EditedWord = unsigned long;
static_assert(sizeof(EditedWord) == 8, "64 bits");
template <>
struct Word<EditedWord> : Word<u64> {};
