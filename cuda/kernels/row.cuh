// A row of logits as a kernel sees it: aligned vectors of 16 bytes, and the few
// elements before and after them.
#pragma once

#include "arguments.h"
#include "order.cuh"

DEVICE u32 clamp(int v, int most) { return v < 0 ? 0 : v > most ? most : v; }

// Lowers k, which is that of all rows, to that of one.
DEVICE void limit_results(const SelectArguments& a, u32 number, u32& k) {
  if (a.row_k) k = clamp(a.row_k[number], a.k);
}

// A row of a masked order has a bit in the shared memory of the block for each element: 1 if
// it counts. One that does not is as good as the worst number.
template <class T>
DEVICE u32* bitmap();

template <class T>
struct Row {
  const typename T::Element* logits;  // of the row, or of the chunk of it
  u32 length;
  u32 first;    // index in the whole row of logits[0]
  u32 head;     // elements before the first whole vector
  u32 vectors;  // whole, aligned vectors
  u32 k;        // results of the row or chunk

  template <class A>
  DEVICE Row(const A& a, u32 number, u32 chunk, u32 chunks) {
    length = a.vocab;
    k = a.k;
    if (a.row_lengths) length = clamp(a.row_lengths[number], a.vocab);
    limit_results(a, number, k);
    logits = static_cast<const typename T::Element*>(a.logits) + (i64)number * a.stride;
    first = 0;
    if (chunks > 1) {
      // Chunks are whole vectors of a row that is aligned.
      const u32 share = ((length + chunks - 1) / chunks + T::kPerVector - 1) / T::kPerVector * T::kPerVector;
      first = smaller(chunk * share, length);
      length = smaller(share, length - first);
      logits += first;
    }
    k = smaller(k, length);
    head = smaller((0 - (u32)(u64)logits) % 16 / sizeof(typename T::Element), length);
    vectors = (length - head) / T::kPerVector;
  }

  DEVICE const Vector* vector_at(u32 i) const { return reinterpret_cast<const Vector*>(logits + head) + i; }
  DEVICE Vector vector(u32 i) const {
    const Vector v = load_vector(vector_at(i));
    if constexpr (T::kMasked) return T::masked(v, *bits_at(i) >> bits_shift(i));
    return v;
  }
  // Index in this row or chunk of the first element of a whole vector.
  DEVICE u32 at(u32 vector) const { return head + vector * T::kPerVector; }
  // Elements outside of whole vectors: at most twice a vector less one.
  DEVICE u32 edges() const { return length - vectors * T::kPerVector; }
  DEVICE u32 edge(u32 i) const { return i < head ? i : i + vectors * T::kPerVector; }

  DEVICE u32 bits(u32 i) const {
    if constexpr (T::kMasked) {
      if (!counts(i)) return T::kWorst & T::kAll;
    }
    return logits[i];
  }

  // Bits stand in the order of the elements, those of a whole vector at a multiple of
  // their number.
  DEVICE u32 before_bits() const { return (0 - head) % T::kPerVector; }
  DEVICE u32 bit_of(u32 i) const { return i + before_bits(); }
  DEVICE bool counts(u32 i) const { return bitmap<T>()[bit_of(i) / 32] >> bit_of(i) % 32 & 1; }
  // Where those of a whole vector are, and how far to shift that byte: the same for vectors that lie a multiple of
  // two further.
  DEVICE const u8* bits_at(u32 i) const { return reinterpret_cast<const u8*>(bitmap<T>()) + first_bit(i) / 8; }
  DEVICE u32 bits_shift(u32 i) const { return first_bit(i) % 8; }
  DEVICE u32 first_bit(u32 i) const { return (i + (head + before_bits()) / T::kPerVector) * T::kPerVector; }
};
