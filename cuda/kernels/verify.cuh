// Chain speculative verification: arXiv 2211.17192 and 2302.01318, in exact integers.
//
// Shapes: a block for each row of each sequence, which finds the laws of target and draft
// there, decides whether the drafted token stands, and draws the token that takes its
// place if it does not: none of that depends on the rows before. The last block of a
// sequence to end knows the first row at which the chain stops, by one word of
// the workspace, and writes what follows from it. Order: tokens in the order of their ids
// where one is drawn. Bytes: each row of logits once to find its law where few tokens are
// kept, twice otherwise; twice more, both rows, where a token is drawn from the residual.
#pragma once

#include "sample.cuh"

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

// Apart, because it is long, and most rows have no soft cap.
DEVICE_APART float soft_capped(float logit, float cap) { return law::capped(logit, cap); }

// RowLaw is the law of a row of logits. The kept set is a prefix in contract order, less
// what has too little mass: the place of its last token tells it.
template <class T>
struct RowLaw {
  const typename T::Element* logits;
  float most, scale, softcap;
  Status status;
  u64 last;   // kept place
  u64 least;  // kept mass
  u64 total;
  u32 few;    // tokens in shared memory that are kept, or 0: too many, or any of the row

  static constexpr u32 kFew = 192;

  static DEVICE u64 place(u32 key, u32 id) { return WholeRow<T, Block<u64, kThreads, kRoom>>::place(key, id); }

  DEVICE float logit(u32 key) const {
    const float l = number_of<T>(key);
    return softcap > 0 ? soft_capped(l, softcap) : l;
  }
  DEVICE u64 mass(u32 bits, u32 id) const {
    const u32 key = T::key(bits);
    if (place(key, id) < last) return 0;
    const float l = logit(key);
    if (l == most) return 1ull << law::kMassBits;
    if (most > 0x1.fffffep127f) return 0;
    const u64 mass = law::mass(law::surprise(l, most, scale));
    return mass < least ? 0 : mass;
  }
  DEVICE u64 mass(u32 id) const { return mass(logits[id], id); }
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
  DEVICE u64 mass(u32 id) const { return probabilities ? mass_of(probabilities[id]) : row.mass(id); }
};

// What the threads of a block share beside the selection.
template <class T>
struct Turn {
  SampleArguments one;  // the row whose law is looked for, as a batch of itself
  RowLaw<T> target;
  DraftLaw<T> draft;
  alignas(8) u64 sums[2 * kWarp];  // of warps
  u64 rest;
  u32 chosen;
  u32 stop;  // of the chain, where this block is the last of it
};

// The sum of what the threads before this one have, and of what all have.
template <class B>
DEVICE u64 scan_masses(u64* sums, u64 mine, u64& all) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  u64 through = mine;
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) {
    const u64 up = shuffle_up_wide(through, d);
    if (lane >= d) through += up;
  }
  if (lane == kWarp - 1) sums[warp] = through;
  block_barrier();
  const u64 sum = lane < B::kWarps ? sums[lane] : 0;
  all = warp_sum_of_masses(sum);
  const u64 before = through - mine + warp_sum_of_masses(lane < warp ? sum : 0);
  block_barrier();  // all have read them
  return before;
}

// The sum over the block.
template <class B>
DEVICE Wide block_sum(u64* sums, Wide mine) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) mine = mine + Wide{shuffle_xor(mine.high, d), shuffle_xor(mine.low, d)};
  if (lane == 0) sums[warp] = mine.high, sums[kWarp + warp] = mine.low;
  block_barrier();
  Wide all = {0, 0};
#pragma unroll
  for (u32 w = 0; w < B::kWarps; w++) all = all + Wide{sums[w], sums[kWarp + w]};
  block_barrier();  // all have read them
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
    one.min_p_last = from.min_p_last;
    one.typical_p = one.repetition = 1;
  }
  block_barrier();
}

// The kept among the best k of a row, which are sorted.
template <class T, class B>
DEVICE RowLaw<T> law_of_best(B& block, Tail<u64>& tail, const SampleArguments& one, u32 k, RowLaw<T> law) {
  using W = u64;
  const RowParameters p(one, 0);
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const u32 best = Word<W>::key(tail.sorted[0]);
  law.status = best == T::kNaNKey ? kNaN : best == T::kWorstNumber ? kEmpty : kDone;
  if (law.status != kDone) return law;
  const Kept<W, B> row{block, tail, 0};
  law.scale = p.greedy(one) ? 0 : law::scale(p.temperature);
  law.most = law.logit(best);
  const u64 least = law::ceil_product(p.min_p, 1ull << law::kMassBits);
  const u32 items = (k + B::kThreads - 1) / B::kThreads;
  u64 sum = 0;
  u32 heavy = 0;
#pragma unroll 1
  for (u32 i = 0; i < items; i++) {
    const u32 rank = thread * items + i;
    if (rank >= k) break;
    const float logit = law.logit(Word<W>::key(tail.sorted[rank]));
    u64 mass = 1ull << law::kMassBits;
    if (logit != law.most) mass = law.most > 0x1.fffffep127f ? 0 : law::mass(law::surprise(logit, law.most, law.scale));
    row.masses()[rank] = mass;
    heavy += mass >= least;
    if (mass >= least || one.min_p_last) sum += mass;
  }
  heavy = warp_sum(heavy);
  if (lane == 0) tail.counts[warp] = heavy;
  u64 whole;
  u64 before = scan<B>(tail, sum, whole);
  heavy = warp_sum(lane < B::kWarps ? tail.counts[lane] : 0);
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
  const u32 kept = tail.kept;
  law.few = kept <= RowLaw<T>::kFew ? kept : 0;
  law.total = tail.total;
  const W word = tail.sorted[kept - 1];
  law.last = RowLaw<T>::place(Word<W>::key(word), Word<W>::index(word));
  return law;
}

// The kept of a row of which any number may be.
template <class T, class B>
DEVICE RowLaw<T> law_of_all(B& block, u64* sums, const SampleArguments& one, const Row<T>& row, RowLaw<T> law) {
  const RowParameters p(one, 0);
  Share share;
  read_share<T, B::kThreads>(row, share);
  const u32 best = best_of_row(block, row, share);
  law.status = best == T::kNaNKey ? kNaN : best == T::kWorstNumber ? kEmpty : kDone;
  if (law.status != kDone) return law;
  block_barrier();  // best_of_row has been read
  using Whole = WholeRow<T, B>;
  constexpr u32 kPlaceBits = T::kBits + Whole::kIndexBits;
  law.scale = law::scale(p.temperature);
  law.most = law.logit(best);
  const u64 least = law::ceil_product(p.min_p, 1ull << law::kMassBits);
  Whole all{block, row, law.most, law.scale, law.softcap, 0, one.min_p_last ? 0 : least};
  if (p.top_k > 0 && (u32)p.top_k < row.length) {
    all.last = all.reaching(kPlaceBits, p.top_k, Whole::place, [](u32, u32) { return 1ull; });
  }
  if (p.top_p < 1) {
    const u64 enough = law::ceil_product(p.top_p, all.whole());
    all.last = all.reaching(kPlaceBits, enough, Whole::place, [&](u32 key, u32 index) { return all.kept_mass(key, index); });
  }
  law.last = all.last;
  law.least = least;
  u64 sum = 0;
#pragma unroll 4
  for (u32 id = thread_index(); id < row.length; id += B::kThreads) sum += law.mass(id);
  scan_masses<B>(sums, sum, law.total);
  return law;
}

// Finds the law of the row in the shared arguments. Where it has few tokens they are left
// in the tail, and their masses in the block.
template <class T, class B>
DEVICE_APART void find_law(B& block, Tail<u64>& tail, u64* sums, const SampleArguments& one, RowLaw<T>& law) {
  const Row<T> row(one, 0, 0, 1);
  RowLaw<T> found = {row.logits, 0, 0, one.softcap, kDone, 0, 0, 0, 0};
  if (!RowParameters(one, 0).valid()) {
    found.status = kBadParameters;
  } else if (row.k == 0) {
    found = law_of_all<T>(block, sums, one, row, found);
  } else {
    const Stamps<false> stamps(one);
    const Sorted<u64> sorted{tail.sorted};
    block.empty();
    const Found candidates = find<T>(block, sorted, one, 0, 0, 1, stamps);
    merge(block, candidates.candidates, candidates.wanted, sorted, stamps);
    block_barrier();
    found = law_of_best<T>(block, tail, one, row.k, found);
  }
  if (thread_index() == 0) law = found;
  block_barrier();
}

// Adds up the draft's probabilities. Those outside of 0 to 1 are bad parameters.
template <class T, class B>
DEVICE_APART void find_probabilities(u64* sums, const float* row, u32 vocab, DraftLaw<T>& draft) {
  u64 sum = 0;
  bool bad = false;
#pragma unroll 8
  for (u32 id = thread_index(); id < vocab; id += B::kThreads) {
    const float p = row[id];
    const bool probable = DraftLaw<T>::probable(p);
    bad |= !probable;
    sum += DraftLaw<T>::mass_of(probable ? p : 0);
  }
  u64 total;
  scan_masses<B>(sums, sum, total);
  const Wide bads = block_sum<B>(sums, {0, bad ? 1ull : 0});
  if (thread_index() == 0) {
    draft.probabilities = row;
    draft.total = total;
    draft.row.status = bads.low ? kBadParameters : kDone;
  }
  block_barrier();
}

// The token, in the order of ids, at which the sum of masses exceeds what a random
// number picks. The sum is not 0. mass tells that of an id.
template <class B, class T, class M>
DEVICE u32 draw_in_order(B& block, Turn<T>& turn, u32 vocab, u64 random, M mass) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u64* parts = reinterpret_cast<u64*>(block.candidates);  // sums of neighbouring ids
  u32 part = 256;
  while (part * kBins < vocab) part *= 2;
  const u32 count = (vocab + part - 1) / part;
#pragma unroll 1
  for (u32 i = warp; i < count; i += B::kWarps) {
    u64 sum = 0;
#pragma unroll 4
    for (u32 j = lane; j < part; j += kWarp) {
      const u32 id = i * part + j;
      if (id < vocab) sum += mass(id);
    }
    sum = warp_sum_of_masses(sum);
    if (lane == 0) parts[i] = sum;
  }
  block_barrier();
  constexpr u32 kOwn = kBins / B::kThreads;
  u64 sum = 0, all;
#pragma unroll
  for (u32 i = 0; i < kOwn; i++) sum += thread * kOwn + i < count ? parts[thread * kOwn + i] : 0;
  u64 before = scan_masses<B>(turn.sums, sum, all);
  const u64 target = law::target(random, all);
#pragma unroll
  for (u32 i = 0; i < kOwn; i++) {
    const u64 size = thread * kOwn + i < count ? parts[thread * kOwn + i] : 0;
    if (before <= target && target - before < size) turn.chosen = thread * kOwn + i, turn.rest = target - before;
    before += size;
  }
  block_barrier();
  // The same among the ids of that part.
  const u32 own = (part + B::kThreads - 1) / B::kThreads, first = turn.chosen * part, begin = thread * own;
  const u64 rest = turn.rest;
  const auto mass_at = [&](u32 i) { return begin + i < part && first + begin + i < vocab ? mass(first + begin + i) : 0; };
  sum = 0;
#pragma unroll 1
  for (u32 i = 0; i < own; i++) sum += mass_at(i);
  before = scan_masses<B>(turn.sums, sum, all);
#pragma unroll 1
  for (u32 i = 0; i < own; i++) {
    const u64 size = mass_at(i);
    if (before <= rest && rest - before < size) turn.chosen = first + begin + i;
    before += size;
  }
  block_barrier();
  return turn.chosen;
}

// What the target has more of than the draft, times both totals.
template <class T>
struct Residual {
  const RowLaw<T> target;
  const DraftLaw<T> draft;

  DEVICE Wide excess(u64 mass, u32 id) const {
    if (mass == 0) return {0, 0};
    const Wide more = product(mass, draft.total), less = product(draft.mass(id), target.total);
    return more < less ? Wide{0, 0} : more - less;
  }
  DEVICE Wide excess(u32 id) const { return excess(target.mass(id), id); }
};

// The same of the few that are kept.
template <class K>
DEVICE u32 draw_of_few(const K& kept, u64 target) {
  kept.find_among(kept.count, target, [](u32 i) { return i; });
  return kept.id(kept.tail.chosen);
}

// A token of the target's law.
template <class T, class B>
DEVICE u32 draw_target(B& block, Tail<u64>& tail, Turn<T>& turn, u32 vocab, u64 random) {
  const RowLaw<T> target = turn.target;
  if (target.few == 0) {
    return draw_in_order(block, turn, vocab, random, [&](u32 id) { return target.mass(id); });
  }
  return draw_of_few(Kept<u64, B>{block, tail, target.few}, law::target(random, target.total));
}

// A token of the residual, or of the target if there is none.
template <class T, class B>
DEVICE_APART u32 draw_residual(B& block, Tail<u64>& tail, Turn<T>& turn, u32 vocab, u64 random) {
  const Residual<T> residual = {turn.target, turn.draft};
  const u32 thread = thread_index(), count = residual.target.few;
  const Kept<u64, B> kept{block, tail, count};
  Wide sum = {0, 0};
  if (count > 0) {
    for (u32 rank = thread; rank < count; rank += B::kThreads) sum = sum + residual.excess(kept.masses()[rank], kept.id(rank));
  } else {
#pragma unroll 2
    for (u32 id = thread; id < vocab; id += B::kThreads) sum = sum + residual.excess(id);
  }
  sum = block_sum<B>(turn.sums, sum);
  if ((sum.high | sum.low) == 0) return draw_target(block, tail, turn, vocab, random);
  const u32 shift = excess_bits(sum);
  if (count == 0) {
    return draw_in_order(block, turn, vocab, random, [&](u32 id) { return residual.excess(id).shifted(shift); });
  }
  u64 mine = 0, total;
  for (u32 rank = thread; rank < count; rank += B::kThreads) {
    const u64 mass = residual.excess(kept.masses()[rank], kept.id(rank)).shifted(shift);
    kept.masses()[rank] = mass;
    mine += mass;
  }
  scan_masses<B>(turn.sums, mine, total);
  return draw_of_few(kept, law::target(random, total));
}

// What a row comes to.
struct Outcome {
  u32 token;
  bool stops;  // the chain
  Status status;
};

DEVICE i64 integer_at(const void* integers, u32 bytes, i64 at) {
  return bytes == 8 ? static_cast<const i64*>(integers)[at] : static_cast<const int*>(integers)[at];
}

template <class T, class B>
DEVICE Outcome verify_row(B& block, Tail<u64>& tail, Turn<T>& turn, const VerifyArguments& a, u32 sequence, u32 i, u32 drafted) {
  const bool bonus = i == drafted;
  const i64 draft_row = (i64)sequence * a.drafts + i;
  u32 token = 0;
  if (!bonus) {
    const i64 id = integer_at(a.drafted, a.drafted_bytes, sequence * a.drafted_stride + i);
    if (id < 0 || id >= a.vocab) return {0, true, kBadParameters};
    token = (u32)id;
    if (a.draft.logits) {
      take_row(turn.one, a.draft, a.vocab, sequence, draft_row, sizeof(typename T::Element));
      find_law<T>(block, tail, turn.sums, turn.one, turn.draft.row);
      if (thread_index() == 0) turn.draft.probabilities = nullptr, turn.draft.total = turn.draft.row.total;
    } else {
      find_probabilities<T, B>(turn.sums, a.probabilities + draft_row * a.draft.stride, a.vocab, turn.draft);
    }
    if (turn.draft.row.status == kBadParameters) return {0, true, kBadParameters};
  }
  take_row(turn.one, a.target, a.vocab, sequence, (i64)sequence * (a.drafts + 1) + i, sizeof(typename T::Element));
  find_law<T>(block, tail, turn.sums, turn.one, turn.target);
  if (turn.target.status != kDone) return {0, true, turn.target.status};
  if (!bonus && turn.draft.row.status != kDone) return {0, true, turn.draft.row.status};

  const u64 seed = a.row_seed ? a.row_seed[sequence] : a.seed;
  const u64 position = (a.row_position ? a.row_position[sequence] : a.position) + i;
  const u32 draw = a.first_draw + sequence * a.row_draws;
  if (bonus) return {draw_target(block, tail, turn, a.vocab, law::uniform(seed, position, draw, law::kDraw)), true, kDone};
  const Wide more = product(turn.target.mass(token), turn.draft.total), less = product(turn.draft.mass(token), turn.target.total);
  const u64 random = law::uniform(seed, position, draw, law::kAccept);
  if ((product(random, less.high) + Wide{0, multiply_high(random, less.low)}) < more) return {token, false, kDone};
  return {draw_residual(block, tail, turn, a.vocab, law::uniform(seed, position, draw, law::kResidual)), true, kDone};
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
  using B = Block<u64, kThreads, kRoom>;
  SHARED(B, block);
  SHARED(Tail<u64>, tail);
  SHARED(Turn<T>, turn);
  constexpr u32 kStatusBits = 8;
  const u32 rows = a.drafts + 1, sequence = block_index() / rows, i = block_index() % rows, thread = thread_index();
  wait_for_kernel_before();
  const int drafted = a.drafted_count ? a.drafted_count[sequence] : a.drafts;
  Outcome outcome = {0, false, kEmpty};  // of a row that is not there
  if (drafted < 0 || drafted > a.drafts) {
    outcome = {0, i == 0, kBadParameters};
  } else if (i <= (u32)drafted) {
    outcome = verify_row<T>(block, tail, turn, a, sequence, i, drafted);
  }
  release_kernel_behind();
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
