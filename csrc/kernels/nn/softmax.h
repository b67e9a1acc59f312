// Softmax over one dimension and its gradients. f32, f64, bf16, f16; 16-bit floats compute in float; any strides.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// All views of one call have the same sizes; in.dtype may differ from out.dtype (converted on load). A row of -inf, or
// one that holds NaN or +inf, gives NaN as in PyTorch.
void softmax(const View& out, const View& in, int dim);
void log_softmax(const View& out, const View& in, int dim);

// y is the forward result. softmax: y * (g - sum(g * y)); log_softmax: g - exp(y) * sum(g).
void softmax_backward(const View& grad_in, const View& grad, const View& y, int dim);
void log_softmax_backward(const View& grad_in, const View& grad, const View& y, int dim);

}  // namespace deepseek::kernels
