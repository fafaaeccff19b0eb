// A program of the kernels, their machine and random batches, to be built with
// the address and undefined-behaviour sanitizers (make shim-sanitize): every
// array has exactly the bytes that a kernel may touch. Arguments: seconds to run,
// and a seed. Exit status 1: an answer was wrong, or a kernel broke a rule.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "arguments.h"
#include "shim/fibers/fibers.h"

namespace {

std::mt19937_64 chance;
int below(int n) { return n <= 0 ? 0 : int(chance() % uint64_t(n)); }

std::set<std::string> symbols;

struct DType {
  const char* name;
  int bytes, exponent_bits, fraction_bits;
};
const DType dtypes[] = {{"bf16", 2, 8, 7}, {"f16", 2, 5, 10}, {"f32", 4, 8, 23}};

// The number that the bits of an IEEE 754 format stand for.
double decode(const DType& t, uint32_t bits) {
  const int sign = bits >> (t.bytes * 8 - 1) & 1, exponent = bits >> t.fraction_bits & ((1 << t.exponent_bits) - 1);
  const uint32_t fraction = bits & ((1u << t.fraction_bits) - 1);
  const int bias = (1 << (t.exponent_bits - 1)) - 1;
  double v;
  if (exponent == (1 << t.exponent_bits) - 1) {
    v = fraction ? NAN : INFINITY;
  } else {
    v = std::ldexp(exponent ? fraction + (1u << t.fraction_bits) : fraction, std::max(exponent, 1) - bias - t.fraction_bits);
  }
  return sign ? -v : v;
}

// The oracle: a stable sort of the row.
std::vector<int> ranking(const std::vector<double>& row, bool smallest) {
  std::vector<int> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int i, int j) {
    const double a = row[smallest ? j : i], b = row[smallest ? i : j];
    return std::isnan(a) ? !std::isnan(b) : a > b;
  });
  return order;
}

// Memory whose last byte is the last of the array; filled with 0xa5.
struct Exact {
  explicit Exact(size_t bytes) : memory(new uint8_t[bytes]) { memset(memory.get(), 0xa5, bytes); }
  std::unique_ptr<uint8_t[]> memory;
};

uint32_t element(const uint8_t* at, int bytes) {
  uint32_t bits = 0;
  memcpy(&bits, at, bytes);
  return bits;
}

struct Plan {
  std::vector<std::string> kernels;
  int threads = 512, chunks = 1;
  bool cluster = false;
  size_t workspace_words = 0;
};

// A random plan that takes the shape.
Plan choose(const DType& t, const SelectArguments& a) {
  const std::string stem = std::string("select_") + t.name + "_";
  const std::string width = t.bytes == 2 && a.vocab <= 65536 && below(2) ? "_narrow" : "";
  for (;;) {
    Plan p;
    size_t any = 1;
    switch (below(4)) {
      case 0:
        if (a.k > 2048) continue;
        p.kernels = {stem + "block" + width};
        break;
      case 1:
        if (a.k > 2048) continue;
        p.kernels = {stem + "cluster"};
        p.cluster = true;
        p.chunks = 2 << below(3);
        break;
      case 2:
        if (a.k > 2048) continue;
        p.kernels = {stem + "stage1", stem + "stage2"};
        p.chunks = std::max(1, std::min(1 + below(20), std::min(4096, a.vocab) / a.k));
        p.workspace_words = size_t(a.rows) * p.chunks * a.k;
        break;
      case 3:
        p.kernels = {stem + "any"};
        while (any < size_t(a.k)) any *= 2;
        p.workspace_words = a.rows * any;
        break;
    }
    bool there = true;
    for (auto& kernel : p.kernels) there = there && symbols.count(kernel);
    if (there) return p;
    if (a.k > 2048) return Plan{};  // no kernel for so many
  }
}

bool run() {
  const DType& t = dtypes[below(3)];
  SelectArguments a{};
  a.rows = 1 + below(3);
  const int lengths[] = {8, 70, 1000, 6000, 30000, 70000};
  a.vocab = 1 + below(lengths[below(6)]);
  const int most[] = {4, 65, 300, 2048, 5000};
  a.k = std::min(a.vocab, 1 + below(most[below(5)]));
  a.stride = below(4) ? a.vocab + below(20) : 0;
  a.result_stride = a.k + below(3);
  a.smallest = below(2);
  a.index_bytes = below(2) ? 4 : 8;
  const Plan plan = choose(t, a);
  if (plan.kernels.empty()) return true;
  a.chunks = plan.chunks;
  const int groups[] = {128, 256, 512, 1024};
  a.groups = groups[below(plan.threads == 512 ? 3 : 4)];

  // Values: any bits, few different ones, or ordinary ones.
  const size_t elements = (a.rows - 1) * a.stride + a.vocab;
  const int offset = below(9);
  Exact logits((offset + elements) * t.bytes);
  uint8_t* first = logits.memory.get() + offset * t.bytes;
  std::vector<uint32_t> alphabet(1 + below(5));
  for (auto& letter : alphabet) letter = uint32_t(chance());
  const int kind = below(3);
  const uint32_t ordinary = 0x3fu << (t.bytes * 8 - 8);
  for (size_t i = 0; i < elements; i++) {
    uint32_t bits = uint32_t(chance());
    if (kind == 0) bits = alphabet[bits % alphabet.size()];
    if (kind == 1) bits = ordinary + bits % (1u << (t.fraction_bits + 2));
    memcpy(first + i * t.bytes, &bits, t.bytes);
  }
  a.logits = first;
  const size_t slots = (a.rows - 1) * a.result_stride + a.k;
  Exact values(slots * t.bytes), indices(slots * a.index_bytes), workspace(plan.workspace_words * 8);
  a.values = values.memory.get();
  a.indices = indices.memory.get();
  if (plan.workspace_words) a.workspace = workspace.memory.get();
  std::unique_ptr<int[]> row_k, row_lengths;
  if (below(3) == 0) {
    row_k.reset(new int[a.rows]);
    for (int i = 0; i < a.rows; i++) row_k[i] = below(a.k + 3) - 1;
    a.row_k = row_k.get();
  }
  if (below(3) == 0) {
    row_lengths.reset(new int[a.rows]);
    for (int i = 0; i < a.rows; i++) row_lengths[i] = below(a.vocab + 3) - 1;
    a.row_lengths = row_lengths.get();
  }

  for (auto& kernel : plan.kernels) {
    const int chunks = kernel.find("stage2") == std::string::npos ? plan.chunks : 1;
    if (aikf_shim_launch(kernel.c_str(), a.rows * chunks, plan.threads, plan.cluster ? chunks : 1, &a) != AIKF_SHIM_DONE) {
      fprintf(stderr, "%s\n", aikf_shim_error());
      return false;
    }
  }
  for (int i = 0; i < a.rows; i++) {
    const uint8_t* row = first + i * a.stride * t.bytes;
    const int length = a.row_lengths ? std::clamp(a.row_lengths[i], 0, a.vocab) : a.vocab;
    const int k = std::min(length, a.row_k ? std::clamp(a.row_k[i], 0, a.k) : a.k);
    std::vector<double> numbers(length);
    for (int j = 0; j < length; j++) numbers[j] = decode(t, element(row + j * t.bytes, t.bytes));
    const std::vector<int> want = ranking(numbers, a.smallest);
    for (int j = 0; j < a.k; j++) {
      const size_t slot = i * a.result_stride + j;
      uint64_t index = 0;
      memcpy(&index, static_cast<uint8_t*>(a.indices) + slot * a.index_bytes, a.index_bytes);
      const uint32_t value = element(static_cast<uint8_t*>(a.values) + slot * t.bytes, t.bytes);
      const bool right = j < k ? index == uint64_t(want[j]) && value == element(row + want[j] * t.bytes, t.bytes)
                               : uint8_t(index) == 0xa5 && uint8_t(value) == 0xa5;
      if (!right) {
        fprintf(stderr, "%s, rows %d, vocab %d, k %d, stride %lld, groups %d, chunks %d, smallest %d, %d-byte indices: row %d, place %d of %d: index %llu, value %#x\n",
                plan.kernels[0].c_str(), a.rows, a.vocab, a.k, a.stride, a.groups, a.chunks, a.smallest, a.index_bytes, i, j, k,
                static_cast<unsigned long long>(index), value);
        return false;
      }
    }
  }
  return true;
}

}  // namespace

int main(int count, char** words) {
  const double seconds = count > 1 ? atof(words[1]) : 10;
  const uint64_t seed = count > 2 ? strtoull(words[2], nullptr, 0) : 1;
  for (unsigned i = 0; aikf_shim_symbol(i); i++) symbols.insert(aikf_shim_symbol(i));
  const auto start = std::chrono::steady_clock::now();
  uint64_t batches = 0;
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
    chance.seed(seed + batches);
    aikf_shim_seed(seed + batches);
    if (!run()) {
      fprintf(stderr, "batch %llu of seed %llu: run again with a seed of %llu\n", static_cast<unsigned long long>(batches),
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed + batches));
      return 1;
    }
    batches++;
  }
  printf("%llu batches, seed %llu: all right\n", static_cast<unsigned long long>(batches), static_cast<unsigned long long>(seed));
  return 0;
}
