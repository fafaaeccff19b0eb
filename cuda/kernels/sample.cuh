// What decides the tokens of a row: its parameters, and how an answer is written.
#pragma once

#include "find.cuh"
#include "law.cuh"
#include "stage2_merge.cuh"

enum Status : u32 { kDone, kNaN, kEmpty, kExhausted, kBadParameters };

// The parameters of a row, in the order of the arguments.
struct RowParameters {
  float temperature;
  int top_k;
  float top_p, min_p, typical_p, top_n_sigma, xtc_probability, xtc_threshold;

  RowParameters() = default;
  DEVICE RowParameters(const SampleArguments& a, u32 number) {
    temperature = a.row_temperature ? a.row_temperature[number] : a.temperature;
    top_k = a.row_top_k ? a.row_top_k[number] : a.top_k;
    top_p = a.row_top_p ? a.row_top_p[number] : a.top_p;
    min_p = a.row_min_p ? a.row_min_p[number] : a.min_p;
    typical_p = a.row_typical_p ? a.row_typical_p[number] : a.typical_p;
    top_n_sigma = a.row_top_n_sigma ? a.row_top_n_sigma[number] : a.top_n_sigma;
    xtc_probability = a.row_xtc_probability ? a.row_xtc_probability[number] : a.xtc_probability;
    xtc_threshold = a.row_xtc_threshold ? a.row_xtc_threshold[number] : a.xtc_threshold;
  }
  DEVICE bool greedy(const SampleArguments& a) const { return temperature < a.greedy_below; }
  // Whether there are steps behind top-p, and whether xtc is one of them.
  DEVICE bool steps() const { return typical_p < 1 || top_n_sigma > 0 || drops_likely(); }
  DEVICE bool drops_likely() const { return xtc_probability > 0 && xtc_threshold <= 0.5f; }
  // Each comparison is false for NaN.
  DEVICE bool valid() const {
    return temperature >= 0 && temperature <= 0x1.fffffep127f && top_p > 0 && top_p <= 1 && min_p >= 0 && min_p <= 1 && typical_p > 0 &&
           typical_p <= 1 && top_n_sigma >= -0x1.fffffep127f && top_n_sigma <= 0x1.fffffep127f && xtc_probability >= 0 && xtc_probability <= 1 &&
           xtc_threshold >= 0 && xtc_threshold <= 1;
  }
};

// How many tokens of a row top-k leaves. 0 if these are more than there is room for, where
// top_k is off or large: WholeRow is for these.
DEVICE u32 left_by_top_k(const SampleArguments& a, const RowParameters& p, int length) {
  const int left = p.greedy(a) ? smaller(1, length) : p.top_k < 1 || p.top_k > length ? length : p.top_k;
  return left <= a.k ? left : 0;
}

// A block has so many threads beside those that read: two warps that settle what these need, and end.
constexpr u32 kSettling = 2 * kWarp;

// The number of a row's first draw.
DEVICE u32 first_draw(const SampleArguments& a, u32 number) { return a.first_draw + number * a.row_draws; }

// Whether a row has more answers than its tokens.
DEVICE bool answers_more(const SampleArguments& a) { return a.kept || a.logprobs || a.top_ids; }
// Whether logprobs are asked for that are of the logits as they came.
DEVICE bool wants_raw(const SampleArguments& a) { return (a.logprobs || a.top_ids) && !a.processed; }

// A row has no limit of its own, so that it need not wait for it: see Tail.
DEVICE void limit_results(const SampleArguments&, u32, u32&) {}

// The value of an element's bits.
template <class T>
DEVICE float number_of_bits(u32 bits) {
  if (T::kBits == 32) return as_float(bits);
  if (T::kBestNumber - T::kSign == 0x7f80) return as_float(bits << 16);
  const u32 sign = (bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return as_float(sign | 0x7f800000 | magnitude << 13);
  return as_float(sign | as_bits(as_float(magnitude << 13) * 0x1p112f));
}
// The value of one of the elements of a word.
template <class T>
DEVICE float number_in_word(u32 word, u32 i) {
  if (T::kBits == 32) return as_float(word);
  if (T::kBestNumber - T::kSign == 0x7f80) return as_float(i == 0 ? word << 16 : word & 0xffff0000);
  return half_as_float(i == 0 ? word & 0xffff : word >> 16);
}
// The value of a key, of both zeros +0.
template <class T>
DEVICE float number_of(u32 key) { return number_of_bits<T>(T::bits_of(key)); }

// How the tokens of a row are drawn, and where they are wanted: what code behind a barrier, or apart, need not read from
// the arguments.
struct Drawing {
  void* tokens;
  u8* status;  // or null
  u32 draws;
  u32 wide;  // whether tokens have 8 bytes
  u32 min_p_last, replacement;
  u32 plain;  // whether one token is wanted, and nothing beside it

  Drawing() = default;
  DEVICE Drawing(const SampleArguments& a, u32 number)
      : tokens(static_cast<u8*>(a.tokens) + (i64)number * a.result_stride * a.index_bytes),
        status(a.status ? a.status + number : nullptr),
        draws(a.draws),
        wide(a.index_bytes == 8),
        min_p_last(a.min_p_last),
        replacement(a.replacement),
        plain(a.draws == 1 && !answers_more(a)) {}

  DEVICE void write(u32 draw, int token) const {
    if (wide) {
      static_cast<i64*>(tokens)[draw] = token;
    } else {
      static_cast<int*>(tokens)[draw] = token;
    }
  }
};

// Writes the n-th token of a row.
DEVICE void write_token(const SampleArguments& a, u32 number, u32 draw, int token) {
  const i64 at = number * a.result_stride + draw;
  if (a.index_bytes == 8) {
    static_cast<i64*>(a.tokens)[at] = token;
  } else {
    static_cast<int*>(a.tokens)[at] = token;
  }
}

// The n-th token of a row.
DEVICE int token_of(const SampleArguments& a, u32 number, u32 draw) {
  const i64 at = number * a.result_stride + draw;
  return a.index_bytes == 8 ? (int)static_cast<const i64*>(a.tokens)[at] : static_cast<const int*>(a.tokens)[at];
}

// Ends a row with a status, and no tokens from the n-th on.
DEVICE void end_row(const SampleArguments& a, u32 number, u32 from, Status status, u32 threads) {
#pragma unroll 1
  for (u32 draw = from + thread_index(); draw < (u32)a.draws; draw += threads) write_token(a, number, draw, a.invalid_token);
  if (thread_index() == 0 && a.status) a.status[number] = status;
}
