// What adding zeros does to numbers.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// x + 0: makes 0 of -0, which is rare, so that memory is read and hardly ever written. `x` is dense, in any order of
// its dims.
void add_zero(const View& x);

}  // namespace deepseek::kernels
