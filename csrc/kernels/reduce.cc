#include "kernels/reduce.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::HWY_NAMESPACE {
using kernels::ReduceOp;

template <class C, class Op>
void ReduceAs(const ReducePlan& plan, const Op& op) {
  kernels::Scratch<C> results(plan.outputs);
  Run<C>(plan, op, nullptr, results.data());
  kernels::store_results(plan, results.data());
}

// The type a sum into `t` is kept in.
template <class Op>
void ReduceNumeric(const ReducePlan& plan, DType t, const Op& op) {
  if (t == DType::kFloat64)
    ReduceAs<double>(plan, op);
  else if (is_floating(t))
    ReduceAs<float>(plan, op);
  else
    ReduceAs<int64_t>(plan, op);
}

void Reduce(ReduceOp op, const View& out, const View& in) {
  const ReducePlan plan(out, in);
  const bool extreme = op == ReduceOp::kMin || op == ReduceOp::kMax;
  DS_CHECK(!extreme || plan.length > 0 || plan.outputs == 0, "internal: min/max over no elements");
  switch (op) {
    case ReduceOp::kSum:
      return ReduceNumeric(plan, out.dtype, SumOp());
    case ReduceOp::kProd:
      return ReduceNumeric(plan, out.dtype, ProdOp());
    case ReduceOp::kMin:
      return ReduceNumeric(plan, in.dtype, MinOp());
    case ReduceOp::kMax:
      return ReduceNumeric(plan, in.dtype, MaxOp());
    case ReduceOp::kAny:
      return ReduceAs<uint8_t>(plan, MaxOp());
    case ReduceOp::kAll: {
      // The identity of min over uint8 is 255: an empty `all` is stored as true, and uint8 outputs want 1.
      if (plan.length > 0) return ReduceAs<uint8_t>(plan, MinOp());
      kernels::Scratch<uint8_t> ones(plan.outputs);
      std::fill_n(ones.data(), plan.outputs, uint8_t{1});
      return kernels::store_results(plan, ones.data());
    }
  }
}

}  // namespace deepseek::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek {
HWY_EXPORT(Reduce);

namespace kernels {
void reduce(ReduceOp op, const View& out, const View& in) { HWY_DYNAMIC_DISPATCH(Reduce)(op, out, in); }
}  // namespace kernels
}  // namespace deepseek
#endif
