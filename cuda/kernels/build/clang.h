// What NVRTC knows by itself and clang without a CUDA SDK does not: just the
// names that ptx.cuh uses, by the builtins that they stand for.
#pragma once

#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#define __grid_constant__  // a promise for the optimiser, which clang 19 does not know
#include <__clang_cuda_builtin_vars.h>

#define __syncwarp() __nvvm_bar_warp_sync(-1)
#define __ballot_sync(mask, p) (unsigned)__nvvm_vote_ballot_sync(mask, p)
#define __reduce_add_sync(mask, v) __nvvm_redux_sync_add(v, mask)
#define __reduce_max_sync(mask, v) __nvvm_redux_sync_umax(v, mask)
#define __popc(v) __builtin_popcount(v)
#define __ffs(v) __builtin_ffs(v)
#define __clz(v) ((v) ? __builtin_clz(v) : 32)
#define __uint_as_float(v) __builtin_bit_cast(float, v)
#define __longlong_as_double(v) __builtin_bit_cast(double, v)
#define __double_as_longlong(v) __builtin_bit_cast(long long, v)
#define __dsqrt_rn(v) __nvvm_sqrt_rn_d(v)
#define __fmaf_rn(a, b, c) __builtin_fmaf(a, b, c)
#define __fma_rn(a, b, c) __builtin_fma(a, b, c)
#define __float_as_uint(v) __builtin_bit_cast(unsigned, v)
#define __float2int_rn(v) __nvvm_f2i_rn(v)
#define __umul64hi(a, b) __nvvm_mulhi_ull(a, b)
#define __cvta_generic_to_shared(at) (unsigned long long)(__attribute__((address_space(3))) void*)(at)

__device__ __forceinline__ unsigned __shfl_sync(unsigned mask, unsigned v, unsigned lane) { return __nvvm_shfl_sync_idx_i32(mask, v, lane, 31); }
__device__ __forceinline__ unsigned __shfl_up_sync(unsigned mask, unsigned v, unsigned lanes) { return __nvvm_shfl_sync_up_i32(mask, v, lanes, 0); }
__device__ __forceinline__ unsigned __shfl_xor_sync(unsigned mask, unsigned v, unsigned lanes) { return __nvvm_shfl_sync_bfly_i32(mask, v, lanes, 31); }
__device__ __forceinline__ unsigned long long __shfl_xor_sync(unsigned mask, unsigned long long v, unsigned lanes) {
  unsigned low = v, high = v >> 32;
  return (unsigned long long)__shfl_xor_sync(mask, high, lanes) << 32 | __shfl_xor_sync(mask, low, lanes);
}
