// What the kernels ask of the machine: one wrapper for each instruction. Nothing
// else in this folder holds inline PTX, so that another machine can take the
// place of this header (shim/machine.h runs the same kernels on a CPU).
#pragma once

#ifdef AIKF_SHIM
#include "shim/machine.h"
#else

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

#define DEVICE __device__ __forceinline__

// A kernel of so many threads a block, of which an SM should hold so many.
#define KERNEL(name, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ SelectArguments arguments)

// A variable in the shared memory of the block.
#define SHARED(type, name) __shared__ type name

constexpr u32 kWarp = 32;
constexpr u32 kAllLanes = 0xffffffffu;

struct Vector {  // 16 bytes, what one load takes
  u32 word[4];
};

DEVICE u32 thread_index() { return threadIdx.x; }
DEVICE u32 block_index() { return blockIdx.x; }

// Loads through the read-only path; the row may stay in L1 for a second look.
DEVICE Vector load_vector(const void* from) {
  Vector v;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(from));
  return v;
}

DEVICE void block_barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }

// All lanes of the warp take part in these.
DEVICE u32 ballot(bool p) { return __ballot_sync(kAllLanes, p); }
DEVICE u32 shuffle(u32 v, u32 lane) { return __shfl_sync(kAllLanes, v, lane); }
DEVICE u32 shuffle_xor(u32 v, u32 mask) { return __shfl_xor_sync(kAllLanes, v, mask); }
DEVICE u64 shuffle_xor(u64 v, u32 mask) { return __shfl_xor_sync(kAllLanes, v, mask); }
DEVICE u32 shuffle_up(u32 v, u32 lanes) { return __shfl_up_sync(kAllLanes, v, lanes); }
DEVICE u32 warp_sum(u32 v) { return __reduce_add_sync(kAllLanes, v); }
DEVICE u32 warp_max(u32 v) { return __reduce_max_sync(kAllLanes, v); }

DEVICE u32 population(u32 v) { return __popc(v); }
DEVICE u32 lowest_bit(u32 v) { return __ffs(v) - 1; }
DEVICE u32 atomic_add(u32* at, u32 v) { return atomicAdd(at, v); }

// Maxima that are NaN if either operand is.
DEVICE u32 max_bf16x2(u32 a, u32 b) {
  u32 r;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE u32 max_f16x2(u32 a, u32 b) {
  u32 r;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE u32 max_f32(u32 a, u32 b) {
  u32 r;
  asm("{.reg .f32 x, y, z; mov.b32 x, %1; mov.b32 y, %2; max.NaN.f32 z, x, y; mov.b32 %0, z;}" : "=r"(r) : "r"(a), "r"(b));
  return r;
}

// Approximations, for guesses only.
DEVICE float approximate_log2(float x) {
  float r;
  asm("lg2.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float approximate_exp2(float x) {
  float r;
  asm("ex2.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// Programmatic dependent launch: wait until the kernel before has written its
// memory; let the kernel behind start. Without that launch attribute neither
// does anything.
DEVICE void wait_for_kernel_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void release_kernel_behind() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Cycles of this SM.
DEVICE u64 clock_cycles() {
  u64 r;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(r)::"memory");
  return r;
}

#if __CUDA_ARCH__ >= 900
// A cluster of blocks, which see each other's shared memory.
DEVICE u32 cluster_rank() {
  u32 r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
DEVICE u32 cluster_blocks() {
  u32 r;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
  return r;
}
DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
// The same variable in the shared memory of another block of the cluster.
template <class T>
DEVICE T* in_block(T* variable, u32 rank) {
  u64 r;
  asm("mapa.u64 %0, %1, %2;" : "=l"(r) : "l"(variable), "r"(rank));
  return reinterpret_cast<T*>(r);
}
#endif

#endif  // AIKF_SHIM
