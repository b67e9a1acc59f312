#include "kernels/loops/cast.h"

#include <algorithm>
#include <cstring>

#include "kernels/simd/cast_small.h"

namespace deepseek::kernels {
namespace {

template <class From, class To>
void cast_contiguous(To* __restrict dst, const From* __restrict src, int64_t n) {
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(dst, src, n * sizeof(To));
    return;
  } else if constexpr (std::is_same_v<From, bool>) {  // bytes of 0 and 1, which loops over bool are not vectorised as
    return cast_contiguous<uint8_t, To>(dst, reinterpret_cast<const uint8_t*>(src), n);
  } else if constexpr (is_small_cast<From, To>) {
    return cast_small(dst, src, n);
  }
  for (int64_t i = 0; i < n; ++i) dst[i] = convert<To>(src[i]);
}

template <class From, class To>
void cast_strided(void* dst, int64_t dst_stride, const void* src, int64_t src_stride, int64_t n) {
  To* d = static_cast<To*>(dst);
  const From* s = static_cast<const From*>(src);
  if (dst_stride == 1 && src_stride == 1) return cast_contiguous<From, To>(d, s, n);
  if (src_stride == 0) {
    if (n == 0) return;
    const To value = convert<To>(*s);
    if (dst_stride == 1) return void(std::fill_n(d, n, value));
    for (int64_t i = 0; i < n; ++i) d[i * dst_stride] = value;
    return;
  }
  for (int64_t i = 0; i < n; ++i) d[i * dst_stride] = convert<To>(s[i * src_stride]);
}

}  // namespace

CastFn cast_function(DType from, DType to) {
  return dispatch(
      from, [&]<class From>() { return dispatch(to, []<class To>() -> CastFn { return cast_strided<From, To>; }); });
}

}  // namespace deepseek::kernels
