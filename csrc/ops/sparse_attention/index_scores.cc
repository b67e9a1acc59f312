// Scores by which sparse attention picks its keys, of floats (they have gradients) and of int8.
#include "kernels/sparse_attention/index_scores/index_scores.h"

#include <cmath>

#include "ops/composite.h"
#include "ops/operands.h"

namespace deepseek {
namespace {

void check_scores(const Tensor& q, const Tensor& k, const Tensor& w, int64_t query_start) {
  DS_CHECK(q.dim() == 4 && k.dim() == 3 && k.size(0) == q.size(0) && k.size(2) == q.size(3),
           "index_scores: query must be [B, L, heads, D] and key [B, S, D], got ", q.sizes(), " and ", k.sizes());
  DS_CHECK(w.dim() == 3 && w.size(0) == q.size(0) && w.size(1) == q.size(1) && w.size(2) == q.size(2),
           "index_scores: weights must be [B, L, heads] = [", q.size(0), ", ", q.size(1), ", ", q.size(2), "], got ",
           w.sizes());
  DS_CHECK(is_floating(w.dtype()) && !is_float8(w.dtype()), "index_scores: weights must be floating point, got ",
           name_of(w.dtype()));
  DS_CHECK(query_start >= 0 && query_start < (int64_t{1} << 30),
           "index_scores: query_start must not be negative, nor reach 2^30, got ", query_start);
}

kernels::IndexScores arguments(const Tensor& q, const Tensor& k, const Tensor& w, bool causal, int64_t query_start) {
  kernels::IndexScores a{.q = q.view(), .k = k.view(), .w = w.view(), .q_scale = {}, .k_scale = {}};
  a.causal = causal, a.query_start = query_start;
  return a;
}

// sum over heads of w max(0, q k)
Tensor scores_in_plain_ops(const Tensor& q, const Tensor& k, const Tensor& w, bool causal, int64_t query_start) {
  const int64_t batch = q.size(0), queries = q.size(1), heads = q.size(2), keys = k.size(1);
  const Tensor dots = matmul(reshape(q, {batch, queries * heads, q.size(3)}), transpose(k, 1, 2));
  const Tensor scores = sum(relu(reshape(dots, {batch, queries, heads, keys})) * unsqueeze(w, -1), Dims{2});
  if (!causal) return scores;
  const Tensor rows = unsqueeze(arange(queries), 1) + query_start;
  return where(le(arange(keys), rows), scores, scalar(-INFINITY));
}

}  // namespace

struct IndexScoresOp {
  bool is_causal;
  int64_t query_start;
  static constexpr OpInfo info{
      .schema = "_index_scores(Tensor query, Tensor key, Tensor weights, bool is_causal, int query_start) -> Tensor",
      .doc = "sum over heads of weights * max(0, query . key): [B, L, H, D], [B, S, D], [B, L, H] -> [B, L, S].",
      .autocast = Autocast::kLower,
      .saves = Saves::kInputs,
      .shown = Shown::kHidden};
  bool operator==(const IndexScoresOp&) const = default;
  Meta infer(Inputs in) const {
    check_scores(in[0], in[1], in[2], query_start);
    const DType t = in[0].dtype();
    DS_CHECK_AS(NotImplementedError, is_floating(t) && !is_float8(t), "index_scores: not implemented for ", name_of(t),
                "; convert to float32, or quantize_rows() for int8");
    DS_CHECK(in[1].dtype() == t, "index_scores: query and key must have one dtype, got ", name_of(t), " and ",
             name_of(in[1].dtype()));
    return Meta{computing_type(t), {in[0].size(0), in[0].size(1), in[1].size(1)}};
  }
  void eval(Inputs in, Tensor& out) const {
    const DType t = in[0].dtype();
    const Tensor q = dense(in[0], t), k = dense(in[1], t), w = dense(in[2], computing_type(t));
    (t == DType::kFloat64 ? kernels::index_scores_plain : kernels::index_scores)(
        arguments(q, k, w, is_causal, query_start), out.view());
  }
  Tensor composite(Inputs in) const {
    const DType c = computing_type(in[0].dtype());
    return scores_in_plain_ops(to_dtype(in[0], c), to_dtype(in[1], c), to_dtype(in[2], c), is_causal, query_start);
  }
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(IndexScoresOp);

struct IndexScoresInt8 {
  bool is_causal;
  int64_t query_start;
  static constexpr OpInfo info{
      .schema =
          "_index_scores_int8(Tensor query, Tensor query_scale, Tensor key, Tensor key_scale, Tensor weights, bool "
          "is_causal, int query_start) -> Tensor",
      .doc = "_index_scores of int8 rows and what each is multiplied by; products are exact integers.",
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const IndexScoresInt8&) const = default;
  Meta infer(Inputs in) const {
    const Tensor &q = in[0], &k = in[2];
    check_scores(q, k, in[4], query_start);
    DS_CHECK(q.dtype() == DType::kInt8 && k.dtype() == DType::kInt8, "index_scores: query and key must be int8, got ",
             name_of(q.dtype()), " and ", name_of(k.dtype()), "; quantize_rows() makes them");
    DS_CHECK(q.size(3) <= 1024, "index_scores: int8 rows may have 1024 numbers, got ", q.size(3));
    DS_CHECK(in[1].sizes() == (Dims{q.size(0), q.size(1), q.size(2)}) &&
                 in[3].sizes() == (Dims{k.size(0), k.size(1)}) && is_floating(in[1].dtype()) &&
                 is_floating(in[3].dtype()),
             "index_scores: query_scale must be [B, L, heads] and key_scale [B, S], one number a row; got ",
             in[1].sizes(), " and ", in[3].sizes());
    return Meta{DType::kFloat32, {q.size(0), q.size(1), k.size(1)}};
  }
  void eval(Inputs in, Tensor& out) const {
    const DType f = DType::kFloat32;
    const Tensor q = dense(in[0], DType::kInt8), q_scale = dense(in[1], f), k = dense(in[2], DType::kInt8),
                 k_scale = dense(in[3], f), w = dense(in[4], f);
    kernels::IndexScores a = arguments(q, k, w, is_causal, query_start);
    a.q_scale = q_scale.view(), a.k_scale = k_scale.view();
    kernels::index_scores(a, out.view());
  }
};
DS_OP(IndexScoresInt8);

struct QuantizeRows {
  static constexpr OpInfo info{
      .schema = "_quantize_rows(Tensor input) -> (Tensor codes, Tensor scales)",
      .doc = "int8 codes and one scale a row of the last dim: scale = max |x| / 127, ties round to even.",
      .differentiable = false,
      .shown = Shown::kHidden};
  bool operator==(const QuantizeRows&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    DS_CHECK(in[0].dim() >= 1 && is_floating(in[0].dtype()) && !is_float8(in[0].dtype()),
             "quantize_rows: input must be floating point with at least one dim, got ", name_of(in[0].dtype()), " ",
             in[0].sizes());
    Dims rows = in[0].sizes();
    rows.pop_back();
    return {Meta{DType::kInt8, in[0].sizes()}, Meta{DType::kFloat32, rows}};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    kernels::quantize_rows(dense(in[0], DType::kFloat32).view(), out[0].view(), out[1].view());
  }
};
DS_OP(QuantizeRows);

}  // namespace deepseek
