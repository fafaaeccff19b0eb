// The answer of every selection kernel, by a stable sort: for tests of the host
// path that should not wait for the kernels, or that come before them.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "arguments.h"

namespace {

// Orders bits as the values are ordered: NaN first, then +Inf, -0 like +0.
int64_t rank_of(uint32_t bits, const std::string& dtype) {
  const bool wide = dtype == "f32";
  const uint32_t sign = wide ? 0x80000000u : 0x8000u;
  const uint32_t infinity = wide ? 0x7f800000u : dtype == "f16" ? 0x7c00u : 0x7f80u;
  const uint32_t magnitude = bits & (sign - 1);
  if (magnitude > infinity) return int64_t(1) << 40;
  return bits & sign ? -int64_t(magnitude) : int64_t(magnitude);
}

uint32_t load(const void* from, int64_t i, size_t bytes) {
  uint32_t bits = 0;
  memcpy(&bits, static_cast<const char*>(from) + i * int64_t(bytes), bytes);
  return bits;
}

void store(void* to, int64_t i, size_t bytes, uint64_t value) {
  memcpy(static_cast<char*>(to) + i * int64_t(bytes), &value, bytes);
}

void select_row(const SelectArguments& a, int row, const std::string& dtype) {
  const size_t bytes = dtype == "f32" ? 4 : 2;
  const int length = a.row_lengths ? std::clamp(a.row_lengths[row], 0, a.vocab) : a.vocab;
  const int k = std::min(a.row_k ? std::clamp(a.row_k[row], 0, a.k) : a.k, length);
  const int64_t start = row * int64_t(a.stride);
  std::vector<int64_t> ranks(length);
  for (int i = 0; i < length; i++) {
    ranks[i] = rank_of(load(a.logits, start + i, bytes), dtype);
    if (a.smallest) ranks[i] = -ranks[i];
  }
  std::vector<int> order(length);
  std::iota(order.begin(), order.end(), 0);
  auto before = [&](int i, int j) { return ranks[i] != ranks[j] ? ranks[i] > ranks[j] : i < j; };
  std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
  for (int i = 0; i < k; i++) {
    const int64_t at = row * int64_t(a.result_stride) + i;
    store(a.values, at, bytes, load(a.logits, start + order[i], bytes));
    store(a.indices, at, size_t(a.index_bytes), uint64_t(order[i]));
  }
}

// Splits select_bf16_block into its parts.
bool parse(const char* symbol, std::string& what, std::string& dtype, std::string& plan) {
  const std::string s = symbol;
  const size_t a = s.find('_'), b = s.find('_', a + 1);
  if (a == s.npos) return false;
  what = s.substr(0, a);
  if (s == "floor_empty") {
    plan = "empty";
    return true;
  }
  if (b == s.npos || what == "sample") return false;
  dtype = what == "floor" ? s.substr(b + 1) : s.substr(a + 1, b - a - 1);
  plan = what == "floor" ? s.substr(a + 1, b - a - 1) : s.substr(b + 1);
  return dtype == "bf16" || dtype == "f16" || dtype == "f32";
}

}  // namespace

extern "C" int fakecuda_standin_has(const char* symbol) {
  std::string what, dtype, plan;
  return parse(symbol, what, dtype, plan);
}

// Runs a kernel. A workspace that the plan needs is written, so that one that is
// too small or missing is noticed.
extern "C" int fakecuda_standin(const char* symbol, unsigned grid, const void* arguments) {
  std::string what, dtype, plan;
  if (!parse(symbol, what, dtype, plan)) return 1;
  if (plan == "empty") return 0;
  SelectArguments a;
  memcpy(&a, arguments, sizeof a);
  const bool cut = plan == "cluster" || plan == "stage1";
  if (grid != unsigned(a.rows) * unsigned(cut ? a.chunks : 1)) return 2;
  const size_t words = plan == "stage1" ? size_t(a.chunks) * size_t(a.k) : plan == "any" ? size_t(a.k) : what == "phases" ? 8 : 0;
  if (words) memset(a.workspace, 0x5a, 8 * words * size_t(a.rows));
  if (plan == "stage1") return 0;
  if (what == "floor") {
    for (int row = 0; row < a.rows; row++) {
      const size_t bytes = dtype == "f32" ? 4 : 2;
      int64_t best = row * int64_t(a.stride);
      for (int64_t i = best; i < row * int64_t(a.stride) + a.vocab; i++) {
        if (rank_of(load(a.logits, i, bytes), dtype) > rank_of(load(a.logits, best, bytes), dtype)) best = i;
      }
      store(a.values, row * int64_t(a.result_stride), bytes, load(a.logits, best, bytes));
    }
    return 0;
  }
  for (int row = 0; row < a.rows; row++) select_row(a, row, dtype);
  return 0;
}
