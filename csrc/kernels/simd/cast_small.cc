#include "kernels/simd/cast_small.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/cast_small.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/simd/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// Narrower vectors for fewer than a vector's worth, down to one lane.
template <int kLanesLog2, class To, class From>
HWY_INLINE void ConvertRest(To* dst, const From* src, int64_t i, int64_t n) {
  if (i == n) return;
  const hn::CappedTag<float, size_t{1} << kLanesLog2> d;
  if (n - i >= int64_t{1} << kLanesLog2) {
    store_as(d, load_as(d, src + i), dst + i);
    i += int64_t{1} << kLanesLog2;
  }
  if constexpr (kLanesLog2 > 0) ConvertRest<kLanesLog2 - 1>(dst, src, i, n);
}

template <class To, class From>
void Convert(To* HWY_RESTRICT dst, const From* HWY_RESTRICT src, int64_t n) {
  constexpr hn::ScalableTag<float> d;
  constexpr auto kLanes = static_cast<int64_t>(hn::MaxLanes(d));
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes)
    store_pair_as(d, load_as(d, src + i), load_as(d, src + i + kLanes), dst + i);
  ConvertRest<static_cast<int>(hwy::FloorLog2(static_cast<size_t>(kLanes)))>(dst, src, i, n);
}

void FloatToBFloat16(BFloat16* dst, const float* src, int64_t n) { Convert(dst, src, n); }
void FloatToHalf(Half* dst, const float* src, int64_t n) { Convert(dst, src, n); }
void BFloat16ToFloat(float* dst, const BFloat16* src, int64_t n) { Convert(dst, src, n); }
void HalfToFloat(float* dst, const Half* src, int64_t n) { Convert(dst, src, n); }

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(FloatToBFloat16);
HWY_EXPORT(FloatToHalf);
HWY_EXPORT(BFloat16ToFloat);
HWY_EXPORT(HalfToFloat);

void cast_small(BFloat16* dst, const float* src, int64_t n) { HWY_DYNAMIC_DISPATCH(FloatToBFloat16)(dst, src, n); }
void cast_small(Half* dst, const float* src, int64_t n) { HWY_DYNAMIC_DISPATCH(FloatToHalf)(dst, src, n); }
void cast_small(float* dst, const BFloat16* src, int64_t n) { HWY_DYNAMIC_DISPATCH(BFloat16ToFloat)(dst, src, n); }
void cast_small(float* dst, const Half* src, int64_t n) { HWY_DYNAMIC_DISPATCH(HalfToFloat)(dst, src, n); }
}  // namespace deepseek::kernels
#endif
