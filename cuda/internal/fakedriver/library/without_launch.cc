// A driver that lacks a function.
#define cuLaunchKernelEx removed
#include "driver.cc"
