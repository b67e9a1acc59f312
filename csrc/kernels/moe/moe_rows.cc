#include "kernels/moe/moe_rows.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "runtime/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/moe/moe_rows.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/pointwise/pointwise_math-inl.h"
#include "kernels/simd/row_parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Sums = hn::ScalableTag<T>;

// NaN stays, as in clamp().
template <class V>
HWY_INLINE V AtMost(V v, V bound) {
  return hn::IfThenElse(hn::Gt(v, bound), bound, v);
}
template <class V>
HWY_INLINE V Within(V v, V bound) {
  const V least = hn::Neg(bound);
  return hn::IfThenElse(hn::Lt(v, least), least, AtMost(v, bound));
}
// Sigmoid for results that become S. 16 bits keep 11 of the 21 that are right here: 2^-x log2(e) by a polynomial for
// the fraction (relative error 2e-7) and the exponent's bits, inline, where a call costs more than what it computes and
// all registers are spilled around it.
template <class S, class D>
HWY_INLINE hn::Vec<D> sigmoid_for([[maybe_unused]] S, D d, hn::Vec<D> x) {
  if constexpr (sizeof(S) > 2) {
    return Sigmoid(d, x);
  } else {
    const hn::RebindToSigned<D> di;
    // At 128 the power is infinite and the sigmoid 0, so that -inf times it is NaN as it must be.
    const auto t = hn::Min(hn::Max(hn::Mul(x, K(d, -1.4426950408889634)), K(d, -126)), K(d, 128));
    const auto whole = hn::Round(t), f = hn::Sub(t, whole);
    auto p = hn::MulAdd(K(d, 0.0013264723820611835), f, K(d, 0.009671512991189957));
    p = hn::MulAdd(p, f, K(d, 0.05550733581185341));
    p = hn::MulAdd(p, f, K(d, 0.24022242426872253));
    p = hn::MulAdd(p, f, K(d, 0.6931470036506653));
    p = hn::MulAdd(p, f, K(d, 1));
    const auto power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127))));
    return hn::Div(K(d, 1), hn::MulAdd(p, power, K(d, 1)));
  }
}

template <class S, class T, class Sum>
HWY_INLINE void swiglu_of(const SwigluRow& r, int64_t n, Sum&& sum) {
  const Sums<T> d;
  const int64_t lanes = hn::Lanes(d);
  const T *gate_sum = static_cast<const T*>(r.gate_sum), *up_sum = static_cast<const T*>(r.up_sum);
  const auto bound = rounded<S>(d, K(d, r.limit));
  for (int64_t i = 0; i < n; i += lanes) {
    const int64_t count = n - i;
    const auto g = rounded<S>(d, sum(load_part(d, gate_sum + i, count)));
    const auto u = rounded<S>(d, sum(load_part(d, up_sum + i, count)));
    if (r.gate) store_part(d, g, static_cast<S*>(r.gate) + i, count);
    if (r.up) store_part(d, u, static_cast<S*>(r.up) + i, count);
    const auto gate = AtMost(g, bound), up = Within(u, bound);
    store_part(d, hn::Mul(hn::Mul(gate, sigmoid_for(S{}, d, gate)), up), static_cast<S*>(r.hidden) + i, count);
  }
}
template <class S, class T>
void swiglu_row(const SwigluRow& r, int64_t n) {
  swiglu_of<S, T>(r, n, [](auto v) HWY_ATTR { return v; });
}
// As qgemm stores a sum without a bias: fma(sum, scale, 0), which has no -0.
template <class S>
void scaled_swiglu_row(const SwigluRow& r, float scale, int64_t n) {
  const Sums<float> d;
  swiglu_of<S, float>(r, n, [&](auto v) HWY_ATTR { return hn::MulAdd(v, hn::Set(d, scale), hn::Zero(d)); });
}

template <class S, class T>
void swiglu_backward_row(const SwigluBackwardRow& r, const void* weight, int64_t n) {
  const Sums<T> d;
  const int64_t lanes = hn::Lanes(d);
  const auto w = hn::Set(d, *static_cast<const T*>(weight)), one = K(d, 1), bound = rounded<S>(d, K(d, r.limit));
  auto dot = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes) {
    const int64_t count = n - i;
    const auto grad = load_part(d, static_cast<const T*>(r.grad_sum) + i, count);
    const auto gate = load_part(d, static_cast<const S*>(r.gate) + i, count);
    const auto up = load_part(d, static_cast<const S*>(r.up) + i, count);
    const auto g = AtMost(gate, bound), u = Within(up, bound);
    const auto s = sigmoid_for(S{}, d, g), silu = hn::Mul(g, s);
    const auto hidden = rounded<S>(d, hn::Mul(silu, u));
    dot = hn::MulAdd(grad, hidden, dot);
    const auto slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
    const auto scaled = hn::Mul(grad, w);
    const auto grad_gate = hn::Mul(hn::Mul(scaled, u), slope), grad_up = hn::Mul(scaled, silu);
    // What was limited has no slope; ties have, as in clamp().
    store_part(d, hn::IfThenZeroElse(hn::Gt(gate, bound), grad_gate), static_cast<S*>(r.grad_gate) + i, count);
    store_part(d, hn::IfThenZeroElse(hn::Gt(hn::Abs(up), bound), grad_up), static_cast<S*>(r.grad_up) + i, count);
    store_part(d, hn::Mul(hidden, w), static_cast<S*>(r.weighted_hidden) + i, count);
  }
  *static_cast<T*>(r.dot) = hn::GetLane(hn::SumOfLanes(d, dot));
}

template <class S, class T>
void combine_rows(const void* rows, int64_t row, const void* weights, int64_t slots, int64_t n, void* to) {
  const Sums<T> d;
  const int64_t lanes = hn::Lanes(d);
  const T *from = static_cast<const T*>(rows), *w = static_cast<const T*>(weights);
  for (int64_t i = 0; i < n; i += lanes) {
    auto sum = hn::Zero(d);
    for (int64_t s = 0; s < slots; ++s) {
      const auto v = load_part(d, from + s * row + i, n - i);
      sum = hn::Add(sum, w ? hn::Mul(v, hn::Set(d, w[s])) : v);
    }
    store_part(d, sum, static_cast<S*>(to) + i, n - i);
  }
}

template <class S, class T>
MoeRowKernel kernel_of() {
  MoeRowKernel kernel{&swiglu_row<S, T>, nullptr, &swiglu_backward_row<S, T>, &combine_rows<S, T>};
  if constexpr (std::is_same_v<T, float>) kernel.scaled_swiglu = &scaled_swiglu_row<S>;
  return kernel;
}

MoeRowKernel GetMoeRowKernel(DType dtype) {
  return dispatch_float("moe", dtype, []<class S>() { return kernel_of<S, ComputeType<S>>(); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(GetMoeRowKernel);

MoeRowKernel moe_row_kernel(DType dtype) {
  DS_CHECK_AS(TypeError, is_floating(dtype) && !is_float8(dtype), "moe: no kernel for ", dtype);
  return HWY_DYNAMIC_DISPATCH(GetMoeRowKernel)(dtype);
}

void combine_slots(const SlotSums& s, void* pair_rows, const void* weights, void* to) {
  const MoeRowKernel kernel = moe_row_kernel(s.dtype);
  const int64_t bytes = s.dtype == DType::kFloat64 ? 8 : 4, size = size_of(s.dtype);
  auto* rows = static_cast<char*>(pair_rows);
  for (const int64_t pair : s.empty) std::memset(rows + pair * s.n * bytes, 0, static_cast<size_t>(s.n * bytes));
  const auto* factors = static_cast<const char*>(weights);
  parallel_for(s.tokens, grain_for(s.slots * s.n * bytes), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      kernel.combine(rows + t * s.slots * s.n * bytes, s.n, factors ? factors + t * s.slots * bytes : nullptr, s.slots,
                     s.n, static_cast<char*>(to) + t * s.n * size);
  });
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
