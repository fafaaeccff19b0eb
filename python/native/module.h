// What the files of the extension share: how they see tensors, the driver and torch. The
// functions are in module.c; what they set as errors is what a call raises.
#pragma once

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "plan.h"
#include "sample.h"

enum {
  kDevices = 64,            // ordinals that a Selector can use
  kRanks = 64,              // dimensions of a tensor, at most
  kProbes = 16,             // of a Selector, at most
  kSerialLogits = 1 << 12,  // logits up to which a call on the CPU keeps the lock of the interpreter
};

// Names of attributes, made once.
struct names {
  PyObject *requires_grad, *is_cuda, *is_cpu, *dtype, *device, *shape, *stride, *is_contiguous, *data_ptr, *get_device, *is_neg, *is_inference;
  PyObject *initial_seed, *get_offset, *set_offset;
};
extern struct names names;

typedef struct {
  unsigned id, pad;
  unsigned value[16];
} LaunchAttribute;  // CUlaunchAttribute

typedef struct {
  unsigned grid[3], block[3];
  unsigned shared_bytes;
  void* stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
} LaunchConfig;  // CUlaunchConfig

enum { kClusterDimension = 4, kInvalidContext = 201 };

// Device is a GPU with its kernels loaded, as aikf/_driver.py opened it.
typedef struct {
  PyObject ob_base;
  int ordinal;
  struct plan_architecture architecture;
  void* context;
  void* kernels[PLAN_DTYPES][PLAN_KERNELS];
  int (*launch)(const LaunchConfig*, void*, void**, void**);
  int (*push)(void*);
  int (*pop)(void**);
  int (*current)(void**);
  PyObject* load;   // of a kernel's name: all kernels that are loaded then
  PyObject* error;  // of a function's name and a code: the exception to raise
} Device;

// Selector answers topk. What it knows of torch it is given.
typedef struct {
  PyObject ob_base;
  PyObject* types;         // tuple of the types that may take the short way
  PyObject* dtypes[PLAN_DTYPES];
  PyObject* int64;
  PyObject* result;        // the structure sequence (values, indices)
  PyObject* empty;         // torch.empty_strided
  PyObject* short_empty[2];  // of sizes, strides and dtype: the same on the current GPU, and on the CPU; None: there is none
  PyObject* current_device;  // the ordinal of the current GPU
  PyObject* grad_enabled;  // torch.is_grad_enabled
  PyObject* inference_enabled;  // torch.is_inference_mode_enabled
  PyObject* wrote;         // of a tensor: tells autograd of a write to it
  PyObject* stream;        // of a device's ordinal: the address of its current stream
  PyObject* open;          // of a device's ordinal: its Device
  PyObject* arrange;       // topk of rows that do not lie as they should
  PyObject* dispatch;      // topk by way of torch's dispatcher
  PyObject* probes[kProbes];
  PyObject* quiet[kProbes];  // what each probe returns when no mode or transform of torch is on
  int probe_count;
  struct plan_options options;
  // The layout of the last results: most calls are like the one before.
  PyObject* layout;
  int layout_rank;
  int64_t layout_shape[kRanks];
  Device* devices[kDevices];
  PyObject* keywords[kDevices + 1][PLAN_DTYPES + 1];  // of empty, for each device, the CPU last, and dtype, int64 last
} Selector;

// How a call goes on.
enum way { DONE, FAILED, ARRANGE, DISPATCH };

// Batch is a call: the logits as rows, and how its results look.
typedef struct {
  const char* call;  // its name
  PyObject* x;
  int dtype, smallest, device;  // device: kDevices is the CPU
  int64_t rows, vocab, k, stride;
  uintptr_t logits;
  int rank;
  int64_t shape[kRanks];  // of the results
} Batch;

PyObject* call0(PyObject* x, PyObject* method);

// Whether a function without arguments returns True: 1 or 0, or -1 with an error.
int is_on(PyObject* function);

bool is_selector(PyObject* x);

// Whether no mode or transform of torch is on that would have a say in the call: 1 or 0, or -1
// with an error.
int undisturbed(const Selector* s);

// Whether the tensor may take the short way by its type.
bool is_plain(const Selector* s, PyObject* x);

// Finds the device of the batch's tensor.
enum way find_device(Batch* b);

// Fills the batch from a tensor: rows of which k are wanted along dim; or, if these are null, all along
// the last dimension, and shape is then that of the tensor.
enum way find_batch(const Selector* s, Batch* b, PyObject* k, PyObject* dim);

// Returns the sizes and the strides of the results, which have no gaps.
PyObject* result_layout(Selector* s, const Batch* b);

// Makes a tensor on the device of the batch, and tells its address.
PyObject* allocate(Selector* s, const Batch* b, PyObject* sizes_and_strides, int dtype, uintptr_t* address);

// Returns the device, which is opened at its first use.
Device* device_of(Selector* s, int ordinal);

// Puts the launches of a plan into the current stream of the batch's device, which was opened. If the plan has
// a workspace, the arguments begin with a selection, which gets it.
bool launch_plan(Selector* s, const Batch* b, const struct plan* plan, void* arguments);

extern PyType_Spec sampler_spec;
