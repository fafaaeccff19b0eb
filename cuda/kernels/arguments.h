// The arguments of every selection kernel: one structure, passed by value.
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
