#include "plan.h"

#include <stddef.h>

#include "plan_table.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int is_group_count(int groups) {
  for (int i = 0; i < COUNT(kGroupCounts); i++) {
    if (groups == kGroupCounts[i]) return 1;
  }
  return 0;
}

static int valid(const struct plan_shape* s, const struct plan_options* o) {
  if (s->dtype < 0 || s->dtype >= PLAN_DTYPES) return 0;
  if (s->rows < 0 || s->vocab < 0 || s->vocab > INT32_MAX || s->k < 0 || s->k > s->vocab) return 0;
  if (s->rows > 0 && s->k > INT64_MAX / s->rows) return 0;
  if (o->name < PLAN_CHOSEN || o->name > PLAN_ANY || o->chunks < 0 || o->target_candidates < 0) return 0;
  return o->groups == 0 || is_group_count(o->groups);
}

static int has_clusters(const struct plan_architecture* a) { return a->cluster_blocks > 1; }

static int fastest(const struct plan_shape* s, const struct plan_architecture* a) {
  if (s->k > kFastK) return PLAN_ANY;
  if (has_clusters(a) && s->k <= kClusterK && s->vocab * kDTypeBytes[s->dtype] >= kClusterBytes && s->rows <= a->multiprocessors / kClusterRows) {
    return PLAN_CLUSTER;
  }
  return PLAN_BLOCK;
}

static int64_t most_k(int name) { return name == PLAN_ANY ? INT32_MAX : name == PLAN_CLUSTER ? kClusterK : kFastK; }

static int choose_groups(int64_t k, const struct plan_options* o) {
  const int most = kGroupCounts[COUNT(kGroupCounts) - 1];
  if (o->target_candidates > 0) {
    for (int i = 0; i < COUNT(kGroupCounts); i++) {
      const int n = kGroupCounts[i];
      if (n >= least(k, most) && n >= least(o->target_candidates / 2, most)) return n;
    }
  }
  for (int i = 0; i < COUNT(kGroupsByK); i++) {
    if (k <= kGroupsByK[i].k) return (int)least(kGroupsByK[i].groups, most);
  }
  return most;
}

static int cluster_chunks(const struct plan_shape* s, const struct plan_architecture* a) {
  int chunks = (int)least(kClusterBlocks, a->cluster_blocks);
  while (chunks > 2 && s->vocab / chunks < kClusterChunk) chunks /= 2;
  return chunks;
}

// The logits of every chunk but the last: whole vectors of 16 bytes.
static int64_t chunk_size(const struct plan_shape* s, int64_t chunks) {
  if (chunks == 1) return s->vocab;
  const int64_t vector = 16 / kDTypeBytes[s->dtype];
  return ((s->vocab + chunks - 1) / chunks + vector - 1) / vector * vector;
}

static int chunks_fit(const struct plan_shape* s, int64_t chunks) {
  const int64_t last = s->vocab - (chunks - 1) * chunk_size(s, chunks);
  return chunks <= kMergeCandidates / s->k && last >= s->k;
}

static int stage1_chunks(const struct plan_shape* s, const struct plan_options* o) {
  int64_t target = least(o->target_candidates, kMergeCandidates);
  if (target == 0) target = kTargetStage2;
  int64_t chunks = least((target + s->k / 2) / s->k, kMergeCandidates / s->k);
  if (chunks < 1) chunks = 1;
  while (chunks > 1 && !chunks_fit(s, chunks)) chunks--;
  return (int)chunks;
}

static int add_of(struct plan* p, int kernel, int64_t grid, int threads, int cluster) {
  p->launch[p->launches++] = (struct plan_launch){kernel, (int32_t)grid, threads, cluster};
  return 0;
}
static int add(struct plan* p, int kernel, int64_t grid, int cluster) { return add_of(p, kernel, grid, kBlockThreads, cluster); }

// Whether a candidate fits a word of 32 bits.
static int is_narrow(const struct plan_shape* s) { return kDTypeBytes[s->dtype] == 2 && s->vocab <= kNarrowVocab; }

static int launches(const struct plan_shape* s, struct plan* p) {
  switch (p->name) {
    case PLAN_CLUSTER:
      return add(p, KERNEL_CLUSTER, s->rows * p->chunks, p->chunks);
    case PLAN_TWO_STAGE:
      add(p, KERNEL_STAGE1, s->rows * p->chunks, 1);
      return add(p, KERNEL_STAGE2, s->rows, 1);
    case PLAN_ANY:
      return add(p, KERNEL_ANY, s->rows, 1);
  }
  return add(p, is_narrow(s) ? KERNEL_BLOCK_NARROW : KERNEL_BLOCK, s->rows, 1);
}

int plan_choose(const struct plan_shape* s, const struct plan_architecture* a, const struct plan_options* o, struct plan* p) {
  *p = (struct plan){.name = PLAN_NONE};
  if (!valid(s, o)) return -1;
  if (s->rows == 0 || s->k == 0) return 0;
  p->name = o->name ? o->name : fastest(s, a);
  p->groups = o->groups ? o->groups : choose_groups(s->k, o);
  p->chunks = o->chunks;
  if (s->k > most_k(p->name)) return -1;
  int64_t workspace_words = 0;  // 64-bit words a row
  switch (p->name) {
    case PLAN_CLUSTER:
      if (!has_clusters(a)) return -1;
      if (p->chunks == 0) p->chunks = cluster_chunks(s, a);
      if (p->chunks < 2 || p->chunks > a->cluster_blocks || (p->chunks & (p->chunks - 1))) return -1;
      break;
    case PLAN_TWO_STAGE:
      if (p->chunks == 0) p->chunks = stage1_chunks(s, o);
      if (p->chunks > 1 && !chunks_fit(s, p->chunks)) return -1;
      workspace_words = p->chunks * s->k;
      break;
    default:
      if (p->chunks > 1) return -1;
      p->chunks = 1;
      if (p->name == PLAN_ANY) {
        for (workspace_words = 1; workspace_words < s->k;) workspace_words *= 2;
      }
  }
  if (s->rows > INT32_MAX / p->chunks) return -1;
  if (workspace_words > INT64_MAX / 8 / s->rows) return -1;
  p->workspace_bytes = 8 * workspace_words * s->rows;
  p->chunk_size = chunk_size(s, p->chunks);
  return launches(s, p);
}

int plan_groups(int64_t k) { return choose_groups(k, &(struct plan_options){0}); }

static int samples(const struct plan_shape* s, struct plan* p) {
  *p = (struct plan){.name = PLAN_NONE, .chunks = 1, .chunk_size = s->vocab};
  return s->dtype >= 0 && s->dtype < PLAN_DTYPES && s->rows >= 0 && s->rows <= INT32_MAX && s->vocab >= 1 && s->vocab <= kSampleVocab;
}

int32_t plan_room(const struct plan_shape* s) {
  const int64_t room = is_narrow(s) ? kSampleRoomNarrow : kSampleRoom;
  return (int32_t)least(s->k > 0 && s->k < room ? s->k : room, s->vocab);
}

// How many blocks have a row that is sampled without a top-k.
static int whole_blocks(const struct plan_shape* s, const struct plan_architecture* a) {
  if (!has_clusters(a)) return 1;
  for (int i = 0; i < COUNT(kWholeBlocks); i++) {
    // The table is that of 132 multiprocessors.
    if (s->rows * 132 > (int64_t)kWholeBlocks[i].rows * a->multiprocessors) continue;
    int blocks = (int)least(kWholeBlocks[i].blocks, a->cluster_blocks);
    while (blocks > 1 && s->vocab / blocks < kWholeChunk) blocks /= 2;
    return blocks;
  }
  return 1;
}

int plan_edits_in_launch(const struct plan_shape* s, int fits, int64_t edits) {
  return fits && s->vocab <= kMaskedVocab && edits <= kMostEdits;
}

int plan_edit(const struct plan_shape* s, struct plan* p) {
  if (!samples(s, p)) return -1;
  if (s->rows == 0) return 0;
  p->chunks = (int32_t)((s->vocab + kEditChunk - 1) / kEditChunk);
  if (s->rows > INT32_MAX / p->chunks) return -1;
  return add(p, KERNEL_EDIT, s->rows * p->chunks, 1);
}

int plan_sample(const struct plan_shape* s, const struct plan_architecture* a, int rows, struct plan* p) {
  if (!samples(s, p)) return -1;
  if (s->rows == 0) return 0;
  p->groups = plan_groups(plan_room(s));
  if (rows == ROWS_EDITED) {
    p->groups = plan_groups(plan_room(&(struct plan_shape){s->rows, s->vocab, s->k, PLAN_FLOAT32}));
    return add_of(p, KERNEL_EDITED, s->rows, kSamplingThreads, 1);
  }
  if (rows == ROWS_KEPT) return add_of(p, is_narrow(s) ? KERNEL_SAMPLE_NARROW : KERNEL_SAMPLE, s->rows, kSamplingThreads, 1);
  p->chunks = whole_blocks(s, a);
  if (s->rows > INT32_MAX / p->chunks) return -1;
  return add_of(p, p->chunks > 1 ? KERNEL_WHOLE_CLUSTER : KERNEL_WHOLE, s->rows * p->chunks, kSamplingThreads, p->chunks);
}

int plan_verify(const struct plan_shape* s, const struct plan_architecture* a, struct plan* p) {
  // Blocks of a row, as long as all run at once, two on a multiprocessor, and have some thousand ids each.
  enum { kMost = 8, kTogether = 2, kPart = 1 << 12 };
  if (!samples(s, p)) return -1;
  if (s->rows == 0) return 0;
  while (2 * p->chunks <= least(kMost, a->cluster_blocks) && s->rows * 2 * p->chunks <= (int64_t)kTogether * a->multiprocessors &&
         s->vocab >= 2 * p->chunks * kPart) {
    p->chunks *= 2;
  }
  return add(p, KERNEL_VERIFY, s->rows * p->chunks, p->chunks);
}

const char* plan_name_of(int name) {
  static const char* const names[PLAN_NAMES] = {"", "block", "cluster", "two-stage", "any", "none"};
  return name >= 0 && name < PLAN_NAMES ? names[name] : NULL;
}

const char* plan_symbol_of(int dtype, int kernel) {
  if (dtype < 0 || dtype >= PLAN_DTYPES || kernel < 0 || kernel >= PLAN_KERNELS) return NULL;
  return kSymbols[dtype][kernel];
}

int plan_block_threads(void) { return kBlockThreads; }
