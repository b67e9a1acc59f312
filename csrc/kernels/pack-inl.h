// Copies a strided block into row-major order, reading small floats as float. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_PACK_INL_H_
#undef DEEPSEEK_KERNELS_PACK_INL_H_
#else
#define DEEPSEEK_KERNELS_PACK_INL_H_
#endif

#include <cstdint>

#include "base/dtype.h"
#include "hwy/highway.h"
#include "kernels/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 4x4 (or 2x2) transpose in 128-bit vectors: dst[i][j] = src[j][i].
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
HWY_INLINE void transpose_block(const double* src, int64_t src_col, double* dst, int64_t dst_row) {
  const hn::FixedTag<double, 2> d;
  const auto r0 = hn::LoadU(d, src), r1 = hn::LoadU(d, src + src_col);
  hn::StoreU(hn::InterleaveLower(d, r0, r1), d, dst);
  hn::StoreU(hn::InterleaveUpper(d, r0, r1), d, dst + dst_row);
}

// src[r * row + c * col] -> dst[r * dst_row + c]. `prefetch`: the caller packs the next `rows` rows right after these.
template <class S, class T>
void pack(const S* src, int64_t row, int64_t col, int64_t rows, int64_t cols, T* HWY_RESTRICT dst, int64_t dst_row,
          bool prefetch = false) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  if (col == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      int64_t c = 0;
      for (; c + lanes <= cols; c += lanes) hn::StoreU(load_as(d, src + r * row + c), d, dst + r * dst_row + c);
      for (; c < cols; ++c) dst[r * dst_row + c] = static_cast<T>(src[r * row + c]);
    }
    return;
  }
  int64_t c0 = 0;
  if (row == 1) {
    constexpr int64_t kBlock = 16 / sizeof(T);
    // Inner loop along r: each source line is read to its end while it is in the cache.
    for (; c0 + kBlock <= cols; c0 += kBlock) {
      int64_t r = 0;
      for (; r + kBlock <= rows; r += kBlock) {
        if (prefetch && r * sizeof(S) % 64 == 0)
          for (int64_t c = c0; c < c0 + kBlock; ++c) __builtin_prefetch(src + r + rows + c * col);
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
                 bool prefetch = false) {
  pack(src, row, col, rows, cols, dst, width, prefetch);
  const int64_t lanes = hn::Lanes(hn::ScalableTag<T>());
  const int64_t end = (cols + lanes - 1) / lanes * lanes;
  for (int64_t r = 0; r < rows && end > cols; ++r)
    for (int64_t c = cols; c < end; ++c) dst[r * width + c] = T(0);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
