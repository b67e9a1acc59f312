// The loops of the family of rows DS_FAMILY, for one Highway target.

#if defined(DEEPSEEK_KERNELS_POINTWISE_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_POINTWISE_LANES_INL_H_
#undef DEEPSEEK_KERNELS_POINTWISE_LANES_INL_H_
#else
#define DEEPSEEK_KERNELS_POINTWISE_LANES_INL_H_
#endif

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/pointwise/lanes.h"
#include "kernels/pointwise/row_lanes-inl.h"
#include "kernels/simd/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// --- loops

// The row's expression of the vectors load(0), load(1) ...
template <template <class, class> class Row, class D, class Load>
HWY_INLINE hn::Vec<D> Evaluate(D d, const Load& load) {
  using V = hn::Vec<D>;
  if constexpr (Row<V, D>::kArity == 1) return Row<V, D>{{}, load(0), d}.Float();
  if constexpr (Row<V, D>::kArity == 2) return Row<V, D>{{}, load(0), load(1), d}.Float();
  if constexpr (Row<V, D>::kArity == 3) return Row<V, D>{{}, load(0), load(1), load(2), d}.Float();
}

template <template <class, class> class Row, class T>
void RunFloat(void* out_raw, const void* const* in_raw, size_t n) {
  const hn::ScalableTag<T> d;
  constexpr size_t kLanes = hn::MaxLanes(d), kArity = Row<hn::Vec<decltype(d)>, decltype(d)>::kArity;
  T* out = static_cast<T*>(out_raw);
  const T* in[kArity];
  for (size_t k = 0; k < kArity; ++k) in[k] = static_cast<const T*>(in_raw[k]);
  const auto mask = hn::FirstN(d, n % kLanes);
  // The expression stands once, for whole vectors and for the rest: it is most of what there is to compile.
  for (size_t i = 0; i < n; i += kLanes) {
    const bool whole = n - i >= kLanes;
    const auto result = Evaluate<Row>(
        d, [&](int k) HWY_ATTR { return whole ? hn::LoadU(d, in[k] + i) : hn::MaskedLoad(mask, d, in[k] + i); });
    if (HWY_LIKELY(whole))
      hn::StoreU(result, d, out + i);
    else
      hn::BlendedStore(result, mask, d, out + i);
  }
}

template <template <class, class> class Row, class S>
void RunSmall(void* out_raw, const void* const* in, unsigned wide, size_t n) {
  const hn::ScalableTag<float> d;
  using Lanes = Row<hn::Vec<decltype(d)>, decltype(d)>;
  constexpr size_t kLanes = hn::MaxLanes(d), kPair = 2 * kLanes;
  S* out = static_cast<S*>(out_raw);
  const auto vector = [&](size_t i) HWY_ATTR {
    return Evaluate<Row>(d, [&](int k) HWY_ATTR {
      return wide >> k & 1 ? hn::LoadU(d, static_cast<const float*>(in[k]) + i)
                           : load_as(d, static_cast<const S*>(in[k]) + i);
    });
  };
  size_t i = 0;
  for (; i + kPair <= n; i += kPair) {
    const auto first = vector(i), second = vector(i + kLanes);
    if constexpr (Lanes::kExact && std::is_same_v<S, BFloat16>)
      if (wide == 0) {
        store_upper_pair(d, first, second, out + i);
        continue;
      }
    store_pair_as(d, first, second, out + i);
  }
  if (i == n) return;
  alignas(64) char padded[Lanes::kArity][kPair * sizeof(float)] = {};
  const void* rest[Lanes::kArity];
  for (size_t k = 0; k < Lanes::kArity; ++k) {
    const size_t item = wide >> k & 1 ? sizeof(float) : sizeof(S);
    std::memcpy(padded[k], static_cast<const char*>(in[k]) + i * item, (n - i) * item);
    rest[k] = padded[k];
  }
  S result[kPair];
  RunSmall<Row, S>(result, rest, wide, kPair);
  std::copy_n(result, n - i, out + i);
}

template <template <class, class> class Row, class T>
void RunInt(void* out_raw, const void* const* in_raw, size_t n) {
  using Lanes = Row<T, NoTag>;
  T* out = static_cast<T*>(out_raw);
  const auto in = [&](size_t k) { return static_cast<const T*>(in_raw[k]); };
  const T *a = in(0), *b = Lanes::kArity > 1 ? in(1) : nullptr, *c = Lanes::kArity > 2 ? in(2) : nullptr;
  for (size_t i = 0; i < n; ++i) {
    if constexpr (Lanes::kArity == 1) out[i] = Lanes{{}, a[i], {}}.Int();
    if constexpr (Lanes::kArity == 2) out[i] = Lanes{{}, a[i], b[i], {}}.Int();
    if constexpr (Lanes::kArity == 3) out[i] = Lanes{{}, a[i], b[i], c[i], {}}.Int();
  }
}

// --- the table

template <template <class, class> class Row>
LaneFns MakeLaneFns() {
  using Floats = Row<hn::Vec<hn::ScalableTag<float>>, hn::ScalableTag<float>>;
  using Ints = Row<int32_t, NoTag>;
  LaneFns fns;
  const auto of = [&](DType lane) -> LaneFn& { return fns.fn[static_cast<size_t>(lane)]; };
  fns.arity = Ints::kArity;
  fns.target = route_target(HWY_TARGET);
  fns.truth = Ints::IsTruth(Ints::kHasBools);
  if constexpr (requires(Floats lanes) { lanes.Float(); }) {
    of(DType::kFloat32) = RunFloat<Row, float>;
    of(DType::kFloat64) = RunFloat<Row, double>;
    fns.bfloat16 = RunSmall<Row, BFloat16>;
    fns.half = RunSmall<Row, Half>;
  }
  if constexpr (requires(Ints lanes) { lanes.Int(); }) {
    of(DType::kInt32) = RunInt<Row, int32_t>;
    of(DType::kInt64) = RunInt<Row, int64_t>;
    of(DType::kInt16) = RunInt<Row, int16_t>;
    of(DType::kInt8) = RunInt<Row, int8_t>;
    of(DType::kUInt8) = RunInt<Row, uint8_t>;
  }
  return fns;
}

static void FillLanes(LaneFns* table) {
#define DS_POINTWISE(S, ...) table[static_cast<size_t>(Pointwise::k##S)] = MakeLaneFns<S##Lanes>();
#define DS_POINTWISE_SCALED DS_POINTWISE
#include DS_FAMILY
#undef DS_POINTWISE
#undef DS_POINTWISE_SCALED
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
