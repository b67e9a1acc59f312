// The float expressions of pointwise.def's ops of one input, for kernels that hold vectors already.

#if defined(DEEPSEEK_KERNELS_POINTWISE_UNARY_EXPR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_POINTWISE_UNARY_EXPR_INL_H_
#undef DEEPSEEK_KERNELS_POINTWISE_UNARY_EXPR_INL_H_
#else
#define DEEPSEEK_KERNELS_POINTWISE_UNARY_EXPR_INL_H_
#endif

#include "kernels/pointwise/pointwise.h"
#include "kernels/pointwise/pointwise_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// UnaryExpr<op>::Float(d, a) is what op makes of the lanes a.
template <Pointwise op>
struct UnaryExpr;
#define DS_UNARY(S, name, rule, kernels, fexpr, ...)                        \
  template <>                                                               \
  struct UnaryExpr<Pointwise::k##S> {                                       \
    template <class D, class V>                                             \
    static HWY_INLINE V Float([[maybe_unused]] D d, [[maybe_unused]] V a) { \
      return fexpr;                                                         \
    }                                                                       \
  };
#define DS_BINARY(...)
#define DS_TERNARY(...)
#include "kernels/pointwise/pointwise.def"
#undef DS_UNARY
#undef DS_BINARY
#undef DS_TERNARY

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
