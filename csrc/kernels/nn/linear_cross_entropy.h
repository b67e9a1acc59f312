// Cross-entropy of a linear layer's outputs without storing them: rows go through in blocks, whose logits are turned
// into their own gradients in place while they are at hand (as in Wijmans et al. 2024, "Cut your losses").
#pragma once

#include "base/view.h"
#include "kernels/nn/cross_entropy.h"

namespace deepseek::kernels {

struct LinearCrossEntropyArgs {
  View input;   // [N, D], dense rows
  View weight;  // [C, D], dense, the same dtype
  View bias;    // [C] in the computing type (float; double for f64), or data is null
  View target;  // [N] int64, dense
  CrossEntropyArgs loss;
  bool mean = true;  // over the targets that are not ignored; else the sum
};

// *loss is of the computing type. Gradients of it, dense and of the inputs' sizes and dtype, are formed where given;
// grad_bias [C] is of the computing type.
void linear_cross_entropy(const LinearCrossEntropyArgs& args, void* loss, const View* grad_input,
                          const View* grad_weight, const View* grad_bias);

}  // namespace deepseek::kernels
