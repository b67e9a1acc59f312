#include "kernels/loops/rows.h"

#include <immintrin.h>

#include "kernels/simd/cast_small.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kUnroll = 16;  // a known trip count lets the compiler vectorise at -O2

template <class C, class T>
C convert(T value) {
  if constexpr (std::is_same_v<C, uint8_t>)
    return static_cast<ComputeType<T>>(value) != ComputeType<T>(0);
  else
    return static_cast<C>(static_cast<ComputeType<T>>(value));
}

template <class T, class C>
T convert_back(C value) {
  if constexpr (std::is_same_v<T, bool>)
    return value != C(0);
  else
    return static_cast<T>(value);
}

template <class T, class C>
void load_typed(const T* __restrict src, int64_t stride, int64_t n, C* __restrict dst) {
  int64_t i = 0;
  if (stride == 1) {
    if constexpr (is_small_cast<T, C>) {
      return cast_small(dst, src, n);
    } else {
      for (; i + kUnroll <= n; i += kUnroll)
        for (int64_t j = 0; j < kUnroll; ++j) dst[i + j] = convert<C>(src[i + j]);
    }
  }
  for (; i < n; ++i) dst[i] = convert<C>(src[i * stride]);
}

template <class T, class C>
void store_typed(T* __restrict dst, int64_t stride, int64_t n, const C* __restrict src) {
  int64_t i = 0;
  if (stride == 1) {
    if constexpr (is_small_cast<C, T>) {
      return cast_small(dst, src, n);
    } else {
      for (; i + kUnroll <= n; i += kUnroll)
        for (int64_t j = 0; j < kUnroll; ++j) dst[i + j] = convert_back<T>(src[i + j]);
    }
  }
  for (; i < n; ++i) dst[i * stride] = convert_back<T>(src[i]);
}

}  // namespace

template <class C>
void load_row(DType dtype, const void* src, int64_t stride, int64_t n, C* dst) {
  dispatch(dtype, [&]<class T>() { load_typed(static_cast<const T*>(src), stride, n, dst); });
}

template <class C>
void store_row(DType dtype, void* dst, int64_t stride, int64_t n, const C* src) {
  dispatch(dtype, [&]<class T>() { store_typed(static_cast<T*>(dst), stride, n, src); });
}

// Four 8x8 blocks, each by three rounds of interleaving.
void transpose_16x16(const void* from_tile, void* to_tile) {
  constexpr int kSide = 16;
  const float* from = static_cast<const float*>(from_tile);
  float* to = static_cast<float*>(to_tile);
  for (int row = 0; row < kSide; row += 8)
    for (int col = 0; col < kSide; col += 8) {
      __m256 a[8], b[8];
      for (int i = 0; i < 8; ++i) a[i] = _mm256_load_ps(from + (row + i) * kSide + col);
      for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
      }
      for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; ++j) {
          a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
          a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
        }
      for (int i = 0; i < 4; ++i) {
        _mm256_store_ps(to + (col + i) * kSide + row, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
        _mm256_store_ps(to + (col + i + 4) * kSide + row, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
      }
    }
}

#define DS_INSTANTIATE(C)                                              \
  template void load_row<C>(DType, const void*, int64_t, int64_t, C*); \
  template void store_row<C>(DType, void*, int64_t, int64_t, const C*)
DS_INSTANTIATE(float);
DS_INSTANTIATE(double);
DS_INSTANTIATE(int64_t);
DS_INSTANTIATE(int32_t);
DS_INSTANTIATE(int16_t);
DS_INSTANTIATE(int8_t);
DS_INSTANTIATE(uint8_t);
#undef DS_INSTANTIATE

}  // namespace deepseek::kernels
