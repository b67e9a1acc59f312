// Scaled dot-product attention: one fused op, its gradient, and what defines them in plain ops. Second derivatives go
// through the latter.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention/attention_plain.h"
#include "kernels/loops/copy.h"
#include "ops/attention/attention.h"
#include "ops/composite.h"

namespace deepseek {
namespace {

// Query heads share key and value heads in groups.
Tensor repeat_heads(const Tensor& t, int64_t groups) {
  if (groups == 1) return t;
  Dims spread = t.sizes();
  spread.insert(t.dim() - 2, groups);  // [.., H, groups, T, D]
  Dims merged = t.sizes();
  merged[t.dim() - 3] *= groups;
  return reshape(expand(unsqueeze(t, t.dim() - 2), spread), merged);
}

Tensor masked_scores(const Tensor& scores, const Tensor& mask) {
  if (mask.dtype() == DType::kBool) return where(mask, scores, scalar(-INFINITY));
  check_attention_mask_dtype(mask.dtype(), scores.dtype());
  return scores + mask;
}

// Beside the numbers of a mask the logarithm of a sum of weights may vanish; what its rounding cuts off is kept then.
bool splits_lse(const Tensor& mask) { return mask.defined() && mask.dtype() != DType::kBool; }

// What rows of all dtypes share, and the parts that forward and backward have in common.
struct AttentionRule {
  bool is_causal;
  double scale;
  int64_t window;  // 0: all keys
  double softcap;  // 0: none
  double dropout_p;
  int64_t query_start;

  void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, const Tensor& sinks,
             const Tensor& state) const {
    constexpr auto kName = "_attention: ";
    check_attention_shapes(kName, q, k, v);
    check_attention_dtypes(kName, q, k, v);
    check_attention_positions(kName, q.size(2), k.size(2), window, query_start);
    check_attention_mask(kName, mask, q.dtype(), score_sizes(q, k));
    check_attention_sinks(kName, sinks, q.size(1));
    DS_CHECK(softcap >= 0, kName, "softcap must not be negative, got ", softcap);
    DS_CHECK(dropout_p >= 0 && dropout_p < 1 && (dropout_p == 0 || state.defined()),
             "attention: dropout_p must be in [0, 1) and come with a generator state, got ", dropout_p);
  }

  // The kernels' arguments; `keep` holds copies made for them.
  kernels::Attention args(Inputs in, TensorList& keep) const {
    const auto hold = [&](const Tensor& t) { return keep.push_back(t), t.view(); };
    kernels::Attention a;
    const DType t = in[0].dtype();
    a.q = hold(dense_rows(in[0], t)), a.k = hold(dense_rows(in[1], t)), a.v = hold(dense_rows(in[2], t));
    if (in[3].defined()) a.mask = in[3].view_as(score_sizes(in[0], in[1]));
    if (in[4].defined()) a.sinks = hold(dense(in[4], computing_type(t)));
    if (dropout_p > 0) {
      const int64_t* words = in[5].data<int64_t>();
      a.rng = {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
    }
    a.scale = scale, a.softcap = softcap, a.causal = is_causal, a.query_start = query_start, a.dropout_p = dropout_p;
    a.window = std::min(window, kMostPosition);
    return a;
  }

  // Which keys a query sees by its position: [L, S].
  Tensor seen(int64_t queries, int64_t keys) const {
    const Tensor rows = unsqueeze(arange(queries), 1) + query_start, cols = arange(keys);
    Tensor kept = is_causal ? le(cols, rows) : ge(cols, 0);
    const int64_t reach = std::min(window, kMostPosition);
    if (window > 0) kept = logical_and(kept, gt(cols, rows - reach));
    if (window > 0 && !is_causal) kept = logical_and(kept, lt(cols, rows + reach));
    return kept;
  }
  TensorList composite(Inputs in) const {
    const DType t = in[0].dtype(), c = computing_type(t);
    const int64_t group = in[0].size(1) / in[1].size(1);
    const Tensor q = to_dtype(in[0], c), k = repeat_heads(to_dtype(in[1], c), group),
                 v = repeat_heads(to_dtype(in[2], c), group);
    Tensor scores = matmul(q * scale, transpose(k, -2, -1));
    if (softcap > 0) scores = tanh(scores / softcap) * softcap;
    if (in[3].defined()) scores = masked_scores(scores, in[3].dtype() == DType::kBool ? in[3] : to_dtype(in[3], c));
    if (is_causal || window > 0) scores = where(seen(q.size(2), k.size(2)), scores, scalar(-INFINITY));
    // Weights are terms over their sum: under a mask of large numbers the logarithm of the sum may vanish beside the
    // largest score.
    const Tensor none = all(eq(scores, -INFINITY), Dims{-1}, true);  // queries without any key
    const Tensor sinks = in[4].defined() ? reshape(to_dtype(in[4], c), {1, -1, 1, 1}) : scalar(-INFINITY);
    Tensor top = k.size(2) > 0 ? amax(detach(scores), {-1}, true) : where(none, scalar(-INFINITY), scalar(0.0));
    top = maximum(top, detach(sinks));
    const Tensor empty = eq(top, -INFINITY);  // nor a sink
    const Tensor shift = where(empty, scalar(0.0), top);
    const Tensor terms = where(none, scalar(0.0), exp(where(none, shift, scores) - shift));
    Tensor total = sum(terms, Dims{-1}, true);
    if (in[4].defined()) total = total + exp(sinks - shift);
    total = where(empty, scalar(1.0), total);
    Tensor weights = terms / total;
    if (dropout_p > 0) weights = weights * dropout_mask(weights, dropout_p, in[5]);
    const Tensor lse = where(empty, scalar(-INFINITY), shift + log(total));
    return {to_dtype(matmul(weights, v), t), squeeze(lse, -1),
            splits_lse(in[3]) ? squeeze(where(empty, scalar(0.0), shift - detach(lse) + detach(log(total))), -1)
                              : zeros({0}, c)};
  }
  bool operator==(const AttentionRule&) const = default;
};

#define DS_ATTENTION_FIELDS  \
  bool is_causal;            \
  double scale;              \
  int64_t window;            \
  double softcap, dropout_p; \
  int64_t query_start;       \
  AttentionRule rule() const { return {is_causal, scale, window, softcap, dropout_p, query_start}; }
#define DS_ATTENTION_ATTRIBUTES \
  "bool is_causal, float scale, int window, float softcap, float dropout_p, int query_start"

}  // namespace

// Gradients of query, key, value and sinks (the last is empty without sinks).
struct AttentionBackward {
  DS_ATTENTION_FIELDS
  static constexpr OpInfo info{
      .schema =
          "_attention_backward(Tensor? grad, Tensor? grad_lse, Tensor query, Tensor key, Tensor value, Tensor? "
          "mask, Tensor? sinks, Tensor? state, Tensor output, Tensor lse, Tensor lse_low, " DS_ATTENTION_ATTRIBUTES
          ") -> (Tensor dq, Tensor dk, Tensor dv, Tensor dsinks)",
      .doc = "Gradients of attention with respect to query, key, value and sinks.",
      .shown = Shown::kHidden};
  bool operator==(const AttentionBackward&) const = default;
  std::array<Meta, 4> infer(Inputs in) const {
    rule().check(in[2], in[3], in[4], in[5], in[6], in[7]);
    return {attention_gradient(in[2]), attention_gradient(in[3]), attention_gradient(in[4]),
            in[6].defined() ? in[6].meta() : Meta{in[2].dtype(), {0}}};
  }
  void eval(Inputs in, std::span<Tensor> out) const;
  TensorList composite(Inputs in) const;
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(AttentionBackward);

struct AttentionForward {
  DS_ATTENTION_FIELDS
  static constexpr OpInfo info{
      .schema =
          "_attention(Tensor query, Tensor key, Tensor value, Tensor? mask, Tensor? sinks, Tensor? "
          "state, " DS_ATTENTION_ATTRIBUTES ") -> (Tensor out, Tensor lse, Tensor lse_low)",
      .doc =
          "softmax(query @ key^T * scale) @ value of [B, H, L, E], [B, K, S, E] and [B, K, S, V], and the logarithm "
          "of the denominators, with what its rounding cut off (empty unless a mask adds numbers).",
      .autocast = Autocast::kLower,
      .saves = Saves::kInputsOutput,
      .shown = Shown::kHidden};
  bool operator==(const AttentionForward&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    rule().check(in[0], in[1], in[2], in[3], in[4], in[5]);
    const auto [out, lse] = attention_results(in[0], in[2]);
    return {out, lse, splits_lse(in[3]) ? lse : Meta{lse.dtype, {0}}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    TensorList keep;
    const kernels::Attention a = rule().args(in, keep);
    if (in[0].dtype() == DType::kFloat64)
      kernels::attention_forward_plain(a, out[0].view(), out[1].view(), out[2].view());
    else
      kernels::attention_forward(a, out[0].view(), out[1].view(), out[2].view());
  }
  Grads vjp(const Vjp& c) const {
    if (c.need(3)) return vjp_by_composite(*this, c);  // a mask that learns
    TensorList in{c.grad[0], c.grad[1]};
    for (const Tensor& t : c.in) in.push_back(t);
    for (const Tensor& t : c.out) in.push_back(detach(t));
    const TensorList g = apply_list(AttentionBackward{is_causal, scale, window, softcap, dropout_p, query_start}, in);
    return {g[0], g[1], g[2], Tensor(), c.in[4].defined() ? g[3] : Tensor(), Tensor()};
  }
  TensorList composite(Inputs in) const { return rule().composite(in); }
};
DS_OP(AttentionForward);

void AttentionBackward::eval(Inputs in, std::span<Tensor> out) const {
  TensorList keep;
  const kernels::Attention a = rule().args(in.subspan(2, 6), keep);
  const DType t = in[2].dtype();
  const AttentionBackwardInputs g(in[0], in[1], in[8], in[9]);
  const Tensor low = dense(in[10], g.lse.dtype());
  if (in[6].defined()) {
    const Tensor by_sinks = Tensor::empty(in[6].sizes(), computing_type(t));
    kernels::attention_sink_gradient(a.sinks, g.lse.view(), g.delta.view(), by_sinks.view());
    kernels::copy(out[3].view(), by_sinks.view());
  }
  (t == DType::kFloat64 ? kernels::attention_backward_plain : kernels::attention_backward)(
      a, g.grad.view(), g.lse.view(), g.delta.view(), out[0].view(), out[1].view(), out[2].view(), low.view());
}

TensorList AttentionBackward::composite(Inputs in) const {
  const AttentionForward forward{is_causal, scale, window, softcap, dropout_p, query_start};
  const uint64_t needs = 0b111 | (in[6].defined() ? 0b10000 : 0);
  const Grads g = vjp_by_composite(forward, Vjp{in.subspan(2, 6), in.subspan(8, 3), in.first(2), needs});
  return {or_zeros(g[0], in[2]), or_zeros(g[1], in[3]), or_zeros(g[2], in[4]),
          in[6].defined() ? or_zeros(g[4], in[6]) : zeros({0}, in[2].dtype())};
}

TensorList attention_in_plain_ops(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                                  bool is_causal, double scale, int64_t window, int64_t query_start) {
  const Tensor inputs[] = {query, key, value, mask, Tensor(), Tensor()};
  return AttentionRule{is_causal, scale, window, 0, 0, query_start}.composite(inputs);
}
TensorList attention_in_plain_ops(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                                  const Tensor& sinks, double scale, double softcap) {
  const Tensor inputs[] = {query, key, value, mask, sinks, Tensor()};
  return AttentionRule{false, scale, 0, softcap, 0, 0}.composite(inputs);
}

namespace {

// Rows without any allowed key give zeros, as PyTorch's safe softmax, and take no gradient.
Tensor safe_softmax(const Tensor& scores) {
  const Tensor none = all(eq(scores, -INFINITY), Dims{-1}, true);
  return where(none, scalar(0.0), softmax(where(none, scalar(0.0), scores), -1));
}

Tensor with_dims(Tensor t, int dims) {
  while (t.dim() < dims) t = unsqueeze(t, 0);
  return t;
}

// [.., L, S] with all dims before the last three as one, as large as `batch` says where there are any.
Tensor with_one_batch_dim(const Tensor& t, const Dims& batch) {
  if (t.dim() <= 3 || batch.size() == 1) return t;
  Dims spread = batch;
  for (int i = 3; i > 0; --i) spread.push_back(t.size(-i));
  return reshape(expand(t, spread), {numel_of(batch), t.size(-3), t.size(-2), t.size(-1)});
}

// q, k and v with four dims, of which the batch (and heads, unless grouped) is that of all three, and the mask to
// match; `batch` gets the dims that became one. False where those do not broadcast.
bool share_batch(Tensor& q, Tensor& k, Tensor& v, Tensor& mask, Dims& batch, bool grouped) {
  Tensor* const all[] = {&q, &k, &v};
  const int dims = std::max({4, q.dim(), k.dim(), v.dim()});
  for (Tensor* t : all) *t = with_dims(*t, dims);
  if (mask.defined() && mask.dim() > dims) return false;
  for (int dim = 0; dim < (grouped ? dims - 3 : dims - 2); ++dim) {
    int64_t size = 1;
    for (const Tensor* t : all) size = t->size(dim) == 1 ? size : t->size(dim);
    for (Tensor* t : all) {
      if (t->size(dim) != 1 && t->size(dim) != size) return false;
      Dims sizes = t->sizes();
      sizes[dim] = size;
      if (t->size(dim) != size) *t = expand(*t, sizes);
    }
    if (dim < dims - 3) batch.push_back(size);
  }
  for (Tensor* t : all) *t = with_one_batch_dim(*t, batch);
  if (mask.defined() && mask.dim() > 3 && dims > 4) {
    mask = with_dims(mask, dims);
    for (int dim = 0; dim < batch.size(); ++dim)
      if (mask.size(dim) != 1 && mask.size(dim) != batch[dim]) return false;
    mask = with_one_batch_dim(mask, batch);
  }
  return k.size(1) == v.size(1);
}

// Whether the fused op can take over from plain ops, which know how to refuse the rest.
bool fits_kernel(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  if (q.numel() == 0 || k.numel() == 0 || v.numel() == 0) return false;
  if (k.size(-1) != q.size(-1) || v.size(-2) != k.size(-2) || q.size(1) % k.size(1) != 0) return false;
  const bool known = !mask.defined() || fits_attention(mask.dtype(), q.dtype());
  return known && (!mask.defined() || broadcasts_to(mask.sizes(), score_sizes(q, k)));
}

// Of tensors with four dims. float64 has no fast kernel: it runs on plain ops.
Tensor attend(const AttentionRule& r, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
              const Tensor& sinks) {
  const Tensor state = r.dropout_p > 0 ? draw_state(q.size(0) * q.size(1) * q.size(2) * k.size(2)) : Tensor();
  const AttentionForward op{r.is_causal, r.scale, r.window, r.softcap, r.dropout_p, r.query_start};
  const Tensor inputs[] = {q, k, v, mask, sinks, state};
  if (q.dtype() != DType::kFloat64) return apply_list(op, inputs)[0];
  r.check(q, k, v, mask, sinks, state);
  return r.composite(inputs)[0];
}

Tensor without_added_dims(Tensor out, int dims) {
  while (out.dim() > dims) out = squeeze(out, 0);
  return out;
}

double usual_scale(const Opt<double>& scale, const Tensor& q) {
  return scale ? *scale : 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
}

}  // namespace

DS_BODY(AttentionOp,
        "attention(Tensor query, Tensor key, Tensor value, *, Tensor? mask=None, Tensor? sinks=None, "
        "Tensor? key_scale=None, Tensor? value_scale=None, bool is_causal=False, float? scale=None, int? window=None, "
        "float? softcap=None, float dropout_p=0.0, bool enable_gqa=False, int query_start=0) -> Tensor",
        "scaled_dot_product_attention with a sliding window, attention sinks, soft-capped scores, queries that start "
        "at a later position than the keys, and int8 keys and values.",
        false, kFunctional, bool is_causal;
        Opt<double> scale; Opt<int64_t> window; Opt<double> softcap; double dropout_p; bool enable_gqa;
        int64_t query_start;) {
  const Tensor &q = in[0], &k = in[1], &v = in[2];
  DS_CHECK(q.dim() >= 2 && q.dim() <= 4 && k.dim() == q.dim() && v.dim() == q.dim(),
           "attention: query, key and value must have the same 2, 3 or 4 dims [batch, heads, length, size], got ",
           q.sizes(), ", ", k.sizes(), " and ", v.sizes());
  DS_CHECK(enable_gqa || q.dim() < 3 || k.size(-3) == q.size(-3), "attention: key has ", k.size(-3),
           " heads, query has ", q.size(-3), "; pass enable_gqa=True to share each key head among several query heads");
  DS_CHECK(!window || *window > 0, "attention: window must be positive, got ", window.value_or(0));
  DS_CHECK(!softcap || *softcap > 0, "attention: softcap must be positive, got ", softcap.value_or(0));
  if (in[5].defined() || in[6].defined() || k.dtype() == DType::kInt8) {
    DS_CHECK(in[5].defined() && in[6].defined(),
             "attention: int8 key and value need both key_scale and value_scale, as quantize_rows() gives them");
    DS_CHECK(dropout_p == 0, "attention: there is no dropout over int8 keys and values, got dropout_p=", dropout_p);
    const Tensor inputs[] = {
        with_dims(q, 4), with_dims(k, 4), with_dims(in[5], 3), with_dims(v, 4), with_dims(in[6], 3), in[3], in[4]};
    return without_added_dims(attention_over_int8(inputs, is_causal, usual_scale(scale, q), window.value_or(0),
                                                  softcap.value_or(0), query_start),
                              q.dim());
  }
  const AttentionRule rule{is_causal,  usual_scale(scale, q), window.value_or(0), softcap.value_or(0), dropout_p,
                           query_start};
  return without_added_dims(attend(rule, with_dims(q, 4), with_dims(k, 4), with_dims(v, 4), in[3], in[4]), q.dim());
}

DS_BODY_CAST(kLower, ScaledDotProductAttention,
             "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float "
             "dropout_p=0.0, bool is_causal=False, float? scale=None, bool enable_gqa=False) -> Tensor",
             "softmax(query @ key^T * scale + mask) @ value; query [.., L, E], key [.., S, E], value [.., S, V]; scale "
             "defaults to 1/sqrt(E).",
             false, kFunctional, double dropout_p;
             bool is_causal; Opt<double> scale; bool enable_gqa;) {
  const Tensor &q = in[0], &mask = in[3];
  Tensor k = in[1], v = in[2];
  DS_CHECK(q.dim() >= 2 && k.dim() >= 2 && v.dim() >= 2,
           "scaled_dot_product_attention: query, key and value must have at least 2 dimensions, got ", q.dim(), ", ",
           k.dim(), ", ", v.dim());
  DS_CHECK(q.dtype() == k.dtype() && q.dtype() == v.dtype(),
           "Expected query, key, and value to have the same dtype, but got query.dtype: ", name_of(q.dtype()),
           " key.dtype: ", name_of(k.dtype()), " and value.dtype: ", name_of(v.dtype()), " instead.");
  DS_CHECK(!(is_causal && mask.defined()),
           "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True");
  DS_CHECK(dropout_p >= 0 && dropout_p <= 1, "scaled_dot_product_attention: dropout_p must be between 0 and 1, got ",
           dropout_p);
  const double factor = usual_scale(scale, q);
  const bool fused = is_floating(q.dtype()) && !is_float8(q.dtype()) && dropout_p < 1;
  const int dims = std::max({q.dim(), k.dim(), v.dim()});
  Tensor q4 = q, k4 = k, v4 = v, mask4 = mask;
  Dims sizes;
  if (fused && share_batch(q4, k4, v4, mask4, sizes, enable_gqa) && fits_kernel(q4, k4, v4, mask4)) {
    const Tensor out = attend({is_causal, factor, 0, 0, dropout_p, 0}, q4, k4, v4, mask4, Tensor());
    if (dims <= 4) return without_added_dims(out, dims);
    for (int i = 1; i < 4; ++i) sizes.push_back(out.size(i));
    return reshape(out, sizes);
  }
  if (enable_gqa) {
    DS_CHECK(q.dim() >= 3 && k.size(-3) > 0 && q.size(-3) % k.size(-3) == 0,
             "Number of heads in key and value must divide the number of heads in query: got ", q.sizes(), " and ",
             k.sizes());
    k = repeat_heads(k, q.size(-3) / k.size(-3));
    v = repeat_heads(v, q.size(-3) / v.size(-3));
  }
  Tensor scores = matmul(q * factor, transpose(k, -2, -1));
  if (is_causal) {
    const Tensor rows = unsqueeze(arange(q.size(-2)), 1), cols = arange(k.size(-2));
    scores = where(le(cols, rows), scores, scalar(-INFINITY));
  }
  if (mask.defined()) scores = masked_scores(scores, mask);
  // A float32 mask makes wider scores of 16-bit queries.
  Tensor weights = to_dtype(mask.defined() ? safe_softmax(scores) : softmax(scores, -1), v.dtype());
  if (dropout_p > 0) weights = dropout(weights, dropout_p, true);
  return matmul(weights, v);
}

}  // namespace deepseek
