// The exact path: what a block does when the candidates of a threshold are too
// many for their room, or fewer than k. Rows of one value, masks, ties across k
// and rows made to defeat the bound all end here, in the same launch.
//
// Elements better than the threshold are tried alone. If they are fewer than k, the
// threshold is the k-th key, and of the elements equal to it the first in index
// order are written behind them, as many as are missing. If they are too many still, keys
// are tried, four at a time, each by a count of the elements that reach it, until there
// is room for them or the k-th key is left. Bytes: the row once more, and at every look
// its slots that reach what is looked for.
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

// The best key of the row.
template <class T, class B>
DEVICE u32 best_of_row(B& block, const Row<T>& row, const Share& share) {
  const u32 thread = thread_index(), lane = thread % kWarp;
  u32 key = best_key<T>(share);
  if (thread < row.edges()) key = larger(key, T::key(row.bits(row.edge(thread))));
  key = warp_max(key);
  block_barrier();
  if (lane == 0) block.reach[thread / kWarp] = key;
  block_barrier();
  return warp_max(lane < B::kWarps ? block.reach[lane] : 0);
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

// How many elements reach each of the keys, in ascending order. Bytes: those of the slots
// that reach the first.
template <class T, class B>
DEVICE_APART Keys count_reaching(B& block, const Row<T>& row, const Share& share, Keys keys) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  Keys reach = {};
  if (T::beatable(keys.key[0])) {
    const u32 slots = list_slots<T>(block, share, keys.key[0]), spread = spread_of<T, B::kThreads>(row, slots);
    look_again<T, B::kThreads>(row, block.slots_of(warp), warp, spread, 0, slots << spread,
                               [&](const Vector& v, u32 i, const Vector& w, u32 next) {
#pragma unroll
                                 for (u32 k = 0; k < kTried; k++) {
                                   const u32 below = T::just_below(keys.key[k]);
                                   reach.key[k] += (i < row.vectors ? T::count(v, below) : 0) + (next < row.vectors ? T::count(w, below) : 0);
                                 }
                                 return true;
                               });
  } else {
#pragma unroll 1
    for (u32 number = thread; number < row.vectors; number += B::kThreads) {
      const Vector v = row.vector(number);
#pragma unroll
      for (u32 k = 0; k < kTried; k++) reach.key[k] += population(T::mark_by_key(v, keys.key[k]));
    }
  }
  const u32 edge = thread < row.edges() ? T::key(row.bits(row.edge(thread))) : 0;
  block_barrier();  // the lists are read
#pragma unroll
  for (u32 k = 0; k < kTried; k++) {
    const u32 sum = warp_sum(reach.key[k] + (thread < row.edges() && edge >= keys.key[k] ? 1 : 0));
    if (lane == 0) block.groups[k * B::kWarps + warp] = sum;
  }
  block_barrier();
#pragma unroll
  for (u32 k = 0; k < kTried; k++) reach.key[k] = warp_sum(lane < B::kWarps ? block.groups[k * B::kWarps + lane] : 0);
  block_barrier();  // before the next list
  return reach;
}

// Writes the first elements of the row in index order that have this key, from rank
// `taken` on, as many as make k.
template <class T, class W, class B, class R>
DEVICE void write_equal(B& block, const R& results, const Row<T>& row, u32 key, u32 taken) {
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
    if (block.left > 0) {
      const u32 found = found_at_least(block);
      if (found > pool.room()) return found;
      block_barrier();  // all have read it
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
// reach low, but too many; fewer than k reach a key above high. ties: it may be that few
// are better than low.
template <class T, class B, class P, class R>
DEVICE Found select_exactly(B& block, const P& pool, const Row<T>& row, const R& results, const Share& share, u32 low, u32 high, bool ties) {
  u32 above = kAllLanes;
  if (ties) {
    above = fill_beyond(block, pool, row, share, low);
    if (above < row.k) {
      high = low;
    } else if (above <= pool.room()) {
      return {above, row.k};
    } else {
      low++;
    }
  }
  if (low < high) high = smaller(high, best_of_row(block, row, share));
  // Nearer and nearer to the best of the row, where the k-th is likely; then fifths. Where
  // no key is known that k elements reach, steps down that grow until one is.
  bool between = false;
#pragma unroll 1
  for (u32 pass = 0; low < high; pass++) {
    const u32 range = high - low;
    between |= low > 0 || pass == 2;
    Keys keys;
#pragma unroll
    for (u32 i = 0; i < kTried; i++) {
      const u32 nth = pass * kTried + kTried - 1 - i, bit = nth == 0 ? 0 : smaller(T::kBits - 1, (T::kBits == 32 ? 14 : 0) + 3 * nth);
      const u32 fifths = low + range / 5 * (i + 1) + smaller(i + 1, range % 5), halves = high - (range >> (i + 1));
      keys.key[i] = !between ? high + 1 - smaller(1u << bit, range) : pass == 0 ? halves : fifths;
    }
    const Keys reach = count_reaching(block, row, share, keys);
    u32 least = kAllLanes;
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
    above = kAllLanes;
  }
  if (above >= row.k) above = fill_beyond(block, pool, row, share, low);
  write_equal<T, typename P::Candidate>(block, results, row, low, above);
  return {above, above};
}

// The same after a first threshold that did not do: `found` elements reach it, more than
// there is room for, or fewer than k; 0 if it is one that cannot be beaten, and at least k
// elements reach it. The pool is empty then.
template <class T, class B, class P, class R>
DEVICE Found select_otherwise(B& block, const P& pool, const Row<T>& row, const R& results, u32 threshold, u32 found) {
  if (found == 0) {
    threshold = T::kSmallest && !provable(row.k, 512) ? 0 : smaller(threshold, T::kWorstNumber);
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
  const bool many = found == 0 || found > pool.room();
  // No ties, if as many slots have something better.
  const bool ties = many && (provable(row.k, 512) || !T::beatable(threshold + 1) || reaching_slots<T>(block, share, threshold + 1) < row.k);
  return select_exactly(block, pool, row, results, share, many ? threshold : 0, many ? T::kAll : threshold - 1, ties);
}
