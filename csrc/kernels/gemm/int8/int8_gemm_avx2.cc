#include "base/check.h"
#include "kernels/gemm/int8/int8_gemm.h"
#include "kernels/gemm/tile/avx2_byte_tile-inl.h"

#if defined(__AVX2__)

namespace deepseek::kernels::detail {
namespace {

using avx2_bytes::ByteDot;

struct Operands {
  const int64_t k;
  const int8_t* rows;
  const int64_t row;
  const uint8_t* panel;
  ByteDot::Bytes a(int r, int64_t i) const { return ByteDot::all_lanes(rows + r * row + kInt8Group * i); }
  ByteDot::Bytes b(int64_t i, int v) const { return ByteDot::load(panel + 64 * i + 32 * v); }
  void step(int64_t) const {}
};

// R rows times one panel, in two halves of 8 columns.
template <int R>
void rows_times_panel(const Int8Tile& t, int64_t r0, int64_t panel) {
  uint32_t sums[R][kInt8Columns];
  avx2_bytes::run_tile<ByteDot, R, 2>(
      Operands{t.groups, t.a + r0 * t.a_row, t.a_row, t.b[panel]}, [](int, int) { return _mm256_setzero_si256(); },
      [&](int r, int v, __m256i sum) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums[r] + 8 * v), sum); });
  for (int r = 0; r < R; ++r) {
    int32_t* c = t.c + (r0 + r) * t.c_row + panel * kInt8Columns;
    for (int64_t j = 0; j < kInt8Columns && panel * kInt8Columns + j < t.columns; ++j)
      c[j] = static_cast<int32_t>(sums[r][j] + static_cast<uint32_t>(t.add ? c[j] : t.start[r0 + r]));
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
