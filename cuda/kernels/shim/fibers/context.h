// A point of execution that can be left and taken up again: the registers that
// a call preserves and a stack. On x86-64 and aarch64 a switch is a few
// instructions; elsewhere it is POSIX's swapcontext, which makes a system call.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define SHIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHIM_ASAN 1
#endif
#endif
#ifdef SHIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(__aarch64__)
#define SHIM_UCONTEXT 1
#include <ucontext.h>
#endif

namespace shim {

class Context {
 public:
  // Makes entry start on the stack when the context is first switched to. It
  // must call arrived first and may not return.
  void prepare(void* stack, size_t bytes, void (*entry)()) {
    stack_ = stack;
    bytes_ = bytes;
#ifdef SHIM_ASAN
    __asan_unpoison_memory_region(stack, bytes);
    asan_stack_ = nullptr;
#endif
#ifdef SHIM_UCONTEXT
    getcontext(&registers_);
    registers_.uc_stack.ss_sp = stack;
    registers_.uc_stack.ss_size = bytes;
    registers_.uc_link = nullptr;
    makecontext(&registers_, entry, 0);
#else
    auto top = reinterpret_cast<uintptr_t>(stack) + bytes;
    auto* frame = reinterpret_cast<uintptr_t*>(top & ~uintptr_t{15}) - kFrameWords;
    for (int i = 0; i < kFrameWords; i++) frame[i] = 0;
    frame[kEntryWord] = reinterpret_cast<uintptr_t>(entry);
    stack_pointer_ = frame;
#endif
  }

  // Leaves this context for the other. A last switch does not come back.
  void switch_to(Context& to, bool last = false) {
#ifdef SHIM_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &asan_stack_, to.stack_, to.bytes_);
    to.from_ = this;
#endif
    (void)last;
#ifdef SHIM_UCONTEXT
    swapcontext(&registers_, &to.registers_);
#else
    shim_switch_stacks(&stack_pointer_, to.stack_pointer_);
#endif
    arrived();
  }

  // Tells the address sanitizer which stack this is.
  void arrived() {
#ifdef SHIM_ASAN
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(asan_stack_, &stack, &bytes);
    if (from_->stack_ == nullptr) {  // the thread's own stack, which prepare did not see
      from_->stack_ = const_cast<void*>(stack);
      from_->bytes_ = bytes;
    }
#endif
  }

 private:
  void* stack_ = nullptr;
  size_t bytes_ = 0;
#ifdef SHIM_ASAN
  void* asan_stack_ = nullptr;
  Context* from_ = nullptr;
#endif
#ifdef SHIM_UCONTEXT
  ucontext_t registers_;
#else
#ifdef __x86_64__
  // rbp, rbx, r12 to r15, the entry, and its return address: a function starts
  // 8 bytes below a multiple of 16.
  static constexpr int kFrameWords = 8, kEntryWord = 6;
#else
  // x19 to x30, d8 to d15; ret jumps to x30.
  static constexpr int kFrameWords = 20, kEntryWord = 11;
#endif
  static void shim_switch_stacks(void** save, void* load) asm("aikf_shim_switch_stacks");
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace shim
