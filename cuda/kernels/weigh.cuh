// The masses of a row, added up by segments: what rows without a top-k are drawn by.
//
// Shapes: one block for each row, or a cluster of blocks that have a chunk each. A warp takes a segment of consecutive
// vectors, each lane one of 32. Bytes: the row once, from L1 or L2.
#pragma once

#include "tail.cuh"

constexpr u32 kSegments = 1024;      // of a row: of so few ids that the sums of their masses fit two words
constexpr u32 kCutRoom = 2016;       // candidates for the end of top-p: so few that sums of them do, too
constexpr u32 kTeam = 8;             // blocks of a team
constexpr u32 kLowBits = 21;         // of a mass, in the first of two words
static_assert(kBins % kWarp == 0, "octaves of masses have a bin for each lane");

// What the blocks of a team tell one another, in this order.
enum Message : u32 { kBestKeys, kOctaves, kFineBins, kChunks, kCandidates, kTotals, kMessages };

// What the others must know of the chunk of a block, of a row that top-p cuts.
struct Chunk {
  u64 above, rest;  // masses: above the bracket, and all others
  u64 candidates;
  static constexpr u32 kWords = 3;
};

// Whole is what the threads of a block share for a row without a top-k, and what the
// blocks of a team send each other.
struct Whole {
  static constexpr u32 kThreads = ::kThreads, kWarps = kThreads / kWarp;
  static constexpr u32 kListed = 2 * kWarp;  // vectors of a warp
  // What is clear at the start.
  alignas(16) u32 lower[kSegments], upper[kSegments];  // kept masses of segments, in two parts
  u32 groups[kBins];                         // masses of bins, about; then lower parts of their sums
  u32 highs[kBins];                          // upper parts; before, listed vectors of warps
  union {
    u64 candidates[kCutRoom];                // places; then the masses of rounds
    struct {  // no block tells candidates before all others are done with these
      u64 octaves[kTeam][kWarps];            // masses of two each, about
      u64 fine_bins[kTeam][kWarp];           // of a bin in each of two octaves, about
    };
  };
  union {
    u32 own[kCutRoom];                       // indices of this block's candidates
    u64 before_segments[kSegments];          // masses
  };
  Chunk chunks[kTeam];
  u64 totals[kTeam];                         // masses
  u32 best[kTeam * kWarps];                  // keys
  u64 signals[kMessages];                    // that all of them are there
  u64 above[kWarps], rest[kWarps];           // masses of warps
  u64 of_warps[kWarp];
  u32 lows[kWarp];                           // values of warps
  u32 count;                                 // of this block's candidates, also those without room
  u32 listed;
  u32 bin, bin_below;
  float scale, floor;
  u64 uniform;  // random number of the first draw
  u64 before, last;

  DEVICE void clear() {
    Vector* at = reinterpret_cast<Vector*>(lower);
    constexpr u32 kCleared = (sizeof lower + sizeof upper + sizeof groups) / sizeof(Vector);
#pragma unroll
    for (u32 i = 0; i < kCleared; i += kThreads) {
      if (i + thread_index() < kCleared) at[i + thread_index()] = Vector{{0, 0, 0, 0}};
    }
    if (thread_index() == 0) count = 0;
  }
  // Clears the bins and the lists.
  DEVICE void clear_bins() {
    static_assert((sizeof groups + sizeof highs) / sizeof(Vector) == kThreads, "each thread has a vector");
    reinterpret_cast<Vector*>(groups)[thread_index()] = Vector{{0, 0, 0, 0}};
  }
  DEVICE u32* list(u32 warp) { return highs + warp * kListed; }

  // Adds a mass to a variable in two parts, of which there are two arrays.
  static DEVICE void add(u32* lower, u32* upper, u64 mass) {
    atomic_add_only(lower, (u32)mass & ((1u << kLowBits) - 1));
    atomic_add_only(upper, (u32)(mass >> kLowBits));
  }
  static DEVICE u64 sum(u32 lower, u32 upper) { return ((u64)upper << kLowBits) + lower; }
  DEVICE void add_to(u32 segment, u64 mass) { add(&lower[segment], &upper[segment], mass); }
  DEVICE u64 of_segment(u32 segment) const { return sum(lower[segment], upper[segment]); }
};
static_assert(Whole::kWarps * Whole::kListed <= kBins, "lists take the place of bins");

// A team is the blocks that have a row: one alone, or a cluster. All threads of it begin, and all but the warps that settle wait
// for the others. A block tells by `tell`, and all others know behind `wait`.
struct Alone {
  static DEVICE u32 shift() { return 0; }  // blocks, as a power of two
  static DEVICE u32 blocks() { return 1; }
  static DEVICE u32 rank() { return 0; }
  static DEVICE void begin(Whole&) {}
  static DEVICE void wait_for_others() {}
  static DEVICE void meet() { block_barrier(); }
  template <class V>
  static DEVICE void tell(Whole&, Message, V* to, V v, u32) { *to = v; }
  static DEVICE void expect_of(Whole&, Message, u32) {}
  static DEVICE void wait(Whole&, Message) { block_barrier(); }
  static DEVICE void wait_behind_barrier(Whole&, Message) {}
  template <class V>
  static DEVICE V* of(V* variable, u32) { return variable; }
};

#if defined(AIKF_SHIM) || __CUDA_ARCH__ >= 900
// Tells by messages: a meeting waits for all memory of the GPU, and forgets the row in L1.
struct Cluster {
  static DEVICE u32 shift() { return lowest_bit(cluster_blocks()); }
  static DEVICE u32 blocks() { return cluster_blocks(); }
  static DEVICE u32 rank() { return cluster_rank(); }
  static DEVICE void begin(Whole& s) {
    // One of each warp: lanes would start theirs one after the other.
    const u32 message = thread_index() / kWarp;
    if (message < kMessages && thread_index() % kWarp == 0) {
      start_signal(&s.signals[message]);
      const u32 bytes = message == kBestKeys ? Whole::kWarps * sizeof s.best[0] : message == kOctaves ? sizeof s.octaves[0] :
                        message == kFineBins ? sizeof s.fine_bins[0] : message == kChunks ? sizeof s.chunks[0] : sizeof s.totals[0];
      if (message != kCandidates) expect(&s.signals[message], bytes * blocks());
    }
    warp_barrier();
    cluster_arrive_first();
  }
  static DEVICE void wait_for_others() { cluster_wait(); }
  static DEVICE void meet() {
    cluster_arrive();
    cluster_wait();
  }
  template <class V>
  static DEVICE void tell(Whole& s, Message message, V* to, V v, u32 rank) { send(to, v, &s.signals[message], rank); }
  // For messages that are not the same number each time: by one thread.
  static DEVICE void expect_of(Whole& s, Message message, u32 bytes) { expect(&s.signals[message], bytes); }
  static DEVICE void wait(Whole& s, Message message) { wait_for_signal(&s.signals[message]); }
  static DEVICE void wait_behind_barrier(Whole& s, Message message) { wait(s, message); }
  // The variable of a block of the team.
  template <class V>
  static DEVICE V* of(V* variable, u32 rank) { return in_block(variable, rank); }
};
#endif

// The e-th element of a vector, by its bits.
template <class T>
DEVICE u32 bits_of_element(const Vector& v, u32 e) {
  return T::kPerWord == 1 ? v.word[e] : e % 2 ? v.word[e / 2] >> 16 : v.word[e / 2] & 0xffff;
}

// The sum over a warp of numbers of any size.
DEVICE u64 warp_sum_any(u64 v) {
  constexpr u32 kPart = 27, kMask = (1u << kPart) - 1;  // bits of which a warp's sum fits a word
  return warp_sum((u32)v & kMask) + ((u64)warp_sum((u32)(v >> kPart) & kMask) << kPart) + ((u64)warp_sum((u32)(v >> 2 * kPart)) << 2 * kPart);
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
  DEVICE int surprise(float logit) const {
    const float v = distance(logit);
    return nearest_integer(v < floor ? law::kLeastSurprise : v);
  }
};

// The floor below which masses are less than min_p of the largest, for a whole warp; above 0 where
// the search for it failed.
DEVICE float floor_of(float min_p) {
  if (!(min_p > 0)) return law::kLeastSurprise;
  const u64 least = law::least_mass(min_p);
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

// Appends those elements of up to 32 listed vectors that lie in the bracket to the block's
// candidates. For a whole warp.
template <class T>
DEVICE void append_bracket(Whole& s, const Row<T>& row, const Weights& weights, const Bracket& bracket, const u32* list, u32 count) {
  const u32 lane = thread_index() % kWarp;
  if (lane < count) {
    const u32 at = row.at(list[lane]);
    const Vector v = row.vector(list[lane]);
    u32 marks = 0;
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e++) {
      marks |= (bracket.has(weights.surprise(number_of_bits<T>(bits_of_element<T>(v, e)))) ? 1u : 0u) << e;
    }
#pragma unroll 1
    for (u32 place = atomic_add(&s.count, population(marks)); marks && place < kCutRoom; marks &= marks - 1) s.own[place++] = at + lowest_bit(marks);
  }
  warp_barrier();
}

// Parts are the two of a weight, see law::Masses, each with a number too many, so that two of them are added in one
// instruction.
struct Parts {
  static constexpr u32 kHigh = (u32)(150 + law::kMassSplit) << 23 | 0x400000, kLow = 150u << 23 | 0x400000;
  u32 high, low;

  Parts() = default;
  DEVICE explicit Parts(float weight) {
    const float coarse = as_float(kHigh), fine = as_float(kLow), part = weight + coarse;
    high = as_bits(part);
    low = as_bits(weight - (part - coarse) + fine);
  }
};

// MassSums adds up the masses of a thread's vectors, at most 512: what is kept, and with kCut apart from it what the
// elements below a bracket or in it have.
template <class T, bool kCut>
struct MassSums {
  const Weights& weights;
  const Bracket& bracket;
  u32 high = 0, low = 0;
  law::Masses below = {};

  // Returns whether an element lies in the bracket.
  DEVICE bool add(const Vector& v) {
    u32 nearest = kAllLanes;
#pragma unroll
    for (u32 e = 0; e < T::kPerVector; e += 2) {
      Parts parts[2];
#pragma unroll
      for (u32 j = 0; j < 2; j++) {
        const int q = weights.surprise(number_of_bits<T>(bits_of_element<T>(v, e + j)));
        parts[j] = Parts(law::weight(q));
        if (kCut) {
          nearest = smaller(nearest, (u32)(q - bracket.low));
          if (q < bracket.high) below.high += parts[j].high - Parts::kHigh, below.low += (int)(parts[j].low - Parts::kLow);
        }
      }
      high += parts[0].high + parts[1].high, low += parts[0].low + parts[1].low;
    }
    return kCut && nearest < (u32)(bracket.high - bracket.low);
  }
  // What so many vectors have.
  DEVICE law::Masses kept(u32 vectors) const {
    const u32 terms = T::kPerVector * vectors;
    return law::Masses{high - terms * Parts::kHigh, (int)(low - terms * Parts::kLow)} - below;
  }
  DEVICE void clear() { high = low = 0, below = {}; }
};

// Adds up the masses of this block's segments; with kCut those above the bracket, and apart all others, and lists
// what lies in it. Apart, so that the loop has registers; and without the arguments, which would be read from memory.
template <class T, bool kCut, class Team>
DEVICE_APART void weigh(Whole& s, Team team, Row<T> row, Weights weights, Bracket bracket) {
  const Segments<T> segments(row, team);
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp, rounds = 1u << (segments.shift - 5);  // of a segment
  u64 above = 0, rest = 0;
  u32 listed = 0;
  u32* list = s.list(warp);
  const auto load = [&](u32 i) {
    Vector v = {{T::kWorst, T::kWorst, T::kWorst, T::kWorst}};
    if (i < row.vectors) v = row.vector(i);
    return v;
  };
  MassSums<T, kCut> own{weights, bracket};
  // The vectors of a lane: one in each round of its warp's segments.
  const u32 to_next = ((Whole::kWarps - 1) << segments.shift) + kWarp, last = (1u << segments.shift) - kWarp;
  u32 segment = segments.first + warp, i = (segment << segments.shift) + lane;
  Vector next = load(i);
#pragma unroll 1
  while (segment < segments.end) {
    const Vector v = next;
    const u32 at = i;
    const bool ends = (at & last) == last;  // its segment
    i += ends ? to_next : kWarp;
    next = load(i);
    const bool hit = own.add(v);
    if (kCut) {
      const u32 lanes = ballot(hit);
      if (hit) list[listed + population(lanes & ((1u << lane) - 1))] = at;
      listed += population(lanes);
    }
    if (ends) {
      const u64 kept = warp_sum(own.kept(rounds)).sum();
      if (kCut) rest += own.below.sum();
      own.clear();
      if (lane == 0) {
        s.add_to(segment, kept);
        if (kCut) above += kept;
      }
      segment += Whole::kWarps;
    }
    // When there is a vector for each lane, or no more comes.
    if (kCut && (listed >= kWarp || segment >= segments.end)) {
      warp_barrier();
      while (listed > 0) {
        const u32 some = smaller(listed, kWarp);
        listed -= some;
        append_bracket(s, row, weights, bracket, list + listed, some);
      }
    }
  }
  if (thread_index() < row.edges()) {
    const u32 index = row.edge(thread_index()), bits = row.bits(index), edge = segments.of_index(row, index);
    const int q = weights.surprise(number_of_bits<T>(bits));
    const u64 mass = law::mass(q);
    if (edge < segments.first || edge >= segments.end) {
      // Another block's.
    } else if (!kCut || q >= bracket.high) {
      s.add_to(edge, mass);
      above += mass;
    } else {
      rest += mass;
      if (bracket.has(q)) {
        const u32 place = atomic_add(&s.count, 1);
        if (place < kCutRoom) s.own[place] = index;
      }
    }
  }
  if (kCut) {
    above = warp_sum_any(above), rest = warp_sum_any(rest);
    if (lane == 0) s.above[warp] = above, s.rest[warp] = rest;
  }
}
