// Contiguous conversions between float and the 16-bit floats, rounded to nearest even; a version for each SIMD target.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/dtype.h"

namespace deepseek::kernels {

template <class T>
inline constexpr bool is_16_bit_float = std::is_same_v<T, BFloat16> || std::is_same_v<T, Half>;
template <class From, class To>
inline constexpr bool is_small_cast = (std::is_same_v<From, float> && is_16_bit_float<To>) ||
                                      (is_16_bit_float<From> && std::is_same_v<To, float>);

// n elements; dst and src do not overlap.
void cast_small(BFloat16* dst, const float* src, int64_t n);
void cast_small(Half* dst, const float* src, int64_t n);
void cast_small(float* dst, const BFloat16* src, int64_t n);
void cast_small(float* dst, const Half* src, int64_t n);

}  // namespace deepseek::kernels
