// The tail of a sampling launch: the tokens of a row, from the best k of it in shared
// memory.
//
// Masses never grow with the rank, so that min-p and top-p both keep a prefix; a scan
// finds where it ends. A draw asks for the token at which the sum of masses in the order
// of ids exceeds a target.
//
// Up to 64 tokens are one warp's, two of each lane: one scan by rank and one by id, in
// halves of masses that need no carry. The other warps tell meanwhile which rank is the
// next in the order of ids. More tokens are the block's: bins of ids tell the few that come
// into question. Bytes: none but the parameters and the answer.
#pragma once

#include "sample.cuh"

// Logprobs turns logits into natural logprobs: those of a law with this largest logit and
// temperature, by the logarithm of its mass.
struct Logprobs {
  double most, temperature, log_mass;

  DEVICE float of(float logit) const {
    if (logit < -0x1.fffffep127f) return logit;
    const double x = logit == most ? 0 : ((double)logit - most) / temperature;
    return (float)smaller_of(x - log_mass, 0);
  }
  static DEVICE double smaller_of(double a, double b) { return a < b ? a : b; }
};

// ExponentialSum adds up e^logit of a thread's elements, for logprobs: within 5e-7 of it, and always
// in one order. The part of an exponent that is lost to rounding is made up for by its
// first order.
template <class T>
struct ExponentialSum {
  static constexpr float kLog2E = 0x1.715476p+0f;
  // What kLog2E lacks, times ln 2: of logarithms near the largest logit.
  static constexpr double kMissing = 0x1.4ae0bf85ddf44p-26 * law::kLn2;
  float sum = 0, lost = 0;
  double total = 0;

  DEVICE float one(u32 bits) {
    float logit = number_of_bits<T>(bits);
    logit = logit > -100 ? logit : -100;
    const float x = logit * kLog2E, e = approximate_exp2(x);
    lost = multiply_add(e, multiply_add(logit, kLog2E, -x), lost);
    return e;
  }
  DEVICE void add(const Vector& v) {
    float words[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) words[i] = T::kPerWord == 1 ? one(v.word[i]) : one(v.word[i] & 0xffff) + one(v.word[i] >> 16);
    sum += (words[0] + words[1]) + (words[2] + words[3]);
  }
  DEVICE void settle() {
    total += (double)sum + law::kLn2 * (double)lost;
    sum = lost = 0;
  }
};

// Tail is what the threads share behind the selection, beside what is the block's.
template <class W>
struct Tail {
  static constexpr u32 kMost = 8192 / sizeof(W);  // results
  static constexpr u32 kFew = 2 * kWarp;
  alignas(16) W sorted[kMost];
  u32 highs[sizeof(W) == 4 ? kBins : 1];  // of the sums of bins
  alignas(16) RowParameters given;
  alignas(8) u64 seed;
  u64 position;
  u64 numbers[kWarp];  // random, of the first draws
  u64 coin;            // random, of xtc
  u64 least;           // mass that min-p lets through
  float scale;
  u32 valid;                           // whether all that is given is in its range
  u32 steps;                           // whether there are some behind top-p
  u32 left;                            // by top-k
  u32 added;                           // whether there are exponentials
  u64 masses[kFew];                     // by rank, each in its two parts
  u8 by_id[kFew];                      // ranks in the order of ids
  alignas(8) u64 sums[kWarp];          // of warps
  u32 counts[kWarp];                   // of warps
  u64 total;                           // of the kept, or what a target is beyond a bin
  double exponentials[kWarp];          // sums of warps
  Logprobs logprobs;                   // of the logits as they came
  u32 kept;
  u32 chosen;  // rank, or bin

  // Asks for the parameters of a row, which settle waits for. Both are for one warp.
  DEVICE void fetch(const SampleArguments& a, u32 number) {
    constexpr u32 kReals = sizeof(RowParameters) / sizeof(u32);
    const u32 lane = thread_index() % kWarp;
    if (lane == 0) added = 0;
    if (lane < kReals) {
      // Pointers and values are in one order.
      const u32* from = reinterpret_cast<const u32* const*>(&a.row_temperature)[lane];
      u32* to = reinterpret_cast<u32*>(&given) + lane;
      if (from) {
        copy_later<4>(to, from + number);
      } else {
        *to = reinterpret_cast<const u32*>(&a.temperature)[lane];
      }
    } else if (lane < kReals + 2) {
      const i64* from = lane == kReals ? a.row_seed : a.row_position;
      u64* to = lane == kReals ? &seed : &position;
      if (from) {
        copy_later<8>(to, from + number);
      } else {
        *to = lane == kReals ? a.seed : a.position;
      }
    }
  }
  DEVICE void settle(const SampleArguments& a, u32 number) {
    const u32 lane = thread_index() % kWarp;
    wait_for_copies();
    warp_barrier();
    const RowParameters p = given;
    numbers[lane] = law::uniform(seed, position, first_draw(a, number) + lane, law::kDraw);
    if (lane == 0) {
      if (p.drops_likely()) coin = law::uniform(seed, position, first_draw(a, number), law::kXTC);
      scale = p.greedy(a) ? 0 : law::scale(p.temperature);
      least = law::ceil_product(p.min_p, 1ull << law::kMassBits);
      valid = p.valid();
      steps = p.steps();
      left = left_by_top_k(a, number);
    }
  }
  // The number of the n-th draw.
  DEVICE u64 number_of_draw(const SampleArguments& a, u32 number, u32 draw) const {
    return draw < kWarp ? numbers[draw] : law::uniform(seed, position, first_draw(a, number) + draw, law::kDraw);
  }
};

// Sorted takes results where the tail wants them, while the first warp settles the
// parameters.
template <class W>
struct Sorted {
  static constexpr u32 kBusy = 1;
  W* words;
  DEVICE void write(u32 rank, W word) const { words[rank] = word; }
};

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

DEVICE law::Masses operator+(const law::Masses& a, const law::Masses& b) { return {a.high + b.high, a.low + b.low}; }
DEVICE law::Masses operator-(const law::Masses& a, const law::Masses& b) { return {a.high - b.high, a.low - b.low}; }
DEVICE law::Masses warp_sum(const law::Masses& v) { return {warp_sum(v.high), (int)warp_sum((u32)v.low)}; }

// The sum of what the lanes up to this one have, of at most 1,024 masses.
DEVICE law::Masses warp_scan(law::Masses through) {
  const u32 lane = thread_index() % kWarp;
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) {
    const law::Masses up = {shuffle_up(through.high, d), (int)shuffle_up((u32)through.low, d)};
    if (lane >= d) through = through + up;
  }
  return through;
}

// The mass of a logit beside the largest, which may be +Inf.
DEVICE law::Masses mass_beside(float logit, float most, float scale) {
  law::Masses mass;
  mass.add(law::weight(law::surprise(logit, most, scale)));
  return logit == most ? law::Masses{1u << (law::kMassBits - 21), 0} : mass;
}

// Apart, because it is long.
DEVICE_APART float capped(float logit, float cap) { return law::capped(logit, cap); }

// The logit of a sampled token's word, under the soft cap.
template <class T, class W>
DEVICE float logit_of(const SampleArguments& a, W word) {
  const float logit = number_of<T>(Word<W>::key(word));
  return a.softcap > 0 ? capped(logit, a.softcap) : logit;
}

// Why a row has no tokens; kDone if it has.
template <class T, class W>
DEVICE Status status_of(const Tail<W>& tail, W best, u32 k) {
  const u32 key = Word<W>::key(best);
  return k == 0 || !tail.valid ? kBadParameters : key == T::kNaNKey ? kNaN : key == T::kWorstNumber ? kEmpty : kDone;
}

// Whether a row has more answers than one token.
DEVICE bool answers_more(const SampleArguments& a) { return a.kept || a.logprobs || a.top_ids; }

// Finds the best element of a row, and its first if there are several, from the best of its
// slots. The first warp returns its word.
template <class T, class W, class B>
DEVICE W find_best(B& block, Tail<W>& tail, const Row<T>& row, const Share& share) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const u32 edge = thread < row.edges() ? row.edge(thread) : 0;
  const u32 edge_key = thread < row.edges() ? T::key(row.bits(edge)) : 0;
  u32 best = warp_max(larger(best_key<T>(share), edge_key));
  if (lane == 0) tail.counts[warp] = best;
  block_barrier();
  best = warp_max(lane < B::kWarps ? tail.counts[lane] : 0);
  u32 first = edge_key == best ? ~edge : 0;  // the complement: its maximum is the smallest index
  if (T::beatable(best) && best != T::kNaNKey) {
    const u32 slots = list_slots<T>(block, share, best), below = T::just_below(best);
    if (slots) {
      const u32 spread = spread_of<T, B::kThreads>(row, slots);
      const auto note = [&](const Vector& v, u32 number) {
        u32 marks = number < row.vectors ? T::mark(v, below) : 0;
#pragma unroll 1
        for (; marks; marks &= marks - 1) first = larger(first, ~(row.at(number) + T::marked_element(lowest_bit(marks))));
      };
      look_again<T, B::kThreads>(row, block.slots_of(warp), warp, spread, 0, slots << spread,
                                 [&](const Vector& v, u32 i, const Vector& w, u32 next) {
                                   note(v, i);
                                   note(w, next);
                                   return true;
                                 });
    }
  }
  first = warp_max(first);
  if (lane == 0) block.lows[warp] = first;
  if (warp == 0) {
    wait_for_copies();
    warp_barrier();
    if (lane == 0) tail.valid = tail.given.valid();
  }
  block_barrier();
  return warp == 0 ? Word<W>::pack(best, ~warp_max(lane < B::kWarps ? block.lows[lane] : 0)) : 0;
}

struct ShareAndSum {
  Share share;
  double sum;
};

// Reads a thread's share of a row, and adds up its exponentials. Apart, for its registers.
template <class T, u32 kThreads>
DEVICE_APART ShareAndSum read_and_add(const SampleArguments& a, u32 number) {
  const Row<T> row(a, number, 0, 1);
  ShareAndSum both;
  ExponentialSum<T> sum;
#pragma unroll
  for (u32 s = 0; s < kSlots; s++) both.share.slot[s] = T::kWorst;
  read_vectors<T, kThreads>(row, [&](u32 s, const Vector& v) {
    both.share.slot[s] = T::best(both.share.slot[s], T::best(v));
    sum.add(v);
    if (s == kSlots - 1) sum.settle();
  });
  if (thread_index() < row.edges()) sum.sum += sum.one(row.bits(row.edge(thread_index())));
  sum.settle();
  both.sum = sum.total;
  return both;
}

// Reads a row that is sampled.
template <class T, class W, class B>
struct SampledReader {
  B& block;
  Tail<W>& tail;
  const SampleArguments& a;
  u32 number;
  bool done = false;  // the row has its token

  template <u32 kThreads>
  DEVICE void read(const Row<T>& row, Share& share) {
    if (!wants_raw(a)) return read_share<T, kThreads>(row, share);
    const ShareAndSum both = read_and_add<T, kThreads>(a, number);
    share = both.share;
    double sum = both.sum;
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) sum += as_double(shuffle_xor(as_bits(sum), d));
    if (thread_index() % kWarp == 0) tail.exponentials[thread_index() / kWarp] = sum;
    if (thread_index() == 0) tail.added = 1;
  }

  // Of a single token that is left.
  DEVICE bool decides(const Row<T>& row, const Share& share) {
    if (row.k != 1 || left_by_top_k(a, number) != 1) return false;
    const W best = find_best(block, tail, row, share);
    done = a.draws == 1 && !answers_more(a);
    if (thread_index() >= kWarp) return true;
    if (!done) {
      if (thread_index() == 0) tail.sorted[0] = best;
    } else if (const Status status = status_of<T>(tail, best, 1); status != kDone) {
      end_row(a, number, 0, status, kWarp);
    } else if (thread_index() == 0) {
      write_token(a, number, 0, Word<W>::index(best));
      if (a.status) a.status[number] = kDone;
    }
    return true;
  }
};

// The sum over the block.
template <class B, class L>
DEVICE u64 block_sum(L& tail, u64 sum) {
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) sum += shuffle_xor(sum, d);
  block_barrier();  // all have read the sums before
  if (thread_index() % kWarp == 0) tail.sums[thread_index() / kWarp] = sum;
  block_barrier();
  sum = 0;
#pragma unroll 1
  for (u32 w = 0; w < B::kWarps; w++) sum += tail.sums[w];
  return sum;
}

// Prepares logprobs of the logits as they came, for all threads. Without
// exponentials, or where these leave the range of float32, by a pass over the row.
template <class T, class W, class B>
DEVICE_APART void prepare_logprobs(Tail<W>& tail, const SampleArguments& a, u32 number) {
  const float most = number_of<T>(Word<W>::key(tail.sorted[0]));
  const bool added = tail.added;
  double sum = 0;
#pragma unroll 1
  for (u32 w = 0; added && w < B::kWarps; w++) sum += tail.exponentials[w];
  if (added && most >= -40 && sum < 0x1p127) {
    if (thread_index() == kWarp) tail.logprobs = {0, 1, law::kLn2 * law::log2(sum) + most * ExponentialSum<T>::kMissing};
    return;
  }
  const Row<T> row(a, number, 0, 1);
  const float scale = law::scale(1);
  u64 mass = 0;
#pragma unroll 1
  for (u32 i = thread_index(); i < row.length; i += B::kThreads) mass += mass_beside(number_of_bits<T>(row.bits(i)), most, scale).sum();
  mass = block_sum<B>(tail, mass);
  if (thread_index() == kWarp) tail.logprobs = {most, 1, law::kLn2 * law::log_total(mass)};
}

// Writes the most likely of n sorted tokens: for a warp.
template <class T, class W>
DEVICE void write_top(const Tail<W>& tail, const SampleArguments& a, u32 number, u32 n, const Logprobs& logprobs) {
#pragma unroll 1
  for (u32 i = thread_index() % kWarp; i < (u32)a.top_count; i += kWarp) {
    const i64 at = (i64)number * a.top_count + i;
    a.top_ids[at] = i < n ? (int)Word<W>::index(tail.sorted[i]) : a.invalid_token;
    const float logit = i < n ? (a.processed ? logit_of<T>(a, tail.sorted[i]) : number_of<T>(Word<W>::key(tail.sorted[i]))) : as_float(0xff800000);
    a.top_logprobs[at] = logprobs.of(logit);
  }
}

// The same of the logits as they came, if it is asked for, by the second warp while others
// draw.
template <class T, class W>
DEVICE void write_raw_top(const Tail<W>& tail, const SampleArguments& a, u32 number, u32 selected) {
  if (a.top_ids && !a.processed && thread_index() / kWarp == 1) write_top<T>(tail, a, number, selected, tail.logprobs);
}

// Lists the ranks of k tokens in the order of their ids: for some warps, four tokens of each
// at a time.
template <class W>
DEVICE void list_by_id(Tail<W>& tail, u32 k, u32 warp, u32 warps) {
  constexpr u32 kAtOnce = 4, kField = 8;  // bits
  const u32 lane = thread_index() % kWarp;
  const u32 one = lane < k ? Word<W>::index(tail.sorted[lane]) : kAllLanes;
  const u32 other = lane + kWarp < k ? Word<W>::index(tail.sorted[lane + kWarp]) : kAllLanes;
#pragma unroll 1
  for (u32 first = warp; first < k; first += kAtOnce * warps) {
    u32 through = 0;
#pragma unroll
    for (u32 i = 0; i < kAtOnce; i++) {
      const u32 id = Word<W>::index(tail.sorted[smaller(first + i * warps, Tail<W>::kMost - 1)]);
      through |= count_at_least(count_at_least(0, id, one), id, other) << kField * i;
    }
    through = warp_sum(through);
    const u32 mine = first + lane * warps;
    if (lane < kAtOnce && mine < k) tail.by_id[(through >> kField * lane & ((1u << kField) - 1)) - 1] = mine;
  }
}

// Draws the tokens of a row from up to 64. Of what is kept, tail.kept and tail.total tell, behind a
// barrier.
template <class T, class W, class B, class S>
DEVICE void draw_from_few(Tail<W>& tail, const SampleArguments& a, u32 number, u32 k, u32 selected, const S& stamps) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  constexpr u32 kEach = Tail<W>::kFew / kWarp;
  law::Masses mass[kEach];
  if (warp == 0) {
    const float most = logit_of<T>(a, tail.sorted[0]), scale = tail.scale;
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      const u32 rank = kEach * lane + i;
      if (rank >= k) continue;
      mass[i] = mass_beside(logit_of<T>(a, tail.sorted[rank]), most, scale);
      tail.masses[rank] = (u64)mass[i].high << 32 | (u32)mass[i].low;
    }
  } else {
    list_by_id(tail, k, warp - 1, B::kWarps - 1);
  }
  block_barrier();
  if (warp > 0) return write_raw_top<T>(tail, a, number, selected);
  stamps.set(6);

  // The tokens of the lane in the order of ids. Those that are none have the mass 0.
  u32 rank[kEach];
  law::Masses by_id[kEach];
#pragma unroll
  for (u32 i = 0; i < kEach; i++) {
    rank[i] = kEach * lane + i < k ? tail.by_id[kEach * lane + i] : k;
    if (rank[i] < k) by_id[i] = {(u32)(tail.masses[rank[i]] >> 32), (int)tail.masses[rank[i]]};
  }

  // The last that is kept.
  u32 heavy = 0;
#pragma unroll
  for (u32 i = 0; i < kEach; i++) heavy += population(ballot(kEach * lane + i < k && mass[i].sum() >= tail.least));
  u32 kept = heavy;
  const float top_p = tail.given.top_p;
  if (top_p < 1) {
    law::Masses own;
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      if (kEach * lane + i < (a.min_p_last ? k : heavy)) own = own + mass[i];
    }
    const u64 enough = law::ceil_product(top_p, warp_sum(own).sum());
    law::Masses before = warp_scan(own) - own;
    u32 reaching = 0;
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      reaching += population(ballot(kEach * lane + i < k && before.sum() < enough));
      before = before + mass[i];
    }
    kept = smaller(kept, reaching);
  }

  // Where the tokens begin among the kept masses.
  law::Masses own;
#pragma unroll
  for (u32 i = 0; i < kEach; i++) {
    if (rank[i] >= kept) by_id[i] = {};
    own = own + by_id[i];
  }
  u64 total = warp_sum(own).sum();
  u64 begin[kEach], size[kEach];
  u64 at = (warp_scan(own) - own).sum();
#pragma unroll
  for (u32 i = 0; i < kEach; i++) {
    begin[i] = at;
    size[i] = by_id[i].sum();
    at += size[i];
  }
  if (lane == 0) tail.kept = kept, tail.total = total;

  u32 draw = 0;
#pragma unroll 1
  for (;;) {
    const u64 target = law::target(tail.number_of_draw(a, number, draw), total);
    u64 gone = 0;
    u32 hit = 0;
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      if (begin[i] <= target && target - begin[i] < size[i]) {
        write_token(a, number, draw, Word<W>::index(tail.sorted[rank[i]]));
        hit = i + 1, gone = size[i];
      }
    }
    if (++draw == (u32)a.draws) break;
    if (a.replacement) continue;
    // What comes behind the token moves up.
    const u32 from = lowest_bit(ballot(hit > 0));
    gone = (u64)shuffle((u32)(gone >> 32), from) << 32 | shuffle((u32)gone, from);
    const u32 at = from * kEach + shuffle(hit, from) - 1;
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      if (kEach * lane + i > at) begin[i] -= gone;
      if (kEach * lane + i == at) size[i] = 0;
    }
    total -= gone;
    if (total == 0) return end_row(a, number, draw, kExhausted, kWarp);
  }
  if (lane == 0 && a.status) a.status[number] = kDone;
  stamps.set(7);
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

// Steps are those behind top-p, on a kept set that is no prefix afterwards: what they leave is
// brought to the front of the sorted tokens. Their time grows with the square of the number of tokens.
template <class T, class W, class B>
struct Steps {
  B& block;
  Tail<W>& tail;
  const SampleArguments& a;
  u32 count;
  u64 total;

  DEVICE u64* masses() const { return Kept<W, B>{block, tail, 0}.masses(); }
  DEVICE float logit(u32 rank) const { return logit_of<T>(a, tail.sorted[rank]); }
  // The magnitude of a surprise.
  DEVICE u32 surprise(u32 rank, float most) const {
    const float l = logit(rank);
    return l == most ? 0 : most > 0x1.fffffep127f ? -law::kLeastSurprise : -law::surprise(l, most, tail.scale);
  }
  DEVICE u32& distance(u32 rank) const { return rank < kBins ? block.groups[rank] : tail.highs[rank - kBins]; }
  DEVICE u64 sum(u64 v) const { return block_sum<B>(tail, v); }

  // Takes the masses beside the largest that is left.
  DEVICE void weigh() {
    const float most = logit(0);
    u64 all = 0;
#pragma unroll 1
    for (u32 rank = thread_index(); rank < count; rank += B::kThreads) all += masses()[rank] = mass_beside(logit(rank), most, tail.scale).sum();
    total = sum(all);
  }

  template <class Stays>
  DEVICE void keep(Stays stays) {
    constexpr u32 kEach = Tail<W>::kMost / B::kThreads;
    const u32 first = thread_index() * kEach;
    u32 marks = 0;
#pragma unroll 1
    for (u32 i = 0; i < kEach && first + i < count; i++) marks |= (stays(first + i) ? 1u : 0u) << i;
    W words[kEach];
#pragma unroll
    for (u32 i = 0; i < kEach; i++) words[i] = tail.sorted[first + i];
    block_barrier();  // all have read them, and the sums
    u64 all;
    u32 place = scan<B>(tail, population(marks), all);
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      if (marks >> i & 1) tail.sorted[place++] = words[i];
    }
    count = all;
    block_barrier();
    weigh();
  }

  // Whether a token comes before another, ties that a soft cap makes by their ids.
  DEVICE bool ahead(u32 rank, u32 other) const {
    const float l = logit(rank), beside = logit(other);
    return l > beside || (l == beside && Word<W>::index(tail.sorted[rank]) < Word<W>::index(tail.sorted[other]));
  }

  // Keeps what is of the most typical surprise: arXiv 2202.00666.
  DEVICE void typical(float p) {
    constexpr u32 kLow = 21;  // bits of masses
    const float most = logit(0);
    u64 high = 0, low = 0;
#pragma unroll 1
    for (u32 rank = thread_index(); rank < count; rank += B::kThreads) {
      const u32 q = surprise(rank, most);
      high += (masses()[rank] >> kLow) * q;
      low += (masses()[rank] & ((1u << kLow) - 1)) * q;
    }
    high = sum(high);
    low = sum(low);
    const i64 middle = law::on_grid(law::log_total(total)) - law::on_grid(law::entropy(total, law::shifted_sum(high, kLow, low)));
#pragma unroll 1
    for (u32 rank = thread_index(); rank < count; rank += B::kThreads) {
      const i64 d = (i64)surprise(rank, most) + middle;
      distance(rank) = d < 0 ? -d : d;
    }
    block_barrier();
    const u64 enough = law::floor_product(p, total) + 1;
    keep([&](u32 rank) {
      const u32 own = distance(rank);
      u64 before = 0;
#pragma unroll 1
      for (u32 other = 0; other < count; other++) {
        if (distance(other) < own || (distance(other) == own && ahead(other, rank))) before += masses()[other];
      }
      return before < enough;
    });
  }

  // How far a logit is below the largest, in units of 2^-16.
  static DEVICE u64 below(float logit, float most) {
    const double d = (double)(most - logit) * 0x1p16;
    return (u64)((d < 0x1p31 ? d : 0x1p31) + 0x1p52 - 0x1p52);
  }

  // Keeps what is within n standard deviations of the largest logit: arXiv 2411.07641.
  DEVICE void top_n_sigma(float n) {
    const float most = logit(0);
    if (most > 0x1.fffffep127f) return keep([&](u32 rank) { return logit(rank) == most; });
    u64 finite = 0, sums = 0, high = 0, low = 0;
#pragma unroll 1
    for (u32 rank = thread_index(); rank < count; rank += B::kThreads) {
      if (logit(rank) < -0x1.fffffep127f) continue;
      const u64 d = below(logit(rank), most);
      finite++, sums += d, high += d * d >> 32, low += d * d & 0xffffffff;
    }
    finite = sum(finite);
    sums = sum(sums);
    high = sum(high);
    low = sum(low);
    const law::Wide squares = law::shifted_sum(high, 32, low);
    // The square of their number times the variance.
    const u64 less = sums * sums, from = finite * squares.low;
    const law::Wide spread = {multiply_high(finite, squares.low) + finite * squares.high - multiply_high(sums, sums) - (from < less ? 1 : 0), from - less};
    const double limit = (double)n * (square_root(spread.number()) / (double)finite);
    keep([&](u32 rank) { return logit(rank) >= -0x1.fffffep127f && (double)below(logit(rank), most) <= limit; });
  }

  // Drops all tokens that are likely enough but the least likely of them.
  DEVICE void drop_likely(float threshold) {
    const u64 product = law::ceil_product(threshold, total), least = product ? product : 1;
    u64 likely = 0;
#pragma unroll 1
    for (u32 rank = thread_index(); rank < count; rank += B::kThreads) likely += masses()[rank] >= least ? 1 : 0;
    likely = sum(likely);
    if (likely < 2) return;
    keep([&](u32 rank) {
      bool last = rank < likely && logit(rank) == logit(likely - 1);
#pragma unroll 1
      for (u32 other = 0; last && other < likely; other++) last = !ahead(rank, other);
      return last || rank >= likely;
    });
  }

};

// Takes the steps that are on: for all threads, behind a barrier.
template <class T, class W, class B>
DEVICE_APART void take_steps(B& block, Tail<W>& tail, const SampleArguments& a) {
  const RowParameters p = tail.given;
  Steps<T, W, B> steps{block, tail, a, tail.kept, 0};
  block_barrier();  // all have read what is kept
  steps.weigh();
  if (p.typical_p < 1) steps.typical(p.typical_p);
  if (p.top_n_sigma > 0) steps.top_n_sigma(p.top_n_sigma);
  if (p.drops_likely() && law::coin(tail.coin, p.xtc_probability)) steps.drop_likely(p.xtc_threshold);
  if (thread_index() == 0) tail.kept = steps.count, tail.total = steps.total;
}

// Draws the tokens of a row from any number that there is room for. Of what is kept, tail.kept and
// tail.total tell, behind a barrier.
template <class T, class W, class B, class S>
DEVICE void draw_from_many(B& block, Tail<W>& tail, const SampleArguments& a, u32 number, u32 k, u32 selected, const S& stamps) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  write_raw_top<T>(tail, a, number, selected);
  const Kept<W, B> row{block, tail, 0};

  // Masses, those that min-p lets through, and the sums before each thread.
  const float most = logit_of<T>(a, tail.sorted[0]), scale = tail.scale, top_p = tail.given.top_p;
  const u64 least = tail.least;
  const bool all_count = a.min_p_last;  // for top-p
  const u32 items = (k + B::kThreads - 1) / B::kThreads;
  u64 sum = 0;
  u32 heavy = 0;
#pragma unroll 1
  for (u32 i = 0; i < items; i++) {
    const u32 rank = thread * items + i;
    if (rank >= k) break;
    const u64 mass = mass_beside(logit_of<T>(a, tail.sorted[rank]), most, scale).sum();
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
  const u64 enough = top_p < 1 ? law::ceil_product(top_p, whole) : ~0ull;
#pragma unroll 1
  for (u32 i = 0; i < items; i++) {
    const u32 rank = thread * items + i;
    if (rank >= heavy || before >= enough) break;
    const u64 through = before + row.masses()[rank];
    if (through >= enough || rank == heavy - 1) tail.kept = rank + 1, tail.total = through;
    before = through;
  }
  block_barrier();
  if (tail.steps) {
    take_steps<T>(block, tail, a);
    block_barrier();
  }
  const Kept<W, B> kept{block, tail, tail.kept};
  const u64 all = tail.total;
  u64 total = all;
  block_barrier();  // before bins use it
  stamps.set(6);
#pragma unroll 1
  for (u32 draw = 0; draw < (u32)a.draws; draw++) {
    if (total == 0) {
      end_row(a, number, draw, kExhausted, B::kThreads);
      break;
    }
    const u64 target = law::target(tail.number_of_draw(a, number, draw), total);
    const u32 rank = kept.find_target(target, a.vocab);
    if (thread == 0) write_token(a, number, draw, kept.id(rank));
    if (!a.replacement) total -= kept.masses()[rank];
    if (draw + 1 == (u32)a.draws) {
      if (thread == 0 && a.status) a.status[number] = kDone;
      break;
    }
    block_barrier();  // all have read it
    if (!a.replacement && thread == 0) kept.masses()[rank] = 0;
    block_barrier();
  }
  if (thread == 0) tail.total = all;
  stamps.set(7);
}

// The rank of an element in the row as it came, from 1.
template <class T, class B, class L>
DEVICE_APART u32 rank_in_row(L& tail, const SampleArguments& a, u32 number, u32 index) {
  const Row<T> row(a, number, 0, 1);
  const u64 own = Word<u64>::pack(T::key(row.bits(index)), index);
  u64 before = 0;
#pragma unroll 1
  for (u32 i = thread_index(); i < row.length; i += B::kThreads) before += Word<u64>::pack(T::key(row.bits(i)), i) > own ? 1 : 0;
  return 1 + (u32)block_sum<B>(tail, before);
}

// Writes the logprobs of a row that has none: for all threads.
DEVICE_APART void write_no_logprobs(const SampleArguments& a, u32 number, u32 threads) {
  const float none = as_float(0xff800000);
  for (u32 i = thread_index(); a.logprobs && i < (u32)a.draws; i += threads) {
    a.logprobs[(i64)number * a.draws + i] = none;
    if (a.ranks) a.ranks[(i64)number * a.draws + i] = 0;
  }
  for (u32 i = thread_index(); a.top_ids && i < (u32)a.top_count; i += threads) {
    a.top_ids[(i64)number * a.top_count + i] = a.invalid_token;
    a.top_logprobs[(i64)number * a.top_count + i] = none;
  }
}

// Writes the kept set of a row, which is sorted first: for all threads.
template <class T, class W, class B>
DEVICE_APART void write_kept(const Tail<W>& tail, const SampleArguments& a, u32 number) {
  const float most = logit_of<T>(a, tail.sorted[0]);
  for (u32 rank = thread_index(); rank < tail.kept; rank += B::kThreads) {
    const i64 at = (i64)number * a.k + rank;
    a.kept[at] = Word<W>::index(tail.sorted[rank]);
    const u64 mass = mass_beside(logit_of<T>(a, tail.sorted[rank]), most, tail.scale).sum();
    if (a.kept_probabilities) a.kept_probabilities[at] = (float)((double)mass / (double)tail.total);
  }
  if (thread_index() == 0) a.kept_count[number] = tail.kept;
}

// Writes the logprobs of a row's tokens, and if they are of the kept set those of the most likely
// ones: for all threads, behind the draws. Of the sorted tokens n are in question.
template <class T, class W, class B>
DEVICE_APART void write_logprobs(Tail<W>& tail, const SampleArguments& a, u32 number, u32 n) {
  const u32 thread = thread_index();
  const RowParameters p = tail.given;
  const float most = logit_of<T>(a, tail.sorted[0]);
  Logprobs logprobs = tail.logprobs;
  if (a.processed) {
    logprobs = {most, p.greedy(a) ? 1 : p.temperature, law::kLn2 * law::log_total(tail.total)};
    n = tail.kept;
    if (a.top_ids && thread / kWarp == 1) write_top<T>(tail, a, number, n, logprobs);
  }
#pragma unroll 1
  for (u32 draw = 0; a.logprobs && draw < (u32)a.draws; draw++) {
    const i64 at = (i64)number * a.draws + draw;
    const int token = token_of(a, number, draw);
    if (token == a.invalid_token) {  // and all behind it
      if (thread == 0) a.logprobs[at] = as_float(0xff800000);
      if (thread == 0 && a.ranks) a.ranks[at] = 0;
      continue;
    }
    if (thread == 0) tail.chosen = n;
    block_barrier();
    for (u32 rank = thread; rank < n; rank += B::kThreads) {
      if ((int)Word<W>::index(tail.sorted[rank]) == token) tail.chosen = rank;
    }
    block_barrier();
    u32 rank = tail.chosen + 1;
    float logit;
    if (rank <= n) {
      logit = a.processed ? logit_of<T>(a, tail.sorted[rank - 1]) : number_of<T>(Word<W>::key(tail.sorted[rank - 1]));
    } else {
      logit = number_of_bits<T>(Row<T>(a, number, 0, 1).bits(token));
      rank = rank_in_row<T, B>(tail, a, number, token);
    }
    if (thread == 0) a.logprobs[at] = logprobs.of(logit);
    if (thread == 0 && a.ranks) a.ranks[at] = rank;
    block_barrier();  // all have read what was chosen
  }
}

// Draws the tokens of a row, of which so many are sorted, and of these top-k leaves k: behind a barrier.
template <class T, class W, class B, class S>
DEVICE void draw_tokens(B& block, Tail<W>& tail, const SampleArguments& a, u32 number, u32 k, u32 selected, const S& stamps) {
  const Status status = status_of<T>(tail, tail.sorted[0], k);
  if (status != kDone) {
    if (a.kept && thread_index() == 0) a.kept_count[number] = 0;
    if (a.logprobs || a.top_ids) write_no_logprobs(a, number, B::kThreads);
    return end_row(a, number, 0, status, B::kThreads);
  }
  const bool steps = tail.steps && k > 1;
  if (k <= Tail<W>::kFew && !steps) {
    draw_from_few<T, W, B>(tail, a, number, k, selected, stamps);
  } else {
    draw_from_many<T>(block, tail, a, number, k, selected, stamps);
  }
  if (!answers_more(a)) return;
  block_barrier();
  if (a.kept) write_kept<T, W, B>(tail, a, number);
  if (a.logprobs || a.top_ids) write_logprobs<T, W, B>(tail, a, number, steps ? 0 : selected);
}

// The answers of a row that was drawn from by passes over it, so many of which are sorted. There are none of
// its kept set.
template <class T, class W, class B>
DEVICE void answer_whole(Tail<W>& tail, const SampleArguments& a, u32 number, u32 selected) {
  if (!a.logprobs && !a.top_ids) return;
  if (a.processed || status_of<T>(tail, tail.sorted[0], selected) != kDone) return write_no_logprobs(a, number, B::kThreads);
  write_raw_top<T>(tail, a, number, selected);
  write_logprobs<T, W, B>(tail, a, number, selected);
}
