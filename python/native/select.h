// The selection on a CPU: docs/semantics.md says what it answers.
#pragma once

#include <stdint.h>

// Selects the k best of each row of a batch. dtype is one of enum plan_dtype.
// logits is [rows, vocab] with stride elements from row to row; values, in the
// dtype of the logits, and indices are [rows, k] without gaps. 0 < k <= vocab <=
// INT32_MAX. Returns -1 without memory for the candidates, else 0.
int select_rows(int dtype, int smallest, int64_t rows, int64_t vocab, int64_t stride, int64_t k, const void* logits,
                void* values, int64_t* indices);

// Orders words, the largest first, in a time that grows with their number. spare has room for as many.
void sort_words(uint64_t* words, uint64_t* spare, int64_t n);
