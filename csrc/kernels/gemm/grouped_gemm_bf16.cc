// Grouped bfloat16 dot products (AVX512_BF16).
#include "base/check.h"
#include "hwy/cache_control.h"
#include "kernels/gemm/grouped_gemm.h"
#include "kernels/gemm/tile/bf16_tile-inl.h"

#if defined(__x86_64__)
// Only functions below this line use AVX-512; they run where uses_bf16_dot(bf16).
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include <immintrin.h>

namespace deepseek::kernels {
namespace bf16_dot {
namespace {
#include "kernels/gemm/tile/panel_tile.inc"
}  // namespace
}  // namespace bf16_dot

using bf16_dot::kLanes;
static_assert(bf16_dot::kWidth == detail::kBf16DotWidth);

void detail::multiply_bf16_dot(const TileProduct& p) { bf16_dot::multiply_panels<bf16_dot::PairDot>(p); }

void detail::store_bf16_dot(const void* sums, int64_t sums_row, int64_t rows, int64_t columns, void* to, int64_t to_row,
                            bool stream) {
  stream = stream && reinterpret_cast<uintptr_t>(to) % 64 == 0 && to_row % (2 * kLanes) == 0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = static_cast<const float*>(sums) + r * sums_row;
    uint16_t* dst = static_cast<uint16_t*>(to) + r * to_row;
    int64_t c = 0;
    for (; c + 2 * kLanes <= columns; c += 2 * kLanes) {
      const __m512i v =
          reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + c + kLanes), _mm512_loadu_ps(from + c)));
      if (stream)
        _mm512_stream_si512(reinterpret_cast<__m512i*>(dst + c), v);
      else
        _mm512_storeu_si512(dst + c, v);
    }
    for (; c < columns; ++c) dst[c] = BFloat16(from[c]).bits;
  }
  if (stream) _mm_sfence();
}

}  // namespace deepseek::kernels
#pragma GCC pop_options

#else

namespace deepseek::kernels {
void detail::multiply_bf16_dot(const TileProduct&) { fail("bf16 kernel: needs an x86-64 CPU with AVX512_BF16"); }
void detail::store_bf16_dot(const void*, int64_t, int64_t, int64_t, void*, int64_t, bool) {
  fail("bf16 kernel: needs an x86-64 CPU with AVX512_BF16");
}
}  // namespace deepseek::kernels

#endif
