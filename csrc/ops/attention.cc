// Scaled dot-product attention, as a composite in plain ops.
#include <cmath>

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
  DS_CHECK(mask.dtype() == scores.dtype(),
           "Expected attn_mask dtype to be bool or to match query dtype, but got attn_mask.dtype: ",
           name_of(mask.dtype()), " and query.dtype: ", name_of(scores.dtype()));
  return scores + mask;
}

// Rows without any allowed key give zeros, as PyTorch's safe softmax.
Tensor safe_softmax(const Tensor& scores) {
  const Tensor none = all(eq(scores, -INFINITY), Dims{-1}, true);
  return where(none, scalar(0.0), softmax(scores, -1));
}

}  // namespace

DS_BODY(ScaledDotProductAttention,
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
  if (enable_gqa) {
    DS_CHECK(q.dim() >= 3 && k.size(-3) > 0 && q.size(-3) % k.size(-3) == 0,
             "Number of heads in key and value must divide the number of heads in query: got ", q.sizes(), " and ",
             k.sizes());
    k = repeat_heads(k, q.size(-3) / k.size(-3));
    v = repeat_heads(v, q.size(-3) / v.size(-3));
  }
  const double factor = scale ? *scale : 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
  Tensor scores = matmul(q * factor, transpose(k, -2, -1));
  if (is_causal) {
    const Tensor rows = unsqueeze(arange(q.size(-2)), 1), cols = arange(k.size(-2));
    scores = where(le(cols, rows), scores, scalar(-INFINITY));
  }
  if (mask.defined()) scores = masked_scores(scores, mask);
  Tensor weights = mask.defined() ? safe_softmax(scores) : softmax(scores, -1);
  if (dropout_p > 0) weights = dropout(weights, dropout_p, true);
  return matmul(weights, v);
}

}  // namespace deepseek
