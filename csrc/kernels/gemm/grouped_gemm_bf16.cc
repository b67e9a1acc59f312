// The register tile of grouped bfloat16 dot products (AVX512_BF16).
#include <utility>

#include "base/check.h"
#include "kernels/gemm/grouped_gemm.h"

#if defined(__x86_64__)
// Only functions below this line use AVX-512; they run where uses_bf16_dot(bf16).
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include <immintrin.h>

namespace deepseek::kernels {
namespace {

constexpr int kVecs = 4, kLanes = 16;
static_assert(kVecs * kLanes == detail::kBf16DotWidth);

template <int MR, TileStart kStart, bool kPrefetch>
void panel_tile(const TileProduct& p, const uint32_t* a, float* out, const char* ahead) {
  const int64_t k = p.k, a_row = p.a_row, a_col = p.a_col, out_row = p.out_row;
  const uint32_t* b = static_cast<const uint32_t*>(p.b);
  __m512 acc[MR][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v)
      acc[r][v] =
          kStart == TileStart::kContinue ? _mm512_loadu_ps(out + r * out_row + v * kLanes) : _mm512_setzero_ps();
  for (int64_t i = 0; i < k; ++i) {
    __m512bh vb[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) vb[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + v * kLanes));
    b += kVecs * kLanes;
    if (kPrefetch) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += p.ahead.step;
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const __m512bh va = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r * a_row])));
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], va, vb[v]);
    }
    a += a_col;
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      float* to = out + r * out_row + v * kLanes;
      _mm512_storeu_ps(to, kStart == TileStart::kAdd ? _mm512_add_ps(_mm512_loadu_ps(to), acc[r][v]) : acc[r][v]);
    }
}

using PanelTileFn = void (*)(const TileProduct&, const uint32_t*, float*, const char*);
struct PanelTiles {
  PanelTileFn fn[3][2][kTileRows];
};
template <TileStart kStart, bool kPrefetch, int... I>
constexpr void fill(PanelTileFn* fn, std::integer_sequence<int, I...>) {
  ((fn[I] = &panel_tile<I + 1, kStart, kPrefetch>), ...);
}
constexpr PanelTiles make_tiles() {
  PanelTiles t{};
  constexpr auto rows = std::make_integer_sequence<int, kTileRows>();
  fill<TileStart::kZero, false>(t.fn[0][0], rows);
  fill<TileStart::kZero, true>(t.fn[0][1], rows);
  fill<TileStart::kAdd, false>(t.fn[1][0], rows);
  fill<TileStart::kAdd, true>(t.fn[1][1], rows);
  fill<TileStart::kContinue, false>(t.fn[2][0], rows);
  fill<TileStart::kContinue, true>(t.fn[2][1], rows);
  return t;
}
constexpr PanelTiles kTiles = make_tiles();

}  // namespace

void detail::multiply_bf16_dot(const TileProduct& p) {
  for_each_tile(p, [&](int64_t row, int64_t rows, const char* ahead) {
    kTiles.fn[static_cast<int>(p.start)][ahead != nullptr][rows - 1](
        p, static_cast<const uint32_t*>(p.a) + row * p.a_row, static_cast<float*>(p.out) + row * p.out_row, ahead);
  });
}

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
