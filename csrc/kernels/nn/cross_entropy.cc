#include "kernels/nn/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/simd/routes.h"
#include "runtime/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/nn/cross_entropy.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/float_io-inl.h"
#include "kernels/simd/vecmath-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A vector of the row; past its end lanes hold `fill`.
template <class D, class S>
HWY_INLINE hn::Vec<D> load_or(D d, const S* p, int64_t count, hn::TFromD<D> fill) {
  const int64_t lanes = hn::Lanes(d);
  if (count >= lanes) return load_as(d, p);
  hn::TFromD<D> padded[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)];
  for (int64_t j = 0; j < lanes; ++j) padded[j] = j < count ? static_cast<hn::TFromD<D>>(p[j]) : fill;
  return hn::LoadU(d, padded);
}

// The largest number of a row, and the logarithm of the sum of exp(x - top). Beside a large top their sum says nothing
// of the latter.
template <class C>
struct RowSum {
  C top, log;
  C lse() const { return top + log; }
};

template <class S>
RowSum<ComputeType<S>> row_sum(const S* row, int64_t n) {
  using C = ComputeType<S>;
  const hn::ScalableTag<C> d;
  const int64_t lanes = hn::Lanes(d);
  constexpr C kLowest = -std::numeric_limits<C>::infinity();
  auto top = hn::Set(d, kLowest);
  for (int64_t i = 0; i < n; i += lanes) top = hn::Max(top, load_or(d, row + i, n - i, kLowest));
  const C largest = hn::GetLane(hn::MaxOfLanes(d, top));
  const auto shift = hn::Set(d, largest);
  auto sum = hn::Zero(d);  // a NaN that Max dropped comes back here
  for (int64_t i = 0; i < n; i += lanes)
    sum = hn::Add(sum, VExp(d, hn::Sub(load_or(d, row + i, n - i, kLowest), shift)));
  return {largest, std::log(hn::GetLane(hn::SumOfLanes(d, sum)))};
}

// What exp(x - top - log) gives the share of x with, from its saved sum, or anew where that lost its last digits.
template <class S>
RowSum<ComputeType<S>> row_sum(const S* row, int64_t n, ComputeType<S> lse) {
  using C = ComputeType<S>;
  const bool exact = !(std::abs(lse) * std::numeric_limits<C>::epsilon() > C(1e-4));
  return exact ? RowSum<C>{lse, C(0)} : row_sum(row, n);
}

// The weights of all classes: sum_c weight[c]; weight may be null (ones).
template <class C>
C total_weight(int64_t n, const C* weight) {
  C total = weight ? C(0) : static_cast<C>(n);
  for (int64_t c = 0; weight && c < n; ++c) total += weight[c];
  return total;
}

// sum_c weight[c] * (lse - x[c]); weight may be null (ones).
template <class S>
ComputeType<S> smooth_loss(const S* row, int64_t n, const RowSum<ComputeType<S>>& of, const ComputeType<S>* weight) {
  using C = ComputeType<S>;
  const hn::ScalableTag<C> d;
  const int64_t lanes = hn::Lanes(d);
  const auto top = hn::Set(d, of.top);
  auto sum = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes) {
    const auto gap = hn::Sub(top, load_or(d, row + i, n - i, of.top));
    sum = weight ? hn::MulAdd(gap, load_or(d, weight + i, n - i, C(0)), sum) : hn::Add(sum, gap);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum)) + of.log * total_weight(n, weight);
}

template <class S>
void forward_rows(const View& logits, const int64_t* target, const CrossEntropyArgs& a, void* loss_out, void* lse_out,
                  int64_t begin, int64_t end) {
  using C = ComputeType<S>;
  const int64_t n = logits.sizes[1];
  const C* weight = static_cast<const C*>(a.weight);
  const C smoothing = static_cast<C>(a.label_smoothing);
  for (int64_t r = begin; r < end; ++r) {
    C& loss = static_cast<C*>(loss_out)[r];
    C& lse = static_cast<C*>(lse_out)[r];
    const S* row = logits.as<S>() + r * logits.strides[0];
    const RowSum<C> sum = row_sum(row, n);
    lse = sum.lse();
    const int64_t t = target[r];
    if (t == a.ignore_index) {
      loss = C(0);
      continue;
    }
    loss = (weight ? weight[t] : C(1)) * (sum.top - static_cast<C>(row[t]) + sum.log);
    if (a.label_smoothing > 0)
      loss = (C(1) - smoothing) * loss + smoothing / static_cast<C>(n) * smooth_loss(row, n, sum, weight);
  }
}

template <class S>
void backward_rows(const View& out, const View& logits, const int64_t* target, const CrossEntropyArgs& a,
                   const void* lse, const void* grad, int64_t grad_stride, int64_t begin, int64_t end) {
  using C = ComputeType<S>;
  const hn::ScalableTag<C> d;
  const int64_t n = logits.sizes[1], lanes = hn::Lanes(d);
  const C* weight = static_cast<const C*>(a.weight);
  const C smoothing = static_cast<C>(a.label_smoothing), spread = smoothing / static_cast<C>(n);
  const C total = a.label_smoothing > 0 ? total_weight(n, weight) : C(0);
  for (int64_t r = begin; r < end; ++r) {
    S* to = out.as<S>() + r * out.strides[0];
    const int64_t t = target[r];
    if (t == a.ignore_index) {
      std::fill(to, to + n, S(C(0)));
      continue;
    }
    // d/dx_c = g * ((keep + spread * total) * p_c - keep * [c == t] - spread * weight_c)
    const C g = static_cast<const C*>(grad)[r * grad_stride], w = weight ? weight[t] : C(1);
    const C keep = (C(1) - smoothing) * w;
    const C at_p = g * (keep + spread * total), off = g * spread;
    const S* row = logits.as<S>() + r * logits.strides[0];
    const RowSum<C> sum = row_sum(row, n, static_cast<const C*>(lse)[r]);
    const auto top = hn::Set(d, sum.top), log = hn::Set(d, sum.log), factor = hn::Set(d, at_p),
               minus = hn::Set(d, -off);
    for (int64_t i = 0; i < n; i += lanes) {
      auto v = hn::Mul(factor, VExp(d, hn::Sub(hn::Sub(load_or(d, row + i, n - i, C(0)), top), log)));
      if (a.label_smoothing > 0)
        v = weight ? hn::MulAdd(minus, load_or(d, weight + i, n - i, C(0)), v) : hn::Add(v, minus);
      // The target's lane is finished before rounding.
      if (t >= i && t < i + lanes)
        v = hn::Sub(v, hn::IfThenElse(hn::Eq(hn::Iota(d, C(0)), hn::Set(d, static_cast<C>(t - i))),
                                      hn::Set(d, g * keep), hn::Zero(d)));
      if (i + lanes <= n) {
        store_as(d, v, to + i);
      } else {
        S padded[HWY_MAX_BYTES / sizeof(C)];
        store_as(d, v, padded);
        std::copy(padded, padded + (n - i), to + i);
      }
    }
  }
}

void ForwardRows(const View& logits, const int64_t* target, const CrossEntropyArgs& a, void* loss, void* lse,
                 int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(CrossEntropy);
  dispatch_float("cross_entropy", logits.dtype,
                 [&]<class S>() { forward_rows<S>(logits, target, a, loss, lse, begin, end); });
}

void BackwardRows(const View& out, const View& logits, const int64_t* target, const CrossEntropyArgs& a,
                  const void* lse, const void* grad, int64_t grad_stride, int64_t begin, int64_t end) {
  DS_COUNT_ROUTE(CrossEntropyBackward);
  dispatch_float("cross_entropy", logits.dtype,
                 [&]<class S>() { backward_rows<S>(out, logits, target, a, lse, grad, grad_stride, begin, end); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(ForwardRows);
HWY_EXPORT(BackwardRows);

namespace {

void check_logits(const View& logits) {
  DS_CHECK_AS(TypeError, is_floating(logits.dtype) && !is_float8(logits.dtype), "cross_entropy: logits of ",
              logits.dtype);
  DS_CHECK(logits.ndim() == 2 && (logits.sizes[0] == 0 || logits.sizes[1] <= 1 || logits.strides[1] == 1),
           "cross_entropy kernel: logits rows not contiguous");
}

constexpr int64_t kExpCost = 8;  // an exp costs about as much as touching this many bytes

}  // namespace

void check_targets(const View& target, int64_t classes, int64_t ignore_index) {
  const int64_t* t = target.as<int64_t>();
  for (int64_t i = 0, n = target.numel(); i < n; ++i)
    DS_CHECK_AS(IndexError, t[i] == ignore_index || (t[i] >= 0 && t[i] < classes), "Target ", t[i],
                " is out of bounds.");
}

void cross_entropy_forward(const View& logits, const View& target, const CrossEntropyArgs& args, void* loss,
                           void* lse) {
  check_logits(logits);
  parallel_for(logits.sizes[0], grain_for(logits.sizes[1] * kExpCost), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ForwardRows)(logits, target.as<int64_t>(), args, loss, lse, begin, end);
  });
}

void cross_entropy_backward(const View& grad_logits, const View& logits, const View& target,
                            const CrossEntropyArgs& args, const void* lse, const void* grad, int64_t grad_stride) {
  check_logits(logits);
  check_logits(grad_logits);
  parallel_for(logits.sizes[0], grain_for(logits.sizes[1] * kExpCost), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(BackwardRows)
    (grad_logits, logits, target.as<int64_t>(), args, lse, grad, grad_stride, begin, end);
  });
}

double cross_entropy_total_weight(const View& target, const CrossEntropyArgs& args, DType logits_dtype) {
  double total = 0;
  const int64_t* t = target.as<int64_t>();
  for (int64_t i = 0, n = target.numel(); i < n; ++i) {
    if (t[i] == args.ignore_index) continue;
    if (!args.weight)
      total += 1;
    else if (logits_dtype == DType::kFloat64)
      total += static_cast<const double*>(args.weight)[t[i]];
    else
      total += static_cast<const float*>(args.weight)[t[i]];
  }
  return total;
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
