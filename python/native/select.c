// A candidate is one word, the logit's place in the order above the complement of
// its index, so that a plain unsigned comparison is the whole contract. A row is
// read once: what beats the k-th best so far is kept, and when the candidates fill
// their room the best k of them stay, and the k-th of these is the new threshold.
// Sorting is by radix: no row takes more than linear time.
#include "select.h"

#include <stdlib.h>
#include <string.h>

#include "plan.h"

enum { kBlock = 64 };  // logits that are compared with the threshold at once

// The place of a logit in the order, larger is better: -0 is +0, every NaN is one.
// bits are those of the logit, moved up to the sign bit; infinity alike.
static inline int32_t place_of(uint32_t bits, uint32_t infinity, int smallest) {
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t negative = (uint32_t)((int32_t)bits >> 31) ^ (smallest ? ~0u : 0);  // all ones or 0
  const int32_t place = (int32_t)((magnitude ^ negative) - negative);
  const int32_t of_nan = smallest ? INT32_MIN : INT32_MAX;
  return magnitude > infinity ? of_nan : place;
}

static inline uint64_t pack(int32_t place, uint32_t index) {
  return (uint64_t)((uint32_t)place ^ 0x80000000u) << 32 | (uint32_t)~index;
}
static inline int32_t place_in(uint64_t word) { return (int32_t)((uint32_t)(word >> 32) ^ 0x80000000u); }
static inline uint32_t index_in(uint64_t word) { return ~(uint32_t)word; }

void sort_words(uint64_t* words, uint64_t* spare, int64_t n) {
  if (n <= 48) {
    for (int64_t i = 1; i < n; i++) {
      const uint64_t word = words[i];
      int64_t j = i;
      for (; j > 0 && words[j - 1] < word; j--) words[j] = words[j - 1];
      words[j] = word;
    }
    return;
  }
  uint32_t count[8][256];
  memset(count, 0, sizeof count);
  for (int64_t i = 0; i < n; i++) {
    for (int digit = 0; digit < 8; digit++) count[digit][words[i] >> (8 * digit) & 255]++;
  }
  uint64_t *from = words, *to = spare;
  for (int digit = 0; digit < 8; digit++) {
    uint32_t* at = count[digit];
    if (at[from[0] >> (8 * digit) & 255] == n) continue;  // all have the same
    uint32_t next = 0;
    for (int value = 255; value >= 0; value--) {
      const uint32_t words_of_value = at[value];
      at[value] = next;
      next += words_of_value;
    }
    for (int64_t i = 0; i < n; i++) to[at[from[i] >> (8 * digit) & 255]++] = from[i];
    uint64_t* const last = from;
    from = to;
    to = last;
  }
  if (from != words) memcpy(words, from, (size_t)n * sizeof *words);
}

// One row, for a dtype and a direction that are constants where it is called.
static inline __attribute__((always_inline)) void select_row(const void* row, int wide, uint32_t infinity, int smallest,
                                                             int64_t vocab, int64_t k, uint64_t* words, int64_t room) {
#define PLACE(i) place_of(wide ? ((const uint32_t*)row)[i] : (uint32_t)((const uint16_t*)row)[i] << 16, infinity, smallest)
  uint64_t* const spare = words + room;
  int64_t n = 0, i = 0;
  for (; i < room; i++) words[n++] = pack(PLACE(i), (uint32_t)i);
  sort_words(words, spare, n);
  n = k;
  int32_t threshold = place_in(words[k - 1]);
  while (i < vocab) {
    const int64_t end = vocab - i < kBlock ? vocab : i + kBlock;
    if (end - i == kBlock) {
      int over = 0;
      for (int j = 0; j < kBlock; j++) over |= PLACE(i + j) > threshold;
      if (!over) {
        i = end;
        continue;
      }
    }
    for (; i < end; i++) {
      // An equal logit comes after all that are kept: it does not beat them.
      if (PLACE(i) <= threshold) continue;
      words[n++] = pack(PLACE(i), (uint32_t)i);
      if (n < room) continue;
      sort_words(words, spare, n);
      n = k;
      threshold = place_in(words[k - 1]);
    }
  }
  if (n > k) sort_words(words, spare, n);
#undef PLACE
}

int select_rows(int dtype, int smallest, int64_t rows, int64_t vocab, int64_t stride, int64_t k, const void* logits,
                void* values, int64_t* indices) {
  const int wide = dtype == PLAN_FLOAT32;
  const size_t bytes = wide ? 4 : 2;
  int64_t room = k + (k < 512 ? 512 : k);
  if (room > vocab) room = vocab;
  uint64_t* const words = malloc((size_t)room * 2 * sizeof *words);
  if (!words) return -1;
  for (int64_t r = 0; r < rows; r++) {
    const char* const row = (const char*)logits + (size_t)(r * stride) * bytes;
    switch (dtype * 2 + smallest) {
      case PLAN_FLOAT32 * 2: select_row(row, 1, 0x7f800000, 0, vocab, k, words, room); break;
      case PLAN_FLOAT32 * 2 + 1: select_row(row, 1, 0x7f800000, 1, vocab, k, words, room); break;
      case PLAN_FLOAT16 * 2: select_row(row, 0, 0x7c000000, 0, vocab, k, words, room); break;
      case PLAN_FLOAT16 * 2 + 1: select_row(row, 0, 0x7c000000, 1, vocab, k, words, room); break;
      case PLAN_BFLOAT16 * 2: select_row(row, 0, 0x7f800000, 0, vocab, k, words, room); break;
      default: select_row(row, 0, 0x7f800000, 1, vocab, k, words, room); break;
    }
    for (int64_t i = 0; i < k; i++) {
      const uint32_t index = index_in(words[i]);
      indices[r * k + i] = index;
      if (wide) {
        ((uint32_t*)values)[r * k + i] = ((const uint32_t*)row)[index];
      } else {
        ((uint16_t*)values)[r * k + i] = ((const uint16_t*)row)[index];
      }
    }
  }
  free(words);
  return 0;
}
