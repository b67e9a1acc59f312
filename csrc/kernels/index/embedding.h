// Embedding look-up and its weight gradient.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// out[i, :] = weight[index[i], :]. out [n, d] contiguous, weight [rows, d] with contiguous rows, index contiguous with
// n elements.
void embedding(const View& out, const View& weight, const View& index);

// grad_weight[r, :] = sum of grad[i, :] over i with index[i] == r, in order of i (times 1 / count when scale_by_freq);
// rows with no index become 0, and so does row padding_idx (-1: none). grad [n, d] contiguous; small floats are summed
// in float. `add`: rows with an index are added to what is there instead, others stay.
void embedding_backward(const View& grad_weight, const View& grad, const View& index, int64_t padding_idx = -1,
                        bool scale_by_freq = false, bool add = false);

}  // namespace deepseek::kernels
