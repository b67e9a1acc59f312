#include "kernels/sparse_attention/index_scores/index_scores_vnni.h"

#include <algorithm>

#include "kernels/gemm/tile/vnni_tile-inl.h"
#include "runtime/cpu.h"

#if defined(__x86_64__)
// Only functions below this line use AVX-512; they run behind index_tile_vnni().
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")
#include <immintrin.h>

namespace deepseek::kernels {
namespace {

constexpr int kRows = 6, kVecs = 4;
using Dot = vnni::ByteDot<vnni::Wide, vnni::Unsigned::kA>;

// Adds R heads to sums, which lie in memory: the registers are full of products.
template <int R>
void rows(int64_t words, const uint32_t* q, const uint32_t* panel, const int32_t* start, const float* w, float* sums) {
  __m512 sum[kVecs];
  vnni::run_tile<Dot, R, kVecs>(
      vnni::TileOperands<Dot>{words, q, words, panel, 64},
      [&](int, int v) __attribute__((always_inline)) { return Dot::load(start + 16 * v); },
      [&](int r, int v, Dot::Sum dot) __attribute__((always_inline)) {
        const __m512i positive = _mm512_maskz_max_epi32(0xffff, reinterpret_cast<__m512i>(dot), _mm512_setzero_si512());
        sum[v] = _mm512_fmadd_ps(_mm512_set1_ps(w[r]), _mm512_maskz_cvtepi32_ps(0xffff, positive),
                                 r == 0 ? _mm512_loadu_ps(sums + 16 * v) : sum[v]);
      });
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) _mm512_storeu_ps(sums + 16 * v, sum[v]);
}

void tile(int64_t heads, int64_t words, const uint32_t* q, const uint32_t* panel, const int32_t* start, const float* w,
          float* sums) {
  std::fill_n(sums, 64, 0.0f);
  int64_t j = 0;
  for (; j + kRows <= heads; j += kRows) rows<kRows>(words, q + j * words, panel, start, w + j, sums);
  for (; j + 2 <= heads; j += 2) rows<2>(words, q + j * words, panel, start, w + j, sums);
  if (j < heads) rows<1>(words, q + j * words, panel, start, w + j, sums);
}

}  // namespace

IndexTileFn index_tile_vnni() { return cpu_features().avx512_vnni ? &tile : nullptr; }

}  // namespace deepseek::kernels
#pragma GCC pop_options

#else
namespace deepseek::kernels {
IndexTileFn index_tile_vnni() { return nullptr; }
}  // namespace deepseek::kernels
#endif
