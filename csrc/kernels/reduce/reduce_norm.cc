// var_mean, norm_p, logsumexp: reductions that map every element first.
#include <cmath>

#include "kernels/reduce/reduce.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce/reduce_norm.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/reduce/row_ops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

struct AbsMap {
  template <class D, class V>
  HWY_INLINE V Map(D, V v, V) const {
    return hn::Abs(v);
  }
};

struct NonzeroMap {
  template <class D, class V>
  HWY_INLINE V Map(D d, V v, V) const {
    // Not Ne, which is false for NaN here.
    return hn::IfThenElse(hn::Eq(v, hn::Zero(d)), hn::Zero(d), hn::Set(d, hn::TFromD<D>(1)));
  }
};

struct PowerMap {
  double p;
  explicit PowerMap(double power) : p(power) {}
  template <class D, class V>
  HWY_INLINE V Map(D d, V v, V) const {
    return VPow(d, hn::Abs(v), hn::Set(d, static_cast<hn::TFromD<D>>(p)));
  }
};

void VarMean(const View& var_out, const View& mean_out, const View& in, double correction) {
  const ReducePlan plan(var_out.data ? var_out : mean_out, in);
  Scratch<double> mean(plan.outputs), var(plan.outputs);
  const double n = static_cast<double>(plan.length);
  Run<double>(plan, SumOp(), nullptr, mean.data());
  for (int64_t o = 0; o < plan.outputs; ++o) mean[o] /= n;
  if (mean_out.data) store_results(ReducePlan(mean_out, in), mean.data());
  if (!var_out.data) return;
  Run<double>(plan, WithSum<CenteredSquareMap>(), mean.data(), var.data());
  for (int64_t o = 0; o < plan.outputs; ++o) var[o] /= std::max(0.0, n - correction);
  store_results(plan, var.data());
}

template <class C>
void NormAs(const ReducePlan& plan, double p) {
  Scratch<C> results(plan.outputs);
  C* r = results.data();
  if (p == 0) {
    Run<C>(plan, WithSum<NonzeroMap>(), nullptr, r);
  } else if (p == 1) {
    Run<C>(plan, WithSum<AbsMap>(), nullptr, r);
  } else if (p == 2) {
    Run<C>(plan, WithSum<SquareMap>(), nullptr, r);
    for (int64_t o = 0; o < plan.outputs; ++o) r[o] = std::sqrt(r[o]);
  } else if (std::isinf(p)) {
    if (p > 0)
      Run<C>(plan, WithExtreme<AbsMap, true>(), nullptr, r);
    else
      Run<C>(plan, WithExtreme<AbsMap, false>(), nullptr, r);
    if (plan.length == 0) std::fill_n(r, plan.outputs, p > 0 ? C(0) : HighestOf<C>());
  } else {
    Run<C>(plan, WithSum<PowerMap>(p), nullptr, r);
    for (int64_t o = 0; o < plan.outputs; ++o) r[o] = std::pow(r[o], static_cast<C>(1 / p));
  }
  store_results(plan, r);
}

void NormP(const View& out, const View& in, double p) {
  const ReducePlan plan(out, in);
  if (out.dtype == DType::kFloat64)
    NormAs<double>(plan, p);
  else
    NormAs<float>(plan, p);
}

template <class C>
void LogSumExpAs(const ReducePlan& plan) {
  Scratch<C> shift(plan.outputs), results(plan.outputs);
  Run<C>(plan, MaxOp(), nullptr, shift.data());
  for (int64_t o = 0; o < plan.outputs; ++o)
    if (std::isinf(shift[o])) shift[o] = 0;
  Run<C>(plan, WithSum<ShiftedExpMap>(), shift.data(), results.data());
  for (int64_t o = 0; o < plan.outputs; ++o) results[o] = std::log(results[o]) + shift[o];
  store_results(plan, results.data());
}

void LogSumExp(const View& out, const View& in) {
  const ReducePlan plan(out, in);
  if (out.dtype == DType::kFloat64)
    LogSumExpAs<double>(plan);
  else
    LogSumExpAs<float>(plan);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(VarMean);
HWY_EXPORT(NormP);
HWY_EXPORT(LogSumExp);

void var_mean(const View& var_out, const View& mean_out, const View& in, double correction) {
  HWY_DYNAMIC_DISPATCH(VarMean)(var_out, mean_out, in, correction);
}
void norm_p(const View& out, const View& in, double p) { HWY_DYNAMIC_DISPATCH(NormP)(out, in, p); }
void logsumexp(const View& out, const View& in) { HWY_DYNAMIC_DISPATCH(LogSumExp)(out, in); }
}  // namespace deepseek::kernels
#endif
