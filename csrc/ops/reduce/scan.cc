// Running sums, products and extremes along one dim.
#include "kernels/reduce/scan.h"

#include "ops/composite.h"
#include "ops/reduce/reduce.h"

namespace deepseek {
namespace {

Meta scan_meta(const char* op, const Tensor& x, int64_t dim, DType out) {
  wrap_dim(op, dim, x.dim());
  if (is_float8(x.dtype()) || is_float8(out))
    fail<NotImplementedError>("\"", op, "\" not implemented for '", name_of(is_float8(out) ? out : x.dtype()),
                              "'; convert to float32 first");
  return {out, x.sizes()};
}

DType sum_dtype(const Tensor& x, const Opt<DType>& asked) {
  return asked ? *asked : is_exact(x.dtype()) ? DType::kInt64 : x.dtype();
}

// Derivatives of 16-bit scans multiply long chains: in float32.
Tensor widened(const Tensor& t, DType out) { return to_dtype(t, is_reduced_float(out) ? DType::kFloat32 : out); }

// s[k] = b[k] + a[k] * s[k + 1] along dim, nothing after the end; `a` is one shorter than b. Doubling: after each step
// s[k] = b[k] + a[k] * s[k + d], so log2(n) steps of differentiable ops do it, without a division.
Tensor reverse_recurrence(Tensor a, Tensor b, int64_t dim) {
  const int64_t n = b.size(dim);
  for (int64_t d = 1; d < n; d *= 2) {
    const Tensor parts[] = {narrow(b, dim, 0, n - d) + a * narrow(b, dim, d, n - d), narrow(b, dim, n - d, d)};
    b = cat(parts, dim);
    if (n > 2 * d) a = narrow(a, dim, 0, n - 2 * d) * narrow(a, dim, d, n - 2 * d);
  }
  return b;
}

// a - b with equal infinities differing by nothing.
Tensor difference(const Tensor& a, const Tensor& b) { return where(eq(a, b), scalar(0.0), a - b); }

}  // namespace

struct Cumsum {
  int64_t dim;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "cumsum(Tensor input, int dim, *, dtype? dtype=None) -> Tensor",
                               .doc = "Running sum along a dim; integers and bool add up in int64.",
                               .saves = Saves::kNone,
                               .inplace = true};
  bool operator==(const Cumsum&) const = default;
  Meta infer(Inputs in) const { return scan_meta("cumsum", in[0], dim, sum_dtype(in[0], dtype)); }
  void eval(Inputs in, Tensor& out) const {
    kernels::cumsum(out.view(), in[0].view(), wrap_dim("cumsum", dim, out.dim()));
  }
  Grads vjp(const Vjp& c) const { return {flip(cumsum(flip(c.grad[0], {dim}), dim), {dim})}; }
};
DS_OP(Cumsum);
Tensor cumsum(const Tensor& input, int64_t dim) { return apply(Cumsum{dim, {}}, input); }

struct Cumprod {
  int64_t dim;
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "cumprod(Tensor input, int dim, *, dtype? dtype=None) -> Tensor",
                               .doc = "Running product along a dim; integers and bool multiply in int64.",
                               .saves = Saves::kInputsOutput,
                               .inplace = true};
  bool operator==(const Cumprod&) const = default;
  Meta infer(Inputs in) const { return scan_meta("cumprod", in[0], dim, sum_dtype(in[0], dtype)); }
  void eval(Inputs in, Tensor& out) const {
    kernels::cumprod(out.view(), in[0].view(), wrap_dim("cumprod", dim, out.dim()));
  }
  // dx[k] = y[k - 1] * s[k] with s[k] = g[k] + x[k + 1] * s[k + 1]: right where x has zeros, too.
  Grads vjp(const Vjp& c) const {
    const DType t = c.out[0].dtype();
    const Tensor x = widened(conj(c.in[0]), t), y = widened(conj(c.out[0]), t), g = widened(c.grad[0], t);
    if (x.dim() == 0 || x.size(dim) <= 1) return {c.grad[0]};
    const int64_t n = x.size(dim);
    const Tensor before[] = {ones_like(narrow(x, dim, 0, 1)), narrow(y, dim, 0, n - 1)};
    return {cat(before, dim) * reverse_recurrence(narrow(x, dim, 1, n - 1), g, dim)};
  }
};
DS_OP(Cumprod);
Tensor cumprod(const Tensor& input, int64_t dim) { return apply(Cumprod{dim, {}}, input); }

struct LogCumsumExp {
  int64_t dim;
  static constexpr OpInfo info{.schema = "logcumsumexp(Tensor input, int dim) -> Tensor",
                               .doc = "log(cumsum(exp(x))) along a dim, without overflow.",
                               .saves = Saves::kInputsOutput};
  bool operator==(const LogCumsumExp&) const = default;
  Meta infer(Inputs in) const {
    if (!is_floating(in[0].dtype()))
      fail<NotImplementedError>("\"logcumsumexp\" not implemented for '", name_of(in[0].dtype()), "'");
    return scan_meta("logcumsumexp", in[0], dim, in[0].dtype());
  }
  void eval(Inputs in, Tensor& out) const {
    kernels::logcumsumexp(out.view(), in[0].view(), wrap_dim("logcumsumexp", dim, out.dim()));
  }
  // dx[k] = exp(x[k] - y[k]) * s[k] with s[k] = g[k] + exp(y[k] - y[k + 1]) * s[k + 1]: y never falls, so no exp
  // overflows.
  Grads vjp(const Vjp& c) const {
    const DType t = c.out[0].dtype();
    const Tensor x = widened(conj(c.in[0]), t), y = widened(conj(c.out[0]), t), g = widened(c.grad[0], t);
    if (x.dim() == 0 || x.size(dim) <= 1) return {exp(x - y) * g};
    const int64_t n = x.size(dim);
    const Tensor decay = exp(difference(narrow(y, dim, 0, n - 1), narrow(y, dim, 1, n - 1)));
    return {exp(x - y) * reverse_recurrence(decay, g, dim)};  // NaN where x is a sum's infinity
  }
};
DS_OP(LogCumsumExp);

#define DS_RUNNING_EXTREME(S, name, what)                                                                      \
  struct S {                                                                                                   \
    int64_t dim;                                                                                               \
    static constexpr OpInfo info{.schema = #name "(Tensor input, int dim) -> (Tensor values, Tensor indices)", \
                                 .doc = "Running " what " along a dim and its latest position; NaN wins.",     \
                                 .saves = Saves::kOutput};                                                     \
    bool operator==(const S&) const = default;                                                                 \
    std::array<Meta, 2> infer(Inputs in) const {                                                               \
      const Meta m = scan_meta(#name, in[0], dim, in[0].dtype());                                              \
      return {m, Meta{DType::kInt64, m.sizes}};                                                                \
    }                                                                                                          \
    void eval(Inputs in, std::span<Tensor> out) const {                                                        \
      kernels::name(out[0].view(), out[1].view(), in[0].view(), wrap_dim(#name, dim, in[0].dim()));            \
    }                                                                                                          \
    Grads vjp(const Vjp& c) const { return {value_selecting_vjp(c, dim, true)}; }                              \
  };                                                                                                           \
  DS_OP(S);
DS_RUNNING_EXTREME(Cummax, cummax, "maximum")
DS_RUNNING_EXTREME(Cummin, cummin, "minimum")

DS_BODY(Diff, "diff(Tensor input, int n=1, int dim=-1, Tensor? prepend=None, Tensor? append=None) -> Tensor",
        "Differences of neighbours along `dim`, taken `n` times; `prepend` and `append` are joined on first.", false,
        kBoth, int64_t n;
        int64_t dim;) {
  Tensor x = in[0];
  DS_CHECK(x.dim() > 0, "diff expects input to be at least one-dimensional");
  DS_CHECK(n >= 0, "order must be non-negative but got ", n);
  if (n == 0) return clone(x);
  TensorList parts;
  for (const Tensor& t : {in[1], in[0], in[2]})
    if (t.defined()) parts.push_back(t);
  if (parts.size() > 1) x = cat(parts, dim);
  const int64_t times = std::min(n, x.size(dim));
  for (int64_t i = 0; i < times; ++i) {
    const int64_t count = x.size(dim) - 1;
    const Tensor after = narrow(x, dim, 1, count), before = narrow(x, dim, 0, count);
    x = x.dtype() == DType::kBool ? logical_xor(after, before) : after - before;
  }
  return x;
}

}  // namespace deepseek
