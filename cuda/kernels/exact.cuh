// The exact path: what a block does when the candidates of a threshold are too
// many for their room, or fewer than k. Rows of one value, masks, ties across k
// and rows made to defeat the bound all end here, in the same launch.
//
// Elements better than the threshold are tried alone. If they are fewer than k, the
// threshold is the k-th key, and of the elements equal to it the first in index
// order are taken too, as many as are missing. If they are too many still, keys are
// tried, each by a count of the elements that reach it, until there is room for them
// or the k-th key is left. Bytes: the row once more, or also once for each key.
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
DEVICE_APART u32 count_reaching(B& block, const Row<T>& row, u32 threshold) {
  const u32 thread = thread_index();
  u32 count = 0;
  read_vectors<T, B::kThreads>(row, [&](u32, const Vector& v) { count += population(mark_reaching<T>(v, threshold)); }, [](u32) {});
  if (thread < row.edges()) count += T::key(row.bits(row.edge(thread))) >= threshold;
  u32 all;
  sum_before(block, warp_sum(count), all);
  return all;
}

// Appends the first elements of the row in index order that have this key, as many
// as make `taken` of the pool k.
template <class T, class B, class P>
DEVICE_APART void append_equal(B& block, const P& pool, const Row<T>& row, u32 key, u32 taken) {
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
  block_barrier();
}

// Fills the emptied pool with all elements better than the key, and returns how many
// there are, or more than there is room for.
template <class T, class B, class P>
DEVICE_APART u32 fill_beyond(B& block, const P& pool, const Row<T>& row, const Share& share, u32 key) {
  block.empty();
  if (key < T::kAll) {
    if (T::beatable(key + 1)) {
      filter(block, pool, row, share, key + 1);
    } else {
      filter_all<T, B::kThreads>(pool, row, key + 1);
    }
    filter_edges(pool, row, key + 1);
    block_barrier();
  }
  return block.count;
}

// Fills the pool with the k best elements of the row, or more, in any order, and
// returns their number. At least k elements reach the threshold, but they were too
// many; or fewer than k reach it.
template <class T, class B, class P>
DEVICE u32 select_exactly(B& block, const P& pool, const Row<T>& row, u32 threshold, u32 found) {
  Share share;
  read_share<T, B::kThreads>(row, share);
  // At least k elements reach low, fewer than k a key above high.
  u32 low = 0, high = T::kAll, above = 0;
  const bool up = found >= row.k;
  if (up) {
    low = high = threshold;
    above = fill_beyond(block, pool, row, share, threshold);
    if (above >= row.k) {
      if (above <= pool.room()) return above;
      low = threshold + 1, high = T::kAll;
    }
  } else {
    if (threshold > 0) high = threshold - 1;
    if (high == 0) above = fill_beyond(block, pool, row, share, 0);
  }
  // Steps that grow until low and high are on both sides, then halves.
  bool halves = false;
  u32 step = T::kBits == 32 ? 1u << 19 : 8;
#pragma unroll 1
  while (low < high) {
    halves |= step >= (high - low) / 2;
    const u32 key = halves ? low + (high - low - 1) / 2 + 1 : up ? low + step : high - step + 1;
    const u32 reaching = count_reaching(block, row, key);
    if (reaching >= row.k) {
      low = key;
      if (reaching <= pool.room()) return fill_beyond(block, pool, row, share, key - 1);
    } else {
      high = key - 1;
    }
    halves |= up != (reaching >= row.k);
    step *= 4;
    if (low == high) above = fill_beyond(block, pool, row, share, low);
  }
  append_equal(block, pool, row, low, above);
  return row.k;
}
