// The slow way for what others have no room for: the tokens of a row by passes over it.
//
// Shapes: one block for a row. Bytes: those of the row for every two bits of an answer.
#pragma once

#include "tail.cuh"

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

  static DEVICE float logit(u32 key, float softcap) {
    const float l = number_of<T>(key);
    return softcap > 0 ? law::capped(l, softcap) : l;
  }
  // Apart: the questions share its code.
  static DEVICE_APART u64 mass(u32 key, float most, float scale, float softcap) {
    const float l = logit(key, softcap);
    if (l == most) return 1ull << law::kMassBits;
    return most > 0x1.fffffep127f ? 0 : law::mass(law::surprise(l, most, scale));
  }
  // Its mass, or 0 if it is not kept.
  DEVICE u64 kept_mass(u32 key, u32 index) const {
    if (place(key, index) < last) return 0;
    const u64 one = mass(key, most, scale, softcap);
    return one < least ? 0 : one;
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

// Draws the tokens of a row by passes over it, and returns how many. Its kept set is not told.
template <class T, class B>
DEVICE_APART u32 draw_from_all(B& block, const SampleArguments& a, u32 number) {
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
  if (best == T::kNaNKey || best == T::kWorstNumber) {
    end_row(a, number, 0, best == T::kNaNKey ? kNaN : kEmpty, B::kThreads);
    return 0;
  }

  using Passes = WholeRow<T, B>;
  constexpr u32 kPlaceBits = T::kBits + Passes::kIndexBits;
  Passes all{block, row, 0, law::scale(p.temperature), a.softcap, 0, 0};
  all.most = Passes::logit(best, a.softcap);
  const u64 least = law::ceil_product(p.min_p, 1ull << law::kMassBits);
  const auto place = [](u32 key, u32 index) { return Passes::place(key, index); };
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
    if (total == 0) {
      end_row(a, number, draw, kExhausted, B::kThreads);
      return draw;
    }
    const u64 target = law::target(law::uniform(seed, position, first + draw, law::kDraw), total);
    const u32 token = Passes::kIndices - (u32)all.reaching(
        Passes::kIndexBits, target + 1, [](u32, u32 index) { return (u64)(Passes::kIndices - index); },
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
  return a.draws;
}
