// Sampling: a call from a PyTorch tensor to one launch, or to the sampling on the CPU.
//
// What the kernels read of each row is memory of tensors, so that a captured graph serves every
// step; aikf/_sample.py has made them what the kernels take. The short way of a call that has
// numbers alone is here from its beginning to its end.
#include "module.h"

#include <stddef.h>
#include <string.h>

// Sampler answers the calls that sample.
typedef struct {
  PyObject ob_base;
  Selector* selector;   // knows torch and the devices
  PyObject* capturing;  // whether the current stream is captured
  PyObject* generator;  // of a generator, or None for the default one, and the ordinal of the logits' device, -1 for the CPU: the generator
  PyObject* draw_seed;  // of a generator of the CPU: a seed
  PyObject* dispatch;   // what a short call is that is not short
  // The generator that was checked last, and for which device.
  PyObject* checked;
  int checked_device;
} Sampler;

enum {
  kOffsetStep = 4,       // the least by which torch advances a generator
  kMostDraws = 1 << 24,  // of a row
  kKept = 1024,          // tokens for which there is room in a kept set
};

#define kMost 0x1.fffffep127  // the largest finite float32

static const float kGreedyBelow = 1e-5f, kColdest = 0x1p-100f;  // of the presets vllm and nanochat

// Sets the seed and the position that a generator has next, and moves it on.
static bool take_numbers(Sampler* s, const Batch* b, PyObject* generator, struct SampleArguments* a) {
  if (b->device != kDevices) {
    const int captured = is_on(s->capturing);
    if (captured < 0) return false;
    if (captured) {
      PyErr_Format(PyExc_RuntimeError,
                   "aikf.%s: a generator would be frozen in the graph that is captured; give aikf.sample seed= and position=, int64 tensors on the "
                   "device, and advance the position there",
                   b->call);
      return false;
    }
  }
  if (generator == Py_None || generator != s->checked || s->checked_device != b->device) {
    PyObject* found = PyObject_CallFunction(s->generator, "Ois", generator, b->device == kDevices ? -1 : b->device, b->call);
    if (!found) return false;
    if (generator != Py_None) {
      Py_INCREF(found);
      PyObject* const last = s->checked;
      s->checked = found;
      s->checked_device = b->device;
      Py_XDECREF(last);
    }
    generator = found;
  } else {
    Py_INCREF(generator);
  }
  bool done = false;
  if (b->device == kDevices) {
    PyObject* seed = PyObject_CallFunctionObjArgs(s->draw_seed, generator, NULL);
    if (seed) a->seed = (long long)PyLong_AsUnsignedLongLongMask(seed);
    Py_XDECREF(seed);
    done = !PyErr_Occurred();
  } else {
    PyObject* seed = call0(generator, names.initial_seed);
    PyObject* offset = seed ? call0(generator, names.get_offset) : NULL;
    PyObject* next = NULL;
    if (offset) {
      a->seed = (long long)PyLong_AsUnsignedLongLongMask(seed);
      a->position = (long long)PyLong_AsUnsignedLongLongMask(offset);
      if (!PyErr_Occurred()) next = PyLong_FromUnsignedLongLong((unsigned long long)a->position + kOffsetStep);
    }
    PyObject* moved = next ? PyObject_CallMethodObjArgs(generator, names.set_offset, next, NULL) : NULL;
    done = moved;
    Py_XDECREF(moved);
    Py_XDECREF(next);
    Py_XDECREF(offset);
    Py_XDECREF(seed);
  }
  Py_DECREF(generator);
  return done;
}

static struct SampleArguments defaults(void) {
  return (struct SampleArguments){.selection = {.index_bytes = 8},
                                  .temperature = 1,
                                  .top_p = 1,
                                  .typical_p = 1,
                                  .xtc_threshold = 1,
                                  .repetition = 1,
                                  .greedy_below = kGreedyBelow,
                                  .draws = 1,
                                  .replacement = 1,
                                  .invalid_token = -1};
}

static void set_preset(struct SampleArguments* a, bool nanochat) {
  a->greedy_below = nanochat ? kColdest : kGreedyBelow;
  a->min_p_last = nanochat;
}

static bool penalises(const struct SampleArguments* a) {
  return a->row_repetition || a->row_frequency || a->row_presence || a->repetition != 1 || a->frequency != 0 || a->presence != 0;
}

static bool is_edited(const struct SampleArguments* a) { return a->mask || a->biases || a->penalties; }

// Whether nothing is asked for that a GPU has only behind a top-k for which there is room. Sets an error.
static bool check_behind(const Batch* b, const struct SampleArguments* a) {
  const char* const step = a->row_typical_p || a->typical_p < 1                                    ? "typical_p"
                           : a->row_top_n_sigma || a->top_n_sigma > 0                              ? "top_n_sigma"
                           : a->row_xtc_probability || (a->xtc_probability > 0 && a->xtc_threshold <= 0.5f) ? "xtc_probability"
                           : a->logprobs && a->processed                                           ? "processed_logprobs"
                                                                                                   : NULL;
  if (!step) return true;
  PyErr_Format(PyExc_NotImplementedError, "aikf.%s: %s on a GPU without a top_k from 1 to %d, got %d", b->call, step, a->selection.k, a->top_k);
  return false;
}

// Puts the launch that samples into the stream. The arguments have the most that a row keeps.
static bool launch_sample(Selector* s, const Batch* b, struct SampleArguments* a, struct plan_shape shape, bool greedy, int rows) {
  const int k = a->selection.k;
  const bool fits = b->vocab <= k || greedy || (a->top_k > 0 && a->top_k <= k);
  if (!fits && !a->row_top_k && !check_behind(b, a)) return false;
  const bool steps = a->row_top_k || a->row_typical_p || a->row_top_n_sigma || a->row_xtc_probability || a->row_xtc_threshold;
  if (rows == ROWS_KEPT && !a->logprobs && !a->kept && !steps && (a->top_k < 1 || a->top_k >= b->vocab) && k < b->vocab && !greedy) rows = ROWS_WHOLE;
  struct plan plan;
  if (plan_sample(&shape, &device_of(s, b->device)->architecture, rows, &plan)) {
    PyErr_Format(PyExc_RuntimeError, "aikf.%s: no launch plan for rows = %lld, vocab = %lld", b->call, (long long)b->rows, (long long)b->vocab);
    return false;
  }
  a->selection.groups = plan.groups;
  a->selection.chunks = plan.chunks;
  return launch_plan(s, b, &plan, a);
}

// Edits rows in a launch of their own, and samples from what it writes: float32 rows, and behind them a temperature of each, NaN for
// one whose edits are out of range.
static bool sample_behind_edits(Selector* s, Batch* b, struct SampleArguments* a, struct plan_shape wide, bool greedy) {
  struct plan plan;
  struct plan_shape given = wide;
  given.dtype = b->dtype;
  if (plan_edit(&given, &plan)) {
    PyErr_Format(PyExc_RuntimeError, "aikf.%s: no launch plan for edits of rows = %lld, vocab = %lld", b->call, (long long)b->rows, (long long)b->vocab);
    return false;
  }
  uintptr_t values;
  PyObject* layout = Py_BuildValue("((L)(i))", (long long)(b->rows * (b->vocab + 1)), 1);
  PyObject* workspace = layout ? allocate(s, b, layout, PLAN_FLOAT32, &values) : NULL;
  Py_XDECREF(layout);
  if (!workspace) return false;
  const uintptr_t temperatures = values + sizeof(float) * (size_t)(b->rows * b->vocab);
  struct SampleArguments edit = *a;
  edit.selection.values = (void*)values;
  edit.selection.workspace = (void*)temperatures;
  edit.selection.result_stride = b->vocab;
  edit.selection.chunks = plan.chunks;
  if (a->min_p_last) edit.softcap = 0;
  bool done = launch_plan(s, b, &plan, &edit);
  if (done) {
    if (!a->min_p_last) a->softcap = 0;
    a->selection.logits = (const void*)values;
    a->selection.stride = b->vocab;
    a->selection.k = plan_room(&wide);
    a->row_temperature = (const float*)temperatures;
    a->mask = NULL;
    a->biases = a->penalties = 0;
    a->row_repetition = a->row_frequency = a->row_presence = NULL;
    b->dtype = PLAN_FLOAT32;
    done = launch_sample(s, b, a, wide, greedy, ROWS_KEPT);
  }
  Py_DECREF(workspace);
  return done;
}

// Samples rows that have edits.
static bool sample_edited(Selector* s, Batch* b, struct SampleArguments* a, struct plan_shape shape, bool greedy) {
  struct plan_shape wide = shape;
  wide.dtype = PLAN_FLOAT32;
  const int room = plan_room(&wide);
  const bool fits = b->vocab <= room || (a->row_top_k ? b->k > 0 && b->k <= room : greedy || (a->top_k > 0 && a->top_k <= room));
  const bool cap_before = a->softcap > 0 && !a->min_p_last;
  if (!cap_before && plan_edits_in_launch(&wide, fits, (int64_t)a->biases + a->penalties)) {
    a->selection.k = room;
    return launch_sample(s, b, a, shape, greedy, ROWS_EDITED);
  }
  return sample_behind_edits(s, b, a, wide, greedy);
}

// The same, and in a launch behind it the logprobs of the logits as they came.
static bool sample_edited_and_tell(Selector* s, Batch* b, struct SampleArguments* a, struct plan_shape shape, bool greedy) {
  const Batch given = *b;
  struct SampleArguments told = defaults();
  told.selection = a->selection;
  told.selection.k = a->top_count > 1 ? a->top_count : 1;
  if (told.selection.k > b->vocab) told.selection.k = (int)b->vocab;
  told.tokens = a->tokens;
  told.logprobs = a->logprobs;
  told.ranks = a->ranks;
  told.top_ids = a->top_ids;
  told.top_logprobs = a->top_logprobs;
  told.top_count = a->top_count;
  told.draws = a->draws;
  told.invalid_token = a->invalid_token;
  told.told = 1;
  a->invalid_token = -1;  // till then: what is wanted may be an id
  a->logprobs = a->top_logprobs = NULL;
  a->ranks = a->top_ids = NULL;
  a->top_count = 0;
  if (!sample_edited(s, b, a, shape, greedy)) return false;
  shape.k = told.selection.k;
  return launch_sample(s, &given, &told, shape, true, ROWS_KEPT);
}

// Samples the rows of the batch, whose k is the most that a row's top-k is, or 0.
static bool sample_batch(Selector* s, Batch* b, struct SampleArguments* a) {
  if (b->rows == 0) return true;
  a->selection.logits = (const void*)b->logits;
  a->selection.stride = b->stride;
  a->selection.result_stride = a->draws;
  a->selection.rows = (int)b->rows;
  a->selection.vocab = (int)b->vocab;
  if (!penalises(a)) a->penalties = 0;
  const bool greedy = !a->row_temperature && a->temperature < a->greedy_below;
  if (!a->kept) {
    if (greedy) b->k = 1;
  } else if (b->k < 1 || b->k > kKept) {
    b->k = kKept;
  }
  const struct plan_shape shape = {b->rows, b->vocab, b->k, b->dtype};
  a->selection.k = plan_room(&shape);
  if (b->device == kDevices) {
    int status;
    PyThreadState* thread = b->rows * b->vocab > kSerialLogits ? PyEval_SaveThread() : NULL;
    status = sample_rows(b->dtype, a);
    if (thread) PyEval_RestoreThread(thread);
    if (status) PyErr_NoMemory();
    return status == 0;
  }
  if (!device_of(s, b->device)) return false;
  if (!is_edited(a)) return launch_sample(s, b, a, shape, greedy, ROWS_KEPT);
  const bool tells = a->logprobs && !a->processed;
  return tells ? sample_edited_and_tell(s, b, a, shape, greedy) : sample_edited(s, b, a, shape, greedy);
}

// Whether a vocabulary can be sampled from.
static bool check_vocab(const Batch* b) {
  if (b->vocab >= 1 && b->vocab <= 1 << 20) return true;
  PyErr_Format(PyExc_ValueError, "aikf.%s: vocab = %lld is outside 1 to %d", b->call, (long long)b->vocab, 1 << 20);
  return false;
}

// Raises that a parameter is of another type, and returns false. A failure to raise it is one too.
static bool wrong_parameter(const char* call, const char* parameter, const char* want, PyObject* got) {
  PyErr_Clear();
  PyObject* name = PyObject_GetAttrString((PyObject*)Py_TYPE(got), "__name__");
  if (name) PyErr_Format(PyExc_TypeError, "aikf.%s: %s must be %s, not %U", call, parameter, want, name);
  Py_XDECREF(name);
  return false;
}

// Reads top_k: None is off, and so is what exceeds an int.
static bool read_top_k(const char* call, PyObject* got, bool strict, int* top_k) {
  *top_k = 0;
  if (got == Py_None) return true;
  PyObject* index = PyBool_Check(got) ? NULL : PyNumber_Index(got);
  if (!index) {
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_TypeError)) return false;
    return wrong_parameter(call, "top_k", "int or None", got);
  }
  int overflow;
  const long long k = PyLong_AsLongLongAndOverflow(index, &overflow);
  const bool small = overflow < 0 || (overflow == 0 && k < 1);
  if (small && strict) PyErr_Format(PyExc_ValueError, "aikf.%s: top_k = %S is less than 1", call, index);
  if (!small && overflow == 0 && k <= INT32_MAX) *top_k = (int)k;
  Py_DECREF(index);
  return !(small && strict);
}

static bool read_temperature(const char* call, PyObject* got, float* temperature) {
  if (PyBool_Check(got)) return wrong_parameter(call, "temperature", "float", got);
  const double t = PyFloat_AsDouble(got);
  if (t == -1 && PyErr_Occurred()) {
    return PyErr_ExceptionMatches(PyExc_TypeError) ? wrong_parameter(call, "temperature", "float", got) : false;
  }
  *temperature = (float)t;
  if (*temperature >= 0 && *temperature <= kMost) return true;
  PyErr_Format(PyExc_ValueError, "aikf.%s: temperature = %S is outside [0, +Inf)", call, got);
  return false;
}

// Answers a call of numbers alone with tokens of the shape that the batch is given, or by way of
// dispatch with the same arguments.
static PyObject* sample_short(Sampler* sampler, Batch* b, struct SampleArguments* a, PyObject* generator, bool last_dimension, PyObject* const* args,
                              Py_ssize_t n) {
  Selector* const s = sampler->selector;
  const int quiet = is_plain(s, b->x) ? undisturbed(s) : 0;
  if (quiet < 0) return NULL;
  const enum way way = quiet ? find_batch(s, b, NULL, NULL) : DISPATCH;
  if (way == FAILED) return NULL;
  if (way != DONE || b->rank != 2) {
    PyObject* name = PyUnicode_FromString(b->call);
    PyObject* rest = name ? PyTuple_New(n) : NULL;
    for (Py_ssize_t i = 0; rest && i < n; i++) {
      Py_INCREF(args[i]);
      PyTuple_SetItem(rest, i, args[i]);
    }
    PyObject* answer = rest ? PyObject_CallFunctionObjArgs(sampler->dispatch, name, rest, NULL) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(rest);
    return answer;
  }
  if (!check_vocab(b)) return NULL;
  if (!take_numbers(sampler, b, generator, a)) return NULL;
  b->k = a->top_k;
  b->rank = last_dimension ? 2 : 1;
  b->shape[1] = a->draws;
  a->row_draws = a->draws;
  uintptr_t address;
  PyObject* layout = result_layout(s, b);
  PyObject* tokens = layout ? allocate(s, b, layout, PLAN_DTYPES, &address) : NULL;
  Py_XDECREF(layout);
  if (!tokens) return NULL;
  a->tokens = (void*)address;
  if (!sample_batch(s, b, a)) Py_CLEAR(tokens);
  return tokens;
}

static bool takes(const char* name, Py_ssize_t want, Py_ssize_t n) {
  if (n != want) PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, want, n);
  return n == want;
}

PyDoc_STRVAR(next_token_doc,
             "next_token($self, logits, generator, temperature, top_k, /)\n--\n\n"
             "Draw a token for each row of [rows, vocab] logits, as [rows, 1].");
static PyObject* sampler_next_token(Sampler* s, PyObject* const* args, Py_ssize_t n) {
  if (!takes("next_token", 4, n)) return NULL;
  Batch b = {.call = "nanochat.sample_next_token", .x = args[0]};
  struct SampleArguments a = defaults();
  set_preset(&a, true);
  if (!read_temperature(b.call, args[2], &a.temperature) || !read_top_k(b.call, args[3], false, &a.top_k)) return NULL;
  return sample_short(s, &b, &a, args[1], true, args, n);
}

PyDoc_STRVAR(logits_doc,
             "logits($self, logits, top_k, temperature, generator, num_samples, replacement, /)\n--\n\n"
             "Draw tokens for each row of [rows, vocab] logits: [rows] for one sample, else [rows, num_samples].");
static PyObject* sampler_logits(Sampler* s, PyObject* const* args, Py_ssize_t n) {
  if (!takes("logits", 6, n)) return NULL;
  Batch b = {.call = "sample_logits", .x = args[0]};
  struct SampleArguments a = defaults();
  set_preset(&a, true);
  if (!read_temperature(b.call, args[2], &a.temperature) || !read_top_k(b.call, args[1], true, &a.top_k)) return NULL;
  const long draws = PyLong_AsLong(args[4]);
  if (draws == -1 && PyErr_Occurred()) return NULL;
  if (draws < 1 || draws > kMostDraws) {
    PyErr_Format(PyExc_ValueError, "aikf.sample_logits: num_samples = %ld is outside 1 to %d", draws, kMostDraws);
    return NULL;
  }
  a.draws = (int)draws;
  a.replacement = PyObject_IsTrue(args[5]);
  if (a.replacement < 0) return NULL;
  return sample_short(s, &b, &a, args[3], draws > 1, args, n);
}

// Reads the address of a tensor, or 0 for None.
static bool read_address(PyObject* tensor, void* address) {
  uintptr_t found = 0;
  if (tensor != Py_None) {
    PyObject* pointer = call0(tensor, names.data_ptr);
    if (!pointer) return false;
    found = (uintptr_t)PyLong_AsUnsignedLongLong(pointer);
    Py_DECREF(pointer);
  }
  memcpy(address, &found, sizeof found);
  return true;
}

// Reads as many addresses as a tuple has tensors.
static bool read_addresses(PyObject* tuple, Py_ssize_t n, void* const* addresses) {
  if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != n) {
    PyErr_Format(PyExc_TypeError, "want a tuple of %zd tensors", n);
    return false;
  }
  for (Py_ssize_t i = 0; i < n; i++) {
    if (!read_address(PyTuple_GetItem(tuple, i), addresses[i])) return false;
  }
  return true;
}

// The real parameters, and their ranges.
enum { kReals = 11 };
static const struct {
  const char* name;
  size_t at;
  double least, most;
  bool open;  // least is outside
  const char* range;
} real_parameters[kReals] = {
#define REAL(name, of, ...) {#name, offsetof(struct SampleArguments, of), __VA_ARGS__}
    REAL(temperature, temperature, 0, kMost, false, "[0, +Inf)"),
    REAL(top_p, top_p, 0, 1, true, "(0, 1]"),
    REAL(min_p, min_p, 0, 1, false, "[0, 1]"),
    REAL(typical_p, typical_p, 0, 1, true, "(0, 1]"),
    REAL(top_n_sigma, top_n_sigma, -kMost, kMost, false, "(-Inf, +Inf)"),
    REAL(xtc_probability, xtc_probability, 0, 1, false, "[0, 1]"),
    REAL(xtc_threshold, xtc_threshold, 0, 1, false, "[0, 1]"),
    REAL(repetition_penalty, repetition, 0, kMost, true, "(0, +Inf)"),
    REAL(frequency_penalty, frequency, -kMost, kMost, false, "(-Inf, +Inf)"),
    REAL(presence_penalty, presence, -kMost, kMost, false, "(-Inf, +Inf)"),
    REAL(softcap, softcap, 0, kMost, false, "[0, +Inf)"),
#undef REAL
};

// Sets an error if the real parameter, rounded, is out of its range.
static bool check_real(const char* call, const char* side, int parameter, double given) {
  const float value = (float)given;
  const bool fits = real_parameters[parameter].open ? value > real_parameters[parameter].least : value >= real_parameters[parameter].least;
  if (fits && value <= real_parameters[parameter].most) return true;
  PyObject* number = PyFloat_FromDouble(given);
  if (number) {
    PyErr_Format(PyExc_ValueError, "aikf.%s: %s%s = %S is outside %s", call, side, real_parameters[parameter].name, number, real_parameters[parameter].range);
  }
  Py_XDECREF(number);
  return false;
}

// Sets the real parameters, rounded, or an error.
static bool set_reals(struct SampleArguments* a, const double* reals) {
  for (int i = 0; i < kReals; i++) {
    const float value = (float)reals[i];
    memcpy((char*)a + real_parameters[i].at, &value, sizeof value);
    if (!check_real("sample", "", i, reals[i])) return false;
  }
  return true;
}

PyDoc_STRVAR(sample_doc,
             "sample($self, logits, rows, edits, answers, numbers, /)\n--\n\n"
             "Sample from logits into tensors, whatever of torch is on. Return False if the rows do not lie as they should.");
static PyObject* sampler_sample(Sampler* sampler, PyObject* const* args, Py_ssize_t n) {
  if (!takes("sample", 5, n)) return NULL;
  Batch b = {.call = "sample", .x = args[0]};
  struct SampleArguments a = defaults();
  int nanochat;
  unsigned long long seed, position;
  void* const rows[] = {&a.row_temperature, &a.row_top_k, &a.row_top_p, &a.row_min_p, &a.row_typical_p, &a.row_top_n_sigma, &a.row_xtc_probability,
                        &a.row_xtc_threshold, &a.row_repetition, &a.row_frequency, &a.row_presence, &a.row_seed, &a.row_position};
  void* const edits[] = {&a.mask, &a.bias_ids, &a.bias, &a.penalty_ids, &a.penalty_counts};
  void* const answers[] = {&a.tokens, &a.status, &a.logprobs, &a.ranks, &a.top_ids, &a.top_logprobs, &a.kept, &a.kept_count, &a.kept_probabilities};
  if (!read_addresses(args[1], sizeof rows / sizeof *rows, rows) || !read_addresses(args[2], sizeof edits / sizeof *edits, edits) ||
      !read_addresses(args[3], sizeof answers / sizeof *answers, answers)) {
    return NULL;
  }
  double reals[kReals];
  if (!PyArg_ParseTuple(args[4], "dddddddddddiKKLiiiiIiiiiiiL:numbers", &reals[0], &reals[1], &reals[2], &reals[3], &reals[4], &reals[5], &reals[6], &reals[7],
                        &reals[8], &reals[9], &reals[10], &a.top_k, &seed, &position, &a.mask_stride, &a.mask_words, &a.biases, &a.penalties, &a.draws,
                        &a.first_draw, &a.row_draws, &a.replacement, &nanochat, &a.invalid_token, &a.top_count, &a.processed, &b.k) ||
      !set_reals(&a, reals)) {
    return NULL;
  }
  a.seed = (long long)seed;
  a.position = (long long)position;
  set_preset(&a, nanochat);
  const enum way way = find_batch(sampler->selector, &b, NULL, NULL);
  if (way == FAILED) return NULL;
  if (way == ARRANGE) Py_RETURN_FALSE;
  if (way == DISPATCH) {
    PyErr_SetString(PyExc_RuntimeError, "aikf.sample: logits have no memory that can be read; was their storage resized to nothing?");
    return NULL;
  }
  if (!check_vocab(&b) || !sample_batch(sampler->selector, &b, &a)) return NULL;
  Py_RETURN_TRUE;
}

// Reads the parameters of a law: temperature, top_p, min_p, softcap; top_k; whether the preset is nanochat; the
// largest top_k of a sequence.
static bool read_law(const char* side, PyObject* numbers, struct LawArguments* law) {
  double reals[4];
  int nanochat;
  long long most;
  if (!PyTuple_Check(numbers) || !PyArg_ParseTuple(numbers, "ddddiiL:law", &reals[0], &reals[1], &reals[2], &reals[3], &law->top_k, &nanochat, &most)) {
    return false;
  }
  static const int at[] = {0, 1, 2, kReals - 1};
  float* const values[] = {&law->temperature, &law->top_p, &law->min_p, &law->softcap};
  for (int i = 0; i < 4; i++) {
    *values[i] = (float)reals[i];
    if (!check_real("speculative_verify", side, at[i], reals[i])) return false;
  }
  law->greedy_below = nanochat ? kColdest : kGreedyBelow;
  law->min_p_last = nanochat;
  law->k = (int)(most > 0 && most < INT32_MAX ? most : 0);
  return true;
}

// Sets how many tokens a law's row has room for.
static void set_room(struct LawArguments* law, int64_t vocab) {
  enum { kRoom = 1024 };
  if (law->k == 0 || law->k > kRoom) law->k = kRoom;
  if (law->k > vocab) law->k = (int)vocab;
  law->groups = plan_groups(law->k);
}

PyDoc_STRVAR(verify_doc,
             "verify($self, logits, draft, rows, tensors, target_numbers, draft_numbers, numbers, /)\n--\n\n"
             "Verify drafts into tensors, whatever of torch is on. Return False if the rows do not lie as they should.");
static PyObject* sampler_verify(Sampler* sampler, PyObject* const* args, Py_ssize_t n) {
  if (!takes("verify", 7, n)) return NULL;
  Selector* const s = sampler->selector;
  Batch b = {.call = "speculative_verify", .x = args[0]}, draft = {.call = b.call, .x = args[1]};
  struct VerifyArguments a = {.index_bytes = 8};
  unsigned long long seed, position;
  int probable;
  void* const rows[] = {&a.target.row_temperature, &a.target.row_top_k, &a.target.row_top_p, &a.target.row_min_p, &a.draft.row_temperature,
                        &a.draft.row_top_k,        &a.draft.row_top_p,  &a.draft.row_min_p,  &a.row_seed,         &a.row_position};
  void* const tensors[] = {&a.probabilities, &a.drafted, &a.drafted_count, &a.tokens, &a.accepted, &a.status, &a.workspace};
  if (!read_addresses(args[2], sizeof rows / sizeof *rows, rows) || !read_addresses(args[3], sizeof tensors / sizeof *tensors, tensors) ||
      !read_law("", args[4], &a.target) || !read_law("draft_", args[5], &a.draft) ||
      !PyArg_ParseTuple(args[6], "KKiiiIii:numbers", &seed, &position, &a.sequences, &a.drafts, &a.drafted_bytes, &a.first_draw, &a.row_draws,
                        &a.invalid_token)) {
    return NULL;
  }
  a.seed = (long long)seed;
  a.position = (long long)position;
  enum way way = find_batch(s, &b, NULL, NULL);
  probable = a.probabilities != NULL;
  if (way == DONE && !probable && a.drafts > 0) way = find_batch(s, &draft, NULL, NULL);
  if (way == FAILED) return NULL;
  if (way == ARRANGE) Py_RETURN_FALSE;
  if (way == DISPATCH) {
    PyErr_SetString(PyExc_RuntimeError, "aikf.speculative_verify: logits have no memory that can be read; was their storage resized to nothing?");
    return NULL;
  }
  if (!check_vocab(&b)) return NULL;
  if (a.sequences == 0) Py_RETURN_TRUE;
  a.target.logits = (const void*)b.logits;
  a.target.stride = b.stride;
  a.draft.logits = (const void*)draft.logits;
  a.draft.stride = probable ? b.vocab : draft.stride;
  a.drafted_stride = a.drafts;
  a.result_stride = a.drafts + 1;
  a.vocab = (int)b.vocab;
  set_room(&a.target, b.vocab);
  set_room(&a.draft, b.vocab);
  if (b.device == kDevices) {
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = verify_sequences(b.dtype, &a);
    Py_END_ALLOW_THREADS
    if (status) return PyErr_NoMemory();
    Py_RETURN_TRUE;
  }
  if (!device_of(s, b.device)) return NULL;
  struct plan plan;
  const struct plan_shape shape = {b.rows, b.vocab, a.target.k, b.dtype};
  if (plan_verify(&shape, &device_of(s, b.device)->architecture, &plan)) {
    PyErr_Format(PyExc_RuntimeError, "aikf.speculative_verify: no launch plan for rows = %lld, vocab = %lld", (long long)b.rows, (long long)b.vocab);
    return NULL;
  }
  if (!launch_plan(s, &b, &plan, &a)) return NULL;
  Py_RETURN_TRUE;
}

PyDoc_STRVAR(quiet_doc,
             "quiet($self, x, /)\n--\n\n"
             "Return whether x is a plain tensor on a device that is known and nothing of torch wants to know of the call.");
static PyObject* sampler_quiet(Sampler* sampler, PyObject* x) {
  Batch b = {.call = "sample", .x = x};
  const int quiet = is_plain(sampler->selector, x) ? undisturbed(sampler->selector) : 0;
  const enum way way = quiet > 0 ? find_device(&b) : DISPATCH;
  return quiet < 0 || way == FAILED ? NULL : PyBool_FromLong(way == DONE);
}

PyDoc_STRVAR(numbers_doc,
             "numbers($self, logits, generator, call, /)\n--\n\n"
             "Return the seed and the position that a generator has next for the logits, and move it on.");
static PyObject* sampler_numbers(Sampler* sampler, PyObject* const* args, Py_ssize_t n) {
  if (!takes("numbers", 3, n)) return NULL;
  Batch b = {.call = PyUnicode_AsUTF8AndSize(args[2], NULL), .x = args[0]};
  if (!b.call) return NULL;
  struct SampleArguments a = {0};
  const enum way way = find_device(&b);
  if (way == DISPATCH) PyErr_SetString(PyExc_RuntimeError, "aikf: a generator for logits that are neither on the CPU nor on a CUDA device");
  if (way != DONE || !take_numbers(sampler, &b, args[1], &a)) return NULL;
  return Py_BuildValue("(KK)", (unsigned long long)a.seed, (unsigned long long)a.position);
}

static int sampler_init(Sampler* s, PyObject* args, PyObject* keywords) {
  static char* list[] = {"selector", "capturing", "generator", "draw_seed", "dispatch", NULL};
  PyObject *selector, *capturing, *generator, *draw_seed, *dispatch;
  if (s->selector) {
    PyErr_SetString(PyExc_TypeError, "a Sampler is made once");
    return -1;
  }
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOOO:Sampler", list, &selector, &capturing, &generator, &draw_seed, &dispatch)) return -1;
  if (!is_selector(selector)) {
    PyErr_SetString(PyExc_TypeError, "a Sampler takes a Selector");
    return -1;
  }
  PyObject* const given[] = {selector, capturing, generator, draw_seed, dispatch};
  for (size_t i = 0; i < sizeof given / sizeof *given; i++) Py_INCREF(given[i]);
  s->selector = (Selector*)selector;
  s->capturing = capturing;
  s->generator = generator;
  s->draw_seed = draw_seed;
  s->dispatch = dispatch;
  return 0;
}

static void sampler_dealloc(Sampler* s) {
  PyTypeObject* type = Py_TYPE(s);
  PyObject* const rest[] = {(PyObject*)s->selector, s->capturing, s->generator, s->draw_seed, s->dispatch, s->checked};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) Py_XDECREF(rest[i]);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(s);
  Py_DECREF(type);
}

static PyMethodDef sampler_methods[] = {
    {"next_token", (PyCFunction)(void (*)(void))sampler_next_token, METH_FASTCALL, next_token_doc},
    {"logits", (PyCFunction)(void (*)(void))sampler_logits, METH_FASTCALL, logits_doc},
    {"sample", (PyCFunction)(void (*)(void))sampler_sample, METH_FASTCALL, sample_doc},
    {"numbers", (PyCFunction)(void (*)(void))sampler_numbers, METH_FASTCALL, numbers_doc},
    {"verify", (PyCFunction)(void (*)(void))sampler_verify, METH_FASTCALL, verify_doc},
    {"quiet", (PyCFunction)(void (*)(void))sampler_quiet, METH_O, quiet_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sampler_slots[] = {
    {Py_tp_doc, "What sampling is made of, beside a Selector."},
    {Py_tp_init, sampler_init},
    {Py_tp_dealloc, sampler_dealloc},
    {Py_tp_methods, sampler_methods},
    {0, NULL},
};
PyType_Spec sampler_spec = {"aikf._native.Sampler", sizeof(Sampler), 0, Py_TPFLAGS_DEFAULT, sampler_slots};
