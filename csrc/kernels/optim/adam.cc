#include "kernels/optim/adam.h"

#include <cmath>

#include "kernels/simd/routes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/adam.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/optim/step-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

template <class Range>
void adam_range(const Range& range, const StepTensors& t, const AdamArgs& a) {
  const typename Range::D d;
  const double correction1 = 1 - std::pow(a.beta1, static_cast<double>(t.step));
  const double correction2 = std::sqrt(1 - std::pow(a.beta2, static_cast<double>(t.step)));
  const auto set = [](double x) HWY_ATTR { return Range::set(x); };
  const auto shrink = set(1 - a.lr * a.weight_decay), decay = set(a.weight_decay),
             sign = set(a.maximize ? -a.grad_scale : a.grad_scale);
  const auto rest1 = set(1 - a.beta1), beta2 = set(a.beta2), rest2 = set(1 - a.beta2);
  const auto step = set(-a.lr / correction1), root = set(correction2), eps = set(a.eps);
  auto *const first = range.state(0), *const second = range.state(1), *const largest = range.state(2);
  range.run([&](auto p, auto g, int64_t i, int64_t n) HWY_ATTR {
    g = hn::Mul(g, sign);
    if (a.weight_decay != 0) {
      if (a.decoupled)
        p = hn::Mul(p, shrink);
      else
        g = hn::MulAdd(decay, p, g);
    }
    auto m = load_part(d, first + i, n);
    m = hn::MulAdd(rest1, hn::Sub(g, m), m);
    const auto v = hn::MulAdd(hn::Mul(rest2, g), g, hn::Mul(beta2, load_part(d, second + i, n)));
    store_part(d, m, first + i, n);
    store_part(d, v, second + i, n);
    auto scale = v;
    if (largest) {
      const auto old = load_part(d, largest + i, n);
      // NaN in either stays, as in PyTorch's maximum.
      scale = hn::IfThenElse(hn::Or(hn::IsNaN(old), hn::Gt(old, v)), old, v);
      store_part(d, scale, largest + i, n);
    }
    const auto denominator = hn::Add(hn::Div(hn::Sqrt(scale), root), eps);
    return hn::MulAdd(step, hn::Div(m, denominator), p);
  });
}

void AdamRange(const StepTensors& t, const AdamArgs& a, DType dtype, DType state, int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(Adam);
  with_step_range(t, dtype, state, begin, end, [&](const auto& range) { adam_range(range, t, a); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(AdamRange);

void adam_step(std::span<const StepTensors> tensors, DType dtype, DType state_dtype, const AdamArgs& args) {
  run_step("adam_step", tensors, dtype, state_dtype, [&](const StepTensors& t, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AdamRange)(t, args, dtype, state_dtype, begin, end);
  });
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
