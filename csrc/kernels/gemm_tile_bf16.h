// The register tile of bfloat16 dot products (AVX512_BF16), and packing into pairs of neighbours in k. Everything here
// runs behind bf16_kernel_available().
#pragma once

#if defined(__x86_64__)
#include <cstdint>
#include <utility>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include <immintrin.h>

namespace deepseek::kernels::bf16_dot {
namespace {

constexpr int kRows = 6, kVecs = 4;
constexpr int64_t kLanes = 16, kWidth = kVecs * kLanes;

// A pair of neighbours in k as one 32-bit word: A row-major, B row-major per panel, both in units of pairs.
template <int MR, int NV>
void micro(int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b, int64_t b_row, const float* init,
           float* out, int64_t out_row, bool add) {
  __m512 acc[MR][NV];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      acc[r][v] = init ? _mm512_loadu_ps(init + r * out_row + v * kLanes) : _mm512_setzero_ps();
  for (int64_t i = 0; i < pairs; ++i) {
    __m512bh vb[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) vb[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + i * b_row + v * kLanes));
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const __m512bh va = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r * a_row + i])));
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], va, vb[v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      float* p = out + r * out_row + v * kLanes;
      _mm512_storeu_ps(p, add ? _mm512_add_ps(_mm512_loadu_ps(p), acc[r][v]) : acc[r][v]);
    }
}

using MicroFn = void (*)(int64_t, const uint32_t*, int64_t, const uint32_t*, int64_t, const float*, float*, int64_t,
                         bool);
template <int... I>
constexpr auto make_table(std::integer_sequence<int, I...>) {
  struct {
    MicroFn fn[kRows * kVecs];
  } t{{&micro<I / kVecs + 1, I % kVecs + 1>...}};
  return t;
}
constexpr auto kMicro = make_table(std::make_integer_sequence<int, kRows * kVecs>());
MicroFn micro_for(int64_t rows, int64_t vecs) { return kMicro.fn[(rows - 1) * kVecs + vecs - 1]; }

uint32_t pair_of(const uint16_t* p, int64_t step, bool both) {
  return p[0] | (both ? static_cast<uint32_t>(p[step]) << 16 : 0u);
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

// A[m, k] -> m rows of ceil(k / 2) pairs.
[[maybe_unused]] void pack_a(const uint16_t* a, int64_t row, int64_t col, int64_t m, int64_t k, uint32_t* dst) {
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
        transpose_words(lo[0], lo[1], lo[2], lo[3], dst + i * pairs + done, pairs);
        transpose_words(hi[0], hi[1], hi[2], hi[3], dst + (i + 4) * pairs + done, pairs);
      }
      for (int64_t i = whole_rows; i < m; ++i)
        for (int64_t p = 0; p < 4; ++p) dst[i * pairs + done + p] = pair_of(src + i + 2 * p * col, col, true);
    }
  }
  for (int64_t i = 0; i < m; ++i)
    for (int64_t p = done; p < pairs; ++p) dst[i * pairs + p] = pair_of(a + i * row + 2 * p * col, col, 2 * p + 1 < k);
}

// B[k, n] -> ceil(k / 2) rows of `width` words; columns up to the next whole vector are zero.
void pack_b(const uint16_t* b, int64_t row, int64_t col, int64_t k, int64_t n, uint32_t* dst, int64_t width,
            bool prefetch) {
  const int64_t pairs = (k + 1) / 2, whole = k / 2, end = (n + kLanes - 1) / kLanes * kLanes;
  int64_t done_columns = 0;
  if (row == 1) {
    for (; done_columns + 4 <= n; done_columns += 4) {
      const uint16_t* src = b + done_columns * col;
      int64_t p = 0;
      for (; p + 4 <= whole; p += 4) {
        if (prefetch && p % 32 == 0)
          for (int64_t j = 0; j < 4; ++j) __builtin_prefetch(src + 2 * p + k + j * col);
        const uint16_t* q = src + 2 * p;
        transpose_words(load8(q), load8(q + col), load8(q + 2 * col), load8(q + 3 * col),
                        dst + p * width + done_columns, width);
      }
      for (; p < pairs; ++p)
        for (int64_t j = 0; j < 4; ++j)
          dst[p * width + done_columns + j] = pair_of(src + 2 * p + j * col, 1, 2 * p + 1 < k);
    }
  }
  for (int64_t p = 0; p < pairs; ++p) {
    int64_t j = done_columns;
    const uint16_t* src = b + 2 * p * row;
    if (col == 1 && p < whole) {
      for (; j + 8 <= n; j += 8) {
        const __m128i even = load8(src + j), odd = load8(src + row + j);
        uint32_t* to = dst + p * width + j;
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_unpacklo_epi16(even, odd));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 4), _mm_unpackhi_epi16(even, odd));
      }
    }
    for (; j < n; ++j) dst[p * width + j] = pair_of(src + j * col, row, p < whole);
    for (; j < end; ++j) dst[p * width + j] = 0;
  }
}

}  // namespace
}  // namespace deepseek::kernels::bf16_dot
#pragma GCC pop_options
#endif
