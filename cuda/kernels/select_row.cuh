// The k best of a row by one block, in one launch.
//
// Shapes: logits [vocab] of one row, values and indices [k]. Order: find.cuh finds candidates, and stage2_merge.cuh
// orders them. kStamps: with clock stamps of its phases.
#pragma once

#include "find.cuh"
#include "stage2_merge.cuh"

template <class T, class Smallest, class W, bool kStamps>
DEVICE void select_row(const SelectArguments& a) {
  using B = Block<W, kThreads, kRoom>;
  SHARED(B, block);
  const Stamps<kStamps> stamps(a);
  block.clear();
  wait_for_kernel_before();
  const u32 number = block_index();
  const Results<T, W> results{a, number};
  if (a.smallest) {  // fewer ask for these, and the code is as long again
    find<Smallest>(block, results, a, number, 0, 1, stamps, merge_of<true>(block, results, stamps));
  } else {
    find<T>(block, results, a, number, 0, 1, stamps, merge_of(block, results, stamps));
  }
  stamps.set(5);
}
