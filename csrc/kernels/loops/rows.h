// Moves runs of elements between a tensor's dtype and the type arithmetic is done in.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace deepseek::kernels {

// dst[i] = src[i * stride] for i < n. C is float, double or a signed integer; C = uint8_t asks "is it nonzero" (0 or
// 1).
template <class C>
void load_row(DType dtype, const void* src, int64_t stride, int64_t n, C* dst);

// dst[i * stride] = src[i] for i < n, rounded to nearest even; integers wrap.
template <class C>
void store_row(DType dtype, void* dst, int64_t stride, int64_t n, const C* src);

// to[j * 16 + i] = from[i * 16 + j] for 32-bit elements of any type; both 32-byte aligned.
void transpose_16x16(const void* from, void* to);

}  // namespace deepseek::kernels
