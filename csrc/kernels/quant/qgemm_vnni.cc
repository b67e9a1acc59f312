#include <utility>

#include "kernels/quant/qgemm_tile.h"
#include "kernels/simd/routes.h"
#include "runtime/cpu.h"

#if defined(__x86_64__)
// Only functions below this line use AVX-512; they run behind the functions at the end.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#include <immintrin.h>

namespace deepseek::kernels {
namespace {

// acc[r] += u8 codes * s8 words of x. Not the builtin: GCC 12 has another vector type for it, and copies sums to and
// fro at the ends of loops.
template <int R>
[[gnu::always_inline]] inline void dot(__m512i (&acc)[R], __m512i codes, const int32_t* x) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc[r]) : "v"(codes), "m"(x[r]));
}

// What differs between formats: 32 k of codes times x, and whether the start is per column.
struct Bytes {
  static constexpr int64_t kStepBytes = 512;
  template <int R>
  [[gnu::always_inline]] static void step(__m512i (&acc)[R], const uint8_t* codes, const int32_t* x) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) dot<R>(acc, _mm512_loadu_si512(codes + 64 * j), x + j * R);
  }
};
struct Nibbles {
  static constexpr int64_t kStepBytes = 256;
  // With several rows a page of codes takes longer to multiply than to fetch, but the hardware looks less far ahead. A
  // single row waits for memory alone, and bytes are twice as many: there it costs (-25 %, here +29 %).
  static constexpr int64_t kAhead = 4096;
  template <int R>
  [[gnu::always_inline]] static void step(__m512i (&acc)[R], const uint8_t* codes, const int32_t* x) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      if (R > 4) _mm_prefetch(reinterpret_cast<const char*>(codes) + kAhead + 64 * j, _MM_HINT_T0);
      const __m512i both = _mm512_loadu_si512(codes + 64 * j);
      dot<R>(acc, _mm512_and_si512(both, low), x + 2 * j * R);
      dot<R>(acc, _mm512_and_si512(_mm512_srli_epi16(both, 4), low), x + (2 * j + 1) * R);
    }
  }
};

template <class Codes, bool kZeros, bool kHalf, int R>
void tile(const QTile& t) {
  constexpr int64_t kScaleBytes = kHalf ? 32 : 64;
  const int64_t block_steps = t.w->block_steps();
  const uint8_t* p = t.panel;
  const int32_t *x = t.x, *start = t.start;
  __m512 sum[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r] = t.first ? _mm512_setzero_ps() : _mm512_loadu_ps(t.sums + r * t.sums_row);
  for (int64_t done = 0; done < t.steps; done += block_steps) {
    // maskz: the plain forms warn of an uninitialized register (GCC 12).
    const __m512 scale = kHalf ? _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))
                               : _mm512_loadu_ps(reinterpret_cast<const float*>(p));
    p += kScaleBytes;
    __m512i acc[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r] = _mm512_set1_epi32(start[r]);
    start += R;
    if constexpr (kZeros) {
      const __m512i zero = _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      p += 16;
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) acc[r] = _mm512_madd_epi16(acc[r], zero);  // both fit 16 bits: 128 * 127, 15
    }
    const int64_t steps = done + block_steps <= t.steps ? block_steps : t.steps - done;
    for (int64_t s = 0; s < steps; ++s) {
      Codes::template step<R>(acc, p, x);
      p += Codes::kStepBytes;
      x += 8 * R;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sum[r] = _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(0xffff, acc[r]), scale, sum[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) _mm512_storeu_ps(t.sums + r * t.sums_row, sum[r]);
}

template <class Codes, bool kZeros, bool kHalf, int... I>
QTileFn of_rows(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr QTileFn kFns[] = {&tile<Codes, kZeros, kHalf, I + 1>...};
  return kFns[rows - 1];
}
template <class Codes, bool kZeros>
QTileFn of_scales(bool half, int64_t rows) {
  constexpr auto kRows = std::make_integer_sequence<int, kQTileRows>();
  return half ? of_rows<Codes, kZeros, true>(rows, kRows) : of_rows<Codes, kZeros, false>(rows, kRows);
}

}  // namespace
}  // namespace deepseek::kernels
#pragma GCC pop_options

namespace deepseek::kernels {

QTileFn qtile_bytes_vnni(const PackedQuant& w, int64_t rows) {
  return cpu_features().avx512_vnni ? of_scales<Bytes, false>(w.half_scales, rows) : nullptr;
}
QTileFn qtile_nibbles_vnni(const PackedQuant& w, int64_t rows) {
  if (!cpu_features().avx512_vnni) return nullptr;
  return w.format->has_zeros ? of_scales<Nibbles, true>(w.half_scales, rows)
                             : of_scales<Nibbles, false>(w.half_scales, rows);
}

}  // namespace deepseek::kernels

#else

namespace deepseek::kernels {
QTileFn qtile_bytes_vnni(const PackedQuant&, int64_t) { return nullptr; }
QTileFn qtile_nibbles_vnni(const PackedQuant&, int64_t) { return nullptr; }
}  // namespace deepseek::kernels

#endif
