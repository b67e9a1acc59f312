// Packing of bfloat16 into pairs of neighbours in k, as bf16_tile-inl.h multiplies them.
#pragma once

#if defined(__x86_64__)
#include <cstdint>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include <immintrin.h>

#include "kernels/gemm/tile/bf16_tile-inl.h"
#include "kernels/simd/transpose_x86.h"

namespace deepseek::kernels::bf16_dot {
namespace {

uint32_t pair_of(const uint16_t* p, int64_t step, bool both) {
  return p[0] | (both ? static_cast<uint32_t>(p[step]) << 16 : 0u);
}

// r[i] word j = pair i of column j, for 16 pairs of 16 columns that lie `col` apart, contiguous in k.
inline void load_pairs_transposed(const uint16_t* b, int64_t col, __m512 (&r)[16]) {
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) r[j] = _mm512_loadu_ps(reinterpret_cast<const float*>(b + j * col));
  transpose_lanes(r);
}

// dst[p * dst_row + 0..3] = words p of the rows r0..r3.
void transpose_words(__m128i r0, __m128i r1, __m128i r2, __m128i r3, uint32_t* dst, int64_t dst_row) {
  const __m128i lo01 = _mm_unpacklo_epi32(r0, r1), hi01 = _mm_unpackhi_epi32(r0, r1);
  const __m128i lo23 = _mm_unpacklo_epi32(r2, r3), hi23 = _mm_unpackhi_epi32(r2, r3);
  const auto store = [&](int64_t p, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + p * dst_row), v); };
  store(0, _mm_unpacklo_epi64(lo01, lo23));
  store(1, _mm_unpackhi_epi64(lo01, lo23));
  store(2, _mm_unpacklo_epi64(hi01, hi23));
  store(3, _mm_unpackhi_epi64(hi01, hi23));
}

__m128i load8(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

// A[m, k] -> m rows of ceil(k / 2) pairs, dst_row words apart.
[[maybe_unused]] void pack_a(const uint16_t* a, int64_t row, int64_t col, int64_t m, int64_t k, uint32_t* dst,
                             int64_t dst_row) {
  const int64_t pairs = (k + 1) / 2;
  int64_t done = 0;  // pairs of whole blocks
  if (row == 1) {    // transposed: rows are neighbours in memory, taken 8 at a time
    const int64_t whole_rows = m / 8 * 8;
    for (; done + 4 <= k / 2; done += 4) {
      const uint16_t* src = a + 2 * done * col;
      for (int64_t i = 0; i < whole_rows; i += 8) {
        __m128i lo[4], hi[4];
        for (int64_t p = 0; p < 4; ++p) {
          const __m128i even = load8(src + i + 2 * p * col), odd = load8(src + i + (2 * p + 1) * col);
          lo[p] = _mm_unpacklo_epi16(even, odd);
          hi[p] = _mm_unpackhi_epi16(even, odd);
        }
        transpose_words(lo[0], lo[1], lo[2], lo[3], dst + i * dst_row + done, dst_row);
        transpose_words(hi[0], hi[1], hi[2], hi[3], dst + (i + 4) * dst_row + done, dst_row);
      }
      for (int64_t i = whole_rows; i < m; ++i)
        for (int64_t p = 0; p < 4; ++p) dst[i * dst_row + done + p] = pair_of(src + i + 2 * p * col, col, true);
    }
  }
  if (col == 1) {
    done = k / 2;
    for (int64_t i = 0; i < m; ++i) std::memcpy(dst + i * dst_row, a + i * row, static_cast<size_t>(done) * 4);
  }
  for (int64_t i = 0; i < m; ++i)
    for (int64_t p = done; p < pairs; ++p)
      dst[i * dst_row + p] = pair_of(a + i * row + 2 * p * col, col, 2 * p + 1 < k);
}

// 16 values as the lower halves of words. (The masked form: GCC warns of the plain one's undefined source.)
inline __m512i load_words(const uint16_t* p) {
  return _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __m512i interleave(const uint16_t* even, const uint16_t* odd) {
  return _mm512_or_si512(load_words(even), _mm512_maskz_slli_epi32(0xffff, load_words(odd), 16));
}

// B[k, n] -> ceil(k / 2) rows of `width` words; columns up to the next whole vector are zero. `ahead`: how far in b
// what is needed next lies, 0 for nowhere.
[[maybe_unused]] void pack_b(const uint16_t* b, int64_t row, int64_t col, int64_t k, int64_t n, uint32_t* dst,
                             int64_t width, int64_t ahead) {
  const int64_t pairs = (k + 1) / 2, whole = k / 2, end = (n + kLanes - 1) / kLanes * kLanes;
  int64_t done_columns = 0;
  if (row == 1) {
    for (; done_columns + 16 <= n; done_columns += 16) {
      const uint16_t* src = b + done_columns * col;
      int64_t p = 0;
      for (; p + 16 <= whole; p += 16) {
        if (ahead != 0)
          for (int64_t j = 0; j < 16; ++j) __builtin_prefetch(src + 2 * p + j * col + ahead, 0, 2);  // to L2
        __m512 r[16];
        load_pairs_transposed(src + 2 * p, col, r);
#pragma GCC unroll 16
        for (int64_t i = 0; i < 16; ++i)
          _mm512_storeu_ps(reinterpret_cast<float*>(dst + (p + i) * width + done_columns), r[i]);
      }
      for (; p < pairs; ++p)
        for (int64_t j = 0; j < 16; ++j)
          dst[p * width + done_columns + j] = pair_of(src + 2 * p + j * col, 1, 2 * p + 1 < k);
    }
  }
  for (int64_t p = 0; p < pairs; ++p) {
    int64_t j = done_columns;
    const uint16_t* src = b + 2 * p * row;
    if (col == 1 && p < whole)
      for (; j + 16 <= n; j += 16) _mm512_storeu_si512(dst + p * width + j, interleave(src + j, src + row + j));
    for (; j < n; ++j) dst[p * width + j] = pair_of(src + j * col, row, p < whole);
    for (; j < end; ++j) dst[p * width + j] = 0;
  }
}

}  // namespace
}  // namespace deepseek::kernels::bf16_dot
#pragma GCC pop_options
#endif
