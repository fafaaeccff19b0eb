// Stage 1 of a block, for the kernels that select and for those that sample: A is the
// structure of their arguments.
#pragma once

#include "exact.cuh"
#include "stage2_merge.cuh"

constexpr u32 kThreads = 512;  // 1,024 were slower by a fifth: more warps wait for each other
constexpr u32 kRoom = 4096;    // candidates
constexpr u32 kHopeless = kRoom / 4;  // slots that warps leave: for what is in them there will hardly be room
constexpr u32 kBlocks = 2;     // of a multiprocessor, for which the compiler leaves registers

// Appends the elements at the edges. Apart, because most rows have none, and from the
// arguments again: a row as a parameter would have to be in memory.
template <class T, class B, class A>
DEVICE_APART void append_edges(B& block, const A& a, u32 number, u32 chunk, u32 chunks, u32 threshold) {
  filter_edges(BlockPool<B>{block}, Row<T>(a, number, chunk, chunks), threshold);
}

// What crowded warps left of the filter's work.
template <class T, class B, class A>
DEVICE_APART void append_rest(B& block, const A& a, u32 number, u32 chunk, u32 chunks, u32 k, u32 threshold) {
  Row<T> row(a, number, chunk, chunks);
  row.k = k;
  filter_rest(BlockPool<B>{block}, block, row, threshold);
}

// What stage 1 finds where it is not the candidates of the first threshold: because `found`
// elements reach that, fewer than k or more than there is room for, or because there
// was no threshold that they could beat (found is 0).
template <class T, class B, class R, class A>
DEVICE_APART Found find_otherwise(B& block, R results, const A& a, u32 number, u32 chunk, u32 chunks, u32 k, u32 threshold, u32 found) {
  Row<T> row(a, number, chunk, chunks);
  row.k = k;
  return select_otherwise(block, BlockPool<B>{block}, row, results, threshold, found);
}

// Stamps of the instrumented build: clock cycles at the end of each phase.
template <bool kOn>
struct Stamps {
  u64* at;
  DEVICE Stamps(const SelectArguments& a) : at(kOn ? static_cast<u64*>(a.workspace) + (u64)block_index() * 8 : nullptr) { set(0); }
  DEVICE void set(u32 phase) const {
    if (kOn && thread_index() == 0) at[phase] = clock_cycles();
  }
};

// Reader reads rows of which nothing is wanted but their best elements.
template <class T>
struct Reader {
  template <u32 kThreads>
  DEVICE void read(const Row<T>& row, Share& share) { read_share<T, kThreads>(row, share); }
  // How many results the row has, not more than row.k: behind a barrier.
  DEVICE u32 results(const Row<T>& row) { return row.k; }
  // Whether the best of its slots decide a row: then nothing is found. Behind a barrier.
  DEVICE bool decides(const Row<T>&, const Share&, u32) { return false; }

  // What edited rows add, see edit.cuh: the room that is left for the row's own candidates; what
  // comes before a row that is not read; candidates beside those of the row, in the pool or with all that
  // was found otherwise.
  // Whether fewer than k will do, where the others are the worst number.
  DEVICE bool wants_fewer() const { return false; }
  template <class B>
  DEVICE u32 room(const B&) const { return B::kRoom; }
  DEVICE void prepare(const Row<T>&) {}
  template <class B>
  DEVICE void append(B&, u32) const {}
  template <class B>
  DEVICE u32 appended(const B&) const { return 0; }
  template <class B>
  DEVICE Found join(B&, Found found, u32) const { return found; }
};

// Stage 1 for the block's row, or for its chunk of a row. What was found goes to then(found) at once, since what is
// known on two ways through the code is kept in local memory: to then.apart(found) if it was found otherwise, or
// if no results are wanted.
template <class T, class B, class R, class A, class S, class D, class Then>
DEVICE void find(B& block, const R& results, const A& a, u32 number, u32 chunk, u32 chunks, const S& stamps, D& reader, const Then& then) {
  Row<T> row(a, number, chunk, chunks);
  u32 threshold = 0, n = 0, added = 0;
  // A row that has room as it is needs no threshold. The row does not wait for its k, which may
  // come from memory.
  if (row.length > 512 && (row.length > reader.room(block) || row.k * 2 <= row.length)) {
    Share share;
    reader.template read<B::kThreads>(row, share);
    row = Row<T>(a, kept(number), chunk, chunks);  // anew: there are no registers for it while the logits come
    stamps.set(1);
    const u32 groups = write_groups(block, row, share, a.groups);
    block_barrier();
    row.k = reader.results(row);
    if (reader.decides(row, share, groups)) return stamps.set(7);
    if (row.k == 0) return then.apart({0, 0});
    threshold = find_threshold(block, row, groups);
    stamps.set(2);
    const bool sparse = reader.wants_fewer() && !T::beatable(threshold);
    if (sparse) threshold = T::kWorstNumber + 1;
    if (T::beatable(threshold)) {
      filter(block, BlockPool<B>{block}, row, share, threshold);
      if (row.edges()) append_edges<T>(block, a, number, chunk, chunks, threshold);
      reader.append(block, threshold);
      block_barrier();
      n = found_at_least(block);
      if (n >= row.k && n <= block.room() && block.left == 0) {
        stamps.set(3);
        return then({n, row.k});
      }
      added = reader.appended(block);
      if (n - added >= row.k && block.left > kHopeless) {  // of the row alone at least k
        n = larger(n, B::kRoom + 1);
      } else if (block.left > 0 && n <= block.room()) {
        block_barrier();  // all have read that
        append_rest<T>(block, a, number, chunk, chunks, row.k, threshold);
        block_barrier();
        n = block.count;
      }
    }
    if (sparse && n > 0 && n < row.k) return then.apart({n, n});
  } else {
    reader.prepare(row);
    row.k = reader.results(row);
  }
  Found found = {n, row.k};
  if (row.k > 0 && (n < row.k || n > block.room())) {
    // Of the row alone fewer than k, or else too many.
    if (n - added < row.k) n -= added;
    found = reader.join(block, find_otherwise<T>(block, results, a, number, chunk, chunks, row.k, threshold, n), row.k);
  }
  stamps.set(3);
  then.apart(found);
}

// The same for a row of which nothing is wanted but its best elements.
template <class T, class B, class R, class A, class S, class Then>
DEVICE void find(B& block, const R& results, const A& a, u32 number, u32 chunk, u32 chunks, const S& stamps, const Then& then) {
  Reader<T> reader;
  find<T>(block, results, a, number, chunk, chunks, stamps, reader, then);
}

// The best k of what was found, in order.
template <class B, class R, class S>
DEVICE_APART void merge_apart(B& block, Found found, R results, S stamps) { merge(block, found.candidates, found.wanted, results, stamps); }
template <bool kApart, class B, class R, class S>
struct Merge {
  B& block;
  const R& results;
  const S& stamps;

  DEVICE void operator()(Found found) const {
    if constexpr (kApart) {
      apart(found);
    } else {
      merge(block, found.candidates, found.wanted, results, stamps);
    }
  }
  DEVICE void apart(Found found) const { merge_apart(block, found, results, stamps); }
};
template <bool kApart = false, class B, class R, class S>
DEVICE Merge<kApart, B, R, S> merge_of(B& block, const R& results, const S& stamps) { return {block, results, stamps}; }
