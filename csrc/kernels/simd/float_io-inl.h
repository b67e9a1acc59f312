// Vectors of float or double from and to memory of any floating type. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_SIMD_FLOAT_IO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_SIMD_FLOAT_IO_INL_H_
#undef DEEPSEEK_KERNELS_SIMD_FLOAT_IO_INL_H_
#else
#define DEEPSEEK_KERNELS_SIMD_FLOAT_IO_INL_H_
#endif

#include <type_traits>

#include "base/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// One vector of T from S (the same type, or bf16, f16 or int8 as float).
template <class T, class D>
HWY_INLINE hn::Vec<D> load_as(D d, const T* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_as(D d, const BFloat16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}
template <class D>
HWY_INLINE hn::Vec<D> load_as(D d, const Half* p) {
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}
template <class D>
requires(!std::is_same_v<hn::TFromD<D>, int8_t>) HWY_INLINE hn::Vec<D> load_as(D d, const int8_t* p) {
  const hn::RebindToSigned<D> di;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(hn::Rebind<int8_t, D>(), p)));
}

// The bits of v with the upper halves rounded to nearest even; the lower halves are left as they come out.
template <class D>
HWY_INLINE auto rounded_bfloat16([[maybe_unused]] D d, hn::Vec<D> v) {
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::BitCast(d32, v);
#if HWY_TARGET <= HWY_AVX3
  if constexpr (sizeof(v) == 64) {
    constexpr int kQuietNans = 0x22;  // of either kind of NaN: itself, quiet; every other class: as rounded
    const auto down = _mm512_add_epi32(bits.raw, _mm512_set1_epi32(0x7fff));
    const auto odd = _mm512_test_epi32_mask(bits.raw, _mm512_set1_epi32(0x10000));
    const auto even = _mm512_mask_sub_epi32(down, odd, down, _mm512_set1_epi32(-1));
    return hn::BitCast(
        d32, hn::Vec<D>{_mm512_fixupimm_ps(_mm512_castsi512_ps(even), v.raw, _mm512_set1_epi32(kQuietNans), 0)});
  }
#endif
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
  const auto even = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7fff)));
  return hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), hn::Or(bits, hn::Set(d32, 0x400000)), even);
}

// The upper halves of v's lanes.
template <class D>
HWY_INLINE void store_upper_halves(D, hn::Vec<D> v, BFloat16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<int32_t, D> di32;
  const hn::Rebind<uint32_t, D> d32;
  const auto upper = hn::ShiftRight<16>(hn::BitCast(d32, v));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, upper)), d16, reinterpret_cast<uint16_t*>(p));
}

// The inverse of load_as, rounded to nearest even.
template <class T, class D>
HWY_INLINE void store_as(D d, hn::Vec<D> v, T* p) {
  hn::StoreU(v, d, p);
}
template <class D>
HWY_INLINE void store_as(D d, hn::Vec<D> v, BFloat16* p) {
  store_upper_halves(d, hn::BitCast(d, rounded_bfloat16(d, v)), p);
}
template <class D>
HWY_INLINE void store_as(D, hn::Vec<D> v, Half* p) {
  const hn::Rebind<hwy::float16_t, D> d16;
  hn::StoreU(hn::DemoteTo(d16, v), d16, reinterpret_cast<hwy::float16_t*>(p));
}

// Two neighbouring vectors.
template <class T, class D>
HWY_INLINE void store_pair_as(D d, hn::Vec<D> first, hn::Vec<D> second, T* p) {
  store_as(d, first, p);
  store_as(d, second, p + hn::Lanes(d));
}
// The upper halves of both.
template <class D>
HWY_INLINE void store_upper_pair(D d, hn::Vec<D> first, hn::Vec<D> second, BFloat16* p) {
  store_upper_halves(d, first, p);
  store_upper_halves(d, second, p + hn::Lanes(d));
}
#if HWY_TARGET <= HWY_AVX3
using FloatVector = hn::Vec<hn::ScalableTag<float>>;

HWY_INLINE void store_upper_pair(hn::ScalableTag<float>, FloatVector first, FloatVector second, BFloat16* p) {
  alignas(64) static constexpr uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                      33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  const __m512i index = _mm512_load_si512(kUpper);
  _mm512_storeu_si512(
      p, _mm512_permutex2var_epi16(_mm512_castps_si512(first.raw), index, _mm512_castps_si512(second.raw)));
}
HWY_INLINE void store_pair_as(hn::ScalableTag<float> d, FloatVector first, FloatVector second, BFloat16* p) {
  store_upper_pair(d, hn::BitCast(d, rounded_bfloat16(d, first)), hn::BitCast(d, rounded_bfloat16(d, second)), p);
}
#endif

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
