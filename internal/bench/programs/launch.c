// Times the driver's launch call from C, for "aikf bench --acceptance": 200
// samples of 256 launches into an empty stream, nanoseconds a launch, one sample
// a line. The kernel does nothing and takes the arguments of a selection, 96
// bytes by value.
//
//	cc -O2 -o launch launch.c -ldl && ./launch ORDINAL
//
// The driver is loaded as the library does it, and needs no header.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char kernel[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry nothing(.param .align 8 .b8 arguments[96]) { ret; }\n";

struct launch_config {
  unsigned grid[3], block[3], shared_bytes;
  void *stream, *attributes;
  unsigned attribute_count;
};

static void *library;

static void *symbol(const char *name) {
  void *found = dlsym(library, name);
  if (!found) {
    fprintf(stderr, "the driver has no %s\n", name);
    exit(1);
  }
  return found;
}

static void check(int code, const char *call) {
  if (code) {
    fprintf(stderr, "%s: error %d\n", call, code);
    exit(1);
  }
}

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv) {
  library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  int (*init)(unsigned) = symbol("cuInit");
  int (*device_get)(int *, int) = symbol("cuDeviceGet");
  int (*retain)(void **, int) = symbol("cuDevicePrimaryCtxRetain");
  int (*push)(void *) = symbol("cuCtxPushCurrent_v2");
  int (*load)(void **, const void *) = symbol("cuModuleLoadData");
  int (*function)(void **, void *, const char *) = symbol("cuModuleGetFunction");
  int (*stream_create)(void **, unsigned) = symbol("cuStreamCreate");
  int (*synchronize)(void *) = symbol("cuStreamSynchronize");
  int (*launch)(const struct launch_config *, void *, void **, void **) = symbol("cuLaunchKernelEx");

  int device;
  void *context, *module, *nothing, *stream;
  check(init(0), "cuInit");
  check(device_get(&device, argc > 1 ? atoi(argv[1]) : 0), "cuDeviceGet");
  check(retain(&context, device), "cuDevicePrimaryCtxRetain");
  check(push(context), "cuCtxPushCurrent");
  check(load(&module, kernel), "cuModuleLoadData");
  check(function(&nothing, module, "nothing"), "cuModuleGetFunction");
  check(stream_create(&stream, 1), "cuStreamCreate");

  char arguments[96];
  memset(arguments, 0, sizeof arguments);
  void *parameters[] = {arguments};
  struct launch_config config = {{1, 1, 1}, {1024, 1, 1}, 0, stream, 0, 0};
  for (int sample = -20; sample < 200; sample++) {
    const int launches = 256;
    double start = now_ns();
    for (int i = 0; i < launches; i++) check(launch(&config, nothing, parameters, 0), "cuLaunchKernelEx");
    double elapsed = now_ns() - start;
    check(synchronize(stream), "cuStreamSynchronize");
    if (sample >= 0) printf("%.1f\n", elapsed / launches);
  }
  return 0;
}
