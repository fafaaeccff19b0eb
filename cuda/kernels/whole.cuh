// Rows without a top-k, or with one for which there is no room: the tokens of a row by its
// masses, all of them or those that min-p and top-p keep.
//
// Shapes: one block for each row, or a cluster of blocks that have a chunk each. Order:
// (1) the largest logit. (2) With top-p: the logits are counted by bins of their distance
// from it, in units that make the mass of a bin known within 1.1 %, and so a bracket in
// which top-p ends. (3) One exact pass adds up the masses of each segment, some hundred
// consecutive ids, and with top-p those beyond the bracket, while what lies in it
// is put aside as candidates. (4) Among these, top-p ends exactly; the kept ones
// are added to their segments. (5) A draw finds its segment by the sums before each, and
// one warp looks at the segment again. Bytes: the row two or three times, all but the first from L1
// or L2.
//
// What does not fit this - a soft cap, a top-k beyond the room, a bracket with too many
// candidates - is drawn by WholeRow: passes over the row for each question.
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
    if (total == 0) return end_row(a, number, draw, kExhausted, B::kThreads);
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
}

// A team is the blocks that have a row: one alone, or a cluster. kParts: in how many it weighs
// a vector. The fewer vectors there are, the more it counts how long the code is.
struct Alone {
  static constexpr u32 kParts = 1;
  static DEVICE u32 shift() { return 0; }  // blocks, as a power of two
  static DEVICE u32 blocks() { return 1; }
  static DEVICE u32 rank() { return 0; }
  static DEVICE void arrive() {}
  static DEVICE void wait() {}
  static DEVICE void meet() { block_barrier(); }
  // For a warp that returns next: what it wrote is seen when the others have waited, or met.
  static DEVICE void leave() { leave_block(); }
  template <class V>
  static DEVICE V* of(V* variable, u32) { return variable; }
  static DEVICE u32 add(u32* at, u32 v) { return atomic_add(at, v); }
};

#if defined(AIKF_SHIM) || __CUDA_ARCH__ >= 900
struct Cluster {
  static constexpr u32 kParts = 2;
  static DEVICE u32 shift() { return lowest_bit(cluster_blocks()); }
  static DEVICE u32 blocks() { return cluster_blocks(); }
  static DEVICE u32 rank() { return cluster_rank(); }
  static DEVICE void arrive() { cluster_arrive(); }
  static DEVICE void wait() { cluster_wait(); }
  static DEVICE void meet() {
    cluster_arrive();
    cluster_wait();
  }
  static DEVICE void leave() { cluster_arrive(); }
  // The variable of a block of the team.
  template <class V>
  static DEVICE V* of(V* variable, u32 rank) { return in_block(variable, rank); }
  static DEVICE u32 add(u32* at, u32 v) { return cluster_atomic_add(at, v); }
};
#endif

constexpr u32 kSegments = 1024;      // of a row: so many that the sums of their masses fit two words
constexpr u32 kCutRoom = 2047;       // candidates for the end of top-p: the same
constexpr u32 kTeam = 8;             // blocks of a team
constexpr u32 kLowBits = 21;         // of a mass, in the first of two words
constexpr u32 kBinsPerOctave = 32;   // in which masses differ by 1.1 % from the middle
constexpr float kBinWidth = 1 << (law::kSurpriseBits - 5);
static_assert(kBinsPerOctave == 1 << 5, "the width of a bin");

// Whole is what the threads of a block share for a row without a top-k, and what a team
// gathers in its first block.
struct Whole {
  static constexpr u32 kThreads = ::kThreads, kWarps = kThreads / kWarp;
  static constexpr u32 kListed = 2 * kWarp;  // vectors of a warp
  // What is clear at the start.
  alignas(16) u64 sums[kSegments];           // kept masses of segments; then of all before each
  u32 more[kSegments], more_highs[kSegments];  // what must be added to the sums: lower and upper parts
  u32 groups[kBins];                         // counts of bins; then lower parts of sums
  u32 highs[kBins];                          // upper parts; before, listed vectors of warps
  u64 candidates[kCutRoom + 1];              // places; then the masses of rounds
  u64 rest[kTeam * kWarps];                  // masses of warps below the bracket and in it
  u64 of_warps[kWarp];
  u32 lows[kWarp];                           // values of warps
  u32 best[kTeam * kWarps];                  // keys
  u32 count;                                 // of candidates, also those without room
  u32 listed;
  u32 bin, bin_below;
  float scale, floor;
  u64 uniform;  // random number of the first draw
  u64 totals[kTeam];                         // of the blocks of a team
  u64 before, last;

  DEVICE void clear() {
    Vector* at = reinterpret_cast<Vector*>(sums);
    constexpr u32 kCleared = (sizeof sums + sizeof more + sizeof more_highs + sizeof groups) / sizeof(Vector);
#pragma unroll
    for (u32 i = 0; i < kCleared; i += kThreads) {
      if (i + thread_index() < kCleared) at[i + thread_index()] = Vector{{0, 0, 0, 0}};
    }
    if (thread_index() == 0) count = 0;
  }
  DEVICE u32* list(u32 warp) { return highs + warp * kListed; }

  // Adds a mass to a variable in two parts, of which there are two arrays.
  static DEVICE void add(u32* lower, u32* upper, u64 mass) {
    atomic_add_only(lower, (u32)mass & ((1u << kLowBits) - 1));
    atomic_add_only(upper, (u32)(mass >> kLowBits));
  }
  static DEVICE u64 sum(u32 lower, u32 upper) { return ((u64)upper << kLowBits) + lower; }
};
static_assert(Whole::kWarps * Whole::kListed <= kBins, "lists take the place of bins");

// The e-th element of a vector, by its bits.
template <class T>
DEVICE u32 bits_of_element(const Vector& v, u32 e) {
  return T::kPerWord == 1 ? v.word[e] : e % 2 ? v.word[e / 2] >> 16 : v.word[e / 2] & 0xffff;
}

DEVICE u64 shuffle_wide(u64 v, u32 lane) { return (u64)shuffle((u32)(v >> 32), lane) << 32 | shuffle((u32)v, lane); }

// The sum over a warp of numbers of any size.
DEVICE u64 warp_sum_any(u64 v) {
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) v += shuffle_xor(v, d);
  return v;
}

// The sum of what the lanes up to this one have.
DEVICE u64 warp_scan(u64 mine) {
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) {
    const u64 up = shuffle_up_wide(mine, d);
    if (thread_index() % kWarp >= d) mine += up;
  }
  return mine;
}
DEVICE float warp_scan(float mine) {
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) {
    const float up = as_float(shuffle_up(as_bits(mine), d));
    if (thread_index() % kWarp >= d) mine += up;
  }
  return mine;
}
DEVICE u64 from_lane(u64 v, u32 lane) { return shuffle_wide(v, lane); }
DEVICE float from_lane(float v, u32 lane) { return as_float(shuffle(as_bits(v), lane)); }

// The sum of what the threads before this one have, and of what all have. Behind a barrier
// of those that called it before.
template <class V>
DEVICE V scan(Whole& s, V mine, V& all) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  V* of_warps = reinterpret_cast<V*>(s.of_warps);
  const V through = warp_scan(mine);
  if (lane == kWarp - 1) of_warps[warp] = through;
  block_barrier();
  const V warps = warp_scan(lane < Whole::kWarps ? of_warps[lane] : V());
  all = from_lane(warps, Whole::kWarps - 1);
  const V before = from_lane(warps, (warp + kWarp - 1) % kWarp);
  return through - mine + (warp ? before : V());
}

// Weights are what masses of a row are made with.
struct Weights {
  float most, scale;  // of +Inf, the distance to the largest is NaN, of which the nearest integer is 0
  float floor;        // of the distance from the largest in units of surprise: what is below has no mass

  DEVICE float distance(float logit) const { return (logit - most) * scale; }
  // kFloor: if there is one, or the largest is +Inf.
  template <bool kFloor = true>
  DEVICE int surprise(float logit) const {
    const float v = distance(logit), least = law::kLeastSurprise;
    return nearest_integer(kFloor ? v < floor ? least : v : v > least ? v : least);
  }
};

// The floor below which masses are less than min_p of the largest, for a whole warp; above 0 where
// the search for it failed.
DEVICE float floor_of(float min_p) {
  if (!(min_p > 0)) return law::kLeastSurprise;
  const u64 least = law::ceil_product(min_p, 1ull << law::kMassBits);
  // The surprise of a mass of least - 1/2, nearly, and its neighbours.
  const u32 bits = as_bits((float)(2 * least - 1));
  const float fraction = approximate_log2(as_float((bits & 0x7fffff) | 0x3f800000)) * (1 << law::kSurpriseBits);
  const int octave = (int)(bits >> 23) - 127 - 1 - (int)law::kMassBits, lane = thread_index() % kWarp;
  const int near = octave * (1 << law::kSurpriseBits) + nearest_integer(fraction) - (int)kWarp / 2;
  const bool enough = near + lane >= 0 || law::mass(near + lane) >= least;
  const u32 lanes = ballot(enough);
  if (lanes == 0 || lanes & 1) return 1;
  const int first = near + (int)lowest_bit(lanes);
  // What rounds to that.
  const float half = (float)first - 0.5f;
  return nearest_integer(half) >= first ? half : as_float(as_bits(half) - 1);
}

// Segments of a row: vectors next to each other, so many that a warp takes whole rounds of
// them, and of these as many as make no more than kSegments. Each block of a team has
// those from first to end.
template <class T>
struct Segments {
  u32 shift;  // vectors of a segment, as a power of two
  u32 count;  // at least one: the first and the last have the elements outside of vectors
  u32 first, end;

  template <class Team>
  DEVICE Segments(const Row<T>& row, const Team& team) {
    constexpr u32 kLogSegments = 10;
    static_assert(kSegments == 1u << kLogSegments, "so many fit");
    shift = row.vectors > kSegments * kWarp ? kWarp - leading_zeros(row.vectors - 1) - kLogSegments : 5;
    count = larger(1, (row.vectors + (1u << shift) - 1) >> shift);
    const u32 each = (count + team.blocks() - 1) >> team.shift();
    first = smaller(team.rank() * each, count);
    end = smaller(first + each, count);
  }
  DEVICE u32 of_vector(u32 vector) const { return vector >> shift; }
  DEVICE u32 of_index(const Row<T>& row, u32 index) const {
    return index < row.head ? 0 : smaller((index - row.head) / T::kPerVector >> shift, count - 1);
  }
  // Where in the row a segment begins.
  DEVICE u32 begin(const Row<T>& row, u32 segment) const { return segment == 0 ? 0 : segment == count ? row.length : row.at(segment << shift); }
};
static_assert(kWarp == 1 << 5, "a segment is a round of a warp at least");

// The bracket of surprises in which top-p ends.
struct Bracket {
  int low, high;  // high is above it
  DEVICE bool has(int surprise) const { return (u32)(surprise - low) < (u32)(high - low); }
};

// The place of an element in contract order, and its parts.
constexpr u32 kPlaceBits = 20;  // of an index
DEVICE u64 place_of(u32 key, u32 index) { return (u64)key << kPlaceBits | (((1u << kPlaceBits) - 1) - index); }
DEVICE u32 key_of_place(u64 place) { return (u32)(place >> kPlaceBits); }
DEVICE u32 index_of_place(u64 place) { return ((1u << kPlaceBits) - 1) - ((u32)place & ((1u << kPlaceBits) - 1)); }

template <class T>
DEVICE int surprise_of_place(const Weights& weights, u64 place) { return weights.surprise(number_of<T>(key_of_place(place))); }

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
  sizes[0] = (u32)both * approximate_exp2((thread * kOwn) * (-1.0f / kBinsPerOctave));
  sizes[1] = (u32)(both >> 32) * approximate_exp2((thread * kOwn + 1) * (-1.0f / kBinsPerOctave));
  if (thread == 0) s.bin = 0, s.bin_below = kLastBin;
  float all, before = scan(s, sizes[0] + sizes[1], all);
  // What all masses being 1.1 % more or less can do to a share, and the rounding of sums.
  const float spare = all * (p * (1 - p) * 0.0225f + 0x1p-18f), least = all * p - spare, most = all * p + spare;
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    const float through = before + sizes[b];
    if (before < least && least <= through) s.bin = thread * kOwn + b;
    if (before < most && most <= through) s.bin_below = thread * kOwn + b;
    before = through;
  }
  block_barrier();
  constexpr int kHalf = (1 << law::kSurpriseBits) / kBinsPerOctave / 2;
  const int above = s.bin, below = s.bin_below;
  return {-(2 * below + 1) * kHalf, above == 0 ? 1 : -(2 * above - 1) * kHalf};
}

// Appends those elements of up to 32 listed vectors that lie in the bracket to the
// candidates of the team's first block. For a whole warp.
template <class T, class Team>
DEVICE void append_bracket(Whole& s, const Team& team, const Row<T>& row, const Weights& weights, const Bracket& bracket, const u32* list, u32 count) {
  const u32 lane = thread_index() % kWarp;
  u32 marks = 0, at = 0;
  if (lane < count) {
    at = row.at(list[lane]);
    const Vector v = row.vector(list[lane]);
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e++) {
      marks |= (bracket.has(weights.surprise(number_of_bits<T>(bits_of_element<T>(v, e)))) ? 1u : 0u) << e;
    }
  }
  u32 through = population(marks);
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) {
    const u32 up = shuffle_up(through, d);
    if (lane >= d) through += up;
  }
  const u32 all = shuffle(through, kWarp - 1);
  u32 start = 0;
  if (lane == 0) start = team.add(team.of(&s.count, 0), all);
  u32 place = shuffle(start, 0) + through - population(marks);
  u64* candidates = team.of(&s.candidates[0], 0);
#pragma unroll 1
  for (; marks && place < kCutRoom; marks &= marks - 1) {
    const u32 i = at + lowest_bit(marks);
    candidates[place++] = place_of(T::key(row.bits(i)), i);
  }
  warp_barrier();
}

// Parts are a mass as law::Masses has it, each part with a number too many: so that
// two of them are added in one instruction.
struct Parts {
  static constexpr u32 kHigh = 0x55c00000, kLow = 0x4b400000;
  u32 high, low;

  Parts() = default;
  DEVICE explicit Parts(float weight) {
    constexpr float kCoarse = 0x1.8p44f, kFine = 0x1.8p23f;
    const float part = weight + kCoarse;
    high = as_bits(part);
    low = as_bits(weight - (part - kCoarse) + kFine);
  }
};
// Total is a sum of them, of at most 512.
struct Total {
  u32 high = 0, low = 0;
  DEVICE u64 sum(u32 count) const { return ((u64)(high - count * Parts::kHigh) << 21) + (i64)(int)(low - count * Parts::kLow); }
};

// Adds up the masses of this block's segments, in the team's first block or in its own. kCut: without those
// below the bracket and in it, which are added up apart; and appends what lies in it.
template <class T, bool kCut, bool kFloor, class Team>
DEVICE void weigh(Whole& s, const Team& team, const Row<T>& row, const Segments<T>& segments, const Weights& weights, const Bracket& bracket,
                  u32 edges, bool in_first = true) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp, rounds = 1u << (segments.shift - 5);
  u64 rest = 0;
  u32 listed = 0;
  u32* list = s.list(warp);
  u64* sums = in_first ? team.of(&s.sums[0], 0) : s.sums;
  // The vector of this lane in one of the warp's rounds.
  const auto vector_of = [&](u32 turn) {
    const u32 segment = segments.first + (turn >> (segments.shift - 5)) * Whole::kWarps + warp;
    return (segment << segments.shift) + (turn & (rounds - 1)) * kWarp + lane;
  };
  const auto load = [&](u32 i) {
    Vector v = {{T::kWorst, T::kWorst, T::kWorst, T::kWorst}};
    if (i < row.vectors) v = row.vector(i);
    return v;
  };
  Total all;
  law::Masses below;
  u32 turn = 0, i = vector_of(0);
  Vector next = load(i);
#pragma unroll 1
  for (u32 segment = segments.first + warp; segment < segments.end;) {
    Vector v = next;
    const u32 at = i;
    i = vector_of(++turn);
    next = load(i);
    u32 nearest = kAllLanes;
#pragma unroll 1
    for (u32 part = 0; part < Team::kParts; part++) {
#pragma unroll
      for (u32 e = 0; e < T::kPerVector / Team::kParts; e += 2) {
        Parts parts[2];
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
          const int q = weights.template surprise<kFloor>(number_of_bits<T>(bits_of_element<T>(v, e + j)));
          parts[j] = Parts(law::weight(q));
          if (kCut) {
            nearest = smaller(nearest, (u32)(q - bracket.low));
            if (q < bracket.high) below.high += parts[j].high - Parts::kHigh, below.low += (int)(parts[j].low - Parts::kLow);
          }
        }
        all.high += parts[0].high + parts[1].high;
        all.low += parts[0].low + parts[1].low;
      }
      if (Team::kParts == 2) v.word[0] = v.word[2], v.word[1] = v.word[3];
    }
    if (kCut) {
      const bool hit = nearest < (u32)(bracket.high - bracket.low);
      const u32 lanes = ballot(hit);
      if (hit) list[listed + population(lanes & ((1u << lane) - 1))] = at;
      listed += population(lanes);
    }
    if ((turn & (rounds - 1)) == 0) {
      u64 kept = all.sum(T::kPerVector * rounds);
      if (kCut) kept -= below.sum(), rest += below.sum();
      kept = warp_sum_wide(kept);
      if (lane == 0) sums[segment] = kept;
      all = Total();
      below = law::Masses();
      segment += Whole::kWarps;
    }
    // When there is a vector for each lane, or no more comes.
    if (kCut && (listed >= kWarp || segment >= segments.end)) {
      warp_barrier();
      while (listed > 0) {
        const u32 some = smaller(listed, kWarp);
        listed -= some;
        append_bracket(s, team, row, weights, bracket, list + listed, some);
      }
    }
  }
  // For the first block, or for that of their segment.
  const u32 edge = thread_index() < edges ? segments.of_index(row, row.edge(thread_index())) : 0;
  if (thread_index() < edges && (in_first || (edge >= segments.first && edge < segments.end))) {
    const u32 index = row.edge(thread_index()), bits = row.bits(index), segment = edge;
    const int q = weights.surprise(number_of_bits<T>(bits));
    const u64 mass = law::mass(q);
    if (!kCut || q >= bracket.high) {
      Whole::add(&s.more[segment], &s.more_highs[segment], mass);
    } else {
      rest += mass;
      if (bracket.has(q)) {
        const u32 place = team.add(&s.count, 1);
        if (place < kCutRoom) s.candidates[place] = place_of(T::key(bits), index);
      }
    }
  }
  if (kCut) {
    rest = warp_sum_any(rest);
    if (lane == 0) *team.of(&s.rest[team.rank() * Whole::kWarps + warp], 0) = rest;
  }
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
template <class Team>
DEVICE u64 mass_above(Whole& s, const Team& team, u64& others) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u64 above = 0, rest = thread < team.blocks() * Whole::kWarps ? s.rest[thread] : 0;
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
// bracket or there was no room; for an empty bracket 1, if top-p ends below it. For the
// team's first block.
template <class T, class Team>
DEVICE u64 cut(Whole& s, const Team& team, const Row<T>& row, const Segments<T>& segments, const Weights& weights, const Bracket& bracket, float p) {
  const u32 thread = thread_index(), count = s.count;
  u64 others;
  const u64 above = mass_above(s, team, others);
  u64 enough = law::ceil_product(p, above + others);
  if (bracket.low == bracket.high) return above <= enough ? 1 : 0;
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
  const u64 above = mass_above(s, Alone(), others), mass = law::mass(bracket.low);
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
    const u64 above = mass_above(s, team, others), enough = law::ceil_product(p, above + others);
    if (above >= enough) return 0;
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
    weigh<T, true, true>(s, team, row, segments, weights, bracket, row.edges());
    block_barrier();
    const u64 last = cut(s, team, row, segments, weights, bracket, p);
    if (last != 0 || s.count <= kCutRoom) return last;
    if (bracket.high - bracket.low == 1) return cut_ties(s, row, segments, weights, bracket, p);
  }
  return 0;
}

// Draws the tokens of a row by the kept masses of its segments: those of places from the last on. For the team's first
// block. greedy: the first token of them. One draw is the work of all warps, of several with
// replacement each is that of one.
template <class T>
DEVICE void draw_by_segment(Whole& s, const SampleArguments& a, u32 number, const Row<T>& row, const Segments<T>& segments, const Weights& weights,
                            u64 last, bool greedy) {
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
        round = lowest_bit(ballot(through > target));
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
// falls. Its chunk is in its own L1.
template <class T, class Team>
DEVICE void draw_one(Whole& s, const Team& team, const SampleArguments& a, u32 number, const Row<T>& row, const Segments<T>& segments,
                     const Weights& weights, bool greedy) {
  constexpr u32 kRound = 2 * kWarp;  // ids
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp, rank = team.rank();
  block_barrier();
  // A lane of the first warp has a few segments next to each other.
  const u32 each = (segments.end - segments.first + kWarp - 1) / kWarp, first = segments.first + lane * each, end = smaller(first + each, segments.end);
  u64 own = 0, through = 0;
  if (warp == 0) {
#pragma unroll 1
    for (u32 i = first; i < end; i++) own += s.sums[i] += Whole::sum(s.more[i], s.more_highs[i]);
    through = warp_scan(own);
    const u64 total = shuffle_wide(through, kWarp - 1);
    if (lane < team.blocks()) team.of(&s.totals[0], lane)[rank] = total;
  }
  team.meet();
  const u64 of_block = lane < team.blocks() ? s.totals[lane] : 0, through_block = warp_scan(of_block);
  u64 target = greedy ? 0 : law::target(s.uniform, shuffle_wide(through_block, kWarp - 1));
  const u64 before = shuffle_wide(through_block - of_block, rank);
  if (target < before || target - before >= shuffle_wide(of_block, rank)) return;
  if (warp == 0) {
    u64 at = before + through - own;
    if (at <= target && target - at < own) {
      u32 i = first;
      for (; target - at >= s.sums[i]; i++) at += s.sums[i];
      s.bin = i, s.before = at;
    }
  }
  block_barrier();
  const u32 segment = s.bin, begin = segments.begin(row, segment), rounds = (segments.begin(row, segment + 1) - begin + kRound - 1) / kRound;
  target -= s.before;
  u64 masses[2], sum = 0;
  const auto weigh_round = [&](u32 round) {
#pragma unroll
    for (u32 e = 0; e < 2; e++) {
      const u32 index = begin + round * kRound + 2 * lane + e;
      masses[e] = 0;
      if (index < segments.begin(row, segment + 1)) masses[e] = law::mass(weights.surprise(number_of_bits<T>(row.bits(index))));
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
  const u64 at = sum - masses[0] - masses[1];
  if (at <= target && target < sum) write_token(a, number, 0, begin + round * kRound + 2 * lane + (target - at < masses[0] ? 0 : 1));
  if (lane == 0 && a.status) a.status[number] = kDone;
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

// Draws the tokens of a row that has no top-k. All blocks of a team call it, when s is clear, a warp settles the row and
// all have arrived. Returns false, in the first of them, where it cannot.
template <class T, class Team>
DEVICE bool draw_whole(Whole& s, const Team& team, const SampleArguments& a, u32 number) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp, rank = team.rank();
  const bool first = rank == 0;
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
  team.wait();
  if (lane < team.blocks()) team.of(&s.best[0], lane)[rank * Whole::kWarps + warp] = best;
  team.meet();
  best = 0;
#pragma unroll
  for (u32 i = 0; i < kTeam * Whole::kWarps; i += kWarp) {
    if (i < team.blocks() * Whole::kWarps) best = larger(best, i + lane < team.blocks() * Whole::kWarps ? s.best[i + lane] : 0);
  }
  best = warp_max(best);

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
  const bool one = a.draws == 1 && !(top_p < 1);
  Bracket bracket = {};
  if (top_p < 1) {
    // Behind top-p, min-p plays no part in the mass of which p is a share.
    if (a.min_p_last) weights.floor = law::kLeastSurprise;
    count_bins(s, row, segments, weights, edges);
    team.meet();
    bracket = find_bracket(s, team, top_p);
    // Where min-p keeps less, the bracket is where that ends.
    const int floor_surprise = nearest_integer(floor);
    if (floor_surprise >= bracket.high) bracket = {floor_surprise, floor_surprise};
    weigh<T, true, true>(s, team, row, segments, weights, bracket, edges);
  } else if (floor == law::kLeastSurprise && !infinite) {
    weigh<T, false, false>(s, team, row, segments, weights, {}, one ? row.edges() : edges, !one);
  } else {
    weigh<T, false, true>(s, team, row, segments, weights, {}, one ? row.edges() : edges, !one);
  }
  release_kernel_behind();
  if (one) {
    draw_one(s, team, a, number, row, segments, weights, greedy);
    return true;
  }
  team.meet();
  if (!first) return true;
  u64 last = 1;  // place
  if (top_p < 1) {
    last = cut(s, team, row, segments, weights, bracket, top_p);
    if (last == 0 && s.count > kCutRoom) last = cut_crowd<T>(s, a, number, weights, bracket, top_p);
    if (last == 0) return false;
    weights.floor = floor;
    if (last > 1 && surprise_of_place<T>(weights, last) < nearest_integer(floor)) return false;
  }
  draw_by_segment(s, a, number, row, segments, weights, last, greedy);
  return true;
}

// The same for a block alone, in memory that is not clear. Apart: few rows of such a launch
// need it.
template <class T>
DEVICE_APART bool draw_whole_alone(Whole& s, const SampleArguments& a, u32 number) {
  s.clear();
  if (thread_index() < kWarp) settle_whole(s, a, number);
  return draw_whole<T>(s, Alone(), a, number);
}

template <class T, class Team>
DEVICE void sample_whole(const SampleArguments& a) {
  SHARED(Whole, s);
  const Team team;
  const u32 number = block_index() >> team.shift();
  if (thread_index() >= kThreads) {
    wait_for_kernel_before();
    settle_whole(s, a, number);
    return team.leave();
  }
  s.clear();
  team.arrive();
  wait_for_kernel_before();
  if (a.kept && thread_index() == 0 && team.rank() == 0) a.kept_count[number] = -1;
  if (draw_whole<T>(s, team, a, number)) return;
  block_barrier();
  if (a.workspace && thread_index() == 0) static_cast<u32*>(a.workspace)[number] = 1;
  draw_from_all<T>(s, a, number);
}
