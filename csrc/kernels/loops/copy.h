// Strided copy with dtype conversion, and fill.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// out and in have the same sizes (broadcast by stride 0 in `in`); the memory may not overlap unless it is identical.
void copy(const View& out, const View& in);

// Every element of out := *value, which has dtype `from`.
void fill(const View& out, const void* value, DType from);

}  // namespace deepseek::kernels
