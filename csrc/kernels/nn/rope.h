// Rotary position embedding: rows of pairs turned by the angles of a table. Floating dtypes, any strides.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// (a, b) -> (a cos - b sin, b cos + a sin) for the pairs (i, i + D / 2) of every row of in [..., D], or (2 i, 2 i + 1)
// when interleaved. out has the dtype and sizes of in. cos and sin are views of sizes [..., D / 2], broadcast by
// strides of 0 in all dims but the last, whose stride is 1. Their dtype is the computing type: float, double for f64.
void rope(const View& out, const View& in, const View& cos, const View& sin, bool interleaved);

}  // namespace deepseek::kernels
