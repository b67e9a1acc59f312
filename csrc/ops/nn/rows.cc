// Row ops: softmax, log_softmax, layer norm, RMS norm, alone and behind a residual connection. Fused forward and
// backward; second derivatives through the composite.
#include <limits>

#include "kernels/loops/copy.h"
#include "kernels/nn/norm.h"
#include "kernels/nn/softmax.h"
#include "ops/composite.h"
#include "ops/operands.h"

namespace deepseek {
namespace {

void check_float(const char* op, DType t) {
  DS_CHECK_AS(NotImplementedError, is_floating(t) && !is_float8(t), "\"", op, "\" not implemented for '", name_of(t),
              "'");
}

// Rows as the norm kernels want them: contiguous [rows, n].
View rows_of(const Tensor& t, int64_t n, TensorList& keep) {
  Tensor x = t;
  if (!x.is_contiguous()) {
    x = Tensor::empty(t.sizes(), t.dtype());
    kernels::copy(x.view(), t.view());
  }
  keep.push_back(x);
  return {x.data_ptr(), x.dtype(), {n == 0 ? 0 : x.numel() / n, n}, {n, 1}};
}
View vector_of(const Tensor& t, TensorList& keep) {
  if (!t.defined()) return {};
  return rows_of(t, std::max<int64_t>(t.numel(), 1), keep).data == nullptr
             ? View{}
             : View{keep.back().data_ptr(), t.dtype(), {t.numel()}, {1}};
}
View flat(const Tensor& t) { return {t.data_ptr(), t.dtype(), {t.numel()}, {1}}; }

}  // namespace

// --- softmax and log_softmax: the same op but for the formulas

namespace {

struct SoftmaxFormulas {
  static constexpr const char* kForward = "softmax(Tensor input, int dim, dtype? dtype=None) -> Tensor";
  static constexpr const char* kBackward = "_softmax_backward(Tensor grad, Tensor output, int dim) -> Tensor";
  static constexpr const char* kDoc = "exp(x) / sum(exp(x)) along dim.";
  static constexpr auto forward = kernels::softmax;
  static constexpr auto backward = kernels::softmax_backward;
  static Tensor composite(const Tensor& shifted, int64_t dim) {
    const Tensor e = exp(shifted);
    return e / sum(e, Dims{dim}, true);
  }
  // Of dx = y (g - sum(g y)).
  static Tensor second_by_output(const Tensor& gg, const Tensor& g, const Tensor& y, int64_t dim) {
    return gg * (g - sum(g * y, Dims{dim}, true)) - g * sum(gg * y, Dims{dim}, true);
  }
  static Tensor second_by_grad(const Tensor& gg, const Tensor& y, int64_t dim) {
    return y * (gg - sum(gg * y, Dims{dim}, true));
  }
};

struct LogSoftmaxFormulas {
  static constexpr const char* kForward = "log_softmax(Tensor input, int dim, dtype? dtype=None) -> Tensor";
  static constexpr const char* kBackward = "_log_softmax_backward(Tensor grad, Tensor output, int dim) -> Tensor";
  static constexpr const char* kDoc = "log(softmax(x)) along dim.";
  static constexpr auto forward = kernels::log_softmax;
  static constexpr auto backward = kernels::log_softmax_backward;
  static Tensor composite(const Tensor& shifted, int64_t dim) {
    return shifted - log(sum(exp(shifted), Dims{dim}, true));
  }
  // Of dx = g - exp(y) sum(g).
  static Tensor second_by_output(const Tensor& gg, const Tensor& g, const Tensor& y, int64_t dim) {
    return neg(gg * exp(y) * sum(g, Dims{dim}, true));
  }
  static Tensor second_by_grad(const Tensor& gg, const Tensor& y, int64_t dim) {
    return gg - sum(gg * exp(y), Dims{dim}, true);
  }
};

}  // namespace

template <class F>
struct SoftmaxBackwardOf {
  int64_t dim;
  static constexpr OpInfo info{.schema = F::kBackward, .doc = "Gradient of the rows.", .shown = Shown::kHidden};
  bool operator==(const SoftmaxBackwardOf&) const = default;
  Meta infer(Inputs in) const { return {in[1].dtype(), in[1].sizes()}; }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    F::backward(out.view(), in[0].view(), in[1].view(), wrap_dim("softmax", dim, out.dim()));
  }
  Grads vjp(const Vjp& c) const {
    const Tensor &gg = c.grad[0], &g = c.in[0], &y = c.in[1];
    Grads out(2);
    if (c.need(0)) out[0] = F::second_by_grad(gg, y, dim);
    if (c.need(1)) out[1] = F::second_by_output(gg, g, y, dim);
    return out;
  }
};

template <class F>
struct SoftmaxOf {
  int64_t dim;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = F::kForward, .doc = F::kDoc, .saves = Saves::kOutput};
  bool operator==(const SoftmaxOf&) const = default;
  Meta infer(Inputs in) const {
    wrap_dim("softmax", dim, in[0].dim());
    const DType t = dtype.value_or(in[0].dtype());
    check_float("softmax_lastdim_kernel_impl", t);
    return {t, in[0].sizes()};
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    View o = out.view(), i = in[0].view();
    if (o.ndim() == 0) o.sizes = o.strides = i.sizes = i.strides = {1};
    F::forward(o, i, wrap_dim("softmax", dim, out.dim()));
  }
  Grads vjp(const Vjp& c) const {
    if (c.out[0].dim() == 0) return {zeros_like(c.grad[0])};
    return {apply(SoftmaxBackwardOf<F>{dim}, c.grad[0], c.out[0])};
  }
  Tensor composite(Inputs in) const {
    const Tensor x = to_dtype(in[0], dtype.value_or(in[0].dtype()));
    if (x.numel() == 0) return x * 1.0;
    return F::composite(x - detach(amax(x, {dim}, true)), dim);
  }
};

using Softmax = SoftmaxOf<SoftmaxFormulas>;
using SoftmaxBackward = SoftmaxBackwardOf<SoftmaxFormulas>;
using LogSoftmax = SoftmaxOf<LogSoftmaxFormulas>;
using LogSoftmaxBackward = SoftmaxBackwardOf<LogSoftmaxFormulas>;
DS_OP(Softmax);
DS_OP(SoftmaxBackward);
DS_OP(LogSoftmax);
DS_OP(LogSoftmaxBackward);
Tensor softmax(const Tensor& input, int64_t dim) { return apply(Softmax{dim, {}}, input); }
Tensor log_softmax(const Tensor& input, int64_t dim) { return apply(LogSoftmax{dim, {}}, input); }

// --- normalisation over the last dim; the public forms flatten normalized_shape into it

namespace {
Dims row_sizes(const Tensor& x) { return Dims(std::span(x.sizes().begin(), x.dim() - 1)); }

// What the kernels take for granted: `like` have the input's sizes, there is a statistic a row and a parameter a
// column.
using TensorRefs = std::initializer_list<const Tensor*>;
void check_rows(const char* op, const Tensor& x, TensorRefs like, TensorRefs statistics, TensorRefs parameters) {
  check_float(op, x.dtype());
  DS_CHECK(x.dim() > 0, op, ": the input has no dims");
  const auto check = [&](TensorRefs tensors, const Dims& sizes) {
    for (const Tensor* t : tensors) {
      if (!t->defined()) continue;
      check_float(op, t->dtype());
      DS_CHECK(t->sizes() == sizes, op, ": an input of size ", x.sizes(), " goes with ", sizes, ", got ", t->sizes());
    }
  };
  check(like, x.sizes());
  check(statistics, row_sizes(x));
  check(parameters, Dims{x.sizes().back()});
}

// Small floats normalise in float32, as the kernels do.
Tensor lift(const Tensor& t) { return t.defined() && is_reduced_float(t.dtype()) ? to_dtype(t, DType::kFloat32) : t; }
Tensor scaled(const Tensor& y, const Tensor& weight) { return weight.defined() ? y * lift(weight) : y; }

Tensor layer_norm_composite(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  const Tensor f = lift(x);
  const Tensor centred = f - mean(f, Dims{-1}, true);
  const Tensor y = scaled(centred * rsqrt(mean(centred * centred, Dims{-1}, true) + eps), weight);
  return to_dtype(bias.defined() ? y + lift(bias) : y, x.dtype());
}
Tensor rms_norm_composite(const Tensor& x, const Tensor& weight, double eps) {
  const Tensor f = lift(x);
  return to_dtype(scaled(f * rsqrt(mean(f * f, Dims{-1}, true) + eps), weight), x.dtype());
}
// A statistic of the rows, contiguous and in the dtype the kernels read.
View stats_of(const Tensor& t, DType row_type, TensorList& keep) {
  Tensor x = t;
  if (!x.is_contiguous() || x.dtype() != computing_type(row_type)) {
    x = Tensor::empty(t.sizes(), computing_type(row_type));
    kernels::copy(x.view(), t.view());
  }
  keep.push_back(x);
  return flat(x);
}
}  // namespace

struct LayerNormBackward {
  double eps;
  static constexpr OpInfo info{.schema =
                                   "_layer_norm_backward(Tensor grad, Tensor input, Tensor mean, Tensor rstd, Tensor? "
                                   "weight, Tensor? bias, float eps) -> (Tensor input, Tensor weight, Tensor bias)",
                               .doc = "Gradients of layer norm; empty where there is no weight or bias.",
                               .shown = Shown::kHidden};
  bool operator==(const LayerNormBackward&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    check_rows("layer_norm", in[1], {&in[0]}, {&in[2], &in[3]}, {&in[4], &in[5]});
    const Meta none{in[1].dtype(), {0}};
    return {in[1].meta(), in[4].defined() ? in[4].meta() : none, in[5].defined() ? in[5].meta() : none};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    TensorList keep;
    const int64_t n = in[1].sizes().back();
    const View gw = in[4].defined() ? flat(out[1]) : View{}, gb = in[5].defined() ? flat(out[2]) : View{};
    const View gx = rows_of(out[0], n, keep), g = rows_of(in[0], n, keep), x = rows_of(in[1], n, keep);
    kernels::layer_norm_backward(gx, gw, gb, g, x, stats_of(in[2], x.dtype, keep), stats_of(in[3], x.dtype, keep),
                                 vector_of(in[4], keep));
  }
  // From x alone: mean and rstd are functions of it, so derivatives of any order are right.
  TensorList composite(Inputs in) const {
    const Tensor g = lift(in[0]), x = lift(in[1]);
    const Tensor centred = x - mean(x, Dims{-1}, true);
    const Tensor rstd = rsqrt(mean(centred * centred, Dims{-1}, true) + eps);
    const Tensor xhat = centred * rstd, gx = scaled(g, in[4]);
    const Tensor dx = rstd * (gx - mean(gx, Dims{-1}, true) - xhat * mean(gx * xhat, Dims{-1}, true));
    const Tensor none = zeros({0}, in[1].dtype());
    const auto rows_sum = [&](const Tensor& t, const Tensor& like) {
      return to_dtype(sum_to_size(t, like.sizes()), like.dtype());
    };
    return {to_dtype(dx, in[1].dtype()), in[4].defined() ? rows_sum(g * xhat, in[4]) : none,
            in[5].defined() ? rows_sum(g, in[5]) : none};
  }
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(LayerNormBackward);

struct LayerNorm {
  double eps;
  static constexpr OpInfo info{.schema =
                                   "_layer_norm(Tensor input, Tensor? weight, Tensor? bias, float eps) -> (Tensor "
                                   "output, Tensor mean, Tensor rstd)",
                               .doc = "Layer norm over the last dim, with the statistics its backward uses.",
                               .saves = Saves::kInputsOutput,
                               .shown = Shown::kHidden};
  bool operator==(const LayerNorm&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    check_rows("LayerNormKernelImpl", in[0], {}, {}, {&in[1], &in[2]});
    const Meta stats{computing_type(in[0].dtype()), row_sizes(in[0])};
    return {Meta{in[0].dtype(), in[0].sizes()}, stats, stats};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    TensorList keep;
    const int64_t n = in[0].sizes().back();
    const View o = rows_of(out[0], n, keep), x = rows_of(in[0], n, keep), w = vector_of(in[1], keep),
               b = vector_of(in[2], keep);
    kernels::layer_norm(o, flat(out[1]), flat(out[2]), x, w, b, eps);
  }
  TensorList composite(Inputs in) const {
    const Tensor x = lift(in[0]), m = mean(x, Dims{-1}, false), v = mean(pow(x - unsqueeze(m, -1), 2), Dims{-1}, false);
    return {layer_norm_composite(in[0], in[1], in[2], eps), m, rsqrt(v + eps)};
  }
  Grads vjp(const Vjp& c) const {
    if (c.grad[1].defined() || c.grad[2].defined())
      return vjp_by_composite(*this, c);  // someone differentiates the statistics
    const auto g =
        apply_n<3>(LayerNormBackward{eps}, c.grad[0], c.in[0], detach(c.out[1]), detach(c.out[2]), c.in[1], c.in[2]);
    return {g[0], c.need(1) ? g[1] : Tensor(), c.need(2) ? g[2] : Tensor()};
  }
};
DS_OP(LayerNorm);

namespace {
// Folds normalized_shape into one last dim; checks that it is the tail of the input's shape.
Tensor fold_tail(const char* op, const Tensor& x, const Dims& shape, Inputs affine) {
  DS_CHECK(!shape.empty(),
           "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
           "normalized_shape = []");
  bool tail = x.dim() >= shape.size();
  for (int i = 0; tail && i < shape.size(); ++i) tail = x.sizes()[x.dim() - shape.size() + i] == shape[i];
  DS_CHECK(tail, op, ": Given normalized_shape=", shape, ", expected input with shape [*, ", shape,
           "], but got input of size ", x.sizes());
  for (const Tensor& t : affine)
    DS_CHECK(!t.defined() || t.sizes() == shape, op,
             ": Expected weight or bias to be of same shape as normalized_shape, but got ",
             t.defined() ? t.sizes() : Dims(), " and normalized_shape = ", shape);
  if (shape.size() == 1) return x;
  Dims sizes(std::span(x.sizes().begin(), x.dim() - shape.size()));
  sizes.push_back(numel_of(shape));
  return reshape(x, sizes);
}
// Nothing to normalise, but weight and bias take part: their gradients are zero.
Tensor without_elements(Inputs in) {
  Tensor y = in[0] * 1;
  for (const Tensor& t : in.subspan(1))
    if (t.defined()) y = y * to_dtype(t, y.dtype());
  return y;
}
// Small floats are normalised in float32, so theirs is float32's.
double machine_epsilon(DType t) {
  return t == DType::kFloat64 ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
}
Tensor flat_or_none(const Tensor& t) { return t.defined() && t.dim() != 1 ? reshape(t, {-1}) : t; }
}  // namespace

DS_BODY(LayerNormPublic,
        "layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float eps=1e-05) -> "
        "Tensor",
        "(x - mean) / sqrt(var + eps) * weight + bias over the last dims (Ba et al. 2016).", false, kFunctional,
        Dims normalized_shape;
        double eps;) {
  const Tensor x = fold_tail("layer_norm", in[0], normalized_shape, in.subspan(1));
  if (x.numel() == 0) return without_elements(in);
  return reshape(apply_n<3>(LayerNorm{eps}, x, flat_or_none(in[1]), flat_or_none(in[2]))[0], in[0].sizes());
}

struct RmsNormBackward {
  double eps;
  static constexpr OpInfo info{.schema =
                                   "_rms_norm_backward(Tensor grad, Tensor input, Tensor rstd, Tensor? weight, Tensor? "
                                   "add, float eps) -> (Tensor input, Tensor weight)",
                               .doc =
                                   "Gradients of RMS norm, the first plus `add`; the second is empty without a "
                                   "weight.",
                               .shown = Shown::kHidden};
  bool operator==(const RmsNormBackward&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    check_rows("rms_norm", in[1], {&in[0], &in[4]}, {&in[2]}, {&in[3]});
    return {in[1].meta(), in[3].defined() ? in[3].meta() : Meta{in[1].dtype(), {0}}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    TensorList keep;
    const int64_t n = in[1].sizes().back();
    const View gx = rows_of(out[0], n, keep), g = rows_of(in[0], n, keep), x = rows_of(in[1], n, keep);
    const View add = in[4].defined() ? rows_of(in[4], n, keep) : View{};
    kernels::rms_norm_backward(gx, in[3].defined() ? flat(out[1]) : View{}, g, x, stats_of(in[2], x.dtype, keep),
                               vector_of(in[3], keep), add);
  }
  TensorList composite(Inputs in) const {
    const Tensor g = lift(in[0]), x = lift(in[1]);
    const Tensor rstd = rsqrt(mean(x * x, Dims{-1}, true) + eps);
    const Tensor xhat = x * rstd, gx = scaled(g, in[3]);
    const Tensor of_norm = rstd * (gx - xhat * mean(gx * xhat, Dims{-1}, true));
    const Tensor dx = in[4].defined() ? of_norm + lift(in[4]) : of_norm;
    return {to_dtype(dx, in[1].dtype()), in[3].defined() ? to_dtype(sum_to_size(g * xhat, in[3].sizes()), in[3].dtype())
                                                         : zeros({0}, in[1].dtype())};
  }
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(RmsNormBackward);

struct RmsNorm {
  double eps;
  static constexpr OpInfo info{
      .schema = "_rms_norm(Tensor input, Tensor? weight, float eps) -> (Tensor output, Tensor rstd)",
      .doc = "RMS norm over the last dim, with the statistic its backward uses.",
      .saves = Saves::kInputsOutput,
      .shown = Shown::kHidden};
  bool operator==(const RmsNorm&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    check_rows("rms_norm", in[0], {}, {}, {&in[1]});
    return {Meta{in[0].dtype(), in[0].sizes()}, Meta{computing_type(in[0].dtype()), row_sizes(in[0])}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    TensorList keep;
    const int64_t n = in[0].sizes().back();
    const View o = rows_of(out[0], n, keep), x = rows_of(in[0], n, keep), w = vector_of(in[1], keep);
    kernels::rms_norm(o, flat(out[1]), x, w, eps);
  }
  TensorList composite(Inputs in) const {
    const Tensor x = lift(in[0]);
    return {rms_norm_composite(in[0], in[1], eps), rsqrt(mean(x * x, Dims{-1}, false) + eps)};
  }
  Grads vjp(const Vjp& c) const {
    if (c.grad[1].defined()) return vjp_by_composite(*this, c);  // someone differentiates the statistic
    const auto g = apply_n<2>(RmsNormBackward{eps}, c.grad[0], c.in[0], detach(c.out[1]), c.in[1], Tensor());
    return {g[0], c.need(1) ? g[1] : Tensor()};
  }
};
DS_OP(RmsNorm);

DS_BODY(RmsNormPublic, "rms_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, float? eps=None) -> Tensor",
        "x / sqrt(mean(x^2) + eps) * weight over the last dims (Zhang & Sennrich 2019); eps defaults to the dtype's.",
        false, kFunctional, Dims normalized_shape;
        Opt<double> eps;) {
  const Tensor x = fold_tail("rms_norm", in[0], normalized_shape, in.subspan(1));
  if (x.numel() == 0) return without_elements(in);
  return reshape(apply_n<2>(RmsNorm{eps.value_or(machine_epsilon(x.dtype()))}, x, flat_or_none(in[1]))[0],
                 in[0].sizes());
}

// --- a residual connection and the norm behind it: both read the sum while it is in the cache

struct AddRmsNorm {
  double eps;
  static constexpr OpInfo info{.schema =
                                   "_add_rms_norm(Tensor? weight, Tensor input, Tensor residual, float eps) -> (Tensor "
                                   "output, Tensor sum, Tensor rstd)",
                               .doc = "input + residual and its RMS norm, with the statistic its backward uses.",
                               .saves = {.inputs = kFirstSlot, .outputs = kLaterSlots},
                               .shown = Shown::kHidden};
  bool operator==(const AddRmsNorm&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    const Tensor &weight = in[0], &x = in[1], &residual = in[2];
    DS_CHECK(x.dim() >= 1 && x.sizes() == residual.sizes(),
             "add_rms_norm: input and residual must have one shape of at least one dim, got ", x.sizes(), " and ",
             residual.sizes(), "; expand() the smaller one first");
    DS_CHECK(!weight.defined() || (weight.dim() == 1 && weight.size(0) == x.size(-1)), "add_rms_norm: weight must be [",
             x.size(-1), "], the last dim of input, got ", weight.defined() ? weight.sizes() : Dims());
    for (const Tensor& t : in)
      if (t.defined()) check_float("add_rms_norm", t.dtype());
    const Meta sum{promote_types(x.dtype(), residual.dtype()), x.sizes()};
    return {sum, sum, Meta{computing_type(sum.dtype), row_sizes(x)}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    TensorList keep;
    const int64_t n = out[1].sizes().back();
    const View y = rows_of(out[0], n, keep), s = rows_of(out[1], n, keep), x = rows_of(in[1], n, keep),
               residual = rows_of(in[2], n, keep), w = vector_of(in[0], keep);
    kernels::add_rms_norm(y, s, flat(out[2]), x, residual, w, eps);
  }
  TensorList composite(Inputs in) const {
    const Tensor s = in[1] + in[2], f = lift(s);
    return {rms_norm_composite(s, in[0], eps), s, rsqrt(mean(f * f, Dims{-1}, false) + eps)};
  }
  // The sum's gradient is that of both addends.
  Grads vjp(const Vjp& c) const {
    const Tensor &weight = c.in[0], &s = c.out[1], &rstd = c.out[2];
    Tensor of_sum = c.grad[1];
    const auto add = [&](const Tensor& g) { of_sum = of_sum.defined() ? of_sum + g : g; };
    if (c.grad[2].defined()) {  // d rstd = -rstd^3 / n sum(s ds)
      const Tensor slope = unsqueeze(c.grad[2] * pow(rstd, 3), -1) / -static_cast<double>(s.size(-1));
      add(to_dtype(slope * lift(s), s.dtype()));
    }
    Grads out(3);
    if (c.grad[0].defined()) {
      const auto g = apply_n<2>(RmsNormBackward{eps}, c.grad[0], s, detach(rstd), weight, of_sum);
      of_sum = g[0];
      if (c.need(0)) out[0] = g[1];
    }
    for (const int i : {1, 2})
      if (c.need(i) && of_sum.defined()) out[i] = to_dtype(of_sum, c.in[i].dtype());
    return out;
  }
};
DS_OP(AddRmsNorm);

DS_BODY_LIST(AddRmsNormPublic,
             "add_rms_norm(Tensor input, Tensor residual, Tensor? weight=None, float? eps=None) -> (Tensor output, "
             "Tensor sum)",
             "sum = input + residual, and its rms_norm over the last dim, in one pass over memory; eps defaults to the "
             "dtype's.",
             false, kFunctional, Opt<double> eps;) {
  const double epsilon = eps.value_or(machine_epsilon(promote_types(in[0].dtype(), in[1].dtype())));
  auto out = apply_n<3>(AddRmsNorm{epsilon}, in[2], in[0], in[1]);
  return {out[0], out[1]};
}

}  // namespace deepseek
