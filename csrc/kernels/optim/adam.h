// Adam and AdamW. States: exp_avg, exp_avg_sq, and with amsgrad max_exp_avg_sq.
#pragma once

#include "kernels/optim/step.h"

namespace deepseek::kernels {

struct AdamArgs {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled = true;  // AdamW; false: Adam, which adds weight_decay * param to the gradient
  bool maximize = false;
  double grad_scale = 1;  // multiplies every gradient first (loss scale, clipping)
};

void adam_step(std::span<const StepTensors> tensors, DType dtype, DType state_dtype, const AdamArgs& args);

}  // namespace deepseek::kernels
