// What forms of attention share.
#pragma once

#include <array>
#include <cstring>

#include "kernels/attention.h"
#include "ops/operands.h"

namespace deepseek {

// Of [B, H, L, E], [B, K, S, E] and [B, K, S, V] with a bool mask that broadcasts to [B, H, L, S], in plain ops: the
// result and the logarithm of the denominators. window 0: all keys.
TensorList attention_in_plain_ops(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                                  bool is_causal, double scale, int64_t window, int64_t query_start);

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

// The result and the logarithm of the denominators.
inline std::array<Meta, 2> attention_results(const Tensor& query, const Tensor& value) {
  const Tensor& q = query;
  return {Meta{q.dtype(), {q.size(0), q.size(1), q.size(2), value.size(3)}},
          Meta{computing_type(q.dtype()), {q.size(0), q.size(1), q.size(2)}}};
}

inline Tensor or_zeros(const Tensor& grad, const Tensor& of) { return grad.defined() ? grad : zeros_like(of); }

}  // namespace deepseek
