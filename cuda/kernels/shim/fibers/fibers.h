// What the CPU's stand-in for a GPU (machine.h) asks of the fibers: where a
// thread is, and the points at which threads meet.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace shim {

// Where the running thread is.
struct Here {
  uint32_t thread;  // in its block
  uint32_t block;   // in the grid
  uint32_t rank;    // of the block in its cluster
  uint32_t blocks;  // in the cluster
};

// One block, or one cluster, runs at a time in a thread of the operating system.
#ifdef __GLIBC__
extern __thread Here here __attribute__((tls_model("initial-exec")));
#else
extern __thread Here here;
#endif

enum class Operation : uint8_t {
  none,
  ballot,
  shuffle,
  shuffle_xor,
  shuffle_up,
  shuffle_down,
  warp_sum,
  warp_max,
  warp_min,
  warp_or,
  warp_barrier,
  block_barrier,
  cluster_arrive,
  cluster_wait,
};

// A call in a kernel's source.
struct Place {
  Operation operation;
  int line;
  const char* file;
};

// Waits for the other threads of the warp, block or cluster and returns what the
// operation gives this lane.
uint64_t meet(Place place, uint64_t value = 0, uint32_t argument = 0);

// Lets another lane of the warp go first, at times: atomics come in any order.
void maybe_wait();

// Ends the launch with an error.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A SHARED variable of the source. Blocks have their own copies, all at the same
// offset.
struct Site {
  uint32_t bytes, alignment;
  std::atomic<uint32_t> offset;  // 0: not yet used
};

// The running block's copy; before its first use it holds poison.
void* shared_memory(Site& site);
// The copy of another block of the cluster.
void* in_block(void* variable, uint32_t rank);

// A kernel of the library, which finds it by its symbol.
struct Kernel {
  const char* symbol;
  uint32_t threads;  // at most, a block
  size_t argument_bytes;
  void (*body)(const void* arguments);
  Kernel* next;

  Kernel(const char* symbol, uint32_t threads, size_t argument_bytes, void (*body)(const void*));
};

}  // namespace shim

extern "C" {

enum AikfShimStatus {
  AIKF_SHIM_DONE = 0,
  AIKF_SHIM_UNKNOWN_SYMBOL = 1,
  AIKF_SHIM_BAD_LAUNCH = 2,  // a grid, block or cluster that the kernel cannot have
  AIKF_SHIM_FAULT = 3,       // the kernel broke a rule of the machine
};

// Runs a kernel to its end: grid blocks of so many threads, clusters of so many
// blocks (0 is 1). The arguments are copied. Safe from several threads at once.
int aikf_shim_launch(const char* symbol, unsigned grid, unsigned block, unsigned cluster, const void* arguments);

// Why the last launch of this thread failed; "" if it did not.
const char* aikf_shim_error(void);

// The next launch of this thread orders its threads by this seed; without it,
// launches take 1, 2, 3 and so on. The seed stands in the error of a launch.
void aikf_shim_seed(unsigned long long seed);

// The symbol of the i-th kernel of the library, and null behind the last.
const char* aikf_shim_symbol(unsigned i);
}
