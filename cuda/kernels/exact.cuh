// The exact path: what a block does when the candidates of a threshold are too
// many for their room, or fewer than k. Rows of one value, masks, ties across k
// and rows made to defeat the bound all end here, in the same launch.
//
// If fewer than k elements are better than the threshold, it is the k-th key. If
// those fit, they are the candidates. Otherwise the k-th key is found digit by
// digit from the top, by a count of each digit among the elements that share the
// digits before. Elements above the k-th key are all kept; of those equal to it
// the first in index order, as many as are missing. Bytes: the row twice more, or
// once for each digit.
#pragma once

#include "stage1_filter.cuh"

// Sum over the warps before this one, and over all.
template <class B>
DEVICE u32 sum_before(B& block, u32 of_warp, u32& all) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  block_barrier();
  if (lane == 0) block.reach[warp] = of_warp;
  block_barrier();
  const u32 sum = lane < B::kWarps ? block.reach[lane] : 0;
  all = warp_sum(sum);
  return warp_sum(lane < warp ? sum : 0);
}

// A vector of the row with its elements outside blanked: 0 is before the first
// whole vector, row.vectors + 1 after the last. within: marks of what it holds.
template <class T>
DEVICE Vector padded_vector(const Row<T>& row, u32 i, u32& at, u32& within) {
  at = i == 0 ? 0 : row.at(i - 1);
  within = T::kPerWord == 1 ? 0xf : 0xf000f;
  if (i > 0 && i <= row.vectors) return row.vector(i - 1);
  Vector v = {};
  const u32 count = i == 0 ? row.head : row.length - at;
  within = 0;
#pragma unroll 1
  for (u32 e = 0; e < count; e++) {
    const u32 placed = row.bits(at + e) << (T::kPerWord == 1 ? 0 : e % 2 * 16), nth = e / T::kPerWord;
    v.word[0] |= nth == 0 ? placed : 0;
    v.word[1] |= nth == 1 ? placed : 0;
    v.word[2] |= nth == 2 ? placed : 0;
    v.word[3] |= nth == 3 ? placed : 0;
    within |= 1u << T::mark_of(e);
  }
  return v;
}

// How many elements have a key of at least the threshold.
template <class T, class B>
DEVICE u32 count_reaching(B& block, const Row<T>& row, u32 threshold) {
  const u32 thread = thread_index();
  u32 count = 0;
#pragma unroll 4
  for (u32 i = thread; i < row.vectors; i += B::kThreads) {
    const Vector v = row.vector(i);
    count += population(mark_reaching<T>(v, threshold));
  }
  if (thread < row.edges()) count += T::key(row.bits(row.edge(thread))) >= threshold;
  u32 all;
  sum_before(block, warp_sum(count), all);
  return all;
}

// The key of the k-th element.
template <class T, class B>
DEVICE u32 kth_key(B& block, const Row<T>& row) {
  const u32 thread = thread_index(), lane = thread % kWarp;
  u32 prefix = 0, missing = row.k;
#pragma unroll 1
  for (int shift = T::kBits - 8; shift >= 0; shift -= 8) {
    block_barrier();
    if (thread < 256) block.groups[thread] = 0;
    block_barrier();
    // A run of equal digits is counted once: rows of few values would queue at
    // one counter.
    u32 digit = 0, run = 0;
    const auto see = [&](u32 key) {
      if (shift + 8 < (int)T::kBits && key >> (shift + 8) != prefix >> (shift + 8)) return;
      const u32 d = key >> shift & 255;
      if (d != digit) {
        if (run) atomic_add_only(&block.groups[digit], run);
        digit = d;
        run = 0;
      }
      run++;
    };
#pragma unroll 1
    for (u32 i = thread; i < row.vectors; i += B::kThreads) {
      Vector v = row.vector(i);
#pragma unroll 1
      for (u32 w = 0; w < 4; w++) {
        see(T::key(v.word[0] & T::kAll));
        if (T::kPerWord == 2) see(T::key(v.word[0] >> 16));
        v.word[0] = v.word[1], v.word[1] = v.word[2], v.word[2] = v.word[3];
      }
    }
    if (thread < row.edges()) see(T::key(row.bits(row.edge(thread))));
    if (run) atomic_add_only(&block.groups[digit], run);
    block_barrier();
    // Every warp finds the digit at which the count from the top reaches what is
    // missing: eight digits a lane, lane 0 has the largest.
    u32 sum = 0;
#pragma unroll
    for (u32 j = 0; j < 8; j++) sum += block.groups[255 - (lane * 8 + j)];
    u32 through = sum;
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) {
      const u32 up = shuffle_up(through, d);
      if (lane >= d) through += up;
    }
    const u32 owner = lowest_bit(ballot(through >= missing));
    u32 chosen = 255 - lane * 8, left = missing - (through - sum);
    if (lane == owner) {
      for (; block.groups[chosen] < left; chosen--) left -= block.groups[chosen];
    }
    prefix |= shuffle(chosen, owner) << shift;
    missing = shuffle(left, owner);
  }
  return prefix;
}

// Appends the first elements of the row in index order that have this key, as many
// as make `taken` of the pool k.
template <class T, class B, class P>
DEVICE void append_equal(B& block, const P& pool, const Row<T>& row, u32 key, u32 taken) {
  const u32 thread = thread_index(), lane = thread % kWarp;
#pragma unroll 1
  for (u32 base = 0; taken < row.k && base < row.vectors + 2; base += B::kThreads) {
    Vector v = {};
    u32 at = 0, equal = 0;
    if (base + thread < row.vectors + 2) {
      u32 within;
      v = padded_vector(row, base + thread, at, within);
      equal = mark_reaching<T>(v, key) & within;
      if (key < T::kAll) equal &= ~mark_reaching<T>(v, key + 1);
    }
    const u32 mine = population(equal);
    u32 through = mine;
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) {
      const u32 up = shuffle_up(through, d);
      if (lane >= d) through += up;
    }
    u32 all;
    u32 place = taken + through - mine + sum_before(block, shuffle(through, kWarp - 1), all);
    taken += all;
    u32 kept = 0;
#pragma unroll 1
    for (u32 e = 0; e < T::kPerVector && place < row.k; e++) {
      kept |= equal & 1u << T::mark_of(e);
      place += equal >> T::mark_of(e) & 1;
    }
    append_one<T>(pool, row.first, v, at, kept);
  }
}

// Fills the empty pool with the k best elements of the row, or more, in any order,
// given a threshold and the number of elements that reach it, or more than there is
// room for. Returns their number. reset empties the pool.
template <class T, class B, class P, class Reset>
DEVICE u32 select_exactly(B& block, const P& pool, const Row<T>& row, u32 threshold, u32 found, Reset reset) {
  u32 kth = threshold, above = 0;
  bool proven = found >= row.k;
  if (proven) {
    if (kth < T::kAll) above = count_reaching<T>(block, row, kth + 1);
    proven = above < row.k;
    if (!proven && above <= pool.room()) {
      reset();
      filter_all<T, B::kThreads>(pool, row, kth + 1);
      filter_edges<T>(pool, row, kth + 1);
      block_barrier();
      return above;
    }
  }
  if (!proven) {
    kth = kth_key<T>(block, row);
    above = kth < T::kAll ? count_reaching<T>(block, row, kth + 1) : 0;
  }
  reset();
  if (above > 0) {
    filter_all<T, B::kThreads>(pool, row, kth + 1);
    filter_edges<T>(pool, row, kth + 1);
  }
  append_equal<T>(block, pool, row, kth, above);
  block_barrier();
  return row.k;
}
