// Top-k kernels.
//
// select_DTYPE_block1024, _block512: one block a row, grid = rows. The row is read
// once; a few of its vectors are read a second time. Candidates stay in shared
// memory, and stage 2 writes the results: no workspace, no second launch.
#include "exact.cuh"
#include "stage2_merge.cuh"

// How many blocks an SM should hold, and how many loads a thread has in flight.
template <class T, class W, u32 kThreads, u32 kRoom, u32 kUnroll, bool kStamps>
DEVICE void select_row(const SelectArguments& a) {
  using B = Block<W, kThreads, kRoom>;
  SHARED(B, block);
  const u32 thread = thread_index();
  u64* stamp = kStamps ? static_cast<u64*>(a.workspace) + (u64)block_index() * 8 : nullptr;
  if (kStamps && thread == 0) stamp[0] = clock_cycles();
  if (thread == 0) block.count = 0;
  wait_for_kernel_before();
  const Row<T> row(a, block_index(), 0, 1);
  if (row.k == 0) return;

  // A row that has room as it is needs no threshold.
  u32 threshold = 0, own = T::kLargestKey;
  if (row.length > 512 && !(row.length <= kRoom && row.k * 2 > row.length)) {
    threshold = find_threshold<T, B, kThreads, kUnroll>(block, row, a.groups, kRoom, own, stamp);
  } else {
    block_barrier();
  }
  if (kStamps && thread == 0) stamp[2] = clock_cycles();
  filter<T, W, B, kThreads>(block, row, threshold, own);
  release_kernel_behind();
  block_barrier();
  u32 n = block.count;
  if (n < row.k || n > kRoom) {
    select_exactly<T, W, B, kThreads>(block, row, n < row.k ? 0 : threshold);
    n = row.k;
  }
  if (kStamps && thread == 0) stamp[3] = clock_cycles();
  merge<kThreads, kRoom, W>(block, n, row.k, Results<T, W>(a, row));
  if (kStamps && thread == 0) stamp[4] = clock_cycles();
}

#define SELECT(dtype, suffix, word)                                                                                          \
  KERNEL(select_##dtype##_block1024##suffix, 1024, 1) { select_row<dtype, word, 1024, 4096, 8, false>(arguments); }          \
  KERNEL(select_##dtype##_block512##suffix, 512, 4) { select_row<dtype, word, 512, 1024, 4, false>(arguments); }             \
  KERNEL(phases_##dtype##_block1024##suffix, 1024, 1) { select_row<dtype, word, 1024, 4096, 8, true>(arguments); }

SELECT(bf16, , u32)
SELECT(bf16, _wide, u64)
SELECT(f16, , u32)
SELECT(f16, _wide, u64)
SELECT(f32, , u64)
