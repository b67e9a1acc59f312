// Vector loops over contiguous rows, and the element maps that row kernels share with reductions.

#if defined(DEEPSEEK_KERNELS_REDUCE_ROW_OPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_REDUCE_ROW_OPS_INL_H_
#undef DEEPSEEK_KERNELS_REDUCE_ROW_OPS_INL_H_
#else
#define DEEPSEEK_KERNELS_REDUCE_ROW_OPS_INL_H_
#endif

#include "kernels/reduce/reduce-inl.h"
#include "kernels/simd/vecmath-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

struct SquareMap {
  template <class D, class V>
  HWY_INLINE V Map(D, V v, V) const {
    return hn::Mul(v, v);
  }
};

struct CenteredSquareMap {
  template <class D, class V>
  HWY_INLINE V Map(D, V v, V mean) const {
    const V x = hn::Sub(v, mean);
    return hn::Mul(x, x);
  }
};

struct ShiftedExpMap {
  template <class D, class V>
  HWY_INLINE V Map(D d, V v, V shift) const {
    return VExp(d, hn::Sub(v, shift));
  }
};

// f(part, i) for i = 0, N, 2N ... < n.
template <class C, class F>
HWY_INLINE void ForVectors(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kVector<C> <= n; i += kVector<C>) f(WholeVector<C>(), i);
  if (i < n) f(PartVector<C>(n - i), i);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
