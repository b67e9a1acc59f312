// What every pointwise op shares: dtype and shape rules by name, and the call into the kernel.
#pragma once

#include "kernels/pointwise/pointwise.h"
#include "ops/ops.h"

namespace deepseek {

using kernels::Rule;

Meta pointwise_meta(const OpInfo& info, Rule rule, Inputs in);
void pointwise_eval(kernels::Pointwise op, Rule rule, Inputs in, const Tensor& out);

// The op of pointwise.def that this kernel computes.
const OpDef& pointwise_op(kernels::Pointwise op);

}  // namespace deepseek
