// The arguments of every kernel: one structure, passed by value.
//
// cuda/arguments.go holds the same structure in Go; a test compares the two
// field by field. Offsets and strides are 64-bit, so rows * stride may exceed
// 2^32 elements.
#pragma once

struct SelectArguments {
  const void* logits;            // [rows, vocab], row i at i * stride elements
  void* values;                  // [rows, k] in the dtype of logits, row i at i * result_stride
  void* indices;                 // [rows, k] int32 or int64, row i at i * result_stride
  const int* row_k;              // [rows], or null: k for every row
  const int* row_lengths;        // [rows], or null: vocab for every row
  void* workspace;               // see the plan; null where the plan needs none
  long long stride;              // elements from one row of logits to the next, 0: one row for all
  long long result_stride;       // elements from one row of results to the next
  int rows;
  int vocab;                     // logits in a row
  int k;                         // results a row, the largest of row_k
  int groups;                    // group maxima that bound the k-th value: 128, 256 or 512
  int chunks;                    // chunks a row in the two-stage plan, blocks a row in the cluster plan
  int smallest;                  // 1: the k smallest
  int index_bytes;               // 4 or 8
  int reserved;                  // 0
};

static_assert(sizeof(SelectArguments) == 96, "cuda/arguments.go mirrors this structure");

// How the other structures begin; in C++ they are selections themselves.
#ifdef __cplusplus
#define BEGINS_AS_SELECTION : SelectArguments {
#else
#define BEGINS_AS_SELECTION { struct SelectArguments selection;
#endif

// What a sampling kernel takes: the selection that it begins with, and what decides
// the tokens. A parameter of rows is [rows] in device memory, or null: then its value
// beside it is that of every row. Of the selection, k is the most that a row's top_k may
// be, row_k is not read, and there are no values and indices. A kernel that only edits
// writes float32 values, row i at i * result_stride.
struct SampleArguments BEGINS_AS_SELECTION
  const float* row_temperature;
  const int* row_top_k;
  const float* row_top_p;
  const float* row_min_p;
  const float* row_typical_p;
  const float* row_top_n_sigma;
  const float* row_xtc_probability;
  const float* row_xtc_threshold;
  const float* row_repetition;
  const float* row_frequency;
  const float* row_presence;
  const long long* row_seed;
  const long long* row_position;
  void* tokens;                  // [rows, draws] int32 or int64 (index_bytes), row i at i * result_stride
  unsigned char* status;         // [rows], or null
  int* kept;                     // [rows, k], row i at i * k: ids of the kept set in contract order; or null
  int* kept_count;               // [rows], with kept
  float* kept_probabilities;     // as kept, or null
  float* logprobs;               // [rows, draws]: of the tokens, or null
  int* ranks;                    // [rows, draws]: of the tokens, from 1, with logprobs
  int* top_ids;                  // [rows, top_count]: the most likely, or null
  float* top_logprobs;           // with top_ids
  const int* mask;               // [rows, mask_words], row i at i * mask_stride, or null: bit j%32 of word j/32 allows id j
  const int* bias_ids;           // [rows, biases], each id once; those outside the vocab stand for none
  const float* bias;             // [rows, biases]
  const int* penalty_ids;        // [rows, penalties], as bias_ids
  const int* penalty_counts;     // [rows, penalties]: how often an id occurs in the output
  long long mask_stride;         // words
  long long seed;
  long long position;
  int mask_words;                // ids past them are allowed
  int biases;
  int penalties;
  float temperature;
  int top_k;
  float top_p;                   // 1: off
  float min_p;                   // 0: off
  float typical_p;               // 1: off
  float top_n_sigma;             // 0: off
  float xtc_probability;         // 0: off
  float xtc_threshold;
  float repetition;              // 1: off
  float frequency;               // 0: off
  float presence;                // 0: off
  float softcap;                 // 0: off
  float greedy_below;            // a lower temperature takes the largest logit
  int draws;                     // tokens a row
  int first_draw;                // number of the first draw
  int row_draws;                 // row i begins so many draws later than row i-1
  int replacement;               // 1: with replacement
  int min_p_last;                // 1: behind top-p, 0: before it
  int invalid_token;             // what stands for no token
  int top_count;
  int processed;                 // 1: logprobs are of what the steps keep, 0: of the logits as they came
  int told;                      // 1: tokens are there, -1 for none, and only raw logprobs are wanted
  int unused;                    // 0
};

static_assert(sizeof(struct SampleArguments) == 440, "cuda/arguments.go mirrors this structure");

// How rows of logits become laws of tokens: what verification takes of the target and
// of the draft. A parameter of sequences is [sequences] in device memory, or null: then
// its value beside it is that of every sequence.
struct LawArguments {
  const void* logits;            // [sequences, rows, vocab], row i of all at i * stride elements; null: no logits
  const float* row_temperature;
  const int* row_top_k;
  const float* row_top_p;
  const float* row_min_p;
  long long stride;              // elements from one row to the next, 0: one row for all
  float temperature;
  int top_k;                     // below 1, or above vocab: off
  float top_p;                   // 1: off
  float min_p;                   // 0: off
  float softcap;                 // 0: off
  float greedy_below;            // a lower temperature takes the largest logit
  int min_p_last;                // 1: behind top-p, 0: before it
  int k;                         // the most that a top_k may be for the fast way
  int groups;                    // as in SelectArguments, for k
  int reserved;                  // 0
};

static_assert(sizeof(struct LawArguments) == 88, "cuda/arguments.go mirrors this structure");

// What a kernel takes that verifies drafted tokens. Row i of a sequence is sampled at the
// position of the sequence and i more.
struct VerifyArguments {
  struct LawArguments target;    // [sequences, drafts + 1, vocab]
  struct LawArguments draft;     // [sequences, drafts, vocab]; of probabilities only its stride is read
  const float* probabilities;    // [sequences, drafts, vocab], row i of all at i * draft.stride; read if the draft has no logits
  const void* drafted;           // [sequences, drafts] int32 or int64 (drafted_bytes), sequence i at i * drafted_stride
  const int* drafted_count;      // [sequences]: how many of them are there; or null: all
  const long long* row_seed;     // [sequences], or null
  const long long* row_position; // [sequences], or null
  void* tokens;                  // [sequences, drafts + 1] int32 or int64 (index_bytes), sequence i at i * result_stride
  int* accepted;                 // [sequences], or null: how many drafted tokens stand
  unsigned char* status;         // [sequences], or null
  void* workspace;               // [sequences] 8 bytes: 0 before the first launch, and behind each
  long long drafted_stride;
  long long result_stride;
  long long seed;
  long long position;
  int sequences;
  int drafts;                    // the most drafted tokens of a sequence
  int vocab;
  int index_bytes;               // 4 or 8
  int drafted_bytes;             // 4 or 8
  int first_draw;                // number of the draw of the first sequence
  int row_draws;                 // sequence i has a draw that is so many later than that of i-1
  int invalid_token;             // what stands behind the last token
};

static_assert(sizeof(struct VerifyArguments) == 312, "cuda/arguments.go mirrors this structure");
