// What a launch of a real driver leaves behind: it runs through much code and
// memory, so that what its caller needs next has to come from farther away.
#include <sys/mman.h>
#include <time.h>

#include <cstdint>
#include <cstring>

namespace {

const unsigned kLine = 64, kRun = 64;            // bytes; lines of code that one call runs through
const unsigned kBytes = 4 << 20, kLines = kBytes / kLine;  // of code, and of memory

// Lines of code that jump from one to the next, all over the place; every
// kRun-th of the chain returns.
struct Maze {
  char* code;
  char* memory;

  Maze() {
    code = pages();
    memory = pages();
    memset(memory, 1, kBytes);
    for (unsigned i = 0; i < kLines; i++) {
      char* from = code + at(i);
      const int distance = int(at(i + 1)) - int(at(i));
      const bool last = i % kRun == kRun - 1;
#if defined(__x86_64__)
      *from = char(last ? 0xc3 : 0xe9);
      const int offset = distance - 5;
      memcpy(from + 1, &offset, 4);
#elif defined(__aarch64__)
      const uint32_t instruction = last ? 0xd65f03c0u : 0x14000000u | (uint32_t(distance / 4) & 0x3ffffffu);
      memcpy(from, &instruction, 4);
#else
#error "not supported"
#endif
    }
    __builtin___clear_cache(code, code + kBytes);
    mprotect(code, kBytes, PROT_READ | PROT_EXEC);
  }

  static char* pages() {
    return static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }

  // Where line i of the chain is: an odd factor reaches each once.
  static unsigned at(unsigned i) { return i * 26309 % kLines * kLine; }
};

double now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
}

double left_at, between;
long long counted;

}  // namespace

// Runs through so many KiB of code and as many of memory, others each time. It is
// for one thread.
extern "C" int fakecuda_busy(int kib) {
  const double entered_at = now_ns();
  if (left_at > 0) between += entered_at - left_at, counted++;
  static Maze maze;
  static unsigned line;
  int sum = 0;
  for (unsigned end = line + unsigned(kib) * 1024 / kLine; line != end; line += kRun) {
    reinterpret_cast<void (*)()>(maze.code + Maze::at(line % kLines))();
    for (unsigned i = 0; i < kRun; i++) sum += maze.memory[Maze::at(line + i)];
  }
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  left_at = now_ns();
  return sum == 0;
}

// The nanoseconds from the end of one busy launch to the start of
// the next, on average since the last call.
extern "C" double fakecuda_between() {
  const double mean = counted ? between / double(counted) : 0;
  left_at = between = 0;
  counted = 0;
  return mean;
}
