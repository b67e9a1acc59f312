// The C++ API: one declaration an op. Semantics are those of the Python function of the same name.
#pragma once

#include "core/op.h"
#include "kernels/pointwise/rows.h"

namespace deepseek {

// --- pointwise, from the one list in kernels/pointwise/pointwise.def
#define DS_POINTWISE(S, name, rule, arguments, ...) Tensor name(DS_LIST(DS_PARAMETER, arguments));
#define DS_POINTWISE_SCALED(S, name, rule, arguments, ...) \
  Tensor name(DS_LIST(DS_PARAMETER, arguments), Scalar alpha = 1);
#include "kernels/pointwise/pointwise.def"
#undef DS_POINTWISE
#undef DS_POINTWISE_SCALED
Tensor add_(const Tensor& self, const Tensor& other);  // in place
Tensor mul_(const Tensor& self, const Tensor& other);
Tensor copy_(const Tensor& self, const Tensor& source);
Tensor clamp(const Tensor& input, const Tensor& min, const Tensor& max);
Tensor masked_fill(const Tensor& input, const Tensor& mask, const Tensor& value);

// Complex conjugate. A vjp of a holomorphic function multiplies by the conjugate of the derivative, as PyTorch: of a
// real tensor this is the tensor itself, without an op or a node.
inline const Tensor& conj(const Tensor& t) {
  if (t.defined() && is_complex(t.dtype())) [[unlikely]]
    fail<NotImplementedError>("conj(): not implemented for dtype ", t.dtype());
  return t;
}
inline Tensor conj(Tensor&& t) { return conj(static_cast<const Tensor&>(t)); }  // what it refers to ends with the call

template <class T>
concept Number = std::is_arithmetic_v<T>;
inline Tensor scalar(Scalar v) { return Tensor::wrapped(v); }
#define DS_OPERATOR(op, fn)                                                        \
  inline Tensor operator op(const Tensor& a, const Tensor& b) { return fn(a, b); } \
  template <Number T>                                                              \
  Tensor operator op(const Tensor& a, T b) {                                       \
    return fn(a, scalar(b));                                                       \
  }                                                                                \
  template <Number T>                                                              \
  Tensor operator op(T a, const Tensor& b) {                                       \
    return fn(scalar(a), b);                                                       \
  }
DS_OPERATOR(+, add)
DS_OPERATOR(-, sub)
DS_OPERATOR(*, mul)
DS_OPERATOR(/, div)
#undef DS_OPERATOR
#define DS_WITH_NUMBER(fn)          \
  template <Number T>               \
  Tensor fn(const Tensor& a, T b) { \
    return fn(a, scalar(b));        \
  }
DS_WITH_NUMBER(eq)
DS_WITH_NUMBER(ne)
DS_WITH_NUMBER(lt)
DS_WITH_NUMBER(le)
DS_WITH_NUMBER(gt)
DS_WITH_NUMBER(ge)
DS_WITH_NUMBER(pow)
#undef DS_WITH_NUMBER
inline Tensor operator-(const Tensor& a) { return neg(a); }

// --- creation
Tensor full(const Dims& size, Scalar value, DType dtype);
Tensor zeros(const Dims& size, DType dtype = DType::kFloat32);
Tensor ones(const Dims& size, DType dtype = DType::kFloat32);
Tensor zeros_like(const Tensor& input);
Tensor ones_like(const Tensor& input);
Tensor full_like(const Tensor& input, Scalar value);
Tensor arange(int64_t end, DType dtype = DType::kInt64);
Tensor clone(const Tensor& input);
Tensor contiguous(const Tensor& input);
Tensor to_dtype(const Tensor& input, DType dtype);
// Raises if `value` is a Python number that does not fit `dtype`.
void check_number_fits(const Tensor& value, DType dtype);
Tensor restride(const Tensor& input, const Dims& strides);
Tensor detach(const Tensor& input);
Tensor set_requires_grad(Tensor t, bool on = true);

// --- random (default generator)
Tensor rand(const Dims& size, DType dtype = DType::kFloat32);
Tensor randn(const Dims& size, DType dtype = DType::kFloat32);
Tensor dropout(const Tensor& input, double p, bool train);
// 0 with probability p, else 1 / (1 - p), of input's size; `state` is the generator's, as draw_state gives it.
Tensor dropout_mask(const Tensor& input, double p, const Tensor& state);

// --- views and shape. `as_strided_rel` takes its offset relative to the input, with the input's strides as they are.
struct AsStrided {
  Dims sizes, strides;
  Opt<int64_t> offset;
  static const OpInfo info;
  bool operator==(const AsStrided&) const = default;
  ViewSpec view(const Tensor& in) const;
  Grads vjp(const Vjp& c) const;
};
struct AsStridedScatter {  // base with the strided part replaced by src
  Dims sizes, strides;
  int64_t offset;
  static const OpInfo info;
  bool operator==(const AsStridedScatter&) const = default;
  Meta infer(Inputs in) const;
  void eval(Inputs in, Tensor& out) const;
  Grads vjp(const Vjp& c) const;
};
Tensor as_strided_rel(const Tensor& input, const ViewSpec& spec);
Tensor reshape(const Tensor& input, const Dims& size);
Tensor view(const Tensor& input, const Dims& size);
Tensor transpose(const Tensor& input, int64_t dim0, int64_t dim1);
Tensor permute(const Tensor& input, const Dims& dims);
Tensor movedim(const Tensor& input, const Dims& source, const Dims& destination);
Tensor diagonal(const Tensor& input, int64_t offset = 0, int64_t dim1 = 0, int64_t dim2 = 1);
Tensor expand(const Tensor& input, const Dims& size);
Tensor unsqueeze(const Tensor& input, int64_t dim);
Tensor squeeze(const Tensor& input, int64_t dim);
Tensor select(const Tensor& input, int64_t dim, int64_t index);
Tensor slice(const Tensor& input, int64_t dim, Opt<int64_t> start, Opt<int64_t> end, int64_t step = 1);
Tensor narrow(const Tensor& input, int64_t dim, int64_t start, int64_t length);
Tensor flatten(const Tensor& input, int64_t start_dim, int64_t end_dim);
Tensor flip(const Tensor& input, const Dims& dims);
TensorList unbind(const Tensor& input, int64_t dim);
TensorList split(const Tensor& input, int64_t split_size, int64_t dim);
TensorList split(const Tensor& input, const Dims& sizes, int64_t dim);
Tensor cat(Inputs tensors, int64_t dim);
Tensor stack(Inputs tensors, int64_t dim);

// --- reductions
Tensor sum(const Tensor& input, Opt<Dims> dim = {}, bool keepdim = false);
Tensor mean(const Tensor& input, Opt<Dims> dim = {}, bool keepdim = false);
Tensor amax(const Tensor& input, Dims dim = {}, bool keepdim = false);
Tensor logsumexp(const Tensor& input, Dims dim, bool keepdim = false);
Tensor all(const Tensor& input, Opt<Dims> dim = {}, bool keepdim = false);
Tensor any(const Tensor& input, Opt<Dims> dim = {}, bool keepdim = false);
Tensor cumsum(const Tensor& input, int64_t dim);
Tensor cumprod(const Tensor& input, int64_t dim);
Tensor argmax(const Tensor& input, Opt<int64_t> dim = {}, bool keepdim = false);
// Sums broadcast dims away until the shape is `size`.
Tensor sum_to_size(const Tensor& input, const Dims& size);
// A reduction's gradient back at the input's shape.
Tensor unreduce(const Tensor& g, const Dims& sizes, const Opt<Dims>& dim, bool keepdim);

// --- indexing
Tensor gather(const Tensor& input, int64_t dim, const Tensor& index);
Tensor scatter(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& src);
Tensor scatter_add(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& src);
Tensor index_select(const Tensor& input, int64_t dim, const Tensor& index);
Tensor index_add(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& source);
// Advanced indexing; an undefined entry keeps its dim whole. Masks are expanded to index lists.
Tensor index(const Tensor& input, Inputs indices);
Tensor masked_select(const Tensor& input, const Tensor& mask);
Tensor masked_scatter(const Tensor& input, const Tensor& mask, const Tensor& source);
Tensor masked_scatter_(const Tensor& self, const Tensor& mask, const Tensor& source);
Tensor index_put(const Tensor& input, Inputs indices, const Tensor& values, bool accumulate);
void index_put_(const Tensor& self, Inputs indices, const Tensor& values, bool accumulate);
Tensor nonzero(const Tensor& input);
Tensor embedding(const Tensor& input, const Tensor& weight, int64_t padding_idx = -1);

// --- linear algebra and rows
Tensor matmul(const Tensor& input, const Tensor& other);
Tensor bmm(const Tensor& input, const Tensor& mat2);  // [B, M, K] @ [B, K, N]
Tensor linear(const Tensor& input, const Tensor& weight, const Tensor& bias = {});
Tensor softmax(const Tensor& input, int64_t dim);
Tensor log_softmax(const Tensor& input, int64_t dim);

// --- losses, the mean over what is compared
Tensor cross_entropy(const Tensor& input, const Tensor& target);  // logits [N, C, …]; class numbers or probabilities
Tensor mse_loss(const Tensor& input, const Tensor& target);

}  // namespace deepseek
