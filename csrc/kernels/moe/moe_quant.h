// The mixture of experts of moe.h with quantized weights (quant_format.h). A token's input and each hidden row become
// int8 with one scale, as qgemm.h does it, so that the result equals a loop over experts in which every projection is a
// qgemm: gate and up in the input's dtype, the down projection in float, a token's slots added in order, rounded once.
#pragma once

#include <limits>

#include "kernels/moe/moe_plan.h"
#include "kernels/quant/qgemm.h"

namespace deepseek::kernels {

// Stacks of packed matrices: gate and up [E, F, D] of one format and block, down [E, D, F].
struct PackedExperts {
  const PackedQuant *gate, *up, *down;
};

// input [T, D] of dtype (float32 or bfloat16), out [T, D] of out_dtype (that or float32), weights [T, S] float; all
// contiguous.
struct MoeQuantCall {
  DType dtype, out_dtype;
  int64_t tokens;
  const void* input;
  const float* weights;
  void* out;
  double limit = std::numeric_limits<double>::infinity();  // of SwiGLU (moe_rows.h)
};
void moe_quant_forward(const MoeQuantCall& call, const ExpertRows& rows, const PackedExperts& w);

}  // namespace deepseek::kernels
