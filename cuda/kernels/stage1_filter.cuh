// Stage 1: a bound below the k-th value of a row, and the candidates that reach it.
//
// Shapes: one block for each row [length]. Order: maxima of disjoint groups of
// elements, one group a thread; the rank of 64 of them among all; the largest
// that k groups reach is the bound (each such group has an element that reaches
// it, so at least k elements do). Then only threads whose own maximum reaches the
// bound look at their elements a second time. Bytes: the row once, and for k = 50
// a fifteenth of it again, from L1 or L2.
// Source: group maxima as a bound are those of Dr. Top-k (arXiv 2109.08219).
#pragma once

#include "row.cuh"

constexpr u32 kPivots = 64;

// Block is what the threads of a block share.
template <class W, u32 kThreads, u32 kRoom>
struct Block {
  static constexpr u32 kWarps = kThreads / kWarp;
  W candidates[kRoom];
  u32 maxima[kThreads];         // keys of group maxima; then scratch of the exact path
  u32 pivots[kWarp];            // the best bound that each warp found
  u32 total[kWarp];             // sums of warps
  u32 count;                    // candidates found, also those without room
  u8 hits[kThreads];            // for each warp, its lanes that look again
};

// Appends the element of each lane that has one, for the whole warp at once.
// found: one bit for each element of the lane's vector.
template <class T, class W, class B>
DEVICE void append(B& block, const Row<T>& row, const Vector& v, u32 at, u32 found) {
  const u32 lane = thread_index() % kWarp;
  u32 lanes = ballot(found != 0);
  if (!lanes) return;
  u32 slot = 0;
  const u32 sum = warp_sum(population(found));
  if (lane == 0) slot = atomic_add(&block.count, sum);
  slot = shuffle(slot, 0);
  do {
    if (found) {
      const u32 e = lowest_bit(found);
      found &= found - 1;
      const u32 mine = slot + population(lanes & ((1u << lane) - 1));
      u32 word = v.word[0];
      const u32 nth = e * 4 / T::kPerVector;
      if (nth == 1) word = v.word[1];
      if (nth == 2) word = v.word[2];
      if (nth == 3) word = v.word[3];
      const u32 bits = T::kBits == 32 ? word : word >> (e % 2 * 16) & 0xffff;
      if (mine < sizeof(block.candidates) / sizeof(W)) block.candidates[mine] = Word<W>::pack(row.key(bits), row.first + at + e);
    }
    slot += population(lanes);
    lanes = ballot(found != 0);
  } while (lanes);
}

// Which elements of a vector reach the threshold, one bit each.
template <class T>
DEVICE u32 reaching(const Row<T>& row, const Vector& v, u32 threshold) {
  u32 found = 0;
#pragma unroll
  for (u32 e = 0; e < T::kPerVector; e++) found |= (row.key(T::element(v, e)) >= threshold ? 1u : 0u) << e;
  return found;
}

// The rank among m group maxima that a bound should have. For few k of m it is k,
// which is proven. Beyond, maxima of groups of equal size are expected to hold
// `wanted` elements at the rank where 1 - (1 - wanted / length)^(length / m) of
// the groups are reached: a guess, which counting the candidates proves or not.
DEVICE u32 bound_rank(u32 k, u32 m, u32 length, u32 room) {
  if (k * 4 <= m * 3) return k;
  const float wanted = 1.4f * k < 0.8f * room ? 1.4f * k : 0.8f * room;
  const float missed = 1 - wanted / length;
  if (missed <= 0.01f) return m;
  const u32 rank = m * (1 - approximate_exp2(approximate_log2(missed) * length / m));
  return rank < 1 ? 1 : rank;
}

// Finds a threshold key for the block's row: at least k elements reach it, or that
// is guessed. Returns this thread's own maximum in `own`.
template <class T, class B, u32 kThreads, u32 kUnroll>
DEVICE u32 find_threshold(B& block, const Row<T>& row, u32 groups, u32 room, u32& own, u64* stamp) {
  constexpr u32 kWarps = kThreads / kWarp;
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const u32 signs = row.smallest ? T::kSigns : 0;

  u32 best = T::kLowest;
  for (u32 base = thread; base < row.vectors; base += kThreads * kUnroll) {
    Vector v[kUnroll];
#pragma unroll
    for (u32 i = 0; i < kUnroll; i++) {
      if (base + i * kThreads < row.vectors) {
        v[i] = row.vector(base + i * kThreads);
      } else {
        v[i] = {T::kLowest ^ signs, T::kLowest ^ signs, T::kLowest ^ signs, T::kLowest ^ signs};
      }
    }
#pragma unroll
    for (u32 i = 0; i < kUnroll; i++) best = T::maximum(best, v[i], signs);
  }
  best = T::fold(best);
  // A NaN hides the rest of its group. For the smallest k, where it is the worst
  // of all, the group then bounds nothing, but is looked at again.
  const bool nan = T::is_nan(best);
  u32 group = nan ? (row.smallest ? 0 : T::kLargestKey) : T::key(best, false);
  own = nan ? T::kLargestKey : group;
  if (thread >= row.vectors) group = own = 0;

  // Fewer groups: those of neighbouring lanes are joined.
  u32 lanes = kWarp;
  for (u32 left = kThreads; left > groups; left /= 2) {
    lanes /= 2;
    const u32 other = shuffle_xor(group, lanes);
    group = group > other ? group : other;
  }
  if (lane < lanes) block.maxima[warp * lanes + lane] = group;
  if (stamp && thread == 0) stamp[1] = clock_cycles();
  block_barrier();

  // Each warp counts, for its share of the pivots, the groups that reach them; two
  // counts in one word.
  const u32 rank = bound_rank(row.k, groups, row.length, room);
  u32 bound = 0;
#pragma unroll
  for (u32 p = 0; p < kPivots / kWarps; p += 2) {
    const u32 step = groups / kPivots;
    const u32 a = block.maxima[(warp * (kPivots / kWarps) + p) * step];
    const u32 b = block.maxima[(warp * (kPivots / kWarps) + p + 1) * step];
    u32 count = 0;
#pragma unroll 4
    for (u32 i = lane; i < groups; i += kWarp) {
      const u32 key = block.maxima[i];
      count += (key >= a ? 1u : 0u) + (key >= b ? 0x10000u : 0u);
    }
    count = warp_sum(count);
    if ((count & 0xffff) >= rank && a > bound) bound = a;
    if (count >> 16 >= rank && b > bound) bound = b;
  }
  if (lane == 0) block.pivots[warp] = bound;
  block_barrier();
  return warp_max(lane < kWarps ? block.pivots[lane] : 0);
}

// Appends every element of the row that reaches the threshold. block.count must be
// 0, and holds their number afterwards, even if there was no room for all.
template <class T, class W, class B, u32 kThreads>
DEVICE void filter(B& block, const Row<T>& row, u32 threshold, u32 own) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const u32 lanes = ballot(own >= threshold);
  const u32 hits = population(lanes);
  if (hits) {
    u8* hit = block.hits + warp * kWarp;
    if (own >= threshold) hit[population(lanes & ((1u << lane) - 1))] = lane;
    warp_barrier();
    const u32 rounds = (row.vectors + kThreads - 1) / kThreads;
    for (u32 pair = 0; pair < hits * rounds; pair += kWarp) {
      const u32 round = (pair + lane) / hits;
      const u32 i = round * kThreads + warp * kWarp + hit[(pair + lane) % hits];
      Vector v = {0, 0, 0, 0};
      u32 found = 0;
      if (round < rounds && i < row.vectors) {
        v = row.vector(i);
        found = reaching<T>(row, v, threshold);
      }
      append<T, W>(block, row, v, row.at(i), found);
    }
  }
  // The elements at the edges are in no group: they are always looked at.
  if (row.edges() && warp == Block<W, kThreads, 1>::kWarps - 1) {
    Vector v = {0, 0, 0, 0};
    u32 at = 0, found = 0;
    if (lane < row.edges()) {
      at = row.edge(lane);
      v.word[0] = row.bits(at);
      found = row.key(v.word[0]) >= threshold;
    }
    append<T, W>(block, row, v, at, found);
  }
}
