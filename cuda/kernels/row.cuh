// A row of logits as a kernel sees it: aligned vectors of 16 bytes, and the few
// elements before and after them.
#pragma once

#include "arguments.h"
#include "order.cuh"

template <class T>
struct Row {
  const typename T::Element* logits;  // of the row, or of the chunk of it
  u32 length;
  u32 first;     // index in the whole row of logits[0]
  u32 head;      // elements before the first whole vector
  u32 vectors;   // whole, aligned vectors
  u32 k;         // results
  u32 number;    // of the row
  bool smallest;

  DEVICE Row(const SelectArguments& a, u32 number, u32 chunk, u32 chunks) : number(number), smallest(a.smallest) {
    u32 row_length = a.vocab;
    if (a.row_lengths) row_length = clamp(a.row_lengths[number], a.vocab);
    k = a.k;
    if (a.row_k) k = clamp(a.row_k[number], a.k);
    // Chunks begin at whole vectors of a row that is aligned.
    const u32 chunk_length = ((row_length + chunks - 1) / chunks + T::kPerVector - 1) / T::kPerVector * T::kPerVector;
    first = chunks == 1 ? 0 : least(chunk * chunk_length, row_length);
    length = chunks == 1 ? row_length : least(chunk_length, row_length - first);
    k = least(k, length);
    logits = static_cast<const typename T::Element*>(a.logits) + (i64)number * a.stride + first;
    const u32 past = ((u64)logits & 15) / sizeof(typename T::Element);
    head = past ? least(T::kPerVector - past, length) : 0;
    vectors = (length - head) / T::kPerVector;
  }

  static DEVICE u32 least(u32 a, u32 b) { return a < b ? a : b; }
  static DEVICE u32 clamp(int v, int most) { return v < 0 ? 0 : v > most ? most : v; }

  DEVICE Vector vector(u32 i) const { return load_vector(logits + head + i * T::kPerVector); }
  // Index in this row or chunk of the first element of a whole vector.
  DEVICE u32 at(u32 vector) const { return head + vector * T::kPerVector; }
  // Elements outside of whole vectors: at most twice a vector less one.
  DEVICE u32 edges() const { return length - vectors * T::kPerVector; }
  DEVICE u32 edge(u32 i) const { return i < head ? i : i + vectors * T::kPerVector; }

  DEVICE u32 bits(u32 i) const { return logits[i]; }
  DEVICE u32 key(u32 bits) const { return T::key(bits, smallest); }
};
