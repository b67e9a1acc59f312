// Attention to selected blocks of keys: a fused op, its gradient, and what defines them in plain ops. Second
// derivatives go through the latter.
#include <cmath>

#include "core/dispatch/lock_release.h"
#include "kernels/sparse_attention/blocks/block_sparse.h"
#include "kernels/sparse_attention/tokens/token_sparse.h"
#include "ops/attention/attention.h"
#include "ops/composite.h"

namespace deepseek {
namespace {

void check_operands(const char* op, const Tensor& q, const Tensor& k, const Tensor& v, int64_t window,
                    int64_t query_start) {
  check_attention_shapes(op, q, k, v);
  check_attention_dtypes(op, q, k, v);
  check_attention_positions(op, q.size(2), k.size(2), window, query_start);
}

kernels::Attention kernel_arguments(const Tensor& q, const Tensor& k, const Tensor& v, bool is_causal, double scale,
                                    int64_t window, int64_t query_start) {
  kernels::Attention a{.q = q.view(), .k = k.view(), .v = v.view(), .mask = {}, .sinks = {}, .scale = scale};
  a.causal = is_causal, a.window = std::min(window, kMostPosition), a.query_start = query_start;
  return a;
}

struct BlockSparseRule {
  int64_t block_size, group;
  bool is_causal;
  double scale;
  int64_t window, query_start;

  // No larger than there are queries and keys, so that sizes made of them stay small.
  int64_t fitting_group(int64_t queries) const { return std::min(group, std::max<int64_t>(queries, 1)); }
  int64_t fitting_block(int64_t keys) const {
    constexpr int64_t kUnit = kernels::kSelectedKeys;
    return std::min(block_size, (std::max<int64_t>(keys, 1) + kUnit - 1) / kUnit * kUnit);
  }

  void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& indices) const {
    constexpr auto kName = "block_sparse_attention: ";
    check_operands(kName, q, k, v, window, query_start);
    DS_CHECK(block_size > 0 && block_size % kernels::kSelectedKeys == 0, kName, "block_size must be a multiple of ",
             kernels::kSelectedKeys, ", got ", block_size);
    DS_CHECK(group > 0, kName, "group must be positive, got ", group);
    const int64_t fitting = fitting_group(q.size(2)), groups = (q.size(2) + fitting - 1) / fitting;
    DS_CHECK(indices.dtype() == DType::kInt64 && indices.dim() == 4 && indices.size(0) == q.size(0) &&
                 indices.size(1) == k.size(1) && indices.size(2) == groups,
             kName, "block_indices must be int64 [", q.size(0), ", ", k.size(1), ", ", groups,
             ", n]: for each key head and every ", group, " queries n blocks of keys; got ", name_of(indices.dtype()),
             " ", indices.sizes());
  }

  kernels::BlockSelection selection(const Tensor& indices, int64_t queries, int64_t keys) const {
    const kernels::BlockSelection sel{indices.view(), fitting_block(keys), fitting_group(queries)};
    const int64_t wrong = kernels::wrong_block(sel, sel.blocks(keys));
    DS_CHECK_AS(IndexError, wrong == -1, "block_sparse_attention: block index ", wrong, " is out of range for ", keys,
                " keys in blocks of ", block_size, "; use 0..", sel.blocks(keys) - 1, ", or -1 for no block");
    return sel;
  }
  kernels::Attention args(const Tensor& q, const Tensor& k, const Tensor& v) const {
    return kernel_arguments(q, k, v, is_causal, scale, window, query_start);
  }

  // bool [B, H, L, S]: which keys lie in a selected block.
  Tensor mask(const Tensor& q, const Tensor& k, const Tensor& indices) const {
    const auto part = [](int64_t n, int64_t size) {
      return to_dtype(arange(n, DType::kFloat64) / static_cast<double>(size), DType::kInt64);
    };
    const int64_t block = fitting_block(k.size(2)), blocks = (k.size(2) + block - 1) / block;
    const Tensor named =
        logical_not(all(ne(unsqueeze(indices, -1), arange(blocks)), Dims{-2}));  // [B, K, groups, blocks]
    const Tensor by_key = index_select(named, 3, part(k.size(2), block));
    const Tensor by_query = index_select(by_key, 2, part(q.size(2), fitting_group(q.size(2))));
    return index_select(by_query, 1, part(q.size(1), q.size(1) / k.size(1)));
  }
  TensorList composite(Inputs in) const {
    return attention_in_plain_ops(in[0], in[1], in[2], mask(in[0], in[1], in[3]), is_causal, scale, window,
                                  query_start);
  }
};

#define DS_BLOCK_SPARSE_FIELDS \
  int64_t block_size, group;   \
  bool is_causal;              \
  double scale;                \
  int64_t window, query_start; \
  BlockSparseRule rule() const { return {block_size, group, is_causal, scale, window, query_start}; }
#define DS_BLOCK_SPARSE_ATTRIBUTES "int block_size, int group, bool is_causal, float scale, int window, int query_start"

}  // namespace

struct BlockSparseBackward {
  DS_BLOCK_SPARSE_FIELDS
  static constexpr OpInfo info{
      .schema =
          "_block_sparse_attention_backward(Tensor? grad, Tensor? grad_lse, Tensor query, Tensor key, Tensor value, "
          "Tensor block_indices, Tensor output, Tensor lse, " DS_BLOCK_SPARSE_ATTRIBUTES
          ") -> (Tensor dq, Tensor dk, Tensor dv)",
      .doc = "Gradients of block-sparse attention with respect to query, key and value.",
      .shown = Shown::kHidden};
  bool operator==(const BlockSparseBackward&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    rule().check(in[2], in[3], in[4], in[5]);
    return {attention_gradient(in[2]), attention_gradient(in[3]), attention_gradient(in[4])};
  }
  void eval(Inputs in, std::span<Tensor> out) const { run(in, out, false); }
  // `add`: dk and dv grow by what they would be.
  void run(Inputs in, std::span<Tensor> out, bool add) const {
    const DType t = in[2].dtype();
    const Tensor q = dense_rows(in[2], t), k = dense_rows(in[3], t), v = dense_rows(in[4], t),
                 indices = dense(in[5], DType::kInt64);
    const AttentionBackwardInputs g(in[0], in[1], in[6], in[7]);
    const kernels::BlockSelection selection = rule().selection(indices, q.size(2), k.size(2));
    if (t == DType::kFloat64)
      kernels::block_sparse_backward_plain(rule().args(q, k, v), selection, g.grad.view(), g.lse.view(), g.delta.view(),
                                           out[0].view(), out[1].view(), out[2].view());
    else
      kernels::block_sparse_backward(rule().args(q, k, v), selection, g.grad.view(), g.lse.view(), g.delta.view(),
                                     out[0].view(), out[1].view(), out[2].view(), add);
  }
  // The gradients, those of key and value added to sums that are there (one may be undefined).
  Grads added_to(const Tensor& dk, const Tensor& dv, Inputs in) const {
    const DType t = in[2].dtype();
    const auto fits = [t](const Tensor& sum) { return !sum.defined() || sum.dtype() == t; };
    if (t == DType::kFloat64 || !fits(dk) || !fits(dv)) {
      TensorList g = apply_list(*this, in);
      if (dk.defined()) g[1] = add_(dk, g[1]);
      if (dv.defined()) g[2] = add_(dv, g[2]);
      return {g[0], g[1], g[2]};
    }
    const Meta dq = attention_gradient(in[2]);
    Tensor out[] = {dq.strides.empty() ? Tensor::empty(dq.sizes, t) : Tensor::empty_strided(dq.sizes, dq.strides, t),
                    or_zeros(dk, in[3]), or_zeros(dv, in[4])};
    const LockRelease unlocked(in[2].nbytes() > kReleaseLockBytes);
    run(in, out, true);
    return {out[0], out[1], out[2]};
  }
  TensorList composite(Inputs in) const;
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(BlockSparseBackward);

struct BlockSparseForward {
  DS_BLOCK_SPARSE_FIELDS
  static constexpr OpInfo info{
      .schema =
          "_block_sparse_attention(Tensor query, Tensor key, Tensor value, Tensor "
          "block_indices, " DS_BLOCK_SPARSE_ATTRIBUTES ") -> (Tensor out, Tensor lse)",
      .doc =
          "Attention of [B, H, L, E] to the blocks of [B, K, S, E] and [B, K, S, V] that block_indices [B, K, ceil(L / "
          "group), n] names (-1: none), and the logarithm of the denominators.",
      .autocast = Autocast::kLower,
      .saves = Saves::kInputsOutput,
      .shown = Shown::kHidden};
  bool operator==(const BlockSparseForward&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    rule().check(in[0], in[1], in[2], in[3]);
    return attention_results(in[0], in[2]);
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const DType t = in[0].dtype();
    const Tensor q = dense_rows(in[0], t), k = dense_rows(in[1], t), v = dense_rows(in[2], t),
                 indices = dense(in[3], DType::kInt64);
    (t == DType::kFloat64 ? kernels::block_sparse_forward_plain : kernels::block_sparse_forward)(
        rule().args(q, k, v), rule().selection(indices, q.size(2), k.size(2)), out[0].view(), out[1].view());
  }
  Grads vjp(const Vjp& c) const {
    const Tensor inputs[] = {c.grad[0], c.grad[1], c.in[0],          c.in[1],
                             c.in[2],   c.in[3],   detach(c.out[0]), detach(c.out[1])};
    const BlockSparseBackward backward{block_size, group, is_causal, scale, window, query_start};
    // Other queries read these keys too, as when a prompt goes in pieces.
    const Tensor dk = c.sum_so_far(1, false), dv = c.sum_so_far(2, false);
    if (dk.defined() || dv.defined()) return backward.added_to(dk, dv, inputs);
    const TensorList g = apply_list(backward, inputs);
    return {g[0], g[1], g[2], Tensor()};
  }
  TensorList composite(Inputs in) const { return rule().composite(in); }
};
DS_OP(BlockSparseForward);

TensorList BlockSparseBackward::composite(Inputs in) const {
  const BlockSparseForward forward{block_size, group, is_causal, scale, window, query_start};
  const Grads g = vjp_by_composite(forward, Vjp{in.subspan(2, 4), in.subspan(6, 2), in.first(2), 0b111});
  return {or_zeros(g[0], in[2]), or_zeros(g[1], in[3]), or_zeros(g[2], in[4])};
}

DS_BODY(BlockSparseAttention,
        "block_sparse_attention(Tensor query, Tensor key, Tensor value, Tensor block_indices, *, int block_size=64, "
        "int group=1, bool is_causal=False, float? scale=None, int? window=None, int query_start=0) -> Tensor",
        "Attention of each query to the blocks of keys that block_indices names for it.", false, kFunctional,
        int64_t block_size, group;
        bool is_causal; Opt<double> scale; Opt<int64_t> window; int64_t query_start;) {
  DS_CHECK(!window || *window > 0, "block_sparse_attention: window must be positive, got ", window.value_or(0));
  DS_CHECK(in[0].dim() == 4, "block_sparse_attention: query must have 4 dims [batch, heads, length, size], got ",
           in[0].sizes());
  const double factor = scale ? *scale : 1.0 / std::sqrt(static_cast<double>(in[0].size(3)));
  return apply_list(BlockSparseForward{block_size, group, is_causal, factor, window.value_or(0), query_start}, in)[0];
}

// --- selected keys
namespace {

struct TokenSparseRule {
  bool is_causal;
  double scale;
  int64_t window, query_start;

  void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& indices) const {
    check_operands("token_sparse_attention: ", q, k, v, window, query_start);
    DS_CHECK(indices.dtype() == DType::kInt64 && indices.dim() == 3 && indices.size(0) == q.size(0) &&
                 indices.size(1) == q.size(2),
             "token_sparse_attention: token_indices must be int64 [", q.size(0), ", ", q.size(2),
             ", n]: n keys for each query; got ", name_of(indices.dtype()), " ", indices.sizes());
  }
  static void check_values(const Tensor& indices, int64_t keys) {
    const int64_t wrong = kernels::wrong_token(indices.view(), keys);
    DS_CHECK_AS(IndexError, wrong == -1, "token_sparse_attention: token index ", wrong, " is out of range for ", keys,
                " keys; use 0..", keys - 1, ", or -1 for no key");
  }
  kernels::Attention args(const Tensor& q, const Tensor& k, const Tensor& v) const {
    return kernel_arguments(q, k, v, is_causal, scale, window, query_start);
  }
  TensorList composite(Inputs in) const {
    const Tensor chosen = logical_not(all(ne(unsqueeze(in[3], -1), arange(in[1].size(2))), Dims{-2}));  // [B, L, S]
    return attention_in_plain_ops(in[0], in[1], in[2], unsqueeze(chosen, 1), is_causal, scale, window, query_start);
  }
};

#define DS_TOKEN_SPARSE_FIELDS \
  bool is_causal;              \
  double scale;                \
  int64_t window, query_start; \
  TokenSparseRule rule() const { return {is_causal, scale, window, query_start}; }
#define DS_TOKEN_SPARSE_ATTRIBUTES "bool is_causal, float scale, int window, int query_start"

}  // namespace

struct TokenSparseBackward {
  DS_TOKEN_SPARSE_FIELDS
  static constexpr OpInfo info{
      .schema =
          "_token_sparse_attention_backward(Tensor? grad, Tensor? grad_lse, Tensor query, Tensor key, Tensor value, "
          "Tensor token_indices, Tensor output, Tensor lse, " DS_TOKEN_SPARSE_ATTRIBUTES
          ") -> (Tensor dq, Tensor dk, Tensor dv)",
      .doc = "Gradients of token-sparse attention with respect to query, key and value.",
      .shown = Shown::kHidden};
  bool operator==(const TokenSparseBackward&) const = default;
  std::array<Meta, 3> infer(Inputs in) const {
    rule().check(in[2], in[3], in[4], in[5]);
    return {attention_gradient(in[2]), attention_gradient(in[3]), attention_gradient(in[4])};
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const DType t = in[2].dtype();
    const Tensor q = dense_rows(in[2], t), k = dense_rows(in[3], t), v = dense_rows(in[4], t),
                 indices = dense(in[5], DType::kInt64);
    rule().check_values(indices, k.size(2));
    const AttentionBackwardInputs g(in[0], in[1], in[6], in[7]);
    (t == DType::kFloat64 ? kernels::token_sparse_backward_plain : kernels::token_sparse_backward)(
        rule().args(q, k, v), indices.view(), g.grad.view(), g.lse.view(), g.delta.view(), out[0].view(), out[1].view(),
        out[2].view());
  }
  TensorList composite(Inputs in) const;
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(TokenSparseBackward);

struct TokenSparseForward {
  DS_TOKEN_SPARSE_FIELDS
  static constexpr OpInfo info{
      .schema =
          "_token_sparse_attention(Tensor query, Tensor key, Tensor value, Tensor "
          "token_indices, " DS_TOKEN_SPARSE_ATTRIBUTES ") -> (Tensor out, Tensor lse)",
      .doc =
          "Attention of [B, H, L, E] to the keys of [B, K, S, E] and [B, K, S, V] that token_indices [B, L, n] names "
          "(-1: none), and the logarithm of the denominators.",
      .autocast = Autocast::kLower,
      .saves = Saves::kInputsOutput,
      .shown = Shown::kHidden};
  bool operator==(const TokenSparseForward&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    rule().check(in[0], in[1], in[2], in[3]);
    return attention_results(in[0], in[2]);
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const DType t = in[0].dtype();
    const Tensor q = dense_rows(in[0], t), k = dense_rows(in[1], t), v = dense_rows(in[2], t),
                 indices = dense(in[3], DType::kInt64);
    rule().check_values(indices, k.size(2));
    (t == DType::kFloat64 ? kernels::token_sparse_forward_plain : kernels::token_sparse_forward)(
        rule().args(q, k, v), indices.view(), out[0].view(), out[1].view());
  }
  Grads vjp(const Vjp& c) const {
    const Tensor inputs[] = {c.grad[0], c.grad[1], c.in[0],          c.in[1],
                             c.in[2],   c.in[3],   detach(c.out[0]), detach(c.out[1])};
    const TensorList g = apply_list(TokenSparseBackward{is_causal, scale, window, query_start}, inputs);
    return {g[0], g[1], g[2], Tensor()};
  }
  TensorList composite(Inputs in) const { return rule().composite(in); }
};
DS_OP(TokenSparseForward);

TensorList TokenSparseBackward::composite(Inputs in) const {
  const TokenSparseForward forward{is_causal, scale, window, query_start};
  const Grads g = vjp_by_composite(forward, Vjp{in.subspan(2, 4), in.subspan(6, 2), in.first(2), 0b111});
  return {or_zeros(g[0], in[2]), or_zeros(g[1], in[3]), or_zeros(g[2], in[4])};
}

DS_BODY(TokenSparseAttention,
        "token_sparse_attention(Tensor query, Tensor key, Tensor value, Tensor token_indices, *, bool "
        "is_causal=False, float? scale=None, int? window=None, int query_start=0) -> Tensor",
        "Attention of each query to the keys that token_indices names for it.", false, kFunctional, bool is_causal;
        Opt<double> scale; Opt<int64_t> window; int64_t query_start;) {
  DS_CHECK(!window || *window > 0, "token_sparse_attention: window must be positive, got ", window.value_or(0));
  DS_CHECK(in[0].dim() == 4, "token_sparse_attention: query must have 4 dims [batch, heads, length, size], got ",
           in[0].sizes());
  const double factor = scale ? *scale : 1.0 / std::sqrt(static_cast<double>(in[0].size(3)));
  return apply_list(TokenSparseForward{is_causal, factor, window.value_or(0), query_start}, in)[0];
}

}  // namespace deepseek
