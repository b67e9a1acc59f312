#include "kernels/attention/int8/attention_int8_vnni.h"

#include <algorithm>

#include "kernels/gemm/tile/vnni_tile-inl.h"
#include "runtime/cpu.h"

#if defined(__x86_64__)
// Only functions below this line use AVX-512; they run behind int8_scores_vnni().
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")
// The compiler's own header leaves the unused operand of its intrinsics unset, and warns when it inlines them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

namespace deepseek::kernels {
namespace {

constexpr int64_t kRow = 64;  // floats between keys of the result

inline void finish(vnni::Wide::Ints sum, const float* scale, float k_scale, float* out) {
  const __m512 x = _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(sum));
  const __m256 high = _mm512_castps512_ps256(x), low = _mm512_extractf32x8_ps(x, 1),
               whole = _mm256_fmadd_ps(high, _mm256_set1_ps(256), low);
  _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_mul_ps(whole, _mm256_loadu_ps(scale)), _mm256_set1_ps(k_scale)));
}
inline void finish(vnni::Narrow::Ints sum, const float* scale, float k_scale, float* out) {
  const __m256 x = _mm256_cvtepi32_ps(reinterpret_cast<__m256i>(sum));
  const __m128 whole = _mm_fmadd_ps(_mm256_castps256_ps128(x), _mm_set1_ps(256), _mm256_extractf128_ps(x, 1));
  _mm_storeu_ps(out, _mm_mul_ps(_mm_mul_ps(whole, _mm_loadu_ps(scale)), _mm_set1_ps(k_scale)));
}

// Keys get 128 added, four codes a word.
template <class Dot>
struct Operands {
  const int64_t k;
  const int8_t* keys;
  const int64_t row;
  const uint32_t* panel;
  const int64_t width;
  [[gnu::always_inline]] auto a(int r, int64_t i) const {
    return Dot::all_lanes(keys + r * row + 4 * i) ^ Dot::set(static_cast<int>(0x80808080u));
  }
  [[gnu::always_inline]] auto b(int64_t i, int v) const { return Dot::load(panel + i * width + v * Dot::lanes()); }
  [[gnu::always_inline]] void step(int64_t) const {}
};

template <class V, int MR, int NV>
void tile(const int8_t* keys, int64_t row, const float* k_scale, const Int8Panel& panel, int64_t first, float* out) {
  using Dot = vnni::ByteDot<V, vnni::Unsigned::kA>;
  const int64_t at = first * V::lanes();
  vnni::run_tile<Dot, MR, NV>(
      Operands<Dot>{panel.count, keys, row, panel.words + at, panel.vecs * V::lanes()},
      [&](int, int v) __attribute__((always_inline)) { return V::load(panel.start + at + v * V::lanes()); },
      [&](int r, int v, typename Dot::Sum sum) __attribute__((always_inline)) {
        const int64_t to = (first + v) * (V::lanes() / 2);
        finish(sum, panel.scale + to, k_scale[r], out + r * kRow + to);
      });
}

template <class V, int NV>
void columns(int64_t n, const int8_t* keys, int64_t row, const float* k_scale, const Int8Panel& panel, int64_t first,
             float* out) {
  constexpr int kKeys = 16 / NV;
  int64_t j = 0;
  for (; j + kKeys <= n; j += kKeys) tile<V, kKeys, NV>(keys + j * row, row, k_scale + j, panel, first, out + j * kRow);
  for (; j < n; ++j) tile<V, 1, NV>(keys + j * row, row, k_scale + j, panel, first, out + j * kRow);
}

template <class V>
void scores(int64_t n, const int8_t* keys, int64_t row, const float* k_scale, const Int8Panel& panel, float* out) {
  constexpr decltype(&columns<V, 1>) kTable[] = {&columns<V, 1>, &columns<V, 2>, &columns<V, 3>, &columns<V, 4>};
  for (int64_t v = 0; v < panel.vecs; v += 4)
    kTable[std::min<int64_t>(4, panel.vecs - v) - 1](n, keys, row, k_scale, panel, v, out);
}

}  // namespace

Int8ScoresFn int8_scores_vnni(int64_t lanes) {
  if (!cpu_features().avx512_vnni) return nullptr;
  return lanes == vnni::Narrow::lanes() ? &scores<vnni::Narrow> : &scores<vnni::Wide>;
}

}  // namespace deepseek::kernels
#pragma GCC diagnostic pop
#pragma GCC pop_options

#else
namespace deepseek::kernels {
Int8ScoresFn int8_scores_vnni(int64_t) { return nullptr; }
}  // namespace deepseek::kernels
#endif
