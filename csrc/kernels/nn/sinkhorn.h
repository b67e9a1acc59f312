// Square matrices of positive weights brought near doubly stochastic ones (Sinkhorn and Knopp, 1967).
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// Of every matrix of logits [matrices, n, n]: w = softmax(logits, last dim) + eps, then columns and rows are divided by
// their sum + eps in turn, columns first: w / (column sums + eps), and rounds - 1 times w / (row sums + eps), w /
// (column sums + eps). f32 or f64, contiguous; a matrix has the same bits alone and beside others.
void sinkhorn(const View& logits, int64_t rounds, double eps, const View& out);
// The gradient of the logits, from that of the result. The steps are computed anew: the tape holds the logits alone.
void sinkhorn_backward(const View& grad, const View& logits, int64_t rounds, double eps, const View& by_logits);

}  // namespace deepseek::kernels
