// Sampling kernels.
//
// plan       grid            what
// block      rows            one block a row, and a warp that settles: the k best, truncations and draws in one launch
#include "sample_row.cuh"

#define SAMPLE_KERNEL(dtype, suffix, word) \
  KERNEL_OF(SampleArguments, sample_##dtype##_block##suffix, kThreads + kSettling, kBlocks) { sample_row<dtype, word>(arguments); }

SAMPLE_KERNEL(bf16, , u64)
SAMPLE_KERNEL(f16, , u64)
SAMPLE_KERNEL(f32, , u64)
SAMPLE_KERNEL(bf16, _narrow, u32)
SAMPLE_KERNEL(f16, _narrow, u32)
