// A GPU in one thread of the operating system: a fiber for each CUDA thread.
//
// A lane runs until it meets others: a warp operation, a barrier, its end. Then
// the next lane of the warp runs, in a random order; when all have stopped, the
// warp has met, and goes on, or another one does. So between two meetings every
// order of lanes and warps may come, and a missing barrier shows as a wrong
// answer. The seed decides the order.
//
// Reported as faults: lanes of a warp that meet at different places, a barrier
// that some never reach, a write past the end of a shared variable or into a
// block that has ended, more shared memory than a launch gets by default, and a
// stack overflow.
#include "fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "context.h"

#if defined(__x86_64__)
asm(R"(
.text
.globl aikf_shim_switch_stacks
aikf_shim_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl aikf_shim_switch_stacks
aikf_shim_switch_stacks:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#endif

namespace shim {

__thread Here here;

namespace {

constexpr uint32_t kWarpLanes = 32;
constexpr uint32_t kAll = 0xffffffffu;
constexpr uint32_t kBlockThreads = 1024;
constexpr uint32_t kClusterBlocks = 16;
constexpr size_t kGuard = 64 << 10;  // below all stacks: a page, of any system
// A switch touches the top of another stack and little else, so the TLB decides
// what it costs: stacks are small, and lie in huge pages where there are any.
#ifdef SHIM_ASAN
constexpr size_t kStackBytes = 64 << 10;
#else
constexpr size_t kStackBytes = 16 << 10;
#endif
// Room for stacks at different lines of a page: equal depths of all would
// otherwise share one set of the cache.
constexpr size_t kStackStride = kStackBytes + 4096;
constexpr size_t kStackMargin = 8 << 10;  // what this file itself may need
constexpr size_t kHugePage = 2 << 20;
constexpr size_t kArenaBytes = 16 << 20;  // the variables of all kernels of a library
constexpr size_t kRedzone = 64;           // between two shared variables
constexpr size_t kSharedBytes = 48 << 10; // what a launch gets by default
constexpr uint64_t kCanary = 0x5bd1e995a5c3d2f1;

const char* const kNames[] = {
    "nothing",  "ballot",       "shuffle",       "shuffle_xor",    "shuffle_up",   "warp_sum",
    "warp_max", "warp_barrier", "block_barrier", "cluster_arrive", "cluster_wait",
};

bool same(const Place& a, const Place& b) {
  return a.operation == b.operation && a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

std::string describe(const Place& place) {
  if (place.operation == Operation::none) return "not yet started";
  const char* slash = strrchr(place.file, '/');
  return std::string(kNames[int(place.operation)]) + " (" + (slash ? slash + 1 : place.file) + ":" + std::to_string(place.line) + ")";
}

// xorshift64*: G. Marsaglia, "Xorshift RNGs", doi:10.18637/jss.v008.i14.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(mix(seed)) {}
  uint32_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return uint32_t((state_ * 0x2545f4914f6cdd1dull) >> 32);
  }
  uint32_t below(uint32_t n) { return uint32_t((uint64_t(next()) * n) >> 32); }
  template <class T>
  void permute(T* of, uint32_t n) {
    for (uint32_t i = n; i > 1; i--) std::swap(of[i - 1], of[below(i)]);
  }

 private:
  static uint64_t mix(uint64_t z) {
    z += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) | 1;
  }
  uint64_t state_;
};

struct Block;

struct Warp {
  Context context[kWarpLanes];
  uint64_t value[kWarpLanes], result[kWarpLanes];
  uint32_t argument[kWarpLanes];
  Place place[kWarpLanes];  // where each lane stopped
  void* stack[kWarpLanes];
  Block* block;
  uint32_t first_thread;
  uint32_t live;  // lanes that have not ended
  uint8_t order[kWarpLanes];
  uint32_t pending, cursor;  // lanes of this round, and those that have run
  uint32_t stopped;          // lanes that have stopped in this round to meet others
  Place meeting;             // where the first of them stopped
  bool diverged;             // others stopped elsewhere
  bool arrived;              // at the cluster's barrier, and has not waited yet
  uint64_t phase;            // of the cluster's barrier, when the warp arrived
};

// A variable that a block has used.
struct Used {
  uint32_t offset, bytes;
};

struct Block {
  Block() {
    char* stacks = map(2 * kHugePage + kBlockThreads * kStackStride);
    stacks += 2 * kHugePage - reinterpret_cast<uintptr_t>(stacks) % kHugePage;
    mprotect(stacks - kGuard, kGuard, PROT_NONE);
#ifdef MADV_HUGEPAGE
    madvise(stacks, kBlockThreads * kStackStride, MADV_HUGEPAGE);
#endif
    arena = map(kArenaBytes);
    for (uint32_t i = 0; i < kBlockThreads; i++) {
      Warp& warp = warps[i / kWarpLanes];
      warp.stack[i % kWarpLanes] = stacks + i * kStackStride + i * 7 % 64 * 64;
    }
  }

  static char* map(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
      perror("aikf shim: mmap");
      abort();
    }
    return static_cast<char*>(at);
  }

  Warp warps[kBlockThreads / kWarpLanes];
  char* arena;
  std::vector<Used> used;
  size_t used_bytes;
  uint32_t index, rank, warp_count, live_warps, parked;
  Place barrier;  // where the first warp waits
  uint8_t poison;
};

// Tells the address sanitizer what surrounds a variable.
void fence([[maybe_unused]] const Block& block, [[maybe_unused]] const Used& used, [[maybe_unused]] bool closed) {
#ifdef SHIM_ASAN
  char* variable = block.arena + used.offset;
  (closed ? __asan_poison_memory_region : __asan_unpoison_memory_region)(variable - kRedzone, kRedzone);
  (closed ? __asan_poison_memory_region : __asan_unpoison_memory_region)(variable + used.bytes, kRedzone);
#endif
}

// Blocks that no launch uses at the moment; they are never unmapped.
std::mutex pool_mutex;
std::vector<Block*> pool;

Block* take_block() {
  std::lock_guard<std::mutex> lock(pool_mutex);
  if (pool.empty()) return new Block;
  Block* block = pool.back();
  pool.pop_back();
  return block;
}

void return_block(Block* block) {
  std::lock_guard<std::mutex> lock(pool_mutex);
  pool.push_back(block);
}

// All shared variables, by offset.
std::mutex sites_mutex;
std::map<uint32_t, uint32_t>& sites() {
  static std::map<uint32_t, uint32_t> offsets_and_bytes;
  return offsets_and_bytes;
}
uint32_t sites_end = kRedzone;

Kernel* kernels;
std::atomic<uint64_t> next_seed{1};
thread_local uint64_t given_seed;
thread_local bool seed_given;
thread_local std::string message;
thread_local uint64_t meetings;  // of the last launch

class Machine {
 public:
  Machine(const Kernel& kernel, const void* arguments, uint32_t threads, uint32_t cluster_blocks, uint64_t seed)
      : kernel_(kernel), arguments_(arguments), threads_(threads), random_(seed) {
    for (uint32_t i = 0; i < cluster_blocks; i++) blocks_.push_back(take_block());
    for (auto& permutation : permutations_) {
      for (uint32_t i = 0; i < kWarpLanes; i++) permutation[i] = i;
      random_.permute(permutation, kWarpLanes);
    }
    // A warp that has met goes on at once with this chance: of 0, 1/2, 7/8, 1.
    static const uint32_t chances[] = {0, 1u << 31, 7u << 29, kAll};
    keep_warp_ = chances[random_.below(4)];
  }

  ~Machine() {
    for (Block* block : blocks_) return_block(block);
  }

  uint64_t meetings() const { return meetings_; }

  // Runs one cluster to its end and reports whether it went well.
  bool run(uint32_t first_block);

  uint64_t meet(Place place, uint64_t value, uint32_t argument) {
    Warp& warp = *warp_;
    const uint32_t lane = lane_;
    warp.place[lane] = place;
    warp.value[lane] = value;
    warp.argument[lane] = argument;
    if (warp.stopped++ == 0) {
      warp.meeting = place;
    } else if (!same(warp.meeting, place)) {
      warp.diverged = true;
    }
    check_depth(warp, lane);
    if (place.operation >= Operation::block_barrier) check_canary(warp, lane);
    leave(warp, lane);
    return warp.result[lane];
  }

  void maybe_wait() {
    Warp& warp = *warp_;
    if (warp.cursor == warp.pending || random_.next() >= kAll / 8) return;
    // Changes places with a lane that has yet to run in this round.
    const uint32_t lane = lane_;
    uint8_t& place = warp.order[warp.cursor + random_.below(warp.pending - warp.cursor)];
    const uint32_t to = place;
    place = lane;
    enter(warp, to);
    warp.context[lane].switch_to(warp.context[to]);
  }

  // What a fiber does.
  void start() {
    Warp& warp = *warp_;
    const uint32_t lane = lane_;
    warp.context[lane].arrived();
    kernel_.body(arguments_);
    check_canary(warp, lane);
    warp.live &= ~(1u << lane);
    leave(warp, lane);
  }

  void* shared_memory(Site& site);
  void* in_block(void* variable, uint32_t rank);

  [[noreturn]] void fail(const std::string& why) {
    message = why;
    failed_ = true;
    warp_->context[lane_].switch_to(home_, true);
    __builtin_unreachable();
  }

 private:
  void prepare(Block& block, uint32_t index, uint32_t rank);
  void* use(Block& block, uint32_t offset, uint32_t bytes);
  void end_block(Block& block);
  void end_cluster();
  bool settle(Warp& warp);
  void exchange(Warp& warp);
  void complete_block_barrier(Block& block);
  void complete_cluster_barrier();
  void check_untouched(Block& block, const char* from, size_t bytes, const char* what);
  std::string waiting();

  void begin_round(Warp& warp) {
    const uint8_t* permutation = permutations_[random_.below(kPermutations)];
    uint32_t n = 0;
    if (warp.live == kAll) {
      memcpy(warp.order, permutation, n = kWarpLanes);
    } else {
      for (uint32_t i = 0; i < kWarpLanes; i++) {
        if (warp.live >> permutation[i] & 1) warp.order[n++] = permutation[i];
      }
    }
    warp.pending = n;
    warp.cursor = warp.stopped = 0;
    warp.diverged = false;
  }

  void remove_ready(Warp& warp) {
    auto at = std::find(ready_.begin(), ready_.end(), &warp);
    *at = ready_.back();
    ready_.pop_back();
  }

  void enter(Warp& warp, uint32_t lane) {
    warp_ = &warp;
    lane_ = lane;
    here.thread = warp.first_thread + lane;
    here.block = warp.block->index;
    here.rank = warp.block->rank;
  }

  // Runs the next lane and returns when it is this lane's turn again.
  void leave(Warp& warp, uint32_t lane) {
    const bool ended = !(warp.live >> lane & 1);
    if (!choose()) {
      warp.context[lane].switch_to(home_, ended);
    } else if (warp_ != &warp || lane_ != lane) {
      warp.context[lane].switch_to(warp_->context[lane_], ended);
    }
  }

  // Enters the lane that runs next; false: none is left.
  bool choose() {
    Warp* warp = warp_;
    if (warp->cursor == warp->pending) {
      const bool ready = settle(*warp);
      if (ready_.empty()) {
        if (live_warps_ != 0) fail("deadlock: " + waiting());
        end_cluster();
        return false;
      }
      if (!ready || random_.next() > keep_warp_) warp = ready_[random_.below(ready_.size())];
      begin_round(*warp);
    }
    enter(*warp, warp->order[warp->cursor++]);
    return true;
  }

  void check_depth(const Warp& warp, uint32_t lane) {
    if (static_cast<char*>(__builtin_frame_address(0)) < static_cast<char*>(warp.stack[lane]) + kStackMargin) fail_stack(warp, lane);
  }

  // The end of a stack is seldom in the cache: barriers look at it, and the end.
  void check_canary(const Warp& warp, uint32_t lane) {
    if (memcmp(warp.stack[lane], &kCanary, sizeof kCanary) != 0) fail_stack(warp, lane);
  }

  [[noreturn]] void fail_stack(const Warp& warp, uint32_t lane) {
    fail("thread " + std::to_string(warp.first_thread + lane) + " needs more stack than " + std::to_string(kStackBytes) + " bytes");
  }

  static constexpr uint32_t kPermutations = 64;

  const Kernel& kernel_;
  const void* arguments_;
  const uint32_t threads_;
  Random random_;
  uint8_t permutations_[kPermutations][kWarpLanes];
  uint32_t keep_warp_;
  std::vector<Block*> blocks_;
  std::vector<Warp*> ready_;  // warps that do not wait at a barrier
  uint32_t live_warps_ = 0, cluster_arrived_ = 0;
  std::vector<Warp*> cluster_waiting_;
  uint64_t cluster_phase_ = 0, meetings_ = 0;
  Warp* warp_ = nullptr;  // what runs
  uint32_t lane_ = 0;
  Context home_;
  bool failed_ = false;
};

#ifdef __GLIBC__
__thread Machine* machine __attribute__((tls_model("initial-exec")));
#else
__thread Machine* machine;
#endif

void start_fiber() {
  machine->start();
  __builtin_unreachable();
}

void Machine::prepare(Block& block, uint32_t index, uint32_t rank) {
  for (const Used& used : block.used) fence(block, used, false);  // of a launch that failed
  block.used.clear();
  block.used_bytes = 0;
  block.index = index;
  block.rank = rank;
  block.live_warps = block.warp_count = (threads_ + kWarpLanes - 1) / kWarpLanes;
  block.parked = 0;
  block.poison = uint8_t(1 + random_.below(255));
  for (uint32_t w = 0; w < block.warp_count; w++) {
    Warp& warp = block.warps[w];
    warp.block = &block;
    warp.first_thread = w * kWarpLanes;
    const uint32_t lanes = std::min(kWarpLanes, threads_ - warp.first_thread);
    warp.live = lanes == kWarpLanes ? kAll : (1u << lanes) - 1;
    warp.pending = warp.cursor = warp.stopped = 0;
    warp.arrived = false;
    for (uint32_t lane = 0; lane < lanes; lane++) {
      warp.place[lane] = Place{};
      warp.context[lane].prepare(warp.stack[lane], kStackBytes, start_fiber);
      memcpy(warp.stack[lane], &kCanary, sizeof kCanary);
    }
    ready_.push_back(&warp);
  }
  live_warps_ += block.warp_count;
}

bool Machine::run(uint32_t first_block) {
  ready_.clear();
  cluster_waiting_.clear();
  live_warps_ = cluster_arrived_ = 0;
  cluster_phase_ = 1;
  here.blocks = blocks_.size();
  for (uint32_t rank = 0; rank < blocks_.size(); rank++) prepare(*blocks_[rank], first_block + rank, rank);
  Warp& warp = *ready_[random_.below(ready_.size())];
  begin_round(warp);
  enter(warp, warp.order[warp.cursor++]);
  home_.switch_to(warp.context[lane_]);
  return !failed_;
}

// Judges a warp all of whose lanes have stopped, and reports whether it can go
// on.
bool Machine::settle(Warp& warp) {
  Block& block = *warp.block;
  meetings_++;
  if (warp.live == 0) {
    remove_ready(warp);
    live_warps_--;
    if (--block.live_warps == 0) end_block(block);
    if (warp.arrived && warp.phase == cluster_phase_) cluster_arrived_--;
    complete_block_barrier(block);
    complete_cluster_barrier();
    return false;
  }
  if (warp.diverged) fail("the lanes of a warp stop at different places: " + waiting());
  switch (warp.meeting.operation) {
    case Operation::block_barrier:
      if (block.parked == 0) block.barrier = warp.meeting;
      if (!same(block.barrier, warp.meeting)) fail("the warps of a block wait at different barriers: " + waiting());
      block.parked++;
      break;
    case Operation::cluster_arrive:
      if (warp.arrived) fail("a warp arrives twice at the barrier of the cluster: " + waiting());
      warp.arrived = true;
      warp.phase = cluster_phase_;
      cluster_arrived_++;
      complete_cluster_barrier();
      return true;
    case Operation::cluster_wait:
      if (!warp.arrived) fail("a warp waits at the barrier of the cluster and has not arrived: " + waiting());
      if (warp.phase < cluster_phase_) {
        warp.arrived = false;
        return true;
      }
      cluster_waiting_.push_back(&warp);
      break;
    default:
      exchange(warp);
      return true;
  }
  remove_ready(warp);
  complete_block_barrier(block);
  return false;
}

void Machine::complete_block_barrier(Block& block) {
  if (block.parked == 0 || block.parked < block.live_warps) return;
  for (uint32_t w = 0; w < block.warp_count; w++) {
    if (block.warps[w].live != 0) ready_.push_back(&block.warps[w]);
  }
  block.parked = 0;
}

void Machine::complete_cluster_barrier() {
  if (cluster_arrived_ == 0 || cluster_arrived_ < live_warps_) return;
  for (Warp* warp : cluster_waiting_) {
    warp->arrived = false;
    ready_.push_back(warp);
  }
  cluster_waiting_.clear();
  cluster_arrived_ = 0;
  cluster_phase_++;
}

// Gives each lane what the operation that all have met at gives it.
void Machine::exchange(Warp& warp) {
  const Operation operation = warp.meeting.operation;
  if (operation == Operation::warp_barrier) return;
  const uint64_t* value = warp.value;
  uint64_t* result = warp.result;
  const uint32_t* argument = warp.argument;
  if (operation == Operation::ballot) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < kWarpLanes; i++) bits |= uint32_t(warp.live >> i & 1 && value[i] != 0) << i;
    for (uint32_t i = 0; i < kWarpLanes; i++) result[i] = bits;
    return;
  }
  if (warp.live != kAll) fail("all lanes of a warp must take part, and some have ended: " + waiting());
  uint32_t all = uint32_t(value[0]);
  switch (operation) {
    case Operation::shuffle:
      for (uint32_t i = 0; i < kWarpLanes; i++) result[i] = value[argument[i] % kWarpLanes];
      return;
    case Operation::shuffle_xor:
      for (uint32_t i = 0; i < kWarpLanes; i++) result[i] = value[(i ^ argument[i]) < kWarpLanes ? i ^ argument[i] : i];
      return;
    case Operation::shuffle_up:
      for (uint32_t i = 0; i < kWarpLanes; i++) result[i] = value[argument[i] <= i ? i - argument[i] : i];
      return;
    case Operation::warp_sum:
      for (uint32_t i = 1; i < kWarpLanes; i++) all += uint32_t(value[i]);
      break;
    case Operation::warp_max:
      for (uint32_t i = 1; i < kWarpLanes; i++) all = std::max(all, uint32_t(value[i]));
      break;
    default:
      fail("no such operation: " + describe(warp.meeting));
  }
  for (uint32_t i = 0; i < kWarpLanes; i++) result[i] = all;
}

// Who waits where, block by block.
std::string Machine::waiting() {
  constexpr uint32_t kMost = 8;
  uint32_t parts = 0;
  std::string text;
  for (Block* block : blocks_) {
    std::map<std::string, std::vector<uint32_t>> threads;
    for (uint32_t w = 0; w < block->warp_count; w++) {
      const Warp& warp = block->warps[w];
      for (uint32_t lane = 0; lane < kWarpLanes; lane++) {
        const uint32_t thread = warp.first_thread + lane;
        if (thread < threads_) threads[warp.live >> lane & 1 ? describe(warp.place[lane]) : "the end"].push_back(thread);
      }
    }
    for (auto& [place, at] : threads) {
      if (++parts > kMost) return text + ", ...";
      text += (parts > 1 ? ", " : "") + ("block " + std::to_string(block->index)) + ": " + std::to_string(at.size()) + " threads from thread " +
              std::to_string(at[0]) + " on at " + place;
    }
  }
  return text;
}

void Machine::check_untouched(Block& block, const char* from, size_t bytes, const char* what) {
  for (size_t i = 0; i < bytes; i++) {
    if (uint8_t(from[i]) != block.poison) fail(std::string(what) + ": block " + std::to_string(block.index) + ", byte " + std::to_string(i));
  }
}

// The block has ended: nobody may have written beside its variables, and nobody
// may look at them any more.
void Machine::end_block(Block& block) {
  for (const Used& used : block.used) {
    char* variable = block.arena + used.offset;
    fence(block, used, false);
    check_untouched(block, variable - kRedzone, kRedzone, "a write just below a shared variable");
    check_untouched(block, variable + used.bytes, kRedzone, "a write past the end of a shared variable");
    memset(variable, block.poison, used.bytes);
  }
}

// All blocks have ended: nobody may have written to one after its end.
void Machine::end_cluster() {
  if (blocks_.size() == 1) return;
  for (Block* block : blocks_) {
    for (const Used& used : block->used) {
      check_untouched(*block, block->arena + used.offset, used.bytes, "a write to the shared memory of a block that had ended");
    }
  }
}

// Poisons the variable if the block has not used it before.
void* Machine::use(Block& block, uint32_t offset, uint32_t bytes) {
  char* variable = block.arena + offset;
  for (const Used& used : block.used) {
    if (used.offset == offset) return variable;
  }
  block.used.push_back({offset, bytes});
  block.used_bytes += bytes;
  if (block.used_bytes > kSharedBytes) {
    fail("the shared variables of the block exceed " + std::to_string(kSharedBytes) + " bytes: " + std::to_string(block.used_bytes));
  }
  memset(variable - kRedzone, block.poison, bytes + 2 * kRedzone);
  fence(block, block.used.back(), true);
  return variable;
}

void* Machine::shared_memory(Site& site) {
  uint32_t offset = site.offset.load(std::memory_order_acquire);
  if (offset == 0) {
    std::lock_guard<std::mutex> lock(sites_mutex);
    offset = site.offset.load(std::memory_order_relaxed);
    if (offset == 0) {
      const uint32_t alignment = std::max(site.alignment, 16u);
      offset = (sites_end + kRedzone + alignment - 1) / alignment * alignment;
      if (offset + site.bytes + kRedzone > kArenaBytes) fail("the shared variables of all kernels exceed " + std::to_string(kArenaBytes) + " bytes");
      sites_end = offset + site.bytes + kRedzone;
      sites()[offset] = site.bytes;
      site.offset.store(offset, std::memory_order_release);
    }
  }
  return use(*warp_->block, offset, site.bytes);
}

void* Machine::in_block(void* variable, uint32_t rank) {
  if (rank >= blocks_.size()) fail("block " + std::to_string(rank) + " of a cluster of " + std::to_string(blocks_.size()));
  const auto distance = static_cast<char*>(variable) - warp_->block->arena;
  if (distance < 0 || size_t(distance) >= kArenaBytes) fail("in_block of a variable that is not in the shared memory of the block");
  uint32_t offset, bytes;
  {
    std::lock_guard<std::mutex> lock(sites_mutex);
    auto after = sites().upper_bound(uint32_t(distance));
    if (after == sites().begin()) fail("in_block of no shared variable");
    std::tie(offset, bytes) = *--after;
  }
  return static_cast<char*>(use(*blocks_[rank], offset, bytes)) + (distance - offset);
}

}  // namespace

uint64_t meet(Place place, uint64_t value, uint32_t argument) { return machine->meet(place, value, argument); }
void maybe_wait() { machine->maybe_wait(); }
void* shared_memory(Site& site) { return machine->shared_memory(site); }
void* in_block(void* variable, uint32_t rank) { return machine->in_block(variable, rank); }

void fault(const char* format, ...) {
  char text[256];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  machine->fail("block " + std::to_string(here.block) + ", thread " + std::to_string(here.thread) + ": " + text);
}

Kernel::Kernel(const char* symbol, uint32_t threads, size_t argument_bytes, void (*body)(const void*))
    : symbol(symbol), threads(threads), argument_bytes(argument_bytes), body(body), next(kernels) {
  kernels = this;
}

namespace {

// Serving has a machine be that of this thread as long as it lasts.
struct Serving {
  explicit Serving(Machine* m) { machine = m; }
  ~Serving() { machine = nullptr; }
};

int launch(const char* symbol, uint32_t grid, uint32_t block, uint32_t cluster, const void* arguments) {
  const Kernel* kernel = kernels;
  while (kernel && strcmp(kernel->symbol, symbol) != 0) kernel = kernel->next;
  if (!kernel) {
    message = "no such kernel";
    return AIKF_SHIM_UNKNOWN_SYMBOL;
  }
  if (cluster == 0) cluster = 1;
  if (block == 0 || block > kernel->threads || block > kBlockThreads) {
    message = "a block has 1 to " + std::to_string(kernel->threads) + " threads";
    return AIKF_SHIM_BAD_LAUNCH;
  }
  if (grid == 0 || grid > 0x7fffffff || cluster > kClusterBlocks || grid % cluster != 0) {
    message = "a grid has 1 to 2^31-1 blocks, whole clusters of at most " + std::to_string(kClusterBlocks);
    return AIKF_SHIM_BAD_LAUNCH;
  }
  const uint64_t seed = seed_given ? given_seed : next_seed++;
  seed_given = false;
  std::vector<char> copy(kernel->argument_bytes);
  memcpy(copy.data(), arguments, copy.size());
  Machine here_machine(*kernel, copy.data(), block, cluster, seed);
  const Serving serving(&here_machine);
  std::vector<uint32_t> order(grid / cluster);
  for (uint32_t i = 0; i < order.size(); i++) order[i] = i;
  Random(seed).permute(order.data(), order.size());
  bool good = true;
  for (size_t i = 0; i < order.size() && good; i++) good = here_machine.run(order[i] * cluster);
  meetings = here_machine.meetings();
  if (good) return AIKF_SHIM_DONE;
  message = "seed " + std::to_string(seed) + ": " + message;
  return AIKF_SHIM_FAULT;
}

}  // namespace
}  // namespace shim

int aikf_shim_launch(const char* symbol, unsigned grid, unsigned block, unsigned cluster, const void* arguments) {
  shim::message.clear();
  shim::meetings = 0;
  const int status = shim::launch(symbol, grid, block, cluster, arguments);
  if (status != AIKF_SHIM_DONE) {
    shim::message = std::string(symbol) + ", grid " + std::to_string(grid) + ", block " + std::to_string(block) + ", cluster " +
                    std::to_string(cluster) + ": " + shim::message;
  }
  return status;
}

const char* aikf_shim_error(void) { return shim::message.c_str(); }

unsigned long long aikf_shim_meetings(void) { return shim::meetings; }

void aikf_shim_seed(unsigned long long seed) {
  shim::given_seed = seed;
  shim::seed_given = true;
}

const char* aikf_shim_symbol(unsigned i) {
  const shim::Kernel* kernel = shim::kernels;
  while (kernel && i-- > 0) kernel = kernel->next;
  return kernel ? kernel->symbol : nullptr;
}
