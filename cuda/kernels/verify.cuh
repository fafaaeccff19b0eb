// Chain speculative verification: arXiv 2211.17192 and 2302.01318, in exact integers.
//
// Shapes: a team of blocks for each row of each sequence, which finds the laws of target and
// draft there, decides whether the drafted token stands, and draws the token that takes its
// place if it does not: none of that depends on the rows before. The last row of a
// sequence to end knows the first row at which the chain stops, by one word of
// the workspace, and writes what follows from it. Where top-k leaves few tokens, one block of the
// team finds the target's law, and another the draft's; else each has a part of the
// ids. Order: tokens in the order of their ids where one is drawn. Bytes: each row of
// logits once to find its law where few tokens are kept, twice otherwise; twice more,
// both rows, where a token is drawn from the residual.
#pragma once

#include "sample.cuh"

using Selection = Block<u64, kThreads, kRoom>;

// Wide is an unsigned integer of 128 bits.
struct Wide {
  u64 high, low;
  DEVICE bool operator<(const Wide& other) const { return high < other.high || (high == other.high && low < other.low); }
  DEVICE Wide operator+(const Wide& other) const {
    const u64 sum = low + other.low;
    return {high + other.high + (sum < low ? 1 : 0), sum};
  }
  DEVICE Wide operator-(const Wide& other) const { return {high - other.high - (low < other.low ? 1 : 0), low - other.low}; }
  // The lower half of it divided by 2^n, n < 64.
  DEVICE u64 shifted(u32 n) const { return n ? low >> n | high << (64 - n) : low; }
};

DEVICE Wide product(u64 a, u64 b) { return {multiply_high(a, b), a * b}; }

DEVICE u32 bit_length(u64 v) { return v >> 32 ? 64 - leading_zeros((u32)(v >> 32)) : 32 - leading_zeros((u32)v); }

// How many bits more than the 62 of masses a sum has.
DEVICE u32 excess_bits(const Wide& sum) {
  constexpr u32 kMost = 62;
  const u32 bits = sum.high ? 64 + bit_length(sum.high) : bit_length(sum.low);
  return bits > kMost ? bits - kMost : 0;
}

// The sum over a warp, less than 2^62.
DEVICE u64 warp_sum_of_masses(u64 v) {
  constexpr u32 kLimb = 26;  // bits
  constexpr u64 kAll = (1u << kLimb) - 1;
  return warp_sum((u32)(v & kAll)) + ((u64)warp_sum((u32)(v >> kLimb & kAll)) << kLimb) + ((u64)warp_sum((u32)(v >> 2 * kLimb)) << 2 * kLimb);
}

// A team is the blocks that have a row: a cluster, or one alone.
#if defined(AIKF_SHIM) || __CUDA_ARCH__ >= 900
struct Team {
  static DEVICE u32 blocks() { return cluster_blocks(); }
  static DEVICE u32 rank() { return cluster_rank(); }
  static DEVICE void arrive() { cluster_arrive(); }
  static DEVICE void wait() { cluster_wait(); }
  // The variable of a block of the team.
  template <class V>
  static DEVICE V* of(V* variable, u32 rank) { return in_block(variable, rank); }
};
#else
struct Team {
  static DEVICE u32 blocks() { return 1; }
  static DEVICE u32 rank() { return 0; }
  static DEVICE void arrive() {}
  static DEVICE void wait() { block_barrier(); }
  template <class V>
  static DEVICE V* of(V* variable, u32) { return variable; }
};
#endif

constexpr u32 kTeamBlocks = 8;  // at most

// Apart, because it is long, and most rows have no soft cap.
DEVICE_APART float soft_capped(float logit, float cap) { return law::capped(logit, cap); }

// RowLaw is the law of a row of logits. The kept set is a prefix in contract order, less
// what has too little mass: the place of its last token tells it.
template <class T>
struct RowLaw {
  using Bits = u32;
  static constexpr u32 kFew = 192, kIndexBits = 20;

  const typename T::Element* logits;
  u64 last;   // kept place, or 0
  u64 least;  // kept mass
  u64 total;
  float most, scale, softcap;
  Status status;
  u32 few;    // tokens that are kept, in shared memory; 0: too many for that
  u32 reserved;

  static DEVICE u64 place(u32 key, u32 id) { return (u64)key << kIndexBits | ((1u << kIndexBits) - 1 - id); }

  // The logit of an element that is not NaN.
  static DEVICE float value(u32 bits) {
    if (T::kBits == 32) return as_float(bits);
    if (T::kBestNumber - T::kSign == 0x7f80) return as_float(bits << 16);
    return number_of<T>(T::key(bits));
  }
  DEVICE float capped(float logit) const { return softcap > 0 ? soft_capped(logit, softcap) : logit; }
  DEVICE float logit(u32 key) const { return capped(number_of<T>(key)); }
  DEVICE u64 mass_of(float logit) const {
    if (most > 0x1.fffffep127f) return logit == most ? 1ull << law::kMassBits : 0;
    return law::mass(law::surprise(logit, most, scale));
  }
  DEVICE bool keeps(u32 key, u32 id) const { return place(key, id) >= last; }
  DEVICE u64 enough(u64 mass) const { return mass < least ? 0 : mass; }
  DEVICE u64 mass(u32 key, u32 id) const { return keeps(key, id) ? enough(mass_of(logit(key))) : 0; }
  DEVICE u32 bits(u32 id) const { return logits[id]; }
  DEVICE u64 mass_of_bits(u32 bits, u32 id) const {
    if (last > 0 && !keeps(T::key(bits), id)) return 0;
    return enough(mass_of(capped(value(bits))));
  }
};

// What the draft thinks of tokens, as RowLaw, or as probabilities if these are not null.
template <class T>
struct DraftLaw {
  RowLaw<T> row;
  const float* probabilities;
  u64 total;

  static DEVICE bool probable(float p) { return p >= 0 && p <= 1; }
  static DEVICE u64 mass_of(float p) {
    law::Masses one;
    one.add(p * 0x1p42f);
    return one.sum();
  }
  DEVICE u32 bits(u32 id) const { return probabilities ? as_bits(probabilities[id]) : row.bits(id); }
  DEVICE u64 mass_of_bits(u32 bits, u32 id) const { return probabilities ? mass_of(as_float(bits)) : row.mass_of_bits(bits, id); }
};

// The mass of an id.
template <class L>
DEVICE u64 mass_of_id(const L& law, u32 id) { return law.mass_of_bits(law.bits(id), id); }

// Numbers are some of a warp, or of a block.
constexpr u32 kNumbers = 8;
struct Numbers {
  u64 of[kNumbers];
};

// Turn is what the threads of a block share beside the selection.
template <class T>
struct Turn {
  static constexpr u32 kMost = 1024;  // results
  SampleArguments one;  // the row whose law is looked for, as a batch of itself
  u64 sorted[kMost];
  RowLaw<T> target;
  DraftLaw<T> draft;
  Wide sums[kWarp];                  // of warps
  Numbers of_warps[Selection::kWarps];
  Numbers of_blocks[2][kTeamBlocks];  // what the blocks of the team tell, and have told before
  u64 total, rest;
  u32 counts[kWarp];  // of warps
  u32 told;           // which of the two comes next
  u32 kept;
  u32 chosen;
  u32 stop;  // of the chain, where this block is the last of it

  // Where the selection writes.
  struct Sorted {
    u64* words;
    DEVICE void write(u32 rank, u64 word) const { words[rank] = word; }
  };
};

// The part of a row's ids that a block of the team has.
struct Part {
  u32 begin, end;
  DEVICE Part(u32 vocab) {
    const u32 share = (vocab + Team::blocks() - 1) / Team::blocks();
    begin = smaller(Team::rank() * share, vocab);
    end = smaller(begin + share, vocab);
  }
};

// Calls see(bits, id) for each id of this thread from begin to end, a step apart, with the
// bits of kBatch of them on their way at a time.
template <u32 kBatch, class L, class See>
DEVICE void see_each(const L& law, u32 begin, u32 end, u32 step, See see) {
#pragma unroll 1
  for (u32 first = begin; first < end; first += kBatch * step) {
    typename L::Bits bits[kBatch];
#pragma unroll
    for (u32 e = 0; e < kBatch; e++) {
      if (first + e * step < end) bits[e] = law.bits(first + e * step);
    }
#pragma unroll
    for (u32 e = 0; e < kBatch; e++) {
      if (first + e * step < end) see(bits[e], first + e * step);
    }
  }
}

// The sum of what the threads before this one have, and of what all have.
template <class T>
DEVICE u64 scan_masses(Turn<T>& turn, u64 mine, u64& all) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  u64 through = mine;
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) {
    const u64 up = (u64)shuffle_up((u32)(through >> 32), d) << 32 | shuffle_up((u32)through, d);
    if (lane >= d) through += up;
  }
  if (lane == kWarp - 1) turn.sums[warp].low = through;
  block_barrier();
  const u64 sum = lane < Selection::kWarps ? turn.sums[lane].low : 0;
  all = warp_sum_of_masses(sum);
  const u64 before = through - mine + warp_sum_of_masses(lane < warp ? sum : 0);
  block_barrier();  // all have read them
  return before;
}

// The sum over the block.
template <class T>
DEVICE Wide block_sum(Turn<T>& turn, Wide mine) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) mine = mine + Wide{shuffle_xor(mine.high, d), shuffle_xor(mine.low, d)};
  if (lane == 0) turn.sums[warp] = mine;
  block_barrier();
  Wide all = {0, 0};
#pragma unroll
  for (u32 w = 0; w < Selection::kWarps; w++) all = all + turn.sums[w];
  block_barrier();  // all have read them
  return all;
}

// Tells all blocks of the team the first numbers that each of them has. Who is told of the
// next but one has read this.
template <class T>
DEVICE const Numbers* tell_team(Turn<T>& turn, const Numbers& mine, u32 count = kNumbers) {
  Numbers* told = turn.of_blocks[turn.told];
  if (thread_index() < Team::blocks()) {
    Numbers* to = Team::of(told, thread_index()) + Team::rank();
#pragma unroll
    for (u32 i = 0; i < kNumbers; i++) {
      if (i < count) to->of[i] = mine.of[i];
    }
  }
  block_barrier();  // all have read which
  if (thread_index() == 0) turn.told ^= 1;
  if (Team::blocks() > 1) Team::arrive(), Team::wait();
  block_barrier();
  return told;
}

// Has all blocks of the team hold what the block of that rank does, when they have told
// each other something.
template <class V>
DEVICE void send_to_team(V& variable, u32 from) {
  constexpr u32 kWords = sizeof(V) / sizeof(u32);
  if (Team::rank() != from) return;
  for (u32 i = thread_index(); i < kWords * Team::blocks(); i += kThreads) {
    if (i / kWords == from) continue;
    reinterpret_cast<u32*>(Team::of(&variable, i / kWords))[i % kWords] = reinterpret_cast<const u32*>(&variable)[i % kWords];
  }
}

// The sum over the team.
template <class T>
DEVICE Wide team_sum(Turn<T>& turn, Wide mine) {
  mine = block_sum(turn, mine);
  const Numbers* told = tell_team(turn, {mine.high, mine.low}, 2);
  Wide all = {0, 0};
  for (u32 rank = 0; rank < Team::blocks(); rank++) all = all + Wide{told[rank].of[0], told[rank].of[1]};
  return all;
}

// The same for each number, less than 2^62.
template <class T>
DEVICE Numbers team_sums(Turn<T>& turn, Numbers mine) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
#pragma unroll
  for (u32 i = 0; i < kNumbers; i++) {
    mine.of[i] = warp_sum_of_masses(mine.of[i]);
    if (lane == 0) turn.of_warps[warp].of[i] = mine.of[i];
  }
  block_barrier();
  Numbers all = {};
  for (u32 w = 0; w < Selection::kWarps && thread_index() < kWarp; w++) {
#pragma unroll
    for (u32 i = 0; i < kNumbers; i++) all.of[i] += turn.of_warps[w].of[i];
  }
  const Numbers* told = tell_team(turn, all);
  all = {};
  for (u32 rank = 0; rank < Team::blocks(); rank++) {
#pragma unroll
    for (u32 i = 0; i < kNumbers; i++) all.of[i] += told[rank].of[i];
  }
  return all;
}

// Has the shared arguments be those of one row.
DEVICE void take_row(SampleArguments& one, const LawArguments& from, u32 vocab, u32 sequence, i64 row, u32 element_bytes) {
  u32* words = reinterpret_cast<u32*>(&one);
  block_barrier();  // the row before is done with
  for (u32 i = thread_index(); i < sizeof one / sizeof *words; i += kThreads) words[i] = 0;
  block_barrier();
  if (thread_index() == 0) {
    one.logits = static_cast<const u8*>(from.logits) + row * from.stride * element_bytes;
    one.rows = one.chunks = one.draws = 1;
    one.vocab = vocab;
    one.k = from.k;
    one.groups = from.groups;
    one.temperature = from.row_temperature ? from.row_temperature[sequence] : from.temperature;
    one.top_k = from.row_top_k ? from.row_top_k[sequence] : from.top_k;
    one.top_p = from.row_top_p ? from.row_top_p[sequence] : from.top_p;
    one.min_p = from.row_min_p ? from.row_min_p[sequence] : from.min_p;
    one.softcap = from.softcap;
    one.greedy_below = from.greedy_below;
    one.k = left_by_top_k(one, RowParameters(one, 0), vocab);
    one.min_p_last = from.min_p_last;
    one.typical_p = one.repetition = 1;
  }
  block_barrier();
}

// What a row's best key says of it.
template <class T>
DEVICE Status status_of_best(u32 key) { return key == T::kNaNKey ? kNaN : key == T::kWorstNumber ? kEmpty : kDone; }

// The kept among the best k of a row, which are sorted. Their masses take the place of the
// candidates.
template <class T>
DEVICE RowLaw<T> law_of_best(Selection& block, Turn<T>& turn, u32 k, RowLaw<T> law) {
  const SampleArguments& one = turn.one;
  const RowParameters p(one, 0);
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const u32 best = Word<u64>::key(turn.sorted[0]);
  law.status = status_of_best<T>(best);
  if (law.status != kDone) return law;
  u64* masses = block.candidates;
  law.scale = p.greedy(one) ? 0 : law::scale(p.temperature);
  law.most = law.logit(best);
  const u64 least = law::ceil_product(p.min_p, 1ull << law::kMassBits);
  const u32 items = (k + kThreads - 1) / kThreads;
  u64 sum = 0, whole;
  u32 heavy = 0;
#pragma unroll 1
  for (u32 i = 0; i < items; i++) {
    const u32 rank = thread * items + i;
    if (rank >= k) break;
    const u64 mass = law.mass_of(law.logit(Word<u64>::key(turn.sorted[rank])));
    masses[rank] = mass;
    heavy += mass >= least;
    if (mass >= least || one.min_p_last) sum += mass;
  }
  heavy = warp_sum(heavy);
  if (lane == 0) turn.counts[warp] = heavy;
  u64 before = scan_masses(turn, sum, whole);
  heavy = warp_sum(lane < Selection::kWarps ? turn.counts[lane] : 0);
  const u64 enough = p.top_p < 1 ? law::ceil_product(p.top_p, whole) : ~0ull;
#pragma unroll 1
  for (u32 i = 0; i < items; i++) {
    const u32 rank = thread * items + i;
    if (rank >= heavy || before >= enough) break;
    const u64 through = before + masses[rank];
    if (through >= enough || rank == heavy - 1) turn.kept = rank + 1, turn.total = through;
    before = through;
  }
  block_barrier();
  law.total = turn.total;
  law.few = turn.kept <= RowLaw<T>::kFew ? turn.kept : 0;
  const u64 word = turn.sorted[turn.kept - 1];
  law.last = RowLaw<T>::place(Word<u64>::key(word), Word<u64>::index(word));
  return law;
}

// Finds the token, in the order of ids, at which the sum of masses exceeds a target, and
// returns whether it is in this block's part. The law tells masses of ids by their bits,
// target_of what to look for in a sum of all. The team calls it.
template <class T, class P, class L>
DEVICE bool find_in_order(Selection& block, Turn<T>& turn, u32 vocab, P target_of, const L& law) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u64* pieces = block.candidates;  // sums of neighbouring ids
  const Part part(vocab);
  u32 piece = 4 * kWarp;
  while (piece * kBins < part.end - part.begin) piece *= 2;
  const u32 count = (part.end - part.begin + piece - 1) / piece;
#pragma unroll 1
  for (u32 i = warp; i < count; i += Selection::kWarps) {
    u64 sum = 0;
    const u32 first = part.begin + i * piece;
    see_each<4>(law, first + lane, smaller(first + piece, part.end), kWarp, [&](const typename L::Bits& bits, u32 id) { sum += law.mass_of_bits(bits, id); });
    sum = warp_sum_of_masses(sum);
    if (lane == 0) pieces[i] = sum;
  }
  block_barrier();
  constexpr u32 kOwn = kBins / kThreads;
  u64 sum = 0, all;
#pragma unroll
  for (u32 i = 0; i < kOwn; i++) sum += thread * kOwn + i < count ? pieces[thread * kOwn + i] : 0;
  u64 before = scan_masses(turn, sum, all);
  const Numbers* told = tell_team(turn, {all}, 1);
  u64 whole = 0;
  for (u32 rank = 0; rank < Team::blocks(); rank++) {
    if (rank == Team::rank()) before += whole;
    whole += told[rank].of[0];
  }
  const u64 target = target_of(whole);
  if (thread == 0) turn.chosen = kAllLanes;
  block_barrier();
#pragma unroll
  for (u32 i = 0; i < kOwn; i++) {
    const u64 size = thread * kOwn + i < count ? pieces[thread * kOwn + i] : 0;
    if (before <= target && target - before < size) turn.chosen = thread * kOwn + i, turn.rest = target - before;
    before += size;
  }
  block_barrier();
  if (turn.chosen == kAllLanes) return false;
  // The same among the ids of that piece.
  const u32 own = (piece + kThreads - 1) / kThreads, first = part.begin + turn.chosen * piece, begin = thread * own;
  const u64 rest = turn.rest;
  const auto mass_at = [&](u32 i) { return begin + i < piece && first + begin + i < part.end ? mass_of_id(law, first + begin + i) : 0; };
  sum = 0;
#pragma unroll 1
  for (u32 i = 0; i < own; i++) sum += mass_at(i);
  before = scan_masses(turn, sum, all);
#pragma unroll 1
  for (u32 i = 0; i < own; i++) {
    const u64 size = mass_at(i);
    if (before <= rest && rest - before < size) turn.chosen = first + begin + i;
    before += size;
  }
  block_barrier();
  return true;
}

// The kept mass. The team calls it.
template <class T>
DEVICE_APART u64 sum_of_law(Turn<T>& turn, const RowLaw<T>& law, u32 vocab) {
  u64 sum = 0;
  const Part part(vocab);
  see_each<4>(law, part.begin + thread_index(), part.end, kThreads, [&](u32 bits, u32 id) { sum += law.mass_of_bits(bits, id); });
  return team_sum(turn, {0, sum}).low;
}

// Having counts the ids that have a key.
template <class T>
struct Having {
  using Bits = u32;
  const RowLaw<T>& law;
  u32 key;
  DEVICE u32 bits(u32 id) const { return law.bits(id); }
  DEVICE u64 mass_of_bits(u32 bits, u32) const { return T::key(bits) == key ? 1 : 0; }
};

// Finds the place of the last that is kept where the first in contract order are, as few as
// have a sum of at least `enough`: of their masses, or of ones. Eighths of a range of keys at
// a time; what is above it is in the sum already, what is below is not needed. The team
// calls it.
template <class T>
DEVICE_APART u64 find_last(Selection& block, Turn<T>& turn, const RowLaw<T>& law, u32 vocab, u32 best, u64 enough, bool ones) {
  const Part part(vocab);
  const auto of = [&](u32 key, u32 id) { return ones ? 1ull : law.mass(key, id); };
  u64 above = 0, reach = 0;  // the sums of what is above the range, and of what is in it too
  u32 low = 0, range = best + 1;
#pragma unroll 1
  while (range > 1) {
    const u32 bits = kWarp - leading_zeros(range - 1), shift = bits > 3 ? bits - 3 : 0;
    Numbers sums = {};
    see_each<4>(law, part.begin + thread_index(), part.end, kThreads, [&](u32 bits, u32 id) {
      const u32 key = T::key(bits), eighth = (key - low) >> shift;
      if (key < low || key - low >= range || eighth == 0) return;
      const u64 one = of(key, id);
#pragma unroll
      for (u32 i = 1; i < kNumbers; i++) sums.of[i] += i == eighth ? one : 0;
    });
    sums = team_sums(turn, sums);
    u32 chosen = 0;
#pragma unroll
    for (u32 i = kNumbers - 1; i > 0; i--) {
      if (chosen > 0) continue;
      if (above + sums.of[i] >= enough) {
        chosen = i;
        reach = above + sums.of[i];
      } else {
        above += sums.of[i];
      }
    }
    low += chosen << shift;
    range = smaller(range - (chosen << shift), 1u << shift);
  }
  // Of those that have the key, as many as are missing, those of the smallest ids: of id 0
  // none of these would be removed before.
  const u64 one = of(low, 0), missing = (enough - above + one - 1) / one;
  if (missing * one == reach - above) return RowLaw<T>::place(low, (1u << RowLaw<T>::kIndexBits) - 1);
  const bool mine = find_in_order(block, turn, vocab, [&](u64) { return missing - 1; }, Having<T>{law, low});
  const Numbers* told = tell_team(turn, {mine ? turn.chosen + 1ull : 0}, 1);
  u64 id = 0;
  for (u32 rank = 0; rank < Team::blocks(); rank++) id += told[rank].of[0];
  return RowLaw<T>::place(low, (u32)id - 1);
}

// The law of a row of which any number may be kept. The team calls it.
template <class T>
DEVICE_APART void find_law_of_all(Selection& block, Turn<T>& turn, RowLaw<T>& to) {
  const SampleArguments& one = turn.one;
  const RowParameters p(one, 0);
  const Row<T> chunk(one, 0, Team::rank(), Team::blocks());
  const u32 vocab = one.vocab;
  RowLaw<T> law = {Row<T>(one, 0, 0, 1).logits, 0, 0, 0, 0, 0, one.softcap, kDone, 0, 0};
  Share share;
  read_share<T, kThreads>(chunk, share);
  u32 best = best_of_row(block, chunk, share);
  const Numbers* told = tell_team(turn, {best}, 1);
  for (u32 rank = 0; rank < Team::blocks(); rank++) best = larger(best, (u32)told[rank].of[0]);
  law.status = status_of_best<T>(best);
  if (law.status == kDone) {
    law.scale = law::scale(p.temperature);
    law.most = law.logit(best);
    const u64 least = law::ceil_product(p.min_p, 1ull << law::kMassBits);
    if (p.top_k > 0 && (u32)p.top_k < vocab) {
      law.last = find_last(block, turn, law, vocab, best, p.top_k, true);
    }
    if (!one.min_p_last) law.least = least;
    law.total = sum_of_law(turn, law, vocab);
    if (p.top_p < 1) {
      law.last = find_last(block, turn, law, vocab, best, law::ceil_product(p.top_p, law.total), false);
    }
    if (p.top_p < 1 || law.least < least) {
      law.least = least;
      law.total = sum_of_law(turn, law, vocab);
    }
  }
  if (thread_index() == 0) to = law;
  block_barrier();
}

// The law of the k best of a row. One block calls it.
template <class T>
DEVICE_APART void find_law_of_best(Selection& block, Turn<T>& turn, RowLaw<T>& to) {
  const SampleArguments& one = turn.one;
  const Row<T> row(one, 0, 0, 1);
  const Stamps<false> stamps(one);
  const typename Turn<T>::Sorted sorted{turn.sorted};
  block.empty();
  find<T>(block, sorted, one, 0, 0, 1, stamps, merge_of(block, sorted, stamps));
  block_barrier();
  const RowLaw<T> law = law_of_best<T>(block, turn, row.k, {row.logits, 0, 0, 0, 0, 0, one.softcap, kDone, 0, 0});
  if (thread_index() == 0) to = law;
  block_barrier();
}

// Finds the law of the row in the shared arguments: all of the team if many tokens may be
// kept, else the block of that rank. Returns whether all have it.
template <class T>
DEVICE bool find_law(Selection& block, Turn<T>& turn, u32 rank, RowLaw<T>& law) {
  if (!RowParameters(turn.one, 0).valid()) {
    if (thread_index() == 0) law.status = kBadParameters;
    block_barrier();
    return true;
  }
  if (Row<T>(turn.one, 0, 0, 1).k == 0) {
    find_law_of_all<T>(block, turn, law);
    return true;
  }
  if (Team::rank() == rank) find_law_of_best<T>(block, turn, law);
  return false;
}

// Adds up the draft's probabilities. Those outside of 0 to 1 are bad parameters. The team
// calls it.
template <class T>
DEVICE_APART void find_probabilities(Turn<T>& turn, const float* row, u32 vocab, DraftLaw<T>& draft) {
  u64 sum = 0;
  bool bad = false;
  const Part part(vocab);
#pragma unroll 8
  for (u32 id = part.begin + thread_index(); id < part.end; id += kThreads) {
    const float p = row[id];
    const bool probable = DraftLaw<T>::probable(p);
    bad |= !probable;
    sum += DraftLaw<T>::mass_of(probable ? p : 0);
  }
  const Wide all = team_sum(turn, {bad ? 1ull : 0, sum});
  if (thread_index() == 0) {
    draft.probabilities = row;
    draft.total = all.low;
    draft.row.status = all.high ? kBadParameters : kDone;
  }
  block_barrier();
}

// Finds the token that a target, less than the sum of the few masses of the target, falls
// on.
template <class T>
DEVICE void draw_of_few(const u64* masses, Turn<T>& turn, u32 count, u64 target) {
  constexpr u32 kLanes = 8;
  const u32 lane = thread_index() % kLanes;
#pragma unroll 1
  for (u32 base = 0; base < count; base += kThreads / kLanes) {
    const u32 rank = base + thread_index() / kLanes, id = rank < count ? Word<u64>::index(turn.sorted[rank]) : 0;
    u64 below = 0;
#pragma unroll 4
    for (u32 other = lane; other < count; other += kLanes) {
      if (Word<u64>::index(turn.sorted[other]) < id) below += masses[other];
    }
#pragma unroll
    for (u32 d = 1; d < kLanes; d *= 2) below += shuffle_xor(below, d);
    if (lane == 0 && rank < count && below <= target && target - below < masses[rank]) turn.chosen = id;
  }
  block_barrier();
}

// Draws a token by masses, of which one is not 0, and returns whether this block has it.
template <class T, class L>
DEVICE bool draw_in_order(Selection& block, Turn<T>& turn, u32 vocab, u64 random, const L& law) {
  return find_in_order(block, turn, vocab, [&](u64 total) { return law::target(random, total); }, law);
}

// Draws a token of the target's law, and returns whether this block has it.
template <class T>
DEVICE bool draw_target(Selection& block, Turn<T>& turn, u32 vocab, u64 random) {
  const RowLaw<T> target = turn.target;
  if (target.few == 0) return draw_in_order(block, turn, vocab, random, target);
  draw_of_few(block.candidates, turn, target.few, law::target(random, target.total));
  return true;
}

// Residual is what the target has more of than the draft, times both totals, without the
// lowest bits.
template <class T>
struct Residual {
  const RowLaw<T> target;
  const DraftLaw<T> draft;
  u32 shift;

  struct Bits {
    u32 target, draft;
  };
  DEVICE Bits bits(u32 id) const { return {target.bits(id), draft.bits(id)}; }
  DEVICE Wide excess(u64 mass, u32 draft_bits, u32 id) const {
    if (mass == 0) return {0, 0};
    const Wide more = product(mass, draft.total), less = product(draft.mass_of_bits(draft_bits, id), target.total);
    return more < less ? Wide{0, 0} : more - less;
  }
  DEVICE Wide excess(const Bits& bits, u32 id) const { return excess(target.mass_of_bits(bits.target, id), bits.draft, id); }
  DEVICE u64 mass_of_bits(const Bits& bits, u32 id) const { return excess(bits, id).shifted(shift); }
};

// Draws a token of the residual, or of the target if there is none, and returns whether
// this block has it.
template <class T>
DEVICE_APART bool draw_residual(Selection& block, Turn<T>& turn, u32 vocab, u64 random) {
  Residual<T> residual = {turn.target, turn.draft, 0};
  const u32 thread = thread_index(), few = residual.target.few;
  static_assert(RowLaw<T>::kFew <= kThreads, "each thread has one");
  u64* masses = block.candidates;
  Wide sum = {0, 0};
  if (few > 0) {
    const u32 id = thread < few ? Word<u64>::index(turn.sorted[thread]) : 0;
    if (thread < few) sum = residual.excess(masses[thread], residual.draft.bits(id), id);
    const Wide mine = sum;
    sum = block_sum(turn, sum);
    const u64 mass = mine.shifted(excess_bits(sum));
    u64 total;
    scan_masses(turn, mass, total);
    if (total == 0) return draw_target(block, turn, vocab, random);
    if (thread < few) masses[thread] = mass;
    block_barrier();
    draw_of_few(masses, turn, few, law::target(random, total));
    return true;
  }
  const Part part(vocab);
  see_each<2>(residual, part.begin + thread, part.end, kThreads, [&](const typename Residual<T>::Bits& bits, u32 id) { sum = sum + residual.excess(bits, id); });
  sum = team_sum(turn, sum);
  if ((sum.high | sum.low) == 0) return draw_target(block, turn, vocab, random);
  residual.shift = excess_bits(sum);
  return draw_in_order(block, turn, vocab, random, residual);
}

// What a row comes to.
struct Outcome {
  u32 token;
  bool stops;  // the chain
  Status status;
  bool told;   // by another block of the team
};

DEVICE i64 integer_at(const void* integers, u32 bytes, i64 at) {
  return bytes == 8 ? static_cast<const i64*>(integers)[at] : static_cast<const int*>(integers)[at];
}

template <class T>
DEVICE Outcome verify_row(Selection& block, Turn<T>& turn, const VerifyArguments& a, u32 sequence, u32 i, u32 drafted) {
  const bool bonus = i == drafted, first = Team::rank() == 0;
  const i64 draft_row = (i64)sequence * a.drafts + i;
  u32 token = 0;
  bool shared = true;  // the draft's law
  const u32 drafter = Team::blocks() - 1;
  if (!bonus) {
    const i64 id = integer_at(a.drafted, a.drafted_bytes, sequence * a.drafted_stride + i);
    if (id < 0 || id >= a.vocab) return {0, true, kBadParameters, !first};
    token = (u32)id;
    if (a.draft.logits) {
      take_row(turn.one, a.draft, a.vocab, sequence, draft_row, sizeof(typename T::Element));
      shared = find_law<T>(block, turn, drafter, turn.draft.row);
      const bool known = shared || Team::rank() == drafter;
      if (known && thread_index() == 0) turn.draft.probabilities = nullptr, turn.draft.total = turn.draft.row.total;
    } else {
      find_probabilities<T>(turn, a.probabilities + draft_row * a.draft.stride, a.vocab, turn.draft);
    }
  }
  take_row(turn.one, a.target, a.vocab, sequence, (i64)sequence * (a.drafts + 1) + i, sizeof(typename T::Element));
  const bool all_verify = find_law<T>(block, turn, 0, turn.target);
  if (Team::blocks() > 1 && !(shared && all_verify)) {
    if (!shared) send_to_team(turn.draft, drafter);
    if (!all_verify) send_to_team(turn.target, 0);
    tell_team(turn, {}, 0);
  }
  if (!bonus && turn.draft.row.status == kBadParameters) return {0, true, kBadParameters, !first};
  if (turn.target.status != kDone) return {0, true, turn.target.status, !first};
  if (!bonus && turn.draft.row.status != kDone) return {0, true, turn.draft.row.status, !first};
  if (turn.target.few > 0 && !first) return {0, false, kDone, true};

  const u64 seed = a.row_seed ? a.row_seed[sequence] : a.seed;
  const u64 position = (a.row_position ? a.row_position[sequence] : a.position) + i;
  const u32 draw = a.first_draw + sequence * a.row_draws;
  bool found;
  if (bonus) {
    found = draw_target(block, turn, a.vocab, law::uniform(seed, position, draw, law::kDraw));
  } else {
    const Wide more = product(mass_of_id(turn.target, token), turn.draft.total), less = product(mass_of_id(turn.draft, token), turn.target.total);
    const u64 random = law::uniform(seed, position, draw, law::kAccept);
    if ((product(random, less.high) + Wide{0, multiply_high(random, less.low)}) < more) return {token, false, kDone, !first};
    found = draw_residual(block, turn, a.vocab, law::uniform(seed, position, draw, law::kResidual));
  }
  return {turn.chosen, true, kDone, !found};
}

// Chain is what the blocks of a sequence share, in the workspace. It is 0 between launches.
struct Chain {
  u32 stop;   // rows behind the first that stops the chain, and one more, above that row's status
  u32 ended;  // blocks
};

DEVICE void write_verified(const VerifyArguments& a, u32 sequence, u32 i, int token) {
  const i64 at = sequence * a.result_stride + i;
  if (a.index_bytes == 8) {
    static_cast<i64*>(a.tokens)[at] = token;
  } else {
    static_cast<int*>(a.tokens)[at] = token;
  }
}

template <class T>
DEVICE void verify(const VerifyArguments& a) {
  SHARED(Selection, block);
  SHARED(Turn<T>, turn);
  constexpr u32 kStatusBits = 8;
  const u32 rows = a.drafts + 1, number = block_index() / Team::blocks(), sequence = number / rows, i = number % rows, thread = thread_index();
  if (thread == 0) turn.told = 0;
  Team::arrive();  // all blocks are there before one writes to another
  wait_for_kernel_before();
  const int drafted = a.drafted_count ? a.drafted_count[sequence] : a.drafts;
  Outcome outcome = {0, false, kEmpty, Team::rank() > 0};  // of a row that is not there
  Team::wait();
  if (drafted < 0 || drafted > a.drafts) {
    outcome.stops = i == 0, outcome.status = kBadParameters;
  } else if (i <= (u32)drafted) {
    outcome = verify_row<T>(block, turn, a, sequence, i, drafted);
  }
  release_kernel_behind();
  if (outcome.told) return;
  Chain* chain = static_cast<Chain*>(a.workspace) + sequence;
  if (thread == 0) {
    if (outcome.status == kDone) write_verified(a, sequence, i, outcome.token);
    if (outcome.stops) device_max(&chain->stop, (outcome.status == kBadParameters ? rows + 1 : rows - i) << kStatusBits | outcome.status);
    turn.stop = 0;
    if (device_add(&chain->ended, 1) == rows - 1) {
      turn.stop = device_exchange(&chain->stop, 0);
      chain->ended = 0;
    }
  }
  block_barrier();
  if (turn.stop == 0) return;
  const u32 behind = turn.stop >> kStatusBits, status = turn.stop & ((1u << kStatusBits) - 1);
  const u32 accepted = behind > rows ? 0 : rows - behind;
  for (u32 at = accepted + (status == kDone ? 1 : 0) + thread; at < rows; at += kThreads) write_verified(a, sequence, at, a.invalid_token);
  if (thread == 0 && a.accepted) a.accepted[sequence] = accepted;
  if (thread == 0 && a.status) a.status[sequence] = status;
}
