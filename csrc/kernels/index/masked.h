// Ops whose result size depends on values: nonzero, masked_select, masked_scatter. Elements are taken in row-major
// order.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

int64_t count_nonzero(const View& in);  // NaN is nonzero
// Memory that comes from outside as bool: refuses bytes that are neither 0 nor 1, which arithmetic would take as
// numbers.
void check_bools(const char* op, const View& in);
// out: int64, contiguous [count_nonzero(in), in.ndim()].
void nonzero(const View& out, const View& in);
// out: contiguous, count_nonzero(mask) elements of in's dtype; in and mask (bool) have the same sizes.
void masked_select(const View& out, const View& in, const View& mask);
// out[mask] = the first count_nonzero(mask) elements of src, which is contiguous.
void masked_scatter(const View& out, const View& mask, const View& src);

}  // namespace deepseek::kernels
