// Sampling kernels.
//
// plan       grid            what
// block      rows            one block a row: the k best of it, truncations and draws in one launch
#include "tail.cuh"

template <class T, class W, bool kStamps = false>
DEVICE void sample_row(const SampleArguments& a) {
  using B = Block<W, kThreads, kRoom>;
  SHARED(B, block);
  SHARED(Tail<W>, tail);
  const Stamps<kStamps> stamps(a);
  block.clear();
  wait_for_kernel_before();
  const u32 number = block_index(), thread = thread_index();
  if (thread < kWarp) tail.fetch(a, number);
  const Sorted<W> sorted{tail.sorted};
  SampledReader<T, W, B> reader{block, tail, a, number};
  const Found found = find<T>(block, sorted, a, number, 0, 1, stamps, reader);
  release_kernel_behind();
  if (reader.done) return stamps.set(7);
  if (thread < kWarp) tail.settle(a, number);
  stamps.set(4);
  merge(block, found.candidates, found.wanted, sorted, stamps);
  block_barrier();
  stamps.set(5);
  const Row<T> row(a, number, 0, 1);
  const u32 k = tail.left;
  if (wants_raw(a)) {
    prepare_logprobs<T, W, B>(tail, a, number);
    block_barrier();
  }
  if (k == 0 && row.length > 0 && tail.valid && !tail.steps) {
    draw_from_all<T>(block, a, number);
    answer_whole<T, W, B>(tail, a, number, row.k);
  } else {
    draw_tokens<T>(block, tail, a, number, k, row.k, stamps);
  }
}

#define SAMPLE_KERNEL(dtype, suffix, word) \
  KERNEL_OF(SampleArguments, sample_##dtype##_block##suffix, kThreads, kBlocks) { sample_row<dtype, word>(arguments); }

#ifdef AIKF_PHASES
KERNEL_OF(SampleArguments, phases_sample_bf16_block_narrow, kThreads, kBlocks) { sample_row<bf16, u32, true>(arguments); }
#else
SAMPLE_KERNEL(bf16, , u64)
SAMPLE_KERNEL(f16, , u64)
SAMPLE_KERNEL(f32, , u64)
SAMPLE_KERNEL(bf16, _narrow, u32)
SAMPLE_KERNEL(f16, _narrow, u32)
#endif
