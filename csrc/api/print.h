// Text of a tensor: nested rows as in Python, large tensors with their first and last three entries of each dim.
#pragma once

#include <ostream>

#include "core/tensor.h"

namespace deepseek {

std::ostream& operator<<(std::ostream& out, const Tensor& t);

}  // namespace deepseek
