#include <cstring>

#include "base/check.h"
#include "kernels/gemm/int8_gemm.h"

#if defined(__AVX2__)
#include <immintrin.h>

namespace deepseek::kernels::detail {
namespace {

__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// R rows times one panel, in two halves of 8 columns. vpmaddubsw saturates: bytes are multiplied as 16-bit numbers.
template <int R>
void rows_times_panel(const Int8Tile& t, int64_t r0, int64_t panel) {
  __m256i acc[R][2];
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
  for (int64_t g = 0; g < t.groups; ++g) {
    __m256i even[2], odd[2];
    for (int h = 0; h < 2; ++h) {
      const __m256i bytes = load(t.b[panel] + 64 * g + 32 * h);
      even[h] = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
      odd[h] = _mm256_srli_epi16(bytes, 8);
    }
    for (int r = 0; r < R; ++r) {
      int32_t four;
      std::memcpy(&four, t.a + (r0 + r) * t.a_row + kInt8Group * g, 4);
      const __m256i word = _mm256_set1_epi32(four);
      const __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8), x_odd = _mm256_srai_epi16(word, 8);
      for (int h = 0; h < 2; ++h)
        acc[r][h] = _mm256_add_epi32(
            acc[r][h], _mm256_add_epi32(_mm256_madd_epi16(even[h], x_even), _mm256_madd_epi16(odd[h], x_odd)));
    }
  }
  for (int r = 0; r < R; ++r) {
    uint32_t sums[kInt8Columns];
    for (int h = 0; h < 2; ++h) _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 8 * h), acc[r][h]);
    int32_t* c = t.c + (r0 + r) * t.c_row + panel * kInt8Columns;
    for (int64_t j = 0; j < kInt8Columns && panel * kInt8Columns + j < t.columns; ++j)
      c[j] = static_cast<int32_t>(sums[j] + static_cast<uint32_t>(t.add ? c[j] : t.start[r0 + r]));
  }
}

void tile(const Int8Tile& t) {
  for (int64_t p = 0; p < kInt8Panels && p * kInt8Columns < t.columns; ++p) {
    int64_t r = 0;
    for (; r + 2 <= t.rows; r += 2) rows_times_panel<2>(t, r, p);
    if (r < t.rows) rows_times_panel<1>(t, r, p);
  }
}

}  // namespace

Int8TileFn int8_tile_avx2(int64_t) { return &tile; }

}  // namespace deepseek::kernels::detail

#else

namespace deepseek::kernels::detail {
Int8TileFn int8_tile_avx2(int64_t) { fail("int8_gemm: needs an x86-64 CPU with AVX2"); }
}  // namespace deepseek::kernels::detail

#endif
