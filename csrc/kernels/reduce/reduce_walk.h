// The walk of a reduction over its input, the same code for every operation and instruction set.
#pragma once

#include "kernels/reduce/reduce_plan.h"

namespace deepseek::kernels {

inline constexpr int64_t kTileBytes = 2048;  // width of a tile of columns
template <class C>
inline constexpr int64_t kTile = kTileBytes / sizeof(C);
inline constexpr int64_t kRowsPerLane = 4;  // rows a lane takes while its accumulator is in a register

// Whether vectors of C load elements of `dtype` as they lie; others are converted first. uint8_t asks whether elements
// are 0.
template <class C>
constexpr bool reads_in_place(DType dtype) {
  if (std::is_same_v<C, uint8_t>) return false;
  return dtype == dtype_of<C> || (std::is_same_v<C, float> && is_reduced_float(dtype));
}

// An operation on elements of C or of a dtype that is read in place; `op` is its state.
template <class C>
struct ReduceFns {
  C identity;
  // One chunk of n contiguous elements; `param` is the parameter of its output.
  C (*dense)(const void* op, DType dtype, const void* p, int64_t n, C param);
  // Adds up to kLanes * kRowsPerLane rows of `width` columns, row r to accumulator r % kLanes of acc[kLanes][kTile];
  // `fresh` accumulators are overwritten.
  void (*add_rows)(const void* op, DType dtype, const void* const* rows, int64_t nrows, int64_t width, const C* params,
                   bool fresh, C* acc);
  // Folds accumulator rows by halves into row 0; rows from `used` on are identities.
  void (*fold_rows)(const void* op, int64_t used, int64_t width, C* acc);
  // Pairwise tree over n partials that lie `stride` apart; leaves the result in p[0].
  void (*merge)(C* p, int64_t n, int64_t stride);
  bool bytes;  // `dense` reads bool and uint8 too
};

// results[o] = reduction of output o (plan order); params may be null. C: float, double or an integer.
template <class C>
void reduce_walk(const ReducePlan& plan, const ReduceFns<C>& fns, const void* op, const C* params, C* results);

}  // namespace deepseek::kernels
