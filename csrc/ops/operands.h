// Operands as kernels read them.
#pragma once

#include "kernels/loops/copy.h"
#include "ops/ops.h"

namespace deepseek {

// Sums and statistics of 16-bit floats are float32.
inline DType computing_type(DType t) {
  if (is_complex(t)) fail<NotImplementedError>("internal: no float computes with ", t);
  return t == DType::kFloat64 ? t : DType::kFloat32;
}

inline Tensor copy_as(const Tensor& t, DType dtype) {
  Tensor out = Tensor::empty(t.sizes(), dtype);
  kernels::copy(out.view(), t.view());
  return out;
}

// Of this dtype and contiguous, or a copy that is.
inline Tensor dense(const Tensor& t, DType dtype) {
  return t.is_contiguous() && t.dtype() == dtype ? t : copy_as(t, dtype);
}

// Of this dtype and, along the last dim, neighbours; or a copy.
inline Tensor dense_rows(const Tensor& t, DType dtype) {
  return t.dtype() == dtype && (t.numel() == 0 || t.strides().back() == 1) ? t : copy_as(t, dtype);
}

}  // namespace deepseek
