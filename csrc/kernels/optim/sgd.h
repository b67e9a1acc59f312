// Stochastic gradient descent. State: the momentum, null without one.
#pragma once

#include "kernels/optim/step.h"

namespace deepseek::kernels {

struct SgdArgs {
  double lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
  bool first = false;  // no earlier step: the momentum becomes the gradient
  bool maximize = false;
  double grad_scale = 1;  // as AdamArgs::grad_scale
};

void sgd_step(std::span<const StepTensors> tensors, DType dtype, DType state_dtype, const SgdArgs& args);

}  // namespace deepseek::kernels
