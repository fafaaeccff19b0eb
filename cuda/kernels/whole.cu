// Sampling kernels for rows without a top-k.
//
// plan       grid            what
// whole      rows            one block a row
// cluster    rows * chunks   a cluster of up to eight blocks a row
//
// workspace is [rows] 32-bit words, or null: that of a row becomes 1 if it is drawn by passes.
#include "whole.cuh"

#define WHOLE_KERNEL(dtype) \
  KERNEL_OF(SampleArguments, sample_##dtype##_whole, kThreads + kSettling, kBlocks) { sample_whole<dtype, Alone, false>(arguments); }
#define WHOLE_CLUSTER_KERNEL(dtype) \
  KERNEL_OF(SampleArguments, sample_##dtype##_whole_cluster, kThreads + kSettling, 1) { sample_whole<dtype, Cluster, false>(arguments); }

WHOLE_KERNEL(bf16)
WHOLE_KERNEL(f16)
WHOLE_KERNEL(f32)
#if defined(AIKF_SHIM) || __CUDA_ARCH__ >= 900
WHOLE_CLUSTER_KERNEL(bf16)
WHOLE_CLUSTER_KERNEL(f16)
WHOLE_CLUSTER_KERNEL(f32)
#endif
