// Quantized weights: codes, scales and zero points are plain tensors (kernels/quant_format.h), `format` and `block` say
// how to read them.
#include "core/packed.h"
#include "kernels/copy.h"
#include "kernels/qgemm.h"
#include "kernels/quantize.h"
#include "ops/composite.h"

namespace deepseek {
namespace {

using kernels::QuantMatrix;
using kernels::QuantTraits;

const QuantTraits& format_of(const char* op, const Str& format, int64_t block) {
  const QuantTraits* t = kernels::find_format(format.view());
  DS_CHECK_AS(ValueError, t, op, "(): format must be 'int8', 'int4', 'int4_zero' or 'fp8', got '", format.view(), "'");
  DS_CHECK_AS(ValueError, kernels::accepts_block(*t, block), op, "(): format '", t->name, "' takes blocks of ",
              t->format == kernels::QuantFormat::kFp8    ? "128"
              : t->format == kernels::QuantFormat::kInt8 ? "0 (a whole row), 32, 64 or 128"
                                                         : "32, 64 or 128",
              ", got ", block);
  return *t;
}

Tensor as_contiguous(const Tensor& t, DType dtype) {
  if (!t.defined() || (t.dtype() == dtype && t.is_contiguous())) return t;
  const Tensor copy = Tensor::empty(t.sizes(), dtype);
  kernels::copy(copy.view(), t.view());
  return copy;
}

// The parts of a quantized matrix as the kernels take them; the tensors keep the memory.
struct Parts {
  Tensor codes, scales, zeros;
  QuantMatrix m;

  Parts(const QuantTraits& t, int64_t block, int64_t n, int64_t k, const Tensor& c, const Tensor& s, const Tensor& z)
      : codes(as_contiguous(c, t.code)), scales(as_contiguous(s, DType::kFloat32)), m{t.format, n, k, block} {
    if (t.has_zeros) zeros = as_contiguous(z, DType::kUInt8);
    m.codes = static_cast<uint8_t*>(codes.data_ptr());
    m.scales = scales.data<float>();
    m.zeros = zeros.defined() ? zeros.data<uint8_t>() : nullptr;
  }
};

// Codes [N, ...], scales and zeros fit format, block and K; returns N.
int64_t check_parts(const char* op, const QuantTraits& t, int64_t block, int64_t k, const Tensor& codes,
                    const Tensor& scales, const Tensor& zeros) {
  DS_CHECK(codes.dtype() == t.code, op, "(): codes of format '", t.name, "' are ", t.code, ", got ", codes.dtype());
  DS_CHECK(codes.dim() == 2, op, "(): codes must be 2-D, got shape ", codes.sizes());
  const int64_t n = codes.sizes()[0];
  const QuantMatrix m{t.format, n, k, block};
  DS_CHECK(codes.sizes()[1] == m.row_bytes(), op, "(): codes of shape ", codes.sizes(), " do not hold rows of ", k,
           " values: format '", t.name, "' takes ", m.row_bytes(), " bytes a row");
  const Dims sides{m.scale_rows(), m.blocks()};
  DS_CHECK(scales.dtype() == DType::kFloat32 && scales.sizes() == sides, op, "(): scales must be float32 of shape ",
           sides, " for ", n, " x ", k, " weights in blocks of ", block, ", got ", scales.dtype(), " of shape ",
           scales.sizes());
  if (t.has_zeros) {
    DS_CHECK(zeros.defined() && zeros.dtype() == DType::kUInt8 && zeros.sizes() == sides, op, "(): format '", t.name,
             "' needs zeros, uint8 of shape ", sides);
  } else {
    DS_CHECK(!zeros.defined() || zeros.numel() == 0, op, "(): format '", t.name, "' has no zero points, got zeros of ",
             "shape ", zeros.defined() ? zeros.sizes() : Dims());
  }
  return n;
}

void refuse_gradients(const char* op, const Tensor& codes, const Tensor& scales) {
  DS_CHECK(!mode().records() || !(codes.requires_grad() || scales.requires_grad()), op,
           "(): codes and scales are not differentiable, but one of them requires grad; train the weights before they "
           "are quantized, or detach() the scales");
}

}  // namespace

struct Quantize {
  Str format;
  int64_t block;
  static constexpr OpInfo info{
      .schema =
          "_quantize(Tensor input, str format='int4', int block=32) -> (Tensor codes, Tensor scales, Tensor zeros)",
      .doc = "Codes, scales and zero points of a matrix [N, K]; zeros are empty where the format has none.",
      .kind = Kind::kRow,
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const Quantize&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    const Tensor& w = in[0];
    const QuantTraits& t = format_of("quantize", format, block);
    DS_CHECK(w.dim() == 2, "quantize(): input must be a matrix [N, K], got shape ", w.sizes());
    DS_CHECK_AS(NotImplementedError, is_floating(w.dtype()) && !is_float8(w.dtype()),
                "quantize(): input must be float32, float64, bfloat16 or float16, got ", w.dtype());
    const QuantMatrix m{t.format, w.sizes()[0], w.sizes()[1], block};
    const Dims sides{m.scale_rows(), m.blocks()};
    return {Meta{t.code, {m.n, m.row_bytes()}}, Meta{DType::kFloat32, sides},
            Meta{DType::kUInt8, t.has_zeros ? sides : Dims{0}}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const Tensor w = as_contiguous(in[0], DType::kFloat32);
    const QuantTraits& t = format_of("quantize", format, block);
    const Parts q(t, block, w.sizes()[0], w.sizes()[1], out[0], out[1], out[2]);
    kernels::quantize(q.m, w.data<float>());
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
      .doc = "The matrix [N, columns] that codes, scales and zero points stand for; float32 unless dtype is given.",
      .kind = Kind::kRow,
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const Dequantize&) const = default;
  Meta infer(Inputs in) const {
    const QuantTraits& t = format_of("dequantize", format, block);
    const DType to = dtype.value_or(DType::kFloat32);
    DS_CHECK_AS(NotImplementedError, is_floating(to) && !is_float8(to),
                "dequantize(): dtype must be float32, float64, bfloat16 or float16, got ", to);
    const int64_t n = check_parts("dequantize", t, block, columns, in[0], in[1], in[2]);
    return {to, {n, columns}};
  }
  void eval(Inputs in, Tensor& out) const {
    const QuantTraits& t = format_of("dequantize", format, block);
    const Parts q(t, block, out.sizes()[0], columns, in[0], in[1], in[2]);
    if (out.dtype() == DType::kFloat32 || out.dtype() == DType::kBFloat16)
      return kernels::dequantize(q.m, out.dtype(), out.data_ptr());
    const Tensor wide = Tensor::empty(out.sizes(), DType::kFloat32);
    kernels::dequantize(q.m, DType::kFloat32, wide.data_ptr());
    kernels::copy(out.view(), wide.view());
  }
};
DS_OP(Dequantize);

struct QLinear {
  Str format;
  int64_t block;
  static constexpr OpInfo info{
      .schema =
          "_qlinear(Tensor input, Tensor codes, Tensor scales, Tensor? zeros, Tensor? bias, str format, int block) "
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
    const int64_t n = check_parts("qlinear", t, block, x.sizes().back(), in[1], in[2], in[3]);
    refuse_gradients("qlinear", in[1], in[2]);
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
    const Tensor x = as_contiguous(in[0], dtype), bias = as_contiguous(in[4], dtype);
    const Tensor y = out.dtype() == dtype ? out : Tensor::empty(out.sizes(), dtype);
    const int64_t n = out.sizes().back(), k = x.sizes().back();
    const kernels::QGemm g{
        dtype, out.numel() / n, x.data_ptr(), k, bias.defined() ? bias.data_ptr() : nullptr, y.data_ptr(), n};
    product(g, in, n, k);
    if (!y.is(out)) kernels::copy(out.view(), y.view());
  }

  Grads vjp(const Vjp& c) const {
    Grads out(5);
    const Tensor &g = c.grad[0], &x = c.in[0];
    const int64_t k = x.sizes().back(), n = g.sizes().back();
    const Tensor rows = reshape(g, {numel_of(g.sizes()) / std::max<int64_t>(n, 1), n});
    if (c.need(0)) {
      const Tensor w = apply(Dequantize{format, block, k, g.dtype()}, c.in[1], c.in[2], c.in[3]);
      out[0] = n == 0 ? zeros(x.sizes(), g.dtype()) : reshape(matmul(rows, w), x.sizes());
    }
    if (c.in[4].defined() && c.need(4)) out[4] = sum(rows, Dims{0});
    return out;
  }

 private:
  void product(const kernels::QGemm& g, Inputs in, int64_t n, int64_t k) const {
    const QuantTraits& t = format_of("qlinear", format, block);
    if (t.format == kernels::QuantFormat::kFp8)
      return kernels::qgemm_fp8(g, Parts(t, block, n, k, in[1], in[2], in[3]).m);
    const uint64_t variant = static_cast<uint64_t>(t.format) | static_cast<uint64_t>(block) << 8;
    const Ref<Packed> w = packed(in.subspan(1, 3), {"qgemm", variant}, [&] {
      const Parts parts(t, block, n, k, in[1], in[2], in[3]);
      const kernels::PackedQuant form = kernels::packed_form(parts.m);
      Ref<Packed> made = make_ref<Packed>(kernels::packed_bytes(form));
      kernels::qgemm_pack(parts.m, form, made->as<void>());
      return made;
    });
    kernels::qgemm(g, *w->as<kernels::PackedQuant>());
  }
};
DS_OP(QLinear);

}  // namespace deepseek
