// Dtypes and sizes of results that infer functions share.
#pragma once

#include "core/tensor.h"

namespace deepseek {

// PyTorch's result_type over tensors of three strengths: with dims, 0-d, Python numbers.
DType result_type(Inputs in);
Dims broadcast_sizes(const char* op, const Dims& a, const Dims& b);

}  // namespace deepseek
