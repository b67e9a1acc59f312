#include "kernels/nn/softmax.h"

#include <cmath>

#include "kernels/simd/routes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/nn/softmax.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/reduce/row_ops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// y = exp(x - shift), summed by the reduction tree while each chunk is still in the first-level cache.
template <class C, class S>
C StoreShiftedExp(const S* x, C shift, C* y, int64_t n) {
  const Tag<C> d;
  const auto s = hn::Set(d, shift);
  return ReduceChunks<SumOp, C>(n, [&](int64_t first, int64_t count) HWY_ATTR {
    ForVectors<C>(count, [&](auto part, int64_t i)
                             HWY_ATTR { part.store(VExp(d, hn::Sub(part.load(x + first + i), s)), y + first + i); });
    return ReduceChunk(SumOp(), y + first, count, C(0));
  });
}

// A line of one vector, in registers; the bits are those of the tree.
template <class C>
void SoftmaxVector(const C* x, C* y, int64_t n) {
  const Tag<C> d;
  const PartVector<C> part(n);
  const auto v = part.load(x);
  const C top = FoldVector(MaxOp(), d, hn::IfThenElse(part.mask, v, hn::Set(d, MaxOp::identity<C>())));
  const auto e = VExp(d, hn::Sub(v, hn::Set(d, top)));
  const C sum = FoldVector(SumOp(), d, hn::IfThenElse(part.mask, e, hn::Set(d, SumOp::identity<C>())));
  part.store(hn::Mul(e, hn::Set(d, C(1) / sum)), y);
}

// Lines are of S, which is C, or a 16-bit float where C is float. `exps` has room for a line of C; it may be y.
template <class C, class S>
void SoftmaxLine(const S* x, S* y, int64_t n, C* exps) {
  if constexpr (std::is_same_v<S, C>)
    if (n <= kVector<C>) return SoftmaxVector(x, y, n);
  const Tag<C> d;
  const C sum = StoreShiftedExp(x, ReduceContiguous<C>(MaxOp(), x, n), exps, n);
  const auto scale = hn::Set(d, C(1) / sum);
  ForVectors<C>(n, [&](auto part, int64_t i) HWY_ATTR { part.store(hn::Mul(part.load(exps + i), scale), y + i); });
}

template <class C, class S>
void LogSoftmaxLine(const S* x, S* y, int64_t n) {
  const Tag<C> d;
  const C shift = ReduceContiguous<C>(MaxOp(), x, n);
  const C log_sum = std::log(ReduceContiguous<C>(WithSum<ShiftedExpMap>(), x, n, shift));
  const auto s = hn::Set(d, shift), l = hn::Set(d, log_sum);
  ForVectors<C>(n, [&](auto part, int64_t i) HWY_ATTR { part.store(hn::Sub(hn::Sub(part.load(x + i), s), l), y + i); });
}

template <class C, class S>
void SoftmaxGradLine(const S* g, const S* y, S* dx, int64_t n) {
  const Tag<C> d;
  const C dot =
      SumLoaded<C>(n, [&](auto part, int64_t i) HWY_ATTR { return hn::Mul(part.load(g + i), part.load(y + i)); });
  const auto s = hn::Set(d, dot);
  ForVectors<C>(n, [&](auto part, int64_t i)
                       HWY_ATTR { part.store(hn::Mul(part.load(y + i), hn::Sub(part.load(g + i), s)), dx + i); });
}

template <class C, class S>
void LogSoftmaxGradLine(const S* g, const S* y, S* dx, int64_t n) {
  const Tag<C> d;
  const auto s = hn::Set(d, ReduceContiguous<C>(SumOp(), g, n));
  ForVectors<C>(n, [&](auto part, int64_t i)
                       HWY_ATTR { part.store(hn::NegMulAdd(VExp(d, part.load(y + i)), s, part.load(g + i)), dx + i); });
}

// ---- lines across memory: neighbouring columns side by side in the vectors ----

// A value for each column of a tile.
template <class C>
struct ColumnValues {
  alignas(64) C v[kTile<C>];
};

// sums[c] = sum over rows of term(part, row, c), by the tree that sums a line: a column has the bits of
// the same line, so the number of columns may decide how it is read.
template <class C, class Term>
void SumColumns(int64_t n, int64_t width, C* sums, const Term& term) {
  const Tag<C> d;
  const int64_t chunks = (n + kChunk<C> - 1) / kChunk<C>;
  Scratch<C> lanes(std::min(n, kLanes<C>) * kTile<C>), partials(chunks > 1 ? chunks * width : 0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t first = chunk * kChunk<C>, rows = std::min(kChunk<C>, n - first);
    for (int64_t r = 0; r < rows; ++r) {
      C* const lane = lanes.data() + r % kLanes<C> * kTile<C>;
      ForVectors<C>(width, [&](auto part, int64_t c) HWY_ATTR {
        const auto x = term(part, first + r, c);
        hn::Store(r < kLanes<C> ? x : hn::Add(hn::Load(d, lane + c), x), d, lane + c);  // lanes are padded
      });
    }
    FoldRows(SumOp(), std::min(rows, kLanes<C>), width, lanes.data());
    std::copy_n(lanes.data(), width, chunks > 1 ? partials.data() + chunk * width : sums);
  }
  if (chunks == 1) return;
  for (int64_t c = 0; c < width; ++c) MergePartials<SumOp>(partials.data() + c, chunks, width);
  std::copy_n(partials.data(), width, sums);
}

constexpr int64_t kMostExponentials = 1 << 20;  // of a tile of columns

template <class C, class S>
void SoftmaxColumns(const S* x, S* y, int64_t n, int64_t stride, int64_t width, bool log) {
  constexpr bool kConverts = !std::is_same_v<S, C>;
  const Tag<C> d;
  ColumnValues<C> top, sum;
  for (int64_t r = 0; r < n; ++r)
    ForVectors<C>(width, [&](auto part, int64_t c) HWY_ATTR {
      const auto v = part.load(x + r * stride + c);
      part.store(r == 0 ? v : MaxOp().Combine(d, part.load(top.v + c), v), top.v + c);
    });
  const auto shifted = [&](auto part, int64_t r, int64_t c)
                           HWY_ATTR { return hn::Sub(part.load(x + r * stride + c), part.load(top.v + c)); };
  // Exponentials are kept as C: in y, where it is of C, or in memory of their own. Too many for that are formed again.
  const bool kept = !log && (!kConverts || n * width <= kMostExponentials);
  Scratch<C> scratch(kConverts && kept ? n * width : 0);
  C* exps = scratch.data();
  int64_t exps_stride = width;
  if constexpr (!kConverts) exps = y, exps_stride = stride;
  SumColumns<C>(n, width, sum.v, [&](auto part, int64_t r, int64_t c) HWY_ATTR {
    const auto e = VExp(d, shifted(part, r, c));
    if (kept) part.store(e, exps + r * exps_stride + c);
    return e;
  });
  // What each column is multiplied with, or what is taken off it: the logarithm of lines, whose bits are not VLog's.
  if (log)
    for (int64_t c = 0; c < width; ++c) sum.v[c] = std::log(sum.v[c]);
  else
    ForVectors<C>(width, [&](auto part, int64_t c)
                             HWY_ATTR { part.store(hn::Div(hn::Set(d, C(1)), part.load(sum.v + c)), sum.v + c); });
  const auto finish = [&](const auto& value) HWY_ATTR {
    for (int64_t r = 0; r < n; ++r)
      ForVectors<C>(width, [&](auto part, int64_t c)
                               HWY_ATTR { part.store(value(part, r, c, part.load(sum.v + c)), y + r * stride + c); });
  };
  if (log)
    finish([&](auto part, int64_t r, int64_t c, auto s) HWY_ATTR { return hn::Sub(shifted(part, r, c), s); });
  else if (kept)
    finish([&](auto part, int64_t r, int64_t c, auto s)
               HWY_ATTR { return hn::Mul(part.load(exps + r * exps_stride + c), s); });
  else
    finish([&](auto part, int64_t r, int64_t c, auto s) HWY_ATTR { return hn::Mul(VExp(d, shifted(part, r, c)), s); });
}

template <class C, class S>
void SoftmaxGradColumns(const S* g, const S* y, S* dx, int64_t n, int64_t stride, int64_t width, bool log) {
  const Tag<C> d;
  ColumnValues<C> sum;
  SumColumns<C>(n, width, sum.v, [&](auto part, int64_t r, int64_t c) HWY_ATTR {
    const int64_t i = r * stride + c;
    return log ? part.load(g + i) : hn::Mul(part.load(g + i), part.load(y + i));
  });
  for (int64_t r = 0; r < n; ++r)
    ForVectors<C>(width, [&](auto part, int64_t c) HWY_ATTR {
      const int64_t i = r * stride + c;
      const auto s = part.load(sum.v + c), gi = part.load(g + i), yi = part.load(y + i);
      part.store(log ? hn::NegMulAdd(VExp(d, yi), s, gi) : hn::Mul(yi, hn::Sub(gi, s)), dx + i);
    });
}

// Dense views of S, along lines or across them; false where the views are not so.
template <class C, class S>
bool ForwardDense(const View& out, const View& in, int dim, int64_t n, bool log) {
  constexpr bool kConverts = !std::is_same_v<S, C>;
  if (const int64_t lines = dense_lines<S>(dim, in, out)) {
    DS_COUNT_ROUTE(SoftmaxLines);
    parallel_for(lines, grain_for(2 * n * sizeof(C)), [&](int64_t begin, int64_t end) {
      Scratch<C> exps(kConverts && !log ? n : 0);
      for (int64_t i = begin * n; i < end * n; i += n) {
        const S* x = in.as<S>() + i;
        S* y = out.as<S>() + i;
        if (log)
          LogSoftmaxLine<C>(x, y, n);
        else if constexpr (kConverts)
          SoftmaxLine<C>(x, y, n, exps.data());
        else
          SoftmaxLine<C>(x, y, n, y);
      }
    });
    return true;
  }
  const auto columns = dense_columns<S>(dim, in, out);
  if (columns.outer == 0 || columns.inner < 16) return false;
  DS_COUNT_ROUTE(SoftmaxColumns);
  for_column_tiles<kTile<C>>(columns, 2 * sizeof(C), [&](int64_t at, int64_t width) {
    SoftmaxColumns<C>(in.as<S>() + at, out.as<S>() + at, n, columns.inner, width, log);
  });
  return true;
}

// Lines are never empty below this point.
template <class C>
void ForwardAs(const View& out, const View& in, int dim, bool log) {
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  const auto dense = [&]<class S>() HWY_ATTR { return ForwardDense<C, S>(out, in, dim, n, log); };
  if (n == 0 || WhereLoadable<C>(in.dtype, dense)) return;
  for_each_line<C, 1, 1, 0>({in}, {out}, {}, dim, [&](const auto& x, const auto& y, const auto&) {
    log ? LogSoftmaxLine<C>(x[0], y[0], n) : SoftmaxLine<C>(x[0], y[0], n, y[0]);
  });
}

template <class C, class S>
void GradLine(const S* g, const S* y, S* dx, int64_t n, bool log) {
  log ? LogSoftmaxGradLine<C>(g, y, dx, n) : SoftmaxGradLine<C>(g, y, dx, n);
}

template <class C, class S>
bool BackwardDense(const View& grad_in, const View& grad, const View& y, int dim, int64_t n, bool log) {
  if (const int64_t lines = dense_lines<S>(dim, grad, y, grad_in)) {
    DS_COUNT_ROUTE(SoftmaxBackwardLines);
    parallel_for(lines, grain_for(3 * n * sizeof(C)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * n; i < end * n; i += n)
        GradLine<C>(grad.as<S>() + i, y.as<S>() + i, grad_in.as<S>() + i, n, log);
    });
    return true;
  }
  const auto columns = dense_columns<S>(dim, grad, y, grad_in);
  if (columns.outer == 0 || columns.inner < 16) return false;
  DS_COUNT_ROUTE(SoftmaxBackwardColumns);
  for_column_tiles<kTile<C>>(columns, 3 * sizeof(C), [&](int64_t at, int64_t width) {
    SoftmaxGradColumns<C>(grad.as<S>() + at, y.as<S>() + at, grad_in.as<S>() + at, n, columns.inner, width, log);
  });
  return true;
}

template <class C>
void BackwardAs(const View& grad_in, const View& grad, const View& y, int dim, bool log) {
  const int64_t n = y.ndim() == 0 ? 1 : y.sizes[dim];
  const auto dense = [&]<class S>() HWY_ATTR { return BackwardDense<C, S>(grad_in, grad, y, dim, n, log); };
  if (n == 0 || WhereLoadable<C>(y.dtype, dense)) return;
  for_each_line<C, 2, 1, 0>({grad, y}, {grad_in}, {}, dim, [&](const auto& in, const auto& out, const auto&) {
    GradLine<C>(in[0], in[1], out[0], n, log);
  });
}

void Softmax(const View& out, const View& in, int dim, bool log) {
  DS_COUNT_ROUTE(Softmax);
  out.dtype == DType::kFloat64 ? ForwardAs<double>(out, in, dim, log) : ForwardAs<float>(out, in, dim, log);
}

void SoftmaxBackward(const View& grad_in, const View& grad, const View& y, int dim, bool log) {
  DS_COUNT_ROUTE(SoftmaxBackward);
  const bool f64 = grad_in.dtype == DType::kFloat64;
  f64 ? BackwardAs<double>(grad_in, grad, y, dim, log) : BackwardAs<float>(grad_in, grad, y, dim, log);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(Softmax);
HWY_EXPORT(SoftmaxBackward);

void softmax(const View& out, const View& in, int dim) { HWY_DYNAMIC_DISPATCH(Softmax)(out, in, dim, false); }
void log_softmax(const View& out, const View& in, int dim) { HWY_DYNAMIC_DISPATCH(Softmax)(out, in, dim, true); }
void softmax_backward(const View& grad_in, const View& grad, const View& y, int dim) {
  HWY_DYNAMIC_DISPATCH(SoftmaxBackward)(grad_in, grad, y, dim, false);
}
void log_softmax_backward(const View& grad_in, const View& grad, const View& y, int dim) {
  HWY_DYNAMIC_DISPATCH(SoftmaxBackward)(grad_in, grad, y, dim, true);
}
}  // namespace deepseek::kernels
#endif
