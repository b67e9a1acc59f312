#include "kernels/attention/products/attention_few_rows.h"

#include <type_traits>
#include <utility>

#include "base/check.h"
#include "kernels/simd/transpose_x86.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
// The compiler's own header leaves the unused operand of its intrinsics unset, and warns when it inlines them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

namespace deepseek::kernels::few_rows {
namespace {

constexpr int64_t kPanel = 64;

template <class Word>
__attribute__((always_inline)) inline __m512 multiply_add(__m512 keys, const Word* query, __m512 sum) {
  if constexpr (std::is_same_v<Word, float>)
    return _mm512_fmadd_ps(_mm512_set1_ps(*query), keys, sum);
  else
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(*query))),
                            reinterpret_cast<__m512bh>(keys));
}

// 16 B keys. The blocks are independent chains, so that one is turned while the other waits for its sums.
template <int R, int B, class Word>
void run(int64_t n, const Word* a, int64_t a_row, const Word* b, float* out, RowsPrefetch& ahead) {
  __m512 sum[B][R];
#pragma GCC unroll 2
  for (int k = 0; k < B; ++k)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[k][r] = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t some = n - i < 16 ? n - i : 16;
    const auto mask = static_cast<__mmask16>((1u << some) - 1);
#pragma GCC unroll 2
    for (int k = 0; k < B; ++k) {
      __m512 t[16];
      const Word* from = a + k * 16 * a_row + i;
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j) t[j] = _mm512_maskz_loadu_ps(mask, from + j * a_row);
      transpose_lanes(t);
      ahead.advance(some);
      const Word* query = b + i * kPanel;
      if (some == 16) {
#pragma GCC unroll 16
        for (int w = 0; w < 16; ++w)
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) sum[k][r] = multiply_add(t[w], query + w * kPanel + r, sum[k][r]);
      } else {
        for (int w = 0; w < some; ++w)
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) sum[k][r] = multiply_add(t[w], query + w * kPanel + r, sum[k][r]);
      }
    }
  }
#pragma GCC unroll 2
  for (int k = 0; k < B; ++k)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(out + r * kKeys + k * 16, sum[k][r]);
}
template <int R, class Word>
void all_keys(int64_t n, const Word* a, int64_t a_row, const Word* b, float* out, RowsPrefetch& ahead) {
  constexpr int kBlocks = R <= 4 ? 2 : 1;
  for (int64_t j = 0; j < kKeys; j += 16 * kBlocks) run<R, kBlocks>(n, a + j * a_row, a_row, b, out + j, ahead);
}

template <class Word, int... R>
void choose(int64_t rows, int64_t n, const Word* a, int64_t a_row, const Word* b, float* out, RowsPrefetch& ahead,
            std::integer_sequence<int, R...>) {
  using Fn = void (*)(int64_t, const Word*, int64_t, const Word*, float*, RowsPrefetch&);
  static constexpr Fn kTable[] = {&all_keys<R + 1, Word>...};
  kTable[rows - 1](n, a, a_row, b, out, ahead);
}

}  // namespace

void scores(int64_t rows, int64_t n, const float* a, int64_t a_row, const float* b, float* out, RowsPrefetch& ahead) {
  choose(rows, n, a, a_row, b, out, ahead, std::make_integer_sequence<int, kMaxRows>());
}
void scores(int64_t rows, int64_t n, const uint32_t* a, int64_t a_row, const uint32_t* b, float* out,
            RowsPrefetch& ahead) {
  choose(rows, n, a, a_row, b, out, ahead, std::make_integer_sequence<int, kMaxRows>());
}

}  // namespace deepseek::kernels::few_rows
#pragma GCC diagnostic pop
#pragma GCC pop_options

#else

namespace deepseek::kernels::few_rows {
void scores(int64_t, int64_t, const float*, int64_t, const float*, float*, RowsPrefetch&) {
  fail("attention: needs AVX-512");
}
void scores(int64_t, int64_t, const uint32_t*, int64_t, const uint32_t*, float*, RowsPrefetch&) {
  fail("attention: needs AVX-512");
}
}  // namespace deepseek::kernels::few_rows

#endif
