// How a reduction walks its input: dimensions split into kept and reduced, sorted by stride and merged.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// The one reduction tree, a function of the reduced length alone: element i of the reduced dimensions (ordered by
// falling stride) goes to chunk i / kChunk; in a chunk, lane i % kLanes adds its elements in order; lanes are folded by
// halves, and chunks pairwise. Layout, vector width, number of outputs and threads change the walk, never the tree.
template <class C>
inline constexpr int64_t kLanes = 128 / sizeof(C);
template <class C>
inline constexpr int64_t kChunk = 16384 / sizeof(C);

struct ReducePlan {
  View in;
  View out;
  Dims kept_sizes, kept_in, kept_out;  // falling |kept_in|
  Dims red_sizes, red_in;              // falling |red_in|
  int64_t outputs = 1;                 // product of kept_sizes
  int64_t length = 1;                  // product of red_sizes
  bool columns = false;                // neighbouring outputs lie closer than neighbouring reduced elements

  // `out` has the rank of `in` and size 1 in the reduced dimensions.
  ReducePlan(const View& out, const View& in);

  int64_t kept_offset(int64_t index, const Dims& strides) const;
  // Element offset of reduced element `index`, and how many follow it at the innermost stride (itself included).
  int64_t reduced_offset(int64_t index, int64_t* run) const;
  int64_t inner_reduced_stride() const { return red_in.empty() ? 1 : red_in.back(); }
};

// Stores results (one per output, in the plan's order) into the plan's out view.
template <class C>
void store_results(const ReducePlan& plan, const C* results);

}  // namespace deepseek::kernels
