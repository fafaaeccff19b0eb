// Edits of logits: a bitmask, then biases, then penalties, in float32 and single roundings. What is
// masked stays masked, and a bias of -Inf bans any logit.
//
// In a launch that samples, no edited row is ever written. Elements that the bitmask bans or that have
// edits of their own do not count (Masked, in row.cuh): bits of them are cleared in
// shared memory while the first logits are awaited. The edited ones are candidates beside
// those of the row, which are words of float32 keys here, whatever the type of the logits.
#pragma once

#include "few.cuh"
#include "whole.cuh"

constexpr u32 kMasked = 0xff800000;  // -Inf
constexpr u32 kNaN32 = 0x7fffffff;

// The penalties of a row.
struct Penalties {
  float repetition, frequency, presence;

  Penalties() = default;
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

// Less than +Inf, and not NaN.
DEVICE bool valid_bias(float bias) { return bias <= 0x1.fffffep127f; }

DEVICE u32 mask_words(const SampleArguments& a) { return a.mask ? a.mask_words : 0; }
DEVICE u32 mask_word(const SampleArguments& a, u32 number, u32 word) { return a.mask[(i64)number * a.mask_stride + word]; }
DEVICE bool allowed(const SampleArguments& a, u32 number, u32 id) {
  return id / 32 >= mask_words(a) || (mask_word(a, number, id / 32) >> id % 32 & 1);
}

constexpr u32 kMostEdits = 1024;    // biases and penalties of a row that is sampled in one launch
constexpr u32 kMaskedIds = 131072;  // bits of such a row
DEVICE u32 count_edits(const SampleArguments& a) { return a.biases + a.penalties; }

// The key of a logit as float32: a bfloat16 is the upper half of one.
template <class T>
DEVICE u32 wide_key(u32 key) {
  if (T::kBits == 32) return key;
  if (T::kBestNumber - T::kSign != 0x7f80) return f32::key(as_bits(number_of<T>(key)));
  return key == T::kNaNKey ? f32::kNaNKey : key << 16 | (key & T::kSign ? 0 : 0xffff);
}

// EditedBlock is the block of an edited row: it leaves room for the edited candidates.
struct EditedBlock : Block<EditedWord, kThreads, 2048> {
  u32 edits;  // biases and penalties
  u32 added;  // edited candidates that reached the threshold
  u32 wrong;  // 1 if a bias or a penalty is out of range

  DEVICE void clear(const SampleArguments& a) {
    Block::clear();
    if (thread_index() == 0) edits = count_edits(a), added = wrong = 0;
  }
  DEVICE u32 room() const { return kRoom - edits; }
  template <class T>
  DEVICE void put(u32 place, u32 key, u32 index) { candidates[place] = Word<u64>::pack(wide_key<T>(key), index); }
};

// What the threads of a block share. Of the bits as many are read as a block reads elements at once.
template <>
struct Shared<EditedBlock> {
  alignas(16) u32 bits[kMaskedIds / 32];
  EditedBlock block;
  Tail<EditedWord> tail;
  Penalties penalties;
};

template <class T>
DEVICE u32* bitmap() {
  static_assert(kMaskedIds % (kSlots * kThreads * T::kPerVector) == 0, "nothing past them is read");
  return block_shared<EditedBlock>().bits;
}
DEVICE Penalties& row_penalties() { return block_shared<EditedBlock>().penalties; }

// The edited candidates, 0 for none. They wait where the results will be; before, their places hold what an
// edit is made of.
template <class T>
DEVICE EditedWord* edited_words() {
  static_assert(Tail<EditedWord>::kMost >= kMostEdits, "each has a place");
  return block_tail<EditedBlock>().sorted;
}
struct Edit {
  u32 id;     // kNone outside of the row; with kBanned if it is masked
  u32 value;  // bias, or count
};
constexpr u32 kBanned = 1u << 31, kNone = kAllLanes;
template <class T>
DEVICE Edit* edit_list() { return reinterpret_cast<Edit*>(edited_words<T>()); }

// Ids of edits are noted in one of two sets, which may hold others too, in the place of
// the candidates.
constexpr u32 kNoted = 1 << 16;
template <class T>
DEVICE u32* noted(bool penalised) {
  static_assert(sizeof(EditedBlock::candidates) == 2 * kNoted / 8, "two sets");
  return reinterpret_cast<u32*>(the_block<EditedBlock>().candidates) + (penalised ? kNoted / 32 : 0);
}
template <class T>
DEVICE bool may_be_noted(u32 id, bool penalised) { return noted<T>(penalised)[id % kNoted / 32] >> id % 32 & 1; }

// Beside takes results that stage 1 has in order: as candidates, as others are still to
// join them.
template <class T>
struct Beside {
  EditedBlock& block;
  DEVICE void write(u32 rank, u64 word) const { block.put<T>(rank, Word<u64>::key(word), Word<u64>::index(word)); }
};

// Biases and penalties are one list: the biases, then the penalties. An id in both is edited as a
// penalty.
DEVICE u32 edited_id(const SampleArguments& a, u32 number, u32 i) {
  return i < (u32)a.biases ? a.bias_ids[(i64)number * a.biases + i] : a.penalty_ids[(i64)number * a.penalties + i - a.biases];
}
DEVICE int penalty_count(const SampleArguments& a, u32 number, u32 i) { return a.penalty_counts[(i64)number * a.penalties + i - a.biases]; }

// Behind EditedReader::edit, and a barrier.
template <class T>
DEVICE bool edits_are_valid() { return !the_block<EditedBlock>().wrong; }

// What is rare stands apart, from the arguments again: edits of ids that may be in both lists.
template <class T>
DEVICE_APART u64 twice_edited(const SampleArguments& a, u32 number, u32 i) {
  const Row<T> row(a, number, 0, 1);
  const u32 id = edited_id(a, number, i), biases = a.biases;
  const bool penalised = i >= biases;
  u32 other = penalised ? 0 : biases;
  const u32 end = penalised ? biases : count_edits(a);
  while (other < end && edited_id(a, number, other) != id) other++;
  if (!penalised && other < end) return 0;
  const u32 bias = penalised ? other : i;
  float logit = allowed(a, number, id) ? number_of<T>(T::key(row.logits[id])) : as_float(kMasked);
  if (bias < biases) logit = biased(logit, a.bias[(i64)number * biases + bias]);
  if (penalised && as_bits(logit) != kMasked) logit = row_penalties().applied(logit, penalty_count(a, number, i));
  return Word<u64>::pack(f32::key(as_bits(logit)), id);
}

// Adds all edited candidates to what stage 1 found in the row alone, of which k are wanted. Fillers of -Inf
// may stand for ids that are edited.
template <class T>
DEVICE_APART Found join_edited(const SampleArguments& a, Found found, u32 k) {
  EditedBlock& block = the_block<EditedBlock>();
  const EditedWord* words = edited_words<T>();
  const u32 n = found.wanted < k ? k : found.candidates, edits = count_edits(a);
  block_barrier();
#pragma unroll 1
  for (u32 i = thread_index(); i < n; i += kThreads) {
    if (Word<u64>::key(block.candidates[i]) != f32::kWorstNumber) continue;
    const u32 id = Word<u64>::index(block.candidates[i]);
#pragma unroll 1
    for (u32 j = 0; j < edits; j++) {
      if (words[j] && Word<u64>::index(words[j]) == id) block.candidates[i] = 0;
    }
  }
#pragma unroll 1
  for (u32 i = thread_index(); i < edits; i += kThreads) block.candidates[n + i] = words[i];
  block_barrier();
  return {n + edits, k};
}

// EditedReader reads an edited row. Bits and edits are asked for amid the first loads of the row, and come
// without a register; all that is made of them is made while the row is awaited.
template <class T>
struct EditedReader : Reader<T> {
  using B = EditedBlock;
  const SampleArguments& a;
  u32 number;

  DEVICE EditedReader(const SampleArguments& arguments, u32 row) : a(arguments), number(row) {}
  DEVICE u32 room(const B&) const { return B::kRoom - count_edits(a); }

  // Asks for the mask and the edits: edit() waits for them.
  DEVICE void ask() const {
    const u32 thread = thread_index();
    ask_edits(0, a.bias_ids, a.bias, a.biases);
    ask_edits(a.biases, a.penalty_ids, a.penalty_counts, a.penalties);
    if (thread < 3) {
      const float* from = (&a.row_repetition)[thread];
      float* to = &row_penalties().repetition + thread;
      if (from) {
        copy_later<4>(to, from + number);
      } else {
        *to = (&a.repetition)[thread];
      }
    }
    const u32 words = (a.vocab + 31) / 32, masked = smaller(mask_words(a), words);
    const int* mask = kept(a.mask + (i64)number * a.mask_stride);
#pragma unroll 4
    for (u32 word = thread; word < masked; word += B::kThreads) copy_later<4>(bitmap<T>() + word, mask + word);
#pragma unroll 1
    for (u32 word = masked + thread; word < words; word += B::kThreads) bitmap<T>()[word] = kAllLanes;
  }
  template <class V>
  DEVICE void ask_edits(u32 first, const int* ids, const V* values, u32 n) const {
    const i64 at = (i64)number * n;
#pragma unroll 1
    for (u32 i = (thread_index() - first) % B::kThreads; i < n; i += B::kThreads) {
      copy_later<4>(&edit_list<T>()[first + i].id, ids + at + i);
      copy_later<4>(&edit_list<T>()[first + i].value, values + at + i);
    }
  }

  // Tells which elements count, and makes the edited candidates. The warps that settle are not waited for.
  DEVICE void edit(const Row<T>& row) const {
    const u32 thread = thread_index();
    Vector* sets = reinterpret_cast<Vector*>(noted<T>(false));
#pragma unroll
    for (u32 i = 0; i < 2 * kNoted / 128 / B::kThreads; i++) sets[thread + i * B::kThreads] = {};
    wait_for_copies();
    barrier_of_first<B::kThreads>();
    if (row.before_bits() != 0) move_bits(row.before_bits());
    if (thread == 0 && !row_penalties().valid()) the_block<B>().wrong = 1;
    if (count_edits(a) == 0) return;
#pragma unroll 1
    for (u32 i = thread; i < count_edits(a); i += B::kThreads) {
      const Edit edit = edit_list<T>()[i];
      const u32 id = edit.id;
      if (i < (u32)a.biases && !valid_bias(as_float(edit.value))) the_block<B>().wrong = 1;
      if (id >= row.length) {
        edit_list<T>()[i].id = kNone;
        continue;
      }
      // Asked for before it is known what for.
      if (const u32 vector = (id - row.head) / T::kPerVector; vector < row.vectors) prefetch_line(row.vector_at(vector));
      if (!row.counts(id)) edit_list<T>()[i].id = id | kBanned;
      const u32 bit = row.bit_of(id);
      atomic_and_only(bitmap<T>() + bit / 32, ~(1u << bit % 32));
      atomic_or_only(noted<T>(i >= (u32)a.biases) + id % kNoted / 32, 1u << id % 32);
    }
    barrier_of_first<B::kThreads>();
#pragma unroll 1
    for (u32 i = thread; i < count_edits(a); i += B::kThreads) edited_words<T>()[i] = edited(row, edit_list<T>()[i], i);
  }
  // Moves the bits of a row that is not aligned up, from the last on.
  DEVICE void move_bits(u32 up) const {
    u32* bits = bitmap<T>() + thread_index();
#pragma unroll 1
    for (int word = (a.vocab + up - 1) / 32 / B::kThreads * B::kThreads; word >= 0; word -= B::kThreads) {
      const u64 both = (u64)bits[word] << 32 | (word + thread_index() > 0 ? bits[word - 1] : 0);
      barrier_of_first<B::kThreads>();
      bits[word] = (u32)(both << up >> 32);
    }
    barrier_of_first<B::kThreads>();
  }
  // The candidate that an edit makes, 0 for none.
  DEVICE u64 edited(const Row<T>& row, Edit edit, u32 i) const {
    if (edit.id == kNone) return 0;
    const u32 id = edit.id & ~kBanned;
    const bool penalised = i >= (u32)a.biases;
    if (may_be_noted<T>(id, !penalised)) return twice_edited<T>(a, number, i);
    float logit = edit.id & kBanned ? as_float(kMasked) : number_of<T>(T::key(row.logits[id]));
    if (!penalised) {
      logit = biased(logit, as_float(edit.value));
    } else if (as_bits(logit) != kMasked) {
      logit = row_penalties().applied(logit, (int)edit.value);
    }
    return Word<u64>::pack(f32::key(as_bits(logit)), id);
  }

  template <u32 kThreads>
  DEVICE void read(const Row<T>& row, Share& share) {
    read_share<T, kThreads>(row, share, [&] { ask(); }, [&] { edit(row); });
  }
  // For a row that is not read.
  DEVICE void prepare(const Row<T>&) const { prepare_unread(*this); }

  DEVICE u32 results(const Row<T>&) const { return block_tail<EditedBlock>().selected; }
  DEVICE bool decides(const Row<T>& row, const Share& share, u32 groups) {
    Tail<EditedWord>& tail = block_tail<EditedBlock>();
    if (!is_greedy(tail, a) || !edits_are_valid<T>()) return false;
    release_kernel_behind();
    EditedWord best = find_best<T, EditedWord>(the_block<EditedBlock>(), row, share, groups);
    if (thread_index() < kWarp) best = best_with(best);
    end_greedy<f32>(tail, a, number, best);
    return true;
  }
  // The best of the row's best and the edited ones: for the first warp, behind a barrier.
  DEVICE EditedWord best_with(EditedWord best) const {
    best = Word<u64>::pack(wide_key<T>(Word<u64>::key(best)), Word<u64>::index(best));
#pragma unroll 1
    for (u32 i = thread_index() % kWarp; i < count_edits(a); i += kWarp) best = edited_words<T>()[i] > best ? edited_words<T>()[i] : best;
    const u32 key = warp_max(Word<u64>::key(best));
    return Word<u64>::pack(key, ~warp_max(Word<u64>::key(best) == key ? ~Word<u64>::index(best) : 0));
  }

  // Where masks leave fewer than k, the rest of them has no mass.
  DEVICE bool wants_fewer() const { return !answers_more(a); }

  // Appends the edited candidates that reach a threshold of the row, before a barrier.
  DEVICE void append(B& block, u32 threshold) const {
    const u32 lane = thread_index() % kWarp, least = wide_key<T>(threshold);
#pragma unroll 1
    for (u32 i = thread_index(); i - lane < count_edits(a); i += B::kThreads) {
      const u64 word = i < count_edits(a) ? edited_words<T>()[i] : 0;
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
  DEVICE Found join(B&, Found found, u32 k) const { return join_edited<T>(a, found, k); }
};

template <class T>
DEVICE_APART void prepare_unread(EditedReader<T> reader) {
  const Row<T> row(reader.a, reader.number, 0, 1);
  reader.ask();
  reader.edit(row);
  block_barrier();
}

// Edited is the order of a row of edited logits as float32, for passes over all of it: behind
// what EditedReader makes.
template <class T>
struct Edited : f32 {};

template <class T>
struct Row<Edited<T>> {
  using M = Masked<T>;
  Row<M> own;
  u32 length, edits;

  DEVICE Row(const SampleArguments& a, u32 number, u32 chunk, u32 chunks) : own(a, number, chunk, chunks), length(own.length), edits(count_edits(a)) {}
  DEVICE_APART u32 bits(u32 i) const {
    if (own.counts(i)) return as_bits(number_of<T>(T::key(own.logits[i])));
    if (edits > 0 && (may_be_noted<M>(i, false) || may_be_noted<M>(i, true))) {
      for (u32 j = 0; j < edits; j++) {
        const u64 word = edited_words<M>()[j];
        if (word && Word<u64>::index(word) == i) return f32::bits_of(Word<u64>::key(word));
      }
    }
    return kMasked;
  }
};

// Samples an edited row of which top-k leaves more tokens than there is room for. False if it has no elements.
template <class T>
DEVICE_APART bool sample_all_edited(const SampleArguments& a, u32 number, Found found) {
  using B = EditedBlock;
  const u32 selected = block_tail<B>().selected;
  if (Row<T>(a, number, 0, 1).length == 0) return false;
  merge(the_block<B>(), found.candidates, found.wanted, Sorted<EditedWord>{block_tail<B>()}, Stamps<false>(a));
  block_barrier();
  if (a.kept && thread_index() == 0) a.kept_count[number] = -1;
  const u32 drawn = draw_from_all<Edited<T>>(the_block<B>(), a, number);
  answer_whole<f32, EditedWord, B>(block_tail<B>(), a, number, selected, drawn);
  return true;
}

// Draws from what was found in a row.
template <class T, class S>
DEVICE_APART void draw_edited_otherwise(const SampleArguments& a, u32 number, Found found, S stamps) {
  const Tail<EditedWord>& tail = block_tail<EditedBlock>();
  const bool valid = edits_are_valid<Masked<T>>();
  if (tail.left == 0 && valid && tail.valid && !tail.steps && sample_all_edited<T>(a, number, found)) return;
  const u32 left = found.wanted > 0 ? smaller(tail.left, found.wanted) : tail.left;
  draw_in_order<f32, EditedWord, EditedBlock>(number, found, valid ? left : 0, stamps);
}
template <class T, class S>
struct DrawEdited {
  const SampleArguments& a;
  u32 number;
  const S& stamps;

  DEVICE void operator()(Found found) const {
    if (few_tokens<EditedWord, EditedBlock>(found) && edits_are_valid<Masked<T>>()) {
      draw_from_few<f32, EditedWord, EditedBlock>(a, number, found.candidates, stamps);
    } else {
      apart(found);
    }
  }
  DEVICE void apart(Found found) const { draw_edited_otherwise<T>(a, number, found, stamps); }
};

// Samples an edited row, of which there are bits for each element, with top-k or greedy, in one launch.
template <class T, bool kStamps = false>
DEVICE void sample_edited_row(const SampleArguments& a) {
  using M = Masked<T>;
  using B = EditedBlock;
  B& block = the_block<B>();
  Tail<EditedWord>& tail = block_tail<EditedBlock>();
  const Stamps<kStamps> stamps(a);
  const u32 number = block_index();
  if (thread_index() >= kThreads) {
    wait_for_kernel_before();
    tail.settle(a, number, kThreads);
    return leave_block();
  }
  block.clear(a);
  wait_for_kernel_before();
  EditedReader<M> reader(a, number);
  find<M>(block, Beside<M>{block}, a, number, 0, 1, stamps, reader, DrawEdited<T, Stamps<kStamps>>{a, number, stamps});
}
