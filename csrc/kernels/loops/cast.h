// Element conversion with PyTorch's meaning: float to int truncates, anything to bool is `!= 0`.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "base/dtype.h"

namespace deepseek::kernels {

template <class To, class From>
inline To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (is_small_float<From>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bool>) {
    return value != From(0);
  } else if constexpr (is_small_float<To>) {
    return To(static_cast<float>(value));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    // Out-of-range values become the smallest integer of the conversion's width, as the x86 instruction does.
    using Wide = std::conditional_t<sizeof(To) == 8, int64_t, int32_t>;
    constexpr From kLimit = sizeof(To) == 8 ? From(9223372036854775808.0) : From(2147483648.0);
    const Wide wide = value >= -kLimit && value < kLimit ? static_cast<Wide>(value) : std::numeric_limits<Wide>::min();
    return static_cast<To>(wide);
  } else {
    return static_cast<To>(value);
  }
}

// Copies n elements with conversion; strides in elements.
using CastFn = void (*)(void* dst, int64_t dst_stride, const void* src, int64_t src_stride, int64_t n);
CastFn cast_function(DType from, DType to);

}  // namespace deepseek::kernels
