// Register tiles of byte products with AVX2: four unsigned bytes of B times four signed ones of A a lane.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace deepseek::kernels::avx2_bytes {
namespace {

#include "kernels/gemm/tile/register_tile.inc"

// vpmaddubsw saturates at 16 bits, which u8 * s8 can reach: bytes are multiplied as 16-bit numbers.
struct ByteDot {
  using Sum = __m256i;
  struct Bytes {
    __m256i even, odd;
  };
  static int64_t lanes() { return 8; }
  static Bytes load(const uint8_t* b) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    return {_mm256_and_si256(bytes, _mm256_set1_epi16(255)), _mm256_srli_epi16(bytes, 8)};
  }
  static Bytes all_lanes(const void* a) {
    int32_t four;
    std::memcpy(&four, a, 4);
    const __m256i word = _mm256_set1_epi32(four);
    return {_mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8), _mm256_srai_epi16(word, 8)};
  }
  static Sum dot(Sum sum, const Bytes& a, const Bytes& b) {
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(b.even, a.even), _mm256_madd_epi16(b.odd, a.odd)));
  }
};

}  // namespace
}  // namespace deepseek::kernels::avx2_bytes
#endif
