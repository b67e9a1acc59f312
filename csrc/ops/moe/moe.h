// What the ops on mixtures of experts share.
#pragma once

#include "ops/ops.h"

namespace deepseek {

struct MoeOperands {
  const Tensor &input, &gate, &up, &down, &ids, &weights;
  Opt<double> limit;
};

// Expert weights of sizes [E, F, D] and [E, D, F] fit input [T, D], which is floating point, ids and weights [T, K].
void check_moe_sizes(const Tensor& input, const Dims& gate, const Dims& up, const Dims& down, const Tensor& ids,
                     const Tensor& weights);

// The limit of SwiGLU, infinity where there is none; positive.
double swiglu_limit(const char* name, const Opt<double>& limit);

// Gradients of moe() by the input and by the routing weights; undefined where not needed. Runs the forward pass again.
Grads moe_gradients(const MoeOperands& in, const Tensor& grad, bool input, bool weights);

}  // namespace deepseek
