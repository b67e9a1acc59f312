// The register tile of bfloat16 dot products (AVX512_BF16), and packing into pairs of neighbours in k. Everything here
// runs where uses_bf16_dot(bf16).
#pragma once

#if defined(__x86_64__)
#include <cstdint>
#include <cstring>
#include <utility>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include <immintrin.h>

#include "kernels/gemm/matmul_float.h"
#include "kernels/gemm/prefetch.h"
#include "kernels/simd/transpose_x86.h"

namespace deepseek::kernels::bf16_dot {
namespace {

constexpr int kRows = 6, kVecs = 4;
constexpr int64_t kLanes = 16, kWidth = kVecs * kLanes;

// acc += A B over `pairs` words of k; word i of row r of A at a[r * a_row + i * a_col].
template <int MR, int NV>
inline __attribute__((always_inline)) void add_products(int64_t pairs, const uint32_t* a, int64_t a_row, int64_t a_col,
                                                        const uint32_t* b, int64_t b_row, __m512 (&acc)[MR][NV]) {
  for (int64_t i = 0; i < pairs; ++i) {
    __m512bh vb[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) vb[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + i * b_row + v * kLanes));
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const __m512bh va = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r * a_row + i * a_col])));
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], va, vb[v]);
    }
  }
}

// A pair of neighbours in k as one 32-bit word: A row-major, B row-major per panel, both in units of pairs.
template <int MR, int NV>
void micro(int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b, int64_t b_row, const float* init,
           const Sums<float>& c) {
  __m512 acc[MR][NV];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      acc[r][v] = init ? _mm512_loadu_ps(init + r * c.out_row + v * kLanes) : _mm512_setzero_ps();
  add_products<MR, NV>(pairs, a, a_row, 1, b, b_row, acc);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const int64_t column = v * kLanes;
      _mm512_storeu_ps(
          c.out + r * c.out_row + column,
          c.from ? _mm512_add_ps(_mm512_loadu_ps(c.from + r * c.from_row + column), acc[r][v]) : acc[r][v]);
    }
}

using MicroFn = void (*)(int64_t, const uint32_t*, int64_t, const uint32_t*, int64_t, const float*, const Sums<float>&);
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

// r[i] word j = pair i of column j, for 16 pairs of 16 columns that lie `col` apart, contiguous in k.
inline void load_pairs_transposed(const uint16_t* b, int64_t col, __m512 (&r)[16]) {
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) r[j] = _mm512_loadu_ps(reinterpret_cast<const float*>(b + j * col));
  transpose_lanes(r);
}

// Products with B's columns contiguous, `col` apart: 16 of them are transposed a block at a time in registers and meet
// all rows of A there, so B is read once, as one stream, and packed nowhere. A in pairs, the last one half zero when k
// is odd. kDotRows rows have their sums in registers; of more rows they pass through the L1 cache.
inline constexpr int kDotRows = 8;

// acc[MR] += `pairs` words at a, one row after the other, times the words in v.
template <int MR>
inline __attribute__((always_inline)) void dot_block(int pairs, const uint32_t* a, int64_t a_row, const __m512* v,
                                                     __m512 (&acc)[MR]) {
#pragma GCC unroll 16
  for (int p = 0; p < pairs; ++p)
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
      acc[r] =
          _mm512_dpbf16_ps(acc[r], reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r * a_row + p]))),
                           reinterpret_cast<__m512bh>(v[p]));
}
template <int MR>
inline __attribute__((always_inline)) void dot_block(int pairs, const uint32_t* a, int64_t a_row, const __m512* v,
                                                     float* sums) {
  __m512 acc[MR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) acc[r] = _mm512_load_ps(sums + r * kLanes);
  dot_block(pairs, a, a_row, v, acc);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) _mm512_store_ps(sums + r * kLanes, acc[r]);
}

// The words of one pair of k, where no whole block is left.
inline __m512 pair_words(const uint16_t* b, int64_t col, bool both) {
  alignas(64) uint32_t words[16];
  for (int64_t j = 0; j < 16; ++j) words[j] = pair_of(b + j * col, 1, both);
  return _mm512_load_ps(words);
}

inline void store_sums(__m512 sums, const Sums<float>& c, int64_t row) {
  _mm512_storeu_ps(c.out + row * c.out_row,
                   c.from ? _mm512_add_ps(_mm512_loadu_ps(c.from + row * c.from_row), sums) : sums);
}

// c[MR, 16] = A B. a: for every 16 pairs of k those of all rows, one row after the other, so
// that rows far apart in memory do not share cache sets. next: what of B comes after this block of k.
template <int MR>
void dot_columns(int64_t k, const uint32_t* a, const uint16_t* b, const uint16_t* next, int64_t col,
                 const Sums<float>& c) {
  __m512 acc[MR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) acc[r] = _mm512_setzero_ps();
  int64_t p = 0;
  for (; p + 16 <= k / 2; p += 16, a += MR * kLanes) {
    __m512 v[16];
    prefetch_columns<32 * kLanes>(next, col, p / 16);
    load_pairs_transposed(b + 2 * p, col, v);
    dot_block(16, a, kLanes, v, acc);
  }
  for (; 2 * p < k; ++p, ++a) {
    const __m512 v = pair_words(b + 2 * p, col, 2 * p + 1 < k);
    dot_block(1, a, kLanes, &v, acc);
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) store_sums(acc[r], c, r);
}

// The same for `groups` times kDotRows rows and MR more.
template <int MR>
void dot_columns_of_groups(int64_t groups, int64_t k, const uint32_t* a, const uint16_t* b, int64_t col,
                           const Sums<float>& c, float* sums) {
  const int64_t rows = groups * kDotRows;
  for (int64_t r = 0; r < rows + MR; ++r) _mm512_store_ps(sums + r * kLanes, _mm512_setzero_ps());
  const auto all_rows = [&](int pairs, const __m512* v) __attribute__((always_inline)) {
    for (int64_t r = 0; r < rows; r += kDotRows)
      dot_block<kDotRows>(pairs, a + r * kLanes, kLanes, v, sums + r * kLanes);
    dot_block<MR>(pairs, a + rows * kLanes, kLanes, v, sums + rows * kLanes);
  };
  int64_t p = 0;
  for (; p + 16 <= k / 2; p += 16, a += (rows + MR) * kLanes) {
    __m512 v[16];
    load_pairs_transposed(b + 2 * p, col, v);
    all_rows(16, v);
  }
  for (; 2 * p < k; ++p, ++a) {
    const __m512 v = pair_words(b + 2 * p, col, 2 * p + 1 < k);
    all_rows(1, &v);
  }
  for (int64_t r = 0; r < rows + MR; ++r) store_sums(_mm512_load_ps(sums + r * kLanes), c, r);
}

template <int... I>
constexpr auto make_dot_table(std::integer_sequence<int, I...>) {
  struct {
    void (*few[kDotRows])(int64_t, const uint32_t*, const uint16_t*, const uint16_t*, int64_t, const Sums<float>&);
    void (*groups[kDotRows])(int64_t, int64_t, const uint32_t*, const uint16_t*, int64_t, const Sums<float>&, float*);
  } t{{&dot_columns<I + 1>...}, {&dot_columns_of_groups<I + 1>...}};
  return t;
}
constexpr auto kDot = make_dot_table(std::make_integer_sequence<int, kDotRows>());

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
