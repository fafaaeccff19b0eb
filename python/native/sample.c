// A row is ranked as far as its top-k asks, or wholly. Then a step keeps the first so many
// tokens, or takes some out and leaves the others in their order. Logits are edited
// on a copy, as float32.
#include "sample.h"

#include <stdlib.h>
#include <string.h>

#include "law.h"
#include "plan.h"
#include "select.h"

static const float kMasked = -__builtin_inff();

// The parameters of a row.
struct parameters {
  float temperature, top_p, min_p, typical_p, top_n_sigma, xtc_probability, xtc_threshold, repetition, frequency, presence;
  int top_k;
  uint64_t seed, position;
};

static struct parameters parameters_of(const struct SampleArguments* a, int64_t row) {
#define OF(name) .name = a->row_##name ? a->row_##name[row] : a->name
  return (struct parameters){OF(temperature), OF(top_k), OF(top_p), OF(min_p), OF(typical_p), OF(top_n_sigma), OF(xtc_probability),
                             OF(xtc_threshold), OF(repetition), OF(frequency), OF(presence),
                             .seed = (uint64_t)(a->row_seed ? a->row_seed[row] : a->seed),
                             .position = (uint64_t)(a->row_position ? a->row_position[row] : a->position)};
#undef OF
}

static bool is_finite(float x) { return x >= -LAW_MOST && x <= LAW_MOST; }
static bool is_share(float x) { return x >= 0 && x <= 1; }

// Each comparison is false for NaN.
static bool are_valid(const struct parameters* p) {
  return p->temperature >= 0 && is_finite(p->temperature) && p->top_p > 0 && is_share(p->top_p) && is_share(p->min_p) &&
         p->typical_p > 0 && is_share(p->typical_p) && is_finite(p->top_n_sigma) && is_share(p->xtc_probability) &&
         is_share(p->xtc_threshold) && p->repetition > 0 && is_finite(p->repetition) && is_finite(p->frequency) && is_finite(p->presence);
}

// A row, and room to work in.
struct row {
  void* memory;
  int vocab;
  float* logits;  // by id
  // The tokens that no step has removed, in contract order.
  int64_t n;
  int64_t* ids;
  float* values;  // their logits
  uint64_t* masses;
  uint64_t total;  // of the masses
  float temperature;
  uint64_t *words, *spare;  // of a sort
  uint32_t* order;
};

static bool make_row(struct row* r, int vocab) {
  const size_t n = (size_t)vocab;
  r->vocab = vocab;
  r->memory = malloc(n * (sizeof *r->ids + sizeof *r->masses + 2 * sizeof *r->words + sizeof *r->values + sizeof *r->logits + sizeof *r->order));
  r->ids = r->memory;
  r->masses = (uint64_t*)(r->ids + n);
  r->words = r->masses + n;
  r->spare = r->words + n;
  r->values = (float*)(r->spare + n);
  r->logits = r->values + n;
  r->order = (uint32_t*)(r->logits + n);
  return r->memory;
}

// The value of a float16.
static float widened(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7fff;
  if (magnitude >= 0x7c00) return law_float(sign | 0x7f800000 | magnitude << 13);
  return law_float(sign | law_bits(law_float(magnitude << 13) * 0x1p112f));
}

static const void* row_of(int dtype, const struct SampleArguments* a, int64_t row) {
  return (const char*)a->selection.logits + (size_t)(row * a->selection.stride) * (dtype == PLAN_FLOAT32 ? 4 : 2);
}

// Sets the logits by id to those that came.
static void widen(struct row* r, int dtype, const void* logits) {
  switch (dtype) {
    case PLAN_FLOAT32: memcpy(r->logits, logits, (size_t)r->vocab * sizeof *r->logits); break;
    case PLAN_FLOAT16:
      for (int i = 0; i < r->vocab; i++) r->logits[i] = widened(((const uint16_t*)logits)[i]);
      break;
    default:
      for (int i = 0; i < r->vocab; i++) r->logits[i] = law_float((uint32_t)((const uint16_t*)logits)[i] << 16);
  }
}

// Makes the row one of the first n tokens of the logits by id.
static bool rank(struct row* r, int64_t n) {
  r->n = n;
  return select_rows(PLAN_FLOAT32, 0, 1, r->vocab, r->vocab, n, r->logits, r->values, r->ids) == 0;
}

// ---------------------------------------------------------------- edits

static bool penalises(const struct parameters* p) { return p->repetition != 1 || p->frequency != 0 || p->presence != 0; }

// Whether some edit of the row changes a logit that is there.
static bool is_edited(const struct SampleArguments* a, const struct parameters* p, int64_t row) {
  const uint32_t vocab = (uint32_t)a->selection.vocab;
  if (a->mask && a->mask_words > 0) return true;
  for (int i = 0; i < a->biases; i++) {
    if ((uint32_t)a->bias_ids[row * a->biases + i] < vocab) return true;
  }
  for (int i = 0; penalises(p) && i < a->penalties; i++) {
    const int64_t at = row * a->penalties + i;
    if ((uint32_t)a->penalty_ids[at] < vocab && (a->penalty_counts[at] > 0 || p->repetition != 1)) return true;
  }
  return false;
}

// Masks, then adds biases, then penalises. What is masked stays masked.
static void edit(struct row* r, const struct SampleArguments* a, const struct parameters* p, int64_t row) {
  const int* const mask = a->mask ? a->mask + row * a->mask_stride : NULL;
  for (int id = 0; mask && id < r->vocab && id / 32 < a->mask_words; id++) {
    if (!((uint32_t)mask[id / 32] >> id % 32 & 1)) r->logits[id] = kMasked;
  }
  for (int i = 0; i < a->biases; i++) {
    const uint32_t id = (uint32_t)a->bias_ids[row * a->biases + i];
    if (id >= (uint32_t)r->vocab) continue;
    const float bias = a->bias[row * a->biases + i];
    if (bias == kMasked) r->logits[id] = kMasked;  // NaN and +Inf, too
    if (r->logits[id] != kMasked) r->logits[id] += bias;
  }
  for (int i = 0; penalises(p) && i < a->penalties; i++) {
    const uint32_t id = (uint32_t)a->penalty_ids[row * a->penalties + i];
    if (id >= (uint32_t)r->vocab || r->logits[id] == kMasked) continue;
    float logit = r->logits[id];
    if (p->repetition != 1) logit = logit > 0 ? logit / p->repetition : logit * p->repetition;
    const float count = (float)a->penalty_counts[row * a->penalties + i];
    if (count > 0) {
      const float often = p->frequency * count;
      logit = logit - often;
      logit = logit - p->presence;
    }
    r->logits[id] = logit;
  }
}

// ---------------------------------------------------------------- steps

// Takes the masses of all tokens beside the first.
static void weigh(struct row* r) {
  const float most = r->values[0], scale = law_scale(r->temperature);
  r->total = 0;
  for (int64_t i = 0; i < r->n; i++) {
    uint64_t mass = LAW_ONE;
    if (r->values[i] != most) mass = most > LAW_MOST ? 0 : law_mass(law_surprise(r->values[i], most, scale));
    r->masses[i] = mass;
    r->total += mass;
  }
}

// Keeps the first n tokens.
static void cut(struct row* r, int64_t n) {
  while (r->n > n) r->total -= r->masses[--r->n];
}

static void keep_heavy(struct row* r, uint64_t least) {
  int64_t n = r->n;
  while (n > 1 && r->masses[n - 1] < least) n--;
  cut(r, n);
}

static void keep_top_p(struct row* r, float top_p) {
  const uint64_t enough = law_ceil_product(top_p, r->total);
  uint64_t sum = r->masses[0];
  int64_t n = 1;
  while (n < r->n && sum < enough) sum += r->masses[n++];
  cut(r, n);
}

// Keeps the places that are marked, one of them at least.
static void keep_marked(struct row* r, const uint64_t* marked) {
  const bool first = marked[0];
  int64_t n = 0;
  uint64_t total = 0;
  for (int64_t i = 0; i < r->n; i++) {
    if (!marked[i]) continue;
    r->ids[n] = r->ids[i], r->values[n] = r->values[i], r->masses[n] = r->masses[i];
    total += r->masses[n++];
  }
  r->n = n;
  r->total = total;
  if (!first) weigh(r);  // beside another largest
}

enum { kPlaceBits = 20, kPlaces = (1 << kPlaceBits) - 1 };

// Sorts n words upward.
static void sort_up(struct row* r, int64_t n) {
  for (int64_t i = 0; i < n; i++) r->words[i] = ~r->words[i];
  sort_words(r->words, r->spare, n);
  for (int64_t i = 0; i < n; i++) r->words[i] = ~r->words[i];
}

// Orders the places by value and equal values by id: those that only a soft cap has
// made equal, too.
static void order_by_value(struct row* r) {
  for (int64_t begin = 0, end; begin < r->n; begin = end) {
    for (end = begin; end < r->n && r->values[end] == r->values[begin]; end++) {
      r->words[end - begin] = (uint64_t)r->ids[end] << kPlaceBits | (uint64_t)end;
    }
    sort_up(r, end - begin);
    for (int64_t i = begin; i < end; i++) r->order[i] = r->words[i - begin] & kPlaces;
  }
}

// Keeps the most typical tokens: the distance of each, of 33 bits, above its place in the order.
static void keep_typical(struct row* r, float typical_p) {
  order_by_value(r);
  const float most = r->values[0], scale = law_scale(r->temperature);
  uint128 weighted = 0;
  for (int64_t i = 0; i < r->n; i++) {
    int32_t q = 0;
    if (r->values[i] != most) q = most > LAW_MOST ? LAW_LEAST_SURPRISE : law_surprise(r->values[i], most, scale);
    r->words[i] = (uint64_t)-(int64_t)q;
    weighted += (uint128)r->masses[i] * r->words[i];
  }
  const int64_t typical = law_on_grid(law_log_total(r->total)) - law_on_grid(law_entropy(r->total, weighted));
  for (int64_t i = 0; i < r->n; i++) r->spare[i] = r->words[i];
  for (int64_t i = 0; i < r->n; i++) {
    const int64_t d = (int64_t)r->spare[r->order[i]] + typical;
    r->words[i] = (uint64_t)(d < 0 ? -d : d) << kPlaceBits | (uint64_t)i;
  }
  sort_up(r, r->n);
  const uint64_t enough = law_floor_product(typical_p, r->total) + 1;
  memset(r->spare, 0, (size_t)r->n * sizeof *r->spare);
  uint64_t sum = 0;
  for (int64_t i = 0; i < r->n && sum < enough; i++) {
    const uint32_t place = r->order[r->words[i] & kPlaces];
    r->spare[place] = 1;
    sum += r->masses[place];
  }
  keep_marked(r, r->spare);
}

// How far a logit is below the largest, in units of 2^-16, at most 2^31.
static uint64_t below(float logit, float most) {
  const double d = (double)(most - logit) * 0x1p16;
  return (uint64_t)law_nearest(d < 0x1p31 ? d : 0x1p31);
}

// Keeps what is within n standard deviations of the largest logit.
static void keep_top_n_sigma(struct row* r, float n_sigma) {
  const float most = r->values[0];
  int64_t n = 0;
  if (most > LAW_MOST) {
    while (n < r->n && r->values[n] == most) n++;
    return cut(r, n);
  }
  uint64_t finite = 0, sum = 0;
  uint128 squares = 0;
  for (; finite < (uint64_t)r->n && r->values[finite] >= -LAW_MOST; finite++) {
    const uint64_t d = below(r->values[finite], most);
    sum += d;
    squares += (uint128)d * d;
  }
  const double sigma = __builtin_sqrt(law_wide(finite * squares - (uint128)sum * sum)) / (double)finite;
  const double limit = (double)n_sigma * sigma;
  while (n < (int64_t)finite && (double)below(r->values[n], most) <= limit) n++;
  cut(r, n);
}

// Drops what is likely enough, but the last of it.
static void exclude_top_choices(struct row* r, float threshold) {
  uint64_t least = law_ceil_product(threshold, r->total);
  if (least == 0) least = 1;
  int64_t likely = 0;
  while (likely < r->n && r->masses[likely] >= least) likely++;
  if (likely < 2) return;
  int64_t last = likely - 1;  // of what is equal to it, the largest id
  for (int64_t i = last; i-- > 0 && r->values[i] == r->values[likely - 1];) {
    if (r->ids[i] > r->ids[last]) last = i;
  }
  for (int64_t i = 0; i < r->n; i++) r->spare[i] = i >= likely || i == last;
  keep_marked(r, r->spare);
}

// Runs the steps over a row; what it is left with has a token that can be drawn.
// Returns -1 without memory, else an enum sample_status.
static int run(struct row* r, int dtype, const struct SampleArguments* a, const struct parameters* p, int64_t row) {
  const bool cap_kept = a->min_p_last, edited = is_edited(a, p, row);  // the preset nanochat caps what it keeps
  const bool greedy = p->temperature < a->greedy_below;
  widen(r, dtype, row_of(dtype, a, row));
  if (edited) {
    for (int id = 0; a->softcap > 0 && !cap_kept && id < r->vocab; id++) r->logits[id] = law_capped(r->logits[id], a->softcap);
    edit(r, a, p, row);
  }
  if (!rank(r, greedy ? 1 : p->top_k > 0 && p->top_k < r->vocab ? p->top_k : r->vocab)) return -1;
  if (r->values[0] != r->values[0]) return SAMPLE_NAN;
  if (r->values[0] == kMasked) return SAMPLE_EMPTY;
  if (a->softcap > 0 && (cap_kept || !edited)) {  // ties that the cap makes do not count
    for (int64_t i = 0; i < r->n; i++) r->values[i] = law_capped(r->values[i], a->softcap);
  }
  r->temperature = greedy ? 1 : p->temperature;
  weigh(r);
  if (!a->min_p_last) keep_heavy(r, law_ceil_product(p->min_p, LAW_ONE));
  if (p->top_p < 1) keep_top_p(r, p->top_p);
  if (a->min_p_last) keep_heavy(r, law_ceil_product(p->min_p, LAW_ONE));
  if (p->typical_p < 1) keep_typical(r, p->typical_p);
  if (p->top_n_sigma > 0) keep_top_n_sigma(r, p->top_n_sigma);
  const uint32_t first = (uint32_t)a->first_draw + (uint32_t)row * (uint32_t)a->row_draws;
  if (p->xtc_probability > 0 && p->xtc_threshold <= 0.5f && law_coin(law_uniform(p->seed, p->position, first, LAW_XTC), p->xtc_probability)) {
    exclude_top_choices(r, p->xtc_threshold);
  }
  return SAMPLE_OK;
}

// ---------------------------------------------------------------- answers

static void write_token(const struct SampleArguments* a, int64_t row, int draw, int64_t token) {
  const int64_t at = row * a->selection.result_stride + draw;
  if (a->selection.index_bytes == 8) {
    ((int64_t*)a->tokens)[at] = token;
  } else {
    ((int32_t*)a->tokens)[at] = (int32_t)token;
  }
}

// The logarithm of the probability of a logit beside the largest, where the masses have that total.
static float logprob(float logit, float most, float temperature, uint64_t total) {
  double x = ((double)logit - (double)most) / (double)temperature;
  if (most != most) {
    x = __builtin_nan("");
  } else if (most > LAW_MOST && logit == most) {
    x = 0;
  } else if (logit < -LAW_MOST) {
    return kMasked;
  }
  return (float)(x - LAW_LN2 * law_log_total(total));
}

static void write_logprob(const struct SampleArguments* a, int64_t row, int draw, float logprob, int64_t rank) {
  a->logprobs[row * a->draws + draw] = logprob;
  if (a->ranks) a->ranks[row * a->draws + draw] = (int)rank;
}

// Writes the first n of the row's tokens as the most likely.
static void write_top(const struct SampleArguments* a, int64_t row, const struct row* r, int64_t n) {
  for (int i = 0; i < a->top_count; i++) {
    const bool there = i < n;
    a->top_ids[row * a->top_count + i] = there ? (int)r->ids[i] : a->invalid_token;
    a->top_logprobs[row * a->top_count + i] = there ? logprob(r->values[i], r->values[0], r->temperature, r->total) : kMasked;
  }
}

// Draws the tokens of a row, and returns how many there are. places get those in the row.
static int draw_tokens(struct row* r, const struct SampleArguments* a, const struct parameters* p, int64_t row, int64_t* places) {
  for (int64_t i = 0; i < r->n; i++) r->words[i] = (uint64_t)r->ids[i] << kPlaceBits | (uint64_t)i;
  sort_up(r, r->n);
  for (int64_t i = 0; i < r->n; i++) r->words[i] &= kPlaces;
  uint64_t* const left = r->spare;
  for (int64_t i = 0; i < r->n; i++) left[i] = r->masses[r->words[i]];
  uint64_t total = r->total;
  const uint32_t first = (uint32_t)a->first_draw + (uint32_t)row * (uint32_t)a->row_draws;
  for (int draw = 0; draw < a->draws; draw++) {
    if (total == 0) return draw;
    uint64_t target = law_target(law_uniform(p->seed, p->position, first + (uint32_t)draw, LAW_DRAW), total);
    int64_t i = 0;
    while (target >= left[i]) target -= left[i++];
    places[draw] = (int64_t)r->words[i];
    write_token(a, row, draw, r->ids[places[draw]]);
    if (a->replacement) continue;
    total -= left[i];
    left[i] = 0;
  }
  return a->draws;
}

// Writes the logprobs of a row as it came, at a temperature of 1. Returns -1 without memory.
static int write_raw(struct row* r, int dtype, const struct SampleArguments* a, int64_t row, int drawn, const int64_t* tokens) {
  widen(r, dtype, row_of(dtype, a, row));
  const int64_t n = a->top_count < r->vocab ? a->top_count : r->vocab;
  if (!rank(r, n ? n : 1)) return -1;
  const float most = r->values[0];
  r->temperature = 1;
  r->total = 0;
  if (most == most && most != kMasked) {
    const float scale = law_scale(1);
    for (int id = 0; id < r->vocab; id++) {
      const float logit = r->logits[id];
      r->total += logit == most ? LAW_ONE : most > LAW_MOST ? 0 : law_mass(law_surprise(logit, most, scale));
    }
  }
  for (int draw = 0; draw < drawn; draw++) {
    const float mine = r->logits[tokens[draw]];
    int64_t rank = 1;
    for (int id = 0; id < r->vocab; id++) {
      const float logit = r->logits[id];
      const bool over = mine == mine && (logit > mine || logit != logit);
      const bool equal = logit == mine || (logit != logit && mine != mine);
      rank += over || (equal && id < tokens[draw]);
    }
    write_logprob(a, row, draw, logprob(mine, most, 1, r->total), rank);
  }
  if (a->top_ids) write_top(a, row, r, drawn ? n : 0);
  return 0;
}

// Writes what the steps leave of a row, or of none; -1 where the device draws by passes.
static void write_kept(const struct SampleArguments* a, const struct parameters* p, int64_t row, const struct row* r, bool there) {
  const int top_k = p->temperature < a->greedy_below ? 1 : p->top_k > 0 && p->top_k < r->vocab ? p->top_k : r->vocab;
  const bool told = top_k <= a->selection.k;
  a->kept_count[row] = !there ? 0 : told ? (int)r->n : -1;
  for (int64_t i = 0; there && told && i < r->n; i++) {
    a->kept[row * a->selection.k + i] = (int)r->ids[i];
    if (a->kept_probabilities) a->kept_probabilities[row * a->selection.k + i] = (float)((double)r->masses[i] / (double)r->total);
  }
}

static int sample_row(struct row* r, int dtype, const struct SampleArguments* a, int64_t row, int64_t* places) {
  const struct parameters p = parameters_of(a, row);
  int status = are_valid(&p) ? run(r, dtype, a, &p, row) : SAMPLE_BAD_PARAMETERS;
  if (status < 0) return status;
  if (a->kept) write_kept(a, &p, row, r, status == SAMPLE_OK);
  const int drawn = status == SAMPLE_OK ? draw_tokens(r, a, &p, row, places) : 0;
  if (status == SAMPLE_OK && drawn < a->draws) status = SAMPLE_EXHAUSTED;
  for (int draw = drawn; draw < a->draws; draw++) write_token(a, row, draw, a->invalid_token);
  if (a->status) a->status[row] = (unsigned char)status;
  if (!a->logprobs) return 0;
  for (int draw = drawn; draw < a->draws; draw++) write_logprob(a, row, draw, kMasked, 0);
  if (!a->processed) {
    for (int draw = 0; draw < drawn; draw++) places[draw] = r->ids[places[draw]];
    return write_raw(r, dtype, a, row, drawn, places);
  }
  for (int draw = 0; draw < drawn; draw++) {
    write_logprob(a, row, draw, logprob(r->values[places[draw]], r->values[0], r->temperature, r->total), places[draw] + 1);
  }
  if (a->top_ids) write_top(a, row, r, drawn ? r->n : 0);
  return 0;
}

int sample_rows(int dtype, const struct SampleArguments* a) {
  struct row r;
  int64_t* const places = malloc((size_t)(a->draws ? a->draws : 1) * sizeof *places);
  int status = places && make_row(&r, a->selection.vocab) ? 0 : -1;
  for (int64_t row = 0; status == 0 && row < a->selection.rows; row++) status = sample_row(&r, dtype, a, row, places);
  if (places) free(r.memory);
  free(places);
  return status;
}

bool sample_parameters_valid(const struct SampleArguments* a) {
  const struct parameters p = parameters_of(a, 0);
  return are_valid(&p);
}

int sample_law(int dtype, const struct SampleArguments* a, uint64_t* masses, uint64_t* total) {
  const struct parameters p = parameters_of(a, 0);
  struct row r;
  if (!make_row(&r, a->selection.vocab)) return -1;
  const int status = run(&r, dtype, a, &p, 0);
  memset(masses, 0, (size_t)r.vocab * sizeof *masses);
  for (int64_t i = 0; status == SAMPLE_OK && i < r.n; i++) masses[r.ids[i]] = r.masses[i];
  *total = status == SAMPLE_OK ? r.total : 0;
  free(r.memory);
  return status;
}
