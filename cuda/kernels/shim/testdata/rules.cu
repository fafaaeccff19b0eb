// Small kernels that use every operation of ptx.cuh, and kernels that break a
// rule each. logits holds words, indices and values take words.
#include "arguments.h"
#include "ptx.cuh"

namespace {

using Words = u32[1024];

DEVICE const u32* in(const SelectArguments& a) { return static_cast<const u32*>(a.logits); }
DEVICE u32* out(const SelectArguments& a) { return static_cast<u32*>(a.indices); }

// Thread i writes word i and reads word 1023 - i, round after round.
template <bool kFirst, bool kSecond>
DEVICE void reverse(const SelectArguments& a) {
  SHARED(Words, words);
  u32 v = in(a)[thread_index()];
  for (int round = 0; round < 3; round++) {
    words[thread_index()] = v + round;
    if (kFirst) block_barrier();
    v = words[1023 - thread_index()];
    if (kSecond) block_barrier();
  }
  out(a)[thread_index()] = v;
}

// The same in each warp.
template <bool kBarrier>
DEVICE void reverse_warps(const SelectArguments& a) {
  SHARED(Words, words);
  words[thread_index()] = in(a)[thread_index()];
  if (kBarrier) warp_barrier();
  out(a)[thread_index()] = words[thread_index() ^ 31];
}

// Each block writes its word into the block behind it.
template <bool kStart, bool kEnd>
DEVICE void rotate(const SelectArguments& a) {
  SHARED(Words, words);
  words[thread_index()] = 0;
  if (kStart) {
    cluster_arrive();
    cluster_wait();
  }
  const u32 next = (cluster_rank() + 1) % cluster_blocks();
  in_block(&words, next)[0][thread_index()] = block_index() * 1024 + thread_index();
  cluster_arrive();
  if (kEnd) cluster_wait();
  out(a)[block_index() * 1024 + thread_index()] = words[thread_index()];
}

}  // namespace

// 16 words a thread.
KERNEL(operations, 1024, 1) {
  const u32 t = thread_index(), v = in(arguments)[t];
  u32* to = out(arguments) + 16 * (block_index() * 1024 + t);
  to[0] = ballot(v & 1);
  to[1] = shuffle(v, v >> 8);
  to[2] = shuffle_xor(v, 5);
  const u64 wide = shuffle_xor(u64(v) << 32 | t, 17);
  to[3] = u32(wide >> 32);
  to[4] = u32(wide);
  to[5] = shuffle_up(v, 3);
  to[6] = warp_sum(v);
  to[7] = warp_max(v);
  to[8] = population(v);
  to[9] = lowest_bit(v);
  to[10] = lowest_bit(0);
  const Vector four = load_vector(in(arguments) + t / 4 * 4);
  to[11] = four.word[t % 4];
  const u64 start = clock_cycles();
  SHARED(u32, count);
  if (t == 0) count = 0;
  wait_for_kernel_before();
  block_barrier();
  release_kernel_behind();
  to[12] = atomic_add(&count, 1);
  block_barrier();
  to[13] = count;
  to[14] = clock_cycles() >= start;
  to[15] = cluster_rank() * 100 + cluster_blocks();
}

// Maxima of word pairs: rows pairs, three words each.
KERNEL(maxima, 256, 1) {
  for (u32 i = thread_index(); i < u32(arguments.rows); i += 256) {
    const u32 a = in(arguments)[2 * i], b = in(arguments)[2 * i + 1];
    out(arguments)[3 * i] = max_bf16x2(a, b);
    out(arguments)[3 * i + 1] = max_f16x2(a, b);
    out(arguments)[3 * i + 2] = max_f32(a, b);
  }
}

KERNEL(approximations, 32, 1) {
  float x;
  memcpy(&x, in(arguments) + thread_index(), 4);
  const float results[] = {approximate_log2(x), approximate_exp2(x)};
  memcpy(out(arguments) + 2 * thread_index(), results, 8);
}

KERNEL(empty, 32, 1) {}

// What is in shared memory before anyone writes to it.
KERNEL(unwritten, 1024, 1) {
  SHARED(Words, words);
  out(arguments)[thread_index()] = words[thread_index()];
}

// The place of each thread in the order in which they come.
KERNEL(order, 1024, 1) {
  SHARED(u32, count);
  if (thread_index() == 0) count = 0;
  block_barrier();
  out(arguments)[block_index() * 1024 + thread_index()] = atomic_add(&count, 1);
}

// Threads that have ended do not count at the barrier of the block.
KERNEL(some_end, 1024, 1) {
  SHARED(Words, words);
  words[thread_index()] = thread_index();
  block_barrier();
  if (thread_index() % 3 == 0) return;
  block_barrier();
  out(arguments)[thread_index()] = words[1023 - thread_index()] + population(ballot(true));
}

KERNEL(reversed, 1024, 1) { reverse<true, true>(arguments); }
KERNEL(reversed_no_first_barrier, 1024, 1) { reverse<false, true>(arguments); }
KERNEL(reversed_no_second_barrier, 1024, 1) { reverse<true, false>(arguments); }
KERNEL(reversed_warps, 1024, 1) { reverse_warps<true>(arguments); }
KERNEL(reversed_warps_no_barrier, 1024, 1) { reverse_warps<false>(arguments); }
KERNEL(rotated, 1024, 1) { rotate<true, true>(arguments); }
KERNEL(rotated_no_start, 1024, 1) { rotate<false, true>(arguments); }
KERNEL(rotated_no_end, 1024, 1) { rotate<true, false>(arguments); }

KERNEL(diverged_ballot, 1024, 1) {
  if (thread_index() % 32 == 7) {
    ballot(true);
  } else {
    ballot(false);
  }
}
KERNEL(diverged_operation, 1024, 1) {
  if (thread_index() == 40) {
    warp_sum(1);
  } else {
    warp_barrier();
  }
}
KERNEL(half_a_warp_at_a_barrier, 1024, 1) {
  if (thread_index() % 32 < 16) block_barrier();
  ballot(true);
}
KERNEL(two_barriers, 1024, 1) {
  if (thread_index() < 32) {
    block_barrier();
  } else {
    block_barrier();
  }
}
KERNEL(ended_lanes_in_sum, 1024, 1) {
  if (thread_index() % 32 == 9) return;
  out(arguments)[thread_index()] = warp_sum(1);
}
KERNEL(deadlock, 1024, 1) {
  if (block_index() % 2 == 0 && thread_index() < 64) {
    cluster_arrive();
    cluster_wait();
  } else {
    block_barrier();
    cluster_arrive();
    cluster_wait();
  }
}
KERNEL(arrives_twice, 1024, 1) {
  cluster_arrive();
  cluster_arrive();
  cluster_wait();
}
KERNEL(waits_without_arriving, 1024, 1) { cluster_wait(); }
KERNEL(misaligned_load, 1024, 1) { out(arguments)[thread_index()] = load_vector(in(arguments) + 1 + 4 * thread_index()).word[0]; }
KERNEL(writes_past_a_variable, 1024, 1) {
  SHARED(Words, words);
  words[thread_index() + (thread_index() == 1023)] = 0;
}
KERNEL(writes_below_a_variable, 1024, 1) {
  SHARED(Words, words);
  (&words[0])[i64(thread_index()) - 1] = 0;
}
KERNEL(too_much_shared_memory, 1024, 1) {
  using Large = u32[48 << 8];
  SHARED(Large, large);
  SHARED(u32, more);
  large[thread_index()] = more = 0;
}
KERNEL(no_such_block, 1024, 1) {
  SHARED(u32, word);
  *in_block(&word, cluster_blocks()) = 1;
}
KERNEL(not_shared, 1024, 1) {
  u32 word = 0;
  *in_block(&word, 0) = 1;
}
// Only the block behind it waits for the write, and only the first is written to.
KERNEL(writes_to_an_ended_block, 1024, 1) {
  SHARED(Words, words);
  words[thread_index()] = 0;
  cluster_arrive();
  cluster_wait();
  if (cluster_rank() == 0) return;
  for (int i = 0; i < 20; i++) block_barrier();
  in_block(&words, 0)[0][thread_index()] = 1;
}
namespace {
__attribute__((noinline)) u32 recurse(u32 depth) {
  volatile char frame[100] = {};
  ballot(true);
  return depth == 0 ? frame[0] : recurse(depth - 1) + frame[depth % 100];
}
}  // namespace
KERNEL(deep, 1024, 1) { out(arguments)[thread_index()] = recurse(u32(arguments.k)); }
