// Writing into tensors that exist: the other half of the choke point.
#pragma once

#include "core/op.h"

namespace deepseek {

// self := op(self, ...) with PyTorch's meaning through every alias and view.
void dispatch_inplace(const OpDef& def, const void* op, Inputs in);
// target := value, recorded as a write when gradients are on (copy_).
void write_into(const Tensor& target, const Tensor& value, const char* op);

// Around the kernel of an op whose schema says what it writes to: an optimizer's step. It has no derivative, so nothing
// that records gradients may be given to it. Each written tensor must be one that may be written; its version moves.
void before_declared_writes(const OpDef& def, Inputs in);
void after_declared_writes(const OpDef& def, Inputs in);

}  // namespace deepseek
