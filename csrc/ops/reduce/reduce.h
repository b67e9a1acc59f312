// Shape rules of reductions, shared by the op files that reduce.
#pragma once

#include "kernels/pointwise/pointwise.h"
#include "ops/ops.h"

namespace deepseek {

// Bit d set: dim d is reduced. None and () mean all dims.
unsigned reduced_mask(const char* op, const Opt<Dims>& dim, int ndim);
Dims reduced_sizes(const Dims& sizes, unsigned mask, bool keepdim);
int64_t reduced_count(const Dims& sizes, unsigned mask);
// A contiguous reduced result seen with size-1 dims where `sizes` was reduced.
View keepdim_view(const Tensor& out, const Dims& sizes, unsigned mask);
// NotImplementedError for 8-bit floats.
void check_reducible(const char* op, DType t);
// A reduced result at a shape that broadcasts against the input.
Tensor kept(const Tensor& y, const Dims& sizes, const Opt<Dims>& dim, bool keepdim);
// The vjp of ops that return (selected values, their indices along dim): scatter the gradient to those places.
Tensor value_selecting_vjp(const Vjp& c, int64_t dim, bool keepdim);

}  // namespace deepseek
