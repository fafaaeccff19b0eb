// Stage 1 of a block, for the kernels that select and for those that sample: A is the
// structure of their arguments.
#pragma once

#include "exact.cuh"

constexpr u32 kThreads = 512;  // 1,024 were slower by a fifth: more warps wait for each other
constexpr u32 kRoom = 4096;    // candidates
constexpr u32 kBlocks = 2;     // of a multiprocessor, for which the compiler leaves registers

// Appends the elements at the edges. Apart, because most rows have none, and from the
// arguments again: a row as a parameter would have to be in memory.
template <class T, class B, class A>
DEVICE_APART void append_edges(B& block, const A& a, u32 number, u32 chunk, u32 chunks, u32 threshold) {
  filter_edges(BlockPool<B>{block}, Row<T>(a, number, chunk, chunks), threshold);
}

// What crowded warps left of the filter's work.
template <class T, class B, class A>
DEVICE_APART void append_rest(B& block, const A& a, u32 number, u32 chunk, u32 chunks, u32 threshold) {
  filter_rest(BlockPool<B>{block}, block, Row<T>(a, number, chunk, chunks), threshold);
}

// What stage 1 finds where it is not the candidates of the first threshold: because `found`
// elements reach that, fewer than k or more than there is room for, or because there
// was no threshold that they could beat (found is 0).
template <class T, class B, class R, class A>
DEVICE_APART Found find_otherwise(B& block, R results, const A& a, u32 number, u32 chunk, u32 chunks, u32 threshold, u32 found) {
  return select_otherwise(block, BlockPool<B>{block}, Row<T>(a, number, chunk, chunks), results, threshold, found);
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
  // Whether the best of its slots decide a row: then nothing is found.
  DEVICE bool decides(const Row<T>&, const Share&) { return false; }

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

// Stage 1 for the block's row, or for its chunk of a row.
template <class T, class B, class R, class A, class S, class D>
DEVICE Found find(B& block, const R& results, const A& a, u32 number, u32 chunk, u32 chunks, const S& stamps, D& reader) {
  const Row<T> row(a, number, chunk, chunks);
  u32 threshold = 0, n = 0, added = 0;
  // A row that has room as it is needs no threshold. The row does not wait for its k, which may
  // come from memory.
  if (row.length > 512 && (row.length > reader.room(block) || row.k * 2 <= row.length)) {
    Share share;
    reader.template read<B::kThreads>(row, share);
    stamps.set(1);
    if (row.k == 0 || reader.decides(row, share)) return {0, 0};
    threshold = find_threshold(block, row, share, a.groups);
    stamps.set(2);
    const bool sparse = reader.wants_fewer() && !T::beatable(threshold);
    if (sparse) threshold = T::kWorstNumber + 1;
    if (T::beatable(threshold)) {
      filter(block, BlockPool<B>{block}, row, share, threshold);
      if (row.edges()) append_edges<T>(block, a, number, chunk, chunks, threshold);
      reader.append(block, threshold);
      block_barrier();
      n = found_at_least(block);
      added = reader.appended(block);
      if (block.left > 0 && n <= block.room()) {
        block_barrier();  // all have read that
        append_rest<T>(block, a, number, chunk, chunks, threshold);
        block_barrier();
        n = block.count;
      }
    }
    if (sparse && n > 0 && n < row.k) return {n, n};
  } else {
    reader.prepare(row);
  }
  if (row.k == 0) return {0, 0};
  Found found = {n, row.k};
  if (n < row.k || n > block.room()) {
    // Of the row alone fewer than k, or else too many.
    if (n - added < row.k) n -= added;
    found = reader.join(block, find_otherwise<T>(block, results, a, number, chunk, chunks, threshold, n), row.k);
  }
  stamps.set(3);
  return found;
}
template <class T, class B, class R, class A, class S>
DEVICE Found find(B& block, const R& results, const A& a, u32 number, u32 chunk, u32 chunks, const S& stamps) {
  Reader<T> reader;
  return find<T>(block, results, a, number, chunk, chunks, stamps, reader);
}
