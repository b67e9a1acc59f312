#include "kernels/nn/norm.h"

#include <cmath>

#include "kernels/simd/routes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/nn/norm.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/reduce/row_ops-inl.h"
#include "kernels/simd/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr int64_t kRowBlock = 64;  // rows whose weight gradients are added in order before blocks merge pairwise

// A vector of n parameters as C, or null when it is absent.
template <class C>
class Parameter {
 public:
  Parameter(const View& view, int64_t n) : storage_(view.data && view.dtype != dtype_of<C> ? n : 0) {
    if (!view.data) return;
    if (view.dtype == dtype_of<C>) {
      values_ = view.as<C>();
    } else {
      load_row(view.dtype, view.data, 1, n, storage_.data());
      values_ = storage_.data();
    }
  }
  const C* data() const { return values_; }

 private:
  Scratch<C> storage_;
  const C* values_ = nullptr;
};

// Row r of a [rows, n] view as C, converted into `buffer` if its dtype differs.
template <class C>
const C* ReadRow(const View& view, int64_t r, int64_t n, C* buffer) {
  if (view.dtype == dtype_of<C>) return view.as<C>() + r * n;
  load_row(view.dtype, view.at(r * n), 1, n, buffer);
  return buffer;
}

// Where to write row r: in place if it has type C, else a buffer that FinishRow stores.
template <class C>
C* RowTarget(const View& view, int64_t r, int64_t n, C* buffer) {
  return view.dtype == dtype_of<C> ? view.as<C>() + r * n : buffer;
}
template <class C>
void FinishRow(const View& view, int64_t r, int64_t n, const C* row) {
  if (view.dtype != dtype_of<C>) store_row(view.dtype, view.at(r * n), 1, n, row);
}

struct RowShape {
  int64_t rows, n;
  explicit RowShape(const View& in) : rows(in.sizes[0]), n(in.sizes[1]) {}
};

// ---- forward ----

// sum = a + b of a 16-bit type, and the rounded sum as float.
template <class P>
void AddRow16(const P* a, const P* b, int64_t n, P* sum, float* wide) {
  const Tag<float> d;
  int64_t i = 0;
  for (; i + kVector<float> <= n; i += kVector<float>) {
    store_as(d, hn::Add(load_as(d, a + i), load_as(d, b + i)), sum + i);
    hn::StoreU(load_as(d, sum + i), d, wide + i);
  }
  for (; i < n; ++i) {
    sum[i] = P(static_cast<float>(a[i]) + static_cast<float>(b[i]));
    wide[i] = static_cast<float>(sum[i]);
  }
}

// One row of in + residual as it stands in `sum`: rounded, where that is a small float. `buffers` holds 3 n.
template <class C>
const C* AddRow(const View& sum, const View& in, const View& residual, int64_t r, int64_t n, C* buffers) {
  if constexpr (std::is_same_v<C, float>) {
    const auto row = [&]<class P>(P) {
      AddRow16(in.as<P>() + r * n, residual.as<P>() + r * n, n, sum.as<P>() + r * n, buffers);
      return buffers;
    };
    if (in.dtype == residual.dtype && in.dtype == DType::kBFloat16) return row(BFloat16());
    if (in.dtype == residual.dtype && in.dtype == DType::kFloat16) return row(Half());
  }
  const C *a = ReadRow(in, r, n, buffers), *b = ReadRow(residual, r, n, buffers + n);
  C* s = RowTarget(sum, r, n, buffers + 2 * n);
  ForVectors<C>(n,
                [&](auto part, int64_t i) HWY_ATTR { part.store(hn::Add(part.load(a + i), part.load(b + i)), s + i); });
  FinishRow(sum, r, n, s);
  return ReadRow(sum, r, n, s);
}

// kCentered: layer norm; otherwise RMS norm, whose mean is 0 and whose bias is absent. With a residual, what is
// normalised is the sum.
struct Residual {
  View sum, residual;
};
template <class C, bool kCentered>
void ForwardAs(const View& out, const View& mean_out, const View& rstd_out, const View& in, const View& weight_view,
               const View& bias_view, double eps, const Residual& added = {}) {
  DS_COUNT_ROUTE(Norm);
  const RowShape shape(in);
  const int64_t n = shape.n;
  const Parameter<C> weight(weight_view, n), bias(bias_view, n);
  parallel_for(shape.rows, grain_for(2 * n * sizeof(C)), [&](int64_t begin, int64_t end) {
    const Tag<C> d;
    Scratch<C> in_buffer(added.sum.data ? 3 * n : in.dtype == dtype_of<C> ? 0 : n);
    Scratch<C> out_buffer(out.dtype == dtype_of<C> ? 0 : n);
    for (int64_t r = begin; r < end; ++r) {
      const C* x = added.sum.data ? AddRow(added.sum, in, added.residual, r, n, in_buffer.data())
                                  : ReadRow(in, r, n, in_buffer.data());
      C* y = RowTarget(out, r, n, out_buffer.data());
      C mean = 0, var;
      if constexpr (kCentered) {
        mean = ReduceContiguous<C>(SumOp(), x, n) / static_cast<C>(n);
        var = ReduceContiguous<C>(WithSum<CenteredSquareMap>(), x, n, mean) / static_cast<C>(n);
      } else {
        var = ReduceContiguous<C>(WithSum<SquareMap>(), x, n) / static_cast<C>(n);
      }
      const C rstd = C(1) / std::sqrt(var + static_cast<C>(eps));
      const auto m = hn::Set(d, mean), s = hn::Set(d, rstd);
      const C *w = weight.data(), *b = bias.data();
      ForVectors<C>(n, [&](auto part, int64_t i) HWY_ATTR {
        auto v = hn::Mul(hn::Sub(part.load(x + i), m), s);
        if (w) v = hn::Mul(v, part.load(w + i));
        if (b) v = hn::Add(v, part.load(b + i));
        part.store(v, y + i);
      });
      FinishRow(out, r, n, y);
      if (mean_out.data) mean_out.as<C>()[r] = mean;
      if (rstd_out.data) rstd_out.as<C>()[r] = rstd;
    }
  });
}

// ---- backward ----

template <class C>
struct BackwardArgs {
  View grad_in, grad, in, mean, rstd, add;
  const C* weight;
  int64_t n;
};

// One row: adds to the weight and bias sums (null: not wanted) and writes the input gradient
// rstd * (g*w - mean(g*w) - xhat * mean(g*w*xhat)); RMS norm drops the middle term.
template <class C, bool kCentered>
void BackwardRow(const BackwardArgs<C>& a, int64_t r, C* buffers, C* weight_sum, C* bias_sum) {
  const Tag<C> d;
  const int64_t n = a.n;
  const C* g = ReadRow(a.grad, r, n, buffers);
  const C* x = ReadRow(a.in, r, n, buffers + n);
  const auto m = hn::Set(d, kCentered ? a.mean.template as<C>()[r] : C(0));
  const auto s = hn::Set(d, a.rstd.template as<C>()[r]);
  auto xhat = [&](auto part, int64_t i) HWY_ATTR { return hn::Mul(hn::Sub(part.load(x + i), m), s); };
  auto weighted = [&](auto part, int64_t i) HWY_ATTR {
    return a.weight ? hn::Mul(part.load(g + i), part.load(a.weight + i)) : part.load(g + i);
  };
  if (weight_sum || bias_sum)
    ForVectors<C>(n, [&](auto part, int64_t i) HWY_ATTR {
      const auto gi = part.load(g + i);
      if (weight_sum) part.store(hn::Add(part.load(weight_sum + i), hn::Mul(gi, xhat(part, i))), weight_sum + i);
      if (bias_sum) part.store(hn::Add(part.load(bias_sum + i), gi), bias_sum + i);
    });
  if (!a.grad_in.data) return;
  const C count = static_cast<C>(n);
  const auto c1 = hn::Set(d, kCentered ? SumLoaded<C>(n, weighted) / count : C(0));
  const auto c2 = hn::Set(d, SumLoaded<C>(n, [&](auto part, int64_t i) HWY_ATTR {
                               return hn::Mul(weighted(part, i), xhat(part, i));
                             }) / count);
  C* dx = RowTarget(a.grad_in, r, n, buffers + 2 * n);
  const C* add = a.add.data ? ReadRow(a.add, r, n, buffers + 3 * n) : nullptr;
  ForVectors<C>(n, [&](auto part, int64_t i) HWY_ATTR {
    const auto centered = hn::Sub(weighted(part, i), c1);
    const auto v = hn::Mul(s, hn::NegMulAdd(xhat(part, i), c2, centered));
    part.store(add ? hn::Add(v, part.load(add + i)) : v, dx + i);
  });
  FinishRow(a.grad_in, r, n, dx);
}

// Adds blocks' sums pairwise, `width` values each, into block 0.
template <class C>
void MergeBlocks(C* sums, int64_t blocks, int64_t width) {
  parallel_for(width, grain_for(blocks * sizeof(C)), [&](int64_t begin, int64_t end) {
    for (int64_t step = 1; step < blocks; step *= 2)
      for (int64_t b = 0; b + step < blocks; b += 2 * step) {
        C *to = sums + b * width + begin, *from = sums + (b + step) * width + begin;
        ForVectors<C>(end - begin, [&](auto part, int64_t i) HWY_ATTR {
          part.store(hn::Add(part.load(to + i), part.load(from + i)), to + i);
        });
      }
  });
}

template <class C, bool kCentered>
void BackwardAs(const View& grad_in, const View& grad_weight, const View& grad_bias, const View& grad, const View& in,
                const View& mean, const View& rstd, const View& weight_view, const View& add = {}) {
  DS_COUNT_ROUTE(NormBackward);
  const RowShape shape(in);
  const int64_t n = shape.n, blocks = std::max<int64_t>(1, (shape.rows + kRowBlock - 1) / kRowBlock);
  const Parameter<C> weight(weight_view, n);
  const BackwardArgs<C> args{grad_in, grad, in, mean, rstd, add, weight.data(), n};
  // Sums lie [block][weight n, bias n]; only what is asked for is kept.
  const int64_t weights = grad_weight.data ? n : 0, width = weights + (grad_bias.data ? n : 0);
  Scratch<C> sums(blocks * width);
  std::fill_n(sums.data(), blocks * width, C(0));
  parallel_for(blocks, grain_for(kRowBlock * n * sizeof(C)), [&](int64_t begin, int64_t end) {
    Scratch<C> buffers(4 * n);
    for (int64_t b = begin; b < end; ++b) {
      C* weight_sum = grad_weight.data ? sums.data() + b * width : nullptr;
      C* bias_sum = grad_bias.data ? sums.data() + b * width + weights : nullptr;
      for (int64_t r = b * kRowBlock; r < std::min(shape.rows, (b + 1) * kRowBlock); ++r)
        BackwardRow<C, kCentered>(args, r, buffers.data(), weight_sum, bias_sum);
    }
  });
  if (width == 0) return;
  MergeBlocks(sums.data(), blocks, width);
  if (grad_weight.data) store_row(grad_weight.dtype, grad_weight.data, 1, n, sums.data());
  if (grad_bias.data) store_row(grad_bias.dtype, grad_bias.data, 1, n, sums.data() + weights);
}

void LayerNorm(const View& out, const View& mean, const View& rstd, const View& in, const View& weight,
               const View& bias, double eps) {
  if (in.dtype == DType::kFloat64)
    ForwardAs<double, true>(out, mean, rstd, in, weight, bias, eps);
  else
    ForwardAs<float, true>(out, mean, rstd, in, weight, bias, eps);
}

void RmsNorm(const View& out, const View& rstd, const View& in, const View& weight, double eps) {
  if (in.dtype == DType::kFloat64)
    ForwardAs<double, false>(out, View{}, rstd, in, weight, View{}, eps);
  else
    ForwardAs<float, false>(out, View{}, rstd, in, weight, View{}, eps);
}

void LayerNormBackward(const View& grad_in, const View& grad_weight, const View& grad_bias, const View& grad,
                       const View& in, const View& mean, const View& rstd, const View& weight) {
  if (in.dtype == DType::kFloat64)
    BackwardAs<double, true>(grad_in, grad_weight, grad_bias, grad, in, mean, rstd, weight);
  else
    BackwardAs<float, true>(grad_in, grad_weight, grad_bias, grad, in, mean, rstd, weight);
}

void RmsNormBackward(const View& grad_in, const View& grad_weight, const View& grad, const View& in, const View& rstd,
                     const View& weight, const View& add) {
  if (in.dtype == DType::kFloat64)
    BackwardAs<double, false>(grad_in, grad_weight, View{}, grad, in, View{}, rstd, weight, add);
  else
    BackwardAs<float, false>(grad_in, grad_weight, View{}, grad, in, View{}, rstd, weight, add);
}

void AddRmsNorm(const View& out, const View& sum, const View& rstd, const View& in, const View& residual,
                const View& weight, double eps) {
  if (sum.dtype == DType::kFloat64)
    ForwardAs<double, false>(out, View{}, rstd, in, weight, View{}, eps, {sum, residual});
  else
    ForwardAs<float, false>(out, View{}, rstd, in, weight, View{}, eps, {sum, residual});
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(LayerNorm);
HWY_EXPORT(RmsNorm);
HWY_EXPORT(LayerNormBackward);
HWY_EXPORT(RmsNormBackward);
HWY_EXPORT(AddRmsNorm);

void layer_norm(const View& out, const View& mean, const View& rstd, const View& in, const View& weight,
                const View& bias, double eps) {
  HWY_DYNAMIC_DISPATCH(LayerNorm)(out, mean, rstd, in, weight, bias, eps);
}
void rms_norm(const View& out, const View& rstd, const View& in, const View& weight, double eps) {
  HWY_DYNAMIC_DISPATCH(RmsNorm)(out, rstd, in, weight, eps);
}
void layer_norm_backward(const View& grad_in, const View& grad_weight, const View& grad_bias, const View& grad,
                         const View& in, const View& mean, const View& rstd, const View& weight) {
  HWY_DYNAMIC_DISPATCH(LayerNormBackward)(grad_in, grad_weight, grad_bias, grad, in, mean, rstd, weight);
}
void rms_norm_backward(const View& grad_in, const View& grad_weight, const View& grad, const View& in, const View& rstd,
                       const View& weight, const View& add) {
  HWY_DYNAMIC_DISPATCH(RmsNormBackward)(grad_in, grad_weight, grad, in, rstd, weight, add);
}
void add_rms_norm(const View& out, const View& sum, const View& rstd, const View& in, const View& residual,
                  const View& weight, double eps) {
  HWY_DYNAMIC_DISPATCH(AddRmsNorm)(out, sum, rstd, in, residual, weight, eps);
}
}  // namespace deepseek::kernels
#endif
