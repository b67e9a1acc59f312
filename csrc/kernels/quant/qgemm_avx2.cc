#include "base/check.h"
#include "kernels/quant/qgemm_tile.h"

#if defined(__AVX2__)
#include <immintrin.h>

namespace deepseek::kernels {
namespace {

constexpr int kGroup = 2;  // rows at a time: 16 registers hold no more

__m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// 32 k of codes for 16 columns (two halves of 8) times R rows of x, whose words lie `row` apart from group to group.
// vpmaddubsw saturates at 16 bits, which u8 * s8 can reach: bytes are multiplied as 16-bit numbers.
struct Bytes {
  static constexpr int64_t kStepBytes = 512;
  template <int R>
  static void step(__m256i (&acc)[R][2], const uint8_t* codes, const int32_t* x, int64_t row) {
    for (int j = 0; j < 8; ++j) {
      __m256i even[2], odd[2];
      for (int h = 0; h < 2; ++h) {
        const __m256i bytes = load(codes + 64 * j + 32 * h);
        even[h] = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
        odd[h] = _mm256_srli_epi16(bytes, 8);
      }
      for (int r = 0; r < R; ++r) {
        const __m256i word = _mm256_set1_epi32(x[j * row + r]);
        const __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8), x_odd = _mm256_srai_epi16(word, 8);
        for (int h = 0; h < 2; ++h)
          acc[r][h] = _mm256_add_epi32(
              acc[r][h], _mm256_add_epi32(_mm256_madd_epi16(even[h], x_even), _mm256_madd_epi16(odd[h], x_odd)));
      }
    }
  }
};
// Here nothing saturates: 8 sums of two products of at most 15 * 127 stay below 2^15.
struct Nibbles {
  static constexpr int64_t kStepBytes = 256;
  template <int R>
  static void step(__m256i (&acc)[R][2], const uint8_t* codes, const int32_t* x, int64_t row) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i sum[R][2];
    for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int j = 0; j < 4; ++j)
      for (int h = 0; h < 2; ++h) {
        const __m256i both = load(codes + 64 * j + 32 * h);
        const __m256i first = _mm256_and_si256(both, low), second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        for (int r = 0; r < R; ++r) {
          const __m256i x0 = _mm256_set1_epi32(x[2 * j * row + r]), x1 = _mm256_set1_epi32(x[(2 * j + 1) * row + r]);
          sum[r][h] = _mm256_add_epi16(
              sum[r][h], _mm256_add_epi16(_mm256_maddubs_epi16(first, x0), _mm256_maddubs_epi16(second, x1)));
        }
      }
    for (int r = 0; r < R; ++r)
      for (int h = 0; h < 2; ++h)
        acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(sum[r][h], _mm256_set1_epi16(1)));
  }
};

template <bool kHalf>
__m256 scales_of(const uint8_t* p, int h) {
  if (kHalf) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + h));
  return _mm256_loadu_ps(reinterpret_cast<const float*>(p) + 8 * h);
}

// Rows [r0, r0 + R) of the tile.
template <class Codes, bool kZeros, bool kHalf, int R>
void some_rows(const QTile& t, int64_t r0) {
  const int64_t block_steps = t.w->block_steps();
  const uint8_t* p = t.panel;
  const int32_t *x = t.x + r0, *start = t.start + r0;
  for (int64_t done = 0; done < t.steps; done += block_steps, start += t.rows) {
    const uint8_t* side = p;
    p += kHalf ? 32 : 64;
    __m256i acc[R][2];
    for (int h = 0; h < 2; ++h)
      for (int r = 0; r < R; ++r) {
        acc[r][h] = _mm256_set1_epi32(start[r]);
        if (kZeros) {
          const __m256i zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * h)));
          acc[r][h] = _mm256_madd_epi16(acc[r][h], zero);  // both fit 16 bits: 128 * 127, 15
        }
      }
    if (kZeros) p += 16;
    const int64_t steps = done + block_steps <= t.steps ? block_steps : t.steps - done;
    for (int64_t s = 0; s < steps; ++s) {
      Codes::template step<R>(acc, p, x, t.rows);
      p += Codes::kStepBytes;
      x += 8 * t.rows;
    }
    const bool first = t.first && done == 0;
    for (int h = 0; h < 2; ++h)
      for (int r = 0; r < R; ++r) {
        float* sum = t.sums + (r0 + r) * t.sums_row + 8 * h;
        const __m256 before = first ? _mm256_setzero_ps() : _mm256_loadu_ps(sum);
        _mm256_storeu_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][h]), scales_of<kHalf>(side, h), before));
      }
  }
}

template <class Codes, bool kZeros, bool kHalf>
void tile(const QTile& t) {
  int64_t r = 0;
  for (; r + kGroup <= t.rows; r += kGroup) some_rows<Codes, kZeros, kHalf, kGroup>(t, r);
  if (r < t.rows) some_rows<Codes, kZeros, kHalf, 1>(t, r);
}

template <class Codes, bool kZeros>
QTileFn of_scales(bool half) {
  return half ? &tile<Codes, kZeros, true> : &tile<Codes, kZeros, false>;
}

}  // namespace

QTileFn qtile_bytes_avx2(const PackedQuant& w, int64_t) { return of_scales<Bytes, false>(w.half_scales); }
QTileFn qtile_nibbles_avx2(const PackedQuant& w, int64_t) {
  return w.format->has_zeros ? of_scales<Nibbles, true>(w.half_scales) : of_scales<Nibbles, false>(w.half_scales);
}

}  // namespace deepseek::kernels

#else

namespace deepseek::kernels {
QTileFn qtile_bytes_avx2(const PackedQuant&, int64_t) { fail("qgemm: needs an x86-64 CPU with AVX2"); }
QTileFn qtile_nibbles_avx2(const PackedQuant& w, int64_t rows) { return qtile_bytes_avx2(w, rows); }
}  // namespace deepseek::kernels

#endif
