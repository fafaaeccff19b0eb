// The extension module aikf._native, and in it a call of topk from a PyTorch tensor to a
// launch, or to the selection on the CPU; sampler.c has those that sample. Nothing here knows torch but through its
// Python objects, and nothing knows the driver but through addresses of functions
// and handles that aikf/_driver.py found: no headers of either, no linking.
//
// The cost of a call is that of the Python objects that it makes: two tensors and
// the tuple that holds them. Attributes that tell what a tensor is cost tens of
// nanoseconds each, a plan costs a few.
#include "module.h"

#include <assert.h>
#include <string.h>

#include "select.h"

struct names names;

static bool make_names(void) {
#define NAME(of) (names.of || (names.of = PyUnicode_InternFromString(#of)))
  return NAME(requires_grad) && NAME(is_cuda) && NAME(is_cpu) && NAME(dtype) && NAME(device) && NAME(shape) && NAME(stride) &&
         NAME(is_contiguous) && NAME(data_ptr) && NAME(get_device) && NAME(is_neg) && NAME(is_inference) && NAME(initial_seed) &&
         NAME(get_offset) && NAME(set_offset);
#undef NAME
}

// ---------------------------------------------------------------- the driver

// take_kernels stores the handles of a dict of kernels by their names.
static bool take_kernels(Device* d, PyObject* kernels) {
  if (!PyDict_Check(kernels)) {
    PyErr_SetString(PyExc_TypeError, "kernels must be a dict");
    return false;
  }
  for (int t = 0; t < PLAN_DTYPES; t++) {
    for (int k = 0; k < PLAN_KERNELS; k++) {
      const char* symbol = plan_symbol_of(t, k);
      PyObject* handle = symbol ? PyDict_GetItemString(kernels, symbol) : NULL;
      d->kernels[t][k] = handle ? PyLong_AsVoidPtr(handle) : NULL;
      if (handle && PyErr_Occurred()) return false;
    }
  }
  return true;
}

static int device_init(Device* d, PyObject* args, PyObject* keywords) {
  static char* list[] = {"ordinal", "context", "launch", "push", "pop", "current", "multiprocessors", "cluster_blocks", "kernels", "load", "error", NULL};
  unsigned long long context, launch, push, pop, current;
  PyObject *kernels, *load, *error;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "iKKKKKiiOOO:Device", list, &d->ordinal, &context, &launch, &push, &pop, &current,
                                   &d->architecture.multiprocessors, &d->architecture.cluster_blocks, &kernels, &load, &error)) {
    return -1;
  }
  if (!take_kernels(d, kernels)) return -1;
  d->context = (void*)(uintptr_t)context;
  d->launch = (int (*)(const LaunchConfig*, void*, void**, void**))(uintptr_t)launch;
  d->push = (int (*)(void*))(uintptr_t)push;
  d->pop = (int (*)(void**))(uintptr_t)pop;
  d->current = (int (*)(void**))(uintptr_t)current;
  Py_INCREF(load);
  Py_XDECREF(d->load);
  d->load = load;
  Py_INCREF(error);
  Py_XDECREF(d->error);
  d->error = error;
  return 0;
}

static void device_dealloc(Device* d) {
  PyTypeObject* type = Py_TYPE(d);
  Py_XDECREF(d->load);
  Py_XDECREF(d->error);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(d);
  Py_DECREF(type);
}

// Puts the launches of a plan into the stream. A default stream, and a driver
// that takes a kernel's context from the thread, want the context to be current.
// Returns 0, or the driver's code with the name of the function that failed. The
// lock of the interpreter need not be held.
static int device_launch(const Device* d, const struct plan* plan, int dtype, void* arguments, void* stream, const char** failed) {
  void* parameters[1] = {arguments};
  LaunchAttribute attribute = {.id = kClusterDimension, .value = {0, 1, 1}};
  LaunchConfig config = {.stream = stream, .attributes = &attribute};
  void* context = NULL;
  bool pushed = false;
  int code = 0;
  if ((uintptr_t)stream <= 2) {
    *failed = "cuCtxGetCurrent";
    code = d->current(&context);
    if (code == 0 && context != d->context) {
      *failed = "cuCtxPushCurrent";
      code = d->push(d->context);
      if (code) return code;
      pushed = true;
    }
  }
  for (int i = 0; code == 0 && i < plan->launches; i++) {
    const struct plan_launch* l = &plan->launch[i];
    config.grid[0] = (unsigned)l->grid, config.grid[1] = config.grid[2] = 1;
    config.block[0] = (unsigned)l->block, config.block[1] = config.block[2] = 1;
    attribute.value[0] = (unsigned)l->cluster;
    config.attribute_count = l->cluster > 1;
    *failed = "cuLaunchKernelEx";
    code = d->launch(&config, d->kernels[dtype][l->kernel], parameters, NULL);
    if (code == kInvalidContext && !pushed && d->push(d->context) == 0) {
      pushed = true;
      code = d->launch(&config, d->kernels[dtype][l->kernel], parameters, NULL);
    }
  }
  if (pushed) d->pop(&context);
  return code;
}

// ---------------------------------------------------------------- the selector

static bool get_bool(PyObject* x, PyObject* name, bool* value) {
  PyObject* got = PyObject_GetAttr(x, name);
  if (!got) return false;
  *value = got == Py_True;
  Py_DECREF(got);
  return true;
}

PyObject* call0(PyObject* x, PyObject* method) { return PyObject_CallMethodObjArgs(x, method, NULL); }

static bool call_bool(PyObject* x, PyObject* method, bool* value) {
  PyObject* got = call0(x, method);
  if (!got) return false;
  *value = got == Py_True;
  Py_DECREF(got);
  return true;
}

static bool call_int(PyObject* x, PyObject* method, int64_t* value) {
  PyObject* got = call0(x, method);
  if (!got) return false;
  *value = PyLong_AsLongLong(got);
  Py_DECREF(got);
  return *value != -1 || !PyErr_Occurred();
}

// Reads a tuple of integers; returns how many, or -1.
static int get_sizes(PyObject* tuple, int64_t* sizes) {
  if (!tuple) return -1;
  int n = -1;
  if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) > kRanks) {
    PyErr_Format(PyExc_ValueError, "aikf: a shape that is no tuple of at most %d dimensions", kRanks);
  } else {
    n = (int)PyTuple_Size(tuple);
    for (int i = 0; i < n; i++) {
      sizes[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
      if (sizes[i] == -1 && PyErr_Occurred()) {
        n = -1;
        break;
      }
    }
  }
  Py_DECREF(tuple);
  return n;
}

// A call on what is not a plain tensor of rows goes another way: not an error.
static enum way otherwise(enum way way) {
  if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_RuntimeError) && !PyErr_ExceptionMatches(PyExc_NotImplementedError)) return FAILED;
  PyErr_Clear();
  return way;
}

static int dtype_of(const Selector* s, const Batch* b) {
  PyObject* dtype = PyObject_GetAttr(b->x, names.dtype);
  if (!dtype) return -1;
  int found = -1;
  for (int t = PLAN_DTYPES - 1; t >= 0; t--) {
    if (dtype == s->dtypes[t]) found = t;
  }
  if (found < 0) PyErr_Format(PyExc_TypeError, "aikf.%s: dtype %S, want torch.float32, torch.float16 or torch.bfloat16", b->call, dtype);
  Py_DECREF(dtype);
  return found;
}

// Raises what torch does for an argument of another type, and returns FAILED.
static enum way wrong_type(const char* argument, int position, const char* want, PyObject* got) {
  PyObject* name = PyObject_GetAttrString((PyObject*)Py_TYPE(got), "__name__");
  if (name) PyErr_Format(PyExc_TypeError, "topk(): argument '%s' (position %d) must be %s, not %U", argument, position, want, name);
  Py_XDECREF(name);
  return FAILED;
}

// Returns the argument, an integer of any kind but a bool, as an int; one beyond 64
// bits leaves overflow other than 0. NULL, with an error, if it is none.
static PyObject* integer(PyObject* got, const char* argument, int position, int64_t* value, int* overflow) {
  PyObject* index = PyBool_Check(got) ? NULL : PyNumber_Index(got);
  if (!index) {
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
      PyErr_Clear();
      wrong_type(argument, position, "int", got);
    }
    return NULL;
  }
  *value = PyLong_AsLongLongAndOverflow(index, overflow);
  return index;
}

// Whether the smallest are wanted: 1 or 0, or -1 with an error. A bool of NumPy will do.
static int is_smallest(PyObject* largest) {
  if (largest == Py_True || largest == Py_False) return largest == Py_False;
  PyObject* name = PyObject_GetAttrString((PyObject*)Py_TYPE(largest), "__name__");
  const char* text = name ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
  const bool other_bool = text && !strncmp(text, "bool", 4);
  Py_XDECREF(name);
  if (!text) return -1;
  if (!other_bool) {
    wrong_type("largest", 4, "bool", largest);
    return -1;
  }
  const int is = PyObject_IsTrue(largest);
  return is < 0 ? -1 : !is;
}

// Finds the rows of a tensor, along a dimension: the last one, without gaps, and the others with one
// stride.
static enum way find_rows(Batch* b, int at) {
  int64_t strides[kRanks];
  if (b->vocab > INT32_MAX) {
    PyErr_Format(PyExc_RuntimeError, "aikf.%s: dimension %d has %lld, more than %d", b->call, at, (long long)b->vocab, INT32_MAX);
    return FAILED;
  }
  if (at != b->rank - 1) return ARRANGE;
  b->rows = 1;
  for (int i = 0; i < at; i++) b->rows *= b->shape[i];
  bool contiguous;
  if (!call_bool(b->x, names.is_contiguous, &contiguous)) return otherwise(DISPATCH);
  b->stride = b->vocab;
  if (contiguous || b->rows == 0) return DONE;
  if (get_sizes(call0(b->x, names.stride), strides) != b->rank) return otherwise(DISPATCH);
  if (strides[at] != 1 && b->vocab > 1) return ARRANGE;
  int64_t next = -1;  // the stride that the next dimension has, if it goes on
  for (int i = at - 1; i >= 0; i--) {
    if (b->shape[i] == 1) continue;
    if (next < 0) {
      b->stride = strides[i];
    } else if (strides[i] != next) {
      return ARRANGE;
    }
    next = strides[i] * b->shape[i];
  }
  return b->stride == 0 || b->stride >= b->vocab ? DONE : ARRANGE;
}

// Finds the rows of which k are wanted along a dimension.
static enum way find_selection(Batch* b, PyObject* k, PyObject* dim) {
  const int dims = b->rank ? b->rank : 1;
  int64_t wanted;
  int overflow;
  PyObject* number = integer(dim, "dim", 3, &wanted, &overflow);
  if (!number) return FAILED;
  const bool in_range = !overflow && wanted >= -dims && wanted < dims;
  if (!in_range) {
    PyErr_Format(PyExc_IndexError, "Dimension out of range (expected to be in range of [%d, %d], but got %S)", -dims, dims - 1, number);
  }
  Py_DECREF(number);
  if (!in_range) return FAILED;
  const int at = (int)(wanted < 0 ? wanted + dims : wanted);
  b->vocab = b->rank ? b->shape[at] : 1;
  number = integer(k, "k", 2, &b->k, &overflow);
  if (!number) return FAILED;
  const bool fits = !overflow && b->k >= 0 && b->k <= b->vocab;
  if (!fits) {
    PyErr_Format(PyExc_RuntimeError, "selected index k out of range: k = %S, and dimension %d has %lld", number, at, (long long)b->vocab);
  }
  Py_DECREF(number);
  if (!fits) return FAILED;
  const enum way way = find_rows(b, at);
  b->shape[at] = b->k;
  return way;
}

enum way find_device(Batch* b) {
  bool cuda, cpu;
  if (!get_bool(b->x, names.is_cuda, &cuda)) return FAILED;
  b->device = kDevices;
  if (cuda) {
    int64_t ordinal;
    if (!call_int(b->x, names.get_device, &ordinal)) return FAILED;
    if (ordinal < 0 || ordinal >= kDevices) return DISPATCH;
    b->device = (int)ordinal;
  } else {
    if (!get_bool(b->x, names.is_cpu, &cpu)) return FAILED;
    if (!cpu) return DISPATCH;
  }
  return DONE;
}

enum way find_batch(const Selector* s, Batch* b, PyObject* k, PyObject* dim) {
  bool negative = false;
  enum way way = find_device(b);
  if (way != DONE) return way;
  b->dtype = dtype_of(s, b);
  if (b->dtype < 0) return FAILED;
  // A part of a complex tensor may wait to be negated.
  if (b->dtype != PLAN_BFLOAT16 && !call_bool(b->x, names.is_neg, &negative)) return FAILED;
  b->rank = get_sizes(PyObject_GetAttr(b->x, names.shape), b->shape);
  if (b->rank < 0) return otherwise(DISPATCH);
  if (k) {
    way = find_selection(b, k, dim);
  } else if (b->rank == 0) {
    way = DISPATCH;
  } else {
    b->vocab = b->shape[b->rank - 1];
    way = find_rows(b, b->rank - 1);
  }
  if (way != DONE) return way;
  if (negative) return ARRANGE;
  PyObject* pointer = call0(b->x, names.data_ptr);  // fails where there is no memory: sparse, and transforms
  if (!pointer) return otherwise(DISPATCH);
  b->logits = (uintptr_t)PyLong_AsUnsignedLongLong(pointer);
  Py_DECREF(pointer);
  if (b->logits == 0 && b->rows > 0 && b->vocab > 0) return DISPATCH;
  return DONE;
}

// Returns the keywords of empty for the device of the batch.
static PyObject* keywords_for(Selector* s, const Batch* b, int dtype) {
  PyObject** const kept = &s->keywords[b->device][dtype];
  if (*kept) return *kept;
  PyObject* device = PyObject_GetAttr(b->x, names.device);
  if (!device) return NULL;
  *kept = Py_BuildValue("{sOsO}", "dtype", dtype < PLAN_DTYPES ? s->dtypes[dtype] : s->int64, "device", device);
  Py_DECREF(device);
  return *kept;
}

// Whether the device of the batch is where short_empty allocates: 1 or 0, or -1
// with an error.
static int is_current(const Selector* s, const Batch* b) {
  if (s->short_empty[b->device == kDevices] == Py_None) return 0;
  if (b->device == kDevices) return 1;
  PyObject* ordinal = PyObject_CallNoArgs(s->current_device);
  if (!ordinal) return -1;
  const long current = PyLong_AsLong(ordinal);
  Py_DECREF(ordinal);
  return current == -1 && PyErr_Occurred() ? -1 : current == b->device;
}

PyObject* allocate(Selector* s, const Batch* b, PyObject* sizes_and_strides, int dtype, uintptr_t* address) {
  const int current = is_current(s, b);
  PyObject* made = NULL;
  if (current > 0) {
    made = PyObject_CallFunctionObjArgs(s->short_empty[b->device == kDevices], PyTuple_GetItem(sizes_and_strides, 0),
                                        PyTuple_GetItem(sizes_and_strides, 1), dtype < PLAN_DTYPES ? s->dtypes[dtype] : s->int64, NULL);
  } else if (current == 0) {
    PyObject* keywords = keywords_for(s, b, dtype);
    made = keywords ? PyObject_Call(s->empty, sizes_and_strides, keywords) : NULL;
  }
  if (!made) return NULL;
  PyObject* pointer = call0(made, names.data_ptr);
  *address = pointer ? (uintptr_t)PyLong_AsUnsignedLongLong(pointer) : 0;
  Py_XDECREF(pointer);
  if (!pointer) Py_CLEAR(made);
  return made;
}

PyObject* result_layout(Selector* s, const Batch* b) {
  const size_t bytes = (size_t)b->rank * sizeof *b->shape;
  if (s->layout && s->layout_rank == b->rank && !memcmp(s->layout_shape, b->shape, bytes)) {
    Py_INCREF(s->layout);
    return s->layout;
  }
  PyObject* sizes = PyTuple_New(b->rank);
  PyObject* strides = PyTuple_New(b->rank);
  int64_t stride = 1;
  for (int i = b->rank - 1; sizes && strides && i >= 0; i--) {
    PyObject* size = PyLong_FromLongLong(b->shape[i]);
    PyObject* step = PyLong_FromLongLong(stride);
    if (!size || !step) {
      Py_XDECREF(size);
      Py_XDECREF(step);
      Py_CLEAR(sizes);
      break;
    }
    PyTuple_SetItem(sizes, i, size);
    PyTuple_SetItem(strides, i, step);
    if (b->shape[i] > 1) stride *= b->shape[i];
  }
  PyObject* both = sizes && strides ? PyTuple_Pack(2, sizes, strides) : NULL;
  Py_XDECREF(sizes);
  Py_XDECREF(strides);
  if (!both) return NULL;
  Py_INCREF(both);
  PyObject* const last = s->layout;
  s->layout = both;
  s->layout_rank = b->rank;
  memcpy(s->layout_shape, b->shape, bytes);
  Py_XDECREF(last);
  return both;
}

Device* device_of(Selector* s, int ordinal) {
  if (!s->devices[ordinal]) {
    PyObject* number = PyLong_FromLong(ordinal);
    PyObject* opened = number ? PyObject_CallFunctionObjArgs(s->open, number, NULL) : NULL;
    Py_XDECREF(number);
    if (!opened) return NULL;
    if (s->devices[ordinal]) {
      Py_DECREF(opened);
    } else {
      s->devices[ordinal] = (Device*)opened;
    }
  }
  return s->devices[ordinal];
}

// load_kernel loads the image that has the kernel, if there is one.
static bool load_kernel(Device* d, const char* symbol) {
  PyObject* kernels = PyObject_CallFunction(d->load, "s", symbol);
  const bool loaded = kernels && take_kernels(d, kernels);
  Py_XDECREF(kernels);
  return loaded;
}

bool launch_plan(Selector* s, const Batch* b, const struct plan* plan, void* arguments) {
  Device* const d = s->devices[b->device];
  for (int i = 0; i < plan->launches; i++) {
    const int k = plan->launch[i].kernel;
    if (!d->kernels[b->dtype][k] && !load_kernel(d, plan_symbol_of(b->dtype, k))) return false;
    if (!d->kernels[b->dtype][k]) {
      PyErr_Format(PyExc_RuntimeError, "aikf.%s: device %d has no kernel %s", b->call, d->ordinal, plan_symbol_of(b->dtype, plan->launch[i].kernel));
      return false;
    }
  }
  // The workspace lives until the launch; torch gives its memory to nobody before
  // the work of this stream is done.
  PyObject* workspace = NULL;
  if (plan->workspace_bytes) {
    uintptr_t address;
    PyObject* layout = Py_BuildValue("((L)(i))", (long long)(plan->workspace_bytes / 8), 1);
    workspace = layout ? allocate(s, b, layout, PLAN_DTYPES, &address) : NULL;
    Py_XDECREF(layout);
    if (!workspace) return false;
    ((SelectArguments*)arguments)->workspace = (void*)address;
  }
  PyObject* number = PyLong_FromLong(b->device);
  PyObject* stream = number ? PyObject_CallFunctionObjArgs(s->stream, number, NULL) : NULL;
  Py_XDECREF(number);
  void* const handle = stream ? PyLong_AsVoidPtr(stream) : NULL;
  Py_XDECREF(stream);
  if (PyErr_Occurred()) {
    Py_XDECREF(workspace);
    return false;
  }
  const char* failed = "";
  int code;
  // A launch may wait for the device, and the device for another thread's.
  Py_BEGIN_ALLOW_THREADS
  code = device_launch(d, plan, b->dtype, arguments, handle, &failed);
  Py_END_ALLOW_THREADS
  Py_XDECREF(workspace);
  if (!code) return true;
  PyObject* error = PyObject_CallFunction(d->error, "si", failed, code);
  if (error) PyErr_SetObject((PyObject*)Py_TYPE(error), error);
  Py_XDECREF(error);
  return false;
}

static bool select_on_device(Selector* s, const Batch* b, uintptr_t values, uintptr_t indices) {
  const Device* const d = device_of(s, b->device);
  if (!d) return false;
  struct plan plan;
  const struct plan_shape shape = {b->rows, b->vocab, b->k, b->dtype};
  if (plan_choose(&shape, &d->architecture, &s->options, &plan)) {
    PyErr_Format(PyExc_RuntimeError, "aikf.topk: no launch plan for rows = %lld, vocab = %lld, k = %lld", (long long)b->rows,
                 (long long)b->vocab, (long long)b->k);
    return false;
  }
  SelectArguments arguments = {
      .logits = (const void*)b->logits,
      .values = (void*)values,
      .indices = (void*)indices,
      .stride = b->stride,
      .result_stride = b->k,
      .rows = (int)b->rows,
      .vocab = (int)b->vocab,
      .k = (int)b->k,
      .groups = plan.groups,
      .chunks = plan.chunks,
      .smallest = b->smallest,
      .index_bytes = 8,
  };
  return launch_plan(s, b, &plan, &arguments);
}

static bool select_on_cpu(const Batch* b, uintptr_t values, uintptr_t indices) {
  int status;
  PyThreadState* thread = b->rows * b->vocab > kSerialLogits ? PyEval_SaveThread() : NULL;
  status = select_rows(b->dtype, b->smallest, b->rows, b->vocab, b->stride, b->k, (const void*)b->logits, (void*)values, (int64_t*)indices);
  if (thread) PyEval_RestoreThread(thread);
  if (status) PyErr_NoMemory();
  return status == 0;
}

static bool select_batch(Selector* s, const Batch* b, uintptr_t values, uintptr_t indices) {
  if (b->rows == 0 || b->k == 0) return true;
  return b->device == kDevices ? select_on_cpu(b, values, indices) : select_on_device(s, b, values, indices);
}

// Returns the results as torch.topk does; it takes both references, also if it fails.
static PyObject* result_of(const Selector* s, PyObject* values, PyObject* indices) {
  PyObject* result = PyStructSequence_New((PyTypeObject*)s->result);
  if (!result) {
    Py_DECREF(values);
    Py_DECREF(indices);
    return NULL;
  }
  PyStructSequence_SetItem(result, 0, values);
  PyStructSequence_SetItem(result, 1, indices);
  return result;
}

static PyObject* select_anew(Selector* s, const Batch* b) {
  uintptr_t values_address, indices_address;
  PyObject* layout = result_layout(s, b);
  if (!layout) return NULL;
  PyObject* values = allocate(s, b, layout, b->dtype, &values_address);
  PyObject* indices = values ? allocate(s, b, layout, PLAN_DTYPES, &indices_address) : NULL;
  Py_DECREF(layout);
  if (indices && select_batch(s, b, values_address, indices_address)) return result_of(s, values, indices);
  Py_XDECREF(values);
  Py_XDECREF(indices);
  return NULL;
}

int is_on(PyObject* function) {
  PyObject* got = PyObject_CallNoArgs(function);
  if (!got) return -1;
  Py_DECREF(got);
  return got == Py_True;
}

// Whether a tensor can be written as results of the batch: 1 or 0, or -1 with an
// error. It has their shape, no gaps, the dtype, the device, and no memory of the
// logits; if it was made in inference mode, that is on. Autograd counts the writes
// to others.
static int fits(const Selector* s, const Batch* b, PyObject* to, int dtype, uintptr_t* address, bool* counted) {
  int64_t shape[kRanks], ordinal = kDevices;
  bool there, contiguous, negative = false;
  if (!get_bool(to, b->device == kDevices ? names.is_cpu : names.is_cuda, &there)) return -1;
  if (there && b->device != kDevices && !call_int(to, names.get_device, &ordinal)) return -1;
  if (!there || ordinal != b->device) return 0;
  PyObject* its = PyObject_GetAttr(to, names.dtype);
  if (!its) return -1;
  Py_DECREF(its);
  if (its != (dtype < PLAN_DTYPES ? s->dtypes[dtype] : s->int64)) return 0;
  const int rank = get_sizes(PyObject_GetAttr(to, names.shape), shape);
  if (rank < 0) return -1;
  if (rank != b->rank || memcmp(shape, b->shape, (size_t)rank * sizeof *shape)) return 0;
  if (!call_bool(to, names.is_contiguous, &contiguous)) return -1;
  if (dtype < PLAN_BFLOAT16 && !call_bool(to, names.is_neg, &negative)) return -1;
  if (!contiguous || negative) return 0;
  bool inference;
  if (!call_bool(to, names.is_inference, &inference)) return -1;
  const int writable = inference ? is_on(s->inference_enabled) : 1;
  if (writable != 1) return writable;
  *counted = !inference;
  PyObject* pointer = call0(to, names.data_ptr);
  if (!pointer) return -1;
  *address = (uintptr_t)PyLong_AsUnsignedLongLong(pointer);
  Py_DECREF(pointer);
  const int64_t element = b->dtype == PLAN_FLOAT32 ? 4 : 2;
  const uintptr_t end = *address + (uintptr_t)(b->rows * b->k * (dtype < PLAN_DTYPES ? element : 8));
  const uintptr_t logits_end = b->logits + (uintptr_t)(((b->rows - 1) * b->stride + b->vocab) * element);
  return b->rows == 0 || end <= b->logits || logits_end <= *address;
}

int undisturbed(const Selector* s) {
  for (int i = 0; i < s->probe_count; i++) {
    PyObject* got = PyObject_CallNoArgs(s->probes[i]);
    if (!got) return -1;
    const bool quiet = got == s->quiet[i];
    Py_DECREF(got);
    if (!quiet) return 0;
  }
  return 1;
}

// Whether the tensor's gradient is wanted: 1 or 0, or -1 with an error.
static int differentiated(const Selector* s, PyObject* x) {
  bool required;
  if (!get_bool(x, names.requires_grad, &required)) return -1;
  return required ? is_on(s->grad_enabled) : 0;
}

bool is_plain(const Selector* s, PyObject* x) {
  bool plain = false;
  for (Py_ssize_t i = 0, n = PyTuple_Size(s->types); i < n && !plain; i++) plain = (PyObject*)Py_TYPE(x) == PyTuple_GetItem(s->types, i);
  return plain;
}

static enum way way_of(const Selector* s, PyObject* x) {
  if (!is_plain(s, x)) return DISPATCH;
  const int gradient = differentiated(s, x);
  if (gradient) return gradient < 0 ? FAILED : DISPATCH;
  const int quiet = undisturbed(s);
  return quiet < 0 ? FAILED : quiet ? DONE : DISPATCH;
}

// The rest of a call of (x, k, dim, largest) whose way was found. A call that the
// dispatcher made does not go back to it.
static PyObject* go(Selector* s, enum way way, bool dispatched, PyObject* const* args) {
  Batch b = {.call = "topk", .x = args[0]};
  if (way == FAILED) return NULL;
  b.smallest = is_smallest(args[3]);
  if (b.smallest < 0) return NULL;
  if (way == DONE) way = find_batch(s, &b, args[1], args[2]);
  PyObject* const largest = b.smallest ? Py_False : Py_True;
  switch (way) {
    case DONE:
      return select_anew(s, &b);
    case ARRANGE:
      return PyObject_CallFunctionObjArgs(s->arrange, args[0], args[1], args[2], largest, NULL);
    case DISPATCH:
      if (!dispatched) return PyObject_CallFunctionObjArgs(s->dispatch, args[0], args[1], args[2], largest, NULL);
      PyErr_SetString(PyExc_RuntimeError, "aikf.topk: x has no memory that can be read; was its storage resized to nothing?");
      return NULL;
    default:
      return NULL;
  }
}

static bool takes(const char* name, Py_ssize_t want, Py_ssize_t n) {
  if (n != want) PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, want, n);
  return n == want;
}

PyDoc_STRVAR(topk_doc,
             "topk($self, x, k, dim, largest, /)\n--\n\n"
             "Select the k best of each row: at once, if x is a plain tensor and nothing of torch\n"
             "wants to know of it, else by way of dispatch.");
static PyObject* selector_topk(Selector* s, PyObject* const* args, Py_ssize_t n) {
  if (!takes("topk", 4, n)) return NULL;
  return go(s, way_of(s, args[0]), false, args);
}

PyDoc_STRVAR(select_doc,
             "select($self, x, k, dim, largest, /)\n--\n\n"
             "Select the k best of each row, whatever of torch is on: what the dispatcher calls.");
static PyObject* selector_select(Selector* s, PyObject* const* args, Py_ssize_t n) {
  return takes("select", 4, n) ? go(s, DONE, true, args) : NULL;
}

PyDoc_STRVAR(into_doc,
             "into($self, x, k, dim, largest, values, indices, /)\n--\n\n"
             "Select as topk does and write to two tensors, or return None if that needs more than\n"
             "a plain call: a tensor that is not plain, or results of another shape.");
static PyObject* selector_into(Selector* s, PyObject* const* args, Py_ssize_t n) {
  if (!takes("into", 6, n)) return NULL;
  enum way way = DONE;
  Batch b = {.call = "topk", .x = args[0]};
  for (int i = 0; way == DONE && i < 3; i++) way = way_of(s, args[i ? 3 + i : 0]);
  if (way == DONE) {
    b.smallest = is_smallest(args[3]);
    if (b.smallest < 0) return NULL;
    way = find_batch(s, &b, args[1], args[2]);
  }
  if (way == FAILED) return NULL;
  if (way != DONE) Py_RETURN_NONE;
  uintptr_t address[2];
  bool counted[2];
  for (int i = 0; i < 2; i++) {
    const int fit = fits(s, &b, args[4 + i], i ? PLAN_DTYPES : b.dtype, &address[i], &counted[i]);
    if (fit < 0) return NULL;
    if (!fit) Py_RETURN_NONE;
  }
  if (!select_batch(s, &b, address[0], address[1])) return NULL;
  for (int i = 0; i < 2; i++) {
    if (!counted[i]) continue;
    PyObject* done = PyObject_CallFunctionObjArgs(s->wrote, args[4 + i], NULL);
    if (!done) return NULL;
    Py_DECREF(done);
  }
  Py_INCREF(args[4]);
  Py_INCREF(args[5]);
  return result_of(s, args[4], args[5]);
}

// The number of a plan that may be forced, "" for none, or -1.
static int plan_named(const char* name) {
  for (int i = PLAN_CHOSEN; i <= PLAN_ANY; i++) {
    if (!strcmp(name, plan_name_of(i))) return i;
  }
  return -1;
}

static int selector_init(Selector* s, PyObject* args, PyObject* keywords) {
  static char* list[] = {"types",  "dtypes", "int64",  "result", "empty", "short_empty", "short_empty_cpu", "current_device", "grad_enabled",
                         "inference_enabled", "wrote", "stream", "open",   "arrange", "dispatch", "probes", "plan",  "target_candidates", NULL};
  PyObject *probes, *dtypes;
  const char* plan = "";
  PyObject** const kept[] = {&s->types,          &s->int64,        &s->result, &s->empty, &s->short_empty[0], &s->short_empty[1],
                            &s->current_device, &s->grad_enabled, &s->inference_enabled, &s->wrote, &s->stream, &s->open,  &s->arrange, &s->dispatch};
  enum { kKept = sizeof kept / sizeof *kept };
  if (s->types) {
    PyErr_SetString(PyExc_TypeError, "a Selector is made once");
    return -1;
  }
  PyObject* given[kKept];
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!O!OO!OOOOOOOOOOOO!|si:Selector", list, &PyTuple_Type, &given[0], &PyTuple_Type, &dtypes, &given[1],
                                   &PyType_Type, &given[2], &given[3], &given[4], &given[5], &given[6], &given[7], &given[8], &given[9],
                                   &given[10], &given[11], &given[12], &given[13], &PyTuple_Type, &probes, &plan, &s->options.target_candidates)) {
    return -1;
  }
  if (PyTuple_Size(dtypes) != PLAN_DTYPES || PyTuple_Size(probes) > kProbes) {
    PyErr_SetString(PyExc_ValueError, "a Selector takes three dtypes, and few probes");
    return -1;
  }
  s->options.name = plan_named(plan);
  if (s->options.name < 0) {
    PyErr_Format(PyExc_ValueError, "plan \"%s\", want block, cluster, two-stage or any", plan);
    return -1;
  }
  for (int i = 0; i < kKept; i++) {
    Py_INCREF(given[i]);
    *kept[i] = given[i];
  }
  for (int i = 0; i < PLAN_DTYPES; i++) {
    s->dtypes[i] = PyTuple_GetItem(dtypes, i);
    Py_INCREF(s->dtypes[i]);
  }
  for (Py_ssize_t i = 0; i < PyTuple_Size(probes); i++) {
    PyObject *probe, *quiet;
    if (!PyArg_ParseTuple(PyTuple_GetItem(probes, i), "OO:probe", &probe, &quiet)) return -1;
    Py_INCREF(probe);
    Py_INCREF(quiet);
    s->probes[s->probe_count] = probe;
    s->quiet[s->probe_count++] = quiet;
  }
  return 0;
}

static void selector_dealloc(Selector* s) {
  PyTypeObject* type = Py_TYPE(s);
  PyObject* rest[] = {s->types,          s->int64,        s->result, s->empty, s->short_empty[0], s->short_empty[1],
                      s->current_device, s->grad_enabled, s->inference_enabled, s->wrote, s->stream, s->open,  s->arrange, s->dispatch};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) Py_XDECREF(rest[i]);
  for (int i = 0; i < PLAN_DTYPES; i++) Py_XDECREF(s->dtypes[i]);
  for (int i = 0; i < s->probe_count; i++) {
    Py_DECREF(s->probes[i]);
    Py_DECREF(s->quiet[i]);
  }
  Py_XDECREF(s->layout);
  for (int i = 0; i < kDevices; i++) Py_XDECREF(s->devices[i]);
  for (int i = 0; i <= kDevices; i++) {
    for (int t = 0; t <= PLAN_DTYPES; t++) Py_XDECREF(s->keywords[i][t]);
  }
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(s);
  Py_DECREF(type);
}

static PyMethodDef selector_methods[] = {
    {"topk", (PyCFunction)(void (*)(void))selector_topk, METH_FASTCALL, topk_doc},
    {"select", (PyCFunction)(void (*)(void))selector_select, METH_FASTCALL, select_doc},
    {"into", (PyCFunction)(void (*)(void))selector_into, METH_FASTCALL, into_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot selector_slots[] = {
    {Py_tp_doc, "What topk is made of: the objects of torch, the devices, and how to plan."},
    {Py_tp_init, selector_init},
    {Py_tp_dealloc, selector_dealloc},
    {Py_tp_methods, selector_methods},
    {0, NULL},
};
static PyType_Spec selector_spec = {"aikf._native.Selector", sizeof(Selector), 0, Py_TPFLAGS_DEFAULT, selector_slots};

static PyType_Slot device_slots[] = {
    {Py_tp_doc, "A GPU with its kernels loaded: addresses of the driver's functions, and handles."},
    {Py_tp_init, device_init},
    {Py_tp_dealloc, device_dealloc},
    {0, NULL},
};
static PyType_Spec device_spec = {"aikf._native.Device", sizeof(Device), 0, Py_TPFLAGS_DEFAULT, device_slots};

// ---------------------------------------------------------------- the module

PyDoc_STRVAR(plan_doc,
             "plan($module, rows, vocab, k, dtype, multiprocessors, cluster_blocks, name='', target_candidates=0)\n--\n\n"
             "Return the launch plan as a dict, or None if there is none that fits.");
static PyObject* module_plan(PyObject* module, PyObject* args, PyObject* keywords) {
  (void)module;
  static char* list[] = {"rows", "vocab", "k", "dtype", "multiprocessors", "cluster_blocks", "name", "target_candidates", NULL};
  static const char* const dtypes[PLAN_DTYPES] = {"float32", "float16", "bfloat16"};
  struct plan_shape shape = {0};
  struct plan_architecture architecture = {0};
  struct plan_options options = {0};
  long long rows, vocab, k;
  const char *dtype, *name = "";
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "LLLsii|si:plan", list, &rows, &vocab, &k, &dtype, &architecture.multiprocessors,
                                   &architecture.cluster_blocks, &name, &options.target_candidates)) {
    return NULL;
  }
  shape = (struct plan_shape){rows, vocab, k, -1};
  for (int t = 0; t < PLAN_DTYPES; t++) {
    if (!strcmp(dtype, dtypes[t])) shape.dtype = t;
  }
  options.name = plan_named(name);
  struct plan plan;
  if (plan_choose(&shape, &architecture, &options, &plan)) Py_RETURN_NONE;
  PyObject* launches = PyList_New(0);
  for (int i = 0; launches && i < plan.launches; i++) {
    const struct plan_launch* l = &plan.launch[i];
    PyObject* launch = Py_BuildValue("{sssisisi}", "symbol", plan_symbol_of(shape.dtype, l->kernel), "grid", l->grid, "block", l->block, "cluster", l->cluster);
    if (!launch || PyList_Append(launches, launch)) Py_CLEAR(launches);
    Py_XDECREF(launch);
  }
  if (!launches) return NULL;
  return Py_BuildValue("{sssisisLsNsL}", "name", plan_name_of(plan.name), "groups", plan.groups, "chunks", plan.chunks, "chunk_size",
                       (long long)plan.chunk_size, "kernels", launches, "workspace_bytes", (long long)plan.workspace_bytes);
}

PyDoc_STRVAR(symbols_doc, "symbols($module, /)\n--\n\nReturn the names of the kernels that plans launch.");
static PyObject* module_symbols(PyObject* module, PyObject* unused) {
  (void)module, (void)unused;
  PyObject* symbols = PyList_New(0);
  for (int t = 0; symbols && t < PLAN_DTYPES; t++) {
    for (int k = 0; symbols && k < PLAN_KERNELS; k++) {
      if (!plan_symbol_of(t, k)) continue;
      PyObject* symbol = PyUnicode_FromString(plan_symbol_of(t, k));
      if (!symbol || PyList_Append(symbols, symbol)) Py_CLEAR(symbols);
      Py_XDECREF(symbol);
    }
  }
  return symbols;
}

static PyMethodDef module_methods[] = {
    {"plan", (PyCFunction)(void (*)(void))module_plan, METH_VARARGS | METH_KEYWORDS, plan_doc},
    {"symbols", module_symbols, METH_NOARGS, symbols_doc},
    {NULL, NULL, 0, NULL},
};

static PyObject* selector_type;

bool is_selector(PyObject* x) { return (PyObject*)Py_TYPE(x) == selector_type; }

static int add_type(PyObject* module, const char* name, PyType_Spec* spec) {
  PyObject* type = PyType_FromSpec(spec);
  if (!type) return -1;
  if (spec == &selector_spec) selector_type = type;  // the module has it as long as there are any
  if (PyModule_AddObjectRef(module, name, type)) return -1;
  Py_DECREF(type);
  return 0;
}

static int module_exec(PyObject* module) {
  if (!make_names()) return -1;
  if (add_type(module, "Device", &device_spec) || add_type(module, "Selector", &selector_spec) || add_type(module, "Sampler", &sampler_spec)) return -1;
  return PyModule_AddIntConstant(module, "block_threads", plan_block_threads());
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "aikf._native",
    .m_doc = "The launch, the launch plan, and selection and sampling on a CPU.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
