// Where a row of qgemm's sums becomes a row of the result.
#pragma once

#include "kernels/quant/qgemm.h"

namespace deepseek::kernels {

struct QStoreRow {
  const float *sums, *bias;  // out = activation(fma(sum, scale, bias)) + residual
  float scale;
  const void* residual;  // may be null
  void* out;
};
using QStoreFn = void (*)(const QStoreRow& r, int64_t n);

QStoreFn qstore(DType dtype, std::optional<Pointwise> activation);

}  // namespace deepseek::kernels
