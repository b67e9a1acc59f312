// Layer norm and RMS norm over rows. Every view but the vectors is [rows, n] and contiguous; weight and bias are [n]
// contiguous of any float dtype, absent when data == nullptr. mean and rstd are [rows]: float64 when the input is, else
// float32. Arithmetic is float (double for float64); sums follow the tree of reduce_plan.h.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// y = (x - mean) * rstd * weight + bias with rstd = 1 / sqrt(var + eps), var biased. mean and rstd may be absent.
void layer_norm(const View& out, const View& mean, const View& rstd, const View& in, const View& weight,
                const View& bias, double eps);

// Any of the three gradients may be absent. The vectors' gradients add up blocks of 64 rows, merged pairwise.
void layer_norm_backward(const View& grad_in, const View& grad_weight, const View& grad_bias, const View& grad,
                         const View& in, const View& mean, const View& rstd, const View& weight);

// y = x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + eps). rstd may be absent.
void rms_norm(const View& out, const View& rstd, const View& in, const View& weight, double eps);

// `add` (absent: zero) is added to grad_in before it is rounded.
void rms_norm_backward(const View& grad_in, const View& grad_weight, const View& grad, const View& in, const View& rstd,
                       const View& weight, const View& add = {});

// sum = in + residual, rounded to sum's dtype, and y = rms_norm(sum), in one pass over both. in and residual may be of
// different float dtypes, f64 only if sum is.
void add_rms_norm(const View& out, const View& sum, const View& rstd, const View& in, const View& residual,
                  const View& weight, double eps);

}  // namespace deepseek::kernels
