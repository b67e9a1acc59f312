// Passes over all gradients of a step: their norm, their scale.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace deepseek::kernels {

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

}  // namespace deepseek::kernels
