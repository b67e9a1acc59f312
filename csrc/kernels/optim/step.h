// What fused optimizer steps share: a step is one pass over all parameters of a call. Parameters and gradients: f32,
// f64, bf16 or f16, contiguous; 16-bit ones compute in float. Element-wise, so independent of how the work is cut.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace deepseek::kernels {

// One parameter and what the optimizer keeps beside it.
struct StepTensors {
  void* param;
  const void* grad;
  // In the optimizer's order; null for one that this kind of step does without. They have the parameter's dtype, or
  // float32 beside a 16-bit one.
  void* states[3];
  int64_t numel;
  // Float32 copy of a 16-bit parameter, or null: what is stepped on, with float32 state; param becomes it, rounded.
  float* master = nullptr;
  int64_t step = 1;  // 1 for the first
};

// TypeError, naming the step, for dtypes that no step takes.
void check_step(const char* name, DType dtype, DType state_dtype, bool masters);

}  // namespace deepseek::kernels
