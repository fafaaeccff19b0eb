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
constexpr u32 kLine = 8;     // vectors
constexpr u32 kFewBlocks = 64;

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
  u32 lows[kWarp];                      // slots of warps that have left some to others; later values of warps
  alignas(8) u32 count;                 // candidates found, also those without room
  u32 left;                             // slots that warps have left

  DEVICE void clear() {
    if (thread_index() < kWarp) reach[thread_index()] = lows[thread_index()] = 0;
    if (thread_index() == 0) count = left = 0;
  }
  DEVICE u32 room() const { return kRoom; }
  template <class T>
  DEVICE void put(u32 place, u32 key, u32 index) { candidates[place] = Word<W>::pack(key, index); }
  // Forgets the candidates, when all threads are done with them.
  DEVICE void empty() {
    block_barrier();
    clear();
    block_barrier();
  }
  DEVICE u8* slots_of(u32 warp) { return reinterpret_cast<u8*>(groups) + warp * kWarp * kSlots; }
};

// Share is the best that a thread saw of each slot: vectors thread + round *
// kThreads of the row, in slot round % kSlots. Words of one or two elements.
struct Share {
  u32 slot[kSlots];
};

// Limits are those of a thread's next vectors of a masked order, one in each slot.
template <class T>
struct Limits {
  Vector slot[kSlots];

  template <u32 kThreads>
  DEVICE void read(const Row<T>& row, u32 first) {
    const u8* at = row.bits_at(first);
    const u32 shift = row.bits_shift(first);
    u32 bits[kSlots];
#pragma unroll
    for (u32 s = 0; s < kSlots; s++) bits[s] = at[s * kThreads * T::kPerVector / 8];  // behind the last, too: they are in shared memory
    all_loaded(bits);  // not one by one between the loads of vectors, for which each would wait
#pragma unroll
    for (u32 s = 0; s < kSlots; s++) slot[s] = T::limits(bits[s] >> shift);
  }
};

// Calls see(slot, vector) for each whole vector of this thread's share, with kAhead
// loads in flight: as soon as one has come, the next in its place is asked for. Amid the first
// loads ask() is called, so that what it asks for comes before the later ones; while they are
// awaited, meanwhile().
template <class T, u32 kThreads, u32 kAhead = kSlots, class See, class Ask, class Meanwhile>
DEVICE void read_vectors(const Row<T>& row, See see, Ask ask, Meanwhile meanwhile) {
  static_assert(kSlots % kAhead == 0, "a slot has its place");
  constexpr u32 kBatch = kSlots * kThreads;
  const Vector* at = kept(row.vector_at(thread_index()));
  int left = row.vectors - thread_index();
  Vector v[kAhead];
#pragma unroll
  for (u32 s = 0; s < kAhead; s++) {
    if (s == kAhead / 2) ask();
    if (left > int(s * kThreads)) v[s] = load_vector(at + s * kThreads);
  }
  // Of few rows the next batch is asked for now: what is not in L2 would be waited for twice. Many keep
  // the memory busy, and this only gets in the way.
  const u32 line = kAhead * kThreads + thread_index() * kLine;
  if (line < row.vectors && grid_blocks() <= kFewBlocks) prefetch_line(row.vector_at(line));
  meanwhile();
  // Made before the vectors have come, and those of the next batch behind one: what is left to do for
  // each that comes is little.
  Limits<T> limits;
  if constexpr (T::kMasked) limits.template read<kThreads>(row, thread_index());
#pragma unroll 1
  for (u32 seen = 0; seen < row.vectors; left = kept(left - kBatch)) {
    at += kBatch;
    seen += kBatch;
#pragma unroll
    for (u32 s = 0; s < kSlots; s++) {
      if (left > int(s * kThreads)) {
        if constexpr (T::kMasked) {
          see(s, T::limited(v[s % kAhead], limits.slot[s]));
        } else {
          see(s, v[s % kAhead]);
        }
      }
      if (left > int((s + kAhead) * kThreads)) v[s % kAhead] = load_vector(at + (int)(s + kAhead - kSlots) * (int)kThreads);
    }
    if constexpr (T::kMasked) {
      if (seen < row.vectors) limits.template read<kThreads>(row, seen + thread_index());
    }
  }
}

template <class T, u32 kThreads, class See>
DEVICE void read_vectors(const Row<T>& row, See see) {
  read_vectors<T, kThreads>(row, see, [] {}, [] {});
}

template <class T, u32 kThreads, class Ask, class Meanwhile>
DEVICE void read_share(const Row<T>& row, Share& share, Ask ask, Meanwhile meanwhile) {
#pragma unroll
  for (u32 s = 0; s < kSlots; s++) share.slot[s] = T::kWorst;
  read_vectors<T, kThreads>(row, [&](u32 s, const Vector& v) { share.slot[s] = T::best(share.slot[s], T::best(v)); }, ask, meanwhile);
}
template <class T, u32 kThreads>
DEVICE void read_share(const Row<T>& row, Share& share) {
  read_share<T, kThreads>(row, share, [] {}, [] {});
}

// Counts, for a pivot of each lane, the groups that reach it. All threads of the block
// call it, when groups and reach are written. A pivot is a group, or the best of two or four
// where a rank among the first groups is looked for: more of them then are near it.
template <u32 kGroups, class B>
DEVICE u32 reach_of_pivot(B& block, u32 rank, u32& pivot) {
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  const Vector some = *reinterpret_cast<const Vector*>(block.groups + lane * (kGroups / kWarp));
  pivot = some.word[0];
  if (rank * 2 <= kGroups) pivot = larger(pivot, some.word[1]);
  if (rank * 4 <= kGroups) pivot = larger(pivot, larger(some.word[2], some.word[3]));
  // All lanes read the same groups.
  u32 reach = 0;
#pragma unroll
  for (u32 i = 0; i < kGroups / B::kWarps; i += 4) {
    const Vector keys = *reinterpret_cast<const Vector*>(block.groups + warp * (kGroups / B::kWarps) + i);
#pragma unroll
    for (u32 j = 0; j < 4; j++) reach = count_at_least(reach, keys.word[j], pivot);
  }
  atomic_add_only(&block.reach[lane], reach);
  block_barrier();
  return block.reach[lane];
}

// The best pivot that `rank` groups reach; 0 if none has so many.
template <u32 kGroups, class B>
DEVICE u32 bound_of(B& block, u32 rank) {
  u32 pivot;
  const u32 reach = reach_of_pivot<kGroups>(block, rank, pivot);
  return warp_max(reach >= rank ? pivot : 0);
}

// A guess is made of so many slots, a quarter of all.
constexpr u32 kGuessGroups = 1024;

// The rank that a threshold should have among the best of those groups, where k is too
// many to prove a bound. Of groups of equal size 1 - (1 - k / length)^size are
// expected to hold one of the k best elements; pivots lie about 32 groups apart, and a sample has
// its spread, for which there is something to spare.
template <class T>
DEVICE u32 guess_rank(const Row<T>& row) {
  const float missed = 1 - (float)row.k / row.length;
  if (missed <= 0.01f) return kGuessGroups;
  const float groups = smaller(row.vectors, kGuessGroups), vectors = larger(groups, row.vectors / 4);
  const float reached = 1 - approximate_exp2(approximate_log2(missed) * T::kPerVector * vectors / groups);
  return reached * groups * 1.125f + 40;
}

// A guess: the pivot whose rank is next to this one, or a little less.
template <class B>
DEVICE u32 guess_of(B& block, u32 rank) {
  u32 pivot;
  const u32 reach = reach_of_pivot<kGuessGroups>(block, rank, pivot);
  const u32 more = ~warp_max(reach >= rank ? ~reach : 0), less = warp_max(reach < rank ? reach : 0);
  const bool fewer = rank - less <= more - rank && less >= rank / 8 * 7;
  return warp_max(reach == (fewer ? less : more) ? pivot : 0);
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

// Writes the best of groups, and returns how many there are, for a bound of which k is not more than that of the
// row. groups: 128, 256 or 512 prove a bound for k up to three quarters of that; too few of them are as good
// as 512. For a guess they are two slots of each thread, another pair in each warp, so that they are from all
// of the row.
template <class T, class B>
DEVICE u32 write_groups(B& block, const Row<T>& row, const Share& share, u32 groups) {
  static_assert(B::kThreads == 512, "a thread is a group, or a neighbour of one");
  static_assert(kGuessGroups == 2 * B::kThreads, "two slots of each thread");
  const u32 thread = thread_index();
  if (!provable(row.k, 512)) {
    // No division: it takes 100 cycles.
    const u32 pairs = larger(smaller(row.vectors / B::kThreads, kSlots) / 2, 1), warp = thread / kWarp, pair = pairs == 3 ? warp % 3 : warp & (pairs - 1);
    u32 one = share.slot[0], other = share.slot[1];
#pragma unroll
    for (u32 s = 2; s < kSlots; s += 2) {
      if (pair == s / 2) one = share.slot[s], other = share.slot[s + 1];
    }
    block.groups[thread] = T::key_of_word(one);
    block.groups[B::kThreads + thread] = T::key_of_word(other);
    return kGuessGroups;
  }
  u32 key = best_key<T>(share);
  if (groups == 512 || !provable(row.k, groups)) {
    block.groups[thread] = key;
    return 512;
  }
  // The groups of neighbouring lanes are joined.
  key = larger(key, shuffle_xor(key, 1));
  if (groups == 128) key = larger(key, shuffle_xor(key, 2));
  const u32 joined = groups == 128 ? 2 : 1;  // as a power of two
  if ((thread & ((1u << joined) - 1)) == 0) block.groups[thread >> joined] = key;
  return groups;
}

// A threshold key that at least k elements of the block's row reach, or so it is guessed: behind a barrier, by
// what write_groups wrote.
template <class T, class B>
DEVICE u32 find_threshold(B& block, const Row<T>& row, u32 groups) {
  if (groups == 128) return bound_of<128>(block, row.k);
  if (groups == 256) return bound_of<256>(block, row.k);
  if (groups == 512) return bound_of<512>(block, row.k);
  return guess_of(block, guess_rank(row));
}

// A pool takes candidates: in the shared memory of the block, of another block of
// the cluster, or in global memory.
template <class B>
struct BlockPool {
  using Candidate = typename B::Candidate;
  B& block;
  DEVICE u32 room() const { return block.room(); }
  DEVICE u32 reserve(u32 n) const { return atomic_add(&block.count, n); }
  template <class T>
  DEVICE void put(u32 place, u32 key, u32 index) const { block.template put<T>(place, key, index); }
};

// Appends the marked elements of each lane's two vectors, for the whole warp; first is
// the index of the row or chunk. Marks of the second are four bits above those of the first. False if there was no room
// for all; they are counted nevertheless.
template <class T, class P>
DEVICE bool append(const P& pool, u32 first, const Vector& v, u32 at, const Vector& next, u32 next_at, u32 marks) {
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
  if (lane == 0) start = pool.reserve(all + unknown_lane());
  start = shuffle(start, 0);
  place += start;
#pragma unroll 1
  while (marks && place < pool.room()) {
    const u32 mark = lowest_bit(marks);
    const bool second = mark & 4;
    const u32 low = mark & 2 ? (second ? next.word[2] : v.word[2]) : (second ? next.word[0] : v.word[0]);
    const u32 high = mark & 2 ? (second ? next.word[3] : v.word[3]) : (second ? next.word[1] : v.word[1]);
    const u32 key = T::key((mark & 1 ? high : low) >> T::marked_shift(mark) & T::kAll);
    pool.template put<T>(place++, key, first + (second ? next_at : at) + T::marked_element(mark));
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
      marks = T::mark_by_key(v, threshold);
    }
    if (!append_one<T>(pool, row.first, v, row.at(i), marks)) return;
  }
}

// So many slots a warp looks at itself: in random rows hardly one has more.
DEVICE u32 most_slots(u32 k) { return kWarp / 2 + k / 8; }

// How many lanes, as a power of two, look at one slot: each at two vectors, or at one if
// there are lanes enough; several of them where a slot has more.
template <class T, u32 kThreads>
DEVICE u32 spread_of(const Row<T>& row, u32 slots) {
  u32 spread = 0;
  while (row.vectors > (2 * kSlots * kThreads << spread) && spread < 5) spread++;
  return (slots << spread) <= kWarp / 2 ? spread + 1 : spread;
}

// Lists those slots of the warp's lanes that reach a beatable threshold, and returns how
// many there are.
template <class T, class B>
DEVICE u32 list_slots(B& block, const Share& share, u32 threshold) {
  const u32 lane = thread_index() % kWarp, before = (1u << lane) - 1, below = T::just_below(threshold);
  u8* list = block.slots_of(thread_index() / kWarp);
  u32 slots = 0;
#pragma unroll
  for (u32 s = 0; s < kSlots; s++) {
    const bool hit = T::beats(share.slot[s], below);
    const u32 lanes = ballot(hit);
    if (hit) list[slots + population(lanes & before)] = s * kWarp + lane;
    slots += population(lanes);
  }
  warp_barrier();
  return slots;
}

// Calls see(v, i, w, next) for the whole warp, with two vectors of each lane and their
// numbers, those of listed slots of a warp: of the list's tasks, of which each slot has 1 <<
// spread, those in [from, to). Numbers that are too large have no vector. Returns false
// when see does.
template <class T, u32 kThreads, class See>
DEVICE bool look_again(const Row<T>& row, const u8* list, u32 warp, u32 spread, u32 from, u32 to, See see) {
  constexpr u32 kStep = kSlots * kThreads;  // vectors from one of a slot to the next
  const u32 lane = thread_index() % kWarp;
#pragma unroll 1
  for (u32 task = from + lane; task < to + lane; task += kWarp) {
    u32 first = row.vectors;
    if (task < to) {
      const u32 slot = list[task >> spread];
      first = slot / kWarp * kThreads + warp * kWarp + slot % kWarp + (task & ((1u << spread) - 1)) * kStep;
    }
#pragma unroll 1
    for (u32 round = 0; round < row.vectors; round += 2 * kStep << spread) {
      const u32 i = first + round, next = i + (kStep << spread);
      Vector v = {}, w = {};
      if (i < row.vectors) v = row.vector(i);
      if (next < row.vectors) w = row.vector(next);
      if (!see(v, i, w, next)) return false;
    }
  }
  return true;
}

// The same, appending the elements that reach a beatable threshold. False if there was no
// room for all.
template <class T, u32 kThreads, class P>
DEVICE bool append_again(const P& pool, const Row<T>& row, const u8* list, u32 warp, u32 spread, u32 from, u32 to, u32 threshold) {
  const u32 below = T::just_below(threshold);
  return look_again<T, kThreads>(row, list, warp, spread, from, to, [&](const Vector& v, u32 i, const Vector& w, u32 next) {
    u32 marks = 0;
    if (i < row.vectors) marks = T::mark(v, below);
    if (next < row.vectors) marks |= T::mark(w, below) << 4;
    return append<T>(pool, row.first, v, row.at(i), w, row.at(next), marks);
  });
}

// Appends the elements that reach a threshold in up to two slots of each lane, two vectors of each at a time. The
// few lanes that have one ask for places themselves.
template <class T, u32 kThreads, class P>
DEVICE void append_own(const P& pool, const Row<T>& row, u32 slots, u32 below) {
  constexpr u32 kStep = kSlots * kThreads;
  if (slots == 0) return;
  const u32 thread = thread_index(), other_slot = slots & (slots - 1);
  u32 one = lowest_bit(slots) * kThreads + thread, other = other_slot ? lowest_bit(other_slot) * kThreads + thread : row.vectors;
#pragma unroll 1
  for (; one < row.vectors; one += 2 * kStep, other += 2 * kStep) {
    // Where there is no second one, the first again.
    const u32 next = one + kStep < row.vectors ? one + kStep : one, other_next = other + kStep < row.vectors ? other + kStep : other;
    const Vector v = row.vector(one), w = row.vector(next);
    u32 marks = 0;
    if (other < row.vectors) {
      const Vector x = row.vector(other), y = row.vector(other_next);
      marks = T::mark(x, below) << 8 | (T::mark(y, below) << 12 & (0 - (u32)(other_next != other)));
    }
    marks |= T::mark(v, below) | (T::mark(w, below) << 4 & (0 - (u32)(next != one)));
    if (marks == 0) continue;
    const u32 room = pool.room();
    u32 place = pool.reserve(population(marks));
#pragma unroll 1
    for (; marks && place < room; marks &= marks - 1) {
      const u32 mark = lowest_bit(marks), vector = (mark & 8 ? other : one) + (mark & 4 ? kStep : 0);
      const u32 i = row.at(vector) + T::marked_element(mark & 19);
      pool.template put<T>(place++, T::key(row.logits[i]), row.first + i);  // which is in L1 now
    }
  }
}

// Appends every element in whole vectors that reaches the beatable threshold, from the
// slots that do. The pool must be empty; its count holds the number of candidates afterwards, or
// more than there is room for. A warp with far more slots than others leaves them for
// filter_rest.
template <class T, class B, class P>
DEVICE void filter(B& block, const P& pool, const Row<T>& row, const Share& share, u32 threshold) {
  const u32 below = T::just_below(threshold);
  u32 own = 0;
#pragma unroll
  for (u32 s = 0; s < kSlots; s++) own |= T::beats(share.slot[s], below) ? 1u << s : 0;
  const u32 behind_one = own & (own - 1);
  if (!ballot((behind_one & (behind_one - 1)) != 0)) return append_own<T, B::kThreads>(pool, row, own, below);
  const u32 warp = thread_index() / kWarp, slots = list_slots<T>(block, share, threshold);
  if (slots > most_slots(row.k)) {
    if (thread_index() % kWarp == 0) {
      block.lows[warp] = slots;
      atomic_add_only(&block.left, slots + unknown_lane());
    }
    return;
  }
  const u32 spread = spread_of<T, B::kThreads>(row, slots);
  append_again<T, B::kThreads>(pool, row, block.slots_of(warp), warp, spread, 0, slots << spread, threshold);
}

// Candidates that the filter found, or will find at least: each slot that is left has one. For
// all threads, behind a barrier.
template <class B>
DEVICE u32 found_at_least(const B& block) { return block.count + block.left; }

// Deals what crowded warps left to all of them. For all threads, where there may be
// room.
template <class T, class B, class P>
DEVICE void filter_rest(const P& pool, B& block, const Row<T>& row, u32 threshold) {
  u32 turn = thread_index() / kWarp;
#pragma unroll 1
  for (u32 warp = 0; warp < B::kWarps; warp++) {
    const u32 slots = block.lows[warp], spread = spread_of<T, B::kThreads>(row, slots);
#pragma unroll 1
    for (u32 from = 0; from < slots << spread; from += kWarp, turn++) {
      if (turn % B::kWarps != 0) continue;
      const u32 to = smaller(from + kWarp, slots << spread);
      if (!append_again<T, B::kThreads>(pool, row, block.slots_of(warp), warp, spread, from, to, threshold)) return;
    }
  }
}
