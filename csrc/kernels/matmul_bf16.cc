#include "kernels/matmul_bf16.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kernels/routes.h"
#include "runtime/allocator.h"
#include "runtime/cpu.h"

#if defined(__x86_64__)
// Only functions below this line use AVX-512; they run behind bf16_kernel_available().
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include <immintrin.h>

namespace deepseek::kernels {
namespace {

constexpr int kRows = 6, kVecs = 4;
constexpr int64_t kLanes = 16, kWidth = kVecs * kLanes;
constexpr int64_t kBlockPairs = kGemmBlockK / 2;
constexpr int64_t kBlockColumns = 512;  // 512 columns x 512 rows of bf16 in the L2 cache
constexpr int64_t kBlockM = 960;
constexpr int64_t kFewRows = 30, kChunkPairs = 64;

// A pair of neighbours in k as one 32-bit word: A row-major, B row-major per panel, both in units of pairs.
template <int MR, int NV>
void micro(int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b, int64_t b_row, const float* init,
           float* out, int64_t out_row, bool add) {
  __m512 acc[MR][NV];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      acc[r][v] = init ? _mm512_loadu_ps(init + r * out_row + v * kLanes) : _mm512_setzero_ps();
  for (int64_t i = 0; i < pairs; ++i) {
    __m512bh vb[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) vb[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + i * b_row + v * kLanes));
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const __m512bh va = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r * a_row + i])));
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], va, vb[v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      float* p = out + r * out_row + v * kLanes;
      _mm512_storeu_ps(p, add ? _mm512_add_ps(_mm512_loadu_ps(p), acc[r][v]) : acc[r][v]);
    }
}

using MicroFn = void (*)(int64_t, const uint32_t*, int64_t, const uint32_t*, int64_t, const float*, float*, int64_t,
                         bool);
template <int... I>
constexpr auto make_table(std::integer_sequence<int, I...>) {
  struct {
    MicroFn fn[kRows * kVecs];
  } t{{&micro<I / kVecs + 1, I % kVecs + 1>...}};
  return t;
}
constexpr auto kMicro = make_table(std::make_integer_sequence<int, kRows * kVecs>());
MicroFn micro_for(int64_t rows, int64_t vecs) { return kMicro.fn[(rows - 1) * kVecs + vecs - 1]; }

uint32_t pair_of(const uint16_t* p, int64_t step, bool both) {
  return p[0] | (both ? static_cast<uint32_t>(p[step]) << 16 : 0u);
}

// dst[p * dst_row + 0..3] = words p of the rows r0..r3.
void transpose_words(__m128i r0, __m128i r1, __m128i r2, __m128i r3, uint32_t* dst, int64_t dst_row) {
  const __m128i lo01 = _mm_unpacklo_epi32(r0, r1), hi01 = _mm_unpackhi_epi32(r0, r1);
  const __m128i lo23 = _mm_unpacklo_epi32(r2, r3), hi23 = _mm_unpackhi_epi32(r2, r3);
  const auto store = [&](int64_t p, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + p * dst_row), v); };
  store(0, _mm_unpacklo_epi64(lo01, lo23));
  store(1, _mm_unpackhi_epi64(lo01, lo23));
  store(2, _mm_unpacklo_epi64(hi01, hi23));
  store(3, _mm_unpackhi_epi64(hi01, hi23));
}

__m128i load8(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

// A[m, k] -> m rows of ceil(k / 2) pairs.
void pack_a(const uint16_t* a, int64_t row, int64_t col, int64_t m, int64_t k, uint32_t* dst) {
  const int64_t pairs = (k + 1) / 2;
  int64_t done = 0;  // pairs of whole blocks
  if (row == 1) {    // transposed: rows are neighbours in memory, taken 8 at a time
    const int64_t whole_rows = m / 8 * 8;
    for (; done + 4 <= k / 2; done += 4) {
      const uint16_t* src = a + 2 * done * col;
      for (int64_t i = 0; i < whole_rows; i += 8) {
        __m128i lo[4], hi[4];
        for (int64_t p = 0; p < 4; ++p) {
          const __m128i even = load8(src + i + 2 * p * col), odd = load8(src + i + (2 * p + 1) * col);
          lo[p] = _mm_unpacklo_epi16(even, odd);
          hi[p] = _mm_unpackhi_epi16(even, odd);
        }
        transpose_words(lo[0], lo[1], lo[2], lo[3], dst + i * pairs + done, pairs);
        transpose_words(hi[0], hi[1], hi[2], hi[3], dst + (i + 4) * pairs + done, pairs);
      }
      for (int64_t i = whole_rows; i < m; ++i)
        for (int64_t p = 0; p < 4; ++p) dst[i * pairs + done + p] = pair_of(src + i + 2 * p * col, col, true);
    }
  }
  for (int64_t i = 0; i < m; ++i)
    for (int64_t p = done; p < pairs; ++p) dst[i * pairs + p] = pair_of(a + i * row + 2 * p * col, col, 2 * p + 1 < k);
}

// B[k, n] -> ceil(k / 2) rows of `width` words; columns up to the next whole vector are zero.
void pack_b(const uint16_t* b, int64_t row, int64_t col, int64_t k, int64_t n, uint32_t* dst, int64_t width,
            bool prefetch) {
  const int64_t pairs = (k + 1) / 2, whole = k / 2, end = (n + kLanes - 1) / kLanes * kLanes;
  int64_t done_columns = 0;
  if (row == 1) {
    for (; done_columns + 4 <= n; done_columns += 4) {
      const uint16_t* src = b + done_columns * col;
      int64_t p = 0;
      for (; p + 4 <= whole; p += 4) {
        if (prefetch && p % 32 == 0)
          for (int64_t j = 0; j < 4; ++j) __builtin_prefetch(src + 2 * p + k + j * col);
        const uint16_t* q = src + 2 * p;
        transpose_words(load8(q), load8(q + col), load8(q + 2 * col), load8(q + 3 * col),
                        dst + p * width + done_columns, width);
      }
      for (; p < pairs; ++p)
        for (int64_t j = 0; j < 4; ++j)
          dst[p * width + done_columns + j] = pair_of(src + 2 * p + j * col, 1, 2 * p + 1 < k);
    }
  }
  for (int64_t p = 0; p < pairs; ++p) {
    int64_t j = done_columns;
    const uint16_t* src = b + 2 * p * row;
    if (col == 1 && p < whole) {
      for (; j + 8 <= n; j += 8) {
        const __m128i even = load8(src + j), odd = load8(src + row + j);
        uint32_t* to = dst + p * width + j;
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_unpacklo_epi16(even, odd));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 4), _mm_unpackhi_epi16(even, odd));
      }
    }
    for (; j < n; ++j) dst[p * width + j] = pair_of(src + j * col, row, p < whole);
    for (; j < end; ++j) dst[p * width + j] = 0;
  }
}

void store_tile(const float* from, int64_t width, int64_t m, int64_t n, float* c, int64_t c_row, bool add) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      c[i * c_row + j] = add ? c[i * c_row + j] + from[i * width + j] : from[i * width + j];
}

struct Block {  // rows of A as pairs, a block of k
  const uint32_t* a;
  int64_t a_row, m, k;
};

void few_rows(const Gemm& g, const Block& x, const uint16_t* b, float* c, bool add) {
  alignas(64) uint32_t panel[kChunkPairs * kWidth];
  alignas(64) float sums[kFewRows * kWidth];
  const bool prefetch = g.n * g.k > (int64_t{2} << 20);
  for (int64_t j = 0; j < g.n; j += kWidth) {
    const int64_t n = std::min(kWidth, g.n - j), vecs = (n + kLanes - 1) / kLanes, width = vecs * kLanes;
    for (int64_t k0 = 0; k0 < x.k; k0 += 2 * kChunkPairs) {
      const int64_t k = std::min(2 * kChunkPairs, x.k - k0);
      pack_b(b + k0 * g.b_row + j * g.b_col, g.b_row, g.b_col, k, n, panel, width, prefetch);
      for (int64_t i = 0; i < x.m; i += kRows) {
        float* s = sums + i * width;
        micro_for(std::min<int64_t>(kRows, x.m - i), vecs)((k + 1) / 2, x.a + i * x.a_row + k0 / 2, x.a_row, panel,
                                                           width, k0 ? s : nullptr, s, width, false);
      }
    }
    store_tile(sums, width, x.m, n, c + j, g.c_row, add);
  }
}

void many_rows(const Gemm& g, const Block& x, const uint16_t* b, float* c, bool add, uint32_t* packed) {
  const int64_t pairs = (x.k + 1) / 2;
  alignas(64) float sums[kRows * kWidth];
  for (int64_t j0 = 0; j0 < g.n; j0 += kBlockColumns) {
    const int64_t columns = std::min(kBlockColumns, g.n - j0);
    for (int64_t j = 0; j < columns; j += kWidth)
      pack_b(b + (j0 + j) * g.b_col, g.b_row, g.b_col, x.k, std::min(kWidth, columns - j), packed + j * pairs, kWidth,
             false);
    for (int64_t i = 0; i < x.m; i += kRows) {
      const int64_t m = std::min<int64_t>(kRows, x.m - i);
      for (int64_t j = 0; j < columns; j += kWidth) {
        const int64_t n = std::min(kWidth, columns - j), vecs = (n + kLanes - 1) / kLanes;
        const uint32_t* a = x.a + i * x.a_row;
        float* to = c + i * g.c_row + j0 + j;
        if (n == vecs * kLanes) {
          micro_for(m, vecs)(pairs, a, x.a_row, packed + j * pairs, kWidth, nullptr, to, g.c_row, add);
        } else {
          micro_for(m, vecs)(pairs, a, x.a_row, packed + j * pairs, kWidth, nullptr, sums, kWidth, false);
          store_tile(sums, kWidth, m, n, to, g.c_row, add);
        }
      }
    }
  }
}

void run(const Gemm& g, const uint16_t* a, const uint16_t* b, float* c) {
  // Pairs of A can be read in place when rows are contiguous and no pair is cut by the end of K.
  const bool direct = g.a_col == 1 && g.k % 2 == 0 && g.a_row % 2 == 0 && reinterpret_cast<uintptr_t>(a) % 4 == 0;
  const int64_t rows = direct ? g.m : std::min(kBlockM, g.m), k_max = std::min(kGemmBlockK, g.k),
                pairs = (k_max + 1) / 2;
  Buffer a_buffer(direct ? 64 : static_cast<size_t>(rows * pairs) * 4);
  Buffer b_buffer(rows <= kFewRows ? 64 : static_cast<size_t>((std::min(kBlockColumns, g.n) + kWidth) * pairs) * 4);
  for (int64_t i0 = 0; i0 < g.m; i0 += rows) {
    const int64_t m = std::min(rows, g.m - i0);
    for (int64_t k0 = 0; k0 < g.k; k0 += kGemmBlockK) {
      const int64_t k = std::min(kGemmBlockK, g.k - k0);
      const uint16_t* from = a + i0 * g.a_row + k0 * g.a_col;
      Block x{reinterpret_cast<const uint32_t*>(from), g.a_row / 2, m, k};
      if (!direct) {
        pack_a(from, g.a_row, g.a_col, m, k, a_buffer.as<uint32_t>());
        x.a = a_buffer.as<uint32_t>();
        x.a_row = (k + 1) / 2;
      }
      const bool add = g.accumulate || k0 > 0;
      const uint16_t* pb = b + k0 * g.b_row;
      count_route(m <= kFewRows ? Route::kMatmulBf16DotFewRows : Route::kMatmulBf16DotManyRows);
      if (m <= kFewRows)
        few_rows(g, x, pb, c + i0 * g.c_row, add);
      else
        many_rows(g, x, pb, c + i0 * g.c_row, add, b_buffer.as<uint32_t>());
    }
  }
}

}  // namespace
}  // namespace deepseek::kernels
#pragma GCC pop_options

namespace deepseek::kernels {

bool bf16_kernel_available() {
  static const bool available = cpu_features().avx512_bf16 && cpu_features().avx512;
  return available;
}

void gemm_bf16(const Gemm& g, int64_t count, int64_t a_step, int64_t b_step, int64_t c_step) {
  DS_CHECK(bf16_kernel_available() && g.dtype == DType::kBFloat16, "gemm_bf16 called on a machine without AVX512_BF16");
  if (g.m <= 0 || g.n <= 0) return;
  if (g.k == 0) return gemm_plain(g, count, a_step, b_step, c_step);
  for (int64_t i = 0; i < count; ++i)
    run(g, static_cast<const uint16_t*>(g.a) + i * a_step, static_cast<const uint16_t*>(g.b) + i * b_step,
        static_cast<float*>(g.c) + i * c_step);
}

}  // namespace deepseek::kernels

#else

namespace deepseek::kernels {
bool bf16_kernel_available() { return false; }
void gemm_bf16(const Gemm&, int64_t, int64_t, int64_t, int64_t) {
  fail("bf16 kernel: needs an x86-64 CPU with AVX512_BF16");
}
}  // namespace deepseek::kernels

#endif
