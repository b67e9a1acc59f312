// Written by `python -m deepseek._tools.cppgen`; do not edit.
// clang-format off
#include "api/functions.h"

#include "api/op_call.h"

namespace deepseek {

Tensor abs_(const Tensor& input) {
  static const OpDef& def = *find_op("abs");
  return OpCall(def).in(input).in_place();
}

Tensor acos_(const Tensor& input) {
  static const OpDef& def = *find_op("acos");
  return OpCall(def).in(input).in_place();
}

Tensor acosh_(const Tensor& input) {
  static const OpDef& def = *find_op("acosh");
  return OpCall(def).in(input).in_place();
}

Tensor add_(const Tensor& input, const Tensor& other, Scalar alpha) {
  static const OpDef& def = *find_op("add");
  return OpCall(def).in(input).in(other).set(alpha).in_place();
}

std::array<Tensor, 2> add_rms_norm(const Tensor& input, const Tensor& residual, const Tensor& weight, Opt<double> eps) {
  static const OpDef& def = *find_op("add_rms_norm");
  return OpCall(def).in(input).in(residual).in(weight).set(eps).several<2>();
}

Tensor addcdiv(const Tensor& input, const Tensor& tensor1, const Tensor& tensor2, Scalar value) {
  static const OpDef& def = *find_op("addcdiv");
  return OpCall(def).in(input).in(tensor1).in(tensor2).set(value).one();
}

Tensor addcdiv_(const Tensor& input, const Tensor& tensor1, const Tensor& tensor2, Scalar value) {
  static const OpDef& def = *find_op("addcdiv");
  return OpCall(def).in(input).in(tensor1).in(tensor2).set(value).in_place();
}

Tensor addcmul(const Tensor& input, const Tensor& tensor1, const Tensor& tensor2, Scalar value) {
  static const OpDef& def = *find_op("addcmul");
  return OpCall(def).in(input).in(tensor1).in(tensor2).set(value).one();
}

Tensor addcmul_(const Tensor& input, const Tensor& tensor1, const Tensor& tensor2, Scalar value) {
  static const OpDef& def = *find_op("addcmul");
  return OpCall(def).in(input).in(tensor1).in(tensor2).set(value).in_place();
}

Tensor addmm(const Tensor& input, const Tensor& mat1, const Tensor& mat2, Scalar beta, Scalar alpha) {
  static const OpDef& def = *find_op("addmm");
  return OpCall(def).in(input).in(mat1).in(mat2).set(beta).set(alpha).one();
}

Tensor addmm_(const Tensor& input, const Tensor& mat1, const Tensor& mat2, Scalar beta, Scalar alpha) {
  static const OpDef& def = *find_op("addmm");
  return OpCall(def).in(input).in(mat1).in(mat2).set(beta).set(alpha).in_place();
}

Tensor addmv(const Tensor& input, const Tensor& mat, const Tensor& vec, Scalar beta, Scalar alpha) {
  static const OpDef& def = *find_op("addmv");
  return OpCall(def).in(input).in(mat).in(vec).set(beta).set(alpha).one();
}

Tensor addmv_(const Tensor& input, const Tensor& mat, const Tensor& vec, Scalar beta, Scalar alpha) {
  static const OpDef& def = *find_op("addmv");
  return OpCall(def).in(input).in(mat).in(vec).set(beta).set(alpha).in_place();
}

Tensor adjoint(const Tensor& input) {
  static const OpDef& def = *find_op("adjoint");
  return OpCall(def).in(input).one();
}

Tensor amin(const Tensor& input, const Dims& dim, bool keepdim) {
  static const OpDef& def = *find_op("amin");
  return OpCall(def).in(input).set(dim).set(keepdim).one();
}

Tensor arange(Scalar start, Scalar end, Scalar step, Opt<DType> dtype) {
  static const OpDef& def = *find_op("arange.start");
  return OpCall(def).set(start).set(end).set(step).set(dtype).one();
}

Tensor argmin(const Tensor& input, Opt<int64_t> dim, bool keepdim) {
  static const OpDef& def = *find_op("argmin");
  return OpCall(def).in(input).set(dim).set(keepdim).one();
}

Tensor argsort(const Tensor& input, int64_t dim, bool descending, bool stable) {
  static const OpDef& def = *find_op("argsort");
  return OpCall(def).in(input).set(dim).set(descending).set(stable).one();
}

Tensor argwhere(const Tensor& input) {
  static const OpDef& def = *find_op("argwhere");
  return OpCall(def).in(input).one();
}

Tensor as_strided(const Tensor& input, const Dims& size, const Dims& stride, Opt<int64_t> storage_offset) {
  static const OpDef& def = *find_op("as_strided");
  return OpCall(def).in(input).set(size).set(stride).set(storage_offset).one();
}

Tensor asin_(const Tensor& input) {
  static const OpDef& def = *find_op("asin");
  return OpCall(def).in(input).in_place();
}

Tensor asinh_(const Tensor& input) {
  static const OpDef& def = *find_op("asinh");
  return OpCall(def).in(input).in_place();
}

Tensor atan_(const Tensor& input) {
  static const OpDef& def = *find_op("atan");
  return OpCall(def).in(input).in_place();
}

Tensor atan2_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("atan2");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor atanh_(const Tensor& input) {
  static const OpDef& def = *find_op("atanh");
  return OpCall(def).in(input).in_place();
}

Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask, const Tensor& sinks, const Tensor& key_scale, const Tensor& value_scale, bool is_causal, Opt<double> scale, Opt<int64_t> window, Opt<double> softcap, double dropout_p, bool enable_gqa, int64_t query_start) {
  static const OpDef& def = *find_op("attention");
  return OpCall(def).in(query).in(key).in(value).in(mask).in(sinks).in(key_scale).in(value_scale).set(is_causal).set(scale).set(window).set(softcap).set(dropout_p).set(enable_gqa).set(query_start).one();
}

Tensor baddbmm(const Tensor& input, const Tensor& batch1, const Tensor& batch2, Scalar beta, Scalar alpha) {
  static const OpDef& def = *find_op("baddbmm");
  return OpCall(def).in(input).in(batch1).in(batch2).set(beta).set(alpha).one();
}

Tensor baddbmm_(const Tensor& input, const Tensor& batch1, const Tensor& batch2, Scalar beta, Scalar alpha) {
  static const OpDef& def = *find_op("baddbmm");
  return OpCall(def).in(input).in(batch1).in(batch2).set(beta).set(alpha).in_place();
}

Tensor bernoulli(const Tensor& input) {
  static const OpDef& def = *find_op("bernoulli");
  return OpCall(def).in(input).in(Tensor()).one();
}

Tensor bernoulli(const Tensor& input, double p) {
  static const OpDef& def = *find_op("bernoulli.p");
  return OpCall(def).in(input).set(p).in(Tensor()).one();
}

Tensor bernoulli_(const Tensor& input, const Tensor& p) {
  static const OpDef& def = *find_op("bernoulli_");
  return OpCall(def).in(input).in(p).in(Tensor()).one();
}

Tensor bincount(const Tensor& input, const Tensor& weights, int64_t minlength) {
  static const OpDef& def = *find_op("bincount");
  return OpCall(def).in(input).in(weights).set(minlength).one();
}

Tensor bitwise_and_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("bitwise_and");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor bitwise_left_shift_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("bitwise_left_shift");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor bitwise_not_(const Tensor& input) {
  static const OpDef& def = *find_op("bitwise_not");
  return OpCall(def).in(input).in_place();
}

Tensor bitwise_or_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("bitwise_or");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor bitwise_right_shift_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("bitwise_right_shift");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor bitwise_xor_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("bitwise_xor");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor block_sparse_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& block_indices, int64_t block_size, int64_t group, bool is_causal, Opt<double> scale, Opt<int64_t> window, int64_t query_start) {
  static const OpDef& def = *find_op("block_sparse_attention");
  return OpCall(def).in(query).in(key).in(value).in(block_indices).set(block_size).set(group).set(is_causal).set(scale).set(window).set(query_start).one();
}

Tensor broadcast_to(const Tensor& input, const Dims& size) {
  static const OpDef& def = *find_op("broadcast_to");
  return OpCall(def).in(input).set(size).one();
}

Tensor bucketize(const Tensor& input, const Tensor& boundaries, bool out_int32, bool right) {
  static const OpDef& def = *find_op("bucketize");
  return OpCall(def).in(input).in(boundaries).set(out_int32).set(right).one();
}

Tensor ceil_(const Tensor& input) {
  static const OpDef& def = *find_op("ceil");
  return OpCall(def).in(input).in_place();
}

TensorList chunk(const Tensor& input, int64_t chunks, int64_t dim) {
  static const OpDef& def = *find_op("chunk");
  return OpCall(def).in(input).set(chunks).set(dim).list();
}

Tensor clamp_(const Tensor& input, const Tensor& min, const Tensor& max) {
  static const OpDef& def = *find_op("clamp");
  return OpCall(def).in(input).in(min).in(max).in_place();
}

Tensor clamp_max(const Tensor& input, const Tensor& max) {
  static const OpDef& def = *find_op("clamp_max");
  return OpCall(def).in(input).in(max).one();
}

Tensor clamp_max_(const Tensor& input, const Tensor& max) {
  static const OpDef& def = *find_op("clamp_max");
  return OpCall(def).in(input).in(max).in_place();
}

Tensor clamp_min(const Tensor& input, const Tensor& min) {
  static const OpDef& def = *find_op("clamp_min");
  return OpCall(def).in(input).in(min).one();
}

Tensor clamp_min_(const Tensor& input, const Tensor& min) {
  static const OpDef& def = *find_op("clamp_min");
  return OpCall(def).in(input).in(min).in_place();
}

Tensor column_stack(Inputs tensors) {
  static const OpDef& def = *find_op("column_stack");
  return OpCall(def).in(tensors).one();
}

Tensor copysign_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("copysign");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor cos_(const Tensor& input) {
  static const OpDef& def = *find_op("cos");
  return OpCall(def).in(input).in_place();
}

Tensor cosh_(const Tensor& input) {
  static const OpDef& def = *find_op("cosh");
  return OpCall(def).in(input).in_place();
}

Tensor count_nonzero(const Tensor& input, const Opt<Dims>& dim) {
  static const OpDef& def = *find_op("count_nonzero");
  return OpCall(def).in(input).set(dim).one();
}

Tensor cross_entropy(const Tensor& input, const Tensor& target, const Tensor& weight, Str reduction, int64_t ignore_index, double label_smoothing) {
  static const OpDef& def = *find_op("cross_entropy");
  return OpCall(def).in(input).in(target).in(weight).set(reduction).set(ignore_index).set(label_smoothing).one();
}

std::array<Tensor, 2> cummax(const Tensor& input, int64_t dim) {
  static const OpDef& def = *find_op("cummax");
  return OpCall(def).in(input).set(dim).several<2>();
}

std::array<Tensor, 2> cummin(const Tensor& input, int64_t dim) {
  static const OpDef& def = *find_op("cummin");
  return OpCall(def).in(input).set(dim).several<2>();
}

Tensor cumprod(const Tensor& input, int64_t dim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("cumprod");
  return OpCall(def).in(input).set(dim).set(dtype).one();
}

Tensor cumprod_(const Tensor& input, int64_t dim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("cumprod");
  return OpCall(def).in(input).set(dim).set(dtype).in_place();
}

Tensor cumsum(const Tensor& input, int64_t dim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("cumsum");
  return OpCall(def).in(input).set(dim).set(dtype).one();
}

Tensor cumsum_(const Tensor& input, int64_t dim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("cumsum");
  return OpCall(def).in(input).set(dim).set(dtype).in_place();
}

Tensor diag(const Tensor& input, int64_t diagonal) {
  static const OpDef& def = *find_op("diag");
  return OpCall(def).in(input).set(diagonal).one();
}

Tensor diag_embed(const Tensor& input, int64_t offset, int64_t dim1, int64_t dim2) {
  static const OpDef& def = *find_op("diag_embed");
  return OpCall(def).in(input).set(offset).set(dim1).set(dim2).one();
}

Tensor diff(const Tensor& input, int64_t n, int64_t dim, const Tensor& prepend, const Tensor& append) {
  static const OpDef& def = *find_op("diff");
  return OpCall(def).in(input).set(n).set(dim).in(prepend).in(append).one();
}

Tensor dist(const Tensor& input, const Tensor& other, double p) {
  static const OpDef& def = *find_op("dist");
  return OpCall(def).in(input).in(other).set(p).one();
}

Tensor div_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("div");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor div_(const Tensor& input, const Tensor& other, Opt<Str> rounding_mode) {
  static const OpDef& def = *find_op("div.mode");
  return OpCall(def).in(input).in(other).set(rounding_mode).in_place();
}

Tensor dot(const Tensor& input, const Tensor& tensor) {
  static const OpDef& def = *find_op("dot");
  return OpCall(def).in(input).in(tensor).one();
}

Tensor dstack(Inputs tensors) {
  static const OpDef& def = *find_op("dstack");
  return OpCall(def).in(tensors).one();
}

Tensor elu(const Tensor& input, double alpha) {
  static const OpDef& def = *find_op("elu");
  return OpCall(def).in(input).set(alpha).one();
}

Tensor elu_(const Tensor& input, double alpha) {
  static const OpDef& def = *find_op("elu");
  return OpCall(def).in(input).set(alpha).in_place();
}

Tensor empty(const Dims& size, Opt<DType> dtype) {
  static const OpDef& def = *find_op("empty");
  return OpCall(def).set(size).set(dtype).one();
}

Tensor empty_like(const Tensor& input, Opt<DType> dtype) {
  static const OpDef& def = *find_op("empty_like");
  return OpCall(def).in(input).set(dtype).one();
}

Tensor eq_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("eq");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor erf_(const Tensor& input) {
  static const OpDef& def = *find_op("erf");
  return OpCall(def).in(input).in_place();
}

Tensor erfc_(const Tensor& input) {
  static const OpDef& def = *find_op("erfc");
  return OpCall(def).in(input).in_place();
}

Tensor exp_(const Tensor& input) {
  static const OpDef& def = *find_op("exp");
  return OpCall(def).in(input).in_place();
}

Tensor exp2_(const Tensor& input) {
  static const OpDef& def = *find_op("exp2");
  return OpCall(def).in(input).in_place();
}

Tensor expand_as(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("expand_as");
  return OpCall(def).in(input).in(other).one();
}

Tensor expm1_(const Tensor& input) {
  static const OpDef& def = *find_op("expm1");
  return OpCall(def).in(input).in_place();
}

Tensor eye(int64_t n, Opt<int64_t> m, Opt<DType> dtype) {
  static const OpDef& def = *find_op("eye");
  return OpCall(def).set(n).set(m).set(dtype).one();
}

Tensor fill(const Tensor& input, const Tensor& value) {
  static const OpDef& def = *find_op("fill");
  return OpCall(def).in(input).in(value).one();
}

Tensor fill_(const Tensor& input, const Tensor& value) {
  static const OpDef& def = *find_op("fill");
  return OpCall(def).in(input).in(value).in_place();
}

Tensor fliplr(const Tensor& input) {
  static const OpDef& def = *find_op("fliplr");
  return OpCall(def).in(input).one();
}

Tensor flipud(const Tensor& input) {
  static const OpDef& def = *find_op("flipud");
  return OpCall(def).in(input).one();
}

Tensor float_power(const Tensor& input, const Tensor& exponent) {
  static const OpDef& def = *find_op("float_power");
  return OpCall(def).in(input).in(exponent).one();
}

Tensor float_power(Scalar input, const Tensor& exponent) {
  static const OpDef& def = *find_op("float_power.Scalar");
  return OpCall(def).set(input).in(exponent).one();
}

Tensor floor_(const Tensor& input) {
  static const OpDef& def = *find_op("floor");
  return OpCall(def).in(input).in_place();
}

Tensor floor_divide_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("floor_divide");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor fmax_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("fmax");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor fmin_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("fmin");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor fmod_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("fmod");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor frac_(const Tensor& input) {
  static const OpDef& def = *find_op("frac");
  return OpCall(def).in(input).in_place();
}

Tensor full_like(const Tensor& input, Scalar fill_value, Opt<DType> dtype) {
  static const OpDef& def = *find_op("full_like");
  return OpCall(def).in(input).set(fill_value).set(dtype).one();
}

Tensor ge_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("ge");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor gelu(const Tensor& input, Str approximate) {
  static const OpDef& def = *find_op("gelu");
  return OpCall(def).in(input).set(approximate).one();
}

Tensor gt_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("gt");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor hstack(Inputs tensors) {
  static const OpDef& def = *find_op("hstack");
  return OpCall(def).in(tensors).one();
}

Tensor hypot_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("hypot");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor index_add(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& source, Scalar alpha) {
  static const OpDef& def = *find_op("index_add");
  return OpCall(def).in(input).set(dim).in(index).in(source).set(alpha).one();
}

Tensor index_add_(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& source, Scalar alpha) {
  static const OpDef& def = *find_op("index_add");
  return OpCall(def).in(input).set(dim).in(index).in(source).set(alpha).in_place();
}

Tensor index_copy(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& source) {
  static const OpDef& def = *find_op("index_copy");
  return OpCall(def).in(input).set(dim).in(index).in(source).one();
}

Tensor index_copy_(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& source) {
  static const OpDef& def = *find_op("index_copy");
  return OpCall(def).in(input).set(dim).in(index).in(source).in_place();
}

Tensor index_fill(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& value) {
  static const OpDef& def = *find_op("index_fill");
  return OpCall(def).in(input).set(dim).in(index).in(value).one();
}

Tensor index_fill_(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& value) {
  static const OpDef& def = *find_op("index_fill");
  return OpCall(def).in(input).set(dim).in(index).in(value).in_place();
}

Tensor inner(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("inner");
  return OpCall(def).in(input).in(other).one();
}

Tensor isclose(const Tensor& input, const Tensor& other, double rtol, double atol, bool equal_nan) {
  static const OpDef& def = *find_op("isclose");
  return OpCall(def).in(input).in(other).set(rtol).set(atol).set(equal_nan).one();
}

Tensor isfinite_(const Tensor& input) {
  static const OpDef& def = *find_op("isfinite");
  return OpCall(def).in(input).in_place();
}

Tensor isin(const Tensor& elements, const Tensor& test_elements, bool invert) {
  static const OpDef& def = *find_op("isin");
  return OpCall(def).in(elements).in(test_elements).set(invert).one();
}

Tensor isin(const Tensor& elements, Scalar test_elements, bool invert) {
  static const OpDef& def = *find_op("isin.Scalar");
  return OpCall(def).in(elements).set(test_elements).set(invert).one();
}

Tensor isinf_(const Tensor& input) {
  static const OpDef& def = *find_op("isinf");
  return OpCall(def).in(input).in_place();
}

Tensor isnan_(const Tensor& input) {
  static const OpDef& def = *find_op("isnan");
  return OpCall(def).in(input).in_place();
}

Tensor isneginf_(const Tensor& input) {
  static const OpDef& def = *find_op("isneginf");
  return OpCall(def).in(input).in_place();
}

Tensor isposinf_(const Tensor& input) {
  static const OpDef& def = *find_op("isposinf");
  return OpCall(def).in(input).in_place();
}

std::array<Tensor, 2> kthvalue(const Tensor& input, int64_t k, int64_t dim, bool keepdim) {
  static const OpDef& def = *find_op("kthvalue");
  return OpCall(def).in(input).set(k).set(dim).set(keepdim).several<2>();
}

Tensor layer_norm(const Tensor& input, const Dims& normalized_shape, const Tensor& weight, const Tensor& bias, double eps) {
  static const OpDef& def = *find_op("layer_norm");
  return OpCall(def).in(input).set(normalized_shape).in(weight).in(bias).set(eps).one();
}

Tensor le_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("le");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor leaky_relu(const Tensor& input, double negative_slope) {
  static const OpDef& def = *find_op("leaky_relu");
  return OpCall(def).in(input).set(negative_slope).one();
}

Tensor leaky_relu_(const Tensor& input, double negative_slope) {
  static const OpDef& def = *find_op("leaky_relu");
  return OpCall(def).in(input).set(negative_slope).in_place();
}

Tensor lerp_(const Tensor& input, const Tensor& end, const Tensor& weight) {
  static const OpDef& def = *find_op("lerp");
  return OpCall(def).in(input).in(end).in(weight).in_place();
}

Tensor linear_cross_entropy(const Tensor& input, const Tensor& linear_weight, const Tensor& target, const Tensor& linear_bias, const Tensor& weight, Str reduction, Opt<int64_t> ignore_index, double label_smoothing) {
  static const OpDef& def = *find_op("linear_cross_entropy");
  return OpCall(def).in(input).in(linear_weight).in(target).in(linear_bias).in(weight).set(reduction).set(ignore_index).set(label_smoothing).one();
}

Tensor linspace(Scalar start, Scalar end, int64_t steps, Opt<DType> dtype) {
  static const OpDef& def = *find_op("linspace");
  return OpCall(def).set(start).set(end).set(steps).set(dtype).one();
}

Tensor log_(const Tensor& input) {
  static const OpDef& def = *find_op("log");
  return OpCall(def).in(input).in_place();
}

Tensor log10_(const Tensor& input) {
  static const OpDef& def = *find_op("log10");
  return OpCall(def).in(input).in_place();
}

Tensor log1p_(const Tensor& input) {
  static const OpDef& def = *find_op("log1p");
  return OpCall(def).in(input).in_place();
}

Tensor log2_(const Tensor& input) {
  static const OpDef& def = *find_op("log2");
  return OpCall(def).in(input).in_place();
}

Tensor log_softmax(const Tensor& input, int64_t dim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("log_softmax");
  return OpCall(def).in(input).set(dim).set(dtype).one();
}

Tensor logaddexp_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("logaddexp");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor logcumsumexp(const Tensor& input, int64_t dim) {
  static const OpDef& def = *find_op("logcumsumexp");
  return OpCall(def).in(input).set(dim).one();
}

Tensor logical_and_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("logical_and");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor logical_not_(const Tensor& input) {
  static const OpDef& def = *find_op("logical_not");
  return OpCall(def).in(input).in_place();
}

Tensor logical_or_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("logical_or");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor logical_xor_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("logical_xor");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor logsigmoid_(const Tensor& input) {
  static const OpDef& def = *find_op("logsigmoid");
  return OpCall(def).in(input).in_place();
}

Tensor logspace(Scalar start, Scalar end, int64_t steps, double base, Opt<DType> dtype) {
  static const OpDef& def = *find_op("logspace");
  return OpCall(def).set(start).set(end).set(steps).set(base).set(dtype).one();
}

Tensor lt_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("lt");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor masked_fill_(const Tensor& input, const Tensor& mask, const Tensor& value) {
  static const OpDef& def = *find_op("masked_fill");
  return OpCall(def).in(input).in(mask).in(value).in_place();
}

Tensor max(const Tensor& input) {
  static const OpDef& def = *find_op("max");
  return OpCall(def).in(input).one();
}

Tensor max(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("max.binary");
  return OpCall(def).in(input).in(other).one();
}

std::array<Tensor, 2> max(const Tensor& input, int64_t dim, bool keepdim) {
  static const OpDef& def = *find_op("max.dim");
  return OpCall(def).in(input).set(dim).set(keepdim).several<2>();
}

Tensor maximum_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("maximum");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor mean(const Tensor& input, const Opt<Dims>& dim, bool keepdim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("mean");
  return OpCall(def).in(input).set(dim).set(keepdim).set(dtype).one();
}

Tensor median(const Tensor& input) {
  static const OpDef& def = *find_op("median");
  return OpCall(def).in(input).one();
}

std::array<Tensor, 2> median(const Tensor& input, int64_t dim, bool keepdim) {
  static const OpDef& def = *find_op("median.dim");
  return OpCall(def).in(input).set(dim).set(keepdim).several<2>();
}

Tensor min(const Tensor& input) {
  static const OpDef& def = *find_op("min");
  return OpCall(def).in(input).one();
}

Tensor min(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("min.binary");
  return OpCall(def).in(input).in(other).one();
}

std::array<Tensor, 2> min(const Tensor& input, int64_t dim, bool keepdim) {
  static const OpDef& def = *find_op("min.dim");
  return OpCall(def).in(input).set(dim).set(keepdim).several<2>();
}

Tensor minimum_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("minimum");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor mm(const Tensor& input, const Tensor& mat2) {
  static const OpDef& def = *find_op("mm");
  return OpCall(def).in(input).in(mat2).one();
}

Tensor moe(const Tensor& input, const Tensor& gate_weight, const Tensor& up_weight, const Tensor& down_weight, const Tensor& topk_indices, const Tensor& topk_weights, Opt<double> swiglu_limit, bool wide) {
  static const OpDef& def = *find_op("moe");
  return OpCall(def).in(input).in(gate_weight).in(up_weight).in(down_weight).in(topk_indices).in(topk_weights).set(swiglu_limit).set(wide).one();
}

Tensor mse_loss(const Tensor& input, const Tensor& target, Str reduction) {
  static const OpDef& def = *find_op("mse_loss");
  return OpCall(def).in(input).in(target).set(reduction).one();
}

Tensor msort(const Tensor& input) {
  static const OpDef& def = *find_op("msort");
  return OpCall(def).in(input).one();
}

Tensor multinomial(const Tensor& input, int64_t num_samples, bool replacement) {
  static const OpDef& def = *find_op("multinomial");
  return OpCall(def).in(input).set(num_samples).set(replacement).in(Tensor()).one();
}

Tensor mv(const Tensor& input, const Tensor& vec) {
  static const OpDef& def = *find_op("mv");
  return OpCall(def).in(input).in(vec).one();
}

Tensor nan_to_num(const Tensor& input, Opt<double> nan, Opt<double> posinf, Opt<double> neginf) {
  static const OpDef& def = *find_op("nan_to_num");
  return OpCall(def).in(input).set(nan).set(posinf).set(neginf).one();
}

Tensor nan_to_num_(const Tensor& input, Opt<double> nan, Opt<double> posinf, Opt<double> neginf) {
  static const OpDef& def = *find_op("nan_to_num");
  return OpCall(def).in(input).set(nan).set(posinf).set(neginf).in_place();
}

Tensor nanmean(const Tensor& input, const Opt<Dims>& dim, bool keepdim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("nanmean");
  return OpCall(def).in(input).set(dim).set(keepdim).set(dtype).one();
}

Tensor nansum(const Tensor& input, const Opt<Dims>& dim, bool keepdim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("nansum");
  return OpCall(def).in(input).set(dim).set(keepdim).set(dtype).one();
}

Tensor ne_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("ne");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor neg_(const Tensor& input) {
  static const OpDef& def = *find_op("neg");
  return OpCall(def).in(input).in_place();
}

Tensor nll_loss(const Tensor& input, const Tensor& target, const Tensor& weight, Str reduction, int64_t ignore_index) {
  static const OpDef& def = *find_op("nll_loss");
  return OpCall(def).in(input).in(target).in(weight).set(reduction).set(ignore_index).one();
}

Tensor norm(const Tensor& input, Opt<Scalar> p, const Opt<Dims>& dim, bool keepdim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("norm");
  return OpCall(def).in(input).set(p).set(dim).set(keepdim).set(dtype).one();
}

Tensor normal(double mean, double std, const Dims& size, Opt<DType> dtype) {
  static const OpDef& def = *find_op("normal");
  return OpCall(def).set(mean).set(std).set(size).set(dtype).in(Tensor()).one();
}

Tensor normal(const Tensor& mean, const Tensor& std) {
  static const OpDef& def = *find_op("normal.Tensor");
  return OpCall(def).in(mean).in(std).in(Tensor()).one();
}

Tensor normal_(const Tensor& input, double mean, double std) {
  static const OpDef& def = *find_op("normal_");
  return OpCall(def).in(input).set(mean).set(std).in(Tensor()).one();
}

Tensor ones_like(const Tensor& input, Opt<DType> dtype) {
  static const OpDef& def = *find_op("ones_like");
  return OpCall(def).in(input).set(dtype).one();
}

Tensor outer(const Tensor& input, const Tensor& vec2) {
  static const OpDef& def = *find_op("outer");
  return OpCall(def).in(input).in(vec2).one();
}

Tensor pow_(const Tensor& input, const Tensor& exponent) {
  static const OpDef& def = *find_op("pow");
  return OpCall(def).in(input).in(exponent).in_place();
}

Tensor prod(const Tensor& input, Opt<DType> dtype) {
  static const OpDef& def = *find_op("prod");
  return OpCall(def).in(input).set(dtype).one();
}

Tensor prod(const Tensor& input, int64_t dim, bool keepdim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("prod.dim");
  return OpCall(def).in(input).set(dim).set(keepdim).set(dtype).one();
}

Tensor rand_like(const Tensor& input, Opt<DType> dtype) {
  static const OpDef& def = *find_op("rand_like");
  return OpCall(def).in(input).set(dtype).in(Tensor()).one();
}

Tensor randint(int64_t high, const Dims& size, Opt<DType> dtype) {
  static const OpDef& def = *find_op("randint");
  return OpCall(def).set(high).set(size).set(dtype).in(Tensor()).one();
}

Tensor randint(int64_t low, int64_t high, const Dims& size, Opt<DType> dtype) {
  static const OpDef& def = *find_op("randint.low");
  return OpCall(def).set(low).set(high).set(size).set(dtype).in(Tensor()).one();
}

Tensor randint_like(const Tensor& input, int64_t high, Opt<DType> dtype) {
  static const OpDef& def = *find_op("randint_like");
  return OpCall(def).in(input).set(high).set(dtype).in(Tensor()).one();
}

Tensor randint_like(const Tensor& input, int64_t low, int64_t high, Opt<DType> dtype) {
  static const OpDef& def = *find_op("randint_like.low");
  return OpCall(def).in(input).set(low).set(high).set(dtype).in(Tensor()).one();
}

Tensor randn_like(const Tensor& input, Opt<DType> dtype) {
  static const OpDef& def = *find_op("randn_like");
  return OpCall(def).in(input).set(dtype).in(Tensor()).one();
}

Tensor randperm(int64_t n, Opt<DType> dtype) {
  static const OpDef& def = *find_op("randperm");
  return OpCall(def).set(n).set(dtype).in(Tensor()).one();
}

Tensor ravel(const Tensor& input) {
  static const OpDef& def = *find_op("ravel");
  return OpCall(def).in(input).one();
}

Tensor reciprocal_(const Tensor& input) {
  static const OpDef& def = *find_op("reciprocal");
  return OpCall(def).in(input).in_place();
}

Tensor relu_(const Tensor& input) {
  static const OpDef& def = *find_op("relu");
  return OpCall(def).in(input).in_place();
}

Tensor remainder_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("remainder");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor repeat(const Tensor& input, const Dims& repeats) {
  static const OpDef& def = *find_op("repeat");
  return OpCall(def).in(input).set(repeats).one();
}

Tensor repeat_interleave(const Tensor& input, int64_t repeats, Opt<int64_t> dim, Opt<int64_t> output_size) {
  static const OpDef& def = *find_op("repeat_interleave");
  return OpCall(def).in(input).set(repeats).set(dim).set(output_size).one();
}

Tensor repeat_interleave(const Tensor& input, const Tensor& repeats, Opt<int64_t> dim, Opt<int64_t> output_size) {
  static const OpDef& def = *find_op("repeat_interleave.Tensor");
  return OpCall(def).in(input).in(repeats).set(dim).set(output_size).one();
}

Tensor reshape_as(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("reshape_as");
  return OpCall(def).in(input).in(other).one();
}

Tensor rms_norm(const Tensor& input, const Dims& normalized_shape, const Tensor& weight, Opt<double> eps) {
  static const OpDef& def = *find_op("rms_norm");
  return OpCall(def).in(input).set(normalized_shape).in(weight).set(eps).one();
}

Tensor roll(const Tensor& input, const Dims& shifts, const Opt<Dims>& dims) {
  static const OpDef& def = *find_op("roll");
  return OpCall(def).in(input).set(shifts).set(dims).one();
}

Tensor rope(const Tensor& input, const Tensor& cos, const Tensor& sin, bool interleaved) {
  static const OpDef& def = *find_op("rope");
  return OpCall(def).in(input).in(cos).in(sin).set(interleaved).one();
}

Tensor rot90(const Tensor& input, int64_t k, const Dims& dims) {
  static const OpDef& def = *find_op("rot90");
  return OpCall(def).in(input).set(k).set(dims).one();
}

Tensor round_(const Tensor& input) {
  static const OpDef& def = *find_op("round");
  return OpCall(def).in(input).in_place();
}

Tensor round_(const Tensor& input, int64_t decimals) {
  static const OpDef& def = *find_op("round.decimals");
  return OpCall(def).in(input).set(decimals).in_place();
}

Tensor rsqrt_(const Tensor& input) {
  static const OpDef& def = *find_op("rsqrt");
  return OpCall(def).in(input).in_place();
}

Tensor rsub(const Tensor& input, const Tensor& other, Scalar alpha) {
  static const OpDef& def = *find_op("rsub");
  return OpCall(def).in(input).in(other).set(alpha).one();
}

Tensor scalar_tensor(Scalar s, Opt<DType> dtype) {
  static const OpDef& def = *find_op("scalar_tensor");
  return OpCall(def).set(s).set(dtype).one();
}

Tensor scaled_dot_product_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& attn_mask, double dropout_p, bool is_causal, Opt<double> scale, bool enable_gqa) {
  static const OpDef& def = *find_op("scaled_dot_product_attention");
  return OpCall(def).in(query).in(key).in(value).in(attn_mask).set(dropout_p).set(is_causal).set(scale).set(enable_gqa).one();
}

Tensor scatter_(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& src) {
  static const OpDef& def = *find_op("scatter");
  return OpCall(def).in(input).set(dim).in(index).in(src).in_place();
}

Tensor scatter(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& src, Str reduce) {
  static const OpDef& def = *find_op("scatter.reduce");
  return OpCall(def).in(input).set(dim).in(index).in(src).set(reduce).one();
}

Tensor scatter_(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& src, Str reduce) {
  static const OpDef& def = *find_op("scatter.reduce");
  return OpCall(def).in(input).set(dim).in(index).in(src).set(reduce).in_place();
}

Tensor scatter_(const Tensor& input, int64_t dim, const Tensor& index, Scalar value) {
  static const OpDef& def = *find_op("scatter.value");
  return OpCall(def).in(input).set(dim).in(index).in(scalar(value)).in_place();
}

Tensor scatter(const Tensor& input, int64_t dim, const Tensor& index, Scalar value, Str reduce) {
  static const OpDef& def = *find_op("scatter.value_reduce");
  return OpCall(def).in(input).set(dim).in(index).in(scalar(value)).set(reduce).one();
}

Tensor scatter_(const Tensor& input, int64_t dim, const Tensor& index, Scalar value, Str reduce) {
  static const OpDef& def = *find_op("scatter.value_reduce");
  return OpCall(def).in(input).set(dim).in(index).in(scalar(value)).set(reduce).in_place();
}

Tensor scatter_add_(const Tensor& input, int64_t dim, const Tensor& index, const Tensor& src) {
  static const OpDef& def = *find_op("scatter_add");
  return OpCall(def).in(input).set(dim).in(index).in(src).in_place();
}

Tensor searchsorted(const Tensor& sorted_sequence, const Tensor& input, bool out_int32, bool right, Opt<Str> side, const Tensor& sorter) {
  static const OpDef& def = *find_op("searchsorted");
  return OpCall(def).in(sorted_sequence).in(input).set(out_int32).set(right).set(side).in(sorter).one();
}

Tensor sigmoid_(const Tensor& input) {
  static const OpDef& def = *find_op("sigmoid");
  return OpCall(def).in(input).in_place();
}

Tensor sign_(const Tensor& input) {
  static const OpDef& def = *find_op("sign");
  return OpCall(def).in(input).in_place();
}

Tensor signbit_(const Tensor& input) {
  static const OpDef& def = *find_op("signbit");
  return OpCall(def).in(input).in_place();
}

Tensor silu_(const Tensor& input) {
  static const OpDef& def = *find_op("silu");
  return OpCall(def).in(input).in_place();
}

Tensor sin_(const Tensor& input) {
  static const OpDef& def = *find_op("sin");
  return OpCall(def).in(input).in_place();
}

Tensor sinh_(const Tensor& input) {
  static const OpDef& def = *find_op("sinh");
  return OpCall(def).in(input).in_place();
}

Tensor softmax(const Tensor& input, int64_t dim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("softmax");
  return OpCall(def).in(input).set(dim).set(dtype).one();
}

Tensor softplus(const Tensor& input, double beta, double threshold) {
  static const OpDef& def = *find_op("softplus");
  return OpCall(def).in(input).set(beta).set(threshold).one();
}

std::array<Tensor, 2> sort(const Tensor& input, int64_t dim, bool descending, bool stable) {
  static const OpDef& def = *find_op("sort");
  return OpCall(def).in(input).set(dim).set(descending).set(stable).several<2>();
}

Tensor sqrt_(const Tensor& input) {
  static const OpDef& def = *find_op("sqrt");
  return OpCall(def).in(input).in_place();
}

Tensor square_(const Tensor& input) {
  static const OpDef& def = *find_op("square");
  return OpCall(def).in(input).in_place();
}

Tensor std(const Tensor& input, const Opt<Dims>& dim, Opt<Scalar> correction, bool keepdim) {
  static const OpDef& def = *find_op("std");
  return OpCall(def).in(input).set(dim).set(correction).set(keepdim).one();
}

std::array<Tensor, 2> std_mean(const Tensor& input, const Opt<Dims>& dim, Opt<Scalar> correction, bool keepdim) {
  static const OpDef& def = *find_op("std_mean");
  return OpCall(def).in(input).set(dim).set(correction).set(keepdim).several<2>();
}

Tensor sub_(const Tensor& input, const Tensor& other, Scalar alpha) {
  static const OpDef& def = *find_op("sub");
  return OpCall(def).in(input).in(other).set(alpha).in_place();
}

Tensor sum(const Tensor& input, const Opt<Dims>& dim, bool keepdim, Opt<DType> dtype) {
  static const OpDef& def = *find_op("sum");
  return OpCall(def).in(input).set(dim).set(keepdim).set(dtype).one();
}

Tensor swapaxes(const Tensor& input, int64_t axis0, int64_t axis1) {
  static const OpDef& def = *find_op("swapaxes");
  return OpCall(def).in(input).set(axis0).set(axis1).one();
}

Tensor swapdims(const Tensor& input, int64_t dim0, int64_t dim1) {
  static const OpDef& def = *find_op("swapdims");
  return OpCall(def).in(input).set(dim0).set(dim1).one();
}

Tensor swiglu_(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("swiglu");
  return OpCall(def).in(input).in(other).in_place();
}

Tensor t(const Tensor& input) {
  static const OpDef& def = *find_op("t");
  return OpCall(def).in(input).one();
}

Tensor take(const Tensor& input, const Tensor& index) {
  static const OpDef& def = *find_op("take");
  return OpCall(def).in(input).in(index).one();
}

Tensor take_along_dim(const Tensor& input, const Tensor& indices, Opt<int64_t> dim) {
  static const OpDef& def = *find_op("take_along_dim");
  return OpCall(def).in(input).in(indices).set(dim).one();
}

Tensor tan_(const Tensor& input) {
  static const OpDef& def = *find_op("tan");
  return OpCall(def).in(input).in_place();
}

Tensor tanh_(const Tensor& input) {
  static const OpDef& def = *find_op("tanh");
  return OpCall(def).in(input).in_place();
}

Tensor tile(const Tensor& input, const Dims& dims) {
  static const OpDef& def = *find_op("tile");
  return OpCall(def).in(input).set(dims).one();
}

Tensor token_sparse_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& token_indices, bool is_causal, Opt<double> scale, Opt<int64_t> window, int64_t query_start) {
  static const OpDef& def = *find_op("token_sparse_attention");
  return OpCall(def).in(query).in(key).in(value).in(token_indices).set(is_causal).set(scale).set(window).set(query_start).one();
}

std::array<Tensor, 2> topk(const Tensor& input, int64_t k, int64_t dim, bool largest, bool sorted) {
  static const OpDef& def = *find_op("topk");
  return OpCall(def).in(input).set(k).set(dim).set(largest).set(sorted).several<2>();
}

Tensor trace(const Tensor& input) {
  static const OpDef& def = *find_op("trace");
  return OpCall(def).in(input).one();
}

Tensor tril(const Tensor& input, int64_t diagonal) {
  static const OpDef& def = *find_op("tril");
  return OpCall(def).in(input).set(diagonal).one();
}

Tensor tril_(const Tensor& input, int64_t diagonal) {
  static const OpDef& def = *find_op("tril");
  return OpCall(def).in(input).set(diagonal).in_place();
}

Tensor tril_indices(int64_t row, int64_t col, int64_t offset, Opt<DType> dtype) {
  static const OpDef& def = *find_op("tril_indices");
  return OpCall(def).set(row).set(col).set(offset).set(dtype).one();
}

Tensor triu(const Tensor& input, int64_t diagonal) {
  static const OpDef& def = *find_op("triu");
  return OpCall(def).in(input).set(diagonal).one();
}

Tensor triu_(const Tensor& input, int64_t diagonal) {
  static const OpDef& def = *find_op("triu");
  return OpCall(def).in(input).set(diagonal).in_place();
}

Tensor triu_indices(int64_t row, int64_t col, int64_t offset, Opt<DType> dtype) {
  static const OpDef& def = *find_op("triu_indices");
  return OpCall(def).set(row).set(col).set(offset).set(dtype).one();
}

Tensor trunc_(const Tensor& input) {
  static const OpDef& def = *find_op("trunc");
  return OpCall(def).in(input).in_place();
}

Tensor type_as(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("type_as");
  return OpCall(def).in(input).in(other).one();
}

Tensor unflatten(const Tensor& input, int64_t dim, const Dims& sizes) {
  static const OpDef& def = *find_op("unflatten");
  return OpCall(def).in(input).set(dim).set(sizes).one();
}

Tensor unfold(const Tensor& input, int64_t dimension, int64_t size, int64_t step) {
  static const OpDef& def = *find_op("unfold");
  return OpCall(def).in(input).set(dimension).set(size).set(step).one();
}

Tensor var(const Tensor& input, const Opt<Dims>& dim, Opt<Scalar> correction, bool keepdim) {
  static const OpDef& def = *find_op("var");
  return OpCall(def).in(input).set(dim).set(correction).set(keepdim).one();
}

std::array<Tensor, 2> var_mean(const Tensor& input, const Opt<Dims>& dim, Opt<Scalar> correction, bool keepdim) {
  static const OpDef& def = *find_op("var_mean");
  return OpCall(def).in(input).set(dim).set(correction).set(keepdim).several<2>();
}

Tensor varlen_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seq_q, const Tensor& cu_seq_k, const Tensor& sinks, bool is_causal, Opt<double> scale, Opt<int64_t> window, Opt<double> softcap, bool enable_gqa) {
  static const OpDef& def = *find_op("varlen_attention");
  return OpCall(def).in(query).in(key).in(value).in(cu_seq_q).in(cu_seq_k).in(sinks).set(is_causal).set(scale).set(window).set(softcap).set(enable_gqa).one();
}

Tensor view_as(const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("view_as");
  return OpCall(def).in(input).in(other).one();
}

Tensor vstack(Inputs tensors) {
  static const OpDef& def = *find_op("vstack");
  return OpCall(def).in(tensors).one();
}

Tensor where_(const Tensor& condition, const Tensor& input, const Tensor& other) {
  static const OpDef& def = *find_op("where");
  return OpCall(def).in(condition).in(input).in(other).in_place();
}

Tensor zeros_like(const Tensor& input, Opt<DType> dtype) {
  static const OpDef& def = *find_op("zeros_like");
  return OpCall(def).in(input).set(dtype).one();
}

}  // namespace deepseek
