// Softmax cross-entropy over rows of class scores, fused: no [N, C] intermediate. Arithmetic in float, or double for
// f64.
#pragma once

#include <cstdint>

#include "base/view.h"

namespace deepseek::kernels {

struct CrossEntropyArgs {
  const void* weight = nullptr;  // C class weights in the computing type (float; double for f64), or null
  int64_t ignore_index = -100;
  double label_smoothing = 0;
};

// Raises IndexError ("Target 7 is out of bounds.") for a target that is neither a class nor ignore_index.
void check_targets(const View& target, int64_t classes, int64_t ignore_index);

// logits [N, C] contiguous rows (f32, f64, bf16, f16), target [N] int64 contiguous. loss[N] (weighted, 0 where ignored)
// and lse[N] = log sum exp of the row, both in the computing type.
void cross_entropy_forward(const View& logits, const View& target, const CrossEntropyArgs& args, void* loss, void* lse);

// grad_logits = d(sum_n grad[n * grad_stride] * loss[n]) / d logits, in the dtype of logits; ignored rows are 0.
void cross_entropy_backward(const View& grad_logits, const View& logits, const View& target,
                            const CrossEntropyArgs& args, const void* lse, const void* grad, int64_t grad_stride);

// Sum of the targets' weights without ignored ones: the divisor of the mean.
double cross_entropy_total_weight(const View& target, const CrossEntropyArgs& args, DType logits_dtype);

}  // namespace deepseek::kernels
