// The machine of ptx.cuh on a CPU: the same names, for the same kernels, run by
// fibers/fibers.cc. What an operation means stands in ptx.cuh and in the PTX ISA
// 8.7; what breaks its rules ends the launch with a fault.
#pragma once

#include <chrono>
#include <cmath>
#include <cstring>

#include "fibers/fibers.h"

// The kernels use what sm_90 has.
#define __CUDA_ARCH__ 900

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

// Always inline, as on the device: functions of two sources may share a name.
#define DEVICE inline __attribute__((always_inline))
#define DEVICE_APART inline __attribute__((noinline))

#define KERNEL_OF(type, name, threads, blocks) SHIM_KERNEL(type, name, threads)
#define KERNEL(name, threads, blocks) KERNEL_OF(SelectArguments, name, threads, blocks)
#define SHIM_KERNEL(type, name, threads)                                                                                             \
  static void name##_body(const type& arguments);                                                                                    \
  static shim::Kernel name##_kernel(#name, threads, sizeof(type), [](const void* at) { name##_body(*static_cast<const type*>(at)); }); \
  static void name##_body([[maybe_unused]] const type& arguments)

// The name is a reference to the running block's copy; an array needs a name for
// its type.
#define SHARED(type, name)                                                        \
  static shim::Site name##_site = {sizeof(type), alignof(type), {0}};             \
  type& name = *static_cast<type*>(shim::shared_memory(name##_site))

constexpr u32 kWarp = 32;
constexpr u32 kAllLanes = 0xffffffffu;

struct Vector {
  u32 word[4];
};

DEVICE constexpr u32 larger(u32 a, u32 b) { return a > b ? a : b; }
DEVICE constexpr u32 smaller(u32 a, u32 b) { return a < b ? a : b; }

DEVICE u32 thread_index() { return shim::here.thread; }
DEVICE u32 block_index() { return shim::here.block; }
DEVICE u32 grid_blocks() { return 1; }  // for hints alone

DEVICE Vector load_vector(const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(Vector) != 0) shim::fault("load_vector of %p, which is not aligned to 16 bytes", from);
  Vector v;
  memcpy(&v, from, sizeof v);
  return v;
}

template <class V>
DEVICE V kept(V v) {
  return v;
}
DEVICE void all_loaded(u32 (&)[8]) {}

template <u32 kBytes>
DEVICE void copy_later(void* shared, const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % kBytes != 0) shim::fault("copy_later from %p, which is not aligned to %u bytes", from, kBytes);
  memcpy(shared, from, kBytes);
}
DEVICE void wait_for_copies() {}

// There is no cache to bring a line to, but its first vector must be there.

// A meeting tells where in the kernel it stands.
#define SHIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SHIM_PLACE(operation) \
  shim::Place { shim::Operation::operation, line, file }

DEVICE void prefetch_line(const void* from) { load_vector(from); }
DEVICE void block_barrier(SHIM_HERE) { shim::meet(SHIM_PLACE(block_barrier)); }
// The others are waited for, until they have ended: the scheduler knows of no threads that a barrier is not for.
template <u32 kThreads>
DEVICE void barrier_of_first(SHIM_HERE) { shim::meet(SHIM_PLACE(block_barrier)); }
DEVICE void leave_block() {}  // a warp that has ended is not waited for
DEVICE void warp_barrier(SHIM_HERE) { shim::meet(SHIM_PLACE(warp_barrier)); }

DEVICE u32 ballot(bool p, SHIM_HERE) { return u32(shim::meet(SHIM_PLACE(ballot), p)); }
DEVICE u32 shuffle(u32 v, u32 lane, SHIM_HERE) { return u32(shim::meet(SHIM_PLACE(shuffle), v, lane)); }
DEVICE u32 shuffle_xor(u32 v, u32 mask, SHIM_HERE) { return u32(shim::meet(SHIM_PLACE(shuffle_xor), v, mask)); }
DEVICE u64 shuffle_xor(u64 v, u32 mask, SHIM_HERE) { return shim::meet(SHIM_PLACE(shuffle_xor), v, mask); }
DEVICE u32 shuffle_up(u32 v, u32 lanes, SHIM_HERE) { return u32(shim::meet(SHIM_PLACE(shuffle_up), v, lanes)); }
DEVICE u32 warp_sum(u32 v, SHIM_HERE) { return u32(shim::meet(SHIM_PLACE(warp_sum), v)); }
DEVICE u32 warp_max(u32 v, SHIM_HERE) { return u32(shim::meet(SHIM_PLACE(warp_max), v)); }

DEVICE u32 population(u32 v) { return u32(__builtin_popcount(v)); }
DEVICE u32 lowest_bit(u32 v) { return u32(__builtin_ffs(int(v))) - 1; }
DEVICE u32 leading_zeros(u32 v) { return v ? u32(__builtin_clz(v)) : 32; }
DEVICE u32 count_at_least(u32 count, u32 a, u32 b) { return count + (a >= b); }
DEVICE u32 count_at_least(u32 count, u64 a, u64 b) { return count + (a >= b); }
DEVICE u32 count_at_least(u32 count, unsigned long a, unsigned long b) { return count + (a >= b); }
DEVICE u32 unknown_lane() { return thread_index() % kWarp; }
DEVICE u32 atomic_add(u32* at, u32 v) {
  shim::maybe_wait();
  const u32 before = *at;
  *at = before + v;
  return before;
}
DEVICE void atomic_add_only(u32* at, u32 v) { atomic_add(at, v); }
DEVICE void atomic_and_only(u32* at, u32 v) {
  shim::maybe_wait();
  *at &= v;
}
DEVICE void atomic_or_only(u32* at, u32 v) {
  shim::maybe_wait();
  *at |= v;
}

namespace shim {

// The larger of two floats of sign and magnitude, by their bits: NaN, as
// nothing but ones below the sign, if either is; +0 is above -0.
template <u32 kSign, u32 kInfinity>
DEVICE u32 maximum(u32 a, u32 b) {
  constexpr u32 kMagnitude = kSign - 1;
  if ((a & kMagnitude) > kInfinity || (b & kMagnitude) > kInfinity) return kMagnitude;
  const u32 rank_a = a & kSign ? kMagnitude - (a & kMagnitude) : a | kSign;
  const u32 rank_b = b & kSign ? kMagnitude - (b & kMagnitude) : b | kSign;
  return rank_a >= rank_b ? a : b;
}

// The smaller of two, NaN only if both are.
template <u32 kSign, u32 kInfinity>
DEVICE u32 minimum(u32 a, u32 b) {
  constexpr u32 kMagnitude = kSign - 1;
  if ((a & kMagnitude) > kInfinity) return (b & kMagnitude) > kInfinity ? kMagnitude : b;
  if ((b & kMagnitude) > kInfinity) return a;
  return maximum<kSign, kInfinity>(a, b) == a ? b : a;
}

template <u32 kInfinity>
DEVICE u32 maximum_of_halves(u32 a, u32 b) {
  return maximum<0x8000, kInfinity>(a >> 16, b >> 16) << 16 | maximum<0x8000, kInfinity>(a & 0xffff, b & 0xffff);
}
template <u32 kInfinity>
DEVICE u32 minimum_of_halves(u32 a, u32 b) {
  return minimum<0x8000, kInfinity>(a >> 16, b >> 16) << 16 | minimum<0x8000, kInfinity>(a & 0xffff, b & 0xffff);
}

}  // namespace shim

DEVICE u32 max_bf16x2(u32 a, u32 b) { return shim::maximum_of_halves<0x7f80>(a, b); }
DEVICE u32 max_f16x2(u32 a, u32 b) { return shim::maximum_of_halves<0x7c00>(a, b); }
DEVICE u32 min_bf16x2(u32 a, u32 b) { return shim::minimum_of_halves<0x7f80>(a, b); }
DEVICE u32 min_f16x2(u32 a, u32 b) { return shim::minimum_of_halves<0x7c00>(a, b); }
DEVICE u32 min_f32(u32 a, u32 b) { return shim::minimum<0x80000000u, 0x7f800000u>(a, b); }
DEVICE u32 min_u16x2(u32 a, u32 b) { return smaller(a >> 16, b >> 16) << 16 | smaller(a & 0xffff, b & 0xffff); }
DEVICE u32 max_f32(u32 a, u32 b) { return shim::maximum<0x80000000u, 0x7f800000u>(a, b); }

DEVICE float as_float(u32 bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
DEVICE u32 as_bits(float x) {
  u32 bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
DEVICE double as_double(u64 bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
DEVICE u64 as_bits(double x) {
  u64 bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
DEVICE float half_as_float(u32 bits) {
  const u32 sign = (bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  return as_float(sign | as_bits(magnitude >= 0x7c00 ? as_float(0x7f800000 | magnitude << 13) : as_float(magnitude << 13) * 0x1p112f));
}
DEVICE int nearest_integer(float x) { return x == x ? int(std::nearbyint(x)) : 0; }
DEVICE u64 multiply_high(u64 a, u64 b) { return u64((unsigned __int128)a * b >> 64); }

DEVICE double square_root(double x) { return std::sqrt(x); }
DEVICE float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
DEVICE double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }

DEVICE float approximate_log2(float x) { return std::log2(x); }

// Up to two units in the last place more or less, as much as ex2.approx may be off: the bits of x say how much.
DEVICE float approximate_exp2(float x) {
  const double exact = std::exp2(double(x));
  if (!(exact >= 0x1p-126 && exact < 0x1p127)) return exact < 1 ? 0 : float(exact);
  u32 bits;
  memcpy(&bits, &x, sizeof bits);
  const int most = 3, units = int((bits * 0x9e3779b1u) >> 24) % (2 * most + 1) - most;  // halves of units; the rounding adds one
  return float(exact + units * std::ldexp(0.5, std::ilogb(exact) - 23));
}

// Launches follow one another here.
DEVICE void wait_for_kernel_before() {}
DEVICE void release_kernel_behind() {}

// Blocks of a launch follow one another here.
DEVICE void device_max(u32* at, u32 v) { *at = larger(*at, v); }
DEVICE u32 device_add(u32* at, u32 v) { return atomic_add(at, v); }
DEVICE u32 device_exchange(u32* at, u32 v) {
  const u32 before = *at;
  *at = v;
  return before;
}

DEVICE u64 clock_cycles() { return u64(std::chrono::steady_clock::now().time_since_epoch().count()); }

DEVICE u32 cluster_rank() { return shim::here.rank; }
DEVICE u32 cluster_blocks() { return shim::here.blocks; }
DEVICE void cluster_arrive(SHIM_HERE) { shim::meet(SHIM_PLACE(cluster_arrive)); }
DEVICE void cluster_wait(SHIM_HERE) { shim::meet(SHIM_PLACE(cluster_wait)); }
template <class T>
DEVICE T* in_block(T* variable, u32 rank) {
  return static_cast<T*>(shim::in_block(const_cast<void*>(static_cast<const volatile void*>(variable)), rank));
}
DEVICE u32 cluster_atomic_add(u32* at, u32 v) { return atomic_add(at, v); }
DEVICE void cluster_arrive_first(SHIM_HERE) { shim::meet(SHIM_PLACE(cluster_arrive)); }

// A signal is the number of bytes that have not come yet.
DEVICE void start_signal(u64* signal) { *signal = 0; }
DEVICE void expect(u64* signal, u32 bytes) { *signal += bytes; }
template <class V>
DEVICE void send(V* to, V v, u64* signal, u32 rank) {
  *in_block(to, rank) = v;
  *in_block(signal, rank) -= sizeof v;
}
// All warps of the cluster but those that settle wait for it.
DEVICE void wait_for_signal(u64* signal, SHIM_HERE) {
  shim::meet(SHIM_PLACE(cluster_arrive));
  shim::meet(SHIM_PLACE(cluster_wait));
  if (*signal != 0) shim::fault("a signal lacks %llu bytes", (unsigned long long)*signal);
}
