// The rows of the family DS_FAMILY as structs of lanes, for one Highway target.

#if defined(DEEPSEEK_KERNELS_POINTWISE_ROW_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_POINTWISE_ROW_LANES_INL_H_
#undef DEEPSEEK_KERNELS_POINTWISE_ROW_LANES_INL_H_
#else
#define DEEPSEEK_KERNELS_POINTWISE_ROW_LANES_INL_H_
#endif

#include <initializer_list>

#include "kernels/pointwise/pointwise.h"
#include "kernels/pointwise/pointwise_math-inl.h"
#include "kernels/pointwise/rows.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// A row as a struct of its arguments, vectors V with tag D or scalars V; what it has no part for it takes from here.
struct NoParts {
  static constexpr bool kExact = false, kHasBools = false;
};
struct NoTag {};

#define DS_POINTWISE(S, name, rule, arguments, ...)                                                 \
  template <class V, class D>                                                                       \
  struct S##Lanes : NoParts {                                                                       \
    static constexpr size_t kArity = std::initializer_list<int>{DS_LIST(DS_ONE, arguments)}.size(); \
    /* Whether results are 0 or 1: those of any operands, or of bits where the operands are. */     \
    static constexpr bool IsTruth(bool bools) {                                                     \
      constexpr Rule r = Rule::rule;                                                                \
      return r == Rule::kCompare || r == Rule::kLogical || (r == Rule::kBits && !bools);            \
    }                                                                                               \
    V DS_LIST(DS_NAME, arguments);                                                                  \
    D d;                                                                                            \
    __VA_ARGS__                                                                                     \
  };
#define DS_POINTWISE_SCALED DS_POINTWISE
#define FLOAT(...) \
  HWY_INLINE V Float() const { return __VA_ARGS__; }
#define INT(...)                            \
  HWY_INLINE V Int() const {                \
    using T [[maybe_unused]] = V;           \
    using U [[maybe_unused]] = Wrapping<V>; \
    return __VA_ARGS__;                     \
  }
#define BOOLS(Op) static constexpr bool kHasBools = true;
#define EXACT static constexpr bool kExact = true;
#define SIGN(x)
#define VJP(...)
#define SAVES(x)
#define CHECK(x)
#define DOC(x)
#include DS_FAMILY
#undef FLOAT
#undef INT
#undef BOOLS
#undef EXACT
#undef SIGN
#undef VJP
#undef SAVES
#undef CHECK
#undef DOC
#undef DS_POINTWISE
#undef DS_POINTWISE_SCALED

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
