// What happens to the rows between the products of a mixture of experts: SwiGLU and its derivative on the sums of a
// tile, rounding, and the weighted sum over a token's experts. "Sums" are float, or double for float64.
#pragma once

#include <cstdint>
#include <vector>

#include "base/dtype.h"

namespace deepseek::kernels {

// Of one row: where its parts of the pre-activations and of what is made of them lie, in the storage dtype. Null
// pointers are not written. With a limit, DeepSeek-V4's SwiGLU: gate at most limit, up from -limit to limit.
struct SwigluRow {
  const void *gate_sum, *up_sum;
  void *gate, *up;  // the sums, rounded
  void* hidden;     // silu(gate) * up of the rounded and then limited ones
  double limit;     // infinity: none
};

struct SwigluBackwardRow {
  const void* grad_sum;   // derivative of the loss by the hidden activation, over the routing weight
  const void *gate, *up;  // as rounded
  void *grad_gate, *grad_up, *weighted_hidden;
  double limit;
  void* dot;  // of grad_sum and the hidden activation: this part of the routing weight's gradient, one sum
};

struct MoeRowKernel {
  void (*swiglu)(const SwigluRow& r, int64_t n);
  void (*scaled_swiglu)(const SwigluRow& r, float scale, int64_t n);  // of both sums times scale; not for float64
  void (*swiglu_backward)(const SwigluBackwardRow& r, const void* weight, int64_t n);  // weight: one sum
  // to[i] = sum over s < slots of rows[s * row + i] * weights[s], in order of s; weights may be null (ones).
  void (*combine)(const void* rows, int64_t row, const void* weights, int64_t slots, int64_t n, void* to);
};

MoeRowKernel moe_row_kernel(DType dtype);

// to[t] = sum over slots of pair_rows[t, s] * weights[t, s] (null: ones), rounded to dtype; n numbers each. Rows of
// slots without an expert are made zero first. Over threads.
struct SlotSums {
  DType dtype;
  int64_t tokens, slots, n;
  const std::vector<int64_t>& empty;
};
void combine_slots(const SlotSums& s, void* pair_rows, const void* weights, void* to);

}  // namespace deepseek::kernels
