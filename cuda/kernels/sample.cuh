// The tail of a sampling launch: the tokens of a row, from the best k of it in shared
// memory.
//
// Shapes: one block for each row; thread t has the ranks from t * items on. Order: masses
// never grow with the rank, so that min-p and top-p both keep a prefix; one scan of
// the block finds where it ends and its mass. A draw asks for the token at which the sum
// of masses in the order of ids exceeds a target: the sum below each token is taken by
// eight lanes where few are kept, else bins of ids tell the few that come into
// question. Bytes: none but the answer.
#pragma once

#include "find.cuh"
#include "law.cuh"
#include "stage2_merge.cuh"

enum Status : u32 { kDone, kNaN, kEmpty, kExhausted, kBadParameters };

// The parameters of a row.
struct RowParameters {
  float temperature, top_p, min_p;
  int top_k;

  DEVICE RowParameters(const SampleArguments& a, u32 number) {
    temperature = a.row_temperature ? a.row_temperature[number] : a.temperature;
    top_k = a.row_top_k ? a.row_top_k[number] : a.top_k;
    top_p = a.row_top_p ? a.row_top_p[number] : a.top_p;
    min_p = a.row_min_p ? a.row_min_p[number] : a.min_p;
  }
  DEVICE bool greedy(const SampleArguments& a) const { return temperature < a.greedy_below; }
  // Each comparison is false for NaN.
  DEVICE bool valid() const {
    return temperature >= 0 && temperature <= 0x1.fffffep127f && top_p > 0 && top_p <= 1 && min_p >= 0 && min_p <= 1;
  }
};

// As many as top_k says, or the first if that is all. A top_k that is off, or more than
// there is room for, leaves nothing, unless there is room for the row: WholeRow is for
// these.
DEVICE void limit_results(const SampleArguments& a, u32 number, u32& k) {
  const RowParameters p(a, number);
  const int length = a.row_lengths ? (int)clamp(a.row_lengths[number], a.vocab) : a.vocab;
  const int all = p.greedy(a) ? 1 : p.top_k < 1 || p.top_k > length ? length : p.top_k;
  k = p.valid() && all <= a.k ? all : 0;
}

// Tail is what the threads share behind the selection, beside what is the block's.
template <class W>
struct Tail {
  static constexpr u32 kMost = 8192 / sizeof(W);  // results
  alignas(16) W sorted[kMost];
  u32 highs[sizeof(W) == 4 ? kBins : 1];  // of the sums of bins
  alignas(8) u64 sums[kWarp];             // of warps
  u32 counts[kWarp];                      // of warps
  u64 total;                              // of the kept, or what a target is beyond a bin
  u32 kept;
  u32 chosen;  // rank, or bin
};

// Sorted takes results where the tail wants them.
template <class W>
struct Sorted {
  W* words;
  DEVICE void write(u32 rank, W word) const { words[rank] = word; }
};

// The value of a key, of both zeros +0.
template <class T>
DEVICE float number_of(u32 key) {
  const u32 bits = T::bits_of(key);
  if (T::kBits == 32) return as_float(bits);
  if (T::kBestNumber - T::kSign == 0x7f80) return as_float(bits << 16);
  const u32 sign = (bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return as_float(sign | 0x7f800000 | magnitude << 13);
  return as_float(sign | as_bits(as_float(magnitude << 13) * 0x1p112f));
}

DEVICE u64 shuffle_up_wide(u64 v, u32 lanes) {
  return (u64)shuffle_up((u32)(v >> 32), lanes) << 32 | shuffle_up((u32)v, lanes);
}

// The sum over a warp, less than 2^57.
DEVICE u64 warp_sum_wide(u64 v) {
  constexpr u32 kLow = 26;  // bits
  return warp_sum((u32)v & ((1u << kLow) - 1)) + ((u64)warp_sum((u32)(v >> kLow)) << kLow);
}

// The sum of what the threads before this one have, and of what all have.
template <class B, class L>
DEVICE u64 scan(L& tail, u64 mine, u64& all) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  u64 through = mine;
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) {
    const u64 up = shuffle_up_wide(through, d);
    if (lane >= d) through += up;
  }
  if (lane == kWarp - 1) tail.sums[warp] = through;
  block_barrier();
  const u64 sum = lane < B::kWarps ? tail.sums[lane] : 0;
  all = warp_sum_wide(sum);
  return through - mine + warp_sum_wide(lane < warp ? sum : 0);
}

// Kept is the kept set of a row, by rank.
template <class W, class B>
struct Kept {
  B& block;
  Tail<W>& tail;
  u32 count;

  // The candidates are no longer needed.
  DEVICE u64* masses() const { return reinterpret_cast<u64*>(block.candidates); }
  DEVICE u32 id(u32 rank) const { return Word<W>::index(tail.sorted[rank]); }
  DEVICE u32* highs() const { return sizeof(W) == 4 ? tail.highs : reinterpret_cast<u32*>(masses() + Tail<W>::kMost); }

  // Finds which of n tokens, at ranks that rank_at tells, the target falls on, in the
  // order of their ids.
  template <class At>
  DEVICE void find_among(u32 n, u64 target, At rank_at) const {
    constexpr u32 kLanes = 8, kAtOnce = kWarp / kLanes;
    const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
#pragma unroll 1
    for (u32 base = warp * kAtOnce; base < n; base += B::kWarps * kAtOnce) {
      const u32 i = base + lane / kLanes;
      const u32 rank = rank_at(i < n ? i : 0), own = id(rank);
      u64 below = 0;
#pragma unroll 4
      for (u32 j = lane % kLanes; j < n; j += kLanes) {
        const u32 other = rank_at(j);
        if (id(other) < own) below += masses()[other];
      }
#pragma unroll
      for (u32 d = 1; d < kLanes; d *= 2) below += shuffle_xor(below, d);
      if (lane % kLanes == 0 && i < n && below <= target && target - below < masses()[rank]) tail.chosen = rank;
    }
    block_barrier();
  }

  // The same for many tokens: the ids are dealt into bins, of at most 1,024 ids each.
  DEVICE void find_by_bin(u64 target, u32 vocab) const {
    constexpr u32 kLow = 21;  // bits
    const u32 thread = thread_index(), bits = kWarp - leading_zeros(vocab - 1), shift = bits > 10 ? bits - 10 : 0;
    for (u32 bin = thread; bin < kBins; bin += B::kThreads) block.groups[bin] = highs()[bin] = 0;
    if (thread == 0) block.count = 0;
    block_barrier();
#pragma unroll 1
    for (u32 rank = thread; rank < count; rank += B::kThreads) {
      const u64 mass = masses()[rank];
      atomic_add_only(&block.groups[id(rank) >> shift], (u32)mass & ((1u << kLow) - 1));
      atomic_add_only(&highs()[id(rank) >> shift], (u32)(mass >> kLow));
    }
    block_barrier();
    constexpr u32 kOwn = kBins / B::kThreads;
    u64 size[kOwn], sum = 0, all;
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      size[b] = ((u64)highs()[thread * kOwn + b] << kLow) + block.groups[thread * kOwn + b];
      sum += size[b];
    }
    u64 before = scan<B>(tail, sum, all);
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      if (before <= target && target - before < size[b]) tail.chosen = thread * kOwn + b, tail.total = target - before;
      before += size[b];
    }
    block_barrier();
    const u32 bin = tail.chosen;
    const u64 rest = tail.total;
#pragma unroll 1
    for (u32 rank = thread; rank < count; rank += B::kThreads) {
      if (id(rank) >> shift == bin) block.groups[atomic_add(&block.count, 1)] = rank;
    }
    block_barrier();
    find_among(block.count, rest, [&](u32 i) { return block.groups[i]; });
  }

  // The rank of the token that a target, less than the sum of masses, falls on.
  DEVICE u32 find_target(u64 target, u32 vocab) const {
    constexpr u32 kFew = 192;
    if (count == 1) return 0;
    if (count <= kFew) {
      find_among(count, target, [](u32 i) { return i; });
    } else {
      find_by_bin(target, vocab);
    }
    return tail.chosen;
  }
};

// Writes the n-th token of a row.
DEVICE void write_token(const SampleArguments& a, u32 number, u32 draw, int token) {
  const i64 at = number * a.result_stride + draw;
  if (a.index_bytes == 8) {
    static_cast<i64*>(a.tokens)[at] = token;
  } else {
    static_cast<int*>(a.tokens)[at] = token;
  }
}

// Ends a row with a status, and no tokens from the n-th on.
DEVICE void end_row(const SampleArguments& a, u32 number, u32 from, Status status, u32 threads) {
  for (u32 draw = from + thread_index(); draw < (u32)a.draws; draw += threads) write_token(a, number, draw, a.invalid_token);
  if (thread_index() == 0 && a.status) a.status[number] = status;
}

// Draws the tokens of a row, the k best of which are sorted.
template <class T, class W, class B>
DEVICE void draw_tokens(B& block, Tail<W>& tail, const SampleArguments& a, u32 number, u32 k) {
  const RowParameters p(a, number);
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  if (a.kept && thread == 0) a.kept_count[number] = 0;
  const u32 best = k ? Word<W>::key(tail.sorted[0]) : 0;
  const Status status = k == 0 ? kBadParameters : best == T::kNaNKey ? kNaN : best == T::kWorstNumber ? kEmpty : kDone;
  if (status != kDone) return end_row(a, number, 0, status, B::kThreads);
  const Kept<W, B> row{block, tail, 0};

  // Masses, those that min-p lets through, and the sums before each thread.
  const bool greedy = p.greedy(a);
  const float scale = greedy ? 0 : law::scale(p.temperature);
  float most = number_of<T>(best);
  if (a.softcap > 0) most = law::capped(most, a.softcap);
  const u64 least = law::ceil_product(p.min_p, 1ull << law::kMassBits);
  const bool all_count = a.min_p_last;  // for top-p
  const u32 items = (k + B::kThreads - 1) / B::kThreads;
  u64 sum = 0;
  u32 heavy = 0;
#pragma unroll 1
  for (u32 i = 0; i < items; i++) {
    const u32 rank = thread * items + i;
    if (rank >= k) break;
    float logit = number_of<T>(Word<W>::key(tail.sorted[rank]));
    if (a.softcap > 0) logit = law::capped(logit, a.softcap);
    u64 mass = 1ull << law::kMassBits;
    if (logit != most) mass = most > 0x1.fffffep127f ? 0 : law::mass(law::surprise(logit, most, scale));
    row.masses()[rank] = mass;
    heavy += mass >= least;
    if (mass >= least || all_count) sum += mass;
  }
  heavy = warp_sum(heavy);
  if (lane == 0) tail.counts[warp] = heavy;
  u64 whole;
  u64 before = scan<B>(tail, sum, whole);
  heavy = warp_sum(lane < B::kWarps ? tail.counts[lane] : 0);

  // The last that is kept.
  const u64 enough = p.top_p < 1 ? law::ceil_product(p.top_p, whole) : ~0ull;
#pragma unroll 1
  for (u32 i = 0; i < items; i++) {
    const u32 rank = thread * items + i;
    if (rank >= heavy || before >= enough) break;
    const u64 through = before + row.masses()[rank];
    if (through >= enough || rank == heavy - 1) tail.kept = rank + 1, tail.total = through;
    before = through;
  }
  block_barrier();
  const Kept<W, B> kept{block, tail, tail.kept};
  u64 total = tail.total;
  block_barrier();  // before bins use it
  if (a.kept) {
    for (u32 rank = thread; rank < kept.count; rank += B::kThreads) a.kept[(i64)number * a.k + rank] = kept.id(rank);
    if (thread == 0) a.kept_count[number] = kept.count;
  }

  const u64 seed = a.row_seed ? a.row_seed[number] : a.seed, position = a.row_position ? a.row_position[number] : a.position;
  const u32 first = a.first_draw + number * a.row_draws;
#pragma unroll 1
  for (u32 draw = 0; draw < (u32)a.draws; draw++) {
    if (total == 0) return end_row(a, number, draw, kExhausted, B::kThreads);
    const u64 target = law::target(law::uniform(seed, position, first + draw, law::kDraw), total);
    const u32 rank = kept.find_target(target, a.vocab);
    if (thread == 0) write_token(a, number, draw, kept.id(rank));
    if (!a.replacement) total -= kept.masses()[rank];
    if (draw + 1 == (u32)a.draws) break;
    block_barrier();  // all have read it
    if (!a.replacement && thread == 0) kept.masses()[rank] = 0;
    block_barrier();
  }
  if (thread == 0 && a.status) a.status[number] = kDone;
}
