// The launch plan: which kernels run on which grid. It changes the time, never the
// answer. cuda/plan.go decides the same in Go, and is what this follows: a test of
// package cuda compares the two on a grid of shapes, and writes plan_table.h.
#pragma once

#include <stdint.h>

enum plan_dtype { PLAN_FLOAT32, PLAN_FLOAT16, PLAN_BFLOAT16, PLAN_DTYPES };

// What a plan is called. PLAN_CHOSEN asks for the fastest that fits.
enum plan_name { PLAN_CHOSEN, PLAN_BLOCK, PLAN_CLUSTER, PLAN_TWO_STAGE, PLAN_ANY, PLAN_NONE, PLAN_NAMES };

// The kernels of one dtype.
enum plan_kernel { KERNEL_BLOCK, KERNEL_BLOCK_NARROW, KERNEL_CLUSTER, KERNEL_STAGE1, KERNEL_STAGE2, KERNEL_ANY, KERNEL_SAMPLE, KERNEL_SAMPLE_NARROW, KERNEL_WHOLE,
                   KERNEL_WHOLE_CLUSTER, KERNEL_EDITED, KERNEL_EDIT, KERNEL_VERIFY, PLAN_KERNELS };

struct plan_shape {
  int64_t rows, vocab, k;
  int32_t dtype;
};

// What a plan depends on of a device.
struct plan_architecture {
  int32_t multiprocessors;
  int32_t cluster_blocks;  // the most blocks of a cluster, 0 without clusters
};

// 0 lets the plan choose.
struct plan_options {
  int32_t name;               // forces a plan
  int32_t groups;             // group maxima that bound the k-th value
  int32_t chunks;             // parts of a row, blocks of a cluster
  int32_t target_candidates;  // that a row leaves for the second stage
};

struct plan_launch {
  int32_t kernel;
  int32_t grid;     // blocks
  int32_t block;    // threads a block
  int32_t cluster;  // blocks a cluster, 1: no cluster
};

struct plan {
  int32_t name;
  int32_t groups;
  int32_t chunks;
  int32_t launches;  // of launch, in order; 0 without rows or results
  int64_t chunk_size;
  int64_t workspace_bytes;
  struct plan_launch launch[2];
};

// Makes the plan. Returns 0, or -1 if the shape is none, or no plan that the
// options allow fits it.
int plan_choose(const struct plan_shape* shape, const struct plan_architecture* architecture,
                const struct plan_options* options, struct plan* plan);

// How many tokens of a row there is room for, if its top-k is at most shape->k, or, with 0, unknown.
int32_t plan_room(const struct plan_shape* shape);

// What kind of rows are sampled: of which at most shape->k are kept; whole ones, if no row has a top-k, and none of the answers but
// tokens is asked for; those that the same launch edits.
enum plan_rows { ROWS_KEPT, ROWS_WHOLE, ROWS_EDITED };

// Makes the plan of sampling. Returns 0, or -1 if the shape is none. The chunks are the blocks of a row.
int plan_sample(const struct plan_shape* shape, const struct plan_architecture* architecture, int rows, struct plan* plan);

// Whether the launch that samples can edit rows, which have so many biases and penalties; fits: there is room for what top-k leaves.
int plan_edits_in_launch(const struct plan_shape* shape, int fits, int64_t edits);

// Makes the plan of a launch that edits rows before they are sampled. Returns 0, or -1 if the shape is none.
int plan_edit(const struct plan_shape* shape, struct plan* plan);

// Makes the plan of verifying drafts for so many rows of target logits. Returns 0, or -1 if the shape is none.
int plan_verify(const struct plan_shape* shape, const struct plan_architecture* architecture, struct plan* plan);

// The group maxima that bound the k-th value.
int plan_groups(int64_t k);

// The name of a plan, and of a kernel in an image.
const char* plan_name_of(int name);
const char* plan_symbol_of(int dtype, int kernel);

// The threads of a block, of every kernel.
int plan_block_threads(void);
