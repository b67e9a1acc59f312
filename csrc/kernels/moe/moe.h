// Mixture-of-experts feed-forward (Shazeer et al. 2017) over tokens grouped by expert:
//   out[t] = sum over s of weights[t, s] * down[e] (silu(gate[e] x[t]) * (up[e] x[t])),  e = ids[t, s];
// slots without an expert add nothing.
// float32, float64, bfloat16, float16; 16-bit floats are summed in float, and rounded where a dense layer would store
// them. Products have the bits that matmul_float.h defines and a token's slots are added in order, so that a token's
// result depends on that token alone.
#pragma once

#include <limits>

#include "base/view.h"
#include "kernels/moe/moe_plan.h"
#include "kernels/quant/quant_format.h"

namespace deepseek::kernels {

// Stacks of low-bit weights (quant_format.h), all three or none.
struct MoeCodes {
  const QuantMatrix *gate = nullptr, *up = nullptr, *down = nullptr;
};

// input [T, D], gate and up [E, F, D], down [E, D, F], all of one dtype with any strides; weights [T, S] contiguous in
// the type of sums (float, double for float64). With codes, only the sizes of gate, up and down are read: weights are
// dequantized to the input's dtype (float32, bfloat16) a panel at a time. The forward pass alone takes codes.
struct MoeInputs {
  View input, gate, up, down;
  const void* weights;
  double limit = std::numeric_limits<double>::infinity();  // of SwiGLU (moe_rows.h)
  MoeCodes codes = {};

  int64_t tokens() const { return input.sizes[0]; }
  int64_t dim() const { return input.sizes[1]; }
  int64_t hidden() const { return gate.sizes[1]; }
};

// out [T, D] of out_dtype, the input's or the type of sums; contiguous. gate_rows and up_rows (both or neither) get the
// pre-activations [T * S, F] of the sorted pairs, and zeros after these.
struct MoeOutputs {
  DType out_dtype;
  void* out;
  void *gate_rows = nullptr, *up_rows = nullptr;
};
void moe_forward(const MoeInputs& in, const ExpertRows& rows, const MoeOutputs& to);

// Gradients; those that are null are not computed. Experts without rows get zeros.
struct MoeGradients {
  void* input = nullptr;                                 // [T, D]
  void *gate = nullptr, *up = nullptr, *down = nullptr;  // as the weights, contiguous; gate and up go together
  void* weights = nullptr;                               // [T, S] in the type of sums
};
void moe_backward(const MoeInputs& in, const ExpertRows& rows, const void* gate_rows, const void* up_rows,
                  const View& grad_out, const MoeGradients& to);

}  // namespace deepseek::kernels
