// Squares of words transposed in registers.
#pragma once

#include <cstdint>

#include "kernels/simd/transpose_x86.h"

namespace deepseek::kernels {

// out[r * out_row + c] = in[r + c * in_col] for r and c below kSquare, in registers.
template <class T>
inline constexpr int64_t kSquare = 0;  // no such block
#if defined(__AVX2__)
template <>
inline constexpr int64_t kSquare<uint32_t> = 8;
template <>
inline constexpr int64_t kSquare<uint64_t> = 4;
template <>
inline constexpr int64_t kSquare<uint16_t> = 8;

inline void turn_square(const uint32_t* in, int64_t in_col, uint32_t* out, int64_t out_row) {
  __m256 v[8];
  for (int c = 0; c < 8; ++c) v[c] = _mm256_loadu_ps(reinterpret_cast<const float*>(in + c * in_col));
  transpose_lanes(v);
  for (int r = 0; r < 8; ++r) _mm256_storeu_ps(reinterpret_cast<float*>(out + r * out_row), v[r]);
}
inline void turn_square(const uint64_t* in, int64_t in_col, uint64_t* out, int64_t out_row) {
  const auto load = [&](int c) { return _mm256_loadu_pd(reinterpret_cast<const double*>(in + c * in_col)); };
  const auto store = [&](int r, __m256d v) { _mm256_storeu_pd(reinterpret_cast<double*>(out + r * out_row), v); };
  const __m256d low01 = _mm256_unpacklo_pd(load(0), load(1)), high01 = _mm256_unpackhi_pd(load(0), load(1));
  const __m256d low23 = _mm256_unpacklo_pd(load(2), load(3)), high23 = _mm256_unpackhi_pd(load(2), load(3));
  store(0, _mm256_permute2f128_pd(low01, low23, 0x20));
  store(1, _mm256_permute2f128_pd(high01, high23, 0x20));
  store(2, _mm256_permute2f128_pd(low01, low23, 0x31));
  store(3, _mm256_permute2f128_pd(high01, high23, 0x31));
}
inline void turn_square(const uint16_t* in, int64_t in_col, uint16_t* out, int64_t out_row) {
  __m128i v[8], t[8];
  for (int c = 0; c < 8; ++c) v[c] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + c * in_col));
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {  // columns 4 (i / 2) .. + 3, of the first or the last four rows
    const __m128i a = t[i / 2 * 4 + i % 2], b = t[i / 2 * 4 + i % 2 + 2];
    v[2 * i] = _mm_unpacklo_epi32(a, b);
    v[2 * i + 1] = _mm_unpackhi_epi32(a, b);
  }
  for (int i = 0; i < 4; ++i) {
    const auto store = [&](int r, __m128i x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(out + r * out_row), x); };
    store(2 * i, _mm_unpacklo_epi64(v[i], v[i + 4]));
    store(2 * i + 1, _mm_unpackhi_epi64(v[i], v[i + 4]));
  }
}
#endif

}  // namespace deepseek::kernels
