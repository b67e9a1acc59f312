#include "kernels/quant/qgemm_store.h"

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quant/qgemm_store.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/pointwise/pointwise_math-inl.h"
#include "kernels/simd/row_parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The expressions of pointwise.def.
template <QActivation A, class D>
HWY_INLINE hn::Vec<D> activate(D d, hn::Vec<D> v) {
  if constexpr (A == QActivation::kRelu) return hn::IfThenElse(hn::Lt(v, hn::Zero(d)), hn::Zero(d), v);
  if constexpr (A == QActivation::kGelu) return GeluErf(d, v);
  if constexpr (A == QActivation::kGeluTanh) return GeluTanh(d, v);
  if constexpr (A == QActivation::kSilu) return hn::Mul(v, Sigmoid(d, v));
  return v;
}

template <class S, QActivation A, bool kSums, bool kResidual>
void store_parts(const QStoreRow& r, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, r.scale);
  S* out = static_cast<S*>(r.out);
  const S* residual = static_cast<const S*>(r.residual);
  const auto one = [&](int64_t i, int64_t count) HWY_ATTR {
    auto v = kSums ? hn::MulAdd(load_part(d, r.sums + i, count), scale, load_part(d, r.bias + i, count))
                   : load_part(d, out + i, count);
    if constexpr (A != QActivation::kNone) v = activate<A>(d, rounded<S>(d, v));
    if constexpr (kResidual) v = hn::Add(rounded<S>(d, v), load_part(d, residual + i, count));
    store_part(d, v, out + i, count);
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) one(i, lanes);
  if (i < n) one(i, n - i);
}
template <class S, QActivation A>
void store_row(const QStoreRow& r, int64_t n) {
  if (r.sums)
    r.residual ? store_parts<S, A, true, true>(r, n) : store_parts<S, A, true, false>(r, n);
  else
    r.residual ? store_parts<S, A, false, true>(r, n) : store_parts<S, A, false, false>(r, n);
}

template <class S>
QStoreFn store_of(QActivation a) {
  switch (a) {
    case QActivation::kRelu:
      return &store_row<S, QActivation::kRelu>;
    case QActivation::kGelu:
      return &store_row<S, QActivation::kGelu>;
    case QActivation::kGeluTanh:
      return &store_row<S, QActivation::kGeluTanh>;
    case QActivation::kSilu:
      return &store_row<S, QActivation::kSilu>;
    case QActivation::kNone:
      return &store_row<S, QActivation::kNone>;
  }
  __builtin_unreachable();
}

QStoreFn GetQStore(DType dtype, QActivation a) {
  return dtype == DType::kFloat32 ? store_of<float>(a) : store_of<BFloat16>(a);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(GetQStore);

QStoreFn qstore(DType dtype, QActivation activation) {
  DS_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16, "qgemm: results are float32 or bfloat16, got ",
           dtype);
  return HWY_DYNAMIC_DISPATCH(GetQStore)(dtype, activation);
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
