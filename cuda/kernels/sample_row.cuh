// The tokens of a row by one block, and two warps that settle, in one launch: the k best, truncations and draws.
//
// Shapes: logits [vocab] of one row, tokens [draws]. kStamps: with clock stamps of its phases.
#pragma once

#include "few.cuh"
#include "whole.cuh"

// For a row of which the best are selected, or for one without a top-k.
template <class W>
struct Shared<Block<W, kThreads, kRoom>> {
  union {
    struct {
      Block<W, kThreads, kRoom> block;
      Tail<W> tail;
    };
    Whole whole;
  };
};

// Samples a row of which top-k leaves more tokens than there is room for. False if it has no elements.
template <class T, class W, class B>
DEVICE_APART bool sample_all(const SampleArguments& a, u32 number, Found found) {
  Tail<W>& tail = block_tail<B>();
  const u32 selected = tail.selected;
  if (Row<T>(a, number, 0, 1).length == 0) return false;
  const bool more = a.logprobs || a.top_ids;  // which are in memory that both share
  if (more) {
    merge(the_block<B>(), found.candidates, found.wanted, Sorted<W>{tail}, Stamps<false>(a));
    block_barrier();
    tell_raw_beside<T, W, B>(a, number, selected, [] {});
  }
  block_barrier();
  if (a.kept && thread_index() == 0) a.kept_count[number] = -1;
  if (!more) {
    if (draw_whole_alone<T>(block_shared<B>().whole, a, number)) return true;
    block_barrier();
  }
  const u32 drawn = draw_from_all<T>(the_block<B>(), a, number);
  answer_whole<T, W, B>(tail, a, number, selected, drawn);
  return true;
}

// Draws from what was found in a row.
template <class T, class W, class B, class S>
DEVICE_APART void draw_otherwise(const SampleArguments& a, u32 number, Found found, S stamps) {
  const Tail<W>& tail = block_tail<B>();
  if (tail.arguments.told) return tell_row<T, W, B>(a, number, found);
  if (tail.left == 0 && tail.valid && !tail.steps && sample_all<T, W, B>(a, number, found)) return;
  draw_in_order<T, W, B>(number, found, tail.left, stamps);
}
template <class T, class W, class B, class S>
struct Draw {
  const SampleArguments& a;
  u32 number;
  const S& stamps;

  DEVICE void operator()(Found found) const {
    if (few_tokens<W, B>(found)) {
      draw_from_few<T, W, B>(a, number, found.candidates, stamps);
    } else {
      apart(found);
    }
  }
  DEVICE void apart(Found found) const { draw_otherwise<T, W, B>(a, number, found, stamps); }
};

template <class T, class W, bool kStamps = false>
DEVICE void sample_row(const SampleArguments& a) {
  using B = Block<W, kThreads, kRoom>;
  B& block = the_block<B>();
  Tail<W>& tail = block_tail<B>();
  const Stamps<kStamps> stamps(a);
  const u32 number = block_index();
  if (thread_index() >= kThreads) {
    wait_for_kernel_before();
    tail.settle(a, number, kThreads);
    return leave_block();
  }
  block.clear();
  wait_for_kernel_before();
  SampledReader<T, W, B> reader{{}, block, tail, a, number};
  find<T>(block, Sorted<W>{tail}, a, number, 0, 1, stamps, reader, Draw<T, W, B, Stamps<kStamps>>{a, number, stamps});
}
