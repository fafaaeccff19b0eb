// The tail of a sampling launch: the tokens of a row, from the best k of it in shared
// memory.
//
// Masses never grow with the rank, so that min-p and top-p both keep a prefix; a scan
// finds where it ends. A draw asks for the token at which the sum of masses in the order
// of ids exceeds a target.
//
// A block has two warps more than those that read the row: they settle meanwhile what the tail needs.
// Up to 64 tokens of up to 93 candidates are drawn from without being sorted first (few.cuh). More
// are the block's: bins of ids tell the few that come into question. Bytes: none but the
// parameters and the answer.
#pragma once

#include "sample.cuh"

// Logprobs turns logits into natural logprobs: those of a law with this largest logit and
// temperature, by the logarithm of its mass.
struct Logprobs {
  double most, temperature, log_mass;

  DEVICE float of(float logit) const {
    return beside_mass(logit == most ? 0 : logit < -0x1.fffffep127f ? logit : ((double)logit - most) / temperature);
  }
  // The same for a temperature of 1, without a division.
  DEVICE float raw(float logit) const { return beside_mass(logit == most ? 0 : (double)logit - most); }
  DEVICE float beside_mass(double x) const {
    const double y = x - log_mass;
    return (float)(y > 0 ? 0 : y);  // of a row with NaN, NaN
  }
};

// ExponentialSum adds up e^logit of a thread's elements, for logprobs: within 5e-7 of it, and always
// in one order. A logit of 16 bits times the first bits of log2(e) is exact; what they lack, or what rounding adds to
// the product with all bits, is made up for by the mean of its first order, which the logarithm of the sum lacks.
template <class T>
struct ExponentialSum {
  static constexpr bool kExact = T::kBits == 16, kBrain = T::kBestNumber - T::kSign == 0x7f80;
  static constexpr float kLog2E = !kExact ? 0x1.715476p+0f : kBrain ? 0x1.7154p+0f : 0x1.715p+0f;
  static constexpr double kMissing = law::kLn2 * (0x1.71547652b82fep+0 - kLog2E);
  static constexpr float kLeast = -87;  // of which nothing less has a normal exponential
  float sum = 0, gained = 0;  // since it was settled
  double total = 0;
  float all_gained = 0;

  DEVICE void add(const Vector& v) {
    float words[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      words[i] = one(number_in_word<T>(v.word[i], 0));
      if (T::kPerWord == 2) words[i] += one(number_in_word<T>(v.word[i], 1));
    }
    sum += (words[0] + words[1]) + (words[2] + words[3]);
  }
  DEVICE void add_one(u32 bits) { sum += one(number_in_word<T>(bits, 0)); }
  DEVICE float one(float logit) {
    logit = logit > kLeast ? logit : kLeast;
    const float x = logit * kLog2E, e = approximate_exp2(x);
    gained = multiply_add(e, kExact ? logit : multiply_add(logit, kLog2E, -x), gained);
    return e;
  }
  DEVICE void settle() {
    total += (double)sum;
    all_gained += gained;
    sum = gained = 0;
  }
  // Adds what the lane so far away has.
  DEVICE void join(u32 lanes) {
    total += as_double(shuffle_xor(as_bits(total), lanes));
    all_gained += as_float(shuffle_xor(as_bits(all_gained), lanes));
  }

  // What the logarithm of the sum lacks: by the mean of what was gained, and of 32 bits by the largest logit, near which
  // those are that count.
  DEVICE double lacking(float most) const {
    const float mean = all_gained / (float)total;
    return kExact ? kMissing * mean : law::kLn2 * mean + kMissing * most;
  }
};

// The natural logarithm of a positive, normal number, for logprobs: within 2^-24.
DEVICE double logarithm(double x) {
  const int n = (int)((i64)(as_bits(x) - as_bits(2.0 / 3)) >> 52);
  const float f = (float)(as_double(as_bits(x) - ((u64)n << 52)) - 1), z = f * f;
  float even = -0x1.0aep-3f, odd = 0x1.208p-3f;
  even = multiply_add(even, z, -0x1.f198b2p-4f);
  odd = multiply_add(odd, z, 0x1.1e5740p-3f);
  even = multiply_add(even, z, -0x1.55b36cp-3f);
  odd = multiply_add(odd, z, 0x1.99d8b2p-3f);
  even = multiply_add(even, z, -0x1.fffe02p-3f);
  const float series = multiply_add(multiply_add(multiply_add(odd, f, even), f, 0x1.5554fap-2f), f, -0.5f);
  return n * law::kLn2 + (double)multiply_add(series, z, f);
}

// FewWords is what is known of the candidates of which few tokens are drawn from.
constexpr u32 kFewTokens = 2 * kWarp;
constexpr u32 kWeighing = 3;                        // warps
constexpr u32 kFewWords = kWeighing * (kWarp - 1);  // one lane of each has another task
struct FewWords {
  alignas(8) u64 weighed[kWeighing * kWarp];  // masses, each in its two parts
  alignas(4) u8 by_rank[kFewTokens];          // places
  alignas(4) u16 by_id[kWeighing * kWarp];    // places, and ranks above them
};

// Tail is what the threads share behind the selection, beside what is the block's.
template <class W>
struct Tail {
  static constexpr u32 kMost = 8192 / sizeof(W);  // results
  alignas(16) W sorted[kMost];
  u32 more[sizeof(W) == 4 ? kBins : 1];  // room for what is known of so many
  alignas(16) SampleArguments arguments;  // of the launch: code that is apart would wait for each of their lines in memory
  alignas(16) Drawing drawing;
  alignas(16) RowParameters given;
  alignas(8) u64 seed;
  u64 position;
  static constexpr u32 kNumbers = kWarp - 1;
  u64 numbers[kWarp];  // random, of the first draws; the last is that of xtc
  u64 least;           // mass that min-p lets through
  u64 share;           // of the mass that top-p keeps, see law::fixed_point; 0 if it is off
  double softcap_reciprocal;
  float softcap, scale;
  u32 valid;                           // whether all that is given is in its range
  u32 steps;                           // whether there are some behind top-p
  u32 left;                            // by top-k
  u32 selected;                        // as many as it leaves, or as logprobs ask for
  FewWords few;
  alignas(8) u64 sums[kWarp];          // of warps
  u32 counts[kWarp];                   // of warps
  u64 total;                           // of the kept
  u64 beyond;                          // what a target is beyond the bins before its own
  u64 raw_sums[kWarp];                 // of parts of warps: exponentials' bits, or masses
  float gained[kWarp];                 // of the same, see ExponentialSum
  Logprobs logprobs;                   // of the logits as they came
  u32 kept;
  u32 chosen;  // bin, or rank
  u32 rank;    // of the last token
  u32 drawn;   // tokens, all that are wanted or as many as there were

  // Settles what is known before the row is: for the warps behind those that read it. What is in memory is asked for first,
  // and used last.
  DEVICE void settle(const SampleArguments& a, u32 number, u32 readers) {
    if (thread_index() < readers + kWarp) {
      settle_law(a, number);
    } else {
      settle_draws(a, number);
    }
  }
  // What the row's parameters decide.
  DEVICE void settle_law(const SampleArguments& a, u32 number) {
    constexpr u32 kReals = sizeof(RowParameters) / sizeof(u32);
    const u32 lane = thread_index() % kWarp;
    if (lane < kReals) {
      // Pointers and values are in one order.
      const u32* from = reinterpret_cast<const u32* const*>(&a.row_temperature)[lane];
      const u32 value = ::kept(reinterpret_cast<const u32*>(&a.temperature)[lane]);
      u32* to = reinterpret_cast<u32*>(&given) + lane;
      if (from) {
        copy_later<4>(to, from + number);
      } else {
        *to = value;
      }
    }
    const int length = a.row_lengths ? (int)clamp(a.row_lengths[number], a.vocab) : a.vocab;
    // The selection is of what top-k leaves, and of what the logprobs tell.
    const u32 listed = ::kept(wants_raw(a) ? larger(a.top_ids ? a.top_count : 0, 1) : 0);
    wait_for_copies();
    warp_barrier();
    if (lane > 0) return;
    const RowParameters p = given;
    scale = p.greedy(a) ? 0 : law::scale(p.temperature);
    share = p.top_p < 1 ? law::fixed_point(p.top_p) : 0;
    least = law::least_mass(p.min_p);
    valid = p.valid();
    steps = p.steps();
    left = a.told ? 0 : left_by_top_k(a, p, length);
    selected = smaller(larger(left, listed), (u32)length);
  }
  // The random numbers, and what the arguments alone tell.
  DEVICE void settle_draws(const SampleArguments& a, u32 number) {
    constexpr u32 kWords = sizeof(SampleArguments) / sizeof(u64);
    const u32 lane = thread_index() % kWarp;
    const u64 row_seed = a.row_seed ? a.row_seed[number] : a.seed, row_position = a.row_position ? a.row_position[number] : a.position;
#pragma unroll
    for (u32 i = 0; i < kWords; i += kWarp) {
      if (i + lane < kWords) reinterpret_cast<u64*>(&arguments)[i + lane] = reinterpret_cast<const u64*>(&a)[i + lane];
    }
    if (lane == 0) {
      drawing = Drawing(a, number);
      softcap = a.softcap, softcap_reciprocal = a.softcap > 0 ? 1 / (double)a.softcap : 0;
      drawn = a.draws;
      seed = row_seed, position = row_position;
    }
    // Those of draws, and behind them the one of xtc.
    numbers[lane] = law::uniform(row_seed, row_position, first_draw(a, number) + (lane < kNumbers ? lane : 0), lane < kNumbers ? law::kDraw : law::kXTC);
  }
  // The number of the n-th draw.
  DEVICE u64 number_of_draw(const SampleArguments& a, u32 number, u32 draw) const {
    return draw < kNumbers ? numbers[draw] : law::uniform(seed, position, first_draw(a, number) + draw, law::kDraw);
  }
};

// What the threads of a block share. Kernels may specialise it, to use the memory for more.
template <class B>
struct Shared {
  B block;
  Tail<typename B::Candidate> tail;
};
template <class B>
DEVICE Shared<B>& block_shared() {
  SHARED(Shared<B>, shared);
  return shared;
}
template <class B>
DEVICE B& the_block() { return block_shared<B>().block; }
template <class B>
DEVICE Tail<typename B::Candidate>& block_tail() { return block_shared<B>().tail; }

// Sorted takes results where the tail wants them.
template <class W>
struct Sorted {
  Tail<W>& tail;
  DEVICE void write(u32 rank, W word) const { tail.sorted[rank] = word; }
};

DEVICE u64 shuffle_wide(u64 v, u32 lane) { return (u64)shuffle((u32)(v >> 32), lane) << 32 | shuffle((u32)v, lane); }
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

// The sum of what the lanes up to this one have.
DEVICE u32 warp_scan(u32 through) {
  const u32 lane = thread_index() % kWarp;
#pragma unroll
  for (u32 d = 1; d < kWarp; d *= 2) {
    const u32 up = shuffle_up(through, d);
    if (lane >= d) through += up;
  }
  return through;
}

// The same of at most 1,024 masses.
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

// Finds the best element of a row, and its first if there are several, from the best of groups and of its
// slots. The first warp returns its word.
template <class T, class W, class B>
DEVICE W find_best(B& block, const Row<T>& row, const Share& share, u32 groups) {
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  u32 best = 0, edge = 0;
  if (groups == kGuessGroups) {  // which are not of all slots
    best = warp_max(best_key<T>(share));
    if (lane == 0) block.reach[warp] = best;
    block_barrier();
    best = lane < B::kWarps ? block.reach[lane] : 0;
  } else {
#pragma unroll 1
    for (u32 i = lane * 4; i < groups; i += kWarp * 4) {
      const Vector keys = *reinterpret_cast<const Vector*>(block.groups + i);
      best = larger(best, larger(larger(keys.word[0], keys.word[1]), larger(keys.word[2], keys.word[3])));
    }
  }
  if (lane < row.edges()) edge = T::key(row.bits(row.edge(lane)));
  best = warp_max(larger(best, edge));
  u32 first = warp == 0 && edge == best ? ~row.edge(lane) : 0;  // the complement: its maximum is the smallest index
  if (T::beatable(best) && best != T::kNaNKey) {
    const u32 below = T::just_below(best);
    u32 slots = 0;
#pragma unroll
    for (u32 s = 0; s < kSlots; s++) slots |= T::beats(share.slot[s], below) ? 1u << s : 0;
#pragma unroll 1
    for (; slots; slots &= slots - 1) {
#pragma unroll 1
      for (u32 i = lowest_bit(slots) * B::kThreads + thread; i < row.vectors; i += kSlots * B::kThreads) {
        u32 marks = T::mark(row.vector(i), below);
#pragma unroll 1
        for (; marks; marks &= marks - 1) first = larger(first, ~(row.at(i) + T::marked_element(lowest_bit(marks))));
      }
    }
  }
  first = warp_max(first);
  if (lane == 0) block.lows[warp] = first;
  block_barrier();
  return warp == 0 ? Word<W>::pack(best, ~warp_max(lane < B::kWarps ? block.lows[lane] : 0)) : 0;
}

// Writes the best element of a greedy row, of which the first warp has the word.
template <class T, class W>
DEVICE void end_greedy(const Tail<W>& tail, const SampleArguments& a, u32 number, W best) {
  if (thread_index() >= kWarp) return;
  if (const Status status = status_of<T>(tail, best, 1); status != kDone) {
    end_row(a, number, 0, status, kWarp);
  } else if (thread_index() == 0) {
    write_token(a, number, 0, Word<W>::index(best));
    if (a.status) a.status[number] = kDone;
  }
}

// Whether a row is greedy, or of one token, of which nothing else is asked for.
template <class W>
DEVICE bool is_greedy(const Tail<W>& tail, const SampleArguments& a) { return tail.selected == 1 && tail.left == 1 && a.draws == 1 && !answers_more(a); }

// Reads a row that is sampled.
template <class T, class W, class B>
struct SampledReader : Reader<T> {
  B& block;
  Tail<W>& tail;
  const SampleArguments& a;
  u32 number;

  // For a row that is not read for its best: its warp has settled behind a barrier.
  DEVICE void prepare(const Row<T>&) const { block_barrier(); }
  DEVICE u32 results(const Row<T>&) const { return tail.selected; }
  // Of a single token that is left.
  DEVICE bool decides(const Row<T>& row, const Share& share, u32 groups) {
    if (!is_greedy(tail, a)) return false;
    release_kernel_behind();
    end_greedy<T>(tail, a, number, find_best<T, W>(block, row, share, groups));
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

// Where the most likely tokens of a row are wanted.
struct Top {
  int* ids;
  float* logprobs;
  u32 count;
  int invalid_token;

  DEVICE Top(const SampleArguments& a, u32 number)
      : ids(a.top_ids + (i64)number * a.top_count), logprobs(a.top_logprobs + (i64)number * a.top_count), count(a.top_ids ? a.top_count : 0), invalid_token(a.invalid_token) {}

  // Writes those of n sorted tokens, with the logprobs that told(word) tells: for a warp.
  template <class W, class Told>
  DEVICE void write(const Tail<W>& tail, u32 n, Told told) const {
#pragma unroll 1
    for (u32 i = thread_index() % kWarp; i < count; i += kWarp) {
      const W word = tail.sorted[i < n ? i : 0];
      ids[i] = i < n ? (int)Word<W>::index(word) : invalid_token;
      logprobs[i] = i < n ? told(word) : as_float(0xff800000);
    }
  }
};

constexpr u32 kRawParts = 2;  // of a warp

// Whether logprobs of the logits as they came are made of exponentials: of 2^20 elements the sum is less than 2^122, and the
// largest is a normal number. Others, NaN too where NaN are edited, are made of masses.
DEVICE bool exponential(float most) { return most >= -40 && most <= 70; }

// Adds up what logprobs of the logits as they came need: a pass over the row, which L1 has, by all warps but the first, which
// draws meanwhile. Apart, because it is long, and without the arguments, which would be read from memory.
template <class T, class W, class B>
DEVICE_APART void add_up_raw(Row<T> row) {
  constexpr u32 kTold = B::kThreads - kWarp, kAhead = 4;
  static_assert(kRawParts * (kTold / kWarp) <= kWarp, "a part for each lane");
  Tail<W>& tail = block_tail<B>();
  const u32 thread = thread_index() - kWarp, lane = thread % kWarp;
  const float most = number_of<T>(Word<W>::key(tail.sorted[0]));
  ExponentialSum<T> sum;
  u64 mass = 0;
  if (exponential(most)) {
    u32 i = thread;
#pragma unroll 1
    for (; i + (kAhead - 1) * kTold < row.vectors; i += kAhead * kTold) {
      Vector v[kAhead];
#pragma unroll
      for (u32 j = 0; j < kAhead; j++) v[j] = row.vector(i + j * kTold);
#pragma unroll
      for (u32 j = 0; j < kAhead; j++) sum.add(v[j]);
      sum.settle();
    }
#pragma unroll 1
    for (; i < row.vectors; i += kTold) sum.add(row.vector(i));
    if (thread < row.edges()) sum.add_one(row.bits(row.edge(thread)));
    sum.settle();
#pragma unroll
    for (u32 d = kRawParts; d < kWarp; d *= 2) sum.join(d);
    mass = as_bits(sum.total);
  } else {
    const float scale = law::scale(1);
#pragma unroll 1
    for (u32 i = thread; i < row.length; i += kTold) mass += mass_beside(number_of_bits<T>(row.bits(i)), most, scale).sum();
#pragma unroll
    for (u32 d = kRawParts; d < kWarp; d *= 2) mass += shuffle_xor(mass, d);
  }
  const u32 part = thread / kWarp * kRawParts + lane;
  if (lane < kRawParts) tail.raw_sums[part] = mass, tail.gained[part] = sum.all_gained;
}
// Tells by it the logprobs of the most likely of n sorted tokens, and what others have theirs by: for a warp, behind a barrier.
template <class T, class W, class B>
DEVICE_APART void tell_raw(Top top, u32 n) {
  Tail<W>& tail = block_tail<B>();
  const u32 lane = thread_index() % kWarp;
  const float most = number_of<T>(Word<W>::key(tail.sorted[0]));
  const bool there = lane < kRawParts * (B::kWarps - 1);
  u64 mass = there ? tail.raw_sums[lane] : 0;
  Logprobs logprobs;
  if (exponential(most)) {
    ExponentialSum<T> sum;
    sum.total = as_double(mass), sum.all_gained = there ? tail.gained[lane] : 0;
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) sum.join(d);
    logprobs = {0, 1, logarithm(sum.total) + sum.lacking(most)};
  } else {
#pragma unroll
    for (u32 d = 1; d < kWarp; d *= 2) mass += shuffle_xor(mass, d);
    logprobs = {most, 1, most == most ? law::kLn2 * law::log_total(mass) : most};
  }
  if (lane == 0) tail.logprobs = logprobs;
  top.write(tail, n, [&](W word) { return logprobs.raw(number_of<T>(Word<W>::key(word))); });
}

// Both, for a row that wants them: for all threads, of which the first warp does something else meanwhile. Others have theirs behind one
// more barrier.
template <class T, class W, class B, class Meanwhile>
DEVICE void tell_raw_beside(const SampleArguments& a, u32 number, u32 n, Meanwhile meanwhile) {
  const u32 warp = thread_index() / kWarp;
  if (warp == 0) {
    meanwhile();
  } else if (wants_raw(a)) {
    add_up_raw<T, W, B>(Row<T>(a, number, 0, 1));
  }
  if (!wants_raw(a)) return;
  block_barrier();
  if (warp == 1) tell_raw<T, W, B>(Top(a, number), n);
}

// Masses of many tokens, by rank. The candidates are no longer needed.
template <class B>
DEVICE u64* masses_of_many() { return reinterpret_cast<u64*>(the_block<B>().candidates); }

// Bins of ids tell where a target falls: the sums of their masses, in two parts, and the tokens of
// one bin.
template <class W, class B>
struct Bins {
  static constexpr u32 kCount = 256, kLow = 21;  // bits of the lower part
  static constexpr u32 kEach = Tail<W>::kMost / B::kThreads;  // tokens of a thread, one rank behind the other
  static DEVICE u32* lows() { return the_block<B>().groups; }
  static DEVICE u32* highs() { return the_block<B>().groups + kCount; }
  // Room for the ranks of all tokens.
  static DEVICE u16* list() { return reinterpret_cast<u16*>(sizeof(W) == 4 ? block_tail<B>().more : the_block<B>().groups + 2 * kCount); }
  static DEVICE u32 id(u32 rank) { return Word<W>::index(block_tail<B>().sorted[rank]); }
  static DEVICE u32 shift_of(u32 vocab) {
    const u32 bits = kWarp - leading_zeros(vocab - 1);
    return bits > 8 ? bits - 8 : 0;
  }

  // Empties the bins: for all threads.
  static DEVICE void clear() {
    static_assert(2 * kCount == B::kThreads, "each thread has a word");
    lows()[thread_index()] = 0;
  }

  // Adds the mass of a token to its bin.
  static DEVICE void add(u32 bin, u64 mass) {
    atomic_add_only(&lows()[bin], (u32)mass & ((1u << kLow) - 1));
    atomic_add_only(&highs()[bin], (u32)(mass >> kLow));
  }

  // Adds the first so many tokens: for all threads.
  static DEVICE void add_all(u32 count, u32 shift) {
#pragma unroll 1
    for (u32 rank = thread_index(); rank < count; rank += B::kThreads) add(id(rank) >> shift, masses_of_many<B>()[rank]);
  }

  // Finds the bin in which the target falls, and what the target is beyond the bins before: for one
  // warp.
  static DEVICE void find(u64 target) {
    constexpr u32 kEachLane = kCount / kWarp;
    Tail<W>& tail = block_tail<B>();
    const u32 first = thread_index() % kWarp * kEachLane;
    // Sums of parts have no carry where some token is not in them: the bins of a lane but its last have room for 1,792 ids
    // where there may be 2,048 tokens.
    static_assert(Tail<W>::kMost <= 1u << (32 - kLow), "less than 2^32 each");
    u32 low[kEachLane], high[kEachLane], through_low = 0, through_high = 0, last_low = 0, last_high = 0;
#pragma unroll
    for (u32 b = 0; b < kEachLane; b++) {
      low[b] = through_low, high[b] = through_high;
      last_low = lows()[first + b], last_high = highs()[first + b];
      through_low += last_low, through_high += last_high;
    }
    const auto sum = [](u32 of_lows, u32 of_highs) { return ((u64)of_highs << kLow) + of_lows; };
    const u64 own = sum(low[kEachLane - 1], high[kEachLane - 1]) + sum(last_low, last_high);
    const u64 before = sum(warp_scan(through_low) - through_low, warp_scan(through_high) - through_high), beyond = target - before;
    if (before > target || beyond >= own) return;
    u32 bin = first;
    u64 begin = 0;
#pragma unroll
    for (u32 b = 1; b < kEachLane; b++) {
      if (beyond >= sum(low[b], high[b])) bin = first + b, begin = sum(low[b], high[b]);
    }
    tail.chosen = bin, tail.beyond = beyond - begin;
  }

  // Lists the tokens of a bin: for all threads.
  static DEVICE void collect(u32 count, u32 shift, u32 bin) {
    const u32 first = thread_index() * kEach;
    if (first >= count) return;
    u32 marks = 0;
#pragma unroll
    for (u32 i = 0; i < kEach; i++) marks |= (first + i < count && id(first + i) >> shift == bin ? 1u : 0u) << i;
    if (marks == 0) return;
    u32 place = atomic_add(&the_block<B>().count, population(marks));
#pragma unroll 1
    for (; marks; marks &= marks - 1) list()[place++] = first + lowest_bit(marks);
  }

  // The rank of the token, of n that are listed, on which the target falls: for one warp, of which a lane
  // returns it and all others kAllLanes.
  static DEVICE u32 find_listed(u32 n, u64 target) {
    constexpr u32 kAtOnce = 4;
    const u32 lane = thread_index() % kWarp;
    u32 found = kAllLanes;
#pragma unroll 1
    for (u32 base = 0; base < n; base += kWarp) {
      const u32 rank = list()[smaller(base + lane, n - 1)], own = id(rank);
      const u64 mass = masses_of_many<B>()[rank];
      u64 before = 0;
#pragma unroll 1
      for (u32 others = 0; others < n; others += kWarp) {
        u32 other_id = own;
        u64 other_mass = mass;
        if (others != base) {
          const u32 other = list()[smaller(others + lane, n - 1)];
          other_id = id(other), other_mass = masses_of_many<B>()[other];
        }
        if (others + lane >= n) other_id = kAllLanes;  // behind all
#pragma unroll 1
        for (u32 j = 0; j < smaller(n - others, kWarp); j += kAtOnce) {
#pragma unroll
          for (u32 i = 0; i < kAtOnce; i++) {
            const u64 one = shuffle_wide(other_mass, j + i);
            if (shuffle(other_id, j + i) < own) before += one;
          }
        }
      }
      if (base + lane < n && before <= target && target - before < mass) found = rank;
    }
    return found;
  }
};

// Weighs k sorted tokens, finds the last of them that is kept, and if no steps follow adds what is kept to the bins: for
// all threads. Others see it behind a barrier.
template <class T, class W, class B, class S>
DEVICE void weigh_many(const SampleArguments& a, u32 k, const S& stamps) {
  using Bins = Bins<W, B>;
  constexpr u32 kEach = Bins::kEach;
  Tail<W>& tail = block_tail<B>();
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp, first = thread * kEach;
  const bool all_count = a.min_p_last;
  W words[kEach];
  law::Masses masses[kEach], own;
  u32 heavy = 0;
  if (first < k) {
    const float softcap = a.softcap, scale = tail.scale;
    const u64 least = tail.least;
    float most = number_of<T>(Word<W>::key(tail.sorted[0])), logits[kEach];
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      words[i] = tail.sorted[first + i];
      logits[i] = first + i < k ? number_of<T>(Word<W>::key(words[i])) : most;
    }
    if (softcap > 0) {
      most = capped(most, softcap);
#pragma unroll
      for (u32 i = 0; i < kEach; i++) logits[i] = capped(logits[i], softcap);
    }
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      const law::Masses mass = mass_beside(logits[i], most, scale);
      if (first + i < k) masses[i] = mass;
      masses_of_many<B>()[first + i] = masses[i].sum();  // past the last, too
    }
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      const bool counts = first + i < k && masses[i].sum() >= least;
      heavy += counts;
      own = own + ((counts | all_count) ? masses[i] : law::Masses{});
    }
  }
  Bins::clear();
  if (thread == 0) the_block<B>().count = 0;
  heavy = warp_sum(heavy);
  const law::Masses through = warp_scan(own);
  if (lane == kWarp - 1) tail.sums[warp] = through.sum(), tail.counts[warp] = heavy;
  block_barrier();
  stamps.set(5);

  if (warp * kWarp * kEach >= k) return;
  const bool steps = tail.steps;
  const u64 share = tail.share;
  const u32 shift = Bins::shift_of(a.vocab);
  const u64 sum = lane < B::kWarps ? tail.sums[lane] : 0;
  heavy = warp_sum(lane < B::kWarps ? tail.counts[lane] : 0);
  u64 before = (through - own).sum() + warp_sum_wide(lane < warp ? sum : 0);
  const u64 enough = share ? law::ceil_share(share, warp_sum_wide(sum)) : ~0ull;
#pragma unroll
  for (u32 i = 0; i < kEach; i++) {
    const u64 mass = masses[i].sum(), next = before + mass;
    if (first + i < heavy && before < enough) {
      if (next >= enough || first + i == heavy - 1) tail.kept = first + i + 1, tail.total = next;
      if (!steps) Bins::add(Word<W>::index(words[i]) >> shift, mass);
    }
    before = next;
  }
}

// Steps are those behind top-p, on a kept set that is no prefix afterwards: what they leave is
// brought to the front of the sorted tokens. Their time grows with the square of the number of tokens.
template <class T, class W, class B>
struct Steps {
  B& block;
  Tail<W>& tail;
  const SampleArguments& a;
  u32 count;
  u64 total;

  DEVICE u64* masses() const { return masses_of_many<B>(); }
  DEVICE float logit(u32 rank) const { return logit_of<T>(a, tail.sorted[rank]); }
  // The magnitude of a surprise.
  DEVICE u32 surprise(u32 rank, float most) const {
    const float l = logit(rank);
    return l == most ? 0 : most > 0x1.fffffep127f ? -law::kLeastSurprise : -law::surprise(l, most, tail.scale);
  }
  DEVICE u32& distance(u32 rank) const { return rank < kBins ? block.groups[rank] : tail.more[rank - kBins]; }
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
  if (p.drops_likely() && law::coin(tail.numbers[Tail<W>::kNumbers], p.xtc_probability)) steps.drop_likely(p.xtc_threshold);
  if (thread_index() == 0) tail.kept = steps.count, tail.total = steps.total;
}

// Draws the tokens of a row from any number that there is room for. Of what is kept, tail.kept and
// tail.total tell, behind a barrier.
template <class T, class W, class B, class S>
DEVICE void draw_from_many(B& block, Tail<W>& tail, const SampleArguments& a, u32 number, u32 k, const S& stamps) {
  using Bins = Bins<W, B>;
  const u32 thread = thread_index();
  const u32 shift = Bins::shift_of(a.vocab);
  weigh_many<T, W, B>(a, k, stamps);
  block_barrier();
  stamps.set(6);
  if (tail.steps) {
    take_steps<T>(block, tail, a);
    Bins::clear();  // where they were at work
    block_barrier();
    Bins::add_all(tail.kept, shift);
    block_barrier();
  }
  const u32 kept = tail.kept;
  u64 total = tail.total;
#pragma unroll 1
  for (u32 draw = 0;;) {
    if (thread < kWarp) Bins::find(law::target(tail.number_of_draw(a, number, draw), total));
    block_barrier();
    Bins::collect(kept, shift, tail.chosen);
    block_barrier();
    if (thread < kWarp) {
      const u32 rank = Bins::find_listed(block.count, tail.beyond);
      if (rank != kAllLanes) {
        write_token(a, number, draw, Bins::id(rank));
        tail.rank = rank;
      }
    }
    if (++draw == (u32)a.draws) break;
    block_barrier();
    const u64 mass = a.replacement ? 0 : masses_of_many<B>()[tail.rank];
    total -= mass;
    if (total == 0) {
      if (thread == 0) tail.drawn = draw;
      return end_row(a, number, draw, kExhausted, B::kThreads);
    }
    block_barrier();  // all have read it
    if (thread == 0) {
      block.count = 0;
      const u32 bin = Bins::id(tail.rank) >> shift;
      if (mass > 0) {
        Bins::lows()[bin] -= (u32)mass & ((1u << Bins::kLow) - 1);
        Bins::highs()[bin] -= (u32)(mass >> Bins::kLow);
        masses_of_many<B>()[tail.rank] = 0;
      }
    }
    block_barrier();
  }
  if (thread == 0 && a.status) a.status[number] = kDone;
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

// Writes the logprobs of a row's tokens, of which so many were drawn, and if they are of the kept set those of the most
// likely ones: for all threads, behind the draws. Of the sorted tokens n are in question.
template <class T, class W, class B>
DEVICE void write_logprobs(Tail<W>& tail, const SampleArguments& a, u32 number, u32 n, u32 drawn) {
  const u32 thread = thread_index();
  const RowParameters p = tail.given;
  const float most = logit_of<T>(a, tail.sorted[0]);
  Logprobs logprobs = tail.logprobs;
  if (a.processed) {
    logprobs = {most, p.greedy(a) ? 1 : p.temperature, law::kLn2 * law::log_total(tail.total)};
    n = tail.kept;
    if (a.top_ids && thread / kWarp == 1) Top(a, number).write(tail, n, [&](W word) { return logprobs.of(logit_of<T>(a, word)); });
  }
#pragma unroll 1
  for (u32 draw = 0; a.logprobs && draw < (u32)a.draws; draw++) {
    const i64 at = (i64)number * a.draws + draw;
    const int token = token_of(a, number, draw);
    if (draw >= drawn) {
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

// Writes what is asked for beside the tokens of a row, of which so many are sorted: for all threads, behind
// a barrier.
template <class T, class W, class B>
DEVICE_APART void answer_more(const SampleArguments& a, u32 number, u32 selected) {
  Tail<W>& tail = block_tail<B>();
  if (a.kept) write_kept<T, W, B>(tail, a, number);
  if (a.logprobs || a.top_ids) write_logprobs<T, W, B>(tail, a, number, selected, tail.drawn);
}

// Ends a row that has no tokens: for all threads.
template <class B>
DEVICE_APART void end_without_tokens(const SampleArguments& a, u32 number, Status status) {
  if (a.kept && thread_index() == 0) a.kept_count[number] = 0;
  if (a.logprobs || a.top_ids) write_no_logprobs(a, number, B::kThreads);
  end_row(a, number, 0, status, B::kThreads);
}

// Draws the tokens of a row from the best k of its candidates: the way for any number.
template <class T, class W, class B, class S>
DEVICE void draw_in_order(u32 number, Found found, u32 k, const S& stamps) {
  B& block = the_block<B>();
  Tail<W>& tail = block_tail<B>();
  const SampleArguments& a = tail.arguments;
  const u32 selected = tail.selected;
  release_kernel_behind();
  // All lanes have the same numbers: that way they come to registers of the warp, instead of local memory.
  merge(block, warp_max(found.candidates), warp_max(found.wanted), Sorted<W>{tail}, Stamps<false>(a));
  block_barrier();
  stamps.set(4);
  const Status status = status_of<T>(tail, tail.sorted[0], k);
  if (status != kDone) return end_without_tokens<B>(a, number, status);
  tell_raw_beside<T, W, B>(a, number, selected, [] {});
  draw_from_many<T>(block, tail, a, number, k, stamps);
  if (!answers_more(a)) return;
  block_barrier();
  answer_more<T, W, B>(a, number, tail.steps && k > 1 ? 0 : selected);
  stamps.set(7);
}

// The answers of a row from which so many tokens were drawn by passes over it, and so many of which are sorted. There are
// none of its kept set.
template <class T, class W, class B>
DEVICE void answer_whole(Tail<W>& tail, const SampleArguments& a, u32 number, u32 selected, u32 drawn) {
  if (!a.logprobs && !a.top_ids) return;
  if (a.processed || status_of<T>(tail, tail.sorted[0], selected) != kDone) return write_no_logprobs(a, number, B::kThreads);
  write_logprobs<T, W, B>(tail, a, number, selected, drawn);
}

// Writes the raw logprobs of a row whose tokens are there, -1 for none, which becomes invalid_token.
template <class T, class W, class B>
DEVICE_APART void tell_row(const SampleArguments& a, u32 number, Found found) {
  Tail<W>& tail = block_tail<B>();
  const u32 selected = tail.selected;
  release_kernel_behind();
  u32 drawn = a.draws;
  while (drawn > 0 && token_of(a, number, drawn - 1) < 0) drawn--;
  block_barrier();  // all know
#pragma unroll 1
  for (u32 draw = drawn + thread_index(); draw < (u32)a.draws; draw += B::kThreads) write_token(a, number, draw, a.invalid_token);
  if (drawn == 0) return write_no_logprobs(a, number, B::kThreads);
  merge(the_block<B>(), found.candidates, found.wanted, Sorted<W>{tail}, Stamps<false>(a));
  block_barrier();
  tell_raw_beside<T, W, B>(a, number, selected, [] {});
  block_barrier();  // all have them
  write_logprobs<T, W, B>(tail, a, number, selected, drawn);
}
