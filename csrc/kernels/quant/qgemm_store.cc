#include "kernels/quant/qgemm_store.h"

#include <utility>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quant/qgemm_store.cc"
#define DS_FAMILY "kernels/pointwise/pointwise.def"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/pointwise/unary_expr-inl.h"
#include "kernels/simd/row_parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What is stored as it is.
struct NoActivation {
  template <class D, class V>
  static HWY_INLINE V Float(D, V v) {
    return v;
  }
};

template <class S, class Activate, bool kResidual>
void store_parts(const QStoreRow& r, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, r.scale);
  S* out = static_cast<S*>(r.out);
  const S* residual = static_cast<const S*>(r.residual);
  const auto one = [&](int64_t i, int64_t count) HWY_ATTR {
    auto v = hn::MulAdd(load_part(d, r.sums + i, count), scale, load_part(d, r.bias + i, count));
    if constexpr (!std::is_same_v<Activate, NoActivation>) v = Activate::Float(d, rounded<S>(d, v));
    if constexpr (kResidual) v = hn::Add(rounded<S>(d, v), load_part(d, residual + i, count));
    store_part(d, v, out + i, count);
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) one(i, lanes);
  if (i < n) one(i, n - i);
}
template <class S, class Activate>
void store_row(const QStoreRow& r, int64_t n) {
  r.residual ? store_parts<S, Activate, true>(r, n) : store_parts<S, Activate, false>(r, n);
}

template <class S, size_t... I>
QStoreFn store_of(std::optional<Pointwise> activation, std::index_sequence<I...>) {
  QStoreFn store = nullptr;
  if (!activation) return &store_row<S, NoActivation>;
  ((*activation == kActivations[I].op ? void(store = &store_row<S, UnaryExpr<kActivations[I].op>>) : void()), ...);
  return store;
}

QStoreFn GetQStore(DType dtype, std::optional<Pointwise> activation) {
  constexpr auto kAll = std::make_index_sequence<std::size(kActivations)>();
  return dtype == DType::kFloat32 ? store_of<float>(activation, kAll) : store_of<BFloat16>(activation, kAll);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(GetQStore);

QStoreFn qstore(DType dtype, std::optional<Pointwise> activation) {
  DS_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16, "qgemm: results are float32 or bfloat16, got ",
           dtype);
  const QStoreFn store = HWY_DYNAMIC_DISPATCH(GetQStore)(dtype, activation);
  DS_CHECK(store, "qgemm: pointwise op ", static_cast<int>(*activation), " is no activation");
  return store;
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
