// What forms of attention share.
#pragma once

#include <array>
#include <cstring>

#include "kernels/attention/attention.h"
#include "ops/operands.h"

namespace deepseek {

// Of [B, H, L, E], [B, K, S, E] and [B, K, S, V] with a bool mask that broadcasts to [B, H, L, S], in plain ops: the
// result and the logarithm of the denominators. window 0: all keys.
TensorList attention_in_plain_ops(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                                  bool is_causal, double scale, int64_t window, int64_t query_start);

// The same with sinks, soft-capped scores, and no positions.
TensorList attention_in_plain_ops(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                                  const Tensor& sinks, double scale, double softcap);

// Inputs: query, key, key_scale, value, value_scale, mask, sinks, as _attention_int8 takes them.
Tensor attention_over_int8(Inputs in, bool is_causal, double scale, int64_t window, double softcap,
                           int64_t query_start);

inline constexpr int64_t kMostPosition = int64_t{1} << 30;

// Refusals; `op` begins the message and ends in ": ".
void check_attention_shapes(const char* op, const Tensor& query, const Tensor& key, const Tensor& value);
void check_attention_dtypes(const char* op, const Tensor& query, const Tensor& key, const Tensor& value);
void check_attention_positions(const char* op, int64_t queries, int64_t keys, int64_t window, int64_t query_start);
bool fits_attention(DType mask, DType query);  // bool, float32 or the query's own
void check_attention_mask_dtype(DType mask, DType query);
void check_attention_mask(const char* op, const Tensor& mask, DType dtype, const Dims& scores);
void check_attention_sinks(const char* op, const Tensor& sinks, int64_t heads);
bool broadcasts_to(const Dims& from, const Dims& to);
inline Dims score_sizes(const Tensor& q, const Tensor& k) { return {q.size(0), q.size(1), q.size(2), k.size(2)}; }

// What the backward kernels read beside the operands.
struct AttentionBackwardInputs {
  Tensor grad, lse, delta;
  AttentionBackwardInputs(const Tensor& grad_out, const Tensor& grad_lse, const Tensor& out, const Tensor& logs)
      : grad(grad_out.defined() ? dense_rows(grad_out, out.dtype()) : Tensor::empty(out.sizes(), out.dtype())),
        lse(dense(logs, computing_type(out.dtype()))),
        delta(Tensor::empty(lse.sizes(), lse.dtype())) {
    if (!grad_out.defined()) std::memset(grad.data_ptr(), 0, static_cast<size_t>(grad.numel()) * size_of(grad.dtype()));
    const Tensor y = dense_rows(out, out.dtype()),
                 by_lse = grad_lse.defined() ? dense(grad_lse, lse.dtype()) : Tensor();
    kernels::attention_delta(grad.view(), y.view(), by_lse.defined() ? by_lse.view() : View(), delta.view());
  }
};

// The result and the logarithm of the denominators. The result lies in memory in the query's order, as PyTorch's: where
// heads were split off by a view, putting them side by side again copies nothing.
inline std::array<Meta, 2> attention_results(const Tensor& query, const Tensor& value) {
  const int64_t batch = query.size(0), heads = query.size(1), length = query.size(2), width = value.size(3);
  const Dims sizes{batch, heads, length, width};
  Dims strides;
  if (numel_of(sizes) > 0) strides = preserved_strides(sizes, query.strides());
  if (!strides.empty() && strides.back() != 1) strides = {};
  return {Meta{query.dtype(), sizes, strides}, Meta{computing_type(query.dtype()), {batch, heads, length}}};
}

// The gradient of an operand, in the operand's own order where its rows are dense: then what undoes the views that led
// to the operand copies nothing either.
inline Meta attention_gradient(const Tensor& operand) {
  const Dims strides = preserved_strides(operand.sizes(), operand.strides());
  return strides.back() == 1 ? Meta{operand.dtype(), operand.sizes(), strides} : operand.meta();
}

inline Tensor or_zeros(const Tensor& grad, const Tensor& of) { return grad.defined() ? grad : zeros_like(of); }

}  // namespace deepseek
