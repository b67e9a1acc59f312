#include <cstring>
#include <utility>

#include "kernels/gemm/int8_gemm.h"
#include "runtime/cpu.h"

#if defined(__x86_64__)
// Only functions below this line use AVX-512; they run behind int8_tile_vnni().
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")
#include <immintrin.h>

namespace deepseek::kernels::detail {
namespace {

constexpr int64_t kAhead = 1024;

__mmask16 mask_of(int64_t columns) {
  return static_cast<__mmask16>(columns >= 16 ? 0xffff : columns > 0 ? (1 << columns) - 1 : 0);
}

// sum += u8 b * s8 x. The builtin's vector type is not __m512i's: GCC 12 copies every sum of a loop to and fro, half
// the speed here.
[[gnu::always_inline]] inline void dot(__m512i& sum, __m512i b, __m512i x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(b), "v"(x));
}

template <int R>
[[gnu::always_inline]] inline void group(__m512i (&low)[R], __m512i (&high)[R], const uint8_t* b0, const uint8_t* b1,
                                         const int8_t* a, int64_t a_row) {
  const __m512i v0 = _mm512_loadu_si512(b0), v1 = _mm512_loadu_si512(b1);
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    int32_t word;
    std::memcpy(&word, a + r * a_row, 4);
    const __m512i x = _mm512_set1_epi32(word);
    dot(low[r], v0, x);
    dot(high[r], v1, x);
  }
}

template <int R, bool kAdd>
void tile_of(const Int8Tile& t) {
  const __mmask16 first = mask_of(t.columns), second = mask_of(t.columns - 16);
  __m512i low[R], high[R];  // the two panels
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    low[r] = kAdd ? _mm512_maskz_loadu_epi32(first, t.c + r * t.c_row) : _mm512_set1_epi32(t.start[r]);
    high[r] = kAdd ? _mm512_maskz_loadu_epi32(second, t.c + r * t.c_row + 16) : low[r];
    for (int64_t next = 32; next < 64;
         next += 16)  // of the tile after this one; rows of c share the sets of the L1 cache
      _mm_prefetch(reinterpret_cast<const char*>(t.c + r * t.c_row + next), _MM_HINT_T1);
  }
  const int8_t* a = t.a;
  const uint8_t *b0 = t.b[0], *b1 = t.b[1];
  for (int64_t g = 0; g < t.groups; g += 2) {
    for (const uint8_t* b : {b0, b1}) {  // from the L2 cache
      _mm_prefetch(reinterpret_cast<const char*>(b + kAhead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(b + kAhead + 64), _MM_HINT_T0);
    }
    group<R>(low, high, b0, b1, a, t.a_row);
    group<R>(low, high, b0 + 64, b1 + 64, a + kInt8Group, t.a_row);
    a += 2 * kInt8Group;
    b0 += 128;
    b1 += 128;
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    _mm512_mask_storeu_epi32(t.c + r * t.c_row, first, low[r]);
    _mm512_mask_storeu_epi32(t.c + r * t.c_row + 16, second, high[r]);
  }
}

template <int R>
void tile(const Int8Tile& t) {
  t.add ? tile_of<R, true>(t) : tile_of<R, false>(t);
}

template <int R>
void dots(const Int8Dots& d) {
  const __m512i flip = _mm512_set1_epi8(-128);
  const int64_t whole = d.k / 64 * 64;
  const __mmask64 rest = (__mmask64{1} << (d.k - whole)) - 1;
  for (int64_t j = 0; j < d.columns; ++j) {
    const uint8_t* b = d.b + j * d.b_col;
    __m512i sum[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[r] = _mm512_setzero_si512();
    const auto step = [&](__m512i bytes, int64_t k) {
      const __m512i v = _mm512_xor_si512(bytes, flip);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) dot(sum[r], v, _mm512_loadu_si512(d.a + r * d.a_row + k));
    };
    for (int64_t k = 0; k < whole; k += 64) step(_mm512_loadu_si512(b + k), k);
    if (rest) step(_mm512_maskz_loadu_epi8(rest, b + whole), whole);
    for (int r = 0; r < R; ++r) {
      uint32_t lanes[16], total = static_cast<uint32_t>(d.start[r]);
      _mm512_storeu_si512(lanes, sum[r]);
      for (const uint32_t lane : lanes) total += lane;
      d.c[r * d.c_row + j] = static_cast<int32_t>(total);
    }
  }
}

template <int... I>
Int8DotsFn dots_of(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr Int8DotsFn kFns[] = {&dots<I + 1>...};
  return kFns[rows - 1];
}

template <int... I>
Int8TileFn of_rows(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr Int8TileFn kFns[] = {&tile<I + 1>...};
  return kFns[rows - 1];
}

}  // namespace
}  // namespace deepseek::kernels::detail
#pragma GCC pop_options

namespace deepseek::kernels::detail {

Int8TileFn int8_tile_vnni(int64_t rows) {
  if (!cpu_features().avx512_vnni) return nullptr;
  return of_rows(rows, std::make_integer_sequence<int, kInt8TileRows>());
}

Int8DotsFn int8_dots_vnni(int64_t rows) {
  if (!cpu_features().avx512_vnni) return nullptr;
  return dots_of(rows, std::make_integer_sequence<int, kInt8FewRows>());
}

}  // namespace deepseek::kernels::detail

#else

namespace deepseek::kernels::detail {
Int8TileFn int8_tile_vnni(int64_t) { return nullptr; }
Int8DotsFn int8_dots_vnni(int64_t) { return nullptr; }
}  // namespace deepseek::kernels::detail

#endif
