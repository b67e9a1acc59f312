// The float expressions of the rows of one argument in DS_FAMILY, for kernels that hold vectors already.

#if defined(DEEPSEEK_KERNELS_POINTWISE_UNARY_EXPR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_POINTWISE_UNARY_EXPR_INL_H_
#undef DEEPSEEK_KERNELS_POINTWISE_UNARY_EXPR_INL_H_
#else
#define DEEPSEEK_KERNELS_POINTWISE_UNARY_EXPR_INL_H_
#endif

#include "kernels/pointwise/row_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// UnaryExpr<op>::Float(d, a) is what op makes of the lanes a.
template <Pointwise op>
struct UnaryExpr;
#define DS_POINTWISE(S, ...)                   \
  template <>                                  \
  struct UnaryExpr<Pointwise::k##S> {          \
    template <class D, class V>                \
    static HWY_INLINE V Float(D d, V a) {      \
      return S##Lanes<V, D>{{}, a, d}.Float(); \
    }                                          \
  };
#define DS_POINTWISE_SCALED DS_POINTWISE
#include DS_FAMILY
#undef DS_POINTWISE
#undef DS_POINTWISE_SCALED

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
