// Has the test driver answer by a sort, from the moment that it is loaded.
extern "C" void fakecuda_set(const char* name, long long value);

__attribute__((constructor)) static void stand_in() { fakecuda_set("standin", 1); }
