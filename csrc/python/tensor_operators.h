// What Python's operators do with a Tensor: arithmetic, comparisons, bool(), int(), float() and use as an index.
#pragma once

#include <vector>

#include "python/slots.h"

namespace deepseek::python {

// Adds the type's slots for them.
void add_operators(std::vector<Slot>& slots);

}  // namespace deepseek::python
