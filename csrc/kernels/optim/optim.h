// Optimizer steps, each one pass over all parameters of a call. Parameters and gradients: f32, f64, bf16 or f16,
// contiguous; 16-bit ones compute in float. Element-wise, so independent of how the work is cut.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace deepseek::kernels {

struct AdamTensors {
  void* param;
  const void* grad;
  void* exp_avg;
  void* exp_avg_sq;
  void* max_exp_avg_sq;  // null without amsgrad
  int64_t numel;
  int64_t step;  // 1 for the first step
  // Float32 copy of a 16-bit parameter, or null: what is stepped on, with float32 state; param becomes it, rounded.
  float* master = nullptr;
};

struct AdamArgs {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled = true;  // AdamW; false: Adam, which adds weight_decay * param to the gradient
  bool amsgrad = false, maximize = false;
  double grad_scale = 1;  // multiplies every gradient first (loss scale, clipping)
};

// State has the parameters' dtype, or float32 beside 16-bit parameters.
void adam_step(std::span<const AdamTensors> tensors, DType dtype, DType state_dtype, const AdamArgs& args);

struct SgdTensors {
  void* param;
  const void* grad;
  void* momentum;  // of the parameters' dtype, float32 with a master; null without momentum
  int64_t numel;
  bool first;               // no earlier step: the buffer becomes the gradient
  float* master = nullptr;  // as AdamTensors::master
};

struct SgdArgs {
  double lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false, maximize = false;
  double grad_scale = 1;
};

void sgd_step(std::span<const SgdTensors> tensors, DType dtype, const SgdArgs& args);

struct TensorRef {
  void* data;
  int64_t numel;
  DType dtype;
};

// out[i] = sum of squares of tensor i in double, by a fixed tree: the bits depend on that tensor alone.
void sum_squares(std::span<const TensorRef> tensors, double* out);

struct NonFinite {
  int64_t infinite = 0, nan = 0;
};
// Counts the elements that are not finite and multiplies all in place, in one pass (small floats: in float, rounded
// once). A factor of 1 writes nothing.
NonFinite unscale(std::span<const TensorRef> tensors, double factor);

// Multiplies in place (small floats: in float, rounded once).
void scale_all(std::span<const TensorRef> tensors, double factor);

}  // namespace deepseek::kernels
