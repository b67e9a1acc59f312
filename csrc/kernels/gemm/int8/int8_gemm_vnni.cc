#include "kernels/gemm/int8/int8_gemm.h"
#include "kernels/gemm/tile/vnni_tile-inl.h"
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

using Dot = vnni::ByteDot<vnni::Wide, vnni::Unsigned::kB>;
using Ints = Dot::Sum;

struct Operands {
  const int64_t k;
  const int8_t* rows;
  const int64_t row;
  const uint8_t *first, *second;  // panels
  [[gnu::always_inline]] Ints a(int r, int64_t i) const { return Dot::all_lanes(rows + r * row + kInt8Group * i); }
  [[gnu::always_inline]] Ints b(int64_t i, int v) const { return Dot::load((v == 0 ? first : second) + 64 * i); }
  [[gnu::always_inline]] void step(int64_t i) const {  // from the L2 cache
    _mm_prefetch(reinterpret_cast<const char*>(first + 64 * i + kAhead), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(second + 64 * i + kAhead), _MM_HINT_T0);
  }
};

template <int R, bool kAdd>
void multiply(const Int8Tile& t) {
  const __mmask16 first = mask_of(t.columns), second = mask_of(t.columns - 16);
  const Operands x{t.groups, t.a, t.a_row, t.b[0], t.b[1]};
  int32_t* const c = t.c;
  const int64_t c_row = t.c_row;
  vnni::run_tile<Dot, R, kInt8Panels>(
      x,
      [&](int r, int v) __attribute__((always_inline)) {
        // Of the tile after this one; rows of c share the sets of the L1 cache.
        _mm_prefetch(reinterpret_cast<const char*>(c + r * c_row + 32 + 16 * v), _MM_HINT_T1);
        if (!kAdd) return Dot::set(t.start[r]);
        return reinterpret_cast<Ints>(_mm512_maskz_loadu_epi32(v == 0 ? first : second, c + r * c_row + 16 * v));
      },
      [&](int r, int v, Ints sum) __attribute__((always_inline)) {
        _mm512_mask_storeu_epi32(c + r * c_row + 16 * v, v == 0 ? first : second, reinterpret_cast<__m512i>(sum));
      });
}

struct Tile {
  template <int R>
  static void run(const Int8Tile& t) {
    t.add ? multiply<R, true>(t) : multiply<R, false>(t);
  }
};

struct FewRows {
  template <int R>
  static void run(const Int8Dots& d);
};
template <int R>
void FewRows::run(const Int8Dots& d) {
  const Ints flip = Dot::set(static_cast<int>(0x80808080u));
  const int64_t whole = d.k / 64 * 64;
  const __mmask64 rest = (__mmask64{1} << (d.k - whole)) - 1;
  for (int64_t j = 0; j < d.columns; ++j) {
    const uint8_t* b = d.b + j * d.b_col;
    Ints sum[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[r] = Dot::set(0);
    const auto step = [&](Ints bytes, int64_t k) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r] = Dot::dot(sum[r], Dot::load(d.a + r * d.a_row + k), bytes ^ flip);
    };
    for (int64_t k = 0; k < whole; k += 64) step(Dot::load(b + k), k);
    if (rest) step(reinterpret_cast<Ints>(_mm512_maskz_loadu_epi8(rest, b + whole)), whole);
    for (int r = 0; r < R; ++r) {
      uint32_t lanes[16], total = static_cast<uint32_t>(d.start[r]);
      _mm512_storeu_si512(lanes, reinterpret_cast<__m512i>(sum[r]));
      for (const uint32_t lane : lanes) total += lane;
      d.c[r * d.c_row + j] = static_cast<int32_t>(total);
    }
  }
}

}  // namespace
}  // namespace deepseek::kernels::detail
#pragma GCC pop_options

namespace deepseek::kernels::detail {

Int8TileFn int8_tile_vnni(int64_t rows) {
  if (!cpu_features().avx512_vnni) return nullptr;
  return vnni::tile_of_rows<Tile, kInt8TileRows>(rows);
}

Int8DotsFn int8_dots_vnni(int64_t rows) {
  if (!cpu_features().avx512_vnni) return nullptr;
  return vnni::tile_of_rows<FewRows, kInt8FewRows>(rows);
}

}  // namespace deepseek::kernels::detail

#else

namespace deepseek::kernels::detail {
Int8TileFn int8_tile_vnni(int64_t) { return nullptr; }
Int8DotsFn int8_dots_vnni(int64_t) { return nullptr; }
}  // namespace deepseek::kernels::detail

#endif
