// What the jit joins to one call (jit/fuse.cc).
#pragma once

#include "core/op.h"

namespace deepseek {

const OpDef& linear_op();
const OpDef& linear_fused_op();  // attributes: activation, combine

}  // namespace deepseek
