// Register tiles of byte products with AVX-512 VNNI: four unsigned bytes times four signed ones a lane, sums of int32.
// Everything here runs where cpu_features().avx512_vnni.
#pragma once

#if defined(__x86_64__)
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")
#include <immintrin.h>

namespace deepseek::kernels::vnni {
namespace {

#define DS_INLINE [[gnu::always_inline]] static inline

inline int32_t word_at(const void* p) {
  int32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

// Vectors of int: sums of __m512i, a vector of long long, would be copied to and fro at the ends of loops (GCC 12).
struct Wide {
  using Ints [[gnu::vector_size(64)]] = int;
  DS_INLINE constexpr int64_t lanes() { return 16; }
  DS_INLINE Ints load(const void* p) { return reinterpret_cast<Ints>(_mm512_loadu_si512(p)); }
  DS_INLINE Ints set(int32_t word) { return reinterpret_cast<Ints>(_mm512_set1_epi32(word)); }
};
struct Narrow {
  using Ints [[gnu::vector_size(32)]] = int;
  DS_INLINE constexpr int64_t lanes() { return 8; }
  DS_INLINE Ints load(const void* p) {
    return reinterpret_cast<Ints>(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  DS_INLINE Ints set(int32_t word) { return reinterpret_cast<Ints>(_mm256_set1_epi32(word)); }
};

// sum + u8 * s8, written out because the builtin's vectors are of long long.
template <class Ints>
[[gnu::always_inline]] inline Ints add_products(Ints sum, Ints unsigned_bytes, Ints signed_bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
  return sum;
}
// The same with one word of signed bytes for all lanes, from memory.
[[gnu::always_inline]] inline Wide::Ints add_products(Wide::Ints sum, Wide::Ints unsigned_bytes,
                                                      const int32_t* signed_bytes) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "m"(*signed_bytes));
  return sum;
}

enum class Unsigned { kA, kB };  // the operand whose bytes are unsigned

template <class V, Unsigned kUnsigned>
struct ByteDot : V {
  using Number = uint32_t;
  using Sum = typename V::Ints;
  DS_INLINE Sum dot(Sum sum, Sum a, Sum b) {
    return kUnsigned == Unsigned::kA ? add_products(sum, a, b) : add_products(sum, b, a);
  }
  DS_INLINE Sum all_lanes(const void* a) { return V::set(word_at(a)); }
};

#undef DS_INLINE

#include "kernels/gemm/tile/register_tile.inc"

}  // namespace
}  // namespace deepseek::kernels::vnni
#pragma GCC pop_options
#endif
