#include "kernels/gemm/grouped_gemm.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "hwy/cache_control.h"
#include "kernels/simd/routes.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/grouped_gemm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/gemm/tile/float_tile-inl.h"
#include "kernels/gemm/tile/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#include "kernels/gemm/tile/panel_tile.inc"

// --- operands whose elements are single values

template <class S>
const S* row_of(const GroupMatrix& m, int64_t r) {
  return static_cast<const S*>(m.data) + (m.index ? m.index[r] : r) * m.row;
}

template <class S, class T>
HWY_INLINE void load_row(const S* from, int64_t col, int64_t n, T* HWY_RESTRICT to) {
  const Tag<T> d;
  const int64_t lanes = hn::Lanes(d);
  int64_t i = 0;
  if (col == 1) {
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
      const auto a = load_as(d, from + i), b = load_as(d, from + i + lanes), c = load_as(d, from + i + 2 * lanes),
                 e = load_as(d, from + i + 3 * lanes);
      hn::StoreU(a, d, to + i);
      hn::StoreU(b, d, to + i + lanes);
      hn::StoreU(c, d, to + i + 2 * lanes);
      hn::StoreU(e, d, to + i + 3 * lanes);
    }
    for (; i + lanes <= n; i += lanes) hn::StoreU(load_as(d, from + i), d, to + i);
  }
  for (; i < n; ++i) to[i] = static_cast<T>(from[i * col]);
}

template <class S, class T>
void load_rows(const GroupMatrix& m, int64_t rows, int64_t k, void* to, int64_t to_row) {
  for (int64_t r = 0; r < rows; ++r) load_row(row_of<S>(m, r), m.col, k, static_cast<T*>(to) + r * to_row);
}

// Moves `ahead` on by the bytes of a row just read.
HWY_INLINE void stream_ahead(const char** ahead, int64_t bytes) {
  if (!ahead || !*ahead) return;
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(*ahead + b, 0, 2);
  *ahead += bytes;
}

// A transpose takes kColumns columns at a time, which are as many as an L1 cache has ways: columns of weights are often
// whole pages apart, so that their lines share a set.
constexpr int64_t kColumns = 8, kStepBlock = 64;

#if HWY_TARGET == HWY_AVX2
HWY_INLINE void store_steps(const hn::Vec<Tag<uint32_t>>* low, const hn::Vec<Tag<uint32_t>>* high, uint32_t* to,
                            int64_t to_row) {
  const auto store = [&](int64_t i, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * to_row), v); };
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    store(j, _mm256_permute2x128_si256(low[j].raw, high[j].raw, 0x20));
    store(4 + j, _mm256_permute2x128_si256(low[j].raw, high[j].raw, 0x31));
  }
}
#else
HWY_INLINE void store_steps(const hn::Vec<Tag<uint32_t>>* low, const hn::Vec<Tag<uint32_t>>* high, uint32_t* to,
                            int64_t to_row) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  const auto store = [&](int64_t i, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * to_row), v); };
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_permutex2var_epi64(low[j].raw, first, high[j].raw),
                  b = _mm512_permutex2var_epi64(low[j].raw, second, high[j].raw);
    store(j, _mm512_castsi512_si256(a));
    store(4 + j, _mm512_extracti64x4_epi64(a, 1));
    store(8 + j, _mm512_castsi512_si256(b));
    store(12 + j, _mm512_extracti64x4_epi64(b, 1));
  }
}
#endif

// to[i * to_row + c] = from[c * row + i] for kColumns columns c and a vector of steps i.
HWY_INLINE void transpose_block(const uint32_t* from, int64_t row, uint32_t* to, int64_t to_row) {
  const Tag<uint32_t> d;
  const hn::Repartition<uint64_t, Tag<uint32_t>> dd;
  hn::Vec<Tag<uint32_t>> r[kColumns];
#pragma GCC unroll 2
  for (int64_t i = 0; i < kColumns; i += 4) {
    const uint32_t* p = from + i * row;
    const auto r0 = hn::LoadU(d, p), r1 = hn::LoadU(d, p + row), r2 = hn::LoadU(d, p + 2 * row),
               r3 = hn::LoadU(d, p + 3 * row);
    const auto lo01 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1)),
               hi01 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1)),
               lo23 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3)),
               hi23 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
    r[i] = hn::BitCast(d, hn::InterleaveLower(dd, lo01, lo23));
    r[i + 1] = hn::BitCast(d, hn::InterleaveUpper(dd, lo01, lo23));
    r[i + 2] = hn::BitCast(d, hn::InterleaveLower(dd, hi01, hi23));
    r[i + 3] = hn::BitCast(d, hn::InterleaveUpper(dd, hi01, hi23));
  }
  store_steps(r, r + 4, to, to_row);
}

struct Block {
  int64_t columns, steps;
};
// The same for all whole blocks of `columns` and `steps`; returns how far they reach.
Block transpose_words(const uint32_t* from, int64_t row, int64_t columns, int64_t steps, uint32_t* to, int64_t to_row,
                      const char** ahead) {
  const int64_t lanes = hn::Lanes(Tag<uint32_t>());
  const Block whole{columns / kColumns * kColumns, steps / lanes * lanes};
  for (int64_t i0 = 0; i0 < whole.steps; i0 += kStepBlock)
    for (int64_t c = 0; c < whole.columns; c += kColumns)
      for (int64_t i = i0; i < std::min(i0 + kStepBlock, whole.steps); i += lanes) {
        transpose_block(from + c * row + i, row, to + i * to_row + c, to_row);
        stream_ahead(ahead, 4 * lanes * kColumns);
      }
  return whole;
}

template <class T>
void zero_columns(T* to, int64_t to_row, int64_t steps, int64_t from, int64_t end) {
  for (int64_t i = 0; i < steps && from < end; ++i) std::fill(to + i * to_row + from, to + i * to_row + end, T(0));
}

template <class S, class T>
void pack_panel(const GroupMatrix& m, int64_t r0, int64_t k, int64_t c0, int64_t columns, int64_t padded, void* to,
                int64_t to_row, const char** ahead) {
  T* dst = static_cast<T*>(to);
  zero_columns(dst, to_row, k, columns, padded);
  if (m.index || m.col == 1) {
    for (int64_t i = 0; i < k; ++i) {
      load_row(row_of<S>(m, r0 + i) + c0 * m.col, m.col, columns, dst + i * to_row);
      stream_ahead(ahead, columns * static_cast<int64_t>(sizeof(S)));
    }
    return;
  }
  const S* src = static_cast<const S*>(m.data) + r0 * m.row + c0 * m.col;
  int64_t c = 0;
  if constexpr (std::is_same_v<S, float> && std::is_same_v<T, float>) {
    if (m.row == 1) {
      const Block done = transpose_words(reinterpret_cast<const uint32_t*>(src), m.col, columns, k,
                                         reinterpret_cast<uint32_t*>(dst), to_row, ahead);
      c = done.columns;
      if (done.steps < k) pack(src + done.steps, 1, m.col, k - done.steps, c, dst + done.steps * to_row, to_row);
    }
  }
  if (c < columns) pack(src + c * m.col, m.row, m.col, k, columns - c, dst + c, to_row);
}

// to[r * to_row + c] = sums, rounded.
template <class S, class T>
void store_rows(const void* sums, int64_t sums_row, int64_t rows, int64_t columns, void* to, int64_t to_row, bool) {
  const Tag<T> d;
  const int64_t lanes = hn::Lanes(d);
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = static_cast<const T*>(sums) + r * sums_row;
    S* dst = static_cast<S*>(to) + r * to_row;
    int64_t c = 0;
    for (; c + lanes <= columns; c += lanes) store_as(d, hn::LoadU(d, from + c), dst + c);
    for (; c < columns; ++c) dst[c] = static_cast<S>(from[c]);
  }
}

// --- operands of bfloat16 dot products: pairs of neighbours in k, kept as bits

uint32_t pair_of(const uint16_t* even, const uint16_t* odd) { return *even | (odd ? uint32_t{*odd} << 16 : 0u); }

void load_pair_rows(const GroupMatrix& m, int64_t rows, int64_t k, void* to, int64_t to_row) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint16_t* from = row_of<uint16_t>(m, r);
    uint32_t* dst = static_cast<uint32_t*>(to) + r * to_row;
    if (m.col == 1) std::memcpy(dst, from, static_cast<size_t>(k) * 2);
    for (int64_t i = m.col == 1 ? k / 2 * 2 : 0; i < k; i += 2)
      dst[i / 2] = pair_of(from + i * m.col, i + 1 < k ? from + (i + 1) * m.col : nullptr);
  }
}

// Rows `even` and `odd` (may be null) side by side.
HWY_INLINE void interleave_rows(const uint16_t* even, const uint16_t* odd, int64_t col, int64_t columns, uint32_t* to) {
  const Tag<uint32_t> d;
  const hn::Rebind<uint16_t, Tag<uint32_t>> d16;
  const int64_t lanes = hn::Lanes(d);
  int64_t c = 0;
#if HWY_TARGET != HWY_AVX2
  alignas(64) static constexpr uint16_t kFirst[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                      8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i first = _mm512_load_si512(kFirst), second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  for (; odd && col == 1 && c + 32 <= columns; c += 32) {
    const __m512i e = _mm512_loadu_si512(even + c), o = _mm512_loadu_si512(odd + c);
    _mm512_storeu_si512(to + c, _mm512_permutex2var_epi16(e, first, o));
    _mm512_storeu_si512(to + c + 16, _mm512_permutex2var_epi16(e, second, o));
  }
#endif
  for (; col == 1 && c + lanes <= columns; c += lanes) {
    const auto low = hn::PromoteTo(d, hn::LoadU(d16, even + c));
    const auto high = odd ? hn::ShiftLeft<16>(hn::PromoteTo(d, hn::LoadU(d16, odd + c))) : hn::Zero(d);
    hn::StoreU(hn::Or(low, high), d, to + c);
  }
  for (; c < columns; ++c) to[c] = pair_of(even + c * col, odd ? odd + c * col : nullptr);
}

void pack_pairs(const GroupMatrix& m, int64_t r0, int64_t k, int64_t c0, int64_t columns, int64_t padded, void* to,
                int64_t to_row, const char** ahead) {
  uint32_t* dst = static_cast<uint32_t*>(to);
  zero_columns(dst, to_row, (k + 1) / 2, columns, padded);
  int64_t c = 0;
  if (!m.index && m.row == 1 && m.col % 2 == 0 && m.col != 1) {
    const uint16_t* src = static_cast<const uint16_t*>(m.data) + r0 + c0 * m.col;
    const Block done =
        transpose_words(reinterpret_cast<const uint32_t*>(src), m.col / 2, columns, k / 2, dst, to_row, ahead);
    c = done.columns;
    for (int64_t p = done.steps; p < (k + 1) / 2; ++p)
      for (int64_t j = 0; j < c; ++j) {
        const uint16_t* even = src + j * m.col + 2 * p;
        dst[p * to_row + j] = pair_of(even, 2 * p + 1 < k ? even + 1 : nullptr);
      }
  }
  if (c == columns) return;
  if (!m.index && k % 2 == 0 && m.col == 1) {
    const uint16_t* src = row_of<uint16_t>(m, r0) + c0 + c;
    for (int64_t i = 0; i < k; i += 2, src += 2 * m.row) {
      interleave_rows(src, src + m.row, 1, columns - c, dst + i / 2 * to_row + c);
      stream_ahead(ahead, (columns - c) * 4);
    }
    return;
  }
  for (int64_t i = 0; i < k; i += 2) {
    interleave_rows(row_of<uint16_t>(m, r0 + i) + (c0 + c) * m.col,
                    i + 1 < k ? row_of<uint16_t>(m, r0 + i + 1) + (c0 + c) * m.col : nullptr, m.col, columns - c,
                    dst + i / 2 * to_row + c);
  }
}

template <class S, class T>
GroupKernel kernel_of() {
  return {panel_width<T>(),
          1,
          sizeof(T),
          std::is_same_v<T, double>,
          &load_rows<S, T>,
          &pack_panel<S, T>,
          &multiply_panels<FusedDot<T>>,
          &store_rows<S, T>};
}

GroupKernel GetGroupKernel(DType dtype, bool dot) {
  if (dot) {
    DS_COUNT_ROUTE(GroupedBf16Dot);
    return {deepseek::kernels::detail::kBf16DotWidth,
            2,
            4,
            false,
            &load_pair_rows,
            &pack_pairs,
            &deepseek::kernels::detail::multiply_bf16_dot,
            &deepseek::kernels::detail::store_bf16_dot};
  }
  switch (dtype) {
    case DType::kFloat32:
      DS_COUNT_ROUTE(GroupedF32);
      return kernel_of<float, float>();
    case DType::kFloat64:
      DS_COUNT_ROUTE(GroupedF64);
      return kernel_of<double, double>();
    case DType::kBFloat16:
      DS_COUNT_ROUTE(GroupedBf16AsF32);
      return kernel_of<BFloat16, float>();
    case DType::kFloat16:
      DS_COUNT_ROUTE(GroupedF16AsF32);
      return kernel_of<Half, float>();
    case DType::kBool:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
      break;
  }
  fail<TypeError>("grouped products: no kernel for ", dtype);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(GetGroupKernel);

GroupKernel group_kernel(DType dtype, bool dot) {
  DS_CHECK_AS(TypeError, is_floating(dtype) && !is_float8(dtype), "grouped products: no kernel for ", dtype);
  return HWY_DYNAMIC_DISPATCH(GetGroupKernel)(dtype, dot && uses_bf16_dot(dtype));
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
