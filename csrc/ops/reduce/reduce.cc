// Reductions. `dim` None or () means all dims; gradients go back through unreduce().
#include "kernels/reduce/reduce.h"

#include "core/dispatch/promotion.h"
#include "kernels/loops/copy.h"
#include "kernels/reduce/arg_reduce.h"
#include "ops/composite.h"
#include "ops/pointwise/pointwise.h"
#include "ops/reduce/reduce.h"

namespace deepseek {

unsigned reduced_mask(const char* op, const Opt<Dims>& dim, int ndim) {
  if (!dim || (*dim).empty()) return ~0u;
  unsigned mask = 0;
  for (int64_t d : *dim) {
    const int w = wrap_dim(op, d, ndim);
    DS_CHECK(!(mask >> w & 1), "dim ", w, " appears multiple times in the list of dims");
    mask |= 1u << w;
  }
  return mask;
}

Dims reduced_sizes(const Dims& sizes, unsigned mask, bool keepdim) {
  Dims out;
  for (int i = 0; i < sizes.size(); ++i) {
    if (!(mask >> i & 1))
      out.push_back(sizes[i]);
    else if (keepdim)
      out.push_back(1);
  }
  return out;
}

View keepdim_view(const Tensor& out, const Dims& sizes, unsigned mask) {
  View v = out.view();
  v.sizes = reduced_sizes(sizes, mask, true);
  v.strides = contiguous_strides(v.sizes);
  return v;
}

int64_t reduced_count(const Dims& sizes, unsigned mask) {
  int64_t n = 1;
  for (int i = 0; i < sizes.size(); ++i)
    if (mask >> i & 1) n *= sizes[i];
  return n;
}

Tensor unreduce(const Tensor& g, const Dims& sizes, const Opt<Dims>& dim, bool keepdim) {
  const unsigned mask = reduced_mask("unreduce", dim, sizes.size());
  return expand(keepdim ? g : reshape(g, reduced_sizes(sizes, mask, true)), sizes);
}

Tensor kept(const Tensor& y, const Dims& sizes, const Opt<Dims>& dim, bool keepdim) {
  return keepdim ? y : reshape(y, reduced_sizes(sizes, reduced_mask("reduce", dim, sizes.size()), true));
}

void check_reducible(const char* op, DType t) {
  if (is_float8(t))
    fail<NotImplementedError>("\"", op, "\" not implemented for '", name_of(t), "'; convert to float32 first");
  if (is_complex(t)) fail<NotImplementedError>("\"", op, "\" not implemented for '", name_of(t), "'");
}

namespace {

DType sum_dtype(DType in, Opt<DType> asked) { return asked ? *asked : is_exact(in) ? DType::kInt64 : in; }

}  // namespace

struct Sum {
  Opt<Dims> dim;
  bool keepdim = false;
  Opt<DType> dtype;
  static constexpr OpInfo info{
      .schema = "sum(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
      .doc = "Sum over dims; integers and bool add up in int64, 16-bit floats in float32.",
      .saves = Saves::kNone};
  bool operator==(const Sum&) const = default;
  Meta infer(Inputs in) const {
    check_reducible("sum", in[0].dtype());
    return {sum_dtype(in[0].dtype(), dtype),
            reduced_sizes(in[0].sizes(), reduced_mask("sum", dim, in[0].dim()), keepdim)};
  }
  void eval(Inputs in, Tensor& out) const {
    kernels::reduce(kernels::ReduceOp::kSum, keepdim_view(out, in[0].sizes(), reduced_mask("sum", dim, in[0].dim())),
                    in[0].view());
  }
  Grads vjp(const Vjp& c) const { return {unreduce(c.grad[0], c.in[0].sizes(), dim, keepdim)}; }
};
DS_OP(Sum);
Tensor sum(const Tensor& input, Opt<Dims> dim, bool keepdim) { return apply(Sum{dim, keepdim, {}}, input); }

Tensor sum_to_size(const Tensor& input, const Dims& size) {
  if (input.sizes() == size) return input;
  const int lead = input.dim() - size.size();
  Dims dims;
  for (int i = 0; i < input.dim(); ++i)
    if (i < lead || (size[i - lead] == 1 && input.sizes()[i] != 1)) dims.push_back(i);
  DS_CHECK(lead >= 0, "size {", size, "} is not expandable to size {", input.sizes(), "}.");
  return reshape(dims.empty() ? input : sum(input, dims, true), size);
}
DS_BODY(SumToSize, "sum_to_size(Tensor input, int[]* size) -> Tensor",
        "Broadcast dims summed until the shape is `size`.", false, kMethod, Dims size;) {
  if (size.empty()) return sum(in[0]);
  DS_CHECK(broadcast_sizes("sum_to_size", in[0].sizes(), size) == in[0].sizes(), "size {", size,
           "} is not expandable to size {", in[0].sizes(), "}.");
  return sum_to_size(in[0], size);
}

struct Mean {
  Opt<Dims> dim;
  bool keepdim = false;
  Opt<DType> dtype;
  static constexpr OpInfo info{
      .schema = "mean(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
      .doc = "Arithmetic mean over dims (floating dtypes); NaN for no elements.",
      .saves = Saves::kNone};
  bool operator==(const Mean&) const = default;
  Meta infer(Inputs in) const {
    check_reducible("mean", in[0].dtype());
    const DType t = dtype.value_or(in[0].dtype());
    DS_CHECK(
        is_floating(t),
        "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: ",
        name_of(t));
    return {t, reduced_sizes(in[0].sizes(), reduced_mask("mean", dim, in[0].dim()), keepdim)};
  }
  void eval(Inputs in, Tensor& out) const {
    const unsigned mask = reduced_mask("mean", dim, in[0].dim());
    const DType compute = is_reduced_float(out.dtype()) ? DType::kFloat32 : out.dtype();
    const Tensor total = compute == out.dtype() ? out : Tensor::empty(out.sizes(), compute);
    kernels::reduce(kernels::ReduceOp::kSum, keepdim_view(total, in[0].sizes(), mask), in[0].view());
    const Tensor pair[] = {total, scalar(static_cast<double>(reduced_count(in[0].sizes(), mask)))};
    pointwise_eval(kernels::Pointwise::kDiv, Rule::kFloat, pair, out);
  }
  Grads vjp(const Vjp& c) const {
    const Dims& sizes = c.in[0].sizes();
    const double n = static_cast<double>(reduced_count(sizes, reduced_mask("mean", dim, sizes.size())));
    return {unreduce(c.grad[0] / n, sizes, dim, keepdim)};
  }
};
DS_OP(Mean);
Tensor mean(const Tensor& input, Opt<Dims> dim, bool keepdim) { return apply(Mean{dim, keepdim, {}}, input); }

// --- products

namespace {
// Product of all other elements along a dim: products from the left times products from the right. Right for zeros,
// too.
Tensor product_of_others(const Tensor& x, int64_t dim) {
  const int64_t n = x.size(dim);
  if (n == 1) return ones_like(x);
  const auto before = [&](const Tensor& t) {
    const Tensor first = slice(t, dim, 0, 1);
    const Tensor parts[] = {ones_like(first), slice(cumprod(t, dim), dim, 0, n - 1)};
    return cat(parts, dim);
  };
  return before(x) * flip(before(flip(x, {dim})), {dim});
}
}  // namespace

struct ProdDim {
  int64_t dim;
  bool keepdim = false;
  Opt<DType> dtype;
  static constexpr OpInfo info{
      .schema = "prod.dim(Tensor input, int dim, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
      .doc = "Product along a dim.",
      .autocast = Autocast::kFloat32};
  bool operator==(const ProdDim&) const = default;
  Meta infer(Inputs in) const {
    check_reducible("prod", in[0].dtype());
    return {sum_dtype(in[0].dtype(), dtype),
            reduced_sizes(in[0].sizes(), reduced_mask("prod", Dims{dim}, in[0].dim()), keepdim)};
  }
  void eval(Inputs in, Tensor& out) const {
    kernels::reduce(kernels::ReduceOp::kProd,
                    keepdim_view(out, in[0].sizes(), reduced_mask("prod", Dims{dim}, in[0].dim())), in[0].view());
  }
  Grads vjp(const Vjp& c) const {
    const Tensor& x = c.in[0];
    if (x.dim() == 0) return {c.grad[0]};
    return {unreduce(c.grad[0], x.sizes(), Dims{dim}, keepdim) *
            product_of_others(conj(to_dtype(x, c.out[0].dtype())), dim)};
  }
};
DS_OP(ProdDim);

DS_BODY(Prod, "prod(Tensor input, *, dtype? dtype=None) -> Tensor", "Product of all elements.", false, kBoth,
        Opt<DType> dtype;) {
  return apply(ProdDim{0, false, dtype}, in[0].dim() == 1 ? in[0] : reshape(in[0], {-1}));
}

// --- extremes: the gradient is shared evenly among equal extremes

template <kernels::ReduceOp kOp>
struct Extreme {
  Meta extreme_meta(const char* op, Inputs in, const Opt<Dims>& dim, bool keepdim) const {
    check_reducible(op, in[0].dtype());
    const unsigned mask = reduced_mask(op, dim, in[0].dim());
    DS_CHECK(!dim || !(*dim).empty() || in[0].numel() > 0, op,
             "(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the "
             "'dim' argument.");
    for (int i = 0; i < in[0].dim(); ++i)
      DS_CHECK_AS(IndexError, !(mask >> i & 1) || in[0].sizes()[i] != 0, op, "(): Expected reduction dim ", i,
                  " to have non-zero size.");
    return {in[0].dtype(), reduced_sizes(in[0].sizes(), mask, keepdim)};
  }
};
#define DS_EXTREME(S, name, Name, kop, what)                                                                           \
  struct S {                                                                                                           \
    Dims dim;                                                                                                          \
    bool keepdim = false;                                                                                              \
    static constexpr OpInfo info{.schema = #name "(Tensor input, int[] dim=[], bool keepdim=False) -> Tensor",         \
                                 .doc = what " over dims; NaN wins. Ties share the gradient.",                         \
                                 .saves = Saves::kInputsOutput};                                                       \
    bool operator==(const S&) const = default;                                                                         \
    Meta infer(Inputs in) const { return Extreme<kernels::ReduceOp::kop>{}.extreme_meta(#name, in, dim, keepdim); }    \
    void eval(Inputs in, Tensor& out) const {                                                                          \
      kernels::reduce(kernels::ReduceOp::kop, keepdim_view(out, in[0].sizes(), reduced_mask(#name, dim, in[0].dim())), \
                      in[0].view());                                                                                   \
    }                                                                                                                  \
    Grads vjp(const Vjp& c) const {                                                                                    \
      const Dims& sizes = c.in[0].sizes();                                                                             \
      const Tensor hit = to_dtype(eq(c.in[0], kept(c.out[0], sizes, dim, keepdim)), c.grad[0].dtype());                \
      return {unreduce(c.grad[0], sizes, dim, keepdim) * (hit / sum(hit, dim, true))};                                 \
    }                                                                                                                  \
  };                                                                                                                   \
  DS_OP(S);                                                                                                            \
  DS_BODY(Name##All, #Name "(Tensor input) -> Tensor", what " of all elements.", false, kBoth, ) {                     \
    DS_CHECK(in[0].numel() > 0, #Name                                                                                  \
             "(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the "  \
             "'dim' argument.");                                                                                       \
    return apply(S{{}, false}, in[0]);                                                                                 \
  }                                                                                                                    \
  struct Name##Dim {                                                                                                   \
    int64_t dim;                                                                                                       \
    bool keepdim = false;                                                                                              \
    static constexpr OpInfo info{                                                                                      \
        .schema = #Name ".dim(Tensor input, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",          \
        .doc = what " along a dim and its first position.",                                                            \
        .saves = Saves::kOutput};                                                                                      \
    bool operator==(const Name##Dim&) const = default;                                                                 \
    std::array<Meta, 2> infer(Inputs in) const {                                                                       \
      const Meta m = Extreme<kernels::ReduceOp::kop>{}.extreme_meta(#Name, in, Dims{dim}, keepdim);                    \
      return {m, Meta{DType::kInt64, m.sizes}};                                                                        \
    }                                                                                                                  \
    void eval(Inputs in, std::span<Tensor> out) const {                                                                \
      extreme_with_index(in[0], out, dim, kernels::ReduceOp::kop == kernels::ReduceOp::kMax);                          \
    }                                                                                                                  \
    Grads vjp(const Vjp& c) const { return {value_selecting_vjp(c, dim, keepdim)}; }                                   \
  };                                                                                                                   \
  DS_OP(Name##Dim);

namespace {
void extreme_with_index(const Tensor& in, std::span<Tensor> out, int64_t dim, bool is_max) {
  if (in.dim() == 0) {
    kernels::copy(out[0].view(), in.view());
    *out[1].data<int64_t>() = 0;
    return;
  }
  const unsigned mask = reduced_mask("max", Dims{dim}, in.dim());
  kernels::min_max_with_index(keepdim_view(out[0], in.sizes(), mask), keepdim_view(out[1], in.sizes(), mask), in.view(),
                              wrap_dim("max", dim, in.dim()), is_max);
}
}  // namespace

Tensor value_selecting_vjp(const Vjp& c, int64_t dim, bool keepdim) {
  const Tensor &x = c.in[0], &indices = c.out[1];
  if (x.dim() == 0) return c.grad[0];
  const Tensor g = keepdim ? c.grad[0] : unsqueeze(c.grad[0], dim);
  return scatter_add(zeros(x.sizes(), g.dtype()), dim, keepdim ? indices : unsqueeze(indices, dim), g);
}

DS_EXTREME(Amax, amax, max, kMax, "Largest value")
DS_EXTREME(Amin, amin, min, kMin, "Smallest value")
Tensor amax(const Tensor& input, Dims dim, bool keepdim) { return apply(Amax{dim, keepdim}, input); }

// Their names sort before max.dim, so that a 0-d integer tensor is the other operand and no dim.
DS_BODY(MaxOther, "max.binary(Tensor input, Tensor other) -> Tensor",
        "The larger one of each two elements, as maximum() gives it.", false, kBoth, ) {
  return maximum(in[0], in[1]);
}
DS_BODY(MinOther, "min.binary(Tensor input, Tensor other) -> Tensor",
        "The smaller one of each two elements, as minimum() gives it.", false, kBoth, ) {
  return minimum(in[0], in[1]);
}

#define DS_ARG(S, name, is_max, what)                                                                                  \
  struct S {                                                                                                           \
    Opt<int64_t> dim;                                                                                                  \
    bool keepdim = false;                                                                                              \
    static constexpr OpInfo info{.schema = #name "(Tensor input, int? dim=None, bool keepdim=False) -> Tensor",        \
                                 .doc = "First position of the " what " (of the flattened input without dim), int64.", \
                                 .differentiable = false};                                                             \
    bool operator==(const S&) const = default;                                                                         \
    Meta infer(Inputs in) const {                                                                                      \
      check_reducible(#name, in[0].dtype());                                                                           \
      DS_CHECK(in[0].dtype() != DType::kBool, #name "(): does not support bool input; convert to uint8 first");        \
      DS_CHECK_AS(IndexError, (dim ? in[0].dim() == 0 || in[0].size(*dim) > 0 : in[0].numel() > 0),                    \
                  #name                                                                                                \
                  "(): Expected reduction dim to be specified for input.numel() == 0, or to have non-zero size.");     \
      const unsigned mask = dim ? reduced_mask(#name, Dims{*dim}, in[0].dim()) : ~0u;                                  \
      return {DType::kInt64, reduced_sizes(in[0].sizes(), mask, keepdim)};                                             \
    }                                                                                                                  \
    void eval(Inputs in, Tensor& out) const { arg_extreme(in[0], out, dim, is_max); }                                  \
  };                                                                                                                   \
  DS_OP(S);

namespace {
void arg_extreme(const Tensor& in, Tensor& out, const Opt<int64_t>& dim, bool is_max) {
  if (dim && in.dim() > 0) {
    const unsigned mask = reduced_mask("argmax", Dims{*dim}, in.dim());
    return kernels::arg_reduce(keepdim_view(out, in.sizes(), mask), in.view(), wrap_dim("argmax", *dim, in.dim()),
                               is_max);
  }
  const Tensor flat = in.is_contiguous() ? in : Tensor::empty(in.sizes(), in.dtype());
  if (!flat.is(in)) kernels::copy(flat.view(), in.view());
  kernels::arg_reduce({out.data_ptr(), DType::kInt64, {1}, {1}}, {flat.data_ptr(), in.dtype(), {in.numel()}, {1}}, 0,
                      is_max);
}
}  // namespace
DS_ARG(Argmax, argmax, true, "largest element")
DS_ARG(Argmin, argmin, false, "smallest element")
Tensor argmax(const Tensor& input, Opt<int64_t> dim, bool keepdim) { return apply(Argmax{dim, keepdim}, input); }

#define DS_TRUTH(S, name, kop, what)                                                                              \
  struct S {                                                                                                      \
    Opt<Dims> dim;                                                                                                \
    bool keepdim = false;                                                                                         \
    static constexpr OpInfo info{.schema = #name "(Tensor input, int[]? dim=None, bool keepdim=False) -> Tensor", \
                                 .doc = what,                                                                     \
                                 .differentiable = false};                                                        \
    bool operator==(const S&) const = default;                                                                    \
    Meta infer(Inputs in) const {                                                                                 \
      return {in[0].dtype() == DType::kUInt8 ? DType::kUInt8 : DType::kBool,                                      \
              reduced_sizes(in[0].sizes(), reduced_mask(#name, dim, in[0].dim()), keepdim)};                      \
    }                                                                                                             \
    void eval(Inputs in, Tensor& out) const {                                                                     \
      View v = keepdim_view(out, in[0].sizes(), reduced_mask(#name, dim, in[0].dim()));                           \
      v.dtype = DType::kBool;                                                                                     \
      kernels::reduce(kernels::ReduceOp::kop, v, in[0].view());                                                   \
    }                                                                                                             \
  };                                                                                                              \
  DS_OP(S);
DS_TRUTH(Any, any, kAny, "True if any element is non-zero.")
DS_TRUTH(All, all, kAll, "True if no element is zero.")

Tensor all(const Tensor& input, Opt<Dims> dim, bool keepdim) { return apply(All{dim, keepdim}, input); }
Tensor any(const Tensor& input, Opt<Dims> dim, bool keepdim) { return apply(Any{dim, keepdim}, input); }

// --- NaN counting as nothing

DS_BODY(NanSum, "nansum(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
        "Sum over dims, NaN counting as zero.", false, kBoth, Opt<Dims> dim;
        bool keepdim; Opt<DType> dtype;) {
  return apply(Sum{dim, keepdim, dtype}, masked_fill(in[0], isnan(in[0]), scalar(0)));
}
DS_BODY(NanMean, "nanmean(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
        "Mean over dims of the elements that are not NaN.", false, kBoth, Opt<Dims> dim;
        bool keepdim; Opt<DType> dtype;) {
  return NanSum{dim, keepdim, dtype}.body(in) / sum(logical_not(isnan(in[0])), dim, keepdim);
}

}  // namespace deepseek
