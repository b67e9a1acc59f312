// The mixture of experts of moe.cc with quantized weights.
#include "base/text.h"
#include "kernels/moe/moe.h"
#include "kernels/moe/moe_quant.h"
#include "ops/composite.h"
#include "ops/moe/moe.h"
#include "ops/operands.h"
#include "ops/quant/quant_parts.h"

namespace deepseek {
namespace {

using kernels::PackedQuant;
using kernels::QuantFormat;

enum : size_t {
  kQuantX,
  kQuantGate = 1,
  kQuantUp = 4,
  kQuantDown = 7,
  kQuantIds = 10,
  kQuantWeights
};  // inputs; of weights the first of three

// Those whose products are of dequantized weights.
std::string dequantized_formats() {
  std::vector<std::string> names;
  for (const QuantFormat& t : kernels::quant_formats())
    if (!t.packed) names.emplace_back(t.name);
  return either(names);
}

Dims sizes_of(const Tensor& codes, int64_t k) {
  Dims sizes = codes.sizes();
  sizes.back() = k;
  return sizes;
}

QuantParts parts_of(const QuantFormat& t, int64_t block, int64_t k, Inputs in, size_t i) {
  return {t, block, k, in[i], in[i + 1], in[i + 2]};
}
View sizes_only(const QuantParts& p, DType dtype) { return {nullptr, dtype, {p.count, p.m.n, p.m.k}, {0, 0, 0}}; }

}  // namespace

struct QMoe {
  Str format;
  int64_t block;
  Str down_format;
  int64_t down_block;
  Opt<double> limit;
  bool wide;
  static constexpr OpInfo info{
      .schema =
          "_quantized_moe(Tensor input, Tensor gate_codes, Tensor gate_scales, Tensor? gate_zeros, Tensor up_codes, "
          "Tensor up_scales, Tensor? up_zeros, Tensor down_codes, Tensor down_scales, Tensor? down_zeros, Tensor "
          "topk_indices, Tensor topk_weights, str format, int block, str down_format, int down_block, float? "
          "swiglu_limit, bool wide) "
          "-> Tensor",
      .doc =
          "moe with quantized weights: a loop over experts with _quantized_linear, but what a token's experts give is "
          "added before it is rounded. Gradients reach input and topk_weights, as if the weights were dequantized and "
          "rows not quantized.",
      .shown = Shown::kHidden};
  bool operator==(const QMoe&) const = default;

  Meta infer(Inputs in) const {
    const Tensor &x = in[kQuantX], &w = in[kQuantWeights];
    DS_CHECK(x.dim() == 2, "moe: input must be [tokens, features], got ", x.sizes());
    const int64_t dim = x.sizes()[1], hidden = in[kQuantGate].dim() == 3 ? in[kQuantGate].sizes()[1] : 0;
    const QuantFormat &t = format_of("qmoe", format, block), &d = format_of("qmoe", down_format, down_block);
    DS_CHECK_AS(ValueError, !t.packed == !d.packed, "qmoe(): ", dequantized_formats(), " goes with ",
                dequantized_formats(), " alone, got format '", t.name, "' for gate and up, '", d.name, "' for down");
    check_parts("qmoe", t, block, dim, in.subspan(kQuantGate, 3));
    check_parts("qmoe", t, block, dim, in.subspan(kQuantUp, 3));
    check_parts("qmoe", d, down_block, hidden, in.subspan(kQuantDown, 3));
    check_moe_sizes(x, sizes_of(in[kQuantGate], dim), sizes_of(in[kQuantUp], dim), sizes_of(in[kQuantDown], hidden),
                    in[kQuantIds], w);
    DS_CHECK(is_floating(w.dtype()) && !is_float8(w.dtype()), "moe: topk_weights must be floating point, got ",
             name_of(w.dtype()));
    for (const size_t i : {kQuantGate, kQuantUp, kQuantDown}) refuse_gradients("qmoe", in.subspan(i, 3));
    swiglu_limit("qmoe", limit);
    return {wide ? computing_type(x.dtype()) : x.dtype(), x.sizes()};
  }

  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    // float16 and float64 compute in float32.
    const DType dtype = in[kQuantX].dtype() == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
    const int64_t dim = out.sizes()[1], hidden = in[kQuantGate].sizes()[1];
    const Tensor x = dense(in[kQuantX], dtype), w = dense(in[kQuantWeights], DType::kFloat32);
    const DType sums = wide ? DType::kFloat32 : dtype;
    const Tensor y = out.dtype() == sums ? out : Tensor::empty(out.sizes(), sums);
    const double bound = swiglu_limit("qmoe", limit);
    const kernels::ExpertRows rows = kernels::sort_by_expert(in[kQuantIds].view(), in[kQuantGate].sizes()[0]);
    const QuantFormat &t = format_of("qmoe", format, block), &d = format_of("qmoe", down_format, down_block);
    if (!t.packed) {
      const QuantParts gate = parts_of(t, block, dim, in, kQuantGate), up = parts_of(t, block, dim, in, kQuantUp),
                       down = parts_of(d, down_block, hidden, in, kQuantDown);
      const View g = sizes_only(gate, dtype);
      kernels::moe_forward({x.view(), g, g, sizes_only(down, dtype), w.data_ptr(), bound, {&gate.m, &up.m, &down.m}},
                           rows, {y.dtype(), y.data_ptr()});
    } else {
      const Ref<Packed> gate = packed_weights(t, block, dim, in.subspan(kQuantGate, 3)),
                        up = packed_weights(t, block, dim, in.subspan(kQuantUp, 3)),
                        down = packed_weights(d, down_block, hidden, in.subspan(kQuantDown, 3));
      kernels::moe_quant_forward({dtype, y.dtype(), x.sizes()[0], x.data_ptr(), w.data<float>(), y.data_ptr(), bound},
                                 rows, {gate->as<PackedQuant>(), up->as<PackedQuant>(), down->as<PackedQuant>()});
    }
    if (!y.is(out)) kernels::copy(out.view(), y.view());
  }

  Grads vjp(const Vjp& c) const {
    const Tensor& x = c.in[kQuantX];
    const auto weight = [&](size_t i, const Str& f, int64_t b, int64_t k) {
      return dequantized(f, b, k, x.dtype(), c.in.subspan(i, 3));
    };
    const int64_t dim = x.sizes()[1], hidden = c.in[kQuantGate].sizes()[1];
    const Tensor gate = weight(kQuantGate, format, block, dim), up = weight(kQuantUp, format, block, dim),
                 down = weight(kQuantDown, down_format, down_block, hidden);
    const Grads g = moe_gradients({x, gate, up, down, c.in[kQuantIds], c.in[kQuantWeights], limit}, c.grad[0],
                                  c.need(kQuantX), c.need(kQuantWeights));
    Grads out(12);
    out[kQuantX] = g[0];
    out[kQuantWeights] = g[1];
    return out;
  }
};
DS_OP(QMoe);

DS_BODY_CAST_OF(kLower, slots(kQuantX), QMoePublic,
                "_qmoe(Tensor input, Tensor gate_codes, Tensor gate_scales, Tensor? gate_zeros, Tensor up_codes, "
                "Tensor up_scales, Tensor? up_zeros, Tensor down_codes, Tensor down_scales, Tensor? down_zeros, Tensor "
                "topk_indices, Tensor topk_weights, str format, int block, str down_format, int down_block, float? "
                "swiglu_limit=None, bool wide=False) -> Tensor",
                "_quantized_moe; under autocast the input is in the lower dtype.", false, kHidden, Str format;
                int64_t block; Str down_format; int64_t down_block; Opt<double> limit; bool wide;) {
  return apply(QMoe{format, block, down_format, down_block, limit, wide}, in[kQuantX], in[1], in[2], in[3], in[4],
               in[5], in[6], in[7], in[8], in[9], in[kQuantIds], in[kQuantWeights]);
}

}  // namespace deepseek
