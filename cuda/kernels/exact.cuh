// The exact path: what a block does when the candidates of a threshold are too
// many for their room, or fewer than k. Rows of one value, masks, ties across k
// and rows made to defeat the bound all end here, in the same launch.
//
// Elements better than the threshold are tried alone. If they are fewer than k, the
// threshold is the k-th key, and of the elements equal to it the first in index
// order are written behind them, as many as are missing. Otherwise other thresholds are
// guessed. At last keys are tried, four at a time, each by a count of the elements that
// reach it, until there is room for them or the k-th key is left. Bytes: the row once more,
// in L1 or L2, and once for every four keys.
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

// How many slots of the block's threads reach a beatable threshold.
template <class T, class B>
DEVICE u32 reaching_slots(B& block, const Share& share, u32 threshold) {
  u32 count = 0, all;
#pragma unroll
  for (u32 s = 0; s < kSlots; s++) count += T::beats(share.slot[s], T::just_below(threshold)) ? 1 : 0;
  sum_before(block, warp_sum(count), all);
  return all;
}

constexpr u32 kTried = 4;  // keys at a time
struct Keys {
  u32 key[kTried];
};

// How many elements reach each of the keys.
template <class T, class B>
DEVICE_APART Keys count_reaching(B& block, const Row<T>& row, Keys keys) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  Keys below, reach = {};
  bool beatable = true;
#pragma unroll
  for (u32 i = 0; i < kTried; i++) {
    below.key[i] = T::just_below(keys.key[i]);
    beatable &= T::beatable(keys.key[i]);
  }
  if (beatable) {
    read_vectors<T, B::kThreads>(row, [&](u32, const Vector& v) {
#pragma unroll
      for (u32 i = 0; i < kTried; i++) reach.key[i] += T::count(v, below.key[i]);
    });
  } else {
#pragma unroll 1
    for (u32 number = thread; number < row.vectors; number += B::kThreads) {
      const Vector v = row.vector(number);
#pragma unroll
      for (u32 i = 0; i < kTried; i++) reach.key[i] += population(T::mark_by_key(v, keys.key[i]));
    }
  }
  const u32 edge = thread < row.edges() ? T::key(row.bits(row.edge(thread))) : 0;
  block_barrier();
#pragma unroll
  for (u32 i = 0; i < kTried; i++) {
    const u32 sum = warp_sum(reach.key[i] + (thread < row.edges() && edge >= keys.key[i] ? 1 : 0));
    if (lane == 0) block.groups[i * B::kWarps + warp] = sum;
  }
  block_barrier();
#pragma unroll
  for (u32 i = 0; i < kTried; i++) reach.key[i] = warp_sum(lane < B::kWarps ? block.groups[i * B::kWarps + lane] : 0);
  return reach;
}

// Writes the first elements of the row in index order that have this key, from rank
// `taken` on, as many as make k.
template <class T, class W, class B, class R>
DEVICE_APART void write_equal(B& block, R results, const Row<T>& row, u32 key, u32 taken) {
  const u32 thread = thread_index(), lane = thread % kWarp;
#pragma unroll 1
  for (u32 base = 0; taken < row.k && base < row.vectors + 2; base += B::kThreads) {
    // Whole vectors, and what is before the first and after the last.
    const u32 i = base + thread;
    u32 at = 0, equal = 0;
    if (i > 0 && i <= row.vectors) {
      at = row.at(i - 1);
      const Vector v = row.vector(i - 1);
#pragma unroll
      for (u32 e = 0; e < T::kPerVector; e++) {
        const u32 word = v.word[e / T::kPerWord];
        equal |= (T::has_key(T::kPerWord == 1 ? word : word >> e % 2 * 16 & T::kAll, key) ? 1u : 0u) << e;
      }
    } else if (i <= row.vectors + 1) {
      at = i == 0 ? 0 : row.at(row.vectors);
      const u32 count = i == 0 ? row.head : row.length - at;
#pragma unroll 1
      for (u32 e = 0; e < count; e++) equal |= (T::has_key(row.bits(at + e), key) ? 1u : 0u) << e;
    }
    const u32 mine = population(equal);
    u32 through = mine;
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) {
      const u32 up = shuffle_up(through, d);
      if (lane >= d) through += up;
    }
    u32 all;
    u32 rank = taken + through - mine + sum_before(block, shuffle(through, kWarp - 1), all);
    taken += all;
#pragma unroll 1
    for (; equal && rank < row.k; equal &= equal - 1) results.write(rank++, Word<W>::pack(key, row.first + at + lowest_bit(equal)));
  }
  block_barrier();  // what sums used is free
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
    if (block.crowded && block.count <= pool.room()) {
      block_barrier();  // all have read the count
      filter_rest(pool, block, row, key + 1);
      block_barrier();
    }
  }
  return block.count;
}

// Found is what stage 1 hands to stage 2: candidates, of which the best `wanted` are
// results. Any others are written already.
struct Found {
  u32 candidates, wanted;
};

// Fills the pool with the k best elements of the row, or more, in any order; or with
// those that are better than the k-th key, and writes the others. At least k elements
// reach low, and too many or so it seems; fewer than k reach a key above high.
template <class T, class B, class P, class R>
DEVICE Found select_exactly(B& block, const P& pool, const Row<T>& row, const R& results, const Share& share, u32 low, u32 high) {
  const bool up = low > 0;
  // Steps that grow until low and high are on both sides, then fifths.
  bool between = up && high < T::kAll;
#pragma unroll 1
  for (u32 pass = 0; low < high; pass++) {
    const u32 range = high - low;
    between |= pass == 2;
    Keys keys;
#pragma unroll
    for (u32 i = 0; i < kTried; i++) {
      const u32 nth = pass * kTried + i, bit = nth == 0 ? 0 : smaller(T::kBits - 1, (T::kBits == 32 ? 14 : 0) + 3 * nth);
      const u32 fifths = range / 5 * (i + 1) + smaller(i + 1, range % 5), step = smaller(1u << bit, range);
      keys.key[i] = between ? low + fifths : up ? low + step : high + 1 - step;
    }
    const Keys reach = count_reaching(block, row, keys);
    u32 least = kAllLanes;
    const u32 low_before = low, high_before = high;
#pragma unroll
    for (u32 i = 0; i < kTried; i++) {
      if (reach.key[i] >= row.k) {
        low = larger(low, keys.key[i]);
        least = smaller(least, reach.key[i]);
      } else {
        high = smaller(high, keys.key[i] - 1);
      }
    }
    if (least <= pool.room()) return {fill_beyond(block, pool, row, share, low - 1), row.k};
    between |= up ? high != high_before : low != low_before;
  }
  const u32 above = fill_beyond(block, pool, row, share, low);
  write_equal<T, typename P::Candidate>(block, results, row, low, above);
  return {above, above};
}

constexpr u32 kGuesses = 6;  // after the first threshold, before keys are tried

// The next rank to guess, after one that brought too many candidates, or fewer than k,
// or both. 0: none was that.
DEVICE u32 next_rank(u32 many, u32 few) {
  if (few == 0) return many / 4;
  if (many == 0) return few * 4;
  return approximate_exp2((approximate_log2(many) + approximate_log2(few)) / 2);
}

// The same where at least k elements reach low, and fewer than k may be better, or not
// too many. Returns whether it is so.
template <class T, class B, class P, class R>
DEVICE bool select_beyond(B& block, const P& pool, const Row<T>& row, const R& results, const Share& share, u32 low, Found& found) {
  const u32 above = fill_beyond(block, pool, row, share, low);
  found = {above, row.k};
  if (above >= row.k) return above <= pool.room();
  write_equal<T, typename P::Candidate>(block, results, row, low, above);
  found.wanted = above;
  return true;
}

// The same after a first threshold that did not do: `found` elements reach it, more than
// there is room for, or fewer than k; 0 if it is one that cannot be beaten, and at least k
// elements reach it. The pool is empty then.
template <class T, class B, class P, class R>
DEVICE Found select_otherwise(B& block, const P& pool, const Row<T>& row, const R& results, u32 threshold, u32 found) {
  // At least k elements reach that: no number is worse, or the threshold was proven.
  const u32 worst = T::kSmallest && !provable(row.k, 512) ? 0 : T::kWorstNumber;
  if (found == 0) {
    threshold = smaller(threshold, worst);
    if (row.length <= pool.room()) {
      block_barrier();
      filter_all<T, B::kThreads>(pool, row, threshold);
      filter_edges(pool, row, threshold);
      block_barrier();
      return {block.count, row.k};
    }
  }
  Share share;
  read_share<T, B::kThreads>(row, share);
  Found selected;
  u32 low = 0, high = kAllLanes;  // too many elements reach low, fewer than k high
  u32 rank = guess_rank(row), many = 0, few = 0;
  if (found == 0 || found > pool.room()) {
    low = threshold, many = rank;
    // Ties alone, if few slots have anything better.
    if (!T::beatable(low + 1) || reaching_slots<T>(block, share, low + 1) < row.k) {
      if (select_beyond(block, pool, row, results, share, low, selected)) return selected;
      low++;
    }
  } else {
    high = threshold, few = rank;
  }
#pragma unroll 1
  for (u32 guess = 0; guess < kGuesses; guess++) {
    rank = next_rank(many, few);
    block.empty();
    threshold = guess_threshold(block, row, share, rank);
    if (threshold <= low || threshold >= high) break;
    if (!T::beatable(threshold)) {
      low = worst;
      if (select_beyond(block, pool, row, results, share, low, selected)) return selected;
      low++;
      break;
    }
    found = fill_beyond(block, pool, row, share, threshold - 1);
    if (found < row.k) {
      high = threshold, few = rank;
    } else if (found > pool.room()) {
      low = threshold, many = rank;
    } else {
      return {found, row.k};
    }
  }
  return select_exactly(block, pool, row, results, share, low, high == kAllLanes ? T::kAll : high - 1);
}
