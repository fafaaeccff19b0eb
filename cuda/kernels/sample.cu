// Sampling kernels.
//
// plan       grid            what
// block      rows            one block a row: the k best of it, truncations and draws in one launch
#include "tail.cuh"
#include "whole.cuh"

// What the threads share for a row of which the best are selected, or for one without a
// top-k.
template <class W>
union Shared {
  struct {
    Block<W, kThreads, kRoom> block;
    Tail<W> tail;
  };
  Whole whole;
};

// Before they read the row, some warps settle what does not depend on it, and others go through
// the code behind the selection with nothing to do: its instructions, which come slower than
// they are executed, are there then when they count.
template <class T, class W, class B>
DEVICE void prepare(Tail<W>& tail, const SampleArguments& a, u32 number) {
  const u32 last = B::kWarps - 1 - thread_index() / kWarp;
  if (last == 0) return tail.settle(a, number);
  if (last == 1) return tail.prepare_numbers(a, number);
  if (!a.row_temperature && a.temperature < a.greedy_below) return;
  if (a.k <= (int)Tail<W>::kFew || a.row_top_k) {
    if (last == 2) {
      weigh_few<T, W, B>(false, 0, a.softcap);
    } else if (last == 3) {
      draw_few<W>(a, number, 0, 0.9f, false, 1, true);
    } else if (last == 4) {
      list_by_id<W>(1, 0, 1);
    }
  } else if (last == 2) {
    weigh_many<T, W, B>(0, a.softcap, false);
  } else if (last == 3) {
    cut_many<W, B>(0, 0, true);
    Bins<W, B>::add(0, 0);
  } else if (last == 4) {
    Bins<W, B>::find(0);
  } else if (last == 5) {
    Bins<W, B>::collect(0, 0, 0);
    Bins<W, B>::find_listed(0, 0);
  }
}

template <class T, class W, bool kStamps = false>
DEVICE void sample_row(const SampleArguments& a) {
  using B = Block<W, kThreads, kRoom>;
  B& block = the_block<B>();
  Tail<W>& tail = block_tail<W>();
  const Stamps<kStamps> stamps(a);
  block.clear();
  wait_for_kernel_before();
  const u32 number = block_index(), thread = thread_index();
  prepare<T, W, B>(tail, a, number);
  if (wants_raw(a)) add_exponentials<T, W, B>(a, number);
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
    prepare_logprobs<T, W, B>(tail, a, number);
    block_barrier();
  }
  if (k == 0 && row.length > 0 && tail.valid && !tail.steps) {
    const bool more = a.logprobs || a.top_ids;  // which are in memory that both share
    if (a.kept && thread == 0) a.kept_count[number] = -1;
    if (!more && draw_whole_alone<T>(block_shared<W>().whole, a, number)) return;
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
