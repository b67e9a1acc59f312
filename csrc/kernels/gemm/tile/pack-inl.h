// Copies a strided block into row-major order, reading small floats as float. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_GEMM_TILE_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_GEMM_TILE_PACK_INL_H_
#undef DEEPSEEK_KERNELS_GEMM_TILE_PACK_INL_H_
#else
#define DEEPSEEK_KERNELS_GEMM_TILE_PACK_INL_H_
#endif

#include <cstdint>

#include "base/dtype.h"
#include "hwy/highway.h"
#include "kernels/simd/float_io-inl.h"
#include "kernels/simd/transpose_x86.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Side of the blocks that are transposed in registers.
template <class T>
HWY_INLINE constexpr int64_t block_side() {
  if (sizeof(T) == 8) return 2;
  return HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 ? static_cast<int64_t>(hn::MaxLanes(hn::ScalableTag<float>())) : 4;
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
// r[i] lane j = src[j + i * src_col], as float, transposed: r[j] lane i.
template <class S, class R, size_t N>
HWY_INLINE void load_transposed(const S* src, int64_t src_col, R (&r)[N]) {
  const hn::ScalableTag<float> d;
#pragma GCC unroll 16
  for (size_t i = 0; i < N; ++i) r[i] = load_as(d, src + static_cast<int64_t>(i) * src_col).raw;
  transpose_lanes(r);
}
using RawFloats = decltype(hn::Vec<hn::ScalableTag<float>>::raw);

// dst[i][j] = src[j][i].
template <class S>
HWY_INLINE void transpose_block(const S* src, int64_t src_col, float* dst, int64_t dst_row) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kSide = block_side<float>();
  RawFloats r[kSide];
  load_transposed(src, src_col, r);
#pragma GCC unroll 16
  for (int64_t i = 0; i < kSide; ++i) hn::StoreU(hn::Vec<hn::ScalableTag<float>>{r[i]}, d, dst + i * dst_row);
}
#else
template <class S>
HWY_INLINE void transpose_block(const S* src, int64_t src_col, float* dst, int64_t dst_row) {
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> dd;
  const auto r0 = load_as(d, src), r1 = load_as(d, src + src_col);
  const auto r2 = load_as(d, src + 2 * src_col), r3 = load_as(d, src + 3 * src_col);
  const auto lo01 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1)),
             hi01 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1));
  const auto lo23 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3)),
             hi23 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, lo01, lo23)), d, dst);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, lo01, lo23)), d, dst + dst_row);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, hi01, hi23)), d, dst + 2 * dst_row);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, hi01, hi23)), d, dst + 3 * dst_row);
}
#endif
HWY_INLINE void transpose_block(const double* src, int64_t src_col, double* dst, int64_t dst_row) {
  const hn::FixedTag<double, 2> d;
  const auto r0 = hn::LoadU(d, src), r1 = hn::LoadU(d, src + src_col);
  hn::StoreU(hn::InterleaveLower(d, r0, r1), d, dst);
  hn::StoreU(hn::InterleaveUpper(d, r0, r1), d, dst + dst_row);
}

// src[r * row + c * col] -> dst[r * dst_row + c]. `ahead`: how far in src what is needed next lies, 0 for nowhere.
template <class S, class T>
void pack(const S* src, int64_t row, int64_t col, int64_t rows, int64_t cols, T* HWY_RESTRICT dst, int64_t dst_row,
          int64_t ahead = 0) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  if (col == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      int64_t c = 0;
      if (ahead != 0)
        for (int64_t p = 0; p < cols; p += 64 / sizeof(S)) __builtin_prefetch(src + r * row + p + ahead, 0, 2);
      for (; c + lanes <= cols; c += lanes) hn::StoreU(load_as(d, src + r * row + c), d, dst + r * dst_row + c);
      for (; c < cols; ++c) dst[r * dst_row + c] = static_cast<T>(src[r * row + c]);
    }
    return;
  }
  int64_t c0 = 0;
  if (row == 1) {
    constexpr int64_t kBlock = block_side<T>();
    // Inner loop along r: each source line is read to its end while it is in the cache.
    for (; c0 + kBlock <= cols; c0 += kBlock) {
      int64_t r = 0;
      for (; r + kBlock <= rows; r += kBlock) {
        if (ahead != 0 && r * sizeof(S) % 64 == 0)
          for (int64_t c = c0; c < c0 + kBlock; ++c) __builtin_prefetch(src + r + c * col + ahead, 0, 2);  // to L2
        transpose_block(src + r + c0 * col, col, dst + r * dst_row + c0, dst_row);
      }
      for (; r < rows; ++r)
        for (int64_t c = c0; c < c0 + kBlock; ++c) dst[r * dst_row + c] = static_cast<T>(src[r + c * col]);
    }
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = c0; c < cols; ++c) dst[r * dst_row + c] = static_cast<T>(src[r * row + c * col]);
}

// The same, with zeros in columns [cols, width) of each row up to the next whole vector.
template <class S, class T>
void pack_padded(const S* src, int64_t row, int64_t col, int64_t rows, int64_t cols, T* HWY_RESTRICT dst, int64_t width,
                 int64_t ahead = 0) {
  pack(src, row, col, rows, cols, dst, width, ahead);
  const int64_t lanes = hn::Lanes(hn::ScalableTag<T>());
  const int64_t end = (cols + lanes - 1) / lanes * lanes;
  for (int64_t r = 0; r < rows && end > cols; ++r)
    for (int64_t c = cols; c < end; ++c) dst[r * width + c] = T(0);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
