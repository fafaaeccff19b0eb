// The exact path: what a block does when the candidates of a threshold are too
// many for their room, or fewer than k. Rows of one value, masks, ties across k
// and rows made to defeat the bound all end here, in the same launch.
//
// The key of the k-th element is found digit by digit from the top, by a count of
// each digit among the elements that share the digits before. Elements above it
// are all kept; of those equal to it the first in index order, as many as are
// missing. Bytes: the row once for each digit that matters, and twice more.
#pragma once

#include "stage1_filter.cuh"

// Sum over the block; every thread gets it.
template <class B>
DEVICE u32 block_sum(B& block, u32 v) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  v = warp_sum(v);
  block_barrier();
  if (lane == 0) block.total[warp] = v;
  block_barrier();
  return warp_sum(lane < B::kWarps ? block.total[lane] : 0);
}

// Calls see(key, index) for every element of the row, each thread for its share.
template <class T, u32 kThreads, class See>
DEVICE void for_each_key(const Row<T>& row, See see) {
  for (u32 i = thread_index(); i < row.vectors; i += kThreads) {
    const Vector v = row.vector(i);
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e++) see(row.key(T::element(v, e)));
  }
  if (thread_index() < row.edges()) see(row.key(row.bits(row.edge(thread_index()))));
}

// The key of the k-th element, given that it is at least `threshold`. above: how
// many elements are better.
template <class T, class B, u32 kThreads>
DEVICE u32 kth_key(B& block, const Row<T>& row, u32 threshold, u32& above) {
  const u32 thread = thread_index();
  // Often the threshold itself is that key.
  u32 mine = 0;
  for_each_key<T, kThreads>(row, [&](u32 key) { mine += key > threshold; });
  above = block_sum(block, mine);
  if (above < row.k) return threshold;

  u32* counts = block.maxima;  // of 256 digits
  u32 prefix = 0, missing = row.k;
  for (int shift = T::kBits - 8; shift >= 0; shift -= 8) {
    block_barrier();
    if (thread < 256) counts[thread] = 0;
    block_barrier();
    // A run of equal digits is counted once: rows of few values would queue at
    // one counter.
    u32 digit = 0, run = 0;
    for_each_key<T, kThreads>(row, [&](u32 key) {
      if (key <= threshold || (shift + 8 < 32 && key >> (shift + 8) != prefix >> (shift + 8))) return;
      const u32 d = key >> shift & 255;
      if (d != digit) {
        if (run) atomic_add(counts + digit, run);
        digit = d;
        run = 0;
      }
      run++;
    });
    if (run) atomic_add(counts + digit, run);
    block_barrier();
    // Every warp finds the digit at which the count from the top reaches what is
    // missing: eight digits a lane, lane 0 has the largest.
    const u32 lane = thread % kWarp;
    u32 sum = 0;
#pragma unroll
    for (u32 j = 0; j < 8; j++) sum += counts[255 - (lane * 8 + j)];
    u32 before = sum;
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) {
      const u32 up = shuffle_up(before, d);
      if (lane >= d) before += up;
    }
    const u32 owner = lowest_bit(ballot(before >= missing));
    before -= sum;
    u32 chosen = 0, left = 0;
    if (lane == owner) {
      u32 j = 0;
      while (before + counts[255 - (lane * 8 + j)] < missing) before += counts[255 - (lane * 8 + j++)];
      chosen = 255 - (lane * 8 + j);
      left = missing - before;
    }
    prefix |= shuffle(chosen, owner) << shift;
    missing = shuffle(left, owner);
  }
  above = row.k - missing;
  return prefix;
}

// Makes block.candidates the k best elements of the row, in any order.
template <class T, class W, class B, u32 kThreads>
DEVICE void select_exactly(B& block, const Row<T>& row, u32 threshold) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u32 above;
  const u32 kth = kth_key<T, B, kThreads>(block, row, threshold, above);
  block_barrier();
  if (thread == 0) block.count = 0;
  block_barrier();

  // In index order: the head, the vectors, the tail. Equal elements take the
  // places after `above` in that order.
  u32 taken = above;
  const u32 virtuals = row.vectors + 2;
  for (u32 base = 0; base < virtuals; base += kThreads) {
    const u32 i = base + thread;
    Vector v = {0, 0, 0, 0};
    u32 over = 0, equal = 0, at = 0;
    if (i < virtuals) {
      u32 count = T::kPerVector;
      at = i == 0 ? 0 : row.at(i - 1);
      if (i == 0) count = row.head;
      if (i == row.vectors + 1) count = row.length - at;
      if (count == T::kPerVector) {
        v = row.vector(i - 1);
      } else {
        for (u32 e = 0; e < count; e++) {
          const u32 bits = row.bits(at + e);
          const u32 placed = T::kBits == 32 ? bits : bits << (e % 2 * 16);
          const u32 nth = e * 4 / T::kPerVector;
          v.word[0] |= nth == 0 ? placed : 0;
          v.word[1] |= nth == 1 ? placed : 0;
          v.word[2] |= nth == 2 ? placed : 0;
          v.word[3] |= nth == 3 ? placed : 0;
        }
      }
#pragma unroll
      for (u32 e = 0; e < T::kPerVector; e++) {
        const u32 key = row.key(T::element(v, e));
        over |= (e < count && key > kth ? 1u : 0u) << e;
        equal |= (e < count && key == kth ? 1u : 0u) << e;
      }
    }
    append<T, W>(block, row, v, at, over);
    if (taken < row.k) {
      // The same for all threads: the place of each thread's first equal element.
      u32 sum = population(equal);
      u32 before = sum;
#pragma unroll
      for (u32 d = 1; d < kWarp; d *= 2) {
        const u32 up = shuffle_up(before, d);
        if (lane >= d) before += up;
      }
      block_barrier();
      if (lane == kWarp - 1) block.total[warp] = before;
      block_barrier();
      const u32 of_warp = lane < B::kWarps ? block.total[lane] : 0;
      u32 place = taken + before - sum + warp_sum(lane < warp ? of_warp : 0);
      taken += warp_sum(of_warp);
      u32 kept = 0;
      for (; equal && place < row.k; place++) {
        kept |= equal & -equal;
        equal &= equal - 1;
      }
      append<T, W>(block, row, v, at, kept);
    }
  }
  block_barrier();
}
