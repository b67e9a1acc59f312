#include "kernels/attention/products/attention_bf16.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/gemm/tile/pack_bf16-inl.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

namespace deepseek::kernels::bf16_attention {
namespace {

using namespace bf16_dot;

#include "kernels/attention/products/attention_tiles.inc"

}  // namespace

void scores(int64_t keys, int64_t vecs, int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b,
            float* out) {
  score_tiles<PairDot>(keys, vecs, pairs, a, a_row, b, out);
}
void values(int64_t rows, int64_t columns, int64_t pairs, const uint32_t* a, const uint32_t* b, int64_t b_row,
            const float* keep, float* out, int64_t out_row, bool fresh) {
  value_tiles<PairDot>(rows, columns, pairs, a, b, b_row, keep, out, out_row, fresh);
}
void add_product(int64_t m, int64_t columns, int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b,
                 int64_t b_row, float* out, int64_t out_row) {
  add_tiles<PairDot>(m, columns, pairs, a, a_row, b, b_row, out, out_row);
}
void add_to_rows(int64_t m, int64_t columns, int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b,
                 int64_t b_row, float* const* out) {
  add_tiles_apart<PairDot>(m, columns, pairs, a, a_row, b, b_row, out);
}

void pair_rows(const float* from, int64_t n, int64_t vecs, uint32_t* to) {
  alignas(64) uint16_t order[32];
  for (int i = 0; i < 16; ++i)
    order[2 * i] = static_cast<uint16_t>(i), order[2 * i + 1] = static_cast<uint16_t>(16 + i);
  const __m512i interleave = _mm512_load_si512(order);
  for (int64_t i = 0; i < n; i += 2)
    for (int64_t v = 0; v < vecs; ++v) {
      const float* p = from + i * kWidth + v * kLanes;
      const __m512 even = _mm512_loadu_ps(p), odd = i + 1 < n ? _mm512_loadu_ps(p + kWidth) : _mm512_setzero_ps();
      const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
      _mm512_storeu_si512(to + i / 2 * kWidth + v * kLanes, _mm512_permutexvar_epi16(interleave, both));
    }
}

void pair_columns(const float* from, int64_t n, int64_t vecs, uint32_t* to) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t v = 0; v < vecs; v += 2) {
      const float* p = from + i * kWidth + v * kLanes;
      const __m512 low = _mm512_loadu_ps(p), high = v + 1 < vecs ? _mm512_loadu_ps(p + kLanes) : _mm512_setzero_ps();
      _mm512_storeu_si512(to + i * (kWidth / 2) + v * (kLanes / 2),
                          reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
    }
}

void pack_panel(const uint16_t* from, int64_t row, int64_t n, int64_t columns, uint32_t* to) {
  pack_b(from, 1, row, columns, n, to, kWidth, 0);
}

void pack_pairs(const uint16_t* from, int64_t row, int64_t n, int64_t columns, uint32_t* to, int64_t width) {
  alignas(64) uint16_t order[2][32];
  for (int i = 0; i < 32; ++i)
    for (int half = 0; half < 2; ++half) order[half][i] = static_cast<uint16_t>(i % 2 * 32 + half * 16 + i / 2);
  const __m512i low = _mm512_load_si512(order[0]), high = _mm512_load_si512(order[1]);
  const int64_t whole = columns / 32 * 32;
  for (int64_t i = 0; i < n; i += 2)
    for (int64_t c = 0; c < whole; c += 32) {
      const uint16_t* p = from + i * row + c;
      const __m512i even = _mm512_loadu_si512(p),
                    odd = i + 1 < n ? _mm512_loadu_si512(p + row) : _mm512_setzero_si512();
      uint32_t* out = to + i / 2 * width + c;
      _mm512_storeu_si512(out, _mm512_permutex2var_epi16(even, low, odd));
      _mm512_storeu_si512(out + kLanes, _mm512_permutex2var_epi16(even, high, odd));
    }
  if (whole < columns) pack_b(from + whole, row, 1, n, columns - whole, to + whole, width, 0);
}

}  // namespace deepseek::kernels::bf16_attention
#pragma GCC pop_options

#else

namespace deepseek::kernels::bf16_attention {
namespace {
[[noreturn]] void missing() { fail("attention: bf16 dot products need an x86-64 CPU with AVX512_BF16"); }
}  // namespace
void scores(int64_t, int64_t, int64_t, const uint32_t*, int64_t, const uint32_t*, float*) { missing(); }
void values(int64_t, int64_t, int64_t, const uint32_t*, const uint32_t*, int64_t, const float*, float*, int64_t, bool) {
  missing();
}
void add_product(int64_t, int64_t, int64_t, const uint32_t*, int64_t, const uint32_t*, int64_t, float*, int64_t) {
  missing();
}
void add_to_rows(int64_t, int64_t, int64_t, const uint32_t*, int64_t, const uint32_t*, int64_t, float* const*) {
  missing();
}
void pair_rows(const float*, int64_t, int64_t, uint32_t*) { missing(); }
void pair_columns(const float*, int64_t, int64_t, uint32_t*) { missing(); }
void pack_panel(const uint16_t*, int64_t, int64_t, int64_t, uint32_t*) { missing(); }
void pack_pairs(const uint16_t*, int64_t, int64_t, int64_t, uint32_t*, int64_t) { missing(); }
}  // namespace deepseek::kernels::bf16_attention

#endif
