// Strided copy with dtype conversion, and fill.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// out and in have the same sizes (broadcast by stride 0 in `in`); the memory may not overlap unless it is identical.
void copy(const View& out, const View& in);

// Of the last two dims, what stands in columns row + least <= column < row + most; zeros elsewhere.
void copy_band(const View& out, const View& in, int64_t least, int64_t most);

// Every element of out := *value, which has dtype `from`.
void fill(const View& out, const void* value, DType from);

}  // namespace deepseek::kernels
