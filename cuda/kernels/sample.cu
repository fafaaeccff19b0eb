// Sampling kernels.
//
// plan       grid            what
// block      rows            one block a row: the k best of it, truncations and draws in one launch
#include "whole.cuh"

template <class T, class W>
DEVICE void sample_row(const SampleArguments& a) {
  using B = Block<W, kThreads, kRoom>;
  SHARED(B, block);
  SHARED(Tail<W>, tail);
  const Stamps<false> stamps(a);
  block.clear();
  wait_for_kernel_before();
  const u32 number = block_index();
  const Sorted<W> sorted{tail.sorted};
  const Found found = find<T>(block, sorted, a, number, 0, 1, stamps);
  release_kernel_behind();
  merge(block, found.candidates, found.wanted, sorted, stamps);
  block_barrier();
  const Row<T> row(a, number, 0, 1);
  if (row.k == 0 && row.length > 0 && RowParameters(a, number).valid()) {
    draw_from_all<T>(block, a, number);
  } else {
    draw_tokens<T>(block, tail, a, number, row.k);
  }
}

#define SAMPLE_KERNEL(dtype, suffix, word) \
  KERNEL_OF(SampleArguments, sample_##dtype##_block##suffix, kThreads, kBlocks) { sample_row<dtype, word>(arguments); }

SAMPLE_KERNEL(bf16, , u64)
SAMPLE_KERNEL(f16, , u64)
SAMPLE_KERNEL(f32, , u64)
SAMPLE_KERNEL(bf16, _narrow, u32)
SAMPLE_KERNEL(f16, _narrow, u32)
