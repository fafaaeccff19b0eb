// Stage 2: the candidates of a row in order, the best k of them written.
//
// Up to 192 candidates are ranked by counting the better ones, each by a whole
// warp. More are dealt into bins by the upper bits of their words and then ranked
// within their bin: time hardly depends on their number, as long as they spread.
// Those that crowd in one bin are sorted.
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

// Ranks up to kRoom candidates by bins. Where too many crowd in one, those that are in
// no bin of the best k are dropped, and the others dealt again over their own range.
template <class B, class R, class S>
DEVICE void rank_by_bin(B& block, u32 n, u32 k, const R& results, const S& stamps) {
  using W = typename B::Candidate;
  constexpr u32 kThreads = B::kThreads, kItems = B::kRoom / kThreads;
  constexpr u32 kLogBins = 10, kLargestBin = 256, kDeals = 3;
  static_assert(kBins == 1u << kLogBins && kBins % kThreads == 0, "each thread has whole bins");
  constexpr u32 kOwn = kBins / kThreads;
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u32 least, shift;
  // Bin 0 has the best words.
  const auto bin_of = [&](W word) { return kBins - 1 - ((Word<W>::top(word) - least) >> shift); };
#pragma unroll 1
  for (u32 deal = 1;; deal++) {
    // The range of the words.
    W words[kItems];
    u32 most = 0;
    least = kAllLanes;
#pragma unroll
    for (u32 j = 0; j < kItems; j++) {
      if (j * kThreads + thread < n) {
        words[j] = block.candidates[j * kThreads + thread];
        most = larger(most, Word<W>::top(words[j]));
        least = smaller(least, Word<W>::top(words[j]));
      }
    }
    most = warp_max(most);
    least = ~warp_max(~least);
    if (lane == 0) block.reach[warp] = most, block.lows[warp] = least;
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) block.groups[b * kThreads + thread] = 0;
    block_barrier();
    most = warp_max(lane < B::kWarps ? block.reach[lane] : 0);
    least = ~warp_max(lane < B::kWarps ? ~block.lows[lane] : 0);
    const u32 bits = kWarp - leading_zeros(most - least);
    shift = bits > kLogBins ? bits - kLogBins : 0;
    u32 place[kItems];
#pragma unroll
    for (u32 j = 0; j < kItems; j++) {
      if (j * kThreads + thread < n) place[j] = atomic_add(&block.groups[bin_of(words[j])], 1);
    }
    block_barrier();

    // The first place of each bin.
    u32 size[kOwn], sum = 0, largest = 0;
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      size[b] = block.groups[thread * kOwn + b];
      sum += size[b];
      largest = larger(largest, size[b]);
    }
    u32 through = sum;
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) {
      const u32 up = shuffle_up(through, d);
      if (lane >= d) through += up;
    }
    largest = warp_max(largest);
    if (lane == kWarp - 1) block.reach[warp] = through, block.lows[warp] = largest;
    block_barrier();
    u32 before = through - sum + warp_sum(lane < warp ? block.reach[lane] : 0);
    largest = warp_max(lane < B::kWarps ? block.lows[lane] : 0);
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      block.groups[thread * kOwn + b] = before | size[b] << 16;
      if (before < k && before + size[b] >= k) block.count = before + size[b];
      before += size[b];
    }
    block_barrier();
#pragma unroll
    for (u32 j = 0; j < kItems; j++) {
      if (j * kThreads + thread < n) block.candidates[(block.groups[bin_of(words[j])] & 0xffff) + place[j]] = words[j];
    }
    const u32 wanted = block.count;
    block_barrier();
    if (largest <= kLargestBin) break;
    if (wanted == n || deal == kDeals) {
      sort_words<kThreads>(block.candidates, n);
      stamps.set(4);
      for (u32 i = thread; i < k; i += kThreads) results.write(i, block.candidates[i]);
      return;
    }
    n = wanted;
  }
  stamps.set(4);
#pragma unroll 1
  for (u32 i = thread; i < n; i += kThreads) {
    const W word = block.candidates[i];
    const u32 bin = block.groups[bin_of(word)];
    u32 rank = bin & 0xffff;
    if (rank >= k) continue;
    const u32 end = rank + (bin >> 16);
#pragma unroll 4
    for (u32 j = rank; j < end; j++) rank += block.candidates[j] > word ? 1 : 0;
    if (rank < k) results.write(rank, word);
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
