// Indexed reads and writes along one dim, and advanced indexing.
#include "kernels/index/index.h"

#include <algorithm>

#include "core/dispatch/promotion.h"
#include "kernels/index/embedding.h"
#include "kernels/loops/copy.h"
#include "ops/composite.h"

namespace deepseek {
namespace {

constexpr OpInfo index_info(const char* schema, const char* doc, Saves saves, bool inplace = false,
                            Shown shown = Shown::kBoth, Autocast autocast = Autocast::kNone) {
  return {.schema = schema,
          .doc = doc,
          .autocast = autocast,
          .saves = saves,
          .inplace = inplace,
          .writes_part = inplace,
          .shown = shown};
}

void check_index_dtype(const char* op, const Tensor& index, bool allow_int32 = false) {
  DS_CHECK(index.numel() == 0 || index.dtype() == DType::kInt64 || (allow_int32 && index.dtype() == DType::kInt32), op,
           "(): Expected dtype int64 for index, but got ", name_of(index.dtype()));
}

// gather and scatter: index no larger than `bound` in any dim but `dim`.
void check_index_shape(const char* op, const Tensor& index, const Tensor& bound, const char* bound_name, int dim,
                       bool skip_dim) {
  const Dims& a = index.sizes();
  const Dims& b = bound.sizes();
  if (index.numel() == 0) return;
  DS_CHECK(std::max(index.dim(), 1) == std::max(bound.dim(), 1), op,
           "(): Index tensor must have the same number of dimensions as ", bound_name, " tensor; got ", index.dim(),
           " and ", bound.dim());
  for (int i = 0; i < std::min(a.size(), b.size()); ++i)
    DS_CHECK((skip_dim && i == dim) || a[i] <= b[i], op, "(): Size does not match at dimension ", i,
             ": expected index ", a, " to be no larger than ", bound_name, " ", b,
             skip_dim ? " apart from dimension " : "", skip_dim ? std::to_string(dim) : "");
}

// A 0-d tensor seen as 1-d, for kernels.
View at_least_1d(const Tensor& t) {
  View v = t.view();
  if (v.ndim() == 0) {
    v.sizes = {1};
    v.strides = {1};
  }
  return v;
}

int64_t size_along(const Tensor& t, int dim) { return t.dim() == 0 ? 1 : t.sizes()[dim]; }

// A position out of range in gather and scatter is a RuntimeError in PyTorch; elsewhere it is an IndexError.
void check_positions(const char* op, const Tensor& index, int64_t size, int dim) {
  try {
    kernels::check_indices(op, index.view(), size, dim, false);
  } catch (const IndexError& e) {
    fail(e.what());
  }
}

}  // namespace

struct Gather {
  int64_t dim;
  static constexpr OpInfo info = index_info("gather(Tensor input, int dim, Tensor index) -> Tensor",
                                            "out[i][j] = input[index[i][j]][j] for dim 0, and so on.", Saves::kRest);
  bool operator==(const Gather&) const = default;
  Meta infer(Inputs in) const {
    const int d = wrap_dim("gather", dim, in[0].dim());
    check_index_dtype("gather", in[1], true);
    check_index_shape("gather", in[1], in[0], "self", d, true);
    return {in[0].dtype(), in[1].sizes()};
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    const int d = wrap_dim("gather", dim, in[0].dim());
    check_positions("gather", in[1], size_along(in[0], d), d);
    kernels::gather(at_least_1d(out), at_least_1d(in[0]), at_least_1d(in[1]), d);
  }
  Grads vjp(const Vjp& c) const {
    return {scatter_add(zeros(c.in[0].sizes(), c.grad[0].dtype()), dim, c.in[1], c.grad[0])};
  }
};
DS_OP(Gather);
Tensor gather(const Tensor& input, int64_t dim, const Tensor& index) { return apply(Gather{dim}, input, index); }

namespace {
Meta scatter_meta(const char* op, Inputs in, int64_t dim) {
  const int d = wrap_dim(op, dim, in[0].dim());
  check_index_dtype(op, in[1], true);
  check_index_shape(op, in[1], in[0], "self", d, true);
  const bool value = in[2].cell()->wrapped_number || (in[2].dim() == 0 && in[1].dim() > 0);
  check_number_fits(in[2], in[0].dtype());
  if (!value) {
    check_index_shape(op, in[1], in[2], "src", d, false);
    DS_CHECK(in[2].dtype() == in[0].dtype(), op, "(): Expected self.dtype to be equal to src.dtype; got ",
             name_of(in[0].dtype()), " and ", name_of(in[2].dtype()));
  }
  return {in[0].dtype(), in[0].sizes()};
}

void scatter_eval(const char* op, Inputs in, int64_t dim, Tensor& out, kernels::ScatterMode mode) {
  kernels::copy(out.view(), in[0].view());
  if (in[1].numel() == 0) return;
  const int d = wrap_dim(op, dim, in[0].dim());
  check_positions(op, in[1], size_along(in[0], d), d);
  Tensor src = in[2];
  if (src.dtype() != out.dtype()) {
    src = Tensor::empty(in[2].sizes(), out.dtype());
    kernels::copy(src.view(), in[2].view());
  }
  View v = src.dim() == 0 ? src.view_as(in[1].sizes()) : src.view();
  View index = in[1].view();
  if (index.ndim() == 0) index = at_least_1d(in[1]);
  if (v.ndim() == 0) v = {v.data, v.dtype, {1}, {1}};
  v.sizes = index.sizes;  // src may be larger than index
  kernels::scatter(at_least_1d(out), index, v, d, mode);
}
}  // namespace

struct Scatter {
  int64_t dim;
  static constexpr OpInfo info =
      index_info("scatter(Tensor input, int dim, Tensor index, Tensor|Number src) -> Tensor",
                 "input with src (a tensor or a number) written at index along dim.", Saves::kRest, true);
  bool operator==(const Scatter&) const = default;
  Meta infer(Inputs in) const { return scatter_meta("scatter", in, dim); }
  void eval(Inputs in, Tensor& out) const { scatter_eval("scatter", in, dim, out, kernels::ScatterMode::kSet); }
  Grads vjp(const Vjp& c) const {
    const Tensor &g = c.grad[0], &index = c.in[1];
    return {c.need(0) ? scatter(g, dim, index, scalar(0.0)) : Tensor(), Tensor(),
            c.need(2) ? scatter_source_vjp(g, index, c.in[2]) : Tensor()};
  }
  Tensor scatter_source_vjp(const Tensor& g, const Tensor& index, const Tensor& src) const {
    const Tensor picked = gather(g, dim, index);
    if (picked.sizes() == src.sizes() || src.dim() == 0) return picked;
    Dims strides = contiguous_strides(src.sizes());  // src larger than index: the rest gets zero
    return apply(AsStridedScatter{index.sizes(), strides, 0}, zeros(src.sizes(), g.dtype()), picked);
  }
};
DS_OP(Scatter);
Tensor scatter(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& src) {
  return apply(Scatter{dim}, input, index, src);
}

DS_BODY(ScatterValue, "scatter.value(Tensor input, int dim, Tensor index, *, Tensor|Number value) -> Tensor",
        "input with a number written at index.", true, kBoth, int64_t dim;) {
  return scatter(in[0], dim, in[1], in[2]);
}

struct ScatterAdd {
  int64_t dim;
  static constexpr OpInfo info =
      index_info("scatter_add(Tensor input, int dim, Tensor index, Tensor|Number src) -> Tensor",
                 "input with src added at index along dim, in index order.", Saves::kRest, true);
  bool operator==(const ScatterAdd&) const = default;
  Meta infer(Inputs in) const { return scatter_meta("scatter_add", in, dim); }
  void eval(Inputs in, Tensor& out) const { scatter_eval("scatter_add", in, dim, out, kernels::ScatterMode::kSum); }
  Grads vjp(const Vjp& c) const {
    return {c.grad[0], Tensor(), c.need(2) ? Scatter{dim}.scatter_source_vjp(c.grad[0], c.in[1], c.in[2]) : Tensor()};
  }
};
DS_OP(ScatterAdd);
Tensor scatter_add(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& src) {
  return apply(ScatterAdd{dim}, input, index, src);
}

struct ScatterMultiply {
  int64_t dim;
  static constexpr OpInfo info{.schema = "_scatter_multiply(Tensor input, int dim, Tensor index, Tensor src) -> Tensor",
                               .doc = "input multiplied by src at index along dim.",
                               .differentiable = false,
                               .shown = Shown::kHidden};
  bool operator==(const ScatterMultiply&) const = default;
  Meta infer(Inputs in) const { return scatter_meta("scatter", in, dim); }
  void eval(Inputs in, Tensor& out) const { scatter_eval("scatter", in, dim, out, kernels::ScatterMode::kProd); }
};
DS_OP(ScatterMultiply);

namespace {
Tensor scatter_reduced(Inputs in, int64_t dim, const Str& reduce) {
  if (reduce == "add") return apply(ScatterAdd{dim}, in[0], in[1], in[2]);
  DS_CHECK(reduce == "multiply", "reduce argument must be either add or multiply, got '", reduce.view(), "'");
  return apply(ScatterMultiply{dim}, in[0], in[1], in[2]);
}
}  // namespace
DS_BODY(ScatterReduce,
        "scatter.reduce(Tensor input, int dim, Tensor index, Tensor|Number src, *, str reduce) -> Tensor",
        "input with src added (reduce='add') or multiplied (reduce='multiply', no gradient) at index.", true, kBoth,
        int64_t dim;
        Str reduce;) {
  return scatter_reduced(in, dim, reduce);
}
DS_BODY(ScatterValueReduce,
        "scatter.value_reduce(Tensor input, int dim, Tensor index, *, Tensor|Number value, str reduce) -> Tensor",
        "input with a number added or multiplied at index.", true, kBoth, int64_t dim;
        Str reduce;) {
  return scatter_reduced(in, dim, reduce);
}

struct IndexSelect {
  int64_t dim;
  static constexpr OpInfo info = index_info("index_select(Tensor input, int dim, Tensor index) -> Tensor",
                                            "The listed entries of a dim.", Saves::kRest);
  bool operator==(const IndexSelect&) const = default;
  Meta infer(Inputs in) const {
    const int d = wrap_dim("index_select", dim, in[0].dim());
    DS_CHECK_AS(IndexError, in[1].dim() <= 1,
                "index_select(): Index is supposed to be a vector, but got dim: ", in[1].dim());
    check_index_dtype("index_select", in[1], true);
    Dims sizes = in[0].sizes();
    if (!sizes.empty()) sizes[d] = in[1].numel();
    return {in[0].dtype(), sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    const int d = wrap_dim("index_select", dim, in[0].dim());
    kernels::check_indices("index_select", in[1].view(), size_along(in[0], d), d, false);
    if (out.numel() > 0) kernels::index_select(at_least_1d(out), at_least_1d(in[0]), d, at_least_1d(in[1]));
  }
  Grads vjp(const Vjp& c) const {
    return {index_add(zeros(c.in[0].sizes(), c.grad[0].dtype()), dim, c.in[1], c.grad[0])};
  }
};
DS_OP(IndexSelect);
Tensor index_select(const Tensor& input, int64_t dim, const Tensor& index) {
  return apply(IndexSelect{dim}, input, index);
}

namespace {
Meta index_write_meta(const char* op, Inputs in, int64_t dim) {
  const int d = wrap_dim(op, dim, in[0].dim());
  DS_CHECK_AS(IndexError, in[1].dim() <= 1, op, "(): Index is supposed to be a vector, but got dim: ", in[1].dim());
  check_index_dtype(op, in[1], true);
  DS_CHECK(in[0].dtype() == in[2].dtype(), op, "(): self (", name_of(in[0].dtype()), ") and source (",
           name_of(in[2].dtype()), ") must have the same scalar type");
  Dims want = in[0].sizes();
  if (!want.empty()) want[d] = in[1].numel();
  DS_CHECK(in[2].sizes() == want || (in[0].dim() <= 1 && in[2].numel() == in[1].numel()), op, "(): source of shape ",
           in[2].sizes(), " does not match the selected part of input, ", want);
  return {in[0].dtype(), in[0].sizes()};
}
}  // namespace

struct IndexAdd {
  int64_t dim;
  Scalar alpha = 1;
  static constexpr OpInfo info =
      index_info("index_add(Tensor input, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor",
                 "input with alpha * source added to the listed entries of a dim, in index order.", Saves::kRest, true);
  bool operator==(const IndexAdd&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(!(alpha.is_float() && is_exact(in[0].dtype())),
             "index_add: For integral input tensors, argument alpha must not be a floating point number.");
    check_fits(alpha, in[0].dtype());
    return index_write_meta("index_add", in, dim);
  }
  void eval(Inputs in, Tensor& out) const {
    const int d = wrap_dim("index_add", dim, in[0].dim());
    kernels::copy(out.view(), in[0].view());
    kernels::check_indices("index_add", in[1].view(), size_along(in[0], d), d, false);
    if (in[2].numel() > 0) kernels::index_add(at_least_1d(out), d, at_least_1d(in[1]), at_least_1d(in[2]), alpha);
  }
  Grads vjp(const Vjp& c) const {
    Tensor source;
    if (c.need(2)) source = reshape(index_select(c.grad[0], dim, c.in[1]) * scalar(alpha), c.in[2].sizes());
    return {c.grad[0], Tensor(), source};
  }
};
DS_OP(IndexAdd);
Tensor index_add(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& source) {
  return apply(IndexAdd{dim, 1}, input, index, source);
}

struct IndexCopy {
  int64_t dim;
  static constexpr OpInfo info = index_info("index_copy(Tensor input, int dim, Tensor index, Tensor source) -> Tensor",
                                            "input with the listed entries of a dim replaced by source.", Saves::kRest,
                                            true, Shown::kBoth, Autocast::kPromote);
  bool operator==(const IndexCopy&) const = default;
  Meta infer(Inputs in) const { return index_write_meta("index_copy", in, dim); }
  void eval(Inputs in, Tensor& out) const {
    const int d = wrap_dim("index_copy", dim, in[0].dim());
    kernels::copy(out.view(), in[0].view());
    kernels::check_indices("index_copy", in[1].view(), size_along(in[0], d), d, false);
    if (in[2].numel() > 0) kernels::index_copy(at_least_1d(out), d, at_least_1d(in[1]), at_least_1d(in[2]));
  }
  Grads vjp(const Vjp& c) const {
    const Tensor& g = c.grad[0];
    return {c.need(0) ? apply(*this, g, c.in[1], zeros(c.in[2].sizes(), g.dtype())) : Tensor(), Tensor(),
            c.need(2) ? reshape(index_select(g, dim, c.in[1]), c.in[2].sizes()) : Tensor()};
  }
};
DS_OP(IndexCopy);

DS_BODY(IndexFill, "index_fill(Tensor input, int dim, Tensor index, Tensor|Number value) -> Tensor",
        "input with the listed entries of a dim set to a number.", true, kBoth, int64_t dim;) {
  DS_CHECK(in[2].dim() == 0, "index_fill_ only supports a 0-dimensional value tensor, but got tensor with ",
           in[2].dim(), " dimension(s).");
  check_number_fits(in[2], in[0].dtype());
  const int d = wrap_dim("index_fill", dim, in[0].dim());
  const int64_t length = size_along(in[0], d);
  const Tensor index = where(lt(in[1], 0), in[1] + length, in[1]);  // negative: from the end
  // By a mask, so that an entry listed twice counts once in value's gradient.
  Tensor filled = zeros({length}, DType::kBool);
  filled = apply(IndexCopy{0}, filled, index, ones({index.numel()}, DType::kBool));
  Dims along = Dims::filled(in[0].dim(), 1);
  if (!along.empty()) along[d] = length;
  return where(reshape(filled, along), to_dtype(in[2], in[0].dtype()), in[0]);
}

DS_BODY(TakeAlongDim, "take_along_dim(Tensor input, Tensor indices, int? dim=None) -> Tensor",
        "gather, with the two broadcast outside dim.", false, kBoth, Opt<int64_t> dim;) {
  if (!dim) return gather(flatten(in[0], 0, -1), 0, flatten(in[1], 0, -1));
  DS_CHECK(in[0].dim() == in[1].dim(),
           "take_along_dim(): input and indices should have the same number of dimensions, but got ", in[0].dim(),
           " dimensions for input, and ", in[1].dim(), " dimensions for indices");
  const int d = wrap_dim("take_along_dim", *dim, in[0].dim());
  Dims a = in[0].sizes(), b = in[1].sizes();
  a[d] = b[d] = 1;
  const Dims both = broadcast_sizes("take_along_dim", a, b);
  a = b = both;
  a[d] = in[0].sizes()[d];
  b[d] = in[1].sizes()[d];
  const Tensor at = where(lt(in[1], 0), in[1] + a[d], in[1]);  // negative: from the end
  return gather(expand(in[0], a), d, expand(at, b));
}

DS_BODY(Take, "take(Tensor input, Tensor index) -> Tensor",
        "Elements of the flattened input; negative indices count from the end.", false, kBoth, ) {
  check_index_dtype("take", in[1]);
  const Tensor flat = flatten(in[0], 0, -1);
  return index(flat, TensorList{in[1]});
}

// The public form, in Python, has found or checked the number of classes.
struct OneHot {
  int64_t num_classes;
  static constexpr OpInfo info{.schema = "_one_hot(Tensor input, int num_classes) -> Tensor",
                               .doc = "Ones at the classes, zeros elsewhere.",
                               .differentiable = false,
                               .shown = Shown::kHidden};
  bool operator==(const OneHot&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(in[0].dtype() == DType::kInt64, "one_hot is only applicable to index tensor of type LongTensor, got ",
             name_of(in[0].dtype()));
    DS_CHECK(num_classes >= 0, "Class values must be smaller than num_classes: got num_classes=", num_classes);
    Dims sizes = in[0].sizes();
    sizes.push_back(num_classes);
    return {DType::kInt64, sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    const Tensor classes = Tensor::empty(in[0].sizes(), DType::kInt64);
    kernels::copy(classes.view(), in[0].view());
    const int64_t *c = classes.data<int64_t>(), n = classes.numel();
    if (n == 0) return;
    const auto [least, largest] = std::minmax_element(c, c + n);
    DS_CHECK(*least >= 0, "Class values must be non-negative.");
    DS_CHECK(*largest < num_classes, "Class values must be smaller than num_classes: ", *largest, " is not below ",
             num_classes, ".");
    int64_t* to = out.data<int64_t>();
    std::fill_n(to, n * num_classes, 0);
    for (int64_t i = 0; i < n; ++i) to[i * num_classes + c[i]] = 1;
  }
};
DS_OP(OneHot);

}  // namespace deepseek
