// Proofs that a GPU obeys the law, and what a mass costs there.
//
// law_masses and law_draws: any grid of 256 threads. Item i of stride, the number
// of items, belongs to thread i modulo the number of threads, rows * 256. Each
// thread writes the sum of its items' hashes to values, [rows * 256] of 64 bits;
// the sum of these is that of law.HashMasses from surprise 0 on, or that of
// law.HashDraws from draw 0 on.
//
// law_cost: any grid of 256 threads. logits is [256] float32. Each thread weighs
// its logit k times (a multiple of 512), each time beside a larger maximum, and adds
// the masses. values[2 * b] becomes the cycles that block b took and
// values[2 * b + 1] the last sum of its first thread, both of 64 bits. With 8
// blocks on an SM, cycles / (64 * k) is what an SM takes to weigh 32 logits.
#include "arguments.h"
#include "law.cuh"

namespace law {

constexpr u32 kThreads = 256;
constexpr u64 kGolden = 0x9e3779b97f4a7c15;

DEVICE u64 mix(u64 x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

template <class Item>
DEVICE void hash_items(const SelectArguments& arguments, Item item) {
  const u64 thread = (u64)block_index() * kThreads + thread_index(), threads = (u64)arguments.rows * kThreads;
  u64 hash = 0;
  for (u64 i = thread; i < (u64)arguments.stride; i += threads) hash += item(i);
  static_cast<u64*>(arguments.values)[thread] = hash;
}

DEVICE void cost(const SelectArguments& arguments) {
  const float logit = static_cast<const float*>(arguments.logits)[thread_index()];
  const float scale = 0x1.715476p+22f;
  u64 total = 0;
  block_barrier();
  const u64 start = clock_cycles();
  for (int done = 0; done < arguments.k; done += 512) {
    Masses masses;
    float max = logit;
#pragma unroll 8
    for (int i = 0; i < 512; i++) {
      masses.add(weight(surprise(logit, max, scale)));
      max += 0x1p-5f;
    }
    total += masses.sum();
  }
  block_barrier();
  const u64 cycles = clock_cycles() - start;
  u64* out = static_cast<u64*>(arguments.values) + 2 * block_index();
  if (thread_index() == 0) out[0] = cycles;
  if (thread_index() == 0 || total == 0) out[1] = total;  // so that none is left out
}

}  // namespace law

KERNEL(law_masses, 256, 4) {
  law::hash_items(arguments, [](u64 i) { return law::mix(law::mass(-(int)i) + i * law::kGolden); });
}
KERNEL(law_draws, 256, 4) {
  law::hash_items(arguments, [](u64 i) {
    const u64 seed = law::mix(i);
    const u64 total = (law::mix(seed) >> 2) + 1;
    return law::mix(law::target(law::uniform(seed, i, (u32)(seed >> 7), (u32)(i % 4) + 1), total) + i * law::kGolden);
  });
}
KERNEL(law_cost, 256, 8) { law::cost(arguments); }
