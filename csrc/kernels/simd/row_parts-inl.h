// Parts of rows: vectors that may be short, and values as they are after a store. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_SIMD_ROW_PARTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_SIMD_ROW_PARTS_INL_H_
#undef DEEPSEEK_KERNELS_SIMD_ROW_PARTS_INL_H_
#else
#define DEEPSEEK_KERNELS_SIMD_ROW_PARTS_INL_H_
#endif

#include <algorithm>
#include <type_traits>

#include "kernels/simd/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A vector at p, or its first `count` elements and zeros.
template <class D, class S>
HWY_INLINE hn::Vec<D> load_part(D d, const S* p, int64_t count) {
  if (count >= static_cast<int64_t>(hn::Lanes(d))) return load_as(d, p);
  S padded[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  std::copy(p, p + count, padded);
  return load_as(d, padded);
}
template <class D, class S>
HWY_INLINE void store_part(D d, hn::Vec<D> v, S* p, int64_t count) {
  if (count >= static_cast<int64_t>(hn::Lanes(d))) return store_as(d, v, p);
  S padded[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)];
  store_as(d, v, padded);
  std::copy(padded, padded + count, p);
}
// As it is after being stored in S.
template <class S, class D>
HWY_INLINE hn::Vec<D> rounded(D d, hn::Vec<D> v) {
  if constexpr (std::is_same_v<S, hn::TFromD<D>>) {
    return v;
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    const hn::Rebind<uint32_t, D> d32;
    return hn::BitCast(d, hn::And(rounded_bfloat16(d, v), hn::Set(d32, 0xffff0000u)));
  } else {
    S stored[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)];
    store_as(d, v, stored);
    return load_as(d, stored);
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
