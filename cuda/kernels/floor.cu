// What the kernels are compared with: a launch that does nothing, and a launch
// that reads each row once.
//
// floor_read_DT: grid (rows) x 1,024 threads, one block a row. logits is
// [rows, vocab], row i at i * stride elements, aligned to its element only.
// values[i * result_stride] becomes the maximum of row i, NaN if the row holds
// one and -Inf if it is empty; nothing else is written. Bytes moved: those of
// the rows. vocab is the length of every row: row_lengths, row_k and k play no
// part.
#include "arguments.h"
#include "ptx.cuh"

namespace read_floor {

constexpr u32 kThreads = 1024;
constexpr u32 kInFlight = 8;  // vectors a thread asks for before it looks at the first

// An element is kept as it is in memory, two to a word if it has 16 bits.
struct BFloat16 {
  using Bits = u16;
  static constexpr u32 kNegativeInfinity = 0xff80ff80;
  static DEVICE u32 max(u32 a, u32 b) { return max_bf16x2(a, b); }
};
struct Float16 {
  using Bits = u16;
  static constexpr u32 kNegativeInfinity = 0xfc00fc00;
  static DEVICE u32 max(u32 a, u32 b) { return max_f16x2(a, b); }
};
struct Float32 {
  using Bits = u32;
  static constexpr u32 kNegativeInfinity = 0xff800000;
  static DEVICE u32 max(u32 a, u32 b) { return max_f32(a, b); }
};

// The same element in every place of a word.
DEVICE u32 fill_word(u16 element) { return element * 0x10001u; }
DEVICE u32 fill_word(u32 element) { return element; }

// Integers in the order of the floating-point numbers, and back. The element is
// the upper one of its word.
DEVICE u32 to_ordered(u32 word) { return word >> 31 ? ~word : word | 0x80000000u; }
DEVICE u32 from_ordered(u32 word) { return word >> 31 ? word & 0x7fffffffu : ~word; }

template <class Type>
DEVICE void read(const SelectArguments& arguments) {
  using Bits = typename Type::Bits;
  constexpr u32 kSize = sizeof(Bits);
  const u32 row = block_index(), thread = thread_index(), vocab = arguments.vocab;
  const Bits* logits = static_cast<const Bits*>(arguments.logits) + row * arguments.stride;

  // Head and tail: what lies outside whole, aligned vectors.
  const u32 misaligned = reinterpret_cast<u64>(logits) % sizeof(Vector) / kSize;
  u32 head = misaligned ? sizeof(Vector) / kSize - misaligned : 0;
  if (head > vocab) head = vocab;
  const u32 vectors = (vocab - head) / (sizeof(Vector) / kSize);
  const u32 tail = head + vectors * (sizeof(Vector) / kSize);

  // Asked for first and looked at last: they cost no wait of their own.
  Bits at_head = static_cast<Bits>(Type::kNegativeInfinity), at_tail = at_head;
  if (thread < head) at_head = logits[thread];
  if (thread < vocab - tail) at_tail = logits[tail + thread];

  u32 maximum = Type::kNegativeInfinity;
  const Vector* body = reinterpret_cast<const Vector*>(logits + head);
  for (u32 first = thread; first < vectors; first += kThreads * kInFlight) {
    Vector vector[kInFlight];
#pragma unroll
    for (u32 i = 0; i < kInFlight; i++) {
      if (first + i * kThreads < vectors) vector[i] = load_vector(body + first + i * kThreads);
    }
#pragma unroll
    for (u32 i = 0; i < kInFlight; i++) {
      if (first + i * kThreads >= vectors) break;
#pragma unroll
      for (u32 word : vector[i].word) maximum = Type::max(maximum, word);
    }
  }

  maximum = Type::max(maximum, Type::max(fill_word(at_head), fill_word(at_tail)));
  if (kSize == 2) maximum = Type::max(maximum, maximum << 16);
  using PerWarp = u32[kThreads / kWarp];
  SHARED(PerWarp, of_warp);
  const u32 ordered = warp_max(to_ordered(maximum));
  if (thread % kWarp == 0) of_warp[thread / kWarp] = ordered;
  block_barrier();
  if (thread >= kWarp) return;
  const u32 largest = from_ordered(warp_max(of_warp[thread]));
  if (thread == 0) static_cast<Bits*>(arguments.values)[row * arguments.result_stride] = static_cast<Bits>(largest >> (32 - 8 * kSize));
}

}  // namespace read_floor

KERNEL(floor_empty, 32, 1) {}
KERNEL(floor_read_bf16, 1024, 1) { read_floor::read<read_floor::BFloat16>(arguments); }
KERNEL(floor_read_f16, 1024, 1) { read_floor::read<read_floor::Float16>(arguments); }
KERNEL(floor_read_f32, 1024, 1) { read_floor::read<read_floor::Float32>(arguments); }
