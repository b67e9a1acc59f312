// Variances, norms and logsumexp: reductions that map every element first.
#include "kernels/loops/copy.h"
#include "kernels/reduce/reduce.h"
#include "ops/composite.h"
#include "ops/pointwise/pointwise.h"
#include "ops/reduce/reduce.h"

namespace deepseek {

namespace {
double correction_of(const Opt<Scalar>& correction) { return correction ? (*correction).to_double() : 1.0; }

Tensor var_vjp(const Tensor& g, const Tensor& x, const Opt<Dims>& dim, double correction, bool keepdim) {
  const double n = static_cast<double>(reduced_count(x.sizes(), reduced_mask("var", dim, x.dim())));
  const Opt<Dims> dims = dim && (*dim).empty() ? Opt<Dims>() : dim;
  return unreduce(g, x.sizes(), dim, keepdim) * (x - mean(x, dims, true)) * (2.0 / std::max(n - correction, 0.0));
}
}  // namespace

struct Var {
  Opt<Dims> dim;
  Opt<Scalar> correction;
  bool keepdim = false;
  static constexpr OpInfo info{
      .schema = "var(Tensor input, int[]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor",
      .doc = "Variance over dims, divided by n - correction (1)."};
  bool operator==(const Var&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(is_floating(in[0].dtype()), "std and var only support floating point and complex dtypes, got ",
             name_of(in[0].dtype()));
    check_reducible("var", in[0].dtype());
    return {in[0].dtype(), reduced_sizes(in[0].sizes(), reduced_mask("var", dim, in[0].dim()), keepdim)};
  }
  void eval(Inputs in, Tensor& out) const {
    const unsigned mask = reduced_mask("var", dim, in[0].dim());
    View unused = keepdim_view(out, in[0].sizes(), mask);
    unused.data = nullptr;
    kernels::var_mean(keepdim_view(out, in[0].sizes(), mask), unused, in[0].view(), correction_of(correction));
  }
  Grads vjp(const Vjp& c) const { return {var_vjp(c.grad[0], c.in[0], dim, correction_of(correction), keepdim)}; }
};
DS_OP(Var);

struct Std {
  Opt<Dims> dim;
  Opt<Scalar> correction;
  bool keepdim = false;
  static constexpr OpInfo info{
      .schema = "std(Tensor input, int[]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor",
      .doc = "Standard deviation over dims, divided by n - correction (1).",
      .saves = Saves::kInputsOutput};
  bool operator==(const Std&) const = default;
  Meta infer(Inputs in) const { return Var{dim, correction, keepdim}.infer(in); }
  void eval(Inputs in, Tensor& out) const {
    Var{dim, correction, keepdim}.eval(in, out);
    const View v = out.view();
    kernels::pointwise(kernels::Pointwise::kSqrt, out.dtype(), v, {&v, 1});
  }
  Grads vjp(const Vjp& c) const {
    const Tensor &y = c.out[0], &g = c.grad[0];
    const Tensor g_var = where(eq(y, 0), zeros_like(g), g / (y * 2));  // no spread: gradient zero, not 0 / 0
    return {var_vjp(g_var, c.in[0], dim, correction_of(correction), keepdim)};
  }
};
DS_OP(Std);

DS_BODY_LIST(VarMean,
             "var_mean(Tensor input, int[]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor var, "
             "Tensor mean)",
             "Variance and mean over dims.", false, kFunction, Opt<Dims> dim;
             Opt<Scalar> correction; bool keepdim;) {
  return {apply(Var{dim, correction, keepdim}, in[0]), mean(in[0], dim, keepdim)};
}
DS_BODY_LIST(StdMean,
             "std_mean(Tensor input, int[]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor std, "
             "Tensor mean)",
             "Standard deviation and mean over dims.", false, kFunction, Opt<Dims> dim;
             Opt<Scalar> correction; bool keepdim;) {
  return {apply(Std{dim, correction, keepdim}, in[0]), mean(in[0], dim, keepdim)};
}

// --- norms

struct VectorNorm {
  double ord = 2;
  Opt<Dims> dim;
  bool keepdim = false;
  static constexpr OpInfo info{
      .schema = "_vector_norm(Tensor input, float ord=2, int[]? dim=None, bool keepdim=False) -> Tensor",
      .doc = "(sum |x|^ord)^(1/ord); ord 0 counts, inf and -inf take the extreme of |x|.",
      .saves = Saves::kInputsOutput,
      .shown = Shown::kHidden};
  bool operator==(const VectorNorm&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(is_floating(in[0].dtype()),
             "linalg.vector_norm: Expected a floating point or complex tensor as input. Got ", name_of(in[0].dtype()));
    check_reducible("norm", in[0].dtype());
    return {in[0].dtype(), reduced_sizes(in[0].sizes(), reduced_mask("norm", dim, in[0].dim()), keepdim)};
  }
  void eval(Inputs in, Tensor& out) const {
    kernels::norm_p(keepdim_view(out, in[0].sizes(), reduced_mask("norm", dim, in[0].dim())), in[0].view(), ord);
  }
  Grads vjp(const Vjp& c) const {
    const Tensor& x = c.in[0];
    const Tensor y = kept(c.out[0], x.sizes(), dim, keepdim);
    const Tensor g = keepdim ? c.grad[0] : kept(c.grad[0], x.sizes(), dim, false);
    const auto masked = [&](const Tensor& v) { return where(eq(y, 0), scalar(0.0), v); };
    if (ord == 0) return {zeros_like(x)};
    if (ord == 1) return {g * sign(x)};
    if (ord == 2) return {masked(g * (x / y))};
    if (std::isinf(ord)) {
      const Tensor hit = to_dtype(eq(abs(x), y), x.dtype());
      const Opt<Dims> dims = dim && (*dim).empty() ? Opt<Dims>() : dim;
      return {g * sign(x) * (hit / sum(hit, dims, true))};
    }
    if (ord < 2) return {where(logical_or(eq(x, 0), eq(y, 0)), scalar(0.0), g * sign(x) * pow(abs(x) / y, ord - 1))};
    return {masked(g * x * pow(abs(x), ord - 2) / pow(y, ord - 1))};
  }
};
DS_OP(VectorNorm);

DS_BODY(Norm, "norm(Tensor input, Scalar? p=2, int[]? dim=None, bool keepdim=False, dtype? dtype=None) -> Tensor",
        "p-norm of the elements over dims.", false, kBoth, Opt<Scalar> p;
        Opt<Dims> dim; bool keepdim; Opt<DType> dtype;) {
  const double ord = p ? (*p).to_double() : 2.0;
  return apply(VectorNorm{ord, dim, keepdim}, dtype ? to_dtype(in[0], *dtype) : in[0]);
}
DS_BODY(Dist, "dist(Tensor input, Tensor other, float p=2) -> Tensor", "The p-norm of input - other.", false, kBoth,
        double p;) {
  return apply(VectorNorm{p, {}, false}, in[0] - in[1]);
}

struct LogSumExp {
  Dims dim;
  bool keepdim = false;
  static constexpr OpInfo info{.schema = "logsumexp(Tensor input, int[] dim, bool keepdim=False) -> Tensor",
                               .doc = "log(sum(exp(x))) over dims, without overflow.",
                               .saves = Saves::kInputsOutput};
  bool operator==(const LogSumExp&) const = default;
  Meta infer(Inputs in) const {
    check_reducible("logsumexp", in[0].dtype());
    const DType t = is_exact(in[0].dtype()) ? default_dtype() : in[0].dtype();
    return {t, reduced_sizes(in[0].sizes(), reduced_mask("logsumexp", dim, in[0].dim()), keepdim)};
  }
  void eval(Inputs in, Tensor& out) const {
    Tensor x = in[0];
    if (x.dtype() != out.dtype()) {
      x = Tensor::empty(in[0].sizes(), out.dtype());
      kernels::copy(x.view(), in[0].view());
    }
    kernels::logsumexp(keepdim_view(out, x.sizes(), reduced_mask("logsumexp", dim, x.dim())), x.view());
  }
  Grads vjp(const Vjp& c) const {
    // NaN at an infinite result: no share of it is right.
    const Tensor y = kept(c.out[0], c.in[0].sizes(), dim, keepdim);
    return {unreduce(c.grad[0], c.in[0].sizes(), dim, keepdim) * conj(exp(c.in[0] - y))};
  }
};
DS_OP(LogSumExp);
Tensor logsumexp(const Tensor& input, Dims dim, bool keepdim) { return apply(LogSumExp{dim, keepdim}, input); }

}  // namespace deepseek
