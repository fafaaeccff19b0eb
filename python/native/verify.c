// Laws are spread over the vocabulary, each row's in turn: what follows from them is then a few
// lines, as in sampling/speculative.go.
#include <stdlib.h>

#include "law.h"
#include "plan.h"
#include "sample.h"

// One sequence, and the laws of its row that is looked at.
struct sequence {
  int dtype;
  const struct VerifyArguments* a;
  int64_t number;
  int drafted;
  uint64_t *target, *draft;  // masses, by id
  uint64_t target_total, draft_total;
};

static int64_t drafted_token(const struct sequence* s, int i) {
  const int64_t at = s->number * s->a->drafted_stride + i;
  return s->a->drafted_bytes == 8 ? ((const int64_t*)s->a->drafted)[at] : ((const int32_t*)s->a->drafted)[at];
}

// The arguments that sample the row of a sequence by a law.
static struct SampleArguments row_arguments(const struct sequence* s, const struct LawArguments* law, int64_t row) {
  const int64_t bytes = s->dtype == PLAN_FLOAT32 ? 4 : 2;
  return (struct SampleArguments){
      .selection = {.logits = (const char*)law->logits + row * law->stride * bytes, .rows = 1, .vocab = s->a->vocab},
      .temperature = law->row_temperature ? law->row_temperature[s->number] : law->temperature,
      .top_k = law->row_top_k ? law->row_top_k[s->number] : law->top_k,
      .top_p = law->row_top_p ? law->row_top_p[s->number] : law->top_p,
      .min_p = law->row_min_p ? law->row_min_p[s->number] : law->min_p,
      .softcap = law->softcap,
      .greedy_below = law->greedy_below,
      .min_p_last = law->min_p_last,
      .typical_p = 1,
      .repetition = 1,
  };
}

static const float* probabilities_of(const struct sequence* s, int i) {
  return s->a->probabilities + (s->number * s->a->drafts + i) * s->a->draft.stride;
}

// Whether the drafted tokens and the parameters of the sequence are in their ranges.
static bool is_sound(const struct sequence* s) {
  const struct VerifyArguments* const a = s->a;
  if (s->drafted < 0 || s->drafted > a->drafts) return false;
  const struct SampleArguments target = row_arguments(s, &a->target, 0), draft = row_arguments(s, &a->draft, 0);
  if (!sample_parameters_valid(&target)) return false;
  if (s->drafted > 0 && a->draft.logits && !sample_parameters_valid(&draft)) return false;
  for (int i = 0; i < s->drafted; i++) {
    const int64_t token = drafted_token(s, i);
    if (token < 0 || token >= a->vocab) return false;
    for (int id = 0; !a->draft.logits && id < a->vocab; id++) {
      if (!(probabilities_of(s, i)[id] >= 0 && probabilities_of(s, i)[id] <= 1)) return false;
    }
  }
  return true;
}

// Finds the laws of row i. Returns as sample_law.
static int find_laws(struct sequence* s, int i) {
  const struct VerifyArguments* const a = s->a;
  const struct SampleArguments target = row_arguments(s, &a->target, s->number * (a->drafts + 1) + i);
  const int status = sample_law(s->dtype, &target, s->target, &s->target_total);
  if (status || i == s->drafted) return status;
  if (a->draft.logits) {
    const struct SampleArguments draft = row_arguments(s, &a->draft, s->number * a->drafts + i);
    return sample_law(s->dtype, &draft, s->draft, &s->draft_total);
  }
  s->draft_total = 0;
  for (int id = 0; id < a->vocab; id++) {
    s->draft[id] = (uint64_t)law_nearest((double)probabilities_of(s, i)[id] * LAW_ONE);
    s->draft_total += s->draft[id];
  }
  return SAMPLE_OK;
}

// u * x / 2^64.
static uint128 high_part(uint64_t u, uint128 x) { return (uint128)u * (uint64_t)(x >> 64) + ((uint128)u * (uint64_t)x >> 64); }

// What the target has more of than the draft, times both totals.
static uint128 excess(const struct sequence* s, int64_t id) {
  const uint128 more = (uint128)s->target[id] * s->draft_total, less = (uint128)s->draft[id] * s->target_total;
  return more < less ? 0 : more - less;
}

static int64_t draw(const uint64_t* masses, uint64_t target) {
  int64_t id = 0;
  while (target >= masses[id]) target -= masses[id++];
  return id;
}

// A token of the residual, or of the target if there is none.
static int64_t draw_residual(struct sequence* s, uint64_t u) {
  enum { kMassBits = 62 };
  uint128 sum = 0;
  for (int id = 0; id < s->a->vocab; id++) sum += excess(s, id);
  if (sum == 0) return draw(s->target, law_target(u, s->target_total));
  int shift = 0;
  while (sum >> shift >> kMassBits) shift++;
  uint64_t total = 0;
  for (int id = 0; id < s->a->vocab; id++) {
    s->draft[id] = (uint64_t)(excess(s, id) >> shift);
    total += s->draft[id];
  }
  return draw(s->draft, law_target(u, total));
}

static void write_token(const struct sequence* s, int i, int64_t token) {
  const int64_t at = s->number * s->a->result_stride + i;
  if (s->a->index_bytes == 8) {
    ((int64_t*)s->a->tokens)[at] = token;
  } else {
    ((int32_t*)s->a->tokens)[at] = (int32_t)token;
  }
}

// Returns -1 without memory.
static int verify_sequence(struct sequence* s) {
  const struct VerifyArguments* const a = s->a;
  s->drafted = a->drafted_count ? a->drafted_count[s->number] : a->drafts;
  const uint64_t seed = (uint64_t)(a->row_seed ? a->row_seed[s->number] : a->seed);
  const uint64_t position = (uint64_t)(a->row_position ? a->row_position[s->number] : a->position);
  const uint32_t number = (uint32_t)a->first_draw + (uint32_t)s->number * (uint32_t)a->row_draws;
  int status = is_sound(s) ? SAMPLE_OK : SAMPLE_BAD_PARAMETERS;
  int accepted = 0;
  int64_t last = -1;
  while (status == SAMPLE_OK && last < 0) {
    const int i = accepted;
    status = find_laws(s, i);
    if (status < 0) return status;
    if (status) break;
    if (i == s->drafted) {
      last = draw(s->target, law_target(law_uniform(seed, position + (uint64_t)i, number, LAW_DRAW), s->target_total));
      break;
    }
    const int64_t token = drafted_token(s, i);
    const uint128 more = (uint128)s->target[token] * s->draft_total, less = (uint128)s->draft[token] * s->target_total;
    if (high_part(law_uniform(seed, position + (uint64_t)i, number, LAW_ACCEPT), less) < more) {
      write_token(s, accepted++, token);
    } else {
      last = draw_residual(s, law_uniform(seed, position + (uint64_t)i, number, LAW_RESIDUAL));
    }
  }
  if (last >= 0) write_token(s, accepted, last);
  for (int i = accepted + (last >= 0); i <= a->drafts; i++) write_token(s, i, a->invalid_token);
  if (a->accepted) a->accepted[s->number] = accepted;
  if (a->status) a->status[s->number] = (unsigned char)status;
  return 0;
}

int verify_sequences(int dtype, const struct VerifyArguments* a) {
  struct sequence s = {.dtype = dtype, .a = a};
  s.target = malloc((size_t)a->vocab * 2 * sizeof *s.target);
  s.draft = s.target + a->vocab;
  int status = s.target ? 0 : -1;
  for (; status == 0 && s.number < a->sequences; s.number++) status = verify_sequence(&s);
  free(s.target);
  return status;
}
