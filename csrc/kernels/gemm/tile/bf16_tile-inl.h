// Register tiles of bfloat16 dot products (AVX512_BF16). A pair of neighbours in k is one 32-bit word of an operand.
// Everything here runs where uses_bf16_dot(bf16).
#pragma once

#if defined(__x86_64__)
#include <array>
#include <cstdint>
#include <utility>

#include "kernels/gemm/matmul_float.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include <immintrin.h>

namespace deepseek::kernels::bf16_dot {
namespace {

constexpr int kRows = 6, kVecs = 4;
constexpr int64_t kLanes = 16, kWidth = kVecs * kLanes;

struct PairDot {
  using Number = uint32_t;
  using Float = float;
  using Sum = __m512;
  using Vec = __m512bh;
#define DS_INLINE [[gnu::always_inline]] static inline
  DS_INLINE constexpr int64_t lanes() { return 16; }
  DS_INLINE Sum dot(Sum sum, Vec a, Vec b) { return _mm512_dpbf16_ps(sum, a, b); }
  DS_INLINE Vec all_lanes(const uint32_t* a) { return reinterpret_cast<Vec>(_mm512_set1_epi32(static_cast<int>(*a))); }
  DS_INLINE Vec load(const uint32_t* b) { return reinterpret_cast<Vec>(_mm512_loadu_si512(b)); }
  DS_INLINE Sum zero() { return _mm512_setzero_ps(); }
  DS_INLINE Sum load_sum(const float* p) { return _mm512_loadu_ps(p); }
  DS_INLINE void store_sum(Sum sum, float* p) { _mm512_storeu_ps(p, sum); }
  DS_INLINE void stream_sum(Sum sum, float* p) { _mm512_stream_ps(p, sum); }
  DS_INLINE Sum add(Sum x, Sum y) { return _mm512_add_ps(x, y); }
  DS_INLINE Sum scaled(Sum sum, float factor) { return _mm512_mul_ps(sum, _mm512_set1_ps(factor)); }
#undef DS_INLINE
};

#include "kernels/gemm/tile/register_tile.inc"
// after register_tile.inc
#include "kernels/gemm/tile/product_tile.inc"

template <class Dot>
ProductFn<Dot> product_tile(int64_t rows, int64_t vecs) {
  return tile_of<ProductTile<Dot>, kRows, kVecs>(rows, vecs);
}

}  // namespace
}  // namespace deepseek::kernels::bf16_dot
#pragma GCC pop_options
#endif
