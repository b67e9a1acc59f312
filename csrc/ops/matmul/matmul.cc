// Matrix products. One kernel op over batches; everything else is shapes around it.
#include "ops/matmul/matmul.h"

#include "core/dispatch/promotion.h"
#include "kernels/gemm/matmul.h"
#include "ops/composite.h"
#include "ops/operands.h"
#include "ops/pointwise/activation.h"

namespace deepseek {
namespace {

void check_dtypes(const char* op, const Tensor& a, const Tensor& b) {
  DS_CHECK(a.dtype() == b.dtype(), op, ": expected m1 and m2 to have the same dtype, but got: ", name_of(a.dtype()),
           " != ", name_of(b.dtype()));
}

View broadcast_batch(const Tensor& t, const Dims& batch) {
  if (batch.empty()) return t.view();
  Dims sizes = batch;
  sizes.push_back(t.sizes()[t.dim() - 2]);
  sizes.push_back(t.sizes()[t.dim() - 1]);
  return t.view_as(sizes);
}

}  // namespace

struct BatchMatmul {
  static constexpr OpInfo info{.schema = "_batch_matmul(Tensor input, Tensor mat2) -> Tensor",
                               .doc = "[..., M, K] @ [..., K, N] for inputs of equal rank; batch dims broadcast.",
                               .autocast = Autocast::kLower,
                               .saves = Saves::kOthers,
                               .shown = Shown::kHidden};
  bool operator==(const BatchMatmul&) const = default;
  Meta infer(Inputs in) const {
    const Tensor &a = in[0], &b = in[1];
    check_dtypes("matmul", a, b);
    const int n = a.dim();
    DS_CHECK(n == b.dim() && n >= 2, "matmul: internal ranks differ");
    DS_CHECK(a.sizes()[n - 1] == b.sizes()[n - 2], "mat1 and mat2 shapes cannot be multiplied (", a.sizes()[n - 2], "x",
             a.sizes()[n - 1], " and ", b.sizes()[n - 2], "x", b.sizes()[n - 1], "); got shapes ", a.sizes(), " and ",
             b.sizes(), ": ", a.sizes()[n - 1], " != ", b.sizes()[n - 2],
             b.sizes()[n - 1] == a.sizes()[n - 1] ? "; did you mean a @ b.mT?" : "");
    if (n == 2) return {a.dtype(), {a.sizes()[0], b.sizes()[1]}};
    Dims sizes =
        broadcast_sizes("matmul", Dims(std::span(a.sizes().begin(), n - 2)), Dims(std::span(b.sizes().begin(), n - 2)));
    sizes.push_back(a.sizes()[n - 2]);
    sizes.push_back(b.sizes()[n - 1]);
    return {a.dtype(), sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    if (out.dim() == 2) return kernels::matmul(out.view(), in[0].view(), in[1].view());
    const Dims batch(std::span(out.sizes().begin(), out.dim() - 2));
    kernels::matmul(out.view(), broadcast_batch(in[0], batch), broadcast_batch(in[1], batch));
  }
  Grads vjp(const Vjp& c) const {
    const Tensor& g = c.grad[0];
    return {c.need(0) ? gradient(c.in[0], g, transposed(conj(c.in[1]))) : Tensor(),
            c.need(1) ? gradient(c.in[1], transposed(conj(c.in[0])), g) : Tensor()};
  }

 private:
  static Tensor transposed(const Tensor& t) { return transpose(t, -2, -1); }
  // a @ b in the layout of the operand it is the gradient of: that of a transposed matrix becomes, on its way back, a
  // contiguous one, to which others are added row by row.
  Tensor gradient(const Tensor& operand, const Tensor& a, const Tensor& b) const {
    const Dims& strides = operand.strides();
    const bool by_columns = strides[operand.dim() - 2] == 1 && strides[operand.dim() - 1] != 1;
    return by_columns ? transposed(apply(*this, transposed(b), transposed(a))) : apply(*this, a, b);
  }
};
DS_OP(BatchMatmul);

namespace {
Tensor product(const Tensor& a, const Tensor& b) { return apply(BatchMatmul{}, a, b); }

// Leading dims folded into rows: one large product instead of many small ones.
Tensor fold_rows(const Tensor& a, const Tensor& b) {
  Dims out = a.sizes();
  out.back() = b.sizes()[1];
  return reshape(product(reshape(a, {-1, a.sizes().back()}), b), out);
}

Tensor lead_ones(const Tensor& t, int ndim) {
  if (t.dim() == ndim) return t;
  Dims sizes = t.sizes();
  while (sizes.size() < ndim) sizes.insert(0, 1);
  return reshape(t, sizes);
}
}  // namespace

struct Dot {
  static constexpr OpInfo info{.schema = "dot(Tensor input, Tensor tensor) -> Tensor",
                               .doc = "Inner product of two vectors.",
                               .saves = Saves::kOthers};
  bool operator==(const Dot&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(in[0].dim() == 1 && in[1].dim() == 1, "1D tensors expected, but got ", in[0].dim(), "D and ", in[1].dim(),
             "D tensors");
    check_dtypes("dot", in[0], in[1]);
    DS_CHECK(in[0].sizes() == in[1].sizes(), "inconsistent tensor size, expected tensor ", in[0].sizes(), " and src ",
             in[1].sizes(), " to have the same number of elements, but got ", in[0].numel(), " and ", in[1].numel(),
             " elements respectively");
    return {in[0].dtype(), {}};
  }
  void eval(Inputs in, Tensor& out) const {
    const int64_t k = in[0].numel();
    const View a{in[0].data_ptr(), in[0].dtype(), {1, k}, {0, in[0].strides()[0]}};
    const View b{in[1].data_ptr(), in[1].dtype(), {k, 1}, {in[1].strides()[0], 0}};
    kernels::matmul({out.data_ptr(), out.dtype(), {1, 1}, {1, 1}}, a, b);
  }
  Grads vjp(const Vjp& c) const {
    return {c.need(0) ? c.grad[0] * conj(c.in[1]) : Tensor(), c.need(1) ? c.grad[0] * conj(c.in[0]) : Tensor()};
  }
};
DS_OP(Dot);

DS_BODY_CAST(kLower, Matmul, "matmul(Tensor input, Tensor other) -> Tensor",
             "Matrix product with PyTorch's rules for 1-d and batched inputs.", false, kBoth, ) {
  const Tensor &a = in[0], &b = in[1];
  DS_CHECK(a.dim() > 0 && b.dim() > 0, "both arguments to matmul need to be at least 1D, but they are ", a.dim(),
           "D and ", b.dim(), "D");
  check_dtypes("matmul", a, b);
  if (a.dim() == 2 && b.dim() == 2) return product(a, b);
  const bool vector_a = a.dim() == 1, vector_b = b.dim() == 1;
  if (vector_a && vector_b) return apply(Dot{}, a, b);
  const Tensor x = vector_a ? unsqueeze(a, 0) : a;
  const Tensor y = vector_b ? unsqueeze(b, 1) : b;
  Tensor out;
  const bool folds = x.dim() > 2 && y.dim() == 2 && x.size(-1) == y.size(0) && x.numel() > 0;
  if (folds)
    out = fold_rows(x, y);
  else
    out = product(lead_ones(x, std::max(x.dim(), y.dim())), lead_ones(y, std::max(x.dim(), y.dim())));
  if (vector_b) out = squeeze(out, -1);
  return vector_a ? squeeze(out, vector_b ? -1 : -2) : out;
}
Tensor matmul(const Tensor& input, const Tensor& other) { return apply(Matmul{}, input, other); }

DS_BODY(Mm, "mm(Tensor input, Tensor mat2) -> Tensor", "Product of two matrices.", false, kBoth, ) {
  DS_CHECK(in[0].dim() == 2, "self must be a matrix");
  DS_CHECK(in[1].dim() == 2, "mat2 must be a matrix");
  return product(in[0], in[1]);
}
namespace {
void check_batches(const Tensor& a, const Tensor& b) {
  DS_CHECK(a.dim() == 3, "batch1 must be a 3D tensor");
  DS_CHECK(b.dim() == 3, "batch2 must be a 3D tensor");
  DS_CHECK(a.sizes()[0] == b.sizes()[0] && a.sizes()[2] == b.sizes()[1],
           "Expected size for first two dimensions of batch2 tensor to be: [", a.sizes()[0], ", ", a.sizes()[2],
           "] but got: [", b.sizes()[0], ", ", b.sizes()[1], "].");
}
void check_matrix_and_vector(const Tensor& a, const Tensor& b) {
  DS_CHECK(a.dim() == 2 && b.dim() == 1, "vector + matrix @ vector expected, got ", a.dim(), ", ", b.dim());
  DS_CHECK(a.sizes()[1] == b.sizes()[0], "size mismatch, got input (", a.sizes()[0], "), mat (", a.sizes()[0], "x",
           a.sizes()[1], "), vec (", b.sizes()[0], ")");
}
}  // namespace
DS_BODY(Bmm, "bmm(Tensor input, Tensor mat2) -> Tensor", "Batched product [B, M, K] @ [B, K, N].", false, kBoth, ) {
  check_batches(in[0], in[1]);
  return product(in[0], in[1]);
}
Tensor bmm(const Tensor& input, const Tensor& mat2) { return Bmm{}.body(std::array{input, mat2}); }
// autocast leaves mv, addmv and dot alone, as PyTorch does.
DS_BODY_CAST(kOff, Mv, "mv(Tensor input, Tensor vec) -> Tensor", "Matrix times vector.", false, kBoth, ) {
  check_matrix_and_vector(in[0], in[1]);
  return matmul(in[0], in[1]);
}
DS_BODY(Outer, "outer(Tensor input, Tensor vec2) -> Tensor", "Products of all pairs of two vectors.", false, kBoth, ) {
  DS_CHECK(in[0].dim() == 1 && in[1].dim() == 1, "outer: Expected 1-D arguments, but got ", in[0].dim(), "-D and ",
           in[1].dim(), "-D");
  return unsqueeze(in[0], 1) * in[1];
}
DS_BODY(Inner, "inner(Tensor input, Tensor other) -> Tensor",
        "Products summed over the last dim of both: shape input.shape[:-1] + other.shape[:-1].", false, kBoth, ) {
  const Tensor &a = in[0], &b = in[1];
  if (a.dim() == 0 || b.dim() == 0) return a * b;
  if (a.dim() == 1 && b.dim() == 1) return apply(Dot{}, a, b);
  DS_CHECK(a.size(-1) == b.size(-1), "inner() the last dimension must match on both input tensors but got shapes ",
           a.sizes(), " and ", b.sizes());
  Dims rows = a.sizes(), columns = b.sizes();
  rows.pop_back(), columns.pop_back();
  const Tensor left = reshape(a, {numel_of(rows), a.size(-1)}), right = reshape(b, {numel_of(columns), b.size(-1)});
  // One number is a dot product as in PyTorch: autocast leaves that in its dtype.
  const bool single = left.size(0) == 1 && right.size(0) == 1 && a.dtype() == b.dtype();
  for (const int64_t n : columns) rows.push_back(n);
  return reshape(single ? apply(Dot{}, select(left, 0, 0), select(right, 0, 0)) : matmul(left, transpose(right, 0, 1)),
                 rows);
}
namespace {
// beta * input + alpha * (a @ b), the factors rounded to the dtype; 16-bit floats are rounded once, at the end.
Tensor scaled_sum(const char* op, const Tensor& input, const Tensor& a, const Tensor& b, Scalar beta, Scalar alpha) {
  const DType t = a.dtype();
  DS_CHECK(input.dtype() == t && b.dtype() == t, op, ": input and both factors must have the same dtype, but got ",
           name_of(input.dtype()), ", ", name_of(t), " and ", name_of(b.dtype()), "; convert with .to(dtype)");
  if (is_reduced_float(t)) {
    const auto wide = [](const Tensor& x) { return to_dtype(x, DType::kFloat32); };
    return to_dtype(scaled_sum(op, wide(input), wide(a), wide(b), beta, alpha), t);
  }
  if (is_exact(t)) {
    beta = beta.to_int();
    alpha = alpha.to_int();
  }
  const Tensor p = matmul(a, b), scaled = alpha.to_double() == 1 ? p : p * scalar(alpha);
  if (beta.to_double() == 0) return scaled;  // NaN in input is ignored, as in BLAS
  return (beta.to_double() == 1 ? input : input * scalar(beta)) + scaled;
}
}  // namespace
DS_BODY_CAST(kLower, Addmm, "addmm(Tensor input, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
             "beta * input + alpha * mat1 @ mat2.", true, kBoth, Scalar beta;
             Scalar alpha;) {
  DS_CHECK(in[1].dim() == 2 && in[2].dim() == 2, "mat1 and mat2 must be matrices, got ", in[1].dim(), "-D and ",
           in[2].dim(), "-D");
  return scaled_sum("addmm", in[0], in[1], in[2], beta, alpha);
}
DS_BODY_CAST(kLower, Baddbmm,
             "baddbmm(Tensor input, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
             "beta * input + alpha * batch1 @ batch2.", true, kBoth, Scalar beta;
             Scalar alpha;) {
  check_batches(in[1], in[2]);
  return scaled_sum("baddbmm", in[0], in[1], in[2], beta, alpha);
}
DS_BODY_CAST(kOff, Addmv, "addmv(Tensor input, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
             "beta * input + alpha * mat @ vec.", true, kBoth, Scalar beta;
             Scalar alpha;) {
  check_matrix_and_vector(in[1], in[2]);
  return scaled_sum("addmv", in[0], in[1], in[2], beta, alpha);
}

namespace {
// input weight^T + bias as one matrix product of input's rows, and what follows it in the cache.
void run_linear(Inputs in, const Tensor& out, std::span<const kernels::Epilogue> epilogue = {}) {
  if (out.numel() == 0) return;
  Tensor x = in[0];
  const int64_t k = x.sizes().back(),
                rows = k == 0 ? out.numel() / std::max<int64_t>(1, in[1].dim() == 2 ? in[1].sizes()[0] : 1)
                              : x.numel() / k;
  if (x.dim() != 2) x = dense(x, x.dtype());
  const View a = x.dim() == 2 ? x.view() : View{x.data_ptr(), x.dtype(), {rows, k}, {k, 1}};
  const Tensor& w = in[1];
  const int64_t n = w.dim() == 2 ? w.sizes()[0] : 1;
  const View b{w.data_ptr(), w.dtype(), {k, n}, {w.strides().back(), w.dim() == 2 ? w.strides()[0] : 1}};
  const View y{out.data_ptr(), out.dtype(), {rows, n}, {n, 1}};
  if (!in[2].defined()) return kernels::matmul(y, a, b, nullptr, false, epilogue);
  View bias = in[2].view();
  if (bias.ndim() == 0) bias = {bias.data, bias.dtype, {n}, {0}};
  kernels::matmul(y, a, b, &bias, false, epilogue);
}

Tensor shaped(const Tensor& t, const Dims& sizes) { return t.sizes() == sizes ? t : reshape(t, sizes); }
}  // namespace

// Of 16-bit floats, for a gradient that float32 is wanted of: not rounded on the way.
struct MmFloat32 {
  static constexpr OpInfo info{.schema = "_mm_float32(Tensor input, Tensor mat2) -> Tensor",
                               .doc = "Product of two matrices of one 16-bit float dtype, in float32.",
                               .saves = Saves::kOthers,
                               .shown = Shown::kHidden};
  bool operator==(const MmFloat32&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK(in[0].dim() == 2 && in[1].dim() == 2 && is_reduced_float(in[0].dtype()),
             "_mm_float32: two matrices of bfloat16 or float16, got ", name_of(in[0].dtype()), " ", in[0].sizes(),
             " and ", in[1].sizes());
    return {DType::kFloat32, BatchMatmul{}.infer(in).sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() > 0) kernels::matmul(out.view(), in[0].view(), in[1].view());
  }
  Grads vjp(const Vjp& c) const {
    const Tensor &a = c.in[0], &b = c.in[1], g = to_dtype(c.grad[0], a.dtype());
    return {c.need(0) ? product(g, transpose(b, 0, 1)) : Tensor(),
            c.need(1) ? product(transpose(a, 0, 1), g) : Tensor()};
  }
};
DS_OP(MmFloat32);

namespace {
// The gradient of input i as a product, in float32 where that is what is summed there (a cast of autocast's).
Tensor gradient_product(const Vjp& c, size_t i, const Tensor& a, const Tensor& b) {
  const Edge* to = i < c.next.size() ? &c.next[i] : nullptr;
  const bool wide = to && to->node && is_reduced_float(a.dtype()) && to->index < to->node->outputs.size() &&
                    to->node->outputs[to->index].dtype == DType::kFloat32;
  return wide ? apply(MmFloat32{}, a, b) : product(a, b);
}
}  // namespace

struct Linear {
  static constexpr OpInfo info{.schema = "linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor",
                               .doc = "input [..., K] @ weight [N, K] transposed + bias [N].",
                               .autocast = Autocast::kLower,
                               .saves = Saves::kOthers,
                               .shown = Shown::kFunctional};
  bool operator==(const Linear&) const = default;
  Meta infer(Inputs in) const {
    const Tensor &x = in[0], &w = in[1], &b = in[2];
    DS_CHECK(w.dim() == 2 || w.dim() == 1, "linear: weight must be 1-D or 2-D, got ", w.dim(), "-D");
    DS_CHECK(x.dim() > 0, "linear: input must be at least 1-D");
    check_dtypes("linear", x, w);
    DS_CHECK(x.sizes().back() == w.sizes().back(), "mat1 and mat2 shapes cannot be multiplied (",
             x.numel() / std::max<int64_t>(1, x.sizes().back()), "x", x.sizes().back(), " and ", w.sizes().back(), "x",
             w.sizes()[0], "): linear's input has ", x.sizes().back(), " features, its weight ", w.sizes(), " expects ",
             w.sizes().back());
    Dims sizes = x.sizes();
    sizes.pop_back();
    if (w.dim() == 2) sizes.push_back(w.sizes()[0]);
    if (b.defined()) {
      check_dtypes("linear bias", x, b);
      DS_CHECK(b.dim() <= 1 && (b.dim() == 0 || w.dim() == 1 || b.sizes()[0] == w.sizes()[0]), "linear: bias of shape ",
               b.sizes(), " does not fit ", sizes);
    }
    return {x.dtype(), sizes};
  }
  void eval(Inputs in, Tensor& out) const { run_linear(in, out); }
  Grads vjp(const Vjp& c) const {
    const Tensor &g = c.grad[0], &x = conj(c.in[0]), &w = conj(c.in[1]);
    Grads out(3);
    const int64_t k = x.sizes().back(), n = w.dim() == 2 ? w.sizes()[0] : 1;
    int64_t rows = 1;  // not -1: k or n may be 0
    for (int i = 0; i + 1 < x.dim(); ++i) rows *= x.sizes()[i];
    const Tensor g2 = shaped(g, {rows, n});
    if (c.need(0)) out[0] = shaped(gradient_product(c, 0, g2, shaped(w, {n, k})), x.sizes());
    if (c.need(1)) out[1] = shaped(gradient_product(c, 1, transpose(g2, 0, 1), shaped(x, {rows, k})), w.sizes());
    if (c.in[2].defined() && c.need(2)) out[2] = c.in[2].dim() == 0 ? sum(g) : sum(g2, Dims{0});
    return out;
  }
  Tensor composite(Inputs in) const {
    const Tensor y = in[1].dim() == 2 ? matmul(in[0], transpose(in[1], 0, 1)) : matmul(in[0], in[1]);
    return in[2].defined() ? y + in[2] : y;
  }
};
DS_OP(Linear);
Tensor linear(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  return apply(Linear{}, input, weight, bias);
}

namespace {
// `t` broadcast to `out`, whose leading dims are one; copied where strides do not allow that.
View broadcast_rows(const Tensor& t, const Tensor& out, Tensor& keep) {
  const int64_t n = out.sizes().back(), rows = out.numel() / n;
  if (out.dim() == 2) return t.view_as(out.sizes());
  if (t.numel() == 1) return {t.data_ptr(), t.dtype(), {rows, n}, {0, 0}};
  if (t.sizes() != out.sizes()) {
    keep = Tensor::empty(out.sizes(), t.dtype());
    kernels::copy(keep.view(), t.view_as(out.sizes()));
  } else {
    keep = dense(t, t.dtype());
  }
  return {keep.data_ptr(), t.dtype(), {rows, n}, {n, 1}};
}
}  // namespace

// What the jit makes of a linear layer and the pointwise ops after it; same bits as theirs.
struct LinearFused {
  Str activation = "none", combine = "none";
  static constexpr OpInfo info{
      .schema =
          "_linear_fused(Tensor input, Tensor weight, Tensor? bias=None, Tensor? other=None, *, str "
          "activation='none', str combine='none') -> Tensor",
      .doc =
          "activation(linear(input, weight, bias)), then combined with other: 'add', 'mul', or with other first "
          "'radd', "
          "'rmul'.",
      .autocast = Autocast::kLower,
      .shown = Shown::kHidden};
  bool operator==(const LinearFused&) const = default;
  const kernels::Activation* find() const { return find_activation("_linear_fused", activation); }
  bool adds() const { return combine == "add" || combine == "radd"; }
  bool reflected() const { return combine == "radd" || combine == "rmul"; }
  Meta infer(Inputs in) const {
    DS_CHECK(in[1].dim() == 2, "_linear_fused: weight must be 2-D, got ", in[1].dim(), "-D");
    const Meta m = Linear{}.infer(in.first(3));
    find();
    DS_CHECK_AS(NotImplementedError, is_floating(m.dtype) && !is_float8(m.dtype), "_linear_fused: not implemented for ",
                name_of(m.dtype), "; use linear and the pointwise ops");
    DS_CHECK_AS(ValueError, combine == "none" || adds() || combine == "mul" || combine == "rmul",
                "_linear_fused: combine must be none, add, mul, radd or rmul, got '", combine.view(), "'");
    DS_CHECK(in[3].defined() == !(combine == "none"),
             "_linear_fused: other is given with combine='add' and its like only");
    if (in[3].defined())
      DS_CHECK(in[3].dtype() == m.dtype && broadcast_sizes("_linear_fused", m.sizes, in[3].sizes()) == m.sizes,
               "_linear_fused: other has dtype ", name_of(in[3].dtype()), " and shape ", in[3].sizes(), "; expected ",
               name_of(m.dtype), " and a shape that broadcasts to ", m.sizes);
    return m;
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    SmallVector<kernels::Epilogue, 2> steps;
    Tensor keep;
    if (const kernels::Activation* a = find()) steps.push_back({a->op});
    if (in[3].defined())
      steps.push_back({adds() ? kernels::Pointwise::kAdd : kernels::Pointwise::kMul, broadcast_rows(in[3], out, keep),
                       reflected()});
    run_linear(in.first(3), out, {steps.data(), static_cast<size_t>(steps.size())});
  }
  Tensor composite(Inputs in) const {
    const Tensor y = activated(find(), linear(in[0], in[1], in[2]));
    if (!in[3].defined()) return y;
    const Tensor &a = reflected() ? in[3] : y, &b = reflected() ? y : in[3];
    return adds() ? a + b : a * b;
  }
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(LinearFused);

const OpDef& linear_op() { return op_def<Linear>(); }
const OpDef& linear_fused_op() { return op_def<LinearFused>(); }

}  // namespace deepseek
