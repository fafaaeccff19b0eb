// Rows without a top-k, or with one for which there is no room: the tokens of a row by its
// masses, all of them or those that min-p and top-p keep.
//
// Shapes: one block for each row, or a cluster of blocks that have a chunk each. Order:
// (1) the largest logit. (2) With top-p: the logits are counted by bins of their distance
// from it, in units that make the mass of a bin known within 1.1 %, and so a bracket in
// which top-p ends. (3) One pass adds up the masses of each segment, some hundred
// consecutive ids, and with top-p those beyond the bracket, while what lies in it
// is put aside as candidates. (4) Among these, top-p ends exactly; the kept ones
// are added to their segments. (5) A draw finds its segment by the sums before each, and
// one warp looks at the segment again. Bytes: the row two or three times, all but the first from L1 or L2.
//
// What does not fit this - a soft cap, a top-k beyond the room, a bracket with too many
// candidates - is drawn by passes.
#pragma once

#include "passes.cuh"
#include "weigh.cuh"

// The last bin that is counted: what is further from the largest has less than a 2^31st of
// its mass.
constexpr u32 kLastBin = kBins - 2;

// Counts this block's elements by the bins of their distance from the largest, those
// that have a mass in bins up to the last.
template <class T>
DEVICE void count_bins(Whole& s, const Row<T>& row, const Segments<T>& segments, const Weights& weights, u32 edges) {
  constexpr float kUnits = 0x1p23f * kBinWidth, kFurthest = -(kLastBin + 0.4375f) * kBinWidth;
  const float furthest = weights.floor > kFurthest ? weights.floor : kFurthest;
  const auto count = [&](u32 bits) {
    const float v = weights.distance(number_of_bits<T>(bits));
    if (v >= furthest) atomic_add_only(&s.groups[as_bits(kUnits - v) % kBins], 1);
  };
  const u32 end = smaller(segments.end << segments.shift, row.vectors);
#pragma unroll 1
  for (u32 i = (segments.first << segments.shift) + thread_index(); i < end; i += Whole::kThreads) {
    const Vector v = row.vector(i);
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e++) count(bits_of_element<T>(v, e));
  }
  if (thread_index() < edges) count(row.bits(row.edge(thread_index())));
}

// The least of two numbers of each thread: for all threads.
DEVICE void block_least(Whole& s, u32& one, u32& other) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  one = ~warp_max(~one), other = ~warp_max(~other);
  if (lane == 0) s.lows[warp] = one, s.lows[Whole::kWarps + warp] = other;
  block_barrier();
  const u32 low = s.lows[lane];
  one = ~warp_max(lane < Whole::kWarps ? ~low : 0), other = ~warp_max(lane < Whole::kWarps ? 0 : ~low);
}

// The bracket in which a share p of the mass is reached, by the counts of bins of the
// whole team.
template <class Team>
DEVICE Bracket find_bracket(Whole& s, const Team& team, float p) {
  constexpr u32 kOwn = kBins / Whole::kThreads;
  static_assert(kOwn == 2, "a thread reads its bins at once");
  const u32 thread = thread_index();
  const u64* own = reinterpret_cast<const u64*>(&s.groups[thread * kOwn]);
  u64 counts[kTeam] = {};
#pragma unroll
  for (u32 rank = 0; rank < kTeam; rank++) {
    if (rank < team.blocks()) counts[rank] = *team.of(own, rank);
  }
  u64 both = 0;  // neither overflows
#pragma unroll
  for (u32 rank = 0; rank < kTeam; rank++) both += counts[rank];
  float sizes[kOwn];
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) sizes[b] = (u32)(both >> 32 * b) * approximate_exp2((thread * kOwn + b) * (-1.0f / kBinsPerOctave));
  float all, before = scan(s, sizes[0] + sizes[1], all);
  // The first bin up to which the sum reaches `enough`: what a thread tells of its own. The sums before warps overlap by
  // what was rounded, and blocks must not choose differently.
  const auto reaching = [&](float enough) {
    return before + sizes[0] >= enough ? thread * kOwn : before + sizes[0] + sizes[1] >= enough ? thread * kOwn + 1 : kLastBin;
  };
  // What all masses being 1.1 % more or less can do to a share, and the rounding of sums.
  const float spare = all * (p * (1 - p) * 0.0225f + 0x1p-18f);
  u32 above = reaching(all * p - spare), below = reaching(all * p + spare);
  block_least(s, above, below);
  constexpr int kHalf = (1 << law::kSurpriseBits) / kBinsPerOctave / 2;
  return {-(2 * (int)below + 1) * kHalf, above == 0 ? 1 : -(2 * (int)above - 1) * kHalf};
}

constexpr u32 kFew = 64;  // candidates that are ranked by counting

// Among few candidates that groups lists, beside their masses in highs: the place down to which they have a
// sum of at least `enough`, in s.last.
DEVICE void rank_few(Whole& s, u32 few, u64 enough) {
  constexpr u32 kLanes = Whole::kThreads / kFew;
  const u64* masses = reinterpret_cast<const u64*>(s.highs);
  const u32 n = thread_index() / kLanes;
  const u64 own = n < few ? s.candidates[s.groups[n]] : 0;
  u64 above = 0;
#pragma unroll 1
  for (u32 j = thread_index() % kLanes; j < few; j += kLanes) above += s.candidates[s.groups[j]] > own ? masses[j] : 0;
#pragma unroll
  for (u32 d = 1; d < kLanes; d *= 2) above += shuffle_xor(above, d);
  if (n < few && above < enough && enough <= above + masses[n]) s.last = own;
  block_barrier();
}

// Finds the bin in which the sum of masses reaches `enough`, or kBins if none does, and leaves the sum of those
// before it in s.before.
DEVICE u32 find_bin(Whole& s, u64 enough) {
  constexpr u32 kOwn = kBins / Whole::kThreads;
  const u32 thread = thread_index();
  u64 sizes[kOwn], sum = 0, all;
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    sizes[b] = Whole::sum(s.groups[thread * kOwn + b], s.highs[thread * kOwn + b]);
    sum += sizes[b];
  }
  u64 before = scan(s, sum, all);
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    const u64 through = before + sizes[b];
    if (before < enough && enough <= through) s.bin = thread * kOwn + b, s.before = before;
    before = through;
  }
  block_barrier();
  return s.bin;
}

// The largest place such that the candidates at or above it have a sum of masses of at
// least `enough`; 0 if all of them have not. For many that crowd: by ever smaller ranges of places.
template <class T>
DEVICE_APART u64 find_cut_in_crowd(Whole& s, Weights weights, u32 count, u64 enough) {
  constexpr u32 kLogBins = 10;
  static_assert(kBins == 1u << kLogBins && kCutRoom < 1u << (32 - kLowBits), "each thread has a part");
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const auto mass_of = [&](u64 place) { return law::mass(surprise_of_place<T>(weights, place)); };
  u32 best = 0, worst = kAllLanes;
  for (u32 i = thread; i < count; i += Whole::kThreads) {
    const u32 key = key_of_place(s.candidates[i]);
    best = larger(best, key);
    worst = smaller(worst, key);
  }
  best = warp_max(best);
  worst = ~warp_max(~worst);
  if (lane == 0) s.lows[warp] = best, s.lows[Whole::kWarps + warp] = worst;
  block_barrier();
  best = warp_max(lane < Whole::kWarps ? s.lows[lane] : 0);
  worst = ~warp_max(lane < Whole::kWarps ? ~s.lows[Whole::kWarps + lane] : 0);
  u64 top = place_of(best, 0);
  u32 shift = kPlaceBits + kWarp - leading_zeros(best - worst + 1) - kLogBins;
#pragma unroll 1
  for (;;) {
    for (u32 b = thread; b < kBins; b += Whole::kThreads) s.groups[b] = s.highs[b] = 0;
    if (thread == 0) s.bin = kBins, s.listed = 0;
    block_barrier();
#pragma unroll 1
    for (u32 i = thread; i < count; i += Whole::kThreads) {
      const u64 place = s.candidates[i], bin = (top - place) >> shift;
      if (place <= top && bin < kBins) Whole::add(&s.groups[bin], &s.highs[bin], mass_of(place));
    }
    block_barrier();
    const u32 bin = find_bin(s, enough);
    if (bin == kBins) return 0;
    top -= (u64)bin << shift;
    enough -= s.before;
    u64* masses = reinterpret_cast<u64*>(s.highs);
#pragma unroll 1
    for (u32 i = thread; i < count; i += Whole::kThreads) {
      const u64 place = s.candidates[i];
      if (place > top || (top - place) >> shift != 0) continue;
      const u32 n = atomic_add(&s.listed, 1);
      if (n < kFew) s.groups[n] = i, masses[n] = mass_of(place);
    }
    block_barrier();
    if (s.listed <= kFew) {
      rank_few(s, s.listed, enough);
      return s.last;
    }
    shift = shift > kLogBins ? shift - kLogBins : 0;
    block_barrier();  // all have read the list
  }
}

// The mass above the bracket, and that of all others. Clears the bins.
DEVICE u64 mass_above(Whole& s, u64& others) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u64 above = 0, rest = thread < kTeam * Whole::kWarps ? s.rest[thread] : 0;
#pragma unroll
  for (u32 n = 0; n < kSegments / Whole::kThreads; n++) {
    const u32 i = n * Whole::kThreads + thread;
    above += s.sums[i] + Whole::sum(s.more[i], s.more_highs[i]);
  }
  above = warp_sum_any(above);
  rest = warp_sum_any(rest);
  if (lane == 0) s.of_warps[warp] = above, s.of_warps[Whole::kWarps + warp] = rest;
#pragma unroll
  for (u32 n = 0; n < kBins / Whole::kThreads; n++) s.groups[n * Whole::kThreads + thread] = s.highs[n * Whole::kThreads + thread] = 0;
  if (thread == 0) s.bin = kBins, s.listed = 0;
  block_barrier();
  u64 both = s.of_warps[lane];
#pragma unroll
  for (u32 d = 1; d < Whole::kWarps; d *= 2) both += shuffle_xor(both, d);
  others = shuffle_wide(both, Whole::kWarps);
  return shuffle_wide(both, 0);
}

// Ends top-p where it ends among the candidates, and has those that are kept added to their
// segments. Returns the last place that is kept, or 0 if that does not lie in the
// bracket or there was no room; for an empty bracket 1, if top-p ends below it. For the team's first block.
template <class T>
DEVICE u64 cut(Whole& s, const Row<T>& row, const Segments<T>& segments, const Weights& weights, const Bracket& bracket, float p) {
  const u32 thread = thread_index(), count = s.count;
  u64 others;
  const u64 above = mass_above(s, others);
  u64 enough = law::ceil_product(p, above + others);
  if (bracket.low == bracket.high) {
    block_barrier();  // all have read the sums of warps
    return above <= enough ? 1 : 0;
  }
  if (count > kCutRoom || above >= enough) return 0;
  enough -= above;

  // The bin of surprises in which it ends, and the candidates in it.
  const u32 shift = larger(kWarp - leading_zeros(bracket.high - bracket.low), 10) - 10;
  const auto bin_of = [&](int surprise) { return (u32)(bracket.high - 1 - surprise) >> shift; };
#pragma unroll 1
  for (u32 i = thread; i < count; i += Whole::kThreads) {
    const int q = surprise_of_place<T>(weights, s.candidates[i]);
    Whole::add(&s.groups[bin_of(q)], &s.highs[bin_of(q)], law::mass(q));
  }
  block_barrier();
  const u32 bin = find_bin(s, enough);
  if (bin == kBins) return 0;
  u64* masses = reinterpret_cast<u64*>(s.highs);
#pragma unroll 1
  for (u32 i = thread; i < count; i += Whole::kThreads) {
    const int q = surprise_of_place<T>(weights, s.candidates[i]);
    if (bin_of(q) != bin) continue;
    const u32 n = atomic_add(&s.listed, 1);
    if (n < kFew) s.groups[n] = i, masses[n] = law::mass(q);
  }
  block_barrier();
  u64 last;
  if (s.listed <= kFew) {
    rank_few(s, s.listed, enough - s.before);
    last = s.last;
  } else {
    last = find_cut_in_crowd<T>(s, weights, count, enough);
  }
#pragma unroll 1
  for (u32 i = thread; i < count; i += Whole::kThreads) {
    const u64 place = s.candidates[i];
    if (place < last) continue;
    const u32 segment = segments.of_index(row, index_of_place(place));
    Whole::add(&s.more[segment], &s.more_highs[segment], law::mass(surprise_of_place<T>(weights, place)));
  }
  block_barrier();
  return last;
}

// Ends top-p among more elements of one surprise than there is room for, as cut does; 0 if they
// differ. A block alone.
template <class T>
DEVICE u64 cut_ties(Whole& s, const Row<T>& row, const Segments<T>& segments, const Weights& weights, const Bracket& bracket, float p) {
  constexpr u32 kOwn = kSegments / Whole::kThreads;
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u64 others;
  block_barrier();
  const u64 above = mass_above(s, others), mass = law::mass(bracket.low);
  const u64 enough = law::ceil_product(p, above + others);
  if (above >= enough || mass == 0) return 0;
  const u64 wanted = (enough - above + mass - 1) / mass;
  u32 best = 0, worst = kAllLanes;
#pragma unroll 1
  for (u32 i = thread; i < row.length; i += Whole::kThreads) {
    const u32 bits = row.bits(i), key = T::key(bits);
    if (!bracket.has(weights.surprise(number_of_bits<T>(bits)))) continue;
    best = larger(best, key);
    worst = smaller(worst, key);
    atomic_add_only(&s.groups[segments.of_index(row, i)], 1);
  }
  best = warp_max(best);
  worst = ~warp_max(~worst);
  if (lane == 0) s.lows[warp] = best, s.lows[Whole::kWarps + warp] = worst;
  block_barrier();
  best = warp_max(lane < Whole::kWarps ? s.lows[lane] : 0);
  worst = ~warp_max(lane < Whole::kWarps ? ~s.lows[Whole::kWarps + lane] : 0);
  if (best != worst) return 0;
  u64 counts[kOwn], sum = 0, all;
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) sum += counts[b] = s.groups[thread * kOwn + b];
  u64 before = scan(s, sum, all);
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    const u64 through = before + counts[b];
    if (before < wanted && wanted <= through) s.bin = thread * kOwn + b, s.before = before;
    if (before < wanted) s.sums[thread * kOwn + b] += (wanted <= through ? wanted - before : counts[b]) * mass;
    before = through;
  }
  block_barrier();
  if (s.bin == kBins) return 0;
  // The last of them in its segment, in the order of ids.
  if (warp == 0) {
    u32 missing = wanted - s.before, base = segments.begin(row, s.bin);
    const u32 end = segments.begin(row, s.bin + 1);
#pragma unroll 1
    for (;; base += kWarp) {
      u32 equal = ballot(base + lane < end && T::key(row.bits(base + lane)) == best);
      if (population(equal) < missing && base + kWarp < end) {
        missing -= population(equal);
        continue;
      }
      while (--missing > 0) equal &= equal - 1;
      if (lane == 0) s.last = place_of(best, base + lowest_bit(equal));
      break;
    }
  }
  block_barrier();
  return s.last;
}

// The same as cut where more elements lie in the bracket than there is room for: in narrower and
// narrower ones. A block alone, behind cut.
template <class T>
DEVICE_APART u64 cut_crowd(Whole& s, const SampleArguments& a, u32 number, Weights weights, Bracket bracket, float p) {
  constexpr u32 kOwn = kBins / Whole::kThreads;
  const Alone team;
  const Row<T> row(a, number, 0, 1);
  const Segments<T> segments(row, team);
  const u32 thread = thread_index();
#pragma unroll 1
  for (u32 zoom = 0; zoom < 4; zoom++) {
    const u32 width = bracket.high - bracket.low;
    block_barrier();
    u64 others;
    const u64 above = mass_above(s, others), enough = law::ceil_product(p, above + others);
    if (above >= enough) return 0;
    if (thread >= Whole::kWarps && thread < kTeam * Whole::kWarps) s.rest[thread] = 0;  // of other blocks, which take no further part
    const u32 shift = larger(kWarp - leading_zeros(width), 10) - 10;
#pragma unroll 1
    for (u32 i = thread; i < row.length; i += Whole::kThreads) {
      const int q = weights.surprise(number_of_bits<T>(row.bits(i)));
      if (bracket.has(q)) atomic_add_only(&s.groups[(u32)(bracket.high - 1 - q) >> shift], 1);
    }
    if (thread == 0) s.count = 0, s.bin = 0;
    block_barrier();
    float sizes[kOwn], all;
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      const int middle = bracket.high - 1 - (int)((thread * kOwn + b) << shift) - (int)((1u << shift) / 2);
      sizes[b] = s.groups[thread * kOwn + b] * (approximate_exp2(middle * 0x1p-22f) * 0x1p42f);
      s.more[thread * kOwn + b] = s.more_highs[thread * kOwn + b] = 0;
    }
    // The last bin that has any; their numbers are exact.
    const float own = s.groups[thread * kOwn], next = s.groups[thread * kOwn + 1];
    float count, before = scan(s, own + next, count);
    if (before < count && count <= before + own) s.bin_below = thread * kOwn;
    if (before + own < count && count <= before + own + next) s.bin_below = thread * kOwn + 1;
    block_barrier();
    before = scan(s, sizes[0] + sizes[1], all);
    const float exact = enough - above, spare = all * ((1u << shift) * 0x1p-23f + 0x1p-18f), least = exact - spare, most = exact + spare;
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      const float through = before + sizes[b];
      if (before < least && least <= through) s.bin = thread * kOwn + b;
      if (before < most && most <= through) s.bin_below = thread * kOwn + b;
      before = through;
    }
    block_barrier();
    const int high = bracket.high;
    bracket.high = high - (int)(s.bin << shift);
    bracket.low = high - (int)((s.bin_below + 1) << shift);
    block_barrier();  // all have read the bins
    weigh<T, true>(s, team, a, number, weights, bracket, true);
    block_barrier();
    const u64 last = cut(s, row, segments, weights, bracket, p);
    if (last != 0 || s.count <= kCutRoom) return last;
    if (bracket.high - bracket.low == 1) return cut_ties(s, row, segments, weights, bracket, p);
  }
  return 0;
}

// Draws the tokens of a row by the kept masses of its segments: those of places from the last on. For the team's first
// block. greedy: the first token of them. One draw is the work of all warps, of several with
// replacement each is that of one.
template <class T>
DEVICE void draw_by_segment(Whole& s, const SampleArguments& a, u32 number, const Row<T>& row, const Segments<T>& segments,
                            const Weights& weights, u64 last, bool greedy) {
  constexpr u32 kOwn = kSegments / Whole::kThreads, kRound = 2 * kWarp;  // ids
  static_assert(kSegments == kWarp * kWarp, "two steps find a segment");
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u64 sizes[kOwn], sum = 0, total;
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    const u32 i = thread * kOwn + b;
    sizes[b] = s.sums[i] + Whole::sum(s.more[i], s.more_highs[i]);
    sum += sizes[b];
  }
  u64 before = scan(s, sum, total);
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    s.sums[thread * kOwn + b] = before;
    before += sizes[b];
  }
  block_barrier();
  if (thread == 0 && a.status) a.status[number] = kDone;
  const bool together = a.draws == 1;
  if (!together && !a.replacement && warp > 0) return;
  const u32 step = a.replacement ? Whole::kWarps : 1;
#pragma unroll 1
  for (u32 draw = together ? 0 : warp; draw < (u32)a.draws; draw += step) {
    if (total == 0) return end_row(a, number, draw, kExhausted, kWarp);
    u64 u = s.uniform;
    if (draw > 0) u = law::uniform(a.row_seed ? a.row_seed[number] : a.seed, a.row_position ? a.row_position[number] : a.position, first_draw(a, number) + draw, law::kDraw);
    u64 target = greedy ? 0 : law::target(u, total);
    const u32 part = population(ballot(s.sums[lane * kWarp] <= target)) - 1;
    const u32 segment = part * kWarp + population(ballot(s.sums[part * kWarp + lane] <= target)) - 1;
    target -= s.sums[segment];
    // The masses of rounds of 64 ids, then those of the round that the target falls in.
    const u32 begin = segments.begin(row, segment), end = segments.begin(row, segment + 1), rounds = (end - begin + kRound - 1) / kRound;
    u64* of_rounds = s.candidates + (together ? 0 : warp * kWarp);
    u32 round = together ? warp : 0;
    u64 masses[2];
#pragma unroll 1
    for (bool found = false;; round += together ? Whole::kWarps : 1) {
      if (!found && round >= rounds) {
        if (together) {
          block_barrier();
          if (warp > 0) return;
        }
        warp_barrier();
        const u64 mine = lane < rounds ? of_rounds[lane] : 0, through = warp_scan(mine);
        const u32 beyond = ballot(through > target);
        round = lowest_bit(beyond);
        target -= shuffle_wide(through - mine, round);
        found = true;
      }
      u32 gone = 0;
#pragma unroll 1
      for (u32 removed = 0; !a.replacement && removed < draw; removed++) {
        const u32 at = token_of(a, number, removed) - (begin + round * kRound + 2 * lane);
        if (at < 2) gone |= 1u << at;
      }
#pragma unroll
      for (u32 e = 0; e < 2; e++) {
        const u32 index = begin + round * kRound + 2 * lane + e;
        const bool there = index < end && !(gone >> e & 1);
        const u32 bits = there ? row.bits(index) : T::kWorst & T::kAll;
        const u64 mass = law::mass(weights.surprise(number_of_bits<T>(bits)));
        masses[e] = there && place_of(T::key(bits), index) >= last ? mass : 0;
      }
      if (found) break;
      const u64 all = warp_sum_wide(masses[0] + masses[1]);
      if (lane == 0) of_rounds[round] = all;
    }
    const u64 through = warp_scan(masses[0] + masses[1]);
    const u32 there = lowest_bit(ballot(through > target));
    const bool second = through - masses[1] <= target;
    const u32 token = begin + round * kRound + 2 * there + (shuffle(second, there) ? 1 : 0);
    if (lane == 0) write_token(a, number, draw, token);
    if (a.replacement) {
      warp_barrier();  // before the rounds of the next draw
      continue;
    }
    const u64 mass = shuffle_wide(masses[second], there);
    total = greedy ? 0 : total - mass;
    warp_barrier();
#pragma unroll 1
    for (u32 i = segment + 1 + lane; i < kSegments; i += kWarp) s.sums[i] -= mass;
    warp_barrier();
  }
}

// Draws one token by the kept masses of its segments, of which each block has its own: the block on which the target
// falls. Its chunk is in its own L1. Apart, as weigh is.
template <class T, class Team>
DEVICE_APART void draw_one(Whole& s, Team team, const SampleArguments& a, u32 number, Weights weights, bool greedy) {
  constexpr u32 kRound = 2 * kWarp;  // ids
  const Row<T> row(a, number, 0, 1);
  const Segments<T> segments(row, team);
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp, rank = team.rank();
  // A lane has a few segments next to each other, the same in all warps.
  const u32 each = (segments.end - segments.first + kWarp - 1) / kWarp, first = segments.first + lane * each, end = smaller(first + each, segments.end);
  const auto size = [&](u32 i) { return s.sums[i] + Whole::sum(s.more[i], s.more_highs[i]); };
  block_barrier();
  u64 own = 0;
#pragma unroll 1
  for (u32 i = first; i < end; i++) own += size(i);
  const u64 through = warp_scan(own);
  const u64 of_block = team.total_of_block(s, shuffle_wide(through, kWarp - 1)), through_block = warp_scan(of_block);
  u64 target = greedy ? 0 : law::target(s.uniform, shuffle_wide(through_block, kWarp - 1));
  const u64 before = shuffle_wide(through_block - of_block, rank);
  if (target < before || target - before >= shuffle_wide(of_block, rank)) return;
  target -= before;
  const u32 part = lowest_bit(ballot(through > target));
  u64 rest = target - shuffle_wide(through - own, part);
  u32 segment = shuffle(first, part);
  for (u64 one; rest >= (one = size(segment)); segment++) rest -= one;
  target = rest;
  const u32 begin = segments.begin(row, segment), past = segments.begin(row, segment + 1), rounds = (past - begin + kRound - 1) / kRound;
  u64 masses[2], sum = 0;
  const auto weigh_round = [&](u32 round) {
#pragma unroll
    for (u32 e = 0; e < 2; e++) {
      const u32 index = begin + round * kRound + 2 * lane + e;
      const u32 bits = index < past ? row.bits(index) : T::kWorst & T::kAll;
      const u64 mass = law::mass(weights.surprise(number_of_bits<T>(bits)));
      masses[e] = index < past ? mass : 0;
    }
    sum = warp_scan(masses[0] + masses[1]);
  };
#pragma unroll 1
  for (u32 round = warp; round < rounds; round += Whole::kWarps) {
    weigh_round(round);
    if (lane == kWarp - 1) s.candidates[round] = sum;
  }
  block_barrier();
  // The round, and the token in it.
  const u64 of_round = lane < rounds ? s.candidates[lane] : 0, through_round = warp_scan(of_round);
  const u32 round = lowest_bit(ballot(through_round > target));
  if (round % Whole::kWarps != warp) return;
  target -= shuffle_wide(through_round - of_round, round);
  if (rounds > Whole::kWarps) weigh_round(round);
  const bool second = sum - masses[1] <= target, there = sum - masses[0] - masses[1] <= target && target < sum;
  if (there) write_token(a, number, 0, begin + round * kRound + 2 * lane + (second ? 1 : 0));
  if (lane == 0 && a.status) a.status[number] = kDone;
}

// Ends top-p, if there is one, and draws: false where it cannot. For the team's first block.
template <class T, class S>
DEVICE bool cut_and_draw(Whole& s, const SampleArguments& a, u32 number, const Row<T>& row, const Segments<T>& segments,
                         Weights weights, const Bracket& bracket, float top_p, float floor, bool greedy, const S& stamps) {
  u64 last = 1;  // place
  if (top_p < 1) {
    last = cut(s, row, segments, weights, bracket, top_p);
    if (last == 0 && s.count > kCutRoom) last = cut_crowd<T>(s, a, number, weights, bracket, top_p);
    if (last == 0) return false;
    weights.floor = floor;
    stamps.set(4);
    if (last > 1 && surprise_of_place<T>(weights, last) < nearest_integer(floor)) return false;
  }
  draw_by_segment(s, a, number, row, segments, weights, last, greedy);
  return true;
}

// Settles what the parameters of a row and its random number decide: for a warp, while others read the
// row.
DEVICE void settle_whole(Whole& s, const SampleArguments& a, u32 number) {
  const RowParameters p(a, number);
  const bool greedy = p.greedy(a);
  const u64 seed = a.row_seed ? a.row_seed[number] : a.seed, position = a.row_position ? a.row_position[number] : a.position;
  const u64 uniform = law::uniform(seed, position, first_draw(a, number), law::kDraw);
  const float scale = greedy ? 0x1p127f : law::scale(p.temperature), floor = greedy ? 0 : floor_of(p.min_p);
  if (thread_index() % kWarp == 0) s.scale = scale, s.floor = floor, s.uniform = uniform;
}

// Draws the tokens of a row that has no top-k. All blocks of a team call it, when s is clear and a warp settles the row. Returns false, in
// the first of them, where it cannot.
template <class T, class Team, class S>
DEVICE bool draw_whole(Whole& s, const Team& team, const SampleArguments& a, u32 number, const S& stamps) {
  const u32 thread = thread_index(), lane = thread % kWarp;
  const bool first = team.rank() == 0;
  const Row<T> row(a, number, 0, 1);
  const Segments<T> segments(row, team);
  const u32 edges = first ? row.edges() : 0;
  // The row of this block.
  Row<T> part = row;
  part.head += (segments.first << segments.shift) * T::kPerVector;
  part.vectors = smaller(segments.end << segments.shift, row.vectors) - smaller(segments.first << segments.shift, row.vectors);

  // The largest logit.
  const RowParameters p(a, number);
  const bool greedy = p.greedy(a);
  u32 best = T::kWorst;
  read_vectors<T, Whole::kThreads>(part, [&](u32, const Vector& v) { best = T::best(best, T::best(v)); });
  best = T::key_of_word(best);
  if (thread < edges) best = larger(best, T::key(row.bits(row.edge(thread))));
  best = warp_max(best);
  team.tell_best(s, best);
  block_barrier();  // the row is settled, too
  team.wait_for_best(s);
  best = 0;
#pragma unroll
  for (u32 i = 0; i < kTeam * Whole::kWarps; i += kWarp) {
    if (i + lane < team.blocks() * Whole::kWarps) best = larger(best, s.best[i + lane]);
  }
  best = warp_max(best);
  stamps.set(1);

  // Each comparison is false for NaN.
  const bool valid = p.temperature >= 0 && p.temperature <= 0x1.fffffep127f && p.top_p > 0 && p.top_p <= 1 && p.min_p >= 0 && p.min_p <= 1;
  if (!valid || row.length == 0 || best == T::kNaNKey || best == T::kWorstNumber) {
    const Status status = !valid || row.length == 0 ? kBadParameters : best == T::kNaNKey ? kNaN : kEmpty;
    if (first) end_row(a, number, 0, status, Whole::kThreads);
    return true;
  }
  Weights weights{number_of<T>(best), s.scale, s.floor};
  const float top_p = greedy ? 1 : p.top_p;
  const bool ranked = !greedy && p.top_k > 0 && (u32)p.top_k < row.length, infinite = weights.most > 0x1.fffffep127f;
  if (ranked || (a.softcap > 0 && !greedy) || (infinite && top_p < 1) || weights.floor > 0) return !first;

  const float floor = weights.floor;
  const bool one = !(top_p < 1) && a.draws == 1;
  Bracket bracket = {};
  // Behind top-p, min-p plays no part in the mass of which p is a share.
  if (top_p < 1 && a.min_p_last) weights.floor = law::kLeastSurprise;
  if (top_p < 1) {
    count_bins(s, row, segments, weights, edges);
    team.meet();
    bracket = find_bracket(s, team, top_p);
    // Where min-p keeps less, the bracket is where that ends.
    const int floor_surprise = nearest_integer(floor);
    if (floor_surprise >= bracket.high) bracket = {floor_surprise, floor_surprise};
    stamps.set(2);
  }
  if (one) {
    weigh<T, false>(s, team, a, number, weights, bracket, false);
    release_kernel_behind();
    stamps.set(3);
    draw_one<T>(s, team, a, number, weights, greedy);
    return true;
  }
  if (top_p < 1) {
    weigh<T, true>(s, team, a, number, weights, bracket, true);
  } else {
    weigh<T, false>(s, team, a, number, weights, bracket, true);
  }
  release_kernel_behind();
  team.meet();
  stamps.set(3);
  return !first || cut_and_draw(s, a, number, row, segments, weights, bracket, top_p, floor, greedy, stamps);
}

// The same for a block alone, in memory that is not clear. Apart: few rows of such a launch
// need it.
template <class T>
DEVICE_APART bool draw_whole_alone(Whole& s, const SampleArguments& a, u32 number) {
  s.clear();
  if (thread_index() < kWarp) settle_whole(s, a, number);
  return draw_whole<T>(s, Alone(), a, number, Stamps<false>(a));
}

template <class T, class Team, bool kStamps>
DEVICE void sample_whole(const SampleArguments& a) {
  SHARED(Whole, s);
  const Team team;
  const Stamps<kStamps> stamps(a);
  const u32 number = block_index() >> team.shift();
  team.begin(s);
  if (thread_index() >= kThreads) {
    wait_for_kernel_before();
    settle_whole(s, a, number);
    return leave_block();
  }
  s.clear();
  team.wait_for_others();  // before the row is in L1
  wait_for_kernel_before();
  if (a.kept && thread_index() == 0 && team.rank() == 0) a.kept_count[number] = -1;
  const bool drawn = draw_whole<T>(s, team, a, number, stamps);
  stamps.set(7);
  if (drawn) return;
  block_barrier();
  if (a.workspace && !kStamps && thread_index() == 0) static_cast<u32*>(a.workspace)[number] = 1;
  draw_from_all<T>(s, a, number);
  stamps.set(7);
}
