#include "kernels/softmax.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/row_ops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::HWY_NAMESPACE {

// y = exp(x - shift), summed by the reduction tree while each chunk is still in the first-level cache.
template <class C>
C StoreShiftedExp(const C* x, C shift, C* y, int64_t n) {
  const Tag<C> d;
  const auto s = hn::Set(d, shift);
  return ReduceChunks<SumOp, C>(n, [&](int64_t first, int64_t count) HWY_ATTR {
    ForVectors<C>(count, [&](auto part, int64_t i)
                             HWY_ATTR { part.store(VExp(d, hn::Sub(part.load(x + first + i), s)), y + first + i); });
    return ReduceChunk(SumOp(), y + first, count, C(0));
  });
}

template <class C>
void SoftmaxLine(const C* x, C* y, int64_t n) {
  const Tag<C> d;
  const C sum = StoreShiftedExp(x, ReduceContiguous(MaxOp(), x, n), y, n);
  const auto scale = hn::Set(d, C(1) / sum);
  ForVectors<C>(n, [&](auto part, int64_t i) HWY_ATTR { part.store(hn::Mul(part.load(y + i), scale), y + i); });
}

template <class C>
void LogSoftmaxLine(const C* x, C* y, int64_t n) {
  const Tag<C> d;
  const C shift = ReduceContiguous(MaxOp(), x, n);
  const C log_sum = std::log(ReduceContiguous(WithSum<ShiftedExpMap>(), x, n, shift));
  const auto s = hn::Set(d, shift), l = hn::Set(d, log_sum);
  ForVectors<C>(n, [&](auto part, int64_t i) HWY_ATTR { part.store(hn::Sub(hn::Sub(part.load(x + i), s), l), y + i); });
}

template <class C>
void SoftmaxGradLine(const C* g, const C* y, C* dx, int64_t n) {
  const Tag<C> d;
  const C dot =
      SumLoaded<C>(n, [&](auto part, int64_t i) HWY_ATTR { return hn::Mul(part.load(g + i), part.load(y + i)); });
  const auto s = hn::Set(d, dot);
  ForVectors<C>(n, [&](auto part, int64_t i)
                       HWY_ATTR { part.store(hn::Mul(part.load(y + i), hn::Sub(part.load(g + i), s)), dx + i); });
}

template <class C>
void LogSoftmaxGradLine(const C* g, const C* y, C* dx, int64_t n) {
  const Tag<C> d;
  const auto s = hn::Set(d, ReduceContiguous(SumOp(), g, n));
  ForVectors<C>(n, [&](auto part, int64_t i)
                       HWY_ATTR { part.store(hn::NegMulAdd(VExp(d, part.load(y + i)), s, part.load(g + i)), dx + i); });
}

// Lines are never empty below this point.
template <class C>
void ForwardAs(const View& out, const View& in, int dim, bool log) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  if (n == 0) return;
  kernels::for_each_line<C, 1, 1, 0>({in}, {out}, {}, dim, [&](const auto& x, const auto& y, const auto&) {
    log ? LogSoftmaxLine(x[0], y[0], n) : SoftmaxLine(x[0], y[0], n);
  });
}

template <class C>
void BackwardAs(const View& grad_in, const View& grad, const View& y, int dim, bool log) {
  const int64_t n = y.ndim() == 0 ? 1 : y.sizes[dim];
  if (n == 0) return;
  kernels::for_each_line<C, 2, 1, 0>({grad, y}, {grad_in}, {}, dim, [&](const auto& in, const auto& out, const auto&) {
    log ? LogSoftmaxGradLine(in[0], in[1], out[0], n) : SoftmaxGradLine(in[0], in[1], out[0], n);
  });
}

void Softmax(const View& out, const View& in, int dim, bool log) {
  out.dtype == DType::kFloat64 ? ForwardAs<double>(out, in, dim, log) : ForwardAs<float>(out, in, dim, log);
}

void SoftmaxBackward(const View& grad_in, const View& grad, const View& y, int dim, bool log) {
  const bool f64 = grad_in.dtype == DType::kFloat64;
  f64 ? BackwardAs<double>(grad_in, grad, y, dim, log) : BackwardAs<float>(grad_in, grad, y, dim, log);
}

}  // namespace deepseek::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek {
HWY_EXPORT(Softmax);
HWY_EXPORT(SoftmaxBackward);

namespace kernels {
void softmax(const View& out, const View& in, int dim) { HWY_DYNAMIC_DISPATCH(Softmax)(out, in, dim, false); }
void log_softmax(const View& out, const View& in, int dim) { HWY_DYNAMIC_DISPATCH(Softmax)(out, in, dim, true); }
void softmax_backward(const View& grad_in, const View& grad, const View& y, int dim) {
  HWY_DYNAMIC_DISPATCH(SoftmaxBackward)(grad_in, grad, y, dim, false);
}
void log_softmax_backward(const View& grad_in, const View& grad, const View& y, int dim) {
  HWY_DYNAMIC_DISPATCH(SoftmaxBackward)(grad_in, grad, y, dim, true);
}
}  // namespace kernels
}  // namespace deepseek
#endif
