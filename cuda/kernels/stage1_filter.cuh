// Stage 1: a bound below the k-th value of a row, and the candidates that reach it.
//
// Shapes: one block for each row [length]. Each thread keeps the best of its share
// of the row in a few slots, and the best of those is the best of a group. Order:
// the groups that reach each of 32 pivots are counted; the best pivot that k
// groups reach is the bound (each such group has an element that reaches it, so at
// least k elements do). Then only vectors of slots that reach the bound are looked
// at again, two by each lane. Bytes: the row once, and for k = 50 a fiftieth of it
// again, from L1.
// Source: group maxima as a bound are those of Dr. Top-k (arXiv 2109.08219).
#pragma once

#include "row.cuh"

constexpr u32 kSlots = 8;
constexpr u32 kBins = 1024;  // of stage 2

// Block is what the threads of a block share.
template <class W, u32 kBlockThreads, u32 kBlockRoom>
struct Block {
  using Candidate = W;
  static constexpr u32 kThreads = kBlockThreads;
  static constexpr u32 kWarps = kThreads / kWarp;
  static constexpr u32 kRoom = kBlockRoom;
  alignas(16) W candidates[kRoom];
  // Keys of the best of groups; then, of each warp, the slots to look at again; then
  // counts of bins or digits.
  alignas(16) u32 groups[larger(kBins, kThreads * kSlots / 4)];
  u32 reach[kWarp];                     // groups that reach each pivot; later values of warps
  u32 lows[kWarp];                      // values of warps
  u32 count;                            // candidates found, also those without room

  DEVICE void clear() {
    if (thread_index() < kWarp) reach[thread_index()] = 0;
    if (thread_index() == 0) count = 0;
  }
  // Forgets the candidates, when all threads are done with them.
  DEVICE void empty() {
    block_barrier();
    if (thread_index() == 0) count = 0;
    block_barrier();
  }
};

// Share is the best that a thread saw of each slot: vectors thread + round *
// kThreads of the row, in slot round % kSlots. Words of one or two elements.
struct Share {
  u32 slot[kSlots];
};

// Calls see(slot, vector) for each whole vector of this thread's share, with kSlots
// loads in flight: as soon as one has come, the next of its slot is asked for.
// Calls pause(vectors) once, for all threads together, when the whole row but for the
// last loads in flight has been seen: so many vectors of it.
template <class T, u32 kThreads, class See, class Pause>
DEVICE void read_vectors(const Row<T>& row, See see, Pause pause) {
  constexpr u32 kBatch = kSlots * kThreads;
  const Vector* at = kept(row.vector_at(thread_index()));
  int left = row.vectors - thread_index();
  Vector v[kSlots];
#pragma unroll
  for (u32 s = 0; s < kSlots; s++) {
    if (left > int(s * kThreads)) v[s] = load_vector(at + s * kThreads);
  }
  // The rest of a row that is not in L2 would be waited for twice.
  if (thread_index() == 0 && row.vectors > kBatch) prefetch_vectors(at + kBatch, smaller(row.vectors - kBatch, kBatch));
#pragma unroll 1
  for (u32 seen = 0; seen < row.vectors; left -= kBatch) {
    at += kBatch;
#pragma unroll
    for (u32 s = 0; s < kSlots; s++) {
      if (left > int(s * kThreads)) see(s, v[s]);
      if (left > int((s + kSlots) * kThreads)) v[s] = load_vector(at + s * kThreads);
    }
    const bool last = seen + 2 * kBatch >= row.vectors && (seen + kBatch < row.vectors || seen == 0);
    seen += kBatch;
    if (last) pause(smaller(seen, row.vectors));
  }
}

template <class T, u32 kThreads, class Pause>
DEVICE void read_share(const Row<T>& row, Share& share, Pause pause) {
#pragma unroll
  for (u32 s = 0; s < kSlots; s++) share.slot[s] = T::kWorst;
  read_vectors<T, kThreads>(row, [&](u32 s, const Vector& v) { share.slot[s] = T::best(share.slot[s], T::best(v)); }, pause);
}
template <class T, u32 kThreads>
DEVICE void read_share(const Row<T>& row, Share& share) {
  read_share<T, kThreads>(row, share, [](u32) {});
}

// The rank that a bound should have among the best of so many groups, which hold
// `covered` elements of the row, where k is too many to prove one. Groups of equal
// size are expected to hold `wanted` elements of the row at the rank where
// 1 - (1 - wanted / length)^(covered / groups) of them are reached. A guess: the
// number of candidates proves it or not.
DEVICE_APART u32 guess_rank(u32 k, u32 groups, u32 covered, u32 length, u32 room) {
  const float wanted = 1.4f * k < 0.8f * room ? 1.4f * k : 0.8f * room;
  const float missed = 1 - wanted / length;
  if (missed <= 0.01f) return groups;
  const u32 rank = groups * (1 - approximate_exp2(approximate_log2(missed) * covered / groups));
  return rank < 1 ? 1 : rank;
}

// Adds to each pivot's count the groups of this warp's part that reach it. A lane
// has a pivot of its own, which is returned; all lanes read the same groups.
template <u32 kGroups, class B>
DEVICE u32 count_reach(B& block) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  const u32 pivot = block.groups[lane * (kGroups / kWarp)];
  u32 reach = 0;
#pragma unroll
  for (u32 i = 0; i < kGroups / B::kWarps; i += 4) {
    const Vector keys = *reinterpret_cast<const Vector*>(block.groups + warp * (kGroups / B::kWarps) + i);
#pragma unroll
    for (u32 j = 0; j < 4; j++) reach = count_at_least(reach, keys.word[j], pivot);
  }
  atomic_add_only(&block.reach[lane], reach);
  return pivot;
}

// The best pivot that `rank` groups reach; 0 if none has so many. All threads of
// the block call it, when groups and reach are written.
template <u32 kGroups, class B>
DEVICE u32 bound_of(B& block, u32 rank) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  const u32 pivot = block.groups[lane * (kGroups / kWarp)];
  // Each lane counts for a pivot of its own; all read the same groups.
  u32 reach = 0;
#pragma unroll
  for (u32 i = 0; i < kGroups / B::kWarps; i += 4) {
    const Vector keys = *reinterpret_cast<const Vector*>(block.groups + warp * (kGroups / B::kWarps) + i);
#pragma unroll
    for (u32 j = 0; j < 4; j++) reach = count_at_least(reach, keys.word[j], pivot);
  }
  atomic_add_only(&block.reach[lane], reach);
  block_barrier();
  return warp_max(block.reach[lane] >= rank ? pivot : 0);
}

// The best key of this thread's share.
template <class T>
DEVICE u32 best_key(const Share& share) {
  u32 best = share.slot[0];
#pragma unroll
  for (u32 s = 1; s < kSlots; s++) best = T::best(best, share.slot[s]);
  return T::key_of_word(best);
}

// Whether a bound by so many groups can be proven. Beyond three quarters of them it
// would be far too low.
DEVICE bool provable(u32 k, u32 groups) { return k * 4 <= groups * 3; }

// A threshold key for the block's row, from the vectors seen so far: at least k
// elements reach it, or so it is guessed. groups: 128, 256 or 512 prove a bound for k up to three quarters of that;
// too few of them are as good as 512.
template <class T, class B>
DEVICE u32 find_threshold(B& block, const Row<T>& row, const Share& share, u32 seen, u32 groups) {
  static_assert(B::kThreads == 512, "a thread is a group, or a neighbour of one");
  const u32 thread = thread_index();
  if (!provable(row.k, 512)) {
    // Two slots of each thread are groups: a part of the row.
    block.groups[thread] = T::key_of_word(share.slot[0]);
    block.groups[512 + thread] = T::key_of_word(share.slot[1]);
    block_barrier();
    const u32 rounds = (seen + B::kThreads - 1) / B::kThreads;
    const u32 covered = seen * T::kPerVector / (rounds < 2 ? 1 : smaller(rounds, kSlots)) * smaller(rounds, 2);
    return bound_of<1024>(block, guess_rank(row.k, smaller(seen, 1024), covered, row.length, B::kRoom));
  }
  u32 key = best_key<T>(share);
  if (groups < 512 && provable(row.k, groups)) {
    // The groups of neighbouring lanes are joined.
    key = larger(key, shuffle_xor(key, 1));
    if (groups == 128) key = larger(key, shuffle_xor(key, 2));
    const u32 joined = 512 / groups;
    if (thread % joined == 0) block.groups[thread / joined] = key;
    block_barrier();
    return groups == 128 ? bound_of<128>(block, row.k) : bound_of<256>(block, row.k);
  }
  block.groups[thread] = key;
  block_barrier();
  return bound_of<512>(block, row.k);
}

// A pool takes candidates: in the shared memory of the block, of another block of
// the cluster, or in global memory.
template <class B>
struct BlockPool {
  using Candidate = typename B::Candidate;
  B& block;
  DEVICE u32 room() const { return B::kRoom; }
  DEVICE u32 reserve(u32 n) const { return atomic_add(&block.count, n); }
  DEVICE void put(u32 place, Candidate word) const { block.candidates[place] = word; }
};

// Appends the marked elements of each lane's two vectors, for the whole warp; first is
// the index of the row or chunk. Marks of the second are four bits above those of the first. False if there was no room
// for all; they are counted nevertheless.
template <class T, class P>
DEVICE bool append(const P& pool, u32 first, const Vector& v, u32 at, const Vector& next, u32 next_at, u32 marks) {
  using W = typename P::Candidate;
  const u32 lane = thread_index() % kWarp, before = (1u << lane) - 1;
  const u32 some = ballot(marks != 0);
  if (!some) return true;
  // Places: the lanes before, one bit of their numbers after the other.
  const u32 mine = population(marks);
  u32 place = 0, all = 0;
#pragma unroll 1
  for (u32 bit = 0; ballot(mine >> bit != 0); bit++) {
    const u32 lanes = ballot(mine >> bit & 1);
    place += population(lanes & before) << bit;
    all += population(lanes) << bit;
  }
  u32 start = 0;
  if (lane == 0) start = pool.reserve(all);
  start = shuffle(start, 0);
  place += start;
#pragma unroll 1
  while (marks && place < pool.room()) {
    const u32 mark = lowest_bit(marks);
    const bool second = mark & 4;
    const u32 low = mark & 2 ? (second ? next.word[2] : v.word[2]) : (second ? next.word[0] : v.word[0]);
    const u32 high = mark & 2 ? (second ? next.word[3] : v.word[3]) : (second ? next.word[1] : v.word[1]);
    const u32 key = T::key((mark & 1 ? high : low) >> T::marked_shift(mark) & T::kAll);
    pool.put(place++, Word<W>::pack(key, first + (second ? next_at : at) + T::marked_element(mark)));
    marks &= marks - 1;
  }
  warp_barrier();
  return start + all <= pool.room();
}
// The same for one vector of each lane, where speed matters less than size.
template <class T, class P>
DEVICE_APART bool append_one(P pool, u32 first, Vector v, u32 at, u32 marks) {
  return append<T>(pool, first, v, at, v, at, marks);
}

// Appends the elements outside of whole vectors, which are in no group. For the first
// warp.
template <class T, class P>
DEVICE void filter_edges(const P& pool, const Row<T>& row, u32 threshold) {
  const u32 lane = thread_index();
  if (lane >= kWarp) return;
  Vector v = {};
  u32 at = 0, marks = 0;
  if (lane < row.edges()) {
    at = row.edge(lane);
    v.word[0] = row.bits(at);
    marks = T::key(v.word[0]) >= threshold;
  }
  append_one<T>(pool, row.first, v, at, marks);
}

// Marks the elements of a vector that reach any threshold.
template <class T>
DEVICE u32 mark_reaching(const Vector& v, u32 threshold) {
  return T::beatable(threshold) ? T::mark(v, T::just_below(threshold)) : T::mark_by_key(v, threshold);
}

// Appends every element in whole vectors that reaches any threshold, looking at all.
template <class T, u32 kThreads, class P>
DEVICE void filter_all(const P& pool, const Row<T>& row, u32 threshold) {
#pragma unroll 1
  for (u32 base = 0; base < row.vectors; base += kThreads) {
    const u32 i = base + thread_index();
    Vector v = {};
    u32 marks = 0;
    if (i < row.vectors) {
      v = row.vector(i);
      marks = mark_reaching<T>(v, threshold);
    }
    if (!append_one<T>(pool, row.first, v, row.at(i), marks)) return;
  }
}

// Appends every element in whole vectors that reaches the beatable threshold, from the
// slots that do. The pool must be empty; its count holds the number of candidates afterwards, or
// more than there is room for.
template <class T, class B, class P>
DEVICE void filter(B& block, const P& pool, const Row<T>& row, const Share& share, u32 threshold) {
  constexpr u32 kThreads = B::kThreads, kStep = kSlots * kThreads;  // vectors from one of a slot to the next
  const u32 thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp, before = (1u << lane) - 1;
  const u32 below = T::just_below(threshold);

  // The slots of the warp's lanes, in one list.
  u8* list = reinterpret_cast<u8*>(block.groups) + warp * kWarp * kSlots;
  u32 slots = 0;
#pragma unroll
  for (u32 s = 0; s < kSlots; s++) {
    const bool hit = T::beats(share.slot[s], below);
    const u32 lanes = ballot(hit);
    if (hit) list[slots + population(lanes & before)] = s * kWarp + lane;
    slots += population(lanes);
  }
  warp_barrier();
  // Two vectors of a slot for each lane, or one if there are lanes enough; several
  // lanes for a slot of more.
  u32 spread = 0;
  while (row.vectors > (2 * kStep << spread) && spread < 5) spread++;
  if (slots << spread <= kWarp / 2) spread++;
#pragma unroll 1
  for (u32 task = lane; task < (slots << spread) + lane; task += kWarp) {
    u32 first = row.vectors;
    if (task >> spread < slots) {
      const u32 slot = list[task >> spread];
      first = slot / kWarp * kThreads + warp * kWarp + slot % kWarp + (task & ((1u << spread) - 1)) * kStep;
    }
#pragma unroll 1
    for (u32 round = 0; round < row.vectors; round += 2 * kStep << spread) {
      const u32 i = first + round, next = i + (kStep << spread);
      Vector v = {}, w = {};
      u32 marks = 0;
      if (i < row.vectors) v = row.vector(i);
      if (next < row.vectors) w = row.vector(next);
      if (i < row.vectors) marks = T::mark(v, below);
      if (next < row.vectors) marks |= T::mark(w, below) << 4;
      if (!append<T>(pool, row.first, v, row.at(i), w, row.at(next), marks)) return;
    }
  }
}
