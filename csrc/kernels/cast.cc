#include "kernels/cast.h"

#include <immintrin.h>

#include <cstring>

namespace deepseek::kernels {
namespace {

template <class From, class To>
void cast_contiguous(To* __restrict dst, const From* __restrict src, int64_t n) {
  int64_t i = 0;
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(dst, src, n * sizeof(To));
    return;
  } else if constexpr (std::is_same_v<From, bool>) {  // bytes of 0 and 1, which loops over bool are not vectorised as
    return cast_contiguous<uint8_t, To>(dst, reinterpret_cast<const uint8_t*>(src), n);
  } else if constexpr (std::is_same_v<From, Half> && std::is_same_v<To, float>) {
    for (; i + 8 <= n; i += 8)
      _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i))));
  } else if constexpr (std::is_same_v<From, float> && std::is_same_v<To, Half>) {
    for (; i + 8 <= n; i += 8)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i),
                       _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
  } else if constexpr (std::is_same_v<From, float> && std::is_same_v<To, BFloat16>) {
    const __m256i one = _mm256_set1_epi32(1), bias = _mm256_set1_epi32(0x7fff), quiet = _mm256_set1_epi32(0x40);
    for (; i + 8 <= n; i += 8) {
      const __m256 v = _mm256_loadu_ps(src + i);
      const __m256i u = _mm256_castps_si256(v);
      const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(u, 16), one);
      const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(bias, lsb)), 16);
      const __m256i nan = _mm256_or_si256(_mm256_srli_epi32(u, 16), quiet);
      const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
      const __m256i r = _mm256_blendv_epi8(rounded, nan, is_nan);
      const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), packed);
    }
  }
  for (; i < n; ++i) dst[i] = convert<To>(src[i]);
}

template <class From, class To>
void cast_strided(void* dst, int64_t dst_stride, const void* src, int64_t src_stride, int64_t n) {
  To* d = static_cast<To*>(dst);
  const From* s = static_cast<const From*>(src);
  if (dst_stride == 1 && src_stride == 1) return cast_contiguous<From, To>(d, s, n);
  if (src_stride == 0) {
    if (n == 0) return;
    const To value = convert<To>(*s);
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
