// Reductions over any set of dimensions. `out` always has the rank of `in` with size 1 in the reduced dimensions;
// strides are free on both sides. Results depend on the reduced values and their count only (reduce_plan.h tells the
// tree).
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

enum class ReduceOp { kSum, kProd, kMin, kMax, kAny, kAll };

// kSum, kProd: inputs are converted to the type arithmetic on out.dtype is done in (float for 16-bit floats, int64 for
// all integers), then reduced, then stored; an empty reduction gives 0 or 1. kMin, kMax: out.dtype == in.dtype, NaN
// wins, the reduced length must not be 0. kAny, kAll: any dtype in, nonzero (NaN included) is true; out bool or uint8.
void reduce(ReduceOp op, const View& out, const View& in);

// Mean, and variance divided by max(0, n - correction), by two passes in double. Either view may have data == nullptr.
void var_mean(const View& var_out, const View& mean_out, const View& in, double correction);

// (sum |x|^p)^(1/p); p = 0 counts nonzeros, p = +-inf takes the largest or smallest |x|. Arithmetic as for kSum.
void norm_p(const View& out, const View& in, double p);

// log(sum(exp(x))), safe against overflow; -inf for an empty reduction.
void logsumexp(const View& out, const View& in);

}  // namespace deepseek::kernels
