// One fused pass over all parameters of a step, or all gradients. Each is updated in place; memory that is not dense
// goes through a copy.
#pragma once

#include <span>

#include "core/tensor.h"
#include "kernels/optim/optim.h"

namespace deepseek::optim {

struct AdamParameter {
  Tensor param, grad, exp_avg, exp_avg_sq;
  Tensor max_exp_avg_sq;  // with amsgrad only
  Tensor master;          // float32 copy of a 16-bit parameter, which is stepped on instead, or undefined
  int64_t step = 1;       // 1 for the first
};
void adam_step(std::span<const AdamParameter> parameters, const kernels::AdamArgs& args);

struct SgdParameter {
  Tensor param, grad;
  Tensor momentum;     // with momentum only; float32 beside a master
  bool first = false;  // no earlier step: the buffer becomes the gradient
  Tensor master = {};  // as AdamParameter::master
};
void sgd_step(std::span<const SgdParameter> parameters, const kernels::SgdArgs& args);

// Multiplies gradients in place and counts what in them was infinite or NaN before, in one pass over all of them; a
// factor of 1 only counts. Undefined ones are allowed.
kernels::NonFinite unscale(Inputs gradients, double factor);

}  // namespace deepseek::optim
