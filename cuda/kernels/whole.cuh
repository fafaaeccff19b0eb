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

// A team is the blocks that have a row: one alone, or a cluster.
struct Alone {
  static DEVICE u32 blocks() { return 1; }
  static DEVICE u32 rank() { return 0; }
  static DEVICE void arrive() {}
  static DEVICE void wait() {}
  static DEVICE void meet() { block_barrier(); }
  template <class V>
  static DEVICE V* of(V* variable, u32) { return variable; }
  static DEVICE u32 add(u32* at, u32 v) { return atomic_add(at, v); }
};

#if defined(AIKF_SHIM) || __CUDA_ARCH__ >= 900
struct Cluster {
  static DEVICE u32 blocks() { return cluster_blocks(); }
  static DEVICE u32 rank() { return cluster_rank(); }
  static DEVICE void arrive() { cluster_arrive(); }
  static DEVICE void wait() { cluster_wait(); }
  static DEVICE void meet() {
    cluster_arrive();
    cluster_wait();
  }
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
  alignas(16) u64 candidates[kCutRoom + 1];  // places
  u64 sums[kSegments];                       // kept masses of segments; then of all before each
  u64 rest[kTeam * kWarps];                  // masses of warps below the bracket and in it
  alignas(16) u32 groups[kBins];             // counts of bins; then lower parts of sums, or candidates
  u32 highs[kBins];                          // upper parts; or listed vectors of warps
  u64 of_warps[kWarp];
  u32 lows[kWarp];                           // values of warps
  u32 best[kTeam];                           // keys
  u32 count;                                 // of candidates, also those without room
  u32 listed;
  u32 bin, bin_below;
  float floor;
  u64 before, last;

  DEVICE void clear() {
    const u32 thread = thread_index();
    for (u32 i = thread; i < kSegments; i += kThreads) sums[i] = 0;
    for (u32 i = thread; i < kBins; i += kThreads) groups[i] = 0;
    if (thread == 0) count = 0;
  }
  DEVICE u32* list(u32 warp) { return highs + warp * kListed; }
};
static_assert(Whole::kWarps * Whole::kListed <= kBins, "lists take the place of bins");

// The e-th element of a vector, by its bits.
template <class T>
DEVICE u32 bits_of_element(const Vector& v, u32 e) {
  return T::kPerWord == 1 ? v.word[e] : e % 2 ? v.word[e / 2] >> 16 : v.word[e / 2] & 0xffff;
}

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

// The sum of what the threads before this one have, and of what all have. Behind a barrier
// of those that called it before.
DEVICE u64 scan(Whole& s, u64 mine, u64& all) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  const u64 through = warp_scan(mine);
  if (lane == kWarp - 1) s.of_warps[warp] = through;
  block_barrier();
  const u64 warps = warp_scan(lane < Whole::kWarps ? s.of_warps[lane] : 0);
  const u32 high = (u32)(warps >> 32), low = (u32)warps;
  const auto until = [&](u32 last) { return (u64)shuffle(high, last) << 32 | shuffle(low, last); };
  all = until(Whole::kWarps - 1);
  const u64 before = until((warp + kWarp - 1) % kWarp);
  return through - mine + (warp ? before : 0);
}

// Weights are what masses of a row are made with.
struct Weights {
  float most, scale;  // of +Inf, the distance to the largest is NaN, of which the nearest integer is 0
  float floor;  // of the distance from the largest in units of surprise: what is below has no mass

  DEVICE float distance(float logit) const { return (logit - most) * scale; }
  // kFloor: if there is one, or the largest is +Inf.
  template <bool kFloor = true>
  DEVICE int surprise(float logit) const {
    const float v = distance(logit), least = law::kLeastSurprise;
    return nearest_integer(kFloor ? v < floor ? least : v : v > least ? v : least);
  }
};

// The floor below which masses are less than `least`, for a whole warp; above 0 where the
// search for it failed.
DEVICE float floor_of(u64 least) {
  if (least == 0) return law::kLeastSurprise;
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

// Segments of a row: groups of 32 vectors, of which each block of a team has the same
// number.
template <class T>
struct Segments {
  u32 each;  // of a block
  u32 span;  // groups of a segment, as a power of two

  DEVICE Segments(const SampleArguments& a, u32 number, u32 blocks) {
    const u32 groups = (Row<T>(a, number, 0, blocks).vectors + kWarp - 1) / kWarp;
    each = kSegments / blocks;
    span = 0;
    while (groups > each << span) span++;
  }
  // How many a chunk has: at least one, which has elements outside of vectors.
  DEVICE u32 count(const Row<T>& chunk) const { return larger(1, (chunk.vectors + (kWarp << span) - 1) >> span >> 5); }
  // The segment of its chunk that a vector is in.
  DEVICE u32 of_vector(u32 vector) const { return vector >> span >> 5; }
  // Where in its chunk a segment begins. The first has the head too, and the last the tail.
  DEVICE u32 begin(const Row<T>& chunk, u32 segment) const {
    return segment == 0 ? 0 : segment == count(chunk) ? chunk.length : chunk.at(segment << span << 5);
  }
};
static_assert(kWarp == 1 << 5, "vectors of a group");

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

// The last bin that is counted: what is further from the largest has less than a 2^31st of
// its mass.
constexpr u32 kLastBin = kBins - 2;

// Counts the chunk's elements by the bins of their distance from the largest, those
// that have a mass in bins up to the last.
template <class T>
DEVICE void count_bins(Whole& s, const Row<T>& row, const Weights& weights) {
  constexpr float kUnits = 0x1p23f * kBinWidth, kFurthest = -(kLastBin + 0.4375f) * kBinWidth;
  const float furthest = weights.floor > kFurthest ? weights.floor : kFurthest;
  const auto count = [&](u32 bits) {
    const float v = weights.distance(number_of_bits<T>(bits));
    if (v >= furthest) atomic_add_only(&s.groups[as_bits(kUnits - v) % kBins], 1);
  };
#pragma unroll 1
  for (u32 i = thread_index(); i < row.vectors; i += Whole::kThreads) {
    const Vector v = row.vector(i);
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e++) count(bits_of_element<T>(v, e));
  }
  if (thread_index() < row.edges()) count(row.bits(row.edge(thread_index())));
}

// The bracket in which a share p of the mass is reached, by the counts of bins of the
// whole team.
template <class Team>
DEVICE Bracket find_bracket(Whole& s, const Team& team, float p) {
  constexpr u32 kOwn = kBins / Whole::kThreads;
  const u32 thread = thread_index();
  u32 counts[kOwn] = {};
#pragma unroll 1
  for (u32 rank = 0; rank < team.blocks(); rank++) {
    const u32* groups = team.of(&s.groups[thread * kOwn], rank);
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) counts[b] += groups[b];
  }
  u64 sizes[kOwn], sum = 0, all;
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    sizes[b] = counts[b] * (u64)(approximate_exp2((thread * kOwn + b) * (-1.0f / kBinsPerOctave)) * 0x1p36f);
    sum += sizes[b];
  }
  if (thread == 0) s.bin = 0, s.bin_below = kLastBin;
  u64 before = scan(s, sum, all);
  // What all masses being 1.1 % more or less can do to a share.
  const float whole = (float)all, spare = whole * (p * (1 - p) * 0.0225f + 0x1p-20f);
  const u64 least = (u64)(whole * p > spare + 1 ? whole * p - spare : 1), most = (u64)(whole * p + spare);
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    const u64 through = before + sizes[b];
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
DEVICE_APART void append_bracket(Whole& s, Team team, const SampleArguments& a, u32 number, Weights weights, Bracket bracket, const u32* list, u32 count) {
  const Row<T> row(a, number, team.rank(), team.blocks());
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
    candidates[place++] = place_of(T::key(row.bits(i)), row.first + i);
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

// Adds up the masses of a chunk's segments, in the team's first block. kCut: without those
// below the bracket and in it, which are added up apart; and appends what lies in it.
template <class T, bool kCut, bool kFloor, class Team>
DEVICE void weigh(Whole& s, const Team& team, const SampleArguments& a, u32 number, const Weights& weights, const Bracket& bracket) {
  const u32 rank = team.rank(), lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  const Row<T> row(a, number, rank, team.blocks());
  const Segments<T> segments(a, number, team.blocks());
  u64* sums = team.of(&s.sums[rank * segments.each], 0);
  const u32 count = segments.count(row), span = 1u << segments.span;
  u64 rest = 0;
  u32 listed = 0;
  u32* list = s.list(warp);
  // Group `number` of this warp's, by its vectors.
  const auto vector_of = [&](u32 turn) {
    return ((((turn >> segments.span) * Whole::kWarps + warp) << segments.span) + (turn & (span - 1))) * kWarp + lane;
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
  for (u32 segment = warp; segment < count;) {
    const Vector v = next;
    const u32 at = i;
    i = vector_of(++turn);
    next = load(i);
    u32 nearest = kAllLanes;
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e += 2) {
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
    if (kCut) {
      const bool hit = nearest < (u32)(bracket.high - bracket.low);
      const u32 lanes = ballot(hit);
      if (lanes) {
        if (hit) list[listed + population(lanes & ((1u << lane) - 1))] = at;
        listed += population(lanes);
        if (listed >= kWarp) {
          listed -= kWarp;
          warp_barrier();
          append_bracket<T>(s, team, a, number, weights, bracket, list + listed, kWarp);
        }
      }
    }
    if ((turn & (span - 1)) != 0) continue;
    u64 kept = all.sum(T::kPerVector << segments.span);
    if (kCut) kept -= below.sum(), rest += below.sum();
    kept = warp_sum_wide(kept);
    if (lane == 0) sums[segment] = kept;
    all = Total();
    below = law::Masses();
    segment += Whole::kWarps;
  }
  if (kCut) {
    warp_barrier();
    append_bracket<T>(s, team, a, number, weights, bracket, list, listed);
  }
  if (row.edges()) {
    block_barrier();  // the segments are written
    if (warp == 0) {
      u64 kept = 0;
      if (lane < row.edges()) {
        const u32 index = row.edge(lane), bits = row.bits(index);
        const int q = weights.surprise(number_of_bits<T>(bits));
        const u64 mass = law::mass(q);
        if (kCut && q < bracket.high) {
          rest += mass;
          if (bracket.has(q)) {
            const u32 place = team.add(team.of(&s.count, 0), 1);
            if (place < kCutRoom) team.of(&s.candidates[0], 0)[place] = place_of(T::key(bits), row.first + index);
          }
        } else {
          kept = mass;
        }
      }
      const u64 head = warp_sum_wide(lane < row.head ? kept : 0), tail = warp_sum_wide(lane < row.head ? 0 : kept);
      if (lane == 0) {
        sums[0] += head;
        sums[count - 1] += tail;
      }
    }
  }
  if (kCut) {
    rest = warp_sum_any(rest);
    if (lane == 0) *team.of(&s.rest[rank * Whole::kWarps + warp], 0) = rest;
  }
}

// The largest place such that the candidates at or above it have a sum of masses of at
// least `enough`; 0 if all of them have not. For the team's first block.
template <class T>
DEVICE u64 find_cut(Whole& s, const Weights& weights, u32 count, u64 enough) {
  constexpr u32 kOwn = kBins / Whole::kThreads, kLogBins = 10, kFew = 64, kLanes = 8;
  static_assert(kBins == 1u << kLogBins && kFew * kLanes == Whole::kThreads && kCutRoom < 1u << (32 - kLowBits), "each thread has a part");
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const auto mass_of = [&](u64 place) { return law::mass(weights.surprise(number_of<T>(key_of_place(place)))); };
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
  const u32 range = best - worst + 1, bits = kPlaceBits + kWarp - leading_zeros(range);
  u32 shift = bits - kLogBins;
#pragma unroll 1
  for (;;) {
    for (u32 b = thread; b < kBins; b += Whole::kThreads) s.groups[b] = s.highs[b] = 0;
    if (thread == 0) s.bin = kBins, s.listed = 0;
    block_barrier();
#pragma unroll 1
    for (u32 i = thread; i < count; i += Whole::kThreads) {
      const u64 place = s.candidates[i], bin = (top - place) >> shift;
      if (place > top || bin >= kBins) continue;
      const u64 mass = mass_of(place);
      atomic_add_only(&s.groups[bin], (u32)mass & ((1u << kLowBits) - 1));
      atomic_add_only(&s.highs[bin], (u32)(mass >> kLowBits));
    }
    block_barrier();
    u64 sizes[kOwn], sum = 0, all;
#pragma unroll
    for (u32 b = 0; b < kOwn; b++) {
      sizes[b] = ((u64)s.highs[thread * kOwn + b] << kLowBits) + s.groups[thread * kOwn + b];
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
    if (s.bin == kBins) return 0;
    top -= (u64)s.bin << shift;
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
    const u32 few = s.listed;
    if (few <= kFew) {
      const u32 n = thread / kLanes;
      const u64 own = n < few ? s.candidates[s.groups[n]] : 0;
      u64 above = 0;
      for (u32 j = thread % kLanes; j < few; j += kLanes) above += s.candidates[s.groups[j]] > own ? masses[j] : 0;
#pragma unroll
      for (u32 d = 1; d < kLanes; d *= 2) above += shuffle_xor(above, d);
      if (n < few && above < enough && enough <= above + masses[n]) s.last = own;
      block_barrier();
      return s.last;
    }
    shift = shift > kLogBins ? shift - kLogBins : 0;
    block_barrier();  // all have read the list
  }
}

// Ends top-p where it ends among the candidates, and adds those that are kept to their
// segments. Returns the last place that is kept, or 0 if that does not lie in the
// bracket or there was no room; for an empty bracket 1, if top-p ends below it. For the
// team's first block.
template <class T, class Team>
DEVICE u64 cut(Whole& s, const Team& team, const SampleArguments& a, u32 number, const Weights& weights, const Bracket& bracket, float p) {
  const u32 thread = thread_index(), count = s.count;
  u64 above = 0, all, whole;
  for (u32 i = thread; i < kSegments; i += Whole::kThreads) above += s.sums[i];
  scan(s, above, above);
  block_barrier();
  scan(s, thread < team.blocks() * Whole::kWarps ? s.rest[thread] : 0, all);
  block_barrier();
  whole = above + all;
  const u64 enough = law::ceil_product(p, whole);
  if (bracket.low == bracket.high) return above <= enough ? 1 : 0;
  if (count > kCutRoom || above >= enough) return 0;
  const u64 last = find_cut<T>(s, weights, count, enough - above);
  if (last == 0) return 0;
  const Segments<T> segments(a, number, team.blocks());
  const u32 share = Row<T>(a, number, 0, team.blocks()).length;
  for (u32 b = thread; b < kBins; b += Whole::kThreads) s.groups[b] = s.highs[b] = 0;
  block_barrier();
#pragma unroll 1
  for (u32 i = thread; i < count; i += Whole::kThreads) {
    const u64 place = s.candidates[i];
    if (place < last) continue;
    const u32 index = index_of_place(place), rank = team.blocks() == 1 ? 0 : index / share;
    const Row<T> chunk(a, number, rank, team.blocks());
    const u32 inside = index - chunk.first;
    const u32 segment = inside < chunk.head ? 0 : smaller(segments.of_vector((inside - chunk.head) / T::kPerVector), segments.count(chunk) - 1);
    const u64 mass = law::mass(weights.surprise(number_of<T>(key_of_place(place))));
    atomic_add_only(&s.groups[rank * segments.each + segment], (u32)mass & ((1u << kLowBits) - 1));
    atomic_add_only(&s.highs[rank * segments.each + segment], (u32)(mass >> kLowBits));
  }
  block_barrier();
  for (u32 i = thread; i < kSegments; i += Whole::kThreads) s.sums[i] += ((u64)s.highs[i] << kLowBits) + s.groups[i];
  block_barrier();
  return last;
}

// Finds the token that a target falls on, by the sums before segments. For a whole warp. The draws
// before this one are removed, if there are any.
template <class T, class Team>
DEVICE u32 find_token(Whole& s, const Team& team, const SampleArguments& a, u32 number, const Weights& weights, u64 last, u64 target, u32 removed,
                      u32& segment, u64& mass) {
  const u32 lane = thread_index() % kWarp;
  static_assert(kSegments == kWarp * kWarp, "two steps find a segment");
  const u32 part = population(ballot(s.sums[lane * kWarp] <= target)) - 1;
  segment = part * kWarp + population(ballot(s.sums[part * kWarp + lane] <= target)) - 1;
  target -= s.sums[segment];
  const Segments<T> segments(a, number, team.blocks());
  const Row<T> chunk(a, number, segment / segments.each, team.blocks());
  const u32 own = segment % segments.each, end = segments.begin(chunk, own + 1);
  constexpr u32 kAtOnce = 8;
#pragma unroll 1
  for (u32 base = segments.begin(chunk, own);; base += kWarp * kAtOnce) {
    const u32 first = base + lane * kAtOnce;
    u32 gone = 0;
#pragma unroll 1
    for (u32 draw = 0; draw < removed; draw++) {
      const u32 at = token_of(a, number, draw) - chunk.first - first;
      if (at < kAtOnce) gone |= 1u << at;
    }
    u64 masses[kAtOnce], sum = 0;
#pragma unroll
    for (u32 e = 0; e < kAtOnce; e++) {
      masses[e] = 0;
      if (first + e < end) {
        const u32 bits = chunk.bits(first + e);
        if (place_of(T::key(bits), chunk.first + first + e) >= last && !(gone >> e & 1)) masses[e] = law::mass(weights.surprise(number_of_bits<T>(bits)));
      }
      sum += masses[e];
    }
    const u64 through = warp_scan(sum);
    const u32 lanes = ballot(through > target);
    if (lanes == 0 && base + kWarp * kAtOnce < end) {
      target -= (u64)shuffle((u32)(through >> 32), kWarp - 1) << 32 | shuffle((u32)through, kWarp - 1);
      continue;
    }
    const u32 there = lanes ? lowest_bit(lanes) : 0;
    u32 token = 0;
    u64 before = through - sum;
#pragma unroll
    for (u32 e = 0; e < kAtOnce; e++) {
      if (before <= target && target - before < masses[e]) token = chunk.first + first + e, mass = masses[e];
      before += masses[e];
    }
    token = shuffle(token, there);
    mass = (u64)shuffle((u32)(mass >> 32), there) << 32 | shuffle((u32)mass, there);
    return token;
  }
}

// Draws the tokens of a row by the kept masses of its segments. For the team's first
// block. greedy: the first token of them.
template <class T, class Team>
DEVICE void draw_by_segment(Whole& s, const Team& team, const SampleArguments& a, u32 number, const Weights& weights, u64 last, bool greedy) {
  constexpr u32 kOwn = kSegments / Whole::kThreads;
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u64 sizes[kOwn], sum = 0, total;
#pragma unroll
  for (u32 b = 0; b < kOwn; b++) {
    sizes[b] = s.sums[thread * kOwn + b];
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
  const u64 seed = a.row_seed ? a.row_seed[number] : a.seed, position = a.row_position ? a.row_position[number] : a.position;
  const u32 first = a.first_draw + number * a.row_draws;
  // With replacement each warp has draws of its own.
  const u32 step = a.replacement ? Whole::kWarps : 1;
  if (!a.replacement && warp > 0) return;
#pragma unroll 1
  for (u32 draw = warp; draw < (u32)a.draws; draw += step) {
    if (total == 0) return end_row(a, number, draw, kExhausted, kWarp);
    const u64 target = greedy ? 0 : law::target(law::uniform(seed, position, first + draw, law::kDraw), total);
    u32 segment;
    u64 mass = 0;
    const u32 token = find_token<T>(s, team, a, number, weights, last, target, a.replacement ? 0 : draw, segment, mass);
    if (lane == 0) write_token(a, number, draw, token);
    if (a.replacement) continue;
    total = greedy ? 0 : total - mass;
    warp_barrier();
#pragma unroll 1
    for (u32 i = segment + 1 + lane; i < kSegments; i += kWarp) s.sums[i] -= mass;
    warp_barrier();
  }
}

// Draws the tokens of a row that has no top-k. All blocks of a team call it, when s is clear and
// all have arrived. Returns false, in the first of them, where it cannot.
template <class T, class Team>
DEVICE bool draw_whole(Whole& s, const Team& team, const SampleArguments& a, u32 number) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp, rank = team.rank();
  const RowParameters p(a, number);
  const Row<T> row(a, number, rank, team.blocks());
  const bool greedy = p.greedy(a);
  const float top_p = greedy ? 1 : p.top_p;
  const u64 least = greedy ? 0 : law::ceil_product(p.min_p, 1ull << law::kMassBits);

  // The largest logit.
  u32 best = T::kWorst;
  read_vectors<T, Whole::kThreads>(row, [&](u32, const Vector& v) { best = T::best(best, T::best(v)); });
  best = T::key_of_word(best);
  if (thread < row.edges()) best = larger(best, T::key(row.bits(row.edge(thread))));
  best = warp_max(best);
  if (lane == 0) s.lows[warp] = best;
  if (warp == 0 && least > 0) {
    const float floor = floor_of(least);
    if (lane == 0) s.floor = floor;
  }
  block_barrier();
  best = warp_max(lane < Whole::kWarps ? s.lows[lane] : 0);
  team.wait();
  if (team.blocks() > 1) {
    if (thread < team.blocks()) team.of(&s.best[0], thread)[rank] = best;
    team.meet();
    best = warp_max(lane < team.blocks() ? s.best[lane] : 0);
  }
  const bool first = rank == 0;
  const u32 length = Row<T>(a, number, 0, 1).length;
  if (!p.valid() || length == 0 || best == T::kNaNKey || best == T::kWorstNumber) {
    const Status status = !p.valid() || length == 0 ? kBadParameters : best == T::kNaNKey ? kNaN : kEmpty;
    if (first) end_row(a, number, 0, status, Whole::kThreads);
    return true;
  }
  Weights weights{number_of<T>(best), greedy ? 0x1p127f : law::scale(p.temperature), greedy ? 0 : (float)law::kLeastSurprise};
  if (least > 0) weights.floor = s.floor;
  const bool ranked = !greedy && p.top_k > 0 && (u32)p.top_k < length;
  const bool infinite = weights.most > 0x1.fffffep127f;
  if (ranked || (a.softcap > 0 && !greedy) || (infinite && top_p < 1) || weights.floor > 0) return !first;

  u64 last = 1;  // place
  if (top_p == 1) {
    if (weights.floor == law::kLeastSurprise && !infinite) {
      weigh<T, false, false>(s, team, a, number, weights, {});
    } else {
      weigh<T, false, true>(s, team, a, number, weights, {});
    }
    release_kernel_behind();
    team.meet();
    if (!first) return true;
  } else {
    // Behind top-p, min-p plays no part in the mass of which p is a share.
    const float floor = weights.floor;
    if (a.min_p_last) weights.floor = law::kLeastSurprise;
    count_bins(s, row, weights);
    team.meet();
    Bracket bracket = find_bracket(s, team, top_p);
    // Where min-p keeps less, the bracket is where that ends.
    const int floor_surprise = nearest_integer(floor);
    if (floor_surprise >= bracket.high) bracket = {floor_surprise, floor_surprise};
    weigh<T, true, true>(s, team, a, number, weights, bracket);
    release_kernel_behind();
    team.meet();
    if (!first) return true;
    last = cut<T>(s, team, a, number, weights, bracket, top_p);
    if (last == 0) return false;
    weights.floor = floor;
    if (last > 1 && weights.surprise(number_of<T>(key_of_place(last))) < floor_surprise) return false;
  }
  draw_by_segment<T>(s, team, a, number, weights, last, greedy);
  return true;
}

template <class T, class Team>
DEVICE void sample_whole(const SampleArguments& a) {
  SHARED(Whole, s);
  const Team team;
  s.clear();
  team.arrive();
  wait_for_kernel_before();
  const u32 number = block_index() / team.blocks();
  if (a.kept && thread_index() == 0 && team.rank() == 0) a.kept_count[number] = -1;
  if (draw_whole<T>(s, team, a, number)) return;
  block_barrier();
  if (a.workspace && thread_index() == 0) static_cast<u32*>(a.workspace)[number] = 1;
  draw_from_all<T>(s, a, number);
}
