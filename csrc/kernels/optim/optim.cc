#include "kernels/optim/optim.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "kernels/simd/routes.h"
#include "runtime/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/optim.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls f(i, count) for whole vectors, then once for the rest with count < N.
template <class D, class F>
HWY_INLINE void vectors(D d, int64_t n, F&& f) {
  const int64_t lanes = hn::Lanes(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) f(i, lanes);
  if (i < n) f(i, n - i);
}

// Loads and stores that stop after `count` elements: the rest of a tensor goes through a padded copy.
template <class D, class S>
HWY_INLINE hn::Vec<D> load_part(D d, const S* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return load_as(d, p);
  S padded[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  for (int64_t j = 0; j < count; ++j) padded[j] = p[j];
  return load_as(d, padded);
}
template <class D, class S>
HWY_INLINE void store_part(D d, hn::Vec<D> v, S* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return store_as(d, v, p);
  S padded[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)];
  store_as(d, v, padded);
  for (int64_t j = 0; j < count; ++j) p[j] = padded[j];
}

// Elements [begin, end) of one tensor.
template <class P, class S, bool kMaster = false>
void adam_range(const AdamTensors& t, const AdamArgs& a, int64_t begin, int64_t end) {
  using C = ComputeType<P>;
  const hn::ScalableTag<C> d;
  const auto set = [&](double x) { return hn::Set(d, static_cast<C>(x)); };
  const double correction1 = 1 - std::pow(a.beta1, static_cast<double>(t.step));
  const double correction2 = std::sqrt(1 - std::pow(a.beta2, static_cast<double>(t.step)));
  const auto shrink = set(1 - a.lr * a.weight_decay), decay = set(a.weight_decay),
             sign = set(a.maximize ? -a.grad_scale : a.grad_scale);
  const auto rest1 = set(1 - a.beta1), beta2 = set(a.beta2), rest2 = set(1 - a.beta2);
  const auto step = set(-a.lr / correction1), root = set(correction2), eps = set(a.eps);
  P* const param = static_cast<P*>(t.param) + begin;
  const P* const grad = static_cast<const P*>(t.grad) + begin;
  S* const first = static_cast<S*>(t.exp_avg) + begin;
  S* const second = static_cast<S*>(t.exp_avg_sq) + begin;
  S* const largest = a.amsgrad ? static_cast<S*>(t.max_exp_avg_sq) + begin : nullptr;
  float* const master = kMaster ? t.master + begin : nullptr;
  vectors(d, end - begin, [&](int64_t i, int64_t n) HWY_ATTR {
    hn::Vec<decltype(d)> p;
    if constexpr (kMaster)
      p = load_part(d, master + i, n);
    else
      p = load_part(d, param + i, n);
    auto g = hn::Mul(load_part(d, grad + i, n), sign);
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
    p = hn::MulAdd(step, hn::Div(m, denominator), p);
    if constexpr (kMaster) store_part(d, p, master + i, n);
    store_part(d, p, param + i, n);
  });
}

template <class P, class S = P, bool kMaster = false>
void sgd_range(const SgdTensors& t, const SgdArgs& a, int64_t begin, int64_t end) {
  using C = ComputeType<P>;
  const hn::ScalableTag<C> d;
  const auto set = [&](double x) { return hn::Set(d, static_cast<C>(x)); };
  const auto lr = set(-a.lr), momentum = set(a.momentum), rest = set(1 - a.dampening), decay = set(a.weight_decay);
  const auto sign = set(a.maximize ? -a.grad_scale : a.grad_scale);
  P* const param = static_cast<P*>(t.param) + begin;
  const P* const grad = static_cast<const P*>(t.grad) + begin;
  S* const buffer = a.momentum != 0 ? static_cast<S*>(t.momentum) + begin : nullptr;
  float* const master = kMaster ? t.master + begin : nullptr;
  vectors(d, end - begin, [&](int64_t i, int64_t n) HWY_ATTR {
    hn::Vec<decltype(d)> p;
    if constexpr (kMaster)
      p = load_part(d, master + i, n);
    else
      p = load_part(d, param + i, n);
    auto g = hn::Mul(load_part(d, grad + i, n), sign);
    if (a.weight_decay != 0) g = hn::MulAdd(decay, p, g);
    if (buffer) {
      const auto m = t.first ? g : hn::MulAdd(momentum, load_part(d, buffer + i, n), hn::Mul(rest, g));
      store_part(d, m, buffer + i, n);
      g = a.nesterov ? hn::MulAdd(momentum, m, g) : m;
    }
    p = hn::MulAdd(lr, g, p);
    if constexpr (kMaster) store_part(d, p, master + i, n);
    store_part(d, p, param + i, n);
  });
}

void AdamRange(const AdamTensors& t, const AdamArgs& a, DType dtype, DType state, int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(Adam);
  dispatch_float("Adam", dtype, [&]<class P>() {
    if constexpr (is_small_float<P>) {  // by what it is stepped on and by its state's dtype
      if (t.master) return adam_range<P, float, true>(t, a, begin, end);
      dtype == state ? adam_range<P, P>(t, a, begin, end) : adam_range<P, float>(t, a, begin, end);
    } else {
      adam_range<P, P>(t, a, begin, end);
    }
  });
}

void SgdRange(const SgdTensors& t, const SgdArgs& a, DType dtype, int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(Sgd);
  dispatch_float("SGD", dtype, [&]<class P>() {
    if constexpr (is_small_float<P>)
      if (t.master) return sgd_range<P, float, true>(t, a, begin, end);
    sgd_range<P>(t, a, begin, end);
  });
}

template <class P>
NonFinite unscale_range(P* p, double factor, int64_t n) {
  using C = ComputeType<P>;
  const hn::ScalableTag<C> d;
  const auto f = hn::Set(d, static_cast<C>(factor));
  const bool writes = factor != 1;
  NonFinite found;
  vectors(d, n, [&](int64_t i, int64_t count) HWY_ATTR {
    const auto v = load_part(d, p + i, count);
    if (!hn::AllTrue(d, hn::IsFinite(v))) {  // rarely; the lanes behind the end are zeros
      const auto nan = hn::IsNaN(v);
      found.nan += static_cast<int64_t>(hn::CountTrue(d, nan));
      found.infinite += static_cast<int64_t>(hn::CountTrue(d, hn::AndNot(nan, hn::Not(hn::IsFinite(v)))));
    }
    if (writes) store_part(d, hn::Mul(v, f), p + i, count);
  });
  return found;
}

NonFinite UnscaleRange(const TensorRef& t, double factor, int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(Unscale);
  return dispatch_float("unscale", t.dtype,
                        [&]<class P>() { return unscale_range(static_cast<P*>(t.data) + begin, factor, end - begin); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(AdamRange);
HWY_EXPORT(SgdRange);
HWY_EXPORT(UnscaleRange);

namespace {

void check_dtype(const char* op, DType t, const char* what = "parameters") {
  DS_CHECK_AS(TypeError, is_floating(t) && !is_float8(t), op, ": ", what,
              " must be float32, float64, bfloat16 or float16, got ", t);
}

// f(tensor index, begin, end) over the concatenation of all tensors.
template <class Tensors, class F>
void over_concatenation(const Tensors& tensors, int64_t bytes_per_element, F&& f) {
  std::vector<int64_t> starts(tensors.size() + 1, 0);
  for (size_t i = 0; i < tensors.size(); ++i) starts[i + 1] = starts[i] + tensors[i].numel;
  parallel_for(starts.back(), grain_for(bytes_per_element), [&](int64_t begin, int64_t end) {
    size_t i = std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin() - 1;
    for (; begin < end; ++i) {
      const int64_t stop = std::min(end, starts[i + 1]);
      if (stop > begin) f(i, begin - starts[i], stop - starts[i]);
      begin = stop;
    }
  });
}

constexpr int64_t kSquaresChunk = 8192;

// 16 interleaved sums, then a tree: the same for every caller.
template <class T>
double squares_of_chunk(const T* p, int64_t n) {
  double sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
#pragma omp simd
    for (int64_t j = 0; j < 16; ++j) {
      const double x = static_cast<double>(static_cast<ComputeType<T>>(p[i + j]));
      sums[j] += x * x;
    }
  }
  for (int64_t j = 0; i + j < n; ++j) {
    const double x = static_cast<double>(static_cast<ComputeType<T>>(p[i + j]));
    sums[j] += x * x;
  }
  for (int width = 8; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) sums[j] += sums[j + width];
  return sums[0];
}

}  // namespace

void adam_step(std::span<const AdamTensors> tensors, DType dtype, DType state_dtype, const AdamArgs& args) {
  check_dtype("adam_step", dtype);
  DS_CHECK_AS(TypeError, state_dtype == dtype || (is_reduced_float(dtype) && state_dtype == DType::kFloat32),
              "adam_step: state of ", state_dtype, " for parameters of ", dtype,
              "; it must be the same, or float32 beside 16-bit ones");
  for (const AdamTensors& t : tensors)
    DS_CHECK_AS(TypeError, !t.master || (is_reduced_float(dtype) && state_dtype == DType::kFloat32),
                "adam_step: a float32 master belongs to bfloat16 or float16 parameters with float32 state, got ", dtype,
                " with ", state_dtype, " state");
  over_concatenation(tensors, 3 * size_of(dtype) + 4 * size_of(state_dtype), [&](size_t i, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AdamRange)(tensors[i], args, dtype, state_dtype, begin, end);
  });
}

void sgd_step(std::span<const SgdTensors> tensors, DType dtype, const SgdArgs& args) {
  check_dtype("sgd_step", dtype);
  for (const SgdTensors& t : tensors)
    DS_CHECK_AS(TypeError, !t.master || is_reduced_float(dtype),
                "sgd_step: a float32 master belongs to bfloat16 or float16 parameters, got ", dtype);
  over_concatenation(tensors, 5 * size_of(dtype), [&](size_t i, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SgdRange)(tensors[i], args, dtype, begin, end);
  });
}

NonFinite unscale(std::span<const TensorRef> tensors, double factor) {
  for (const TensorRef& t : tensors) check_dtype("unscale", t.dtype, "gradients");
  std::atomic<int64_t> infinite = 0, nan = 0;
  over_concatenation(tensors, 8, [&](size_t i, int64_t begin, int64_t end) {
    const NonFinite found = HWY_DYNAMIC_DISPATCH(UnscaleRange)(tensors[i], factor, begin, end);
    if (found.infinite > 0) infinite.fetch_add(found.infinite, std::memory_order_relaxed);
    if (found.nan > 0) nan.fetch_add(found.nan, std::memory_order_relaxed);
  });
  return {infinite, nan};
}

void sum_squares(std::span<const TensorRef> tensors, double* out) {
  std::vector<int64_t> first(tensors.size() + 1, 0);  // chunks before tensor i
  for (size_t i = 0; i < tensors.size(); ++i)
    first[i + 1] = first[i] + (tensors[i].numel + kSquaresChunk - 1) / kSquaresChunk;
  std::vector<double> partial(first.back());
  parallel_for(first.back(), 2, [&](int64_t begin, int64_t end) {
    size_t i = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
    for (int64_t c = begin; c < end; ++c) {
      while (c >= first[i + 1]) ++i;
      const int64_t at = (c - first[i]) * kSquaresChunk, n = std::min(kSquaresChunk, tensors[i].numel - at);
      partial[c] = dispatch(tensors[i].dtype, [&]<class T>() {
        return squares_of_chunk(static_cast<const T*>(tensors[i].data) + at, n);
      });
    }
  });
  for (size_t i = 0; i < tensors.size(); ++i) {
    out[i] = 0;
    for (int64_t c = first[i]; c < first[i + 1]; ++c) out[i] += partial[c];
  }
}

void scale_all(std::span<const TensorRef> tensors, double factor) {
  over_concatenation(tensors, 8, [&](size_t i, int64_t begin, int64_t end) {
    dispatch(tensors[i].dtype, [&]<class T>() {
      if constexpr (is_floating(dtype_of<T>)) {
        using C = ComputeType<T>;
        T* const p = static_cast<T*>(tensors[i].data);
        const C f = static_cast<C>(factor);
        for (int64_t j = begin; j < end; ++j) p[j] = T(static_cast<C>(p[j]) * f);
      } else {
        fail<TypeError>("scale_all: gradients are floating, got ", tensors[i].dtype);
      }
    });
  });
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
