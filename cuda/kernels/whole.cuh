// Rows without a top-k, or with one for which there is no room: the tokens of a row by its
// masses, all of them or those that min-p and top-p keep.
//
// Shapes: one block for each row, or a cluster of blocks that have a chunk each. Order:
// (1) the largest logit. (2) With top-p: the masses are added up by bins, about, and so a bracket is found in
// which top-p ends. (3) One pass adds up the masses of each segment, some hundred
// consecutive ids, and with top-p those beyond the bracket, while what lies in it
// is put aside as candidates. (4) Among these, top-p ends exactly; the kept ones
// are added to their segments. (5) A draw finds its segment by the sums before each, and
// that is looked at again. Bytes: the row two or three times, all but the first from L1 or L2.
//
// Blocks of a cluster have the segments and candidates of their chunks, and decide alike by what all tell. What does not
// fit this - a soft cap, a top-k beyond the room, a bracket with too many
// candidates - is drawn by the first block, if need be by passes.
#pragma once

#include "passes.cuh"
#include "weigh.cuh"

// Bins of masses m beside the largest: 32 for each octave, in steps of m. Bin n of octave o has those from 2^-o (1 - (n + 1) / 64),
// which is not in it, to 2^-o (1 - n / 64).
constexpr u32 kOctaveBins = kWarp, kLogOctaveBins = 5;

// Adds up this block's masses by bins, those that are not less than a 2^31st of the largest: each rounded down
// to units, so that it is 0.1 % less at most. The last octave's bins, one for each lane, take the others, which are hardly known.
template <class T>
DEVICE void add_up_bins(Whole& s, const Row<T>& row, const Segments<T>& segments, const Weights& weights, u32 edges) {
  constexpr u32 kOne = 0x3f800000, kToBin = 23 - kLogOctaveBins, kToUnits = 23 - 10;  // of 1; shifts of the bits of a mass
  constexpr u32 kError = 8;  // more than an exponential is off in its last place: none is above 1
  const float scale = weights.scale * 0x1p-22f, floor = weights.floor * 0x1p-22f, furthest = floor > -30.99f ? floor : -30.99f;
  const u32 others = kBins - 1 - thread_index() % kWarp;
  const auto units_of = [&](u32 bits, u32& bin) {
    const float octaves = (number_of_bits<T>(bits) - weights.most) * scale;
    const u32 mass = as_bits(approximate_exp2(octaves)) - kError;
    bin = octaves >= furthest ? (kOne - mass) >> kToBin : others;
    return ((mass - 1) >> kToUnits & 0x3ff) | 0x400;
  };
  const u32 end = smaller(segments.end << segments.shift, row.vectors);
#pragma unroll 1
  for (u32 i = (segments.first << segments.shift) + thread_index(); i < end; i += Whole::kThreads) {
    const Vector v = row.vector(i);
    u32 bins[T::kPerVector], units[T::kPerVector];
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e++) units[e] = units_of(bits_of_element<T>(v, e), bins[e]);
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e++) atomic_add_only(&s.groups[bins[e]], units[e]);
  }
  if (thread_index() < edges) {
    u32 bin;
    const u32 units = units_of(row.bits(row.edge(thread_index())), bin);
    atomic_add_only(&s.groups[bin], units);
  }
}

// The surprise of the most that a mass of a bin may be, to the nearest integer.
DEVICE int surprise_of_bin(u32 bin) {
  const float of_octave = 1 - (bin % kOctaveBins) * (0.5f / kOctaveBins);
  return nearest_integer(approximate_log2(of_octave) * (1 << law::kSurpriseBits)) - (int)(bin / kOctaveBins << law::kSurpriseBits);
}

// The bracket in which a share p of the mass is reached, by the bins of the whole team: by the sums of octaves,
// then by those of the bins of the octave in which it is reached at least, and of that at most. All warps of the team find
// the same.
template <class Team>
DEVICE Bracket find_bracket(Whole& s, const Team& team, float p, float floor) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp, rank = team.rank();
  static_assert(kBins == 2 * Whole::kThreads && kOctaveBins == kWarp, "a warp has the bins of two octaves");
  block_barrier();  // all bins are there
  const u64 own = reinterpret_cast<const u64*>(s.groups)[thread];
  const u32 both = (u32)own + (u32)(own >> 32);  // of 2^20 elements the units fit a word
  const u32 one = warp_sum(lane < kWarp / 2 ? both : 0), other = warp_sum(lane < kWarp / 2 ? 0 : both);
  if (lane < team.blocks()) team.tell(s, kOctaves, &s.octaves[rank][warp], (u64)other << 32 | one, lane);
  team.wait(s, kOctaves);
  u32 units = 0;
#pragma unroll
  for (u32 r = 0; r < kTeam; r++) {
    if (r < team.blocks()) units += reinterpret_cast<const u32*>(s.octaves[r])[lane];
  }
  const auto unit_of = [](u32 octave) { return octave < kWarp - 1 ? as_float((127 - octave) << 23) : 0; };
  const float of_octave = units * unit_of(lane), through = warp_scan(of_octave), all = from_lane(through, kWarp - 1);
  // What masses that are 0.1 % less can do to a share, and the rounding of sums.
  const float spare = all * (p * (1 - p) * 0x1.2p-10f + 0x1p-18f);
  // The most that those can have whose bins are the last octave's: each less than 2^-30.99, and 1,024 units at least.
  const float others = floor > -30.99f * 0x1p22f ? 0 : from_lane((float)units, kWarp - 1) * 0x1.03p-30f;
  const float least = all * p - spare, most = (all + others) * p + spare;
  const auto reaching = [](float through, float enough) { return smaller(lowest_bit(ballot(through >= enough)), kWarp - 1); };
  const u32 from = reaching(through, least), to = reaching(through, most);

  const u64 fine = (u64)s.groups[to * kOctaveBins + lane] << 32 | s.groups[from * kOctaveBins + lane];
  if (warp < team.blocks()) team.tell(s, kFineBins, &s.fine_bins[rank][lane], fine, warp);
  team.wait(s, kFineBins);
  u64 sums = 0;  // neither overflows
#pragma unroll
  for (u32 r = 0; r < kTeam; r++) {
    if (r < team.blocks()) sums += s.fine_bins[r][lane];
  }
  const float through_from = from_lane(through - of_octave, from) + warp_scan((u32)sums * unit_of(from));
  const float through_to = from_lane(through - of_octave, to) + warp_scan((u32)(sums >> 32) * unit_of(to));
  const u32 first = from * kOctaveBins + reaching(through_from, least), last = to * kOctaveBins + reaching(through_to, most);
  constexpr int kMargin = 64;  // for what exponentials and logarithms are off
  return {surprise_of_bin(last + 1) - kMargin, first == 0 ? 1 : surprise_of_bin(first) + kMargin};
}

// A candidate beside others of its bin, of which few are ranked by counting. They take the place of the bins.
struct alignas(16) Ranked {
  u64 place, mass;
};
constexpr u32 kFew = 256;
static_assert(kFew * sizeof(Ranked) <= sizeof Whole::groups + sizeof Whole::highs, "all fit");
DEVICE Ranked* ranked(Whole& s) { return reinterpret_cast<Ranked*>(s.groups); }

// Among few of them: the place down to which they have a sum of at least `enough`, in s.last.
DEVICE void rank_few(Whole& s, u32 few, u64 enough) {
  static_assert(Whole::kThreads == 1 << 9 && kWarp == 1 << 5, "all threads, but not more than a warp for each");
  const u32 shift = smaller(leading_zeros(larger(few, 2) - 1) - (32 - 9), 5), lanes = 1u << shift;  // of each
  const u32 n = thread_index() >> shift;
  const Ranked own = n < few ? ranked(s)[n] : Ranked();
  u64 above = 0;
#pragma unroll 4
  for (u32 j = thread_index() & (lanes - 1); j < few; j += lanes) {
    const Ranked other = ranked(s)[j];
    above += other.place > own.place ? other.mass : 0;
  }
#pragma unroll 1
  for (u32 d = 1; d < lanes; d *= 2) above += shuffle_xor(above, d);
  if (n < few && above < enough && enough <= above + own.mass) s.last = own.place;
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
#pragma unroll 1
    for (u32 i = thread; i < count; i += Whole::kThreads) {
      const u64 place = s.candidates[i];
      if (place > top || (top - place) >> shift != 0) continue;
      const u32 n = atomic_add(&s.listed, 1);
      if (n < kFew) ranked(s)[n] = {place, mass_of(place)};
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

// A Cut is where top-p ends.
struct Cut {
  u64 last;  // kept place; of an empty bracket 1, if top-p ends below it; or 0, if it does not end where it was looked for
  bool crowded;  // 0 because there are more candidates than room for them
  u64 above, enough;  // masses: above the bracket, and what top-p asks for
};

// Ends top-p where it ends among the candidates, and has those of this block that are kept added to their
// segments. All blocks of the team find the same.
template <class T, class Team>
DEVICE Cut cut(Whole& s, const Team& team, const Row<T>& row, const Segments<T>& segments, const Weights& weights, const Bracket& bracket, float p) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  block_barrier();  // all is weighed
  const u32 own = s.count;
  s.clear_bins();
  if (thread == 0) s.bin = kBins, s.listed = 0;
  if (warp < team.blocks()) {
    const u64 above = warp_sum_any(lane < Whole::kWarps ? s.above[lane] : 0), rest = warp_sum_any(lane < Whole::kWarps ? s.rest[lane] : 0);
    u64* chunk = reinterpret_cast<u64*>(&s.chunks[team.rank()]);
    if (lane < Chunk::kWords) team.tell(s, kChunks, chunk + lane, lane == 0 ? above : lane == 1 ? rest : own, warp);
  }
  team.wait(s, kChunks);
  Chunk chunk = {};
  if (lane < team.blocks()) chunk = s.chunks[lane];
  const u32 through = warp_scan((u32)chunk.candidates), count = shuffle(through, kWarp - 1), first = shuffle(through - (u32)chunk.candidates, team.rank());
  const u64 above = warp_sum_any(chunk.above);
  Cut found = {0, count > kCutRoom, above, law::ceil_product(p, above + warp_sum_any(chunk.rest))};
  if (bracket.low == bracket.high) {
    found.last = above <= found.enough ? 1 : 0;
    return found;
  }
  if (found.crowded || above >= found.enough) return found;

  // Each block has all candidates.
  if (thread == 0) team.expect_of(s, kCandidates, count * sizeof s.candidates[0]);
  const u32 others = Whole::kThreads >> team.shift();  // threads that tell the same block
#pragma unroll 1
  for (u32 i = (warp >> team.shift()) * kWarp + lane; i < own; i += others) {
    const u64 place = place_of(T::key(row.bits(s.own[i])), s.own[i]);
    team.tell(s, kCandidates, &s.candidates[first + i], place, warp & (team.blocks() - 1));
  }
  block_barrier();  // the bins are clear
  team.wait_behind_barrier(s, kCandidates);

  // The bin of surprises in which it ends, and the candidates in it.
  const u64 enough = found.enough - above;
  const u32 shift = larger(kWarp - leading_zeros(bracket.high - bracket.low), 10) - 10;
  const auto bin_of = [&](int surprise) { return (u32)(bracket.high - 1 - surprise) >> shift; };
#pragma unroll 1
  for (u32 i = thread; i < count; i += Whole::kThreads) {
    const int q = surprise_of_place<T>(weights, s.candidates[i]);
    Whole::add(&s.groups[bin_of(q)], &s.highs[bin_of(q)], law::mass(q));
  }
  block_barrier();
  const u32 bin = find_bin(s, enough);
  if (bin == kBins) return found;
#pragma unroll 1
  for (u32 i = thread; i < count; i += Whole::kThreads) {
    const int q = surprise_of_place<T>(weights, s.candidates[i]);
    if (bin_of(q) != bin) continue;
    const u32 n = atomic_add(&s.listed, 1);
    if (n < kFew) ranked(s)[n] = {s.candidates[i], law::mass(q)};
  }
  block_barrier();
  if (s.listed <= kFew) {
    rank_few(s, s.listed, enough - s.before);
    found.last = s.last;
  } else {
    found.last = find_cut_in_crowd<T>(s, weights, count, enough);
  }
#pragma unroll 1
  for (u32 i = thread; i < own; i += Whole::kThreads) {
    const u64 place = s.candidates[first + i];
    if (place >= found.last) s.add_to(segments.of_index(row, index_of_place(place)), law::mass(surprise_of_place<T>(weights, place)));
  }
  return found;
}

// Ends top-p among more elements of one surprise than there is room for, as cut does; 0 if they
// differ. A block alone.
template <class T>
DEVICE u64 cut_ties(Whole& s, const Row<T>& row, const Segments<T>& segments, const Weights& weights, const Bracket& bracket, const Cut& cut) {
  constexpr u32 kOwn = kSegments / Whole::kThreads;
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const u64 mass = law::mass(bracket.low);
  if (mass == 0) return 0;
  const u64 wanted = (cut.enough - cut.above + mass - 1) / mass;
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
    if (before < wanted) s.add_to(thread * kOwn + b, (wanted <= through ? wanted - before : counts[b]) * mass);
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
// narrower ones. A block alone, behind such a cut.
template <class T>
DEVICE u64 cut_crowd(Whole& s, const Row<T>& row, const Segments<T>& segments, const Weights& weights,
                     Bracket bracket, Cut found, float p) {
  constexpr u32 kOwn = kBins / Whole::kThreads;
  static_assert(kOwn == 2 && kSegments == kBins, "a thread has two bins, and two segments");
  const u32 thread = thread_index();
#pragma unroll 1
  for (u32 zoom = 0; zoom < 4; zoom++) {
    block_barrier();
    if (found.above >= found.enough) return 0;
    const u32 width = bracket.high - bracket.low, shift = larger(kWarp - leading_zeros(width), 10) - 10;
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
      s.lower[thread * kOwn + b] = s.upper[thread * kOwn + b] = 0;
    }
    // The last bin that has any; their numbers are exact.
    const float own = s.groups[thread * kOwn], next = s.groups[thread * kOwn + 1];
    float count, before = scan(s, own + next, count);
    if (before < count && count <= before + own) s.bin_below = thread * kOwn;
    if (before + own < count && count <= before + own + next) s.bin_below = thread * kOwn + 1;
    block_barrier();
    before = scan(s, sizes[0] + sizes[1], all);
    const float exact = found.enough - found.above, spare = all * ((1u << shift) * 0x1p-23f + 0x1p-18f), least = exact - spare, most = exact + spare;
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
    weigh<T, true>(s, Alone(), row, weights, bracket);
    found = cut(s, Alone(), row, segments, weights, bracket, p);
    if (!found.crowded) return found.last;
    if (bracket.high - bracket.low == 1) return cut_ties(s, row, segments, weights, bracket, found);
  }
  return 0;
}

// The mass of the element of an index, 0 if it is not kept or not before the end.
template <class T>
DEVICE u64 kept_mass(const Row<T>& row, const Weights& weights, u32 index, u32 end, u64 last) {
  const u32 bits = index < end ? row.bits(index) : T::kWorst & T::kAll;
  const u64 mass = law::mass(weights.surprise(number_of_bits<T>(bits)));
  return index < end && place_of(T::key(bits), index) >= last ? mass : 0;
}

// Draws several tokens of a row by the kept masses of its segments: those of places from the last on. For a block that has all
// segments. With replacement each draw is that of one warp.
template <class T>
DEVICE void draw_by_segment(Whole& s, const SampleArguments& a, u32 number, const Row<T>& row, const Segments<T>& segments,
                            const Weights& weights, u64 last, bool greedy) {
  constexpr u32 kOwn = kSegments / Whole::kThreads, kRound = 2 * kWarp;  // ids
  static_assert(kSegments == kWarp * kWarp, "two steps find a segment");
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u64 sizes[kOwn], sum = 0, total;
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    sizes[b] = s.of_segment(thread * kOwn + b);
    sum += sizes[b];
  }
  u64 before = scan(s, sum, total), *before_segments = s.before_segments;
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    before_segments[thread * kOwn + b] = before;
    before += sizes[b];
  }
  block_barrier();
  if (thread == 0 && a.status) a.status[number] = kDone;
  if (!a.replacement && warp > 0) return;
  u64* of_rounds = s.candidates + warp * kWarp;
  const u32 step = a.replacement ? Whole::kWarps : 1;
#pragma unroll 1
  for (u32 draw = warp; draw < (u32)a.draws; draw += step) {
    if (total == 0) return end_row(a, number, draw, kExhausted, kWarp);
    u64 u = s.uniform;
    if (draw > 0) u = law::uniform(a.row_seed ? a.row_seed[number] : a.seed, a.row_position ? a.row_position[number] : a.position, first_draw(a, number) + draw, law::kDraw);
    u64 target = greedy ? 0 : law::target(u, total);
    const u32 part = population(ballot(before_segments[lane * kWarp] <= target)) - 1;
    const u32 segment = part * kWarp + population(ballot(before_segments[part * kWarp + lane] <= target)) - 1;
    target -= before_segments[segment];
    // The masses of rounds of 64 ids, then those of the round that the target falls in.
    const u32 begin = segments.begin(row, segment), end = segments.begin(row, segment + 1), rounds = (end - begin + kRound - 1) / kRound;
    u32 round = 0;
    u64 masses[2];
#pragma unroll 1
    for (bool found = false;; round++) {
      if (!found && round >= rounds) {
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
        masses[e] = gone >> e & 1 ? 0 : kept_mass(row, weights, index, end, last);
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
    for (u32 i = segment + 1 + lane; i < kSegments; i += kWarp) before_segments[i] -= mass;
    warp_barrier();
  }
}

constexpr u32 kNoToken = kAllLanes;

// Draws one token by the kept masses of segments, of which each block has its own: the block on which the target
// falls. Its chunk is in its own L1. Returns it for one thread, and for all others kNoToken. Apart, as weigh is.
template <class T, class Team>
DEVICE_APART u32 draw_one(Whole& s, Team team, Row<T> row, Weights weights, u64 last, bool greedy) {
  constexpr u32 kRound = 2 * kWarp;  // ids
  const Segments<T> segments(row, team);
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp, rank = team.rank();
  // A lane has a few segments next to each other, the same in all warps.
  const u32 each = (segments.end - segments.first + kWarp - 1) / kWarp, first = segments.first + lane * each, end = smaller(first + each, segments.end);
  block_barrier();
  u64 own = 0;
#pragma unroll 1
  for (u32 i = first; i < end; i++) own += s.of_segment(i);
  const u64 through = warp_scan(own), total = shuffle_wide(through, kWarp - 1);
  if (warp == 0 && lane < team.blocks()) team.tell(s, kTotals, &s.totals[rank], total, lane);
  team.wait(s, kTotals);
  const u64 of_block = lane < team.blocks() ? s.totals[lane] : 0, through_block = warp_scan(of_block);
  u64 target = greedy ? 0 : law::target(s.uniform, shuffle_wide(through_block, kWarp - 1));
  const u64 before = shuffle_wide(through_block - of_block, rank);
  if (target < before || target - before >= shuffle_wide(of_block, rank)) return kNoToken;
  target -= before;
  const u32 part = lowest_bit(ballot(through > target));
  u64 rest = target - shuffle_wide(through - own, part);
  u32 segment = shuffle(first, part);
  for (u64 one; rest >= (one = s.of_segment(segment)); segment++) rest -= one;
  target = rest;
  const u32 begin = segments.begin(row, segment), past = segments.begin(row, segment + 1), rounds = (past - begin + kRound - 1) / kRound;
  u64 masses[2], sum = 0;
  const auto weigh_round = [&](u32 round) {
#pragma unroll
    for (u32 e = 0; e < 2; e++) masses[e] = kept_mass(row, weights, begin + round * kRound + 2 * lane + e, past, last);
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
  if (round % Whole::kWarps != warp) return kNoToken;
  target -= shuffle_wide(through_round - of_round, round);
  if (rounds > Whole::kWarps) weigh_round(round);
  const bool second = sum - masses[1] <= target, there = sum - masses[0] - masses[1] <= target && target < sum;
  return there ? begin + round * kRound + 2 * lane + (second ? 1 : 0) : kNoToken;
}

// Draws the tokens of a row by the kept masses of its segments: those of places from the last on.
template <class T, class Team>
DEVICE void draw_kept(Whole& s, const Team& team, const SampleArguments& a, u32 number, const Row<T>& row, const Segments<T>& segments,
                      const Weights& weights, u64 last, bool greedy) {
  if (a.draws == 1) {
    const u32 token = draw_one<T>(s, team, row, weights, last, greedy);
    if (token == kNoToken) return;
    write_token(a, number, 0, token);
    if (a.status) a.status[number] = kDone;
    return;
  }
  // For the first block.
  block_barrier();
  for (u32 i = segments.first + thread_index(); team.rank() > 0 && i < segments.end; i += Whole::kThreads) {
    *team.of(&s.lower[i], 0) = s.lower[i], *team.of(&s.upper[i], 0) = s.upper[i];
  }
  team.meet();
  if (team.rank() == 0) draw_by_segment(s, a, number, row, segments, weights, last, greedy);
}

// Whether top-p and min-p behind it keep a prefix that ends at this place: min-p may end in the bracket, too.
template <class T>
DEVICE bool ends_at(const Weights& weights, u64 last) {
  return last != 0 && (last == 1 || surprise_of_place<T>(weights, last) >= nearest_integer(weights.floor));
}

// Cuts and draws from a row of which more elements lie in the bracket than there is room for; false where it cannot. Apart, because few
// rows do.
template <class T>
DEVICE_APART bool draw_crowd(Whole& s, const SampleArguments& a, u32 number, Weights weights, Bracket bracket, Cut found, float p, float floor) {
  const Row<T> row(a, number, 0, 1);
  const Segments<T> segments(row, Alone());
  const u64 last = cut_crowd(s, row, segments, weights, bracket, found, p);
  weights.floor = floor;
  if (!ends_at<T>(weights, last)) return false;
  draw_kept(s, Alone(), a, number, row, segments, weights, last, false);
  return true;
}

// Settle what the parameters of a row decide, and its random number: for a warp each, while others read the row.
DEVICE void settle_weights(Whole& s, const SampleArguments& a, u32 number) {
  const RowParameters p(a, number);
  const bool greedy = p.greedy(a);
  const float scale = greedy ? 0x1p127f : law::scale(p.temperature), floor = greedy ? 0 : floor_of(p.min_p);
  if (thread_index() % kWarp == 0) s.scale = scale, s.floor = floor;
}
DEVICE void settle_draw(Whole& s, const SampleArguments& a, u32 number) {
  const u64 seed = a.row_seed ? a.row_seed[number] : a.seed, position = a.row_position ? a.row_position[number] : a.position;
  s.uniform = law::uniform(seed, position, first_draw(a, number), law::kDraw);
}

// Draws the tokens of a row that has no top-k. All blocks of a team call it, when s is clear and others settle the row. Returns false, in
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
  if (lane < team.blocks()) team.tell(s, kBestKeys, &s.best[team.rank() * Whole::kWarps + thread / kWarp], best, lane);
  block_barrier();  // the row is settled, too
  team.wait_behind_barrier(s, kBestKeys);
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

  if (!(top_p < 1)) {
    weigh<T, false>(s, team, row, weights, Bracket());
    release_kernel_behind();
    stamps.set(3);
    draw_kept(s, team, a, number, row, segments, weights, 1, greedy);
    return true;
  }
  // Behind top-p, min-p plays no part in the mass of which p is a share.
  const float floor = weights.floor;
  if (a.min_p_last) weights.floor = law::kLeastSurprise;
  add_up_bins(s, row, segments, weights, edges);
  Bracket bracket = find_bracket(s, team, top_p, weights.floor);
  // Where min-p keeps less, the bracket is where that ends.
  const int floor_surprise = nearest_integer(floor);
  if (floor_surprise >= bracket.high) bracket = {floor_surprise, floor_surprise};
  stamps.set(2);
  weigh<T, true>(s, team, row, weights, bracket);
  release_kernel_behind();
  stamps.set(3);
  const Cut found = cut(s, team, row, segments, weights, bracket, top_p);
  stamps.set(4);
  if (found.crowded) return !first || draw_crowd<T>(s, a, number, weights, bracket, found, top_p, floor);
  weights.floor = floor;
  if (!ends_at<T>(weights, found.last)) return !first;
  draw_kept(s, team, a, number, row, segments, weights, found.last, greedy);
  return true;
}

// The same for a block alone, in memory that is not clear. Apart: few rows of such a launch
// need it.
template <class T>
DEVICE_APART bool draw_whole_alone(Whole& s, const SampleArguments& a, u32 number) {
  s.clear();
  if (thread_index() < kWarp) settle_weights(s, a, number);
  if (thread_index() == 0) settle_draw(s, a, number);
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
    if (thread_index() < kThreads + kWarp) {
      settle_weights(s, a, number);
    } else {
      settle_draw(s, a, number);
    }
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
