// Stage 2: the candidates of a row in order, the best k of them written.
//
// Up to 512 candidates are ranked by counting the better ones, each by a whole
// warp: no exchange between warps, one sum a pair. More are sorted by a bitonic
// network over registers, shuffles and shared memory.
#pragma once

#include "row.cuh"

// Results writes the results of one row.
template <class T, class W>
struct Results {
  typename T::Element* values;
  void* indices;
  bool wide;  // 64-bit indices
  const Row<T>& row;

  DEVICE Results(const SelectArguments& a, const Row<T>& row) : row(row) {
    const i64 at = (i64)row.number * a.result_stride;
    values = static_cast<typename T::Element*>(a.values) + at;
    wide = a.index_bytes == 8;
    indices = wide ? static_cast<void*>(static_cast<i64*>(a.indices) + at) : static_cast<void*>(static_cast<int*>(a.indices) + at);
  }

  DEVICE void write(u32 rank, W word) const {
    const u32 key = Word<W>::key(word), index = Word<W>::index(word);
    values[rank] = T::key_has_bits(key, row.smallest) ? T::bits_of(key, row.smallest) : row.bits(index - row.first);
    if (wide) {
      static_cast<i64*>(indices)[rank] = index;
    } else {
      static_cast<int*>(indices)[rank] = index;
    }
  }
};

// Ranks up to kItems * 32 candidates.
template <u32 kItems, class W, class B, class R>
DEVICE void rank_items(const B& block, u32 n, u32 k, const R& results) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  if (warp >= n) return;
  W all[kItems];
#pragma unroll
  for (u32 j = 0; j < kItems; j++) all[j] = j * kWarp + lane < n ? block.candidates[j * kWarp + lane] : 0;
  for (u32 i = warp; i < n; i += 2 * B::kWarps) {
    const u32 next = i + B::kWarps;
    const W a = block.candidates[i], b = next < n ? block.candidates[next] : 0;
    u32 better = 0;
#pragma unroll
    for (u32 j = 0; j < kItems; j++) better += (all[j] > a ? 1u : 0u) + (all[j] > b ? 0x10000u : 0u);
    better = warp_sum(better);
    if (lane == 0 && (better & 0xffff) < k) results.write(better & 0xffff, a);
    if (lane == 1 && next < n && better >> 16 < k) results.write(better >> 16, b);
  }
}

// One step of the network for the element at position i: the larger of the pair
// goes to the front where the bit `size` of i is clear.
template <class W>
DEVICE W keep(W mine, W other, u32 i, u32 distance, u32 size) {
  const bool larger = ((i & distance) == 0) == ((i & size) == 0);
  return (mine > other) == larger ? mine : other;
}

// Sorts kThreads * kItems words, largest first: position thread * kItems + j of
// candidates in register j. Distances within a thread, a warp and the block go by
// registers, shuffles and shared memory.
template <u32 kItems, u32 kThreads, class W, class B, class R>
DEVICE void sort_items(B& block, u32 n, u32 k, const R& results) {
  const u32 thread = thread_index();
  constexpr u32 kAll = kItems * kThreads;
  W w[kItems];
#pragma unroll
  for (u32 j = 0; j < kItems; j++) w[j] = thread * kItems + j < n ? block.candidates[thread * kItems + j] : 0;
  for (u32 size = 2; size <= kAll; size *= 2) {
    u32 distance = size / 2;
    for (; distance >= kItems * kWarp; distance /= 2) {
      block_barrier();
#pragma unroll
      for (u32 j = 0; j < kItems; j++) block.candidates[j * kThreads + thread] = w[j];
      block_barrier();
#pragma unroll
      for (u32 j = 0; j < kItems; j++) {
        const W other = block.candidates[j * kThreads + (thread ^ (distance / kItems))];
        w[j] = keep(w[j], other, thread * kItems + j, distance, size);
      }
    }
    for (; distance >= kItems; distance /= 2) {
#pragma unroll
      for (u32 j = 0; j < kItems; j++) w[j] = keep(w[j], shuffle_xor(w[j], distance / kItems), thread * kItems + j, distance, size);
    }
#pragma unroll
    for (u32 d = kItems / 2; d > 0; d /= 2) {
      if (d <= distance) {
        W o[kItems];
#pragma unroll
        for (u32 j = 0; j < kItems; j++) o[j] = w[j];
#pragma unroll
        for (u32 j = 0; j < kItems; j++) w[j] = keep(o[j], o[j ^ d], thread * kItems + j, d, size);
      }
    }
  }
#pragma unroll
  for (u32 j = 0; j < kItems; j++) {
    if (thread * kItems + j < k) results.write(thread * kItems + j, w[j]);
  }
}

// Writes the best k of n candidates, n >= k, in order.
template <u32 kThreads, u32 kRoom, class W, class B, class R>
DEVICE void merge(B& block, u32 n, u32 k, const R& results) {
  if (n <= 2 * kWarp) return rank_items<2, W>(block, n, k, results);
  if (n <= 4 * kWarp) return rank_items<4, W>(block, n, k, results);
  if (n <= 8 * kWarp) return rank_items<8, W>(block, n, k, results);
  if (n <= 16 * kWarp) return rank_items<16, W>(block, n, k, results);
  if (n <= kThreads) return sort_items<1, kThreads, W>(block, n, k, results);
  if constexpr (kRoom >= 2 * kThreads) {
    if (n <= 2 * kThreads) return sort_items<2, kThreads, W>(block, n, k, results);
  }
  if constexpr (kRoom >= 4 * kThreads) sort_items<4, kThreads, W>(block, n, k, results);
}
