// Launches a kernel n times, by the driver's own function, and returns the
// nanoseconds of one launch.
#include <time.h>

double launch_loop(int (*launch)(const void*, void*, void**, void**), long long n, const void* config, void* kernel, void** parameters) {
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long long i = 0; i < n; i++) {
    if (launch(config, kernel, parameters, 0)) return -1;
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  return ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / n;
}
