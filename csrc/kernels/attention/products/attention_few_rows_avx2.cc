#include <utility>

#include "base/check.h"
#include "kernels/attention/products/attention_few_rows.h"
#include "kernels/simd/transpose_x86.h"

namespace deepseek::kernels::few_rows::avx2 {

#if defined(__AVX2__)
namespace {

constexpr int64_t kLanes = 8, kPanel = 16;
using Vector = __m256;

inline Vector zero() { return _mm256_setzero_ps(); }
inline void store(float* to, Vector v) { _mm256_storeu_ps(to, v); }

inline void load_turned(Vector (&t)[kLanes], const float* from, int64_t row, int64_t n) {
  if (n == kLanes) {
#pragma GCC unroll 8
    for (int j = 0; j < kLanes; ++j) t[j] = _mm256_loadu_ps(from + j * row);
  } else {
    const __m256i some =
        _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#pragma GCC unroll 8
    for (int j = 0; j < kLanes; ++j) t[j] = _mm256_maskload_ps(from + j * row, some);
  }
  transpose_lanes(t);
}

struct Float {
  using Word = float;
  using Query = float;
  static constexpr int64_t kNumbers = 1;
  template <int R>
  static void step(Vector keys, const float* query, Vector (&sum)[R]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r] = _mm256_fmadd_ps(_mm256_broadcast_ss(query + r), keys, sum[r]);
  }
};

// Two bfloat16 a word, which holds 32 bits like a float.
struct WideBf16 {
  using Word = float;
  using Query = float;
  static constexpr int64_t kNumbers = 2;
  template <int R>
  static void step(Vector keys, const float* query, Vector (&sum)[R]) {
    const __m256i pair = _mm256_castps_si256(keys);
    const __m256i odd = _mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xffff0000)));
    Float::step(_mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)), query, sum);
    Float::step(_mm256_castsi256_ps(odd), query + kPanel, sum);
  }
};

#include "kernels/attention/products/attention_few_rows.inc"

}  // namespace

void scores(int64_t rows, int64_t n, const float* a, int64_t a_row, const float* b, float* out,
            NearRowsPrefetch& ahead) {
  run_rows<Float>(rows, n, a, a_row, b, out, ahead);
}
void scores(int64_t rows, int64_t n, const BFloat16* a, int64_t a_row, const float* b, float* out,
            NearRowsPrefetch& ahead) {
  run_rows<WideBf16>(rows, n / 2, reinterpret_cast<const float*>(a), a_row / 2, b, out, ahead);
}

#else
void scores(int64_t, int64_t, const float*, int64_t, const float*, float*, NearRowsPrefetch&) {
  fail("attention: needs AVX2");
}
void scores(int64_t, int64_t, const BFloat16*, int64_t, const float*, float*, NearRowsPrefetch&) {
  fail("attention: needs AVX2");
}
#endif

}  // namespace deepseek::kernels::few_rows::avx2
