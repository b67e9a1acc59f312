// Quantized weights: codes, scales and zero points are plain tensors (kernels/quant_format.h), `format` and `block` say
// how to read them.
#include "kernels/quantize.h"
#include "ops/composite.h"
#include "ops/operands.h"
#include "ops/quant_parts.h"

namespace deepseek {
using kernels::QuantMatrix;
using kernels::QuantTraits;

struct Quantize {
  Str format;
  int64_t block;
  static constexpr OpInfo info{
      .schema =
          "_quantize(Tensor input, str format='int4', int block=32) -> (Tensor codes, Tensor scales, Tensor zeros)",
      .doc =
          "Codes, scales and zero points of a matrix [N, K], or of each of a stack [E, N, K]; zeros are empty where "
          "the "
          "format has none.",
      .kind = Kind::kRow,
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const Quantize&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    const Tensor& w = in[0];
    const QuantTraits& t = format_of("quantize", format, block);
    DS_CHECK(w.dim() == 2 || w.dim() == 3,
             "quantize(): input must be a matrix [N, K] or a stack of them [E, N, K], got ", "shape ", w.sizes());
    DS_CHECK_AS(NotImplementedError, is_floating(w.dtype()) && !is_float8(w.dtype()),
                "quantize(): input must be float32, float64, bfloat16 or float16, got ", w.dtype());
    const QuantMatrix m{t.format, w.size(-2), w.size(-1), block};
    Dims codes = w.sizes(), sides = w.sizes();
    codes.back() = m.row_bytes();
    sides[w.dim() - 2] = m.scale_rows();
    sides.back() = m.blocks();
    return {Meta{t.code, codes}, Meta{DType::kFloat32, sides}, Meta{DType::kUInt8, t.has_zeros ? sides : Dims{0}}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const Tensor w = dense(in[0], DType::kFloat32);
    const QuantTraits& t = format_of("quantize", format, block);
    const QuantParts q(t, block, w.size(-1), out[0], out[1], out[2]);
    for (int64_t e = 0; e < q.count; ++e)
      kernels::quantize(q.m.of_stack(e), w.data<float>() + e * w.size(-2) * w.size(-1));
  }
};
DS_OP(Quantize);

struct Dequantize {
  Str format;
  int64_t block, columns;
  Opt<DType> dtype;
  static constexpr OpInfo info{
      .schema =
          "_dequantize(Tensor codes, Tensor scales, Tensor? zeros, str format, int block, int columns, *, "
          "dtype? dtype=None) -> Tensor",
      .doc =
          "The matrix [N, columns], or the stack [E, N, columns], that codes, scales and zero points stand for; "
          "float32 "
          "unless dtype is given.",
      .kind = Kind::kRow,
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const Dequantize&) const = default;
  Meta infer(Inputs in) const {
    const QuantTraits& t = format_of("dequantize", format, block);
    const DType to = dtype.value_or(DType::kFloat32);
    DS_CHECK_AS(NotImplementedError, is_floating(to) && !is_float8(to),
                "dequantize(): dtype must be float32, float64, bfloat16 or float16, got ", to);
    check_parts("dequantize", t, block, columns, in);
    Dims sizes = in[0].sizes();
    sizes.back() = columns;
    return {to, sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    const QuantTraits& t = format_of("dequantize", format, block);
    const QuantParts q(t, block, columns, in[0], in[1], in[2]);
    const bool direct = out.dtype() == DType::kFloat32 || out.dtype() == DType::kBFloat16;
    const Tensor to = direct ? out : Tensor::empty(out.sizes(), DType::kFloat32);
    const int64_t bytes = q.m.n * columns * size_of(to.dtype());
    for (int64_t e = 0; e < q.count; ++e)
      kernels::dequantize(q.m.of_stack(e), to.dtype(), static_cast<char*>(to.data_ptr()) + e * bytes);
    if (!direct) kernels::copy(out.view(), to.view());
  }
};
DS_OP(Dequantize);

Tensor dequantized(const Str& format, int64_t block, int64_t k, DType dtype, Inputs parts) {
  return apply(Dequantize{format, block, k, dtype}, parts[0], parts[1], parts[2]);
}

struct QLinear {
  Str format;
  int64_t block;
  static constexpr OpInfo info{
      .schema =
          "_quantized_linear(Tensor input, Tensor codes, Tensor scales, Tensor? zeros, Tensor? bias, str format, int "
          "block) "
          "-> Tensor",
      .doc =
          "input [..., K] @ weight [N, K] transposed + bias [N], for a quantized weight. int8 and int4: each row of "
          "input is quantized to int8 on the way. fp8: the weight is dequantized to the input's dtype in tiles. "
          "Gradients reach input and bias, as if the weight were dequantized and input not quantized.",
      .kind = Kind::kMatmul,
      .saves = Saves::kRest,
      .shown = Shown::kHidden};
  bool operator==(const QLinear&) const = default;

  Meta infer(Inputs in) const {
    const Tensor &x = in[0], &bias = in[4];
    const QuantTraits& t = format_of("qlinear", format, block);
    DS_CHECK(x.dim() >= 1, "qlinear(): input must have at least one dim, got a 0-d tensor");
    DS_CHECK_AS(NotImplementedError, is_floating(x.dtype()) && !is_float8(x.dtype()),
                "qlinear(): input must be float32, bfloat16, float16 or float64, got ", x.dtype());
    check_parts("qlinear", t, block, x.sizes().back(), in.subspan(1, 3));
    DS_CHECK(in[1].dim() == 2, "qlinear(): weight must be one matrix, got codes of shape ", in[1].sizes());
    refuse_gradients("qlinear", in.subspan(1, 3));
    const int64_t n = in[1].sizes()[0];
    if (bias.defined())
      DS_CHECK(bias.dtype() == x.dtype() && bias.sizes() == Dims{n}, "qlinear(): bias must be ", x.dtype(),
               " of shape ", Dims{n}, ", got ", bias.dtype(), " of shape ", bias.sizes());
    Dims sizes = x.sizes();
    sizes.back() = n;
    return {x.dtype(), sizes};
  }

  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    // float16 and float64 compute in float32.
    const DType dtype = in[0].dtype() == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
    const Tensor x = dense(in[0], dtype), bias = in[4].defined() ? dense(in[4], dtype) : Tensor();
    const Tensor y = out.dtype() == dtype ? out : Tensor::empty(out.sizes(), dtype);
    const int64_t n = out.sizes().back(), k = x.sizes().back();
    const kernels::QGemm g{
        dtype, out.numel() / n, x.data_ptr(), k, bias.defined() ? bias.data_ptr() : nullptr, y.data_ptr(), n};
    product(g, in, k);
    if (!y.is(out)) kernels::copy(out.view(), y.view());
  }

  Grads vjp(const Vjp& c) const {
    Grads out(5);
    const Tensor &g = c.grad[0], &x = c.in[0];
    const int64_t k = x.sizes().back(), n = g.sizes().back();
    const Tensor rows = reshape(g, {numel_of(g.sizes()) / std::max<int64_t>(n, 1), n});
    if (c.need(0)) {
      const Tensor w = dequantized(format, block, k, g.dtype(), c.in.subspan(1, 3));
      out[0] = n == 0 ? zeros(x.sizes(), g.dtype()) : reshape(matmul(rows, w), x.sizes());
    }
    if (c.in[4].defined() && c.need(4)) out[4] = sum(rows, Dims{0});
    return out;
  }

 private:
  void product(const kernels::QGemm& g, Inputs in, int64_t k) const {
    const QuantTraits& t = format_of("qlinear", format, block);
    if (t.format == kernels::QuantFormat::kFp8)
      return kernels::qgemm_fp8(g, QuantParts(t, block, k, in[1], in[2], in[3]).m);
    kernels::qgemm(g, *packed_weights(t, block, k, in.subspan(1, 3))->as<kernels::PackedQuant>());
  }
};
DS_OP(QLinear);

DS_BODY(QLinearPublic,
        "_qlinear(Tensor input, Tensor codes, Tensor scales, Tensor? zeros, Tensor? bias, str format, int block) -> "
        "Tensor",
        "_quantized_linear; under autocast input and bias are in the lower dtype.", false, kHidden, Str format;
        int64_t block;) {
  return apply(QLinear{format, block}, autocast_lower(in[0]), in[1], in[2], in[3], autocast_lower(in[4]));
}

}  // namespace deepseek
