// What decides the tokens of a row: its parameters, and how an answer is written.
#pragma once

#include "find.cuh"
#include "law.cuh"
#include "stage2_merge.cuh"

enum Status : u32 { kDone, kNaN, kEmpty, kExhausted, kBadParameters };

// The parameters of a row, in the order of the arguments.
struct RowParameters {
  float temperature;
  int top_k;
  float top_p, min_p, typical_p, top_n_sigma, xtc_probability, xtc_threshold;

  RowParameters() = default;
  DEVICE RowParameters(const SampleArguments& a, u32 number) {
    temperature = a.row_temperature ? a.row_temperature[number] : a.temperature;
    top_k = a.row_top_k ? a.row_top_k[number] : a.top_k;
    top_p = a.row_top_p ? a.row_top_p[number] : a.top_p;
    min_p = a.row_min_p ? a.row_min_p[number] : a.min_p;
    typical_p = a.row_typical_p ? a.row_typical_p[number] : a.typical_p;
    top_n_sigma = a.row_top_n_sigma ? a.row_top_n_sigma[number] : a.top_n_sigma;
    xtc_probability = a.row_xtc_probability ? a.row_xtc_probability[number] : a.xtc_probability;
    xtc_threshold = a.row_xtc_threshold ? a.row_xtc_threshold[number] : a.xtc_threshold;
  }
  DEVICE bool greedy(const SampleArguments& a) const { return temperature < a.greedy_below; }
  // Whether there are steps behind top-p, and whether xtc is one of them.
  DEVICE bool steps() const { return typical_p < 1 || top_n_sigma > 0 || drops_likely(); }
  DEVICE bool drops_likely() const { return xtc_probability > 0 && xtc_threshold <= 0.5f; }
  // Each comparison is false for NaN.
  DEVICE bool valid() const {
    return temperature >= 0 && temperature <= 0x1.fffffep127f && top_p > 0 && top_p <= 1 && min_p >= 0 && min_p <= 1 && typical_p > 0 &&
           typical_p <= 1 && top_n_sigma >= -0x1.fffffep127f && top_n_sigma <= 0x1.fffffep127f && xtc_probability >= 0 && xtc_probability <= 1 &&
           xtc_threshold >= 0 && xtc_threshold <= 1;
  }
};

// How many tokens of a row top-k leaves. 0 if these are more than there is room for, where
// top_k is off or large: WholeRow is for these.
DEVICE u32 left_by_top_k(const SampleArguments& a, u32 number) {
  const float temperature = a.row_temperature ? a.row_temperature[number] : a.temperature;
  const int top_k = a.row_top_k ? a.row_top_k[number] : a.top_k;
  const int length = a.row_lengths ? (int)clamp(a.row_lengths[number], a.vocab) : a.vocab;
  const int left = temperature < a.greedy_below ? smaller(1, length) : top_k < 1 || top_k > length ? length : top_k;
  return left <= a.k ? left : 0;
}

// The number of a row's first draw.
DEVICE u32 first_draw(const SampleArguments& a, u32 number) { return a.first_draw + number * a.row_draws; }

// Whether logprobs are asked for that are of the logits as they came.
DEVICE bool wants_raw(const SampleArguments& a) { return (a.logprobs || a.top_ids) && !a.processed; }

// The selection of a row is of what top-k leaves, and of what the logprobs tell.
DEVICE void limit_results(const SampleArguments& a, u32 number, u32& k) {
  k = left_by_top_k(a, number);
  if (wants_raw(a)) k = larger(k, larger(a.top_ids ? a.top_count : 0, 1));
}

// The value of an element's bits.
template <class T>
DEVICE float number_of_bits(u32 bits) {
  if (T::kBits == 32) return as_float(bits);
  if (T::kBestNumber - T::kSign == 0x7f80) return as_float(bits << 16);
  const u32 sign = (bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return as_float(sign | 0x7f800000 | magnitude << 13);
  return as_float(sign | as_bits(as_float(magnitude << 13) * 0x1p112f));
}
// The value of a key, of both zeros +0.
template <class T>
DEVICE float number_of(u32 key) { return number_of_bits<T>(T::bits_of(key)); }

// Writes the n-th token of a row.
DEVICE void write_token(const SampleArguments& a, u32 number, u32 draw, int token) {
  const i64 at = number * a.result_stride + draw;
  if (a.index_bytes == 8) {
    static_cast<i64*>(a.tokens)[at] = token;
  } else {
    static_cast<int*>(a.tokens)[at] = token;
  }
}

// The n-th token of a row.
DEVICE int token_of(const SampleArguments& a, u32 number, u32 draw) {
  const i64 at = number * a.result_stride + draw;
  return a.index_bytes == 8 ? (int)static_cast<const i64*>(a.tokens)[at] : static_cast<const int*>(a.tokens)[at];
}

// Ends a row with a status, and no tokens from the n-th on.
DEVICE void end_row(const SampleArguments& a, u32 number, u32 from, Status status, u32 threads) {
  for (u32 draw = from + thread_index(); draw < (u32)a.draws; draw += threads) write_token(a, number, draw, a.invalid_token);
  if (thread_index() == 0 && a.status) a.status[number] = status;
}

// WholeRow draws from a row of which more tokens may be kept than there is room for, by a
// pass over it for each question. Exact, and not fast: 18 passes find where top-k or top-p ends in
// a row of 16-bit floats, 26 in one of 32 bits, 10 a token.
//
// The kept set is a prefix in contract order, so that a number tells it: the place of
// its last token, a key above the complement of the id.
template <class T, class B>
struct WholeRow {
  static constexpr u32 kIndexBits = 20, kIndices = (1u << kIndexBits) - 1;
  B& block;
  const Row<T>& row;
  float most, scale, softcap;
  u64 last;   // kept place
  u64 least;  // kept mass

  static DEVICE u64 place(u32 key, u32 index) { return (u64)key << kIndexBits | (kIndices - index); }

  DEVICE float logit(u32 key) const {
    const float l = number_of<T>(key);
    return softcap > 0 ? law::capped(l, softcap) : l;
  }
  DEVICE u64 mass_of(u32 key) const {
    const float l = logit(key);
    if (l == most) return 1ull << law::kMassBits;
    return most > 0x1.fffffep127f ? 0 : law::mass(law::surprise(l, most, scale));
  }
  // Its mass, or 0 if it is not kept.
  DEVICE u64 kept_mass(u32 key, u32 index) const {
    if (place(key, index) < last) return 0;
    const u64 mass = mass_of(key);
    return mass < least ? 0 : mass;
  }

  // The sums over the block of three numbers of each thread.
  DEVICE void add_up(u64* sums) const {
    u64* shared = reinterpret_cast<u64*>(block.groups);
    const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
#pragma unroll
    for (u32 i = 0; i < 3; i++) {
#pragma unroll
      for (u32 d = 1; d < kWarp; d *= 2) sums[i] += shuffle_xor(sums[i], d);
      if (lane == 0) shared[i * B::kWarps + warp] = sums[i];
    }
    block_barrier();
#pragma unroll
    for (u32 i = 0; i < 3; i++) {
      sums[i] = 0;
      for (u32 w = 0; w < B::kWarps; w++) sums[i] += shared[i * B::kWarps + w];
    }
    block_barrier();  // all have read them
  }

  // The largest number that the elements at or above have a sum of at least `enough`, of
  // numbers of so many bits, an even number; 0 if there is none. at and of tell an element's number and
  // what it adds.
  template <class At, class Of>
  DEVICE u64 reaching(u32 bits, u64 enough, At at, Of of) const {
    u64 found = 0;
#pragma unroll 1
    for (u32 shift = bits; shift > 0;) {
      shift -= 2;
      u64 sums[3] = {};
#pragma unroll 1
      for (u32 i = thread_index(); i < row.length; i += B::kThreads) {
        const u32 key = T::key(row.bits(i));
        const u64 number = at(key, i);
        if (number < found + (1ull << shift)) continue;
        const u64 one = of(key, i);
#pragma unroll
        for (u32 p = 0; p < 3; p++) sums[p] += number >= found + ((u64)(p + 1) << shift) ? one : 0;
      }
      add_up(sums);
      u64 steps = 0;
#pragma unroll
      for (u32 p = 0; p < 3; p++) steps += sums[p] >= enough ? 1 : 0;
      found += steps << shift;
    }
    return found;
  }

  DEVICE u64 whole() const {
    u64 sums[3] = {};
#pragma unroll 1
    for (u32 i = thread_index(); i < row.length; i += B::kThreads) sums[0] += kept_mass(T::key(row.bits(i)), i);
    add_up(sums);
    return sums[0];
  }
};

// Draws the tokens of a row by passes over it. Its kept set is not told.
template <class T, class B>
DEVICE_APART void draw_from_all(B& block, const SampleArguments& a, u32 number) {
  const RowParameters p(a, number);
  const Row<T> row(a, number, 0, 1);
  const u32 thread = thread_index(), lane = thread % kWarp;
  if (a.kept && thread == 0) a.kept_count[number] = -1;
  u32 best = 0;
#pragma unroll 1
  for (u32 i = thread; i < row.length; i += B::kThreads) best = larger(best, T::key(row.bits(i)));
  best = warp_max(best);
  if (lane == 0) block.lows[thread / kWarp] = best;
  block_barrier();
  best = warp_max(lane < B::kWarps ? block.lows[lane] : 0);
  if (best == T::kNaNKey) return end_row(a, number, 0, kNaN, B::kThreads);
  if (best == T::kWorstNumber) return end_row(a, number, 0, kEmpty, B::kThreads);

  using Whole = WholeRow<T, B>;
  constexpr u32 kPlaceBits = T::kBits + Whole::kIndexBits;
  Whole all{block, row, 0, law::scale(p.temperature), a.softcap, 0, 0};
  all.most = all.logit(best);
  const u64 least = law::ceil_product(p.min_p, 1ull << law::kMassBits);
  const auto place = [](u32 key, u32 index) { return Whole::place(key, index); };
  if (!a.min_p_last) all.least = least;
  if (p.top_k > 0 && (u32)p.top_k < row.length) all.last = all.reaching(kPlaceBits, p.top_k, place, [](u32, u32) { return 1ull; });
  if (p.top_p < 1) {
    const u64 enough = law::ceil_product(p.top_p, all.whole());
    all.last = all.reaching(kPlaceBits, enough, place, [&](u32 key, u32 index) { return all.kept_mass(key, index); });
  }
  all.least = least;
  u64 total = all.whole();

  const u64 seed = a.row_seed ? a.row_seed[number] : a.seed, position = a.row_position ? a.row_position[number] : a.position;
  const u32 first = a.first_draw + number * a.row_draws;
#pragma unroll 1
  for (u32 draw = 0; draw < (u32)a.draws; draw++) {
    if (total == 0) return end_row(a, number, draw, kExhausted, B::kThreads);
    const u64 target = law::target(law::uniform(seed, position, first + draw, law::kDraw), total);
    const u32 token = Whole::kIndices - (u32)all.reaching(
        Whole::kIndexBits, target + 1, [](u32, u32 index) { return (u64)(Whole::kIndices - index); },
        [&](u32 key, u32 index) {
          const u64 mass = all.kept_mass(key, index);
          if (mass == 0 || a.replacement) return mass;
          u32 before = 0;
          while (before < draw && token_of(a, number, before) != (int)index) before++;
          return before < draw ? 0ull : mass;
        });
    if (thread == 0) write_token(a, number, draw, token);
    if (!a.replacement) total -= all.kept_mass(T::key(row.bits(token)), token);
    block_barrier();  // all see it
  }
  if (thread == 0 && a.status) a.status[number] = kDone;
}
