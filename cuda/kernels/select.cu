// Top-k kernels.
//
// plan       grid            what
// block      rows            one block a row: all in one launch, no workspace
// cluster    rows * chunks   a cluster of blocks a row, by distributed shared memory
// two-stage  rows * chunks   stage1: the k best of each chunk, into the workspace
//            rows            stage2: the k best of those
// any        rows            any k: candidates in the workspace
#include "select_row.cuh"

template <class T, class Smallest>
DEVICE void select_chunk(const SelectArguments& a) {
  using B = Block<u64, kThreads, kRoom>;
  SHARED(B, block);
  const Stamps<false> stamps(a);
  block.clear();
  wait_for_kernel_before();
  const u32 number = block_index() / a.chunks, chunk = block_index() % a.chunks;
  const Words results{static_cast<u64*>(a.workspace) + (u64)block_index() * a.k};
  const auto write = merge_of<true>(block, results, stamps);
  if (a.smallest) {
    find<Smallest>(block, results, a, number, chunk, a.chunks, stamps, write);
  } else {
    find<T>(block, results, a, number, chunk, a.chunks, stamps, write);
  }
  for (u32 i = Row<T>(a, number, chunk, a.chunks).k + thread_index(); i < (u32)a.k; i += kThreads) results.write(i, 0);
  release_kernel_behind();
}

template <class T>
DEVICE void merge_chunks(const SelectArguments& a) {
  using B = Block<u64, kThreads, kRoom>;
  SHARED(B, block);
  block.clear();
  wait_for_kernel_before();
  const u32 number = block_index(), all = a.chunks * a.k, lane = thread_index() % kWarp;
  const u64* words = static_cast<const u64*>(a.workspace) + (u64)number * all;
  const BlockPool<B> pool{block};
  block_barrier();
#pragma unroll 1
  for (u32 base = 0; base < all; base += kThreads) {
    const u32 i = base + thread_index();
    const u64 word = i < all ? words[i] : 0;
    const u32 lanes = ballot(word != 0);
    u32 place = 0;
    if (lanes && lane == 0) place = pool.reserve(population(lanes));
    place = shuffle(place, 0) + population(lanes & ((1u << lane) - 1));
    if (word && place < pool.room()) block.candidates[place] = word;
  }
  block_barrier();
  merge(block, block.count, Row<T>(a, number, 0, 1).k, Results<T, u64>{a, number}, Stamps<false>(a));
}

// GlobalPool takes candidates in the workspace, of which there is one place for each
// of k.
template <class B>
struct GlobalPool {
  using Candidate = u64;
  B& block;
  u64* words;
  u32 places;
  DEVICE u32 room() const { return places; }
  DEVICE u32 reserve(u32 n) const { return atomic_add(&block.count, n); }
  template <class T>
  DEVICE void put(u32 place, u32 key, u32 index) const { words[place] = Word<u64>::pack(key, index); }
};

template <class T, class B, class R>
DEVICE u32 find_any(B& block, const SelectArguments& a, u64* words, const R& results) {
  const Row<T> row(a, block_index(), 0, 1);
  if (row.k == 0) return 0;
  Share share;
  read_share<T, B::kThreads>(row, share);
  return select_exactly(block, GlobalPool<B>{block, words, row.k}, row, results, share, 0, T::kAll, false).wanted;
}

template <class T, class Smallest>
DEVICE void select_any(const SelectArguments& a) {
  using B = Block<u64, kThreads, kRoom>;
  SHARED(B, block);
  block.clear();
  wait_for_kernel_before();
  u32 places = 1;
  while (places < (u32)a.k) places *= 2;
  u64* words = static_cast<u64*>(a.workspace) + (u64)block_index() * places;
  const Results<T, u64> results{a, block_index()};
  const u32 wanted = a.smallest ? find_any<Smallest>(block, a, words, results) : find_any<T>(block, a, words, results);
  sort_words<kThreads>(words, wanted);
  for (u32 i = thread_index(); i < wanted; i += kThreads) results.write(i, words[i]);
}

#if defined(AIKF_SHIM) || __CUDA_ARCH__ >= 900
// ClusterPool takes candidates in the shared memory of the cluster's first block.
template <class B>
struct ClusterPool {
  using Candidate = typename B::Candidate;
  B* home;
  DEVICE u32 room() const { return B::kRoom; }
  DEVICE u32 reserve(u32 n) const { return cluster_atomic_add(&home->count, n); }
  template <class T>
  DEVICE void put(u32 place, u32 key, u32 index) const { home->candidates[place] = Word<Candidate>::pack(key, index); }
};

// Each block reads a chunk, tells all blocks the best of its groups, and sends the
// first block its candidates. Only that one finds any.
template <class T, class B, class R>
DEVICE Found find_in_cluster(B& block, const R& results, const SelectArguments& a) {
  constexpr u32 kGroups = 512;
  const u32 thread = thread_index(), chunks = a.chunks, chunk = cluster_rank(), number = block_index() / chunks;
  const Row<T> row(a, number, chunk, chunks);
  const u32 k = Row<T>(a, number, 0, 1).k;
  Share share;
  read_share<T, B::kThreads>(row, share);
  // The groups of neighbouring lanes are joined, so that all blocks together have
  // kGroups. Lanes that hold the same group write it to different blocks.
  u32 key = best_key<T>(share);
#pragma unroll 1
  for (u32 joined = 1; joined < chunks; joined *= 2) key = larger(key, shuffle_xor(key, joined));
  cluster_wait();
  in_block(&block, thread % chunks)->groups[chunk * (kGroups / chunks) + thread / chunks] = key;
  cluster_arrive();
  cluster_wait();
  u32 threshold = 0;
  if (provable(k, kGroups)) threshold = bound_of<kGroups>(block, k);
  const ClusterPool<B> pool{in_block(&block, 0)};
  if (T::beatable(threshold)) {
    filter(block, pool, row, share, threshold);
    if (row.edges()) filter_edges(pool, row, threshold);
    block_barrier();
    if (block.left > 0) filter_rest(pool, block, row, threshold);
  }
  release_kernel_behind();
  cluster_arrive();
  cluster_wait();
  if (chunk != 0 || k == 0) return {0, 0};
  const u32 n = block.count;
  if (n < k || n > B::kRoom) return find_otherwise<T>(block, results, a, number, 0, 1, k, threshold, n);
  return {n, k};
}

template <class T, class Smallest>
DEVICE void select_in_cluster(const SelectArguments& a) {
  using B = Block<u64, kThreads, kRoom>;
  SHARED(B, block);
  block.clear();
  block_barrier();
  cluster_arrive();  // all blocks are there, and cleared, before one writes to another
  wait_for_kernel_before();
  const Results<T, u64> results{a, block_index() / a.chunks};
  const Found found = a.smallest ? find_in_cluster<Smallest>(block, results, a) : find_in_cluster<T>(block, results, a);
  merge(block, found.candidates, found.wanted, results, Stamps<false>(a));
}
#endif

#define BLOCK_KERNEL(dtype, suffix, word) \
  KERNEL(select_##dtype##_block##suffix, kThreads, kBlocks) { select_row<dtype, dtype##_smallest, word, false>(arguments); }
#define KERNELS(dtype)                                                                                                                \
  BLOCK_KERNEL(dtype, , u64)                                                                                                          \
  KERNEL(select_##dtype##_stage1, kThreads, kBlocks) { select_chunk<dtype, dtype##_smallest>(arguments); }                                  \
  KERNEL(select_##dtype##_stage2, kThreads, kBlocks) { merge_chunks<dtype>(arguments); }                                                    \
  KERNEL(select_##dtype##_any, kThreads, kBlocks) { select_any<dtype, dtype##_smallest>(arguments); }
#define CLUSTER_KERNEL(dtype)                                                                                                         \
  KERNEL(select_##dtype##_cluster, kThreads, kBlocks) { select_in_cluster<dtype, dtype##_smallest>(arguments); }

KERNELS(bf16)
KERNELS(f16)
KERNELS(f32)
BLOCK_KERNEL(bf16, _narrow, u32)
BLOCK_KERNEL(f16, _narrow, u32)
#if defined(AIKF_SHIM) || __CUDA_ARCH__ >= 900
CLUSTER_KERNEL(bf16)
CLUSTER_KERNEL(f16)
CLUSTER_KERNEL(f32)
#endif
