// What forms of attention share.
#pragma once

#include "ops/ops.h"

namespace deepseek {

// Of [B, H, L, E], [B, K, S, E] and [B, K, S, V] with a bool mask that broadcasts to [B, H, L, S], in plain ops: the
// result and the logarithm of the denominators. window 0: all keys.
TensorList attention_in_plain_ops(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                                  bool is_causal, double scale, int64_t window, int64_t query_start);

}  // namespace deepseek
