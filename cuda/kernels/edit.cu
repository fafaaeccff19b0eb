// Kernels for edited logits.
//
// plan       grid            what
// block      rows            one block a row: edits, the k best and draws in one launch
// edits      rows * chunks   values becomes [rows, vocab] float32, row i at i * result_stride: the
//                            edited logits, for a launch that samples them; and workspace [rows] float32:
//                            temperatures, NaN for a row with edits out of range. A block has the ids
//                            of one chunk, so that no two write the same place.
#include "edit.cuh"

constexpr u32 kChunk = 8 * kThreads;  // ids

template <class T>
DEVICE void edit_chunk(const SampleArguments& a) {
  wait_for_kernel_before();
  const u32 chunks = (a.vocab + kChunk - 1) / kChunk, number = block_index() / chunks, thread = thread_index();
  const u32 begin = block_index() % chunks * kChunk, end = smaller(begin + kChunk, a.vocab);
  const auto* logits = static_cast<const typename T::Element*>(a.logits) + (i64)number * a.stride;
  float* edited = static_cast<float*>(a.values) + (i64)number * a.result_stride;
  for (u32 id = begin + thread; id < end; id += kThreads) {
    float logit = number_of<T>(T::key(logits[id]));
    if (a.softcap > 0) logit = law::capped(logit, a.softcap);
    edited[id] = allowed(a, number, id) ? logit : as_float(kMasked);
  }
  const Penalties penalties(a, number);
  float* temperature = static_cast<float*>(a.workspace) + number;
  if (begin == 0 && thread == 0) {
    *temperature = !penalties.valid() ? as_float(kNaN32) : a.row_temperature ? a.row_temperature[number] : a.temperature;
  }
  block_barrier();
  for (u32 i = thread; i < (u32)a.biases; i += kThreads) {
    const u32 id = a.bias_ids[(i64)number * a.biases + i];
    const float bias = a.bias[(i64)number * a.biases + i];
    if (begin == 0 && !valid_bias(bias)) *temperature = as_float(kNaN32);
    if (id >= begin && id < end) edited[id] = biased(edited[id], bias);
  }
  block_barrier();
  for (u32 i = thread; i < (u32)a.penalties; i += kThreads) {
    const u32 id = a.penalty_ids[(i64)number * a.penalties + i];
    if (id < begin || id >= end || as_bits(edited[id]) == kMasked) continue;
    edited[id] = penalties.applied(edited[id], a.penalty_counts[(i64)number * a.penalties + i]);
  }
  release_kernel_behind();
}

#define EDIT_KERNELS(dtype)                                                                              \
  KERNEL_OF(SampleArguments, sample_##dtype##_edited, kThreads + kSettling, 1) { sample_edited_row<dtype>(arguments); } \
  KERNEL_OF(SampleArguments, edit_##dtype, kThreads, kBlocks) { edit_chunk<dtype>(arguments); }

EDIT_KERNELS(bf16)
EDIT_KERNELS(f16)
EDIT_KERNELS(f32)
