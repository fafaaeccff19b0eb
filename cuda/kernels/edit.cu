// Edits of logits: what has to happen before a selection.
//
// edit_*: rows * chunks blocks. values becomes [rows, vocab] float32, row i at i * result_stride:
// the logits, masked, with biases, then with penalties, each in single roundings; -Inf stays. A block
// has the ids of one chunk, so that no two write the same place.
#include "sample.cuh"

constexpr u32 kMasked = 0xff800000;
constexpr u32 kChunk = 8 * kThreads;  // ids

template <class T>
DEVICE void edit_chunk(const EditArguments& a) {
  wait_for_kernel_before();
  const u32 chunks = (a.vocab + kChunk - 1) / kChunk, number = block_index() / chunks, thread = thread_index();
  const u32 begin = block_index() % chunks * kChunk, end = smaller(begin + kChunk, a.vocab);
  const auto* logits = static_cast<const typename T::Element*>(a.logits) + (i64)number * a.stride;
  float* edited = static_cast<float*>(a.values) + (i64)number * a.result_stride;
  const int* mask = a.mask ? a.mask + (i64)number * a.mask_stride : nullptr;
  for (u32 id = begin + thread; id < end; id += kThreads) {
    float logit = number_of<T>(T::key(logits[id]));
    if (mask && id / 32 < (u32)a.mask_words && !((u32)mask[id / 32] >> id % 32 & 1)) logit = as_float(kMasked);
    edited[id] = logit;
  }
  block_barrier();
  for (u32 i = thread; i < (u32)a.biases; i += kThreads) {
    const u32 id = a.bias_ids[(i64)number * a.biases + i];
    if (id < begin || id >= end) continue;
    const float bias = a.bias[(i64)number * a.biases + i], logit = edited[id];
    // A bias of -Inf bans NaN and +Inf too.
    edited[id] = as_bits(bias) == kMasked || as_bits(logit) == kMasked ? as_float(kMasked) : logit + bias;
  }
  block_barrier();
  for (u32 i = thread; i < (u32)a.penalties; i += kThreads) {
    const u32 id = a.penalty_ids[(i64)number * a.penalties + i];
    if (id < begin || id >= end) continue;
    float logit = edited[id];
    if (as_bits(logit) == kMasked) continue;
    if (a.repetition != 1) logit = logit > 0 ? logit / a.repetition : logit * a.repetition;
    const float count = a.penalty_counts[(i64)number * a.penalties + i];
    if (count > 0) {
      const float often = a.frequency * count;
      logit = logit - often;
      logit = logit - a.presence;
    }
    edited[id] = logit;
  }
  release_kernel_behind();
}

KERNEL_OF(EditArguments, edit_bf16, kThreads, kBlocks) { edit_chunk<bf16>(arguments); }
KERNEL_OF(EditArguments, edit_f16, kThreads, kBlocks) { edit_chunk<f16>(arguments); }
KERNEL_OF(EditArguments, edit_f32, kThreads, kBlocks) { edit_chunk<f32>(arguments); }
