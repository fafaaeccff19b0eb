// Sampling kernels.
//
// plan       grid            what
// block      rows            one block a row: the k best of it, truncations and draws in one launch
#include "tail.cuh"
#include "whole.cuh"

// For a row of which the best are selected, or for one without a top-k.
template <class W>
struct Shared<Block<W, kThreads, kRoom>> {
  union {
    struct {
      Block<W, kThreads, kRoom> block;
      Tail<W> tail;
    };
    Whole whole;
  };
};

template <class T, class W, bool kStamps = false>
DEVICE void sample_row(const SampleArguments& a) {
  using B = Block<W, kThreads, kRoom>;
  B& block = the_block<B>();
  Tail<W>& tail = block_tail<B>();
  const Stamps<kStamps> stamps(a);
  block.clear();
  wait_for_kernel_before();
  const u32 number = block_index(), thread = thread_index();
  tail.prepare(a, number, B::kWarps);
  if (wants_raw(a)) add_exponentials<T, W, B>(Row<T>(a, number, 0, 1));
  const Sorted<W> sorted{tail};
  SampledReader<T, W, B> reader{{}, block, tail, a, number};
  const Found found = find<T>(block, sorted, a, number, 0, 1, stamps, reader);
  release_kernel_behind();
  if (reader.done) return stamps.set(7);
  const Row<T> row(a, number, 0, 1);
  const bool few = found.candidates <= Tail<W>::kFew && found.wanted > 0 && found.wanted == row.k;
  if (few && thread < kWeighing * kWarp) weigh_few<T, W, B>(false, found.candidates, a.softcap);
  stamps.set(4);
  merge(block, found.candidates, found.wanted, sorted, stamps);
  block_barrier();
  stamps.set(5);
  const u32 k = tail.left;
  if (wants_raw(a)) {
    prepare_logprobs<T, W, B>(a, number);
    block_barrier();
  }
  if (k == 0 && row.length > 0 && tail.valid && !tail.steps) {
    const bool more = a.logprobs || a.top_ids;  // which are in memory that both share
    if (a.kept && thread == 0) a.kept_count[number] = -1;
    if (!more && draw_whole_alone<T>(block_shared<B>().whole, a, number)) return;
    if (!more) block_barrier();
    draw_from_all<T>(block, a, number);
    answer_whole<T, W, B>(tail, a, number, row.k);
  } else {
    draw_tokens<T>(block, tail, a, number, k, row.k, few, stamps);
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
