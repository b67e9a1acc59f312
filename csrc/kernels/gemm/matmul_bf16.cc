#include "kernels/gemm/matmul_bf16.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kernels/gemm/tile/pack_bf16-inl.h"
#include "kernels/gemm/tile/prefetch.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#if defined(__x86_64__)
// Only functions below this line use AVX-512; they run where uses_bf16_dot(bf16).
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

namespace deepseek::kernels {
namespace {

using namespace bf16_dot;

constexpr int64_t kBlockColumns = 512;  // 512 columns x 512 rows of bf16 in the L2 cache
constexpr int64_t kBlockM = 960;
constexpr int64_t kFewRows = 30, kChunkPairs = 64;
constexpr int64_t kMaxDotRows = kBf16FewRows;  // more rows pay for packing
constexpr int kDotRows = 8;                    // rows whose sums stay in registers beside a transposed block

struct ColumnDot : PairDot {
  static constexpr int64_t kLanes = 16, kPair = 2;
  static constexpr int kPrefetchRows = kDotRows;
  [[gnu::always_inline]] static inline Sum dot(Sum sum, Vec a, __m512 b) {
    return PairDot::dot(sum, a, reinterpret_cast<Vec>(b));
  }
  [[gnu::always_inline]] static inline void load_block(const uint16_t* b, int64_t b_col, __m512 (&v)[16]) {
    load_pairs_transposed(b, b_col, v);
  }
  [[gnu::always_inline]] static inline __m512 load_column(const uint16_t* b, int64_t b_col, bool whole) {
    alignas(64) uint32_t words[16];
    for (int64_t j = 0; j < 16; ++j) words[j] = pair_of(b + j * b_col, 1, whole);
    return _mm512_load_ps(words);
  }
};

#include "kernels/gemm/tile/column_tile.inc"

// A result in bf16, or none.
struct Rounded {
  uint16_t* out = nullptr;
  int64_t row = 0;
  Rounded at(int64_t i, int64_t j) const { return {out ? out + i * row + j : nullptr, row}; }
};

// Nearest, ties to even; a NaN stays one.
inline __m256i round_to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x), high = _mm512_maskz_srli_epi32(0xffff, bits, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i rounded = _mm512_mask_or_epi32(_mm512_maskz_srli_epi32(0xffff, up, 16),
                                               _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), high, _mm512_set1_epi32(0x40));
  return _mm512_maskz_cvtepi32_epi16(0xffff, rounded);
}

// A tile of sums, kWidth apart, added to c.from if there is one and rounded.
void store_rounded(const float* sums, int64_t rows, int64_t columns, const Sums<float>& c, const Rounded& to) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; j += kLanes) {
      const auto there = static_cast<__mmask16>(columns - j >= kLanes ? 0xffff : (1 << (columns - j)) - 1);
      __m512 sum = _mm512_load_ps(sums + i * kWidth + j);
      if (c.from) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(there, c.from + i * c.from_row + j), sum);
      _mm256_mask_storeu_epi16(to.out + i * to.row + j, there, round_to_bf16(sum));
    }
}

constexpr int64_t kLargeB = int64_t{2} << 20;  // from here on B comes from memory

struct Block {  // rows of A as pairs, a block of k
  const uint32_t* a;
  int64_t a_row, m, k;
};

void few_rows(const Gemm& g, const Block& x, const uint16_t* b, const Sums<float>& c) {
  alignas(64) uint32_t panel[kChunkPairs * kWidth];
  alignas(64) float sums[kFewRows * kWidth];
  const bool large = g.n * g.k > kLargeB;
  for (int64_t j = 0; j < g.n; j += kWidth) {
    const int64_t n = std::min(kWidth, g.n - j), vecs = (n + kLanes - 1) / kLanes, width = vecs * kLanes;
    for (int64_t k0 = 0; k0 < x.k; k0 += 2 * kChunkPairs) {
      const int64_t k = std::min(2 * kChunkPairs, x.k - k0);
      pack_b(b + k0 * g.b_row + j * g.b_col, g.b_row, g.b_col, k, n, panel, width, large ? k : 0);
      for (int64_t i = 0; i < x.m; i += kRows) {
        float* s = sums + i * width;
        product_tile<PairDot>(std::min<int64_t>(kRows, x.m - i), vecs)(
            {(k + 1) / 2, x.a + i * x.a_row + k0 / 2, x.a_row, panel, width}, k0 ? s : nullptr, {s, width});
      }
    }
    store_tile(sums, width, x.m, n, c.at(0, j));
  }
}

// k_after: what of k comes after this block.
void many_rows(const Gemm& g, const Block& x, const uint16_t* b, const Sums<float>& c, const Rounded& rounded,
               int64_t k_after, uint32_t* packed) {
  const int64_t pairs = (x.k + 1) / 2;
  alignas(64) float sums[kRows * kWidth];
  for (int64_t j0 = 0; j0 < g.n; j0 += kBlockColumns) {
    const int64_t columns = std::min(kBlockColumns, g.n - j0);
    for (int64_t j = 0; j < columns; j += kWidth)
      pack_b(b + (j0 + j) * g.b_col, g.b_row, g.b_col, x.k, std::min(kWidth, columns - j), packed + j * pairs, kWidth,
             kLanes * g.b_col);
    RowsPrefetch next;
    if (g.n * g.k > kLargeB) next = next_block(g, b, g.n, kBlockColumns, j0 + kBlockColumns, x.k, k_after);
    const int64_t tiles = (x.m + kRows - 1) / kRows * ((columns + kWidth - 1) / kWidth);
    const int64_t lines = (next.lines() + tiles - 1) / tiles;
    for (int64_t i = 0; i < x.m; i += kRows) {
      const int64_t m = std::min<int64_t>(kRows, x.m - i);
      for (int64_t j = 0; j < columns; j += kWidth) {
        next.advance(lines);
        const int64_t n = std::min(kWidth, columns - j), vecs = (n + kLanes - 1) / kLanes;
        const uint32_t* a = x.a + i * x.a_row;
        const Sums<float> to = c.at(i, j0 + j);
        const bool direct = n == vecs * kLanes && !rounded.out;
        product_tile<PairDot>(m, vecs)({pairs, a, x.a_row, packed + j * pairs, kWidth}, nullptr,
                                       direct ? to : Sums<float>{sums, kWidth});
        if (rounded.out)
          store_rounded(sums, m, n, to, rounded.at(i, j0 + j));
        else if (!direct)
          store_tile(sums, kWidth, m, n, to);
      }
    }
  }
}

// Pairs of A can be read in place when rows are contiguous and no pair is cut by the end of K.
bool reads_in_place(const Gemm& g, const uint16_t* a) {
  return g.a_col == 1 && g.k % 2 == 0 && g.a_row % 2 == 0 && reinterpret_cast<uintptr_t>(a) % 4 == 0;
}

// Few rows times contiguous columns: 16 columns at a time, all of k. Returns how many columns are done.
int64_t dot_rows(const Gemm& g, const uint16_t* a, const uint16_t* b, const Sums<float>& c) {
  if (g.m > kMaxDotRows || g.b_row != 1 || g.k < kLanes || g.n < kLanes) return 0;
  count_route(Route::kMatmulBf16DotRows);
  const int64_t pairs = (g.k + 1) / 2;
  const bool direct = g.m == 1 && reads_in_place(g, a);
  const uint32_t* words = reinterpret_cast<const uint32_t*>(a);
  Buffer buffer(direct ? 64 : static_cast<size_t>(g.m * (pairs + kLanes)) * 4);
  if (!direct) {  // [pairs / 16, m, 16]
    words = buffer.as<uint32_t>();
    for (int64_t p = 0; p < pairs; p += kLanes)
      pack_a(a + 2 * p * g.a_col, g.a_row, g.a_col, g.m, std::min(2 * kLanes, g.k - 2 * p),
             buffer.as<uint32_t>() + p * g.m, kLanes);
  }
  return column_products<ColumnDot>(g, words, b, c);
}

void run(const Gemm& whole, const uint16_t* a, const uint16_t* b, Sums<float> c, const Rounded& rounded = {}) {
  const int64_t done = rounded.out ? 0 : dot_rows(whole, a, b, c);
  if (done == whole.n) return;
  Gemm g = whole;  // what is left
  g.n -= done;
  b += done * g.b_col;
  c = c.at(0, done);
  const bool direct = reads_in_place(g, a);
  const int64_t rows = direct ? g.m : std::min(kBlockM, g.m), k_max = std::min(kGemmBlockK, g.k),
                pairs = (k_max + 1) / 2;
  Buffer a_buffer(direct ? 64 : static_cast<size_t>(rows * pairs) * 4);
  Buffer b_buffer(
      rows <= kFewRows && !rounded.out ? 64 : static_cast<size_t>((std::min(kBlockColumns, g.n) + kWidth) * pairs) * 4);
  for (int64_t i0 = 0; i0 < g.m; i0 += rows) {
    const int64_t m = std::min(rows, g.m - i0);
    for (int64_t k0 = 0; k0 < g.k; k0 += kGemmBlockK) {
      const int64_t k = std::min(kGemmBlockK, g.k - k0);
      const uint16_t* from = a + i0 * g.a_row + k0 * g.a_col;
      Block x{reinterpret_cast<const uint32_t*>(from), g.a_row / 2, m, k};
      if (!direct) {
        pack_a(from, g.a_row, g.a_col, m, k, a_buffer.as<uint32_t>(), (k + 1) / 2);
        x.a = a_buffer.as<uint32_t>();
        x.a_row = (k + 1) / 2;
      }
      const Sums<float> to = (k0 == 0 ? c : c.added_to()).at(i0, 0);
      const uint16_t* pb = b + k0 * g.b_row;
      const bool few = m <= kFewRows && !rounded.out;
      count_route(few ? Route::kMatmulBf16DotFewRows : Route::kMatmulBf16DotManyRows);
      if (few)
        few_rows(g, x, pb, to);
      else
        many_rows(g, x, pb, to, k0 + k == g.k ? rounded.at(i0, 0) : Rounded{}, g.k - k0 - k, b_buffer.as<uint32_t>());
    }
  }
}

}  // namespace
}  // namespace deepseek::kernels
#pragma GCC pop_options

namespace deepseek::kernels {

void gemm_bf16(const Gemm& g, int64_t count, int64_t a_step, int64_t b_step, int64_t c_step) {
  DS_CHECK(uses_bf16_dot(g.dtype), "gemm_bf16 called on a machine without AVX512_BF16");
  if (g.m <= 0 || g.n <= 0) return;
  if (g.k == 0) return gemm_float(g, count, a_step, b_step, c_step);
  for (int64_t i = 0; i < count; ++i)
    run(g, static_cast<const uint16_t*>(g.a) + i * a_step, static_cast<const uint16_t*>(g.b) + i * b_step,
        g.sums<float>().at(0, i * c_step));
}

void gemm_bf16_rounded(const Gemm& g, float* sums) {
  DS_CHECK(uses_bf16_dot(g.dtype) && g.k > 0, "gemm_bf16_rounded: dtype ", g.dtype, " over ", g.k,
           " values on a machine ", cpu_features().avx512_bf16 ? "with" : "without", " AVX512_BF16");
  run(g, static_cast<const uint16_t*>(g.a), static_cast<const uint16_t*>(g.b),
      {sums, g.n, static_cast<const float*>(g.c0), g.c0_row}, {static_cast<uint16_t*>(g.c), g.c_row});
}

}  // namespace deepseek::kernels

#else

namespace deepseek::kernels {
void gemm_bf16(const Gemm&, int64_t, int64_t, int64_t, int64_t) {
  fail("bf16 kernel: needs an x86-64 CPU with AVX512_BF16");
}
void gemm_bf16_rounded(const Gemm&, float*) { fail("bf16 kernel: needs an x86-64 CPU with AVX512_BF16"); }
}  // namespace deepseek::kernels

#endif
