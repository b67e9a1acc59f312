// The parts of quantized weights, as the ops on them share them. `parts` are codes, scales and zero points, the last
// undefined where the format has none.
#pragma once

#include "core/packed.h"
#include "kernels/quant/qgemm.h"
#include "ops/ops.h"

namespace deepseek {

// The format of this name; ValueError when there is none or it does not take such blocks.
const kernels::QuantFormat& format_of(const char* op, const Str& format, int64_t block);

// Codes [N, ...], or of a stack [E, N, ...], scales and zeros fit format, block and rows of k values.
void check_parts(const char* op, const kernels::QuantFormat& t, int64_t block, int64_t k, Inputs parts);

void refuse_gradients(const char* op, Inputs parts);

// A matrix, or the first of a stack of `count`, as the kernels take it; the tensors keep the memory.
struct QuantParts {
  Tensor codes, scales, zeros;
  int64_t count;
  kernels::QuantMatrix m;
  QuantParts(const kernels::QuantFormat& t, int64_t block, int64_t k, const Tensor& c, const Tensor& s,
             const Tensor& z);
};

// The values as a tensor of this dtype.
Tensor dequantized(const Str& format, int64_t block, int64_t k, DType dtype, Inputs parts);

// The packed copy of a matrix or stack, a kernels::PackedQuant, for formats that have such a form.
Ref<Packed> packed_weights(const kernels::QuantFormat& t, int64_t block, int64_t k, Inputs parts);

}  // namespace deepseek
