// Attention to selected keys, each query its own (DeepSeek sparse attention): the heads of a query are the rows of
// products with tiles of keys gathered for it.
//
// Equal, bit for bit, to attention.h over the selected keys alone, put side by side in ascending order; to rounding, to
// attention.h under a mask. Order and repetition of the indices say nothing.
#pragma once

#include "kernels/attention/attention.h"

namespace deepseek::kernels {

// indices: int64 [B, L, n], contiguous: the keys of a query, for all its heads; -1 selects nothing. `a` has neither
// mask, sinks, soft-cap nor dropout. Results as those of attention_forward.
void token_sparse_forward(const Attention& a, const View& indices, const View& out, const View& lse);
// The gradients of attention.h under the mask of the selection. Ranges of 512 keys are apart: of q a chain over the
// query's keys in ascending order (bf16: of pairs of those of a range), of k and v one over the queries and their
// heads.
void token_sparse_backward(const Attention& a, const View& indices, const View& grad_out, const View& lse,
                           const View& delta, const View& dq, const View& dk, const View& dv);

// The slow twins, in double, by the mask.
void token_sparse_forward_plain(const Attention& a, const View& indices, const View& out, const View& lse);
void token_sparse_backward_plain(const Attention& a, const View& indices, const View& grad_out, const View& lse,
                                 const View& delta, const View& dq, const View& dk, const View& dv);

// The first index below -1 or not below `keys`, else -1.
int64_t wrong_token(const View& indices, int64_t keys);
// bool [B, L, S], contiguous.
void token_mask(const View& indices, int64_t keys, const View& mask);

}  // namespace deepseek::kernels
