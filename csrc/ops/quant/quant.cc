// Quantized weights: codes, scales and zero points are plain tensors (kernels/quant/quant_format.h), `format` and
// `block` say how to read them.
#include "kernels/quant/quantize.h"
#include "ops/composite.h"
#include "ops/operands.h"
#include "ops/quant/quant_parts.h"

namespace deepseek {
using kernels::QuantFormat;
using kernels::QuantMatrix;

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
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const Quantize&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    const Tensor& w = in[0];
    const QuantFormat& t = format_of("quantize", format, block);
    DS_CHECK(w.dim() == 2 || w.dim() == 3,
             "quantize(): input must be a matrix [N, K] or a stack of them [E, N, K], got ", "shape ", w.sizes());
    DS_CHECK_AS(NotImplementedError, is_floating(w.dtype()) && !is_float8(w.dtype()),
                "quantize(): input must be float32, float64, bfloat16 or float16, got ", w.dtype());
    const QuantMatrix m{&t, w.size(-2), w.size(-1), block};
    Dims codes = w.sizes(), sides = w.sizes();
    codes.back() = m.row_bytes();
    sides[w.dim() - 2] = m.scale_rows();
    sides.back() = m.blocks();
    return {Meta{t.code, codes}, Meta{DType::kFloat32, sides}, Meta{DType::kUInt8, t.has_zeros ? sides : Dims{0}}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const Tensor w = dense(in[0], DType::kFloat32);
    const QuantFormat& t = format_of("quantize", format, block);
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
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const Dequantize&) const = default;
  Meta infer(Inputs in) const {
    const QuantFormat& t = format_of("dequantize", format, block);
    const DType to = dtype.value_or(DType::kFloat32);
    DS_CHECK_AS(NotImplementedError, is_floating(to) && !is_float8(to),
                "dequantize(): dtype must be float32, float64, bfloat16 or float16, got ", to);
    check_parts("dequantize", t, block, columns, in);
    Dims sizes = in[0].sizes();
    sizes.back() = columns;
    return {to, sizes};
  }
  void eval(Inputs in, Tensor& out) const {
    const QuantFormat& t = format_of("dequantize", format, block);
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

}  // namespace deepseek
