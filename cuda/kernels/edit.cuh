// Edits of logits: a bitmask, then biases, then penalties, in float32 and single roundings. What is
// masked stays masked, and a bias of -Inf bans any logit.
//
// In a launch that samples, no edited row is ever written. Elements that the bitmask bans or that have
// edits of their own do not count (Masked, in row.cuh): bits of them are cleared in
// shared memory while the first logits are awaited. The edited ones are candidates beside
// those of the row, which are words of float32 keys here, whatever the type of the logits.
#pragma once

#include "tail.cuh"

constexpr u32 kMasked = 0xff800000;  // -Inf

// The penalties of a row.
struct Penalties {
  float repetition, frequency, presence;

  DEVICE Penalties(const SampleArguments& a, u32 number) {
    repetition = a.row_repetition ? a.row_repetition[number] : a.repetition;
    frequency = a.row_frequency ? a.row_frequency[number] : a.frequency;
    presence = a.row_presence ? a.row_presence[number] : a.presence;
  }
  // Each comparison is false for NaN.
  DEVICE bool valid() const {
    constexpr float kMost = 0x1.fffffep127f;
    return repetition > 0 && repetition <= kMost && frequency >= -kMost && frequency <= kMost && presence >= -kMost && presence <= kMost;
  }
  // A logit that is not masked, of a token that occurs so often in the output.
  DEVICE float applied(float logit, float count) const {
    if (repetition != 1) logit = logit > 0 ? logit / repetition : logit * repetition;
    if (count > 0) {
      const float often = frequency * count;
      logit = logit - often;
      logit = logit - presence;
    }
    return logit;
  }
};

DEVICE float biased(float logit, float bias) {
  return as_bits(bias) == kMasked || as_bits(logit) == kMasked ? as_float(kMasked) : logit + bias;
}

DEVICE u32 mask_words(const SampleArguments& a) { return a.mask ? a.mask_words : 0; }
DEVICE u32 mask_word(const SampleArguments& a, u32 number, u32 word) { return a.mask[(i64)number * a.mask_stride + word]; }
DEVICE bool allowed(const SampleArguments& a, u32 number, u32 id) {
  return id / 32 >= mask_words(a) || (mask_word(a, number, id / 32) >> id % 32 & 1);
}

constexpr u32 kMostEdits = 1024;  // biases and penalties of a row that is sampled in one launch

// The key of a logit as float32.
template <class T>
DEVICE u32 wide_key(u32 key) { return T::kBits == 32 ? key : f32::key(as_bits(number_of<T>(key))); }

// EditedBlock is the block of an edited row: it leaves room for the edited candidates.
template <class T>
struct EditedBlock : Block<u64, kThreads, 2048> {
  u32 edits;  // biases and penalties
  u32 added;  // edited candidates that reached the threshold

  DEVICE void clear(const SampleArguments& a) {
    Block::clear();
    if (thread_index() == 0) edits = a.biases + a.penalties, added = 0;
    constexpr Vector kAllowed = {{kAllLanes, kAllLanes, kAllLanes, kAllLanes}};
    Vector* bits = reinterpret_cast<Vector*>(bitmap());
    for (u32 i = thread_index(); i < ((u32)a.vocab + 7) / 128 + 1; i += kThreads) bits[i] = kAllowed;
    Vector* listed = reinterpret_cast<Vector*>(candidates);
    for (u32 i = thread_index(); i < kRoom / 2; i += kThreads) listed[i] = {};
  }
  DEVICE u32 room() const { return kRoom - edits; }
  DEVICE void put(u32 place, u64 word) { candidates[place] = Word<u64>::pack(wide_key<T>(Word<u64>::key(word)), Word<u64>::index(word)); }
};

// What the threads of a block share.
template <class T>
DEVICE EditedBlock<T>& edited_block() {
  SHARED(EditedBlock<T>, block);
  return block;
}
DEVICE Tail<u64>& edited_tail() {
  SHARED(Tail<u64>, tail);
  return tail;
}

// The edited candidates, 0 for none. They wait where the results will be.
DEVICE u64* edited_words() {
  static_assert(Tail<u64>::kMost >= kMostEdits, "each has a place");
  return edited_tail().sorted;
}

// Ids of edits are noted in one of two sets, which may hold others too, in the place of
// the candidates.
constexpr u32 kNoted = 1 << 16;
template <class T>
DEVICE u32* noted(bool penalised) {
  static_assert(sizeof(EditedBlock<T>::candidates) == 2 * kNoted / 8, "two sets");
  return reinterpret_cast<u32*>(edited_block<T>().candidates) + (penalised ? kNoted / 32 : 0);
}
template <class T>
DEVICE bool may_be_noted(u32 id, bool penalised) { return noted<T>(penalised)[id % kNoted / 32] >> id % 32 & 1; }

// Beside takes results that stage 1 has in order: as candidates, as others are still to
// join them.
template <class B>
struct Beside {
  B& block;
  DEVICE void write(u32 rank, u64 word) const { block.put(rank, word); }
};

// EditedReader are the biases and penalties of a row, and what bans elements of it. One list: the biases,
// then the penalties. An id in both is edited as a penalty.
template <class T, class B>
struct EditedReader : Reader<T> {
  static constexpr u32 kOwn = 4;  // words of the mask that a thread asks for at once
  Tail<u64>& tail;
  const SampleArguments& a;
  u32 number, k;
  bool done = false;  // the row has its token
  u32 own[kOwn];
  u32 first;  // id of the thread's first edit

  DEVICE EditedReader(Tail<u64>& of, const SampleArguments& arguments, u32 row, u32 left) : tail(of), a(arguments), number(row), k(left) {
    const u32 thread = thread_index();
#pragma unroll
    for (u32 i = 0; i < kOwn; i++) {
      const u32 word = thread + i * B::kThreads;
      own[i] = word < mask_words(a) && word * 32 < (u32)a.vocab ? mask_word(a, number, word) : kAllLanes;
    }
    first = thread < count() ? id(thread) : kAllLanes;
  }

  DEVICE u32 count() const { return a.biases + a.penalties; }
  DEVICE u32 bias_id(u32 i) const { return a.bias_ids[(i64)number * a.biases + i]; }
  DEVICE u32 penalty_id(u32 i) const { return a.penalty_ids[(i64)number * a.penalties + i]; }
  DEVICE u32 id(u32 i) const { return i < (u32)a.biases ? bias_id(i) : penalty_id(i - a.biases); }

  DEVICE u32 room(const B&) const { return B::kRoom - count(); }

  DEVICE void ban_in_word(u32 before, u32 word, u32 mask) const {
    if (before == 0) return atomic_and_only(bitmap() + word, mask);
    atomic_and_only(bitmap() + word, ~(~mask << before));
    atomic_and_only(bitmap() + word + 1, ~(~mask >> (32 - before)));
  }
  DEVICE void ban(const Row<T>& row, u32 i, u32 id) const {
    if (id >= row.length) return;
    const u32 bit = row.bit_of(id);
    atomic_and_only(bitmap() + bit / 32, ~(1u << bit % 32));
    atomic_or_only(noted<T>(i >= (u32)a.biases) + id % kNoted / 32, 1u << id % 32);
  }

  // Clears the bits of what does not count.
  DEVICE void mask(const Row<T>& row) const {
    const u32 thread = thread_index(), before = row.before_bits();
    block_barrier();  // all bits are set
#pragma unroll
    for (u32 i = 0; i < kOwn; i++) {
      if (~own[i]) ban_in_word(before, thread + i * B::kThreads, own[i]);
    }
    const u32 end = smaller(mask_words(a), (a.vocab + 31) / 32);
#pragma unroll 1
    for (u32 word = thread + kOwn * B::kThreads; word < end; word += B::kThreads) ban_in_word(before, word, mask_word(a, number, word));
    ban(row, thread, first);
#pragma unroll 1
    for (u32 i = thread + B::kThreads; i < count(); i += B::kThreads) ban(row, i, id(i));
    block_barrier();
  }

  // Makes the edited candidates, when the bits are cleared.
  DEVICE void make(const Row<T>& row) const {
#pragma unroll 1
    for (u32 i = thread_index(); i < count(); i += B::kThreads) edited_words()[i] = edited(row, i);
  }

  template <u32 kThreads>
  DEVICE void read(const Row<T>& row, Share& share) {
    read_share<T, kThreads>(row, share, [&] { mask(row); });
    make(row);
  }
  DEVICE void prepare(const Row<T>& row) {
    mask(row);
    make(row);
  }
  DEVICE bool decides(const Row<T>& row, const Share& share) {
    if (k != 1 || row.k != 1) return false;
    if (!Penalties(a, number).valid()) return true;
    u64 best = find_best(edited_block<T>(), tail, row, share);
    if (thread_index() < kWarp) best = best_with(best);
    done = end_greedy<f32>(tail, a, number, best);
    return true;
  }
  DEVICE u64 edited(const Row<T>& row, u32 i) const {
    const u32 own_id = id(i), biases = a.biases;
    const bool penalised = i >= biases;
    if (own_id >= row.length) return 0;
    u32 bias = penalised ? biases : i;  // place in the list
    if (may_be_noted<T>(own_id, !penalised)) {
      u32 other = penalised ? 0 : biases;
      const u32 end = penalised ? biases : count();
      while (other < end && id(other) != own_id) other++;
      if (penalised) bias = other;
      if (!penalised && other < end) return 0;
    }
    float logit = allowed(a, number, own_id) ? number_of<T>(T::key(row.logits[own_id])) : as_float(kMasked);
    if (bias < biases) logit = biased(logit, a.bias[(i64)number * biases + bias]);
    if (penalised && as_bits(logit) != kMasked) {
      logit = Penalties(a, number).applied(logit, a.penalty_counts[(i64)number * a.penalties + i - biases]);
    }
    return Word<u64>::pack(f32::key(as_bits(logit)), own_id);
  }

  // Appends those that reach a threshold of the row, behind prepare() and before a barrier.
  DEVICE void append(B& block, u32 threshold) const {
    const u32 lane = thread_index() % kWarp, least = wide_key<T>(threshold);
#pragma unroll 1
    for (u32 i = thread_index(); i - lane < count(); i += B::kThreads) {
      const u64 word = i < count() ? edited_words()[i] : 0;
      const bool reaches = Word<u64>::key(word) >= least;
      const u32 lanes = ballot(reaches);
      if (!lanes) continue;
      u32 place = 0;
      if (lane == 0) {
        place = atomic_add(&block.count, population(lanes));
        atomic_add_only(&block.added, population(lanes));
      }
      place = shuffle(place, 0) + population(lanes & ((1u << lane) - 1));
      if (reaches && place < B::kRoom) block.candidates[place] = word;
    }
  }
  DEVICE u32 appended(const B& block) const { return block.added; }

  // Adds all of them to what stage 1 found in the row alone, of which k are wanted. Fillers
  // of -Inf may stand for ids that are edited.
  DEVICE_APART Found join(B& block, Found found, u32 k) const {
    const u32 n = found.wanted < k ? k : found.candidates;
    block_barrier();
#pragma unroll 1
    for (u32 i = thread_index(); i < n; i += B::kThreads) {
      if (Word<u64>::key(block.candidates[i]) != f32::kWorstNumber) continue;
      const u32 own_id = Word<u64>::index(block.candidates[i]);
#pragma unroll 1
      for (u32 j = 0; j < count(); j++) {
        if (edited_words()[j] && Word<u64>::index(edited_words()[j]) == own_id) block.candidates[i] = 0;
      }
    }
#pragma unroll 1
    for (u32 i = thread_index(); i < count(); i += B::kThreads) block.candidates[n + i] = edited_words()[i];
    block_barrier();
    return {n + count(), k};
  }

  // The best of the row's best and the edited ones: for the first warp, behind a barrier.
  DEVICE u64 best_with(u64 best) const {
    const u32 lane = thread_index() % kWarp;
    best = Word<u64>::pack(wide_key<T>(Word<u64>::key(best)), Word<u64>::index(best));
#pragma unroll 1
    for (u32 i = lane; i < count(); i += kWarp) best = edited_words()[i] > best ? edited_words()[i] : best;
    const u32 key = warp_max(Word<u64>::key(best));
    return Word<u64>::pack(key, ~warp_max(Word<u64>::key(best) == key ? ~Word<u64>::index(best) : 0));
  }
};

// Edited is the order of a row of edited logits as float32, for passes over all of it: behind
// EditedReader::prepare.
template <class T>
struct Edited : f32 {};

template <class T>
struct Row<Edited<T>> {
  Row<Masked<T>> own;
  u32 length, edits;

  DEVICE Row(const SampleArguments& a, u32 number, u32 chunk, u32 chunks) : own(a, number, chunk, chunks), length(own.length), edits(a.biases + a.penalties) {}
  DEVICE_APART u32 bits(u32 i) const {
    if (own.counts(i)) return as_bits(number_of<T>(T::key(own.logits[i])));
    using M = Masked<T>;
    if (may_be_noted<M>(i, false) || may_be_noted<M>(i, true)) {
      for (u32 j = 0; j < edits; j++) {
        const u64 word = edited_words()[j];
        if (word && Word<u64>::index(word) == i) return f32::bits_of(Word<u64>::key(word));
      }
    }
    return kMasked;
  }
};

// Samples an edited row, of which there are bits for each element, with top-k or greedy, in one launch.
template <class T, bool kStamps = false>
DEVICE void sample_edited_row(const SampleArguments& a) {
  using M = Masked<T>;
  using B = EditedBlock<M>;
  B& block = edited_block<M>();
  Tail<u64>& tail = edited_tail();
  const Stamps<kStamps> stamps(a);
  block.clear(a);
  wait_for_kernel_before();
  const u32 number = block_index(), thread = thread_index();
  if (thread < kWarp) tail.fetch(a, number);
  const u32 k = left_by_top_k(a, number);
  EditedReader<M, B> reader(tail, a, number, k);
  const Found found = find<M>(block, Beside<B>{block}, a, number, 0, 1, stamps, reader);
  release_kernel_behind();
  if (reader.done) return stamps.set(7);
  if (thread < kWarp) tail.settle(a, number);
  stamps.set(4);
  merge(block, found.candidates, found.wanted, Sorted<u64>{tail.sorted}, stamps);
  block_barrier();
  stamps.set(5);
  const Row<T> row(a, number, 0, 1);
  const bool valid = Penalties(a, number).valid();
  if (k == 0 && row.length > 0 && valid && tail.valid && !tail.steps) {
    draw_from_all<Edited<T>>(block, a, number);
    answer_whole<f32, u64, B>(tail, a, number, row.k);
  } else {
    draw_tokens<f32>(block, tail, a, number, valid ? k : 0, row.k, stamps);
  }
}
