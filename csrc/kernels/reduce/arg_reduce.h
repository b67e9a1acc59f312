// Position of the largest or smallest element along a dimension: the first one wins, and NaN (the first NaN) beats all.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// out: int64, the sizes of `in` with 1 at `dim`. Over all elements: hand in a 1-d view and dim 0.
void arg_reduce(const View& out, const View& in, int dim, bool is_max);
inline void argmax(const View& out, const View& in, int dim) { arg_reduce(out, in, dim, true); }
inline void argmin(const View& out, const View& in, int dim) { arg_reduce(out, in, dim, false); }

// The element itself too; values has the dtype of `in`.
void min_max_with_index(const View& values, const View& indices, const View& in, int dim, bool is_max);

}  // namespace deepseek::kernels
