// Activations as an attribute of fused ops, and as the ops they are (kernels/pointwise/activations.h).
#pragma once

#include "kernels/pointwise/activations.h"
#include "ops/ops.h"

namespace deepseek {

// Null for "none"; ValueError, which `op` begins, when there is none of this name.
const kernels::Activation* find_activation(const char* op, const Str& name);
// The one that this op is, or null.
const kernels::Activation* activation_of(const OpDef& def);
// The result of its op; x itself where `a` is null.
Tensor activated(const kernels::Activation* a, const Tensor& x);

}  // namespace deepseek
