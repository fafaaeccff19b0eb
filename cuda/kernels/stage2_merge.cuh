// Stage 2: the candidates of a row in order, the best k of them written.
//
// Up to 192 candidates are ranked by counting the better ones, each by a whole
// warp. More are dealt into bins by the upper bits of their words and then ranked
// within their bin: time hardly depends on their number, as long as they spread.
// Those that crowd in one bin are dealt again, or sorted if there are more such bins.
#pragma once

#include "row.cuh"

// Results writes the results of a row. T is the dtype in either order, so that both
// share the code of this stage.
template <class T, class W>
struct Results {
  const SelectArguments& a;
  u32 row;

  DEVICE void write(u32 rank, W word) const {
    const u32 key = Word<W>::key(word), index = Word<W>::index(word);
    const i64 at = row * a.result_stride + rank;
    u32 bits = T::bits_of(key) ^ (a.smallest ? T::kSign : 0);
    // What several bit patterns share, a key does not tell.
    if (key == T::kZeroKey || key == (a.smallest ? 0 : T::kAll)) {
      bits = static_cast<const typename T::Element*>(a.logits)[row * a.stride + index];
    }
    static_cast<typename T::Element*>(a.values)[at] = bits;
    if (a.index_bytes == 8) {
      static_cast<i64*>(a.indices)[at] = index;
    } else {
      static_cast<int*>(a.indices)[at] = index;
    }
  }
};

// Words writes the candidates themselves, for a second stage in another launch. As
// no word is 0, that stands for a missing one.
struct Words {
  u64* words;
  DEVICE void write(u32 rank, u64 word) const { words[rank] = word; }
};

// Ranks up to kItems * 32 candidates, four at a time for each warp: their counts
// share one word.
template <u32 kItems, class B, class R, class S>
DEVICE void rank_by_count(const B& block, u32 n, u32 k, const R& results, const S& stamps) {
  using W = typename B::Candidate;
  constexpr u32 kAtOnce = 4, kField = 8;  // bits
  static_assert(kItems * kWarp < 1u << kField, "a count must fit its field");
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  if (warp >= n) return;
  W all[kItems];
#pragma unroll
  for (u32 j = 0; j < kItems; j++) all[j] = j * kWarp + lane < n ? block.candidates[j * kWarp + lane] : 0;
#pragma unroll 1
  for (u32 first = warp; first < n; first += kAtOnce * B::kWarps) {
    u32 better = 0;
#pragma unroll
    for (u32 i = 0; i < kAtOnce; i++) {
      const W one = block.candidates[first + i * B::kWarps];  // past the last: any word, and not written
      u32 at_most = 0;
#pragma unroll
      for (u32 j = 0; j < kItems; j++) at_most = count_at_least(at_most, one, all[j]);
      better |= (kItems - at_most) << kField * i;
    }
    better = warp_sum(better);
    stamps.set(4);
    const u32 rank = better >> kField * (lane % kAtOnce) & ((1u << kField) - 1);
    const u32 mine = first + lane * B::kWarps;
    if (lane < kAtOnce && mine < n && rank < k) results.write(rank, block.candidates[mine]);
  }
}

// Sorts words where they are, the largest first: a bitonic network of a block. There
// is room for a power of two of them.
template <u32 kThreads, class W>
DEVICE_APART void sort_words(W* words, u32 n) {
  u32 all = 1;
  while (all < n) all *= 2;
  for (u32 i = n + thread_index(); i < all; i += kThreads) words[i] = 0;
#pragma unroll 1
  for (u32 size = 2; size <= all; size *= 2) {
#pragma unroll 1
    for (u32 distance = size / 2; distance > 0; distance /= 2) {
      block_barrier();
      for (u32 pair = thread_index(); pair < all / 2; pair += kThreads) {
        const u32 i = 2 * pair - (pair & (distance - 1)), j = i + distance;
        const W a = words[i], b = words[j];
        if ((a < b) == ((i & size) == 0)) words[i] = b, words[j] = a;
      }
    }
  }
  block_barrier();
}

// Ranks up to kRoom candidates by bins. Where too many crowd in one bin they are dealt
// again, over their own range; equal keys by their indices.
template <class B, class R, class S>
DEVICE void rank_by_bin(B& block, u32 n, u32 k, const R& results, const S& stamps) {
  using W = typename B::Candidate;
  constexpr u32 kThreads = B::kThreads, kItems = B::kRoom / kThreads;
  constexpr u32 kLogBins = 10, kLargestBin = 256, kDeals = 8;
  static_assert(kBins == 1u << kLogBins && kBins % kThreads == 0, "each thread has whole bins");
  constexpr u32 kOwn = kBins / kThreads;
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u32 begin = 0, end = n;  // candidates that are dealt; what is before them is better
  bool equal = false;      // they have one key
#pragma unroll 1
  for (u32 deal = 1;; deal++) {
    // Bin 0 has the best words.
    u32 least = kAllLanes, most = 0, shift;
    const auto digit = [&](W word) { return sizeof(W) == 8 && equal ? Word<W>::bottom(word) : Word<W>::top(word); };
    const auto bin_of = [&](W word) { return kBins - 1 - ((digit(word) - least) >> shift); };
    // The range of the words.
    W words[kItems];
#pragma unroll
    for (u32 j = 0; j < kItems; j++) {
      if (begin + j * kThreads + thread < end) {
        words[j] = block.candidates[begin + j * kThreads + thread];
        most = larger(most, digit(words[j]));
        least = smaller(least, digit(words[j]));
      }
    }
    most = warp_max(most);
    least = ~warp_max(~least);
    if (lane == 0) block.reach[warp] = most, block.lows[warp] = least;
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) block.groups[b * kThreads + thread] = 0;
    block_barrier();
    if (thread == 0) block.count = 0;  // all have read it
    most = warp_max(lane < B::kWarps ? block.reach[lane] : 0);
    least = ~warp_max(lane < B::kWarps ? ~block.lows[lane] : 0);
    if (sizeof(W) == 8 && most == least && !equal) {
      equal = true;
      block_barrier();
      continue;
    }
    const u32 bits = kWarp - leading_zeros(most - least);
    shift = bits > kLogBins ? bits - kLogBins : 0;
    u32 place[kItems];
#pragma unroll
    for (u32 j = 0; j < kItems; j++) {
      if (begin + j * kThreads + thread < end) place[j] = atomic_add(&block.groups[bin_of(words[j])], 1);
    }
    block_barrier();

    // The first place of each bin.
    u32 size[kOwn], sum = 0;
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      size[b] = block.groups[thread * kOwn + b];
      sum += size[b];
    }
    u32 through = sum;
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) {
      const u32 up = shuffle_up(through, d);
      if (lane >= d) through += up;
    }
    if (lane == kWarp - 1) block.reach[warp] = through;
    block_barrier();
    u32 before = begin + through - sum + warp_sum(lane < warp ? block.reach[lane] : 0);
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      block.groups[thread * kOwn + b] = before | size[b] << 16;
      if (size[b] > kLargestBin && before < k) {
        block.left = before | size[b] << 16;
        atomic_add_only(&block.count, 1);
      }
      before += size[b];
    }
    block_barrier();
#pragma unroll
    for (u32 j = 0; j < kItems; j++) {
      if (begin + j * kThreads + thread < end) block.candidates[(block.groups[bin_of(words[j])] & 0xffff) + place[j]] = words[j];
    }
    const u32 crowded = block.count, crowd = block.left;
    block_barrier();
    if (crowded > 1 || deal == kDeals) {
      sort_words<kThreads>(block.candidates, n);
      for (u32 i = thread; i < k; i += kThreads) results.write(i, block.candidates[i]);
      return;
    }
    if (deal == 1) stamps.set(4);
#pragma unroll 1
    for (u32 i = begin + thread; i < end; i += kThreads) {
      const W word = block.candidates[i];
      const u32 bin = block.groups[bin_of(word)], bin_size = bin >> 16;
      u32 rank = bin & 0xffff;
      if (rank >= k || bin_size > kLargestBin) continue;
      const u32 bin_end = rank + bin_size;
#pragma unroll 4
      for (u32 j = rank; j < bin_end; j++) rank += block.candidates[j] > word ? 1 : 0;
      if (rank < k) results.write(rank, word);
    }
    if (crowded == 0) return;
    begin = crowd & 0xffff;
    end = begin + (crowd >> 16);
    block_barrier();
  }
}

// Writes the best k of n candidates, n >= k, in order.
template <class B, class R, class S>
DEVICE void merge(B& block, u32 n, u32 k, const R& results, const S& stamps) {
  if (k == 0) return;
  if (n <= 2 * kWarp) {
    rank_by_count<2>(block, n, k, results, stamps);
  } else if (n <= 4 * kWarp) {
    rank_by_count<4>(block, n, k, results, stamps);
  } else if (n <= 6 * kWarp) {
    rank_by_count<6>(block, n, k, results, stamps);
  } else {
    rank_by_bin(block, n, k, results, stamps);
  }
}
