// Register tiles of float and double products: every caller that goes through them gives the sum that matmul_float.h
// defines. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_GEMM_TILE_FLOAT_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_GEMM_TILE_FLOAT_TILE_INL_H_
#undef DEEPSEEK_KERNELS_GEMM_TILE_FLOAT_TILE_INL_H_
#else
#define DEEPSEEK_KERNELS_GEMM_TILE_FLOAT_TILE_INL_H_
#endif

#include <array>
#include <cstdint>
#include <utility>

#include "hwy/highway.h"
#include "kernels/gemm/matmul_float.h"
#include "kernels/simd/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Register tile: kRows x (kVecs vectors). 24 accumulators of 32 registers, or 12 of 16.
constexpr int kRows = 6;
constexpr int kVecs = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
HWY_INLINE constexpr int64_t panel_width() {
  return kVecs * static_cast<int64_t>(hn::Lanes(Tag<T>()));
}

// A fused multiply-add of floats or doubles. B may be of anything that is loaded as them.
template <class T>
struct FusedDot {
  using Number = T;
  using Float = T;
  using Sum = hn::Vec<Tag<T>>;
  HWY_INLINE static int64_t lanes() { return static_cast<int64_t>(hn::Lanes(Tag<T>())); }
  HWY_INLINE static Sum dot(Sum sum, Sum a, Sum b) { return hn::MulAdd(a, b, sum); }
  HWY_INLINE static Sum all_lanes(const T* a) { return hn::Set(Tag<T>(), *a); }
  template <class B>
  HWY_INLINE static Sum load(const B* b) {
    return load_as(Tag<T>(), b);
  }
  HWY_INLINE static Sum zero() { return hn::Zero(Tag<T>()); }
  HWY_INLINE static Sum load_sum(const T* p) { return hn::LoadU(Tag<T>(), p); }
  HWY_INLINE static void store_sum(Sum sum, T* p) { hn::StoreU(sum, Tag<T>(), p); }
  HWY_INLINE static void stream_sum(Sum sum, T* p) { hn::Stream(sum, Tag<T>(), p); }
  HWY_INLINE static Sum add(Sum x, Sum y) { return hn::Add(x, y); }
  HWY_INLINE static Sum scaled(Sum sum, T factor) { return hn::Mul(sum, hn::Set(Tag<T>(), factor)); }
};

#include "kernels/gemm/tile/register_tile.inc"
// after register_tile.inc
#include "kernels/gemm/tile/product_tile.inc"

// Defined for float and double in float_tile.cc.
template <class Dot>
ProductFn<Dot> product_tile(int64_t rows, int64_t vecs);
// c[rows, n] = A B for n up to a panel. Nothing beyond column n is touched, in B or in c. `stream`: B comes from memory
// in short runs, which the hardware does not prefetch.
template <class T>
void multiply_tile(int64_t rows, int64_t n, const TileOperands<FusedDot<T>>& x, const Sums<T>& c, bool stream);

extern template ProductFn<FusedDot<float>> product_tile(int64_t, int64_t);
extern template ProductFn<FusedDot<double>> product_tile(int64_t, int64_t);
extern template void multiply_tile(int64_t, int64_t, const TileOperands<FusedDot<float>>&, const Sums<float>&, bool);
extern template void multiply_tile(int64_t, int64_t, const TileOperands<FusedDot<double>>&, const Sums<double>&, bool);

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
