// Register tiles of 16-bit integers: two of A times two of B a lane, sums of int32. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_GEMM_TILE_INT16_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_GEMM_TILE_INT16_TILE_INL_H_
#undef DEEPSEEK_KERNELS_GEMM_TILE_INT16_TILE_INL_H_
#else
#define DEEPSEEK_KERNELS_GEMM_TILE_INT16_TILE_INL_H_
#endif

#include "kernels/gemm/tile/float_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

struct Int16Dot {
  using Number = uint32_t;  // a pair
  using Sum = hn::Vec<Tag<int32_t>>;
  using Pairs = hn::Vec<hn::Repartition<int16_t, Tag<int32_t>>>;
  HWY_INLINE static int64_t lanes() { return static_cast<int64_t>(hn::Lanes(Tag<int32_t>())); }
  HWY_INLINE static Sum dot(Sum sum, Pairs a, Pairs b) {
    Sum unused = zero();
    return hn::ReorderWidenMulAccumulate(Tag<int32_t>(), a, b, sum, unused);  // sums of neighbours
  }
  HWY_INLINE static Pairs all_lanes(const uint32_t* a) { return pairs(hn::Set(Tag<uint32_t>(), *a)); }
  HWY_INLINE static Pairs load(const uint32_t* b) { return pairs(hn::LoadU(Tag<uint32_t>(), b)); }
  HWY_INLINE static Sum zero() { return hn::Zero(Tag<int32_t>()); }

 private:
  HWY_INLINE static Pairs pairs(hn::Vec<Tag<uint32_t>> words) {
    return hn::BitCast(hn::Repartition<int16_t, Tag<int32_t>>(), words);
  }
};

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
