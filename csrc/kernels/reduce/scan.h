// Running sums, products and extremes along one dimension. A line is scanned in order by one thread.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// Inputs are converted to the type arithmetic on out.dtype is done in; float sums run in double and are rounded per
// element.
void cumsum(const View& out, const View& in, int dim);
void cumprod(const View& out, const View& in, int dim);
// log(cumsum(exp(x))) without overflow.
void logcumsumexp(const View& out, const View& in, int dim);

// values has the dtype of `in`, indices is int64. The latest of equal elements and the latest NaN are named, as in
// PyTorch.
void cummax(const View& values, const View& indices, const View& in, int dim);
void cummin(const View& values, const View& indices, const View& in, int dim);

}  // namespace deepseek::kernels
