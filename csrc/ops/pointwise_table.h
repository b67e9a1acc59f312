// The pointwise ops by their kernels, for who knows an op without calling it: in-place operators, the jit.
#pragma once

#include "core/op.h"
#include "kernels/pointwise/pointwise.h"

namespace deepseek {

const OpDef& pointwise_op(kernels::Pointwise op);

}  // namespace deepseek
