#include "kernels/optim/sgd.h"

#include "kernels/simd/routes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/sgd.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/optim/step-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

template <class Range>
void sgd_range(const Range& range, const SgdArgs& a) {
  const typename Range::D d;
  const auto set = [](double x) HWY_ATTR { return Range::set(x); };
  const auto lr = set(-a.lr), momentum = set(a.momentum), rest = set(1 - a.dampening), decay = set(a.weight_decay);
  const auto sign = set(a.maximize ? -a.grad_scale : a.grad_scale);
  auto* const buffer = a.momentum != 0 ? range.state(0) : nullptr;
  range.run([&](auto p, auto g, int64_t i, int64_t n) HWY_ATTR {
    g = hn::Mul(g, sign);
    if (a.weight_decay != 0) g = hn::MulAdd(decay, p, g);
    if (buffer) {
      const auto m = a.first ? g : hn::MulAdd(momentum, load_part(d, buffer + i, n), hn::Mul(rest, g));
      store_part(d, m, buffer + i, n);
      g = a.nesterov ? hn::MulAdd(momentum, m, g) : m;
    }
    return hn::MulAdd(lr, g, p);
  });
}

void SgdRange(const StepTensors& t, const SgdArgs& a, DType dtype, DType state, int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(Sgd);
  with_step_range(t, dtype, state, begin, end, [&](const auto& range) { sgd_range(range, a); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(SgdRange);

void sgd_step(std::span<const StepTensors> tensors, DType dtype, DType state_dtype, const SgdArgs& args) {
  run_step("sgd_step", tensors, dtype, state_dtype, [&](const StepTensors& t, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SgdRange)(t, args, dtype, state_dtype, begin, end);
  });
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
