// Sampling on a CPU: docs/semantics.md says what it answers.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#ifndef __cplusplus
typedef struct SelectArguments SelectArguments;  // as the header has it in C++
#endif
#include "arguments.h"

// How the sampling of a row went.
enum sample_status { SAMPLE_OK, SAMPLE_NAN, SAMPLE_EMPTY, SAMPLE_EXHAUSTED, SAMPLE_BAD_PARAMETERS };

// Samples the tokens of a batch of logits, of one of enum plan_dtype, as a kernel of the GPU does
// with the same arguments, whose addresses are of host memory. 0 < vocab <= 2^20. Returns
// -1 without memory to work in, else 0.
int sample_rows(int dtype, const struct SampleArguments* arguments);

// Whether the parameters of the first row are in their ranges.
bool sample_parameters_valid(const struct SampleArguments* arguments);

// Writes the masses that the steps leave of a row, the only one, by id, and their sum. Returns an enum
// sample_status, or -1 without memory. The parameters are valid.
int sample_law(int dtype, const struct SampleArguments* arguments, uint64_t* masses, uint64_t* total);

// Verifies the drafted tokens of all sequences, as a kernel of the GPU does with the same arguments, whose addresses
// are of host memory; it needs no workspace. Returns -1 without memory to work in, else 0.
int verify_sequences(int dtype, const struct VerifyArguments* arguments);
