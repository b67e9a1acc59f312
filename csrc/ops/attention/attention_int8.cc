// Attention over keys and values that are kept as int8.
#include "kernels/attention/int8/attention_int8.h"

#include "ops/attention/attention.h"

namespace deepseek {

struct AttentionInt8 {
  bool is_causal;
  double scale;
  int64_t window;  // 0: all keys
  double softcap;  // 0: none
  int64_t query_start;
  static constexpr OpInfo info{
      .schema =
          "_attention_int8(Tensor query, Tensor key, Tensor key_scale, Tensor value, Tensor value_scale, Tensor? mask, "
          "Tensor? sinks, bool is_causal, float scale, int window, float softcap, int query_start) -> (Tensor out, "
          "Tensor lse)",
      .doc =
          "_attention of [B, H, L, E] over int8 codes [B, K, S, E] and [B, K, S, V] with a scale a row, [B, K, S] "
          "each.",
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const AttentionInt8&) const = default;

  std::array<Meta, 2> infer(Inputs in) const {
    const Tensor &q = in[0], &k = in[1], &v = in[3];
    constexpr auto kName = "attention over an int8 cache: ";
    check_attention_shapes(kName, q, k, v);
    check_attention_positions(kName, q.size(2), k.size(2), window, query_start);
    check_attention_mask(kName, in[5], q.dtype(), score_sizes(q, k));
    check_attention_sinks(kName, in[6], q.size(1));
    DS_CHECK(k.dtype() == DType::kInt8 && v.dtype() == DType::kInt8, kName, "key and value must be int8, got ",
             name_of(k.dtype()), " and ", name_of(v.dtype()), "; quantize_rows() makes them");
    DS_CHECK_AS(NotImplementedError, is_floating(q.dtype()) && !is_float8(q.dtype()), kName, "not implemented for ",
                name_of(q.dtype()), " queries; convert to float32 first");
    const Dims rows{k.size(0), k.size(1), k.size(2)};
    for (const int i : {2, 4})
      DS_CHECK(in[i].sizes() == rows && is_floating(in[i].dtype()), kName, i == 2 ? "key" : "value",
               "_scale must be floating ", rows, ", one number a row; got ", name_of(in[i].dtype()), " ",
               in[i].sizes());
    DS_CHECK(q.size(3) <= kernels::kMostInt8Features, kName, "rows of keys may have ", kernels::kMostInt8Features,
             " numbers, got ", q.size(3));
    DS_CHECK(softcap >= 0, kName, "softcap must not be negative, got ", softcap);
    return attention_results(q, v);
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const DType f = DType::kFloat32, c = computing_type(in[0].dtype());
    const Tensor q = dense_rows(in[0], in[0].dtype()), k = dense_rows(in[1], DType::kInt8),
                 k_scale = dense_rows(in[2], f), v = dense_rows(in[3], DType::kInt8), v_scale = dense_rows(in[4], f),
                 sinks = in[6].defined() ? dense(in[6], c) : Tensor();
    kernels::Attention a;
    a.q = q.view(), a.k = k.view(), a.v = v.view(), a.k_scale = k_scale.view(), a.v_scale = v_scale.view();
    if (in[5].defined()) a.mask = in[5].view_as(score_sizes(q, k));
    if (sinks.defined()) a.sinks = sinks.view();
    a.scale = scale, a.softcap = softcap, a.causal = is_causal, a.query_start = query_start;
    a.window = std::min(window, kMostPosition);
    (c == DType::kFloat64 ? kernels::attention_int8_forward_plain : kernels::attention_int8_forward)(a, out[0].view(),
                                                                                                     out[1].view());
  }
};
DS_OP(AttentionInt8);

Tensor attention_over_int8(Inputs in, bool is_causal, double scale, int64_t window, double softcap,
                           int64_t query_start) {
  if (mode().records())
    for (const Tensor& t : in)
      DS_CHECK(
          !t.defined() || !t.requires_grad(),
          "attention over an int8 cache has no gradients, but an operand requires grad; call it under no_grad(), or "
          "detach() the operand");
  return apply_list(AttentionInt8{is_causal, scale, window, softcap, query_start}, in)[0];
}

}  // namespace deepseek
