#include "kernels/attention/attention_int8_vnni.h"

#include <algorithm>
#include <cstring>

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

// Vectors of int: sums of __m512i, a vector of long long, would be kept in memory (GCC 12).
struct Wide {
  using Ints [[gnu::vector_size(64)]] = int;
  static constexpr int kLanes = 16;
  static Ints load(const void* p) { return reinterpret_cast<Ints>(_mm512_loadu_si512(p)); }
  // Four codes everywhere, 128 added to each.
  static Ints keys(const int8_t* p) {
    int word;
    std::memcpy(&word, p, 4);
    const __m512i wide = _mm512_set1_epi32(word), sign = _mm512_set1_epi32(static_cast<int>(0x80808080u));
    return reinterpret_cast<Ints>(_mm512_xor_si512(wide, sign));
  }
  static Ints dot(Ints sum, Ints a, Ints b) {
    return reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a),
                                                      reinterpret_cast<__m512i>(b)));
  }
  static void finish(Ints sum, const float* scale, float k_scale, float* out) {
    const __m512 x = _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(sum));
    const __m256 high = _mm512_castps512_ps256(x), low = _mm512_extractf32x8_ps(x, 1),
                 whole = _mm256_fmadd_ps(high, _mm256_set1_ps(256), low);
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_mul_ps(whole, _mm256_loadu_ps(scale)), _mm256_set1_ps(k_scale)));
  }
};
struct Narrow {
  using Ints [[gnu::vector_size(32)]] = int;
  static constexpr int kLanes = 8;
  static Ints load(const void* p) { return reinterpret_cast<Ints>(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
  static Ints keys(const int8_t* p) {
    int word;
    std::memcpy(&word, p, 4);
    const __m256i wide = _mm256_set1_epi32(word), sign = _mm256_set1_epi32(static_cast<int>(0x80808080u));
    return reinterpret_cast<Ints>(_mm256_xor_si256(wide, sign));
  }
  static Ints dot(Ints sum, Ints a, Ints b) {
    return reinterpret_cast<Ints>(_mm256_dpbusd_epi32(reinterpret_cast<__m256i>(sum), reinterpret_cast<__m256i>(a),
                                                      reinterpret_cast<__m256i>(b)));
  }
  static void finish(Ints sum, const float* scale, float k_scale, float* out) {
    const __m256 x = _mm256_cvtepi32_ps(reinterpret_cast<__m256i>(sum));
    const __m128 whole = _mm_fmadd_ps(_mm256_castps256_ps128(x), _mm_set1_ps(256), _mm256_extractf128_ps(x, 1));
    _mm_storeu_ps(out, _mm_mul_ps(_mm_mul_ps(whole, _mm_loadu_ps(scale)), _mm_set1_ps(k_scale)));
  }
};

template <class V, int MR, int NV>
void micro(const int8_t* keys, int64_t row, const float* k_scale, const Int8Panel& panel, int64_t first, float* out) {
  using Ints = typename V::Ints;
  const int64_t width = panel.vecs * V::kLanes, at = first * V::kLanes;
  Ints acc[MR][NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v)
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) acc[r][v] = V::load(panel.start + at + v * V::kLanes);
  for (int64_t i = 0; i < panel.count; ++i) {
    Ints b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) b[v] = V::load(panel.words + i * width + at + v * V::kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const Ints a = V::keys(keys + r * row + 4 * i);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = V::dot(acc[r][v], a, b[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const int64_t to = (first + v) * (V::kLanes / 2);
      V::finish(acc[r][v], panel.scale + to, k_scale[r], out + r * kRow + to);
    }
}

template <class V, int NV>
void columns(int64_t n, const int8_t* keys, int64_t row, const float* k_scale, const Int8Panel& panel, int64_t first,
             float* out) {
  constexpr int kKeys = 16 / NV;
  int64_t j = 0;
  for (; j + kKeys <= n; j += kKeys)
    micro<V, kKeys, NV>(keys + j * row, row, k_scale + j, panel, first, out + j * kRow);
  for (; j < n; ++j) micro<V, 1, NV>(keys + j * row, row, k_scale + j, panel, first, out + j * kRow);
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
  return lanes == Narrow::kLanes ? &scores<Narrow> : &scores<Wide>;
}

}  // namespace deepseek::kernels
#pragma GCC diagnostic pop
#pragma GCC pop_options

#else
namespace deepseek::kernels {
Int8ScoresFn int8_scores_vnni(int64_t) { return nullptr; }
}  // namespace deepseek::kernels
#endif
