// Writing into tensors that exist: the other half of the choke point.
#pragma once

#include "core/op.h"

namespace deepseek {

// self := op(self, ...) with PyTorch's meaning through every alias and view.
void dispatch_inplace(const OpDef& def, const void* op, Inputs in);
// target := value, recorded as a write when gradients are on (copy_).
void write_into(const Tensor& target, const Tensor& value, const char* op);

}  // namespace deepseek
