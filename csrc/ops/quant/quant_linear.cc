// Linear layers with quantized weights, also with what follows them in one pass over the result.
#include "ops/composite.h"
#include "ops/operands.h"
#include "ops/pointwise/activation.h"
#include "ops/quant/quant_parts.h"

namespace deepseek {
namespace {

using kernels::Activation;
using kernels::QuantFormat;

enum : size_t { kX, kCodes, kBias = 4, kResidual };

const kernels::Activation* activation_named(const Str& name) { return find_activation("qlinear()", name); }

// `in`: input, codes, scales, zeros, bias.
Meta result_of(Inputs in, const Str& format, int64_t block) {
  const Tensor &x = in[kX], &bias = in[kBias];
  const QuantFormat& t = format_of("qlinear", format, block);
  DS_CHECK(x.dim() >= 1, "qlinear(): input must have at least one dim, got a 0-d tensor");
  DS_CHECK_AS(NotImplementedError, is_floating(x.dtype()) && !is_float8(x.dtype()),
              "qlinear(): input must be float32, bfloat16, float16 or float64, got ", x.dtype());
  check_parts("qlinear", t, block, x.sizes().back(), in.subspan(kCodes, 3));
  DS_CHECK(in[kCodes].dim() == 2, "qlinear(): weight must be one matrix, got codes of shape ", in[kCodes].sizes());
  refuse_gradients("qlinear", in.subspan(kCodes, 3));
  const int64_t n = in[kCodes].sizes()[0];
  if (bias.defined()) {
    const bool wide = is_reduced_float(x.dtype()) && bias.dtype() == DType::kFloat32;
    DS_CHECK((bias.dtype() == x.dtype() || wide) && bias.sizes() == Dims{n}, "qlinear(): bias must be ", x.dtype(),
             is_reduced_float(x.dtype()) ? " or float32" : "", " of shape ", Dims{n}, ", got ", bias.dtype(),
             " of shape ", bias.sizes());
  }
  Dims sizes = x.sizes();
  sizes.back() = n;
  return {x.dtype(), sizes};
}

// The others compute in float32 and would be rounded fewer times than by separate ops.
bool fuses(DType t) { return t == DType::kFloat32 || t == DType::kBFloat16; }

// With a residual (may be undefined) of the result's dtype and shape.
void run(Inputs in, const Tensor& residual, const Str& format, int64_t block, const Activation* activation,
         Tensor& out) {
  if (out.numel() == 0) return;
  // float16 and float64 compute in float32.
  const DType dtype = in[kX].dtype() == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
  const Tensor x = dense(in[kX], dtype), bias = in[kBias].defined() ? dense(in[kBias], DType::kFloat32) : Tensor(),
               added = residual.defined() ? dense(residual, dtype) : Tensor();
  const Tensor y = out.dtype() == dtype ? out : Tensor::empty(out.sizes(), dtype);
  const int64_t n = out.sizes().back(), k = x.sizes().back();
  kernels::QGemm g{dtype, out.numel() / n, x.data_ptr(), k, bias.defined() ? bias.data<float>() : nullptr, y.data_ptr(),
                   n};
  if (activation) g.activation = activation->op;
  if (added.defined()) g.residual = added.data_ptr(), g.residual_row = n;
  const QuantFormat& t = format_of("qlinear", format, block);
  if (t.packed)
    kernels::qgemm(g, *packed_weights(t, block, k, in.subspan(kCodes, 3))->as<kernels::PackedQuant>());
  else
    kernels::qgemm_dequantized(g, QuantParts(t, block, k, in[1], in[2], in[3]).m);
  if (!y.is(out)) kernels::copy(out.view(), y.view());
}

}  // namespace

struct QLinear {
  Str format;
  int64_t block;
  static constexpr OpInfo info{
      .schema =
          "_quantized_linear(Tensor input, Tensor codes, Tensor scales, Tensor? zeros, Tensor? bias, str format, int "
          "block) -> Tensor",
      .doc =
          "input [..., K] @ weight [N, K] transposed + bias [N], for a quantized weight. Codes that are whole numbers: "
          "each row of input is quantized to int8 on the way. Others: the weight is dequantized to the input's dtype "
          "in tiles. Gradients reach input and bias, as if the weight were dequantized and input not quantized.",
      .saves = Saves::kRest,
      .shown = Shown::kHidden};
  bool operator==(const QLinear&) const = default;
  Meta infer(Inputs in) const { return result_of(in, format, block); }
  void eval(Inputs in, Tensor& out) const { run(in, {}, format, block, nullptr, out); }
  Grads vjp(const Vjp& c) const {
    Grads out(5);
    const Tensor &g = c.grad[0], &x = c.in[kX], &bias = c.in[kBias];
    const int64_t k = x.sizes().back(), n = g.sizes().back();
    const Tensor rows = reshape(g, {numel_of(g.sizes()) / std::max<int64_t>(n, 1), n});
    if (c.need(kX)) {
      const Tensor w = dequantized(format, block, k, g.dtype(), c.in.subspan(kCodes, 3));
      out[kX] = n == 0 ? zeros(x.sizes(), g.dtype()) : reshape(matmul(rows, w), x.sizes());
    }
    if (bias.defined() && c.need(kBias)) out[kBias] = sum(to_dtype(rows, bias.dtype()), Dims{0});
    return out;
  }
};
DS_OP(QLinear);

struct QLinearFused {
  Str format;
  int64_t block;
  Str activation;
  static constexpr OpInfo info{
      .schema =
          "_quantized_linear_fused(Tensor input, Tensor codes, Tensor scales, Tensor? zeros, Tensor? bias, Tensor? "
          "residual, str format, int block, str activation) -> Tensor",
      .doc =
          "activation(_quantized_linear(...)) + residual where a tile's rows are stored. float32 and bfloat16; the "
          "bits of the ops one by one.",
      .shown = Shown::kHidden};
  bool operator==(const QLinearFused&) const = default;
  Meta infer(Inputs in) const {
    DS_CHECK_AS(NotImplementedError, fuses(in[kX].dtype()),
                "_quantized_linear_fused(): input must be float32 or bfloat16, got ", in[kX].dtype());
    return check(in);
  }
  Meta check(Inputs in) const {
    activation_named(activation);
    const Meta out = result_of(in, format, block);
    const Tensor& residual = in[kResidual];
    DS_CHECK(!residual.defined() || (residual.dtype() == out.dtype && residual.sizes() == out.sizes),
             "qlinear(): residual must be ", out.dtype, " of shape ", out.sizes, ", as the result; got ",
             residual.dtype(), " of shape ", residual.sizes());
    return out;
  }
  void eval(Inputs in, Tensor& out) const { run(in, in[kResidual], format, block, activation_named(activation), out); }
  TensorList composite(Inputs in) const {
    const Tensor y =
        activated(activation_named(activation), apply(QLinear{format, block}, in[kX], in[1], in[2], in[3], in[kBias]));
    return {in[kResidual].defined() ? y + in[kResidual] : y};
  }
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(QLinearFused);

DS_BODY_CAST_OF(
    kLower, slots(kX, kBias, kResidual), QLinearPublic,
    "_qlinear(Tensor input, Tensor codes, Tensor scales, Tensor? zeros, Tensor? bias, str format, int block, "
    "str activation='none', Tensor? residual=None) -> Tensor",
    "_quantized_linear, or the fused form where no gradient is wanted; under autocast input, bias and residual are "
    "in the lower dtype.",
    false, kHidden, Str format;
    int64_t block; Str activation;) {
  const QLinearFused fused{format, block, activation};
  if (activation == "none" && !in[kResidual].defined())
    return apply(QLinear{format, block}, in[kX], in[1], in[2], in[3], in[kBias]);
  const bool separate = !fuses(in[kX].dtype()) || (mode().records() && any_requires_grad(in));
  if (!separate) return apply(fused, in[kX], in[1], in[2], in[3], in[kBias], in[kResidual]);
  fused.check(in);
  return fused.composite(in)[0];
}

}  // namespace deepseek
