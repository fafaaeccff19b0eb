// Instrumented builds of kernels, for profiles: the same code, and clock stamps of the phases of each block.
//
// plan       grid            what
// block      rows            select_row, for every dtype
//            rows            sample_row, sample_edited_row and sample_whole, for bfloat16
// cluster    rows * chunks   sample_whole in a cluster, for bfloat16
//
// workspace is [blocks, 8] stamps of 64 bits; see Stamps.
#include "edit.cuh"
#include "sample_row.cuh"
#include "select_row.cuh"

#define SELECT_PHASES(dtype, suffix, word) \
  KERNEL(phases_##dtype##_block##suffix, kThreads, kBlocks) { select_row<dtype, dtype##_smallest, word, true>(arguments); }

SELECT_PHASES(bf16, , u64)
SELECT_PHASES(f16, , u64)
SELECT_PHASES(f32, , u64)
SELECT_PHASES(bf16, _narrow, u32)
SELECT_PHASES(f16, _narrow, u32)
KERNEL_OF(SampleArguments, phases_sample_bf16_block_narrow, kThreads + kSettling, kBlocks) { sample_row<bf16, u32, true>(arguments); }
KERNEL_OF(SampleArguments, phases_sample_bf16_edited, kThreads + kSettling, 1) { sample_edited_row<bf16, true>(arguments); }
KERNEL_OF(SampleArguments, phases_sample_bf16_whole, kThreads + kSettling, kBlocks) { sample_whole<bf16, Alone, true>(arguments); }
#if defined(AIKF_SHIM) || __CUDA_ARCH__ >= 900
KERNEL_OF(SampleArguments, phases_sample_bf16_whole_cluster, kThreads + kSettling, 1) { sample_whole<bf16, Cluster, true>(arguments); }
#endif
