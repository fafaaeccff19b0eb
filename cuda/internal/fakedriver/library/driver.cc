// A driver library over host memory: the functions of libcuda.so.1 that package
// driver calls, with devices that do not exist. What is put into a stream runs
// when the stream is waited for, and not before, so that a caller who does not
// wait gets nothing. Kernels are run by the machine of cuda/kernels/shim, or by
// that of standin.cc.
//
// Handles are checked: one that was never made, or was destroyed, is
// CUDA_ERROR_INVALID_HANDLE. Faults are asked for with fakecuda_set and
// fakecuda_fail.
#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "arguments.h"

extern "C" int aikf_shim_launch(const char* symbol, unsigned grid, unsigned block, unsigned cluster, const void* arguments);
extern "C" const char* aikf_shim_error(void);
extern "C" const char* aikf_shim_symbol(unsigned i);
extern "C" int fakecuda_standin(const char* symbol, unsigned grid, const void* arguments);
extern "C" int fakecuda_standin_has(const char* symbol);
extern "C" int fakecuda_busy(int kib);

namespace {

enum Code {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  INVALID_PTX = 218,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_OUT_OF_RESOURCES = 701,
  LAUNCH_FAILED = 719,
  STREAM_CAPTURE_UNSUPPORTED = 900,
  STREAM_CAPTURE_INVALIDATED = 901,
  INVALID_CLUSTER_SIZE = 912,
  UNKNOWN = 999,
};

const std::map<int, std::pair<const char*, const char*>> kNames = {
    {SUCCESS, {"CUDA_SUCCESS", "no error"}},
    {INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {NOT_INITIALIZED, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
    {NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {INVALID_IMAGE, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {INVALID_PTX, {"CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"}},
    {INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {NOT_FOUND, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {LAUNCH_OUT_OF_RESOURCES, {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"}},
    {LAUNCH_FAILED, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
    {STREAM_CAPTURE_UNSUPPORTED, {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
    {STREAM_CAPTURE_INVALIDATED, {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"}},
    {INVALID_CLUSTER_SIZE, {"CUDA_ERROR_INVALID_CLUSTER_SIZE", "invalid cluster size"}},
    {UNKNOWN, {"CUDA_ERROR_UNKNOWN", "unknown error"}},
};

using Work = std::function<int()>;  // returns the code that the context then has

struct Context {
  int device;
  int retained = 0;
  int fault = SUCCESS;  // every call returns it, once there is one
};

struct Stream {
  Context* context = nullptr;
  std::vector<Work> queue = {}, captured = {};
  bool capturing = false, broken = false;
};

struct Graph {
  std::vector<Work> work;
};

struct Event {
  Context* context = nullptr;
  bool reached = false;
  timespec at = {};
};

struct Image {
  std::string ptx;  // empty: machine code, which has all kernels
};

struct Kernel {
  std::string symbol;
};

struct Memory {
  size_t bytes, mapped;
  Context* context;
};

// Everything is guarded by one mutex; kernels run inside of it.
std::recursive_mutex guard;
std::map<std::string, long long> settings;
std::map<std::string, std::pair<long long, int>> failures;  // calls until it fails, and the code
std::map<std::string, long long> calls;
Context contexts[8];
std::set<Stream*> streams;
std::set<Graph*> graphs, ready;
std::set<Event*> events;
std::set<Image*> images;
std::map<std::string, std::unique_ptr<Kernel>> kernels;
std::map<uintptr_t, Memory> memory;
bool initialised = false;
std::atomic<int> discards{0};  // launches do nothing, for the time that they take; more than 1: busy with so many KiB
thread_local std::vector<Context*> current;

const std::map<std::string, long long> kDefaults = {
    {"version", 12080},   {"devices", 1},     {"major", 9},          {"minor", 0},      {"multiprocessors", 132},
    {"max_cluster", 16},  {"ptx_error", 0},   {"bind_context", 0},   {"standin", 0},
};

long long setting(const char* name) {
  auto found = settings.find(name);
  return found != settings.end() ? found->second : kDefaults.at(name);
}

// A call of a function: counts it, and returns the failure that was asked for.
int enter(const char* name) {
  calls[name]++;
  auto found = failures.find(name);
  if (found == failures.end() || --found->second.first > 0) return SUCCESS;
  const int code = found->second.second;
  failures.erase(found);
  return code;
}

Context* here() { return current.empty() ? nullptr : current.back(); }

// The stream of a handle: 0 and 1 stand for that of the current context.
Stream* stream_of(Stream* handle) {
  if (reinterpret_cast<uintptr_t>(handle) > 2) return streams.count(handle) ? handle : nullptr;
  static Stream defaults[8];
  if (!here()) return nullptr;
  Stream* s = &defaults[here() - contexts];
  s->context = here();
  return s;
}

// Runs what is in the stream, until something fails.
int run(Stream* s) {
  std::vector<Work> queue;
  queue.swap(s->queue);
  for (auto& work : queue) {
    if (s->context->fault == SUCCESS) s->context->fault = work();
  }
  return s->context->fault;
}

// Runs what is in all streams of the context.
int run(Context* c) {
  for (Stream* s : streams) {
    if (s->context == c) run(s);
  }
  Stream* s = stream_of(nullptr);
  if (s && s->context == c) run(s);
  return c->fault;
}

int put(Stream* handle, Work work) {
  Stream* s = stream_of(handle);
  if (!s) return here() ? INVALID_HANDLE : INVALID_CONTEXT;
  if (s->context->fault) return s->context->fault;
  (s->capturing ? s->captured : s->queue).push_back(std::move(work));
  return SUCCESS;
}

// Whether the memory is allocated: a kernel or copy at another address is a fault.
bool allocated(uintptr_t at, size_t bytes) {
  auto next = memory.upper_bound(at);
  if (next == memory.begin()) return false;
  auto found = std::prev(next);
  return at + bytes <= found->first + found->second.bytes;
}

struct LaunchAttribute {
  unsigned id, pad;
  unsigned value[16];
};

struct LaunchConfig {
  unsigned grid[3], block[3], shared_bytes;
  Stream* stream;
  LaunchAttribute* attributes;
  unsigned count;
};

int cluster_of(const LaunchConfig* config, unsigned& cluster) {
  cluster = 1;
  for (unsigned i = 0; i < config->count; i++) {
    switch (config->attributes[i].id) {
      case 4:
        cluster = config->attributes[i].value[0];
        break;
      case 6:
        break;
      default:
        return INVALID_VALUE;
    }
  }
  return cluster == 0 || cluster > setting("max_cluster") || config->grid[0] % cluster ? INVALID_CLUSTER_SIZE : SUCCESS;
}

}  // namespace

#define ENTER()                                         \
  std::lock_guard<std::recursive_mutex> lock(guard);    \
  if (int code = enter(__func__)) return code;          \
  if (!initialised) return NOT_INITIALIZED
// Also wants a current context that had no fault.
#define ENTER_CONTEXT()                   \
  ENTER();                                \
  if (!here()) return INVALID_CONTEXT;    \
  if (here()->fault) return here()->fault

extern "C" {

// For tests: settings, failures and counts.

// Forgets everything, also what was left over.
void fakecuda_reset() {
  std::lock_guard<std::recursive_mutex> lock(guard);
  settings.clear();
  discards = 0;
  failures.clear();
  calls.clear();
  for (auto& c : contexts) c.fault = SUCCESS, c.retained = 0;
  for (auto& m : memory) munmap(reinterpret_cast<void*>(m.first), m.second.mapped);
  memory.clear();
  streams.clear();
  graphs.clear();
  ready.clear();
  events.clear();
  images.clear();
}

void fakecuda_set(const char* name, long long value) {
  std::lock_guard<std::recursive_mutex> lock(guard);
  settings[name] = value;
  if (!strcmp(name, "discard")) discards = int(value);
}

// The nth call of the function from now returns the code. "kernel" is no
// function: the nth kernel that runs ends with it, and so does all that follows.
void fakecuda_fail(const char* function, long long nth, int code) {
  std::lock_guard<std::recursive_mutex> lock(guard);
  failures[function] = {nth, code};
}

long long fakecuda_calls(const char* function) {
  std::lock_guard<std::recursive_mutex> lock(guard);
  return calls[function];
}

// What was made and not yet destroyed.
long long fakecuda_live() {
  std::lock_guard<std::recursive_mutex> lock(guard);
  long long n = streams.size() + graphs.size() + ready.size() + events.size() + images.size() + memory.size();
  for (auto& c : contexts) n += c.retained;
  return n;
}

// A stream of the device that belongs to somebody else.
Stream* fakecuda_foreign_stream(int device) {
  std::lock_guard<std::recursive_mutex> lock(guard);
  Stream* s = new Stream{&contexts[device]};
  streams.insert(s);
  return s;
}

void fakecuda_destroy_foreign(Stream* s) {
  std::lock_guard<std::recursive_mutex> lock(guard);
  if (streams.erase(s)) delete s;
}

int cuLaunchKernelEx(const LaunchConfig*, Kernel*, void**, void**);

// Nanoseconds a launch from C takes, on average of n.
double fakecuda_time_launches(long long n, const LaunchConfig* config, Kernel* kernel, void** parameters) {
  timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long long i = 0; i < n; i++) {
    if (cuLaunchKernelEx(config, kernel, parameters, nullptr)) return -1;
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (double(end.tv_sec - start.tv_sec) * 1e9 + double(end.tv_nsec - start.tv_nsec)) / double(n);
}

// The driver.

int cuGetErrorName(int code, const char** name) {
  auto found = kNames.find(code);
  *name = found == kNames.end() ? nullptr : found->second.first;
  return *name ? SUCCESS : INVALID_VALUE;
}

int cuGetErrorString(int code, const char** text) {
  auto found = kNames.find(code);
  *text = found == kNames.end() ? nullptr : found->second.second;
  return *text ? SUCCESS : INVALID_VALUE;
}

int cuDriverGetVersion(int* version) {
  std::lock_guard<std::recursive_mutex> lock(guard);
  *version = int(setting("version"));
  return enter(__func__);
}

int cuInit(unsigned flags) {
  std::lock_guard<std::recursive_mutex> lock(guard);
  if (int code = enter(__func__)) return code;
  if (flags) return INVALID_VALUE;
  initialised = true;
  return SUCCESS;
}

int cuDeviceGetCount(int* n) {
  ENTER();
  *n = int(setting("devices"));
  return SUCCESS;
}

int cuDeviceGet(int* device, int ordinal) {
  ENTER();
  if (ordinal < 0 || ordinal >= setting("devices")) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}

int cuDeviceGetName(char* name, int bytes, int device) {
  ENTER();
  snprintf(name, size_t(bytes), "Fake GPU %d", device);
  return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
  ENTER();
  *bytes = size_t(80) << 30;
  return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
  ENTER();
  switch (attribute) {
    case 13:
      *value = 1980000;
      return SUCCESS;
    case 16:
      *value = int(setting("multiprocessors"));
      return SUCCESS;
    case 38:
      *value = 50 << 20;
      return SUCCESS;
    case 75:
      *value = int(setting("major"));
      return SUCCESS;
    case 76:
      *value = int(setting("minor"));
      return SUCCESS;
    case 97:
      *value = 227 << 10;
      return SUCCESS;
  }
  return INVALID_VALUE;
}

int cuDevicePrimaryCtxRetain(Context** context, int device) {
  ENTER();
  contexts[device].device = device;
  contexts[device].retained++;
  *context = &contexts[device];
  return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
  ENTER();
  if (contexts[device].retained == 0) return INVALID_CONTEXT;
  contexts[device].retained--;
  return SUCCESS;
}

int cuCtxPushCurrent_v2(Context* context) {
  ENTER();
  if (!context) return INVALID_CONTEXT;
  current.push_back(context);
  return SUCCESS;
}

int cuCtxPopCurrent_v2(Context** context) {
  ENTER();
  if (current.empty()) return INVALID_CONTEXT;
  *context = current.back();
  current.pop_back();
  return SUCCESS;
}

int cuCtxGetCurrent(Context** context) {
  ENTER();
  *context = here();
  return SUCCESS;
}

int cuCtxGetDevice(int* device) {
  ENTER_CONTEXT();
  *device = here()->device;
  return SUCCESS;
}

int cuCtxSynchronize() {
  ENTER_CONTEXT();
  return run(here());
}

int cuLibraryLoadData(Image** image, const void* code, int*, void**, unsigned, int*, void**, unsigned) {
  ENTER();
  const char* text = static_cast<const char*>(code);
  const bool machine_code = memcmp(text, "\x7f" "ELF", 4) == 0;
  if (!machine_code && !strstr(text, ".version")) return INVALID_IMAGE;
  if (!machine_code && setting("ptx_error")) return INVALID_PTX;
  *image = new Image{machine_code ? "" : text};
  images.insert(*image);
  return SUCCESS;
}

int cuLibraryUnload(Image* image) {
  ENTER();
  if (!images.erase(image)) return INVALID_HANDLE;
  delete image;
  return SUCCESS;
}

int cuLibraryGetKernel(Kernel** kernel, Image* image, const char* name) {
  ENTER();
  if (!images.count(image)) return INVALID_HANDLE;
  const std::string symbol = name;
  if (!image->ptx.empty() && image->ptx.find(".entry " + symbol + "(") == std::string::npos) return NOT_FOUND;
  if (setting("major") < 9 && symbol.find("_cluster") != std::string::npos) return NOT_FOUND;
  bool known = setting("standin") && fakecuda_standin_has(name);
  for (unsigned i = 0; !known && aikf_shim_symbol(i); i++) known = symbol == aikf_shim_symbol(i);
  if (!known) return NOT_FOUND;
  auto& found = kernels[symbol];
  if (!found) found.reset(new Kernel{symbol});
  *kernel = found.get();
  return SUCCESS;
}

int cuKernelGetFunction(void** function, Kernel* kernel) {
  ENTER_CONTEXT();
  *function = kernel;
  return SUCCESS;
}

int cuKernelSetAttribute(int attribute, int, Kernel*, int) {
  ENTER();
  return attribute == 14 ? SUCCESS : INVALID_VALUE;
}

int cuModuleLoadDataEx(void** module, const void*, unsigned count, int* options, void** values) {
  ENTER_CONTEXT();
  if (!setting("ptx_error")) {
    static int loaded;
    *module = &loaded;
    return SUCCESS;
  }
  char* log = nullptr;
  size_t bytes = 0;
  for (unsigned i = 0; i < count; i++) {
    if (options[i] == 5) log = static_cast<char*>(values[i]);
    if (options[i] == 6) bytes = reinterpret_cast<size_t>(values[i]);
  }
  if (log) snprintf(log, bytes, "ptxas application ptx input, line 3; fatal : Unsupported .version\n");
  return INVALID_PTX;
}

int cuModuleUnload(void*) {
  ENTER_CONTEXT();
  return SUCCESS;
}

int cuOccupancyMaxActiveClusters(int* n, Kernel*, const LaunchConfig* config) {
  ENTER_CONTEXT();
  unsigned cluster;
  if (int code = cluster_of(config, cluster)) return code;
  *n = int(setting("multiprocessors") / cluster);
  return SUCCESS;
}

int cuLaunchKernelEx(const LaunchConfig* config, Kernel* kernel, void** parameters, void** extra) {
  if (int how = discards.load(std::memory_order_relaxed)) return how > 1 ? fakecuda_busy(how) : SUCCESS;
  ENTER();
  if (extra) return INVALID_VALUE;
  if (setting("bind_context") && !here()) return INVALID_CONTEXT;
  Stream* s = stream_of(config->stream);
  if (!s) return here() ? INVALID_HANDLE : INVALID_CONTEXT;
  if (s->context->fault) return s->context->fault;
  unsigned cluster;
  if (int code = cluster_of(config, cluster)) return code;
  if (!config->grid[0] || config->grid[0] > 0x7fffffffu || !config->block[0] || config->block[0] > 1024) return INVALID_VALUE;
  const auto named = [&](const char* prefix) { return kernel->symbol.rfind(prefix, 0) == 0; };
  const std::string arguments(static_cast<const char*>(parameters[0]),
                              named("sample_") || named("phases_sample_") || named("edit_") ? sizeof(SampleArguments)
                              : named("verify_")                                            ? sizeof(VerifyArguments)
                                                                                            : sizeof(SelectArguments));
  const unsigned grid = config->grid[0], block = config->block[0];
  const bool standin = setting("standin") && fakecuda_standin_has(kernel->symbol.c_str());
  return put(config->stream, [=]() -> int {
    if (int code = enter("kernel")) return code;
    const char* symbol = kernel->symbol.c_str();
    const int status = standin ? fakecuda_standin(symbol, grid, arguments.data()) : aikf_shim_launch(symbol, grid, block, cluster, arguments.data());
    if (status == 0) return SUCCESS;
    fprintf(stderr, "fakecuda: %s: %s\n", symbol, standin ? "the stand-in failed" : aikf_shim_error());
    return LAUNCH_FAILED;
  });
}

int cuMemAlloc_v2(uintptr_t* pointer, size_t bytes) {
  ENTER_CONTEXT();
  if (!bytes) return INVALID_VALUE;
  // Memory of two devices never shares a page of 2 MiB.
  const size_t page = 2 << 20, mapped = (bytes + page - 1) / page * page + page;
  void* at = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return OUT_OF_MEMORY;
  const uintptr_t start = reinterpret_cast<uintptr_t>(at), aligned = (start + page - 1) / page * page;
  if (aligned > start) munmap(at, aligned - start);
  if (aligned - start < page) munmap(reinterpret_cast<void*>(aligned + mapped - page), page - (aligned - start));
  memory[aligned] = Memory{bytes, mapped - page, here()};
  *pointer = aligned;
  return SUCCESS;
}

int cuMemFree_v2(uintptr_t pointer) {
  ENTER_CONTEXT();
  auto found = memory.find(pointer);
  if (found == memory.end()) return INVALID_VALUE;
  const int code = run(found->second.context);
  munmap(reinterpret_cast<void*>(pointer), found->second.mapped);
  memory.erase(found);
  return code;
}

int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, Stream* stream) {
  ENTER_CONTEXT();
  return put(stream, [=]() -> int {
    if (!allocated(to, bytes)) return ILLEGAL_ADDRESS;
    memcpy(reinterpret_cast<void*>(to), from, bytes);
    return SUCCESS;
  });
}

int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, Stream* stream) {
  ENTER_CONTEXT();
  return put(stream, [=]() -> int {
    if (!allocated(from, bytes)) return ILLEGAL_ADDRESS;
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
  });
}

int cuMemsetD8Async(uintptr_t to, unsigned char value, size_t bytes, Stream* stream) {
  ENTER_CONTEXT();
  return put(stream, [=]() -> int {
    if (!allocated(to, bytes)) return ILLEGAL_ADDRESS;
    memset(reinterpret_cast<void*>(to), value, bytes);
    return SUCCESS;
  });
}

int cuPointerGetAttribute(void* value, int attribute, uintptr_t pointer) {
  ENTER();
  if (attribute != 9 || !allocated(pointer, 1)) return INVALID_VALUE;
  *static_cast<int*>(value) = std::prev(memory.upper_bound(pointer))->second.context->device;
  return SUCCESS;
}

int cuStreamCreate(Stream** stream, unsigned) {
  ENTER_CONTEXT();
  *stream = new Stream{here()};
  streams.insert(*stream);
  return SUCCESS;
}

int cuStreamDestroy_v2(Stream* stream) {
  ENTER();
  if (!streams.count(stream)) return INVALID_HANDLE;
  const int code = run(stream);
  streams.erase(stream);
  delete stream;
  return code;
}

int cuStreamSynchronize(Stream* handle) {
  ENTER_CONTEXT();
  Stream* s = stream_of(handle);
  if (!s) return INVALID_HANDLE;
  if (s->capturing) {
    s->broken = true;
    return STREAM_CAPTURE_UNSUPPORTED;
  }
  return run(s);
}

int cuStreamGetCtx(Stream* handle, Context** context) {
  ENTER();
  Stream* s = stream_of(handle);
  if (!s) return INVALID_HANDLE;
  *context = s->context;
  return SUCCESS;
}

int cuStreamBeginCapture_v2(Stream* handle, int mode) {
  ENTER();
  Stream* s = stream_of(handle);
  if (!s || mode != 2) return INVALID_VALUE;
  if (s->capturing) return STREAM_CAPTURE_UNSUPPORTED;
  s->capturing = true;
  s->broken = false;
  s->captured.clear();
  return SUCCESS;
}

// Modes are not kept: nothing here is unsafe to call during a capture.
int cuThreadExchangeStreamCaptureMode(int* mode) {
  ENTER();
  return *mode < 0 || *mode > 2 ? INVALID_VALUE : SUCCESS;
}

int cuStreamEndCapture(Stream* handle, Graph** graph) {
  ENTER();
  Stream* s = stream_of(handle);
  if (!s || !s->capturing) return INVALID_VALUE;
  s->capturing = false;
  *graph = nullptr;
  if (s->broken) return STREAM_CAPTURE_INVALIDATED;
  *graph = new Graph{s->captured};
  graphs.insert(*graph);
  return SUCCESS;
}

int cuGraphInstantiateWithFlags(Graph** made, Graph* graph, unsigned long long) {
  ENTER();
  if (!graphs.count(graph)) return INVALID_HANDLE;
  *made = new Graph{*graph};
  ready.insert(*made);
  return SUCCESS;
}

int cuGraphDestroy(Graph* graph) {
  ENTER();
  if (!graphs.erase(graph)) return INVALID_HANDLE;
  delete graph;
  return SUCCESS;
}

int cuGraphLaunch(Graph* graph, Stream* stream) {
  ENTER();
  if (!ready.count(graph)) return INVALID_HANDLE;
  for (auto& work : graph->work) {
    if (int code = put(stream, work)) return code;
  }
  return SUCCESS;
}

int cuGraphExecDestroy(Graph* graph) {
  ENTER();
  if (!ready.erase(graph)) return INVALID_HANDLE;
  delete graph;
  return SUCCESS;
}

int cuEventCreate(Event** event, unsigned) {
  ENTER_CONTEXT();
  *event = new Event{here()};
  events.insert(*event);
  return SUCCESS;
}

int cuEventDestroy_v2(Event* event) {
  ENTER();
  if (!events.erase(event)) return INVALID_HANDLE;
  delete event;
  return SUCCESS;
}

int cuEventRecord(Event* event, Stream* stream) {
  ENTER();
  if (!events.count(event)) return INVALID_HANDLE;
  event->reached = false;
  return put(stream, [=]() -> int {
    clock_gettime(CLOCK_MONOTONIC, &event->at);
    event->reached = true;
    return SUCCESS;
  });
}

int cuEventSynchronize(Event* event) {
  ENTER();
  if (!events.count(event)) return INVALID_HANDLE;
  return run(event->context);
}

int cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
  ENTER();
  if (!events.count(start) || !events.count(end) || !start->reached || !end->reached) return INVALID_HANDLE;
  *milliseconds = float(double(end->at.tv_sec - start->at.tv_sec) * 1e3 + double(end->at.tv_nsec - start->at.tv_nsec) * 1e-6);
  return SUCCESS;
}

}  // extern "C"
