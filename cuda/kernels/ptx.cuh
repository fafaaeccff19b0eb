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
// Code that few rows need: kept out of the way of what all execute, because a
// block fetches its instructions anew at each launch.
#define DEVICE_APART __device__ __noinline__

// A kernel of so many threads a block, of which an SM should hold so many, and the
// type of its argument.
#define KERNEL_OF(type, name, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ type arguments)
#define KERNEL(name, threads, blocks) KERNEL_OF(SelectArguments, name, threads, blocks)

// A variable in the shared memory of the block.
#define SHARED(type, name) __shared__ type name

constexpr u32 kWarp = 32;
constexpr u32 kAllLanes = 0xffffffffu;

struct Vector {  // 16 bytes, what one load takes
  u32 word[4];
};

DEVICE constexpr u32 larger(u32 a, u32 b) { return a > b ? a : b; }
DEVICE constexpr u32 smaller(u32 a, u32 b) { return a < b ? a : b; }

// Read anew at each call: the compiler would keep it from the start, and in local memory while all
// registers hold logits.
DEVICE u32 thread_index() {
  u32 r;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(r));
  return r;
}
DEVICE u32 block_index() {
  u32 r;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(r));
  return r;
}

// Blocks of the launch: for hints alone.
DEVICE u32 grid_blocks() {
  u32 r;
  asm("mov.u32 %0, %%nctaid.x;" : "=r"(r));
  return r;
}

// Loads through the read-only path; the row may stay in L1 for a second look.
DEVICE Vector load_vector(const void* from) {
  Vector v;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(from));
  return v;
}

// The same address, which the compiler then keeps: for several loads from there it
// would rather compute it anew for each.
template <class V>
DEVICE const V* kept(const V* at) {
  asm volatile("" : "+l"(at));
  return at;
}
// The same word, of which the compiler then knows nothing: what is made of it is made here, and not kept
// from before.
template <class V>
DEVICE V kept(V v) {
  asm volatile("" : "+r"(v));
  return v;
}

// Asks for 4 or 8 bytes to be copied to shared memory; there when this thread has waited
// for its copies, for others behind a barrier.
template <u32 kBytes>
DEVICE void copy_later(void* shared, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"((u32)__cvta_generic_to_shared(shared)), "l"(from), "n"(kBytes) : "memory");
}
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Waits for what eight loads bring.
DEVICE void all_loaded(u32 (&v)[8]) {
  asm volatile("" : "+r"(v[0]), "+r"(v[1]), "+r"(v[2]), "+r"(v[3]), "+r"(v[4]), "+r"(v[5]), "+r"(v[6]), "+r"(v[7]));
}

// Asks for a line of 128 bytes to be brought to L1.
DEVICE void prefetch_line(const void* from) { asm volatile("prefetch.global.L1 [%0];" ::"l"(from)); }

DEVICE void block_barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }
// For the first threads of a block alone, while others may be at something else.
template <u32 kThreads>
DEVICE void barrier_of_first() { asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory"); }
// For a warp that returns next: what it wrote is seen behind the next barrier of the others.
DEVICE void leave_block() { __syncthreads(); }

// All lanes of the warp take part in these.
DEVICE u32 ballot(bool p) { return __ballot_sync(kAllLanes, p); }
DEVICE u32 shuffle(u32 v, u32 lane) { return __shfl_sync(kAllLanes, v, lane); }
DEVICE u32 shuffle_xor(u32 v, u32 mask) { return __shfl_xor_sync(kAllLanes, v, mask); }
DEVICE u64 shuffle_xor(u64 v, u32 mask) { return __shfl_xor_sync(kAllLanes, v, mask); }
DEVICE u32 shuffle_up(u32 v, u32 lanes) { return __shfl_up_sync(kAllLanes, v, lanes); }
DEVICE u32 warp_sum(u32 v) { return __reduce_add_sync(kAllLanes, v); }
DEVICE u32 warp_max(u32 v) { return __reduce_max_sync(kAllLanes, v); }

// count + (a >= b): a subtraction and the addition of its carry.
DEVICE u32 count_at_least(u32 count, u32 a, u32 b) {
  asm("{.reg .u32 t; sub.cc.u32 t, %1, %2; addc.u32 %0, %0, 0;}" : "+r"(count) : "r"(a), "r"(b));
  return count;
}
DEVICE u32 count_at_least(u32 count, u64 a, u64 b) {
  asm("{.reg .u64 t; sub.cc.u64 t, %1, %2; addc.u32 %0, %0, 0;}" : "+r"(count) : "l"(a), "l"(b));
  return count;
}
DEVICE u32 count_at_least(u32 count, unsigned long a, unsigned long b) {
  asm("{.reg .u64 t; sub.cc.u64 t, %1, %2; addc.u32 %0, %0, 0;}" : "+r"(count) : "l"(a), "l"(b));
  return count;
}

DEVICE u32 population(u32 v) { return __popc(v); }
DEVICE u32 lowest_bit(u32 v) { return 31 - __clz(v & (0 - v)); }  // without the reversal of bits that __ffs takes
DEVICE u32 leading_zeros(u32 v) { return __clz(v); }
// The number of this lane, of which the compiler knows nothing. Lanes that add the same value to one variable
// are joined by it with a vote, a sum and a shuffle, even a single one; with this added, 0 of the first
// lane, they are not.
DEVICE u32 unknown_lane() {
  u32 r;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(r));
  return r;
}
// On a variable in the shared memory of the block. Not atomicAdd, of which lanes are joined in any case.
DEVICE u32 atomic_add(u32* at, u32 v) {
  u32 before;
  asm volatile("atom.shared.add.u32 %0, [%1], %2;" : "=r"(before) : "r"((u32)__cvta_generic_to_shared(at)), "r"(v) : "memory");
  return before;
}
// The same without the value before.
DEVICE void atomic_add_only(u32* at, u32 v) {
  asm volatile("red.shared.add.u32 [%0], %1;" ::"r"((u32)__cvta_generic_to_shared(at)), "r"(v) : "memory");
}

DEVICE void atomic_and_only(u32* at, u32 v) {
  asm volatile("red.shared.and.b32 [%0], %1;" ::"r"((u32)__cvta_generic_to_shared(at)), "r"(v) : "memory");
}
DEVICE void atomic_or_only(u32* at, u32 v) {
  asm volatile("red.shared.or.b32 [%0], %1;" ::"r"((u32)__cvta_generic_to_shared(at)), "r"(v) : "memory");
}

// The larger of each pair, NaN if either is; the smaller of each, NaN only if both
// are. Of two zeros +0 is the larger.
DEVICE u32 max_bf16x2(u32 a, u32 b) {
  u32 r;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE u32 min_bf16x2(u32 a, u32 b) {
  u32 r;
  asm("min.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE u32 max_f16x2(u32 a, u32 b) {
  u32 r;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE u32 min_f16x2(u32 a, u32 b) {
  u32 r;
  asm("min.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE u32 max_f32(u32 a, u32 b) {
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(__uint_as_float(a)), "f"(__uint_as_float(b)));
  return __float_as_uint(r);
}
DEVICE u32 min_f32(u32 a, u32 b) {
  float r;
  asm("min.f32 %0, %1, %2;" : "=f"(r) : "f"(__uint_as_float(a)), "f"(__uint_as_float(b)));
  return __float_as_uint(r);
}

// The smaller of each pair of 16-bit integers.
DEVICE u32 min_u16x2(u32 a, u32 b) {
#if __CUDA_ARCH__ >= 900
  u32 r;
  asm("min.u16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
#else
  const u32 low = (a & 0xffff) < (b & 0xffff) ? a & 0xffff : b & 0xffff;
  return a >> 16 < b >> 16 ? (a & 0xffff0000) | low : (b & 0xffff0000) | low;
#endif
}

DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 as_bits(float x) { return __float_as_uint(x); }
DEVICE double as_double(u64 bits) { return __longlong_as_double((i64)bits); }
DEVICE u64 as_bits(double x) { return (u64)__double_as_longlong(x); }
// The value of a float16.
DEVICE float half_as_float(u32 bits) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"((u16)bits));
  return r;
}
// The nearest integer, the even one of two; of NaN it is 0.
DEVICE int nearest_integer(float x) { return __float2int_rn(x); }
// The upper half of a product.
DEVICE u64 multiply_high(u64 a, u64 b) { return __umul64hi(a, b); }

// Rounded once.
DEVICE double square_root(double x) { return __dsqrt_rn(x); }
DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }

// Approximations: of guesses, and of sums that no token depends on.
DEVICE float approximate_log2(float x) {
  float r;
  asm("lg2.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float approximate_exp2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
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

// On a variable in global memory, from any block of the grid. What a block wrote before it
// adds is seen by those that add behind it.
DEVICE void device_max(u32* at, u32 v) { asm volatile("red.relaxed.gpu.global.max.u32 [%0], %1;" ::"l"(at), "r"(v) : "memory"); }
DEVICE u32 device_add(u32* at, u32 v) {
  u32 before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(v) : "memory");
  return before;
}
DEVICE u32 device_exchange(u32* at, u32 v) {
  u32 before;
  asm volatile("atom.relaxed.gpu.global.exch.b32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(v) : "memory");
  return before;
}

// Cycles of this SM.
DEVICE u64 clock_cycles() {
  u64 r;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(r)::"memory");
  return r;
}

#if __CUDA_ARCH__ >= 900
// A cluster of blocks, which see each other's shared memory. Between an arrival and
// the wait for the others a block may do what does not concern them.
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
// The first arrival of all: nothing was written that others read, but signals were started.
DEVICE void cluster_arrive_first() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }

// A signal is for messages to variables of a block: when as many bytes have come as are expected, they are there for those that wait.
// It serves once. Others may send when they have waited for the first arrival of its block, which tells them that it was
// started; what is expected may be said later.
DEVICE void start_signal(u64* signal) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"((u32)__cvta_generic_to_shared(signal)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
DEVICE void expect(u64* signal, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"((u32)__cvta_generic_to_shared(signal)), "r"(bytes) : "memory");
}
// Sends a number to a variable of another block of the cluster, and to the signal for it there.
template <class V>
DEVICE void send(V* to, V v, u64* signal, u32 rank) {
  u32 there, signal_there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"((u32)__cvta_generic_to_shared(to)), "r"(rank));
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(signal_there) : "r"((u32)__cvta_generic_to_shared(signal)), "r"(rank));
  if (sizeof(V) == 8) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(there), "l"((u64)v), "r"(signal_there) : "memory");
  } else {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(there), "r"((u32)v), "r"(signal_there) : "memory");
  }
}
// For a whole warp.
DEVICE void wait_for_signal(u64* signal) {
  u32 there;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64 p, [%1], 0;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(there)
        : "r"((u32)__cvta_generic_to_shared(signal))
        : "memory");
  } while (!there);
  // Of shared memory alone, and so of no cost: an acquisition of all memory forgets what L1 has.
  asm volatile("fence.acquire.sync_restrict::shared::cluster.cluster;" ::: "memory");
}

// The same variable in the shared memory of another block of the cluster.
template <class T>
DEVICE T* in_block(T* variable, u32 rank) {
  u64 r;
  asm("mapa.u64 %0, %1, %2;" : "=l"(r) : "l"(variable), "r"(rank));
  return reinterpret_cast<T*>(r);
}
// On a variable in the shared memory of any block of the cluster.
DEVICE u32 cluster_atomic_add(u32* at, u32 v) {
  u32 before;
  asm volatile("atom.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(v) : "memory");
  return before;
}
#endif

#endif  // AIKF_SHIM
