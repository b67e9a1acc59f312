#include <utility>

#include "base/check.h"
#include "kernels/attention/products/attention_few_rows.h"
#include "kernels/simd/transpose_x86.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
// The compiler's own header leaves the unused operand of its intrinsics unset, and warns when it inlines them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

namespace deepseek::kernels::few_rows::avx512 {
namespace {

constexpr int64_t kLanes = 16, kPanel = 64;
using Vector = __m512;

#define DS_INLINE __attribute__((always_inline)) inline

DS_INLINE Vector zero() { return _mm512_setzero_ps(); }
DS_INLINE void store(float* to, Vector v) { _mm512_storeu_ps(to, v); }

template <class Word>
DS_INLINE void load_turned(Vector (&t)[kLanes], const Word* from, int64_t row, int64_t n) {
  const auto some = static_cast<__mmask16>((1u << n) - 1);
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) t[j] = _mm512_maskz_loadu_ps(some, from + j * row);
  transpose_lanes(t);
}

struct Float {
  using Word = float;
  using Query = float;
  static constexpr int64_t kNumbers = 1;
  template <int R>
  DS_INLINE static void step(Vector keys, const float* query, Vector (&sum)[R]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r] = _mm512_fmadd_ps(_mm512_set1_ps(query[r]), keys, sum[r]);
  }
};

// Two bfloat16 a word, which holds 32 bits like a float.
struct WideBf16 {
  using Word = float;
  using Query = float;
  static constexpr int64_t kNumbers = 2;
  template <int R>
  DS_INLINE static void step(Vector keys, const float* query, Vector (&sum)[R]) {
    const __m512i pair = _mm512_castps_si512(keys);
    const __m512i odd = _mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
    Float::step(_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), query, sum);
    Float::step(_mm512_castsi512_ps(odd), query + kPanel, sum);
  }
};

// Pairs of bf16 on both sides, one instruction.
struct Pairs {
  using Word = uint32_t;
  using Query = uint32_t;
  static constexpr int64_t kNumbers = 1;
  template <int R>
  DS_INLINE static void step(Vector keys, const uint32_t* query, Vector (&sum)[R]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      sum[r] = _mm512_dpbf16_ps(sum[r], reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(query[r]))),
                                reinterpret_cast<__m512bh>(keys));
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
void scores(int64_t rows, int64_t n, const uint32_t* a, int64_t a_row, const uint32_t* b, float* out,
            NearRowsPrefetch& ahead) {
  run_rows<Pairs>(rows, n, a, a_row, b, out, ahead);
}

}  // namespace deepseek::kernels::few_rows::avx512
#undef DS_INLINE
#pragma GCC diagnostic pop
#pragma GCC pop_options

#else

namespace deepseek::kernels::few_rows::avx512 {
void scores(int64_t, int64_t, const float*, int64_t, const float*, float*, NearRowsPrefetch&) {
  fail("attention: needs AVX-512");
}
void scores(int64_t, int64_t, const BFloat16*, int64_t, const float*, float*, NearRowsPrefetch&) {
  fail("attention: needs AVX-512");
}
void scores(int64_t, int64_t, const uint32_t*, int64_t, const uint32_t*, float*, NearRowsPrefetch&) {
  fail("attention: needs AVX-512");
}
}  // namespace deepseek::kernels::few_rows::avx512

#endif
